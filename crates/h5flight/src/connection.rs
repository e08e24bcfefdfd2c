//! How a command reaches the server, and how long it lives: until it is done or somebody presses Ctrl-C.

use std::future::Future;
use std::path::PathBuf;

use h5flight_proto::client::Client;

use crate::cli::Globals;
use crate::failure::Failure;
use crate::settings::{Environment, process_environment};

/// Where a server of this machine listens unless told otherwise.
const DEFAULT_URL: &str = "grpc://127.0.0.1:8815";

/// Which server, and who asks.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionFlags {
    /// Server: grpc://HOST:PORT or grpc+tls://HOST:PORT [env: H5FLIGHT_URL] [default: grpc://127.0.0.1:8815]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Token; other users of this machine can see it in the list of processes [env: H5FLIGHT_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// File that holds the token [env: H5FLIGHT_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// A server's address and the token for it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    url: String,
    token: Option<String>,
}

impl ConnectionFlags {
    /// Whether nothing was given.
    pub const fn is_empty(&self) -> bool {
        self.url.is_none() && self.token.is_none() && self.token_file.is_none()
    }

    /// Flags behind the command win over those before it, both over the environment.
    fn resolve(&self, outer: &Self, environment: Environment<'_>) -> Result<Place, Failure> {
        let url = self.url.clone().or_else(|| outer.url.clone()).or_else(|| environment("H5FLIGHT_URL"));
        let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
        for flags in [self, outer] {
            if let Some(token) = &flags.token {
                return Ok(Place { url, token: Some(token.clone()) });
            }
            if let Some(path) = &flags.token_file {
                return Ok(Place { url, token: Some(read_token(path)?) });
            }
        }
        let token = match (environment("H5FLIGHT_TOKEN"), environment("H5FLIGHT_TOKEN_FILE")) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => Some(read_token(&PathBuf::from(path))?),
            (None, None) => None,
        };
        Ok(Place { url, token })
    }
}

fn read_token(path: &PathBuf) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("token file {}: {error}", path.display())))?;
    match text.trim() {
        "" => Err(Failure::usage(format!("token file {} is empty", path.display()))),
        token => Ok(token.to_owned()),
    }
}

/// Connects and runs `work`, until it is done or interrupted; what it holds is dropped either way.
///
/// `work` runs on the calling thread, so it may wait for the local disk; the connection has a thread of its own.
pub fn with_client(
    flags: &ConnectionFlags,
    globals: &Globals,
    work: impl AsyncFnOnce(Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let place = flags.resolve(&globals.connection, &process_environment)?;
    until_interrupted(async {
        let client = Client::connect(&place.url, place.token.as_deref()).await?;
        work(client).await
    })
}

/// Runs `work` to its end or to SIGINT or SIGTERM.
pub fn until_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::local("io", format!("the runtime does not start: {error}")))?;
    let outcome = runtime.block_on(async {
        let signals = interruption()?;
        tokio::select! {
            outcome = work => outcome,
            () = signals => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Ends at the first SIGINT or SIGTERM.
fn interruption() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Failure::local("io", format!("signals cannot be watched: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_source_names_the_server_and_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " from-file\n").unwrap();
        let none = ConnectionFlags::default();
        let with_token = ConnectionFlags { token: Some("t".into()), ..none.clone() };
        let with_file = ConnectionFlags { token_file: Some(path.clone()), ..none.clone() };
        let with_url = ConnectionFlags { url: Some("grpc://u:1".into()), ..none.clone() };
        let nothing = |_: &str| None;
        let variables = |name: &str| match name {
            "H5FLIGHT_URL" => Some("grpc://env:1".to_owned()),
            "H5FLIGHT_TOKEN" => Some("from-env".to_owned()),
            _ => None,
        };
        let file_variable = |name: &str| (name == "H5FLIGHT_TOKEN_FILE").then(|| path.display().to_string());
        let cases: [(&ConnectionFlags, &ConnectionFlags, Environment<'_>, &str, Option<&str>); 7] = [
            (&none, &none, &nothing, DEFAULT_URL, None),
            (&none, &none, &variables, "grpc://env:1", Some("from-env")),
            (&none, &none, &file_variable, DEFAULT_URL, Some("from-file")),
            (&with_url, &with_file, &variables, "grpc://u:1", Some("from-file")),
            (&none, &with_url, &variables, "grpc://u:1", Some("from-env")),
            (&with_file, &with_token, &variables, "grpc://env:1", Some("from-file")),
            (&with_token, &with_file, &variables, "grpc://env:1", Some("t")),
        ];
        for (inner, outer, environment, url, token) in cases {
            let expected = Place { url: url.to_owned(), token: token.map(str::to_owned) };
            assert_eq!(inner.resolve(outer, environment).unwrap(), expected);
        }
    }

    #[test]
    fn a_token_file_that_is_missing_or_empty_is_wrong_usage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let flags = ConnectionFlags { token_file: Some(path.clone()), ..ConnectionFlags::default() };
        let refusal = || match flags.resolve(&ConnectionFlags::default(), &|_| None) {
            Err(Failure::Usage(message)) => message,
            other => panic!("expected a refusal, not {other:?}"),
        };
        assert!(refusal().ends_with("No such file or directory (os error 2)"));
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(refusal(), format!("token file {} is empty", path.display()));
    }
}
