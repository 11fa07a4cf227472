//! Something to compile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_tests::{Finished, finish};

const COMPILE_MAX: Duration = Duration::from_secs(120);

/// How many files there are.
pub(crate) const FILES: usize = 3;

/// Files of C++ with a header of their own, and what the compiler makes of them.
pub(crate) struct Sources {
    folder: PathBuf,
    objects: Vec<Vec<u8>>,
}

impl Sources {
    /// Writes the files, and compiles them without any cache.
    pub(crate) fn write(folder: &Path) -> Self {
        fs::write(folder.join("table.h"), "#pragma once\n#include <vector>\nstd::vector<int> table(int);\n")
            .unwrap();
        let mut sources = Self { folder: folder.to_owned(), objects: Vec::new() };
        for number in 0..FILES {
            // The second is large, so that its object is, too.
            let cells = if number == 1 { 400_000 } else { 10 };
            let text = format!(
                "#include \"table.h\"\nint const cells_{number}[{cells}] = {{{number} + 1, 2, 3}};\n\
                 std::vector<int> table(int count) {{ return std::vector<int>(count, cells_{number}[0]); }}\n"
            );
            fs::write(folder.join(format!("{number}.cc")), text).unwrap();
            finish(sources.compile(Command::new("g++"), number), COMPILE_MAX).must_succeed("g++");
            sources.objects.push(sources.object(number));
        }
        sources
    }

    fn object(&self, number: usize) -> Vec<u8> {
        fs::read(self.folder.join(format!("{number}.o"))).unwrap()
    }

    fn compile(&self, mut command: Command, number: usize) -> Command {
        let (source, object) = (format!("{number}.cc"), format!("{number}.o"));
        command.current_dir(&self.folder).args(["-O1", "-c", &source, "-o", &object]);
        command
    }

    /// Compiles every file through a cache, and checks that the objects are the compiler's.
    pub(crate) fn compile_through(&self, cache: impl Fn() -> Command) {
        for (number, expected) in self.objects.iter().enumerate() {
            fs::remove_file(self.folder.join(format!("{number}.o"))).unwrap();
            let mut command = cache();
            command.arg("g++");
            finish(self.compile(command, number), COMPILE_MAX).must_succeed("a compile through a cache");
            assert!(self.object(number) == *expected, "{number}.o is another");
        }
    }
}

/// Runs a command of a cache itself, such as one for its statistics.
pub(crate) fn run(mut command: Command, arguments: &[&str]) -> Finished {
    command.args(arguments);
    let done = finish(command, COMPILE_MAX);
    done.must_succeed(&arguments.join(" "));
    done
}
