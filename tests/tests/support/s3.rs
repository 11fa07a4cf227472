//! An S3 server on loopback: a real one, over a folder.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// The one bucket there is: a folder of the server's.
const BUCKET: &str = "builds";

/// Who may use it.
pub(crate) const ACCESS_KEY: &str = "us";
pub(crate) const SECRET_KEY: &str = "never-show-this";

/// The server; it ends when this is dropped.
pub(crate) struct S3 {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl S3 {
    /// Starts one over an empty folder. Checks signatures.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_at("127.0.0.1:0", folder).await
    }

    /// Starts one at an address.
    pub(crate) async fn start_at(address: &str, folder: &Path) -> Self {
        fs::create_dir_all(folder.join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, serving }
    }

    /// What an operator writes to use it.
    pub(crate) fn url(&self, prefix: &str) -> String {
        Self::url_at(&self.address.to_string(), prefix)
    }

    /// The same for a server that is at an address, or will be.
    pub(crate) fn url_at(address: &str, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint=http://{address}&region=eu-west-1")
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
