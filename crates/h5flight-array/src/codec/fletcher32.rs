//! The checksum that HDF5 appends to a chunk: Fletcher's, over big-endian 16-bit words, modulo 65,535.
//!
//! The last byte of an odd number of bytes counts as a word with a zero behind it. The checksum is stored
//! little-endian. libhdf5 before 1.6.3 stored it with the two bytes of either half swapped when it ran on a
//! little-endian machine; such files are still read.

use super::{FLETCHER32, Known, Stage};
use crate::error::{Error, Reason, Result};

pub(super) static FILTER: Known =
    Known { id: FLETCHER32, name: "fletcher32", stage: |_, _| Ok(Stage::Checksum(verify)) };

/// What the filter adds to a chunk.
pub const CHECKSUM_BYTES: usize = 4;

/// Words summed before the sums are reduced. With 360 words the weighted sum is at most 65,535 * 360 * 361 / 2, the
/// last to fit 32 bits.
const BLOCK_WORDS: usize = 360;
/// How often each word of a block counts in the second sum: the first one in every partial sum, the last one once.
const WEIGHTS: [u16; BLOCK_WORDS] = {
    let mut weights = [0; BLOCK_WORDS];
    let mut at = 0;
    while at < BLOCK_WORDS {
        weights[at] = (BLOCK_WORDS - at) as u16;
        at += 1;
    }
    weights
};

/// The checksum of `data`, which HDF5 stores little-endian.
pub fn checksum(data: &[u8]) -> u32 {
    let (words, odd) = data.as_chunks::<2>();
    let (mut sum, mut sum_of_sums) = (0, 0);
    for block in words.chunks(BLOCK_WORDS) {
        let (mut block_sum, mut block_weighted) = (0u32, 0u32);
        for (word, weight) in block.iter().zip(&WEIGHTS[BLOCK_WORDS - block.len()..]) {
            let word = u32::from(u16::from_be_bytes(*word));
            block_sum += word;
            block_weighted += word * u32::from(*weight);
        }
        sum_of_sums = reduced(sum_of_sums + block.len() as u64 * sum + u64::from(block_weighted));
        sum = reduced(sum + u64::from(block_sum));
    }
    if let [byte] = odd {
        sum = reduced(sum + u64::from(*byte) * 256);
        sum_of_sums = reduced(sum_of_sums + sum);
    }
    // Both are at most 65,535.
    (sum_of_sums as u32) << 16 | sum as u32
}

/// Checks the checksum at the end of `stored` and returns how many bytes stand before it.
///
/// # Errors
/// `checksum` where it does not match, `chunk_size_mismatch` where there is none.
pub fn verify(stored: &[u8]) -> Result<usize> {
    let Some((data, stored_checksum)) = stored.split_last_chunk::<CHECKSUM_BYTES>() else {
        let message = format!("chunk of {} bytes is shorter than its checksum", stored.len());
        return Err(Error::new(Reason::ChunkSizeMismatch, message));
    };
    let [a, b, c, d] = checksum(data).to_le_bytes();
    if *stored_checksum == [a, b, c, d] || *stored_checksum == [b, a, d, c] {
        return Ok(data.len());
    }
    let message = format!("fletcher32 checksum of {} bytes does not match", data.len());
    Err(Error::new(Reason::Checksum, message))
}

/// Modulo 65,535 as folding carries does it: 0 stays 0, every other multiple becomes 65,535.
fn reduced(sum: u64) -> u64 {
    if sum == 0 { 0 } else { (sum - 1) % 65_535 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data and the four bytes that libhdf5 2.0 (through h5py) stored behind it.
    fn known() -> Vec<(Vec<u8>, [u8; 4])> {
        vec![
            (b"a".to_vec(), [0x00, 0x61, 0x00, 0x61]),
            (b"abc".to_vec(), [0x62, 0xc4, 0xc5, 0x25]),
            (b"abcde".to_vec(), [0xc7, 0x29, 0xf0, 0x4f]),
            ((0..=255).collect(), [0x3f, 0xc0, 0x75, 0x55]),
            (vec![0xff; 2000], [0xff, 0xff, 0xff, 0xff]),
            (vec![0xff; 100_001], [0x00, 0xff, 0x00, 0xff]),
            (vec![0; 7], [0, 0, 0, 0]),
            ((0..100_001u32).map(|at| (at * 7 % 251) as u8).collect(), [0xf4, 0x63, 0x26, 0xa0]),
        ]
    }

    #[test]
    fn checksums_are_those_of_libhdf5() {
        for (data, stored) in known() {
            assert_eq!(checksum(&data).to_le_bytes(), stored, "{} bytes", data.len());
        }
    }

    #[test]
    fn checksums_in_the_byte_order_of_old_libraries_are_accepted() {
        for (data, [a, b, c, d]) in known() {
            let bytes = data.len();
            assert_eq!(verify(&[data.clone(), vec![a, b, c, d]].concat()).unwrap(), bytes);
            assert_eq!(verify(&[data, vec![b, a, d, c]].concat()).unwrap(), bytes);
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (data, stored) = known().swap_remove(2);
        let whole = [data, stored.to_vec()].concat();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&damaged).unwrap_err().reason, Reason::Checksum, "bit {bit}");
        }
        assert_eq!(verify(&whole[..3]).unwrap_err().reason, Reason::ChunkSizeMismatch);
    }
}
