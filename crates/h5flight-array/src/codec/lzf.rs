//! LZF, the filter that h5py brings: Marc Lehmann's format, decoded into a buffer of known size.
//!
//! A stream is a sequence of instructions. The first byte `c` says which:
//! - below 32: `c + 1` literal bytes follow;
//! - else a copy of earlier output: its length less 2 is the top three bits of `c`, plus the next byte where these are
//!   all set; its distance less 1 is the low five bits of `c`, then one more byte.

use std::sync::Arc;

use super::copies::copy_within;
use super::{Decode, Known, LZF, Scratch, Stage, damaged, too_long};
use crate::error::Result;

pub(super) static FILTER: Known = Known { id: LZF, name: "lzf", stage: |_, _| Ok(Stage::Compresses(Arc::new(Lzf))) };

#[derive(Debug)]
struct Lzf;

impl Decode for Lzf {
    fn decode(&self, stored: &[u8], out: &mut [u8], _: &mut Scratch) -> Result<usize> {
        decompress(stored, out)
    }
}

/// First bytes below this start literals, all others a copy.
const COPY_FROM: u8 = 32;
/// The most literals of one instruction. Where input and output have room, so many are moved whatever is asked for: a
/// move of known size is much cheaper than a call, and what is too much is written over by the next instruction.
const LITERALS_MAX: usize = 32;
/// The length field that is continued in the next byte.
const LONG_COPY: usize = 7;

/// Decodes `stored` into the first bytes of `out`, and returns how many. Copies read only what was written before.
///
/// # Errors
/// `chunk_size_mismatch` where the stream is longer than `out`, `malformed_file` where it is damaged.
pub fn decompress(stored: &[u8], out: &mut [u8]) -> Result<usize> {
    let declared_bytes = out.len();
    let cut = || damaged("lzf", stored, "it ends too early");
    let (mut input, mut at) = (stored, 0);
    while let Some((control, rest)) = input.split_first() {
        input = rest;
        if *control < COPY_FROM {
            let length = usize::from(*control) + 1;
            let (literals, rest) = input.split_at_checked(length).ok_or_else(cut)?;
            if length > declared_bytes - at {
                return Err(too_long("lzf", stored, declared_bytes));
            }
            match (input.first_chunk::<LITERALS_MAX>(), out[at..].first_chunk_mut::<LITERALS_MAX>()) {
                (Some(literals), Some(out)) => *out = *literals,
                _ => out[at..at + length].copy_from_slice(literals),
            }
            at += length;
            input = rest;
            continue;
        }
        let mut length = usize::from(*control >> 5);
        if length == LONG_COPY {
            length += usize::from(take_byte(&mut input).ok_or_else(cut)?);
        }
        length += 2;
        let low = take_byte(&mut input).ok_or_else(cut)?;
        let distance = (usize::from(*control & 31) << 8 | usize::from(low)) + 1;
        let Some(start) = at.checked_sub(distance) else {
            return Err(damaged("lzf", stored, format!("a copy from {distance} bytes before byte {at} of its output")));
        };
        if length > declared_bytes - at {
            return Err(too_long("lzf", stored, declared_bytes));
        }
        copy_within(out, start, at, length);
        at += length;
    }
    Ok(at)
}

fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = input.split_first()?;
    *input = rest;
    Some(*byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn a_copy_longer_than_its_distance_repeats_itself() {
        // Literals "ab", then 7 bytes from 2 back, then 3 bytes from 1 back, then 264 from 1 back (the longest copy).
        let stored = [1, b'a', b'b', (5 << 5), 1, (1 << 5), 0, (7 << 5), 255, 0];
        let mut out = vec![0; 2 + 7 + 3 + 264];
        assert_eq!(decompress(&stored, &mut out).unwrap(), out.len());
        assert_eq!(out[..9], *b"ababababa");
        assert!(out[9..].iter().all(|byte| *byte == b'a'));
    }

    #[test]
    fn every_way_to_end_wrongly_has_its_reason() {
        let reason = |stored: &[u8], bytes: usize| decompress(stored, &mut vec![0; bytes]).unwrap_err().reason;
        assert_eq!(reason(&[3, 1, 2], 4), Reason::MalformedFile, "literals cut off");
        assert_eq!(reason(&[0, 1, 32], 4), Reason::MalformedFile, "distance cut off");
        assert_eq!(reason(&[0, 1, 224], 4), Reason::MalformedFile, "length cut off");
        assert_eq!(reason(&[0, 1, 32, 1], 4), Reason::MalformedFile, "copy from before the start");
        assert_eq!(reason(&[32, 0], 4), Reason::MalformedFile, "copy as first instruction");
        assert_eq!(reason(&[4, 1, 2, 3, 4, 5], 4), Reason::ChunkSizeMismatch, "too many literals");
        assert_eq!(reason(&[0, 1, 96, 0], 4), Reason::ChunkSizeMismatch, "too long a copy");
        assert_eq!(reason(&[0, 1], 0), Reason::ChunkSizeMismatch, "anything where nothing is declared");
    }
}
