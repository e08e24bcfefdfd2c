//! One extent of a version: how its array is cut into blocks, and what is refused before a byte is read.

use std::sync::Arc;

use super::axis::{Cover, GapRule, Pick, Piece, Spread};
use super::mapping::{Looks, Mosaic, VirtualSource};
use super::{Block, BlockId, BlockSource, ByteRange, ExtentView, PlanOptions};
use crate::codec;
use crate::error::{Error, Reason, Result};
use crate::index::ChunkIndex;
use crate::inspect::Hyperslab;
use crate::meta::{ArrayMeta, ElementType, Storage, product};

/// Decoded bytes of a block that the worker reads from an array without chunks. Part of the blocks' identity.
const WORKER_BLOCK_BYTES: u64 = 1 << 20;
/// Elements of such a block at most.
const WORKER_BLOCK_ELEMENTS: u64 = 65_536;
/// Assumed bytes of a value of no fixed size, where a size is needed before it is read.
const VARIABLE_BYTES_ESTIMATE: u64 = 32;
/// Assumed items of a sequence of no fixed length.
const SEQUENCE_ITEMS_ESTIMATE: u64 = 16;
/// Blocks that one row may touch: chunks of one element would otherwise make lists of millions.
const ROW_BLOCKS_MAX: u64 = 1 << 20;
/// A gap of up to this many bytes between two picked indices is read along: cheaper than another positioned read.
const GAP_BYTES_MAX: u64 = 4096;
/// At most this many times the picked bytes are read for that.
const GAP_FACTOR_MAX: u64 = 16;
/// Byte ranges along one axis of a row of a raw block at most; more are read as one.
const AXIS_RANGES_MAX: usize = 65_536;
/// Byte ranges of one row of a raw block at most: each is a read of its own, and 16 bytes of plan.
const ROW_RANGES_MAX: u64 = 1 << 20;
/// What a block costs besides its bytes, in the plan, in maps and as an allocation: chunks of one element would otherwise
/// make batches of a million blocks.
const BLOCK_BYTES_MIN: u64 = 512;

/// What a plan asks of all its extents.
pub(crate) struct Wanted<'a> {
    /// By axis; axis 0 in rows of the version. None where the rows are points.
    pub(crate) picks: &'a [Pick],
    pub(crate) rows: Rows,
    pub(crate) options: &'a PlanOptions,
    /// The one extent, where it was prepared.
    pub(crate) prepared: Option<&'a VirtualSource>,
}

/// What the rows of the result are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// The indices of this axis.
    Axis(usize),
    /// Single elements; the array then has one axis, see [`super::points`].
    Points,
}

impl Rows {
    /// The axis whose indices are the rows, of the axes that a plan sees.
    pub(crate) fn axis(self) -> usize {
        match self {
            Self::Axis(axis) => axis,
            Self::Points => 0,
        }
    }
}

/// An extent that the selection touches. Rows are places where the result's rows are points.
#[derive(Debug)]
pub(crate) struct ExtentPlan {
    pub(crate) number: u32,
    pub(crate) first_row: u64,
    pub(crate) array_row: u64,
    pub(crate) rows: u64,
    pub(crate) meta: Arc<ArrayMeta>,
    pub(crate) blocks: Blocks,
}

/// How an array is cut.
#[derive(Debug)]
pub(crate) enum Blocks {
    /// A fixed grid, whatever is selected: such blocks are cached.
    Grid(Grid),
    /// Byte ranges of the file or parts of other arrays, made for each batch.
    Raw(Raw),
}

