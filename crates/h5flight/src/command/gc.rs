//! `h5flight gc`: the server removes what nobody needs from its data folder, and tells what that was.

use std::time::Duration;

use h5flight_proto::v1::{CollectGarbageRequest, CollectGarbageResponse, Garbage};
use serde_json::{Value, json};

use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{self, Form, clean, line};
use crate::quantity::{show_bytes, show_number_of};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only tell what would be removed
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Asks, and shows the answer.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    with_client(&args.connection, globals, async |client| {
        let asked = CollectGarbageRequest { dry_run: args.dry_run };
        let found = client.data.clone().collect_garbage(asked).await?.into_inner();
        match globals.form {
            Form::Json => output::json(&as_json(args.dry_run, &found)),
            Form::People => show(args.dry_run, &found),
        }
    })
}

fn as_json(dry_run: bool, found: &CollectGarbageResponse) -> Value {
    let piece =
        |piece: &Garbage| json!({ "kind": piece.kind, "name": piece.name, "bytes": piece.bytes, "age_s": piece.age_s });
    json!({
        "dry_run": dry_run, "count": found.count, "bytes": found.bytes,
        "garbage": found.garbage.iter().map(piece).collect::<Vec<_>>(),
    })
}

fn show(dry_run: bool, found: &CollectGarbageResponse) -> Result<(), Failure> {
    for Garbage { kind, name, bytes, age_s } in &found.garbage {
        let hours = Duration::from_secs(*age_s).as_secs() / 3600;
        line(&clean(&format!("{kind:<9}  {:>10}  {hours:>5} h old  {name}", show_bytes(*bytes))))?;
    }
    let more = found.count - found.garbage.len() as u64;
    if more > 0 {
        line(&format!("and {more} more"))?;
    }
    let verb = if dry_run { "would be removed" } else { "removed" };
    line(&format!("{}, {} {verb}", show_number_of(found.count, "piece"), show_bytes(found.bytes)))
}
