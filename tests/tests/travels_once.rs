//! A compiler is uploaded once to each server; who has the same one later sends questions and its own sources.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use castwork_tests::{Farm, binary, finish, have, progress};
use serde_json::Value;

/// Far above what one compile takes.
const COMPILE_MAX: Duration = Duration::from_secs(5 * 60);
/// What a client may send for a compile with a compiler that the server has: digests to ask about, the source, and the
/// folders that hold it.
const SENT_MAX: u64 = 32 << 10;
/// What such a compile may cost in calls, those of the worker among them; 16 are usual.
const CALLS_MAX: u64 = 20;

#[test]
fn a_second_client_with_the_same_compiler_uploads_nothing_of_it() {
    if !have("a compiler travels once", "gcc") {
        return;
    }
    let farm = Farm::start(1, 1);
    let wire = Wire::to(farm.address().strip_prefix("grpc://").unwrap());
    let stored = || metric(farm.http(), "castwork_blob_stored_bytes_total");
    let [first, second] = ["first", "second"].map(|name| {
        let folder = farm.folder().join(name);
        let (sent, kept, before) = (wire.sent(), stored(), calls(farm.http()));
        compile(&folder, &wire.address, &format!("const char *who(void) {{ return \"{name}\"; }}\n"));
        let (sent, kept) = (wire.sent() - sent, stored() - kept);
        progress(&format!("{name} client: {sent} bytes sent, {kept} bytes new to the server"));
        let mut calls = calls(farm.http());
        for (method, count) in &mut calls {
            *count -= before.get(method).unwrap_or(&0);
        }
        progress(&format!("{name} client and its worker: {calls:?}"));
        Done { sent, kept, calls }
    });
    let shown = run(&farm.folder().join("first"), &wire.address, &["toolchain", "show", "--json", "gcc"]);
    let luggage = serde_json::from_str::<Value>(&shown).unwrap()[0]["bytes"].as_u64().unwrap();
    progress(&format!("the compiler: {luggage} bytes"));
    assert!(first.kept > luggage, "the first one brings all of it");
    assert!(first.of("ByteStream/Write") > 0, "{:?}", first.calls);
    assert!(second.sent < SENT_MAX && second.kept < SENT_MAX, "the second one sends {} bytes", second.sent);
    // The client asks and sends once for the action, which the compiler is a part of, and once for what it has learned of
    // the compile; the worker does for the object.
    for name in ["FindMissingBlobs", "BatchUpdateBlobs"] {
        assert!(second.of(&format!("ContentAddressableStorage/{name}")) <= 3, "{:?}", second.calls);
    }
    assert!(second.of("") <= CALLS_MAX, "{:?}", second.calls);
    // The worker has the compiler as well.
    assert_eq!(second.of("ByteStream/Write") + second.of("ByteStream/Read"), 0, "{:?}", second.calls);
}

/// What came to the server because of a client's compile.
struct Done {
    sent: u64,
    kept: u64,
    /// Calls of the client and of the worker by their method.
    calls: BTreeMap<String, u64>,
}

impl Done {
    fn of(&self, method: &str) -> u64 {
        self.calls.iter().filter(|(name, _)| name.ends_with(method)).map(|(_, count)| count).sum()
    }
}

/// Compiles on a worker, with a cache of its own.
fn compile(folder: &Path, remote: &str, text: &str) {
    fs::create_dir(folder).unwrap();
    let source = folder.join("a.c");
    fs::write(&source, text).unwrap();
    // Long enough ago that it is not taken for a file that changes.
    let earlier = SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(source).unwrap().set_modified(earlier).unwrap();
    run(folder, remote, &["gcc", "-c", "a.c", "-o", "a.o"]);
    let stats: Value = serde_json::from_str(&run(folder, remote, &["stats", "--json"])).unwrap();
    assert_eq!([&stats["compiles"], &stats["remote_runs"]], [1, 1], "{stats}");
}

fn run(folder: &Path, remote: &str, words: &[&str]) -> String {
    let mut command = Command::new(binary("castwork"));
    command.args(words).current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("CASTWORK_REMOTE", remote).env("CASTWORK_DIR", folder.join("cache"));
    command.env("CASTWORK_RACE_AFTER", "never");
    command.env("CASTWORK_CONFIG", "/dev/null").env("CASTWORK_PROJECT_ROOT", folder);
    let done = finish(command, COMPILE_MAX);
    done.must_succeed(&format!("{words:?}"));
    done.stdout
}

/// A counter of a server.
fn metric(http: &str, name: &str) -> u64 {
    let text = metrics(http);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no `{name}` in {text}")).parse().unwrap()
}

/// Calls of a server by their method.
fn calls(http: &str) -> BTreeMap<String, u64> {
    let rows = metrics(http);
    let rows = rows
        .lines()
        .filter_map(|line| line.strip_prefix("castwork_calls_total{method=\"")?.split_once("\"} "));
    rows.map(|(method, count)| (method.to_owned(), count.parse().unwrap())).collect()
}

fn metrics(http: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A wire to a server on which the bytes are counted that clients send.
struct Wire {
    address: String,
    sent: Arc<AtomicU64>,
}

impl Wire {
    /// Ends with the process.
    fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("grpc://{}", listener.local_addr().unwrap());
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, server) = (Arc::clone(&sent), server.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&server).unwrap();
                let (answers, asker) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let counter = Arc::clone(&counter);
                thread::spawn(move || pass(client, server, &counter));
                thread::spawn(move || pass(answers, asker, &AtomicU64::new(0)));
            }
        });
        Self { address, sent }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// Passes bytes on until either side ends; each is counted before it is passed.
fn pass(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counter.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Whoever is gone at the other end shows by its own end.
    let _ = to.shutdown(Shutdown::Write);
}
