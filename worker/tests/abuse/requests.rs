//! E27, E28: requests that are the attack.

use castwork_proto::reapi::{self, command::EnvironmentVariable};
use castwork_proto::rpc::Code;
use castwork_proto::worker::Lease;
use prost::Message as _;

use crate::common::farm::{Farm, code, lease};
use crate::common::write_down;

/// What is wrong about a command.
type Change = Box<dyn Fn(&mut reapi::Command)>;

/// A lease like another, with the command changed.
fn changed(farm: &Farm, id: &str, change: impl FnOnce(&mut reapi::Command)) -> Lease {
    let mut lease = farm.lease(id, &[("in", "x")], "true", &[]);
    let mut command = reapi::Command::decode(lease.command.as_ref()).unwrap();
    change(&mut command);
    let command = command.encode_to_vec();
    let mut action = reapi::Action::decode(lease.action.as_ref()).unwrap();
    action.command_digest = Some(farm.scheduler.put(&command).to_proto());
    let action = action.encode_to_vec();
    lease.action_digest = Some(farm.scheduler.put(&action).to_proto());
    (lease.action, lease.command) = (action.into(), command.into());
    lease
}

#[tokio::test]
async fn e27_arguments_and_folders_that_can_not_be() {
    let Some(mut farm) = Farm::set().await else { return };
    let variable = |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
    let wrong: Vec<Change> = vec![
        Box::new(|command| command.arguments.push("a\0b".to_owned())),
        Box::new(|command| command.arguments.clear()),
        Box::new(move |command| command.environment_variables = vec![variable("A", "\0")]),
        Box::new(move |command| command.environment_variables = vec![variable("A=B", "")]),
        Box::new(|command| command.working_directory = "../..".to_owned()),
        Box::new(|command| command.working_directory = "/etc".to_owned()),
        Box::new(|command| command.working_directory = "absent".to_owned()),
        Box::new(|command| command.output_paths = vec!["../out".to_owned()]),
    ];
    for (number, change) in wrong.iter().enumerate() {
        let outcome = farm.run(changed(&farm, &format!("wrong {number}"), change)).await;
        assert_eq!(code(&outcome).0, Code::InvalidArgument, "{number}: {}", code(&outcome).1);
        assert!(outcome.result.is_none());
    }
    let large: Vec<Change> = vec![
        Box::new(|command| command.arguments.push("x".repeat(2 << 20))),
        Box::new(|command| {
            let many = 0..100_000;
            command.environment_variables =
                many.map(|i| EnvironmentVariable { name: format!("N{i}"), value: "x".repeat(100) }).collect();
        }),
    ];
    for (number, change) in large.iter().enumerate() {
        // More than a program can be started with: it ends as in a shell, and nothing else happens.
        let outcome = farm.run(changed(&farm, &format!("large {number}"), change)).await;
        assert_eq!((code(&outcome).0, outcome.result.unwrap().exit_code), (Code::Ok, 126));
    }
    let next = farm.run(farm.lease("next", &[], "true", &[])).await;
    assert_eq!(next.result.unwrap().exit_code, 0);
    write_down("E27", &farm.session.hello.sandbox);
}

#[tokio::test]
async fn e28_properties_that_would_loosen_the_sandbox() {
    let Some(mut farm) = Farm::set().await else { return };
    for (name, value) in [("network", "on"), ("root", "host"), ("root", "worker ")] {
        let lease = lease(&farm.scheduler, &format!("{name}={value}"), &[], "true", &[], &[(name, value)]);
        let outcome = farm.run(lease).await;
        assert_eq!(code(&outcome).0, Code::FailedPrecondition, "{name}={value}");
        assert!(outcome.result.is_none());
    }
    write_down("E28", &farm.session.hello.sandbox);
}
