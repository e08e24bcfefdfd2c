//! Which blocks a selection touches, in which batches, and where every value goes.
//!
//! What lives here: cutting the result's rows into batches ([`Plan::batch`]), and arrays into *blocks*
//! ([`Plan::block`]): the unit that is fetched, decoded and cached. What never lives here: I/O, clocks, locks, caches.
//! Schema and assembly of a plan are in [`crate::batch`].
//!
//! | array | its blocks |
//! |---|---|
//! | small, delivered with the catalogue | one: the whole array |
//! | chunked, fixed-size elements, filters that [`crate::codec`] knows | HDF5 chunks of the declared shape |
//! | chunked, otherwise | HDF5 chunks cut at the array's edge, read by the worker |
//! | contiguous, fixed-size elements | made for each batch from byte ranges of the file, not cached |
//! | virtual | made for each batch from parts of its sources, not cached |
//! | virtual, if only libhdf5 can put it together, from its own file | boxes as below |
//! | otherwise | boxes of whole rows of about 1 MiB, read by the worker |
//!
//! Single elements are planned as an index list over the array laid out block by block, see [`points`].
//!
//! Invariants: a plan is arithmetic, so its size does not grow with the result (index lists, points and the number of runs excepted); the
//! batches cover the rows in order, each once; a block belongs to a contiguous run of batches, unless a list jumps.
//!
//! ```text
//! let plan = Plan::new(&extents, &selection.resolve(&total_shape(&extents)?)?, &PlanOptions::default())?;
//! for at in 0..plan.batches() {
//!     let batch = plan.batch(at);
//!     let blocks = batch.blocks().iter().map(|id| decode(plan.block(*id, index)?)).collect::<Result<Vec<_>>>()?;
//!     send(plan.assemble(&batch, &blocks)?);
//! }
//! ```

pub(crate) mod axis;
pub(crate) mod extent;
pub(crate) mod mapping;
pub(crate) mod points;
pub(crate) mod rows;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use self::axis::{Cover, Pick};
use self::extent::{Blocks, ExtentPlan, Grid, Rows, Wanted, refuse_unreadable};
pub use self::mapping::{Looks, SourceView, VirtualCopy, VirtualSource};
use self::points::PointIndex;
use self::rows::{BATCH_ROWS_MAX, BatchLimits, Batching, Part, Place, RowMap};
use crate::batch::schema::{Output, OutputRequest};
use crate::error::{Error, Reason, Result};
use crate::index::{ChunkIndex, ChunkPointer};
use crate::inspect::Hyperslab;
use crate::meta::{ArrayMeta, ELEMENTS_MAX, ElementType, Space, product};
use crate::selection::{AxisSelection, Picked, Resolved};

/// How a result is laid out in Arrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Results of rank 0 and 1 and compounds as they are; rank 2 of up to 4,096 numeric columns as
    /// [`Layout::Columns`]; else [`Layout::Tensor`].
    #[default]
    Auto,
    /// One column, each row a tensor.
    Tensor,
    /// One column for each index of the second axis; rank 2 only (rank 0 and 1 are one column anyway).
    Columns,
    /// One record for each value, with its indices.
    Tidy,
}

/// How strings are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strings {
    /// As text where indexing found nothing but UTF-8, else as bytes.
    #[default]
    AsIndexed,
    /// As bytes.
    Binary,
    /// As numpy keeps them: a string in a field is the whole field, filled up with NUL, and a compound whose members lie
    /// in the file as numpy packs them ([`ElementType::is_packed`]) is one value. The rest as indexed.
    Fixed,
}

/// What shapes a plan besides the selection. Sizes are in bytes of decoded values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Layout of the result.
    pub layout: Layout,
    /// Form of strings.
    pub strings: Strings,
    /// Target size of a batch; batches that follow the chunks may be half as large again.
    pub batch_bytes: u64,
    /// [`Layout::Columns`] has at least this many rows in a batch: its schema costs 48 bytes per column and batch.
    pub batch_rows_min_columns: u64,
    /// Decoded blocks that one batch may need at once; a single row may pass it.
    pub batch_blocks_bytes_max: u64,
    /// Decoded blocks that one row may need at once: a row is never assembled in parts.
    pub row_blocks_bytes_max: u64,
    /// The largest chunk that is decoded.
    pub chunk_bytes_max: u64,
    /// The largest result; `None` is no bound.
    pub result_bytes_max: Option<u64>,
    /// The largest single row: rows are not cut.
    pub row_bytes_max: u64,
    /// Only these rows of the result, for parallel endpoints and for resuming. Batches end where they would otherwise.
    pub row_range: Option<Range<u64>>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            layout: Layout::Auto,
            strings: Strings::AsIndexed,
            batch_bytes: 1 << 20,
            batch_rows_min_columns: 1000,
            batch_blocks_bytes_max: 64 << 20,
            row_blocks_bytes_max: 1 << 30,
            chunk_bytes_max: 64 << 20,
            result_bytes_max: None,
            row_bytes_max: 256 << 20,
            row_range: None,
        }
    }
}

