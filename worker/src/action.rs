//! [`CheckedAction`]: what came in a lease, checked at the door.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Component, PathBuf};

use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi::{self, command::OutputDirectoryFormat};
use castwork_proto::weigh::{weigh, weight_max};
use castwork_proto::worker::Lease;
use prost::{Message, Name};

use crate::failure::Failure;
use crate::sandbox::Root;

/// Most files of the worker that an action may make conditions about.
const HOST_FILES_MAX: usize = 256;

/// An action that can be run as it stands, as far as can be said before its inputs are there.
#[derive(Debug)]
pub(crate) struct CheckedAction {
    /// Digest of the input root's `Directory`.
    pub input_root: Digest,
    /// Program and arguments: not empty, no NUL.
    pub arguments: Vec<String>,
    /// Names without `=` and not empty; no NUL.
    pub environment: Vec<(String, String)>,
    /// Plain and relative; empty for the input root.
    pub working_directory: String,
    /// What to collect.
    pub outputs: Outputs,
    /// What is `/`, if the platform says so; else it shows in the inputs.
    pub root: Option<Root>,
    /// Whether it is to have the network.
    pub network: bool,
    /// Files of the worker that have to be the client's.
    pub host_files: Vec<HostFile>,
}

/// What to collect after the run; paths are plain, relative to the working directory, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outputs {
    /// All of them, whatever they turn out to be. Empty text stands for the whole directory, and so
    /// does `.`, as some clients have it.
    pub paths: Vec<String>,
    /// Those that were asked for as files, by a client of before REAPI 2.1.
    pub older_files: BTreeSet<String>,
    /// Those that were asked for as directories, by such a client.
    pub older_directories: BTreeSet<String>,
    /// Whether directories are wanted as `Directory` blobs besides the `Tree`.
    pub wants_directories: bool,
}

/// A condition on a file of the worker: property `host-file`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HostFile {
    /// Where; absolute and plain.
    pub path: PathBuf,
    /// What it has to hold.
    pub digest: Digest,
}

impl CheckedAction {
    /// Checks the action and the command that a lease carries.
    pub(crate) fn from_lease(lease: &Lease) -> Result<Self, Failure> {
        let function = DigestFunction::from_proto(lease.digest_function, DigestFunction::Sha256)
            .map_err(|source| Failure::Digest { what: "the action", source })?;
        let digest = present(lease.action_digest.as_ref(), "the action", function)?;
        let action: reapi::Action = decode(&lease.action, &digest, "Action")?;
        let command_digest = present(action.command_digest.as_ref(), "the command", function)?;
        let command: reapi::Command = decode(&lease.command, &command_digest, "Command")?;
        Self::from_proto(&action, command, function)
    }

    fn from_proto(
        action: &reapi::Action,
        command: reapi::Command,
        function: DigestFunction,
    ) -> Result<Self, Failure> {
        let input_root = present(action.input_root_digest.as_ref(), "the input root", function)?;
        check_arguments(&command.arguments)?;
        check_path(&command.working_directory, "working directory")?;
        let outputs = outputs(&command)?;
        #[allow(deprecated, reason = "clients of before REAPI 2.2 still set it there")]
        let platform = action.platform.as_ref().or(command.platform.as_ref());
        let Properties { root, network, host_files } = properties(platform)?;
        Ok(Self {
            input_root,
            environment: environment(command.environment_variables)?,
            arguments: command.arguments,
            working_directory: command.working_directory,
            outputs,
            root,
            network,
            host_files,
        })
    }

    /// A path that is relative to the working directory, relative to the input root.
    pub(crate) fn place_of(&self, path: &str) -> String {
        match (self.working_directory.as_str(), if path == "." { "" } else { path }) {
            ("", path) => path.to_owned(),
            (folder, "") => folder.to_owned(),
            (folder, path) => format!("{folder}/{path}"),
        }
    }
}

fn present(
    digest: Option<&reapi::Digest>,
    what: &'static str,
    function: DigestFunction,
) -> Result<Digest, Failure> {
    let digest = digest.ok_or_else(|| Failure::Invalid(format!("{what} has no digest")))?;
    Digest::from_proto(digest, function).map_err(|source| Failure::Digest { what, source })
}

fn decode<M: Message + Name + Default>(bytes: &[u8], digest: &Digest, name: &str) -> Result<M, Failure> {
    if Digest::of(digest.function(), bytes) != *digest {
        return Err(Failure::Invalid(format!("the bytes of the {name} are not those of `{digest}`")));
    }
    let refuse = |error: &dyn Display| Failure::Invalid(format!("`{digest}` is no {name} message: {error}"));
    weigh::<M>(bytes, weight_max(bytes.len())).map_err(|refused| refuse(&refused))?;
    M::decode(bytes).map_err(|error| refuse(&error))
}

