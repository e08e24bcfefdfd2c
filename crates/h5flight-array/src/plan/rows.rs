//! Result rows: how they are cut into batches, and which block rows each row lies in.
//!
//! Batches end where a row of blocks ends, wherever that keeps them near their target size: then no block is needed by
//! two batches. Blocks taller than a batch are cut into even parts. Everything is arithmetic but for index lists.

use std::collections::HashMap;
use std::ops::Range;

use super::axis::{Cover, Pick, Piece, RangeBlocks, by_index, pieces};
use super::extent::{Blocks, ExtentPlan};

/// Rows of a batch at most, however few bytes they have: offsets and dictionary keys stay far from 32 bits.
pub(crate) const BATCH_ROWS_MAX: u64 = 1 << 20;
/// Byte ranges of the raw blocks of a batch at most: 4 MiB of plan.
const BATCH_RANGES_MAX: u64 = 1 << 18;

/// The rows of a batch that lie in one block row of one extent.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Position in the plan's extents.
    pub(crate) extent: usize,
    pub(crate) place: Place,
    /// Targets count from the batch's first row. Empty for scalars, which have no axis.
    pub(crate) pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Coordinate of a row of blocks.
    Coordinate(u64),
    /// The rows of a raw block.
    Rows(Cover),
}

/// The selected rows and where they lie.
pub(crate) struct RowMap<'a> {
    pub(crate) pick: &'a Pick,
    pub(crate) row_axis: usize,
    pub(crate) extents: &'a [ExtentPlan],
}

