//! Decoded blocks, and their values as Arrow.
//!
//! What lives here: [`Decoded`] (a block as caches hold it, checked), [`Plan::assemble`], and the schema
//! ([`numpy_type`] and the columns). Nothing here fetches or decodes.
//!
//! A decoded block has one of two forms:
//! - *fixed*: elements of [`ElementType::fixed_bytes`] bytes in the file's own form, dense, C order;
//! - *packed*, for elements of no fixed size: element after element in C order, without padding. By recursion: numbers,
//!   enums, booleans, complex numbers, fixed strings, opaque values and bitfields are their bytes; `VarString` is a byte
//!   count (u32, little-endian) and the bytes; `VarLen` an item count (u32) and the items; `Reference` a byte count (u32)
//!   and the path in UTF-8, or `u32::MAX` for null; `Compound` its members in order, one after the other, whatever their
//!   offsets, also where a compound inside has a fixed size; `Array` its items.
//!
//! Invariant: a [`Decoded`] was checked to have exactly the bytes its block declares, so that assembly cannot fail
//! for its content, text that is not UTF-8 excepted.

mod compose;
mod convert;
mod gather;
mod packed;
pub mod scale;
pub(crate) mod schema;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::buffer::Buffer;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;

pub use self::compose::Composition;
use self::convert::{Origin, View, fixed_size_list};
use self::gather::{Nest, Target};
use self::packed::{Builder, Cursor};
use self::schema::ValueColumn;
pub use self::schema::numpy_type;
use crate::error::{Error, Reason, Result};
use crate::meta::{ArrayMeta, ByteOrder, ElementType};
use crate::plan::axis::{Piece, Spread};
use crate::plan::extent::Blocks;
use crate::plan::rows::{Part, Place};
use crate::plan::{BatchPlan, Block, Layout, Plan};

/// A batch may share a block's memory when it is at least this part of it: 1 / 8, a batch of 2 MiB of a chunk of 10 MB,
/// the size that NWB writers choose. What a client that stops reading keeps alive is then at most two such blocks: its
/// next batches lie side by side.
const SHARED_PART_MIN: usize = 8;

/// A decoded block, checked against its declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    bytes: Bytes,
    /// Packed form: where each element starts, and the end.
    starts: Option<Box<[u32]>>,
}

impl Decoded {
    /// A block of elements of fixed size.
    ///
    /// # Errors
    /// `chunk_size_mismatch` unless it has exactly [`Block::decoded_bytes`].
    pub fn fixed(bytes: Bytes, block: &Block) -> Result<Self> {
        if Some(bytes.len() as u64) == block.decoded_bytes {
            return Ok(Self { bytes, starts: None });
        }
        let (Block { id, shape, .. }, declared) = (block, block.decoded_bytes.unwrap_or(0));
        let message = format!("block {} of shape {shape:?} has {} of {declared} bytes", id.number, bytes.len());
        Err(Error::new(Reason::ChunkSizeMismatch, message))
    }

    /// A block in the packed form. Walks through all of it.
    ///
    /// # Errors
    /// `chunk_size_mismatch` where the elements do not end exactly with the bytes.
    pub fn packed(bytes: Bytes, block: &Block, element: &ElementType) -> Result<Self> {
        let mismatch = |what: String| {
            let message = format!("block {} of shape {:?}: {what}", block.id.number, block.shape);
            Error::new(Reason::ChunkSizeMismatch, message)
        };
        let (elements, total) = (block.elements(), bytes.len());
        // Every element takes at least a byte: a false shape cannot make the list of starts large.
        if elements > total as u64 || u32::try_from(total).is_err() {
            return Err(mismatch(format!("{total} bytes for {elements} elements")));
        }
        let mut cursor = Cursor::new(&bytes);
        let mut starts = Vec::with_capacity(elements as usize + 1);
        for _ in 0..elements {
            starts.push((total - cursor.left()) as u32);
            packed::skip(element, 1, &mut cursor).map_err(|error| mismatch(error.message))?;
        }
        starts.push(total as u32);
        if cursor.left() > 0 {
            return Err(mismatch(format!("{} of {total} bytes are left over", cursor.left())));
        }
        Ok(Self { bytes, starts: Some(starts.into()) })
    }

