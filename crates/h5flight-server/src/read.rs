//! The read path, from a request to a stream of Flight messages; this file is its table of contents.
//!
//! | stop | where | may wait on |
//! |---|---|---|
//! | resolve | [`crate::versions`] | SQL, at the first read of a version |
//! | plan | [`h5flight_array::plan`] | nothing |
//! | open | [`crate::files`] | the file system: is the file the one that was indexed? |
//! | look ahead | [`window`] | memory for reads under way |
//! | fetch | [`fetch`] | caches, file, worker |
//! | assemble, encode | [`h5flight_array::batch`], [`encode`] | CPU |
//! | send | [`stream`] | the client |
//!
//! The last four run per batch, some batches ahead of the client, bounded in bytes. Dropping the stream ends it all.

mod compose;
mod encode;
mod fetch;
mod records;
mod stats;
mod stream;
pub(crate) mod verified;
mod window;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use h5flight_array::batch::scale::{Factors, Scaled, Scaling};
use h5flight_array::file::StoredFile;
use h5flight_array::plan::{ExtentView, Layout, Plan, PlanOptions, SourceView, Strings, total_shape};
use h5flight_array::selection::{AxisSelection, Resolved, Selection};
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::model::{DatasetPath, ResolvedVersion, VersionSelector};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::encode::{EncodedBatch, Encoder, FlightMessage};
use self::fetch::Fetcher;
pub(crate) use self::fetch::{pipeline, refuse_large_chunk, refuse_odd_sizes};
pub(crate) use self::records::{fields, records};
pub use self::stats::ReadStats;
pub(crate) use self::stream::Pipeline;
pub use self::stream::ReadStream;
use self::window::Window;
use crate::blocking::Lane;
use crate::error::{Error, Result};
use crate::memory::{MEMORY_UNIT_BYTES, read_memory_bytes, reserve, units};
use crate::series::{self, Granted, Wish};
use crate::service::Service;

/// Encoded batches that wait for the client: one is being sent, one is ready.
pub(crate) const BATCHES_QUEUED_MAX: usize = 2;
/// The largest batch that is made unasked: with half of it on top, as where batches end with chunks, still within the
/// default limit of every client. Of 1, 2, 4 and 8 MiB it was the fastest for bulk reads, by a tenth to a third.
const BATCH_BYTES_MAX: u64 = 2 << 20;
/// The smallest one.
const BATCH_BYTES_MIN: u64 = 64 << 10;
/// A batch has this part of the memory that is free for batches: a stream holds four.
const BATCH_FREE_PART: u64 = 32;
/// A batch in COLUMNS has at least this many rows: its schema costs 48 bytes a column.
const COLUMNS_ROWS_MIN: u64 = 1_000;
/// The largest row, in bytes: Arrow's own bound of 2 GiB for a message is far away, a client's memory is not.
const ROW_BYTES_MAX: u64 = 256 << 20;

/// Values of a neighbour of a series that are read to understand it: ids, factors. 8 MiB of memory.
pub(crate) const NUMBERS_MAX: u64 = 1 << 20;

/// What is asked for, checked.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Dataset.
    pub path: DatasetPath,
    /// Version.
    pub version: VersionSelector,
    /// Part.
    pub selection: Selection,
    /// Layout.
    pub layout: Layout,
    /// Form of strings.
    pub strings: Strings,
    /// Only these rows of the result.
    pub rows: Option<Range<u64>>,
    /// Target size of a batch, in bytes; `None` is the server's choice.
    pub batch_bytes: Option<u64>,
    /// Of batches on the wire.
    pub compression: Option<CompressionType>,
    /// In the words of a series.
    pub wish: Wish,
}

/// A read that is decided but not begun.
pub struct Planned {
    /// What is read.
    pub version: Arc<ResolvedVersion>,
    /// How.
    pub plan: Arc<Plan>,
    /// What is delivered, with all metadata.
    pub schema: SchemaRef,
    /// How batches leave.
    compression: Option<CompressionType>,
    /// How values are scaled.
    scaling: Option<Arc<Scaling>>,
    /// What shaped the plan, for the plans of sources.
    options: Arc<PlanOptions>,
}

/// Reads: everything from the name to the stream.
///
/// # Errors
/// Everything that can be known before the first byte; later errors come through the stream.
pub async fn read(service: &Arc<Service>, request: ReadRequest) -> Result<ReadStream> {
    let version = service.versions.resolve(&request.path, request.version.clone()).await?;
    read_version(service, &request, version).await
}

