//! Whole pipelines: against what libhdf5 stored, there and back, and against damage.

use libdeflater::{CompressionLvl, Compressor};
use proptest::prelude::*;

use super::*;

fn filter(id: u32, params: &[u32]) -> Filter {
    Filter { id, name: String::new(), params: params.to_vec() }
}

fn compress(data: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
    let bytes = compressor.zlib_compress(data, &mut out).unwrap();
    out.truncate(bytes);
    out
}

/// A plain LZF encoder: at each byte the longest copy that one earlier place allows, else a literal.
fn lzf_compress(data: &[u8]) -> Vec<u8> {
    let (mut out, mut literals, mut at) = (Vec::new(), Vec::new(), 0);
    let mut last_seen = std::collections::HashMap::new();
    let flush = |out: &mut Vec<u8>, literals: &mut Vec<u8>| {
        for run in literals.chunks(32) {
            out.push((run.len() - 1) as u8);
            out.extend(run);
        }
        literals.clear();
    };
    while at < data.len() {
        let key = data.get(at..at + 3);
        let start: Option<usize> = key.and_then(|key| last_seen.insert(key, at)).filter(|start| at - start <= 1 << 13);
        let length = start.map_or(0, |start| {
            data[at..].iter().zip(&data[start..]).take(264).take_while(|(here, there)| here == there).count()
        });
        if length < 3 {
            literals.push(data[at]);
            at += 1;
            continue;
        }
        flush(&mut out, &mut literals);
        let distance = at - start.unwrap() - 1;
        match length - 2 {
            short @ 1..7 => out.push((short << 5 | distance >> 8) as u8),
            long => out.extend([(7 << 5 | distance >> 8) as u8, (long - 7) as u8]),
        }
        out.push(distance as u8);
        at += length;
    }
    flush(&mut out, &mut literals);
    out
}

/// What a writer stores, given the same filters and mask.
fn encode(filters: &[Filter], mask: u32, data: &[u8]) -> Vec<u8> {
    let active = filters.iter().enumerate().filter(|(at, _)| mask & (1 << at) == 0);
    active.fold(data.to_vec(), |data, (_, filter)| match filter.id {
        DEFLATE => compress(&data),
        SHUFFLE => shuffle::shuffle(&data, filter.params[0] as usize),
        FLETCHER32 => [data.clone(), fletcher32::checksum(&data).to_le_bytes().to_vec()].concat(),
        LZF => lzf_compress(&data),
        id => panic!("no encoder for filter {id}"),
    })
}

fn decode(filters: &[Filter], chunk_bytes: usize, stored: &[u8], mask: u32) -> Result<Bytes> {
    Pipeline::new(filters, 2, chunk_bytes)?.decode(Bytes::copy_from_slice(stored), mask, &mut Scratch::default())
}

/// Any pipeline with at most one compressing stage, in any order.
fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let element = prop_oneof![Just(1u32), Just(2), Just(4), Just(8), Just(16), 1u32..40];
    let plain = prop_oneof![
        element.prop_map(|bytes| filter(SHUFFLE, &[bytes])),
        Just(filter(FLETCHER32, &[])),
        Just(filter(SHUFFLE, &[2])),
    ];
    let compressing = prop_oneof![Just(None), Just(Some(filter(DEFLATE, &[4]))), Just(Some(filter(LZF, &[4, 261, 9])))];
    (prop::collection::vec(plain, 0..4), compressing, 0usize..4).prop_map(|(mut filters, compressing, at)| {
        filters.splice(at.min(filters.len())..at.min(filters.len()), compressing);
        filters
    })
}

