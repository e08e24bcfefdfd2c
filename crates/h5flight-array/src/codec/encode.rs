//! Chunks as they are stored: the mirror of the decoders, for what is written here.
//!
//! An [`Encoder`] is made once per array, like a [`super::Pipeline`]. A chunk that no filter makes smaller is stored as it
//! is, with all filters in its mask, as HDF5 does with optional filters.
//!
//! ```
//! use h5flight_array::codec::encode::{Codec, EncodeOptions, Encoder, Workspace};
//! use h5flight_array::codec::{Pipeline, Scratch};
//!
//! let encoder = Encoder::new(&EncodeOptions { codec: Codec::Zstd, level: None, shuffle: None }, 2)?;
//! let chunk = vec![7; 4096];
//! let stored = encoder.encode(&chunk, &mut Workspace::default())?;
//! let pipeline = Pipeline::new(encoder.filters(), 2, chunk.len())?;
//! assert_eq!(pipeline.decode(stored.bytes, stored.mask, &mut Scratch::default())?[..], chunk);
//! # Ok::<(), h5flight_array::Error>(())
//! ```

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};

use super::{DEFLATE, LZ4, SHUFFLE, ZSTD, shuffle};
use crate::error::{Error, Reason, Result};
use crate::meta::Filter;

/// Level of deflate where none is asked for: that of h5py.
const DEFLATE_LEVEL: i32 = 4;
/// Level of zstd where none is asked for: its own default.
const ZSTD_LEVEL: i32 = 3;
/// Elements of so many bytes are shuffled where nothing is said. Larger ones are records, whose members differ.
const SHUFFLED_BYTES: std::ops::RangeInclusive<usize> = 2..=16;
/// Decoded bytes of a block of LZ4: HDF5's filter never makes larger ones.
const LZ4_BLOCK_BYTES_MAX: usize = 1 << 30;

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip, which every HDF5 library reads.
    Deflate,
    /// Zstandard.
    Zstd,
    /// LZ4 in the frame of HDF5's filter.
    Lz4,
}

/// What is asked of an [`Encoder`].
#[derive(Clone, Copy, Debug)]
pub struct EncodeOptions {
    /// Which compression.
    pub codec: Codec,
    /// Its level; absent is 4 for deflate and 3 for zstd.
    pub level: Option<i32>,
    /// Whether the bytes of elements are shuffled first; absent is yes for elements of 2 to 16 bytes that are compressed.
    pub shuffle: Option<bool>,
}

/// Encodes the chunks of one array. Cheap to clone, shared freely between threads.
#[derive(Clone, Debug)]
pub struct Encoder {
    codec: Codec,
    level: i32,
    /// Bytes of the elements that are shuffled; 1 where none are.
    shuffled_bytes: usize,
    filters: Vec<Filter>,
}

/// A chunk as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its bytes.
    pub bytes: Bytes,
    /// Bit i: filter i was skipped.
    pub mask: u32,
}

