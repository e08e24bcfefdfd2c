//! What goes in and out of the catalogue. Plain data; no SQL type shows.

use chrono::{DateTime, Utc};
use h5flight_array::Reason;
use h5flight_array::index::{ChunkIndex, ChunkRun};
use h5flight_array::inspect::{Link, LinkKind, ObjectKind};
use h5flight_array::meta::{ArrayMeta, Storage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;

mod append;
mod history;

pub use append::*;
pub use history::*;

/// How a catalogue is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Connections to the database at most.
    pub connections_max: u32,
    /// How long a call waits for a connection before it is [`crate::ErrorKind::Unavailable`].
    pub acquire_timeout_ms: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { connections_max: 8, acquire_timeout_ms: 3_000 }
    }
}

/// animal / experiment / dataset. The dataset's name has no leading slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatasetPath {
    /// Animal.
    pub animal: String,
    /// Experiment.
    pub experiment: String,
    /// HDF5 path inside the experiment, without a leading slash.
    pub dataset: String,
}

impl std::fmt::Display for DatasetPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.animal, self.experiment, self.dataset)
    }
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FilePlace {
    /// In place, below a configured root.
    Registered {
        /// Name of the root.
        root: String,
        /// Path relative to it.
        path: String,
    },
    /// Uploaded: below the data directory, named by its content.
    Managed {
        /// blake3 of the bytes, lowercase hex.
        content: String,
    },
}

/// What tells that a file is still the one that was indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of last modification, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// A file as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Key.
    pub id: i64,
    /// Where.
    pub place: FilePlace,
    /// State when it was indexed.
    pub fingerprint: Fingerprint,
    /// Name under which it came (the upload's file name, or the last part of the path); for people.
    pub source_name: String,
    /// Why it is not read any more: stable reason and message.
    pub quarantined: Option<(String, String)>,
    /// When it was published.
    pub created_at: DateTime<Utc>,
    /// Datasets in it.
    pub datasets: u64,
}

/// A file as a dump of the catalogue names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DumpedFile {
    /// Where.
    pub place: FilePlace,
    /// State when it was indexed.
    pub fingerprint: Fingerprint,
    /// Counts the states of a place from 1; the newest is the one that is served.
    pub generation: u64,
}

/// One array of a resolved version, ready to be planned.
#[derive(Clone, Debug)]
pub struct ArrayRecord {
    /// Key.
    pub id: i64,
    /// Identity of the bytes: blake3 over fingerprint, place and HDF5 path, first 16 bytes. Part of every cache key.
    pub identity: [u8; 16],
    /// Canonical HDF5 path within the file.
    pub hdf5_path: String,
    /// Facts, already passed through [`ArrayMeta::check`].
    pub meta: ArrayMeta,
    /// Chunk pointers.
    pub index: ChunkIndex,
    /// The whole array as one decoded block, where it is small.
    pub inline: Option<bytes::Bytes>,
    /// Why the dataset cannot be read: stable reason and message.
    pub problem: Option<(String, String)>,
    /// Its file.
    pub file: Arc<FileRecord>,
    /// Of a virtual array: the source of each mapping. They are part of the version: found once, when it is resolved.
    pub sources: Vec<SourceRecord>,
}

/// The source of a mapping of a virtual array.
#[derive(Clone, Debug)]
pub enum SourceRecord {
    /// An array of the same experiment.
    Served(Arc<ArrayRecord>),
    /// Nothing that may be read through this array, and why.
    Refused(Reason, Arc<str>),
}

impl ArrayRecord {
    /// Whether it has sources in other files, served or not.
    pub fn names_other_files(&self) -> bool {
        let Storage::Virtual { mappings } = &self.meta.storage else { return false };
        mappings.iter().any(|mapping| mapping.file.is_some())
    }
}

impl ResolvedVersion {
    /// All arrays that it is made of, each once: those of its extents, their sources, and so on.
    pub fn arrays(&self) -> Vec<&Arc<ArrayRecord>> {
        let mut left: Vec<&Arc<ArrayRecord>> = self.extents.iter().map(|extent| &extent.array).collect();
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        while let Some(array) = left.pop() {
            if seen.insert(array.id) {
                all.push(array);
                left.extend(array.sources.iter().filter_map(|source| match source {
                    SourceRecord::Served(source) => Some(source),
                    SourceRecord::Refused(..) => None,
                }));
            }
        }
        all
    }
}

