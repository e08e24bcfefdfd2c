//! `h5flight access-log`: who read what. From the catalogue itself, so it works while no server runs.

use h5flight_catalog::model::AccessEntry;
use serde_json::{Value, json};

use super::token::{Catalog, Missing, show_time};
use crate::cli::Globals;
use crate::connection::until_interrupted;
use crate::failure::Failure;
use crate::output::{Form, JsonArray, note, shorten};
use crate::quantity::{show_bytes, show_count, show_millis};
use crate::table::Align::{Left, Right};
use crate::table::{Align, Table};

const COLUMNS: [(&str, Align); 10] = [
    ("TIME", Left),
    ("PRINCIPAL", Left),
    ("CALL", Left),
    ("PATH", Left),
    ("SELECTION", Left),
    ("OUTCOME", Left),
    ("ROWS", Right),
    ("SIZE", Right),
    ("TIER", Left),
    ("TOOK", Right),
];

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Entries at most, newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    catalog: Catalog,
}

/// Shows the newest entries.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    until_interrupted(async {
        let entries = args.catalog.open(Missing::Refuse).await?.list_accesses(args.limit).await?;
        if globals.form == Form::Json {
            let mut array = JsonArray::default();
            entries.iter().try_for_each(|entry| array.push(&entry_json(entry)))?;
            return array.finish();
        }
        if entries.is_empty() {
            note("nobody has read anything yet");
        }
        Table::new(COLUMNS).print(&entries.iter().map(entry_row).collect::<Vec<_>>())
    })
}

fn entry_row(entry: &AccessEntry) -> Vec<String> {
    vec![
        show_time(entry.at),
        entry.principal.clone(),
        entry.call.clone(),
        shorten(&entry.path, 60),
        shorten(&entry.selection, 30),
        entry.outcome.clone(),
        show_count(entry.rows),
        show_bytes(entry.bytes),
        entry.tier.clone(),
        show_millis(entry.millis),
    ]
}

fn entry_json(entry: &AccessEntry) -> Value {
    json!({
        "at": entry.at,
        "principal": entry.principal,
        "call": entry.call,
        "path": entry.path,
        "selection": entry.selection,
        "outcome": entry.outcome,
        "rows": entry.rows,
        "bytes": entry.bytes,
        "tier": entry.tier,
        "millis": entry.millis,
    })
}
