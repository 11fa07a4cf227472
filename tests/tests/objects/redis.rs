//! A Redis of our own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use castwork_cas::Objects;
use castwork_tests::have;

use crate::{TIMEOUT, promises};

const PASSWORD: &str = "p@ss/word";

/// Generous: machines are shared.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A server; it ends when this is dropped.
pub(crate) struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    pub(crate) fn start(folder: &Path) -> Self {
        let begin = Instant::now();
        loop {
            // Somebody else may take the port before Redis does: then it ends, and another is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let port_text = port.to_string();
            let child = Command::new("redis-server")
                .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD])
                .arg("--dir")
                .arg(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut redis = Self { child, port };
            while redis.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return redis;
                }
                assert!(begin.elapsed() < READY_WITHIN, "redis-server does not answer");
                thread::sleep(Duration::from_millis(10));
            }
            assert!(begin.elapsed() < READY_WITHIN, "redis-server does not start");
        }
    }

    /// What a user writes to use it.
    pub(crate) fn url(&self) -> String {
        format!("redis://:p%40ss%2Fword@127.0.0.1:{}/3/some/prefix?ttl_days=1", self.port)
    }

    /// Sends commands as they are typed, and returns when they were answered.
    fn set(&self, key: &str, value: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        for words in
            [&[b"AUTH", PASSWORD.as_bytes()][..], &[b"SELECT", b"3"], &[b"SET", key.as_bytes(), value]]
        {
            let mut message = format!("*{}\r\n", words.len()).into_bytes();
            for word in words {
                message.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                message.extend_from_slice(word);
                message.extend_from_slice(b"\r\n");
            }
            stream.write_all(&message).unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"+OK\r\n");
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_all_promises_of_a_store() {
    if !have("redis_keeps_all_promises_of_a_store", "redis-server") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path());
    let objects = Objects::open_with(&redis.url(), TIMEOUT, &|_| None).unwrap();
    promises::kept(&objects, |name, bytes| redis.set(&format!("some/prefix/{name}"), bytes)).await;
}
