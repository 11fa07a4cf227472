//! [`End`]: what stands behind: a server, or an object store.

use std::time::Duration;

use async_trait::async_trait;
use castwork_cas::resource::check_instance_name;
use castwork_cas::{
    ActionCache, ActionKey, BlobStore, BlobStream, ByteRange, Digest, DigestFunction, Objects, Remote,
    RemoteConfig, StoreError,
};
use castwork_proto::reapi::ActionResult;
use tonic::Status;

use super::ASKED_MAX;

/// The bearer token for a server, from the environment.
const TOKEN: &str = "CASTWORK_TIER_TOKEN";

/// Behind a URL, `?mode=ro` or `&mode=ro`: it is only read.
const READ_ONLY: &str = "mode=ro";

enum Place {
    /// One for each function. The instance is also the local one whose results go there: those of others would lose
    /// their names.
    Server {
        remotes: Vec<Remote>,
        instance: String,
    },
    Objects(Objects),
}

/// See the module.
pub(super) struct End {
    place: Place,
    is_writable: bool,
}

impl End {
    /// Reads `grpc://HOST:PORT[/INSTANCE]` or the URL of an object store, either with `?mode=ro`.
    pub(super) fn open(url: &str, wait: Duration) -> Result<Self, StoreError> {
        let (url, is_writable) = without_mode(url);
        let place = if Objects::is_address(&url) {
            let objects = Objects::open(&url, wait)?;
            Place::Objects(if is_writable { objects } else { objects.read_only() })
        } else {
            let (address, instance) = split_instance(&url);
            let remote = Remote::connect_lazy(&RemoteConfig {
                address: address.to_owned(),
                instance: instance.to_owned(),
                function: DigestFunction::Sha256,
                token: std::env::var(TOKEN).ok().filter(|token| !token.is_empty()),
                request_metadata: None,
                timeout: wait,
            })?;
            let remotes = DigestFunction::ALL.map(|function| remote.with_function(function)).into();
            Place::Server { remotes, instance: instance.to_owned() }
        };
        Ok(Self { place, is_writable })
    }

    pub(super) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// As it may be shown.
    pub(super) fn address(&self) -> &str {
        match &self.place {
            Place::Server { remotes, .. } => remotes[0].address(),
            Place::Objects(objects) => objects.address(),
        }
    }

    /// Digests that may be asked for at once.
    pub(super) fn asked_max(&self) -> usize {
        match &self.place {
            Place::Server { .. } => usize::MAX,
            Place::Objects(_) => ASKED_MAX,
        }
    }

    /// A server has one instance here, and its results are those of the local instance of the same name. An object
    /// store keeps those of all apart.
    pub(super) fn takes_results_of(&self, local: &str) -> bool {
        match &self.place {
            Place::Server { instance, .. } => local == instance && check_instance_name(local).is_ok(),
            Place::Objects(_) => true,
        }
    }

    /// Whether results are taken only of actions that are there themselves.
    pub(super) fn wants_actions(&self) -> bool {
        matches!(self.place, Place::Server { .. })
    }

    /// Removes a result; a server does that only by itself.
    pub(super) async fn remove_result(&self, key: &ActionKey) -> Result<(), StoreError> {
        match &self.place {
            Place::Server { .. } => Err(StoreError::Remote {
                step: "take back a result",
                address: self.address().into(),
                source: Box::new(Status::unimplemented("take it back at that server")),
            }),
            Place::Objects(objects) => objects.remove_result(key).await,
        }
    }

    /// The error for what took too long as a whole.
    pub(super) fn late(&self) -> StoreError {
        StoreError::Remote {
            step: "wait for the tier",
            address: self.address().into(),
            source: Box::new(Status::deadline_exceeded("it took too long")),
        }
    }
}

/// Says what is wrong with the URL of a tier, in words and without any credential.
pub(crate) fn check_address(url: &str) -> Result<(), String> {
    let (url, _) = without_mode(url);
    if url.starts_with("gha:") {
        return Err(
            "GitHub's cache belongs to a job; give it to the wrapper there, as CASTWORK_REMOTE".to_owned()
        );
    }
    if !Objects::is_address(&url) {
        let (address, instance) = split_instance(&url);
        Remote::check_address(address)?;
        return check_instance_name(instance).map_err(|error| error.to_string());
    }
    match Objects::open(&url, Duration::from_secs(1)) {
        Err(StoreError::Remote { source, .. }) => Err(source.message().to_owned()),
        opened => opened.map(drop).map_err(|error| error.to_string()),
    }
}

