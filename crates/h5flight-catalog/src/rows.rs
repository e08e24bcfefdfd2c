//! Rows as they come out of either database, and their conversion into the model. Every number, JSON text and packed
//! run is checked here: what is not what was written is [`ErrorKind::Damaged`], never a panic or a wrong slice.
//!
//! The `*_columns!` macros are the lists of columns that go with the structs of the same name.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use h5flight_array::checksum;
use h5flight_array::index::{ChunkIndex, ChunkRun};
use h5flight_array::inspect::{LinkKind, ObjectKind};
use h5flight_array::meta::{ArrayMeta, Space};
use serde_json::{Map, Value};
use sqlx::FromRow;

use crate::error::{Error, ErrorKind, Result};
use crate::model::*;

/// Runs that are unpacked where the call runs; more go to a thread that may block. 64 runs are 262,144 pointers: about
/// 5 ms.
const RUNS_UNPACKED_INLINE_MAX: usize = 64;

/// The error for a row that is not as it was written.
pub(crate) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Damaged, format!("the catalogue is damaged: {what}"))
}

/// A number that is never negative.
pub(crate) fn unsigned(what: &str, number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| damaged(format_args!("{what} is {number}")))
}

/// The time now, to the microsecond, which is what PostgreSQL keeps.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// A time that both databases hold and compare: to the microsecond, within the years of four digits.
pub(crate) fn storable_time(at: DateTime<Utc>) -> DateTime<Utc> {
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let bounded = at.timestamp().clamp(*SECONDS.start(), *SECONDS.end());
    let at = if bounded == at.timestamp() { at } else { DateTime::from_timestamp(bounded, 0).unwrap_or(at) };
    at.trunc_subsecs(6)
}

/// Identities of arrays.
pub(crate) fn identities(rows: Vec<Vec<u8>>) -> Result<Vec<[u8; 16]>> {
    rows.into_iter().map(|identity| identity.try_into().map_err(|_| damaged("an identity"))).collect()
}

/// An object of attributes.
pub(crate) fn attributes(json: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(json).map_err(|error| damaged("attributes are not a JSON object").with_source(error))
}

/// What the axes of a dataset mean.
pub(crate) fn dimensions(json: &str) -> Result<Vec<Dimension>> {
    serde_json::from_str(json).map_err(|error| damaged("dimensions are not a JSON list").with_source(error))
}

/// Facts of an array, checked.
pub(crate) fn read_meta(json: &str) -> Result<ArrayMeta> {
    let meta: ArrayMeta =
        serde_json::from_str(json).map_err(|error| damaged("array facts are not understood").with_source(error))?;
    meta.check().map_err(|error| damaged("array facts contradict themselves").with_source(error))?;
    Ok(meta)
}

fn problem(reason: Option<String>, message: Option<String>) -> Option<(String, String)> {
    reason.map(|reason| (reason, message.unwrap_or_default()))
}

/// The word for a kind of object.
pub(crate) const fn object_kind_text(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Group => "group",
        ObjectKind::Dataset => "dataset",
        ObjectKind::NamedType => "named_type",
    }
}

/// The kind of link of a word.
pub(crate) fn link_kind(text: &str) -> Result<LinkKind> {
    [LinkKind::Hard, LinkKind::Soft, LinkKind::External, LinkKind::User]
        .into_iter()
        .find(|kind| link_kind_text(*kind) == text)
        .ok_or_else(|| damaged(format_args!("\"{text}\" is no kind of link")))
}

/// The kind of object of a word.
pub(crate) fn object_kind(text: &str) -> Result<ObjectKind> {
    [ObjectKind::Group, ObjectKind::Dataset, ObjectKind::NamedType]
        .into_iter()
        .find(|kind| object_kind_text(*kind) == text)
        .ok_or_else(|| damaged(format_args!("\"{text}\" is no kind of object")))
}

/// The word for a kind of link.
pub(crate) const fn link_kind_text(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Hard => "hard",
        LinkKind::Soft => "soft",
        LinkKind::External => "external",
        LinkKind::User => "user",
    }
}

