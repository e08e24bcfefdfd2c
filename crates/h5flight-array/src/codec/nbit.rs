//! N-bit, one of libhdf5's own: only the significant bits of each number are stored, most significant first, one number
//! behind the other. What is padding in the type comes out as zeros.
//!
//! Parameters: their count, whether all bits are significant (then chunks are stored as they are), elements of a chunk,
//! then the type: 1 a number (size, byte order, precision, offset), 2 an array (size, type of its items), 3 a compound
//! (size, count of members, each an offset and a type), 4 anything else (size), of which every byte is stored.

use std::sync::Arc;

use super::bitfield::{bits_at, order, ordered};
use super::{Decode, Known, NBIT, Scratch, Stage, damaged, malformed, too_long};
use crate::error::{Error, Result};
use crate::meta::{ByteOrder, Filter, TYPE_DEPTH_MAX};

pub(super) static FILTER: Known = Known { id: NBIT, name: "nbit", stage: |filter, _| stage(filter) };

#[derive(Debug)]
struct NBit {
    element: Shape,
    /// Elements of a chunk.
    elements: usize,
}

/// What an element is made of.
#[derive(Debug)]
struct Shape {
    bytes: usize,
    /// Bits that are stored of it: at most 8 a byte, as none of the parts overlaps another.
    stored_bits: u64,
    part: Part,
}

#[derive(Debug)]
enum Part {
    Number(Number),
    Bytes,
    Array(Box<Shape>),
    /// Offsets and members.
    Compound(Vec<(usize, Shape)>),
}

/// Where the bits of a number stand.
#[derive(Clone, Copy, Debug)]
struct Number {
    bytes: usize,
    order: ByteOrder,
    /// Significant bits, and insignificant ones below them: together no more than fit into `bytes`.
    precision: u32,
    offset: u32,
}

fn stage(filter: &Filter) -> Result<Stage> {
    let mut params = Params { rest: &filter.params };
    let count = params.take()?;
    if count as usize != filter.params.len() {
        return Err(wrong(format!("{} parameters that call themselves {count}", filter.params.len())));
    }
    if params.take()? != 0 {
        return Ok(Stage::Keeps);
    }
    let elements = params.take()? as usize;
    let element = params.shape(TYPE_DEPTH_MAX)?;
    Ok(Stage::Compresses(Arc::new(NBit { element, elements })))
}

fn wrong(what: String) -> Error {
    malformed("nbit", what)
}

/// The parameters that are not yet read.
struct Params<'a> {
    rest: &'a [u32],
}

impl Params<'_> {
    fn take(&mut self) -> Result<u32> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| wrong("parameters that end too early".into()))?;
        self.rest = rest;
        Ok(*first)
    }

    /// The next type, which may nest so much deeper.
    fn shape(&mut self, depth: usize) -> Result<Shape> {
        let (class, bytes) = (self.take()?, self.take()?);
        let Some(depth) = depth.checked_sub(1) else {
            return Err(wrong(format!("types within types, more than {TYPE_DEPTH_MAX} levels")));
        };
        if bytes == 0 {
            return Err(wrong("a type of 0 bytes".into()));
        }
        let (stored_bits, part) = match class {
            1 => self.number(bytes)?,
            2 => {
                let item = self.shape(depth)?;
                // What is left at the end stays zero; libhdf5 writes no such types.
                ((bytes as usize / item.bytes) as u64 * item.stored_bits, Part::Array(Box::new(item)))
            }
            3 => self.compound(bytes as usize, depth)?,
            4 => (u64::from(bytes) * 8, Part::Bytes),
            _ => return Err(wrong(format!("type class {class}"))),
        };
        Ok(Shape { bytes: bytes as usize, stored_bits, part })
    }

    fn number(&mut self, bytes: u32) -> Result<(u64, Part)> {
        let order = order(self.take()?, "nbit")?;
        let (precision, offset) = (self.take()?, self.take()?);
        let end = precision.checked_add(offset);
        if precision == 0 || end.is_none_or(|end| u64::from(end) > u64::from(bytes) * 8) {
            return Err(wrong(format!("{precision} bits from bit {offset} on in {bytes} bytes")));
        }
        Ok((precision.into(), Part::Number(Number { bytes: bytes as usize, order, precision, offset })))
    }

    fn compound(&mut self, bytes: usize, depth: usize) -> Result<(u64, Part)> {
        let (mut members, mut used_bytes, mut stored_bits) = (Vec::new(), 0usize, 0);
        for _ in 0..self.take()? {
            let offset = self.take()? as usize;
            let member = self.shape(depth)?;
            used_bytes = used_bytes.saturating_add(member.bytes);
            if used_bytes > bytes || offset.saturating_add(member.bytes) > bytes {
                let what = format!("a member of {} bytes at {offset} in a compound of {bytes}", member.bytes);
                return Err(wrong(what));
            }
            stored_bits += member.stored_bits;
            members.push((offset, member));
        }
        Ok((stored_bits, Part::Compound(members)))
    }
}

