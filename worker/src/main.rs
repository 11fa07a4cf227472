//! `castwork-worker`: a worker as a program of its own.

fn main() {
    castwork_worker::enter_sandbox_if_asked();
}
