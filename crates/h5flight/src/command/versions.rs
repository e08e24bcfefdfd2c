//! `h5flight versions`: the history of a dataset, the newest version first.

use h5flight_proto::v1::{ListVersionsRequest, Version};
use serde_json::{Value, json};

use super::history::show_time;
use super::listing::{Page, View, show_pages};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::shorten;
use crate::quantity::show_shape;
use crate::table::Align::{Left, Right};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Animal
    pub animal: String,
    /// Experiment
    pub experiment: String,
    /// Dataset
    pub dataset: String,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Lists the versions.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    const VIEW: View<Version> = View {
        columns: &[
            ("VERSION", Right),
            ("PUBLISHED", Left),
            ("BY", Left),
            ("SHAPE", Left),
            ("DTYPE", Left),
            ("FILE", Left),
            ("TAGS", Left),
            ("", Left),
        ],
        row: |v| {
            let shape = if v.is_null { "null".to_owned() } else { show_shape(&v.shape) };
            let (dtype, tags) = (shorten(&v.dtype, 40), v.tags.join(", "));
            let (by, file) = (v.principal.clone(), v.source_name.clone());
            vec![v.version.to_string(), show_time(v.created_us), by, shape, dtype, file, tags, note_of(v)]
        },
        json: version_json,
        nothing: "no versions",
    };
    with_client(&args.connection, globals, async |client| {
        show_pages(globals.form, &VIEW, async |page| {
            let request = ListVersionsRequest {
                animal: args.animal.clone(),
                experiment: args.experiment.clone(),
                dataset: args.dataset.clone(),
                page: Some(page),
            };
            let answer = client.data.clone().list_versions(request).await?.into_inner();
            Ok(Page { entries: answer.versions, next_token: answer.next_token })
        })
        .await
    })
}

fn note_of(version: &Version) -> String {
    let restored = (version.restored > 0).then(|| format!("version {} again", version.restored));
    let problem = (!version.problem_reason.is_empty()).then(|| format!("not readable: {}", version.problem_reason));
    restored.into_iter().chain(problem).collect::<Vec<_>>().join("; ")
}

fn version_json(version: &Version) -> Value {
    json!({
        "version": version.version,
        "created_at": show_time(version.created_us),
        "principal": version.principal,
        "shape": (!version.is_null).then_some(&version.shape),
        "dtype": version.dtype,
        "source_name": version.source_name,
        "managed": version.managed,
        "restored": (version.restored > 0).then_some(version.restored),
        "tags": version.tags,
        "extents": version.extents,
        "stored_chunks": version.stored_chunks,
        "stored_bytes": version.stored_bytes,
        "problem_reason": (!version.problem_reason.is_empty()).then_some(&version.problem_reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_is_special_about_a_version() {
        let restored = Version { restored: 1, ..Version::default() };
        assert_eq!(note_of(&restored), "version 1 again");
        let broken = Version { problem_reason: "unsupported_type".into(), ..restored };
        assert_eq!(note_of(&broken), "version 1 again; not readable: unsupported_type");
        assert_eq!(note_of(&Version::default()), "");
        assert_eq!(version_json(&Version::default())["restored"], Value::Null);
    }
}
