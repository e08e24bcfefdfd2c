//! The compressors behind Blosc: one stream becomes exactly the bytes that are its part of a block.

use super::super::{Scratch, lz4, zstd};
use super::blosclz;

/// What made a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compressor {
    Blosclz,
    /// And LZ4HC, which writes the same format.
    Lz4,
    Snappy,
    Zlib,
    Zstd,
}

impl Compressor {
    /// By its number in the flags of a chunk.
    pub(super) fn new(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Blosclz,
            1 => Self::Lz4,
            2 => Self::Snappy,
            3 => Self::Zlib,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// Fills `out` from `stored`, or says what is wrong.
    pub(super) fn decompress(self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<(), String> {
        let bytes = match self {
            Self::Blosclz => blosclz::decompress(stored, out).map_err(str::to_owned),
            Self::Lz4 => lz4::decompress_block(stored, out).map(|()| out.len()).map_err(|error| error.to_string()),
            Self::Snappy => snap::raw::Decoder::new().decompress(stored, out).map_err(|error| error.to_string()),
            Self::Zlib => scratch.decompressor.zlib_decompress(stored, out).map_err(|error| error.to_string()),
            Self::Zstd => zstd::decompress(stored, out, scratch).map_err(|error| error.to_string()),
        };
        match bytes {
            Ok(bytes) if bytes == out.len() => Ok(()),
            Ok(bytes) => Err(format!("{self:?} makes {bytes} bytes where {} are declared", out.len())),
            Err(what) => Err(format!("{self:?}: {what}")),
        }
    }
}
