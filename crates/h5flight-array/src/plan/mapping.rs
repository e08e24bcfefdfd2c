//! Virtual arrays: which part of which source goes where. Pure arithmetic, axis by axis.
//!
//! A mapping says that one hyperslab of the virtual array is, element by element in C order, a hyperslab of a source.
//! Axes of size 1 on either side aside, both slabs must have the same sizes: then the order of the elements is that of
//! the axes, and a block of the virtual array meets a mapping in the product of what its axes meet. What no mapping
//! reaches is the fill value; what a mapping reaches that cannot be read is an error, never the fill value.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::axis::{Cover, Pick};
use super::{ExtentView, Plan, PlanOptions};
use crate::error::{Error, Reason, Result};
use crate::meta::{ArrayMeta, SlabAxis, Storage, VirtualMapping, product};
use crate::plan::Layout;
use crate::selection::points::coordinates_of;
use crate::selection::{AxisSelection, Picked, Resolved};

/// Looks for one block of a virtual array, its sources' blocks included: half a second.
const LOOKS_MAX: u64 = 1 << 26;
/// Looks that a copy counts for, as its source is planned for it: a block is made of 2^18 copies at most, four times as
/// many as one virtual array may have mappings.
const COPY_LOOKS: u64 = 1 << 8;
/// Looks that a run of indices of a copy counts for. It takes 32 bytes: 128 MiB for all of a block.
const RUN_LOOKS: u64 = 1 << 4;
/// Looks that an index in a list counts for. It takes 8 bytes: 128 MiB for all of a block.
const INDEX_LOOKS: u64 = 1 << 2;

/// How much may be looked at to find out what a block of a virtual array is made of. A unit is the comparison of one
/// mapping with one block or point, some ten nanoseconds. Mappings may overlap and sources be virtual themselves, so a
/// small file can ask for any amount of it. A read has no such bound: it is as long as its dataset, block by block.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    left: u64,
    spent: bool,
}

impl Default for Looks {
    fn default() -> Self {
        Self::new(LOOKS_MAX)
    }
}

impl Looks {
    /// At most this many.
    pub fn new(looks_max: u64) -> Self {
        Self { left: looks_max, spent: false }
    }

    /// Takes some.
    ///
    /// # Errors
    /// `result_too_large` when there are not so many left.
    pub fn take(&mut self, looks: u64) -> Result<()> {
        match self.left.checked_sub(looks) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.spent = true;
                let message = "too many mappings of virtual datasets meet in one batch; select less of it, or read the \
                               sources";
                Err(Error::new(Reason::ResultTooLarge, message))
            }
        }
    }

    /// Whether more were wanted than there were.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// What a plan knows of the source of a mapping.
#[derive(Clone, Copy, Debug)]
pub enum SourceView<'a> {
    /// It can be read; already passed through [`ArrayMeta::check`].
    Served(&'a ArrayMeta),
    /// It cannot, and neither can what is mapped to it.
    Refused(Reason, &'a str),
}

/// Part of a source and where it goes in a block of the virtual array. The places are a product over the axes of the
/// block; in C order they take the selected elements in C order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualCopy {
    /// Number of the mapping.
    pub mapping: u32,
    selected: Picked,
    /// By axis of the block; none is empty.
    pub(crate) places: Vec<Vec<Range<u64>>>,
}

impl VirtualCopy {
    /// The plan of reading it from its source. Its batches are for [`crate::batch::Composition::take`] alone.
    ///
    /// # Errors
    /// As [`Plan::new`]; `result_too_large` when `looks` do not suffice.
    pub fn plan(&self, source: &VirtualSource, options: &PlanOptions, looks: &mut Looks) -> Result<Plan> {
        looks.take(COPY_LOOKS + source.mosaic.as_ref().map_or(0, |mosaic| mosaic.unreadable.len() as u64))?;
        let VirtualSource { meta, inline, .. } = source;
        let selected = Resolved::of_picked(self.selected.clone(), meta.shape())?;
        let options = PlanOptions {
            layout: Layout::Tensor,
            result_bytes_max: None,
            row_bytes_max: u64::MAX,
            row_range: None,
            ..options.clone()
        };
        let rows = meta.shape().first().copied().unwrap_or(1);
        let view = ExtentView { first_row: 0, array_row: 0, rows, meta, inline: *inline, sources: &[] };
        Plan::prepared(&[view], &selected, &options, Some(source))
    }
}

