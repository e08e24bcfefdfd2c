//! Copies boxes of elements from blocks into an Arrow buffer: the inner loop of every read.
//!
//! A copy is a [`Nest`] of loops around a run of bytes. Loops that touch are merged first, so that whole rows become one
//! `memcpy`; single elements of 1, 2, 4 and 8 bytes have loops of their own.

use arrow::buffer::{Buffer, MutableBuffer};

use crate::plan::axis::Piece;

/// Rows that a transposing copy takes at a time: their cache lines stay in the first-level cache (64 x 64 bytes) while
/// all columns are taken from them.
const TILE_ROWS: usize = 64;

/// One loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    count: usize,
    /// Bytes from one step to the next.
    source: isize,
    target: usize,
}

/// Loops from the outer to the inner one, around a run of bytes. Units are bytes, or elements where elements have no
/// fixed size.
#[derive(Debug, Default)]
pub(crate) struct Nest {
    pub(crate) source: usize,
    pub(crate) target: usize,
    pub(crate) run: usize,
    dims: Vec<Dim>,
}

impl Nest {
    /// Starts anew around runs of `run`.
    pub(crate) fn start(&mut self, source: usize, run: usize) {
        (self.source, self.target, self.run) = (source, 0, run);
        self.dims.clear();
    }

    /// Adds the next inner loop.
    pub(crate) fn push(&mut self, piece: &Piece, source_stride: usize, target_stride: usize) {
        self.source += piece.source as usize * source_stride;
        self.target += piece.target as usize * target_stride;
        if piece.count > 1 {
            let source = piece.step as isize * source_stride as isize;
            self.dims.push(Dim { count: piece.count as usize, source, target: target_stride });
        }
    }

    /// Merges what touches: inner loops into the run, loops into loops.
    pub(crate) fn merge(&mut self) {
        while let Some(inner) = self.dims.last().copied()
            && inner.source == self.run as isize
            && inner.target == self.run
        {
            self.run *= inner.count;
            self.dims.pop();
        }
        let mut at = self.dims.len();
        while at >= 2 {
            at -= 1;
            let (outer, inner) = (self.dims[at - 1], self.dims[at]);
            let count = inner.count;
            if outer.source == inner.source * count as isize && outer.target == inner.target * count {
                self.dims[at - 1] = Dim { count: outer.count * count, ..inner };
                self.dims.remove(at);
            }
        }
    }

    /// The one run of bytes that this is, where it is one: (source, bytes).
    pub(crate) fn single_run(&self) -> Option<(usize, usize)> {
        self.dims.is_empty().then_some((self.source, self.run))
    }

    /// Calls `visit` with source and target of each step of the innermost run.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize)) {
        let run = Dim { count: self.run, source: 1, target: 1 };
        let mut dims = self.dims.clone();
        dims.push(run);
        walk(&dims, self.source, self.target, &mut visit);
    }
}

fn walk(dims: &[Dim], source: usize, target: usize, visit: &mut impl FnMut(usize, usize)) {
    let Some((dim, inner)) = dims.split_first() else { return visit(source, target) };
    for step in 0..dim.count {
        walk(inner, moved(source, dim.source, step), target + step * dim.target, visit);
    }
}

fn moved(offset: usize, stride: isize, steps: usize) -> usize {
    offset.wrapping_add_signed(stride.wrapping_mul(steps as isize))
}

/// An Arrow buffer that is being filled. What arrives in order is appended, so that nothing is written twice; the rest
/// of the buffer is zeroed as soon as something arrives out of order.
#[derive(Debug)]
pub(crate) struct Target {
    buffer: MutableBuffer,
    bytes: usize,
}

impl Target {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { buffer: MutableBuffer::new(bytes), bytes }
    }

    /// The full buffer; what nothing was copied to is zero.
    pub(crate) fn finish(mut self) -> Buffer {
        self.buffer.resize(self.bytes, 0);
        self.buffer.into()
    }

    /// Copies one nest out of a block.
    pub(crate) fn copy(&mut self, nest: &Nest, block: &[u8]) {
        let appends = nest.target == self.buffer.len();
        match nest.dims.as_slice() {
            [] if appends => self.buffer.extend_from_slice(&block[nest.source..nest.source + nest.run]),
            [dim] if appends && dim.target == nest.run && nest.run > 8 => {
                for step in 0..dim.count {
                    let source = moved(nest.source, dim.source, step);
                    self.buffer.extend_from_slice(&block[source..source + nest.run]);
                }
            }
            dims => {
                self.buffer.resize(self.bytes, 0);
                copy_dims(dims, nest, block, self.buffer.as_slice_mut());
            }
        }
    }
}

fn copy_dims(dims: &[Dim], nest: &Nest, block: &[u8], target: &mut [u8]) {
    match nest.run {
        1 => copy_level::<1>(dims, nest.source, nest.target, block, target),
        2 => copy_level::<2>(dims, nest.source, nest.target, block, target),
        4 => copy_level::<4>(dims, nest.source, nest.target, block, target),
        8 => copy_level::<8>(dims, nest.source, nest.target, block, target),
        run => walk(dims, nest.source, nest.target, &mut |source, at| {
            target[at..at + run].copy_from_slice(&block[source..source + run]);
        }),
    }
}

/// Loops down to the last two, which have their own kernels.
fn copy_level<const WIDTH: usize>(dims: &[Dim], source: usize, at: usize, block: &[u8], target: &mut [u8]) {
    match dims {
        [] => target[at..at + WIDTH].copy_from_slice(&block[source..source + WIDTH]),
        [dim] => copy_line::<WIDTH>(*dim, source, at, block, target),
        [rows, columns] if rows.target < columns.target => {
            // The result is the transpose of the block.
            for first in (0..rows.count).step_by(TILE_ROWS) {
                let tile = Dim { count: TILE_ROWS.min(rows.count - first), ..*rows };
                let (source, at) = (moved(source, rows.source, first), at + first * rows.target);
                for column in 0..columns.count {
                    let (source, at) = (moved(source, columns.source, column), at + column * columns.target);
                    copy_line::<WIDTH>(tile, source, at, block, target);
                }
            }
        }
        [outer, inner @ ..] => {
            for step in 0..outer.count {
                let (source, at) = (moved(source, outer.source, step), at + step * outer.target);
                copy_level::<WIDTH>(inner, source, at, block, target);
            }
        }
    }
}

/// One loop of single values. Iterators over slices leave no bounds check inside.
fn copy_line<const WIDTH: usize>(dim: Dim, source: usize, at: usize, block: &[u8], target: &mut [u8]) {
    let stride = dim.source.unsigned_abs();
    if dim.source < 0 {
        // From the last value to the first: each chunk ends with one.
        let values = block[..source + WIDTH].rchunks(stride).map(|chunk| &chunk[chunk.len() - WIDTH..]);
        put_line::<WIDTH>(dim, values, &mut target[at..]);
    } else {
        put_line::<WIDTH>(dim, block[source..].chunks(stride).map(|chunk| &chunk[..WIDTH]), &mut target[at..]);
    }
}

fn put_line<'a, const WIDTH: usize>(dim: Dim, values: impl Iterator<Item = &'a [u8]>, target: &mut [u8]) {
    if dim.target == WIDTH {
        let line = target[..dim.count * WIDTH].as_chunks_mut::<WIDTH>().0;
        line.iter_mut().zip(values).for_each(|(place, value)| place.copy_from_slice(value));
    } else {
        let places = target.chunks_mut(dim.target).take(dim.count);
        places.zip(values).for_each(|(place, value)| place[..WIDTH].copy_from_slice(value));
    }
}
