//! Where processes of one user on one machine meet: a socket with a path.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;

/// Somebody who has come.
pub type Connection = tokio::net::UnixStream;

/// A socket that this user alone can reach. Its file goes with it.
#[derive(Debug)]
pub struct Endpoint {
    listener: UnixListener,
    path: PathBuf,
}

impl Endpoint {
    /// Listens at a path. Must be called inside a tokio runtime; from here on, files that this process makes are its
    /// user's alone.
    ///
    /// # Errors
    /// If somebody listens there already, or the file can't be made.
    pub fn listen(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
        let listener = match UnixListener::bind(&path) {
            // Whoever made the file may have been killed.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(&path).is_err() => {
                fs::remove_file(&path)?;
                UnixListener::bind(&path)?
            }
            listener => listener?,
        };
        Ok(Self { listener, path })
    }

    /// Waits for the next who comes. Cancel-safe.
    ///
    /// # Errors
    /// If no more can be had, for now.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        self.listener.accept().await.map(|(connection, _)| connection)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