/// The same for the version that a ticket pins.
///
/// # Errors
/// As [`read`].
pub async fn read_pinned(service: &Arc<Service>, request: ReadRequest, version_id: i64) -> Result<ReadStream> {
    let version = service.versions.pinned(version_id).await?;
    read_version(service, &request, version).await
}

/// What is read in the place of a version that met an error. Where a file of it is gone, another server may have compacted
/// it longer ago than files are kept: then it is made of others now.
///
/// # Errors
/// The error itself, where the version is what it was.
async fn in_its_place(
    service: &Arc<Service>,
    version: &Arc<ResolvedVersion>,
    error: Error,
) -> Result<Arc<ResolvedVersion>> {
    match error.reason() {
        Reason::FileNotFound => service.versions.renewed(version).await?.ok_or(error),
        _ => Err(error),
    }
}

/// Reads a version.
async fn read_version(
    service: &Arc<Service>,
    request: &ReadRequest,
    version: Arc<ResolvedVersion>,
) -> Result<ReadStream> {
    let begin = async |version: Arc<ResolvedVersion>| {
        let granted = series::grant(service, &version, request).await?;
        let planned = plan_version(service, version, request, &granted)?;
        start(service, planned).await
    };
    match begin(Arc::clone(&version)).await {
        Err(error) => begin(in_its_place(service, &version, error).await?).await,
        begun => begun,
    }
}

/// Resolves and plans, reading nothing.
///
/// # Errors
/// `dataset_not_found` and its like, `bad_selection`, `out_of_bounds`, `result_too_large`, refusals of the dataset.
pub async fn plan(service: &Arc<Service>, request: &ReadRequest) -> Result<Planned> {
    let version = service.versions.resolve(&request.path, request.version.clone()).await?;
    let granted = series::grant(service, &version, request).await?;
    plan_version(service, version, request, &granted)
}

/// All values of a small dataset of numbers, in C order.
///
/// # Errors
/// `result_too_large` for more than [`NUMBERS_MAX`], `bad_selection` for what are no numbers; as [`read`].
pub(crate) async fn numbers(service: &Arc<Service>, version: Arc<ResolvedVersion>) -> Result<Vec<f64>> {
    numbers_of(service, version, Selection::all()).await
}

/// The same of a part.
///
/// # Errors
/// As [`numbers`].
pub(crate) async fn numbers_of(
    service: &Arc<Service>,
    version: Arc<ResolvedVersion>,
    selection: Selection,
) -> Result<Vec<f64>> {
    match numbers_now(service, Arc::clone(&version), selection.clone()).await {
        Err(error) => numbers_now(service, in_its_place(service, &version, error).await?, selection).await,
        found => found,
    }
}

async fn numbers_now(service: &Arc<Service>, version: Arc<ResolvedVersion>, selection: Selection) -> Result<Vec<f64>> {
    let request = ReadRequest {
        path: version.path.clone(),
        version: VersionSelector::Current,
        selection,
        layout: Layout::Tidy,
        strings: Strings::AsIndexed,
        rows: None,
        batch_bytes: None,
        compression: None,
        wish: Wish::default(),
    };
    let to_floats = Scaling { to: Scaled::Float64, conversion: 1.0, offset: 0.0, factors: Factors::One(1.0) };
    let planned = plan_version(service, version, &request, &Granted::default())?;
    if planned.plan.records() > NUMBERS_MAX || !planned.is_numbers() {
        let message = format!("{} is no list of up to {NUMBERS_MAX} numbers", planned.version.path);
        return Err(Error::new(Reason::BadSelection, message));
    }
    let files = open_files(service, &planned.version).await?;
    let fetcher = Arc::new(Fetcher::new(service, &planned, files, Arc::default())?);
    let plan = &planned.plan;
    let mut found = Vec::new();
    for at in 0..plan.batches() {
        let batch = plan.batch(at);
        let mut wanted = Vec::with_capacity(batch.blocks().len());
        for id in batch.blocks() {
            wanted.push(fetcher.block(plan, *id).await?);
        }
        let bytes = wanted.iter().map(|wanted| wanted.bytes).fold(0, u64::saturating_add);
        let reserved = reserve(service, &service.read_memory, units(service, bytes)).await?;
        let mut blocks = HashMap::new();
        for fetching in fetcher.start(wanted, Some(reserved)) {
            blocks.extend(fetching.wait().await?.into_iter().map(|fetched| (fetched.id, fetched)));
        }
        let ordered: Vec<_> =
            batch.blocks().iter().filter_map(|id| blocks.get(id)).map(|fetched| Arc::clone(&fetched.block)).collect();
        let records = to_floats.apply(plan, &plan.assemble(&batch, &ordered)?, batch.rows().start)?;
        if let Some(values) = records.columns().last() {
            found.extend_from_slice(values.as_primitive::<Float64Type>().values());
        }
    }
    Ok(found)
}

