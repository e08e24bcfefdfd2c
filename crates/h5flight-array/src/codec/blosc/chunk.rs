//! A chunk of Blosc or Blosc2: a header, then blocks that are decoded one by one.
//!
//! The layout, all numbers little endian, by c-blosc's and c-blosc2's README_CHUNK_FORMAT and what the libraries do:
//! - Blosc: version, version of the compressor's format, flags, bytes of an element; then i32: decoded bytes, bytes of a
//!   block, stored bytes. Blosc2 follows with: six filters, a compressor of the user's, its parameter, six parameters of
//!   the filters, two bytes of flags.
//! - unless the chunk is stored as it is, or one value says all: for each block an i32, where it starts in the chunk.
//! - a block: one stream, or one for each byte of an element where it is split; an i32 of stored bytes before each. As
//!   many as decoded: not compressed. Blosc2 alone: none for zeros, and -b and a byte for a run of the byte b.
//!
//! Invariants: a [`Chunk`] exists only after its header was checked. Decoding reads each stored byte once at most, so
//! that blocks which share streams cannot make it take longer than stored and decoded bytes do.

use super::super::bits::untranspose_bits;
use super::super::shuffle::unshuffle;
use super::super::{Scratch, damaged, too_long};
use super::stream::Compressor;
use crate::error::{Error, Reason, Result};

/// Blosc's header, with which that of Blosc2 begins.
const HEADER_BYTES: usize = 16;
const HEADER_2_BYTES: usize = 32;
/// Format version of Blosc 1, since 2010 the only one.
const VERSION_1: u8 = 2;
/// The version of Blosc2 that left the last filter's slot unwritten.
const VERSION_2_ALPHA: u8 = 3;
/// Format version of each compressor in Blosc 1.
const COMPRESSOR_VERSION: u8 = 1;
/// Blosc 1 does not split elements that are larger, ...
const SPLITS_MAX: usize = 16;
/// ... nor blocks of fewer elements, whatever the flag says.
const SPLIT_ELEMENTS_MIN: usize = 128;

const FLAG_SHUFFLE: u8 = 1;
const FLAG_RAW: u8 = 2;
const FLAG_BITSHUFFLE: u8 = 4;
const FLAG_RESERVED: u8 = 8;
const FLAG_WHOLE: u8 = 16;
/// Both together: the header is that of Blosc2.
const FLAGS_BLOSC2: u8 = FLAG_SHUFFLE | FLAG_BITSHUFFLE;
/// What Blosc2's first byte of flags may say, besides the value of a uniform chunk, and nobody writes into HDF5.
const FOREIGN: [(u8, &str); 5] = [
    (1, "a dictionary"),
    (2, "an extended header"),
    (4, "a compressor for each block"),
    (8, "lazy blocks"),
    (128, "measurements in place of data"),
];

/// A chunk whose header was checked.
#[derive(Debug)]
pub(in crate::codec) struct Chunk<'a> {
    format: Format,
    stored: &'a [u8],
    bytes: usize,
    block_bytes: usize,
    content: Content<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Blosc,
    Blosc2,
}

