//! What is different between two versions of a dataset, told from the catalogue alone. Pure.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, SecondsFormat};
use h5flight_array::meta::{Space, Storage};
use h5flight_catalog::model::{ArrayRecord, Extent, FilePlace, FileRecord, ResolvedVersion};
use h5flight_proto::v1;
use serde_json::{Map, Value, json};

use crate::convert;

/// All that differs between two versions of one dataset.
pub fn between(from: &ResolvedVersion, to: &ResolvedVersion) -> v1::DiffVersionsResponse {
    v1::DiffVersionsResponse {
        from: from.version,
        to: to.version,
        changes: changes(&facts(from), &facts(to)),
        attributes: changes(&from.attributes, &to.attributes),
        shared: shared(&from.extents, &to.extents),
        from_rows: rows(from),
        to_rows: rows(to),
    }
}

fn rows(version: &ResolvedVersion) -> u64 {
    version.extents.iter().map(|extent| extent.rows).sum()
}

/// What can be told of a version in a few words; of its form, that of its first array.
fn facts(version: &ResolvedVersion) -> Map<String, Value> {
    let mut facts = Map::new();
    let mut fact = |name: &str, value: Value| facts.insert(name.to_owned(), value);
    if let Some(Extent { array, .. }) = version.extents.first() {
        let meta = &array.meta;
        let mut shape = meta.shape().to_vec();
        if let Some(first) = shape.first_mut() {
            *first = rows(version);
        }
        fact("shape", if meta.space == Space::Null { Value::Null } else { json!(shape) });
        fact("dtype", json!(convert::dtype(meta)));
        fact("filters", json!(meta.filters.iter().map(convert::filter_name).collect::<Vec<_>>()));
        let (storage, chunks) = match &meta.storage {
            Storage::Compact => ("compact", Value::Null),
            Storage::Contiguous { .. } => ("contiguous", Value::Null),
            Storage::Chunked { chunk_shape } => ("chunked", json!(chunk_shape)),
            Storage::Virtual { .. } => ("virtual", Value::Null),
            Storage::External => ("external", Value::Null),
        };
        fact("storage", json!(storage));
        fact("chunks", chunks);
    }
    fact("source", sources(version));
    fact("dims", json!(version.dimensions));
    facts
}

/// The files of a version, each once: names alone would not tell that one has changed.
fn sources(version: &ResolvedVersion) -> Value {
    let mut seen = BTreeSet::new();
    let files = version.extents.iter().map(|extent| &extent.array.file).filter(|file| seen.insert(file.id));
    Value::Array(files.map(|file| source(file)).collect())
}

fn source(file: &FileRecord) -> Value {
    match &file.place {
        FilePlace::Managed { content } => json!({ "name": file.source_name, "content": content }),
        FilePlace::Registered { .. } => {
            let modified = DateTime::from_timestamp_nanos(file.fingerprint.modified_ns);
            let modified = modified.to_rfc3339_opts(SecondsFormat::Nanos, true);
            json!({ "name": file.source_name, "bytes": file.fingerprint.bytes, "modified_at": modified })
        }
    }
}

/// Members of two objects that are not the same, by name.
fn changes(from: &Map<String, Value>, to: &Map<String, Value>) -> Vec<v1::Change> {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let text = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default();
    let differing = names.into_iter().filter(|name| from.get(*name) != to.get(*name));
    let change =
        |name: &String| v1::Change { name: name.clone(), from_json: text(from.get(name)), to_json: text(to.get(name)) };
    differing.map(change).collect()
}

/// What tells that two arrays are the same stored bytes.
#[derive(PartialEq, Eq, Hash)]
enum Bytes<'a> {
    /// A path in a file that is named by its content.
    Content(&'a str, &'a str),
    /// The identity of an array of a registered file.
    Identity([u8; 16]),
}

impl<'a> Bytes<'a> {
    /// `None` where an array is put together from other files: the same array may have other values tomorrow.
    fn of(array: &'a ArrayRecord) -> Option<Self> {
        if array.names_other_files() {
            return None;
        }
        Some(match &array.file.place {
            FilePlace::Managed { content } => Self::Content(content, &array.hdf5_path),
            FilePlace::Registered { .. } => Self::Identity(array.identity),
        })
    }
}

/// Ranges of rows that are the same rows of the same arrays; ranges that go on in both are one.
fn shared(from: &[Extent], to: &[Extent]) -> Vec<v1::SharedRows> {
    let mut there: HashMap<Bytes<'_>, Vec<&Extent>> = HashMap::new();
    for extent in to {
        if let Some(bytes) = Bytes::of(&extent.array) {
            there.entry(bytes).or_default().push(extent);
        }
    }
    let mut ranges = Vec::new();
    for one in from {
        let others = Bytes::of(&one.array).and_then(|bytes| there.get(&bytes));
        ranges.extend(others.into_iter().flatten().filter_map(|other| overlap(one, other)));
    }
    ranges.sort_unstable_by_key(|range| (range.from_row, range.to_row));
    let mut joined: Vec<v1::SharedRows> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if (last.from_row + last.rows, last.to_row + last.rows) == (range.from_row, range.to_row) => {
                last.rows += range.rows;
            }
            Some(_) | None => joined.push(range),
        }
    }
    joined
}

