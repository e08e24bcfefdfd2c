//! A put: Arrow batches become a managed HDF5 file and the next version of a dataset.
//!
//! check -> room -> partial file -> batches to chunks -> encoded side by side -> a worker writes them -> fsync -> hash ->
//! inspect -> move to the content address -> one transaction -> caches told. The end is that of an upload, with its locks
//! and its order ([`super::upload`]). What breaks off leaves nothing: nobody can go on with a put.

pub mod compact;
mod filling;
mod messages;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use futures::Stream;
use h5flight_array::Reason;
use h5flight_array::codec::encode::{EncodeOptions, Encoder};
use h5flight_array::inspect::ObjectKind;
use h5flight_array::write::RowForm;
use h5flight_catalog::error::ErrorKind;
use h5flight_catalog::model::{
    Append, Appended, DatasetPath, ExpectedVersion, FilePlace, NewObject, Page, Publication, WriterSequence,
};
use serde_json::{Map, Value};

pub use messages::schema;

use self::filling::{Filled, Filling};
use super::keeping::keep;
use super::names::Naming;
use super::partial::{self, Partial};
use super::upload::{Inspected, inspect, run};
use super::{Wishes, running::Slot};
use crate::error::{Error, Result};
use crate::faults;
use crate::files;
use crate::memory;
use crate::service::Service;

/// Tells puts apart.
static PUTS: AtomicU64 = AtomicU64::new(0);

/// How a put meets what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// Nothing may be there.
    Create,
    /// The next version.
    Replace,
    /// More rows.
    Append,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PutAsked {
    /// Of which dataset.
    pub path: DatasetPath,
    /// What may be there.
    pub mode: PutMode,
    /// Shape of the chunks; empty is our choice.
    pub chunk_shape: Vec<u64>,
    /// Their compression.
    pub encoding: EncodeOptions,
    /// Of the dataset.
    pub attributes: Map<String, Value>,
    /// A repetition is answered as the first one was.
    pub writer: Option<WriterSequence>,
    /// The version that it is based on, 0 for none.
    pub expected_version: Option<u64>,
    /// The row that the first one must become, where rows are appended.
    pub expected_first_row: Option<u64>,
    /// Who.
    pub principal: String,
}

/// What a put made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Number of the version.
    pub version: u64,
    /// First row of what was put.
    pub first_row: u64,
    /// Rows that were put.
    pub rows: u64,
    /// Rows of the version.
    pub total_rows: u64,
    /// Whether it was there already.
    pub already: bool,
    /// blake3 of the file, lowercase hex.
    pub content: String,
}

/// What comes from the client.
pub struct Rows<S> {
    /// Of all batches.
    pub schema: SchemaRef,
    /// The messages behind the schema.
    pub messages: S,
    /// Set once the client has ended its stream; a client that went away has not.
    pub ended: Arc<AtomicBool>,
}

/// Takes one put from its schema to its publication.
///
/// # Errors
/// `bad_request`, `put_mismatch`, `put_sequence`, `dataset_exists`, `conflict`, `chunk_too_large`, `upload_too_large`,
/// `upload_broken`, `disk_full`, `busy`, and those of inspecting and publishing. Nothing is left behind.
pub async fn put<S>(service: &Arc<Service>, asked: PutAsked, rows: Rows<S>) -> Result<Put>
where
    S: Stream<Item = Result<FlightData>> + Unpin + Send,
{
    if let Some(put) = earlier(service, &asked).await? {
        return Ok(put);
    }
    refuse_early(service, &asked).await?;
    let form = RowForm::of(&rows.schema)?;
    let encoder = Encoder::new(&asked.encoding, form.element_bytes())?;
    let mut filling = Filling::new(service, &asked, form, encoder)?;
    let bytes = filling.memory_bytes();
    let _memory = memory::reserve(service, &service.put_memory, memory::put_units(service, bytes)).await?;
    let slot = service.uploads.enter(&format!("put-{:032x}", PUTS.fetch_add(1, Ordering::Relaxed))).await?;
    make_room(service, &slot, filling::ROOM_BYTES_MIN).await?;
    let folder = service.uploads.folder().to_owned();
    faults::pass("put::begin")?;
    let partial = run(service, move || Partial::nameless(&folder).map(Box::new)).await?;
    let path = partial.path().to_owned();
    let done = async {
        filling.begin(&partial, slot)?;
        let filled = filling.fill(rows).await?;
        finish(service, &asked, filled, partial).await
    };
    match done.await {
        Ok(put) => Ok(put),
        Err(error) => {
            clear(service, path).await;
            Err(error)
        }
    }
}

