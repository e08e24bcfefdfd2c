//! `h5flight ls`: animals, experiments, datasets, or one object in full.

use h5flight_proto::client::Client;
use h5flight_proto::v1::{
    Animal, Child, Dataset, DescribeRequest, DescribeResponse, Dimension, Experiment, ListAnimalsRequest,
    ListDatasetsRequest, ListExperimentsRequest,
};
use serde_json::{Map, Value, json};

use super::listing::{
    Page, View, chunks_of, dataset_json, experiment_json, note_of, or_dash, or_null, shape_of, show_pages, size_of,
};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, clean, json as print_json, line, shorten};
use crate::quantity::{show_bytes, show_count};
use crate::table::Align::{Left, Right};

/// Characters of one attribute's value that are shown to people; `--json` has all of it.
const VALUE_CHARACTERS_MAX: usize = 200;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Animal whose experiments are listed
    pub animal: Option<String>,
    /// Experiment whose datasets are listed
    pub experiment: Option<String>,
    /// Dataset or group to describe, with its attributes; "/" is the root group
    pub dataset: Option<String>,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Lists or describes.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    let form = globals.form;
    with_client(&args.connection, globals, async |client| match (&args.animal, &args.experiment, &args.dataset) {
        (None, ..) => list_animals(client, form).await,
        (Some(animal), None, _) => list_experiments(client, form, animal).await,
        (Some(animal), Some(experiment), None) => list_datasets(client, form, animal, experiment).await,
        (Some(animal), Some(experiment), Some(path)) => {
            let path = path.trim_matches('/').to_owned();
            let request = DescribeRequest { animal: animal.clone(), experiment: experiment.clone(), path, at: None };
            describe(client, form, request).await
        }
    })
}

async fn list_animals(client: Client, form: Form) -> Result<(), Failure> {
    const VIEW: View<Animal> = View {
        columns: &[("ANIMAL", Left), ("SPECIES", Left), ("EXPERIMENTS", Right)],
        row: |a| vec![a.animal.clone(), or_dash(&a.species), show_count(a.experiments)],
        json: |a| json!({"animal": a.animal, "species": or_null(&a.species), "experiments": a.experiments}),
        nothing: "nothing here yet; add files with `h5flight register` or `h5flight ingest`",
    };
    show_pages(form, &VIEW, async |page| {
        let answer = client.data.clone().list_animals(ListAnimalsRequest { page: Some(page) }).await?.into_inner();
        Ok(Page { entries: answer.animals, next_token: answer.next_token })
    })
    .await
}

async fn list_experiments(client: Client, form: Form, animal: &str) -> Result<(), Failure> {
    const VIEW: View<Experiment> = View {
        columns: &[("EXPERIMENT", Left), ("DATASETS", Right), ("START", Left), ("IDENTIFIER", Left), ("NWB", Left)],
        row: |e| {
            let facts = [&e.start_time, &e.identifier, &e.nwb_version].map(|text| shorten(&or_dash(text), 40));
            [e.experiment.clone(), show_count(e.datasets)].into_iter().chain(facts).collect()
        },
        json: experiment_json,
        nothing: "no experiments",
    };
    show_pages(form, &VIEW, async |page| {
        let request = ListExperimentsRequest { animal: animal.to_owned(), page: Some(page) };
        let answer = client.data.clone().list_experiments(request).await?.into_inner();
        Ok(Page { entries: answer.experiments, next_token: answer.next_token })
    })
    .await
}

async fn list_datasets(client: Client, form: Form, animal: &str, experiment: &str) -> Result<(), Failure> {
    const VIEW: View<Dataset> = View {
        columns: &[("DATASET", Left), ("SHAPE", Left), ("DTYPE", Left), ("CHUNKS", Left), ("SIZE", Right), ("", Left)],
        row: |d| {
            let dtype = shorten(&d.dtype, 40);
            vec![d.dataset.clone(), shape_of(d), dtype, chunks_of(d), size_of(d), note_of(d)]
        },
        json: dataset_json,
        nothing: "no datasets",
    };
    show_pages(form, &VIEW, async |page| {
        let (animal, experiment) = (animal.to_owned(), experiment.to_owned());
        let request = ListDatasetsRequest { animal, experiment, page: Some(page) };
        let answer = client.data.clone().list_datasets(request).await?.into_inner();
        Ok(Page { entries: answer.datasets, next_token: answer.next_token })
    })
    .await
}

async fn describe(client: Client, form: Form, request: DescribeRequest) -> Result<(), Failure> {
    let name = [request.animal.as_str(), &request.experiment].join("/");
    let object = client.data.clone().describe(request).await?.into_inner();
    let attributes: Map<String, Value> = match object.attributes_json.as_str() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|error| {
            Failure::local("internal", format!("the server's attributes are no JSON object: {error}"))
        })?,
    };
    match form {
        Form::Json => print_json(&description_json(&object, &attributes)),
        Form::People => line(&description_lines(&name, &object, &attributes).join("\n")),
    }
}

