//! [`ReadyFile`]: tells scripts that the server serves, and where.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::serve::ServeError;

/// A file that is there while the server serves, and always whole.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Removes the file of an earlier server, so that nobody takes it for this one's.
    pub(crate) fn new(path: PathBuf) -> Result<Self, ServeError> {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ServeError::ReadyFile { step: "remove an earlier", path, source })
            }
            _ => Ok(Self { path }),
        }
    }

    pub(crate) fn write(&self, grpc: SocketAddr, http: SocketAddr) -> Result<(), ServeError> {
        let facts = json!({ "grpc": grpc.to_string(), "http": http.to_string(), "pid": std::process::id() });
        let write = || {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
            writeln!(file, "{facts}")?;
            file.persist(&self.path).map_err(|error| error.error).map(drop)
        };
        write().map_err(|source| ServeError::ReadyFile { step: "write", path: self.path.clone(), source })
    }

    /// The server serves no longer.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the ready file could not be removed");
        }
    }
}
