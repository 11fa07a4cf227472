//! ccache's HTTP storage, in all its layouts, of an old and of the newest version; and its storage helper.

use std::path::{Path, PathBuf};
use std::process::Command;

use castwork_tests::{Farm, binary, environment, have, progress, skip};

use crate::counted;
use crate::sources::{FILES, Sources, run};

/// How ccache can spread its entries over paths.
const LAYOUTS: [&str; 3] = ["flat", "subdirs", "bazel"];

#[test]
fn debians_ccache_finds_what_another_machine_compiled() {
    let test = "ccache (Debian), HTTP storage";
    if have(test, "ccache") && have(test, "g++") {
        check(Path::new("ccache"));
    }
}

#[test]
fn the_newest_ccache_finds_what_another_machine_compiled() {
    let test = "ccache (PyPI), HTTP storage";
    let Some(program) = from_pypi(test) else { return };
    if have(test, "g++") {
        check(&program);
    }
}

#[test]
fn the_newest_ccache_reaches_a_server_through_a_helper_that_it_starts_itself() {
    let test = "ccache (PyPI), storage helper";
    let Some(program) = from_pypi(test) else { return };
    if !have(test, "g++") {
        return;
    }
    let mut farm = Farm::start(0, 1);
    let folder = farm.folder().join("sources");
    std::fs::create_dir(&folder).unwrap();
    let sources = Sources::write(&folder);
    let server = farm.address().replace("grpc://", "castwork://");
    let helper = binary("ccache-storage-castwork");
    let storage = format!("{server} helper={} request-timeout=60s data-timeout=60s", helper.display());
    let machine = |name: &str| {
        let mut command = Command::new(&program);
        command.env("CCACHE_DIR", folder.with_file_name(name)).env("CCACHE_NODEBUG", "1");
        // Where ccache and its helper meet.
        command.env("XDG_RUNTIME_DIR", folder.parent().unwrap()).env_remove("CCACHE_DISABLE");
        command.env("CCACHE_REMOTE_STORAGE", &storage).env("CCACHE_NOCOMPRESS", "1");
        command
    };
    sources.compile_through(|| machine("first"));
    assert_eq!(statistic(machine("first"), "remote_storage_error"), 0);
    assert_eq!(statistic(machine("first"), "remote_storage_hit"), 0);
    farm.scheduler().kill();
    farm.restart_scheduler();
    sources.compile_through(|| machine("second"));
    run(machine("second"), &["--stop-storage-helpers"]);
    assert_eq!(statistic(machine("second"), "remote_storage_error"), 0);
    assert_eq!(statistic(machine("second"), "remote_storage_hit"), FILES);
    assert_eq!(statistic(machine("second"), "cache_miss"), 0);
}

fn from_pypi(test: &str) -> Option<PathBuf> {
    let program = environment("compiler-caches").map(|folder| folder.join("bin/ccache"));
    if program.is_none() {
        skip(test, "ccache is not installed (tests/run does it)");
    }
    program
}

fn check(program: &Path) {
    let mut farm = Farm::start(0, 1);
    let folder = farm.folder().join("sources");
    std::fs::create_dir(&folder).unwrap();
    let sources = Sources::write(&folder);
    for (number, layout) in LAYOUTS.into_iter().enumerate() {
        progress(&format!("layout {layout}"));
        let storage = format!("http://{}/ccache/{layout}|layout={layout}", farm.http());
        let machine = |name: &str| {
            let mut command = Command::new(program);
            let cache = folder.with_file_name(format!("{layout}-{name}"));
            command.env("CCACHE_DIR", cache).env("CCACHE_NODEBUG", "1").env_remove("CCACHE_DISABLE");
            command.env("CCACHE_REMOTE_STORAGE", &storage).env("CCACHE_NOCOMPRESS", "1");
            command
        };
        sources.compile_through(|| machine("first"));
        assert_eq!(statistic(machine("first"), "remote_storage_hit"), 0, "{layout}");
        let stored = counted(&farm, "stored", "ccache");
        assert!(stored >= ((number + 1) * FILES) as u64, "{layout}: {stored} entries");
        if number == 0 {
            farm.scheduler().kill();
            farm.restart_scheduler();
        }
        sources.compile_through(|| machine("second"));
        assert_eq!(statistic(machine("second"), "remote_storage_hit"), FILES, "{layout}");
        assert_eq!(statistic(machine("second"), "remote_storage_error"), 0, "{layout}");
        assert_eq!(statistic(machine("second"), "cache_miss"), 0, "{layout}");
    }
}

/// A number that ccache has counted since it has its cache.
fn statistic(command: Command, name: &str) -> usize {
    let all = run(command, &["--print-stats"]).stdout;
    let row = all.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix('\t')));
    row.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no `{name}` in\n{all}"))
}