/// A range of rows of one array, as part of a version.
#[derive(Clone, Debug)]
pub struct Extent {
    /// First row within the version.
    pub first_row: u64,
    /// First row within the array.
    pub array_row: u64,
    /// Rows; 1 for a scalar, 0 for a null dataspace.
    pub rows: u64,
    /// The array.
    pub array: Arc<ArrayRecord>,
}

/// All that a read needs to know; immutable, so it may be kept for as long as one likes.
#[derive(Clone, Debug)]
pub struct ResolvedVersion {
    /// Key of the version.
    pub version_id: i64,
    /// Number of the version, from 1.
    pub version: u64,
    /// Key of the dataset.
    pub dataset_id: i64,
    /// The name, after aliases and links.
    pub path: DatasetPath,
    /// When it was published.
    pub created_at: DateTime<Utc>,
    /// The dataset's own attributes.
    pub attributes: Map<String, Value>,
    /// What its axes mean; empty where the file does not say.
    pub dimensions: Vec<Dimension>,
    /// Ordered by first row; at least one.
    pub extents: Vec<Extent>,
}

/// One dataset or group of a publication.
#[derive(Clone, Debug)]
pub struct NewObject {
    /// Animal it belongs to.
    pub animal: String,
    /// Experiment it belongs to.
    pub experiment: String,
    /// Name within the experiment; empty for the experiment's root group.
    pub name: String,
    /// Canonical path within the file.
    pub hdf5_path: String,
    /// Group, dataset or named type.
    pub kind: ObjectKind,
    /// Attributes.
    pub attributes: Map<String, Value>,
    /// What their JSON does not tell, see [`h5flight_array::inspect::Object::attribute_types`].
    pub attribute_types: Map<String, Value>,
    /// What the axes of a dataset mean: one entry an axis, or none at all.
    pub dimensions: Vec<Dimension>,
    /// The array, for datasets.
    pub array: Option<NewArray>,
}

/// What one axis of a dataset means, as HDF5 dimension scales and netCDF-4 say it. Names are within the experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dimension {
    /// Its label; may be empty.
    pub label: String,
    /// Datasets attached to it as scales, in the file's order.
    pub scales: Vec<String>,
    /// The dataset whose values are the coordinates along the axis.
    pub coordinate: Option<String>,
}

/// The array of a dataset in a publication.
#[derive(Clone, Debug)]
pub struct NewArray {
    /// Facts.
    pub meta: ArrayMeta,
    /// Packed chunk pointers.
    pub runs: Vec<ChunkRun>,
    /// [`h5flight_array::checksum`] of the stored bytes of each of them, in order; empty where they are not known.
    pub checksums: Vec<u64>,
    /// The whole array decoded, where it is small.
    pub inline: Option<bytes::Bytes>,
    /// Why it cannot be read.
    pub problem: Option<(String, String)>,
}

/// A link of a publication: `link.path` and, for hard and soft links, `link.target` are paths within the experiment.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// Animal.
    pub animal: String,
    /// Experiment.
    pub experiment: String,
    /// Paths relative to the experiment, no leading slash.
    pub link: Link,
}

/// What an experiment says of itself, by the newest publication that says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExperimentFacts {
    /// NWB identifier.
    pub identifier: Option<String>,
    /// NWB session id.
    pub session_id: Option<String>,
    /// Session start, as written.
    pub start_time: Option<String>,
    /// Version of NWB.
    pub nwb_version: Option<String>,
    /// Species of the animal.
    pub species: Option<String>,
    /// What else it says of session, subject and devices: texts, lists of texts, numbers of rows.
    pub details: Map<String, Value>,
}

/// One inspected file, ready to be made visible.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where it is.
    pub place: FilePlace,
    /// Its state.
    pub fingerprint: Fingerprint,
    /// Name for people.
    pub source_name: String,
    /// Datasets, groups, named types.
    pub objects: Vec<NewObject>,
    /// Other names.
    pub links: Vec<NewLink>,
    /// Facts that apply to every experiment named in `objects`.
    pub facts: ExperimentFacts,
    /// Idempotency key of the upload.
    pub ingest_key: Option<String>,
    /// Whether datasets served from another file are replaced.
    pub replace: bool,
    /// Who publishes; empty for anonymous.
    pub principal: String,
    /// What it was based on; empty when it does not matter.
    pub expected: Vec<ExpectedVersion>,
    /// By which a retry is known; only of a publication with exactly one dataset.
    pub writer: Option<WriterSequence>,
}

