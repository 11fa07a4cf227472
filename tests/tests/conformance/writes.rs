//! Uploads by stream.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_cas::codec::compress_bytes;
use castwork_proto::bytestream::{QueryWriteStatusRequest, WriteRequest};
use futures::StreamExt as _;
use futures::future::join_all;
use tonic::{Code, Status};

use crate::support::{SHA256, Server, noise, pieces, write_name, write_zstd_name};

async fn status_of(server: &Server, name: &str) -> Result<(i64, bool), Code> {
    let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
    let answer = server.bytestream().query_write_status(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok((answer.committed_size, answer.complete))
}

async fn refused(server: &Server, messages: Vec<WriteRequest>) -> Status {
    let status = server.write(messages).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    status
}

#[tokio::test]
async fn an_upload_may_come_in_pieces_of_any_size() {
    // [30], [31]
    let server = Server::start().await;
    for (seed, piece) in [(1, 10_000_000), (2, 64 << 10), (3, 2 << 20), (4, 999)] {
        let data = noise(seed, 3_000_000);
        let digest = Digest::of(SHA256, &data);
        let name = write_name("u", &digest);
        let mut messages = pieces(&name, &data, piece);
        if seed == 3 {
            for message in &mut messages {
                message.resource_name.clone_from(&name);
            }
        }
        if seed == 4 {
            // The end may come in a message of its own.
            messages.last_mut().unwrap().finish_write = false;
            messages.push(WriteRequest { write_offset: 3_000_000, finish_write: true, ..Default::default() });
        }
        assert_eq!(server.write(messages).await.unwrap(), 3_000_000);
        assert_eq!(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
    }
    let empty = Digest::empty(SHA256);
    assert_eq!(server.write(pieces(&write_name("u", &empty), &Bytes::new(), 9)).await.unwrap(), 0);
}

#[tokio::test]
async fn who_sends_what_is_there_is_told_so_at_once() {
    // [32]: the client would send for ever
    let server = Server::start().await;
    let data = noise(1, 1_000_000);
    let digest = server.put(data.clone()).await;
    for (name, committed) in [(write_name("u", &digest), 1_000_000), (write_zstd_name("u", &digest), -1)] {
        let first = WriteRequest { resource_name: name, data: data.slice(..1000), ..Default::default() };
        let endless = tokio_stream::iter([first]).chain(futures::stream::pending());
        let answer = server.bytestream().write(endless).await.unwrap().into_inner();
        assert_eq!(answer.committed_size, committed);
    }
}

#[tokio::test]
async fn a_connection_outlives_thousands_of_uploads_that_are_answered_early() {
    let server = Server::start().await;
    let data = noise(1, 300_000);
    let digest = server.put(data.clone()).await;
    let messages = pieces(&write_name("u", &digest), &data, 16 << 10);
    let mut client = server.bytestream();
    for _ in 0..3000 {
        let answer = client.write(tokio_stream::iter(messages.clone())).await.unwrap().into_inner();
        assert_eq!(answer.committed_size, 300_000);
    }
}

#[tokio::test]
async fn many_may_upload_one_blob_at_the_same_time() {
    // [33]
    let server = Server::start().await;
    let data = noise(1, 1_000_000);
    let digest = Digest::of(SHA256, &data);
    let packed = compress_bytes(&data).unwrap();
    let uploads = (0..64).map(|number| {
        let (server, data, packed) = (&server, data.clone(), packed.clone());
        async move {
            let id = format!("upload-{number}");
            if number % 2 == 0 {
                let committed =
                    server.write(pieces(&write_name(&id, &digest), &data, 100_000)).await.unwrap();
                assert_eq!(committed, 1_000_000);
            } else {
                let name = write_zstd_name(&id, &digest);
                let committed = server.write(pieces(&name, &packed, 100_000)).await.unwrap();
                assert!(committed == -1 || committed == packed.len() as i64, "{committed}");
            }
        }
    });
    join_all(uploads).await;
    assert_eq!(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
}

#[tokio::test]
async fn bytes_that_are_not_the_blobs_are_refused() {
    // [34]
    let server = Server::start().await;
    let data = noise(1, 500_000);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", &digest);
    refused(&server, pieces(&name, &noise(2, 500_000), 100_000)).await;
    refused(&server, pieces(&name, &data.slice(1..), 100_000)).await;
    // Too many: refused although the client would go on for ever.
    let long: Bytes = [&data[..], b"!"].concat().into();
    let mut messages = pieces(&name, &long, 100_000);
    messages.last_mut().unwrap().finish_write = false;
    let endless = tokio_stream::iter(messages).chain(futures::stream::pending());
    let status = server.bytestream().write(endless).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(!server.has(&digest).await);
    assert_eq!(status_of(&server, &name).await, Err(Code::NotFound));
}

#[tokio::test]
async fn the_rules_of_the_stream_are_kept() {
    // [35], [38]
    let server = Server::start().await;
    let data = noise(1, 1000);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", &digest);
    let good = || pieces(&name, &data, 100);

    let mut late = good();
    late[0].write_offset = 5;
    assert!(refused(&server, late).await.message().contains("0 bytes"));
    for wrong in [150, 50, -1] {
        let mut gap = good();
        gap[1].write_offset = wrong;
        assert!(refused(&server, gap).await.message().contains("100"), "names the offset that it expects");
    }
    let mut renamed = good();
    renamed[3].resource_name = write_name("other", &digest);
    refused(&server, renamed).await;
    let mut more = good();
    more.push(WriteRequest { write_offset: 1000, data: Bytes::from_static(b"!"), ..Default::default() });
    refused(&server, more).await;
    refused(&server, Vec::new()).await;
    let mut nameless = good();
    nameless[0].resource_name.clear();
    refused(&server, nameless).await;
    assert!(!server.has(&digest).await);
    assert_eq!(server.write(good()).await.unwrap(), 1000);
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    // [39], [40]
    let server = Server::start().await;
    let data = noise(1, 10);
    let digest = Digest::of(SHA256, &data);
    let hash = digest.hash_hex();
    for name in [
        format!("uploads/u/blobs/{hash}/-10"),
        format!("uploads/u/blobs/{hash}/010"),
        format!("uploads/u/blobs/{hash}/99999999999999999999"),
        format!("uploads/u/blobs/sha256/{hash}/10"),
        format!("uploads/u/blobs/sha7/{hash}/10"),
        format!("uploads//blobs/{hash}/10"),
        format!("uploads/u/{hash}/10"),
        format!("blobs/{hash}/10"),
        format!("actions/uploads/u/blobs/{hash}/10"),
        format!("{}/uploads/u/blobs/{hash}/10", "x".repeat(64 << 10)),
        format!("uploads/u/compressed-blobs/brotli/{hash}/10"),
        format!("uploads/u/compressed-blobs/identity/{hash}/10"),
        "garbage".to_owned(),
    ] {
        refused(&server, pieces(&name, &data, 100)).await;
        assert_eq!(status_of(&server, &name).await, Err(Code::InvalidArgument), "{name}");
    }
    let with_notes = format!("team/main/uploads/not-a-uuid/blobs/{hash}/10/bin/a.out");
    assert_eq!(server.write(pieces(&with_notes, &data, 100)).await.unwrap(), 10);
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_where_it_was() {
    // [36], [43]
    let server = Server::start().await;
    let data = noise(1, 1_000_000);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", &digest);
    assert_eq!(status_of(&server, &name).await, Err(Code::NotFound));
    let first = pieces(&name, &data.slice(..600_000), 50_000);
    let mut first: Vec<WriteRequest> = first;
    first.last_mut().unwrap().finish_write = false;
    break_off(&server, &name, first, 600_000).await;
    assert_eq!(status_of(&server, &name).await, Ok((600_000, false)));

    let rest = |offset: usize| {
        let mut rest = pieces(&name, &data.slice(offset..), 50_000);
        for message in &mut rest {
            message.write_offset += offset as i64;
        }
        rest
    };
    // Whoever goes on elsewhere is told where.
    assert!(refused(&server, rest(500_000)).await.message().contains("600000"));
    assert_eq!(server.write(rest(600_000)).await.unwrap(), 1_000_000);
    assert_eq!(status_of(&server, &name).await, Ok((1_000_000, true)));
    assert_eq!(status_of(&server, &write_zstd_name("v", &digest)).await, Ok((1_000_000, true)));
    assert_eq!(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
}

/// Sends messages, waits until the server has their bytes, and drops the call.
async fn break_off(server: &Server, name: &str, messages: Vec<WriteRequest>, bytes: i64) {
    let endless = tokio_stream::iter(messages).chain(futures::stream::pending());
    let mut client = server.bytestream();
    let call = tokio::spawn(async move { client.write(endless).await });
    while status_of(server, name).await != Ok((bytes, false)) {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The server has noticed when somebody else may go on.
    loop {
        let probe = WriteRequest { resource_name: name.to_owned(), write_offset: 1, ..Default::default() };
        match server.write(vec![probe]).await.unwrap_err().code() {
            Code::Aborted => tokio::task::yield_now().await,
            code => break assert_eq!(code, Code::InvalidArgument),
        }
    }
}

#[tokio::test]
async fn after_a_restart_an_upload_begins_anew() {
    // [36]
    let server = Server::start().await;
    let data = noise(1, 100_000);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", &digest);
    let mut half = pieces(&name, &data.slice(..50_000), 100_000);
    half[0].finish_write = false;
    assert_eq!(server.write(half).await.unwrap(), 50_000);
    let Some(server) = server.restart().await else { return };
    assert_eq!(status_of(&server, &name).await, Err(Code::NotFound));
    assert_eq!(server.write(pieces(&name, &data, 10_000)).await.unwrap(), 100_000);
}

#[tokio::test]
async fn a_stream_that_is_closed_early_is_kept() {
    // [37]
    let server = Server::start().await;
    let data = noise(1, 100_000);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", &digest);
    let mut half = pieces(&name, &data.slice(..50_000), 100_000);
    half[0].finish_write = false;
    assert_eq!(server.write(half).await.unwrap(), 50_000);
    assert_eq!(status_of(&server, &name).await, Ok((50_000, false)));
    let rest = WriteRequest {
        resource_name: name.clone(),
        write_offset: 50_000,
        finish_write: true,
        data: data.slice(50_000..),
    };
    assert_eq!(server.write(vec![rest]).await.unwrap(), 100_000);
    assert!(server.has(&digest).await);
}

#[tokio::test]
async fn compressed_uploads_may_have_many_frames() {
    // [41]
    let server = Server::start().await;
    for (seed, parts) in [(1, 1), (2, 7)] {
        let data = noise(seed, 700_000);
        let digest = Digest::of(SHA256, &data);
        let mut packed: Vec<u8> = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        for part in data.chunks(700_000 / parts) {
            packed.extend_from_slice(&compress_bytes(part).unwrap());
        }
        let packed = Bytes::from(packed);
        let committed = server.write(pieces(&write_zstd_name("u", &digest), &packed, 33_333)).await.unwrap();
        assert_eq!(committed, packed.len() as i64);
        assert_eq!(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
    }
}

#[tokio::test]
async fn a_compressed_upload_that_broke_off_goes_on_in_plain_bytes() {
    let server = Server::start().await;
    let data = noise(1, 300_000);
    let digest = Digest::of(SHA256, &data);
    let name = write_zstd_name("u", &digest);
    let mut half = pieces(&name, &compress_bytes(&data[..100_000]).unwrap(), 10_000);
    half.last_mut().unwrap().finish_write = false;
    assert_eq!(server.write(half).await.unwrap(), 100_000);
    assert_eq!(status_of(&server, &name).await, Ok((100_000, false)));
    let packed = compress_bytes(&data[100_000..]).unwrap();
    let mut rest = pieces(&name, &packed, 10_000);
    for message in &mut rest {
        message.write_offset += 100_000;
    }
    assert_eq!(server.write(rest).await.unwrap(), 100_000 + packed.len() as i64);
    assert_eq!(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
}

#[tokio::test]
async fn compressed_bytes_that_are_wrong_are_refused() {
    // [42]
    let server = Server::start().await;
    let data = Bytes::from(vec![7; 100_000]);
    let digest = Digest::of(SHA256, &data);
    let name = write_zstd_name("u", &digest);
    let packed = compress_bytes(&data).unwrap();
    let bomb = compress_bytes(&vec![0; 50_000_000]).unwrap();
    let mut corrupt = compress_bytes(&noise(1, 100_000)).unwrap().to_vec();
    corrupt[5] ^= 0xff;
    for bytes in [packed.slice(..packed.len() - 3), bomb, corrupt.into(), Bytes::from_static(b"no zstd")] {
        refused(&server, pieces(&name, &bytes, 1000)).await;
    }
    assert!(!server.has(&digest).await);
}
