//! `h5flight info`: what the server is and how it is doing.

use h5flight_proto::v1::GetServerInfoResponse;
use serde_json::{Value, json};

use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, clean, json as print_json, line};
use crate::quantity::{show_bytes, show_millis, show_number_of};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Asks and shows.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    with_client(&args.connection, globals, async |client| {
        let info = client.server_info().await?;
        match globals.form {
            Form::Json => print_json(&info_json(&info)),
            Form::People => line(&info_lines(&info).join("\n")),
        }
    })
}

fn info_lines(info: &GetServerInfoResponse) -> Vec<String> {
    let roots = if info.roots.is_empty() { "none".to_owned() } else { info.roots.join(", ") };
    let holds =
        [(info.animals, "animal"), (info.experiments, "experiment"), (info.datasets, "dataset"), (info.files, "file")]
            .map(|(count, noun)| show_number_of(count, noun));
    let facts = [
        ("version", info.version.clone()),
        (
            "up for",
            if info.uptime_s < 60 {
                format!("{} s", info.uptime_s)
            } else {
                show_millis(info.uptime_s as f64 * 1_000.0)
            },
        ),
        ("you are", format!("{} ({})", info.principal, info.role)),
        ("holds", holds.join(", ")),
        ("roots", roots),
        ("catalogue", info.catalog.clone()),
        ("redis", info.redis.clone()),
        ("cache", format!("{} of {}", show_bytes(info.cache_bytes), show_bytes(info.cache_bytes_max))),
        ("sandbox", info.sandbox.clone()),
    ];
    facts.iter().map(|(label, value)| format!("{label:<10} {}", clean(value))).collect()
}

fn info_json(info: &GetServerInfoResponse) -> Value {
    json!({
        "version": info.version,
        "uptime_s": info.uptime_s,
        "principal": info.principal,
        "role": info.role,
        "animals": info.animals,
        "experiments": info.experiments,
        "datasets": info.datasets,
        "files": info.files,
        "roots": info.roots,
        "catalog": info.catalog,
        "redis": info.redis,
        "cache_bytes": info.cache_bytes,
        "cache_bytes_max": info.cache_bytes_max,
        "sandbox": info.sandbox,
    })
}
