//! The values of columns in some rows: plain ones as they are, ragged ones as lists.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StructArray, UInt64Array, new_empty_array,
};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, SchemaRef};
use h5flight_array::Reason;
use h5flight_array::plan::{Layout, Strings};
use h5flight_array::ragged::Bounds;
use h5flight_array::selection::{Item, Selection};
use h5flight_catalog::model::{ResolvedVersion, VersionSelector};

use super::layout::{Table, is_compound, listed, malformed};
use crate::error::{Error, Result};
use crate::read::{ReadRequest, ReadStats, fields, records};
use crate::series::Wish;
use crate::service::Service;

/// Rows between two that are wanted are read with them as long as they take less than this, in bytes: less than the
/// fixed cost of another read.
const GAP_BYTES_MAX: u64 = 256 << 10;
/// The same for all gaps of a run.
const GAPS_BYTES_MAX: u64 = 4 << 20;
/// What one row may have in one column, and what is read at once because rows lie close together, in bytes.
const READ_BYTES_MAX: u64 = 256 << 20;
/// An element of no fixed size, in bytes, about.
const ELEMENT_BYTES: u64 = 64;

/// How columns are read.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) service: Arc<Service>,
    pub(super) stats: Arc<ReadStats>,
    pub(super) batch_bytes: u64,
}

/// A column of a table.
pub(super) struct Column {
    pub(super) name: String,
    /// What is delivered.
    pub(super) field: FieldRef,
    /// Of a compound.
    pub(super) member: Option<String>,
    pub(super) values: Arc<ResolvedVersion>,
    /// The outermost first: the first has a row of the table each, the last counts values.
    pub(super) indexes: Vec<Arc<ResolvedVersion>>,
    /// The table whose rows the values number.
    pub(super) region: Option<String>,
    /// The names that the values number.
    pub(super) labels: Option<Arc<ResolvedVersion>>,
    /// The rows that the values number, when they are delivered.
    pub(super) joined: Option<Arc<StructArray>>,
}

/// Rows of a version; `None` of a single value.
pub(super) fn rows_of(version: &ResolvedVersion) -> Option<u64> {
    let extent = version.extents.last()?;
    let has_rows = !extent.array.meta.shape().is_empty();
    has_rows.then(|| extent.first_row.saturating_add(extent.rows))
}

/// Bytes of one row of a version, about.
fn row_bytes(version: &ResolvedVersion, member: Option<&str>) -> u64 {
    use h5flight_array::meta::ElementType;
    let Some(extent) = version.extents.first() else { return 1 };
    let element = match (&extent.array.meta.element, member) {
        (ElementType::Compound { members, .. }, Some(name)) => {
            members.iter().find(|member| member.name == name).map(|member| &member.element)
        }
        (element, _) => Some(element),
    };
    let element = element.and_then(ElementType::fixed_bytes).unwrap_or(ELEMENT_BYTES).max(1);
    let items = extent.array.meta.shape().iter().skip(1).fold(1u64, |all, size| all.saturating_mul(*size));
    items.saturating_mul(element).max(1)
}

pub(super) fn internal(doing: &str, error: arrow::error::ArrowError) -> Error {
    h5flight_array::Error::new(Reason::Internal, doing).with_source(error).into()
}

impl Reader {
    fn request(&self, version: &ResolvedVersion, rows: Range<u64>, members: &[String]) -> Result<ReadRequest> {
        let bound = |row: u64| i64::try_from(row).ok();
        let item = Item::Slice { start: bound(rows.start), stop: bound(rows.end), step: None };
        Ok(ReadRequest {
            path: version.path.clone(),
            version: VersionSelector::Current,
            selection: Selection::new(vec![item], members.to_vec())?,
            layout: Layout::Tensor,
            strings: Strings::AsIndexed,
            rows: None,
            batch_bytes: Some(self.batch_bytes),
            compression: None,
            wish: Wish::default(),
        })
    }

    /// What a version, or members of it, have as columns.
    pub(super) fn fields(&self, version: &Arc<ResolvedVersion>, members: &[String]) -> Result<SchemaRef> {
        fields(&self.service, version, &self.request(version, 0..0, members)?)
    }

