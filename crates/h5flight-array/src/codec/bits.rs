//! Bit transposition, which bitshuffle and Blosc apply to blocks of elements before they compress them.
//!
//! A block of n elements of e bytes, n a multiple of 8, becomes 8 e rows of n / 8 bytes, one row for each bit of an
//! element: first the lowest bit of the first byte, last the highest bit of the last one. A row has the elements in
//! order, the first of eight in the lowest bit of a byte.
//!
//! It is undone in two steps of which each stays within the nearest cache. The eight rows of one byte are interleaved
//! like the planes of shuffled bytes; every eight bytes are then a matrix of 8 x 8 bits, the transpose of what eight
//! elements have there. This makes planes of bytes, which is the layout of shuffle, undone by its own loops.

use super::shuffle::{interleave_planes, unshuffle};

/// Planes of this many bytes are made before they are unshuffled: with source and target in the nearest cache, where
/// bitshuffle's usual blocks of 8 KiB are too.
const TILE_BYTES: usize = 4 << 10;
/// Elements of a tile are a multiple of this where so many fit: [`interleave_planes`] is fast on 16 times 8 of them.
const TILE_ELEMENTS: usize = 128;

/// Undoes the transposition of one block: `out` gets every byte.
///
/// # Panics
/// Where `out` has another length than `source`, or that is no multiple of 8 elements: the caller's mistake.
pub(crate) fn untranspose_bits(source: &[u8], element_bytes: usize, out: &mut [u8]) {
    assert_eq!(source.len(), out.len(), "transposing keeps the size");
    assert!(source.len().is_multiple_of(8 * element_bytes), "elements come in eights");
    let row_bytes = source.len() / (8 * element_bytes);
    if element_bytes == 1 {
        return untranspose_plane(source, row_bytes, 0, out);
    }
    let mut tile = [0; TILE_BYTES];
    let tile_elements = match TILE_BYTES / element_bytes {
        0..8 => return scatter(source, element_bytes, out),
        fit @ 8..TILE_ELEMENTS => fit / 8 * 8,
        fit => fit / TILE_ELEMENTS * TILE_ELEMENTS,
    };
    for (at, out) in out.chunks_mut(tile_elements * element_bytes).enumerate() {
        let tile = &mut tile[..out.len()];
        let rows = source.chunks_exact(8 * row_bytes);
        for (rows, plane) in rows.zip(tile.chunks_exact_mut(out.len() / element_bytes)) {
            untranspose_plane(rows, row_bytes, at * tile_elements / 8, plane);
        }
        unshuffle(tile, element_bytes, out);
    }
}

/// One byte of consecutive elements, from eight rows of bits: `start` is where these elements begin in each row.
fn untranspose_plane(rows: &[u8], row_bytes: usize, start: usize, plane: &mut [u8]) {
    let bytes = plane.len() / 8;
    interleave_planes::<8>(std::array::from_fn(|bit| &rows[bit * row_bytes + start..][..bytes]), plane);
    for matrix in plane.as_chunks_mut::<8>().0 {
        *matrix = transpose(u64::from_le_bytes(*matrix)).to_le_bytes();
    }
}

/// Elements so large that eight of them are no tile: written byte by byte.
fn scatter(source: &[u8], element_bytes: usize, out: &mut [u8]) {
    let row_bytes = source.len() / (8 * element_bytes);
    for (at, out) in out.chunks_exact_mut(8 * element_bytes).enumerate() {
        for byte in 0..element_bytes {
            let mut plane = [0; 8];
            untranspose_plane(&source[byte * 8 * row_bytes..], row_bytes, at, &mut plane);
            for (element, value) in out.chunks_exact_mut(element_bytes).zip(plane) {
                element[byte] = value;
            }
        }
    }
}

/// Bit i of byte k becomes bit k of byte i: blocks of 1, 2 and 4 bits on either side of the diagonal change places.
fn transpose(matrix: u64) -> u64 {
    let swap = |bits: u64, mask: u64, distance: u32| {
        let differing = (bits ^ (bits >> distance)) & mask;
        bits ^ differing ^ (differing << distance)
    };
    let matrix = swap(matrix, 0x00AA_00AA_00AA_00AA, 7);
    let matrix = swap(matrix, 0x0000_CCCC_0000_CCCC, 14);
    swap(matrix, 0x0000_0000_F0F0_F0F0, 28)
}

/// The definition, bit by bit.
#[cfg(test)]
pub(crate) fn transpose_bits(source: &[u8], element_bytes: usize) -> Vec<u8> {
    let row_bytes = source.len() / (8 * element_bytes);
    let mut out = vec![0; source.len()];
    for (element, bytes) in source.chunks_exact(element_bytes).enumerate() {
        for bit in 0..8 * element_bytes {
            let value = bytes[bit / 8] >> (bit % 8) & 1;
            out[bit * row_bytes + element / 8] |= value << (element % 8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_row_has_the_lowest_bits_of_the_first_bytes() {
        let elements = [[1, 0], [0, 0x80], [0, 0], [1, 0], [0, 0], [0, 0], [0, 0], [0, 1]];
        let mut rows = [0; 16];
        (rows[0], rows[8], rows[15]) = (0b0000_1001, 0b1000_0000, 0b0000_0010);
        assert_eq!(transpose_bits(elements.as_flattened(), 2), rows);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn transposing_is_undone(
            eights in 0usize..200,
            element_bytes in prop_oneof![Just(1usize), Just(2), Just(4), Just(8), Just(16), 1usize..40, 500usize..600],
            seed: u64,
        ) {
            let mut state = seed | 1;
            let mut byte = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            };
            let data: Vec<u8> = (0..eights.min(20_000 / element_bytes) * 8 * element_bytes).map(|_| byte()).collect();
            let mut out = vec![0xAA; data.len()];
            untranspose_bits(&transpose_bits(&data, element_bytes), element_bytes, &mut out);
            prop_assert_eq!(out, data);
        }
    }
}