/// An array that virtual arrays take parts of. Prepared once, at the cost of all its mappings where it is virtual
/// itself, it is planned any number of times.
#[derive(Clone, Debug)]
pub struct VirtualSource {
    pub(crate) meta: Arc<ArrayMeta>,
    inline: bool,
    pub(crate) mosaic: Option<Arc<Mosaic>>,
}

impl VirtualSource {
    /// Of an array, whether it is at hand as one decoded block, and its own sources. An array has far fewer mappings
    /// than there are looks, so that many of it are not counted.
    ///
    /// # Errors
    /// `virtual_source_refused` for a virtual array without sources.
    pub fn new(meta: &ArrayMeta, inline: bool, sources: &[SourceView<'_>]) -> Result<Self> {
        let mosaic = match &meta.storage {
            Storage::Virtual { .. } => Some(Arc::new(Mosaic::new(meta, sources)?)),
            Storage::Compact | Storage::Contiguous { .. } | Storage::Chunked { .. } | Storage::External => None,
        };
        Ok(Self { meta: Arc::new(meta.clone()), inline, mosaic })
    }
}

/// The mappings of one virtual array, ready to be looked up.
#[derive(Debug)]
pub(crate) struct Mosaic {
    /// Ascending by first row.
    tiles: Vec<Tile>,
    /// The last row of any tile up to this one.
    reach: Vec<u64>,
    /// The tiles that cannot be read.
    unreadable: Vec<usize>,
    /// Whether libhdf5 must read the array, and may: some tile only it can put together, and no other file is needed.
    pub(crate) is_for_the_worker: bool,
}

#[derive(Debug)]
struct Tile {
    /// Number of its mapping.
    number: u32,
    /// By axis of the virtual array.
    axes: Vec<Line>,
    source: Result<Readable, Unreadable>,
}

/// How the source of a tile is read.
#[derive(Debug)]
struct Readable {
    axes: Vec<SourceAxis>,
    shape: Vec<u64>,
}

#[derive(Debug)]
enum SourceAxis {
    /// Always this index.
    At(u64),
    /// Follows an axis of the virtual array.
    Follows(usize, Line),
}

/// Points of a block that lie in one tile.
#[derive(Debug, Default)]
struct TilePoints {
    /// Positions in the source; `None` where that is a scalar.
    positions: Option<Vec<u64>>,
    places: Vec<Range<u64>>,
}

/// Why a tile cannot be read.
#[derive(Clone, Debug)]
struct Unreadable {
    reason: Reason,
    message: String,
    /// libhdf5 could, as it converts element types and takes any two selections of the same size.
    by_library: bool,
}

impl Mosaic {
    pub(crate) fn new(meta: &ArrayMeta, sources: &[SourceView<'_>]) -> Result<Self> {
        let Storage::Virtual { mappings } = &meta.storage else {
            return Err(Error::new(Reason::Internal, "the mappings of an array that is not virtual"));
        };
        if mappings.is_empty() || mappings.len() != sources.len() {
            let message = "the virtual dataset was indexed without its sources; register its file again";
            return Err(Error::new(Reason::VirtualSourceRefused, message));
        }
        let numbered = (0..).zip(mappings.iter().zip(sources));
        let mut tiles: Vec<Tile> =
            numbered.filter_map(|(number, (mapping, source))| Tile::new(number, mapping, *source, meta)).collect();
        tiles.sort_by_key(Tile::first_row);
        let reach = tiles.iter().scan(0, |reach, tile| {
            *reach = tile.last_row().max(*reach);
            Some(*reach)
        });
        let reach = reach.collect();
        let unreadable: Vec<usize> = (0..tiles.len()).filter(|at| tiles[*at].source.is_err()).collect();
        let by_library = |at: &usize| tiles[*at].source.as_ref().is_err_and(|found| found.by_library);
        let is_for_the_worker = mappings.iter().all(|mapping| mapping.file.is_none())
            && !unreadable.is_empty()
            && unreadable.iter().all(by_library);
        Ok(Self { tiles, reach, unreadable, is_for_the_worker })
    }

    /// Refuses a selection that certainly reaches what cannot be read. Of steps and lists it is found out when their
    /// blocks are planned.
    pub(crate) fn refuse_unreadable(&self, picks: &[Pick]) -> Result<()> {
        let meets = |(pick, line): (&Pick, &Line)| {
            let (Some((low, high)), true) = (pick.bounds(), pick.is_gapless()) else { return false };
            line.meet(std::slice::from_ref(&(low..high + 1))).next().is_some()
        };
        let unreadable = self.unreadable.iter().map(|at| &self.tiles[*at]);
        let met = unreadable.filter(|tile| picks.iter().zip(&tile.axes).all(meets));
        // What nobody could read is told first: without it libhdf5 might read the rest.
        let worst = met.filter_map(|tile| tile.source.as_ref().err()).min_by_key(|found| found.by_library);
        worst.map_or(Ok(()), |found| Err(Error::new(found.reason, found.message.clone())))
    }

    /// What to copy for a block that covers these indices, in the order of the mappings. Where the rows are points, there
    /// is one cover: of positions in C order.
    ///
    /// # Errors
    /// Why a tile that the block reaches cannot be read; `result_too_large` when `looks` do not suffice.
    pub(crate) fn copies(&self, covers: &[&Cover], shape: &[u64], looks: &mut Looks) -> Result<Vec<VirtualCopy>> {
        if let ([points], true) = (covers, shape.len() > 1) {
            return self.copies_of_points(points, shape, looks);
        }
        let rows = covers.first().and_then(|cover| Some((cover.runs.first()?.start, cover.runs.last()?.end - 1)));
        // A scalar has no row, and its tiles lie at 0.
        let (first, last) = rows.unwrap_or((0, 0));
        let mut copies = Vec::new();
        let near = self.near(first, last);
        looks.take(near.len() as u64)?;
        for tile in &self.tiles[near] {
            copies.extend(tile.copy(covers, looks)?);
        }
        copies.sort_unstable_by_key(|copy| copy.mapping);
        Ok(copies)
    }

    /// The tiles that may reach these rows.
    fn near(&self, first: u64, last: u64) -> Range<usize> {
        let from = self.reach.partition_point(|reach| *reach < first);
        let to = self.tiles.partition_point(|tile| tile.first_row() <= last);
        from.min(to)..to
    }

    fn copies_of_points(&self, points: &Cover, shape: &[u64], looks: &mut Looks) -> Result<Vec<VirtualCopy>> {
        let mut found: BTreeMap<u32, TilePoints> = BTreeMap::new();
        let mut index = Vec::new();
        for (place, position) in (0..).zip(points.runs.iter().flat_map(Clone::clone)) {
            coordinates_of(position, shape, &mut index);
            let near = self.near(index[0], index[0]);
            looks.take(near.len() as u64)?;
            for tile in &self.tiles[near] {
                if let Some(of_source) = tile.position(&index)? {
                    looks.take(INDEX_LOOKS)?;
                    let TilePoints { positions, places } = found.entry(tile.number).or_default();
                    if !tile.readable()?.shape.is_empty() {
                        positions.get_or_insert_default().push(of_source);
                    }
                    extend(places, place, 1);
                }
            }
        }
        let copy = |(mapping, TilePoints { positions, places })| {
            // A scalar has no axis to have points on, and is mapped to one element.
            let selected = positions.map_or(Picked::Axes(Vec::new()), |found| Picked::Elements(found.into()));
            VirtualCopy { mapping, selected, places: vec![places] }
        };
        Ok(found.into_iter().map(copy).collect())
    }
}

impl Tile {
    /// `None` where nothing is mapped.
    fn new(number: u32, mapping: &VirtualMapping, source: SourceView<'_>, meta: &ArrayMeta) -> Option<Self> {
        let mut axes: Vec<Line> =
            mapping.slab.iter().zip(meta.shape()).map(|(axis, size)| Line::new(axis, *size)).collect();
        let source = match source {
            SourceView::Served(served) => source_axes(number, mapping, (meta, served), &mut axes)
                .map(|axes| Readable { axes, shape: served.shape().to_vec() }),
            SourceView::Refused(reason, message) => {
                Err(Unreadable { reason, message: message.to_owned(), by_library: false })
            }
        };
        let is_empty = axes.iter().any(|axis| axis.len == 0);
        (!is_empty).then_some(Self { number, axes, source })
    }

