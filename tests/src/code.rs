//! [`Code`]: many small C++ files, and compiling them through the wrapper as `make -j8` does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use tempfile::TempDir;

use crate::{Event, binary, each, finish, have};

/// Compiles at a time.
const JOBS: usize = 8;
/// Far above what one compile takes, whatever is killed meanwhile.
pub const COMPILE_MAX: Duration = Duration::from_secs(5 * 60);

/// A number that a long form of a test sets in the environment.
///
/// # Panics
/// If it is none.
pub fn number(variable: &str, default: usize) -> usize {
    env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("`{variable}` is no number")))
}

/// A folder of small C++ files.
#[derive(Debug)]
pub struct Code {
    /// How many files.
    pub files: usize,
    sources: Vec<String>,
    folder: TempDir,
    race_after: String,
}

impl Code {
    /// Writes it, with as many files as `CASTWORK_TESTS_FILES` says.
    ///
    /// # Panics
    /// As [`Code::with`].
    pub fn new(test: &str) -> Option<Self> {
        Self::with(test, number("CASTWORK_TESTS_FILES", 60))
    }

    /// Writes so many files. `None` if there is no compiler; the test is skipped then.
    ///
    /// # Panics
    /// If the files can't be written.
    pub fn with(test: &str, files: usize) -> Option<Self> {
        if !have(test, "g++") {
            return None;
        }
        let folder =
            tempfile::Builder::new().prefix("castwork-code-").tempdir().expect("keep the files of a test");
        fs::write(folder.path().join("shared.h"), SHARED_H).expect("keep the files of a test");
        let sources: Vec<String> = (0..files).map(|file| format!("part_{file}.cc")).collect();
        for (file, source) in sources.iter().enumerate() {
            fs::write(folder.path().join(source), part(file)).expect("keep the files of a test");
        }
        Some(Self { files, sources, folder, race_after: "never".to_owned() })
    }

    /// The same, compiled here too when a server has had so many seconds.
    #[must_use]
    pub fn racing_after(self, seconds: &str) -> Self {
        Self { race_after: seconds.to_owned(), ..self }
    }

    /// Compiles everything with plain `g++`, then through the wrapper with an empty local cache, and `then` is called
    /// when a third of that is done. What comes out has to be the same. Returns the wrapper's counts.
    ///
    /// # Panics
    /// If anything comes out different.
    pub fn compile(&self, remote: &str, run: usize, then: Option<&mut (dyn FnMut() + Send)>) -> Counts {
        let plain = self.plain(run);
        let (ours, cache) = (self.empty("ours"), self.empty("cache"));
        let wrapper = || {
            let mut command = Command::new(binary("castwork"));
            set(&mut command, remote, &cache, self.folder.path());
            command.env("CASTWORK_RACE_AFTER", &self.race_after);
            command
        };
        let event = then.map(|then| Event { after: self.files / 3, then });
        let through = |source: &String| {
            let mut command = wrapper();
            command.arg("g++");
            self.compile_one(command, source, run, &ours);
        };
        each(&self.sources, JOBS, through, event);
        self.compare(&plain, &ours);
        let mut stats = wrapper();
        stats.args(["stats", "--json"]);
        let counted = finish(stats, COMPILE_MAX);
        counted.must_succeed("castwork stats");
        Counts(serde_json::from_str(&counted.stdout).expect("JSON"))
    }

    /// What plain `g++` makes of it in a run; made once.
    ///
    /// # Panics
    /// If it fails.
    pub fn plain(&self, run: usize) -> PathBuf {
        let name = format!("plain-{run}");
        let folder = self.folder.path().join(&name);
        if !folder.exists() {
            let folder = self.empty(&name);
            each(
                &self.sources,
                2,
                |source| self.compile_one(Command::new("g++"), source, run, &folder),
                None,
            );
        }
        folder
    }

    fn compile_one(&self, mut compiler: Command, source: &str, run: usize, into: &Path) {
        let out = |end: &str| into.join(source).with_extension(end);
        compiler.current_dir(self.folder.path());
        compiler.args(["-O1", "-g", "-Wall", "-MD", "-MT", "object"]).arg(format!("-DRUN={run}"));
        compiler.arg("-MF").arg(out("d")).args(["-c", source, "-o"]).arg(out("o"));
        let done = finish(compiler, COMPILE_MAX);
        done.must_succeed(source);
        fs::write(out("messages"), format!("{}{}", done.stdout, done.stderr))
            .expect("keep the files of a test");
    }

    fn compare(&self, plain: &Path, ours: &Path) {
        let content = |folder: &Path, source: &str, end: &str| {
            let path = folder.join(source).with_extension(end);
            fs::read(&path).unwrap_or_else(|error| panic!("read `{}`: {error}", path.display()))
        };
        for source in &self.sources {
            for end in ["d", "messages", "o"] {
                let (plain, ours) = (content(plain, source, end), content(ours, source, end));
                let text = String::from_utf8_lossy;
                assert!(plain == ours || end == "o", "{source}: {}---\n{}", text(&plain), text(&ours));
                assert!(plain == ours, "the object of `{source}` is not the one that g++ makes");
            }
        }
    }

    fn empty(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("keep the files of a test");
        }
        fs::create_dir(&folder).expect("keep the files of a test");
        folder
    }
}

/// What the wrapper counted.
#[derive(Debug)]
pub struct Counts(pub serde_json::Value);

impl Counts {
    /// One of them.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn of(&self, key: &str) -> usize {
        let count = self.0[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {}", self.0));
        usize::try_from(count).expect("a small number")
    }
}

/// The wrapper's settings, and none of the machine's.
fn set(command: &mut Command, remote: &str, cache: &Path, project: &Path) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CASTWORK_") {
            command.env_remove(name);
        }
    }
    command.env("CASTWORK_REMOTE", remote).env("CASTWORK_DIR", cache).env("CASTWORK_CONFIG", "/dev/null");
    command.env("CASTWORK_PROJECT_ROOT", project);
}

/// What every file includes: enough to have something to optimize, and compiled in a few hundredths of a second.
const SHARED_H: &str = "\
#pragma once
template <int N> struct Sum { static constexpr long value = N * RUN + Sum<N - 1>::value; };
template <> struct Sum<0> { static constexpr long value = RUN; };
template <typename T> inline T mix(T a, T b) { return (a << 3) ^ (b >> 1) ^ RUN; }
";

/// A file; every seventh makes the compiler warn.
fn part(number: usize) -> String {
    let warns = if number % 7 == 3 { "    int unused = 1;\n" } else { "" };
    let depth = 20 + number % 40;
    format!(
        "#include \"shared.h\"\n\
         long part_{number}(const long *from, int count) {{\n\
         {warns}    long all = Sum<{depth}>::value;\n\
         \x20   for (int at = 0; at < count; ++at) all = mix(all + {number}, from[at]);\n\
         \x20   return all;\n\
         }}\n"
    )
}