fn check_arguments(arguments: &[String]) -> Result<(), Failure> {
    if arguments.first().is_none_or(String::is_empty) {
        return Err(Failure::Invalid("the command has no program".to_owned()));
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(Failure::Invalid("an argument holds a NUL".to_owned()));
    }
    Ok(())
}

fn environment(
    variables: Vec<reapi::command::EnvironmentVariable>,
) -> Result<Vec<(String, String)>, Failure> {
    let is_legal =
        |name: &str, value: &str| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    if let Some(wrong) = variables.iter().find(|variable| !is_legal(&variable.name, &variable.value)) {
        return Err(Failure::Invalid(format!(
            "`{}` can't be an environment variable",
            wrong.name.escape_debug()
        )));
    }
    Ok(variables.into_iter().map(|variable| (variable.name, variable.value)).collect())
}

/// Checks that a path stays where it starts: relative, no `..`, nothing twice.
fn check_path(path: &str, what: &str) -> Result<(), Failure> {
    let is_plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\0');
    if path.is_empty() || path.split('/').all(is_plain) {
        return Ok(());
    }
    Err(Failure::Invalid(format!("{what} `{}` is not a plain relative path", path.escape_debug())))
}

#[allow(deprecated, reason = "clients of before REAPI 2.1 only know the older fields")]
fn outputs(command: &reapi::Command) -> Result<Outputs, Failure> {
    let format = command.output_directory_format;
    let wants_directories = format == OutputDirectoryFormat::DirectoryOnly as i32
        || format == OutputDirectoryFormat::TreeAndDirectory as i32;
    let (files, directories) = if command.output_paths.is_empty() {
        (&command.output_files[..], &command.output_directories[..])
    } else {
        (&[][..], &[][..])
    };
    let named = command.output_paths.iter().chain(files).chain(directories);
    let paths: BTreeSet<&String> = named.collect();
    for path in paths.iter().filter(|path| **path != ".") {
        check_path(path, "output path")?;
    }
    if files.iter().any(String::is_empty) {
        return Err(Failure::Invalid("an output file has an empty path".to_owned()));
    }
    Ok(Outputs {
        paths: paths.into_iter().cloned().collect(),
        older_files: files.iter().cloned().collect(),
        older_directories: directories.iter().cloned().collect(),
        wants_directories,
    })
}

/// What the platform properties say to the worker.
#[derive(Default)]
struct Properties {
    root: Option<Root>,
    network: bool,
    host_files: Vec<HostFile>,
}

/// What the platform properties mean to the worker. The scheduler has matched the others; those
/// that loosen the sandbox are checked here as well, because nothing else stands behind it.
fn properties(platform: Option<&reapi::Platform>) -> Result<Properties, Failure> {
    let Properties { mut root, mut network, mut host_files } = Properties::default();
    for property in platform.map_or(&[][..], |platform| &platform.properties) {
        match (property.name.as_str(), property.value.as_str()) {
            ("root", "worker") => root = Some(Root::Worker),
            ("root", "inputs") => root = Some(Root::Inputs),
            ("network", "off") => network = false,
            ("network", "on") => network = true,
            ("root" | "network", value) => {
                let name = &property.name;
                return Err(Failure::Precondition(format!("no worker offers `{name}={value}`")));
            }
            ("host-file", value) => host_files.push(host_file(value)?),
            _ => {}
        }
    }
    if host_files.len() > HOST_FILES_MAX {
        return Err(Failure::Invalid(format!("more than {HOST_FILES_MAX} `host-file` properties")));
    }
    if host_files.is_empty() {
        return Ok(Properties { root, network, host_files });
    }
    if root == Some(Root::Inputs) {
        return Err(Failure::Invalid("`host-file` means nothing with `root=inputs`".to_owned()));
    }
    Ok(Properties { root: Some(Root::Worker), network, host_files })
}

fn host_file(value: &str) -> Result<HostFile, Failure> {
    let refuse = || Failure::Invalid(format!("`host-file={value}` is not /ABSOLUTE/PATH=HASH/SIZE"));
    let (path, digest) = value.rsplit_once('=').ok_or_else(refuse)?;
    let path = PathBuf::from(path);
    let is_plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if !path.has_root() || !is_plain {
        return Err(refuse());
    }
    Ok(HostFile { path, digest: digest.parse().map_err(|_| refuse())? })
}

#[cfg(test)]
#[allow(deprecated, reason = "the older fields are what is tested")]
mod tests {
    use super::*;