/// One extent of a version: a range of rows of one array.
#[derive(Clone, Copy, Debug)]
pub struct ExtentView<'a> {
    /// First row within the version.
    pub first_row: u64,
    /// First row within the array.
    pub array_row: u64,
    /// Rows; 1 for a scalar.
    pub rows: u64,
    /// The array, already passed through [`ArrayMeta::check`].
    pub meta: &'a ArrayMeta,
    /// True when the whole array is at hand as one decoded block.
    pub inline: bool,
    /// Of a virtual array: the source of each mapping.
    pub sources: &'a [SourceView<'a>],
}

/// The shape of a version: rows of all extents, then the other axes, which all extents share.
///
/// # Errors
/// `null_dataspace` where there is no value, `unsupported_layout` where the extents do not fit each other.
pub fn total_shape(extents: &[ExtentView<'_>]) -> Result<Vec<u64>> {
    let refuse = |message: String| Err(Error::new(Reason::UnsupportedLayout, message));
    let Some(first) = extents.first() else { return refuse("a version without extents".into()) };
    if let Some(at) = extents.iter().position(|extent| extent.meta.space == Space::Null) {
        let message = format!("extent {at} of the dataset has a null dataspace: it holds no value");
        return Err(Error::new(Reason::NullDataspace, message));
    }
    let mut shape = first.meta.shape().to_vec();
    let mut rows = 0u64;
    for (at, extent) in extents.iter().enumerate() {
        let own = extent.meta.shape();
        let array_rows = own.first().copied().unwrap_or(1);
        if own.len() != shape.len() || own.get(1..) != shape.get(1..) || extent.meta.element != first.meta.element {
            return refuse(format!("extent {at} of shape {own:?} does not fit the first one, of shape {shape:?}"));
        }
        if extent.first_row != rows || extent.array_row.checked_add(extent.rows).is_none_or(|end| end > array_rows) {
            let ExtentView { first_row, array_row, rows: count, .. } = extent;
            let what = format!("extent {at}: {count} rows from {array_row} of {array_rows} as row {first_row}");
            return refuse(format!("{what}, after {rows} rows"));
        }
        rows = match rows.checked_add(extent.rows).filter(|rows| *rows <= ELEMENTS_MAX) {
            Some(rows) => rows,
            None => return refuse("the extents have more than 2^63 rows".into()),
        };
    }
    match shape.first_mut() {
        Some(size) => *size = rows,
        None if extents.len() == 1 && rows == 1 => {}
        None => return refuse(format!("a scalar of {} extents and {rows} rows", extents.len())),
    }
    Ok(shape)
}

/// Identity of a block within a version. Of cacheable blocks, `number` depends on the array alone, never on the
/// selection or the options: with the array's identity it is a cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId {
    /// Position of the extent in its version.
    pub extent: u32,
    /// Number of the chunk or box in the array; number of the batch for raw blocks.
    pub number: u64,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Where they start.
    pub offset: u64,
    /// How many, not 0.
    pub bytes: u64,
}

/// Where a block's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// They are at hand: the whole array.
    Inline,
    /// A stored chunk, to be decoded by codec/.
    Stored(ChunkPointer),
    /// Never written: the fill value.
    Fill,
    /// libhdf5 reads this box.
    Worker(Hyperslab),
    /// These ranges of the file, one after the other, are the block: nothing to decode.
    Raw {
        /// Ascending, without overlap.
        ranges: Vec<ByteRange>,
    },
    /// Parts of other arrays, put together by [`crate::batch::Composition`] over the fill value.
    Virtual(Vec<VirtualCopy>),
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its identity.
    pub id: BlockId,
    /// First index by axis of the array. Raw blocks may have gaps between their rows.
    pub origin: Vec<u64>,
    /// Elements by axis, C order.
    pub shape: Vec<u64>,
    /// Where its bytes come from.
    pub source: BlockSource,
    /// Bytes when decoded; `None` where elements have no fixed size.
    pub decoded_bytes: Option<u64>,
}

