//! LZ4 as HDF5's filter frames it: the decoded size in 8 bytes, the decoded size of a block in 4, then the blocks, each
//! behind its stored size in 4 bytes. Numbers are big-endian. The last block is as short as it has to be, and a block
//! that is stored in as many bytes as it has is stored as it is.
//!
//! A block is a sequence of literal bytes and copies of earlier output. First a byte whose high half is the number of
//! literals and whose low half is the length of the copy less 4; a half of 15 is continued behind the byte, or behind
//! the literals and the distance, in bytes that are added up, the last of them being the first below 255. Then the
//! literals, then the distance of the copy in 2 bytes, little-endian. A block ends with literals.

use std::sync::Arc;

use super::copies::copy_within;
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

/// The value of a half byte that says: more follows.
const LONG: usize = 15;
/// The shortest copy.
const COPY_MIN: usize = 4;
/// The most literals that are moved at once, whatever is asked for, where there is room.
const LITERALS_BYTES: usize = 16;

/// Decodes one block, without any frame, into all of `out`.
///
/// # Errors
/// `chunk_size_mismatch` where it is longer than `out`, `malformed_file` where it is shorter or damaged.
pub(super) fn decompress_block(block: &[u8], out: &mut [u8]) -> Result<()> {
    let cut = || damaged("lz4", block, "it ends too early");
    let declared_bytes = out.len();
    let (mut input, mut at) = (block, 0);
    loop {
        let (token, rest) = input.split_first().ok_or_else(cut)?;
        input = rest;
        let literals = read_length(usize::from(token >> 4), &mut input).ok_or_else(cut)?;
        let (source, rest) = input.split_at_checked(literals).ok_or_else(cut)?;
        if literals > declared_bytes - at {
            return Err(too_long("lz4", block, declared_bytes));
        }
        match (input.first_chunk::<LITERALS_BYTES>(), out[at..].first_chunk_mut::<LITERALS_BYTES>()) {
            (Some(source), Some(out)) if literals <= LITERALS_BYTES => *out = *source,
            _ => out[at..at + literals].copy_from_slice(source),
        }
        at += literals;
        input = rest;
        if input.is_empty() {
            break;
        }
        let (distance, rest) = input.split_first_chunk::<2>().ok_or_else(cut)?;
        input = rest;
        let distance = usize::from(u16::from_le_bytes(*distance));
        let length = COPY_MIN + read_length(usize::from(token & 15), &mut input).ok_or_else(cut)?;
        let Some(start) = at.checked_sub(distance).filter(|start| *start < at) else {
            return Err(damaged("lz4", block, format!("a copy from {distance} bytes before byte {at} of its output")));
        };
        if length > declared_bytes - at {
            return Err(too_long("lz4", block, declared_bytes));
        }
        copy_within(out, start, at, length);
        at += length;
    }
    if at != declared_bytes {
        return Err(damaged("lz4", block, format!("it decodes to {at} bytes, not {declared_bytes}")));
    }
    Ok(())
}

/// A length that began in half a byte.
fn read_length(half: usize, input: &mut &[u8]) -> Option<usize> {
    let mut length = half;
    if half == LONG {
        loop {
            let (more, rest) = input.split_first()?;
            *input = rest;
            length += usize::from(*more);
            if *more < u8::MAX {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Reason;

    /// What another decoder makes of a block, where it makes as many bytes as there should be.
    fn expected(block: &[u8], bytes: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; bytes];
        (lz4_flex::block::decompress_into(block, &mut out).ok()? == bytes).then_some(out)
    }

    fn decoded(block: &[u8], bytes: usize) -> Option<Vec<u8>> {
        let mut out = vec![0xAA; bytes];
        decompress_block(block, &mut out).ok().map(|()| out)
    }

    /// Runs, repeated patterns and noise, of lengths that are continued in further bytes and of lengths that are not.
    fn data() -> impl Strategy<Value = Vec<u8>> {
        let pattern =
            (prop::collection::vec(any::<u8>(), 1..40), 1usize..60).prop_map(|(pattern, times)| pattern.repeat(times));
        let run = (any::<u8>(), 1usize..1000).prop_map(|(byte, bytes)| vec![byte; bytes]);
        let noise = prop::collection::vec(any::<u8>(), 1..400);
        prop::collection::vec(prop_oneof![pattern, run, noise], 1..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn blocks_whole_or_damaged_are_decoded_as_another_decoder_does(
            data in data(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut block = lz4_flex::block::compress(&data);
            prop_assert_eq!(decoded(&block, data.len()), Some(data.clone()));
            let cut = cut.index(block.len());
            for bytes in [data.len() - 1, data.len() + 1] {
                prop_assert_eq!(decoded(&block, bytes), None);
            }
            prop_assert_eq!(decoded(&block[..cut], data.len()), expected(&block[..cut], data.len()));
            let at = at.index(block.len());
            block[at] = byte;
            prop_assert_eq!(decoded(&block, data.len()), expected(&block, data.len()));
        }

        #[test]
        fn garbage_is_decoded_as_another_decoder_does(
            block in prop::collection::vec(prop_oneof![0u8..40, any::<u8>()], 0..60), bytes in 0usize..300,
        ) {
            prop_assert_eq!(decoded(&block, bytes), expected(&block, bytes));
        }
    }

    #[test]
    fn every_way_to_end_wrongly_has_its_reason() {
        let reason = |block: &[u8], bytes: usize| decompress_block(block, &mut vec![0; bytes]).unwrap_err().reason;
        assert_eq!(reason(&[], 4), Reason::MalformedFile, "nothing");
        assert_eq!(reason(&[0x40, 1, 2], 4), Reason::MalformedFile, "literals cut off");
        assert_eq!(reason(&[0xF0, 255, 255], 4), Reason::MalformedFile, "a length cut off");
        assert_eq!(reason(&[0x10, 1, 1], 8), Reason::MalformedFile, "a distance cut off");
        assert_eq!(reason(&[0x10, 1, 1, 0], 5), Reason::MalformedFile, "no literals at the end");
        assert_eq!(reason(&[0x10, 1, 0, 0, 0], 5), Reason::MalformedFile, "a copy of itself");
        assert_eq!(reason(&[0x10, 1, 2, 0, 0], 5), Reason::MalformedFile, "a copy from before the start");
        assert_eq!(reason(&[0x10, 1], 2), Reason::MalformedFile, "too short");
        assert_eq!(reason(&[0x20, 1, 2], 1), Reason::ChunkSizeMismatch, "too many literals");
        assert_eq!(reason(&[0x10, 1, 1, 0, 0], 4), Reason::ChunkSizeMismatch, "too long a copy");
    }
}