    fn checked(command: &reapi::Command, properties: &[(&str, &str)]) -> Result<CheckedAction, Failure> {
        let properties = properties.iter().map(|(name, value)| reapi::platform::Property {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        let command = command.encode_to_vec();
        let digest = |bytes: &[u8]| Some(Digest::of(DigestFunction::Sha256, bytes).to_proto());
        let action = reapi::Action {
            command_digest: digest(&command),
            input_root_digest: digest(b""),
            platform: Some(reapi::Platform { properties: properties.collect() }),
            ..Default::default()
        };
        let action = action.encode_to_vec();
        CheckedAction::from_lease(&Lease {
            action_digest: digest(&action),
            action: action.into(),
            command: command.into(),
            ..Default::default()
        })
    }

    fn command() -> reapi::Command {
        reapi::Command { arguments: vec!["cc".to_owned()], ..Default::default() }
    }

    fn is_invalid(command: &reapi::Command) -> bool {
        matches!(checked(command, &[]), Err(Failure::Invalid(_)))
    }

    #[test]
    fn what_can_not_be_run_is_refused_before_any_process_starts() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert!(is_invalid(&reapi::Command::default()));
        assert!(is_invalid(&reapi::Command { arguments: texts(&["a", "b\0c"]), ..Default::default() }));
        for path in ["/abs", "../up", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            assert!(is_invalid(&reapi::Command { output_paths: texts(&[path]), ..command() }), "{path}");
            assert!(is_invalid(&reapi::Command { output_files: texts(&[path]), ..command() }), "{path}");
            assert!(
                is_invalid(&reapi::Command { working_directory: path.to_owned(), ..command() }),
                "{path}"
            );
        }
        for (name, value) in [("", "x"), ("a=b", "x"), ("a", "\0"), ("\0", "")] {
            let variable =
                reapi::command::EnvironmentVariable { name: name.to_owned(), value: value.to_owned() };
            assert!(is_invalid(&reapi::Command { environment_variables: vec![variable], ..command() }));
        }
    }

    #[test]
    fn bytes_that_are_not_the_digests_are_refused() {
        let wrong = Digest::of(DigestFunction::Sha256, b"other").to_proto();
        let lease =
            Lease { action_digest: Some(wrong), action: b"some".to_vec().into(), ..Default::default() };
        assert!(matches!(CheckedAction::from_lease(&lease), Err(Failure::Invalid(_))));
    }

    #[test]
    fn new_output_paths_make_the_older_fields_void_and_a_path_may_be_in_both_of_those() {
        let list = |text: &str| vec![text.to_owned()];
        let older = reapi::Command { output_files: list("a"), output_directories: list("a"), ..command() };
        let both = reapi::Command { output_paths: list("b"), ..older.clone() };
        assert_eq!(checked(&both, &[]).unwrap().outputs.paths, ["b"]);
        let outputs = checked(&older, &[]).unwrap().outputs;
        assert_eq!(outputs.paths, ["a"]);
        assert!(outputs.older_files.contains("a") && outputs.older_directories.contains("a"));
    }

    #[test]
    fn properties_that_would_loosen_the_sandbox_are_refused_here_too() {
        assert_eq!(checked(&command(), &[("root", "inputs")]).unwrap().root, Some(Root::Inputs));
        assert!(checked(&command(), &[("network", "on")]).unwrap().network);
        assert!(!checked(&command(), &[("network", "off")]).unwrap().network);
        for (name, value) in [("network", "yes"), ("root", "host")] {
            assert!(matches!(checked(&command(), &[(name, value)]), Err(Failure::Precondition(_))));
        }
    }

    #[test]
    fn a_condition_on_a_file_of_the_worker_is_read() {
        let digest = Digest::of(DigestFunction::Sha256, b"x");
        let value = format!("/usr/bin/a=b={digest}");
        let action = checked(&command(), &[("host-file", value.as_str())]).unwrap();
        assert_eq!(action.host_files, [HostFile { path: PathBuf::from("/usr/bin/a=b"), digest }]);
        for wrong in ["usr/bin/a=1/2".to_owned(), format!("/a/../b={digest}"), "/a".to_owned()] {
            assert!(matches!(checked(&command(), &[("host-file", &wrong)]), Err(Failure::Invalid(_))));
        }
    }

    #[test]
    fn paths_are_joined_to_the_working_directory() {
        let inside = reapi::Command { working_directory: "w".to_owned(), ..command() };
        let action = checked(&inside, &[]).unwrap();
        assert_eq!((action.place_of("a/b").as_str(), action.place_of(".").as_str()), ("w/a/b", "w"));
        assert_eq!(checked(&command(), &[]).unwrap().place_of("a"), "a");
    }
}
