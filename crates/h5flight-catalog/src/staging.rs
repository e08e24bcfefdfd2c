//! What goes in: a publication checked as a whole before anything is written, then turned into rows a slice at a time,
//! so that a file with a million objects neither doubles in memory nor holds a thread.

use std::collections::{BTreeSet, HashMap, HashSet};

use h5flight_array::checksum;
use h5flight_array::inspect::{LinkKind, ObjectKind};
use h5flight_array::meta::{Storage, product};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::model::*;
use crate::rows::{link_kind_text, object_kind_text, rows_of};
use crate::text::{self, FACT_BYTES_MAX, LONG_PATH_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::{identity, names};

/// Rows of one statement at most. SQLite takes 32,766 parameters; the widest row has 12.
const SLICE_ROWS_MAX: usize = 2_000;
/// Bytes of one statement, about: what is held in memory twice while it is sent.
const SLICE_BYTES_MAX: usize = 4 << 20;
/// Steps of work after which others on this thread get their turn.
const STEPS_BEFORE_YIELD: usize = 64;

/// A publication that passed all checks that need no database.
pub(crate) struct Staged<'p> {
    pub(crate) publication: &'p Publication,
    /// (animal, experiment), ascending: also the order in which their rows are locked.
    pub(crate) experiments: BTreeSet<(&'p str, &'p str)>,
    pub(crate) facts: ExperimentFacts,
    pub(crate) names_digest: [u8; 32],
    pub(crate) datasets: u64,
    pub(crate) chunks: u64,
}

impl<'p> Staged<'p> {
    /// Checks `publication`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], naming the object.
    pub(crate) async fn new(publication: &'p Publication) -> Result<Self> {
        let (_, root, path) = place_columns(&publication.place);
        text::name("path of the file", path, PATH_BYTES_MAX)?;
        if let FilePlace::Registered { .. } = &publication.place {
            text::name("root of the file", root, NAME_BYTES_MAX)?;
        }
        if let Some(key) = &publication.ingest_key {
            text::name("idempotency key", key, NAME_BYTES_MAX)?;
        }
        let mut staged = Self {
            publication,
            experiments: BTreeSet::new(),
            facts: bounded_facts(&publication.facts),
            names_digest: identity::names(publication),
            datasets: 0,
            chunks: 0,
        };
        let mut seen = HashSet::with_capacity(publication.objects.len());
        let mut turns = Turns::default();
        for object in &publication.objects {
            turns.next().await;
            if !seen.insert((&object.animal, &object.experiment, &object.name)) {
                return Err(Error::invalid(format!("{} comes twice in one publication", full_name(object))));
            }
            staged.add_object(object)?;
        }
        for link in &publication.links {
            turns.next().await;
            staged.add_link(link)?;
        }
        staged.check_writer()?;
        for ExpectedVersion { path, .. } in &publication.expected {
            // Only the experiments of a publication are locked while it is checked.
            if !staged.experiments.contains(&(path.animal.as_str(), path.experiment.as_str())) {
                return Err(Error::invalid(format!("a version of \"{path}\" is expected, which is not published to")));
            }
        }
        Ok(staged)
    }

    fn check_writer(&self) -> Result<()> {
        let Some(WriterSequence { writer, sequence }) = &self.publication.writer else { return Ok(()) };
        text::name("name of the writer", writer, NAME_BYTES_MAX)?;
        storable("the sequence number", *sequence)?;
        match self.datasets {
            1 => Ok(()),
            datasets => Err(Error::invalid(format!("a publication with a writer has one dataset, not {datasets}"))),
        }
    }