    /// Checks bytes from wherever they came: the form that `meta` has.
    ///
    /// # Errors
    /// As [`Decoded::fixed`] and [`Decoded::packed`].
    pub fn new(bytes: Bytes, block: &Block, meta: &ArrayMeta) -> Result<Self> {
        match block.decoded_bytes {
            Some(_) => Self::fixed(bytes, block),
            None => Self::packed(bytes, block, &meta.element),
        }
    }

    /// A block of nothing but the fill value.
    ///
    /// # Errors
    /// `chunk_size_mismatch` where the fill value is not one element.
    pub fn fill(block: &Block, meta: &ArrayMeta) -> Result<Self> {
        let elements = usize::try_from(block.elements())
            .map_err(|_| Error::new(Reason::Internal, format!("a fill block of shape {:?}", block.shape)))?;
        let bytes = match (&meta.fill, block.decoded_bytes) {
            (Some(fill), _) => Bytes::from(fill.repeat(elements)),
            (None, Some(bytes)) => Bytes::from(vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)]),
            (None, None) => {
                let mut empty = Vec::new();
                packed::empty_value(&meta.element, &mut empty)?;
                Bytes::from(empty.repeat(elements))
            }
        };
        Self::new(bytes, block, meta)
    }

    /// The bytes, as another cache may keep them.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Memory that it takes, in bytes.
    pub fn weight(&self) -> usize {
        let starts = self.starts.as_ref().map_or(0, |starts| size_of_val::<[u32]>(starts));
        size_of::<Self>() + self.bytes.len() + starts
    }

    fn has(&self, elements: u64, element_bytes: Option<u64>) -> bool {
        match (&self.starts, element_bytes) {
            (Some(starts), None) => starts.len() as u64 == elements + 1,
            (None, Some(bytes)) => bytes.checked_mul(elements) == Some(self.bytes.len() as u64),
            (Some(_), Some(_)) | (None, None) => false,
        }
    }

    fn element(&self, at: usize) -> &[u8] {
        match &self.starts {
            Some(starts) => &self.bytes[starts[at] as usize..starts[at + 1] as usize],
            None => &[],
        }
    }
}

/// Distances of a copy, in bytes or elements.
struct Strides {
    /// From one element of a block to the next.
    source: usize,
    /// Where the wanted part of an element starts.
    offset: usize,
    /// Size of the wanted part.
    run: usize,
    /// By axis of the array; 0 for axes that the result does not have.
    target: Vec<usize>,
}

impl Plan {
    /// Places the values of a batch's decoded blocks, which come in the order of [`BatchPlan::blocks`], into Arrow.
    /// Values of fixed size are copied once, or not at all where a block already is the batch: the record batch may
    /// then keep a block alive of up to eight times its size.
    ///
    /// # Errors
    /// `not_utf8`, `result_too_large` (2 GiB of strings in a batch); `internal` for blocks of another plan.
    pub fn assemble(&self, batch: &BatchPlan, blocks: &[Arc<Decoded>]) -> Result<RecordBatch> {
        self.check_blocks(batch, blocks)?;
        let rows = usize::try_from(batch.rows.end - batch.rows.start)
            .ok()
            .and_then(|rows| Some((rows, rows.checked_mul(usize::try_from(self.items).ok()?)?)));
        let (rows, values) = rows.ok_or_else(|| Error::new(Reason::Internal, "a batch of more than 2^64 values"))?;
        let records = if self.output.layout == Layout::Tidy { values } else { rows };
        let mut columns = self.index_columns(batch)?;
        if self.element.fixed_bytes().is_some() {
            self.fixed_columns(batch, blocks, rows, &mut columns)?;
        } else {
            self.packed_columns(batch, blocks, rows, &mut columns)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(records));
        RecordBatch::try_new_with_options(self.schema(), columns, &options).map_err(convert::internal)
    }

