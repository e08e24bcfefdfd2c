//! `h5flight rollback`: an older version of a dataset becomes the newest again, as a version of its own.

use h5flight_proto::v1::{RollbackRequest, RollbackResponse, VersionSelector};
use serde_json::json;

use super::history::parse_version;
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, json as print_json, line};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Animal
    pub animal: String,
    /// Experiment
    pub experiment: String,
    /// Dataset
    pub dataset: String,
    /// Version to go back to: its number, a tag, or a time such as 2026-05-01T12:00:00Z
    #[arg(value_parser = parse_version)]
    pub version: VersionSelector,
    /// Refuse when another version than this one is the newest by now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub expect: Option<u64>,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Rolls back and says what is the newest version now.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    with_client(&args.connection, globals, async |client| {
        let request = RollbackRequest {
            animal: args.animal.clone(),
            experiment: args.experiment.clone(),
            dataset: args.dataset.clone(),
            to: Some(args.version.clone()),
            expected_version: args.expect.unwrap_or(0),
        };
        let made = client.data.clone().rollback(request).await?.into_inner();
        match globals.form {
            Form::Json => print_json(&json!({
                "version": made.version, "before": made.before, "restored": made.restored, "already": made.already,
            })),
            Form::People => line(&said(&made)),
        }
    })
}

fn said(made: &RollbackResponse) -> String {
    let RollbackResponse { version, before, restored, already } = made;
    match already {
        true => format!("version {version} is the same as version {restored} already"),
        false => format!("version {version} is version {restored} again; before it was version {before}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_which_version_is_what() {
        let made = RollbackResponse { version: 3, before: 2, restored: 1, already: false };
        assert_eq!(said(&made), "version 3 is version 1 again; before it was version 2");
        let already = RollbackResponse { version: 3, before: 3, restored: 1, already: true };
        assert_eq!(said(&already), "version 3 is the same as version 1 already");
    }
}
