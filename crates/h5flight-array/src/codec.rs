//! One stored chunk becomes its declared bytes.
//!
//! A [`Pipeline`] is made once per array; [`Pipeline::decode`] undoes its filters in reverse order, leaving out those
//! that the chunk's mask says were skipped. What is not in [`KNOWN`] is left to the worker's libhdf5, or refused by name.
//!
//! Invariants: the output has exactly the declared size, or the chunk is an error; nothing is allocated beyond that
//! size and [`Stages::bytes_between_max`]; damaged input never panics. No I/O happens here, and no element is
//! interpreted: byte order and types are the business of [`crate::batch`].
//!
//! A new filter is a file below `codec/` with a `Known`, and a line in [`KNOWN`]; docs/support.md then has a row for it.
//!
//! ```
//! use h5flight_array::codec::{Pipeline, Scratch, shuffle};
//! use h5flight_array::meta::Filter;
//!
//! let filters = [Filter { id: 2, name: "shuffle".into(), params: vec![2] }];
//! let pipeline = Pipeline::new(&filters, 2, 6)?;
//! let stored = shuffle::shuffle(&[1, 0, 2, 0, 3, 0], 2);
//! assert_eq!(pipeline.decode(stored.into(), 0, &mut Scratch::default())?[..], [1, 0, 2, 0, 3, 0]);
//! # Ok::<(), h5flight_array::Error>(())
//! ```

mod bitfield;
mod bits;
mod bitshuffle;
mod blosc;
mod blosc2;
mod bzip2;
mod copies;
pub mod deflate;
pub mod encode;
pub mod fletcher32;
mod lz4;
pub mod lzf;
mod nbit;
mod scaleoffset;
pub mod shuffle;
mod szip;
mod zstd;

use std::fmt::Debug;
use std::sync::Arc;

use ::zstd::zstd_safe::DCtx;
use bytes::Bytes;
use libdeflater::Decompressor;

use crate::error::{Error, Reason, Result};
use crate::meta::Filter;

/// Registered number of deflate (zlib).
pub const DEFLATE: u32 = 1;
/// Registered number of shuffle.
pub const SHUFFLE: u32 = 2;
/// Registered number of fletcher32.
pub const FLETCHER32: u32 = 3;
/// Registered number of szip.
pub const SZIP: u32 = 4;
/// Registered number of n-bit.
pub const NBIT: u32 = 5;
/// Registered number of scale-offset.
pub const SCALE_OFFSET: u32 = 6;
/// Registered number of bzip2.
pub const BZIP2: u32 = 307;
/// Registered number of LZF, h5py's own filter.
pub const LZF: u32 = 32000;
/// Registered number of Blosc.
pub const BLOSC: u32 = 32001;
/// Registered number of LZ4.
pub const LZ4: u32 = 32004;
/// Registered number of bitshuffle, with or without a compression of its own.
pub const BITSHUFFLE: u32 = 32008;
/// Registered number of zstd.
pub const ZSTD: u32 = 32015;
/// Registered number of Blosc2.
pub const BLOSC2: u32 = 32026;

/// The longest pipeline HDF5 knows (H5Z_MAX_NFILTERS): the mask has one bit for each.
const FILTERS_MAX: usize = 32;
/// Intermediate buffers a [`Scratch`] keeps: one is read while the other is written.
const SPARE_MAX: usize = 2;
/// Larger buffers are freed after use, so that an idle thread holds at most twice this. neuroconv's chunks are 10 MB.
const SPARE_BYTES_MAX: usize = 16 << 20;
/// What a compressing stage may add to a chunk that it cannot shrink, besides a sixteenth of it: headers and tables.
const EXPANSION_BYTES_MAX: usize = 4 << 10;

/// All filters that are decoded here, without libhdf5: the only list of them.
static KNOWN: [&Known; 13] = [
    &deflate::FILTER,
    &shuffle::FILTER,
    &fletcher32::FILTER,
    &szip::FILTER,
    &nbit::FILTER,
    &scaleoffset::FILTER,
    &bzip2::FILTER,
    &lzf::FILTER,
    &blosc::FILTER,
    &lz4::FILTER,
    &bitshuffle::FILTER,
    &zstd::FILTER,
    &blosc2::FILTER,
];

/// A filter that is decoded here.
pub(crate) struct Known {
    /// The registered number.
    pub(crate) id: u32,
    /// The registered name.
    pub(crate) name: &'static str,
    /// Makes the decoder of one array from the file's parameters, each of them checked.
    pub(crate) stage: fn(&Filter, &ChunkFacts) -> Result<Stage>,
}

