//! A build through the wrapper, whose server has no room left: it goes on, and says why nothing is kept there.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use castwork_tests::code::number;
use castwork_tests::{binary, have, progress};

use crate::faults::{fill, small_disk};
use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_out_of_disk_keeps_no_build_from_its_end() {
    let test = "a build on a full disk";
    let folder = tempfile::tempdir().unwrap();
    if !have(test, "gcc") {
        return;
    }
    let Some(disk) = small_disk(test, folder.path(), 48, &[]) else { return };
    let mut server = Server::start(folder.path(), &disk.path().join("data"), &["--max-size", "40MB"]);
    fill(&disk);
    let files = number("CASTWORK_TESTS_FILES", 12);
    let sources = folder.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    for at in 0..files {
        let text = format!(
            "#include <stddef.h>\nstatic const char many[20000] = {{{at}}};\nconst char *f(void) {{ return many; }}\n"
        );
        std::fs::write(sources.join(format!("n{at}.c")), text).unwrap();
    }
    let ready = server.program.ready();
    let remote = format!("grpc://{}", ready["grpc"].as_str().unwrap());
    let wrapper = |variable: &str| {
        let mut command = Command::new(binary("castwork"));
        command.current_dir(&sources).env("CASTWORK_CONFIG", "/dev/null").env("CASTWORK_REMOTE", &remote);
        command.env("CASTWORK_DIR", folder.path().join(variable)).env("CASTWORK_PROJECT_ROOT", &sources);
        command
    };
    let compile = |command: &dyn Fn() -> Command| {
        let begun = Instant::now();
        let objects: Vec<Vec<u8>> = (0..files).map(|at| object(command(), &sources, at)).collect();
        (objects, begun.elapsed().as_secs_f64())
    };
    let (plain, plain_s) = compile(&|| {
        let mut command = Command::new("env");
        command.current_dir(&sources);
        command
    });
    let (cached, cached_s) = compile(&|| wrapper("cache"));
    assert!(plain == cached, "another object");
    // For people; a machine that does other things as well says nothing by it.
    progress(&format!(
        "out of disk: {files} files take {plain_s:.2} s plainly, and {cached_s:.2} s through the wrapper"
    ));
    let stats = wrapper("cache").args(["stats", "--json"]).output().unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["local_runs"], files, "{stats}");
    let full: u64 = stats["reasons"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.contains("disk full") || name.contains("RESOURCE_EXHAUSTED"))
        .filter_map(|(_, times)| times.as_u64())
        .sum();
    assert!(full > 0, "{stats}");
    // One tells the others.
    let told = stats["reasons"]["not kept remotely: server that took nothing a moment ago"].as_u64();
    assert!(told.is_some_and(|told| full + told >= files as u64 && told > full), "{stats}");
    assert!(compile(&|| wrapper("other")).0 == plain, "another object, of a server that has half of them");
}

fn object(mut command: Command, sources: &Path, at: usize) -> Vec<u8> {
    command.args(["gcc", "-O1", "-c", &format!("n{at}.c"), "-o", "out.o"]);
    let ended = command.output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    std::fs::read(sources.join("out.o")).unwrap()
}
