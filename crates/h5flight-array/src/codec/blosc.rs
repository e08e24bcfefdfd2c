//! Blosc 1: blocks that fit into a processor's cache, shuffled and then compressed by one of five compressors.
//!
//! What a chunk is stands in [`chunk`], and Blosc2 shares it. The filter's parameters say nothing that the chunk does
//! not say better.

use std::sync::Arc;

use super::{BLOSC, Decode, Known, Scratch, Stage};
use crate::error::Result;

mod blosclz;
pub(super) mod chunk;
mod stream;

use chunk::Chunk;

pub(super) static FILTER: Known =
    Known { id: BLOSC, name: "blosc", stage: |_, _| Ok(Stage::Compresses(Arc::new(Blosc))) };

#[derive(Debug)]
struct Blosc;

impl Decode for Blosc {
    fn decode(&self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        Chunk::blosc(stored)?.decode(out, scratch)
    }
}

#[cfg(test)]
mod tests;
