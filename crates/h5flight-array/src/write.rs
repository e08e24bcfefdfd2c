//! Arrow batches become the chunks of an HDF5 dataset: the way back of [`crate::batch`].
//!
//! [`RowForm::of`] says what a schema means (element type, shape of a row), [`Grid`] how rows are cut into chunks,
//! [`Slabs`] takes batches of any size and gives out whole rows of chunks, which [`Grid::chunk`] cuts apart. Pure; the
//! chunks are compressed by [`crate::codec::encode`] and written by the worker.
//!
//! Invariants: rows that do not end with a chunk are filled up with zeros, the fill value of what is written; a null is
//! refused, never written; memory is that of the slab that is being filled and of those that were given out.

pub mod attributes;
mod chunks;
mod form;
mod rows;

pub use chunks::{CHUNK_BYTES, Grid, Slab, Slabs, default_chunk_shape};
pub use form::RowForm;

#[cfg(test)]
mod tests;
