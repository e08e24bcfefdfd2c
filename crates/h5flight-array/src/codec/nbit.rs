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