impl RowMap<'_> {
    /// The extent of an index of the row axis. Only axis 0 is cut into extents.
    fn extent_of(&self, index: u64) -> usize {
        if self.row_axis > 0 {
            return 0;
        }
        self.extents.partition_point(|extent| extent.first_row <= index) - 1
    }

    fn array_index(&self, extent: usize, index: u64) -> u64 {
        if self.row_axis > 0 { index } else { self.extents[extent].array_row_of(index) }
    }

    /// Indices of one block along the row axis; `None` where blocks are raw.
    fn block_rows(&self, extent: usize) -> Option<u64> {
        match &self.extents[extent].blocks {
            Blocks::Grid(grid) => Some(grid.row_block),
            Blocks::Raw(_) => None,
        }
    }

    /// Even runs of result rows within one extent: (extent, first index within its array, result rows).
    fn runs(&self, rows: Range<u64>) -> impl Iterator<Item = (usize, u64, Range<u64>)> {
        let mut row = rows.start;
        std::iter::from_fn(move || {
            if row == rows.end {
                return None;
            }
            let (index, step) = (self.pick.at(row), self.pick.step());
            let extent = self.extent_of(index);
            let left = if self.row_axis > 0 {
                rows.end - row
            } else {
                let ExtentPlan { first_row, rows, .. } = self.extents[extent];
                let room = if step > 0 { first_row + rows - 1 - index } else { index - first_row };
                room / step.unsigned_abs() + 1
            };
            let left = left.min(self.pick.even_from(row));
            let run = row..rows.end.min(row.saturating_add(left));
            row = run.end;
            Some((extent, self.array_index(extent, index), run))
        })
    }

    /// The parts of a batch, in the order of the rows for ranges, ascending by extent and row of blocks otherwise.
    pub(crate) fn parts(&self, rows: &Range<u64>) -> Vec<Part> {
        let is_raw = |extent: &ExtentPlan| matches!(extent.blocks, Blocks::Raw(_));
        match self.pick {
            Pick::Range { .. } => self.range_parts(rows),
            Pick::Runs(_) if !self.extents.iter().any(is_raw) => joined(self.range_parts(rows)),
            // A raw block is made for a batch: one has all of its rows.
            Pick::List(_) | Pick::Runs(_) => self.list_parts(self.pick.indices(rows.clone())),
        }
    }

    /// Neighbouring result rows that lie in one row of blocks: (extent, its coordinate unless blocks are raw, rows).
    fn stretches(&self, rows: Range<u64>) -> impl Iterator<Item = (usize, Option<u64>, u64)> {
        self.runs(rows).flat_map(|(extent, index, run)| {
            let left = run.end - run.start;
            // Without blocks all of it is one stretch.
            let block = self.block_rows(extent);
            let blocks = RangeBlocks { index, step: 1, left, target: 0, block: block.unwrap_or(u64::MAX) };
            blocks.map(move |(coordinate, piece)| (extent, block.map(|_| coordinate), piece.count))
        })
    }

    fn range_parts(&self, rows: &Range<u64>) -> Vec<Part> {
        let (mut parts, step) = (Vec::new(), self.pick.step());
        for (extent, index, run) in self.runs(rows.clone()) {
            let (target, left) = (run.start - rows.start, run.end - run.start);
            match &self.extents[extent].blocks {
                Blocks::Grid(_) => {
                    let block = self.block_rows(extent).unwrap_or(1);
                    let blocks = RangeBlocks { index, step, left, target, block };
                    parts.extend(blocks.map(|(coordinate, piece)| Part {
                        extent,
                        place: Place::Coordinate(coordinate),
                        pieces: vec![piece],
                    }));
                }
                Blocks::Raw(raw) => {
                    let (cover, mut pieces) = Cover::of_range(index, step, left, raw.row_rule);
                    pieces.iter_mut().for_each(|piece| piece.target += target);
                    parts.push(Part { extent, place: Place::Rows(cover), pieces });
                }
            }
        }
        parts
    }

    fn list_parts(&self, list: impl Iterator<Item = u64>) -> Vec<Part> {
        let entries = by_index(list, 0);
        let mut parts = Vec::new();
        for in_extent in entries.chunk_by(|a, b| self.extent_of(a.0) == self.extent_of(b.0)) {
            let extent = self.extent_of(in_extent[0].0);
            let local: Vec<(u64, u64)> =
                in_extent.iter().map(|(index, target)| (self.array_index(extent, *index), *target)).collect();
            match &self.extents[extent].blocks {
                Blocks::Grid(_) => {
                    let block = self.block_rows(extent).unwrap_or(1);
                    parts.extend(local.chunk_by(|a, b| a.0 / block == b.0 / block).map(|entries| Part {
                        extent,
                        place: Place::Coordinate(entries[0].0 / block),
                        pieces: pieces(entries, |index| index % block),
                    }));
                }
                Blocks::Raw(raw) => {
                    let (cover, pieces) = Cover::of_entries(&local, raw.row_rule);
                    parts.push(Part { extent, place: Place::Rows(cover), pieces });
                }
            }
        }
        parts
    }

    /// Rows of a batch within an extent, so that neither the target nor the budget of its blocks is passed.
    fn rows_per_batch(&self, extent: usize, limits: &BatchLimits) -> u64 {
        let step = self.pick.step().unsigned_abs();
        let rows = match &self.extents[extent].blocks {
            Blocks::Grid(grid) => {
                let coordinates = (limits.blocks_bytes / grid.row_blocks_bytes.max(1)).max(1);
                let per_coordinate = (self.block_rows(extent).unwrap_or(1) / step).max(1);
                match self.pick {
                    Pick::Range { .. } => coordinates.saturating_mul(per_coordinate),
                    // Lists and runs are cut where they pass the budget, not where they might.
                    Pick::List(_) | Pick::Runs(_) => u64::MAX,
                }
            }
            Blocks::Raw(raw) => {
                let joined = step <= raw.row_rule.distance_max;
                // Indices that are read for one that is picked.
                let stretch = match self.pick {
                    Pick::Range { .. } => {
                        if joined {
                            step
                        } else {
                            1
                        }
                    }
                    Pick::List(_) | Pick::Runs(_) => raw.row_rule.distance_max,
                };
                let ranges = match (self.pick, raw.row_ranges) {
                    (Pick::Range { .. }, 1) if joined => 0,
                    (_, 1) => 1,
                    (_, ranges) => ranges.saturating_mul(stretch),
                };
                let by_bytes = limits.blocks_bytes / raw.row_bytes.saturating_mul(stretch).max(1);
                by_bytes.min(BATCH_RANGES_MAX.checked_div(ranges).unwrap_or(u64::MAX))
            }
        };
        rows.min(limits.rows).max(1)
    }
}