#[derive(Debug)]
enum Content<'a> {
    /// The value all elements have.
    Uniform(&'a [u8]),
    /// Not compressed.
    Raw(&'a [u8]),
    Blocks(Blocks<'a>),
}

#[derive(Debug)]
struct Blocks<'a> {
    starts: &'a [[u8; 4]],
    compressor: Compressor,
    /// Streams of a block that is not shorter than the others.
    streams: usize,
    /// In the order of undoing.
    moves: Vec<Move>,
    /// Bytes of what was replaced by its difference from the one before, or from block 0: undone last.
    delta: Option<usize>,
}

/// How a filter moved the bytes of a block: within elements of so many bytes.
#[derive(Clone, Copy, Debug)]
enum Move {
    Shuffle(usize),
    /// Bits of the elements that make a multiple of eight.
    Bits(usize),
    /// Bits of all elements, or of none where they are no multiple of eight.
    AllBits(usize),
}

/// What both headers have.
struct Header {
    version: u8,
    compressor_version: u8,
    flags: u8,
    element_bytes: usize,
    bytes: usize,
    block_bytes: usize,
    stored_bytes: usize,
}

impl<'a> Chunk<'a> {
    /// Checks the header of a chunk of Blosc 1.
    pub(in crate::codec) fn blosc(stored: &'a [u8]) -> Result<Self> {
        let format = Format::Blosc;
        let header = Header::read(format, stored)?;
        let stored = &stored[..header.stored_bytes];
        if header.version != VERSION_1 || header.flags & FLAG_RESERVED != 0 {
            return Err(format.damaged(stored, format!("version {}, flags {:#x}", header.version, header.flags)));
        }
        let element_bytes = header.element_bytes;
        let moves = match header.flags {
            flags if flags & FLAG_SHUFFLE != 0 && element_bytes > 1 => vec![Move::Shuffle(element_bytes)],
            flags if flags & FLAG_BITSHUFFLE != 0 => vec![Move::AllBits(element_bytes)],
            _ => Vec::new(),
        };
        let split = header.flags & FLAG_WHOLE == 0
            && element_bytes <= SPLITS_MAX
            && header.block_bytes / element_bytes >= SPLIT_ELEMENTS_MIN;
        let content = if header.flags & FLAG_RAW != 0 {
            Content::Raw(format.raw(stored, &header, HEADER_BYTES)?)
        } else if header.compressor_version != COMPRESSOR_VERSION {
            return Err(format.damaged(stored, format!("a compressor of version {}", header.compressor_version)));
        } else {
            let streams = if split { element_bytes } else { 1 };
            Content::Blocks(Blocks { streams, moves, delta: None, ..format.blocks(stored, &header, HEADER_BYTES)? })
        };
        Ok(Self { format, stored, bytes: header.bytes, block_bytes: header.block_bytes, content })
    }

    /// Checks the header of a chunk of Blosc2.
    pub(in crate::codec) fn blosc2(stored: &'a [u8]) -> Result<Self> {
        let format = Format::Blosc2;
        let header = Header::read(format, stored)?;
        let stored = &stored[..header.stored_bytes];
        if header.flags & FLAGS_BLOSC2 != FLAGS_BLOSC2 {
            return Err(unsupported2("a chunk of Blosc 1"));
        }
        let extension =
            stored.get(HEADER_BYTES..HEADER_2_BYTES).ok_or_else(|| format.damaged(stored, "it ends in its header"))?;
        let (flags, flags_2) = (extension[15], extension[14]);
        if flags_2 != 0 {
            return Err(unsupported2(if flags_2 == 1 { "blocks of varying length" } else { "unknown flags" }));
        }
        if let Some((_, what)) = FOREIGN.iter().find(|(flag, _)| flags & flag != 0) {
            return Err(unsupported2(what));
        }
        let content = match (flags >> 4, header.flags & FLAG_RAW) {
            (0, 0) => {
                let (moves, delta) = pipeline(&header, extension)?;
                let streams = if header.flags & FLAG_WHOLE == 0 { header.element_bytes } else { 1 };
                Content::Blocks(Blocks { streams, moves, delta, ..format.blocks(stored, &header, HEADER_2_BYTES)? })
            }
            (0, _) => Content::Raw(format.raw(stored, &header, HEADER_2_BYTES)?),
            (3, _) => Content::Uniform(&stored[HEADER_2_BYTES..]),
            (kind, _) => Content::Uniform(uniform(kind, header.element_bytes)?),
        };
        let block_bytes = header.block_bytes.min(header.bytes.max(1));
        Self { format, stored, bytes: header.bytes, block_bytes, content }.checked()
    }

    /// A chunk of Blosc2 that is not stored, because all its elements are the same: the kind of value says which.
    pub(in crate::codec) fn special(kind: u8, element_bytes: usize, bytes: usize) -> Result<Self> {
        let content = Content::Uniform(uniform(kind, element_bytes)?);
        Self { format: Format::Blosc2, stored: &[], bytes, block_bytes: bytes.max(1), content }.checked()
    }

    /// A value that is repeated has to end with the chunk, which then is one block.
    fn checked(mut self) -> Result<Self> {
        if let Content::Uniform(value) = self.content {
            if value.is_empty() || !self.bytes.is_multiple_of(value.len()) {
                let how = format!("values of {} bytes in a chunk of {}", value.len(), self.bytes);
                return Err(self.format.damaged(self.stored, how));
            }
            self.block_bytes = self.bytes.max(1);
        }
        Ok(self)
    }

    /// Decoded bytes of the chunk.
    pub(in crate::codec) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Decoded bytes of a block, of which only the last one may have less. At least 1.
    pub(in crate::codec) fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// The value that all elements have, where the chunk says no more than that.
    pub(in crate::codec) fn uniform(&self) -> Option<&'a [u8]> {
        match self.content {
            Content::Uniform(value) => Some(value),
            Content::Raw(_) | Content::Blocks(_) => None,
        }
    }

    /// Whether the other blocks are differences from block 0.
    pub(in crate::codec) fn has_reference(&self) -> bool {
        matches!(&self.content, Content::Blocks(blocks) if blocks.delta.is_some())
    }

    /// Decodes the whole chunk into the first bytes of `out`, and returns how many these are.
    pub(in crate::codec) fn decode(&self, out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        let declared_bytes = out.len();
        let out = out.get_mut(..self.bytes).ok_or_else(|| too_long(self.format.name(), self.stored, declared_bytes))?;
        let mut work = Work::new(self, scratch);
        let (first, others) = out.split_at_mut(self.block_bytes.min(self.bytes));
        if !first.is_empty() {
            self.decode_block(0, first, None, &mut work)?;
        }
        for (at, block) in others.chunks_mut(self.block_bytes).enumerate() {
            self.decode_block(at + 1, block, Some(first), &mut work)?;
        }
        work.finish();
        Ok(self.bytes)
    }

    /// Decodes block `at` into `out`, which has the length of that block. `reference` is block 0, which all others need
    /// where [`Chunk::has_reference`].
    pub(in crate::codec) fn decode_block(
        &self,
        at: usize,
        out: &mut [u8],
        reference: Option<&[u8]>,
        work: &mut Work<'_>,
    ) -> Result<()> {
        match &self.content {
            Content::Uniform(value) => repeat(value, out),
            Content::Raw(raw) => out.copy_from_slice(&raw[at * self.block_bytes..][..out.len()]),
            Content::Blocks(blocks) => {
                match blocks.moves.split_last() {
                    None => self.decompress(blocks, at, out, work)?,
                    Some((last, moves)) => {
                        let bytes = out.len();
                        let mut source = std::mem::take(&mut work.source);
                        self.decompress(blocks, at, &mut source[..bytes], work)?;
                        for step in moves {
                            step.undo(&source[..bytes], &mut work.target[..bytes]);
                            std::mem::swap(&mut source, &mut work.target);
                        }
                        last.undo(&source[..bytes], out);
                        work.source = source;
                    }
                }
                blocks.undo_delta(out, reference);
            }
        }
        Ok(())
    }

    /// Fills `out` from the streams of block `at`.
    fn decompress(&self, blocks: &Blocks<'_>, at: usize, out: &mut [u8], work: &mut Work<'_>) -> Result<()> {
        let damaged = |how: String| self.format.damaged(self.stored, format!("block {at}: {how}"));
        let start = i32::from_le_bytes(blocks.starts[at]);
        let begin = usize::try_from(start).ok().and_then(|start| self.stored.get(start..));
        let mut input = begin.ok_or_else(|| damaged(format!("it starts at {start}")))?;
        let streams = if out.len() == self.block_bytes { blocks.streams } else { 1 };
        if !out.len().is_multiple_of(streams) {
            return Err(damaged(format!("{} bytes in {streams} streams", out.len())));
        }
        let stream_bytes = out.len() / streams;
        for part in out.chunks_exact_mut(stream_bytes) {
            let before_bytes = input.len();
            self.decompress_stream(blocks.compressor, &mut input, part, work.scratch).map_err(damaged)?;
            work.unread_bytes = work
                .unread_bytes
                .checked_sub(before_bytes - input.len())
                .ok_or_else(|| damaged("it shares streams with other blocks".to_owned()))?;
        }
        Ok(())
    }

    /// Fills `out` from the stream that `input` begins with, and leaves what follows.
    fn decompress_stream(
        &self,
        compressor: Compressor,
        input: &mut &[u8],
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), String> {
        let cut = || "it ends too early".to_owned();
        let (size, rest) = input.split_first_chunk::<4>().ok_or_else(cut)?;
        *input = rest;
        match i32::from_le_bytes(*size) {
            0 if self.format == Format::Blosc2 => out.fill(0),
            size @ -255..0 if self.format == Format::Blosc2 => {
                let (token, rest) = input.split_first().ok_or_else(cut)?;
                *input = rest;
                if token & 1 == 0 {
                    return Err(format!("token {token:#x}"));
                }
                out.fill(size.unsigned_abs() as u8);
            }
            size => {
                let split = usize::try_from(size).ok().and_then(|size| input.split_at_checked(size));
                let (stream, rest) = split.ok_or_else(|| format!("a stream of {size} bytes"))?;
                *input = rest;
                if stream.len() == out.len() {
                    out.copy_from_slice(stream);
                } else {
                    compressor.decompress(stream, out, scratch)?;
                }
            }
        }
        Ok(())
    }
}