/// Compressors with their tables, kept from chunk to chunk by whoever encodes several.
#[derive(Default)]
pub struct Workspace {
    deflate: Option<Compressor>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl EncodeOptions {
    /// What makes these filters; `None` where they are others than an [`Encoder`] has.
    pub fn of(filters: &[Filter]) -> Option<Self> {
        let (shuffle, rest) = match filters {
            [first, rest @ ..] if first.id == SHUFFLE => (true, rest),
            rest => (false, rest),
        };
        let level = |filter: &Filter| filter.params.first().and_then(|level| i32::try_from(*level).ok());
        let (codec, level) = match rest {
            [] => (Codec::None, None),
            [filter] if filter.id == DEFLATE => (Codec::Deflate, level(filter)),
            [filter] if filter.id == ZSTD => (Codec::Zstd, level(filter)),
            [filter] if filter.id == LZ4 => (Codec::Lz4, None),
            _ => return None,
        };
        Some(Self { codec, level, shuffle: Some(shuffle) })
    }
}

impl Encoder {
    /// For an array whose elements have `element_bytes` bytes.
    ///
    /// # Errors
    /// `bad_request` for a level that the codec does not have.
    pub fn new(options: &EncodeOptions, element_bytes: usize) -> Result<Self> {
        let (levels, usual) = match options.codec {
            Codec::Deflate => (0..=9, DEFLATE_LEVEL),
            Codec::Zstd => (1..=19, ZSTD_LEVEL),
            // They have no levels: whatever is asked for is met.
            Codec::None | Codec::Lz4 => (i32::MIN..=i32::MAX, 0),
        };
        let level = options.level.unwrap_or(usual);
        if !levels.contains(&level) {
            let (first, last) = levels.into_inner();
            let message = format!("compression level {level}, allowed are {first} to {last}");
            return Err(Error::new(Reason::BadRequest, message));
        }
        let usual = options.codec != Codec::None && SHUFFLED_BYTES.contains(&element_bytes);
        let shuffles = options.shuffle.unwrap_or(usual) && element_bytes > 1;
        let filter = |id, name: &str, params: Vec<u32>| Filter { id, name: name.into(), params };
        let parameter = |number: usize| {
            u32::try_from(number).map_err(|_| Error::new(Reason::BadRequest, format!("elements of {number} bytes")))
        };
        let mut filters = Vec::new();
        if shuffles {
            filters.push(filter(SHUFFLE, "shuffle", vec![parameter(element_bytes)?]));
        }
        match options.codec {
            Codec::None => {}
            Codec::Deflate => filters.push(filter(DEFLATE, "deflate", vec![level.unsigned_abs()])),
            Codec::Zstd => filters.push(filter(ZSTD, "zstd", vec![level.unsigned_abs()])),
            Codec::Lz4 => filters.push(filter(LZ4, "lz4", vec![0])),
        }
        Ok(Self { codec: options.codec, level, shuffled_bytes: if shuffles { element_bytes } else { 1 }, filters })
    }

    /// The filters of the array, in the order in which they are applied.
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Encodes one whole chunk.
    ///
    /// # Errors
    /// `internal`: a compressor failed.
    pub fn encode(&self, chunk: &[u8], workspace: &mut Workspace) -> Result<Encoded> {
        let as_it_is = || Encoded { bytes: Bytes::copy_from_slice(chunk), mask: (1 << self.filters.len()) - 1 };
        if self.filters.is_empty() {
            return Ok(as_it_is());
        }
        let shuffled = (self.shuffled_bytes > 1).then(|| shuffle::shuffle(chunk, self.shuffled_bytes));
        let source = shuffled.as_deref().unwrap_or(chunk);
        let stored = match self.codec {
            Codec::None => return Ok(Encoded { bytes: shuffled.map_or_else(Bytes::new, Bytes::from), mask: 0 }),
            Codec::Deflate => self.deflate(source, workspace)?,
            Codec::Zstd => self.zstd(source, workspace)?,
            Codec::Lz4 => lz4(source),
        };
        if stored.len() >= chunk.len() {
            return Ok(as_it_is());
        }
        Ok(Encoded { bytes: stored.into(), mask: 0 })
    }

    fn deflate(&self, source: &[u8], workspace: &mut Workspace) -> Result<Vec<u8>> {
        let level = CompressionLvl::new(self.level).map_err(|_| failed("deflate", "its level"))?;
        let compressor = workspace.deflate.get_or_insert_with(|| Compressor::new(level));
        let mut out = vec![0; compressor.zlib_compress_bound(source.len())];
        let bytes = compressor.zlib_compress(source, &mut out).map_err(|error| failed("deflate", error))?;
        out.truncate(bytes);
        Ok(out)
    }

    fn zstd(&self, source: &[u8], workspace: &mut Workspace) -> Result<Vec<u8>> {
        let compressor = match &mut workspace.zstd {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(self.level).map_err(|error| failed("zstd", error))?),
        };
        compressor.compress(source).map_err(|error| failed("zstd", error))
    }
}

