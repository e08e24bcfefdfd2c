//! Scale-offset, one of libhdf5's own: each number is stored as its distance from the smallest one of the chunk, in as
//! many bits as the largest distance needs. Floats are made integers first, by a decimal scale, and lose digits.
//!
//! A chunk begins with the width of the distances (4 bytes, little-endian), the size of the smallest number (1 byte)
//! and that number (8 bytes, little-endian: an integer of 64 bits, or a float's own bits). Behind 21 bytes in all stand
//! the distances, most significant bit first. Where the dataset has a fill value, the distance of all ones stands for
//! it. A width of 0 says that all numbers are equal; the full width, that they are stored as they are, little-endian.
//!
//! Parameters: scale type, scale factor, elements, class, size, sign, byte order, whether a fill value is defined, then
//! twelve words with that value, least significant byte first.

use std::sync::Arc;

use super::bitfield::{bits_at, order, ordered};
use super::{Decode, Known, SCALE_OFFSET, Scratch, Stage, damaged, malformed, too_long};
use crate::error::{Error, Reason, Result};
use crate::meta::{ByteOrder, Filter};

pub(super) static FILTER: Known = Known { id: SCALE_OFFSET, name: "scaleoffset", stage: |filter, _| stage(filter) };

/// libhdf5 writes and accepts no other number of parameters.
const PARAMS: usize = 20;
/// Where the distances begin.
const HEADER_BYTES: usize = 21;
/// Where the smallest number begins.
const MINIMUM_AT: usize = 5;

/// How a distance becomes a number again.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Added to the smallest one, modulo the size: signed or not is all the same.
    Integer,
    /// Divided by a power of ten, then added.
    Float32 {
        scale: f32,
    },
    Float64 {
        scale: f64,
    },
}

#[derive(Debug)]
struct ScaleOffset {
    kind: Kind,
    element_bytes: usize,
    order: ByteOrder,
    /// Elements of a chunk.
    elements: usize,
    fill_value: Option<u64>,
}

fn stage(filter: &Filter) -> Result<Stage> {
    let wrong = |what: String| malformed("scaleoffset", what);
    let params: &[u32; PARAMS] =
        filter.params.as_slice().try_into().map_err(|_| wrong(format!("{} parameters", filter.params.len())))?;
    let [scale_type, factor, elements, class, size, _, byte_order, fill_defined, fill_low, fill_high, ..] = *params;
    let factor = factor.cast_signed();
    let kind = match (class, scale_type, size) {
        (0, 2, 1 | 2 | 4 | 8) if factor > size.cast_signed() * 8 => {
            return Err(wrong(format!("{factor} bits for each of {size} bytes")));
        }
        // The writer asked for all bits, and its libhdf5 left the chunks alone.
        (0, 2, 1 | 2 | 4 | 8) if factor == size.cast_signed() * 8 => return Ok(Stage::Keeps),
        (0, 2, 1 | 2 | 4 | 8) => Kind::Integer,
        (1, 0, 4) => Kind::Float32 { scale: 10f32.powf(factor as f32) },
        (1, 0, 8) => Kind::Float64 { scale: 10f64.powf(f64::from(factor)) },
        (1, 1, _) => {
            let message = "scaleoffset with a binary scale, which no libhdf5 has ever implemented";
            return Err(Error::new(Reason::UnsupportedFilter, message));
        }
        _ => return Err(wrong(format!("class {class} of {size} bytes with scale type {scale_type}"))),
    };
    let fill_value = match fill_defined {
        0 => None,
        _ => Some((u64::from(fill_high) << 32 | u64::from(fill_low)) & ones(size * 8)),
    };
    Ok(Stage::Compresses(Arc::new(ScaleOffset {
        kind,
        element_bytes: size as usize,
        order: order(byte_order, "scaleoffset")?,
        elements: elements as usize,
        fill_value,
    })))
}

/// The largest number of `width` bits, 1 to 64 of them; also 0 of them.
fn ones(width: u32) -> u64 {
    1u64.checked_shl(width).map_or(u64::MAX, |bit| bit - 1)
}

impl Decode for ScaleOffset {
    fn decode(&self, stored: &[u8], out: &mut [u8], _: &mut Scratch) -> Result<usize> {
        let room = out.len();
        let out = self.elements.checked_mul(self.element_bytes).and_then(|bytes| out.get_mut(..bytes));
        let out = out.ok_or_else(|| too_long("scaleoffset", stored, room))?;
        match self.element_bytes {
            1 => self.decode_elements::<1>(stored, out)?,
            2 => self.decode_elements::<2>(stored, out)?,
            4 => self.decode_elements::<4>(stored, out)?,
            _ => self.decode_elements::<8>(stored, out)?,
        }
        Ok(out.len())
    }
}