    fn check_blocks(&self, batch: &BatchPlan, blocks: &[Arc<Decoded>]) -> Result<()> {
        let (given, wanted) = (blocks.len(), batch.blocks.len());
        let mut fits = given == wanted;
        if fits {
            let element_bytes = self.element.fixed_bytes();
            self.each_block_shape(batch, |position, _, shape, _| {
                fits &= blocks[position].has(shape.iter().product(), element_bytes);
            });
        }
        if fits {
            return Ok(());
        }
        Err(Error::new(Reason::Internal, format!("{given} blocks do not fit a batch of {wanted}")))
    }

    /// The values' indices, one column for each axis of the result; in the tidy layout only.
    fn index_columns(&self, batch: &BatchPlan) -> Result<Vec<ArrayRef>> {
        if let Some(points) = &self.points {
            let column = |axis: &usize| {
                let indices = batch.rows.clone().map(|point| index(points.coordinate(point, *axis), *axis));
                Ok(Arc::new(Int64Array::from(indices.collect::<Result<Vec<_>>>()?)) as ArrayRef)
            };
            return self.output.index_axes.iter().map(column).collect();
        }
        let sizes: Vec<u64> = self.kept.iter().map(|axis| self.picks[*axis].count()).collect();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (position, axis) in self.output.index_axes.iter().enumerate() {
            let places = if position == 0 { batch.rows.clone() } else { 0..sizes[position] };
            let outer: u64 = match position {
                0 => 1,
                _ => (batch.rows.end - batch.rows.start) * sizes[1..position].iter().product::<u64>(),
            };
            let inner = sizes[position + 1..].iter().product::<u64>() as usize;
            let mut indices = Vec::new();
            for place in places {
                let index = index(self.picks[*axis].at(place), *axis)?;
                indices.extend(std::iter::repeat_n(index, inner));
            }
            columns.push(Arc::new(Int64Array::from(indices.repeat(outer as usize))));
        }
        Ok(columns)
    }

    fn fixed_columns(
        &self,
        batch: &BatchPlan,
        blocks: &[Arc<Decoded>],
        rows: usize,
        columns: &mut Vec<ArrayRef>,
    ) -> Result<()> {
        let items = self.items as usize;
        for column in &self.output.values {
            let width = column.element.fixed_bytes().unwrap_or(0) as usize;
            let bytes = self.gather(batch, blocks, column, rows)?;
            let views = if self.output.layout == Layout::Columns { items } else { 1 };
            let count = rows * items / views.max(1);
            for at in 0..views {
                let view = View { bytes: bytes.clone(), offset: at * count * width, stride: width, count };
                columns.push(self.column(column, batch, rows, |data_type, origin| {
                    convert::array(&column.element, &view, data_type, origin)
                })?);
            }
        }
        Ok(())
    }

