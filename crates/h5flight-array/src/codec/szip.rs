//! Szip: the Rice coding of CCSDS 121.0-B, as HDF5 stores it.
//!
//! A chunk begins with its decoded size (4 bytes, little-endian). Then come bits, most significant first: scanlines of
//! whole blocks, each block some pixels and coded in the way its first bits name:
//! - all zeros: pixels that are 0, in one or more blocks;
//! - second extension: pairs of pixels in one unary code;
//! - split: the high bits of each pixel in unary, then the low k bits of each;
//! - none: the pixels' own bits.
//!
//! With nearest-neighbour coding, the first pixel of a scanline is stored as it is, and all others as their distance
//! from the one before, folded so that small distances of either sign are small numbers.
//!
//! What HDF5 and the library behind it (libaec's szip interface) add:
//! - pixels of 32 and 64 bits are coded as bytes: all first bytes, then all second bytes, as shuffle has it;
//! - a scanline that does not end with a block is padded; the padding is decoded and left out;
//! - parameters: options, pixels in a block, bits of a pixel, pixels in a scanline. Bit 5 of the options says
//!   nearest-neighbour, bit 4 that pixels of several bytes are big-endian; the others tell the decoder nothing.

use std::sync::Arc;

use super::shuffle::unshuffle;
use super::{Decode, Known, SZIP, Scratch, Stage, damaged, malformed, too_long};
use crate::error::{Error, Result};
use crate::meta::{ByteOrder, Filter};

pub(super) static FILTER: Known = Known { id: SZIP, name: "szip", stage: |filter, _| stage(filter) };

/// Option: pixels of several bytes are stored big-endian.
const MOST_SIGNIFICANT_FIRST: u32 = 1 << 4;
/// Option: nearest-neighbour coding.
const NEAREST_NEIGHBOUR: u32 = 1 << 5;
/// The largest block, of szip's own limits (SZ_MAX_PIXELS_PER_BLOCK).
const BLOCK_PIXELS_MAX: usize = 32;
/// The longest scanline, of szip's own limits (SZ_MAX_PIXELS_PER_SCANLINE).
const SCANLINE_PIXELS_MAX: usize = 4096;
/// A run of zero blocks that would have this number reaches to the end of the segment or scanline instead.
const RUN_TO_END: u32 = 5;
/// Blocks of a segment, which is what such a run does not leave.
const SEGMENT_BLOCKS: usize = 64;
/// The largest code of a pair in the second extension: both numbers together are at most 12.
const PAIR_CODE_MAX: u32 = 90;

#[derive(Debug)]
struct Szip {
    coding: Coding,
    /// Bits of what is coded as one number: a pixel, or a byte of it.
    bits: u32,
    /// Bytes of such a number in the decoded chunk.
    number_bytes: usize,
    order: ByteOrder,
    /// Planes of bytes that pixels were taken apart into.
    planes: usize,
    block_pixels: usize,
    scanline_pixels: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    NearestNeighbour,
    EntropyOnly,
}

fn stage(filter: &Filter) -> Result<Stage> {
    let wrong = |what: String| malformed("szip", what);
    let [options, block_pixels, pixel_bits, scanline_pixels] = filter.params[..] else {
        return Err(wrong(format!("{} parameters", filter.params.len())));
    };
    let (block_pixels, scanline_pixels) = (block_pixels as usize, scanline_pixels as usize);
    if !(2..=BLOCK_PIXELS_MAX).contains(&block_pixels) || !block_pixels.is_multiple_of(2) {
        return Err(wrong(format!("blocks of {block_pixels} pixels")));
    }
    if !(1..=SCANLINE_PIXELS_MAX).contains(&scanline_pixels) {
        return Err(wrong(format!("scanlines of {scanline_pixels} pixels")));
    }
    let (bits, number_bytes, planes) = match pixel_bits {
        1..=8 => (pixel_bits, 1, 1),
        9..=16 => (pixel_bits, 2, 1),
        17..=24 => (pixel_bits, 4, 1),
        32 => (8, 1, 4),
        64 => (8, 1, 8),
        _ => return Err(wrong(format!("pixels of {pixel_bits} bits"))),
    };
    let coding = if options & NEAREST_NEIGHBOUR == 0 { Coding::EntropyOnly } else { Coding::NearestNeighbour };
    let order = if options & MOST_SIGNIFICANT_FIRST == 0 { ByteOrder::Little } else { ByteOrder::Big };
    let szip = Szip { coding, bits, number_bytes, order, planes, block_pixels, scanline_pixels };
    Ok(Stage::Compresses(Arc::new(szip)))
}