    fn first_row(&self) -> u64 {
        self.axes.first().map_or(0, |rows| rows.start)
    }

    fn last_row(&self) -> u64 {
        self.axes.first().map_or(0, |rows| rows.index(rows.len - 1))
    }

    fn copy(&self, covers: &[&Cover], looks: &mut Looks) -> Result<Option<VirtualCopy>> {
        let mut ordinals = Vec::with_capacity(covers.len());
        let mut places = Vec::with_capacity(covers.len());
        for (line, cover) in self.axes.iter().zip(covers) {
            let (of_source, of_block) = meetings(line, cover, looks)?;
            if of_block.is_empty() {
                return Ok(None);
            }
            ordinals.push(of_source);
            places.push(of_block);
        }
        let selected = self.readable()?.axes.iter().map(|axis| match axis {
            SourceAxis::At(index) => Ok(AxisSelection::Index(*index)),
            SourceAxis::Follows(axis, line) => line.selection(&ordinals[*axis], looks),
        });
        let selected = Picked::Axes(selected.collect::<Result<_>>()?);
        Ok(Some(VirtualCopy { mapping: self.number, selected, places }))
    }

    fn readable(&self) -> Result<&Readable> {
        self.source.as_ref().map_err(|found| Error::new(found.reason, found.message.clone()))
    }