    /// Wraps values in the list that a row is, where it is one.
    fn column(
        &self,
        column: &ValueColumn,
        batch: &BatchPlan,
        rows: usize,
        values: impl FnOnce(&arrow::datatypes::DataType, &Origin<'_>) -> Result<ArrayRef>,
    ) -> Result<ArrayRef> {
        let per_row = if self.output.layout == Layout::Columns { 1 } else { self.items };
        let origin = Origin { column: column.field.name(), rows: batch.rows.clone(), per_row: Some(per_row) };
        let Some((item, size)) = &column.tensor else {
            return values(column.field.data_type(), &origin);
        };
        let records = if self.output.layout == Layout::Tidy { rows * self.items as usize } else { rows };
        fixed_size_list(item, *size, values(item.data_type(), &origin)?, records)
    }

    /// The wanted part of every element, dense: in the order of the result, or column by column.
    fn gather(&self, batch: &BatchPlan, blocks: &[Arc<Decoded>], column: &ValueColumn, rows: usize) -> Result<Buffer> {
        let run = column.element.fixed_bytes().unwrap_or(0) as usize;
        let source = self.element.fixed_bytes().unwrap_or(0) as usize;
        let total = rows.checked_mul(self.items as usize).and_then(|values| values.checked_mul(run));
        let total = total.ok_or_else(|| Error::new(Reason::Internal, "a batch of more than 2^64 bytes"))?;
        let strides = Strides { source, offset: column.offset, run, target: self.target_strides(rows, run) };
        let mut shared = None;
        if let [block] = blocks {
            self.each_nest(batch, &strides, |_, nest| {
                let whole = nest.single_run().filter(|(_, bytes)| *bytes == total);
                shared = whole.and_then(|(start, _)| share(block, start, total, &column.element));
            });
        }
        if let Some(shared) = shared {
            return Ok(shared);
        }
        let mut target = Target::new(total);
        self.each_nest(batch, &strides, |position, nest| target.copy(nest, &blocks[position].bytes));
        Ok(target.finish())
    }

    fn packed_columns(
        &self,
        batch: &BatchPlan,
        blocks: &[Arc<Decoded>],
        rows: usize,
        columns: &mut Vec<ArrayRef>,
    ) -> Result<()> {
        let strides = Strides { source: 1, offset: 0, run: 1, target: self.target_strides(rows, 1) };
        let mut places = vec![(0u32, 0u32); rows * self.items as usize];
        self.each_nest(batch, &strides, |position, nest| {
            nest.each(|source, target| places[target] = (position as u32, source as u32));
        });
        let lists = if self.output.layout == Layout::Columns { self.items as usize } else { 1 };
        let values_per_list = places.len() / lists.max(1);
        for list in 0..lists {
            let places = &places[list * values_per_list..(list + 1) * values_per_list];
            let builders = self.build(batch, blocks, places)?;
            for (column, builder) in self.output.values.iter().zip(builders) {
                columns.push(self.column(column, batch, rows, |data_type, origin| builder.finish(data_type, origin))?);
            }
        }
        Ok(())
    }

    /// One builder for each value column, filled with the elements at these places (block, element).
    fn build(&self, batch: &BatchPlan, blocks: &[Arc<Decoded>], places: &[(u32, u32)]) -> Result<Vec<Builder<'_>>> {
        let values = &self.output.values;
        let builders = values.iter().map(|column| Builder::of_column(&column.element, column.field.data_type()));
        let mut builders = builders.collect::<Result<Vec<_>>>()?;
        let origin = Origin { column: values[0].field.name(), rows: batch.rows.clone(), per_row: None };
        let ElementType::Compound { members, .. } = &self.element else {
            for (block, element) in places {
                let mut cursor = Cursor::new(blocks[*block as usize].element(*element as usize));
                builders[0].append(1, &mut cursor, &origin)?;
            }
            return Ok(builders);
        };
        let builder_of = |member: usize| values.iter().position(|column| column.member == Some(member));
        let taken_by: Vec<Option<usize>> = (0..members.len()).map(builder_of).collect();
        for (block, element) in places {
            let mut cursor = Cursor::new(blocks[*block as usize].element(*element as usize));
            for (member, taken_by) in members.iter().zip(&taken_by) {
                match taken_by {
                    Some(builder) => builders[*builder].append(1, &mut cursor, &origin)?,
                    None => packed::skip(&member.element, 1, &mut cursor)?,
                }
            }
        }
        Ok(builders)
    }

    /// Distances in the result, by axis of the array, for values of `run`.
    fn target_strides(&self, rows: usize, run: usize) -> Vec<usize> {
        let mut strides = vec![0; self.picks.len()];
        if let (Layout::Columns, [row_axis, column_axis]) = (self.output.layout, self.kept.as_slice()) {
            (strides[*row_axis], strides[*column_axis]) = (run, run * rows);
            return strides;
        }
        let mut stride = run;
        for axis in self.kept.iter().rev() {
            strides[*axis] = stride;
            stride = stride.saturating_mul(self.picks[*axis].count() as usize);
        }
        strides
    }

