//! `castwork-scheduler`: the server as a program.

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use castwork_scheduler::config::{Args, Command, Config, LogFormat};
use castwork_scheduler::front::errors::with_cause;
use castwork_scheduler::serve::Server;
use castwork_scheduler::store::pins::Pins;
use castwork_scheduler::store::{Store, StoreConfig, Verification};
use clap::Parser as _;
use futures::FutureExt as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Before there is a second thread: see there.
    castwork_worker::enter_sandbox_if_asked();
    let args = Args::parse();
    let (is_check, command) = (args.check_config, args.command.clone());
    let mut config = match Config::load(args) {
        Ok(config) => config,
        Err(complaints) => return fail(&complaints),
    };
    if is_check {
        // Whoever closed the other end does not want to know.
        let _ = writeln!(std::io::stdout(), "the configuration is good");
        return ExitCode::SUCCESS;
    }
    start_logs(config.log_format);
    config.traces = castwork_trace::Settings::of_process();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let done = runtime.block_on(async {
        match command {
            None => run(&config).await.map(|()| ExitCode::SUCCESS),
            Some(Command::Verify) => verify(&config).await,
            Some(Command::Revoke(args)) => {
                castwork_scheduler::revoke::run(&config, &args, &mut std::io::stdout()).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    });
    done.unwrap_or_else(|error| fail(&*error))
}

/// Reads all that is kept, and says what it found.
async fn verify(config: &Config) -> Result<ExitCode, Box<dyn Error>> {
    let store = StoreConfig { is_kept_small: false, ..StoreConfig::new(&config.data_dir, u64::MAX) };
    let store = Store::open(&store, Pins::default(), Arc::default())?;
    let Verification { count, bytes, dropped, unreadable } = store.verify().await;
    tokio::task::spawn_blocking(move || store.close()).await?;
    // There is nobody left to tell if this fails; the exit code says it too.
    let _ = writeln!(
        std::io::stdout(),
        "{count} blobs and results verified, {bytes} bytes; {dropped} dropped, {unreadable} can't be read"
    );
    Ok(if dropped + unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves until a signal asks to end, or something fails.
async fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    // Each client is a connection, and each read a file; 1,024, as most systems begin with, are soon in use.
    if let Err(error) = castwork_cas::files::raise_open_files() {
        tracing::warn!(%error, "no more files can be opened than the system lets every process open");
    }
    let mut asked = pin!(castwork_worker::sandbox::stop_asked());
    // It listens from its first poll on, and whoever reads that the server serves may ask at once.
    if let Some(asked) = asked.as_mut().now_or_never() {
        return Ok(asked?);
    }
    let mut server = Server::start(config).await?;
    let failure = tokio::select! {
        asked = asked => asked.err().map(Box::from),
        failure = server.failed() => Some(failure.into()),
    };
    tokio::select! {
        () = server.shutdown() => {}
        // Whoever asks twice means it.
        Ok(()) = castwork_worker::sandbox::stop_asked() => {}
    }
    failure.map_or(Ok(()), Err)
}

fn start_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_env("CASTWORK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Says what went wrong, with its causes.
fn fail(error: &dyn Error) -> ExitCode {
    // There is nobody left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "castwork-scheduler: {}", with_cause(error));
    ExitCode::FAILURE
}