impl Header {
    fn read(format: Format, stored: &[u8]) -> Result<Self> {
        let Some([version, compressor_version, flags, element, ..]) = stored.first_chunk::<HEADER_BYTES>().copied()
        else {
            return Err(format.damaged(stored, "it ends in its header"));
        };
        let number = |at: usize| {
            let bytes = stored[at..].first_chunk().copied().unwrap_or_default();
            usize::try_from(i32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        let (bytes, block_bytes, stored_bytes) = (number(4), number(8), number(12));
        let sizes = [bytes, block_bytes, stored_bytes];
        if element == 0
            || block_bytes == 0
            || sizes.contains(&usize::MAX)
            || !(HEADER_BYTES..=stored.len()).contains(&stored_bytes)
        {
            let how =
                format!("{bytes} bytes in blocks of {block_bytes} stored as {stored_bytes}, elements of {element}");
            return Err(format.damaged(stored, how));
        }
        let element_bytes = usize::from(element);
        Ok(Self { version, compressor_version, flags, element_bytes, bytes, block_bytes, stored_bytes })
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Blosc => "blosc",
            Self::Blosc2 => "blosc2",
        }
    }

    fn damaged(self, stored: &[u8], how: impl std::fmt::Display) -> Error {
        damaged(self.name(), stored, how)
    }

    /// What follows the header where nothing was compressed.
    fn raw<'a>(self, stored: &'a [u8], header: &Header, header_bytes: usize) -> Result<&'a [u8]> {
        let raw = stored.get(header_bytes..).filter(|raw| raw.len() == header.bytes);
        raw.ok_or_else(|| self.damaged(stored, format!("{} bytes not compressed", header.bytes)))
    }

    /// The table of blocks, and what made their streams.
    fn blocks<'a>(self, stored: &'a [u8], header: &Header, header_bytes: usize) -> Result<Blocks<'a>> {
        let number = header.flags >> 5;
        let compressor = match Compressor::new(number) {
            Some(Compressor::Snappy) | None if self == Self::Blosc2 => {
                return Err(unsupported2(&format!("compressor {number}")));
            }
            Some(compressor) => compressor,
            None => return Err(self.damaged(stored, format!("compressor {number}"))),
        };
        let count = header.bytes.div_ceil(header.block_bytes);
        let starts = stored[header_bytes..].as_chunks().0.get(..count);
        let starts = starts.ok_or_else(|| self.damaged(stored, format!("it has no room for {count} blocks")))?;
        Ok(Blocks { starts, compressor, streams: 1, moves: Vec::new(), delta: None })
    }
}

