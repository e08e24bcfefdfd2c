//! Zstandard: a sequence of frames, which may leave out their decoded size, and of frames that are to be skipped.
//!
//! Decoded in one call into a buffer that has room for all of it: copies are made from that buffer, so that a frame's
//! window, which may say gigabytes, is never allocated.

use std::sync::Arc;

use ::zstd::zstd_safe::{DCtx, get_error_name, zstd_sys::ZSTD_ErrorCode};

use super::{Decode, Known, Scratch, Stage, ZSTD, damaged, too_long};
use crate::error::Result;

pub(super) static FILTER: Known = Known { id: ZSTD, name: "zstd", stage: |_, _| Ok(Stage::Compresses(Arc::new(Zstd))) };

#[derive(Debug)]
struct Zstd;

impl Decode for Zstd {
    fn decode(&self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        decompress(stored, out, scratch)
    }
}

/// Decodes `stored`, all of it frames, into the first bytes of `out`, and returns how many.
///
/// # Errors
/// `chunk_size_mismatch` where the frames are longer than `out`, `malformed_file` where they are damaged.
pub(super) fn decompress(stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
    /// Errors are returned as the negative of their number.
    const TOO_SMALL: usize = (ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg();
    let context = scratch.zstd.get_or_insert_with(DCtx::create);
    context.decompress(out, stored).map_err(|code| match code {
        TOO_SMALL => too_long("zstd", stored, out.len()),
        _ => damaged("zstd", stored, get_error_name(code)),
    })
}