macro_rules! file_columns {
    () => {
        "f.id AS file_id, f.kind AS file_kind, f.root AS file_root, f.path AS file_path, f.device, f.inode, \
         f.bytes AS file_bytes, f.modified_ns, f.source_name, f.quarantine_reason, f.quarantine_message, \
         f.created_at AS file_created_at, f.datasets AS file_datasets"
    };
}
pub(crate) use file_columns;

/// A row of `files`.
#[derive(FromRow)]
pub(crate) struct FileRow {
    pub(crate) file_id: i64,
    file_kind: String,
    file_root: String,
    file_path: String,
    device: i64,
    inode: i64,
    file_bytes: i64,
    modified_ns: i64,
    source_name: String,
    quarantine_reason: Option<String>,
    quarantine_message: Option<String>,
    file_created_at: DateTime<Utc>,
    file_datasets: i64,
}

impl FileRow {
    pub(crate) fn record(self) -> Result<FileRecord> {
        let (root, path) = (self.file_root, self.file_path);
        let place = match self.file_kind.as_str() {
            "registered" => FilePlace::Registered { root, path },
            "managed" => FilePlace::Managed { content: path },
            other => return Err(damaged(format_args!("\"{other}\" is no kind of file"))),
        };
        let fingerprint = Fingerprint {
            device: self.device.cast_unsigned(),
            inode: self.inode.cast_unsigned(),
            bytes: unsigned("the size of a file", self.file_bytes)?,
            modified_ns: self.modified_ns,
        };
        Ok(FileRecord {
            id: self.file_id,
            place,
            fingerprint,
            source_name: self.source_name,
            quarantined: problem(self.quarantine_reason, self.quarantine_message),
            created_at: self.file_created_at,
            datasets: unsigned("the number of datasets of a file", self.file_datasets)?,
        })
    }
}

macro_rules! array_columns {
    () => {
        concat!(
            "a.id AS array_id, a.identity, a.hdf5_path, CAST(a.meta AS TEXT) AS meta, a.rows AS array_rows, a.chunks, \
             a.inline_data, a.problem_reason, a.problem_message, ",
            crate::rows::file_columns!()
        )
    };
}
pub(crate) use array_columns;

/// A row of `arrays` with its file.
#[derive(FromRow)]
pub(crate) struct ArrayRow {
    pub(crate) array_id: i64,
    identity: Vec<u8>,
    hdf5_path: String,
    meta: String,
    array_rows: i64,
    pub(crate) chunks: i64,
    inline_data: Option<Vec<u8>>,
    problem_reason: Option<String>,
    problem_message: Option<String>,
    #[sqlx(flatten)]
    file: FileRow,
}

macro_rules! version_columns {
    () => {
        concat!(
            "d.id AS dataset_id, v.id AS version_id, v.number, n.name AS animal, e.name AS experiment, \
             d.name AS dataset, v.created_at, CASE WHEN x.ordinal = 0 THEN CAST(o.attributes AS TEXT) END AS \
             attributes, \
             CASE WHEN x.ordinal = 0 THEN CAST(o.dimensions AS TEXT) END AS dimensions, \
             x.first_row, x.array_row, x.rows, v.rows AS version_rows, ",
            crate::rows::array_columns!()
        )
    };
}
pub(crate) use version_columns;

/// One extent of a version with all that belongs to it; attributes and dimensions only on the first.
#[derive(FromRow)]
pub(crate) struct VersionRow {
    dataset_id: i64,
    pub(crate) version_id: i64,
    number: i64,
    animal: String,
    experiment: String,
    dataset: String,
    created_at: DateTime<Utc>,
    attributes: Option<String>,
    dimensions: Option<String>,
    first_row: i64,
    array_row: i64,
    rows: i64,
    version_rows: i64,
    #[sqlx(flatten)]
    pub(crate) array: ArrayRow,
}

/// An object as it is described.
#[derive(FromRow)]
pub(crate) struct ObjectRow {
    pub(crate) kind: String,
    pub(crate) attributes: String,
    pub(crate) attribute_types: String,
    pub(crate) dimensions: String,
}

