//! What an `Action` and its `Command` must be like, before anybody tries to run them.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use castwork_proto::reapi::{Action, Command, Platform};

use super::Limits;
use super::kinds::{KindError, Kinds};
use crate::front::instance::clip;
use crate::queue::Needs;

/// Properties that an action may require, at most.
const PROPERTIES_MAX: usize = 1_024;
/// Bytes of a property's name and value, at most.
const PROPERTY_BYTES_MAX: usize = 8_192;
/// A property that the worker itself checks: that its own file at a path has a digest.
const HOST_FILE: &str = "host-file";

/// What is wrong with an action or its command. All of it is the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommandError {
    #[error("the action's timeout is no duration")]
    TimeoutMalformed,
    #[error("the action's timeout of {asked_s} s is over the maximum of {max_s} s")]
    TimeoutTooLong { asked_s: u64, max_s: u64 },
    #[error("the command has no arguments")]
    NoArguments,
    #[error("argument `{0}` holds a NUL, or is first and empty")]
    Argument(String),
    #[error("environment variable `{0}` has no legal name, or a NUL in its value")]
    Variable(String),
    #[error("environment variable `{0}` is set twice")]
    VariableTwice(String),
    #[error("{field} `{path}` {reason}")]
    Path { field: &'static str, path: String, reason: &'static str },
    #[error("node property `{0}` is not supported")]
    NodeProperty(String),
    #[error("more than {PROPERTIES_MAX} platform properties")]
    TooManyProperties,
    #[error(transparent)]
    Amount(#[from] KindError),
    #[error("platform property `{0}` has no name, or is longer than {PROPERTY_BYTES_MAX} bytes")]
    Property(String),
}

/// The wall-clock bound of an action's command.
pub(super) fn timeout(action: &Action, limits: &Limits) -> Result<Duration, CommandError> {
    let Some(asked) = &action.timeout else { return Ok(limits.timeout_default) };
    let timeout = Duration::try_from(*asked).map_err(|_| CommandError::TimeoutMalformed)?;
    if timeout > limits.timeout_max {
        let (asked_s, max_s) = (timeout.as_secs(), limits.timeout_max.as_secs());
        return Err(CommandError::TimeoutTooLong { asked_s, max_s });
    }
    // What is not there at all and what has its default value look alike on the wire of some.
    Ok(if timeout.is_zero() { limits.timeout_default } else { timeout })
}

/// Checks everything about a command that needs no worker to see.
// Clients of before REAPI 2.1 name their outputs in the deprecated fields.
#[allow(deprecated)]
pub(super) fn check(command: &Command) -> Result<(), CommandError> {
    check_arguments(&command.arguments)?;
    check_variables(command)?;
    if !command.working_directory.is_empty() {
        check_path("working directory", &command.working_directory)?;
    }
    let outputs = [
        ("output path", &command.output_paths),
        ("output file", &command.output_files),
        ("output directory", &command.output_directories),
    ];
    for (field, paths) in outputs {
        // The working directory itself may be an output; clients write it in these two ways.
        let mut inner = paths.iter().filter(|path| !path.is_empty() && *path != ".");
        inner.try_for_each(|path| check_path(field, path))?;
    }
    match command.output_node_properties.first() {
        Some(name) => Err(CommandError::NodeProperty(clip(name).to_owned())),
        None => Ok(()),
    }
}

fn check_arguments(arguments: &[String]) -> Result<(), CommandError> {
    let first = arguments.first().ok_or(CommandError::NoArguments)?;
    let wrong = arguments.iter().find(|argument| argument.contains('\0'));
    match wrong.or_else(|| first.is_empty().then_some(first)) {
        Some(argument) => Err(CommandError::Argument(clip(argument).to_owned())),
        None => Ok(()),
    }
}

fn check_variables(command: &Command) -> Result<(), CommandError> {
    let mut seen = HashSet::new();
    for variable in &command.environment_variables {
        let name = variable.name.as_str();
        if name.is_empty() || name.contains(['=', '\0']) || variable.value.contains('\0') {
            return Err(CommandError::Variable(clip(name).to_owned()));
        }
        if !seen.insert(name) {
            return Err(CommandError::VariableTwice(clip(name).to_owned()));
        }
    }
    Ok(())
}

/// Checks that a path is relative, and plainly so.
pub(super) fn check_path(field: &'static str, path: &str) -> Result<(), CommandError> {
    let reason = if path.starts_with('/') {
        "is absolute"
    } else if path.contains('\0') {
        "holds a NUL"
    } else if path.split('/').any(str::is_empty) {
        "has an empty segment"
    } else if path.split('/').any(|segment| segment == "..") {
        "climbs"
    } else if path.split('/').any(|segment| segment == ".") {
        "has a segment `.`"
    } else {
        return Ok(());
    };
    Err(CommandError::Path { field, path: clip(path).to_owned(), reason })
}

