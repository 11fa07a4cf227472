//! ccache's protocol for storage helpers, version 1: how requests are read and answers written.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version, and what is served: entries (0), and information about the helper (1).
pub const GREETING: [u8; 4] = [1, 2, 0, 1];

/// The largest value that is taken, in bytes: a debug build's object may have some hundred million.
pub const VALUE_BYTES_MAX: u64 = 1 << 30;

/// Of a message, more than this is cut off, in bytes.
const MESSAGE_BYTES_MAX: usize = 255;

const OK: u8 = 0;
const NOOP: u8 = 1;
const ERROR: u8 = 2;

/// Bit 0 of a put's flags.
const OVERWRITE: u8 = 1;

/// What ccache wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The value of a key.
    Get(Vec<u8>),
    /// To keep a value.
    Put {
        /// Under this key.
        key: Vec<u8>,
        /// Whether in place of one that is there.
        overwrite: bool,
        /// What is kept.
        value: Bytes,
    },
    /// To have nobody find a value any more.
    Remove(Vec<u8>),
    /// The helper's end.
    Stop,
    /// Who the helper is.
    Info,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The value.
    Value(Bytes),
    /// It is done.
    Done,
    /// There was nothing to do: no such key, or a value that is to stay.
    Noop,
    /// It failed, and why.
    Failed(String),
    /// Who the helper is, and lines for a log.
    Info(String, Vec<String>),
}

/// Reads a request; `None` at the end. Not cancel-safe.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for what is none, [`io::ErrorKind::UnexpectedEof`] for one that breaks off.
pub async fn read(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let mut kind = [0];
    if input.read(&mut kind).await? == 0 {
        return Ok(None);
    }
    Ok(Some(match kind[0] {
        0 => Request::Get(read_key(input).await?),
        1 => {
            let key = read_key(input).await?;
            let overwrite = input.read_u8().await? & OVERWRITE != 0;
            Request::Put { key, overwrite, value: read_value(input).await? }
        }
        2 => Request::Remove(read_key(input).await?),
        3 => Request::Stop,
        4 => Request::Info,
        other => return Err(invalid(format!("there is no request {other}"))),
    }))
}

async fn read_key(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut key = vec![0; usize::from(input.read_u8().await?)];
    input.read_exact(&mut key).await?;
    Ok(key)
}

async fn read_value(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut length = [0; 8];
    input.read_exact(&mut length).await?;
    let length = u64::from_ne_bytes(length);
    if length > VALUE_BYTES_MAX {
        return Err(invalid(format!("a value of {length} bytes")));
    }
    // Takes memory as the bytes come, not as they are announced.
    let mut value = Vec::new();
    input.take(length).read_to_end(&mut value).await?;
    if value.len() as u64 == length { Ok(value.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Writes an answer.
///
/// # Errors
/// If nobody reads it.
pub async fn write(output: &mut (impl AsyncWrite + Unpin), answer: Answer) -> io::Result<()> {
    let mut head = Vec::new();
    let mut tail = Bytes::new();
    match answer {
        Answer::Value(value) => {
            head.push(OK);
            head.extend_from_slice(&(value.len() as u64).to_ne_bytes());
            tail = value;
        }
        Answer::Done => head.push(OK),
        Answer::Noop => head.push(NOOP),
        Answer::Failed(reason) => {
            head.push(ERROR);
            push_message(&mut head, &reason);
        }
        Answer::Info(name, lines) => {
            push_message(&mut head, &name);
            head.push(u8::try_from(lines.len()).unwrap_or(u8::MAX));
            lines.iter().take(usize::from(u8::MAX)).for_each(|line| push_message(&mut head, line));
        }
    }
    output.write_all(&head).await?;
    output.write_all(&tail).await?;
    output.flush().await
}

fn push_message(bytes: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes.push(u8::try_from(end).expect("it was cut"));
    bytes.extend_from_slice(&text.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut bytes: &[u8]) -> io::Result<Vec<Request>> {
        let mut requests = Vec::new();
        while let Some(request) = read(&mut bytes).await? {
            requests.push(request);
        }
        Ok(requests)
    }

    fn put(key: &[u8], flags: u8, value: &[u8]) -> Vec<u8> {
        let length = (value.len() as u64).to_ne_bytes();
        [&[1, u8::try_from(key.len()).unwrap()], key, &[flags], &length, value].concat()
    }

    #[tokio::test]
    async fn requests_follow_one_another() {
        let bytes =
            [&[0, 2, 7, 8][..], &put(b"k", 3, b"value"), &put(b"", 2, b""), &[2, 1, 9, 4, 3]].concat();
        let expected = [
            Request::Get(vec![7, 8]),
            Request::Put { key: b"k".to_vec(), overwrite: true, value: Bytes::from_static(b"value") },
            Request::Put { key: Vec::new(), overwrite: false, value: Bytes::new() },
            Request::Remove(vec![9]),
            Request::Info,
            Request::Stop,
        ];
        assert_eq!(all(&bytes).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn what_is_cut_short_or_is_no_request_is_an_error() {
        let whole = put(b"key", 0, b"value");
        for length in 1..whole.len() {
            let error = all(&whole[..length]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes");
        }
        assert_eq!(all(&[5]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let huge = [&[1, 0, 0][..], &u64::MAX.to_ne_bytes()].concat();
        assert_eq!(all(&huge).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn answers_are_written_as_ccache_reads_them() {
        let written = async |answer| {
            let mut bytes = Vec::new();
            write(&mut bytes, answer).await.unwrap();
            bytes
        };
        let length = 3_u64.to_ne_bytes();
        assert_eq!(
            written(Answer::Value(Bytes::from_static(b"abc"))).await,
            [&[0][..], &length, b"abc"].concat()
        );
        assert_eq!(written(Answer::Done).await, [0]);
        assert_eq!(written(Answer::Noop).await, [1]);
        assert_eq!(written(Answer::Info("a".into(), vec!["b".into()])).await, b"\x01a\x01\x01b");
        let long = written(Answer::Failed("ä".repeat(200))).await;
        assert_eq!((long[1], long.len()), (254, 256), "a message is cut between two letters");
    }
}
