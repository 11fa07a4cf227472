//! [`Server`]: a scheduler without workers, on a data folder of the test's choice.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use castwork_cas::DigestFunction;
use castwork_cas::remote::{Remote, RemoteConfig};
use castwork_tests::{Program, binary};

/// A running server.
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) remote: Remote,
    http: String,
    /// How long it took from its start to its ready file.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts a server on `data`, with its log in `folder`. Within a runtime.
    pub(crate) fn start(folder: &Path, data: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary("castwork-scheduler"));
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        command.args(arguments);
        let begin = Instant::now();
        let mut program = Program::start(command, folder, "scheduler");
        let ready = program.ready();
        let ready_after = begin.elapsed();
        let address = |key: &str| ready[key].as_str().unwrap().to_owned();
        let config = RemoteConfig {
            address: format!("grpc://{}", address("grpc")),
            instance: String::new(),
            function: DigestFunction::Sha256,
            token: None,
            request_metadata: None,
            timeout: Duration::from_secs(60),
        };
        let remote = Remote::connect_lazy(&config).unwrap();
        Self { program, remote, http: address("http"), ready_after }
    }

    /// A number that the server's metrics have.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let row = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        row.unwrap_or_else(|| panic!("no `{name}` in {answer}")).parse().unwrap()
    }
}

/// How many cycles to run: `variable`, or `default` if it is not set.
pub(crate) fn cycles(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number of cycles"))
}

/// How long the load goes on before it is cut off. Nothing waits for anything here: any moment will do.
pub(crate) fn random_moment() -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 700_000;
    Duration::from_micros(u64::try_from(random).expect("below a second"))
}
