//! [`Asker`]: on behalf of which run a call is made.

use castwork_proto::reapi::RequestMetadata;
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;

use crate::front::metadata::request_metadata;

/// Our client, which says more in REAPI's fields than others do.
const OUR_CLIENT: &str = "castwork";

/// Our worker: what it fetches and uploads for an action is no traffic of the run's client.
const OUR_WORKER: &str = "castwork-worker";

/// As what our client asks for what is no action: what it remembers of calls.
const MANIFEST: &str = "manifest";

/// Bytes of anything that a client says of itself.
const TEXT_BYTES_MAX: usize = 256;

/// What is built, by what, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Configuration {
    /// Name of the project; may be empty.
    pub(crate) project: String,
    /// Whatever tells one compiler from another.
    pub(crate) toolchain: String,
    /// `linux-x86-64` and the like; may be empty.
    pub(crate) platform: String,
}

impl Configuration {
    /// The same, with each part no longer than is kept.
    pub(crate) fn clipped(self) -> Self {
        Self { project: clip(self.project), toolchain: clip(self.toolchain), platform: clip(self.platform) }
    }
}

/// On behalf of which run a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// REAPI `tool_invocation_id`; never empty.
    pub(crate) run: String,
    /// Name and version of the client.
    pub(crate) tool: String,
    /// What it builds.
    pub(crate) configuration: Configuration,
    /// Whether it asks for an action of the run, and not for what helps it to find one.
    pub(crate) is_for_action: bool,
}

impl Asker {
    /// Who asks; `None` if the client names no run, or is a worker.
    pub(crate) fn of(metadata: &RequestMetadata) -> Option<Self> {
        let details = metadata.tool_details.as_ref();
        let tool = details.map_or("", |details| details.tool_name.as_str());
        if metadata.tool_invocation_id.is_empty() || tool == OUR_WORKER {
            return None;
        }
        let version = details.map_or("", |details| details.tool_version.as_str());
        let configuration = if tool == OUR_CLIENT {
            let (platform, toolchain) =
                metadata.configuration_id.split_once('/').unwrap_or(("", &metadata.configuration_id));
            Configuration {
                project: metadata.correlated_invocations_id.clone(),
                toolchain: toolchain.to_owned(),
                platform: platform.to_owned(),
            }
        } else {
            Configuration { toolchain: tool.to_owned(), ..Configuration::default() }
        };
        Some(Self {
            run: clip(metadata.tool_invocation_id.clone()),
            tool: clip(format!("{tool} {version}").trim().to_owned()),
            configuration: configuration.clipped(),
            is_for_action: tool != OUR_CLIENT || metadata.action_mnemonic != MANIFEST,
        })
    }

    /// Who makes a call, by its headers.
    pub(crate) fn from_headers(headers: &MetadataMap) -> Option<Self> {
        Self::of(&request_metadata(headers)?)
    }
}

/// The text, cut to what is kept of it.
pub(crate) fn clip(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let mut end = TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use castwork_proto::reapi::ToolDetails;

    use super::*;

    fn metadata(tool: &str, run: &str) -> RequestMetadata {
        let details = ToolDetails { tool_name: tool.to_owned(), tool_version: "1.2".to_owned() };
        RequestMetadata {
            tool_details: Some(details),
            tool_invocation_id: run.to_owned(),
            correlated_invocations_id: "zlib".to_owned(),
            configuration_id: "linux-x86-64/gcc-12-abcd".to_owned(),
            ..RequestMetadata::default()
        }
    }

    #[test]
    fn our_client_says_what_it_builds_and_others_only_who_they_are() {
        let ours = Asker::of(&metadata("castwork", "run")).unwrap();
        let Configuration { project, toolchain, platform } = ours.configuration;
        assert_eq!([project, toolchain, platform], ["zlib", "gcc-12-abcd", "linux-x86-64"]);
        let other = Asker::of(&metadata("bazel", "run")).unwrap();
        assert_eq!(other.tool, "bazel 1.2");
        assert_eq!(other.configuration.toolchain, "bazel");
        assert!(other.configuration.project.is_empty());
    }

    #[test]
    fn workers_and_those_without_a_run_are_nobody() {
        assert_eq!(Asker::of(&metadata("castwork-worker", "run")), None);
        assert_eq!(Asker::of(&metadata("bazel", "")), None);
    }

    #[test]
    fn what_helps_to_find_an_action_is_none() {
        let manifest =
            RequestMetadata { action_mnemonic: MANIFEST.to_owned(), ..metadata("castwork", "run") };
        assert!(!Asker::of(&manifest).unwrap().is_for_action);
        assert!(Asker::of(&metadata("castwork", "run")).unwrap().is_for_action);
    }
}
