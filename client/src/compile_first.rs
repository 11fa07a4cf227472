//! Compiling at once what nothing is known of, and finding out its key afterwards: a compile that nobody has done before
//! costs hardly more than without us.
//!
//! What has been read shows in what the compile leaves ([`Watch`]); where it doesn't, the preprocessor is run after all,
//! later instead of earlier. The result is then kept as if it had been looked for.

use std::ffi::OsString;
use std::path::Path;

use crate::answering::{Answered, Answering, Source, run_here};
use crate::clock::Start;
use crate::dependencies::{Closure, Watch};
use crate::independence::is_proven;
use crate::local::Platform;
use crate::paths::LEADS_OUT;
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
    let alone = call.place.without_mounts();
    let (ran, found, leads_out) = {
        let watch = Watch::new(&call.compile, &call.memory.toolchain, &call.place, start);
        let words = watch.as_ref().map(Watch::words).unwrap_or_default();
        let words: Vec<OsString> = arguments.iter().cloned().chain(words).collect();
        let slot = stack.slot_here();
        let ran = match run_here(compiler, &words, &call) {
            Ok(ran) if ran.status.success() => ran,
            Ok(ran)
                if watch.as_ref().zip(ran.stderr.as_ref()).is_some_and(|(w, said)| w.is_to_blame(said)) =>
            {
                // A compile never fails because of us.
                let code = run_here(compiler, arguments, &call)
                    .map_or_else(|code| code, |ran| Platform::exit_code(ran.status));
                let refused = Some("compile that can't be watched".into());
                return Answered { refused, ..stack.answered(Source::LocalRun, code, false) };
            }
            Ok(ran) => return stack.answered(Source::LocalRun, Platform::exit_code(ran.status), false),
            Err(code) => return stack.answered(Source::LocalRun, code, false),
        };
        drop(slot);
        let Some(mut watch) = watch else {
            let refused = Some("compile that can't be watched".into());
            return Answered {
                refused,
                ..stack.answered(Source::LocalRun, Platform::exit_code(ran.status), false)
            };
        };
        let found = watch.find(&mut call.memory);
        match (found, &alone) {
            (Err(reason), Some(alone)) if reason == LEADS_OUT => {
                watch.rename(alone);
                (ran, watch.find(&mut call.memory), true)
            }
            (found, _) => (ran, found, false),
        }
    };
    if leads_out {
        call.leave_mounts();
    }
    call.memory.save();
    let code = Platform::exit_code(ran.status);
    let is_preprocessed = found.as_ref().is_ok_and(|(_, is_preprocessed)| *is_preprocessed);
    let prepared: Result<Prepared, Reason> = found.and_then(|(closure, _)| with_proof(call, closure));
    match prepared {
        Ok(prepared) => {
            let mut answering = Answering {
                compiler,
                arguments,
                prepared: &prepared,
                stack,
                inputs: None,
                is_read_afterwards: true,
            };
            answering.keep_what_came(ran);
            answering.stack.answered(Source::LocalRun, code, is_preprocessed)
        }
        Err(reason) => {
            Answered { refused: Some(reason), ..stack.answered(Source::LocalRun, code, is_preprocessed) }
        }
    }
}

/// Makes the action, for every isolated build if that can be proven.
fn with_proof(call: Understood, mut closure: Closure) -> Result<Prepared, Reason> {
    if closure.holds_isolated_alone && is_proven(&call) {
        closure.holds_place = false;
    }
    call.with(closure)
}