/// What bounds a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    /// Rows that make the target size.
    pub(crate) rows: u64,
    /// Decoded bytes of all its blocks; one row's blocks may pass it.
    pub(crate) blocks_bytes: u64,
}

/// The batches of a plan: result rows, cut.
#[derive(Debug)]
pub(crate) struct Batching {
    /// The rows that are delivered.
    pub(crate) range: Range<u64>,
    /// How many batches.
    pub(crate) batches: usize,
    /// Number of the first batch delivered, among those of all rows.
    first: u64,
    cuts: Cuts,
    /// For lists and runs: in which rows each row of blocks is used.
    uses: Vec<BlockRowUse>,
}

#[derive(Debug)]
enum Cuts {
    /// Computed.
    Even(Vec<Segment>),
    /// First rows of the batches.
    Listed(Vec<u64>),
}

#[derive(Clone, Copy, Debug)]
struct BlockRowUse {
    extent: usize,
    coordinate: u64,
    first_row: u64,
    last_row: u64,
}

impl Batching {
    /// Cuts the rows of `range`. Batches are those of all `rows`, clipped: every reader of a part cuts alike.
    pub(crate) fn new(map: &RowMap<'_>, rows: u64, range: Range<u64>, limits: &BatchLimits) -> Self {
        let (cuts, uses) = match map.pick {
            _ if range.is_empty() || map.extents.is_empty() => (Cuts::Even(even_rows(rows, limits.rows)), Vec::new()),
            Pick::Range { .. } => (Cuts::Even(segments(map, rows, limits)), Vec::new()),
            Pick::List(_) | Pick::Runs(_) => (Cuts::Listed(listed_cuts(map, rows, limits)), list_uses(map, &range)),
        };
        let mut batching = Self { range, batches: 0, first: 0, cuts, uses };
        if !batching.range.is_empty() {
            batching.first = batching.number_of(batching.range.start);
            batching.batches = (batching.number_of(batching.range.end - 1) - batching.first + 1) as usize;
        }
        batching
    }

    /// The rows of a batch.
    pub(crate) fn rows(&self, batch: usize) -> Range<u64> {
        let number = self.first + batch as u64;
        let rows = match &self.cuts {
            Cuts::Even(segments) => {
                segments[segments.partition_point(|segment| segment.first_batch <= number) - 1].rows_of(number)
            }
            Cuts::Listed(cuts) => {
                let at = number as usize;
                cuts[at]..cuts.get(at + 1).copied().unwrap_or(self.range.end)
            }
        };
        rows.start.max(self.range.start)..rows.end.min(self.range.end)
    }

    /// The batch of a delivered row.
    pub(crate) fn batch_of(&self, row: u64) -> usize {
        (self.number_of(row) - self.first) as usize
    }

    fn number_of(&self, row: u64) -> u64 {
        match &self.cuts {
            Cuts::Even(segments) => {
                segments[segments.partition_point(|segment| segment.first_row <= row) - 1].batch_of(row)
            }
            Cuts::Listed(cuts) => cuts.partition_point(|cut| *cut <= row) as u64 - 1,
        }
    }

