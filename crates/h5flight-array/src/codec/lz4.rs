//! LZ4 as HDF5's filter frames it: the decoded size in 8 bytes, the decoded size of a block in 4, then the blocks, each
//! behind its stored size in 4 bytes. Numbers are big-endian. The last block is as short as it has to be, and a block
//! that is stored in as many bytes as it has is stored as it is.

use std::sync::Arc;

use lz4_flex::block::decompress_into;

use super::{Decode, Known, LZ4, Scratch, Stage, damaged, too_long};
use crate::error::Result;

pub(super) static FILTER: Known = Known { id: LZ4, name: "lz4", stage: |_, _| Ok(Stage::Compresses(Arc::new(Lz4))) };

#[derive(Debug)]
struct Lz4;

impl Decode for Lz4 {
    /// Bytes after the last block are ignored, as HDF5's filter does.
    fn decode(&self, stored: &[u8], out: &mut [u8], _: &mut Scratch) -> Result<usize> {
        let Frame { bytes, block_bytes, mut blocks } = Frame::parse("lz4", stored)?;
        let declared_bytes = out.len();
        let mut rest = out.get_mut(..bytes).ok_or_else(|| too_long("lz4", stored, declared_bytes))?;
        if block_bytes == 0 && bytes > 0 {
            return Err(damaged("lz4", stored, "its blocks have 0 bytes"));
        }
        while !rest.is_empty() {
            let (out, after) = rest.split_at_mut(block_bytes.min(rest.len()));
            let block = take_block("lz4", stored, &mut blocks)?;
            if block.len() == out.len() {
                out.copy_from_slice(block);
            } else {
                decompress_block(block, out).map_err(|error| damaged("lz4", stored, error.message))?;
            }
            rest = after;
        }
        Ok(bytes)
    }
}

/// What stands before the blocks of a chunk, here and in bitshuffle's.
pub(super) struct Frame<'a> {
    /// Decoded bytes of the chunk. Unchecked, as all that it says.
    pub(super) bytes: usize,
    /// Decoded bytes of every block but the last.
    pub(super) block_bytes: usize,
    /// The blocks: for [`take_block`].
    pub(super) blocks: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn parse(filter: &str, stored: &'a [u8]) -> Result<Self> {
        let numbers = || {
            let (bytes, rest) = stored.split_first_chunk::<8>()?;
            let (block_bytes, blocks) = rest.split_first_chunk::<4>()?;
            Some((u64::from_be_bytes(*bytes), u32::from_be_bytes(*block_bytes), blocks))
        };
        let (bytes, block_bytes, blocks) = numbers().ok_or_else(|| damaged(filter, stored, "it has no header"))?;
        let size = |bytes: u64| {
            usize::try_from(bytes).map_err(|_| damaged(filter, stored, format!("it declares {bytes} bytes")))
        };
        Ok(Self { bytes: size(bytes)?, block_bytes: size(block_bytes.into())?, blocks })
    }
}

/// The next block behind its size, cut off the front of `blocks`, which is a part of `stored`.
pub(super) fn take_block<'a>(filter: &str, stored: &[u8], blocks: &mut &'a [u8]) -> Result<&'a [u8]> {
    let block = || {
        let (bytes, rest) = blocks.split_first_chunk::<4>()?;
        rest.split_at_checked(usize::try_from(u32::from_be_bytes(*bytes)).ok()?)
    };
    let (block, rest) = block().ok_or_else(|| damaged(filter, stored, "it ends within a block"))?;
    *blocks = rest;
    Ok(block)
}

/// Decodes one block, without any frame, into all of `out`.
///
/// # Errors
/// `chunk_size_mismatch` where it is longer than `out`, `malformed_file` where it is shorter or damaged.
pub(super) fn decompress_block(block: &[u8], out: &mut [u8]) -> Result<()> {
    use lz4_flex::block::DecompressError;
    match decompress_into(block, out) {
        Ok(bytes) if bytes == out.len() => Ok(()),
        Ok(bytes) => Err(damaged("lz4", block, format!("it decodes to {bytes} bytes, not {}", out.len()))),
        Err(DecompressError::OutputTooSmall { .. }) => Err(too_long("lz4", block, out.len())),
        Err(error) => Err(damaged("lz4", block, error)),
    }
}