#[derive(Debug)]
pub(crate) struct Grid {
    kind: GridKind,
    pub(crate) block_shape: Vec<u64>,
    /// Blocks by axis.
    counts: Vec<u64>,
    /// By axis; that of the row axis is empty, as rows differ from batch to batch.
    pub(crate) spreads: Arc<Vec<Spread>>,
    /// Indices of a block along the row axis; all its elements where rows are points.
    pub(crate) row_block: u64,
    /// Decoded bytes (estimated where elements have no fixed size) of all touched blocks at one row coordinate.
    pub(crate) row_blocks_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GridKind {
    /// The whole array is one block, already decoded.
    Inline,
    /// HDF5 chunks that we decode: blocks have the declared shape, also at the array's edge.
    Chunks,
    /// HDF5 chunks that the worker reads: cut at the array's edge.
    WorkerChunks,
    /// Boxes without a counterpart in the file, read by the worker.
    WorkerBoxes,
}

#[derive(Debug)]
pub(crate) struct Raw {
    place: RawPlace,
    /// Bytes from one index to the next, by axis.
    strides: Vec<u64>,
    element_bytes: u64,
    /// By axis; that of the row axis is empty.
    pub(crate) covers: Vec<(Cover, Vec<Piece>)>,
    /// Bytes and ranges that are read for one index of the row axis.
    pub(crate) row_bytes: u64,
    pub(crate) row_ranges: u64,
    /// How picked rows are joined.
    pub(crate) row_rule: GapRule,
}

/// Where the bytes of a raw array are.
#[derive(Debug)]
enum RawPlace {
    /// Nowhere: it was never written.
    Nowhere,
    /// In the file, from here on.
    File(u64),
    /// In the sources of a virtual array.
    Sources(Arc<Mosaic>),
}

impl ExtentPlan {
    /// Cuts the extent's array. `before` is the extent before, whose work is taken over where it is the same.
    pub(crate) fn new(
        number: usize,
        view: &ExtentView<'_>,
        wanted: &Wanted<'_>,
        before: Option<&Self>,
    ) -> Result<Self> {
        let meta = match (wanted.prepared, before) {
            (Some(prepared), _) => Arc::clone(&prepared.meta),
            (None, Some(before)) if *before.meta == *view.meta => Arc::clone(&before.meta),
            (None, _) => Arc::new(view.meta.clone()),
        };
        let number = u32::try_from(number)
            .map_err(|_| Error::new(Reason::UnsupportedLayout, "a version of more than 2^32 extents"))?;
        let mut picks = wanted.picks.to_vec();
        if let (Some(Pick::Range { start, count: 1, .. }), true) = (picks.first_mut(), wanted.rows.axis() > 0) {
            *start = *start - view.first_row + view.array_row;
        }
        let wanted = Wanted { picks: &picks, ..*wanted };
        let blocks = match (&meta.storage, meta.element.fixed_bytes()) {
            (Storage::Contiguous { offset }, Some(bytes)) if !view.inline && !meta.converted => {
                Blocks::Raw(Raw::new(&meta, offset.map_or(RawPlace::Nowhere, RawPlace::File), bytes, &wanted)?)
            }
            (Storage::Virtual { .. }, _) => virtual_blocks(&meta, view, &wanted, before)?,
            _ => Blocks::Grid(Grid::new(&meta, view.inline, &wanted, before)?),
        };
        Ok(Self { number, first_row: view.first_row, array_row: view.array_row, rows: view.rows, meta, blocks })
    }

    /// The row of the array that is this row of the version.
    pub(crate) fn array_row_of(&self, version_row: u64) -> u64 {
        version_row - self.first_row + self.array_row
    }

    /// The block of this number in a grid. `None` where the array has no such block.
    pub(crate) fn grid_block(&self, grid: &Grid, id: BlockId, index: &ChunkIndex) -> Option<Block> {
        let slab = grid.slab(id.number, self.meta.shape())?;
        let fixed = self.meta.element.fixed_bytes().is_some();
        let source = match grid.kind {
            GridKind::Inline => BlockSource::Inline,
            GridKind::Chunks => index.find(id.number).map_or(BlockSource::Fill, BlockSource::Stored),
            GridKind::WorkerChunks if fixed && index.find(id.number).is_none() => BlockSource::Fill,
            GridKind::WorkerChunks | GridKind::WorkerBoxes => BlockSource::Worker(slab.clone()),
        };
        Some(Block::new(id, slab, source, &self.meta.element))
    }

