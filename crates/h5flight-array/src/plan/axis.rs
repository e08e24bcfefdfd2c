//! One axis at a time: which of its indices are picked, in which blocks they lie, and where they go in the result.

use std::ops::Range;
use std::sync::Arc;

use crate::selection::{AxisSelection, Runs};

/// The picked indices of one axis in the order of the result; an index that drops its axis is a range of one.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    /// `count` indices from `start` on, `step` apart.
    Range { start: u64, step: i64, count: u64 },
    /// Any indices in any order.
    List(Arc<[u64]>),
    /// Ranges after each other.
    Runs(Arc<Runs>),
}

/// Indices of one axis of one block, an even distance apart, that go to consecutive places of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First index, counted within the block.
    pub(crate) source: u64,
    /// Distance to the next one within the block.
    pub(crate) step: i64,
    /// First place in the result.
    pub(crate) target: u64,
    /// How many.
    pub(crate) count: u64,
}

impl Pick {
    pub(crate) fn new(selected: &AxisSelection) -> Self {
        match selected {
            AxisSelection::Index(index) => Self::Range { start: *index, step: 1, count: 1 },
            AxisSelection::Range { start, step, count } => Self::Range { start: *start, step: *step, count: *count },
            AxisSelection::List(list) => Self::List(Arc::clone(list)),
            AxisSelection::Runs(runs) => Self::Runs(Arc::clone(runs)),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Range { count, .. } => *count,
            Self::List(list) => list.len() as u64,
            Self::Runs(runs) => runs.count(),
        }
    }

    /// The index at this place of the result.
    pub(crate) fn at(&self, place: u64) -> u64 {
        match self {
            Self::Range { start, step, .. } => advance(*start, *step, place),
            Self::List(list) => list[place as usize],
            Self::Runs(runs) => runs.from(place).0,
        }
    }

    /// Indices from this place on, itself counted, that are an even run for certain; 1 for lists, which have none.
    pub(crate) fn even_from(&self, place: u64) -> u64 {
        match self {
            Self::Range { count, .. } => count - place,
            Self::List(_) => 1,
            Self::Runs(runs) => runs.from(place).1,
        }
    }

    /// The indices at these places.
    pub(crate) fn indices(&self, places: Range<u64>) -> impl Iterator<Item = u64> + '_ {
        places.map(|place| self.at(place))
    }

    /// Smallest and largest index; `None` when nothing is picked.
    pub(crate) fn bounds(&self) -> Option<(u64, u64)> {
        match self {
            Self::Range { count: 0, .. } => None,
            Self::Range { start, count, .. } => {
                let last = self.at(count - 1);
                Some((*start.min(&last), *start.max(&last)))
            }
            Self::List(list) => Some((*list.iter().min()?, *list.iter().max()?)),
            Self::Runs(runs) => runs.bounds(),
        }
    }

    /// Whether every index between the smallest and the largest one is certainly picked.
    pub(crate) fn is_gapless(&self) -> bool {
        match self {
            Self::Range { step, count, .. } => step.unsigned_abs() == 1 || *count == 1,
            Self::List(_) | Self::Runs(_) => false,
        }
    }

    /// Distance between neighbours of an even run; 1 for lists, which have none.
    pub(crate) fn step(&self) -> i64 {
        match self {
            Self::Range { step, .. } => *step,
            Self::List(_) | Self::Runs(_) => 1,
        }
    }
}

/// `start + step * times`, exact whenever the result is an index: the arithmetic is modulo 2^64.
pub(crate) fn advance(start: u64, step: i64, times: u64) -> u64 {
    start.wrapping_add((step as u64).wrapping_mul(times))
}

/// The blocks that an even run of indices passes, in order: (block, piece). Places count from `target`.
pub(crate) struct RangeBlocks {
    /// Next index.
    pub(crate) index: u64,
    pub(crate) step: i64,
    /// Indices left.
    pub(crate) left: u64,
    /// Place of the next index.
    pub(crate) target: u64,
    /// Indices of one block.
    pub(crate) block: u64,
}

impl Iterator for RangeBlocks {
    type Item = (u64, Piece);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (coordinate, source) = (self.index / self.block, self.index % self.block);
        let room = if self.step > 0 { self.block - 1 - source } else { source };
        let count = (room / self.step.unsigned_abs() + 1).min(self.left);
        let piece = Piece { source, step: self.step, target: self.target, count };
        self.index = advance(self.index, self.step, count);
        self.left -= count;
        self.target += count;
        Some((coordinate, piece))
    }
}

/// (index, place) of every entry, ascending by index; entries that come sorted are not sorted again.
pub(crate) fn by_index(indices: impl Iterator<Item = u64>, first_target: u64) -> Vec<(u64, u64)> {
    let mut entries: Vec<(u64, u64)> = indices.zip(first_target..).collect();
    if !entries.is_sorted() {
        entries.sort_unstable();
    }
    entries
}