    /// First and last delivered row that needs this row of blocks; `None` when none does.
    pub(crate) fn uses_of(&self, map: &RowMap<'_>, extent: usize, coordinate: u64) -> Option<(u64, u64)> {
        let Pick::Range { start, step, count } = map.pick else {
            let key = |block: &BlockRowUse| (block.extent, block.coordinate);
            let at = self.uses.binary_search_by_key(&(extent, coordinate), key).ok()?;
            return Some((self.uses[at].first_row, self.uses[at].last_row));
        };
        let block = map.block_rows(extent)?;
        let (mut low, mut high) =
            (coordinate.checked_mul(block)?, coordinate.checked_mul(block)?.saturating_add(block - 1));
        if map.row_axis == 0 {
            let ExtentPlan { first_row, array_row, rows, .. } = map.extents[extent];
            // Within the extent, in rows of the version.
            low = low.max(array_row) - array_row + first_row;
            high = high.min(array_row + rows - 1).checked_sub(array_row)? + first_row;
        }
        let stride = step.unsigned_abs();
        let (first, last) = if *step > 0 {
            (low.saturating_sub(*start).div_ceil(stride), high.checked_sub(*start)? / stride)
        } else {
            (start.saturating_sub(high).div_ceil(stride), start.checked_sub(low)? / stride)
        };
        let (first, last) = (first.max(self.range.start), last.min(count - 1).min(self.range.end.checked_sub(1)?));
        (first <= last).then_some((first, last))
    }
}

/// Result rows that are cut evenly. `lead` rows before the first one would complete its period.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first_row: u64,
    rows: u64,
    first_batch: u64,
    lead: u64,
    /// Rows after which the cuts repeat: one or more rows of blocks.
    period: u64,
    /// Rows of a batch within the period; the last one may have fewer.
    batch_rows: u64,
}

impl Segment {
    fn per_period(&self) -> u64 {
        self.period.div_ceil(self.batch_rows)
    }

    /// Number of the batch, counted from the start of the period of the first row, in which a row with its lead lies.
    fn cut_of(&self, led_row: u64) -> u64 {
        led_row / self.period * self.per_period() + led_row % self.period / self.batch_rows
    }

    fn cut_start(&self, cut: u64) -> u64 {
        cut / self.per_period() * self.period + cut % self.per_period() * self.batch_rows
    }

    fn batches(&self) -> u64 {
        self.cut_of(self.lead + self.rows - 1) - self.cut_of(self.lead) + 1
    }

    fn batch_of(&self, row: u64) -> u64 {
        self.first_batch + self.cut_of(self.lead + (row - self.first_row)) - self.cut_of(self.lead)
    }

    fn rows_of(&self, batch: u64) -> Range<u64> {
        let cut = batch - self.first_batch + self.cut_of(self.lead);
        let (start, end) = (self.cut_start(cut).max(self.lead), self.cut_start(cut + 1).min(self.lead + self.rows));
        start - self.lead + self.first_row..end - self.lead + self.first_row
    }

    /// A segment whose cuts follow the rows of blocks of an extent, from the array index `index` on.
    fn aligned(map: &RowMap<'_>, extent: usize, index: u64, rows: Range<u64>, batch_rows: u64) -> Self {
        let (block, stride) = (map.block_rows(extent).unwrap_or(1), map.pick.step().unsigned_abs());
        // With a step that does not divide the block, rows of blocks have no even number of result rows.
        let (period, lead) = if block % stride == 0 {
            let passed = if map.pick.step() > 0 { index % block } else { block - 1 - index % block };
            (block / stride, passed / stride)
        } else {
            (1, 0)
        };
        let (period, batch_rows) = if batch_rows >= period {
            let whole = batch_rows / period * period;
            (whole, whole)
        } else {
            // The nearest number of even parts: none is larger than one and a half batches.
            let parts = ((period + batch_rows / 2) / batch_rows).max(1);
            (period, period.div_ceil(parts))
        };
        Self { first_row: rows.start, rows: rows.end - rows.start, first_batch: 0, lead, period, batch_rows }
    }
}

fn even_rows(rows: u64, batch_rows: u64) -> Vec<Segment> {
    vec![Segment { first_row: 0, rows, first_batch: 0, lead: 0, period: batch_rows, batch_rows }]
}

