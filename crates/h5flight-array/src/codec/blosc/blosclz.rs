//! BloscLZ, Blosc's own compressor, derived from FastLZ.
//!
//! A stream is a sequence of instructions. The first byte `c` says which; of the very first one only the low five bits
//! count, so that a stream begins with literals:
//! - below 32: `c + 1` literal bytes follow;
//! - else a copy of earlier output. Its length less 2 is the top three bits of `c`; where these are all set, bytes that
//!   are added follow, up to and including the first one below 255. Its distance less 1 is the low five bits of `c` and
//!   one more byte; where these are all set, the distance is 8192 more than the two bytes that follow, high byte first.

use super::super::copies::copy_within;

/// First bytes below this start literals, all others a copy.
const COPY_FROM: u8 = 32;
/// The most literals of one instruction, moved whole where there is room: see LZF.
const LITERALS_MAX: usize = 32;
/// The length field that is continued in the next bytes.
const LONG_COPY: usize = 7;
/// The distance that says: it stands in the next two bytes, less this.
const FAR: usize = 8192;

/// Decodes `stored` into the first bytes of `out` and returns how many, or says what is wrong.
pub(super) fn decompress(stored: &[u8], out: &mut [u8]) -> Result<usize, &'static str> {
    const CUT: &str = "it ends too early";
    const TOO_LONG: &str = "it is longer than its stream";
    let room = out.len();
    let Some((first, mut input)) = stored.split_first() else { return Ok(0) };
    let (mut control, mut at) = (*first & (COPY_FROM - 1), 0);
    loop {
        if control < COPY_FROM {
            let length = usize::from(control) + 1;
            let (literals, rest) = input.split_at_checked(length).ok_or(CUT)?;
            if length > room - at {
                return Err(TOO_LONG);
            }
            match (input.first_chunk::<LITERALS_MAX>(), out[at..].first_chunk_mut::<LITERALS_MAX>()) {
                (Some(literals), Some(out)) => *out = *literals,
                _ => out[at..at + length].copy_from_slice(literals),
            }
            (input, at) = (rest, at + length);
        } else {
            let (length, distance) = copy(control, &mut input).ok_or(CUT)?;
            let start = at.checked_sub(distance).ok_or("a copy from before its first byte")?;
            if length > room - at {
                return Err(TOO_LONG);
            }
            copy_within(out, start, at, length);
            at += length;
        }
        match input.split_first() {
            Some((next, rest)) => (control, input) = (*next, rest),
            None => return Ok(at),
        }
    }
}

/// Length and distance of a copy; `None` where the stream ends before.
fn copy(control: u8, input: &mut &[u8]) -> Option<(usize, usize)> {
    let mut length = usize::from(control >> 5);
    if length == LONG_COPY {
        loop {
            let more = take::<1>(input)?[0];
            length += usize::from(more);
            if more < u8::MAX {
                break;
            }
        }
    }
    let low = take::<1>(input)?[0];
    let mut distance = (usize::from(control & (COPY_FROM - 1)) << 8 | usize::from(low)) + 1;
    if distance == FAR {
        distance += usize::from(u16::from_be_bytes(take(input)?));
    }
    Some((length + 2, distance))
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(stored: &[u8], bytes: usize) -> Result<Vec<u8>, &'static str> {
        let mut out = vec![0; bytes];
        decompress(stored, &mut out).map(|bytes| out[..bytes].to_vec())
    }

    #[test]
    fn copies_repeat_themselves_and_reach_far() {
        // The first instruction is literals whatever its top bits say.
        assert_eq!(decode(&[1 | 32, b'a', b'b', 5 << 5, 1], 9).unwrap(), b"ababababa");
        // 7 + 255 + 3 + 2 bytes from 1 back.
        assert_eq!(decode(&[0, b'a', 7 << 5, 255, 3, 0], 268).unwrap(), [b'a'; 268]);
        // 8192 + 256 + 2 zeros behind "x", then 3 bytes from 8192 + 260 back.
        let zeros = (8192 + 258) - 2 - 7;
        let mut stored = vec![1, b'x', 0, 7 << 5];
        stored.extend(std::iter::repeat_n(255, zeros / 255));
        stored.extend([(zeros % 255) as u8, 0, 1 << 5 | 31, 255, 1, 4]);
        let out = decode(&stored, 9000).unwrap();
        assert_eq!((out.len(), &out[out.len() - 3..]), (2 + 8192 + 258 + 3, &b"x\0\0"[..]));
    }

    #[test]
    fn every_way_to_end_wrongly_is_found() {
        assert_eq!(decode(&[], 0).unwrap(), b"");
        for (stored, bytes, why) in [
            (&[3, 1, 2][..], 9, "literals cut off"),
            (&[0, 1, 32], 9, "distance cut off"),
            (&[0, 1, 224, 255], 9, "length cut off"),
            (&[0, 1, 63, 255, 1], 9, "far distance cut off"),
            (&[0, 1, 32, 1], 9, "copy from before the start"),
            (&[4, 1, 2, 3, 4, 5], 4, "too many literals"),
            (&[0, 1, 96, 0], 4, "too long a copy"),
        ] {
            assert!(decode(stored, bytes).is_err(), "{why}");
        }
    }
}
