//! E15 to E17, E20 to E23: sockets, other actions, the kernel's calls, terminals, descriptors.

use std::cell::Cell;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use castwork_worker::sandbox::{Sandbox as _, SandboxError};
use tokio_util::sync::CancellationToken;

use crate::trial::Trial;

#[tokio::test]
async fn e15_the_network() {
    let Some(trial) = Trial::begin().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    Trial::refused(&trial.program("sockets", &port.to_string()).await, 21);
    trial.contained("E15").await;
}

#[tokio::test]
async fn e16_sockets_of_the_host() {
    let Some(trial) = Trial::begin().await else { return };
    let name = format!("castwork-abuse-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _file = UnixListener::bind(&path).unwrap();
    castwork_worker::sandbox::set_mode(folder.path(), 0o777).unwrap();
    castwork_worker::sandbox::set_mode(&path, 0o777).unwrap();
    Trial::refused(&trial.program("abstract", &format!("{name} {}", path.display())).await, 3);
    trial.contained("E16").await;
}

#[tokio::test]
async fn e17_two_actions_that_want_to_meet() {
    let Some(trial) = Trial::begin().await else { return };
    let Some(other) = Trial::begin().await else { return };
    let (spec, cancel) = (other.prepared("handover", "serve"), CancellationToken::new());
    let is_over = Cell::new(false);
    let serves = async {
        let served = other.stage.sandbox.run(&spec, &cancel).await;
        is_over.set(true);
        served
    };
    let joins = async {
        let said = spec.scratch.join("stdout");
        while std::fs::read_to_string(&said).unwrap_or_default() != "ready\n" && !is_over.get() {
            tokio::task::yield_now().await;
        }
        let ended = trial.program("handover", "join").await;
        cancel.cancel();
        ended
    };
    let (served, joined) = tokio::join!(serves, joins);
    assert!(matches!(served, Err(SandboxError::Cancelled)));
    Trial::refused(&joined, 11);
    drop(joined);
    trial.contained("E17").await;
}

#[tokio::test]
async fn e18_namespaces_and_mounts() {
    let Some(trial) = Trial::begin().await else { return };
    Trial::refused(&trial.program("namespaces", "").await, 37);
    trial.contained("E18").await;
}

#[tokio::test]
async fn e20_the_parts_of_the_kernel_that_have_holes() {
    let Some(trial) = Trial::begin().await else { return };
    let attempts = if cfg!(target_arch = "x86_64") { 28 } else { 25 };
    Trial::refused(&trial.program("calls", "").await, attempts);
    trial.contained("E20").await;
}

#[tokio::test]
async fn e21_typing_into_a_terminal() {
    let Some(trial) = Trial::begin().await else { return };
    Trial::refused(&trial.program("terminal", "").await, 17);
    trial.contained("E21").await;
}

#[tokio::test]
async fn e22_calls_by_another_abi() {
    let Some(trial) = Trial::begin().await else { return };
    let ended = trial.program("abi", "").await;
    Trial::refused(&ended, 2);
    trial.contained("E22").await;
}

#[tokio::test]
async fn e23_descriptors_that_were_left_open() {
    let Some(trial) = Trial::begin().await else { return };
    Trial::refused(&trial.program("descriptors", "").await, 1);
    trial.contained("E23").await;
}