/// A segment for each extent that fills a batch; smaller neighbours share theirs, cut without regard to blocks.
fn segments(map: &RowMap<'_>, rows: u64, limits: &BatchLimits) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut shared = false;
    for (extent, index, run) in map.runs(0..rows) {
        let batch_rows = map.rows_per_batch(extent, limits);
        let small = run.end - run.start < batch_rows;
        match segments.last_mut() {
            Some(last) if small && shared => {
                last.rows += run.end - run.start;
                last.batch_rows = last.batch_rows.min(batch_rows);
                last.period = last.batch_rows;
            }
            _ if small => {
                let rows = run.end - run.start;
                let (period, lead) = (batch_rows, 0);
                segments.push(Segment { first_row: run.start, rows, first_batch: 0, lead, period, batch_rows });
            }
            _ => segments.push(Segment::aligned(map, extent, index, run, batch_rows)),
        }
        shared = small;
    }
    let mut first_batch = 0;
    for segment in &mut segments {
        segment.first_batch = first_batch;
        first_batch += segment.batches();
    }
    segments
}

/// Parts in the same row of blocks as one, ascending by extent and row of blocks.
fn joined(mut parts: Vec<Part>) -> Vec<Part> {
    let place = |part: &Part| match &part.place {
        Place::Coordinate(coordinate) => (part.extent, *coordinate),
        Place::Rows(_) => (part.extent, 0),
    };
    parts.sort_by_key(place);
    parts.dedup_by(|next, kept| {
        let same = place(next) == place(kept);
        if same {
            kept.pieces.append(&mut next.pieces);
        }
        same
    });
    parts
}

/// Walks the rows and cuts where a batch would pass its rows or the bytes of the blocks that it touches.
fn listed_cuts(map: &RowMap<'_>, rows: u64, limits: &BatchLimits) -> Vec<u64> {
    // By row of blocks, the last batch that touched it: nothing is cleared from batch to batch.
    let (mut cuts, mut touched, mut touched_bytes) = (vec![0u64], HashMap::new(), 0u64);
    let (mut row, mut first_row, mut rows_max, mut before) = (0, 0, u64::MAX, None);
    for (extent, coordinate, mut left) in map.stretches(0..rows) {
        let block = coordinate.map(|coordinate| (extent, coordinate));
        let block_bytes = match &map.extents[extent].blocks {
            Blocks::Grid(grid) => grid.row_blocks_bytes,
            Blocks::Raw(_) => 0,
        };
        // Neighbours mostly lie in the same row of blocks: the set is asked only when it changes.
        let is_new = before != block && block.is_some_and(|block| touched.get(&block) != Some(&cuts.len()));
        let mut adds = if is_new { block_bytes } else { 0 };
        rows_max = rows_max.min(map.rows_per_batch(extent, limits));
        while left > 0 {
            let full = row - first_row >= rows_max || touched_bytes.saturating_add(adds) > limits.blocks_bytes;
            if full && row > first_row {
                cuts.push(row);
                (first_row, touched_bytes, rows_max) = (row, 0, map.rows_per_batch(extent, limits));
                adds = block_bytes;
            }
            if adds > 0 {
                touched.extend(block.map(|block| (block, cuts.len())));
            }
            touched_bytes = touched_bytes.saturating_add(std::mem::take(&mut adds));
            let taken = left.min(rows_max.saturating_sub(row - first_row).max(1));
            row += taken;
            left -= taken;
        }
        before = block;
    }
    cuts
}

fn list_uses(map: &RowMap<'_>, range: &Range<u64>) -> Vec<BlockRowUse> {
    let mut uses: Vec<BlockRowUse> = Vec::new();
    let mut row = range.start;
    for (extent, coordinate, count) in map.stretches(range.clone()) {
        let (first_row, last_row) = (row, row + count - 1);
        row += count;
        let Some(coordinate) = coordinate else { continue };
        match uses.last_mut() {
            Some(last) if last.extent == extent && last.coordinate == coordinate => last.last_row = last_row,
            _ => uses.push(BlockRowUse { extent, coordinate, first_row, last_row }),
        }
    }
    uses.sort_unstable_by_key(|block| (block.extent, block.coordinate, block.first_row));
    uses.dedup_by(|next, kept| {
        let same = (next.extent, next.coordinate) == (kept.extent, kept.coordinate);
        if same {
            kept.last_row = next.last_row;
        }
        same
    });
    uses
}
