//! `castwork-scheduler verify`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::{BlobStore as _, Digest, DigestFunction};
use castwork_tests::{Finished, binary, finish};

use crate::server::Server;

/// Far above what it takes.
const VERIFY_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_data_folder_is_told_from_a_good_one_and_serves_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let blobs: Vec<(Digest, Bytes)> = (0..40_u8)
        .map(|number| {
            let data = Bytes::from(vec![number; 3000 + usize::from(number) * 3000]);
            (Digest::of(DigestFunction::Sha256, &data), data)
        })
        .collect();
    let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    let mut server = Server::start(folder.path(), &data, &[]);
    server.remote.put_many(blobs.clone()).await.unwrap();
    server.program.kill();
    verify(&data).must_succeed("verify a good folder");
    damage(&data, &[7; 3000]);
    let found = verify(&data);
    assert_eq!(found.status.code(), Some(1), "{}", found.stdout);
    assert!(found.stdout.starts_with("40 blobs and results verified, "), "{}", found.stdout);
    assert!(found.stdout.ends_with("; 1 dropped, 0 can't be read\n"), "{}", found.stdout);
    verify(&data).must_succeed("verify a folder without what was damaged");
    let server = Server::start(folder.path(), &data, &[]);
    assert_eq!(server.remote.find_missing(&digests).await.unwrap(), [digests[7]]);
    for (digest, got) in server.remote.get_many(&digests).await {
        assert!(got.is_err() == (digest == digests[7]), "{digest}");
    }
    let in_use = verify(&data);
    assert!(in_use.stderr.contains("in use by another server"), "{}", in_use.stderr);
}

fn verify(data: &Path) -> Finished {
    let mut command = Command::new(binary("castwork-scheduler"));
    command.arg("verify").arg("--data-dir").arg(data);
    finish(command, VERIFY_MAX)
}

/// Flips a bit in the segment that holds these bytes.
fn damage(data: &Path, bytes: &[u8]) {
    for entry in fs::read_dir(data.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let mut segment = fs::read(&path).unwrap();
        if let Some(begin) = segment.windows(bytes.len()).position(|window| window == bytes) {
            segment[begin + 100] ^= 1;
            fs::write(&path, segment).unwrap();
            return;
        }
    }
    panic!("no segment holds the bytes");
}