/// A row of `chunk_runs`.
#[derive(FromRow)]
pub(crate) struct RunRow {
    array_id: i64,
    first_number: i64,
    last_number: i64,
    pointers: i64,
    packed: Vec<u8>,
    checksums: Option<Vec<u8>>,
}

/// The version that these extents (in order, at least one) and runs (in order) are.
pub(crate) async fn version(extents: Vec<VersionRow>, runs: Vec<RunRow>) -> Result<ResolvedVersion> {
    if runs.len() <= RUNS_UNPACKED_INLINE_MAX {
        return version_of(extents, runs);
    }
    tokio::task::spawn_blocking(move || version_of(extents, runs))
        .await
        .map_err(|error| Error::new(ErrorKind::Database, "unpacking a chunk index failed").with_source(error))?
}

/// Arrays with their runs (in order).
pub(crate) async fn arrays(rows: Vec<ArrayRow>, runs: Vec<RunRow>) -> Result<Vec<Arc<ArrayRecord>>> {
    let all = move || {
        let mut known = Known { runs_by_array: by_array(runs)?, ..Known::default() };
        rows.into_iter().map(|row| known.array(row)).collect()
    };
    tokio::task::spawn_blocking(all)
        .await
        .map_err(|error| Error::new(ErrorKind::Database, "unpacking a chunk index failed").with_source(error))?
}

/// The runs of one array, with the checksums of those that have some.
#[derive(Default)]
struct Runs {
    runs: Vec<ChunkRun>,
    checksums: Vec<u64>,
}

impl Runs {
    /// The index that they are. Checksums count where every chunk has one.
    fn index(self) -> h5flight_array::Result<ChunkIndex> {
        let index = ChunkIndex::from_runs(&self.runs)?;
        let known = self.checksums.len() == index.pointers().len();
        index.with_checksums(if known { self.checksums } else { Vec::new() })
    }
}

fn by_array(rows: Vec<RunRow>) -> Result<HashMap<i64, Runs>> {
    let mut runs_by_array: HashMap<i64, Runs> = HashMap::new();
    for row in rows {
        let run = ChunkRun {
            first_number: unsigned("a chunk number", row.first_number)?,
            last_number: unsigned("a chunk number", row.last_number)?,
            pointers: u32::try_from(row.pointers).map_err(|_| damaged("a chunk run's length is out of bounds"))?,
            packed: row.packed,
        };
        let of_array = runs_by_array.entry(row.array_id).or_default();
        if let Some(packed) = row.checksums {
            let checksums = checksum::unpacked(&packed, run.pointers as usize);
            let checksums = checksums.ok_or_else(|| damaged("a chunk run has not as many checksums as pointers"))?;
            of_array.checksums.extend(checksums);
        }
        of_array.runs.push(run);
    }
    Ok(runs_by_array)
}

fn version_of(extents: Vec<VersionRow>, runs: Vec<RunRow>) -> Result<ResolvedVersion> {
    let first = extents.first().ok_or_else(|| damaged("a version has no extent"))?;
    let mut version = ResolvedVersion {
        version_id: first.version_id,
        version: unsigned("the number of a version", first.number)?,
        dataset_id: first.dataset_id,
        path: DatasetPath {
            animal: first.animal.clone(),
            experiment: first.experiment.clone(),
            dataset: first.dataset.clone(),
        },
        created_at: first.created_at,
        attributes: attributes(first.attributes.as_deref().unwrap_or_default())?,
        dimensions: dimensions(first.dimensions.as_deref().unwrap_or_default())?,
        extents: Vec::with_capacity(extents.len()),
    };
    let mut known = Known { runs_by_array: by_array(runs)?, ..Known::default() };
    let version_rows = unsigned("a number of rows", first.version_rows)?;
    let mut next_row = 0u64;
    for row in extents {
        let (first_row, array_row) = (unsigned("a row", row.first_row)?, unsigned("a row", row.array_row)?);
        let (rows, array_rows) = (unsigned("a row", row.rows)?, unsigned("a row", row.array.array_rows)?);
        let ends_inside = array_row.checked_add(rows).is_some_and(|end| end <= array_rows);
        if first_row != next_row || !ends_inside {
            let id = row.version_id;
            return Err(damaged(format_args!("extents of version {id} do not join at row {next_row}")));
        }
        // The list may go on behind the version, even within an extent. An empty beginning is nothing once rows follow.
        let rows = rows.min(version_rows.saturating_sub(first_row));
        if rows == 0 && version_rows > 0 {
            continue;
        }
        next_row = first_row.checked_add(rows).ok_or_else(|| damaged("a version has more than 2^64 rows"))?;
        version.extents.push(Extent { first_row, array_row, rows, array: known.array(row.array)? });
    }
    if next_row != version_rows {
        let id = version.version_id;
        return Err(damaged(format_args!("version {id} has {next_row} of {version_rows} rows")));
    }
    Ok(version)
}

