//! What tells that stored bytes are still those that were indexed: XXH3-64, which is faster than memory.
//!
//! It finds accidents (a bit that a disk lost), not forgers: of those the blake3 of a managed file knows.

use twox_hash::XxHash3_64;

/// Bytes of one checksum where it is stored.
pub const CHECKSUM_BYTES: usize = 8;

/// The checksum of the stored bytes of one chunk.
pub fn of(stored: &[u8]) -> u64 {
    XxHash3_64::oneshot(stored)
}

/// Checksums as they are stored: one after the other, little-endian.
pub fn packed(checksums: &[u64]) -> Vec<u8> {
    checksums.iter().flat_map(|checksum| checksum.to_le_bytes()).collect()
}

/// What [`packed`] packed; `None` where that is not so many.
pub fn unpacked(packed: &[u8], count: usize) -> Option<Vec<u64>> {
    let (checksums, rest) = packed.as_chunks::<CHECKSUM_BYTES>();
    (rest.is_empty() && checksums.len() == count)
        .then(|| checksums.iter().map(|own| u64::from_le_bytes(*own)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation (xxhsum -H3), so that catalogues outlive the crate that computes them.
    #[test]
    fn checksums_are_those_of_the_reference() {
        assert_eq!(of(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(of(b"a"), 0xe6c6_32b6_1e96_4e1f);
        assert_eq!(of(b"abc"), 0x78af_5f94_892f_3950);
    }

    #[test]
    fn packing_is_undone_and_a_wrong_length_is_told() {
        let checksums = [0, u64::MAX, 0x0102_0304_0506_0708];
        let bytes = packed(&checksums);
        assert_eq!(bytes[16..], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(unpacked(&bytes, 3).as_deref(), Some(checksums.as_slice()));
        assert_eq!(unpacked(&bytes, 2), None);
        assert_eq!(unpacked(&bytes[1..], 3), None);
        assert_eq!(unpacked(&[], 0), Some(Vec::new()));
    }
}