/// What Blosc2's filters did, in the order of undoing.
fn pipeline(header: &Header, extension: &[u8]) -> Result<(Vec<Move>, Option<usize>)> {
    let (filters, params) = (&extension[..6], &extension[8..14]);
    let slots = if header.version == VERSION_2_ALPHA { 5 } else { 6 };
    let (mut moves, mut delta) = (Vec::new(), None);
    for (filter, param) in filters.iter().zip(params).take(slots).rev() {
        let element_bytes = match (filter, param) {
            (1, 1..) => usize::from(*param),
            _ => header.element_bytes,
        };
        match filter {
            // Nothing, and what made values less precise.
            0 | 4 => continue,
            _ if delta.is_some() => return Err(unsupported2("a filter before delta")),
            1 if element_bytes == 1 => {}
            1 => moves.push(Move::Shuffle(element_bytes)),
            2 => moves.push(Move::Bits(element_bytes)),
            3 => delta = Some(delta_bytes(element_bytes)),
            _ => return Err(unsupported2(&format!("filter {filter}"))),
        }
    }
    Ok((moves, delta))
}

/// Delta takes elements of other sizes as several of 8 or of 1 bytes.
fn delta_bytes(element_bytes: usize) -> usize {
    match element_bytes {
        2 | 4 => element_bytes,
        _ if element_bytes.is_multiple_of(8) => 8,
        _ => 1,
    }
}

