//! Keeping what a command writes to stdout or stderr: in a file, and not without end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// Piece that is read at once, in bytes; a pipe holds as much.
const PIECE_BYTES: usize = 64 << 10;

/// How long to wait for the end of a pipe after the command is gone. Only a process that escaped
/// (`none`) still holds it then.
const STRAGGLER_WAIT: Duration = Duration::from_millis(500);

/// What a command wrote to one of its two outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The file that holds it; none if nothing was written.
    pub path: Option<PathBuf>,
    /// Bytes that were dropped because there were too many.
    pub dropped_bytes: u64,
}

impl Captured {
    /// Whether anything was written.
    pub fn is_any(&self) -> bool {
        self.path.is_some()
    }
}

/// A capture under way.
pub(super) struct Capture {
    task: JoinHandle<io::Result<Captured>>,
    path: PathBuf,
}

impl Capture {
    /// Starts to read `pipe` into a file at `path`, which is made when there is something to write.
    pub(super) fn start(
        pipe: impl AsyncRead + Send + Unpin + 'static,
        path: PathBuf,
        bytes_max: u64,
    ) -> Self {
        let task = tokio::spawn(keep(pipe, path.clone(), bytes_max));
        Self { task, path }
    }

    /// Waits for the end of the pipe; call when the command is gone.
    pub(super) async fn finish(mut self) -> io::Result<Captured> {
        if let Ok(done) = tokio::time::timeout(STRAGGLER_WAIT, &mut self.task).await {
            return done.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        }
        self.task.abort();
        let _ = self.task.await;
        let path = tokio::fs::try_exists(&self.path).await?.then_some(self.path);
        Ok(Captured { path, dropped_bytes: 0 })
    }
}

/// Adds a line, for what the worker itself has to say about the command.
pub(super) async fn add_line(captured: &mut Captured, path: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path).await?;
    file.write_all(line.as_bytes()).await?;
    file.write_all(b"\n").await?;
    file.flush().await?;
    captured.path = Some(path.to_owned());
    Ok(())
}

async fn keep(mut pipe: impl AsyncRead + Unpin, path: PathBuf, bytes_max: u64) -> io::Result<Captured> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut file: Option<File> = None;
    let mut room = bytes_max;
    let mut dropped_bytes = 0;
    loop {
        let got = pipe.read(&mut piece).await?;
        if got == 0 {
            break;
        }
        let kept = usize::try_from(room).map_or(got, |room| got.min(room));
        if kept > 0 {
            if file.is_none() {
                file = Some(File::create(&path).await?);
            }
            let file = file.as_mut().expect("made just above");
            file.write_all(&piece[..kept]).await?;
        }
        room -= kept as u64;
        dropped_bytes += (got - kept) as u64;
    }
    if let Some(mut file) = file {
        if dropped_bytes > 0 {
            let marker = format!("\n[castwork: cut here; {dropped_bytes} more bytes were written]\n");
            file.write_all(marker.as_bytes()).await?;
        }
        file.flush().await?;
        return Ok(Captured { path: Some(path), dropped_bytes });
    }
    Ok(Captured { path: None, dropped_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn captured(bytes: &'static [u8], bytes_max: u64) -> (Captured, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let kept = Capture::start(bytes, folder.path().join("out"), bytes_max).finish().await.unwrap();
        let text = kept.path.as_ref().map(|path| std::fs::read_to_string(path).unwrap());
        (kept, text)
    }

    #[tokio::test]
    async fn nothing_written_makes_no_file() {
        assert_eq!(captured(b"", 10).await, (Captured::default(), None));
    }

    #[tokio::test]
    async fn what_fits_is_kept_as_it_is() {
        assert_eq!(captured(b"0123456789", 10).await.1.as_deref(), Some("0123456789"));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_cut_with_a_marker_that_says_how_much() {
        let (kept, text) = captured(b"0123456789abc", 10).await;
        assert_eq!(kept.dropped_bytes, 3);
        assert_eq!(text.unwrap(), "0123456789\n[castwork: cut here; 3 more bytes were written]\n");
    }
}