fn for_function<'a>(remotes: &'a [Remote], digest: &Digest) -> &'a Remote {
    let remote = remotes.iter().find(|remote| remote.function() == digest.function());
    remote.expect("there is one for each function")
}

fn without_mode(url: &str) -> (String, bool) {
    let Some((place, options)) = url.split_once('?') else { return (url.to_owned(), true) };
    let is_writable = options.split('&').all(|option| option != READ_ONLY);
    let others: Vec<&str> =
        options.split('&').filter(|option| ![READ_ONLY, "mode=rw"].contains(option)).collect();
    let url = if others.is_empty() { place.to_owned() } else { format!("{place}?{}", others.join("&")) };
    (url, is_writable)
}

/// `grpc://HOST:PORT/INSTANCE` in two.
fn split_instance(url: &str) -> (&str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url[start..].find('/') {
        Some(slash) => (&url[..start + slash], url[start + slash + 1..].trim_end_matches('/')),
        None => (url, ""),
    }
}

#[async_trait]
impl BlobStore for End {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        match &self.place {
            Place::Server { remotes, .. } => {
                let mut missing = Vec::new();
                for remote in remotes {
                    let is_its = |digest: &&Digest| digest.function() == remote.function();
                    let asked: Vec<Digest> = digests.iter().filter(is_its).copied().collect();
                    if !asked.is_empty() {
                        missing.extend(remote.find_missing(&asked).await?);
                    }
                }
                Ok(missing)
            }
            Place::Objects(objects) => objects.find_missing(digests).await,
        }
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        match &self.place {
            Place::Server { remotes, .. } => {
                BlobStore::get(for_function(remotes, digest), digest, range).await
            }
            Place::Objects(objects) => BlobStore::get(objects, digest, range).await,
        }
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        match &self.place {
            Place::Server { remotes, .. } => {
                BlobStore::put(for_function(remotes, digest), digest, data).await
            }
            Place::Objects(objects) => BlobStore::put(objects, digest, data).await,
        }
    }
}

#[async_trait]
impl ActionCache for End {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        match &self.place {
            Place::Server { .. } if !self.takes_results_of(&key.instance) => Ok(None),
            Place::Server { remotes, .. } => ActionCache::get(for_function(remotes, &key.action), key).await,
            Place::Objects(objects) => ActionCache::get(objects, key).await,
        }
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        match &self.place {
            Place::Server { remotes, .. } => {
                ActionCache::put(for_function(remotes, &key.action), key, result).await
            }
            Place::Objects(objects) => ActionCache::put(objects, key, result).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_whether_it_is_only_read() {
        let read = |url| without_mode(url);
        assert_eq!(read("s3://b/p"), ("s3://b/p".to_owned(), true));
        assert_eq!(read("s3://b?mode=rw"), ("s3://b".to_owned(), true));
        assert_eq!(read("grpc://h:1?mode=ro"), ("grpc://h:1".to_owned(), false));
        assert_eq!(read("s3://b?region=x&mode=ro&y=z"), ("s3://b?region=x&y=z".to_owned(), false));
    }

    #[test]
    fn a_server_has_an_instance_behind_its_port() {
        assert_eq!(split_instance("grpc://h:1"), ("grpc://h:1", ""));
        assert_eq!(split_instance("grpc://h:1/a/b/"), ("grpc://h:1", "a/b"));
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_with_what_to_write() {
        for url in ["", "http://h:1", "grpc://h", "s3://", "grpc://h:1/blobs", "grpc://h:1?mode=x"] {
            assert!(End::open(url, Duration::from_secs(1)).is_err(), "{url}");
        }
        let end = End::open("grpc://h:1/main?mode=ro", Duration::from_secs(1)).unwrap();
        assert!(!end.is_writable() && end.takes_results_of("main") && !end.takes_results_of(""));
        assert!(!end.takes_results_of("/http/ccache"));
    }
}