    /// The block that holds what these indices by axis cover of a raw array.
    ///
    /// # Errors
    /// Why a source of a virtual array cannot be read; `result_too_large` when that takes too many looks.
    pub(crate) fn raw_block(&self, raw: &Raw, id: BlockId, covers: &[&Cover], looks: &mut Looks) -> Result<Block> {
        let slab = Hyperslab {
            origin: covers.iter().map(|cover| cover.runs.first().map_or(0, |run| run.start)).collect(),
            shape: covers.iter().map(|cover| cover.len).collect(),
        };
        let source = match &raw.place {
            RawPlace::File(offset) => BlockSource::Raw { ranges: raw.ranges(*offset, covers, self.meta.shape()) },
            RawPlace::Nowhere => BlockSource::Fill,
            RawPlace::Sources(mosaic) => match mosaic.copies(covers, self.meta.shape(), looks)? {
                copies if copies.is_empty() => BlockSource::Fill,
                copies => BlockSource::Virtual(copies),
            },
        };
        Ok(Block::new(id, slab, source, &self.meta.element))
    }
}

/// Refuses what is never read, whatever part of it is asked for.
pub(crate) fn refuse_unreadable(meta: &ArrayMeta) -> Result<()> {
    match meta.storage {
        Storage::External => {
            let message = "the dataset's bytes lie in external files, which are never opened";
            return Err(Error::new(Reason::ExternalStorageRefused, message));
        }
        // Of virtual ones it depends on the part, see `mapping`.
        Storage::Compact | Storage::Contiguous { .. } | Storage::Chunked { .. } | Storage::Virtual { .. } => {}
    }
    match meta.element.unsupported() {
        Some(why) => Err(Error::new(Reason::UnsupportedType, format!("no arrow form for the element type: {why}"))),
        None => Ok(()),
    }
}

/// A virtual array is put together for each batch; where only libhdf5 can do that, the worker reads boxes of it.
fn virtual_blocks(
    meta: &ArrayMeta,
    view: &ExtentView<'_>,
    wanted: &Wanted<'_>,
    before: Option<&ExtentPlan>,
) -> Result<Blocks> {
    let mosaic = match wanted.prepared.and_then(|prepared| prepared.mosaic.as_ref()) {
        Some(mosaic) => Arc::clone(mosaic),
        None => Arc::new(Mosaic::new(meta, view.sources)?),
    };
    if mosaic.is_for_the_worker {
        return Ok(Blocks::Grid(Grid::new(meta, false, wanted, before)?));
    }
    // Elsewhere the picks of axis 0 do not count in rows of the array.
    let in_array_rows = wanted.rows.axis() > 0 || (view.first_row, view.array_row) == (0, 0);
    if in_array_rows && wanted.rows != Rows::Points {
        mosaic.refuse_unreadable(wanted.picks)?;
    }
    let element_bytes = estimated_bytes(&meta.element).max(1);
    Ok(Blocks::Raw(Raw::new(meta, RawPlace::Sources(mosaic), element_bytes, wanted)?))
}

/// Bytes of an element in a decoded block: exact for fixed types, an estimate for the others.
pub(crate) fn estimated_bytes(element: &ElementType) -> u64 {
    if let Some(bytes) = element.fixed_bytes() {
        return bytes;
    }
    match element {
        ElementType::VarLen { item } => estimated_bytes(item).saturating_mul(SEQUENCE_ITEMS_ESTIMATE),
        ElementType::Array { dims, item } => {
            dims.iter().fold(estimated_bytes(item), |bytes, dim| bytes.saturating_mul(u64::from(*dim)))
        }
        ElementType::Compound { members, .. } => {
            members.iter().fold(0, |bytes: u64, member| bytes.saturating_add(estimated_bytes(&member.element)))
        }
        _ => VARIABLE_BYTES_ESTIMATE,
    }
}

impl Grid {
    fn new(meta: &ArrayMeta, inline: bool, wanted: &Wanted<'_>, before: Option<&ExtentPlan>) -> Result<Self> {
        let shape = meta.shape();
        let element_bytes = estimated_bytes(&meta.element).max(1);
        let (kind, block_shape) = match &meta.storage {
            _ if inline => (GridKind::Inline, shape.to_vec()),
            Storage::Chunked { chunk_shape } => {
                let filters = meta.filters.iter().all(|filter| codec::supported(filter.id));
                let native = filters && !meta.converted && meta.element.fixed_bytes().is_some();
                (if native { GridKind::Chunks } else { GridKind::WorkerChunks }, chunk_shape.clone())
            }
            _ => (GridKind::WorkerBoxes, worker_box(shape, element_bytes)),
        };
        let (bytes_max, block_elements) = (wanted.options.chunk_bytes_max, product(&block_shape).unwrap_or(u64::MAX));
        let block_bytes = block_elements.saturating_mul(element_bytes);
        if block_bytes > bytes_max && kind != GridKind::WorkerBoxes {
            let message = format!(
                "chunks of shape {block_shape:?} have {block_bytes} bytes, the server decodes at most {bytes_max} (chunk_bytes_max)"
            );
            return Err(Error::new(Reason::ChunkTooLarge, message));
        }
        let spreads = match before.map(|before| &before.blocks) {
            Some(Blocks::Grid(grid)) if grid.block_shape == block_shape => Arc::clone(&grid.spreads),
            _ => Arc::new(spread(&block_shape, wanted)?),
        };
        let (row_block, row_blocks) = match wanted.rows {
            Rows::Points => (block_elements, 1),
            Rows::Axis(row_axis) => {
                let others = (0..block_shape.len()).filter(|axis| *axis != row_axis);
                let row_blocks = others.map(|axis| spreads[axis].len() as u64).product::<u64>();
                (block_shape.get(row_axis).copied().unwrap_or(1), row_blocks)
            }
        };
        let counts = shape.iter().zip(&block_shape).map(|(size, block)| size.div_ceil((*block).max(1))).collect();
        let row_blocks_bytes = row_blocks.saturating_mul(block_bytes.max(BLOCK_BYTES_MIN));
        if row_blocks_bytes > wanted.options.row_blocks_bytes_max {
            let most = wanted.options.row_blocks_bytes_max;
            let message = format!(
                "one row touches {row_blocks} chunks of shape {block_shape:?}, {row_blocks_bytes} bytes when decoded, \
                 the most is {most}"
            );
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
        Ok(Self { kind, block_shape, counts, spreads, row_block, row_blocks_bytes })
    }

    /// The coordinates of a block, and what is left of its number: 0 unless it lies past the grid.
    pub(crate) fn coordinates(&self, number: u64) -> (Vec<u64>, u64) {
        let (mut coordinates, mut left) = (vec![0; self.counts.len()], number);
        for (coordinate, count) in coordinates.iter_mut().zip(&self.counts).rev() {
            *coordinate = left % (*count).max(1);
            left /= (*count).max(1);
        }
        (coordinates, left)
    }

    /// Blocks of the whole array; `None` for more than 2^64.
    pub(crate) fn blocks(&self) -> Option<u64> {
        product(&self.counts)
    }

    /// The box of a block, `None` for a number past the grid.
    fn slab(&self, number: u64, shape: &[u64]) -> Option<Hyperslab> {
        let rank = self.counts.len();
        let (mut origin, left) = self.coordinates(number);
        origin.iter_mut().zip(&self.block_shape).for_each(|(index, block)| *index *= block);
        let clipped = |axis: usize| self.block_shape[axis].min(shape[axis] - origin[axis]);
        let block_shape = match self.kind {
            GridKind::Inline | GridKind::Chunks => self.block_shape.clone(),
            GridKind::WorkerChunks | GridKind::WorkerBoxes => (0..rank).map(clipped).collect(),
        };
        (left == 0).then_some(Hyperslab { origin, shape: block_shape })
    }

    /// Shape of the decoded block at these coordinates.
    pub(crate) fn block_shape_at(&self, coordinates: &[u64], shape: &[u64], out: &mut Vec<u64>) {
        out.clear();
        out.extend_from_slice(&self.block_shape);
        if matches!(self.kind, GridKind::WorkerChunks | GridKind::WorkerBoxes) {
            for (axis, coordinate) in coordinates.iter().enumerate() {
                out[axis] = out[axis].min(shape[axis] - coordinate * self.block_shape[axis]);
            }
        }
    }

    /// Number of the block at these coordinates.
    pub(crate) fn number(&self, coordinates: &[u64]) -> u64 {
        coordinates.iter().zip(&self.counts).fold(0, |number, (coordinate, count)| number * count + coordinate)
    }

    /// The coordinate of a block along the rows.
    pub(crate) fn row_coordinate(&self, number: u64, rows: Rows) -> u64 {
        let Rows::Axis(row_axis) = rows else { return number };
        let inner: u64 = self.counts.iter().skip(row_axis + 1).product();
        number / inner.max(1) % self.counts.get(row_axis).copied().unwrap_or(1).max(1)
    }
}

/// The spread of each axis but the row axis, after a look at how many blocks that will be.
fn spread(block_shape: &[u64], wanted: &Wanted<'_>) -> Result<Vec<Spread>> {
    let Rows::Axis(row_axis) = wanted.rows else { return Ok(Vec::new()) };
    let others = || (0..block_shape.len()).filter(|axis| *axis != row_axis);
    let blocks = others()
        .fold(1u64, |blocks, axis| blocks.saturating_mul(Spread::blocks_max(&wanted.picks[axis], block_shape[axis])));
    if blocks > ROW_BLOCKS_MAX {
        let message = format!("one row touches {blocks} chunks of shape {block_shape:?}, the most is {ROW_BLOCKS_MAX}");
        return Err(Error::new(Reason::ResultTooLarge, message));
    }
    let mut spreads: Vec<Spread> = block_shape.iter().map(|_| Spread::default()).collect();
    for axis in others() {
        spreads[axis] = Spread::new(&wanted.picks[axis], block_shape[axis]);
    }
    Ok(spreads)
}

/// The largest box of whole rows within the bounds of a worker block, or of parts of a row where one is larger.
fn worker_box(shape: &[u64], element_bytes: u64) -> Vec<u64> {
    let mut left = (WORKER_BLOCK_BYTES / element_bytes).clamp(1, WORKER_BLOCK_ELEMENTS);
    let mut block_shape = vec![1; shape.len()];
    for axis in (0..shape.len()).rev() {
        block_shape[axis] = shape[axis].clamp(1, left);
        left = if block_shape[axis] == shape[axis] { (left / block_shape[axis]).max(1) } else { 1 };
    }
    block_shape
}

impl Raw {
    fn new(meta: &ArrayMeta, place: RawPlace, element_bytes: u64, wanted: &Wanted<'_>) -> Result<Self> {
        let elements = [meta.elements()?];
        let shape = match wanted.rows {
            Rows::Axis(_) => meta.shape(),
            Rows::Points => &elements,
        };
        let row_axis = wanted.rows.axis();
        let total = elements[0].checked_mul(element_bytes);
        let offset = if let RawPlace::File(offset) = place { offset } else { 0 };
        if total.and_then(|bytes| bytes.checked_add(offset)).is_none() {
            let message = format!("array of shape {shape:?} at {offset} ends past 2^64 bytes");
            return Err(Error::new(Reason::MalformedFile, message));
        }
        let mut strides = vec![element_bytes; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        // What is read along with a part of a source may be what must not be read: nothing is.
        let exact = matches!(place, RawPlace::Sources(_));
        let rules: Vec<GapRule> = strides
            .iter()
            .map(|stride| {
                if exact {
                    return GapRule { distance_max: 1, runs_max: usize::MAX };
                }
                let distance_max = (GAP_BYTES_MAX / stride).saturating_add(1).min(GAP_FACTOR_MAX);
                GapRule { distance_max, runs_max: AXIS_RANGES_MAX }
            })
            .collect();
        let empty = || (Cover { runs: Vec::new(), len: 1 }, Vec::new());
        let mut covers: Vec<(Cover, Vec<Piece>)> = shape.iter().map(|_| empty()).collect();
        for axis in (0..shape.len()).filter(|axis| *axis != row_axis) {
            covers[axis] = Cover::of_pick(&wanted.picks[axis], rules[axis]);
        }
        if !exact {
            widen(&mut covers, shape, &strides, row_axis);
        }
        let distance_max = rules.get(row_axis).map_or(1, |rule| rule.distance_max);
        // Batches end before their ranges are too many: joining rows that lie far apart could read the whole array.
        let row_rule = GapRule { distance_max, runs_max: usize::MAX };
        let row_bytes = covers.iter().fold(element_bytes, |bytes, (cover, _)| bytes.saturating_mul(cover.len));
        if row_bytes > wanted.options.row_bytes_max {
            let most = wanted.options.row_bytes_max;
            let message = format!("{row_bytes} bytes must be read for one row, the most is {most}");
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
        let mut raw = Self { place, strides, element_bytes, covers, row_bytes, row_ranges: 1, row_rule };
        raw.row_ranges = if exact { 1 } else { raw.ranges_of_a_row(shape, row_axis) };
        if raw.row_ranges > ROW_RANGES_MAX {
            let message =
                format!("one row lies in {} places of the file, the most is {ROW_RANGES_MAX}", raw.row_ranges);
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
        Ok(raw)
    }

    fn ranges_of_a_row(&self, shape: &[u64], row_axis: usize) -> u64 {
        let inside = |axis: &usize| *axis > row_axis && !is_whole(&self.covers[*axis].0, shape[*axis]);
        let Some(last) = (0..shape.len()).rev().find(inside) else { return 1 };
        let outer = (row_axis + 1..last).map(|axis| self.covers[axis].0.len).product::<u64>();
        outer.saturating_mul(self.covers[last].0.runs.len() as u64)
    }

    pub(crate) fn cover<'a>(&'a self, axis: usize, rows: &'a Cover, row_axis: usize) -> &'a Cover {
        if axis == row_axis { rows } else { &self.covers[axis].0 }
    }

    /// Byte ranges that, one after the other, are the covered elements in C order; neighbours are merged.
    fn ranges(&self, offset: u64, covers: &[&Cover], shape: &[u64]) -> Vec<ByteRange> {
        let partial = |axis: &usize| !is_whole(covers[*axis], shape[*axis]);
        let mut ranges = Vec::new();
        if covers.is_empty() {
            return vec![ByteRange { offset, bytes: self.element_bytes }];
        }
        let last = (0..covers.len()).rev().find(partial).unwrap_or(0);
        self.walk(0, offset, &covers[..=last], &mut ranges);
        ranges
    }

    fn walk(&self, axis: usize, base: u64, covers: &[&Cover], ranges: &mut Vec<ByteRange>) {
        let stride = self.strides[axis];
        for run in &covers[axis].runs {
            if axis + 1 < covers.len() {
                run.clone().for_each(|index| self.walk(axis + 1, base + index * stride, covers, ranges));
                continue;
            }
            let (offset, bytes) = (base + run.start * stride, (run.end - run.start) * stride);
            match ranges.last_mut() {
                Some(last) if last.offset + last.bytes == offset => last.bytes += bytes,
                _ => ranges.push(ByteRange { offset, bytes }),
            }
        }
    }
}

fn is_whole(cover: &Cover, size: u64) -> bool {
    cover.len == size
}

/// Makes inner axes whole where that reads little more: one range a row instead of many.
fn widen(covers: &mut [(Cover, Vec<Piece>)], shape: &[u64], strides: &[u64], row_axis: usize) {
    for axis in (row_axis + 1..shape.len()).rev() {
        let (cover, pieces) = &mut covers[axis];
        if is_whole(cover, shape[axis]) {
            continue;
        }
        let [run] = cover.runs.as_slice() else { return };
        let gap = (shape[axis] - cover.len).saturating_mul(strides[axis]);
        if gap > GAP_BYTES_MAX || shape[axis] > cover.len.saturating_mul(GAP_FACTOR_MAX) {
            return;
        }
        pieces.iter_mut().for_each(|piece| piece.source += run.start);
        *cover = Cover { runs: std::iter::once(0..shape[axis]).collect(), len: shape[axis] };
    }
}
