//! [`Place`]: what a path names.

use std::sync::Arc;

use castwork_cas::{Digest, DigestFunction};

use super::answer::Refusal;
use crate::front::instance::{Instance, Instances, clip};

/// Bytes of a path, at most.
const PATH_BYTES_MAX: usize = 1024;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Bazel,
    Ccache,
    Sccache,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Bazel, Self::Ccache, Self::Sccache];

    /// Those whose entries have names that mean nothing to us.
    const OPAQUE: [Self; 2] = [Self::Ccache, Self::Sccache];

    /// As in paths and metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bazel => "bazel",
            Self::Ccache => "ccache",
            Self::Sccache => "sccache",
        }
    }
}

/// What a path names, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A result of Bazel's, under its action's hash; the size is 0 here, too.
    Result { instance: Arc<str>, hash: Digest },
    /// A blob, under its hash. The size is not in it: it is 0 here.
    Blob { instance: Arc<str>, hash: Digest },
    /// An entry under the rest of the path, or a folder if that ends in a slash.
    Entry { protocol: Protocol, path: String },
}

impl Place {
    /// Reads a path, as it was sent: nothing is decoded, so that no two paths name one entry.
    pub(super) fn read(path: &str, instances: &Instances) -> Result<Self, Refusal> {
        if path.len() > PATH_BYTES_MAX {
            return Err(Refusal::LongPath(PATH_BYTES_MAX));
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        if let Some(protocol) = Protocol::OPAQUE.into_iter().find(|protocol| protocol.name() == first) {
            return Ok(Self::Entry { protocol, path: rest.to_owned() });
        }
        let (folder, hash) = path.rsplit_once('/').ok_or(Refusal::Missing)?;
        let (name, kind) = folder.rsplit_once('/').unwrap_or(("", folder));
        if kind != "ac" && kind != "cas" {
            return Err(Refusal::Missing);
        }
        let instance = instances
            .check(name)
            .map_err(|_| Refusal::Bad(format!("this server has no instance `{}`", clip(name))))?;
        let hash = read_hash(hash, instance)?;
        Ok(match kind {
            "ac" => Self::Result { instance: Arc::clone(&instance.name), hash },
            _ => Self::Blob { instance: Arc::clone(&instance.name), hash },
        })
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Result { .. } | Self::Blob { .. } => Protocol::Bazel,
            Self::Entry { protocol, .. } => *protocol,
        }
    }
}

/// Reads a hash whose function is not said.
fn read_hash(text: &str, instance: &Instance) -> Result<Digest, Refusal> {
    let function = DigestFunction::of_length(text.len(), instance.function);
    Digest::from_hex(function, text, 0).map_err(|error| Refusal::Bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<Place, Refusal> {
        let instances = Instances::new([("team/main".to_owned(), DigestFunction::Blake3)]);
        Place::read(path, &instances)
    }

    fn hash(function: DigestFunction) -> Digest {
        Digest::from_hex(function, &"ab".repeat(32), 0).unwrap()
    }

    #[test]
    fn bazels_paths_name_results_and_blobs_of_an_instance() {
        let text = "ab".repeat(32);
        let sha256 = hash(DigestFunction::Sha256);
        let blob = Place::Blob { instance: "".into(), hash: sha256 };
        assert_eq!(read(&format!("/cas/{text}")).unwrap(), blob);
        let result = |instance: &str, hash| Place::Result { instance: instance.into(), hash };
        assert_eq!(read(&format!("/ac/{text}")).unwrap(), result("", sha256));
        let blake3 = hash(DigestFunction::Blake3);
        assert_eq!(read(&format!("/team/main/ac/{text}")).unwrap(), result("team/main", blake3));
        assert!(matches!(read(&format!("/team/ac/{text}")), Err(Refusal::Bad(_))));
    }

    #[test]
    fn what_is_no_hash_is_refused_and_what_is_no_place_is_not_there() {
        for path in
            ["/cas/abc".to_owned(), format!("/cas/{}", "AB".repeat(32)), format!("/ac/..{}", "a".repeat(62))]
        {
            assert!(matches!(read(&path), Err(Refusal::Bad(_))), "{path}");
        }
        for path in ["/", "/x", "/blobs/abc", "", "/ac"] {
            assert!(matches!(read(path), Err(Refusal::Missing)), "{path}");
        }
        assert!(matches!(read(&"/a".repeat(9999)), Err(Refusal::LongPath(_))));
    }

    #[test]
    fn the_rest_of_a_path_is_taken_as_it_is() {
        let entry = |protocol, path: &str| Place::Entry { protocol, path: path.to_owned() };
        assert_eq!(read("/ccache/ab/cd").unwrap(), entry(Protocol::Ccache, "ab/cd"));
        assert_eq!(read("/sccache/../a%2f/").unwrap(), entry(Protocol::Sccache, "../a%2f/"));
        assert_eq!(read("/sccache").unwrap(), entry(Protocol::Sccache, ""));
    }
}
