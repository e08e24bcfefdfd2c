//! Numbers of any width one behind the other, most significant bit first: how n-bit and scale-offset store theirs.

use super::malformed;
use crate::error::Result;
use crate::meta::ByteOrder;

/// The unsigned number of `width` bits, 1 to 64, whose first bit is number `at`. Bits behind the end read as zero:
/// the caller has compared how many there are with how many it needs.
#[inline]
pub(super) fn bits_at(bytes: &[u8], at: usize, width: u32) -> u64 {
    let rest = bytes.get(at / 8..).unwrap_or_default();
    let window = match rest.first_chunk::<9>() {
        Some(window) => *window,
        None => {
            let mut window = [0; 9];
            window[..rest.len()].copy_from_slice(rest);
            window
        }
    };
    let [a, b, c, d, e, f, g, h, last] = window;
    let skipped = at % 8;
    let word = u64::from_be_bytes([a, b, c, d, e, f, g, h]) << skipped | u64::from(last) >> (8 - skipped);
    word >> (64 - width)
}

/// The lowest N bytes of a number in this order.
#[inline]
pub(super) fn ordered<const N: usize>(number: u64, order: ByteOrder) -> [u8; N] {
    const { assert!(N <= 8, "a number has 8 bytes") };
    let little = number.to_le_bytes();
    match order {
        ByteOrder::Little => std::array::from_fn(|at| little[at]),
        ByteOrder::Big => std::array::from_fn(|at| little[N - 1 - at]),
    }
}

/// The byte order that a filter's parameter tells.
pub(super) fn order(param: u32, filter: &str) -> Result<ByteOrder> {
    match param {
        0 => Ok(ByteOrder::Little),
        1 => Ok(ByteOrder::Big),
        _ => Err(malformed(filter, format!("byte order {param}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_its_bits_one_by_one(
            bytes in prop::collection::vec(any::<u8>(), 0..30), at in 0usize..300, width in 1u32..=64,
        ) {
            let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| u64::from(byte >> (7 - at % 8) & 1));
            let expected = (at..at + width as usize).fold(0, |number, at| number << 1 | bit(at));
            prop_assert_eq!(bits_at(&bytes, at, width), expected);
        }
    }
}
