//! `ccache-storage-castwork`, which ccache starts.

use std::process::ExitCode;

fn main() -> ExitCode {
    castwork::crsh::main().into()
}