impl Decode for NBit {
    fn decode(&self, stored: &[u8], out: &mut [u8], _: &mut Scratch) -> Result<usize> {
        let room = out.len();
        let out = self.elements.checked_mul(self.element.bytes).and_then(|bytes| out.get_mut(..bytes));
        let out = out.ok_or_else(|| too_long("nbit", stored, room))?;
        // No more than 8 bits for each byte of `out`.
        if (self.elements as u64 * self.element.stored_bits).div_ceil(8) > stored.len() as u64 {
            return Err(damaged("nbit", stored, "it ends too early"));
        }
        out.fill(0);
        self.element.unpack(&mut Bits { stored, at: 0 }, out);
        Ok(out.len())
    }
}

/// The bits that are not yet read; there are enough of them.
struct Bits<'a> {
    stored: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next `width` bits, 1 to 64.
    #[inline]
    fn take(&mut self, width: u32) -> u64 {
        let number = bits_at(self.stored, self.at, width);
        self.at += width as usize;
        number
    }
}

impl Shape {
    /// Writes as many elements of this shape as `out` has room for; it is all zeros before.
    fn unpack(&self, bits: &mut Bits<'_>, out: &mut [u8]) {
        match &self.part {
            Part::Number(number) => number.unpack(bits, out),
            Part::Bytes => {
                let whole_bytes = out.len() - out.len() % self.bytes;
                out[..whole_bytes].iter_mut().for_each(|byte| *byte = bits.take(8) as u8);
            }
            Part::Array(item) => out.chunks_exact_mut(self.bytes).for_each(|array| item.unpack(bits, array)),
            Part::Compound(members) => {
                for compound in out.chunks_exact_mut(self.bytes) {
                    for (offset, member) in members {
                        member.unpack(bits, &mut compound[*offset..offset + member.bytes]);
                    }
                }
            }
        }
    }
}

impl Number {
    fn unpack(&self, bits: &mut Bits<'_>, out: &mut [u8]) {
        match self.bytes {
            1 => self.unpack_sized::<1>(bits, out),
            2 => self.unpack_sized::<2>(bits, out),
            4 => self.unpack_sized::<4>(bits, out),
            8 => self.unpack_sized::<8>(bits, out),
            _ => out.chunks_exact_mut(self.bytes).for_each(|number| self.unpack_bytes(bits, number)),
        }
    }

    #[inline]
    fn unpack_sized<const N: usize>(&self, bits: &mut Bits<'_>, out: &mut [u8]) {
        for number in out.as_chunks_mut::<N>().0 {
            *number = ordered(bits.take(self.precision) << self.offset, self.order);
        }
    }

