//! `h5flight serve`: settings, log, signals. What the server is lives in h5flight-server.

mod preflight;

use std::future::Future;
use std::io::IsTerminal;

use h5flight_server::Listeners;
use h5flight_server::config::{Config, LogFormat};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::allocator;
use crate::failure::{Failure, with_causes};
use crate::output::line;
use crate::settings::{Loaded, ServerFlags, process_environment};

/// Exit code of a server that was stopped by a second signal.
const STOPPED_AT_ONCE: i32 = 130;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: ServerFlags,
}

/// Serves until SIGINT or SIGTERM, then until running streams have ended; a second signal ends it at once.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Loaded { config, log } = args.flags.load(&process_environment)?;
    start_log(config.log_format, &log)?;
    preflight::check(&config)?;
    if config.touch_memory {
        allocator::touch(config.memory_bytes / 2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("io", format!("the runtime does not start: {error}")))?;
    let outcome = runtime.block_on(serve(config));
    // A decoder that is still at work must not hold up the end: nothing waits for its result any more.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> Result<(), Failure> {
    let shutdown = shutdown_signal()?;
    let scheme = if config.tls.is_some() { "grpc+tls" } else { "grpc" };
    let listeners = Listeners::bind(&config).await.map_err(|error| start_failure(&error))?;
    let (grpc, http) = (listeners.grpc_address(), listeners.http_address());
    let ready = move || {
        // Whoever started this may wait for the line. That nobody reads it is no reason to stop.
        let _ = line(&format!("h5flight is listening on {scheme}://{grpc}, http://{http}"));
    };
    let served = h5flight_server::serve(config, listeners, h5flight_hdf5::sandbox::in_words(), ready, shutdown).await;
    served.map_err(|error| start_failure(&error))
}

fn start_failure(error: &dyn std::error::Error) -> Failure {
    Failure::local("start", with_causes(error))
}

fn start_log(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(format!("--log: {filter:?} is not a log filter: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Ends at the first signal; from then on a second one ends the process.
fn shutdown_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let failed = |error| Failure::local("io", format!("signals cannot be watched: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        next_signal(&mut interrupt, &mut terminate).await;
        tokio::spawn(async move {
            next_signal(&mut interrupt, &mut terminate).await;
            std::process::exit(STOPPED_AT_ONCE);
        });
    })
}

async fn next_signal(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
