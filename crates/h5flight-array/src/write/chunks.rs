//! Rows become chunks.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::form::RowForm;
use crate::error::{Error, Reason, Result};
use crate::meta::product;

/// Bytes of a chunk whose shape is not asked for: what a read of a few rows may decode in vain, and enough that neither
/// compression nor the index suffers.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// The shape of chunks that nobody asked for: about [`CHUNK_BYTES`], whole rows where several fit; a row that is larger is
/// cut along its first axes. `rows` are all there will be, where that is known: there is no chunk of more rows.
pub fn default_chunk_shape(row_shape: &[u64], element_bytes: u64, rows: Option<u64>) -> Vec<u64> {
    let mut chunk_shape = vec![1; row_shape.len() + 1];
    let mut bytes = element_bytes.max(1);
    let axes = std::iter::once(rows.unwrap_or(u64::MAX)).chain(row_shape.iter().copied());
    for (chunk, size) in chunk_shape.iter_mut().rev().zip(axes.collect::<Vec<_>>().into_iter().rev()) {
        *chunk = (CHUNK_BYTES / bytes).clamp(1, size.max(1));
        bytes = bytes.saturating_mul(*chunk);
    }
    chunk_shape
}

/// How the rows of an array are cut into chunks.
#[derive(Clone, Debug)]
pub struct Grid {
    chunk_shape: Vec<u64>,
    row_shape: Vec<u64>,
    /// Chunks by axis after the first.
    counts: Vec<u64>,
    element_bytes: usize,
    row_bytes: usize,
    chunk_bytes: usize,
}

/// Rows of one row of chunks: as many as a chunk has, those that were not put filled up with zeros.
#[derive(Clone, Debug)]
pub struct Slab {
    /// Its first row.
    pub first_row: u64,
    /// Rows that were put.
    pub rows: u64,
    /// All of its bytes, in C order.
    pub bytes: Arc<Vec<u8>>,
}

impl Grid {
    /// Chunks of `chunk_shape` for rows of this form.
    ///
    /// # Errors
    /// `bad_request` where the shape is none for these rows; `chunk_too_large`.
    pub fn new(form: &RowForm, chunk_shape: &[u64], chunk_bytes_max: u64) -> Result<Self> {
        let row_shape = &form.row_shape;
        let refuse = |why: &str| {
            let message = format!("chunks of shape {chunk_shape:?} for rows of shape {row_shape:?}: {why}");
            Err(Error::new(Reason::BadRequest, message))
        };
        if chunk_shape.len() != row_shape.len() + 1 {
            return refuse("one number an axis is needed, that of the rows first");
        }
        if chunk_shape.contains(&0) || chunk_shape[1..].iter().zip(row_shape).any(|(chunk, size)| chunk > size) {
            return refuse("each number is at least 1 and at most the size of its axis");
        }
        let element_bytes = form.element_bytes();
        let chunk_bytes = product(chunk_shape).and_then(|elements| elements.checked_mul(element_bytes as u64));
        let chunk_bytes = chunk_bytes.filter(|bytes| *bytes <= chunk_bytes_max).ok_or_else(|| {
            let message = format!(
                "chunks of shape {chunk_shape:?} with elements of {element_bytes} bytes have more than {chunk_bytes_max} \
                 bytes (chunk_bytes_max)"
            );
            Error::new(Reason::ChunkTooLarge, message)
        })?;
        let counts = row_shape.iter().zip(&chunk_shape[1..]).map(|(size, chunk)| size.div_ceil(*chunk)).collect();
        Ok(Self {
            chunk_shape: chunk_shape.to_vec(),
            row_shape: row_shape.clone(),
            counts,
            element_bytes,
            row_bytes: form.row_bytes(),
            chunk_bytes: chunk_bytes as usize,
        })
    }

