//! Arrays that Blosc2 stores box by box (its metalayer "b2nd").
//!
//! The chunk's dimensions are padded to multiples of the block's; then the blocks stand one after the other in C order,
//! and in each of them its elements in C order. Decoding is one block at a time, so that the padding takes no memory.
//!
//! Dimensions that are not cut are joined with the one before: what has to be copied are the longest possible rows.

use super::super::blosc::chunk::{Chunk, Work, repeat, unsupported2};
use super::super::{Scratch, damaged, too_long};
use super::take;
use crate::error::{Error, Result};

/// More dimensions are in no array (B2ND_MAX_DIM).
const DIMENSIONS_MAX: u8 = 16;
/// The most decoded bytes for one that is delivered. Padding doubles each dimension at most, and HDF5's filter makes
/// blocks of at least two elements along each: 10 times would be eight dimensions of three.
const PADDING_MAX: usize = 32;

/// How an array is cut into blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// From the outermost to rows, whose elements are bytes.
    dimensions: Vec<Dimension>,
    element_bytes: usize,
    bytes: usize,
    block_bytes: usize,
    padded_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dimension {
    size: usize,
    /// Of at most that size.
    block: usize,
}

impl Dimension {
    fn blocks(self) -> usize {
        self.size.div_ceil(self.block)
    }
}

impl Grid {
    /// Reads the metalayer: version, count, then shape, chunk and block, each an array of as many numbers.
    ///
    /// The chunk's size says how large an element is. The frame does not: it says 1 for those of more than 255 bytes.
    pub(super) fn new(content: &[u8], chunk_bytes: usize) -> Result<Self> {
        let damaged = || damaged("blosc2", content, format!("the shape of its array of {chunk_bytes} bytes"));
        let (shape, chunk, block) = parse(content).ok_or_else(damaged)?;
        if shape != chunk {
            return Err(unsupported2(&format!("an array of shape {shape:?} in chunks of {chunk:?}")));
        }
        let cut: Vec<Dimension> = shape.into_iter().zip(block).map(|(size, block)| Dimension { size, block }).collect();
        if cut.iter().any(|dimension| !(1..=dimension.size).contains(&dimension.block)) {
            return Err(damaged());
        }
        let product = |of: fn(&Dimension) -> usize| {
            cut.iter().try_fold(1usize, |count, dimension| count.checked_mul(of(dimension)))
        };
        let padded = product(|dimension| dimension.blocks() * dimension.block).ok_or_else(damaged)?;
        let (size, block) = (product(|d| d.size).ok_or_else(damaged)?, product(|d| d.block).ok_or_else(damaged)?);
        let element_bytes = chunk_bytes / padded;
        if element_bytes == 0 || element_bytes * padded != chunk_bytes {
            return Err(damaged());
        }
        if padded / PADDING_MAX > size {
            return Err(unsupported2(&format!("{size} elements padded to {padded}")));
        }
        Ok(Self {
            dimensions: join(&cut, element_bytes),
            element_bytes,
            bytes: size * element_bytes,
            block_bytes: block * element_bytes,
            padded_bytes: chunk_bytes,
        })
    }

    /// Decodes the array into the first bytes of `out`, and returns how many these are.
    pub(super) fn decode(&self, chunk: &Chunk<'_>, out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        let declared_bytes = out.len();
        let out = out.get_mut(..self.bytes).ok_or_else(|| too_long("blosc2", &[], declared_bytes))?;
        if let Some(value) = chunk.uniform() {
            if !self.element_bytes.is_multiple_of(value.len()) {
                return Err(self.mismatch(&format!("values of {} bytes", value.len())));
            }
            // Every element is the same, wherever it belongs.
            repeat(value, out);
            return Ok(self.bytes);
        }
        if self.dimensions.len() == 1 && self.padded_bytes == self.bytes {
            return chunk.decode(out, scratch);
        }
        if chunk.block_bytes() != self.block_bytes {
            return Err(self.mismatch(&format!("blocks of {} bytes", chunk.block_bytes())));
        }
        let mut block = scratch.take(self.block_bytes);
        let mut work = Work::new(chunk, scratch);
        let mut reference = Vec::new();
        for at in 0..self.padded_bytes / self.block_bytes {
            chunk.decode_block(at, &mut block, (at > 0).then_some(&reference), &mut work)?;
            if at == 0 && chunk.has_reference() {
                reference = block.clone();
            }
            self.place(at, &block, out);
        }
        work.finish();
        scratch.put_back(block);
        Ok(self.bytes)
    }