    async fn records(
        &self,
        version: &Arc<ResolvedVersion>,
        rows: Range<u64>,
        members: &[String],
    ) -> Result<RecordBatch> {
        let bytes = (rows.end - rows.start).saturating_mul(row_bytes(version, None));
        if bytes > READ_BYTES_MAX && rows.end - rows.start > 1 && members.is_empty() {
            let name = &version.path.dataset;
            let message =
                format!("a row of the table has {bytes} bytes of {name:?}, the server sends at most {READ_BYTES_MAX}");
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
        records(&self.service, version, &self.request(version, rows, members)?, &self.stats).await
    }

    /// One array of a version's rows.
    async fn array(&self, version: &Arc<ResolvedVersion>, rows: Range<u64>) -> Result<ArrayRef> {
        let records = self.records(version, rows, &[]).await?;
        match records.num_columns() {
            1 if !is_compound(version) => Ok(Arc::clone(records.column(0))),
            _ => Ok(Arc::new(StructArray::from(records))),
        }
    }

    /// The values of a column without lists, in consecutive rows.
    pub(super) async fn plain(&self, column: &Column, rows: Range<u64>) -> Result<ArrayRef> {
        let values = match &column.member {
            None => self.array(&column.values, rows).await?,
            Some(member) => {
                let records = self.records(&column.values, rows, std::slice::from_ref(member)).await?;
                Arc::clone(records.column(0))
            }
        };
        self.finished(column, values).await
    }

    /// Values with their names, or the rows that they number.
    async fn finished(&self, column: &Column, values: ArrayRef) -> Result<ArrayRef> {
        if let Some(joined) = &column.joined {
            let rows = row_numbers(&column.name, &values, joined.len() as u64)?;
            return compute::take(joined.as_ref(), &rows, None).map_err(|error| internal("joining rows", error));
        }
        let Some(labels) = &column.labels else { return Ok(values) };
        let names = self.array(labels, 0..rows_of(labels).unwrap_or(0)).await?;
        let numbers = row_numbers(&column.name, &values, names.len() as u64)?;
        let keys: Int32Array = numbers.values().iter().map(|number| *number as i32).collect();
        let named = DictionaryArray::<Int32Type>::try_new(keys, names);
        Ok(Arc::new(named.map_err(|error| internal("naming values", error))?))
    }
}

/// Numbers of rows, each below `rows`.
fn row_numbers(column: &str, values: &ArrayRef, rows: u64) -> Result<UInt64Array> {
    let refuse = || malformed(format!("column {column:?} points beyond the {rows} rows that it refers to"));
    let numbers = compute::cast(values, &DataType::UInt64).map_err(|_| refuse())?;
    let numbers: &UInt64Array = numbers.as_any().downcast_ref().ok_or_else(refuse)?;
    let is_inside = numbers.null_count() == 0 && numbers.values().iter().all(|number| *number < rows);
    if is_inside { Ok(numbers.clone()) } else { Err(refuse()) }
}

impl Column {
    /// Rows of the table, as this column has them.
    pub(super) fn rows(&self) -> u64 {
        rows_of(self.indexes.first().unwrap_or(&self.values)).unwrap_or(0)
    }

    /// Bytes of a row, without its list.
    pub(super) fn row_bytes(&self) -> u64 {
        match self.indexes.first() {
            Some(index) => row_bytes(index, None),
            None => row_bytes(&self.values, self.member.as_deref()),
        }
    }

    /// Has the values deliver the rows that they number.
    pub(super) fn join(&mut self, rows: RecordBatch) -> Result<()> {
        let rows = StructArray::from(rows);
        let value: FieldRef = Arc::new(Field::new(&self.name, rows.data_type().clone(), false));
        self.field = listed(&self.name, &value, &self.indexes, &self.values);
        self.joined = Some(Arc::new(rows));
        Ok(())
    }