    /// Position in the source of the element at this index of the virtual array; `None` outside the tile.
    fn position(&self, index: &[u64]) -> Result<Option<u64>> {
        if !self.axes.iter().zip(index).all(|(line, index)| line.ordinal(*index).is_some()) {
            return Ok(None);
        }
        let Readable { axes, shape } = self.readable()?;
        let mut position = 0;
        for (axis, size) in axes.iter().zip(shape) {
            let own = match axis {
                SourceAxis::At(index) => *index,
                SourceAxis::Follows(axis, line) => {
                    self.axes[*axis].ordinal(index[*axis]).map_or(0, |ordinal| line.index(ordinal))
                }
            };
            position = position * size + own;
        }
        Ok(Some(position))
    }
}

/// How the axes of a source follow those of the virtual array, whose growing one is cut to the source's length.
fn source_axes(
    number: u32,
    mapping: &VirtualMapping,
    (meta, source): (&ArrayMeta, &ArrayMeta),
    axes: &mut [Line],
) -> Result<Vec<SourceAxis>, Unreadable> {
    let name = mapping.source_name();
    let unreadable = |reason, by_library, what: String| {
        Err(Unreadable { reason, message: format!("mapping {number} to {name}: {what}"), by_library })
    };
    let shape = source.shape();
    let whole: Vec<SlabAxis> = shape.iter().map(|size| SlabAxis::run(0, *size)).collect();
    let slab = mapping.source_slab.as_deref().unwrap_or(&whole);
    if slab.len() != shape.len() {
        let what = format!("the mapping has {} axes, the source {}", slab.len(), shape.len());
        return unreadable(Reason::VirtualSourceRefused, false, what);
    }
    let mut lines: Vec<Line> = slab.iter().zip(shape).map(|(axis, size)| Line::new(axis, *size)).collect();
    let growing = |slab: &[SlabAxis]| slab.iter().position(|axis| axis.count.is_none());
    match (growing(&mapping.slab), growing(slab)) {
        (None, None) => {}
        (Some(own), Some(other)) => {
            let len = axes[own].len.min(lines[other].len);
            (axes[own].len, lines[other].len) = (len, len);
        }
        _ => {
            let what = "only one side of the mapping grows".to_owned();
            return unreadable(Reason::UnsupportedLayout, false, what);
        }
    }
    let leaves = |(line, size): (&Line, &u64)| line.len > 0 && line.index(line.len - 1) >= *size;
    if lines.iter().zip(shape).any(leaves) {
        let what = format!("the source of shape {shape:?} is smaller than what is mapped of it");
        return unreadable(Reason::VirtualSourceRefused, false, what);
    }
    let wide = |lines: &[Line]| (0..lines.len()).filter(|axis| lines[*axis].len != 1).collect::<Vec<_>>();
    let (own, other) = (wide(axes), wide(&lines));
    let sizes = |lines: &[Line], wide: &[usize]| wide.iter().map(|axis| lines[*axis].len).collect::<Vec<_>>();
    let (to, from) = (sizes(axes, &own), sizes(&lines, &other));
    if product(&to) != product(&from) {
        let what = format!("the source is mapped whole to shape {to:?}, and has shape {from:?}");
        return unreadable(Reason::VirtualSourceRefused, false, what);
    }
    if meta.element.form() != source.element.form() || meta.converted != source.converted {
        let what = "the source has another element type than the virtual dataset".to_owned();
        return unreadable(Reason::UnsupportedType, true, what);
    }
    if to != from {
        let what = format!("a selection of shape {from:?} is mapped to one of shape {to:?}");
        return unreadable(Reason::UnsupportedLayout, true, what);
    }
    let mut own = own.into_iter();
    let follow = |line: Line| match line.len {
        1 => SourceAxis::At(line.start),
        _ => SourceAxis::Follows(own.next().expect("both have as many wide axes"), line),
    };
    Ok(lines.into_iter().map(follow).collect())
}

/// Indices of one axis of a slab; their positions among themselves are *ordinals*.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u64,
    stride: u64,
    block: u64,
    /// How many.
    len: u64,
}

impl Line {
    /// `size` is the length of the array's axis, to which a growing slab is cut.
    fn new(axis: &SlabAxis, size: u64) -> Self {
        let SlabAxis { start, stride, count, block } = *axis;
        let len = match count {
            Some(count) => count.saturating_mul(block),
            None => {
                let room = size.saturating_sub(start);
                (room / stride).saturating_mul(block) + (room % stride).min(block)
            }
        };
        if stride == block || len <= block {
            return Self { start, stride: len.max(1), block: len.max(1), len };
        }
        Self { start, stride, block, len }
    }

