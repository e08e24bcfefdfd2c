//! `h5flight search`: datasets, or experiments, by words and conditions.

use h5flight_proto::client::Client;
use h5flight_proto::v1::{Dataset, Experiment, SearchFor, SearchRequest};

use super::listing::{Page, View, dataset_json, experiment_json, note_of, or_dash, shape_of, show_pages, size_of};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, shorten};
use crate::quantity::show_count;
use crate::table::Align::{Left, Right};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Words, all of which must occur in names or attributes, and conditions: "speed unit = 'm/s' AND rate > 100"
    #[arg(required = true)]
    pub words: Vec<String>,
    /// List the experiments that have such datasets, instead of the datasets
    #[arg(long)]
    pub experiments: bool,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Searches.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    let query = args.words.join(" ");
    let form = globals.form;
    with_client(&args.connection, globals, async |client| match args.experiments {
        false => list_datasets(client, form, query).await,
        true => list_experiments(client, form, query).await,
    })
}

async fn list_datasets(client: Client, form: Form, query: String) -> Result<(), Failure> {
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
    show_pages(form, &VIEW, async |page| {
        let request = SearchRequest { query: query.clone(), page: Some(page), ..SearchRequest::default() };
        let answer = client.data.clone().search(request).await?.into_inner();
        Ok(Page { entries: answer.datasets, next_token: answer.next_token })
    })
    .await
}

async fn list_experiments(client: Client, form: Form, query: String) -> Result<(), Failure> {
    const VIEW: View<Experiment> = View {
        columns: &[("ANIMAL", Left), ("EXPERIMENT", Left), ("DATASETS", Right), ("SPECIES", Left), ("START", Left)],
        row: |e| {
            let facts = [&e.species, &e.start_time].map(|text| shorten(&or_dash(text), 40));
            [e.animal.clone(), e.experiment.clone(), show_count(e.datasets)].into_iter().chain(facts).collect()
        },
        json: experiment_json,
        nothing: "nothing found",
    };
    show_pages(form, &VIEW, async |page| {
        let search_for = SearchFor::Experiments.into();
        let request = SearchRequest { query: query.clone(), page: Some(page), search_for };
        let answer = client.data.clone().search(request).await?.into_inner();
        Ok(Page { entries: answer.experiments, next_token: answer.next_token })
    })
    .await
}
