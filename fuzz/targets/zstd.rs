//! Compressed bytes: never more comes out than was declared, and what was packed comes back.
#![no_main]

use bytes::Bytes;
use castwork_cas::codec::{compress_bytes, decompress};
use castwork_cas::store::{collect, stream_of};
use futures::StreamExt as _;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;

const DECLARED: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let pieces = data.chunks(7).map(Bytes::copy_from_slice).map(Ok).collect::<Vec<_>>();
    let mut plain = decompress(futures::stream::iter(pieces).boxed(), DECLARED);
    let mut bytes = 0;
    block_on(async {
        while let Some(Ok(piece)) = plain.next().await {
            bytes += piece.len() as u64;
            assert!(bytes <= DECLARED);
        }
    });
    let packed = compress_bytes(data).expect("memory takes anything");
    let back = block_on(collect(decompress(stream_of(packed), data.len() as u64), data.len() as u64));
    assert_eq!(back.expect("it was just packed"), data);
});