/// What a worker must offer. The platform of the action counts; that of the command, which is how
/// clients said it before REAPI 2.2, only without.
// That field is deprecated, and in use.
#[allow(deprecated)]
pub(super) fn needs(action: &Action, command: &Command, kinds: &Kinds) -> Result<Needs, CommandError> {
    let none = Platform::default();
    let platform = action.platform.as_ref().or(command.platform.as_ref()).unwrap_or(&none);
    if platform.properties.len() > PROPERTIES_MAX {
        return Err(CommandError::TooManyProperties);
    }
    let too_long = |property: &&castwork_proto::reapi::platform::Property| {
        property.name.is_empty() || property.name.len() + property.value.len() > PROPERTY_BYTES_MAX
    };
    if let Some(property) = platform.properties.iter().find(too_long) {
        return Err(CommandError::Property(clip(&property.name).to_owned()));
    }
    let matched = platform.properties.iter().filter(|property| property.name != HOST_FILE);
    Ok(kinds.needs(matched.map(|property| (property.name.clone(), property.value.clone())).collect())?)
}

/// What this action has in common with others that are expected to take alike: the same tool makes the same
/// output of it.
#[allow(deprecated)]
pub(super) fn kind(command: &Command) -> Option<u64> {
    let tool = command.arguments.first()?;
    let tool = tool.rsplit(['/', '\\']).next().unwrap_or(tool);
    let outputs = [&command.output_paths, &command.output_files, &command.output_directories];
    let output = outputs.into_iter().find_map(|paths| paths.first())?;
    let mut hasher = DefaultHasher::new();
    (tool, output, &command.working_directory).hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use castwork_proto::reapi::{command::EnvironmentVariable, platform::Property};

    use super::*;

    fn command() -> Command {
        Command { arguments: vec!["cc".to_owned()], ..Default::default() }
    }

    fn platform(pairs: &[(&str, &str)]) -> Platform {
        let property =
            |&(name, value): &(&str, &str)| Property { name: name.to_owned(), value: value.to_owned() };
        Platform { properties: pairs.iter().map(property).collect() }
    }

    fn variable(name: &str) -> EnvironmentVariable {
        EnvironmentVariable { name: name.to_owned(), value: "1".to_owned() }
    }

    // As some clients still do.
    #[allow(deprecated)]
    #[test]
    fn a_plain_command_is_accepted_and_so_are_outputs_named_in_both_ways() {
        let outputs = vec!["out/a.o".to_owned(), ".".to_owned(), String::new()];
        let command = Command {
            output_paths: outputs.clone(),
            output_files: outputs.clone(),
            output_directories: outputs,
            working_directory: "src/lib".to_owned(),
            environment_variables: vec![variable("PATH"), variable("LANG")],
            ..command()
        };
        assert_eq!(check(&command), Ok(()));
    }

    #[test]
    fn outputs_and_working_directories_that_leave_the_tree_are_refused() {
        for path in ["/abs", "../up", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            let command = Command { output_paths: vec![path.to_owned()], ..command() };
            assert!(matches!(check(&command), Err(CommandError::Path { .. })), "{path:?}");
            let command = Command { working_directory: path.to_owned(), ..self::command() };
            assert!(matches!(check(&command), Err(CommandError::Path { .. })), "{path:?}");
        }
    }

    #[test]
    fn commands_that_cannot_be_started_are_refused() {
        assert_eq!(check(&Command::default()), Err(CommandError::NoArguments));
        let with = |argument: &str| Command { arguments: vec![argument.to_owned()], ..Default::default() };
        assert!(matches!(check(&with("")), Err(CommandError::Argument(_))));
        assert!(matches!(check(&with("a\0")), Err(CommandError::Argument(_))));
        for name in ["", "A=B", "A\0"] {
            let command = Command { environment_variables: vec![variable(name)], ..command() };
            assert!(matches!(check(&command), Err(CommandError::Variable(_))), "{name:?}");
        }
        let twice = Command { environment_variables: vec![variable("A"), variable("A")], ..command() };
        assert_eq!(check(&twice), Err(CommandError::VariableTwice("A".to_owned())));
        let node = Command { output_node_properties: vec!["mtime".to_owned()], ..command() };
        assert_eq!(check(&node), Err(CommandError::NodeProperty("mtime".to_owned())));
    }

    // As some clients still do.
    #[allow(deprecated)]
    #[test]
    fn the_platform_of_the_action_counts_more_and_host_files_are_left_to_the_worker() {
        let command = Command { platform: Some(platform(&[("ISA", "arm-a64")])), ..command() };
        let old = needs(&Action::default(), &command, &Kinds::default()).unwrap().properties;
        assert_eq!(old.pairs(), [("ISA".to_owned(), "arm-a64".to_owned())]);
        let action = Action {
            platform: Some(platform(&[("host-file", "/usr/bin/cc=…"), ("ISA", "x86-64")])),
            ..Default::default()
        };
        let new = needs(&action, &command, &Kinds::default()).unwrap().properties;
        assert_eq!(new.pairs(), [("ISA".to_owned(), "x86-64".to_owned())]);
    }

    #[test]
    fn timeouts_are_bounded_and_have_a_default() {
        let limits = Limits::default();
        let with = |seconds| Action {
            timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(timeout(&Action::default(), &limits), Ok(limits.timeout_default));
        assert_eq!(timeout(&with(0), &limits), Ok(limits.timeout_default));
        assert_eq!(timeout(&with(7), &limits), Ok(Duration::from_secs(7)));
        assert!(matches!(timeout(&with(90_000), &limits), Err(CommandError::TimeoutTooLong { .. })));
        assert_eq!(timeout(&with(-1), &limits), Err(CommandError::TimeoutMalformed));
    }
}
