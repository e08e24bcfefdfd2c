//! One stored chunk becomes its declared bytes.
//!
//! A [`Pipeline`] is made once per array; [`Pipeline::decode`] undoes its filters in reverse order, leaving out those
//! that the chunk's mask says were skipped. What this server decodes itself: deflate, shuffle, fletcher32 and LZF.
//! Everything else is left to the worker's libhdf5, or refused by name.
//!
//! Invariants: the output has exactly the declared size, or the chunk is an error; nothing is allocated beyond that
//! size (and four bytes for each checksum inside); damaged input never panics. No I/O happens here, and no element is
//! interpreted: byte order and types are the business of [`crate::batch`].
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

pub mod deflate;
pub mod fletcher32;
pub mod lzf;
pub mod shuffle;

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
/// Registered number of LZF, h5py's own filter.
pub const LZF: u32 = 32000;

/// The longest pipeline HDF5 knows (H5Z_MAX_NFILTERS): the mask has one bit for each.
const FILTERS_MAX: usize = 32;
/// Intermediate buffers a [`Scratch`] keeps: one is read while the other is written.
const SPARE_MAX: usize = 2;
/// Larger buffers are freed after use, so that an idle thread holds at most twice this. neuroconv's chunks are 10 MB.
const SPARE_BYTES_MAX: usize = 16 << 20;

/// Whether this filter is decoded here, without libhdf5.
pub fn supported(filter_id: u32) -> bool {
    matches!(filter_id, DEFLATE | SHUFFLE | FLETCHER32 | LZF)
}

/// How the chunks of one array are decoded. Cheap to clone, shared freely between threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// In the order in which they were applied when writing.
    stages: Vec<Stage>,
    chunk_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Deflate,
    Shuffle { element_bytes: usize },
    Fletcher32,
    Lzf,
}

impl Stage {
    fn new(filter: &Filter, element_bytes: u64) -> Result<Self> {
        match filter.id {
            DEFLATE => Ok(Self::Deflate),
            FLETCHER32 => Ok(Self::Fletcher32),
            LZF => Ok(Self::Lzf),
            SHUFFLE => {
                // libhdf5 always writes the element size as the only parameter; the type has it too.
                let declared = filter.params.first().map_or(element_bytes, |bytes| u64::from(*bytes));
                match usize::try_from(declared) {
                    Ok(element_bytes @ 1..) => Ok(Self::Shuffle { element_bytes }),
                    _ => Err(Error::new(Reason::MalformedFile, format!("shuffle of elements of {declared} bytes"))),
                }
            }
            _ => Err(unsupported(filter)),
        }
    }

    /// Whether the stored size says nothing of the decoded size.
    fn compresses(self) -> bool {
        match self {
            Self::Deflate | Self::Lzf => true,
            Self::Shuffle { .. } | Self::Fletcher32 => false,
        }
    }

    /// Whether undoing it writes new bytes, rather than cutting some off or leaving all as they are.
    fn rewrites(self) -> bool {
        match self {
            Self::Deflate | Self::Lzf => true,
            Self::Shuffle { element_bytes } => element_bytes > 1,
            Self::Fletcher32 => false,
        }
    }
}

impl Pipeline {
    /// The pipeline of an array whose chunks have `chunk_bytes` decoded bytes, a number the caller has bounded.
    ///
    /// # Errors
    /// `unsupported_filter` naming the filter, also where two stages compress: then the size between them is written
    /// nowhere, and nothing would bound it. `malformed_file` where the pipeline is none.
    pub fn new(filters: &[Filter], element_bytes: u64, chunk_bytes: usize) -> Result<Self> {
        let malformed = |what: String| Error::new(Reason::MalformedFile, what);
        if filters.len() > FILTERS_MAX {
            return Err(malformed(format!("{} filters, the most is {FILTERS_MAX}", filters.len())));
        }
        if chunk_bytes.checked_add(FILTERS_MAX * fletcher32::CHECKSUM_BYTES).is_none() {
            return Err(malformed(format!("chunk of {chunk_bytes} bytes")));
        }
        let stages: Vec<_> = filters.iter().map(|filter| Stage::new(filter, element_bytes)).collect::<Result<_>>()?;
        let compressing = stages.iter().filter(|stage| stage.compresses()).count();
        if compressing > 1 {
            let ids: Vec<_> = filters.iter().map(|filter| filter.id).collect();
            return Err(Error::new(
                Reason::UnsupportedFilter,
                format!("filters {ids:?} compress {compressing} times, at most once is served"),
            ));
        }
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
        let last = self.active(mask).filter(|(_, stage)| stage.rewrites()).map(|(at, _)| at).next();
        let mut data = Data::Stored(stored);
        for (at, stage) in self.active(mask).rev() {
            if stage == Stage::Fletcher32 {
                let bytes = fletcher32::verify(data.as_slice())?;
                data.truncate(bytes);
            } else if stage.rewrites() {
                let bytes = self.bytes_before(at, mask).unwrap_or(data.as_slice().len());
                // The last rewriting stage writes what leaves: its buffer is new and of that size. The others are kept.
                let target = if last == Some(at) { vec![0; bytes] } else { scratch.take(bytes) };
                let written = scratch.rewrite(stage, data.as_slice(), target)?;
                if let Data::Rewritten(done) = std::mem::replace(&mut data, Data::Rewritten(written)) {
                    scratch.put_back(done);
                }
            }
        }
        let bytes = data.as_slice().len();
        if bytes != self.chunk_bytes {
            return Err(size_mismatch("chunk", bytes, self.chunk_bytes));
        }
        Ok(data.into_bytes())
    }

