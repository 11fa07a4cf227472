//! What the disk may do to us.

use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::bytestream::ReadRequest;
use castwork_proto::rpc;
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::{House, SHA256, item, noise, pieces, skip, write_name};

/// Flips the last bit of a blob, wherever the store keeps it.
fn flip_last_bit(house: &House, blob: &[u8]) {
    let data = house.folder.path().join("data");
    let mut folders = vec![data.join("segments"), data.join("cas")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            // Another blob may contain this one, but only this one's has its hash before it, or a file of its own.
            let is_it = |begin: usize| match begin.checked_sub(40) {
                Some(header) => bytes[header..].starts_with(Digest::of(SHA256, blob).hash()),
                None => begin == 0 && bytes.len() == blob.len(),
            };
            let mut found = bytes.windows(blob.len()).enumerate().filter(|(_, window)| *window == blob);
            if let Some((begin, _)) = found.find(|(begin, _)| is_it(*begin)) {
                bytes[begin + blob.len() - 1] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                return;
            }
        }
    }
    panic!("the blob is nowhere");
}

/// Has the store lose a blob: it finds out when somebody reads it.
pub(crate) async fn lose(house: &House, blob: &[u8]) {
    flip_last_bit(house, blob);
    let name = format!("blobs/{}", Digest::of(SHA256, blob));
    assert_eq!(house.read(&name, 0, 0).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn flipped_bits_are_never_served_and_cost_one_upload() {
    let house = House::start().await;
    let blobs = [noise(1, 100), noise(2, 200_000), noise(3, 2_000_000)];
    for blob in &blobs {
        house.put(blob.clone()).await;
    }
    let house = house.restart().await;
    for blob in &blobs {
        let digest = Digest::of(SHA256, blob);
        flip_last_bit(&house, blob);
        let request = ReadRequest { resource_name: format!("blobs/{digest}"), ..Default::default() };
        let mut bytes = 0;
        let end: Status = match house.bytestream().read(request).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(message) => bytes += message.expect("it never ends well").data.len(),
                        Err(status) => break status,
                    }
                }
            }
        };
        assert_eq!(end.code(), Code::NotFound);
        assert!(bytes < blob.len());
        assert!(!house.has(&digest).await);
        house.put(blob.clone()).await;
        assert_eq!(house.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), blob);
    }
    let metrics = crate::connections::http_get(&house, "/metrics").await;
    assert!(metrics.contains("castwork_corrupt_total 3"), "{metrics}");
}

/// A small file system, where the system lets us have one.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self { folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the small disk is still there");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    // [44]
    let Some(disk) = SmallDisk::mount(48) else {
        return skip("a small disk", "mounting one takes root on Linux");
    };
    let data_dir = disk.folder.path().join("data").display().to_string();
    let house = House::start_with(
        |args| {
            args.data_dir = Some(data_dir);
            args.max_size = None;
        },
        |_| (),
    )
    .await;
    let kept = house.put(noise(1, 1000)).await;
    // Somebody else fills the disk.
    let filler = disk.folder.path().join("filler");
    fill(&filler);
    let blob = noise(2, 3_000_000);
    let digest = Digest::of(SHA256, &blob);
    let write = || pieces(&write_name("u", &digest), &blob, 100_000);
    let status = house.write(write()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{}", status.message());
    let details = rpc::Status::decode(status.details()).unwrap();
    let retry: rpc::RetryInfo = details.details[0].to_msg().unwrap();
    assert!(retry.retry_delay.unwrap().seconds > 0);
    assert!(!house.has(&digest).await);
    assert_eq!(house.read(&format!("blobs/{kept}"), 0, 0).await.unwrap(), noise(1, 1000));
    std::fs::remove_file(filler).unwrap();
    assert_eq!(house.write(write()).await.unwrap(), 3_000_000);
    assert_eq!(house.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), blob);
    house.server.shutdown().await;
}

#[tokio::test]
async fn small_blobs_on_a_full_disk_are_refused_without_litter_and_kept_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(24) else {
        return skip("a small disk for small blobs", "mounting one takes root on Linux");
    };
    let data_dir = disk.folder.path().join("data");
    let house = House::start_with(|args| args.data_dir = Some(data_dir.display().to_string()), |_| ()).await;
    let kept = house.put(noise(1, 1000)).await;
    let filler = disk.folder.path().join("filler");
    fill(&filler);
    let batch =
        || (10..60).map(|seed| noise(seed, 60_000)).map(|data| item(&Digest::of(SHA256, &data), data));
    for _ in 0..5 {
        let codes = house.update(0, batch().collect()).await.unwrap();
        assert!(codes.iter().all(|code| *code == Code::ResourceExhausted as i32), "{codes:?}");
        assert_eq!(house.read(&format!("blobs/{kept}"), 0, 0).await.unwrap(), noise(1, 1000));
    }
    assert!(std::fs::read_dir(data_dir.join("segments")).unwrap().count() <= 3);
    std::fs::remove_file(filler).unwrap();
    assert!(house.update(0, batch().collect()).await.unwrap().iter().all(|code| *code == 0));
    house.server.shutdown().await;
}

#[tokio::test]
async fn a_store_that_outgrows_its_disk_evicts() {
    let Some(disk) = SmallDisk::mount(48) else {
        return skip("a small disk", "mounting one takes root on Linux");
    };
    let data_dir = disk.folder.path().join("data").display().to_string();
    let house = House::start_with(
        |args| {
            args.data_dir = Some(data_dir);
            args.max_size = None;
        },
        |_| (),
    )
    .await;
    for seed in 0..100 {
        let digest = house.put(noise(seed, 1_000_000)).await;
        assert_eq!(house.read(&format!("blobs/{digest}"), 0, 0).await.unwrap().len(), 1_000_000);
    }
    house.server.shutdown().await;
}

fn fill(path: &PathBuf) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let block = Bytes::from(vec![7; 1 << 20]);
    while file.write_all(&block).is_ok() {}
}

#[tokio::test]
async fn the_store_stays_within_its_bound_and_the_newest_is_there() {
    let house = House::start_with(|args| args.max_size = Some("10MB".to_owned()), |_| ()).await;
    let mut last = None;
    for seed in 0..40 {
        last = Some(house.put(noise(seed, 1_000_000)).await);
    }
    assert!(house.has(&last.unwrap()).await);
    assert!(!house.has(&Digest::of(SHA256, &noise(0, 1_000_000))).await);
    let metrics = crate::connections::http_get(&house, "/metrics").await;
    let bytes = metrics.lines().find_map(|line| line.strip_prefix("castwork_store_bytes ")).unwrap();
    assert!(bytes.parse::<u64>().unwrap() <= 10_000_000, "{bytes}");
}