impl Block {
    pub(crate) fn new(id: BlockId, slab: Hyperslab, source: BlockSource, element: &ElementType) -> Self {
        let Hyperslab { origin, shape } = slab;
        let elements = product(&shape).unwrap_or(u64::MAX);
        let decoded_bytes = element.fixed_bytes().map(|bytes| bytes.saturating_mul(elements));
        Self { id, origin, shape, source, decoded_bytes }
    }

    /// Elements in it.
    pub fn elements(&self) -> u64 {
        product(&self.shape).unwrap_or(u64::MAX)
    }

    /// Whether other reads may need the same block. Inline blocks are in memory anyway, raw ones in the page cache, and
    /// of virtual ones the blocks of their sources are cached.
    pub fn cacheable(&self) -> bool {
        match self.source {
            BlockSource::Stored(_) | BlockSource::Worker(_) => true,
            BlockSource::Inline | BlockSource::Fill | BlockSource::Raw { .. } | BlockSource::Virtual(_) => false,
        }
    }
}

/// One batch: a range of result rows and the blocks that hold their values.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    pub(crate) rows: Range<u64>,
    pub(crate) blocks: Vec<BlockId>,
    pub(crate) parts: Vec<Part>,
}

impl BatchPlan {
    /// Rows of the whole result (not of the row range asked for).
    pub fn rows(&self) -> Range<u64> {
        self.rows.clone()
    }

    /// Its blocks, each once; [`Plan::assemble`] takes them decoded in this order.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }
}

/// What a selection of a version takes: batches and their blocks. Owns all it needs, but for the chunk pointers.
#[derive(Debug)]
pub struct Plan {
    /// By axis of the version, indices that drop their axis included. Of points: their places, as the only axis.
    pub(crate) picks: Vec<Pick>,
    /// Axes of the array that are axes of the result.
    pub(crate) kept: Vec<usize>,
    /// The axis whose indices are the rows; 0 for a result of rank 0, and for points.
    pub(crate) row_axis: usize,
    /// Set where the rows are points.
    pub(crate) points: Option<PointIndex>,
    /// Extents that the selection touches; none when the result is empty.
    pub(crate) extents: Vec<ExtentPlan>,
    pub(crate) element: ElementType,
    /// Elements of one row.
    pub(crate) items: u64,
    pub(crate) output: Output,
    shape: Vec<u64>,
    batching: Batching,
}