impl ScaleOffset {
    fn decode_elements<const N: usize>(&self, stored: &[u8], out: &mut [u8]) -> Result<()> {
        let cut = || damaged("scaleoffset", stored, "it ends too early");
        let (width, rest) = stored.split_first_chunk().ok_or_else(cut)?;
        let width = u32::from_le_bytes(*width);
        let minimum_bytes = usize::from(*rest.first().ok_or_else(cut)?).min(8);
        let minimum = stored[MINIMUM_AT..].get(..minimum_bytes).ok_or_else(cut)?;
        let minimum = minimum.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let distances = stored.get(HEADER_BYTES..).unwrap_or_default();
        let full_width = 8 * N as u32;
        if width > full_width {
            return Err(damaged("scaleoffset", stored, format!("{width} bits for each of {N} bytes")));
        }
        // The factors have 32 and 7 bits.
        if (self.elements as u64 * u64::from(width)).div_ceil(8) > distances.len() as u64 {
            return Err(cut());
        }
        let (elements, _) = out.as_chunks_mut::<N>();
        if width == full_width {
            for (element, stored) in elements.iter_mut().zip(distances.as_chunks::<N>().0) {
                *element = *stored;
                if self.order == ByteOrder::Big {
                    element.reverse();
                }
            }
            return Ok(());
        }
        // A distance that no number has, where none stands for the fill value.
        let (fill_mark, fill_value) = self.fill_value.map_or((u64::MAX, 0), |value| (ones(width), value));
        let numbers = Numbers { distances, width, order: self.order, fill_mark, fill_value };
        match self.kind {
            Kind::Integer => numbers.write(elements, |distance| distance.wrapping_add(minimum)),
            Kind::Float32 { scale } => {
                let minimum = f32::from_bits(minimum as u32);
                let number = |distance| (distance as i32 as f32 / scale + minimum).to_bits();
                numbers.write(elements, |distance| u64::from(number(distance)));
            }
            Kind::Float64 { scale } => {
                let minimum = f64::from_bits(minimum);
                numbers.write(elements, |distance| (distance as i64 as f64 / scale + minimum).to_bits());
            }
        }
        Ok(())
    }
}

/// The distances of one chunk.
struct Numbers<'a> {
    distances: &'a [u8],
    width: u32,
    order: ByteOrder,
    fill_mark: u64,
    fill_value: u64,
}