impl Decode for Szip {
    fn decode(&self, stored: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<usize> {
        let room = out.len();
        let (size, coded) = stored.split_first_chunk().ok_or_else(|| damaged("szip", stored, "it has no size"))?;
        let size = u32::from_le_bytes(*size) as usize;
        let out = out.get_mut(..size).ok_or_else(|| too_long("szip", stored, room))?;
        if !size.is_multiple_of(self.number_bytes * self.planes) {
            return Err(damaged("szip", stored, format!("{size} bytes are no whole pixels")));
        }
        if self.planes == 1 {
            self.decode_numbers(coded, out)?;
        } else {
            let mut planes = scratch.take(size);
            self.decode_numbers(coded, &mut planes)?;
            unshuffle(&planes, self.planes, out);
            scratch.put_back(planes);
        }
        Ok(size)
    }
}

impl Szip {
    /// Decodes numbers into all of `out`, scanline by scanline.
    fn decode_numbers(&self, coded: &[u8], out: &mut [u8]) -> Result<()> {
        let mut bits = Bits::new(coded);
        for scanline in out.chunks_mut(self.scanline_pixels * self.number_bytes) {
            self.decode_scanline(&mut bits, scanline).map_err(|how| damaged_at(coded, how))?;
        }
        Ok(())
    }

    /// Decodes one scanline, the last of which may be shorter than the others.
    fn decode_scanline(&self, bits: &mut Bits<'_>, scanline: &mut [u8]) -> Bitwise<()> {
        let blocks = self.scanline_pixels.div_ceil(self.block_pixels);
        let mut numbers = [0; BLOCK_PIXELS_MAX];
        let numbers = &mut numbers[..self.block_pixels];
        let mut folding = Folding::new(self.bits);
        let mut block = 0;
        let mut pieces = scanline.chunks_mut(self.block_pixels * self.number_bytes);
        while let Some(piece) = pieces.next() {
            // The first number of a scanline is not coded, but there as a reference.
            let reference = block == 0 && self.coding == Coding::NearestNeighbour;
            let coded = match self.decode_block(bits, usize::from(reference), numbers)? {
                Block::Coded => 1,
                Block::Zeros { run } => self.zero_blocks(run, block, blocks)?,
            };
            match self.coding {
                Coding::EntropyOnly => {}
                Coding::NearestNeighbour => {
                    let (first, others) = numbers.split_at_mut(usize::from(reference));
                    if let [number] = first {
                        folding.last = *number;
                    }
                    others.iter_mut().for_each(|number| *number = folding.unfold(*number));
                }
            }
            self.write(numbers, piece);
            if coded > 1 {
                // Distances of zero repeat the last number; numbers of zero are zero.
                numbers.fill(if self.coding == Coding::NearestNeighbour { folding.last } else { 0 });
                pieces.by_ref().take(coded - 1).for_each(|piece| self.write(numbers, piece));
            }
            block += coded;
        }
        Ok(())
    }

    /// How many blocks a run of zeros has that begins with `block` of a scanline of `blocks`.
    fn zero_blocks(&self, run: u32, block: usize, blocks: usize) -> Bitwise<usize> {
        let coded = match run {
            RUN_TO_END => (blocks - block).min(SEGMENT_BLOCKS - block % SEGMENT_BLOCKS),
            // The numbers above have moved up by one, to make room for it.
            _ => (run - u32::from(run > RUN_TO_END)) as usize,
        };
        if coded > blocks - block { Err(Damage::LongRun) } else { Ok(coded) }
    }