/// Pieces for entries that are sorted by index; neighbours in both index and place become one piece.
pub(crate) fn pieces(entries: &[(u64, u64)], source_of: impl Fn(u64) -> u64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (index, target) in entries {
        let source = source_of(*index);
        match pieces.last_mut() {
            Some(last) if last.source + last.count == source && last.target + last.count == *target => last.count += 1,
            _ => pieces.push(Piece { source, step: 1, target: *target, count: 1 }),
        }
    }
    pieces
}

/// The blocks that an axis other than the row axis passes, with the pieces in each. The same for all batches.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    coordinates: Vec<u64>,
    /// `pieces[ends[i - 1]..ends[i]]` belong to block `coordinates[i]`.
    ends: Vec<usize>,
    pieces: Vec<Piece>,
}

impl Spread {
    pub(crate) fn new(pick: &Pick, block: u64) -> Self {
        let mut spread = Self::default();
        match pick {
            Pick::Range { start, step, count } => {
                let runs = RangeBlocks { index: *start, step: *step, left: *count, target: 0, block };
                for (coordinate, piece) in runs {
                    spread.push(coordinate, &[piece]);
                }
            }
            Pick::List(_) | Pick::Runs(_) => {
                let entries = by_index(pick.indices(0..pick.count()), 0);
                for part in entries.chunk_by(|a, b| a.0 / block == b.0 / block) {
                    spread.push(part[0].0 / block, &pieces(part, |index| index % block));
                }
            }
        }
        spread
    }

    /// An upper bound of the blocks, without making them.
    pub(crate) fn blocks_max(pick: &Pick, block: u64) -> u64 {
        pick.bounds().map_or(0, |(low, high)| pick.count().min(high / block - low / block + 1))
    }

    /// Blocks passed.
    pub(crate) fn len(&self) -> usize {
        self.coordinates.len()
    }

    /// Coordinate of the block at this position.
    pub(crate) fn coordinate(&self, at: usize) -> u64 {
        self.coordinates[at]
    }

    /// Pieces in the block at this position.
    pub(crate) fn pieces(&self, at: usize) -> &[Piece] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.pieces[start..self.ends[at]]
    }

    fn push(&mut self, coordinate: u64, pieces: &[Piece]) {
        self.coordinates.push(coordinate);
        self.pieces.extend_from_slice(pieces);
        self.ends.push(self.pieces.len());
    }
}

/// Indices of one axis that are read, as ascending runs; what a raw block holds of that axis, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) runs: Vec<Range<u64>>,
    pub(crate) len: u64,
}

/// Which gaps between picked indices are read along rather than around.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GapRule {
    /// The largest distance of two indices in one run.
    pub(crate) distance_max: u64,
    /// Runs at most; more become one, from the first to the last index.
    pub(crate) runs_max: usize,
}

impl Cover {
    /// What to read for an even run of indices, and where they then are.
    pub(crate) fn of_range(start: u64, step: i64, count: u64, rule: GapRule) -> (Self, Vec<Piece>) {
        if count == 0 {
            return (Self::new(Vec::new()), Vec::new());
        }
        let last = advance(start, step, count - 1);
        let (low, high) = (start.min(last), start.max(last));
        let joined = step.unsigned_abs() <= rule.distance_max || count > rule.runs_max as u64;
        if count == 1 || joined {
            let piece = Piece { source: start - low, step, target: 0, count };
            return (Self::new(std::iter::once(low..high + 1).collect()), vec![piece]);
        }
        let distance = step.unsigned_abs() as usize;
        let runs = (low..=high).step_by(distance).map(|index| index..index + 1).collect();
        let source = if step > 0 { 0 } else { count - 1 };
        (Self::new(runs), vec![Piece { source, step: step.signum(), target: 0, count }])
    }

    /// What to read for entries sorted by index, and where they then are.
    pub(crate) fn of_entries(entries: &[(u64, u64)], rule: GapRule) -> (Self, Vec<Piece>) {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (index, _) in entries {
            match runs.last_mut() {
                Some(run) if index - (run.end - 1) <= rule.distance_max => run.end = index + 1,
                _ => runs.push(*index..index + 1),
            }
        }
        if runs.len() > rule.runs_max {
            runs = std::iter::once(runs[0].start..runs[runs.len() - 1].end).collect();
        }
        // The entries ascend like the runs: `before` is what lies in the runs left of the current one.
        let (mut run, mut before) = (0, 0);
        let mut sources = Vec::with_capacity(entries.len());
        for (index, target) in entries {
            while *index >= runs[run].end {
                before += runs[run].end - runs[run].start;
                run += 1;
            }
            sources.push((before + (index - runs[run].start), *target));
        }
        let pieces = pieces(&sources, |source| source);
        (Self::new(runs), pieces)
    }

    pub(crate) fn of_pick(pick: &Pick, rule: GapRule) -> (Self, Vec<Piece>) {
        match pick {
            Pick::Range { start, step, count } => Self::of_range(*start, *step, *count, rule),
            Pick::List(_) | Pick::Runs(_) => Self::of_entries(&by_index(pick.indices(0..pick.count()), 0), rule),
        }
    }

    fn new(runs: Vec<Range<u64>>) -> Self {
        let len = runs.iter().map(|run| run.end - run.start).sum();
        Self { runs, len }
    }
}