impl Plan {
    /// Plans the read of `selected`, which was resolved against [`total_shape`] of `extents`.
    ///
    /// # Errors
    /// `null_dataspace`, `virtual_source_refused`, `external_storage_refused`, `unsupported_type`, `chunk_too_large`,
    /// `result_too_large`, `bad_layout`; `bad_selection` for fields the element does not have.
    pub fn new(extents: &[ExtentView<'_>], selected: &Resolved, options: &PlanOptions) -> Result<Self> {
        Self::prepared(extents, selected, options, None)
    }

    /// The same for an only extent that was prepared.
    pub(crate) fn prepared(
        extents: &[ExtentView<'_>],
        selected: &Resolved,
        options: &PlanOptions,
        prepared: Option<&VirtualSource>,
    ) -> Result<Self> {
        let source_shape = total_shape(extents)?;
        if selected.source_shape() != source_shape {
            let message = format!("selection of shape {:?} for {source_shape:?}", selected.source_shape());
            return Err(Error::new(Reason::Internal, message));
        }
        let meta = extents[0].meta;
        extents.iter().try_for_each(|extent| refuse_unreadable(extent.meta))?;
        let (mut picks, kept) = match selected.picked() {
            Picked::Axes(axes) => by_axis(axes),
            Picked::Elements(_) => (vec![Pick::List(Arc::default())], vec![0]),
        };
        let row_axis = kept.first().copied().unwrap_or(0);
        let shape = selected.shape();
        let output = Output::new(&OutputRequest { meta, selected, picks: &picks, kept: &kept, options })?;
        let items = shape.get(1..).map_or(Some(1), product);
        let (items, row_bytes) = row_size(items, &output, options, &shape)?;
        let rows = shape.first().copied().unwrap_or(1);
        let range = row_range(options, rows)?;
        check_result(options, &range, row_bytes, &shape)?;
        let mut points = None;
        let planned = match selected.picked() {
            _ if rows == 0 || items == 0 => Vec::new(),
            Picked::Axes(_) => {
                touched_extents(extents, &Wanted { picks: &picks, rows: Rows::Axis(row_axis), options, prepared })?
            }
            Picked::Elements(positions) => {
                let index = PointIndex { positions: Arc::clone(positions), shape: source_shape };
                let (planned, places) = points::touched_extents(extents, &index, options, prepared)?;
                (picks, points) = (vec![Pick::List(places)], Some(index));
                planned
            }
        };
        let limits =
            BatchLimits { rows: output.batch_rows(items, options), blocks_bytes: options.batch_blocks_bytes_max };
        let scalar = Pick::Range { start: 0, step: 1, count: 1 };
        let map = RowMap { pick: picks.get(row_axis).unwrap_or(&scalar), row_axis, extents: &planned };
        let batching = Batching::new(&map, rows, range, &limits);
        Ok(Self {
            kept,
            row_axis,
            points,
            extents: planned,
            element: meta.element.clone(),
            items,
            output,
            shape,
            batching,
            picks,
        })
    }

    /// The Arrow schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.output.schema)
    }

    /// Shape of the whole result, as numpy would say it.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The layout that the result has: never [`Layout::Auto`].
    pub fn layout(&self) -> Layout {
        self.output.layout
    }

    /// The rows of the result that are delivered: all, or those of [`PlanOptions::row_range`].
    pub fn row_range(&self) -> Range<u64> {
        self.batching.range.clone()
    }

    /// Result rows delivered.
    pub fn rows(&self) -> u64 {
        self.batching.range.end - self.batching.range.start
    }

    /// Arrow records delivered: the rows, or in the tidy layout the values.
    pub fn records(&self) -> u64 {
        match self.output.layout {
            Layout::Tidy => self.rows().saturating_mul(self.items),
            Layout::Auto | Layout::Tensor | Layout::Columns => self.rows(),
        }
    }

    /// Bytes of the delivered values in the file's form; `None` where elements have no fixed size.
    pub fn bytes(&self) -> Option<u64> {
        self.element.fixed_bytes()?;
        self.rows().checked_mul(self.items)?.checked_mul(self.output.element_bytes)
    }

    /// Number of batches; 0 for an empty result.
    pub fn batches(&self) -> usize {
        self.batching.batches
    }

    /// One batch. Made when asked for; the cost is that of its rows' blocks.
    ///
    /// # Panics
    /// When there is no such batch: the caller's mistake.
    pub fn batch(&self, at: usize) -> BatchPlan {
        assert!(at < self.batches(), "batch {at} of {}", self.batches());
        let rows = self.batching.rows(at);
        let parts = if self.extents.is_empty() { Vec::new() } else { self.row_map().parts(&rows) };
        let mut blocks = Vec::new();
        for part in &parts {
            let extent = &self.extents[part.extent];
            match (&extent.blocks, &part.place) {
                (Blocks::Grid(grid), Place::Coordinate(row)) => {
                    self.each_block(grid, *row, |coordinates, _| {
                        blocks.push(BlockId { extent: extent.number, number: grid.number(coordinates) });
                    });
                }
                _ => blocks.push(BlockId { extent: extent.number, number: at as u64 }),
            }
        }
        BatchPlan { rows, blocks, parts }
    }

    /// The block of this identity. `index` is the chunk index of the extent `id.extent`.
    ///
    /// # Errors
    /// `internal` for an identity that is not of this plan; of a virtual array why a source cannot be read, and
    /// `result_too_large` where [`Looks::default`] do not suffice to put the block together.
    pub fn block(&self, id: BlockId, index: &ChunkIndex) -> Result<Block> {
        self.block_within(id, index, &mut Looks::default())
    }

    /// The same within these looks, which [`VirtualCopy::plan`] takes from too.
    ///
    /// # Errors
    /// As [`Plan::block`].
    pub fn block_within(&self, id: BlockId, index: &ChunkIndex, looks: &mut Looks) -> Result<Block> {
        let unknown = || Error::new(Reason::Internal, format!("block {} of extent {}", id.number, id.extent));
        let at = self.extent_at(id).ok_or_else(unknown)?;
        let extent = &self.extents[at];
        match &extent.blocks {
            Blocks::Grid(grid) => extent.grid_block(grid, id, index).ok_or_else(unknown),
            Blocks::Raw(raw) => {
                let batch =
                    usize::try_from(id.number).ok().filter(|batch| *batch < self.batches()).ok_or_else(unknown)?;
                let parts = self.row_map().parts(&self.batching.rows(batch));
                let rows = raw_rows(&parts, at).ok_or_else(unknown)?;
                let covers: Vec<&Cover> =
                    (0..raw.covers.len()).map(|axis| raw.cover(axis, rows, self.row_axis)).collect();
                extent.raw_block(raw, id, &covers, looks)
            }
        }
    }

    /// The first batch that needs a block of one of this plan's batches.
    pub fn first_use(&self, id: BlockId) -> usize {
        self.uses(id).0
    }

    /// The last batch that needs a block: after it, the block may be let go.
    pub fn last_use(&self, id: BlockId) -> usize {
        self.uses(id).1
    }

    /// About how many decoded bytes are alive at once when every block is kept from its first to its last use (of
    /// lists that jump: within a batch). Where that is more than the memory at hand, blocks are decoded again.
    pub fn working_bytes(&self) -> u64 {
        let of_extent = |extent: &ExtentPlan| match &extent.blocks {
            Blocks::Grid(grid) => grid.row_blocks_bytes,
            Blocks::Raw(raw) => raw.row_bytes,
        };
        let block_row = self.extents.iter().map(of_extent).max().unwrap_or(0);
        let delivered = self.rows().saturating_mul(self.items).saturating_mul(self.output.element_bytes);
        block_row.max(self.output.batch_bytes.min(delivered))
    }

    /// Cuts the delivered rows into up to `parts` ranges of about the same size that begin where batches begin. Plans
    /// with these as their row range have the same batches as this one.
    pub fn split(&self, parts: usize) -> Vec<Range<u64>> {
        let (batches, parts) = (self.batches(), parts.clamp(1, self.batches().max(1)));
        let start_of = |part: usize| match (batches as u128 * part as u128 / parts as u128) as usize {
            batch if batch < batches => self.batching.rows(batch).start,
            _ => self.batching.range.end,
        };
        (0..parts).map(|part| start_of(part)..start_of(part + 1)).collect()
    }

    /// Calls `visit` with the coordinates of each touched block of a row of blocks, and its positions in the spreads.
    pub(crate) fn each_block(&self, grid: &Grid, row: u64, mut visit: impl FnMut(&[u64], &[usize])) {
        if self.points.is_some() {
            return visit(&grid.coordinates(row).0, &[]);
        }
        let rank = grid.block_shape.len();
        let others: Vec<usize> = (0..rank).filter(|axis| *axis != self.row_axis).collect();
        let mut positions = vec![0usize; rank];
        let mut coordinates: Vec<u64> =
            (0..rank).map(|axis| if axis == self.row_axis { row } else { grid.spreads[axis].coordinate(0) }).collect();
        loop {
            visit(&coordinates, &positions);
            // Counts up like an odometer, the last axis first.
            let advanced = others.iter().rev().any(|axis| {
                let next = (positions[*axis] + 1) % grid.spreads[*axis].len();
                positions[*axis] = next;
                coordinates[*axis] = grid.spreads[*axis].coordinate(next);
                next != 0
            });
            if !advanced {
                return;
            }
        }
    }

    fn row_map(&self) -> RowMap<'_> {
        const SCALAR: &Pick = &Pick::Range { start: 0, step: 1, count: 1 };
        let pick = self.picks.get(self.row_axis).unwrap_or(SCALAR);
        RowMap { pick, row_axis: self.row_axis, extents: &self.extents }
    }

