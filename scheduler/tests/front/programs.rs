//! The program itself: its flags, its files, and its end, however it comes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use castwork_cas::Digest;
use castwork_proto::bytestream::byte_stream_client::ByteStreamClient;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_proto::reapi::{BatchUpdateBlobsRequest, FindMissingBlobsRequest};
use castwork_tests::Caller;
use tonic::transport::Channel;

use crate::support::{SHA256, item, noise, pieces, skip, write_name};

/// A server in a process of its own.
struct Program {
    child: Child,
    grpc: String,
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castwork-scheduler"));
    command
        .args(["--http-listen", "127.0.0.1:0", "--max-size", "1GB"])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .env_remove("CASTWORK_LOG");
    command
}

fn ready_file(folder: &Path) -> PathBuf {
    folder.join("ready.json")
}

impl Program {
    /// Starts it and waits until it says, in its log, that it serves.
    fn start(folder: &Path) -> Self {
        let mut child = command(folder)
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--ready-file"])
            .arg(ready_file(folder))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"serving\"") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it served");
        }
        // Somebody has to read the rest, or it would wait for that.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let text = std::fs::read_to_string(ready_file(folder)).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(ready["pid"], child.id());
        assert!(ready["http"].as_str().unwrap().starts_with("127.0.0.1:"));
        Self { child, grpc: ready["grpc"].as_str().unwrap().to_owned() }
    }

    async fn channel(&self) -> Channel {
        Caller::connect(&self.grpc).await.channel
    }

    /// Ends it as a power cut would, as far as the process is concerned.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Uploads until the server is gone, and returns what was acknowledged.
async fn upload_until_the_end(channel: Channel, uploader: u32) -> Vec<Digest> {
    let mut cas = ContentAddressableStorageClient::new(channel.clone());
    let mut bytestream = ByteStreamClient::new(channel);
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let data = noise(uploader * 1_000_000 + number, 1 + (number as usize % 7) * 60_000);
        let digest = Digest::of(SHA256, &data);
        let answer = if number % 2 == 0 {
            let requests = vec![item(&digest, data)];
            let request = BatchUpdateBlobsRequest { requests, ..Default::default() };
            cas.batch_update_blobs(request).await.map(drop)
        } else {
            let messages = pieces(&write_name("u", &digest), &data, 50_000);
            bytestream.write(tokio_stream::iter(messages)).await.map(drop)
        };
        match answer {
            Ok(()) => acknowledged.push(digest),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_uploads_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<Digest> = Vec::new();
    for life in 0..3 {
        let mut program = Program::start(folder.path());
        let channel = program.channel().await;
        let uploads: Vec<_> = (0..4)
            .map(|uploader| tokio::spawn(upload_until_the_end(channel.clone(), life * 10 + uploader)))
            .collect();
        // The kill comes when enough has been acknowledged to lose.
        let mut cas = ContentAddressableStorageClient::new(channel);
        let landmark = Digest::of(SHA256, &noise(life * 10_000_000 + 20, 1 + (20 % 7) * 60_000));
        let landmark =
            FindMissingBlobsRequest { blob_digests: vec![landmark.to_proto()], ..Default::default() };
        while !cas
            .find_missing_blobs(landmark.clone())
            .await
            .unwrap()
            .into_inner()
            .missing_blob_digests
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
        program.kill();
        for upload in uploads {
            acknowledged.extend(upload.await.unwrap());
        }
    }
    assert!(acknowledged.len() >= 60, "{} uploads", acknowledged.len());
    let program = Program::start(folder.path());
    let mut client = ByteStreamClient::new(program.channel().await);
    for digest in acknowledged {
        let request = castwork_proto::bytestream::ReadRequest {
            resource_name: format!("blobs/{digest}"),
            ..Default::default()
        };
        let mut stream = client.read(request).await.unwrap().into_inner();
        let mut hasher = castwork_cas::Hasher::new(SHA256);
        while let Some(response) = stream.message().await.unwrap() {
            hasher.update(&response.data);
        }
        assert_eq!(hasher.finish(), digest);
    }
    assert_eq!(std::fs::read_dir(folder.path().join("data/tmp")).unwrap().count(), 0);
}

#[test]
fn a_polite_end_removes_the_ready_file_and_keeps_the_index() {
    if std::env::consts::FAMILY != "unix" {
        return skip("a polite end", "there is no SIGTERM to send here");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path());
    let pid = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(program.child.wait().unwrap().success());
    assert!(!ready_file(folder.path()).exists());
    assert!(folder.path().join("data/index/clean.json").exists());
}

#[test]
fn a_second_server_on_the_same_folder_says_why_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let output = command(folder.path()).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("in use by another server"), "{error}");
    assert!(error.contains(&program.child.id().to_string()), "{error}");
    assert!(error.contains("hint: "), "{error}");
}

fn check_config(text: &str, flags: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("castwork.toml");
    std::fs::write(&file, text).unwrap();
    let output =
        command(folder.path()).arg("--check-config").arg("--config").arg(&file).args(flags).output().unwrap();
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!folder.path().join("data").exists(), "a check leaves nothing behind");
    (output, error.replace(&file.display().to_string(), "FILE"))
}

#[test]
fn a_bad_configuration_is_told_with_every_complaint() {
    let (output, error) = check_config("listne = \"x\"\nmax-size = \"much\"\n", &["--log-format", "loud"]);
    assert_eq!(output.status.code(), Some(1));
    for expected in ["FILE:1: `listne` is no key", "FILE:2: `max-size` is `much`", "--log-format: is `loud`"]
    {
        assert!(error.contains(expected), "{expected} is not in\n{error}");
    }
}

#[test]
fn a_good_configuration_is_told_to_be_good() {
    let (output, error) = check_config("max-size = \"5GB\"\n[[instance]]\nname = \"a\"\n", &[]);
    assert!(output.status.success(), "{error}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "the configuration is good\n");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(folder.path()).args(["--listen", &address]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&address), "{error}");
}