    fn index(&self, ordinal: u64) -> u64 {
        self.start + ordinal / self.block * self.stride + ordinal % self.block
    }

    /// Where an index is on the line, if it is.
    fn ordinal(&self, index: u64) -> Option<u64> {
        let from_start = index.checked_sub(self.start)?;
        let (number, within) = (from_start / self.stride, from_start % self.stride);
        let ordinal = number.checked_mul(self.block)?.checked_add(within)?;
        (within < self.block && ordinal < self.len).then_some(ordinal)
    }

    /// Which of these runs, ascending, lie between the line's ends.
    fn near(&self, runs: &[Range<u64>]) -> Range<usize> {
        let end = self.index(self.len - 1) + 1;
        let from = runs.partition_point(|run| run.end <= self.start);
        from..runs.partition_point(|run| run.start < end).max(from)
    }

    /// Runs of the line's indices that lie in the given runs, ascending: (first index, first ordinal, how many).
    fn meet<'a>(&'a self, runs: &'a [Range<u64>]) -> impl Iterator<Item = (u64, u64, u64)> + 'a {
        runs[self.near(runs)].iter().flat_map(move |run| {
            let first = run.start.saturating_sub(self.start) / self.stride;
            let blocks = self.len.div_ceil(self.block);
            let starts = (first..blocks).map(|number| (number, self.start + number * self.stride));
            starts.take_while(|(_, start)| *start < run.end).filter_map(|(number, start)| {
                let ordinal = number * self.block;
                let end = (start + self.block.min(self.len - ordinal)).min(run.end);
                let low = start.max(run.start);
                (low < end).then(|| (low, ordinal + (low - start), end - low))
            })
        })
    }

    fn selection(&self, ordinals: &[Range<u64>], looks: &mut Looks) -> Result<AxisSelection> {
        if let [run] = ordinals
            && run.start / self.block == (run.end - 1) / self.block
        {
            return Ok(AxisSelection::Range { start: self.index(run.start), step: 1, count: run.end - run.start });
        }
        let count = ordinals.iter().map(|run| run.end - run.start).sum::<u64>();
        looks.take(count.saturating_mul(INDEX_LOOKS))?;
        let indices = ordinals.iter().flat_map(Clone::clone).map(|ordinal| self.index(ordinal)).collect();
        Ok(AxisSelection::from_list(indices))
    }
}

/// Ascending.
type Runs = Vec<Range<u64>>;

/// Which ordinals of a line a block has, and where it has them: both ascending, with the same number of indices.
///
/// # Errors
/// `result_too_large` when `looks` do not suffice.
fn meetings(line: &Line, cover: &Cover, looks: &mut Looks) -> Result<(Runs, Runs)> {
    let (mut ordinals, mut places) = (Vec::new(), Vec::new());
    looks.take(line.near(&cover.runs).len() as u64)?;
    // The place in the block of the first index of each run.
    let (mut run, mut before) = (0, 0);
    for (index, ordinal, count) in line.meet(&cover.runs) {
        looks.take(RUN_LOOKS)?;
        while index >= cover.runs[run].end {
            before += cover.runs[run].end - cover.runs[run].start;
            run += 1;
        }
        extend(&mut ordinals, ordinal, count);
        extend(&mut places, before + (index - cover.runs[run].start), count);
    }
    Ok((ordinals, places))
}

/// Adds a run, as part of the last one where it goes on.
fn extend(runs: &mut Vec<Range<u64>>, start: u64, count: u64) {
    match runs.last_mut() {
        Some(last) if last.end == start => last.end += count,
        _ => runs.push(start..start + count),
    }
}