/// What a decoder may know of the chunks besides the filter's own parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkFacts {
    /// Bytes of one element.
    pub(crate) element_bytes: u64,
    /// Decoded bytes of a chunk.
    #[expect(dead_code, reason = "decoders that trust no parameter compare with it")]
    pub(crate) chunk_bytes: usize,
}

/// How one filter of a pipeline is undone.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Changes nothing (shuffling single bytes).
    Keeps,
    /// Checks the bytes and returns how many of them, from the first on, are the chunk's. It added
    /// [`fletcher32::CHECKSUM_BYTES`].
    Checksum(fn(&[u8]) -> Result<usize>),
    /// Writes as many bytes as it reads.
    Rearranges(Arc<dyn Decode>),
    /// The stored size says nothing of the decoded size.
    Compresses(Arc<dyn Decode>),
}

/// Undoes a filter that wrote new bytes.
pub(crate) trait Decode: Debug + Send + Sync {
    /// Decodes all of `stored` into the first bytes of `out` and returns how many these are: every one of them written.
    ///
    /// # Errors
    /// `chunk_size_mismatch` where `out` is too small, `malformed_file` where `stored` is damaged.
    fn decode(&self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize>;
}

/// Numbers and names of all filters that are decoded here.
pub fn known() -> impl Iterator<Item = (u32, &'static str)> {
    KNOWN.iter().map(|known| (known.id, known.name))
}

/// Whether this filter is decoded here, without libhdf5.
pub fn supported(filter_id: u32) -> bool {
    find(filter_id).is_some()
}

fn find(filter_id: u32) -> Option<&'static Known> {
    KNOWN.iter().copied().find(|known| known.id == filter_id)
}

/// Undoes one filter where nothing tells the decoded size: for libhdf5, which calls its filters so.
///
/// # Errors
/// As [`Pipeline::new`] and [`Pipeline::decode`]; `chunk_size_mismatch` beyond `bytes_max`.
pub fn decode_unsized(filter: &Filter, element_bytes: u64, stored: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
    /// Room for the first attempt, by stored byte: most data is not smaller than a quarter when compressed.
    const FIRST_FACTOR: usize = 8;
    let stage = Stage::new(filter, &ChunkFacts { element_bytes, chunk_bytes: bytes_max })?;
    let decoder = match &stage {
        Stage::Keeps => return Ok(stored.to_vec()),
        Stage::Checksum(check) => return Ok(stored[..check(stored)?].to_vec()),
        Stage::Rearranges(decoder) | Stage::Compresses(decoder) => decoder,
    };
    let mut room = match stage {
        Stage::Rearranges(_) => stored.len(),
        _ => stored.len().saturating_mul(FIRST_FACTOR).max(64 << 10).min(bytes_max),
    };
    let mut scratch = Scratch::default();
    loop {
        let mut out = vec![0; room];
        match decoder.decode(stored, &mut out, &mut scratch) {
            Ok(bytes) => {
                out.truncate(bytes);
                return Ok(out);
            }
            Err(error) if error.reason == Reason::ChunkSizeMismatch && room < bytes_max => {
                room = room.saturating_mul(4).min(bytes_max);
            }
            Err(error) => return Err(error),
        }
    }
}

/// How the chunks of one array are decoded. Cheap to clone, shared freely between threads.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// In the order in which they were applied when writing.
    stages: Vec<Stage>,
    chunk_bytes: usize,
}

impl Stage {
    fn new(filter: &Filter, chunk: &ChunkFacts) -> Result<Self> {
        let known = find(filter.id).ok_or_else(|| unsupported(filter))?;
        (known.stage)(filter, chunk)
    }

    /// The decoder of a stage that writes new bytes, rather than cutting some off or leaving all as they are.
    fn decoder(&self) -> Option<&dyn Decode> {
        match self {
            Self::Keeps | Self::Checksum(_) => None,
            Self::Rearranges(decoder) | Self::Compresses(decoder) => Some(&**decoder),
        }
    }
}

/// How many bytes a stage has to decode to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Exactly(usize),
    AtMost(usize),
}

impl Size {
    fn room(self) -> usize {
        match self {
            Self::Exactly(bytes) | Self::AtMost(bytes) => bytes,
        }
    }
}

