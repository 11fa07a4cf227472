//! `castwork status`, `workers`, `runs`, `action`, `drain`, `undrain` and `cancel` against a farm, and what
//! monitoring reads from it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use castwork_proto::longrunning::operation::Result as Ended;
use castwork_proto::reapi::{self, execution_client::ExecutionClient};
use castwork_tests::{Caller, Farm, Options, binary};
use prost::Message as _;
use serde_json::Value;

fn castwork(farm: &Farm, words: &[&str]) -> Output {
    let mut command = Command::new(binary("castwork"));
    command.args(words).env("CASTWORK_DIR", farm.folder()).env("CASTWORK_REMOTE", farm.address());
    command.output().expect("start castwork")
}

fn json(farm: &Farm, words: &[&str]) -> Value {
    let output = castwork(farm, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn get(farm: &Farm, path: &str) -> String {
    let mut stream = TcpStream::connect(farm.http()).expect("connect");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n").expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[test]
fn operators_see_workers_and_drain_them() {
    let farm = Farm::start(1, 2);
    let status = json(&farm, &["status", "--json"]);
    assert_eq!((&status["queued"], &status["running"]), (&Value::from(0), &Value::from(0)));
    let worker = &status["workers"][0];
    assert_eq!((&worker["state"], &worker["slots"]), (&Value::from("ok"), &Value::from(2)));
    assert_eq!(worker["properties"]["OSFamily"][0], "linux");
    assert!(json(&farm, &["runs", "--json"]).as_array().expect("a list").is_empty());
    // It says so right after the welcome.
    let begin = Instant::now();
    while json(&farm, &["workers", "--json"])[0]["cache_bytes_max"] == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "a worker says what it keeps");
    }

    let jobs =
        |output: Output| String::from_utf8_lossy(&output.stdout).trim().parse::<usize>().expect("a number");
    let cores = std::thread::available_parallelism().expect("cores").get();
    assert_eq!(jobs(castwork(&farm, &["jobs"])), cores + 2);
    let mut elsewhere = Command::new(binary("castwork"));
    elsewhere.arg("jobs").env("CASTWORK_DIR", farm.folder()).env("CASTWORK_REMOTE", "grpc://127.0.0.1:1");
    let elsewhere = elsewhere.output().expect("start castwork");
    assert!(elsewhere.status.success() && !elsewhere.stderr.is_empty());
    assert_eq!(jobs(elsewhere), cores);

    let name = worker["name"].as_str().expect("a name");
    let drained = json(&farm, &["drain", name, "--reason", "new disk", "--wait", "--json"]);
    assert_eq!(drained["workers"][0]["state"], "draining");
    let page = castwork(&farm, &["workers"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("because drained by an operator: new disk"), "{page}");
    let back = json(&farm, &["undrain", name, "--json"]);
    assert_eq!(back["workers"][0]["state"], "ok");

    for words in [["action", "abcdef012345"], ["cancel", "abcdef012345"], ["cancel", "--run=nobody"]] {
        assert_eq!(castwork(&farm, &words).status.code(), Some(3), "{words:?}");
    }
    assert_eq!(castwork(&farm, &["cancel"]).status.code(), Some(2), "cancel what?");
}

#[test]
fn monitoring_reads_metrics_and_autoscalers_their_numbers() {
    let farm = Farm::start(1, 2);
    let metrics = get(&farm, "/metrics");
    for line in [
        "castwork_workers_connected 1",
        "castwork_queue_wait_seconds_bucket{le=\"+Inf\"} 0",
        "castwork_leases_granted_total 0",
        "# TYPE castwork_retries_total counter",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in\n{metrics}");
    }
    let answer = get(&farm, "/autoscale");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let body: Value = serde_json::from_str(body).expect("JSON");
    let platform = &body["platforms"][0];
    assert_eq!((&platform["workers"], &platform["slots"]), (&Value::from(1), &Value::from(2)));
    assert_eq!((&platform["queued"], &platform["workers_wanted"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn every_number_on_the_board_is_one_that_the_server_tells() {
    let farm = Farm::start(1, 1);
    let metrics = get(&farm, "/metrics");
    let board = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana/castwork.json");
    let board = std::fs::read_to_string(board).expect("the board");
    let board: Value = serde_json::from_str(&board).expect("JSON");
    let targets = board["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        panel["targets"]
            .as_array()
            .expect("targets")
            .iter()
            .map(|target| target["expr"].as_str().expect("text"))
    });
    let mut count = 0;
    for expression in targets {
        let letters = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
        for name in expression.split(letters).filter(|word| word.starts_with("castwork_")) {
            count += 1;
            assert!(
                metrics.contains(&format!("\n{name}")) || metrics.contains(&format!(" {name} ")),
                "{name}"
            );
        }
    }
    assert!(count > 20);
}

/// Has an action run that nobody has run before; its result.
async fn execute(farm: &Farm, script: &str) -> reapi::ActionResult {
    let caller = Caller::connect(&farm.address()).await;
    let words = ["/bin/sh", "-c", script];
    let command = reapi::Command { arguments: words.map(str::to_owned).into(), ..Default::default() };
    let (command, root) = (caller.put(command.encode_to_vec()).await, caller.put(Vec::new()).await);
    let action = reapi::Action {
        command_digest: Some(command.to_proto()),
        input_root_digest: Some(root.to_proto()),
        ..Default::default()
    };
    let action = caller.put(action.encode_to_vec()).await;
    let request = reapi::ExecuteRequest { action_digest: Some(action.to_proto()), ..Default::default() };
    let mut client = ExecutionClient::new(caller.channel.clone());
    let mut operations = client.execute(request).await.expect("execute").into_inner();
    loop {
        let operation = operations.message().await.expect("an operation").expect("an end");
        if let Some(Ended::Response(response)) = operation.result {
            let response: reapi::ExecuteResponse = response.to_msg().expect("a response");
            return response.result.unwrap_or_else(|| panic!("no result: {:?}", response.status));
        }
    }
}

#[tokio::test]
async fn a_program_that_is_killed_for_want_of_memory_gets_more_and_ends_well() {
    // So many slots that an action may use 512 MiB, on whatever machine, unless more is set aside for it.
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("the machine's memory");
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let total_kib: usize = total.and_then(|kib| kib.parse().ok()).expect("a number");
    let farm = Farm::with(Options { slots: total_kib.div_ceil(256 << 10), ..Options::default() });
    // All of it is one line, which is kept until its end.
    let result = execute(&farm, "head -c 700000000 /dev/zero | tail -n 1 | wc -c").await;
    assert_eq!(result.exit_code, 0, "{result:?}");
    let metrics = get(&farm, "/metrics");
    let retried = "castwork_retries_total{cause=\"out_of_memory\"} 1";
    assert!(metrics.lines().any(|line| line == retried), "{metrics}");
}

#[test]
fn without_a_server_it_says_what_to_do() {
    let output = Command::new(binary("castwork"))
        .args(["status", "--server", "grpc://127.0.0.1:1"])
        .env_remove("CASTWORK_REMOTE")
        .output()
        .expect("start castwork");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("hint: see whether the server runs there"), "{said}");
}