    fn add_object(&mut self, object: &'p NewObject) -> Result<()> {
        self.add_experiment(&object.animal, &object.experiment)?;
        if object.name != names::normal(&object.name) {
            return Err(Error::invalid(format!("the name {:?} has empty parts", object.name)));
        }
        if object.kind == ObjectKind::Dataset || !object.name.is_empty() {
            text::name("name of an object", &object.name, PATH_BYTES_MAX)?;
        }
        text::name("path within the file", &object.hdf5_path, LONG_PATH_BYTES_MAX)?;
        match (&object.kind, &object.array) {
            (ObjectKind::Dataset, Some(array)) => {
                array
                    .meta
                    .check()
                    .map_err(|error| Error::invalid(format!("{}: {error}", full_name(object))).with_source(error))?;
                self.datasets += 1;
                let chunks = array.runs.iter().map(|run| u64::from(run.pointers)).sum::<u64>();
                self.chunks += chunks;
                let checksums = array.checksums.len() as u64;
                if checksums != 0 && checksums != chunks {
                    let message = format!("{}: {checksums} checksums of {chunks} chunks", full_name(object));
                    return Err(Error::invalid(message));
                }
                Ok(())
            }
            (ObjectKind::Group | ObjectKind::NamedType, None) => Ok(()),
            (ObjectKind::Dataset, None) => Err(Error::invalid(format!("dataset {} has no array", full_name(object)))),
            (ObjectKind::Group | ObjectKind::NamedType, Some(_)) => {
                Err(Error::invalid(format!("{} has an array and is no dataset", full_name(object))))
            }
        }
    }

    fn add_link(&mut self, link: &'p NewLink) -> Result<()> {
        self.add_experiment(&link.animal, &link.experiment)?;
        text::name("name of a link", &link.link.path, PATH_BYTES_MAX)?;
        match link.link.kind {
            LinkKind::Hard | LinkKind::Soft if link.link.target.is_empty() => Ok(()),
            LinkKind::Hard | LinkKind::Soft => {
                text::name("target of a link", &link.link.target, PATH_BYTES_MAX).map(|_| ())
            }
            // Never followed: cut for people, whatever it is.
            LinkKind::External | LinkKind::User => Ok(()),
        }
    }

    fn add_experiment(&mut self, animal: &'p str, experiment: &'p str) -> Result<()> {
        if !self.experiments.contains(&(animal, experiment)) {
            text::name("animal", animal, NAME_BYTES_MAX)?;
            text::name("experiment", experiment, NAME_BYTES_MAX)?;
            self.experiments.insert((animal, experiment));
        }
        Ok(())
    }

    /// All rows of `objects`.
    pub(crate) fn object_rows(&self, ids: &ExperimentIds) -> impl Iterator<Item = Result<ObjectRow<'p>>> {
        let objects = self.publication.objects.iter().enumerate();
        objects.map(|(position, object)| {
            Ok(ObjectRow {
                position: position as i64,
                experiment_id: ids.id(&object.animal, &object.experiment)?,
                name: &object.name,
                parent: names::parent(&object.name),
                hdf5_path: &object.hdf5_path,
                kind: object_kind_text(object.kind),
                attributes: as_json("attributes", &object.attributes)?,
                attribute_types: as_json("attribute types", &object.attribute_types)?,
                dimensions: as_json("dimensions", &object.dimensions)?,
                search_text: object_search_text(object),
            })
        })
    }

    /// All rows of `links`.
    pub(crate) fn link_rows(&self, ids: &ExperimentIds) -> impl Iterator<Item = Result<LinkRow<'p>>> {
        self.publication.links.iter().map(|link| {
            Ok(LinkRow {
                experiment_id: ids.id(&link.animal, &link.experiment)?,
                path: &link.link.path,
                parent: names::parent(&link.link.path).unwrap_or_default(),
                kind: link_kind_text(link.link.kind),
                target: match link.link.kind {
                    LinkKind::Hard | LinkKind::Soft => names::normal(&link.link.target),
                    LinkKind::External | LinkKind::User => text::words(&link.link.target, PATH_BYTES_MAX).into_owned(),
                },
            })
        })
    }

    /// Datasets with their arrays and places within the publication.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = (i64, &'p NewObject, &'p NewArray)> {
        let objects = self.publication.objects.iter().enumerate();
        objects.filter_map(|(position, object)| Some((position as i64, object, object.array.as_ref()?)))
    }

    /// The row of `arrays` of one dataset. Unpacks its runs to check and to sum them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for runs that are damaged or not ascending, or for numbers above 2^63 - 1.
    pub(crate) async fn array_row(
        &self,
        (position, object, array): (i64, &'p NewObject, &'p NewArray),
        ids: &ContentIds,
    ) -> Result<ArrayRow<'p>> {
        let name = || full_name(object);
        let stored_bytes = stored_bytes(array).await.map_err(|error| Error::invalid(format!("{}: {error}", name())))?;
        let chunks: u64 = array.runs.iter().map(|run| u64::from(run.pointers)).sum();
        Ok(ArrayRow {
            object_id: ids.object(position)?,
            identity: identity::array(&self.publication.place, &self.publication.fingerprint, &object.hdf5_path),
            hdf5_path: &object.hdf5_path,
            meta: as_json("array facts", &array.meta)?,
            rows: storable("rows", rows_of(&array.meta)).map_err(|error| error_of(&name(), error))?,
            chunks: storable("chunks", chunks).map_err(|error| error_of(&name(), error))?,
            stored_bytes: i64::try_from(stored_bytes).unwrap_or(i64::MAX),
            inline: array.inline.as_deref(),
            problem_reason: array.problem.as_ref().map(|(reason, _)| text::words(reason, NAME_BYTES_MAX).into_owned()),
            problem_message: array.problem.as_ref().map(|(_, said)| text::words(said, MESSAGE_BYTES_MAX).into_owned()),
        })
    }

    /// All rows of `chunk_runs`.
    pub(crate) fn run_rows(&self, ids: &ContentIds) -> impl Iterator<Item = Result<RunRow<'p>>> {
        self.arrays().flat_map(move |(position, _, array)| {
            let mut rest = array.checksums.as_slice();
            array.runs.iter().enumerate().map(move |(run, packed)| {
                // As many as all runs have together, or none.
                let (own, after) = rest.split_at((packed.pointers as usize).min(rest.len()));
                rest = after;
                Ok(RunRow {
                    array_id: ids.array(position)?,
                    run: run as i64,
                    first_number: storable("chunk number", packed.first_number)?,
                    last_number: storable("chunk number", packed.last_number)?,
                    pointers: i64::from(packed.pointers),
                    packed: &packed.packed,
                    checksums: (!own.is_empty()).then(|| checksum::packed(own)),
                })
            })
        })
    }
}

