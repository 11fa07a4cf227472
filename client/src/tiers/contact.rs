//! [`Server`]: which server, and who asks it; and [`Inputs`]: what it has to have to run something.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::remote::{Remote, RemoteConfig};
use castwork_cas::{Digest, DigestFunction, StoreError};
use castwork_proto::reapi;

use super::upload::Source;
use crate::config::{Address, Config};
use crate::counters::Configuration;

/// The longest wait for the next bytes of a transfer.
pub(super) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);

/// A server, and who asks it.
#[derive(Clone, Debug)]
pub struct Server {
    /// `grpc://HOST:PORT`.
    pub address: String,
    /// REAPI instance name.
    pub instance: String,
    /// Bearer token.
    pub token: Option<String>,
    /// Name of the build.
    pub run_id: Option<String>,
    /// What is built in it.
    pub configuration: Configuration,
}

impl Server {
    /// The server of an address, with what the configuration says about us.
    pub fn new(address: &Address, config: &Config) -> Option<Self> {
        let Address::Server { address, instance } = address else { return None };
        Some(Self {
            address: address.clone(),
            instance: instance.clone(),
            token: config.token.clone(),
            run_id: config.run_id.clone(),
            configuration: Configuration::of(config),
        })
    }

    /// The same, for a call that builds this.
    #[must_use]
    pub fn building(self, configuration: &Configuration) -> Self {
        Self { configuration: configuration.clone(), ..self }
    }

    /// Prepares to talk to it; inside a runtime.
    ///
    /// # Errors
    /// If its address can't be one.
    pub fn connect(&self) -> Result<Remote, StoreError> {
        Remote::connect_lazy(&RemoteConfig {
            address: self.address.clone(),
            instance: self.instance.clone(),
            function: DigestFunction::Sha256,
            token: self.token.clone(),
            request_metadata: Some(self.request_metadata(None, "")),
            timeout: TRANSFER_TIMEOUT,
        })
    }

    /// Who asks, and for what.
    pub fn request_metadata(&self, action: Option<&Digest>, purpose: &str) -> reapi::RequestMetadata {
        let Configuration { project, toolchain, platform } = &self.configuration;
        reapi::RequestMetadata {
            tool_details: Some(reapi::ToolDetails {
                tool_name: "castwork".to_owned(),
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            action_id: action.map(Digest::hash_hex).unwrap_or_default(),
            tool_invocation_id: self.run_id.clone().unwrap_or_default(),
            correlated_invocations_id: project.clone(),
            configuration_id: format!("{platform}/{toolchain}"),
            action_mnemonic: purpose.to_owned(),
            ..reapi::RequestMetadata::default()
        }
    }
}

/// What an action consists of, for who has to have it.
pub struct Inputs {
    /// Action, command and directories.
    pub messages: Vec<(Digest, Bytes)>,
    /// Files.
    pub files: Vec<(Digest, Bytes)>,
    /// The compiler's files and where they are: read only if the server lacks them.
    pub toolchain: Vec<(Digest, PathBuf)>,
}

impl Inputs {
    /// All of it, as it is uploaded.
    pub(super) fn sources(&self) -> Vec<(Digest, Source)> {
        let in_memory = self.messages.iter().chain(&self.files);
        let in_memory = in_memory.map(|(digest, data)| (*digest, Source::Bytes(data.clone())));
        let on_disk = self.toolchain.iter().map(|(digest, path)| (*digest, Source::File(path.clone())));
        in_memory.chain(on_disk).collect()
    }
}