fn plan_version(
    service: &Service,
    version: Arc<ResolvedVersion>,
    request: &ReadRequest,
    granted: &Granted,
) -> Result<Planned> {
    refuse_problems(&version)?;
    let sources: Vec<Vec<SourceView<'_>>> =
        version.extents.iter().map(|extent| compose::views(&extent.array)).collect();
    let extents: Vec<ExtentView<'_>> = version
        .extents
        .iter()
        .zip(&sources)
        .map(|(extent, sources)| ExtentView {
            first_row: extent.first_row,
            array_row: extent.array_row,
            rows: extent.rows,
            meta: &extent.array.meta,
            inline: extent.array.inline.is_some(),
            sources,
        })
        .collect();
    let selection = if request.wish.is_empty() { &request.selection } else { &granted.selection };
    let selected = selection.resolve(&total_shape(&extents)?)?;
    let config = &service.config;
    let element_bytes = extents.first().and_then(|extent| extent.meta.element.fixed_bytes()).unwrap_or(1);
    let stored = |delivered| granted.stored_bytes(delivered, element_bytes);
    let options = PlanOptions {
        layout: request.layout,
        strings: request.strings,
        batch_bytes: stored(request.batch_bytes.unwrap_or_else(|| batch_bytes(service))),
        batch_rows_min_columns: COLUMNS_ROWS_MIN,
        batch_blocks_bytes_max: read_memory_bytes(service) / 4,
        row_blocks_bytes_max: read_memory_bytes(service),
        chunk_bytes_max: config.chunk_bytes_max,
        result_bytes_max: (config.result_bytes_max > 0).then(|| stored(config.result_bytes_max)),
        row_bytes_max: stored(ROW_BYTES_MAX),
        row_range: request.rows.clone(),
    };
    let plan = Plan::new(&extents, &selected, &options)?;
    let scaling = granted.scaling(&selected)?.map(Arc::new);
    let schema = scaling.as_ref().map_or_else(|| plan.schema(), |scaling| scaling.schema(&plan));
    let mut schema = described(&schema, &version, &selected);
    if !request.wish.is_empty() {
        let mut metadata = schema.metadata().clone();
        metadata.extend(granted.metadata(&selected));
        schema = Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata));
    }
    let compression = request.compression;
    Ok(Planned { plan: Arc::new(plan), scaling, schema, compression, options: Arc::new(options), version })
}

/// The size of batches that nobody wished for: smaller ones when many streams share the memory for them.
fn batch_bytes(service: &Service) -> u64 {
    let free = service.batch_memory.available_permits() as u64 * MEMORY_UNIT_BYTES;
    let size = free / BATCH_FREE_PART;
    size.checked_ilog2().map_or(0, |log| 1 << log).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX)
}

/// A dataset that was listed with a problem, or whose file was quarantined, is refused with the reason found then.
fn refuse_problems(version: &ResolvedVersion) -> Result<()> {
    for extent in &version.extents {
        if let Some((reason, message)) = compose::refusal(&extent.array) {
            return Err(Error::new(reason, message));
        }
    }
    Ok(())
}

/// Whether a version could be read now: it has no known problem, and its files are the ones that were indexed.
///
/// # Errors
/// What a read of it would be refused with, `file_changed` for example.
pub async fn check_readable(service: &Arc<Service>, version: &Arc<ResolvedVersion>) -> Result<()> {
    refuse_problems(version)?;
    open_files(service, version).await.map(|_| ())
}