/// Arrays and files that several extents share, each once.
#[derive(Default)]
struct Known {
    runs_by_array: HashMap<i64, Runs>,
    arrays: HashMap<i64, Arc<ArrayRecord>>,
    files: HashMap<i64, Arc<FileRecord>>,
}

impl Known {
    fn array(&mut self, row: ArrayRow) -> Result<Arc<ArrayRecord>> {
        if let Some(array) = self.arrays.get(&row.array_id) {
            return Ok(array.clone());
        }
        let file = match self.files.get(&row.file.file_id) {
            Some(file) => file.clone(),
            None => {
                let file = Arc::new(row.file.record()?);
                self.files.insert(file.id, file.clone());
                file
            }
        };
        let id = row.array_id;
        let meta = read_meta(&row.meta)?;
        if unsigned("a row", row.array_rows)? != rows_of(&meta) {
            return Err(damaged(format_args!("array {id} has another number of rows than its shape says")));
        }
        let runs = self.runs_by_array.remove(&id).unwrap_or_default();
        let index =
            runs.index().map_err(|error| damaged(format_args!("the chunk index of array {id}")).with_source(error))?;
        let (stored, found) = (unsigned("a number of chunks", row.chunks)?, index.pointers().len() as u64);
        if stored != found {
            return Err(damaged(format_args!("array {id} has {found} of {stored} chunk pointers")));
        }
        let identity = row.identity.try_into().map_err(|_| damaged(format_args!("the identity of array {id}")))?;
        let array = Arc::new(ArrayRecord {
            id,
            identity,
            hdf5_path: row.hdf5_path,
            meta,
            index,
            inline: row.inline_data.map(bytes::Bytes::from),
            problem: problem(row.problem_reason, row.problem_message),
            file,
            sources: Vec::new(),
        });
        self.arrays.insert(id, array.clone());
        Ok(array)
    }
}

/// Rows of an array: its first size; 1 for a scalar, 0 for the null dataspace.
pub(crate) fn rows_of(meta: &ArrayMeta) -> u64 {
    match &meta.space {
        Space::Null => 0,
        Space::Simple { shape } => shape.first().copied().unwrap_or(1),
    }
}

/// Summaries of the versions that `$versions` joins; without it of the current ones of all listed datasets.
macro_rules! select_summaries {
    () => {
        concat!(
            crate::rows::select_summaries!("JOIN versions v ON v.id = d.current_version_id "),
            "WHERE d.withdrawn_by IS NULL "
        )
    };
    ($versions:literal) => {
        concat!(
            "SELECT n.name AS animal, e.name AS experiment, d.name AS dataset, v.number, CAST(a.meta AS TEXT) AS meta, \
                    v.rows, v.chunks, v.stored_bytes, a.problem_reason, a.problem_message \
             FROM datasets d \
             JOIN experiments e ON e.id = d.experiment_id \
             JOIN animals n ON n.id = e.animal_id ",
            $versions,
            crate::rows::version_joins!()
        )
    };
}
pub(crate) use select_summaries;

