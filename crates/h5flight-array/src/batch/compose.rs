//! Blocks of virtual arrays: values of other arrays, put in their places over the fill value.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Decoded, Strides, Target, packed};
use crate::error::{Error, Reason, Result};
use crate::meta::{ArrayMeta, product};
use crate::plan::{BatchPlan, Block, Plan, VirtualCopy};

/// A block that is being put together.
#[derive(Debug)]
pub struct Composition {
    block: Block,
    /// Elements in their places; of elements of no fixed size those that were taken, in any order.
    bytes: Vec<u8>,
    /// For elements of no fixed size: where in `bytes` the element of each place is. At first the fill value.
    elements: Option<Vec<Range<usize>>>,
}

impl Composition {
    /// Nothing but the fill value.
    ///
    /// # Errors
    /// `internal` for a block of more elements than memory has addresses.
    pub fn new(block: &Block, meta: &ArrayMeta) -> Result<Self> {
        let too_large = || Error::new(Reason::Internal, format!("a virtual block of shape {:?}", block.shape));
        let count = usize::try_from(block.elements()).map_err(|_| too_large())?;
        if let Some(bytes) = meta.element.fixed_bytes() {
            let bytes = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_mul(count)).ok_or_else(too_large)?;
            let bytes = meta.fill.as_ref().map_or_else(|| vec![0; bytes], |fill| fill.repeat(count));
            return Ok(Self { block: block.clone(), bytes, elements: None });
        }
        let mut fill = meta.fill.clone().unwrap_or_default();
        if meta.fill.is_none() {
            packed::empty_value(&meta.element, &mut fill)?;
        }
        let elements = vec![0..fill.len(); count];
        Ok(Self { block: block.clone(), bytes: fill, elements: Some(elements) })
    }

    /// Bytes of the values so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the values of one batch of [`VirtualCopy::plan`], whose decoded blocks come in the batch's order.
    ///
    /// # Errors
    /// `internal` for blocks or a plan of another copy; `result_too_large` beyond 4 GiB of values.
    pub fn take(&mut self, copy: &VirtualCopy, plan: &Plan, batch: &BatchPlan, blocks: &[Arc<Decoded>]) -> Result<()> {
        plan.check_blocks(batch, blocks)?;
        let rows = (batch.rows.end - batch.rows.start) as usize;
        let count = rows * plan.items as usize;
        let first = batch.rows.start.saturating_mul(plan.items);
        let line = Places { of: copy, shape: &self.block.shape }.runs(first..first.saturating_add(count as u64))?;
        match (&mut self.elements, plan.element.fixed_bytes()) {
            (None, Some(width)) => {
                let width = width as usize;
                let mut values = Target::new(count.saturating_mul(width));
                let strides =
                    Strides { source: width, offset: 0, run: width, target: plan.target_strides(rows, width) };
                plan.each_nest(batch, &strides, |position, nest| values.copy(nest, blocks[position].bytes()));
                let values = values.finish();
                let mut from = 0;
                for run in line {
                    let bytes = (run.end - run.start) * width;
                    let place = self.bytes.get_mut(run.start * width..run.end * width).ok_or_else(misplaced)?;
                    place.copy_from_slice(values.get(from..from + bytes).ok_or_else(misplaced)?);
                    from += bytes;
                }
                Ok(())
            }
            (Some(elements), None) => {
                let strides = Strides { source: 1, offset: 0, run: 1, target: plan.target_strides(rows, 1) };
                let mut found = vec![(0, 0); count];
                plan.each_nest(batch, &strides, |position, nest| {
                    nest.each(|source, target| found[target] = (position, source));
                });
                let mut found = found.into_iter();
                for place in line.into_iter().flatten() {
                    let (block, element) = found.next().ok_or_else(misplaced)?;
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(blocks[block].element(element));
                    *elements.get_mut(place).ok_or_else(misplaced)? = start..self.bytes.len();
                }
                if u32::try_from(self.bytes.len()).is_err() {
                    let message = format!("a virtual block of shape {:?} passes 4 GiB", self.block.shape);
                    return Err(Error::new(Reason::ResultTooLarge, message));
                }
                Ok(())
            }
            (None, None) | (Some(_), Some(_)) => Err(misplaced()),
        }
    }

    /// The block.
    ///
    /// # Errors
    /// As [`Decoded::new`].
    pub fn finish(self, meta: &ArrayMeta) -> Result<Decoded> {
        let Self { block, bytes, elements } = self;
        let bytes = match elements {
            None => bytes,
            Some(elements) => {
                let mut packed = Vec::with_capacity(elements.iter().map(Range::len).sum());
                elements.into_iter().for_each(|element| packed.extend_from_slice(&bytes[element]));
                packed
            }
        };
        Decoded::new(Bytes::from(bytes), &block, meta)
    }
}

fn misplaced() -> Error {
    Error::new(Reason::Internal, "values that do not fit their places in a virtual block")
}

/// The places of a copy in its block, of which values in C order are taken.
struct Places<'a> {
    of: &'a VirtualCopy,
    shape: &'a [u64],
}

impl Places<'_> {
    /// Runs of neighbouring elements of the block for the values of these numbers.
    fn runs(&self, values: Range<u64>) -> Result<Vec<Range<usize>>> {
        let Some((last, outer)) = self.of.places.split_last() else {
            return Ok(std::iter::once(0..(values.end - values.start) as usize).collect());
        };
        let outer: Vec<Vec<u64>> = outer.iter().map(|runs| runs.iter().flat_map(Clone::clone).collect()).collect();
        let line: u64 = last.iter().map(|run| run.end - run.start).sum();
        let lines = outer.iter().try_fold(1u64, |lines, axis| lines.checked_mul(axis.len() as u64));
        if values.is_empty() {
            return Ok(Vec::new());
        }
        if self.of.places.len() != self.shape.len()
            || product(self.shape).is_none_or(|elements| usize::try_from(elements).is_err())
            || lines.and_then(|lines| lines.checked_mul(line)).is_none_or(|all| values.end > all)
        {
            return Err(misplaced());
        }
        let mut runs = Vec::new();
        for number in values.start / line..=(values.end - 1) / line {
            let base = self.line_start(number, &outer);
            // The values of this line, counted within it.
            let (mut from, end) = (values.start.saturating_sub(number * line), (values.end - number * line).min(line));
            let mut before = 0;
            for run in last {
                let len = run.end - run.start;
                if from < before + len && from < end {
                    let stop = end.min(before + len);
                    let start = base + run.start + (from - before);
                    extend(&mut runs, start as usize..(start + (stop - from)) as usize);
                    from = stop;
                }
                before += len;
            }
        }
        Ok(runs)
    }

    /// Number of the element at place 0 of a line.
    fn line_start(&self, number: u64, outer: &[Vec<u64>]) -> u64 {
        let (mut left, mut start, mut stride) = (number, 0, self.shape.last().copied().unwrap_or(1));
        for (axis, places) in outer.iter().enumerate().rev() {
            let count = places.len() as u64;
            start += places[(left % count) as usize] * stride;
            left /= count;
            stride *= self.shape[axis];
        }
        start
    }
}

fn extend(runs: &mut Vec<Range<usize>>, run: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}