/// What a put of the same writer with the same number made.
async fn earlier(service: &Service, asked: &PutAsked) -> Result<Option<Put>> {
    let Some(WriterSequence { writer, sequence }) = &asked.writer else { return Ok(None) };
    let known = service.catalog.find_append(&asked.path, writer, *sequence).await?;
    Ok(known.map(Put::from))
}

/// What there is of a name.
async fn kind_of(service: &Service, path: &DatasetPath) -> Result<Option<ObjectKind>> {
    match service.catalog.describe(path).await {
        Ok(found) => Ok(Some(found.kind)),
        Err(error) if matches!(error.kind, ErrorKind::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Refuses the name of a group, and a name below a dataset.
async fn refuse_hiding(service: &Service, path: &DatasetPath) -> Result<()> {
    let ends = path.dataset.match_indices('/').map(|(at, _)| at).chain([path.dataset.len()]);
    for end in ends {
        let name = &path.dataset[..end];
        let at = DatasetPath { dataset: name.to_owned(), ..path.clone() };
        let message = match kind_of(service, &at).await? {
            None => return Ok(()),
            Some(ObjectKind::Dataset) if end < path.dataset.len() => format!("{name:?} is a dataset already"),
            Some(ObjectKind::Group) if end == path.dataset.len() => format!("{name:?} is a group already"),
            Some(_) => continue,
        };
        return Err(Error::new(Reason::PutMismatch, message));
    }
    Ok(())
}

/// Refuses before any byte is taken what the transaction would refuse as well.
async fn refuse_early(service: &Service, asked: &PutAsked) -> Result<()> {
    let current = match service.catalog.current_version(&asked.path).await {
        Ok((_, version)) => version,
        Err(error) if matches!(error.kind, ErrorKind::NotFound { .. }) => 0,
        // A name that leads elsewhere, or a catalogue that does not answer.
        Err(error) => return Err(error.into()),
    };
    if let Some(expected) = asked.expected_version
        && expected != current
    {
        return Err(h5flight_catalog::Error::version_conflict(&asked.path, expected, current).into());
    }
    match (asked.mode, current) {
        (_, 0) => refuse_hiding(service, &asked.path).await,
        (PutMode::Create, _) => {
            let DatasetPath { animal, experiment, dataset } = &asked.path;
            let message = format!("dataset \"{animal}/{experiment}/{dataset}\" exists, with version {current}");
            Err(Error::new(Reason::DatasetExists, message))
        }
        _ => Ok(()),
    }
}

/// Makes sure that the disk, and the quota, have room for `bytes` more.
async fn make_room(service: &Service, slot: &Slot, bytes: u64) -> Result<()> {
    let folder = service.uploads.folder().to_owned();
    let quota = service.config.upload_quota_bytes;
    let look = move || Ok((partial::other_bytes(&folder, "")?, files::free_bytes(&folder)?));
    let (unfinished, free) = run(service, look).await?;
    let room = if quota == 0 { free } else { free.min(quota.saturating_sub(unfinished)) };
    slot.missing(0);
    slot.reserve(bytes, room).map_err(|promised| {
        let message = format!(
            "a put needs {bytes} bytes more, but {room} bytes are left of the disk and the quota for unfinished uploads, \
             {promised} of them promised to uploads under way"
        );
        Error::new(Reason::DiskFull, message)
    })
}

async fn clear(service: &Service, path: PathBuf) {
    let remove = move || {
        partial::remove(&path);
        Ok(())
    };
    if let Err(error) = run(service, remove).await {
        tracing::warn!(error = error.chain(), "what is left of a put could not be removed");
    }
}

/// Makes a written file durable and visible.
async fn finish(service: &Arc<Service>, asked: &PutAsked, filled: Filled, partial: Box<Partial>) -> Result<Put> {
    let partial = hashed(service, partial).await?;
    let content = partial.content();
    let inspected = inspect(service, partial.path().to_owned()).await?;
    let (files, address) = (Arc::clone(&service.files), content.clone());
    let address = run(service, move || files.managed_path(&address)).await?;
    let held = keep(service, partial, address, &content).await?;
    let publication = publication(service, asked, inspected, &content).await?;
    let put = match asked.mode {
        PutMode::Append => super::append(service, appended(asked, publication)?).await?.into(),
        PutMode::Create | PutMode::Replace => {
            let published = super::publish(service, publication).await?;
            match published.put {
                Some(put) => put.into(),
                None => made(service, asked, &content, published.already).await?,
            }
        }
    };
    drop((held, filled));
    Ok(put)
}

/// The dataset of a publication as rows behind those that are there.
fn appended(asked: &PutAsked, mut publication: Publication) -> Result<Append> {
    let is_dataset = |object: &NewObject| object.kind == ObjectKind::Dataset;
    let at = publication.objects.iter().position(is_dataset);
    let at = at.ok_or_else(|| Error::new(Reason::Internal, "a put made no dataset"))?;
    Ok(Append {
        object: publication.objects.swap_remove(at),
        place: publication.place,
        fingerprint: publication.fingerprint,
        source_name: publication.source_name,
        writer: asked.writer.clone(),
        expected_version: asked.expected_version,
        expected_first_row: asked.expected_first_row,
        principal: publication.principal,
    })
}

impl From<Appended> for Put {
    fn from(made: Appended) -> Self {
        let Appended { version, first_row, rows, total_rows, already, content, .. } = made;
        Self { version, first_row, rows, total_rows, already, content }
    }
}

/// Flushes the file and hashes what the worker wrote.
async fn hashed(service: &Service, mut partial: Box<Partial>) -> Result<Box<Partial>> {
    let flush = move || {
        faults::pass("put::flush")?;
        partial.written_by_others()?;
        partial.seal()?;
        Ok(partial)
    };
    partial = run(service, flush).await?;
    let mut more = true;
    while more {
        let piece = move || {
            faults::pass("put::hash")?;
            partial.rehash().map(|more| (partial, more))
        };
        (partial, more) = run(service, piece).await?;
    }
    Ok(partial)
}

/// The dataset, and those groups above it that nobody has: those that are there keep their attributes.
async fn publication(
    service: &Service,
    asked: &PutAsked,
    Inspected { fingerprint, inspection }: Inspected,
    content: &str,
) -> Result<Publication> {
    let DatasetPath { animal, experiment, dataset } = &asked.path;
    let naming = Naming { animal: animal.clone(), experiment: experiment.clone() };
    let mut wishes = Wishes { replace: asked.mode == PutMode::Replace, ..Wishes::default() };
    (wishes.naming, wishes.principal) = (naming, asked.principal.clone());
    wishes.expected = asked
        .expected_version
        .map(|version| ExpectedVersion { path: asked.path.clone(), version })
        .into_iter()
        .collect();
    let place = FilePlace::Managed { content: content.to_owned() };
    let (mut publication, _) =
        super::publication(place, fingerprint, source_name(dataset, content), inspection, &wishes);
    publication.writer = asked.writer.clone();
    let mut objects = Vec::new();
    for object in std::mem::take(&mut publication.objects) {
        let path = DatasetPath { dataset: object.name.clone(), ..asked.path.clone() };
        // What is there already has attributes of its own: an empty group is not its next state.
        if object.kind == ObjectKind::Dataset || kind_of(service, &path).await?.is_none() {
            objects.push(object);
        }
    }
    publication.objects = objects;
    let datasets = publication.objects.iter().filter(|object| object.kind == ObjectKind::Dataset);
    match datasets.map(|object| object.name.as_str()).collect::<Vec<_>>().as_slice() {
        [name] if name == dataset => Ok(publication),
        other => Err(Error::new(Reason::Internal, format!("a put of {dataset} made {other:?}"))),
    }
}

/// For people, and for the catalogue: files of one name follow each other, and two puts do so only by their dataset. No
/// upload has a slash in its name.
fn source_name(dataset: &str, content: &str) -> String {
    format!("put of /{dataset} ({})", &content[..content.len().min(16)])
}

/// The version that a file of this content made.
async fn made(service: &Service, asked: &PutAsked, content: &str, already: bool) -> Result<Put> {
    let source_name = source_name(&asked.path.dataset, content);
    let mut page = Page { size: 1000, token: String::new() };
    loop {
        let found = service.catalog.list_versions(&asked.path, &page).await?;
        let ours = |version: &&h5flight_catalog::model::VersionSummary| {
            version.source_name == source_name && version.restored.is_none()
        };
        if let Some(version) = found.items.iter().find(ours) {
            let rows = version.meta.shape().first().copied().unwrap_or(0);
            let (version, content) = (version.number, content.to_owned());
            return Ok(Put { version, first_row: 0, rows, total_rows: rows, already, content });
        }
        if found.next.is_empty() {
            return Err(Error::new(Reason::Internal, format!("no version is {source_name}")));
        }
        page.token = found.next;
    }
}
