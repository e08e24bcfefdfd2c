//! Tables: rows of several datasets in one stream, with a filter that is asked before the rows are read.
//!
//! | stop | where |
//! |---|---|
//! | which datasets the columns are, and whether they fit together | [`layout`] |
//! | which rows the filter leaves | [`filter`] |
//! | the values of a column in some rows | [`column`] |
//! | rows times events | [`around`] |
//! | batch by batch to the client | here |
//!
//! Every value comes through [`crate::read`]: the same plans, caches and fingerprints as of any other read. A table is
//! gone through in blocks of rows: first the columns of the filter, then what it leaves of the others. In memory is one
//! block's worth of short columns, and of the long ones one batch.

mod around;
mod column;
mod filter;
mod layout;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use h5flight_array::Reason;
use h5flight_array::expression::Expression;
use h5flight_catalog::model::{DatasetPath, VersionSelector};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::AbortOnDropHandle;

use self::around::Around;
use self::column::{Column, Reader};
use self::layout::Table;
use crate::blocking::Lane;
use crate::error::{Error, Result};
use crate::memory::{reserve, units};
use crate::read::{BATCHES_QUEUED_MAX, EncodedBatch, Encoder, FlightMessage, Pipeline, ReadStats, ReadStream};
use crate::series;
use crate::service::Service;

/// The size of a batch that nobody wished for, in bytes.
const BATCH_BYTES: u64 = 4 << 20;
/// Rows of a block at most: what the filter is asked for at once.
const BLOCK_ROWS_MAX: u64 = 1 << 16;
/// The rows of another table that a region is expanded with, in bytes: they are in memory as a whole.
const EXPANDED_BYTES_MAX: u64 = 64 << 20;
/// What a table holds, in batches: one being put together from its parts, one encoded, and those that wait.
const BATCHES_HELD: u64 = 4 + BATCHES_QUEUED_MAX as u64;

/// What is asked for, checked.
#[derive(Clone, Debug)]
pub struct TableRequest {
    /// The group or dataset.
    pub path: DatasetPath,
    /// Columns, in order; empty is all.
    pub columns: Vec<String>,
    /// Which rows.
    pub filter: Option<Expression>,
    /// Only these rows of the table, before the filter.
    pub rows: Option<Range<u64>>,
    /// Version.
    pub version: VersionSelector,
    /// Regions that are joined.
    pub expand: Vec<String>,
    /// Target size of a batch, in bytes.
    pub batch_bytes: Option<u64>,
    /// Of batches on the wire.
    pub compression: Option<CompressionType>,
    /// Rows times events instead of rows.
    pub event_lists: Option<EventLists>,
}

/// Times of a list that lie around events.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLists {
    /// The column of lists.
    pub column: String,
    /// Around what.
    pub around: series::Around,
}

impl TableRequest {
    /// All of a table.
    pub fn all(path: DatasetPath, version: VersionSelector) -> Self {
        Self {
            path,
            columns: Vec::new(),
            filter: None,
            rows: None,
            version,
            expand: Vec::new(),
            batch_bytes: None,
            compression: None,
            event_lists: None,
        }
    }
}

/// A table that is decided but not begun.
pub struct Planned {
    reader: Reader,
    table: Table,
    /// What is delivered.
    pub schema: SchemaRef,
    rows: Range<u64>,
    /// Rows become rows around events.
    around: Option<Around>,
}

impl Planned {
    /// How many rows come; `None` where a filter decides.
    pub fn records(&self, request: &TableRequest) -> Option<u64> {
        let events = self.around.as_ref().map_or(1, |around| around.events.len() as u64);
        request.filter.is_none().then_some((self.rows.end - self.rows.start).saturating_mul(events))
    }
}

/// Finds the columns and what they look like. Reads no values but those of small tables that regions are expanded with.
///
/// # Errors
/// `not_a_table`, `malformed_table`, `column_not_found`, `bad_expression`, and what reads of the columns are refused with.
pub async fn plan(service: &Arc<Service>, request: &TableRequest) -> Result<Planned> {
    let stats = Arc::new(ReadStats::default());
    let reader =
        Reader { service: Arc::clone(service), stats, batch_bytes: request.batch_bytes.unwrap_or(BATCH_BYTES) };
    let mut table = match &request.event_lists {
        Some(EventLists { column, .. }) if request.columns.is_empty() => {
            let columns = vec!["id".to_owned(), column.clone()];
            layout::find(&reader, &TableRequest { columns, ..request.clone() }).await?
        }
        _ => layout::find(&reader, request).await?,
    };
    if let Some(filter) = &request.filter {
        filter::check(filter, &table)?;
    }
    for name in &request.expand {
        expand(&reader, &mut table, name).await?;
    }
    let fields: Vec<FieldRef> = table.shown().map(|column| Arc::clone(&column.field)).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, table.metadata.clone()));
    let rows = match &request.rows {
        None => 0..table.rows,
        Some(asked) => asked.start.min(table.rows)..asked.end.min(table.rows),
    };
    let Some(EventLists { column, around }) = &request.event_lists else {
        return Ok(Planned { reader, table, schema, rows, around: None });
    };
    // Events may come from a table, which has none itself.
    let events = Box::pin(series::events(service, &request.path, &around.events)).await?;
    let around = Around::new(&schema, column, events, around.bounds_s)?;
    Ok(Planned { reader, table, schema: Arc::clone(&around.schema), rows, around: Some(around) })
}

