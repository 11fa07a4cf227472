//! What may be passed on to the linker: it reads no files then that it doesn't tell of, and writes no others.

use crate::reason::Reason;

/// What may be told to gcc, by its beginning.
const ALLOWED: [&str; 11] = [
    "-l",
    "-static",
    "-static-pie",
    "-pie",
    "-no-pie",
    "-pthread",
    "-rdynamic",
    "-shared",
    "-m64",
    "-m32",
    "-nostartfiles",
];

/// What stands before words for the linker itself.
const FOR_LINKER: &str = "-Wl,";

/// What may be told to that.
const ALONE: [&str; 38] = [
    "--allow-multiple-definition",
    "--allow-shlib-undefined",
    "--as-needed",
    "--build-id",
    "--build-id=md5",
    "--build-id=none",
    "--build-id=sha1",
    "--disable-new-dtags",
    "--eh-frame-hdr",
    "--enable-new-dtags",
    "--end-group",
    "--export-dynamic",
    "--gc-sections",
    "--icf=all",
    "--icf=none",
    "--icf=safe",
    "--no-allow-shlib-undefined",
    "--no-as-needed",
    "--no-gc-sections",
    "--no-undefined",
    "--no-whole-archive",
    "--pop-state",
    "--push-state",
    "--start-group",
    "--strip-all",
    "--strip-debug",
    "--whole-archive",
    "-Bdynamic",
    "-Bstatic",
    "-Bsymbolic",
    "-Bsymbolic-functions",
    "-E",
    "-O0",
    "-O1",
    "-O2",
    "-S",
    "-pie",
    "-s",
];

/// The same with a value, behind `=` or a comma.
const WITH_VALUE: [&str; 7] =
    ["--compress-debug-sections", "--hash-style", "--rpath", "--soname", "-rpath", "-soname", "-z"];

/// Checks what the linker is told beyond what rustc tells it.
///
/// # Errors
/// The reason to pass the call through.
pub fn check(words: &[String]) -> Result<(), Reason> {
    let mut has_value = false;
    for word in words {
        let is_allowed = match word.strip_prefix(FOR_LINKER) {
            Some(rest) => rest.split(',').all(|word| is_for_linker(word, &mut has_value)),
            None => {
                !has_value
                    && !word.starts_with("-l:")
                    && ALLOWED.iter().any(|allowed| word.starts_with(allowed))
            }
        };
        if !is_allowed {
            return Err(Reason::of(format!("linking with `{word}`")));
        }
    }
    if has_value { Err("linking with a flag without its value".into()) } else { Ok(()) }
}

/// Whether a word may be told to the linker; and if it is the value of the one before it, or will have one.
fn is_for_linker(word: &str, has_value: &mut bool) -> bool {
    if std::mem::take(has_value) {
        return !word.is_empty() && !word.starts_with(['-', '@']);
    }
    *has_value = WITH_VALUE.contains(&word);
    let before = word.split_once('=').map(|(before, _)| before);
    *has_value || ALONE.contains(&word) || before.is_some_and(|before| WITH_VALUE.contains(&before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_is_told_only_what_is_known() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
        for line in [
            "-Wl,--as-needed -lm -Wl,-z,relro,-z,now",
            "-Wl,-rpath,$ORIGIN/../lib",
            "-Wl,-soname -Wl,libx.so",
            "-Wl,--build-id=sha1 -static-pie",
        ] {
            assert!(check(&words(line)).is_ok(), "{line}");
        }
        for line in [
            "-Wl,--why-extract=f",
            "-Wl,--print-archive-stats=f",
            "-Wl,--build-id=uuid",
            "-Wl,-rpath",
            "-Wl,-rpath,@f",
            "-Wl,-rpath -lm",
            "-Wl,-o,f",
            "-l:x.o",
            "-fuse-ld=mold",
            "x.o",
        ] {
            assert!(check(&words(line)).is_err(), "{line}");
        }
    }
}
