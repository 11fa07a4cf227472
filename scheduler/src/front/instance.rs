//! [`Instances`]: which instance names there are, and what an unset digest function means in each.

use std::collections::BTreeMap;
use std::sync::Arc;

use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;
use tonic::Status;

use super::errors::{bad, bad_digest};

/// An instance that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its REAPI name; may be empty.
    pub name: Arc<str>,
    /// What an unset digest function means.
    pub function: DigestFunction,
}

impl Instance {
    /// Reads the `digest_function` field of a request. If it is not set, the length of a hash of the request
    /// tells; all of them are of one function.
    pub fn function(&self, requested: i32, hash: Option<&reapi::Digest>) -> Result<DigestFunction, Status> {
        let digits = hash.map_or(0, |digest| digest.hash.len());
        let inferred = DigestFunction::of_length(digits, self.function);
        DigestFunction::from_proto(requested, inferred).map_err(|error| bad_digest(&error))
    }

    /// Whether clients of this instance may store under `function`: what anybody can forge, only where the
    /// instance was configured for it.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn may_write(&self, function: DigestFunction) -> Result<(), Status> {
        if self.writes(function) {
            return Ok(());
        }
        let name = function.name();
        Err(Status::permission_denied(format!(
            "{name} can be forged, so only an instance with `digest-function = \"{name}\"` stores under it"
        )))
    }

    /// The functions that clients of this instance are told of.
    pub fn functions(&self) -> impl Iterator<Item = DigestFunction> {
        DigestFunction::ALL.into_iter().filter(|function| self.writes(*function))
    }

    fn writes(&self, function: DigestFunction) -> bool {
        !function.is_forgeable() || function == self.function
    }
}

/// All instances of this server: the one with the empty name, and the configured ones.
#[derive(Clone, Debug)]
pub struct Instances {
    by_name: BTreeMap<Arc<str>, Instance>,
}

impl Instances {
    /// The instances of `named`, and the one with the empty name, which hashes with SHA-256
    /// unless `named` says otherwise.
    pub fn new(named: impl IntoIterator<Item = (String, DigestFunction)>) -> Self {
        let unnamed = (String::new(), DigestFunction::Sha256);
        let by_name = std::iter::once(unnamed)
            .chain(named)
            .map(|(name, function)| {
                let name: Arc<str> = name.into();
                (Arc::clone(&name), Instance { name, function })
            })
            .collect();
        Self { by_name }
    }

    /// Finds the instance that a request names.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with a message that starts as `BuildStream` expects it.
    pub fn check(&self, name: &str) -> Result<&Instance, Status> {
        self.by_name.get(name).ok_or_else(|| {
            bad(format!("Invalid instance name `{}`: this server has no such instance", clip(name)))
        })
    }

    /// Every instance, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.by_name.values()
    }
}

/// Checks a digest that a request must have; `field` is its name in the message.
pub fn required_digest(
    digest: Option<&reapi::Digest>,
    function: DigestFunction,
    field: &str,
) -> Result<Digest, Status> {
    let digest = digest.ok_or_else(|| bad(format!("`{field}` is not set")))?;
    Digest::from_proto(digest, function).map_err(|error| bad(format!("`{field}`: {error}")))
}

/// The start of a text of others, short enough for an error message.
pub fn clip(text: &str) -> &str {
    const CHARS_MAX: usize = 100;
    text.char_indices().nth(CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_name_and_the_configured_ones_are_known_and_no_others() {
        let instances = Instances::new([("team/main".to_owned(), DigestFunction::Blake3)]);
        assert_eq!(instances.check("").unwrap().function, DigestFunction::Sha256);
        assert_eq!(instances.check("team/main").unwrap().function, DigestFunction::Blake3);
        let refusal = instances.check("team").unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
        assert!(refusal.message().starts_with("Invalid instance name"));
    }

    #[test]
    fn the_empty_name_may_have_another_function() {
        let instances = Instances::new([(String::new(), DigestFunction::Blake3)]);
        assert_eq!(instances.check("").unwrap().function, DigestFunction::Blake3);
    }

    #[test]
    fn what_can_be_forged_is_stored_only_where_it_was_asked_for() {
        let instances = Instances::new([("old".to_owned(), DigestFunction::Md5)]);
        let code =
            |name, function| instances.check(name).unwrap().may_write(function).map_err(|it| it.code());
        assert_eq!(code("", DigestFunction::Md5), Err(tonic::Code::PermissionDenied));
        assert_eq!(code("old", DigestFunction::Md5), Ok(()));
        assert_eq!(code("old", DigestFunction::Sha256), Ok(()));
        assert_eq!(code("", DigestFunction::Sha1), Ok(()));
    }

    #[test]
    fn an_unset_digest_and_a_malformed_one_are_refused_by_the_name_of_their_field() {
        let refuse = |digest: Option<&reapi::Digest>| {
            required_digest(digest, DigestFunction::Sha256, "action_digest").unwrap_err()
        };
        assert!(refuse(None).message().contains("action_digest"));
        let empty = reapi::Digest::default();
        assert!(refuse(Some(&empty)).message().contains("action_digest"));
    }
}
