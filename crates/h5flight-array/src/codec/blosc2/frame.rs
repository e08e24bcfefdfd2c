//! Blosc2's contiguous frame: header, chunks, a chunk of their offsets, trailer.
//!
//! Where things stand in it (README_CFRAME_FORMAT of c-blosc2; numbers are big endian, each behind its msgpack marker):
//! header bytes at 11, frame bytes at 16, kind at 26, decoded bytes at 30, bytes of all chunks at 39, element bytes at
//! 48. From 87 on the metalayers: a map from their names to where they stand in the header.
//!
//! Only frames of one chunk are read, for HDF5's filter writes no others. The trailer is not looked at.

use super::super::blosc::chunk::{Chunk, unsupported2};
use super::super::{Scratch, damaged};
use super::take;
use crate::error::Result;

const MAGIC: &[u8] = b"b2frame\0";
const MAGIC_AT: usize = 2;
const HEADER_LENGTH_AT: usize = 11;
const FRAME_LENGTH_AT: usize = 16;
const KIND_AT: usize = 26;
const BYTES_AT: usize = 30;
const CHUNKS_LENGTH_AT: usize = 39;
const ELEMENT_AT: usize = 48;
/// The header's bytes without metalayers.
const HEADER_BYTES_MIN: usize = 87;
/// Behind the array of three and the size of the map: where the map begins.
const METALAYERS_AT: usize = HEADER_BYTES_MIN + 4;
/// More metalayers are in no frame (BLOSC2_MAX_METALAYERS).
const METALAYERS_MAX: u16 = 16;
/// One 64-bit offset.
const OFFSET_BYTES: usize = 8;

/// A frame whose header was checked.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    stored: &'a [u8],
    header: &'a [u8],
    chunks: &'a [u8],
    offsets: &'a [u8],
    bytes: usize,
    element_bytes: usize,
}

impl<'a> Frame<'a> {
    pub(super) fn new(stored: &'a [u8]) -> Result<Self> {
        let damaged = |how: &str| damaged("blosc2", stored, how);
        if stored.len() < HEADER_BYTES_MIN || !stored[MAGIC_AT..].starts_with(MAGIC) {
            return Err(damaged("no frame"));
        }
        if stored[KIND_AT] != 0 {
            return Err(unsupported2("a frame in several files"));
        }
        let length = |at: usize| u64::from_be_bytes(stored[at..].first_chunk().copied().unwrap_or_default());
        let short = |at: usize| u32::from_be_bytes(stored[at..].first_chunk().copied().unwrap_or_default());
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let frame = stored.get(..size(length(FRAME_LENGTH_AT))).ok_or_else(|| damaged("it ends too early"))?;
        let sections = frame
            .split_at_checked(short(HEADER_LENGTH_AT) as usize)
            .filter(|(header, _)| header.len() >= HEADER_BYTES_MIN)
            .and_then(|(header, rest)| Some((header, rest.split_at_checked(size(length(CHUNKS_LENGTH_AT)))?)));
        let (header, (chunks, offsets)) = sections.ok_or_else(|| damaged("its sections are longer than the frame"))?;
        let (bytes, element_bytes) = (size(length(BYTES_AT)), short(ELEMENT_AT) as usize);
        if i64::try_from(length(BYTES_AT)).is_err() || !(1..=i32::MAX as usize).contains(&element_bytes) {
            return Err(damaged(&format!("{bytes} bytes in elements of {element_bytes}")));
        }
        Ok(Self { stored, header, chunks, offsets, bytes, element_bytes })
    }

    /// The only chunk; `None` where the frame is empty.
    pub(super) fn chunk(&self, scratch: &mut Scratch) -> Result<Option<Chunk<'a>>> {
        if self.bytes == 0 {
            return Ok(None);
        }
        let offsets = Chunk::blosc2(self.offsets)?;
        if offsets.bytes() != OFFSET_BYTES {
            return Err(unsupported2(&format!("{} chunks in a frame", offsets.bytes() / OFFSET_BYTES)));
        }
        let mut offset = [0; OFFSET_BYTES];
        offsets.decode(&mut offset, scratch)?;
        if let [.., kind @ 128..=255] = offset {
            // Not a place, but what all elements are.
            return Chunk::special(kind & 127, self.element_bytes, self.bytes).map(Some);
        }
        let start = usize::try_from(u64::from_le_bytes(offset)).ok();
        let chunk = start.and_then(|start| self.chunks.get(start..));
        let chunk = chunk.ok_or_else(|| damaged("blosc2", self.stored, "its chunk is not in the frame"))?;
        Chunk::blosc2(chunk).map(Some)
    }

    /// The metalayer that says how an array is cut into blocks, where there is one.
    pub(super) fn array(&self) -> Result<Option<&'a [u8]>> {
        let damaged = || damaged("blosc2", self.stored, "its metalayers");
        let mut map = &self.header[HEADER_BYTES_MIN..];
        if map.is_empty() {
            return Ok(None);
        }
        map = self.header.get(METALAYERS_AT..).ok_or_else(damaged)?;
        let count = u16::from_be_bytes(take(&mut map, 0xDE).ok_or_else(damaged)?);
        if count > METALAYERS_MAX {
            return Err(damaged());
        }
        for _ in 0..count {
            let (marker, rest) = map.split_first().filter(|(marker, _)| *marker & 0xE0 == 0xA0).ok_or_else(damaged)?;
            let (name, rest) = rest.split_at_checked(usize::from(marker & 0x1F)).ok_or_else(damaged)?;
            map = rest;
            let start = u32::from_be_bytes(take(&mut map, 0xD2).ok_or_else(damaged)?);
            // The second is what the first was called before it became part of Blosc2.
            if name == b"b2nd" || name == b"caterva" {
                let mut content = self.header.get(start as usize..).ok_or_else(damaged)?;
                let bytes = u32::from_be_bytes(take(&mut content, 0xC6).ok_or_else(damaged)?);
                return content.get(..bytes as usize).map(Some).ok_or_else(damaged);
            }
        }
        Ok(None)
    }
}