    /// The stages that were applied to a chunk with this mask, in order of writing.
    fn active(&self, mask: u32) -> impl DoubleEndedIterator<Item = (usize, Stage)> + '_ {
        self.stages.iter().copied().enumerate().filter(move |(at, _)| mask & (1 << at) == 0)
    }

    /// Bytes of a valid chunk before stage `at` was applied: only the checksums before it have added to the declared
    /// ones. `None` where a stage before it compresses, so that `at` can only have kept the size of what it got.
    fn bytes_before(&self, at: usize, mask: u32) -> Option<usize> {
        let mut bytes = self.chunk_bytes;
        for (_, stage) in self.active(mask).take_while(|(before, _)| *before < at) {
            match stage {
                Stage::Deflate | Stage::Lzf => return None,
                Stage::Fletcher32 => bytes += fletcher32::CHECKSUM_BYTES,
                Stage::Shuffle { .. } => {}
            }
        }
        Some(bytes)
    }
}

/// What decoding needs besides the pipeline, kept for the next chunk: one for each blocking thread.
///
/// Holds one decompressor and up to two intermediate buffers, each of at most 16 MiB while idle.
#[derive(Default)]
pub struct Scratch {
    decompressor: Decompressor,
    spare: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("spare_bytes", &self.spare.iter().map(Vec::capacity).sum::<usize>()).finish()
    }
}

impl Scratch {
    /// A buffer of `bytes`, with anything in it: whoever takes it writes all of it.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.resize(bytes, 0);
        buffer
    }

    fn put_back(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(buffer);
        }
    }

    /// Undoes a rewriting stage: `target` comes back with every byte written, or not at all.
    fn rewrite(&mut self, stage: Stage, source: &[u8], mut target: Vec<u8>) -> Result<Vec<u8>> {
        match stage {
            Stage::Deflate => deflate::inflate(&mut self.decompressor, source, &mut target)?,
            Stage::Lzf => lzf::decompress(source, &mut target)?,
            Stage::Shuffle { element_bytes } => {
                if source.len() != target.len() {
                    return Err(size_mismatch("shuffled chunk", source.len(), target.len()));
                }
                shuffle::unshuffle(source, element_bytes, &mut target);
            }
            Stage::Fletcher32 => unreachable!("a checksum is cut off, not rewritten"),
        }
        Ok(target)
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

fn size_mismatch(what: &str, bytes: usize, declared_bytes: usize) -> Error {
    Error::new(Reason::ChunkSizeMismatch, format!("{what} of {bytes} bytes where {declared_bytes} are declared"))
}

/// Refuses a filter by number and name: the registered one, else what the file calls it.
fn unsupported(filter: &Filter) -> Error {
    /// Names come from the file: enough to recognise one, not enough to fill a log.
    const NAME_CHARS_MAX: usize = 64;
    let named: String = filter.name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect();
    let name = match filter.id {
        4 => "szip",
        5 => "nbit",
        6 => "scaleoffset",
        305 => "lzo",
        307 => "bzip2",
        32001 => "blosc",
        32002 => "mafisc",
        32004 => "lz4",
        32008 => "bitshuffle",
        32013 => "zfp",
        32015 => "zstd",
        32017 | 32024 => "sz",
        32019 => "jpeg",
        32026 => "blosc2",
        _ if named.is_empty() => "unnamed",
        _ => &named,
    };
    Error::new(Reason::UnsupportedFilter, format!("filter {} ({name}) has no decoder here", filter.id))
}

#[cfg(test)]
mod tests;
