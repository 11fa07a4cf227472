//! Compiling at once what nothing is known of, and finding out its key afterwards: a compile that nobody has done before
//! costs hardly more than without us.
//!
//! What has been read shows in what the compile leaves ([`Watch`]); where it doesn't, the preprocessor is run after all,
//! later instead of earlier. The result is then kept as if it had been looked for.

use std::ffi::OsString;
use std::path::Path;

use crate::answering::{Answered, Answering, Source, run_here};
use crate::clock::Start;
use crate::dependencies::{Unclear, Watch};
use crate::local::Platform;
use crate::prepare::{Prepared, Understood};
use crate::reason::Reason;
use crate::tiers::Stack;

/// Compiles, and keeps what comes of it.
pub fn answer(
    compiler: &Path,
    arguments: &[OsString],
    mut call: Understood,
    start: &Start,
    stack: Stack<'_>,
) -> Answered {
    let (ran, closure) = {
        let watch = Watch::new(&call.compile, &call.memory.toolchain, &call.place, start);
        let words = watch.as_ref().map(Watch::words).unwrap_or_default();
        let words: Vec<OsString> = arguments.iter().cloned().chain(words).collect();
        let ran = match run_here(compiler, &words, &call) {
            Ok(ran) if ran.status.success() => ran,
            Ok(ran) => return stack.answered(Source::LocalRun, Platform::exit_code(ran.status), false),
            Err(code) => return stack.answered(Source::LocalRun, code, false),
        };
        let closure = watch.map(|watch| watch.gather(&mut call.memory));
        (ran, closure.unwrap_or(Err(Unclear::UntilPreprocessed("not watched"))))
    };
    call.memory.save();
    let code = Platform::exit_code(ran.status);
    let is_preprocessed = if let Err(Unclear::UntilPreprocessed(why)) = &closure {
        tracing::debug!(why, "preprocessing after compiling");
        true
    } else {
        false
    };
    let prepared: Result<Prepared, Reason> = match closure {
        Ok(closure) => call.with(closure),
        Err(Unclear::UntilPreprocessed(_)) => call.prepare_since(start),
        Err(Unclear::Refused(reason)) => Err(reason),
    };
    match prepared {
        Ok(prepared) => {
            let mut answering = Answering { compiler, arguments, prepared: &prepared, stack, inputs: None };
            answering.keep_what_came(ran);
            answering.stack.answered(Source::LocalRun, code, is_preprocessed)
        }
        Err(reason) => {
            Answered { refused: Some(reason), ..stack.answered(Source::LocalRun, code, is_preprocessed) }
        }
    }
}