/// Reads a table.
///
/// # Errors
/// Everything that can be known before the first row; later errors come through the stream.
pub async fn read(service: &Arc<Service>, request: TableRequest) -> Result<ReadStream> {
    let planned = plan(service, &request).await?;
    let reserved = reserved(service, &planned.reader).await?;
    let encoder = Encoder::new(&planned.schema, request.compression)?;
    let schema = FlightMessage::of_schema(&planned.schema);
    let stats = Arc::clone(&planned.reader.stats);
    let (sender, receiver) = mpsc::channel(BATCHES_QUEUED_MAX);
    let task = tokio::spawn(async move {
        let _reserved = reserved;
        run(planned, request.filter, encoder, sender).await
    });
    Ok(ReadStream::new(schema, receiver, Pipeline::Running(AbortOnDropHandle::new(task)), stats))
}

/// The rows that a filter leaves, ascending.
///
/// # Errors
/// `result_too_large` for more than `rows_max`; as [`read`].
pub(crate) async fn matching(service: &Arc<Service>, request: &TableRequest, rows_max: usize) -> Result<Vec<u64>> {
    let Planned { reader, table, rows, .. } = plan(service, request).await?;
    let _reserved = reserved(service, &reader).await?;
    let mut found = Vec::new();
    for block in blocks(&table, &reader, rows) {
        found.extend(selected(&reader, &table, request.filter.as_ref(), block).await?);
        if found.len() > rows_max {
            let message = format!("the filter is true for more than {rows_max} rows of {}", request.path);
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
    }
    Ok(found)
}

/// The first column of a request, which is one of numbers: rows with their values. Rows without a value are left out.
///
/// # Errors
/// `bad_request` for a column of something else, `result_too_large` for more than `rows_max`; as [`read`].
pub(crate) async fn numbers(
    service: &Arc<Service>,
    request: &TableRequest,
    rows_max: usize,
) -> Result<Vec<(u64, f64)>> {
    let Planned { reader, table, schema, rows, .. } = plan(service, request).await?;
    let _reserved = reserved(service, &reader).await?;
    if let Some(field) = schema.fields().iter().find(|field| !field.data_type().is_numeric()) {
        let message = format!("column {:?} is of type {}: it has no numbers", field.name(), field.data_type());
        return Err(Error::new(Reason::BadRequest, message));
    }
    let mut found = Vec::new();
    for block in blocks(&table, &reader, rows) {
        let selected = selected(&reader, &table, request.filter.as_ref(), block.clone()).await?;
        if selected.is_empty() {
            continue;
        }
        let prepared = column::prepare(&reader, &table, block, &selected).await?;
        let batch = batch(&reader, &prepared, &selected, &schema).await?;
        let values = arrow::compute::cast(batch.column(0), &DataType::Float64);
        let values = values.map_err(|error| column::internal("making numbers of a column", error))?;
        let values = selected.iter().zip(values.as_primitive::<Float64Type>());
        found.extend(values.filter_map(|(row, value)| Some((*row, value.filter(|value| !value.is_nan())?))));
        if found.len() > rows_max {
            let message = format!("more than {rows_max} rows of {} are taken: narrow the filter", request.path);
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
    }
    Ok(found)
}

/// Memory for what is read of a table that is used here.
async fn reserved(service: &Arc<Service>, reader: &Reader) -> Result<OwnedSemaphorePermit> {
    let wanted = units(service, BATCHES_HELD * reader.batch_bytes).min(service.read_memory_units / 3);
    reserve(service, &service.batch_memory, wanted).await
}

/// The rows of a table that are gone through at once.
fn blocks(table: &Table, reader: &Reader, rows: Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let step = table.block_rows(reader.batch_bytes);
    std::iter::successors(Some(rows.start), move |first| first.checked_add(step))
        .take_while(move |first| *first < rows.end)
        .map(move |first| first..first.saturating_add(step).min(rows.end))
}

/// Rows of a block that are asked for.
async fn selected(reader: &Reader, table: &Table, filter: Option<&Expression>, block: Range<u64>) -> Result<Vec<u64>> {
    match filter {
        None => Ok(block.collect()),
        Some(filter) => filter::selected(reader, table, filter, block).await,
    }
}

/// Block by block, batch by batch. Ends early, and well, when nobody receives any more.
async fn run(
    planned: Planned,
    filter: Option<Expression>,
    mut encoder: Encoder,
    out: mpsc::Sender<EncodedBatch>,
) -> Result<()> {
    let Planned { reader, table, schema, rows, around } = planned;
    // What is read has the table's own columns, also where what is sent has not.
    let read_schema = match &around {
        None => Arc::clone(&schema),
        Some(_) => Arc::new(Schema::new(table.shown().map(|column| Arc::clone(&column.field)).collect::<Vec<_>>())),
    };
    let mut sending = Sending { sent_rows: 0, sent_bytes: 0, out };
    for block in blocks(&table, &reader, rows) {
        let selected = selected(&reader, &table, filter.as_ref(), block.clone()).await?;
        if selected.is_empty() {
            continue;
        }
        let prepared = column::prepare(&reader, &table, block, &selected).await?;
        for part in prepared.parts(reader.batch_bytes) {
            let rows = selected.get(part).unwrap_or_default();
            let batch = batch(&reader, &prepared, rows, &read_schema).await?;
            let Some(around) = &around else {
                if !sending.send(&reader, &mut encoder, batch).await? {
                    return Ok(());
                }
                continue;
            };
            let mut first = 0;
            while first < around.rows(&batch) {
                let (cut, batch, batch_bytes) = (around.clone(), batch.clone(), reader.batch_bytes);
                let work = move || cut.part(&batch, first, batch_bytes);
                let (part, next) = reader.service.blocking.run(Lane::Deliver, work).await?;
                first = next;
                if !sending.send(&reader, &mut encoder, part).await? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Batches on their way to the client.
struct Sending {
    sent_rows: u64,
    sent_bytes: u64,
    out: mpsc::Sender<EncodedBatch>,
}

impl Sending {
    /// Gives whether somebody receives.
    async fn send(&mut self, reader: &Reader, encoder: &mut Encoder, batch: RecordBatch) -> Result<bool> {
        let rows = batch.num_rows() as u64;
        let encoded = encoder.batch(&batch, self.sent_rows, rows)?;
        self.sent_rows += rows;
        self.sent_bytes = self.sent_bytes.saturating_add(encoded.bytes);
        let bytes_max = reader.service.config.result_bytes_max;
        if bytes_max > 0 && self.sent_bytes > bytes_max {
            let message = format!(
                "the table has more than {bytes_max} bytes, which is all the server sends (result_bytes_max); ask for fewer rows or columns"
            );
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
        let stall = std::time::Duration::from_millis(reader.service.config.stall_timeout_ms);
        match self.out.send_timeout(encoded, stall).await {
            Ok(()) => Ok(true),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Ok(false),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                let message = format!("the client has not read for {} ms", stall.as_millis());
                Err(Error::new(Reason::Busy, message))
            }
        }
    }
}

async fn batch(
    reader: &Reader,
    prepared: &column::Prepared<'_>,
    rows: &[u64],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = prepared.values(reader, rows).await?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| column::internal("putting a table together", error))
}

/// Reads the table that a region points to, and has the region deliver its rows.
async fn expand(reader: &Reader, table: &mut Table, name: &str) -> Result<()> {
    let names = table.names();
    let Some(column) = table.columns.iter_mut().find(|column| column.name == name) else {
        return Err(layout::no_column(name, &names));
    };
    let Some(target) = column.region.clone() else {
        let message = format!("column {name:?} is no region: it points to no other table");
        return Err(Error::new(Reason::BadRequest, message));
    };
    let path = DatasetPath { dataset: target, ..table.path.clone() };
    let request = TableRequest::all(path, table.version.clone());
    let target = layout::find(reader, &request).await?;
    let too_large = || {
        let message =
            format!("the table that {name:?} points to has more than {EXPANDED_BYTES_MAX} bytes: read it by itself");
        Error::new(Reason::ResultTooLarge, message)
    };
    // The number of a row takes memory too, whatever the table has in it.
    if target.rows.saturating_mul(target.row_bytes().max(8)) > EXPANDED_BYTES_MAX {
        return Err(too_large());
    }
    let selected: Vec<u64> = (0..target.rows).collect();
    let prepared = column::prepare(reader, &target, 0..target.rows, &selected).await?;
    if prepared.long_bytes() > EXPANDED_BYTES_MAX {
        return Err(too_large());
    }
    let fields: Vec<FieldRef> = target.shown().map(|column| Arc::clone(&column.field)).collect();
    let schema = Arc::new(Schema::new(fields));
    let rows = batch(reader, &prepared, &selected, &schema).await?;
    column.join(rows)
}

/// Whether a column that is found by name is one with a single value a row.
fn is_plain(column: &Column) -> bool {
    column.indexes.is_empty()
}