    fn mismatch(&self, what: &str) -> Error {
        let Self { element_bytes, block_bytes, .. } = self;
        damaged(
            "blosc2",
            &[],
            format!("{what} for an array of blocks of {block_bytes} and elements of {element_bytes}"),
        )
    }

    /// Copies what is no padding of block `at` to where it belongs.
    fn place(&self, mut at: usize, block: &[u8], out: &mut [u8]) {
        let mut axes = [Axis::default(); DIMENSIONS_MAX as usize + 1];
        let (mut stride, mut block_stride, mut corner) = (1, 1, 0);
        for (axis, dimension) in axes[..self.dimensions.len()].iter_mut().zip(&self.dimensions).rev() {
            let start = at % dimension.blocks() * dimension.block;
            at /= dimension.blocks();
            *axis = Axis { count: dimension.block.min(dimension.size - start), stride, block_stride };
            corner += start * stride;
            stride *= dimension.size;
            block_stride *= dimension.block;
        }
        copy(&axes[..self.dimensions.len()], block, &mut out[corner..]);
    }
}

/// One dimension of what is copied: numbers in bytes but for the count.
#[derive(Clone, Copy, Default)]
struct Axis {
    count: usize,
    stride: usize,
    block_stride: usize,
}

/// Copies a box of elements from the front of `block` to the front of `out`.
fn copy(axes: &[Axis], block: &[u8], out: &mut [u8]) {
    match axes {
        [] => {}
        [row] => out[..row.count].copy_from_slice(&block[..row.count]),
        [axis, inner @ ..] => {
            for at in 0..axis.count {
                copy(inner, &block[at * axis.block_stride..], &mut out[at * axis.stride..]);
            }
        }
    }
}

/// Shape, chunk and block of an array.
fn parse(content: &[u8]) -> Option<(Vec<usize>, Vec<usize>, Vec<usize>)> {
    let ([_, _version, dimensions], mut content) = content.split_first_chunk()?;
    if !(1..=DIMENSIONS_MAX).contains(dimensions) {
        return None;
    }
    let shape =
        numbers(&mut content, *dimensions, |content| usize::try_from(u64::from_be_bytes(take(content, 0xD3)?)).ok())?;
    let mut short =
        || numbers(&mut content, *dimensions, |content| Some(u32::from_be_bytes(take(content, 0xD2)?) as usize));
    Some((shape, short()?, short()?))
}

/// An array of `count` numbers, each behind its marker. The array's marker is that of msgpack, also with 16 of them.
fn numbers(content: &mut &[u8], count: u8, number: fn(&mut &[u8]) -> Option<usize>) -> Option<Vec<usize>> {
    let (marker, rest) = content.split_first()?;
    *content = rest;
    (*marker == 0x90 + count).then(|| (0..count).map(|_| number(content)).collect())?
}

/// Joins each dimension whose inner ones are not cut with these, and leaves out those of one element.
fn join(cut: &[Dimension], element_bytes: usize) -> Vec<Dimension> {
    let mut joined = Vec::with_capacity(cut.len() + 1);
    let mut inner = Dimension { size: element_bytes, block: element_bytes };
    for outer in cut.iter().rev().filter(|outer| outer.size > 1) {
        if inner.size == inner.block {
            inner = Dimension { size: outer.size * inner.size, block: outer.block * inner.block };
        } else {
            joined.push(inner);
            inner = *outer;
        }
    }
    joined.push(inner);
    joined.reverse();
    joined
}