/// Bytes that compress somewhat, as measured data does.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let smooth = (prop::collection::vec(0i16..20, 1..1500), any::<i16>()).prop_map(|(steps, mut value)| {
        let rise = |step: i16| {
            value = value.wrapping_add(step);
            value.to_le_bytes()
        };
        steps.into_iter().flat_map(rise).collect()
    });
    prop_oneof![
        smooth,
        prop::collection::vec(any::<u8>(), 1..1000),
        (any::<u8>(), 1usize..5000).prop_map(|(b, n)| vec![b; n])
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn decoding_returns_what_was_encoded(filters in filters(), mask in prop_oneof![Just(0u32), any::<u32>()], data in data()) {
        let stored = encode(&filters, mask, &data);
        prop_assert_eq!(&decode(&filters, data.len(), &stored, mask).unwrap()[..], &data[..]);
        for chunk_bytes in [data.len() - 1, data.len() + 1] {
            let reason = decode(&filters, chunk_bytes, &stored, mask).unwrap_err().reason;
            prop_assert_eq!(reason, Reason::ChunkSizeMismatch);
        }
    }

    #[test]
    fn garbage_is_an_error_or_exactly_as_long_as_declared(
        filters in filters(), mask: u32, stored in prop::collection::vec(any::<u8>(), 0..600), chunk_bytes in 0usize..2000,
    ) {
        for (mask, chunk_bytes) in [(0, chunk_bytes), (mask, chunk_bytes), (mask, stored.len())] {
            if let Ok(decoded) = decode(&filters, chunk_bytes, &stored, mask) {
                prop_assert_eq!(decoded.len(), chunk_bytes);
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_exactly_as_long_as_declared(
        filters in filters(), data in data(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let mut stored = encode(&filters, 0, &data);
        let at = at.index(stored.len());
        let same = std::mem::replace(&mut stored[at], byte) == byte;
        if let Ok(decoded) = decode(&filters, data.len(), &stored, 0) {
            prop_assert_eq!(decoded.len(), data.len());
            let outermost = filters.last().map_or(0, |filter| filter.id);
            prop_assert!(same || outermost != FLETCHER32, "a checksum around everything notices one changed byte");
        }
        if let Ok(decoded) = decode(&filters, data.len(), &stored[..cut.index(stored.len())], 0) {
            prop_assert_eq!(decoded.len(), data.len());
        }
    }
}

/// Written by h5py with libhdf5 2.0 and read back undecoded.
#[test]
fn chunks_stored_by_libhdf5_are_decoded() {
    let ramp: Vec<u8> = (0..72).flat_map(|at| (at % 24 * 300 - 1000i16).to_le_bytes()).collect();
    let text = b"a slice of a dataset is a slice of a dataset is a slice ".repeat(3);
    let (shuffle, lzf) = (filter(SHUFFLE, &[2]), filter(LZF, &[4, 261, 144]));
    let cases: [(&str, &[Filter], &[u8]); 5] = [
        (
            "789c9370299873e28b824fc5920b7f34421ad6dc603188e9d8f280478244f13f7ffffd67606466616563e7e0e2e6e1e51310141216111527\
             551c005755319f1e570b0b",
            &[shuffle.clone(), filter(DEFLATE, &[6]), filter(FLETCHER32, &[])],
            &ramp,
        ),
        (
            "1844709cc8f4204c78a4d0fc285480acd804305c88b4e00c1844709cc8f4204c78a4d0fc285480acd804305c88b4e00c1844709cc8f4204c\
             78a4d0fc285480acd804305c88b4e00cfcfdfeff00010304050607080a0b0c0d0e10111213141517fcfdfeff00010304050607080a0b0c0d\
             0e10111213141517fcfdfeff00010304050607080a0b0c0d0e1011121314151714bb928e",
            &[shuffle.clone(), filter(FLETCHER32, &[])],
            &ramp,
        ),
        (
            "1f18fc44fd70fe9cffc800f40120034c047805a406d007fc08280a540b800cac0d10d80e041030115c128813b414e0150c1718e0542f010c\
             17",
            std::slice::from_ref(&lzf),
            &ramp,
        ),
        (
            "181844709cc8f4204c78a4d0fc285480acd804305c88b4e00c18e0261717fcfdfeff00010304050607080a0b0c0d0e10111213141517e025\
             17011517",
            &[shuffle.clone(), lzf.clone()],
            &ramp,
        ),
        (
            "166120736c696365206f6620612064617461736574206973200ce015170061e0161fe00f4fe02d37016520",
            std::slice::from_ref(&lzf),
            &text,
        ),
    ];
    for (stored, filters, expected) in cases {
        let digits: Vec<u8> = stored.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
        let stored: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        assert_eq!(decode(filters, expected.len(), &stored, 0).unwrap(), expected, "{filters:?}");
    }
}

#[test]
fn a_chunk_whose_filters_were_all_skipped_is_not_copied() {
    let filters = [filter(SHUFFLE, &[2]), filter(LZF, &[])];
    let pipeline = Pipeline::new(&filters, 2, 4).unwrap();
    let stored = Bytes::from_static(&[1, 2, 3, 4]);
    assert!(pipeline.is_identity(0b11) && !pipeline.is_identity(0b01));
    let decoded = pipeline.decode(stored.clone(), u32::MAX, &mut Scratch::default()).unwrap();
    assert_eq!(decoded.as_ptr(), stored.as_ptr());
    // A checksum is looked at and cut off where it stands.
    let stored = Bytes::from(encode(&[filter(FLETCHER32, &[])], 0, b"data"));
    let pipeline = Pipeline::new(&[filter(FLETCHER32, &[])], 1, 4).unwrap();
    let decoded = pipeline.decode(stored.clone(), 0, &mut Scratch::default()).unwrap();
    assert_eq!((decoded.as_ptr(), &decoded[..]), (stored.as_ptr(), &b"data"[..]));
}

#[test]
fn filters_without_a_decoder_are_refused_by_number_and_name() {
    let message = |filters: &[Filter]| {
        let error = Pipeline::new(filters, 2, 4).unwrap_err();
        assert_eq!(error.reason, Reason::UnsupportedFilter);
        error.message
    };
    assert_eq!(message(&[filter(32008, &[])]), "filter 32008 (bitshuffle) has no decoder here");
    assert_eq!(message(&[filter(77, &[])]), "filter 77 (unnamed) has no decoder here");
    let named = Filter { id: 77, name: "my\nown".into(), params: vec![] };
    assert_eq!(message(&[filter(2, &[2]), named]), "filter 77 (myown) has no decoder here");
    for id in [DEFLATE, SHUFFLE, FLETCHER32, LZF] {
        assert!(supported(id) && Pipeline::new(&[filter(id, &[2])], 2, 4).is_ok());
    }
    assert!(!supported(0) && !supported(4) && !supported(32008));
}

#[test]
fn pipelines_that_cannot_be_are_malformed() {
    let reason = |filters: &[Filter], element_bytes, chunk_bytes| {
        Pipeline::new(filters, element_bytes, chunk_bytes).unwrap_err().reason
    };
    assert_eq!(reason(&vec![filter(FLETCHER32, &[]); 33], 2, 4), Reason::MalformedFile);
    assert_eq!(reason(&[filter(SHUFFLE, &[0])], 2, 4), Reason::MalformedFile);
    assert_eq!(reason(&[filter(SHUFFLE, &[])], 0, 4), Reason::MalformedFile);
    assert_eq!(reason(&[], 2, usize::MAX), Reason::MalformedFile);
}

#[test]
fn an_element_size_larger_than_the_chunk_moves_nothing() {
    assert_eq!(decode(&[filter(SHUFFLE, &[u32::MAX])], 4, b"data", 0).unwrap(), &b"data"[..]);
}

#[test]
fn bytes_behind_a_deflate_stream_are_ignored_as_libhdf5_does() {
    let stored = [compress(b"data"), vec![0; 9]].concat();
    assert_eq!(decode(&[filter(DEFLATE, &[4])], 4, &stored, 0).unwrap(), &b"data"[..]);
}

#[test]
fn a_scratch_serves_chunks_of_all_sizes_and_keeps_little() {
    let filters = [filter(SHUFFLE, &[2]), filter(DEFLATE, &[1])];
    let mut scratch = Scratch::default();
    for chunk_bytes in [10, SPARE_BYTES_MAX + 1, 1000, 0, 7, 100_001] {
        let data: Vec<u8> = (0..chunk_bytes).map(|at| (at % 253) as u8).collect();
        let pipeline = Pipeline::new(&filters, 2, chunk_bytes).unwrap();
        assert_eq!(pipeline.decode(encode(&filters, 0, &data).into(), 0, &mut scratch).unwrap(), data);
        assert!(scratch.spare.len() <= SPARE_MAX);
        assert!(scratch.spare.iter().all(|buffer| buffer.capacity() <= SPARE_BYTES_MAX));
    }
}