/// The value of a chunk that has none of its own.
fn uniform(kind: u8, element_bytes: usize) -> Result<&'static [u8]> {
    const NAN_32: [u8; 4] = f32::from_bits(0x7FC0_0000).to_le_bytes();
    const NAN_64: [u8; 8] = f64::from_bits(0x7FF8_0000_0000_0000).to_le_bytes();
    match (kind, element_bytes) {
        // Zeros, and elements that were never written: nothing else may stand for these.
        (1 | 4, _) => Ok(&[0]),
        (2, 4) => Ok(&NAN_32),
        (2, 8) => Ok(&NAN_64),
        _ => Err(Format::Blosc2.damaged(&[], format!("special value {kind} of {element_bytes} bytes"))),
    }
}

/// Fills `out` with `value`, again and again.
pub(in crate::codec) fn repeat(value: &[u8], out: &mut [u8]) {
    match value {
        [byte] => out.fill(*byte),
        _ => out.chunks_mut(value.len()).for_each(|element| element.copy_from_slice(&value[..element.len()])),
    }
}

impl Blocks<'_> {
    fn undo_delta(&self, block: &mut [u8], reference: Option<&[u8]>) {
        let Some(element_bytes) = self.delta else { return };
        let whole_bytes = block.len() - block.len() % element_bytes;
        match reference {
            Some(reference) => block[..whole_bytes].iter_mut().zip(reference).for_each(|(byte, other)| *byte ^= other),
            None => (element_bytes..whole_bytes).for_each(|at| block[at] ^= block[at - element_bytes]),
        }
    }
}

impl Move {
    fn undo(self, source: &[u8], out: &mut [u8]) {
        let (element_bytes, whole) = match self {
            Self::Shuffle(element_bytes) => return unshuffle(source, element_bytes, out),
            Self::Bits(element_bytes) => (element_bytes, source.len() / element_bytes / 8 * 8),
            Self::AllBits(element_bytes) => {
                let count = source.len() / element_bytes;
                (element_bytes, if count.is_multiple_of(8) { count } else { 0 })
            }
        };
        let (bits, rest) = source.split_at(whole * element_bytes);
        let (elements, rest_out) = out.split_at_mut(bits.len());
        untranspose_bits(bits, element_bytes, elements);
        rest_out.copy_from_slice(rest);
    }
}