/// A place as the columns kind, root, path.
pub(crate) fn place_columns(place: &FilePlace) -> (&'static str, &str, &str) {
    match place {
        FilePlace::Registered { root, path } => ("registered", root, path),
        FilePlace::Managed { content } => ("managed", "", content),
    }
}

/// A number that SQL can hold.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] above 2^63 - 1.
pub(crate) fn storable(what: &str, number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::invalid(format!("{what}: {number} is above 2^63 - 1")))
}

fn as_json(what: &str, value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::invalid(format!("{what} are not JSON")).with_source(error))
}

fn error_of(name: &str, error: Error) -> Error {
    Error { message: format!("{name}: {}", error.message), ..error }
}

fn full_name(object: &NewObject) -> String {
    format!("{}/{}/{}", object.animal, object.experiment, text::cut(&object.name, 256))
}

/// Stored bytes of an array, 0 where not known; checks the order and the content of its runs.
async fn stored_bytes(array: &NewArray) -> Result<u64> {
    let mut turns = Turns::default();
    let (mut pointers, mut sum, mut last) = (Vec::new(), 0u64, None);
    for run in &array.runs {
        turns.next().await;
        if last.is_some_and(|last| run.first_number <= last) {
            return Err(Error::invalid(format!("chunk runs overlap at chunk {}", run.first_number)));
        }
        last = Some(run.last_number);
        pointers.clear();
        run.unpack_into(&mut pointers).map_err(|error| Error::invalid(error.to_string()).with_source(error))?;
        sum = pointers.iter().fold(sum, |sum, pointer| sum.saturating_add(u64::from(pointer.bytes)));
    }
    let contiguous = || array.meta.element.fixed_bytes()?.checked_mul(product(array.meta.shape())?);
    Ok(match &array.meta.storage {
        Storage::Chunked { .. } => sum,
        Storage::Contiguous { offset: Some(_) } => contiguous().unwrap_or(0),
        Storage::Contiguous { offset: None } | Storage::Compact | Storage::Virtual { .. } | Storage::External => 0,
    })
}

/// Bytes of the details of an experiment, as JSON.
const DETAILS_BYTES_MAX: usize = 32 << 10;