impl Pipeline {
    /// The pipeline of an array whose chunks have `chunk_bytes` decoded bytes, a number the caller has bounded.
    ///
    /// # Errors
    /// `unsupported_filter` naming the filter; `malformed_file` where the pipeline is none.
    pub fn new(filters: &[Filter], element_bytes: u64, chunk_bytes: usize) -> Result<Self> {
        let malformed = |what: String| Error::new(Reason::MalformedFile, what);
        if filters.len() > FILTERS_MAX {
            return Err(malformed(format!("{} filters, the most is {FILTERS_MAX}", filters.len())));
        }
        if bytes_between_max(chunk_bytes).is_none() {
            return Err(malformed(format!("chunk of {chunk_bytes} bytes")));
        }
        let facts = ChunkFacts { element_bytes, chunk_bytes };
        let stages = filters.iter().map(|filter| Stage::new(filter, &facts)).collect::<Result<_>>()?;
        Ok(Self { stages, chunk_bytes })
    }

    /// Decoded bytes of every chunk.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Whether a chunk with this mask is stored as it is, so that decoding returns the stored bytes themselves.
    pub fn is_identity(&self, mask: u32) -> bool {
        self.active(mask).next().is_none()
    }

    /// Decodes one chunk. Bit i of `mask` set: filter i was skipped when the chunk was written.
    ///
    /// Where nothing has to be rewritten, the result shares the buffer of `stored`, without a copy: whoever keeps it
    /// keeps that whole buffer in memory.
    ///
    /// # Errors
    /// `chunk_size_mismatch` where the decoded size is not the declared one, `checksum`, `malformed_file`.
    pub fn decode(&self, stored: Bytes, mask: u32, scratch: &mut Scratch) -> Result<Bytes> {
        let last = self.active(mask).find(|(_, stage)| stage.decoder().is_some()).map(|(at, _)| at);
        let mut data = Data::Stored(stored);
        for (at, stage) in self.active(mask).rev() {
            if let Stage::Checksum(check) = stage {
                let bytes = check(data.as_slice())?;
                data.truncate(bytes);
            }
            let Some(decoder) = stage.decoder() else { continue };
            let size = match stage {
                Stage::Rearranges(_) => Size::Exactly(data.as_slice().len()),
                _ => self.size_before(at, mask),
            };
            // The last stage writes what leaves: its buffer is new and of that size. The others are kept.
            let mut out = if last == Some(at) { vec![0; size.room()] } else { scratch.take(size.room()) };
            let bytes = decoder.decode(data.as_slice(), &mut out, scratch)?;
            match size {
                Size::Exactly(declared) if declared != bytes => return Err(size_mismatch("chunk", bytes, declared)),
                Size::Exactly(_) | Size::AtMost(_) => out.truncate(bytes),
            }
            if let Data::Rewritten(done) = std::mem::replace(&mut data, Data::Rewritten(out)) {
                scratch.put_back(done);
            }
        }
        let bytes = data.as_slice().len();
        if bytes != self.chunk_bytes {
            return Err(size_mismatch("chunk", bytes, self.chunk_bytes));
        }
        Ok(data.into_bytes())
    }

    /// The stages that were applied to a chunk with this mask, in order of writing.
    fn active(&self, mask: u32) -> impl DoubleEndedIterator<Item = (usize, &Stage)> + '_ {
        self.stages.iter().enumerate().filter(move |(at, _)| mask & (1 << at) == 0)
    }

    /// Bytes of a valid chunk before stage `at` was applied: only the checksums before it have added to the declared
    /// ones. Where a stage before it compresses, that size is written nowhere; it is bounded all the same.
    fn size_before(&self, at: usize, mask: u32) -> Size {
        let mut bytes = self.chunk_bytes;
        for (_, stage) in self.active(mask).take_while(|(before, _)| *before < at) {
            match stage {
                Stage::Compresses(_) => {
                    return Size::AtMost(bytes_between_max(self.chunk_bytes).unwrap_or(self.chunk_bytes));
                }
                Stage::Checksum(_) => bytes += fletcher32::CHECKSUM_BYTES,
                Stage::Keeps | Stage::Rearranges(_) => {}
            }
        }
        Size::Exactly(bytes)
    }
}

/// The most bytes that a chunk of so many decoded bytes may have where it is stored; `None` where that is no number.
/// Filters that cut a chunk into blocks of a byte make five of it, and are written so.
pub fn stored_bytes_max(chunk_bytes: u64) -> Option<u64> {
    chunk_bytes.checked_mul(8)?.checked_add(EXPANSION_BYTES_MAX as u64)
}

/// The most bytes a chunk can have between two stages; `None` where that is no number.
fn bytes_between_max(chunk_bytes: usize) -> Option<usize> {
    let checksums = FILTERS_MAX * fletcher32::CHECKSUM_BYTES;
    chunk_bytes.checked_add(chunk_bytes / 16)?.checked_add(EXPANSION_BYTES_MAX + checksums)
}

