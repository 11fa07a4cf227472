//! [`Capabilities`]: what a server can do, asked once.

use castwork_proto::reapi;
use castwork_proto::reapi::capabilities_client::CapabilitiesClient;
use castwork_proto::semver::SemVer;
use tonic::Status;

use super::Remote;
use crate::{DigestFunction, StoreError};

/// The most bytes of blobs in one message, whatever the server would take: several messages at once are
/// faster than one, and both sides hold whole messages in memory.
const BATCH_BYTES_MAX: u64 = (4 << 20) - (64 << 10);

/// The oldest and newest versions of REAPI that are spoken here, as major and minor.
const VERSIONS: (Version, Version) = ((2, 0), (2, 13));

type Version = (i32, i32);

/// The header by which a server of ours says `none`: it could run actions, and has nobody who does.
const WORKERS_HEADER: &str = "castwork-workers";

/// What a server can do, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Everything it said.
    pub message: reapi::ServerCapabilities,
    /// Whether actions may find somebody who runs them; a server of others doesn't say that there is nobody.
    pub has_workers: bool,
    /// Most bytes of blobs in one batch.
    pub batch_bytes_max: u64,
    /// Whether streams may be compressed with zstd.
    pub streams_zstd: bool,
    /// Whether blobs in a batch may be compressed with zstd.
    pub batches_zstd: bool,
}

impl Remote {
    /// Returns what the server can do. It is asked once; a failure is not remembered.
    ///
    /// # Errors
    /// [`StoreError::Remote`], with `FAILED_PRECONDITION` if the server speaks no version that is spoken
    /// here, is no cache, or does not know the digest function.
    pub async fn capabilities(&self) -> Result<&Capabilities, StoreError> {
        self.capabilities
            .get_or_try_init(|| async {
                const STEP: &str = "ask for the capabilities";
                let message = reapi::GetCapabilitiesRequest { instance_name: self.instance.to_string() };
                let call = |request| {
                    let mut client = CapabilitiesClient::new(self.channel());
                    async move { client.get_capabilities(request).await }
                };
                let answer = self.call_with_headers(&message, call).await;
                let answer = answer.map_err(|status| self.failed(STEP, status))?;
                let has_workers = answer.metadata().get(WORKERS_HEADER).is_none_or(|said| said != "none");
                Capabilities::new(answer.into_inner(), self.function)
                    .map(|known| Capabilities { has_workers, ..known })
                    .map_err(|reason| self.failed(STEP, Box::new(Status::failed_precondition(reason))))
            })
            .await
    }
}

impl Capabilities {
    /// Whether this caller may write results.
    pub fn takes_results(&self) -> bool {
        let cache = self.message.cache_capabilities.as_ref();
        let updates = cache.and_then(|cache| cache.action_cache_update_capabilities.as_ref());
        updates.is_some_and(|updates| updates.update_enabled)
    }

    /// Whether actions can be executed.
    pub fn executes(&self) -> bool {
        self.message.execution_capabilities.as_ref().is_some_and(|execution| execution.exec_enabled)
    }

    fn new(message: reapi::ServerCapabilities, function: DigestFunction) -> Result<Self, String> {
        check_versions(&message)?;
        let cache = message.cache_capabilities.as_ref().ok_or("the server is no cache")?;
        // Servers of the first versions leave the list out, and mean SHA-256.
        let knows_function = cache.digest_functions.contains(&(function.to_proto() as i32))
            || (cache.digest_functions.is_empty() && function == DigestFunction::Sha256);
        if !knows_function {
            return Err(format!("the server does not know digest function `{}`", function.name()));
        }
        let zstd = reapi::compressor::Value::Zstd as i32;
        Ok(Self {
            has_workers: true,
            batch_bytes_max: match u64::try_from(cache.max_batch_total_size_bytes) {
                // Zero is no limit, and no server means less.
                Ok(0) | Err(_) => BATCH_BYTES_MAX,
                Ok(bytes) => bytes.min(BATCH_BYTES_MAX),
            },
            streams_zstd: cache.supported_compressors.contains(&zstd),
            batches_zstd: cache.supported_batch_update_compressors.contains(&zstd),
            message,
        })
    }
}

fn check_versions(message: &reapi::ServerCapabilities) -> Result<(), String> {
    let version = |semver: &Option<SemVer>| semver.as_ref().map(|semver| (semver.major, semver.minor));
    let (low, high) = (version(&message.low_api_version), version(&message.high_api_version));
    let (our_low, our_high) = VERSIONS;
    // What a server leaves out is taken to fit.
    if low.is_some_and(|low| low > our_high) || high.is_some_and(|high| high < our_low) {
        let text = |version: Option<Version>| {
            version.map_or_else(|| "?".to_owned(), |(major, minor)| format!("{major}.{minor}"))
        };
        return Err(format!(
            "the server speaks REAPI {} to {}, and here it is {} to {}",
            text(low),
            text(high),
            text(Some(our_low)),
            text(Some(our_high))
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(low: Version, high: Version) -> reapi::ServerCapabilities {
        let semver = |(major, minor)| Some(SemVer { major, minor, ..Default::default() });
        reapi::ServerCapabilities {
            cache_capabilities: Some(reapi::CacheCapabilities {
                digest_functions: vec![DigestFunction::Sha256.to_proto() as i32],
                ..Default::default()
            }),
            low_api_version: semver(low),
            high_api_version: semver(high),
            ..Default::default()
        }
    }

    fn read(message: &reapi::ServerCapabilities) -> Result<Capabilities, String> {
        Capabilities::new(message.clone(), DigestFunction::Sha256)
    }

    #[test]
    fn versions_that_overlap_with_ours_will_do() {
        for (low, high) in [((2, 0), (2, 3)), ((2, 1), (3, 0)), ((1, 0), (2, 0)), ((2, 13), (2, 20))] {
            assert!(read(&server(low, high)).is_ok(), "{low:?} to {high:?}");
        }
        for (low, high) in [((1, 0), (1, 9)), ((3, 0), (3, 1)), ((2, 14), (2, 20))] {
            assert!(read(&server(low, high)).is_err(), "{low:?} to {high:?}");
        }
        let silent = reapi::ServerCapabilities {
            low_api_version: None,
            high_api_version: None,
            ..server((0, 0), (0, 0))
        };
        assert!(read(&silent).is_ok());
    }

    #[test]
    fn a_server_that_is_no_cache_or_lacks_our_function_is_refused() {
        let mut message = server((2, 0), (2, 3));
        assert!(Capabilities::new(message.clone(), DigestFunction::Blake3).unwrap_err().contains("blake3"));
        message.cache_capabilities = None;
        assert!(read(&message).unwrap_err().contains("no cache"));
    }

    #[test]
    fn no_batch_limit_means_ours_and_a_smaller_one_is_kept() {
        let limit = |bytes| {
            let mut message = server((2, 0), (2, 3));
            message.cache_capabilities.as_mut().unwrap().max_batch_total_size_bytes = bytes;
            read(&message).unwrap().batch_bytes_max
        };
        assert_eq!(limit(0), BATCH_BYTES_MAX);
        assert_eq!(limit(-1), BATCH_BYTES_MAX);
        assert_eq!(limit(i64::MAX), BATCH_BYTES_MAX);
        assert_eq!(limit(65_536), 65_536);
    }
}
