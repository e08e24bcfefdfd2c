//! `h5flight tag`: names for versions, to read by.

use h5flight_proto::v1::{DeleteTagRequest, SetTagRequest, VersionSelector};
use serde_json::json;

use super::history::parse_version;
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, json as print_json, line};
use crate::quantity::show_number_of;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Give the current version, or an older one, a name; without a dataset those of all in the experiment
    Set(SetArgs),
    /// Remove the name from a dataset, or from all of an experiment
    Rm(RemoveArgs),
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// The name: a letter, then letters, digits, ".", "_" and "-"
    tag: String,
    /// Animal
    animal: String,
    /// Experiment
    experiment: String,
    /// Dataset; without it all datasets of the experiment
    dataset: Option<String>,
    /// Version: its number, another tag, or a time such as 2026-05-01T12:00:00Z, the only one for whole experiments
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    at: Option<VersionSelector>,
    /// Move the tag where another version has it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: ConnectionFlags,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The name
    tag: String,
    /// Animal
    animal: String,
    /// Experiment
    experiment: String,
    /// Dataset; without it all datasets of the experiment
    dataset: Option<String>,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// Sets or removes a tag.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    match &args.action {
        Action::Set(args) => set(args, globals),
        Action::Rm(args) => remove(args, globals),
    }
}

fn set(args: &SetArgs, globals: &Globals) -> Result<(), Failure> {
    with_client(&args.connection, globals, async |client| {
        let request = SetTagRequest {
            animal: args.animal.clone(),
            experiment: args.experiment.clone(),
            dataset: args.dataset.clone().unwrap_or_default(),
            tag: args.tag.clone(),
            at: args.at.clone(),
            r#move: args.force,
        };
        let done = client.data.clone().set_tag(request).await?.into_inner();
        match globals.form {
            Form::Json => print_json(&json!({ "datasets": done.datasets, "changed": done.changed })),
            Form::People => {
                let already = done.datasets.saturating_sub(done.changed);
                let noted = if already > 0 { format!(", {already} had it already") } else { String::new() };
                line(&format!("{} at the tag {}{noted}", show_number_of(done.datasets, "dataset"), args.tag))
            }
        }
    })
}

fn remove(args: &RemoveArgs, globals: &Globals) -> Result<(), Failure> {
    with_client(&args.connection, globals, async |client| {
        let request = DeleteTagRequest {
            animal: args.animal.clone(),
            experiment: args.experiment.clone(),
            dataset: args.dataset.clone().unwrap_or_default(),
            tag: args.tag.clone(),
        };
        let done = client.data.clone().delete_tag(request).await?.into_inner();
        match globals.form {
            Form::Json => print_json(&json!({ "datasets": done.datasets })),
            Form::People => line(&format!("removed from {}", show_number_of(done.datasets, "dataset"))),
        }
    })
}
