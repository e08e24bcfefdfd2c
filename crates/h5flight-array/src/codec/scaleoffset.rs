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
        // Both factors have less than 36 bits together, for `out` has room for all elements.
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