/// The rows of an array that are in both extents of it.
fn overlap(one: &Extent, other: &Extent) -> Option<v1::SharedRows> {
    let start = one.array_row.max(other.array_row);
    let end = (one.array_row + one.rows).min(other.array_row + other.rows);
    (start < end).then(|| v1::SharedRows {
        from_row: one.first_row + (start - one.array_row),
        to_row: other.first_row + (start - other.array_row),
        rows: end - start,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use h5flight_array::index::ChunkIndex;
    use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, VirtualMapping};
    use h5flight_catalog::model::{DatasetPath, Fingerprint};

    use super::*;

    fn file(content: &str) -> Arc<FileRecord> {
        Arc::new(FileRecord {
            id: i64::from(content.as_bytes()[0]),
            place: FilePlace::Managed { content: content.into() },
            fingerprint: Fingerprint { device: 1, inode: 2, bytes: 3, modified_ns: 4 },
            source_name: "up.h5".into(),
            quarantined: None,
            created_at: DateTime::UNIX_EPOCH,
            datasets: 1,
        })
    }

    fn array(content: &str, rows: u64, storage: Storage) -> Arc<ArrayRecord> {
        Arc::new(ArrayRecord {
            id: 1,
            identity: [0; 16],
            hdf5_path: "/d".into(),
            meta: ArrayMeta {
                space: Space::Simple { shape: vec![rows, 4] },
                max_shape: vec![None, Some(4)],
                element: ElementType::Integer { bytes: 2, signed: false, order: ByteOrder::Little },
                converted: false,
                type_note: String::new(),
                storage,
                filters: Vec::new(),
                fill: None,
            },
            index: ChunkIndex::from_pointers(Vec::new()).unwrap(),
            inline: None,
            problem: None,
            file: file(content),
            sources: Vec::new(),
        })
    }

    /// Extents of (content, first row of the array, rows).
    fn version(number: u64, extents: &[(&str, u64, u64)]) -> ResolvedVersion {
        let mut first_row = 0;
        let mut all = Vec::new();
        for (content, array_row, rows) in extents {
            let array = array(content, 1_000, Storage::Contiguous { offset: None });
            all.push(Extent { first_row, array_row: *array_row, rows: *rows, array });
            first_row += rows;
        }
        ResolvedVersion {
            version_id: 1,
            version: number,
            dataset_id: 1,
            path: DatasetPath { animal: "a".into(), experiment: "e".into(), dataset: "d".into() },
            created_at: DateTime::UNIX_EPOCH,
            attributes: Map::from_iter([("same".to_owned(), json!(1)), ("n".to_owned(), json!(number))]),
            dimensions: Vec::new(),
            extents: all,
        }
    }

    fn ranges(from: &ResolvedVersion, to: &ResolvedVersion) -> Vec<(u64, u64, u64)> {
        between(from, to).shared.iter().map(|range| (range.from_row, range.to_row, range.rows)).collect()
    }

    #[test]
    fn rows_of_the_same_arrays_are_shared_and_joined_where_they_go_on() {
        let one = version(1, &[("a", 0, 100), ("b", 0, 50)]);
        assert_eq!(ranges(&one, &version(2, &[("a", 0, 100), ("b", 0, 50), ("c", 0, 9)])), [(0, 0, 150)]);
        assert_eq!(ranges(&one, &version(2, &[("b", 10, 20), ("a", 90, 30)])), [(90, 20, 10), (110, 0, 20)]);
        assert_eq!(ranges(&one, &version(2, &[("c", 0, 150)])), []);
        assert_eq!(ranges(&one, &version(2, &[("a", 0, 40), ("a", 40, 60)])), [(0, 0, 100)]);
        assert_eq!(ranges(&version(1, &[("a", 0, 0)]), &version(2, &[("a", 0, 0)])), []);
    }

    #[test]
    fn an_array_of_other_files_is_never_known_to_be_equal() {
        let mut one = version(1, &[("a", 0, 10)]);
        let (file, path) = (Some("other.h5".into()), "/d".into());
        let mapping = VirtualMapping { file, path, slab: Vec::new(), source_slab: None };
        one.extents[0].array = array("a", 10, Storage::Virtual { mappings: vec![mapping] });
        assert_eq!(ranges(&one, &one), []);
    }

    #[test]
    fn facts_and_attributes_are_told_where_they_differ() {
        let (one, other) = (version(1, &[("a", 0, 10)]), version(2, &[("b", 0, 20)]));
        let found = between(&one, &other);
        let told = |changes: &[v1::Change]| -> Vec<(String, String, String)> {
            changes.iter().map(|c| (c.name.clone(), c.from_json.clone(), c.to_json.clone())).collect()
        };
        let change = |name: &str, from: &str, to: &str| (name.to_owned(), from.to_owned(), to.to_owned());
        assert_eq!(told(&found.attributes), [change("n", "1", "2")]);
        let source = |content: &str| format!(r#"[{{"content":"{content}","name":"up.h5"}}]"#);
        let expected = [change("shape", "[10,4]", "[20,4]"), change("source", &source("a"), &source("b"))];
        assert_eq!(told(&found.changes), expected);
        assert_eq!((found.from, found.to, found.from_rows, found.to_rows), (1, 2, 10, 20));
        assert!(between(&one, &one).changes.is_empty());
    }
}