/// What belongs to a version `v`: its first extent `x`, the array `a` of that, the object `o`.
macro_rules! version_joins {
    () => {
        "JOIN extents x ON x.version_id = coalesce(v.extents_of, v.id) AND x.ordinal = 0 \
         JOIN arrays a ON a.id = x.array_id \
         JOIN objects o ON o.id = v.object_id "
    };
}
pub(crate) use version_joins;

/// The columns of [`ExperimentRow`], of an experiment `e`.
macro_rules! experiment_columns {
    () => {
        "e.name AS experiment, e.identifier, e.session_id, e.start_time, e.nwb_version, e.species, \
         CAST(e.details AS TEXT) AS details, \
         (SELECT count(*) FROM datasets d WHERE d.experiment_id = e.id AND d.withdrawn_by IS NULL) AS datasets "
    };
}
pub(crate) use experiment_columns;

/// The condition that no current version has the bytes of an array `a`. A list of extents belongs to one dataset.
macro_rules! not_in_use {
    () => {
        "AND NOT EXISTS (SELECT 1 FROM arrays same JOIN extents used ON used.array_id = same.id \
                         JOIN versions list ON list.id = used.version_id \
                         JOIN datasets d ON d.id = list.dataset_id \
                         JOIN versions v ON v.id = d.current_version_id AND used.version_id = coalesce(v.extents_of, v.id) \
                         WHERE same.identity = a.identity AND d.withdrawn_by IS NULL \
                           AND (used.ordinal = 0 OR used.first_row < v.rows))"
    };
}
pub(crate) use not_in_use;

/// A listed dataset.
#[derive(FromRow)]
pub(crate) struct SummaryRow {
    animal: String,
    experiment: String,
    dataset: String,
    number: i64,
    meta: String,
    rows: i64,
    chunks: i64,
    stored_bytes: i64,
    problem_reason: Option<String>,
    problem_message: Option<String>,
}

impl SummaryRow {
    pub(crate) fn summary(self) -> Result<DatasetSummary> {
        let meta = meta_of_rows(&self.meta, self.rows)?;
        Ok(DatasetSummary {
            path: DatasetPath { animal: self.animal, experiment: self.experiment, dataset: self.dataset },
            version: unsigned("the number of a version", self.number)?,
            meta,
            chunks: unsigned("a number of chunks", self.chunks)?,
            stored_bytes: unsigned("a number of bytes", self.stored_bytes)?,
            problem: problem(self.problem_reason, self.problem_message),
        })
    }
}

/// Facts of the first array of a version of so many rows.
fn meta_of_rows(json: &str, rows: i64) -> Result<ArrayMeta> {
    let mut meta = read_meta(json)?;
    if let Space::Simple { shape } = &mut meta.space
        && let Some(first) = shape.first_mut()
    {
        *first = unsigned("a number of rows", rows)?;
    }
    Ok(meta)
}

/// A version in a history.
#[derive(FromRow)]
pub(crate) struct VersionSummaryRow {
    pub(crate) number: i64,
    created_at: DateTime<Utc>,
    principal: String,
    meta: String,
    pub(crate) rows: i64,
    chunks: i64,
    stored_bytes: i64,
    restored_number: Option<i64>,
    file_kind: String,
    source_name: String,
    problem_reason: Option<String>,
    problem_message: Option<String>,
    /// The version whose list of extents it has.
    pub(crate) list: i64,
}

impl VersionSummaryRow {
    /// With its tags taken out of those of all versions.
    pub(crate) fn summary(self, extents: u64, tags: &mut HashMap<i64, Vec<String>>) -> Result<VersionSummary> {
        let restored = self.restored_number.map(|number| unsigned("the number of a version", number));
        Ok(VersionSummary {
            number: unsigned("the number of a version", self.number)?,
            created_at: self.created_at,
            principal: self.principal,
            meta: meta_of_rows(&self.meta, self.rows)?,
            extents,
            chunks: unsigned("a number of chunks", self.chunks)?,
            stored_bytes: unsigned("a number of bytes", self.stored_bytes)?,
            source_name: self.source_name,
            managed: self.file_kind == "managed",
            restored: restored.transpose()?,
            tags: tags.remove(&self.number).unwrap_or_default(),
            problem: problem(self.problem_reason, self.problem_message),
        })
    }
}

