//! Chunks of Blosc and Blosc2 that hdf5plugin wrote, whole and damaged, and chunks that nobody would write.
//!
//! A line of `chunks.txt` is a chunk as `h5py.h5d.DatasetID.read_direct_chunk` returns it: filter, kind of values, bytes
//! of an element, elements, and the stored bytes in hexadecimal. Blosc and Blosc2 with each compressor, with and without
//! each filter, elements of many sizes; for Blosc2 also chunks of one value, and boxes of 2 and 3 dimensions.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::{BLOSC, BLOSC2, Pipeline, Scratch, decode_unsized};
use crate::error::{Reason, Result};
use crate::meta::Filter;

struct Case {
    filter: Filter,
    stored: Vec<u8>,
    data: Vec<u8>,
}

fn cases() -> Vec<Case> {
    include_str!("chunks.txt").lines().map(case).collect()
}

fn case(line: &str) -> Case {
    let fields: Vec<&str> = line.split(' ').collect();
    let [id, kind, element_bytes, count, digits] = fields[..] else { panic!("five fields in {line}") };
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    let stored = digits.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    let (element_bytes, count): (usize, u64) = (element_bytes.parse().unwrap(), count.parse().unwrap());
    let value = |at: u64| match kind {
        "ramp" => (at % 97 / 3 * 261).to_le_bytes(),
        "zeros" => [0; 8],
        "ones" => [1; 8],
        "nan" => f64::NAN.to_le_bytes(),
        _ => panic!("{kind}"),
    };
    let element = |at| value(at).into_iter().chain(std::iter::repeat(0)).take(element_bytes);
    Case { filter: filter(id.parse().unwrap()), stored, data: (0..count).flat_map(element).collect() }
}

fn filter(id: u32) -> Filter {
    Filter { id, name: String::new(), params: Vec::new() }
}

fn decode(filter: &Filter, stored: &[u8], chunk_bytes: usize) -> Result<Bytes> {
    let pipeline = Pipeline::new(std::slice::from_ref(filter), 1, chunk_bytes)?;
    pipeline.decode(Bytes::copy_from_slice(stored), 0, &mut Scratch::default())
}

#[test]
fn chunks_stored_by_hdf5plugin_are_decoded() {
    let cases = cases();
    assert_eq!(cases.iter().filter(|case| case.filter.id == BLOSC).count(), 18);
    for (line, Case { filter, stored, data }) in cases.iter().enumerate() {
        assert_eq!(&decode(filter, stored, data.len()).unwrap()[..], &data[..], "line {line}");
        assert_eq!(&decode_unsized(filter, 1, stored, 1 << 30).unwrap(), data, "line {line}, without the size");
        for chunk_bytes in [data.len() - 1, data.len() + 1] {
            assert_eq!(decode(filter, stored, chunk_bytes).unwrap_err().reason, Reason::ChunkSizeMismatch, "{line}");
        }
    }
}

#[test]
fn chunks_that_end_anywhere_are_errors() {
    for Case { filter, stored, data } in cases() {
        // A frame's trailer is not looked at, and is not missed.
        let needed = if filter.id == BLOSC { stored.len() } else { 90 };
        for bytes in 0..needed {
            assert!(decode(&filter, &stored[..bytes], data.len()).is_err(), "{bytes} of {}", stored.len());
        }
    }
}

/// A chunk of Blosc 1: one block of `bytes`, whose streams follow.
fn blosc(flags: u8, element_bytes: u8, bytes: u32, streams: &[u8]) -> Vec<u8> {
    let stored_bytes = 20 + streams.len() as u32;
    let sizes = [bytes, bytes, stored_bytes, 20].map(u32::to_le_bytes);
    [&[2, 1, flags, element_bytes], sizes.as_flattened(), streams].concat()
}