/// What decoding the blocks of one chunk needs.
pub(in crate::codec) struct Work<'s> {
    scratch: &'s mut Scratch,
    /// A block before its last filter is undone.
    source: Vec<u8>,
    /// Where a filter that is not the last one puts a block.
    target: Vec<u8>,
    /// Stored bytes that no stream has used.
    unread_bytes: usize,
}

impl<'s> Work<'s> {
    pub(in crate::codec) fn new(chunk: &Chunk<'_>, scratch: &'s mut Scratch) -> Self {
        let moves = match &chunk.content {
            Content::Blocks(blocks) => blocks.moves.len(),
            Content::Uniform(_) | Content::Raw(_) => 0,
        };
        let bytes = chunk.block_bytes.min(chunk.bytes);
        let mut buffer = |needed: bool| if needed { scratch.take(bytes) } else { Vec::new() };
        let (source, target) = (buffer(moves > 0), buffer(moves > 1));
        Self { scratch, source, target, unread_bytes: chunk.stored.len() }
    }

    /// Gives the buffers back.
    pub(in crate::codec) fn finish(self) {
        [self.source, self.target]
            .into_iter()
            .filter(|buffer| !buffer.is_empty())
            .for_each(|buffer| self.scratch.put_back(buffer));
    }
}

/// Refuses what Blosc2 can do and no writer of HDF5 files does, by name.
pub(in crate::codec) fn unsupported2(what: &str) -> Error {
    Error::new(Reason::UnsupportedFilter, format!("filter 32026 (blosc2) with {what} has no decoder here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No filter of HDF5 writes these: they are what Blosc2 makes of arrays that were never filled in.
    #[test]
    fn chunks_of_one_value_repeat_it_across_blocks() {
        let stored = |kind: u8, element_bytes: u8, bytes: u32, value: &[u8]| {
            // Blocks of 4 bytes, which no value of 3 ends with.
            let sizes = [bytes, 4, 32 + value.len() as u32].map(u32::to_le_bytes);
            [&[5, 1, 5, element_bytes], sizes.as_flattened(), &[0; 15], &[kind << 4], value].concat()
        };
        let decode = |stored: &[u8]| {
            let mut out = vec![9; 12];
            let bytes = Chunk::blosc2(stored)?.decode(&mut out, &mut Scratch::default())?;
            Ok::<_, Error>(out[..bytes].to_vec())
        };
        assert_eq!(decode(&stored(3, 1, 12, b"abc")).unwrap(), b"abcabcabcabc");
        assert_eq!(decode(&stored(1, 5, 7, b"")).unwrap(), [0; 7]);
        assert_eq!(decode(&stored(4, 1, 12, b"")).unwrap(), [0; 12], "never written");
        assert_eq!(decode(&stored(2, 4, 8, b"")).unwrap(), [0, 0, 0xC0, 0x7F, 0, 0, 0xC0, 0x7F]);
        assert_eq!(decode(&stored(2, 8, 8, b"")).unwrap(), f64::NAN.to_le_bytes());
        for (stored, why) in [
            (stored(3, 1, 12, b""), "no value"),
            (stored(3, 1, 12, b"abcde"), "a value that does not end with the chunk"),
            (stored(3, 1, 3, b"abcdef"), "a value longer than the chunk"),
            (stored(2, 4, 10, b""), "half a number"),
            (stored(2, 2, 8, b""), "no type of number"),
            (stored(5, 1, 8, b""), "an unknown value"),
            (stored(1, 1, 13, b""), "more than there is room for"),
        ] {
            assert!(decode(&stored).is_err(), "{why}");
        }
    }
}