/// What a publication made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The file.
    pub file_id: i64,
    /// Its content address, where it is a managed one.
    pub content: Option<String>,
    /// Animal and experiment names that it touches, sorted.
    pub experiments: Vec<(String, String)>,
    /// Datasets that got a version.
    pub datasets: u64,
    /// Chunk pointers stored.
    pub chunks: u64,
    /// Identities of arrays that are no longer any current version's: their cached bytes may be dropped.
    pub superseded: Vec<[u8; 16]>,
    /// True when an earlier publication with the same key or the same fingerprint already did it.
    pub already: bool,
    /// Of a publication with a writer: the version that it made, or found made.
    pub put: Option<Appended>,
}

/// Which part of a long list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries at most; 0 is the default of 100, more than 1,000 is cut to it.
    pub size: u32,
    /// The `next` of the page before; empty for the first.
    pub token: String,
}

/// A part of a long list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Token of the next page; empty when this is the last.
    pub next: String,
}

/// An animal in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnimalSummary {
    /// Name.
    pub animal: String,
    /// Species, or empty.
    pub species: String,
    /// Experiments.
    pub experiments: u64,
}

/// An experiment in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentSummary {
    /// Animal.
    pub animal: String,
    /// Name.
    pub experiment: String,
    /// Facts.
    pub facts: ExperimentFacts,
    /// Datasets.
    pub datasets: u64,
}

/// A dataset in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetSummary {
    /// Name.
    pub path: DatasetPath,
    /// Number of its current version.
    pub version: u64,
    /// Rows over all extents, then the other axes; for extents > 1 axis 0 is their sum.
    pub meta: ArrayMeta,
    /// Stored chunks.
    pub chunks: u64,
    /// Stored bytes of the chunks or of the contiguous data, 0 where not known.
    pub stored_bytes: u64,
    /// Why it cannot be read: stable reason and message.
    pub problem: Option<(String, String)>,
}

/// One object in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Name, after links.
    pub path: DatasetPath,
    /// Group, dataset, named type.
    pub kind: ObjectKind,
    /// Attributes.
    pub attributes: Map<String, Value>,
    /// What their JSON does not tell, see [`h5flight_array::inspect::Object::attribute_types`].
    pub attribute_types: Map<String, Value>,
    /// For datasets.
    pub dataset: Option<DatasetSummary>,
    /// What the axes of a dataset mean; empty where the file does not say.
    pub dimensions: Vec<Dimension>,
    /// Names directly below a group, with their kinds, sorted; links included.
    pub children: Vec<(String, ChildKind)>,
    /// Other names of this object.
    pub aliases: Vec<String>,
}

/// What a name in a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// An object, or a link to one.
    Object(ObjectKind),
    /// A link that leads to no object of the experiment: a soft one that dangles, or one out of the file.
    Link(LinkKind),
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Animals.
    pub animals: u64,
    /// Experiments.
    pub experiments: u64,
    /// Datasets.
    pub datasets: u64,
    /// Files.
    pub files: u64,
}

/// What a principal may do; each role includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// List and read.
    Read,
    /// Upload and register, tag versions and roll back.
    Ingest,
    /// Everything.
    Admin,
}

impl Role {
    /// "read", "ingest", "admin".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Read, Self::Ingest, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Key; 0 for anonymous.
    pub id: i64,
    /// Name; "anonymous" for anonymous.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Prefix of the token used; empty for anonymous.
    pub token_prefix: String,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Principal.
    pub principal: String,
    /// Role.
    pub role: Role,
    /// End of validity; `None` is for ever.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token that was made. The text is `h5f_` + 8 characters of prefix + `_` + 43 characters of secret (256 bits).
#[derive(Clone, Debug)]
pub struct CreatedToken {
    /// The secret text, shown once.
    pub token: String,
    /// Its public prefix.
    pub prefix: String,
}

/// A token in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSummary {
    /// Public prefix.
    pub prefix: String,
    /// Principal.
    pub principal: String,
    /// Role.
    pub role: Role,
    /// When made.
    pub created_at: DateTime<Utc>,
    /// End of validity.
    pub expires_at: Option<DateTime<Utc>>,
    /// When revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// One line of the access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessEntry {
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Who.
    pub principal: String,
    /// Which call: "GetData", "DoGet", ...
    pub call: String,
    /// What, as far as known.
    pub path: String,
    /// Which part, in the text form.
    pub selection: String,
    /// "ok" or the stable reason.
    pub outcome: String,
    /// Rows sent.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Where the blocks came from: "memory", "redis", "file", "worker", "inline" or several joined by "+".
    pub tier: String,
    /// Duration.
    pub millis: f64,
}
