//! Shuffle: all first bytes of the elements, then all second bytes, and so on. Undoing it is the second most expensive
//! thing in a cold read of compressed data, after inflating, so elements of 2, 4, 8 and 16 bytes have their own loop.
//!
//! That loop takes 16 elements at a time. It loads 16 bytes of each of the N planes and interleaves register i with
//! register i + N/2, log2 N times: a perfect shuffle of the planes, which ends with the elements in order. On x86-64
//! the interleaving is written with SSE2 intrinsics, which every such machine has: the compiler turns plain loops into
//! them for 2 bytes, but needs ten times as long for 4 and 8. Elsewhere plain loops serve.

use std::sync::Arc;

use super::{ChunkFacts, Decode, Known, SHUFFLE, Scratch, Stage, size_mismatch};
use crate::error::{Error, Reason, Result};
use crate::meta::Filter;

pub(super) static FILTER: Known = Known { id: SHUFFLE, name: "shuffle", stage };

/// libhdf5 always writes the element size as the only parameter; the type has it too.
fn stage(filter: &Filter, chunk: &ChunkFacts) -> Result<Stage> {
    let declared = filter.params.first().map_or(chunk.element_bytes, |bytes| u64::from(*bytes));
    match usize::try_from(declared) {
        Ok(1) => Ok(Stage::Keeps),
        Ok(element_bytes @ 2..) => Ok(Stage::Rearranges(Arc::new(Shuffle { element_bytes }))),
        _ => Err(Error::new(Reason::MalformedFile, format!("shuffle of elements of {declared} bytes"))),
    }
}

#[derive(Debug)]
struct Shuffle {
    element_bytes: usize,
}

impl Decode for Shuffle {
    fn decode(&self, stored: &[u8], out: &mut [u8], _: &mut Scratch) -> Result<usize> {
        if stored.len() != out.len() {
            return Err(size_mismatch("shuffled chunk", stored.len(), out.len()));
        }
        unshuffle(stored, self.element_bytes, out);
        Ok(out.len())
    }
}

/// Undoes [`shuffle`]: `out` gets every byte. Bytes at the end that are no whole element stay where they are.
///
/// # Panics
/// Where `out` has another length than `source`, or on elements of 0 bytes: the caller's mistake.
pub fn unshuffle(source: &[u8], element_bytes: usize, out: &mut [u8]) {
    assert_eq!(source.len(), out.len(), "shuffling keeps the size");
    let whole_bytes = source.len() - source.len() % element_bytes;
    let (planes, rest) = source.split_at(whole_bytes);
    let (elements, rest_out) = out.split_at_mut(whole_bytes);
    rest_out.copy_from_slice(rest);
    match element_bytes {
        1 => elements.copy_from_slice(planes),
        2 => interleave::<2>(planes, elements),
        4 => interleave::<4>(planes, elements),
        8 => interleave::<8>(planes, elements),
        16 => interleave::<16>(planes, elements),
        _ => interleave_any(planes, element_bytes, elements),
    }
}

/// Shuffles elements of `element_bytes` bytes. Bytes at the end that are no whole element stay where they are.
///
/// # Panics
/// On elements of 0 bytes: the caller's mistake.
pub fn shuffle(source: &[u8], element_bytes: usize) -> Vec<u8> {
    let (whole, rest) = source.split_at(source.len() - source.len() % element_bytes);
    let mut out = vec![0; source.len()];
    let (planes, rest_out) = out.split_at_mut(whole.len());
    rest_out.copy_from_slice(rest);
    match element_bytes {
        1 => planes.copy_from_slice(whole),
        2 => separate::<2>(whole, planes),
        4 => separate::<4>(whole, planes),
        8 => separate::<8>(whole, planes),
        16 => separate::<16>(whole, planes),
        _ => separate_any(whole, element_bytes, planes),
    }
    out
}

/// Elements of N bytes into their planes, in blocks that stay in the nearest cache while they are passed N times.
fn separate<const N: usize>(source: &[u8], planes: &mut [u8]) {
    const BLOCK_ELEMENTS: usize = 512;
    let count = source.len() / N;
    for (start, block) in (0..).step_by(BLOCK_ELEMENTS).zip(source.chunks(BLOCK_ELEMENTS * N)) {
        for byte in 0..N {
            let plane = &mut planes[byte * count + start..][..block.len() / N];
            for (out, element) in plane.iter_mut().zip(block.chunks_exact(N)) {
                *out = element[byte];
            }
        }
    }
}

fn separate_any(source: &[u8], element_bytes: usize, planes: &mut [u8]) {
    let count = source.len() / element_bytes;
    for (byte, plane) in planes.chunks_exact_mut(count.max(1)).enumerate() {
        for (out, element) in plane.iter_mut().zip(source.chunks_exact(element_bytes)) {
            *out = element[byte];
        }
    }
}