/// The frame that `super::lz4` describes. A block that does not shrink is stored as it is.
fn lz4(source: &[u8]) -> Vec<u8> {
    let block_bytes = source.len().min(LZ4_BLOCK_BYTES_MAX);
    let mut out = Vec::with_capacity(source.len() + 16);
    out.extend((source.len() as u64).to_be_bytes());
    out.extend((block_bytes as u32).to_be_bytes());
    for block in source.chunks(block_bytes.max(1)) {
        let compressed = lz4_flex::block::compress(block);
        let stored = if compressed.len() < block.len() { compressed.as_slice() } else { block };
        out.extend((stored.len() as u32).to_be_bytes());
        out.extend_from_slice(stored);
    }
    out
}

fn failed(codec: &str, how: impl std::fmt::Display) -> Error {
    Error::new(Reason::Internal, format!("{codec} fails to compress a chunk: {how}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Pipeline, Scratch};

    const CODECS: [Codec; 4] = [Codec::None, Codec::Deflate, Codec::Zstd, Codec::Lz4];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn what_is_encoded_decodes_to_itself(
            elements in prop::collection::vec(0u64..70_000, 1..2000),
            element_bytes in prop_oneof![Just(1usize), Just(2), Just(4), Just(8), 3usize..30],
            codec in prop::sample::select(&CODECS[..]),
            level in prop::option::of(1i32..=9),
            shuffle in prop::option::of(any::<bool>()),
            is_noise in any::<bool>(),
        ) {
            let noise = |value: u64| if is_noise { value.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(21) } else { value };
            let chunk: Vec<u8> = elements
                .iter()
                .flat_map(|value| (0..element_bytes).map(|byte| noise(*value + byte as u64).to_le_bytes()[byte % 8]))
                .collect();
            let encoder = Encoder::new(&EncodeOptions { codec, level, shuffle }, element_bytes).unwrap();
            let again = Encoder::new(&EncodeOptions::of(encoder.filters()).unwrap(), element_bytes).unwrap();
            prop_assert_eq!(again.filters(), encoder.filters());
            let mut workspace = Workspace::default();
            for _ in 0..2 {
                let Encoded { bytes, mask } = encoder.encode(&chunk, &mut workspace).unwrap();
                prop_assert!(bytes.len() <= chunk.len());
                let pipeline = Pipeline::new(encoder.filters(), element_bytes as u64, chunk.len()).unwrap();
                let decoded = pipeline.decode(bytes, mask, &mut Scratch::default()).unwrap();
                prop_assert_eq!(&decoded[..], &chunk[..]);
            }
        }
    }

    #[test]
    fn filters_follow_from_what_is_asked_for() {
        let filters = |codec, level, shuffle, element_bytes| {
            let encoder = Encoder::new(&EncodeOptions { codec, level, shuffle }, element_bytes)?;
            Ok::<_, Error>(
                encoder.filters().iter().map(|filter| (filter.id, filter.params.clone())).collect::<Vec<_>>(),
            )
        };
        assert_eq!(filters(Codec::Zstd, None, None, 2).unwrap(), [(SHUFFLE, vec![2]), (ZSTD, vec![3])]);
        assert_eq!(filters(Codec::Deflate, None, None, 17).unwrap(), [(DEFLATE, vec![4])]);
        assert_eq!(filters(Codec::Deflate, Some(9), Some(false), 2).unwrap(), [(DEFLATE, vec![9])]);
        assert_eq!(filters(Codec::Lz4, None, Some(true), 1).unwrap(), [(LZ4, vec![0])]);
        assert_eq!(filters(Codec::None, None, None, 8).unwrap(), []);
        assert_eq!(filters(Codec::None, None, Some(true), 8).unwrap(), [(SHUFFLE, vec![8])]);
        for (codec, level) in [(Codec::Deflate, 10), (Codec::Deflate, -1), (Codec::Zstd, 20), (Codec::Zstd, 0)] {
            assert_eq!(filters(codec, Some(level), None, 2).unwrap_err().reason, Reason::BadRequest);
        }
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4096)
        .collect();
        let encoder = Encoder::new(&EncodeOptions { codec: Codec::Zstd, level: None, shuffle: None }, 2).unwrap();
        let stored = encoder.encode(&noise, &mut Workspace::default()).unwrap();
        assert_eq!((stored.mask, &stored.bytes[..]), (0b11, &noise[..]));
    }
}
