//! `h5flight search`: datasets by words and conditions.

use h5flight_proto::v1::{Dataset, SearchRequest};

use super::listing::{Page, View, dataset_json, note_of, shape_of, show_pages, size_of};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::shorten;
use crate::table::Align::{Left, Right};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Words, all of which must occur in names or attributes, and conditions: "speed unit = 'm/s' AND rate > 100"
    #[arg(required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Searches.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    const VIEW: View<Dataset> = View {
        columns: &[
            ("ANIMAL", Left),
            ("EXPERIMENT", Left),
            ("DATASET", Left),
            ("SHAPE", Left),
            ("DTYPE", Left),
            ("SIZE", Right),
            ("", Left),
        ],
        row: |d| {
            let names = [&d.animal, &d.experiment, &d.dataset].map(String::clone);
            names.into_iter().chain([shape_of(d), shorten(&d.dtype, 40), size_of(d), note_of(d)]).collect()
        },
        json: dataset_json,
        nothing: "nothing found",
    };
    let query = args.words.join(" ");
    with_client(&args.connection, globals, async |client| {
        show_pages(globals.form, &VIEW, async |page| {
            let request = SearchRequest { query: query.clone(), page: Some(page) };
            let answer = client.data.clone().search(request).await?.into_inner();
            Ok(Page { entries: answer.datasets, next_token: answer.next_token })
        })
        .await
    })
}