/// An animal in a list.
#[derive(FromRow)]
pub(crate) struct AnimalRow {
    animal: String,
    species: String,
    experiments: i64,
}

impl AnimalRow {
    pub(crate) fn summary(self) -> Result<AnimalSummary> {
        let experiments = unsigned("a number of experiments", self.experiments)?;
        Ok(AnimalSummary { animal: self.animal, species: self.species, experiments })
    }
}

/// What an experiment says of itself.
#[derive(FromRow)]
pub(crate) struct FactsRow {
    identifier: Option<String>,
    session_id: Option<String>,
    start_time: Option<String>,
    nwb_version: Option<String>,
    species: Option<String>,
    details: String,
}

impl FactsRow {
    pub(crate) fn facts(self) -> Result<ExperimentFacts> {
        let Self { identifier, session_id, start_time, nwb_version, species, details } = self;
        let details = attributes(&details)?;
        Ok(ExperimentFacts { identifier, session_id, start_time, nwb_version, species, details })
    }
}

/// An experiment in a list.
#[derive(FromRow)]
pub(crate) struct ExperimentRow {
    experiment: String,
    datasets: i64,
    #[sqlx(flatten)]
    facts: FactsRow,
}

impl ExperimentRow {
    pub(crate) fn summary(self, animal: &str) -> Result<ExperimentSummary> {
        Ok(ExperimentSummary {
            animal: animal.to_owned(),
            experiment: self.experiment,
            facts: self.facts.facts()?,
            datasets: unsigned("a number of datasets", self.datasets)?,
        })
    }
}

/// An experiment that was found.
#[derive(FromRow)]
pub(crate) struct FoundExperimentRow {
    animal: String,
    #[sqlx(flatten)]
    experiment: ExperimentRow,
}

impl FoundExperimentRow {
    pub(crate) fn summary(self) -> Result<ExperimentSummary> {
        self.experiment.summary(&self.animal)
    }
}

/// An experiment that a publication writes to.
#[derive(FromRow)]
pub(crate) struct EnsuredExperimentRow {
    pub(crate) id: i64,
    pub(crate) animal: String,
    pub(crate) experiment: String,
    #[sqlx(flatten)]
    pub(crate) facts: FactsRow,
}

/// A link on the way to a name.
#[derive(FromRow)]
pub(crate) struct LinkOnPathRow {
    pub(crate) path: String,
    pub(crate) kind: String,
    pub(crate) target: String,
}

/// A token.
#[derive(FromRow)]
pub(crate) struct TokenRow {
    pub(crate) prefix: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) principal_id: i64,
    pub(crate) principal: String,
    role: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TokenRow {
    pub(crate) fn role(&self) -> Result<Role> {
        Role::from_text(&self.role).ok_or_else(|| damaged(format_args!("\"{}\" is no role", self.role)))
    }

    /// Whether it opens anything at this time.
    pub(crate) fn valid_at(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    pub(crate) fn summary(self) -> Result<TokenSummary> {
        let role = self.role()?;
        let Self { prefix, principal, created_at, expires_at, revoked_at, .. } = self;
        Ok(TokenSummary { prefix, principal, role, created_at, expires_at, revoked_at })
    }
}

/// A line of the access log.
#[derive(FromRow)]
pub(crate) struct AccessRow {
    at: DateTime<Utc>,
    principal: String,
    call: String,
    path: String,
    selection: String,
    outcome: String,
    rows: i64,
    bytes: i64,
    tier: String,
    millis: f64,
}

impl AccessRow {
    pub(crate) fn entry(self) -> Result<AccessEntry> {
        let Self { at, principal, call, path, selection, outcome, rows, bytes, tier, millis } = self;
        let (rows, bytes) = (unsigned("a number of rows", rows)?, unsigned("a number of bytes", bytes)?);
        Ok(AccessEntry { at, principal, call, path, selection, outcome, rows, bytes, tier, millis })
    }
}
