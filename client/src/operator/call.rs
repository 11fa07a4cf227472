//! [`Farm`]: the scheduler's door for operators.

use std::time::Duration;

use castwork_cas::StoreError;
use castwork_cas::remote::Remote;
use castwork_proto::admin::admin_client::AdminClient;
use castwork_proto::admin::{
    CancelActionsRequest, DrainRequest, DrainResponse, FindActionsRequest, FindActionsResponse,
    GetStatusRequest, Selector, Status, UndrainRequest,
};
use castwork_proto::runs::runs_client::RunsClient;
use castwork_proto::runs::{GetReportRequest, Report, TellRunRequest, ToldPart};
use tokio::runtime::Runtime;
use tonic::Code;

use super::Which;
use crate::config::{Address, Config};
use crate::tiers::Server;

/// The longest wait for an answer, connecting included.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Bytes of an answer, at most: thousands of workers with what they run.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    #[error("no server is set")]
    NoServer,
    #[error("`{0}` is no address of a server")]
    Address(String),
    #[error("no runtime for a connection: {0}")]
    Runtime(std::io::Error),
    #[error("connect to {address}: {source}")]
    Connect { address: String, source: StoreError },
    #[error("{address} did not answer for {} s", ANSWER_WAIT.as_secs())]
    TooLate { address: String },
    #[error("{address}: {message}")]
    Refused { address: String, code: Code, message: String },
}

impl OperatorError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoServer | Self::Address(_) => {
                Some("name one by `--server grpc://HOST:PORT`, or set CASTWORK_REMOTE")
            }
            Self::Connect { .. } | Self::TooLate { .. } | Self::Refused { code: Code::Unavailable, .. } => {
                Some("see whether the server runs there")
            }
            Self::Refused { code: Code::Unimplemented, .. } => {
                Some("this server is none of Castwork, or an older one")
            }
            Self::Refused { code: Code::Unauthenticated | Code::PermissionDenied, .. } => {
                Some("CASTWORK_TOKEN has to be a token that may administer")
            }
            Self::Runtime(_) | Self::Refused { .. } => None,
        }
    }
}

/// A scheduler, and who asks it.
pub(crate) struct Farm {
    runtime: Runtime,
    remote: Remote,
    address: String,
}

impl Farm {
    /// Prepares to ask the server at `address`, else the first that is set.
    pub(crate) fn connect(config: &Config, address: Option<&str>) -> Result<Self, OperatorError> {
        let server = match address {
            Some(text) => {
                if !text.starts_with("grpc://") && !text.starts_with("grpcs://") {
                    return Err(OperatorError::Address(text.to_owned()));
                }
                let address = Address::Server { address: text.to_owned(), instance: String::new() };
                Server::new(&address, config)
            }
            None => config.remotes.iter().find_map(|entry| Server::new(&entry.address, config)),
        };
        let server = server.ok_or(OperatorError::NoServer)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(OperatorError::Runtime)?;
        let address = server.address.clone();
        let remote = {
            let _inside = runtime.enter();
            server.connect().map_err(|source| OperatorError::Connect { address: address.clone(), source })?
        };
        Ok(Self { runtime, remote, address })
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) async fn status(&self) -> Result<Status, OperatorError> {
        let request = self.remote.with_metadata(GetStatusRequest {});
        self.answered(self.client().get_status(request)).await
    }

    pub(crate) async fn find(&self, digest: &str) -> Result<FindActionsResponse, OperatorError> {
        let selector = Selector { action_hash: hash_of(digest), ..Selector::default() };
        let request = self.remote.with_metadata(FindActionsRequest { selector: Some(selector) });
        self.answered(self.client().find_actions(request)).await
    }

    pub(crate) async fn drain(&self, pattern: &str, reason: &str) -> Result<DrainResponse, OperatorError> {
        let request = DrainRequest { pattern: pattern.to_owned(), reason: reason.to_owned() };
        self.answered(self.client().drain(self.remote.with_metadata(request))).await
    }

    pub(crate) async fn undrain(&self, pattern: &str) -> Result<DrainResponse, OperatorError> {
        let request = UndrainRequest { pattern: pattern.to_owned() };
        self.answered(self.client().undrain(self.remote.with_metadata(request))).await
    }

    /// Ends what is meant; says how many operations that were.
    pub(crate) async fn cancel(&self, which: &Which, reason: &str) -> Result<u64, OperatorError> {
        let selector = Selector {
            action_hash: which.digest.as_deref().map(hash_of).unwrap_or_default(),
            run: which.run.clone().unwrap_or_default(),
            operation: which.operation.clone().unwrap_or_default(),
        };
        let request = CancelActionsRequest { selector: Some(selector), reason: reason.to_owned() };
        let request = self.remote.with_metadata(request);
        Ok(self.answered(self.client().cancel_actions(request)).await?.operations)
    }

    /// Says what was done here in a run.
    pub(crate) async fn tell_run(
        &self,
        run: &str,
        teller: String,
        parts: Vec<ToldPart>,
    ) -> Result<(), OperatorError> {
        let instance_name = self.remote.instance().to_owned();
        let request = TellRunRequest { instance_name, run: run.to_owned(), teller, parts };
        let request = self.remote.with_metadata(request);
        self.answered(RunsClient::new(self.remote.channel()).tell_run(request)).await.map(|_| ())
    }

    /// What is known of a run; `None` if nothing is.
    pub(crate) async fn report(
        &self,
        run: &str,
        project: String,
        platform: String,
    ) -> Result<Option<Report>, OperatorError> {
        let instance_name = self.remote.instance().to_owned();
        let request = GetReportRequest { instance_name, run: run.to_owned(), project, platform };
        let request = self.remote.with_metadata(request);
        match self.answered(RunsClient::new(self.remote.channel()).get_report(request)).await {
            Err(OperatorError::Refused { code: Code::NotFound, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    fn client(&self) -> AdminClient<tonic::transport::Channel> {
        AdminClient::new(self.remote.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    async fn answered<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, OperatorError> {
        let address = || self.address.clone();
        match tokio::time::timeout(ANSWER_WAIT, call).await {
            Err(_) => Err(OperatorError::TooLate { address: address() }),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let (code, message) = (status.code(), status.message().to_owned());
                Err(OperatorError::Refused { address: address(), code, message })
            }
        }
    }
}

/// A digest as people copy it, with its size or in a resource's name, or only the start of its hash.
fn hash_of(text: &str) -> String {
    let without_size = match text.rsplit_once('/') {
        Some((rest, size)) if size.bytes().all(|digit| digit.is_ascii_digit()) => rest,
        _ => text,
    };
    without_size.rsplit(['/', ':']).next().unwrap_or(without_size).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::hash_of;

    #[test]
    fn digests_are_read_as_people_copy_them() {
        for text in ["ab12", "AB12", "ab12/142", "sha256:ab12/142", "blobs/ab12/142", "blobs/blake3/ab12/7"] {
            assert_eq!(hash_of(text), "ab12", "{text}");
        }
    }
}
