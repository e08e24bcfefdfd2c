//! `h5flight diff`: what is different between two versions of a dataset, and which rows are the same stored bytes.

use h5flight_proto::v1::{Change, DiffVersionsRequest, DiffVersionsResponse, VersionSelector};
use serde_json::{Value, json};

use super::history::parse_version;
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, clean, json as print_json, line, shorten};
use crate::quantity::show_count;

/// Characters of one value that are shown to people; `--json` has all of it.
const VALUE_CHARACTERS_MAX: usize = 100;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Animal
    pub animal: String,
    /// Experiment
    pub experiment: String,
    /// Dataset
    pub dataset: String,
    /// The one version: its number, a tag, or a time such as 2026-05-01T12:00:00Z
    #[arg(value_parser = parse_version)]
    pub from: VersionSelector,
    /// The other version
    #[arg(value_parser = parse_version)]
    pub to: VersionSelector,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Compares what the catalogue knows; no values are read.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    with_client(&args.connection, globals, async |client| {
        let request = DiffVersionsRequest {
            animal: args.animal.clone(),
            experiment: args.experiment.clone(),
            dataset: args.dataset.clone(),
            from: Some(args.from.clone()),
            to: Some(args.to.clone()),
        };
        let found = client.data.clone().diff_versions(request).await?.into_inner();
        match globals.form {
            Form::Json => print_json(&diff_json(&found)),
            Form::People => line(&diff_lines(&found).join("\n")),
        }
    })
}

fn diff_lines(found: &DiffVersionsResponse) -> Vec<String> {
    let mut lines = vec![format!("version {} -> version {}", found.from, found.to)];
    let value = |json: &str| if json.is_empty() { "-".to_owned() } else { shorten(json, VALUE_CHARACTERS_MAX) };
    let change = |of: &Change| format!("{}: {} -> {}", of.name, value(&of.from_json), value(&of.to_json));
    lines.extend(found.changes.iter().map(|of| format!("  {}", change(of))));
    lines.extend(found.attributes.iter().map(|of| format!("  attribute {}", change(of))));
    for range in &found.shared {
        let (from, to, rows) = (range.from_row, range.to_row, range.rows);
        lines.push(format!("  rows {from}:{} are the same stored bytes as rows {to}:{}", from + rows, to + rows));
    }
    if found.shared.is_empty() {
        let (from, to) = (show_count(found.from_rows), show_count(found.to_rows));
        lines.push(format!("  no stored bytes in common ({from} and {to} rows); values were not compared"));
    }
    lines.iter().map(|line| clean(line)).collect()
}

fn diff_json(found: &DiffVersionsResponse) -> Value {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let change = |of: &Change| json!({"name": of.name, "from": value(&of.from_json), "to": value(&of.to_json)});
    let shared = found.shared.iter();
    let shared = shared.map(|of| json!({"from_row": of.from_row, "to_row": of.to_row, "rows": of.rows}));
    json!({
        "from": found.from,
        "to": found.to,
        "from_rows": found.from_rows,
        "to_rows": found.to_rows,
        "changes": found.changes.iter().map(change).collect::<Vec<_>>(),
        "attributes": found.attributes.iter().map(change).collect::<Vec<_>>(),
        "shared": shared.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use h5flight_proto::v1::SharedRows;

    use super::*;

    #[test]
    fn changes_and_shared_rows_are_lines_without_control_characters() {
        let change =
            |name: &str, from: &str, to: &str| Change { name: name.into(), from_json: from.into(), to_json: to.into() };
        let mut found = DiffVersionsResponse {
            from: 1,
            to: 2,
            changes: vec![change("shape", "[5]", "[9]")],
            attributes: vec![change("a\u{1b}", "", "1")],
            shared: vec![SharedRows { from_row: 0, to_row: 4, rows: 5 }],
            from_rows: 5,
            to_rows: 9,
        };
        let lines = [
            "version 1 -> version 2",
            "  shape: [5] -> [9]",
            "  attribute a\\u{1b}: - -> 1",
            "  rows 0:5 are the same stored bytes as rows 4:9",
        ];
        assert_eq!(diff_lines(&found), lines);
        found.shared.clear();
        assert!(diff_lines(&found)[3].contains("no stored bytes in common (5 and 9 rows)"));
    }
}
