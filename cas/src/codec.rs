//! zstd, as blobs cross the wire compressed (REAPI `compressed-blobs/zstd`).
//!
//! Both ways work piece by piece: no blob is ever whole in memory, and what comes out of a decoder is
//! bounded by what its sender declared, so that 300 bytes cannot become 10 GB (a "zip bomb").

use std::io::{self, Read};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use zstd::stream::raw::{DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::{BlobStream, StoreError};

/// The most bytes handed on at once.
const PIECE_BYTES_MAX: usize = 128 * 1024;

/// Compression level: about as fast as a gigabit network, and most of what higher levels save.
const LEVEL: i32 = 3;

/// The largest window that a decoder keeps in memory for a frame, as a power of two: 8 MiB, which is what RFC 8878 has
/// every decoder support, and level 19 makes.
const WINDOW_LOG_MAX: u32 = 23;

/// Decompresses a stream of zstd frames, one or many, skippable ones left out.
///
/// The stream that is returned ends in [`StoreError::TooLarge`] as soon as there are more than `bytes_max`
/// bytes, and in [`StoreError::Encoding`] where bytes are no zstd, are cut short, or want a dictionary or more than
/// 8 MiB of memory.
pub fn decompress(compressed: BlobStream, bytes_max: u64) -> BlobStream {
    let unpacking = Unpacking {
        compressed,
        decoder: None,
        input: Bytes::new(),
        bytes_left: bytes_max,
        bytes_max,
        inside: false,
    };
    futures::stream::try_unfold(unpacking, |mut unpacking| async move {
        Ok(unpacking.next().await?.map(|piece| (piece, unpacking)))
    })
    .boxed()
}

/// Compresses a stream into one zstd frame; no bytes become an empty frame.
pub fn compress(plain: BlobStream) -> BlobStream {
    let packing = Packing { plain, encoder: None, input: Bytes::new(), ended: false, done: false };
    futures::stream::try_unfold(packing, |mut packing| async move {
        Ok(packing.next().await?.map(|piece| (piece, packing)))
    })
    .boxed()
}

/// Compresses bytes that are in memory into one frame.
///
/// # Errors
/// [`StoreError::Encoding`] if the library has no memory.
pub fn compress_bytes(plain: &[u8]) -> Result<Bytes, StoreError> {
    zstd::bulk::compress(plain, LEVEL).map(Bytes::from).map_err(StoreError::Encoding)
}

/// Decompresses while it is read, as [`decompress`] does. Blocks.
///
/// # Errors
/// If the library has no memory. Reading fails without an error number of the system where bytes are no zstd, are cut
/// short, or want more than is given.
pub fn unpacker<R: Read>(packed: R) -> io::Result<impl Read + use<R>> {
    let mut decoder = zstd::stream::read::Decoder::new(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

fn decoder() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
    Ok(decoder)
}

struct Unpacking {
    compressed: BlobStream,
    decoder: Option<Decoder<'static>>,
    input: Bytes,
    bytes_left: u64,
    bytes_max: u64,
    /// Inside a frame: ending here would cut it short.
    inside: bool,
}

impl Unpacking {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            if self.input.is_empty() {
                match self.compressed.try_next().await? {
                    Some(piece) if piece.is_empty() => continue,
                    Some(piece) => self.input = piece,
                    None if self.inside => return self.flush(),
                    None => return Ok(None),
                }
            }
            let piece = self.step()?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// Decodes as much of the input as fits into one piece.
    fn step(&mut self) -> Result<Bytes, StoreError> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => self.decoder.insert(decoder().map_err(StoreError::Encoding)?),
        };
        let mut buffer = vec![0; PIECE_BYTES_MAX];
        let mut input = InBuffer::around(&self.input);
        let mut output = OutBuffer::around(&mut buffer);
        let hint = decoder.run(&mut input, &mut output).map_err(StoreError::Encoding)?;
        let (read, written) = (input.pos(), output.pos());
        self.input = self.input.slice(read..);
        self.inside = hint != 0;
        buffer.truncate(written);
        self.bytes_left = self
            .bytes_left
            .checked_sub(written as u64)
            .ok_or(StoreError::TooLarge { bytes_max: self.bytes_max })?;
        Ok(buffer.into())
    }

    /// After the last input: the decoder may still hold output; if it does not, the frame was cut short.
    fn flush(&mut self) -> Result<Option<Bytes>, StoreError> {
        let piece = self.step()?;
        if piece.is_empty() && self.inside {
            return Err(StoreError::Encoding(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the last zstd frame is cut short",
            )));
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

struct Packing {
    plain: BlobStream,
    encoder: Option<Encoder<'static>>,
    input: Bytes,
    ended: bool,
    done: bool,
}

impl Packing {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.done {
            if self.input.is_empty() && !self.ended {
                match self.plain.try_next().await? {
                    Some(piece) => self.input = piece,
                    None => self.ended = true,
                }
            }
            let piece = self.step()?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Bytes, StoreError> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => self.encoder.insert(Encoder::new(LEVEL).map_err(StoreError::Encoding)?),
        };
        let mut buffer = vec![0; PIECE_BYTES_MAX];
        let mut output = OutBuffer::around(&mut buffer);
        if self.ended {
            self.done = encoder.finish(&mut output, true).map_err(StoreError::Encoding)? == 0;
        } else {
            let mut input = InBuffer::around(&self.input);
            encoder.run(&mut input, &mut output).map_err(StoreError::Encoding)?;
            let read = input.pos();
            self.input = self.input.slice(read..);
        }
        let written = output.pos();
        buffer.truncate(written);
        Ok(buffer.into())
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::store::{collect, stream_of};

    fn pieces(data: &Bytes, size: usize) -> BlobStream {
        let pieces: Vec<_> =
            data.chunks(size.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        futures::stream::iter(pieces).boxed()
    }

    async fn unpack(data: Bytes, bytes_max: u64) -> Result<Bytes, StoreError> {
        collect(decompress(stream_of(data), bytes_max), u64::MAX).await
    }

    #[tokio::test]
    async fn bytes_survive_both_ways_in_pieces_of_any_size() {
        let mut random = StdRng::seed_from_u64(7);
        for size in [0_u32, 1, 1000, 131_072, 131_073, 1_000_000] {
            let data: Bytes = (0..size).map(|_| random.random_range(0..16)).collect::<Vec<u8>>().into();
            let packed =
                collect(compress(pieces(&data, random.random_range(1..70_000))), u64::MAX).await.unwrap();
            let back = decompress(pieces(&packed, random.random_range(1..70_000)), u64::from(size));
            assert_eq!(collect(back, u64::MAX).await.unwrap(), data, "{size} bytes");
        }
    }

    #[tokio::test]
    async fn frames_follow_one_another_and_skippable_ones_are_left_out() {
        let mut all = compress_bytes(b"one ").unwrap().to_vec();
        all.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        all.extend_from_slice(&compress_bytes(b"two").unwrap());
        assert_eq!(unpack(all.into(), 7).await.unwrap(), "one two");
    }

    #[tokio::test]
    async fn a_bomb_stops_at_what_was_declared() {
        let bomb = compress_bytes(&vec![0; 10_000_000]).unwrap();
        assert!(bomb.len() < 2000);
        assert!(matches!(unpack(bomb, 8).await, Err(StoreError::TooLarge { bytes_max: 8 })));
    }

    #[tokio::test]
    async fn what_is_no_zstd_or_is_cut_short_is_an_error() {
        assert!(matches!(
            unpack(Bytes::from_static(b"not zstd at all"), 99).await,
            Err(StoreError::Encoding(_))
        ));
        let packed = compress_bytes(&[7; 5000]).unwrap();
        for length in 1..packed.len() {
            assert!(
                matches!(unpack(packed.slice(..length), 5000).await, Err(StoreError::Encoding(_))),
                "cut to {length} of {}",
                packed.len()
            );
        }
    }

    #[tokio::test]
    async fn frames_that_want_much_memory_are_refused() {
        let data = vec![7; 20 << 20];
        for (window_log, is_taken) in [(23, true), (24, false)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window_log).unwrap();
            std::io::Write::write_all(&mut encoder, &data).unwrap();
            let packed = encoder.finish().unwrap();
            let mut back = Vec::new();
            let read = unpacker(&packed[..]).unwrap().read_to_end(&mut back);
            assert_eq!(read.is_ok() && back == data, is_taken, "{window_log}");
            assert_eq!(unpack(packed.into(), data.len() as u64).await.is_ok(), is_taken, "{window_log}");
        }
    }

    #[tokio::test]
    async fn nothing_unpacks_to_nothing() {
        assert_eq!(unpack(Bytes::new(), 0).await.unwrap(), "");
    }
}