fn description_json(object: &DescribeResponse, attributes: &Map<String, Value>) -> Value {
    let child = |child: &Child| json!({"name": child.name, "kind": child.kind, "problem_reason": or_null(&child.problem_reason)});
    let dimension = |of: &Dimension| json!({"label": of.label, "scales": of.scales, "size": of.size, "coordinate": or_null(&of.coordinate)});
    let types: Value = serde_json::from_str(&object.attribute_types_json).unwrap_or_default();
    json!({
        "path": object.path,
        "kind": object.kind,
        "aliases": object.aliases,
        "dataset": object.dataset.as_ref().map(dataset_json),
        "dims": object.dims.iter().map(dimension).collect::<Vec<_>>(),
        "attributes": attributes,
        "attribute_types": types,
        "children": object.children.iter().map(child).collect::<Vec<_>>(),
    })
}

fn description_lines(name: &str, object: &DescribeResponse, attributes: &Map<String, Value>) -> Vec<String> {
    let mut facts = vec![format!("{}  {}/{}", object.kind, name, object.path.trim_start_matches('/'))];
    let mut fact = |label: &str, value: String| facts.push(format!("  {label:<10}{value}"));
    if !object.aliases.is_empty() {
        fact("also", object.aliases.join(", "));
    }
    if let Some(dataset) = &object.dataset {
        fact("shape", shape_of(dataset));
        fact("dtype", dataset.dtype.clone());
        if !dataset.chunks.is_empty() {
            fact("chunks", format!("{}, {} stored", chunks_of(dataset), show_count(dataset.stored_chunks)));
        }
        if !dataset.filters.is_empty() {
            fact("filters", dataset.filters.join(", "));
        }
        fact("size", format!("{}, {} in the file", size_of(dataset), show_bytes(dataset.stored_bytes)));
        fact("version", dataset.version.to_string());
        if !dataset.problem_reason.is_empty() {
            fact("problem", format!("{} ({})", dataset.problem, dataset.problem_reason));
        }
    }
    let said = |of: &Dimension| !(of.label.is_empty() && of.scales.is_empty() && of.coordinate.is_empty());
    if object.dims.iter().any(said) {
        section(&mut facts, "dimensions", object.dims.iter().enumerate(), dimension_text);
    }
    section(&mut facts, "attributes", attributes, |(key, value)| format!("{key} = {value}"));
    section(&mut facts, "children", &object.children, |child| match child.kind.as_str() {
        "group" => format!("{}/", child.name),
        "dataset" => child.name.clone(),
        other => format!("{} ({})", child.name, other.replace('_', " ")),
    });
    facts.iter().map(|fact| clean(fact)).collect()
}

/// `0 time, 300: coordinates t; scales t, frame`.
fn dimension_text((axis, of): (usize, &Dimension)) -> String {
    let label = if of.label.is_empty() { String::new() } else { format!(" {}", of.label) };
    let mut text = format!("{axis}{label}, {}", show_count(of.size));
    let facts = [("coordinates", of.coordinate.clone()), ("scales", of.scales.join(", "))];
    let told: Vec<String> =
        facts.into_iter().filter(|(_, of)| !of.is_empty()).map(|(what, of)| format!("{what} {of}")).collect();
    if !told.is_empty() {
        text.push_str(": ");
        text.push_str(&told.join("; "));
    }
    text
}

/// Appends a heading and one indented line per entry, where there is any.
fn section<Entry>(
    lines: &mut Vec<String>,
    heading: &str,
    entries: impl IntoIterator<Item = Entry>,
    show: impl Fn(Entry) -> String,
) {
    let shown: Vec<String> =
        entries.into_iter().map(|entry| format!("    {}", shorten(&show(entry), VALUE_CHARACTERS_MAX))).collect();
    if !shown.is_empty() {
        lines.push(format!("  {heading}"));
        lines.extend(shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_shows_facts_attributes_and_no_control_characters() {
        let dataset = Dataset {
            version: 2,
            shape: vec![1_000, 64],
            dtype: "<u2".into(),
            chunks: vec![100, 64],
            filters: vec!["shuffle".into(), "deflate".into()],
            stored_bytes: 2_048,
            decoded_bytes: 128_000,
            stored_chunks: 10,
            ..Dataset::default()
        };
        let object = DescribeResponse {
            path: "imaging".into(),
            kind: "dataset".into(),
            dataset: Some(dataset),
            dims: vec![
                Dimension { label: "time".into(), scales: vec!["t".into()], size: 1_000, coordinate: "t".into() },
                Dimension { size: 64, ..Dimension::default() },
            ],
            children: vec![Child { name: "out".into(), kind: "external_link".into(), ..Child::default() }],
            ..DescribeResponse::default()
        };
        let attributes = Map::from_iter([("unit".to_owned(), json!("µV")), ("bad\u{1b}".to_owned(), json!(1))]);
        let expected = [
            "dataset  m1/day1/imaging",
            "  shape     (1000, 64)",
            "  dtype     <u2",
            "  chunks    (100, 64), 10 stored",
            "  filters   shuffle, deflate",
            "  size      125.0 KiB, 2.0 KiB in the file",
            "  version   2",
            "  dimensions",
            "    0 time, 1,000: coordinates t; scales t",
            "    1, 64",
            "  attributes",
            "    bad\\u{1b} = 1",
            "    unit = \"µV\"",
            "  children",
            "    out (external link)",
        ];
        assert_eq!(description_lines("m1/day1", &object, &attributes), expected);
    }
}
