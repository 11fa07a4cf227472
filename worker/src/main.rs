//! `castwork-worker`: a worker as a program of its own.

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

use castwork_worker::flags::{Flags, LogFormat};
use castwork_worker::{Stop, WorkerConfig, sandbox};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    castwork_worker::enter_sandbox_if_asked();
    let (mut config, log_format) = match Flags::parse().resolve() {
        Ok(resolved) => resolved,
        Err(complaints) => return fail(&complaints),
    };
    start_logs(log_format);
    config.traces = castwork_trace::Settings::of_process();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(threads()).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&error),
        };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

async fn run(config: WorkerConfig) -> Result<(), Box<dyn Error>> {
    let stop = Stop::default();
    let listener = tokio::spawn(listen(stop.clone()));
    // On a thread of the runtime, where whatever it waits for happens: this one would have to be woken each time.
    let done = tokio::spawn(castwork_worker::run(config, stop)).await;
    listener.abort();
    Ok(done??)
}

/// One for each four processors: what does work is on other threads, and those that hand it on wake each other.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(4))
}

/// The first signal asks to finish, the second to end at once.
async fn listen(stop: Stop) {
    for token in [stop.drain, stop.now] {
        if let Err(error) = sandbox::stop_asked().await {
            tracing::warn!(%error, "can't listen to signals");
            return;
        }
        token.cancel();
    }
}

fn start_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_env("CASTWORK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Says what went wrong, with its causes.
fn fail(error: &dyn Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    eprintln!("castwork-worker: {text}");
    ExitCode::FAILURE
}