/// Facts cut to what is stored; empty texts say nothing.
fn bounded_facts(facts: &ExperimentFacts) -> ExperimentFacts {
    let bounded = |fact: &Option<String>| {
        fact.as_deref().map(|fact| text::words(fact, FACT_BYTES_MAX).into_owned()).filter(|fact| !fact.is_empty())
    };
    ExperimentFacts {
        identifier: bounded(&facts.identifier),
        session_id: bounded(&facts.session_id),
        start_time: bounded(&facts.start_time),
        nwb_version: bounded(&facts.nwb_version),
        species: bounded(&facts.species),
        details: bounded_details(&facts.details),
    }
}

/// Details cut to what is stored: by name, as many as there is room for.
fn bounded_details(details: &Map<String, Value>) -> Map<String, Value> {
    let mut bytes = 0;
    let mut bounded = Map::new();
    for (name, value) in details {
        let value = match value {
            Value::String(text) => text::words(text, FACT_BYTES_MAX).into(),
            Value::Array(texts) => {
                texts.iter().filter_map(Value::as_str).map(|text| text::words(text, FACT_BYTES_MAX)).collect()
            }
            Value::Number(_) => value.clone(),
            Value::Null | Value::Bool(_) | Value::Object(_) => continue,
        };
        bytes += name.len() + value.to_string().len();
        if bytes <= DETAILS_BYTES_MAX && value.as_str().is_none_or(|text| !text.is_empty()) {
            bounded.insert(text::words(name, FACT_BYTES_MAX).into_owned(), value);
        }
    }
    bounded
}

/// `known`, with what `new` says in its place: who corrects a file and registers it again has corrected the facts. `None`
/// where nothing changes.
pub(crate) fn renewed(known: &ExperimentFacts, new: &ExperimentFacts) -> Option<ExperimentFacts> {
    let either = |known: &Option<String>, new: &Option<String>| new.clone().or_else(|| known.clone());
    let mut details = known.details.clone();
    details.extend(new.details.clone());
    let renewed = ExperimentFacts {
        identifier: either(&known.identifier, &new.identifier),
        session_id: either(&known.session_id, &new.session_id),
        start_time: either(&known.start_time, &new.start_time),
        nwb_version: either(&known.nwb_version, &new.nwb_version),
        species: either(&known.species, &new.species),
        details,
    };
    (renewed != *known).then_some(renewed)
}

/// The facts by which an experiment is found.
pub(crate) fn facts_search_text(facts: &ExperimentFacts) -> String {
    let all = [&facts.identifier, &facts.session_id, &facts.start_time, &facts.nwb_version, &facts.species];
    let mut joined = all.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\n");
    add_texts(&mut joined, &facts.details);
    text::words(&joined.to_lowercase(), text::SEARCH_BYTES_MAX).into_owned()
}

fn object_search_text(object: &NewObject) -> String {
    let mut found_by = [object.animal.as_str(), &object.experiment, &object.name].join("\n");
    add_texts(&mut found_by, &object.attributes);
    text::words(&found_by.to_lowercase(), text::SEARCH_BYTES_MAX).into_owned()
}