/// Elements of N bytes, N a power of two: most of them by [`weave`], the last few one by one.
fn interleave<const N: usize>(planes: &[u8], out: &mut [u8]) {
    let count = planes.len() / N;
    interleave_planes::<N>(std::array::from_fn(|byte| &planes[byte * count..(byte + 1) * count]), out);
}

/// Like [`unshuffle`] where the planes, N a power of two and all of one length, do not lie one behind the other.
pub(super) fn interleave_planes<const N: usize>(planes: [&[u8]; N], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `weave` needs SSE2, which is part of the x86_64 baseline that this code is compiled for.
    let woven = unsafe { weave::<N>(planes, out) };
    #[cfg(not(target_arch = "x86_64"))]
    let woven = 0;
    for (element, out) in out.chunks_exact_mut(N).enumerate().skip(woven) {
        for (plane, byte) in planes.iter().zip(out) {
            *byte = plane[element];
        }
    }
}

/// Elements of any size, in blocks whose output stays in the nearest cache while its bytes are filled in plane by plane.
fn interleave_any(planes: &[u8], element_bytes: usize, out: &mut [u8]) {
    const BLOCK_BYTES: usize = 8 << 10;
    let count = planes.len() / element_bytes;
    let block_elements = (BLOCK_BYTES / element_bytes).max(1);
    for (start, block) in (0..).step_by(block_elements).zip(out.chunks_mut(block_elements * element_bytes)) {
        for byte in 0..element_bytes {
            let plane = &planes[byte * count + start..(byte + 1) * count];
            for (element, value) in block.chunks_exact_mut(element_bytes).zip(plane) {
                element[byte] = *value;
            }
        }
    }
}

/// Interleaves N planes, 16 elements at a time, and returns how many elements that were.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn weave<const N: usize>(planes: [&[u8]; N], out: &mut [u8]) -> usize {
    use std::arch::x86_64::{
        __m128i, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_setzero_si128, _mm_unpackhi_epi8, _mm_unpackhi_epi64,
        _mm_unpacklo_epi8,
    };
    const { assert!(N.is_power_of_two(), "the perfect shuffle takes log2 N rounds") };
    let count = planes[0].len();
    for (group, out) in out[..N * count].chunks_exact_mut(16 * N).enumerate() {
        let mut lanes: [__m128i; N] = [_mm_setzero_si128(); N];
        for (lane, plane) in lanes.iter_mut().zip(planes) {
            let (words, _) = plane[group * 16..group * 16 + 16].as_chunks::<8>();
            *lane = _mm_set_epi64x(i64::from_le_bytes(words[1]), i64::from_le_bytes(words[0]));
        }
        for _ in 0..N.ilog2() {
            let before = lanes;
            for pair in 0..N / 2 {
                lanes[2 * pair] = _mm_unpacklo_epi8(before[pair], before[pair + N / 2]);
                lanes[2 * pair + 1] = _mm_unpackhi_epi8(before[pair], before[pair + N / 2]);
            }
        }
        for (lane, out) in lanes.iter().zip(out.chunks_exact_mut(16)) {
            out[..8].copy_from_slice(&_mm_cvtsi128_si64(*lane).to_le_bytes());
            out[8..].copy_from_slice(&_mm_cvtsi128_si64(_mm_unpackhi_epi64(*lane, *lane)).to_le_bytes());
        }
    }
    count / 16 * 16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: byte b of element i stands at `b * elements + i`.
    fn defined(source: &[u8], element_bytes: usize) -> Vec<u8> {
        let count = source.len() / element_bytes;
        let mut out = source.to_vec();
        for (at, byte) in out[..count * element_bytes].iter_mut().enumerate() {
            *byte = source[at % count * element_bytes + at / count];
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn shuffling_is_as_defined_and_is_undone(
            data in prop::collection::vec(any::<u8>(), 0..3000),
            element_bytes in prop_oneof![Just(1usize), Just(2), Just(4), Just(8), Just(16), 1usize..40, 1000usize..4000],
        ) {
            let shuffled = shuffle(&data, element_bytes);
            prop_assert_eq!(&shuffled, &defined(&data, element_bytes));
            let mut out = vec![0xAA; data.len()];
            unshuffle(&shuffled, element_bytes, &mut out);
            prop_assert_eq!(&out, &data);
            let whole_bytes = data.len() / element_bytes * element_bytes;
            interleave_any(&shuffled[..whole_bytes], element_bytes, &mut out[..whole_bytes]);
            prop_assert_eq!(out, data);
        }
    }
}
