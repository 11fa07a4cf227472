//! `castwork`.

use std::process::ExitCode;

fn main() -> ExitCode {
    castwork::main(std::env::args_os()).into()
}
