//! Downloads by stream.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::bytestream::{ReadRequest, ReadResponse};
use castwork_tests::Farm;
use tonic::codec::Streaming;
use tonic::{Code, Status};

use crate::support::{SHA256, Server, noise, pieces, write_name};

#[tokio::test]
async fn any_part_of_a_blob_can_be_read() {
    // [45]
    let server = Server::start().await;
    for size in [10_usize, 1_000_000] {
        let data = noise(1, size);
        let digest = server.put(data.clone()).await;
        let name = format!("blobs/{digest}");
        for (offset, limit) in [(0, 0), (3, 0), (3, 4), (0, size * 2), (size - 1, 1), (size, 0), (size, 5)] {
            let end = if limit == 0 { size } else { size.min(offset + limit) };
            let got = server.read(&name, offset as i64, limit as i64).await.unwrap();
            assert_eq!(got, data.slice(offset..end), "{offset} {limit}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_or_beyond_it_has_its_own_code() {
    // [46]
    let server = Server::start().await;
    let digest = server.put("0123456789").await;
    let (name, gone) = (format!("blobs/{digest}"), format!("blobs/{}", Digest::of(SHA256, b"gone")));
    for (name, offset, limit, code) in [
        (&name, 11, 0, Code::OutOfRange),
        (&name, -1, 0, Code::OutOfRange),
        (&name, 0, -1, Code::InvalidArgument),
        (&gone, 0, 0, Code::NotFound),
        (&format!("uploads/u/{name}"), 0, 0, Code::InvalidArgument),
        (&format!("{name}/notes"), 0, 0, Code::InvalidArgument),
    ] {
        let status = server.read(name, offset, limit).await.unwrap_err();
        assert_eq!(status.code(), code, "{name} {offset} {limit}");
    }
    let empty = Digest::empty(SHA256);
    assert_eq!(server.read(&format!("blobs/{empty}"), 0, 0).await.unwrap(), "");
    assert_eq!(server.read(&format!("blobs/{empty}"), 1, 0).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_compressed_read_begins_at_a_plain_offset() {
    // [47]
    let server = Server::start().await;
    let data: Bytes = [noise(1, 300_000), Bytes::from(vec![7; 300_000])].concat().into();
    let digest = server.put(data.clone()).await;
    let name = format!("compressed-blobs/zstd/{digest}");
    for offset in [0, 1, 300_001, 600_000] {
        let packed = server.read(&name, offset, 0).await.unwrap();
        let plain = zstd::stream::decode_all(&packed[..]).unwrap();
        assert_eq!(plain, data.slice(usize::try_from(offset).unwrap()..), "{offset}");
    }
    assert_eq!(server.read(&name, 0, 5).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(server.read(&name, 600_001, 0).await.unwrap_err().code(), Code::OutOfRange);
    let empty = server.read(&format!("compressed-blobs/zstd/{}", Digest::empty(SHA256)), 0, 0).await.unwrap();
    assert!(zstd::stream::decode_all(&empty[..]).unwrap().is_empty());
    let gone = format!("compressed-blobs/zstd/{}", Digest::of(SHA256, b"gone"));
    assert_eq!(server.read(&gone, 0, 0).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_connection_outlives_readers_who_leave_early() {
    let server = Server::start().await;
    let digest = server.put(noise(1, 3_000_000)).await;
    let mut client = server.bytestream();
    // More, and this client itself would end the connection: it has a limit of its own.
    for _ in 0..300 {
        let request = ReadRequest { resource_name: format!("blobs/{digest}"), ..Default::default() };
        let mut stream = client.read(request).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
    }
}

/// More than client, server and the system between them hold.
const LARGE_BYTES: usize = 48 << 20;

/// Stores a blob that takes a while to read, and reads the first bytes of it.
async fn begin_to_read(server: &Server) -> (Digest, Streaming<ReadResponse>) {
    let data = noise(1, LARGE_BYTES);
    let digest = Digest::of(SHA256, &data);
    server.write(pieces(&write_name("large", &digest), &data, 1 << 20)).await.unwrap();
    let request = ReadRequest { resource_name: format!("blobs/{digest}"), ..Default::default() };
    let mut stream = server.bytestream().read(request).await.unwrap().into_inner();
    assert!(!stream.message().await.unwrap().unwrap().data.is_empty());
    (digest, stream)
}

fn bytes_read(farm: &Farm) -> u64 {
    let mut stream = TcpStream::connect(farm.http()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: castwork\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("castwork_blob_read_bytes_total "));
    value.and_then(|value| value.trim().parse().ok()).expect("the metric is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stops_to_read_for_a_reader_who_has_left() {
    // [48]
    let server = Server::start().await;
    let Some(farm) = server.farm("readers who leave") else { return };
    let (_, stream) = begin_to_read(&server).await;
    drop(stream);
    let small = server.put("small").await.to_proto();
    let mut before = 0;
    // Calls that come after, until it stands still.
    while bytes_read(farm) != before {
        before = bytes_read(farm);
        for _ in 0..20 {
            server.missing(0, vec![small.clone()]).await.unwrap();
        }
    }
    assert!(before < LARGE_BYTES as u64 / 2, "{before} bytes were read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_lost_while_it_is_read_ends_in_an_error_and_never_just_ends() {
    // [49]
    let server = Server::start().await;
    let Some(farm) = server.farm("blobs that are lost while they are read") else { return };
    let (_, mut stream) = begin_to_read(&server).await;
    let file =
        file_of_size(&farm.folder().join("scheduler"), LARGE_BYTES as u64).expect("the blob is a file");
    File::options().write(true).open(file).unwrap().set_len(LARGE_BYTES as u64 / 2).unwrap();
    let mut got = 0;
    let end: Result<(), Status> = loop {
        match stream.message().await {
            Ok(Some(message)) => got += message.data.len(),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    assert!(end.is_err(), "{got} bytes, and then the end as if that were all");
}

fn file_of_size(folder: &Path, bytes: u64) -> Option<PathBuf> {
    fs::read_dir(folder).unwrap().flatten().find_map(|entry| {
        let metadata = entry.metadata().ok()?;
        if metadata.is_dir() {
            return file_of_size(&entry.path(), bytes);
        }
        (metadata.len() == bytes).then(|| entry.path())
    })
}
