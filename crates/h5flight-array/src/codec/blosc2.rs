//! Blosc2: a frame around one chunk of [`blosc::chunk`](super::blosc), whose elements may be stored box by box.
//!
//! The filter of HDF5 writes a contiguous frame with one chunk into each chunk of a dataset. Of datasets with several
//! dimensions that chunk has blocks which are boxes, and a metalayer says so: [`grid`]. The filter's parameters repeat what the
//! frame says, and are not needed.

use std::sync::Arc;

use super::{BLOSC2, Decode, Known, Scratch, Stage};
use crate::error::Result;

mod frame;
mod grid;

use frame::Frame;
use grid::Grid;

pub(super) static FILTER: Known =
    Known { id: BLOSC2, name: "blosc2", stage: |_, _| Ok(Stage::Compresses(Arc::new(Blosc2))) };

#[derive(Debug)]
struct Blosc2;

impl Decode for Blosc2 {
    fn decode(&self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        let frame = Frame::new(stored)?;
        let Some(chunk) = frame.chunk(scratch)? else { return Ok(0) };
        match frame.array()? {
            None => chunk.decode(out, scratch),
            Some(array) => Grid::new(array, chunk.bytes())?.decode(&chunk, out, scratch),
        }
    }
}

/// Takes the marker of a msgpack value and its N bytes from the front of `input`.
fn take<const N: usize>(input: &mut &[u8], marker: u8) -> Option<[u8; N]> {
    let (found, rest) = input.split_first()?;
    let (bytes, rest) = rest.split_first_chunk()?;
    *input = rest;
    (*found == marker).then_some(*bytes)
}