/// The plan's schema with what the catalogue knows: names, version, attributes.
fn described(schema: &Schema, version: &ResolvedVersion, selected: &Resolved) -> SchemaRef {
    let mut metadata = schema.metadata().clone();
    let attributes = Value::Object(version.attributes.clone());
    for (key, value) in [
        ("h5flight.animal", version.path.animal.clone()),
        ("h5flight.experiment", version.path.experiment.clone()),
        ("h5flight.dataset", version.path.dataset.clone()),
        ("h5flight.version", version.version.to_string()),
        ("h5flight.dataset_shape", json!(selected.source_shape()).to_string()),
        ("h5flight.attributes", attributes.to_string()),
    ] {
        metadata.insert(key.to_owned(), value);
    }
    if !version.dimensions.is_empty() {
        let axes = selected.axes().iter().zip(&version.dimensions);
        let kept = axes.filter(|(axis, _)| !matches!(axis, AxisSelection::Index(_))).map(|(_, dimension)| dimension);
        metadata.insert("h5flight.dims".to_owned(), json!(kept.collect::<Vec<_>>()).to_string());
    }
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

impl Planned {
    /// Whether every element is a number.
    fn is_numbers(&self) -> bool {
        self.version.extents.iter().all(|extent| Scaling::is_number(&extent.array.meta.element))
    }

    /// Bytes of the delivered values; `None` where elements have no fixed size.
    pub fn bytes(&self) -> Option<u64> {
        self.plan.bytes().map(|stored| self.delivered_bytes(stored))
    }

    /// What so many stored bytes are when they are delivered.
    fn delivered_bytes(&self, stored_bytes: u64) -> u64 {
        let element_bytes = self.version.extents.first().and_then(|extent| extent.array.meta.element.fixed_bytes());
        match (&self.scaling, element_bytes) {
            (Some(scaling), Some(element_bytes @ 1..)) => {
                stored_bytes.saturating_mul(scaling.value_bytes()).div_ceil(element_bytes)
            }
            _ => stored_bytes,
        }
    }

    /// What a client wants to know before it reads: the `app_metadata` of a FlightInfo.
    pub fn facts(&self) -> Value {
        let path = &self.version.path;
        json!({
            "animal": path.animal, "experiment": path.experiment, "dataset": path.dataset,
            "version": self.version.version, "shape": self.plan.shape(), "attributes": self.version.attributes,
        })
    }
}

/// Opens the files, reserves memory, and sets the pipeline going.
async fn start(service: &Arc<Service>, planned: Planned) -> Result<ReadStream> {
    let files = open_files(service, &planned.version).await?;
    let stats = Arc::new(ReadStats::default());
    // What the stream itself holds: batches being assembled, waiting, and on the wire.
    let batches = (BATCHES_QUEUED_MAX + 2) as u64 * planned.delivered_bytes(planned.options.batch_bytes);
    let wanted = planned.bytes().unwrap_or(batches).min(batches);
    let reserved =
        reserve(service, &service.batch_memory, units(service, wanted).min(service.read_memory_units / 3)).await?;
    let (sender, receiver) = mpsc::channel(BATCHES_QUEUED_MAX);
    let fetcher = Fetcher::new(service, &planned, files, Arc::clone(&stats))?;
    let encoder = encode::Encoder::new(&planned.schema, planned.compression)?;
    let schema = encode::FlightMessage::of_schema(&planned.schema);
    let window =
        Window::new(Arc::clone(service), Arc::clone(&planned.plan), Arc::new(fetcher)).scaled(planned.scaling.clone());
    let schema_of_batches = Arc::clone(&planned.schema);
    let run = window.run(encoder, schema_of_batches, sender);
    let pipeline = if planned.plan.batches() <= 1 {
        // The channel takes it, so nothing waits for the client, and there is nothing to do beside sending it. What it
        // takes is counted while it waits there, unless that is for ever.
        let outcome = run.await;
        let stall = Duration::from_millis(service.config.stall_timeout_ms);
        let counted = tokio::spawn(async move {
            let _reserved = reserved;
            tokio::time::sleep(stall).await;
        });
        Pipeline::Ended(outcome, AbortOnDropHandle::new(counted))
    } else {
        Pipeline::Running(AbortOnDropHandle::new(tokio::spawn(async move {
            let _reserved = reserved;
            run.await
        })))
    };
    Ok(ReadStream::new(schema, receiver, pipeline, stats))
}

/// The files of a version by their key, each checked to be the one that was indexed.
async fn open_files(service: &Arc<Service>, version: &Arc<ResolvedVersion>) -> Result<HashMap<i64, Arc<StoredFile>>> {
    let (files, version) = (Arc::clone(&service.files), Arc::clone(version));
    let open = move || {
        let mut opened = HashMap::new();
        for extent in &version.extents {
            let record = &extent.array.file;
            if let std::collections::hash_map::Entry::Vacant(free) = opened.entry(record.id) {
                free.insert(Arc::new(files.open_unchanged(record)?));
            }
        }
        Ok::<_, Error>(opened)
    };
    service.blocking.run(Lane::Deliver, open).await
}

/// What went wrong inside the pipeline itself.
fn internal(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    ArrayError::new(Reason::Internal, doing).with_source(error).into()
}