    /// Shape of a chunk.
    pub fn chunk_shape(&self) -> &[u64] {
        &self.chunk_shape
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Bytes of one row of chunks; `None` where that is no number.
    pub fn slab_bytes(&self) -> Option<u64> {
        self.chunk_shape[0].checked_mul(self.row_bytes as u64)
    }

    /// Chunks of a slab.
    pub fn slab_chunks(&self) -> u64 {
        self.counts.iter().product()
    }

    /// Origin and bytes of one chunk of a slab, filled up at the edges.
    pub fn chunk(&self, slab: &Slab, number: u64) -> (Vec<u64>, Vec<u8>) {
        let mut origin = vec![slab.first_row; self.chunk_shape.len()];
        let mut rest = number;
        for axis in (1..origin.len()).rev() {
            let count = self.counts[axis - 1];
            origin[axis] = rest % count * self.chunk_shape[axis];
            rest /= count;
        }
        let mut bytes = vec![0; self.chunk_bytes];
        // From here on sizes are those of a slab, which is in memory: they fit.
        let mut source = 0;
        let mut stride = self.row_bytes;
        for (axis, size) in self.row_shape.iter().enumerate() {
            stride /= *size as usize;
            source += origin[axis + 1] as usize * stride;
        }
        let (slab, rows) = (&slab.bytes[..], self.chunk_shape[0] as usize);
        let chunk_row = self.chunk_bytes / rows;
        for (row, out) in bytes.chunks_exact_mut(chunk_row).enumerate() {
            self.copy(&slab[row * self.row_bytes..][..self.row_bytes], source, &origin, 1, out);
        }
        (origin, bytes)
    }

    /// Copies the part of a row that lies in the chunk, from `source` on, axis by axis.
    fn copy(&self, row: &[u8], source: usize, origin: &[u64], axis: usize, out: &mut [u8]) {
        let Some(size) = self.row_shape.get(axis - 1) else {
            out.copy_from_slice(&row[source..source + out.len()]);
            return;
        };
        let inner: u64 = self.row_shape[axis..].iter().product();
        let (stride, chunk) = (inner as usize * self.element_bytes, self.chunk_shape[axis]);
        let inside = (*size - origin[axis]).min(chunk) as usize;
        if self.chunk_shape[axis + 1..] == self.row_shape[axis..] {
            let bytes = inside * stride;
            out[..bytes].copy_from_slice(&row[source..source + bytes]);
            return;
        }
        let step = out.len() / chunk as usize;
        for (at, out) in out.chunks_exact_mut(step).take(inside).enumerate() {
            self.copy(row, source + at * stride, origin, axis + 1, out);
        }
    }
}

/// Takes rows and gives out slabs.
pub struct Slabs {
    form: RowForm,
    chunk_rows: u64,
    first_row: u64,
    filling: Vec<u8>,
}

impl Slabs {
    /// Of as many rows as the chunks have.
    pub fn new(form: RowForm, chunk_rows: u64) -> Self {
        Self { form, chunk_rows, first_row: 0, filling: Vec::new() }
    }

    /// Rows that came.
    pub fn rows(&self) -> u64 {
        self.first_row + self.filled()
    }

    fn filled(&self) -> u64 {
        (self.filling.len() / self.form.row_bytes) as u64
    }

    /// Takes rows of a batch, from this one on, until a slab is full: gives the row to go on from, and the slab. One at a
    /// time, for texts take the length of their field here, which may be a thousand times what was sent.
    ///
    /// # Errors
    /// `put_mismatch`, and then the rows of this batch are there in part: nothing more is to be taken.
    pub fn take(&mut self, batch: &RecordBatch, from: usize) -> Result<(usize, Option<Slab>)> {
        self.form.check(batch)?;
        let room = usize::try_from(self.chunk_rows - self.filled()).unwrap_or(usize::MAX);
        let rows = room.min(batch.num_rows().saturating_sub(from));
        self.form.append(batch, from, rows, &mut self.filling)?;
        let full = if self.filled() == self.chunk_rows { self.finish(self.chunk_rows) } else { None };
        Ok((from + rows, full))
    }

    /// What has come of a slab that is not full, filled up to `chunk_rows`; `None` where that is nothing.
    pub fn finish(&mut self, chunk_rows: u64) -> Option<Slab> {
        let rows = self.filled();
        if rows == 0 {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.filling);
        bytes.resize(usize::try_from(chunk_rows).ok()?.checked_mul(self.form.row_bytes)?, 0);
        let slab = Slab { first_row: self.first_row, rows, bytes: Arc::new(bytes) };
        self.first_row += rows;
        Some(slab)
    }
}