/// Appends all texts among attribute values, those inside lists and objects too, until there is enough.
fn add_texts(found_by: &mut String, attributes: &Map<String, Value>) {
    let mut values: Vec<&Value> = attributes.values().rev().collect();
    while let Some(value) = values.pop() {
        if found_by.len() > text::SEARCH_BYTES_MAX {
            return;
        }
        match value {
            Value::String(text) => {
                found_by.push('\n');
                found_by.push_str(text);
            }
            Value::Array(items) => values.extend(items.iter().rev()),
            Value::Object(members) => values.extend(members.values().rev()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Ids of the experiments of a publication.
pub(crate) struct ExperimentIds(HashMap<(String, String), i64>);

impl ExperimentIds {
    pub(crate) fn new(ids: impl IntoIterator<Item = ((String, String), i64)>) -> Self {
        Self(ids.into_iter().collect())
    }

    pub(crate) fn id(&self, animal: &str, experiment: &str) -> Result<i64> {
        let key = (animal.to_owned(), experiment.to_owned());
        self.0.get(&key).copied().ok_or_else(|| {
            Error::new(crate::ErrorKind::Database, format!("experiment {animal}/{experiment} was not written"))
        })
    }
}

/// Ids of the objects and arrays of a publication, as the database gave them.
#[derive(Default)]
pub(crate) struct ContentIds {
    object_by_position: HashMap<i64, i64>,
    array_by_object: HashMap<i64, i64>,
}

impl ContentIds {
    /// Adds (position, id) of objects.
    pub(crate) fn add_objects(&mut self, ids: Vec<(i64, i64)>) {
        self.object_by_position.extend(ids);
    }

    /// Adds (id of the object, id) of arrays.
    pub(crate) fn add_arrays(&mut self, ids: Vec<(i64, i64)>) {
        self.array_by_object.extend(ids);
    }

    fn object(&self, position: i64) -> Result<i64> {
        let unknown = || Error::new(crate::ErrorKind::Database, format!("object {position} was not written"));
        self.object_by_position.get(&position).copied().ok_or_else(unknown)
    }

    fn array(&self, position: i64) -> Result<i64> {
        let unknown =
            || Error::new(crate::ErrorKind::Database, format!("the array of object {position} was not written"));
        self.array_by_object.get(&self.object(position)?).copied().ok_or_else(unknown)
    }
}

/// Gives way to other tasks now and then.
#[derive(Default)]
struct Turns(usize);

impl Turns {
    async fn next(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(STEPS_BEFORE_YIELD) {
            tokio::task::yield_now().await;
        }
    }
}

/// How many bytes a row adds to a statement, about.
pub(crate) trait Weighed {
    /// Bytes.
    fn weight_bytes(&self) -> usize;
}

/// Rows collected for one statement.
pub(crate) struct Slice<R> {
    rows: Vec<R>,
    bytes: usize,
}

impl<R: Weighed> Slice<R> {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), bytes: 0 }
    }

    /// Adds a row; true when it is time to send them.
    #[must_use]
    pub(crate) fn push(&mut self, row: R) -> bool {
        self.bytes = self.bytes.saturating_add(row.weight_bytes());
        self.rows.push(row);
        self.rows.len() >= SLICE_ROWS_MAX || self.bytes >= SLICE_BYTES_MAX
    }

    /// Takes the rows out.
    pub(crate) fn take(&mut self) -> Vec<R> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }

    /// The next rows of an iterator; empty at its end.
    pub(crate) fn next_of(rows: &mut impl Iterator<Item = Result<R>>) -> Result<Vec<R>> {
        let mut slice = Self::new();
        for row in rows {
            if slice.push(row?) {
                break;
            }
        }
        Ok(slice.take())
    }
}

/// A row of `objects`.
pub(crate) struct ObjectRow<'p> {
    pub(crate) position: i64,
    pub(crate) experiment_id: i64,
    pub(crate) name: &'p str,
    pub(crate) parent: Option<&'p str>,
    pub(crate) hdf5_path: &'p str,
    pub(crate) kind: &'static str,
    pub(crate) attributes: String,
    pub(crate) attribute_types: String,
    pub(crate) dimensions: String,
    pub(crate) search_text: String,
}

impl Weighed for ObjectRow<'_> {
    fn weight_bytes(&self) -> usize {
        let json = self.attributes.len() + self.attribute_types.len() + self.dimensions.len();
        self.name.len() * 2 + self.hdf5_path.len() + json + self.search_text.len()
    }
}

/// A row of `arrays`.
pub(crate) struct ArrayRow<'p> {
    pub(crate) object_id: i64,
    pub(crate) identity: [u8; 16],
    pub(crate) hdf5_path: &'p str,
    pub(crate) meta: String,
    pub(crate) rows: i64,
    pub(crate) chunks: i64,
    pub(crate) stored_bytes: i64,
    pub(crate) inline: Option<&'p [u8]>,
    pub(crate) problem_reason: Option<String>,
    pub(crate) problem_message: Option<String>,
}

impl Weighed for ArrayRow<'_> {
    fn weight_bytes(&self) -> usize {
        self.hdf5_path.len() + self.meta.len() + self.inline.map_or(0, <[u8]>::len)
    }
}