    /// Decodes the numbers of one block; the first of them as it is where `references` is 1.
    #[inline]
    fn decode_block(&self, bits: &mut Bits<'_>, references: usize, numbers: &mut [u32]) -> Bitwise<Block> {
        let id_bits = match self.bits {
            ..=8 => 3,
            9..=16 => 4,
            _ => 5,
        };
        let id = bits.take(id_bits)?;
        if id == 0 {
            return self.decode_low_entropy(bits, references, numbers);
        }
        if id == (1 << id_bits) - 1 {
            for number in numbers {
                *number = bits.take(self.bits)?;
            }
            return Ok(Block::Coded);
        }
        let low_bits = id - 1;
        let (first, others) = numbers.split_at_mut(references);
        for number in first {
            *number = bits.take(self.bits)?;
        }
        for number in &mut *others {
            *number = bits.take_unary()? << low_bits;
        }
        if low_bits > 0 {
            for number in others {
                *number |= bits.take(low_bits)?;
            }
        }
        Ok(Block::Coded)
    }

    /// A block of zeros, or one in the second extension.
    fn decode_low_entropy(&self, bits: &mut Bits<'_>, references: usize, numbers: &mut [u32]) -> Bitwise<Block> {
        let extended = bits.take(1)? == 1;
        numbers.fill(0);
        for number in &mut numbers[..references] {
            *number = bits.take(self.bits)?;
        }
        if !extended {
            return Ok(Block::Zeros { run: bits.take_unary()?.saturating_add(1) });
        }
        for (at, pair) in numbers.chunks_exact_mut(2).enumerate() {
            let code = bits.take_unary()?;
            if code > PAIR_CODE_MAX {
                return Err(Damage::Pair(code));
            }
            let (first, second) = unpair(code);
            // In the pair of the reference only the second number was coded.
            if at > 0 || references == 0 {
                pair[0] = first;
            }
            pair[1] = second;
        }
        Ok(Block::Coded)
    }

    /// Writes as many numbers as `piece` has room for: what is too much is padding.
    fn write(&self, numbers: &[u32], piece: &mut [u8]) {
        let numbers = numbers.iter();
        match (self.number_bytes, self.order) {
            (1, _) => numbers.zip(piece).for_each(|(number, out)| *out = *number as u8),
            (2, ByteOrder::Little) => {
                numbers.zip(piece.as_chunks_mut().0).for_each(|(number, out)| *out = (*number as u16).to_le_bytes());
            }
            (2, ByteOrder::Big) => {
                numbers.zip(piece.as_chunks_mut().0).for_each(|(number, out)| *out = (*number as u16).to_be_bytes());
            }
            (_, ByteOrder::Little) => {
                numbers.zip(piece.as_chunks_mut().0).for_each(|(number, out)| *out = number.to_le_bytes());
            }
            (_, ByteOrder::Big) => {
                numbers.zip(piece.as_chunks_mut().0).for_each(|(number, out)| *out = number.to_be_bytes());
            }
        }
    }
}

/// What stood in the place of a block.
enum Block {
    /// One block.
    Coded,
    /// The first of a run of blocks, as its unary code has it.
    Zeros { run: u32 },
}

/// The two numbers of a code of the second extension: codes count the pairs by their sum, then by the second number.
fn unpair(code: u32) -> (u32, u32) {
    let mut sum = 0;
    while (sum + 1) * (sum + 2) / 2 <= code {
        sum += 1;
    }
    let second = code - sum * (sum + 1) / 2;
    (sum - second, second)
}

/// Turns folded distances back into numbers.
struct Folding {
    last: u32,
    /// The largest number.
    max: u32,
}

impl Folding {
    fn new(bits: u32) -> Self {
        Self { last: 0, max: u32::MAX >> (32 - bits) }
    }

