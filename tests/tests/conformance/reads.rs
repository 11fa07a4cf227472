//! Downloads by stream.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::bytestream::ReadRequest;
use tonic::Code;

use crate::support::{SHA256, Server, noise};

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
