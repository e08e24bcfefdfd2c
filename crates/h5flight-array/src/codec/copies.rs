//! Copies of earlier output, which is what decoders of the LZ family spend their time in.
//!
//! Where there is room, bytes are moved in blocks of a known size, because a call to move a few bytes costs more than
//! moving many; what is too much is written over by what follows.

/// Bytes moved at once: a register.
const BLOCK_BYTES: usize = 16;
/// A run of one byte longer than this is filled by a call.
const LONG_RUN_BYTES: usize = 64;

/// Copies `length` bytes from `start` to `at`, as if one by one: a copy longer than its distance repeats itself. Up to
/// 16 bytes behind the copy may be overwritten.
///
/// # Panics
/// Where `start` is not before `at`, or `out` ends within the copy: the caller's mistake.
pub(super) fn copy_within(out: &mut [u8], start: usize, at: usize, length: usize) {
    // Long copies often end where the output does: only their last bytes are copied one by one.
    let roomy = length.min((out.len() - at).saturating_sub(BLOCK_BYTES));
    copy_blocks(out, start, at, roomy);
    for offset in roomy..length {
        out[at + offset] = out[start + offset];
    }
}

/// Such a copy where a block has room behind its end.
fn copy_blocks(out: &mut [u8], start: usize, at: usize, length: usize) {
    let distance = at - start;
    if distance >= BLOCK_BYTES {
        for step in (0..length).step_by(BLOCK_BYTES) {
            let (before, after) = out.split_at_mut(at + step);
            if let (Some(from), Some(to)) = (before[start + step..].first_chunk(), after.first_chunk_mut()) {
                let block: [u8; BLOCK_BYTES] = *from;
                *to = block;
            }
        }
    } else if distance == 1 && length > LONG_RUN_BYTES {
        let byte = out[start];
        out[at..at + length].fill(byte);
    } else {
        repeat(out, start, at, length);
    }
}

/// A copy from less than a block before: the repeated bytes fill a register, which is written again and again.
fn repeat(out: &mut [u8], start: usize, at: usize, length: usize) {
    let distance = at - start;
    let Some(first) = out[start..].first_chunk::<BLOCK_BYTES>() else { return };
    let mut pattern = u128::from_le_bytes(*first) & ((1 << (8 * distance)) - 1);
    let mut filled_bytes = distance;
    while filled_bytes < BLOCK_BYTES {
        pattern |= pattern << (8 * filled_bytes);
        filled_bytes *= 2;
    }
    let period = BLOCK_BYTES - BLOCK_BYTES % distance;
    for step in (0..length).step_by(period) {
        if let Some(to) = out[at + step..].first_chunk_mut() {
            *to = pattern.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn copies_are_as_if_made_byte_by_byte(
            earlier in prop::collection::vec(any::<u8>(), 1..60),
            distance in prop_oneof![Just(1usize), 1usize..20, 1usize..60],
            length in 0usize..200,
            rest in prop_oneof![Just(0usize), 0usize..40],
        ) {
            let (at, distance) = (earlier.len(), distance.min(earlier.len()));
            let mut expected = earlier.clone();
            for offset in 0..length {
                expected.push(expected[at - distance + offset]);
            }
            let mut out = earlier;
            out.resize(at + length + rest, 0xAA);
            copy_within(&mut out, at - distance, at, length);
            prop_assert_eq!(&out[..at + length], &expected[..]);
            prop_assert!(out[at + length..].iter().skip(BLOCK_BYTES).all(|byte| *byte == 0xAA));
        }
    }
}