    /// Calls `visit` with the position, the part, the shape and the spread positions of each block of a batch.
    fn each_block_shape(&self, batch: &BatchPlan, mut visit: impl FnMut(usize, &Part, &[u64], &[usize])) {
        let (mut position, mut shape) = (0, Vec::new());
        for part in &batch.parts {
            let extent = &self.extents[part.extent];
            match (&extent.blocks, &part.place) {
                (Blocks::Grid(grid), Place::Coordinate(row)) => {
                    self.each_block(grid, *row, |coordinates, positions| {
                        grid.block_shape_at(coordinates, extent.meta.shape(), &mut shape);
                        if self.points.is_some() {
                            shape = vec![shape.iter().product()];
                        }
                        visit(position, part, &shape, positions);
                        position += 1;
                    });
                }
                (Blocks::Raw(raw), Place::Rows(rows)) => {
                    let axes = 0..raw.covers.len();
                    shape = axes.map(|axis| raw.cover(axis, rows, self.row_axis).len).collect();
                    visit(position, part, &shape, &[]);
                    position += 1;
                }
                // A part has the kind of its extent.
                (Blocks::Grid(_), Place::Rows(_)) | (Blocks::Raw(_), Place::Coordinate(_)) => {}
            }
        }
    }

    /// Calls `visit` with every copy of a batch: the position of the block, and what to copy out of it.
    fn each_nest(&self, batch: &BatchPlan, strides: &Strides, mut visit: impl FnMut(usize, &Nest)) {
        let mut nest = Nest::default();
        let mut source_strides = Vec::new();
        self.each_block_shape(batch, |position, part, shape, positions| {
            source_strides.clear();
            source_strides.resize(shape.len(), strides.source);
            for axis in (1..shape.len()).rev() {
                source_strides[axis - 1] = source_strides[axis] * shape[axis] as usize;
            }
            let pieces: Vec<&[Piece]> = (0..shape.len()).map(|axis| self.pieces(part, axis, positions)).collect();
            let mut at = vec![0; shape.len()];
            loop {
                nest.start(strides.offset, strides.run);
                for (axis, pieces) in pieces.iter().enumerate() {
                    nest.push(&pieces[at[axis]], source_strides[axis], strides.target[axis]);
                }
                nest.merge();
                visit(position, &nest);
                // Counts up like an odometer, the last axis first.
                let advanced = (0..shape.len()).rev().any(|axis| {
                    at[axis] = (at[axis] + 1) % pieces[axis].len();
                    at[axis] != 0
                });
                if !advanced {
                    return;
                }
            }
        });
    }

    fn pieces<'a>(&'a self, part: &'a Part, axis: usize, positions: &[usize]) -> &'a [Piece] {
        if axis == self.row_axis {
            return &part.pieces;
        }
        match &self.extents[part.extent].blocks {
            Blocks::Grid(grid) => Spread::pieces(&grid.spreads[axis], positions[axis]),
            Blocks::Raw(raw) => &raw.covers[axis].1,
        }
    }
}

/// An index as the tidy layout shows it.
fn index(index: u64, axis: usize) -> Result<i64> {
    i64::try_from(index)
        .map_err(|_| Error::new(Reason::BadLayout, format!("layout tidy: an index of axis {axis} passes 63 bits")))
}

/// A part of a block as an Arrow buffer without a copy, where that is allowed and worth it.
fn share(block: &Decoded, start: usize, bytes: usize, element: &ElementType) -> Option<Buffer> {
    let (align, in_order) = match element {
        ElementType::Integer { bytes, order, .. } | ElementType::Float { bytes, order } => {
            (*bytes as usize, *order == ByteOrder::Little || *bytes == 1)
        }
        _ => (1, true),
    };
    let shared = bytes > 0 && bytes.saturating_mul(SHARED_PART_MIN) >= block.bytes.len();
    let buffer = (shared && in_order).then(|| Buffer::from(block.bytes.slice(start..start + bytes)))?;
    (buffer.as_ptr().align_offset(align) == 0).then_some(buffer)
}
