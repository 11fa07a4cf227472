//! What a hit costs: the wrapper (local and remote) against `ccache` and against the compiler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use castwork_tests::Farm;

use crate::contest::{Contestant, Score, hold};
use crate::table;

/// A C file that takes nearly no time: what is measured is the tool around the compiler.
const TINY_C: &str = "int answer(void) { return 42; }\n";

/// A C++ file with some 240 headers, as real ones have.
const HEADERS_CPP: &str = "\
#include <iostream>
#include <map>
#include <regex>
#include <string>

bool is_name(const std::string &text) {
    static const std::regex name(\"[a-z_][a-z0-9_]*\");
    return std::regex_match(text, name);
}

int main(int argc, char **argv) {
    std::map<std::string, int> seen;
    for (int at = 1; at < argc; ++at)
        seen[argv[at]] += is_name(argv[at]);
    for (const auto &[text, count] : seen)
        std::cout << text << ' ' << count << '\\n';
}
";

/// Measures both files and returns Markdown.
///
/// # Errors
/// What could not be started, written or compiled.
pub fn run(castwork: &Path, ccache: Option<&Path>, rounds: usize) -> Result<String, String> {
    let farm = Farm::start(1, 2);
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let mut text = String::new();
    for (what, compiler, source, code) in [
        ("tiny C file", "gcc", "tiny.c", TINY_C),
        ("C++ file with 240 headers", "g++", "headers.cc", HEADERS_CPP),
    ] {
        let work = Work { folder: folder.path(), compiler, source, remote: &farm.address() };
        fs::write(folder.path().join(source), code).map_err(|error| format!("write `{source}`: {error}"))?;
        let scores = work.hold(castwork, ccache, rounds)?;
        work.check(castwork, "local", "local_hits", rounds)?;
        work.check(castwork, "remote", "remote_hits", rounds)?;
        text += &table::scores(what, &scores);
        text.push('\n');
    }
    Ok(text)
}

/// One file, and how it is compiled.
struct Work<'a> {
    folder: &'a Path,
    compiler: &'a str,
    source: &'a str,
    remote: &'a str,
}

impl Work<'_> {
    fn hold(&self, castwork: &Path, ccache: Option<&Path>, rounds: usize) -> Result<Vec<Score>, String> {
        let mut contestants = vec![self.contestant(self.compiler.to_owned(), || self.compile(None))];
        if let Some(ccache) = ccache {
            contestants.push(self.contestant("ccache, hit".to_owned(), || {
                let mut command = self.compile(Some(ccache));
                command.env("CCACHE_DIR", self.folder.join("ccache")).env("CCACHE_CONFIGPATH", "/dev/null");
                command
            }));
        }
        contestants.push(
            self.contestant("castwork, local hit".to_owned(), || self.castwork(castwork, "local", None)),
        );
        let mut remote = self.contestant("castwork, remote hit".to_owned(), || {
            self.castwork(castwork, "remote", Some(self.remote))
        });
        remote.prepare = Box::new(|| {
            // What the cache has, but not what it knows of the compiler: that is found out once a machine.
            remove(&self.cache("remote").join("cache"))?;
            remove(&self.output())
        });
        contestants.push(remote);
        hold(&mut contestants, rounds)
    }

    fn contestant<'c>(&'c self, name: String, command: impl FnMut() -> Command + 'c) -> Contestant<'c> {
        Contestant { name, prepare: Box::new(|| remove(&self.output())), command: Box::new(command) }
    }

    fn output(&self) -> PathBuf {
        self.folder.join("out.o")
    }

    fn compile(&self, wrapper: Option<&Path>) -> Command {
        let mut command = wrapper.map_or_else(
            || Command::new(self.compiler),
            |wrapper| {
                let mut command = Command::new(wrapper);
                command.arg(self.compiler);
                command
            },
        );
        command.current_dir(self.folder).args(["-O2", "-c", self.source, "-o", "out.o"]);
        command
    }

    fn castwork(&self, castwork: &Path, cache: &str, remote: Option<&str>) -> Command {
        let mut command = self.compile(Some(castwork));
        command
            .env("CASTWORK_DIR", self.cache(cache))
            .env("CASTWORK_CONFIG", "/dev/null")
            .env("CASTWORK_REMOTE", remote.unwrap_or(""));
        command
    }

    /// The folder of a local cache, another one for each source.
    fn cache(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-{}", self.source))
    }

    /// Fails unless the wrapper counted a hit of this kind in each round: else another thing was timed.
    fn check(&self, castwork: &Path, cache: &str, counter: &str, rounds: usize) -> Result<(), String> {
        let mut command = Command::new(castwork);
        command.args(["stats", "--json"]).env("CASTWORK_CONFIG", "/dev/null");
        command.env("CASTWORK_DIR", self.cache(cache)).env_remove("CASTWORK_REMOTE");
        let output = command.output().map_err(|error| format!("start `castwork stats`: {error}"))?;
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("read what `castwork stats --json` printed: {error}"))?;
        if stats[counter].as_u64() == Some(rounds as u64) {
            return Ok(());
        }
        Err(format!(
            "`{}`: {rounds} rounds should be as many `{counter}`, but it counted {stats}",
            self.source
        ))
    }
}

/// Removes a file or folder that may be absent.
fn remove(path: &Path) -> Result<(), String> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("remove `{}`: {error}", path.display()))
        }
        _ => Ok(()),
    }
}