impl Numbers<'_> {
    /// Every element is the number that `number` makes of its distance, or the fill value.
    #[inline]
    fn write<const N: usize>(&self, elements: &mut [[u8; N]], number: impl Fn(u64) -> u64) {
        let mut at = 0;
        for element in elements {
            // Elements behind a width of 0 are all the same: no bit is looked at.
            let distance = if self.width == 0 { 0 } else { bits_at(self.distances, at, self.width) };
            let number = if distance == self.fill_mark { self.fill_value } else { number(distance) };
            *element = ordered(number, self.order);
            at += self.width as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Pipeline;

    fn decode(params: &[u32], stored: &[u8], chunk_bytes: usize) -> Result<Bytes> {
        let filter = Filter { id: SCALE_OFFSET, name: String::new(), params: params.to_vec() };
        let pipeline = Pipeline::new(&[filter], 1, chunk_bytes)?;
        pipeline.decode(Bytes::copy_from_slice(stored), 0, &mut Scratch::default())
    }

    /// Parameters for elements of this class, size and order, with this scale and perhaps a fill value.
    fn params(elements: u32, (class, bytes, order): (u32, u32, u32), factor: i32, fill_value: Option<u64>) -> Vec<u32> {
        let scale_type = if class == 0 { 2 } else { 0 };
        let fill = fill_value.unwrap_or(0);
        let fill = [u32::from(fill_value.is_some()), fill as u32, (fill >> 32) as u32];
        let mut params = vec![scale_type, factor.cast_unsigned(), elements, class, bytes, 0, order];
        params.extend(fill);
        params.resize(PARAMS, 0);
        params
    }

    /// A chunk with these distances.
    fn stored(width: u32, minimum: u64, distances: &[u8]) -> Vec<u8> {
        [&width.to_le_bytes()[..], &[8], &minimum.to_le_bytes(), &[0; 8], distances].concat()
    }

    #[test]
    fn integers_are_the_smallest_one_and_a_distance() {
        let chunk = stored(4, 1000, &[0x0f, 0x70]);
        let little = params(3, (0, 2, 0), 0, None);
        assert_eq!(decode(&little, &chunk, 6).unwrap()[..], [1000u16, 1015, 1007].map(u16::to_le_bytes).concat());
        let big = params(3, (0, 2, 1), 0, Some(5));
        assert_eq!(decode(&big, &chunk, 6).unwrap()[..], [1000u16, 5, 1007].map(u16::to_be_bytes).concat());
        let below_zero = stored(4, (-3i64).cast_unsigned(), &[0x0f, 0x70]);
        assert_eq!(decode(&params(3, (0, 1, 0), 0, None), &below_zero, 3).unwrap()[..], [253, 12, 4]);
    }

    #[test]
    fn floats_are_divided_by_a_power_of_ten() {
        let chunk = stored(8, u64::from((-1.5f32).to_bits()), &[0, 25, 255]);
        let expected = [-1.5f32, 1.0, 9.0];
        let some = params(3, (1, 4, 0), 1, Some(9f32.to_bits().into()));
        assert_eq!(decode(&some, &chunk, 12).unwrap()[..], expected.map(f32::to_le_bytes).concat());
        let chunk = stored(8, 2f64.to_bits(), &[0, 1, 255]);
        let tens = params(3, (1, 8, 1), -1, None);
        assert_eq!(decode(&tens, &chunk, 24).unwrap()[..], [2f64, 12.0, 2552.0].map(f64::to_be_bytes).concat());
    }

    #[test]
    fn no_bits_are_one_number_and_all_bits_the_numbers_themselves() {
        let equal = &stored(0, 7, &[])[..13];
        assert_eq!(decode(&params(2, (0, 2, 0), 0, None), equal, 4).unwrap()[..], [7, 0, 7, 0]);
        assert_eq!(decode(&params(2, (0, 2, 0), 0, Some(9)), equal, 4).unwrap()[..], [9, 0, 9, 0]);
        let whole = stored(16, 7, &[1, 2, 3, 4]);
        assert_eq!(decode(&params(2, (0, 2, 0), 0, None), &whole, 4).unwrap()[..], [1, 2, 3, 4]);
        assert_eq!(decode(&params(2, (0, 2, 1), 0, Some(1)), &whole, 4).unwrap()[..], [2, 1, 4, 3]);
        assert_eq!(
            decode(&params(2, (0, 2, 1), 16, None), b"text", 4).unwrap()[..],
            b"text"[..],
            "all bits were asked for"
        );
    }

    #[test]
    fn every_way_to_end_wrongly_has_its_reason() {
        let reason = |stored: &[u8], bytes| decode(&params(3, (0, 2, 0), 0, None), stored, bytes).unwrap_err().reason;
        let chunk = stored(4, 0, &[0, 0]);
        for bytes in [0, 3, 4, 12, 20, 22] {
            assert_eq!(reason(&chunk[..bytes], 6), Reason::MalformedFile, "cut to {bytes} bytes");
        }
        assert_eq!(reason(&chunk, 5), Reason::ChunkSizeMismatch, "more than declared");
        assert_eq!(reason(&chunk, 7), Reason::ChunkSizeMismatch, "less than declared");
        assert_eq!(reason(&stored(17, 0, &[0; 9]), 6), Reason::MalformedFile, "wider than the type");
        assert_eq!(reason(&stored(u32::MAX, 0, &[0; 9]), 6), Reason::MalformedFile, "far wider than the type");
        assert_eq!(reason(&stored(16, 0, &[0; 5]), 6), Reason::MalformedFile, "numbers themselves, cut");
    }

    #[test]
    fn parameters_that_cannot_be_are_malformed() {
        let reason = |params: &[u32]| decode(params, &[0; 64], 6).unwrap_err().reason;
        let right = params(3, (0, 2, 0), 0, None);
        for (at, param) in [(0, 0), (1, 17), (3, 1), (3, 2), (4, 0), (4, 3), (4, 16), (4, u32::MAX), (6, 2)] {
            let mut wrong = right.clone();
            wrong[at] = param;
            assert_eq!(reason(&wrong), Reason::MalformedFile, "{param} as parameter {at}");
        }
        assert_eq!(reason(&right[..19]), Reason::MalformedFile);
        assert_eq!(reason(&[]), Reason::MalformedFile);
        let mut binary = params(3, (1, 4, 0), 0, None);
        binary[0] = 1;
        assert_eq!(reason(&binary), Reason::UnsupportedFilter);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn garbage_is_an_error_or_exactly_as_long_as_declared(
            elements in 0u32..60,
            kind in prop_oneof![(Just(0u32), prop_oneof![Just(1u32), Just(2), Just(4), Just(8)], 0u32..2),
                (Just(1u32), prop_oneof![Just(4u32), Just(8)], 0u32..2)],
            factor in -400i32..70, fill_value: Option<u64>, width in 0u32..70, minimum: u64,
            distances in prop::collection::vec(any::<u8>(), 0..500), cut in 0usize..600, minimum_bytes: u8,
        ) {
            let mut chunk = stored(width, minimum, &distances);
            chunk[4] = minimum_bytes;
            chunk.truncate(cut);
            let chunk_bytes = (elements * kind.1) as usize;
            for chunk_bytes in [chunk_bytes, cut] {
                if let Ok(decoded) = decode(&params(elements, kind, factor, fill_value), &chunk, chunk_bytes) {
                    prop_assert_eq!(decoded.len(), chunk_bytes);
                }
            }
        }

        #[test]
        fn garbage_as_parameters_is_an_error_or_exactly_as_long_as_declared(
            params in prop::collection::vec(prop_oneof![0u32..10, any::<u32>()], PARAMS),
            chunk in prop::collection::vec(any::<u8>(), 0..100), chunk_bytes in 0usize..100,
        ) {
            if let Ok(decoded) = decode(&params, &chunk, chunk_bytes) {
                prop_assert_eq!(decoded.len(), chunk_bytes);
            }
        }
    }
}