#[test]
fn headers_that_lie_are_errors() {
    let good = blosc(0x10, 1, 4, &[4, 0, 0, 0, 9, 8, 7, 6]);
    let decode = |stored: &[u8]| decode(&filter(BLOSC), stored, 4);
    assert_eq!(&decode(&good).unwrap()[..], [9, 8, 7, 6]);
    for (at, bytes, why) in [
        (0, &[3][..], "another version"),
        (1, &[2], "another version of the compressor"),
        (2, &[0x18], "a reserved flag"),
        (2, &[0xB0], "no such compressor"),
        (2, &[0x12], "not compressed, but the size differs"),
        (3, &[0], "elements of no bytes"),
        (4, &[255; 4], "negative bytes"),
        (4, &[255, 255, 255, 127], "bytes beyond the target"),
        (8, &[0; 4], "blocks of no bytes"),
        (8, &[1, 0, 0, 0], "a table of blocks that is longer than the chunk"),
        (12, &[255, 0, 0, 0], "more stored bytes than there are"),
        (12, &[15, 0, 0, 0], "fewer stored bytes than a header's"),
        (16, &[255; 4], "a negative start"),
        (16, &[29, 0, 0, 0], "a start behind the end"),
        (20, &[255; 4], "a negative stream, which only Blosc2 has"),
        (20, &[5, 0, 0, 0], "a stream that is longer than the chunk"),
        (20, &[0; 4], "an empty stream"),
    ] {
        let mut stored = good.clone();
        stored[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(decode(&stored).is_err(), "{why}");
    }
}

#[test]
fn blocks_that_share_a_stream_are_refused_however_many() {
    // 100,000 blocks of one byte, each of the same 1,000 stored bytes: 100 MB to be read from 401 kB.
    let count = 100_000u32;
    let start = 16 + 4 * count;
    let stream: Vec<u8> = [0x1F; 33].into_iter().cycle().take(1000).collect();
    let sizes = [count, 1, start + 4 + stream.len() as u32].map(u32::to_le_bytes);
    let starts = start.to_le_bytes().repeat(count as usize);
    let length = (stream.len() as u32).to_le_bytes();
    let stored = [&[2, 1, 0x30, 1], sizes.as_flattened(), &starts, &length, &stream].concat();
    assert_eq!(decode(&filter(BLOSC), &stored, count as usize).unwrap_err().reason, Reason::MalformedFile);
    let raw = [&[2, 1, 0x30, 1], sizes.as_flattened(), &starts, &[1, 0, 0, 0, 7], &stream[1..]].concat();
    let error = decode(&filter(BLOSC), &raw, count as usize).unwrap_err();
    assert!(error.to_string().contains("shares streams"), "{error}");
}

#[test]
fn what_no_writer_of_hdf5_files_does_is_refused_by_name() {
    let good = cases().into_iter().find(|case| case.filter.id == BLOSC2).unwrap();
    // The header of the chunk follows that of the frame, of 97 bytes.
    for (at, value, what) in [
        (97 + 2, 0xC5, "compressor 6"),
        (97 + 2, 0x45, "compressor 2"),
        (97 + 2, 0x11, "a chunk of Blosc 1"),
        (97 + 21, 33, "filter 33"),
        (97 + 30, 1, "blocks of varying length"),
        (97 + 31, 1, "a dictionary"),
        (97 + 31, 8, "lazy blocks"),
        (97 + 31, 128, "measurements in place of data"),
        (26, 1, "a frame in several files"),
    ] {
        let mut stored = good.stored.clone();
        stored[at] = value;
        let error = decode(&good.filter, &stored, good.data.len()).unwrap_err();
        assert_eq!(error.reason, Reason::UnsupportedFilter, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn arrays_whose_shape_lies_are_errors() {
    let boxes = cases().into_iter().rfind(|case| case.filter.id == BLOSC2).unwrap();
    let at = boxes.stored.windows(4).rposition(|bytes| bytes == b"b2nd").unwrap();
    // Behind the name: its place, the list's marker, the value's marker and size, then the value, of two dimensions.
    let content = at + 4 + 5 + 3 + 5;
    assert_eq!(boxes.stored[content..content + 4], [0x97, 0, 2, 0x92]);
    let (shape, block) = (content + 4, content + 4 + 2 * 9 + 1 + 2 * 5 + 1);
    for (at, bytes, why) in [
        (content + 2, &[0][..], "no dimensions"),
        (content + 2, &[17], "too many dimensions"),
        (shape, &[0xD2], "another type of number"),
        (shape + 1, &[255; 8], "a negative size"),
        (shape + 1, &[127; 8], "a size of 2^63"),
        (shape + 1, &[0; 8], "a size of zero"),
        (block + 1, &[0; 4], "a block of nothing"),
        (block + 1, &[255; 4], "a block larger than the array"),
        (block + 6, &[0, 0, 0, 1], "a block that is not the chunk's"),
    ] {
        let mut stored = boxes.stored.clone();
        stored[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(decode(&boxes.filter, &stored, boxes.data.len()).is_err(), "{why}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn damage_is_an_error_or_exactly_as_long_as_declared(
        line: prop::sample::Index, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        header: bool,
    ) {
        let lines: Vec<&str> = include_str!("chunks.txt").lines().collect();
        let Case { filter, mut stored, data } = case(lines[line.index(lines.len())]);
        // Half of the damage where the numbers are.
        let reach = if header { stored.len().min(260) } else { stored.len() };
        for (at, byte) in places {
            stored[at.index(reach)] = byte;
        }
        if let Ok(decoded) = decode(&filter, &stored, data.len()) {
            prop_assert_eq!(decoded.len(), data.len());
        }
        let unsized_bytes = decode_unsized(&filter, 1, &stored, 1 << 20).map_or(0, |decoded| decoded.len());
        prop_assert!(unsized_bytes <= 1 << 20);
    }

    #[test]
    fn garbage_behind_a_header_is_an_error_or_exactly_as_long_as_declared(
        flags: u8, element_bytes in 1u8..40, bytes in 1u32..2000, streams in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let stored = blosc(flags & !8, element_bytes, bytes, &streams);
        if let Ok(decoded) = decode(&filter(BLOSC), &stored, bytes as usize) {
            prop_assert_eq!(decoded.len(), bytes as usize);
        }
    }
}