    /// One number of any size, the most significant byte first.
    fn unpack_bytes(&self, bits: &mut Bits<'_>, out: &mut [u8]) {
        let (low, end) = (self.offset, self.offset + self.precision);
        for byte in (low / 8..end.div_ceil(8)).rev() {
            let (first, last) = (low.max(byte * 8), end.min(byte * 8 + 8));
            let at = match self.order {
                ByteOrder::Little => byte as usize,
                ByteOrder::Big => out.len() - 1 - byte as usize,
            };
            out[at] = (bits.take(last - first) << (first - byte * 8)) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Pipeline;
    use crate::error::Reason;

    fn decode(params: &[u32], stored: &[u8], chunk_bytes: usize) -> Result<Bytes> {
        let filter = Filter { id: NBIT, name: String::new(), params: params.to_vec() };
        let pipeline = Pipeline::new(&[filter], 1, chunk_bytes)?;
        pipeline.decode(Bytes::copy_from_slice(stored), 0, &mut Scratch::default())
    }

    /// Parameters whose first three are put before this type.
    fn of_type(elements: u32, kind: &[u32]) -> Vec<u32> {
        [&[kind.len() as u32 + 3, 0, elements], kind].concat()
    }

    #[test]
    fn significant_bits_come_back_to_their_places() {
        // 12 bits from bit 2 on, in both byte orders: 0xabc and 0x123.
        let stored = [0xab, 0xc1, 0x23, 0];
        assert_eq!(decode(&of_type(2, &[1, 2, 0, 12, 2]), &stored, 4).unwrap()[..], [0xf0, 0x2a, 0x8c, 0x04]);
        assert_eq!(decode(&of_type(2, &[1, 2, 1, 12, 2]), &stored, 4).unwrap()[..], [0x2a, 0xf0, 0x04, 0x8c]);
        assert_eq!(decode(&of_type(1, &[1, 3, 0, 12, 2]), &stored, 3).unwrap()[..], [0xf0, 0x2a, 0]);
        assert_eq!(decode(&of_type(1, &[1, 3, 1, 12, 2]), &stored, 3).unwrap()[..], [0, 0x2a, 0xf0]);
    }

    #[test]
    fn types_nest() {
        // A byte that is free, 4 bits, 2 bytes as they are, an array of two numbers of 4 bits.
        let kind = [3, 6, 3, 1, 1, 1, 0, 4, 0, 2, 4, 2, 4, 2, 2, 1, 1, 0, 4, 4];
        assert_eq!(
            decode(&of_type(1, &kind), &[0x12, 0x34, 0x56, 0x70], 6).unwrap()[..],
            [0, 1, 0x23, 0x45, 0x60, 0x70]
        );
    }

    #[test]
    fn chunks_of_full_precision_are_not_touched() {
        assert_eq!(decode(&[3, 1, 4], b"text", 4).unwrap()[..], b"text"[..]);
    }

    #[test]
    fn every_way_to_end_wrongly_has_its_reason() {
        let reason = |params: &[u32], stored: &[u8], bytes| decode(params, stored, bytes).unwrap_err().reason;
        let twelve = of_type(2, &[1, 2, 0, 12, 2]);
        assert_eq!(reason(&twelve, &[0; 2], 4), Reason::MalformedFile, "a bit is missing");
        assert_eq!(reason(&twelve, &[0; 3], 3), Reason::ChunkSizeMismatch, "more than declared");
        assert_eq!(reason(&twelve, &[0; 3], 5), Reason::ChunkSizeMismatch, "less than declared");
        let most = of_type(u32::MAX, &[4, u32::MAX]);
        assert_eq!(reason(&most, &[0; 3], 5), Reason::ChunkSizeMismatch, "far more than declared");
    }

    #[test]
    fn types_that_cannot_be_are_malformed() {
        let deep: Vec<u32> = [2, 8].repeat(40).into_iter().chain([4, 8]).collect();
        let kinds: [&[u32]; 14] = [
            &[],
            &[1, 2, 0, 12],
            &[1, 2, 2, 12, 2],
            &[1, 2, 0, 0, 2],
            &[1, 2, 0, 12, 5],
            &[1, 2, 0, 12, u32::MAX],
            &[1, 0, 0, 0, 0],
            &[4, 0],
            &[5, 4],
            &[2, 4, 4, 0],
            &[3, 4, 1, 1, 4, 4],
            &[3, 4, 2, 0, 4, 3, 0, 4, 2],
            &[3, 4, u32::MAX, 0, 4, 1],
            &deep,
        ];
        for kind in kinds {
            let error = decode(&of_type(1, kind), &[0; 64], 8).unwrap_err();
            assert_eq!(error.reason, Reason::MalformedFile, "{kind:?}: {error}");
        }
        assert_eq!(decode(&[9, 0, 1, 4, 8], &[0; 64], 8).unwrap_err().reason, Reason::MalformedFile, "a wrong count");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn garbage_is_an_error_or_exactly_as_long_as_declared(
            elements in 0u32..40,
            kind in prop::collection::vec(prop_oneof![0u32..5, 0u32..40, any::<u32>()], 0..20),
            stored in prop::collection::vec(any::<u8>(), 0..300),
            chunk_bytes in 0usize..400,
        ) {
            let element_bytes = kind.get(1).map_or(0, |bytes| (bytes % 64) as usize);
            for chunk_bytes in [chunk_bytes, elements as usize * element_bytes] {
                if let Ok(decoded) = decode(&of_type(elements, &kind), &stored, chunk_bytes) {
                    prop_assert_eq!(decoded.len(), chunk_bytes);
                }
            }
        }

        #[test]
        fn numbers_are_those_whose_bits_were_stored(
            numbers in prop::collection::vec(any::<u64>(), 0..50),
            bytes in 1u32..9, big: bool, width in any::<u32>(), below in any::<u32>(),
        ) {
            let precision = 1 + width % (bytes * 8);
            let offset = below % (bytes * 8 - precision + 1);
            let mask = u64::MAX >> (64 - precision);
            let bits: Vec<bool> =
                numbers.iter().flat_map(|n| (0..precision).rev().map(move |bit| n & mask & 1 << bit != 0)).collect();
            let byte = |bits: &[bool]| bits.iter().zip((0..8).rev()).map(|(bit, at)| u8::from(*bit) << at).sum();
            let stored: Vec<u8> = bits.chunks(8).map(byte).collect();
            let element = |number: &u64| {
                let mut element = ((number & mask) << offset).to_le_bytes()[..bytes as usize].to_vec();
                if big {
                    element.reverse();
                }
                element
            };
            let expected: Vec<u8> = numbers.iter().flat_map(element).collect();
            let params = of_type(numbers.len() as u32, &[1, bytes, big.into(), precision, offset]);
            prop_assert_eq!(decode(&params, &stored, expected.len()).unwrap(), expected);
        }
    }
}