    /// The next number, from its distance. Even ones go up and odd ones down, as long as there is room in either
    /// direction; beyond that they go on in the one that has room.
    #[inline]
    fn unfold(&mut self, folded: u32) -> u32 {
        let (below, above) = (self.last, self.max - self.last);
        let half = (folded >> 1) + (folded & 1);
        let number = if half <= below.min(above) {
            if folded & 1 == 0 { self.last + half } else { self.last - half }
        } else if below <= above {
            folded
        } else {
            // Only damaged streams have distances that no number is away.
            self.max.wrapping_sub(folded)
        };
        self.last = number & self.max;
        self.last
    }
}

/// In what a stream is not one.
enum Damage {
    Cut,
    LongRun,
    Pair(u32),
}

/// What bits make, unless they are damaged.
type Bitwise<T> = std::result::Result<T, Damage>;

fn damaged_at(coded: &[u8], how: Damage) -> Error {
    match how {
        Damage::Cut => damaged("szip", coded, "it ends too early"),
        Damage::LongRun => damaged("szip", coded, "a run of zeros leaves its scanline"),
        Damage::Pair(code) => damaged("szip", coded, format!("there is no pair {code}")),
    }
}

/// The bits that are not yet read, most significant first.
struct Bits<'a> {
    rest: &'a [u8],
    /// The next bits; below the `held` ones there may be more, which are those of `rest`.
    word: u64,
    held: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, word: 0, held: 0 }
    }

    /// Holds at least 56 bits, or all that are left; at most 63.
    #[inline]
    fn refill(&mut self) {
        if let Some(next) = self.rest.first_chunk() {
            self.word |= u64::from_be_bytes(*next) >> self.held;
            let bytes = (63 - self.held) / 8;
            self.rest = &self.rest[bytes as usize..];
            self.held += bytes * 8;
        } else {
            while let ([next, rest @ ..], 0..56) = (self.rest, self.held) {
                self.word |= u64::from(*next) << (56 - self.held);
                self.rest = rest;
                self.held += 8;
            }
        }
    }

    /// The next `count` bits, 1 to 32.
    #[inline]
    fn take(&mut self, count: u32) -> Bitwise<u32> {
        if self.held < count {
            self.refill();
            if self.held < count {
                return Err(Damage::Cut);
            }
        }
        let number = (self.word >> (64 - count)) as u32;
        self.word <<= count;
        self.held -= count;
        Ok(number)
    }

    /// How many zeros stand before the next one, which is taken too.
    #[inline]
    fn take_unary(&mut self) -> Bitwise<u32> {
        let mut zeros = 0u32;
        loop {
            let found = self.word.leading_zeros();
            if found < self.held {
                self.word = self.word << found << 1;
                self.held -= found + 1;
                return Ok(zeros.saturating_add(found));
            }
            zeros = zeros.saturating_add(self.held);
            self.word <<= self.held;
            self.held = 0;
            self.refill();
            if self.held == 0 {
                return Err(Damage::Cut);
            }
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

    /// A chunk that libhdf5 2.0 wrote through h5py.
    struct Case {
        params: [u32; 4],
        elements: i64,
        bytes: usize,
        order: ByteOrder,
        value: fn(i64) -> i64,
        stored: &'static str,
    }

    impl Case {
        fn stored(&self) -> Vec<u8> {
            let digits: Vec<u8> =
                self.stored.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        }

        fn expected(&self) -> Vec<u8> {
            let bits = self.params[2];
            let number = |at| ((self.value)(at) as u64) << (64 - bits) >> (64 - bits);
            let element = |at| {
                let bytes = number(at).to_le_bytes()[..self.bytes].to_vec();
                if self.order == ByteOrder::Little { bytes } else { bytes.into_iter().rev().collect() }
            };
            (0..self.elements).flat_map(element).collect()
        }
    }

    fn smooth(at: i64) -> i64 {
        at * at / 40 - 30
    }

    fn sparse(at: i64) -> i64 {
        if at % 97 == 0 { at } else { 0 }
    }

    fn noise(at: i64) -> i64 {
        if at < 30 { at * 40503 } else { 0 }
    }

    /// Both codings, every way to code a block, runs beyond a segment, padded scanlines, pixels of all kinds.
    const CASES: [Case; 10] = [
        Case {
            params: [169, 8, 8, 25],
            elements: 100,
            bytes: 1,
            order: ByteOrder::Little,
            value: smooth,
            stored: "640000003c5f933332492492447af14a5280b8000fd0bc911127fc9249a103fd902aab11535555aaaa694a53111040ff6dc4\
             924900019249248044324924988aa2007f80",
        },
        Case {
            params: [169, 10, 16, 60],
            elements: 60,
            bytes: 2,
            order: ByteOrder::Little,
            value: smooth,
            stored: "780000001ffe2fcc8ccc92492aaa52006fc0007c00801000801000bffc0080100100113ff924926993ff9a69b6d8",
        },
        Case {
            params: [149, 8, 16, 30],
            elements: 90,
            bytes: 2,
            order: ByteOrder::Big,
            value: smooth,
            stored: "b4000000fffe2ffe2ffe2ffe2ffe2ffe2ffe2ffe3fffe3ffe4ffe4ffe5ffe5ffe6ffe6ffe7fffe8ffe9ffeaffebffecffedf\
             feeffefffff0fff1fff2fff4fff5fff700000000ffff8fffafffbfffdfffe0000000200044aa927053051554925a6f80d619\
             55753613b640065249279f1150b749d5555565c8239eab9d549272dbaf8218a39c9249d259a7e3a00000",
        },
        Case {
            params: [169, 32, 32, 80],
            elements: 80,
            bytes: 4,
            order: ByteOrder::Little,
            value: smooth,
            stored: "400100003c5f9999924924924848486700000001fffffff5175249249269a69a6db6db66a94a529249ffffa8888800000000\
             000ffbe0000000000000003ffffffe060000000000000010ffbe0000000000000003ffffffe060000000000000010ffbe000\
             0000000000003ffffffe060000000000000010",
        },
        Case {
            params: [177, 4, 64, 11],
            elements: 22,
            bytes: 8,
            order: ByteOrder::Big,
            value: smooth,
            stored: "b00000000ff21fe43fc87f90ff21fe43fc87f90ff21fe43fc87f90ff21fe438a79339e5992492498",
        },
        Case {
            params: [169, 2, 8, 256],
            elements: 700,
            bytes: 1,
            order: ByteOrder::Little,
            value: sparse,
            stored: "bc020000000000000000000e8803f040002000000000fc2ff0080000003640e86a00107c27f8000000000000f00e5ffe0001\
             000000000001e8d1601000001e014fffc00020",
        },
        Case {
            params: [141, 4, 16, 400],
            elements: 400,
            bytes: 2,
            order: ByteOrder::Little,
            value: sparse,
            stored: "200300000000000560701000000000b60600080008002fc20000460000000b81e200000040",
        },
        Case {
            params: [169, 8, 16, 120],
            elements: 120,
            bytes: 2,
            order: ByteOrder::Little,
            value: noise,
            stored: "f0000000f00009e37c391daa58723c391b54aac7eff1b87010c391cc5d956bc391a702bac6fe3707e58c391be15a3b3fa836\
             745c391fd5288ca0c391afcdb1fbec3bffff00000040",
        },
        Case {
            params: [169, 16, 20, 70],
            elements: 70,
            bytes: 4,
            order: ByteOrder::Little,
            value: smooth,
            stored: "180100000ffff17e666644aaaaa94a400021c00000007ffc00100040005fffc0010004000800100020004000800100020004\
             000800189ffff34d34db6db6c21110887ff00000",
        },
        Case {
            params: [149, 4, 24, 9],
            elements: 45,
            bytes: 4,
            order: ByteOrder::Big,
            value: smooth,
            stored: "b4000000ffffff17ffff17ffff17ffff17fffff8bffff8bffff8bffff8ee3ffffe300000000000000003fffffc9ffffc9fff\
             fcbffffcbfffffe6ffffe6ffffe7ffffe8b8fffffa40000000000000000ffffff57ffff5fffff67ffff6ffffffbbffffbfff\
             ffc3ffffc6e3fffff200000000000000003fffffe9ffffebffffeffffff1ffffffafffffbfffffdfffffe023a98822a54c06\
             1f00",
        },
    ];

    fn decode(params: &[u32], stored: &[u8], chunk_bytes: usize) -> Result<Bytes> {
        let filter = Filter { id: SZIP, name: String::new(), params: params.to_vec() };
        let pipeline = Pipeline::new(&[filter], 1, chunk_bytes)?;
        pipeline.decode(Bytes::copy_from_slice(stored), 0, &mut Scratch::default())
    }

    #[test]
    fn chunks_stored_by_libhdf5_are_decoded() {
        for case in CASES {
            let expected = case.expected();
            assert_eq!(decode(&case.params, &case.stored(), expected.len()).unwrap(), expected, "{:?}", case.params);
        }
    }

    #[test]
    fn every_way_to_end_wrongly_has_its_reason() {
        let reason = |stored: &[u8], bytes| decode(&[NEAREST_NEIGHBOUR, 8, 8, 16], stored, bytes).unwrap_err().reason;
        assert_eq!(reason(&[16, 0, 0], 16), Reason::MalformedFile, "no size");
        assert_eq!(reason(&[16, 0, 0, 0], 16), Reason::MalformedFile, "no block");
        assert_eq!(reason(&[17, 0, 0, 0, 0], 16), Reason::ChunkSizeMismatch, "more than declared");
        assert_eq!(reason(&[8, 0, 0, 0, 0, 8], 16), Reason::ChunkSizeMismatch, "less than declared");
        assert_eq!(reason(&[16, 0, 0, 0, 0, 1], 16), Reason::MalformedFile, "a run of 4 in a scanline of 2 blocks");
        assert_eq!(reason(&[[16, 0, 0, 0, 0x10].as_slice(), &[0; 13]].concat(), 16), Reason::MalformedFile, "no one");
        let pair = [[16, 0, 0, 0, 0x10].as_slice(), &[0; 13], &[1]].concat();
        assert_eq!(reason(&pair, 16), Reason::MalformedFile, "a pair beyond the last");
        let odd = decode(&[0, 8, 16, 16], &[3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], 3).unwrap_err();
        assert_eq!(odd.reason, Reason::MalformedFile, "half a pixel");
    }

    #[test]
    fn parameters_beyond_szips_own_limits_are_malformed() {
        for params in [
            [0, 0, 8, 16].as_slice(),
            &[0, 7, 8, 16],
            &[0, 34, 8, 16],
            &[0, 8, 0, 16],
            &[0, 8, 25, 16],
            &[0, 8, 33, 16],
            &[0, 8, 128, 16],
            &[0, 8, 8, 0],
            &[0, 8, 8, 4097],
            &[0, 8, 8, u32::MAX],
            &[0, 8, 8],
            &[0, 8, 8, 16, 1],
            &[],
        ] {
            assert_eq!(decode(params, &[], 16).unwrap_err().reason, Reason::MalformedFile, "{params:?}");
        }
    }

    fn params() -> impl Strategy<Value = [u32; 4]> {
        let bits = prop_oneof![1u32..=24, Just(32), Just(64)];
        let options = prop_oneof![Just(0), Just(MOST_SIGNIFICANT_FIRST), Just(NEAREST_NEIGHBOUR), any::<u32>()];
        (options, (1u32..=16).prop_map(|half| half * 2), bits, 1u32..300).prop_map(|(o, b, p, s)| [o, b, p, s])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn garbage_is_an_error_or_exactly_as_long_as_declared(
            params in params(), mut stored in prop::collection::vec(any::<u8>(), 4..600), chunk_bytes in 0usize..3000,
        ) {
            stored[..4].copy_from_slice(&(chunk_bytes as u32).to_le_bytes());
            if let Ok(decoded) = decode(&params, &stored, chunk_bytes) {
                prop_assert_eq!(decoded.len(), chunk_bytes);
            }
        }

        #[test]
        fn damage_is_an_error_or_exactly_as_long_as_declared(
            case in 0..CASES.len(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index, params in params(),
        ) {
            let case = &CASES[case];
            let (mut stored, chunk_bytes) = (case.stored(), case.expected().len());
            let at = at.index(stored.len());
            stored[at] = byte;
            let cut = cut.index(stored.len());
            for (params, stored) in [(&case.params, &stored[..]), (&case.params, &stored[..cut]), (&params, &stored)] {
                if let Ok(decoded) = decode(params, stored, chunk_bytes) {
                    prop_assert_eq!(decoded.len(), chunk_bytes);
                }
            }
        }
    }
}
