//! Where processes of one user on one machine meet: a pipe with a name.

use std::ffi::{OsStr, OsString};
use std::io;

use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};

/// Somebody who has come.
pub type Connection = NamedPipeServer;

/// A pipe of this user.
#[derive(Debug)]
pub struct Endpoint {
    name: OsString,
    next: NamedPipeServer,
}

impl Endpoint {
    /// Makes a pipe of that name, which is without `\\.\pipe\`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If there is such a pipe already.
    pub fn listen(name: impl AsRef<OsStr>) -> io::Result<Self> {
        let mut full = OsString::from(r"\\.\pipe\");
        full.push(name);
        let next = ServerOptions::new().first_pipe_instance(true).create(&full)?;
        Ok(Self { name: full, next })
    }

    /// Waits for the next who comes. Cancel-safe.
    ///
    /// # Errors
    /// If no more can be had, for now.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        self.next.connect().await?;
        let next = ServerOptions::new().create(&self.name)?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}
