//! Large blobs in chunks.

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi::{
    self, CacheCapabilities, GetChunkMappingRequest, RegisterChunkMappingRequest, SpliceBlobRequest,
    SplitBlobRequest, chunking_function,
};
use tonic::{Code, Status};

use crate::support::{BLAKE3, SHA256, Server, UNSET, noise};

const FAST_CDC: i32 = chunking_function::Value::FastCdc2020 as i32;

/// The parameters that capabilities state, and the masks that the standard has for them.
const AVERAGE: usize = 512 << 10;
const STRICT: u64 = 0x0000_d917_6753_7000;
const RELAXED: u64 = 0x0000_d907_0353_7000;

/// Whether blobs can be cut, in the way that these tests know, also by the calls since v2.13.
fn offers_splits(cache: &CacheCapabilities) -> bool {
    let parameters = cache.fast_cdc_2020_params.as_ref();
    let is_known = parameters.is_some_and(|it| it.avg_chunk_size_bytes == AVERAGE as u64 && it.seed == 0);
    cache.split_blob_support && is_known
}

fn offers_splices(cache: &CacheCapabilities) -> bool {
    cache.splice_blob_support
}

/// Where `FastCDC` 2020 cuts, worked out a byte at a time.
fn chunks_of(data: &[u8]) -> Vec<&[u8]> {
    let gear: Vec<u64> = (0..=255_u8)
        .map(|byte| {
            let md5 = Digest::of(DigestFunction::Md5, &[byte; 64]);
            u64::from_be_bytes(md5.hash()[..8].try_into().unwrap())
        })
        .collect();
    let (mut rest, mut chunks) = (data, Vec::new());
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(first_chunk(rest, &gear));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

fn first_chunk(bytes: &[u8], gear: &[u64]) -> usize {
    let end = bytes.len().min(AVERAGE * 4);
    // The standard looks at pairs of bytes, so an odd last one is never a place to cut.
    let mut hash = 0_u64;
    for at in AVERAGE / 4..end / 2 * 2 {
        hash = (hash << 1).wrapping_add(gear[usize::from(bytes[at])]);
        let mask = if at < AVERAGE { STRICT } else { RELAXED };
        if hash & mask == 0 {
            return at;
        }
    }
    end
}

async fn split(server: &Server, blob: &Digest) -> Result<Vec<Digest>, Status> {
    let function = blob.function();
    let request = SplitBlobRequest {
        blob_digest: Some(blob.to_proto()),
        digest_function: function.to_proto() as i32,
        ..Default::default()
    };
    let answer = server.cas().split_blob(request).await?.into_inner();
    assert_eq!(answer.chunking_function, FAST_CDC);
    Ok(answer.chunk_digests.iter().map(|digest| Digest::from_proto(digest, function).unwrap()).collect())
}

async fn map(server: &Server, blob: &Digest, digest_function: i32) -> Result<Vec<reapi::Digest>, Status> {
    let request =
        GetChunkMappingRequest { blob_digest: Some(blob.to_proto()), digest_function, ..Default::default() };
    let mut stream = server.cas().get_chunk_mapping(request).await?.into_inner();
    let (mut all, mut is_first) = (Vec::new(), true);
    while let Some(message) = stream.message().await? {
        assert_eq!(message.chunking_function, if is_first { FAST_CDC } else { 0 });
        is_first = false;
        all.extend(message.chunk_digests);
    }
    Ok(all)
}

async fn splice(server: &Server, blob: &Digest, chunks: &[Digest]) -> Result<(), Code> {
    let request = SpliceBlobRequest {
        blob_digest: Some(blob.to_proto()),
        chunk_digests: chunks.iter().map(Digest::to_proto).collect(),
        digest_function: blob.function().to_proto() as i32,
        ..Default::default()
    };
    let answer = server.cas().splice_blob(request).await.map_err(|status| status.code())?.into_inner();
    assert_eq!(answer.blob_digest, Some(blob.to_proto()));
    Ok(())
}

async fn register(server: &Server, messages: Vec<RegisterChunkMappingRequest>) -> Result<(), Code> {
    let answer = server.cas().register_chunk_mapping(tokio_stream::iter(messages)).await;
    answer.map(drop).map_err(|status| status.code())
}

fn registration(blob: &Digest, chunks: &[Digest], a_message: usize) -> Vec<RegisterChunkMappingRequest> {
    let first = RegisterChunkMappingRequest {
        blob_digest: Some(blob.to_proto()),
        digest_function: blob.function().to_proto() as i32,
        ..Default::default()
    };
    let pages = chunks.chunks(a_message).map(|page| RegisterChunkMappingRequest {
        chunk_digests: page.iter().map(Digest::to_proto).collect(),
        ..Default::default()
    });
    std::iter::once(first).chain(pages).collect()
}

#[tokio::test]
async fn a_blob_is_cut_where_the_standard_cuts_it_and_all_chunks_are_there() {
    // [76], [78]
    let Some(server) = Server::offering("chunks of blobs", offers_splits).await else { return };
    let data = noise(1, 10_000_001);
    let name = |digest: &Digest| format!("uploads/u/blobs/{digest}");
    let blob = Digest::of(SHA256, &data);
    server.write(crate::support::pieces(&name(&blob), &data, 1 << 20)).await.unwrap();
    let expected: Vec<Digest> = chunks_of(&data).into_iter().map(|chunk| Digest::of(SHA256, chunk)).collect();
    assert!(expected.len() > 5);
    for _ in 0..2 {
        assert_eq!(split(&server, &blob).await.unwrap(), expected);
    }
    let missing = server.missing(UNSET, expected.iter().map(Digest::to_proto).collect()).await.unwrap();
    assert!(missing.is_empty());
    let sha256 = SHA256.to_proto() as i32;
    let mapped = map(&server, &blob, sha256).await.unwrap();
    assert_eq!(mapped, expected.iter().map(Digest::to_proto).collect::<Vec<_>>());
    assert_eq!(map(&server, &blob, UNSET).await.unwrap_err().code(), Code::InvalidArgument);
    let gone = Digest::of(SHA256, b"gone");
    assert_eq!(split(&server, &gone).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(map(&server, &gone, sha256).await.unwrap_err().code(), Code::NotFound);
    assert!(split(&server, &Digest::empty(SHA256)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_blob_that_changed_in_the_middle_keeps_most_of_its_chunks() {
    let Some(server) = Server::offering("chunks of blobs that change", offers_splits).await else { return };
    let old = noise(1, 8_000_000);
    let new: Bytes = [&old[..4_000_000], b"something new", &old[4_000_000..]].concat().into();
    let mut cut = Vec::new();
    for data in [&old, &new] {
        let blob = Digest::of(BLAKE3, data);
        let name = format!("uploads/u/blobs/blake3/{blob}");
        server.write(crate::support::pieces(&name, data, 1 << 20)).await.unwrap();
        cut.push(split(&server, &blob).await.unwrap());
    }
    let kept = cut[1].iter().filter(|chunk| cut[0].contains(chunk)).count();
    assert!(kept + 3 >= cut[1].len() && kept < cut[1].len(), "{kept} of {}", cut[1].len());
}

#[tokio::test]
async fn chunks_that_make_the_blob_are_the_blob_and_no_others() {
    // [77]
    let Some(server) = Server::offering("blobs of chunks", offers_splices).await else { return };
    let data = noise(1, 1_500_000);
    let parts: Vec<Bytes> = (0..3).map(|part| data.slice(part * 500_000..(part + 1) * 500_000)).collect();
    let chunks: Vec<Digest> = parts.iter().map(|part| Digest::of(SHA256, part)).collect();
    let blob = Digest::of(SHA256, &data);
    for part in &parts[..2] {
        server.put(part.clone()).await;
    }
    assert_eq!(splice(&server, &blob, &chunks).await, Err(Code::NotFound), "one is missing");
    server.put(parts[2].clone()).await;
    let swapped = [chunks[1], chunks[0], chunks[2]];
    assert_eq!(splice(&server, &blob, &swapped).await, Err(Code::InvalidArgument));
    assert_eq!(splice(&server, &blob, &chunks[..2]).await, Err(Code::InvalidArgument), "too few");
    let more = [&chunks[..], &chunks[..1]].concat();
    assert_eq!(splice(&server, &blob, &more).await, Err(Code::InvalidArgument), "too many");
    assert!(!server.has(&blob).await);
    splice(&server, &blob, &chunks).await.unwrap();
    splice(&server, &blob, &chunks).await.unwrap();
    assert_eq!(server.read(&format!("blobs/{blob}"), 0, 0).await.unwrap(), data);
    let nothing = SpliceBlobRequest::default();
    assert_eq!(server.cas().splice_blob(nothing).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_hundred_thousand_chunks_come_by_stream() {
    // [77]
    const COUNT: usize = 100_000;
    let Some(server) = Server::offering("blobs of many chunks", offers_splices).await else { return };
    let chunk = server.put("four").await;
    let data = Bytes::from(b"four".repeat(COUNT));
    let blob = Digest::of(SHA256, &data);
    let chunks = vec![chunk; COUNT];
    let unknown = RegisterChunkMappingRequest {
        blob_digest: Some(blob.to_proto()),
        ..RegisterChunkMappingRequest::default()
    };
    assert_eq!(register(&server, vec![unknown]).await, Err(Code::InvalidArgument), "no function");
    let nameless = RegisterChunkMappingRequest {
        digest_function: SHA256.to_proto() as i32,
        ..RegisterChunkMappingRequest::default()
    };
    assert_eq!(register(&server, vec![nameless]).await, Err(Code::InvalidArgument), "no blob");
    assert_eq!(register(&server, Vec::new()).await, Err(Code::InvalidArgument), "no message");
    let few = registration(&blob, &chunks[1..], 30_000);
    assert_eq!(register(&server, few).await, Err(Code::InvalidArgument));
    register(&server, registration(&blob, &chunks, 30_000)).await.unwrap();
    assert_eq!(server.read(&format!("blobs/{blob}"), 0, 0).await.unwrap(), data);
    register(&server, registration(&blob, &chunks, 30_000)).await.unwrap();
}