    /// Bytes of one entry of the outermost list, on the average.
    fn item_bytes(&self) -> u64 {
        let items = rows_of(self.indexes.get(1).unwrap_or(&self.values)).unwrap_or(0).max(1);
        let values = rows_of(&self.values).unwrap_or(0).saturating_mul(row_bytes(&self.values, None));
        (values / items).max(1)
    }
}

/// What of a block is read already: columns without lists, and where lists lie.
pub(super) struct Prepared<'t> {
    first: u64,
    selected: &'t [u64],
    columns: Vec<(&'t Column, Part)>,
}

enum Part {
    /// The values of all rows of the block.
    Values(ArrayRef),
    /// Where the lists of all rows of the block lie.
    Lists(Bounds),
}

/// Reads what is short of a block: of columns without lists only what is selected.
///
/// # Errors
/// `malformed_table`, and what reads are refused with.
pub(super) async fn prepare<'t>(
    reader: &Reader,
    table: &'t Table,
    block: Range<u64>,
    selected: &'t [u64],
) -> Result<Prepared<'t>> {
    let mut columns = Vec::new();
    // One read for all members of a compound: it is decoded once.
    let members: Vec<String> = table.shown().filter_map(|column| column.member.clone()).collect();
    let mut together: Option<RecordBatch> = None;
    for column in table.shown() {
        let part = match (column.indexes.first(), &column.member) {
            (Some(index), _) => {
                let items = rows_of(column.indexes.get(1).unwrap_or(&column.values)).unwrap_or(0);
                Part::Lists(bounds(reader, index, block.clone(), items).await?)
            }
            (None, None) => {
                let mut parts = Vec::new();
                for run in runs(selected, |_| column.row_bytes()) {
                    let values = reader.plain(column, run.clone()).await?;
                    parts.push(picked(values, run, selected)?);
                }
                Part::Values(joined(parts, column.field.data_type())?)
            }
            (None, Some(member)) => {
                if together.is_none() {
                    let records = reader.records(&column.values, block.clone(), &members).await?;
                    let rows: UInt64Array = selected.iter().map(|row| row - block.start).collect();
                    let taken = compute::take_record_batch(&records, &rows);
                    together = Some(taken.map_err(|error| internal("taking rows", error))?);
                }
                let found = together.as_ref().and_then(|records| records.column_by_name(member)).cloned();
                Part::Values(found.ok_or_else(|| Error::new(Reason::Internal, "a member was not read"))?)
            }
        };
        columns.push((column, part));
    }
    Ok(Prepared { first: block.start, selected, columns })
}

/// Where rows of an index lie among its items.
async fn bounds(reader: &Reader, index: &Arc<ResolvedVersion>, rows: Range<u64>, items: u64) -> Result<Bounds> {
    let ends = reader.array(index, rows.start.saturating_sub(1)..rows.end).await?;
    Ok(Bounds::of_ends(&index.path.dataset, &ends, rows.start, items)?)
}

/// Selected rows in runs: those between are read with them where that costs little.
fn runs(selected: &[u64], bytes_to: impl Fn(Range<u64>) -> u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut between = 0u64;
    for row in selected {
        let gap = runs.last().map(|run| bytes_to(run.end..*row).saturating_mul(row - run.end));
        match (runs.last_mut(), gap) {
            (Some(run), Some(gap)) if gap <= GAP_BYTES_MAX && between.saturating_add(gap) <= GAPS_BYTES_MAX => {
                run.end = row + 1;
                between += gap;
            }
            _ => {
                runs.push(*row..row + 1);
                between = 0;
            }
        }
    }
    runs
}

/// What is selected of the values of a run.
fn picked(values: ArrayRef, run: Range<u64>, selected: &[u64]) -> Result<ArrayRef> {
    let from = selected.partition_point(|row| *row < run.start);
    let to = selected.partition_point(|row| *row < run.end);
    let rows = &selected[from..to];
    if rows.len() as u64 == run.end - run.start {
        return Ok(values);
    }
    let rows: UInt64Array = rows.iter().map(|row| row - run.start).collect();
    compute::take(&values, &rows as &dyn Array, None).map_err(|error| internal("taking rows", error))
}

fn joined(mut parts: Vec<ArrayRef>, kind: &DataType) -> Result<ArrayRef> {
    match parts.len() {
        0 => Ok(new_empty_array(kind)),
        1 => Ok(parts.remove(0)),
        _ => {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            compute::concat(&parts).map_err(|error| internal("joining rows", error))
        }
    }
}

