//! Deflate in its zlib wrapper (RFC 1950), by libdeflate: twice as fast as zlib on microscope and probe data, because
//! it decodes a whole buffer whose size is known, which is what a chunk is.

use std::sync::Arc;

use libdeflater::DecompressionError;

use super::{DEFLATE, Decode, Known, Scratch, Stage, damaged, too_long};
use crate::error::Result;

pub(super) static FILTER: Known =
    Known { id: DEFLATE, name: "deflate", stage: |_, _| Ok(Stage::Compresses(Arc::new(Deflate))) };

#[derive(Debug)]
struct Deflate;

impl Decode for Deflate {
    /// Bytes after the end of the zlib stream are ignored, as libhdf5 does.
    fn decode(&self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        scratch.decompressor.zlib_decompress(stored, out).map_err(|error| match error {
            DecompressionError::InsufficientSpace => too_long("deflate", stored, out.len()),
            DecompressionError::BadData => damaged("deflate", stored, "its codes or its checksum"),
        })
    }
}
