//! A server, and clients.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::DigestFunction;
use castwork_scheduler::config::{Args, Config};
use castwork_scheduler::dispatch;
use castwork_scheduler::front::limits::Limits;
use castwork_scheduler::serve::Server;
use castwork_tests::Caller;
pub(crate) use castwork_tests::{item, pieces, skip, write_name};
use tempfile::TempDir;

pub(crate) const SHA256: DigestFunction = DigestFunction::Sha256;
pub(crate) const BLAKE3: DigestFunction = DigestFunction::Blake3;

/// The function as messages have it; 0 leaves it to the server.
pub(crate) const UNSET: i32 = 0;

/// An instance whose unset digest function is BLAKE3, and one with the usual.
pub(crate) const INSTANCES: &str = "[[instance]]\nname = \"blake\"\ndigest-function = \"blake3\"\n\
    [[instance]]\nname = \"team/main\"\n";

/// A server in this process, over a store in a temporary folder.
pub(crate) struct House {
    pub(crate) server: Server,
    caller: Caller,
    pub(crate) folder: Arc<TempDir>,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| (), |_| ()).await
    }

    pub(crate) async fn start_with(
        change_args: impl FnOnce(&mut Args),
        change_limits: impl FnOnce(&mut Limits),
    ) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), change_args, change_limits).await
    }

    /// With the instances that `text` configures instead of the usual ones.
    pub(crate) async fn start_in_instance(text: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let file = folder.path().join("own.toml");
        std::fs::write(&file, text).unwrap();
        Self::start_in(folder, |args| args.config = Some(file), |_| ()).await
    }

    async fn start_in(
        folder: Arc<TempDir>,
        change_args: impl FnOnce(&mut Args),
        change_limits: impl FnOnce(&mut Limits),
    ) -> Self {
        let file = folder.path().join("castwork.toml");
        std::fs::write(&file, INSTANCES).unwrap();
        let mut args = args(&folder.path().join("data"));
        args.config = Some(file);
        change_args(&mut args);
        let config = Config::load(args).unwrap();
        let mut limits = Limits { blob_bytes_max: config.bytes_max / 2, ..Limits::default() };
        change_limits(&mut limits);
        let server = Server::start_with(&config, limits, dispatch::Limits::default()).await.unwrap();
        let caller = Caller::connect(&server.grpc_address().to_string()).await;
        Self { server, caller, folder }
    }

    /// Another life of the server over the same store.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| ()).await
    }

    pub(crate) async fn restart_with(self, change_args: impl FnOnce(&mut Args)) -> Self {
        drop(self.caller);
        self.server.shutdown().await;
        Self::start_in(self.folder, change_args, |_| ()).await
    }
}

impl Deref for House {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// The flags of a server with its data in `folder`.
pub(crate) fn args(folder: &Path) -> Args {
    Args {
        listen: Some("127.0.0.1:0".to_owned()),
        http_listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(folder.display().to_string()),
        max_size: Some("1GB".to_owned()),
        ..Args::default()
    }
}

/// Bytes that no compression and no other seed has.
pub(crate) fn noise(seed: u32, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}
