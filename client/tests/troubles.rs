//! Servers that fail in every way, and wrappers that are killed: a build goes on, and says why.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use support::{Project, castwork, shown, text};

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A project of so many sources with a header.
fn project(files: usize) -> Project {
    let project = Project::with(&[("h.h", "#include <stddef.h>\n#define H 7\n")]);
    for at in 0..files {
        let text = format!("#include \"h.h\"\nint f{at}(void) {{ return {at} + H; }}\n");
        std::fs::write(project.root.join(format!("n{at}.c")), text).unwrap();
    }
    project.write("tick", "");
    project
}

/// A server that takes connections and never says anything, as one that was stopped by a signal.
fn frozen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("grpc://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// A server that answers anything with what is no protocol, until the test ends.
fn garbage() -> String {
    let (listener, address) = frozen();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut room = [0; 4096];
                while stream.read(&mut room).is_ok_and(|read| read > 0) {
                    if stream.write_all(&[0xa5; 512]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// An address where nobody listens.
fn stopped() -> String {
    frozen().1
}

#[test]
fn servers_that_stop_freeze_or_talk_nonsense_break_no_build() {
    let files = number("CASTWORK_TESTS_FILES", 6);
    let (_kept, silent) = frozen();
    for (kind, address) in [("stopped", stopped()), ("frozen", silent), ("garbage", garbage())] {
        let mut project = project(files);
        project.set("CASTWORK_REMOTE", &address);
        let compile = |is_cached: bool| {
            let begun = Instant::now();
            let objects: Vec<Vec<u8>> = (0..files)
                .map(|at| {
                    let line = format!("gcc -O1 -c n{at}.c -o out.o");
                    let ran = if is_cached { project.cached(&line) } else { project.plain(&line) };
                    assert!(ran.status.success() && ran.stderr.is_empty(), "{kind}: {}", text(&ran.stderr));
                    std::fs::read(project.root.join("out.o")).unwrap()
                })
                .collect();
            (objects, begun.elapsed().as_secs_f64())
        };
        let ((plain, plain_s), (cached, cached_s)) = (compile(false), compile(true));
        assert!(cached == plain, "{kind}: another object");
        // For people; a machine that does other things as well says nothing by it.
        eprintln!(
            "{kind}: {files} files take {plain_s:.2} s plainly, and {cached_s:.2} s through the wrapper"
        );
        let counters = project.counters();
        let files = files as u64;
        assert_eq!(counters.number("local_runs"), files, "{kind}: {}", counters.0);
        assert_eq!(counters.number("fallbacks"), files, "{kind}: {}", counters.0);
        // One call waits and tells the others, and from time to time one tries again.
        let warned = counters.reason("server that was down a moment ago");
        assert!(warned >= files / 2, "{kind}: {}", counters.0);
        assert!(compile(true).0 == plain, "{kind}: another object");
        assert_eq!(project.counters().number("local_hits"), files, "{kind}");
    }
}

#[test]
fn wrappers_that_are_killed_harm_nobody_and_the_bound_holds() {
    let calls = number("CASTWORK_TESTS_CALLS", 60);
    let sources = calls.div_ceil(3);
    let bound_bytes: u64 = 64 << 10;
    let mut project = project(sources);
    project.set("CASTWORK_MAX_SIZE", &bound_bytes.to_string());
    let object = |name: String| std::fs::read(project.root.join(name)).unwrap();
    let plain: Vec<Vec<u8>> = (0..sources)
        .map(|at| {
            assert!(project.plain(&format!("gcc -O1 -g3 -c n{at}.c -o plain.o")).status.success());
            object("plain.o".to_owned())
        })
        .collect();
    let mut children: Vec<_> = (0..calls)
        .map(|call| {
            let line = format!("gcc -O1 -g3 -c n{}.c -o o{call}.o", call % sources);
            let mut command = project.command(castwork());
            command.args(line.split(' ')).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (call, child) in children.iter_mut().enumerate() {
        if call % 3 == 0 {
            child.kill().unwrap();
        }
    }
    for (call, child) in children.into_iter().enumerate() {
        let ended = child.wait_with_output().unwrap();
        if call % 3 != 0 {
            assert!(ended.status.success() && ended.stderr.is_empty(), "{}", text(&ended.stderr));
            assert_eq!(object(format!("o{call}.o")), plain[call % sources], "o{call}.o");
        }
    }
    for (at, plain) in plain.iter().enumerate() {
        assert!(project.cached(&format!("gcc -O1 -g3 -c n{at}.c -o again.o")).status.success());
        assert_eq!(object("again.o".to_owned()), *plain, "n{at}.c");
    }
    let used_bytes = size_of(&project.cache.join("cache/results"));
    assert!(
        used_bytes <= bound_bytes * 102 / 100,
        "{used_bytes} of {bound_bytes} in {}",
        shown(&project.cache)
    );
    assert!(used_bytes > bound_bytes / 4, "{used_bytes}: so little is kept that this tests little");
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = folder.read_dir().unwrap().flatten();
    entries
        .map(|entry| match entry.path() {
            path if path.is_dir() => size_of(&path),
            path => path.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

#[cfg(target_os = "linux")]
#[test]
fn a_wrapper_that_is_ended_takes_its_compiler_along() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    let project = Project::with(&[("a.c", "#include \"h.h\"\nint x;\n")]);
    let header = project.root.join("h.h");
    for signal in ["TERM", "INT", "HUP"] {
        assert!(Command::new("mkfifo").arg(&header).status().unwrap().success());
        let mut wrapper =
            project.command(castwork()).args(["gcc", "-c", "a.c", "-o", "a.o"]).spawn().unwrap();
        // This waits until the compiler reads its header, which then doesn't end.
        let mut pipe = std::fs::File::options().write(true).open(&header).unwrap();
        let number = wrapper.id().to_string();
        let children = std::fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap();
        let compiler = children.split_whitespace().next().expect("the compiler runs").to_owned();
        assert!(Command::new("kill").args([&format!("-{signal}"), &number]).status().unwrap().success());
        let ended = wrapper.wait().unwrap();
        assert!(ended.signal().is_some(), "{signal}: it ends as the compiler does: {ended}");
        assert!(!Path::new("/proc").join(&compiler).exists(), "{signal}: the compiler has ended before");
        let _ = pipe.write_all(b"int y;\n");
        std::fs::remove_file(&header).unwrap();
        assert!(!project.root.join("a.o").exists(), "{signal}");
    }
}
