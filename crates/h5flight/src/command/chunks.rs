//! `h5flight chunks`: where each chunk of a dataset lies in its file.

use h5flight_proto::v1::{Chunk, ListChunksRequest};
use serde_json::json;

use super::listing::{Page, View, show_pages};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
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

/// Lists the chunk pointers, expanded.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    const VIEW: View<Chunk> = View {
        columns: &[("POSITION", Left), ("OFFSET", Right), ("STORED BYTES", Right), ("FILTER MASK", Right)],
        row: |c| {
            vec![
                show_shape(&c.position),
                c.offset.to_string(),
                c.stored_bytes.to_string(),
                format!("{:#x}", c.filter_mask),
            ]
        },
        json: |c| {
            json!({
                "position": c.position,
                "offset": c.offset,
                "stored_bytes": c.stored_bytes,
                "filter_mask": c.filter_mask,
            })
        },
        nothing: "no stored chunks",
    };
    with_client(&args.connection, globals, async |client| {
        show_pages(globals.form, &VIEW, async |page| {
            let request = ListChunksRequest {
                animal: args.animal.clone(),
                experiment: args.experiment.clone(),
                dataset: args.dataset.clone(),
                page: Some(page),
            };
            let answer = client.data.clone().list_chunks(request).await?.into_inner();
            Ok(Page { entries: answer.chunks, next_token: answer.next_token })
        })
        .await
    })
}