/// A row of `chunk_runs`.
pub(crate) struct RunRow<'p> {
    pub(crate) array_id: i64,
    pub(crate) run: i64,
    pub(crate) first_number: i64,
    pub(crate) last_number: i64,
    pub(crate) pointers: i64,
    pub(crate) packed: &'p [u8],
    pub(crate) checksums: Option<Vec<u8>>,
}

impl Weighed for RunRow<'_> {
    fn weight_bytes(&self) -> usize {
        self.packed.len() + self.checksums.as_ref().map_or(0, Vec::len)
    }
}

/// A row of `links`.
pub(crate) struct LinkRow<'p> {
    pub(crate) experiment_id: i64,
    pub(crate) path: &'p str,
    pub(crate) parent: &'p str,
    pub(crate) kind: &'static str,
    pub(crate) target: String,
}

impl Weighed for LinkRow<'_> {
    fn weight_bytes(&self) -> usize {
        self.path.len() * 2 + self.target.len()
    }
}

/// A line of the access log as it is stored: words cut, numbers saturated; a log is never refused.
pub(crate) struct LogRow {
    pub(crate) at: chrono::DateTime<chrono::Utc>,
    pub(crate) principal: String,
    pub(crate) call: String,
    pub(crate) path: String,
    pub(crate) selection: String,
    pub(crate) outcome: String,
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    pub(crate) tier: String,
    pub(crate) millis: f64,
}

impl LogRow {
    pub(crate) fn new(entry: &AccessEntry) -> Self {
        let short = |words: &str| text::words(words, NAME_BYTES_MAX).into_owned();
        let long = |words: &str| text::words(words, LONG_PATH_BYTES_MAX).into_owned();
        Self {
            at: chrono::SubsecRound::trunc_subsecs(entry.at, 6),
            principal: short(&entry.principal),
            call: short(&entry.call),
            path: long(&entry.path),
            selection: long(&entry.selection),
            outcome: short(&entry.outcome),
            rows: i64::try_from(entry.rows).unwrap_or(i64::MAX),
            bytes: i64::try_from(entry.bytes).unwrap_or(i64::MAX),
            tier: short(&entry.tier),
            millis: entry.millis,
        }
    }
}

impl Weighed for LogRow {
    fn weight_bytes(&self) -> usize {
        self.path.len() + self.selection.len() + 256
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_inside_lists_and_objects_are_found_in_order() {
        let Value::Object(attributes) = json!({"a": "One", "b": [1, ["Two"], {"c": "Three"}], "d": 4}) else {
            unreachable!()
        };
        let mut texts = String::new();
        add_texts(&mut texts, &attributes);
        assert_eq!(texts, "\nOne\nTwo\nThree");
    }

    #[test]
    fn later_facts_take_the_place_of_what_they_name_and_change_nothing_else() {
        let details = |value: Value| value.as_object().cloned().unwrap_or_default();
        let known = ExperimentFacts {
            identifier: Some("a".into()),
            session_id: Some("day1".into()),
            details: details(json!({"sex": "M", "lab": "x"})),
            ..ExperimentFacts::default()
        };
        let new = ExperimentFacts {
            identifier: Some("b".into()),
            details: details(json!({"sex": "F", "keywords": ["y"]})),
            ..ExperimentFacts::default()
        };
        let merged = renewed(&known, &new).unwrap();
        assert_eq!((merged.identifier.as_deref(), merged.session_id.as_deref()), (Some("b"), Some("day1")));
        assert_eq!(merged.details, details(json!({"sex": "F", "lab": "x", "keywords": ["y"]})));
        assert_eq!(renewed(&merged, &new), None);
    }

    #[test]
    fn details_are_cut_and_what_has_no_room_is_left_out() {
        let long = "é".repeat(FACT_BYTES_MAX);
        let mut details: Map<String, Value> = (0..100).map(|at| (format!("d{at:03}"), json!(long))).collect();
        details.insert("a".into(), json!({"not": "stored"}));
        details.insert("b".into(), json!(["one", 2, "\0"]));
        let stored = bounded_details(&details);
        assert_eq!(stored.get("b"), Some(&json!(["one", "\u{FFFD}"])));
        assert_eq!(stored.get("d000").and_then(Value::as_str).map(str::len), Some(FACT_BYTES_MAX));
        assert!(stored.len() < 40 && !stored.contains_key("a"), "{}", stored.len());
    }
}