    fn extent_at(&self, id: BlockId) -> Option<usize> {
        self.extents.binary_search_by_key(&id.extent, |extent| extent.number).ok()
    }

    fn uses(&self, id: BlockId) -> (usize, usize) {
        let last_batch = self.batches().saturating_sub(1);
        let Some(at) = self.extent_at(id) else { return (0, last_batch) };
        let Blocks::Grid(grid) = &self.extents[at].blocks else {
            let batch = (id.number as usize).min(last_batch);
            return (batch, batch);
        };
        let rows = if self.points.is_some() { Rows::Points } else { Rows::Axis(self.row_axis) };
        let coordinate = grid.row_coordinate(id.number, rows);
        match self.batching.uses_of(&self.row_map(), at, coordinate) {
            Some((first, last)) => (self.batching.batch_of(first), self.batching.batch_of(last)),
            None => (0, last_batch),
        }
    }
}

/// The picks of all axes, and the axes that are kept.
fn by_axis(axes: &[AxisSelection]) -> (Vec<Pick>, Vec<usize>) {
    let is_kept = |axis: &usize| !matches!(axes[*axis], AxisSelection::Index(_));
    (axes.iter().map(Pick::new).collect(), (0..axes.len()).filter(is_kept).collect())
}

fn raw_rows(parts: &[Part], extent: usize) -> Option<&Cover> {
    parts.iter().filter(|part| part.extent == extent).find_map(|part| match &part.place {
        Place::Rows(cover) => Some(cover),
        Place::Coordinate(_) => None,
    })
}