impl Prepared<'_> {
    /// Bytes of all lists of the selected rows, about.
    pub(super) fn long_bytes(&self) -> u64 {
        (0..self.selected.len()).map(|at| self.bytes_of(at)).fold(0, u64::saturating_add)
    }

    fn bytes_of(&self, at: usize) -> u64 {
        let row = (self.selected[at] - self.first) as usize;
        let lists = self.columns.iter().filter_map(|(column, part)| match part {
            Part::Values(_) => None,
            Part::Lists(bounds) => Some(bounds.values_of(row..row + 1).saturating_mul(column.item_bytes())),
        });
        lists.fold(0, u64::saturating_add)
    }

    /// Ranges of the selected rows, each a batch of about this size.
    pub(super) fn parts(&self, batch_bytes: u64) -> Vec<Range<usize>> {
        let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0u64);
        for at in 0..self.selected.len() {
            let row_bytes = self.bytes_of(at);
            if at > start && bytes.saturating_add(row_bytes) > batch_bytes {
                parts.push(start..at);
                (start, bytes) = (at, 0);
            }
            bytes = bytes.saturating_add(row_bytes);
        }
        parts.push(start..self.selected.len());
        parts
    }

    /// The columns of some of the selected rows, which follow each other among them.
    ///
    /// # Errors
    /// As of any read, and `malformed_table`.
    pub(super) async fn values(&self, reader: &Reader, rows: &[u64]) -> Result<Vec<ArrayRef>> {
        let from = rows.first().map_or(0, |first| self.selected.partition_point(|row| row < first));
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, part) in &self.columns {
            columns.push(match part {
                Part::Values(values) => values.slice(from, rows.len()),
                Part::Lists(bounds) => self.lists(reader, column, bounds, rows).await?,
            });
        }
        Ok(columns)
    }

    async fn lists(&self, reader: &Reader, column: &Column, bounds: &Bounds, rows: &[u64]) -> Result<ArrayRef> {
        let at = |rows: &Range<u64>| (rows.start - self.first) as usize..(rows.end - self.first) as usize;
        let average = |gap: Range<u64>| {
            let items = if gap.is_empty() { 0 } else { bounds.values_of(at(&gap)) };
            items.saturating_mul(column.item_bytes()) / (gap.end - gap.start).max(1)
        };
        let mut parts = Vec::new();
        for run in runs(rows, average) {
            let items = bounds.range(at(&run));
            let values = inner(reader, column, 1, items).await?;
            let list = bounds.list(at(&run), &column.field, values)?;
            parts.push(picked(list, run, rows)?);
        }
        joined(parts, column.field.data_type())
    }
}

/// The items of a list: values, or lists by the next index.
async fn inner(reader: &Reader, column: &Column, depth: usize, items: Range<u64>) -> Result<ArrayRef> {
    let mut levels = Vec::new();
    let mut range = items;
    for at in depth..column.indexes.len() {
        let below = rows_of(column.indexes.get(at + 1).unwrap_or(&column.values)).unwrap_or(0);
        let count = (range.end - range.start) as usize;
        let bounds = match count {
            0 => None,
            _ => Some(bounds(reader, &column.indexes[at], range.clone(), below).await?),
        };
        range = bounds.as_ref().map_or(0..0, |bounds| bounds.range(0..count));
        levels.push((at, count, bounds));
    }
    let values = reader.array(&column.values, range).await?;
    let mut values = reader.finished(column, values).await?;
    for (at, count, bounds) in levels.into_iter().rev() {
        let field = list_field(&column.field, at);
        values = match bounds {
            None => new_empty_array(field.data_type()),
            Some(bounds) => bounds.list(0..count, &field, values)?,
        };
    }
    Ok(values)
}

/// The field of the lists so many levels below the column's own.
fn list_field(field: &FieldRef, depth: usize) -> FieldRef {
    (0..depth).fold(Arc::clone(field), |field, _| match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) => Arc::clone(item),
        _ => field,
    })
}
