//! Bitshuffle: blocks of elements whose bits are transposed (see [`super::bits`]), each then compressed with LZ4 or zstd
//! where the filter's parameters say so.
//!
//! The parameters are two version numbers, the bytes of an element, the elements of a block (0: the library chooses),
//! and the compression. All blocks but the last have as many elements as that; the last has what remains, in eights,
//! and the up to seven elements behind it are stored as they are. Compressed chunks have the frame that LZ4's have.

use std::sync::Arc;

use super::bits::untranspose_bits;
use super::lz4::{self, Frame, take_block};
use super::{BITSHUFFLE, ChunkFacts, Decode, Known, Scratch, Stage, damaged, size_mismatch, too_long, zstd};
use crate::error::{Error, Reason, Result};
use crate::meta::Filter;

pub(super) static FILTER: Known = Known { id: BITSHUFFLE, name: "bitshuffle", stage };

fn stage(filter: &Filter, _: &ChunkFacts) -> Result<Stage> {
    let parameter = |at: usize| filter.params.get(at).copied().unwrap_or(0);
    let malformed = |what: String| Error::new(Reason::MalformedFile, what);
    let element_bytes = match usize::try_from(parameter(2)) {
        Ok(bytes @ 1..) => bytes,
        _ => return Err(malformed(format!("bitshuffle of elements of {} bytes", parameter(2)))),
    };
    let block_bytes = match parameter(3) {
        0 => default_block_bytes(element_bytes),
        elements => usize::try_from(elements).ok().and_then(|elements| elements.checked_mul(element_bytes)),
    };
    let layout = block_bytes.and_then(|block_bytes| Layout::new(element_bytes, block_bytes)).ok_or_else(|| {
        malformed(format!("bitshuffle of {} elements of {element_bytes} bytes in a block", parameter(3)))
    })?;
    match parameter(4) {
        0 => Ok(Stage::Rearranges(Arc::new(Transposed(layout)))),
        2 => Ok(Stage::Compresses(Arc::new(Compressed { element_bytes, compression: Compression::Lz4 }))),
        3 => Ok(Stage::Compresses(Arc::new(Compressed { element_bytes, compression: Compression::Zstd }))),
        other => {
            let message = format!("filter {BITSHUFFLE} (bitshuffle) with compression {other} has no decoder here");
            Err(Error::new(Reason::UnsupportedFilter, message))
        }
    }
}

/// What the library chooses: 8 KiB, in eights of elements, but at least 128 of them.
fn default_block_bytes(element_bytes: usize) -> Option<usize> {
    (8192 / element_bytes / 8 * 8).max(128).checked_mul(element_bytes)
}

/// How a chunk is cut into blocks.
#[derive(Clone, Copy, Debug)]
struct Layout {
    element_bytes: usize,
    /// A multiple of eight elements, and not 0.
    block_bytes: usize,
}

impl Layout {
    fn new(element_bytes: usize, block_bytes: usize) -> Option<Self> {
        let eight_bytes = element_bytes.checked_mul(8)?;
        (block_bytes > 0 && block_bytes.is_multiple_of(eight_bytes)).then_some(Self { element_bytes, block_bytes })
    }

    /// Bytes of the next block where this many are left; `None` where these are stored as they are.
    fn next_bytes(self, left_bytes: usize) -> Option<usize> {
        let whole_bytes = left_bytes - left_bytes % (8 * self.element_bytes);
        (whole_bytes > 0).then_some(whole_bytes.min(self.block_bytes))
    }
}

/// Without compression.
#[derive(Debug)]
struct Transposed(Layout);

impl Decode for Transposed {
    fn decode(&self, stored: &[u8], out: &mut [u8], _: &mut Scratch) -> Result<usize> {
        let Self(layout) = *self;
        if stored.len() != out.len() {
            return Err(size_mismatch("bitshuffled chunk", stored.len(), out.len()));
        }
        let (mut source, mut rest) = (stored, out);
        while let Some(bytes) = layout.next_bytes(rest.len()) {
            let (block, after) = source.split_at(bytes);
            let (out, rest_after) = rest.split_at_mut(bytes);
            untranspose_bits(block, layout.element_bytes, out);
            (source, rest) = (after, rest_after);
        }
        rest.copy_from_slice(source);
        Ok(stored.len())
    }
}

/// Blocks are compressed after their bits were transposed.
#[derive(Debug)]
struct Compressed {
    element_bytes: usize,
    compression: Compression,
}

#[derive(Clone, Copy, Debug)]
enum Compression {
    Lz4,
    Zstd,
}

impl Decode for Compressed {
    /// Each block is decompressed into a buffer, never larger than `out`, and transposed back from there. Bytes after the
    /// last element are ignored, as HDF5's filter does.
    fn decode(&self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        let Frame { bytes, block_bytes, mut blocks } = Frame::parse("bitshuffle", stored)?;
        let declared_bytes = out.len();
        let mut rest = out.get_mut(..bytes).ok_or_else(|| too_long("bitshuffle", stored, declared_bytes))?;
        let layout = self.layout(block_bytes).ok_or_else(|| {
            let how = format!("blocks of {block_bytes} bytes for elements of {} bytes", self.element_bytes);
            damaged("bitshuffle", stored, how)
        })?;
        let mut transposed = scratch.take(0);
        while let Some(bytes) = layout.next_bytes(rest.len()) {
            let (out, after) = rest.split_at_mut(bytes);
            transposed.resize(bytes, 0);
            self.compression
                .decompress(take_block("bitshuffle", stored, &mut blocks)?, &mut transposed, scratch)
                .map_err(|error| damaged("bitshuffle", stored, error.message))?;
            untranspose_bits(&transposed, self.element_bytes, out);
            rest = after;
        }
        scratch.put_back(transposed);
        let plain = blocks.get(..rest.len()).ok_or_else(|| damaged("bitshuffle", stored, "it ends too early"))?;
        rest.copy_from_slice(plain);
        Ok(bytes)
    }
}

impl Compressed {
    /// The chunk's header says how large its blocks are, not the parameters.
    fn layout(&self, block_bytes: usize) -> Option<Layout> {
        match block_bytes {
            0 => Layout::new(self.element_bytes, default_block_bytes(self.element_bytes)?),
            _ => Layout::new(self.element_bytes, block_bytes),
        }
    }
}

impl Compression {
    /// Decodes one block into all of `out`.
    fn decompress(self, block: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        match self {
            Self::Lz4 => lz4::decompress_block(block, out),
            Self::Zstd => match zstd::decompress(block, out, scratch)? {
                bytes if bytes == out.len() => Ok(()),
                bytes => Err(size_mismatch("block", bytes, out.len())),
            },
        }
    }
}