fn row_range(options: &PlanOptions, rows: u64) -> Result<Range<u64>> {
    match &options.row_range {
        None => Ok(0..rows),
        Some(range) if range.start <= range.end && range.end <= rows => Ok(range.clone()),
        Some(range) => Err(Error::new(
            Reason::OutOfBounds,
            format!("rows {} to {} of a result of {rows} rows", range.start, range.end),
        )),
    }
}

/// Elements of a row, and bytes of their values. The row's indices, where they are delivered, count for the bound.
fn row_size(items: Option<u64>, output: &Output, options: &PlanOptions, shape: &[u64]) -> Result<(u64, u64)> {
    let fits = |items: &u64| output.row_bytes(*items) <= options.row_bytes_max;
    let items = items.filter(fits).ok_or_else(|| {
        let message = format!("one row of the result of shape {shape:?} passes {} bytes", options.row_bytes_max);
        Error::new(Reason::ResultTooLarge, message)
    })?;
    Ok((items, items.saturating_mul(output.element_bytes)))
}

fn check_result(options: &PlanOptions, range: &Range<u64>, row_bytes: u64, shape: &[u64]) -> Result<()> {
    let Some(bytes_max) = options.result_bytes_max else { return Ok(()) };
    match (range.end - range.start).checked_mul(row_bytes) {
        Some(bytes) if bytes <= bytes_max => Ok(()),
        bytes => {
            let bytes = bytes.map_or_else(|| "more than 2^64".to_owned(), |bytes| bytes.to_string());
            let message = format!(
                "the result of shape {shape:?} has {bytes} bytes, the server sends at most {bytes_max} (result_bytes_max)"
            );
            Err(Error::new(Reason::ResultTooLarge, message))
        }
    }
}

/// Plans the extents that hold selected rows, ascending.
fn touched_extents(extents: &[ExtentView<'_>], wanted: &Wanted<'_>) -> Result<Vec<ExtentPlan>> {
    let (low, high) = wanted.picks.first().and_then(Pick::bounds).unwrap_or((0, 0));
    let mut planned: Vec<ExtentPlan> = Vec::new();
    for (number, view) in extents.iter().enumerate() {
        if view.rows > 0 && view.first_row <= high && low - view.first_row.min(low) < view.rows {
            let extent = ExtentPlan::new(number, view, wanted, planned.last())?;
            planned.push(extent);
        }
    }
    Ok(planned)
}

/// Bytes up to which a batch has its least number of rows: 1,000 rows of 4,096 columns of 8 bytes fit.
const MINIMAL_BATCH_BYTES_MAX: u64 = 64 << 20;

/// Rows that make a batch of the target size, for rows of this many bytes.
pub(crate) fn batch_rows(row_bytes: u64, rows_min: u64, options: &PlanOptions) -> u64 {
    let rows = options.batch_bytes.checked_div(row_bytes).unwrap_or(BATCH_ROWS_MAX);
    // A schema that is large must not make batches of wide rows gigabytes.
    let rows_min = rows_min.min(MINIMAL_BATCH_BYTES_MAX.checked_div(row_bytes).unwrap_or(rows_min));
    rows.max(rows_min).clamp(1, BATCH_ROWS_MAX)
}