/// What decoding needs besides the pipeline, kept for the next chunk: one for each blocking thread.
///
/// Holds one decompressor of each library that has any and up to two intermediate buffers, each of at most 16 MiB while
/// idle.
#[derive(Default)]
pub struct Scratch {
    pub(crate) decompressor: Decompressor,
    /// Made by the first zstd stream: 160 kB that most files don't need.
    pub(crate) zstd: Option<DCtx<'static>>,
    spare: Vec<Vec<u8>>,
}

impl Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("spare_bytes", &self.spare.iter().map(Vec::capacity).sum::<usize>()).finish()
    }
}

impl Scratch {
    /// A buffer of `bytes`, with anything in it: whoever takes it writes all of it, or truncates to what was written.
    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.resize(bytes, 0);
        buffer
    }

    /// Keeps a buffer for the next [`Scratch::take`].
    pub(crate) fn put_back(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(buffer);
        }
    }
}

/// A chunk on its way: as it was stored, or in a buffer of ours.
enum Data {
    Stored(Bytes),
    Rewritten(Vec<u8>),
}

impl Data {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Rewritten(bytes) => bytes,
        }
    }

    fn truncate(&mut self, bytes: usize) {
        match self {
            Self::Stored(stored) => stored.truncate(bytes),
            Self::Rewritten(buffer) => buffer.truncate(bytes),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Rewritten(buffer) => Bytes::from(buffer),
        }
    }
}

/// `what` has another size than it should.
pub(crate) fn size_mismatch(what: &str, bytes: usize, declared_bytes: usize) -> Error {
    Error::new(Reason::ChunkSizeMismatch, format!("{what} of {bytes} bytes where {declared_bytes} are declared"))
}

/// `filter`'s stream does not fit into the bytes that are declared.
pub(crate) fn too_long(filter: &str, stored: &[u8], declared_bytes: usize) -> Error {
    let message = format!("{filter} stream of {} bytes decodes to more than {declared_bytes} bytes", stored.len());
    Error::new(Reason::ChunkSizeMismatch, message)
}

/// `filter`'s stream is not one: `how` says in what.
pub(crate) fn damaged(filter: &str, stored: &[u8], how: impl std::fmt::Display) -> Error {
    Error::new(Reason::MalformedFile, format!("{filter} stream of {} bytes is damaged: {how}", stored.len()))
}

/// `filter` has parameters that no writer could have used: `what` names them.
pub(crate) fn malformed(filter: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Reason::MalformedFile, format!("{filter} with {what}"))
}

/// Refuses a filter by number and name.
fn unsupported(filter: &Filter) -> Error {
    Error::new(Reason::UnsupportedFilter, format!("{} has no decoder here", described(filter)))
}

/// A filter by its number and its name, for messages: the name that is registered with The HDF Group, else what the file
/// calls it.
pub fn described(filter: &Filter) -> String {
    /// Names come from the file: enough to recognise one, not enough to fill a log.
    const NAME_CHARS_MAX: usize = 64;
    let registered = find(filter.id)
        .map(|known| known.name)
        .or_else(|| REGISTERED.iter().find(|(id, _)| *id == filter.id).map(|(_, name)| *name));
    let named: String = filter.name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect();
    let otherwise = if named.is_empty() { "unnamed" } else { &named };
    format!("filter {} ({})", filter.id, registered.unwrap_or(otherwise))
}

/// Filters that are not decoded here, as registered at <https://github.com/HDFGroup/hdf5_plugins>.
const REGISTERED: [(u32, &str); 28] = [
    (305, "lzo"),
    (32002, "mafisc"),
    (32003, "snappy"),
    (32005, "apax"),
    (32006, "cbf"),
    (32007, "jpeg-xr"),
    (32009, "spdp"),
    (32010, "lpc-rice"),
    (32011, "ccsds-123"),
    (32012, "jpeg-ls"),
    (32013, "zfp"),
    (32014, "fpzip"),
    (32016, "b3d"),
    (32017, "sz"),
    (32018, "fcidecomp"),
    (32019, "jpeg"),
    (32020, "vbz"),
    (32021, "fapec"),
    (32022, "bitgroom"),
    (32023, "granular bitround"),
    (32024, "sz3"),
    (32025, "delta-rice"),
    (32027, "flac"),
    (32028, "sperr"),
    (32029, "terse/prolix"),
    (32030, "ffmpeg"),
    (32031, "jpeg2000"),
    (32032, "bitround"),
];

#[cfg(test)]
mod tests;
