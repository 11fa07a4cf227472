//! The server that is asked, and what clients do with it.

use std::cell::OnceCell;
use std::env;
use std::fs;
use std::ops::Deref;

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;
use castwork_proto::reapi::capabilities_client::CapabilitiesClient;
use castwork_tests::{Caller, Farm, Options, skip};
pub(crate) use castwork_tests::{item, pieces, write_name};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) use crate::raw::call_raw;

pub(crate) const SHA256: DigestFunction = DigestFunction::Sha256;
pub(crate) const BLAKE3: DigestFunction = DigestFunction::Blake3;

/// The function as messages have it; 0 leaves it to the server.
pub(crate) const UNSET: i32 = 0;

/// Where the server is that is asked instead of ours.
const ADDRESS: &str = "CASTWORK_CONFORMANCE_ADDRESS";

/// An instance whose unset digest function is BLAKE3, and one with the usual.
const INSTANCES: &str = "[[instance]]\nname = \"blake\"\ndigest-function = \"blake3\"\n\
    [[instance]]\nname = \"team/main\"\n";

/// A server, ours unless another was named.
pub(crate) struct Server {
    caller: Caller,
    /// `HOST:PORT`.
    pub(crate) address: String,
    own: Option<Own>,
}

struct Own {
    farm: Farm,
    _configuration: TempDir,
}

impl Server {
    /// A server that need not execute anything.
    pub(crate) async fn start() -> Self {
        Self::start_with(0).await
    }

    async fn start_with(workers: usize) -> Self {
        if let Ok(address) = env::var(ADDRESS) {
            return Self { caller: Caller::connect(&address).await, address: plain(&address), own: None };
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("castwork.toml");
        fs::write(&file, INSTANCES).unwrap();
        let scheduler_arguments = vec!["--config".to_owned(), file.display().to_string()];
        let farm = Farm::with(Options { workers, scheduler_arguments, ..Options::default() });
        Self {
            caller: Caller::connect(&farm.address()).await,
            address: plain(&farm.address()),
            own: Some(Own { farm, _configuration: folder }),
        }
    }

    /// A server that executes; `None` if it says that it does not.
    pub(crate) async fn with_a_worker(test: &str) -> Option<Self> {
        let server = Self::start_with(1).await;
        let executes = server.capabilities().await.execution_capabilities.is_some_and(|it| it.exec_enabled);
        if !executes {
            skip(test, "the server executes nothing");
        }
        executes.then_some(server)
    }

    /// A server with the instances `team/main` and `blake`, which only ours can be asked to have.
    pub(crate) async fn with_instances(test: &str) -> Option<Self> {
        if env::var_os(ADDRESS).is_some() {
            skip(test, "the instances of the server are not known");
            return None;
        }
        Some(Self::start().await)
    }

    /// A server that offers what `is_offered` looks for.
    pub(crate) async fn offering(
        test: &str,
        is_offered: impl FnOnce(&reapi::CacheCapabilities) -> bool,
    ) -> Option<Self> {
        let server = Self::start().await;
        let offers = server.capabilities().await.cache_capabilities.is_some_and(|it| is_offered(&it));
        if !offers {
            skip(test, "the server does not offer it");
        }
        offers.then_some(server)
    }

    /// The programs, if they are ours: then one can look at, and spoil, what is behind the port.
    pub(crate) fn farm(&self, test: &str) -> Option<&Farm> {
        if self.own.is_none() {
            skip(test, "the server is not ours to look behind");
        }
        self.own.as_ref().map(|own| &own.farm)
    }

    /// Another life of the server over the same store, after `kill -9`; `None` if it is not ours to end.
    pub(crate) async fn restart(mut self) -> Option<Self> {
        let own = self.own.as_mut()?;
        own.farm.scheduler().kill();
        own.farm.restart_scheduler();
        self.caller = Caller::connect(&own.farm.address()).await;
        Some(self)
    }

    pub(crate) async fn capabilities(&self) -> reapi::ServerCapabilities {
        let mut client = CapabilitiesClient::new(self.channel.clone());
        client.get_capabilities(reapi::GetCapabilitiesRequest::default()).await.unwrap().into_inner()
    }

    /// The blob, whole.
    pub(crate) async fn blob(&self, digest: &reapi::Digest) -> Bytes {
        self.read(&format!("blobs/{}/{}", digest.hash, digest.size_bytes), 0, 0).await.unwrap()
    }
}

impl Deref for Server {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// An address without its scheme.
fn plain(address: &str) -> String {
    address.split_once("://").map_or(address, |(_, address)| address).to_owned()
}

pub(crate) fn write_zstd_name(id: &str, digest: &Digest) -> String {
    format!("uploads/{id}/compressed-blobs/zstd/{digest}")
}

thread_local! {
    /// Each test runs on a thread of its own.
    static SALT: OnceCell<[u8; 16]> = const { OnceCell::new() };
}

/// What no other test, and no other run of this one, has: tests share a server that is not ours.
pub(crate) fn salt() -> String {
    hex::encode(SALT.with(|salt| *salt.get_or_init(|| Uuid::new_v4().into_bytes())))
}

/// Bytes that no compression, no other seed and no other test has.
pub(crate) fn noise(seed: u32, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 64);
    let (salt, mut block) = (salt(), 0_u64);
    while bytes.len() < length {
        let text = format!("{salt} {seed} {block}");
        bytes.extend_from_slice(Digest::of(DigestFunction::Sha512, text.as_bytes()).hash());
        block += 1;
    }
    bytes.truncate(length);
    bytes.into()
}
