//! Long lists: page after page until the last, shown as they come. And datasets and experiments, as several commands
//! show them.

use h5flight_proto::v1::{Dataset, Experiment, PageRequest};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Form, JsonArray, note};
use crate::quantity::{show_bytes, show_shape};
use crate::table::{Align, Table};

/// Entries of one page: the most that the server gives.
const PAGE_ENTRIES: u32 = 1_000;

/// One answer of a list call.
pub struct Page<Entry> {
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Token of the next page; empty when this is the last.
    pub next_token: String,
}

/// How entries of one kind are shown.
pub struct View<Entry: 'static> {
    /// Column heads.
    pub columns: &'static [(&'static str, Align)],
    /// Cells of an entry.
    pub row: fn(&Entry) -> Vec<String>,
    /// The entry for programs.
    pub json: fn(&Entry) -> Value,
    /// What is said to people when there is no entry.
    pub nothing: &'static str,
}

/// Asks for page after page and shows each as it comes.
pub async fn show_pages<Entry>(
    form: Form,
    view: &View<Entry>,
    mut ask: impl AsyncFnMut(PageRequest) -> Result<Page<Entry>, Failure>,
) -> Result<(), Failure> {
    let mut table = Table::new(view.columns.iter().copied());
    let mut array = JsonArray::default();
    let (mut token, mut shown) = (String::new(), 0);
    loop {
        let page = ask(PageRequest { size: PAGE_ENTRIES, token: token.clone() }).await?;
        shown += page.entries.len();
        match form {
            Form::People => table.print(&page.entries.iter().map(view.row).collect::<Vec<_>>())?,
            Form::Json => page.entries.iter().try_for_each(|entry| array.push(&(view.json)(entry)))?,
        }
        if page.next_token.is_empty() {
            break;
        }
        if page.next_token == token {
            return Err(Failure::local("internal", "the server gave the same page token twice"));
        }
        token = page.next_token;
    }
    match form {
        Form::Json => array.finish(),
        Form::People if shown == 0 => {
            note(view.nothing);
            Ok(())
        }
        Form::People => Ok(()),
    }
}

/// Shape for people; a null dataspace has none.
pub fn shape_of(dataset: &Dataset) -> String {
    if dataset.is_null { "null".to_owned() } else { show_shape(&dataset.shape) }
}

/// Chunk shape for people.
pub fn chunks_of(dataset: &Dataset) -> String {
    if dataset.chunks.is_empty() { "-".to_owned() } else { show_shape(&dataset.chunks) }
}

/// Size for people: decoded where that is known, because it is what a reader gets.
pub fn size_of(dataset: &Dataset) -> String {
    match (dataset.decoded_bytes, dataset.stored_bytes) {
        (0, 0) => "-".to_owned(),
        (0, stored) => show_bytes(stored),
        (decoded, _) => show_bytes(decoded),
    }
}

/// What is noteworthy about a dataset: that it cannot be read.
pub fn note_of(dataset: &Dataset) -> String {
    if dataset.problem_reason.is_empty() { String::new() } else { format!("not readable: {}", dataset.problem_reason) }
}

/// A dataset for programs.
pub fn dataset_json(dataset: &Dataset) -> Value {
    let problem = (!dataset.problem_reason.is_empty())
        .then(|| json!({"reason": dataset.problem_reason, "message": dataset.problem}));
    json!({
        "animal": dataset.animal,
        "experiment": dataset.experiment,
        "dataset": dataset.dataset,
        "version": dataset.version,
        "shape": (!dataset.is_null).then_some(&dataset.shape),
        "max_shape": dataset.max_shape.iter().map(|size| u64::try_from(*size).ok()).collect::<Vec<_>>(),
        "dtype": dataset.dtype,
        "chunks": (!dataset.chunks.is_empty()).then_some(&dataset.chunks),
        "filters": dataset.filters,
        "stored_chunks": dataset.stored_chunks,
        "stored_bytes": dataset.stored_bytes,
        "decoded_bytes": dataset.decoded_bytes,
        "problem": problem,
    })
}

/// An experiment for programs.
pub fn experiment_json(experiment: &Experiment) -> Value {
    let details: Value = serde_json::from_str(&experiment.details_json).unwrap_or_default();
    json!({
        "animal": experiment.animal,
        "experiment": experiment.experiment,
        "datasets": experiment.datasets,
        "start_time": or_null(&experiment.start_time),
        "identifier": or_null(&experiment.identifier),
        "session_id": or_null(&experiment.session_id),
        "nwb_version": or_null(&experiment.nwb_version),
        "species": or_null(&experiment.species),
        "details": details,
    })
}

/// A text for programs.
pub fn or_null(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A text for people.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
