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

fn bzip2_compress(data: &[u8]) -> Vec<u8> {
    let mut compressor = ::bzip2::Compress::new(::bzip2::Compression::new(9), 0);
    let mut out = Vec::with_capacity(data.len() + data.len() / 50 + 700);
    let status = compressor.compress_vec(data, &mut out, ::bzip2::Action::Finish).unwrap();
    assert_eq!(status, ::bzip2::Status::StreamEnd);
    out
}

/// Two frames, one that does not say its decoded size and one that does, and between them one that is skipped.
fn zstd_compress(data: &[u8]) -> Vec<u8> {
    let (front, back) = data.split_at(data.len() / 3);
    let streamed = ::zstd::stream::encode_all(front, 3).unwrap();
    let skipped = [0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3].to_vec();
    [streamed, skipped, ::zstd::bulk::compress(back, 3).unwrap()].concat()
}

fn frame_header(bytes: usize, block_bytes: usize) -> Vec<u8> {
    [&(bytes as u64).to_be_bytes()[..], &(block_bytes as u32).to_be_bytes()].concat()
}

/// A block behind its size.
fn sized(block: &[u8]) -> Vec<u8> {
    [&(block.len() as u32).to_be_bytes()[..], block].concat()
}

fn lz4_compress(data: &[u8], block_bytes: usize) -> Vec<u8> {
    let blocks = data.chunks(block_bytes).flat_map(|block| {
        let compressed = lz4_flex::block::compress(block);
        sized(if compressed.len() < block.len() { &compressed } else { block })
    });
    frame_header(data.len(), block_bytes).into_iter().chain(blocks).collect()
}

/// Block by block, as the library does; where it chooses, it does so for elements of 1, 2, 4 and 8 bytes only.
fn bitshuffle(data: &[u8], params: &[u32]) -> Vec<u8> {
    let (element_bytes, compression) = (params[2] as usize, params[4]);
    let block_bytes = if params[3] == 0 { 8192 } else { params[3] as usize * element_bytes };
    let (whole, plain) = data.split_at(data.len() - data.len() % (8 * element_bytes));
    let blocks = whole.chunks(block_bytes).flat_map(|block| {
        let block = bits::transpose_bits(block, element_bytes);
        match compression {
            0 => block,
            2 => sized(&lz4_flex::block::compress(&block)),
            _ => sized(&::zstd::bulk::compress(&block, 1).unwrap()),
        }
    });
    let header = if compression == 0 { Vec::new() } else { frame_header(data.len(), block_bytes) };
    header.into_iter().chain(blocks).chain(plain.iter().copied()).collect()
}

/// What a writer stores, given the same filters and mask.
fn encode(filters: &[Filter], mask: u32, data: &[u8]) -> Vec<u8> {
    let active = filters.iter().enumerate().filter(|(at, _)| mask & (1 << at) == 0);
    active.fold(data.to_vec(), |data, (_, filter)| match filter.id {
        DEFLATE => compress(&data),
        SHUFFLE => shuffle::shuffle(&data, filter.params[0] as usize),
        FLETCHER32 => [data.clone(), fletcher32::checksum(&data).to_le_bytes().to_vec()].concat(),
        LZF => lzf_compress(&data),
        BZIP2 => bzip2_compress(&data),
        LZ4 => lz4_compress(&data, filter.params[0] as usize),
        ZSTD => zstd_compress(&data),
        BITSHUFFLE => bitshuffle(&data, &filter.params),
        id => panic!("no encoder for filter {id}"),
    })
}

fn decode(filters: &[Filter], chunk_bytes: usize, stored: &[u8], mask: u32) -> Result<Bytes> {
    Pipeline::new(filters, 2, chunk_bytes)?.decode(Bytes::copy_from_slice(stored), mask, &mut Scratch::default())
}

fn bitshuffles(compression: impl Strategy<Value = u32>) -> impl Strategy<Value = Filter> {
    let chosen = prop_oneof![Just(1u32), Just(2), Just(4), Just(8)].prop_map(|element_bytes| (element_bytes, 0));
    let given = (1u32..20, 1u32..40).prop_map(|(element_bytes, eights)| (element_bytes, 8 * eights));
    (prop_oneof![chosen, given], compression).prop_map(|((element_bytes, block_elements), compression)| {
        filter(BITSHUFFLE, &[0, 5, element_bytes, block_elements, compression])
    })
}

/// Any pipeline with at most one compressing stage, in any order.
fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let element = prop_oneof![Just(1u32), Just(2), Just(4), Just(8), Just(16), 1u32..40];
    let plain = prop_oneof![
        element.prop_map(|bytes| filter(SHUFFLE, &[bytes])),
        Just(filter(FLETCHER32, &[])),
        Just(filter(SHUFFLE, &[2])),
        bitshuffles(Just(0)),
    ];
    let compressing = prop_oneof![
        Just(filter(DEFLATE, &[4])),
        Just(filter(LZF, &[4, 261, 9])),
        Just(filter(BZIP2, &[9])),
        (1u32..6000).prop_map(|block_bytes| filter(LZ4, &[block_bytes])),
        Just(filter(ZSTD, &[3])),
        bitshuffles(2u32..4),
    ];
    let compressing = prop::option::weighted(0.9, compressing);
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
        assert_eq!(decode(filters, expected.len(), &unhex(stored), 0).unwrap(), expected, "{filters:?}");
    }
}

/// Written by h5py with hdf5plugin 7.1 and read back undecoded: blocks in full and in part, and numbers behind them.
#[test]
fn chunks_stored_by_hdf5plugin_are_decoded() {
    let ramp: Vec<u8> = (0..72).flat_map(|at| (at % 24 * 300 - 1000i16).to_le_bytes()).collect();
    let text = b"a slice of a dataset is a slice of a dataset is a slice ".repeat(3);
    let cases: [(&str, Filter, &[u8]); 7] = [
        (
            "00000000000000900000003c0000003af32118fc44fd70fe9cffc800f40120034c047805a406d007fc08280a540b800cac0dd80e\
             041030115c128813b414e0150c17300050ffc800f4010000003af32120034c047805a406d007fc08280a540b800cac0dd80e0410\
             30115c128813b414e0150c1718fc44fd70fe9cffc800f40130005006d007fc0800000018280a540b800cac0dd80e041030115c12\
             8813b414e0150c17",
            filter(LZ4, &[60]),
            &ramp,
        ),
        (
            "00000000000000a8000000a80000002fff096120736c696365206f66206120646174617365742069732018000d0f20000d0f5000\
             050f380020506c69636520",
            filter(LZ4, &[0]),
            &text,
        ),
        (
            "28b52ffd20a83d0100c06120736c696365206f6620612064617461736574206973200500000480030061281cb0f81c03",
            filter(ZSTD, &[3]),
            &text,
        ),
        (
            "425a68353141592653597a8bdde300001b118040002f248c002000508069a680a553268d34d2f97976b8b0b11aab2bd5b8cadc7a\
             b8b91dacc74b4b6b11f2c2fc5dc914e14241ea2f778c",
            filter(BZIP2, &[5]),
            &text,
        ),
        (
            "00000000aaaa99992d2d649bb62d38ce6aa54c368fc70ff80f000f000f000f0000000000aaaa99992d2d646449b67138d46a994c\
             e18f010ffe0f000f000f000f00000000aaaa99992d2d9b642d49ce71a5d43699c7e1f80100fe00000000000000000000aaaa9999\
             2d2d649bb62d38ce6aa54c368fc70ff80f000f000f000f00d80e041030115c128813b414e015",
            filter(BITSHUFFLE, &[0, 4, 2, 16, 0]),
            &ramp[..142],
        ),
        (
            "000000000000008e000000400000003e13000100f029aaaaaaaa999999992d2d2d2d649b6464b62d49b638ce71386aa5d46a4c36\
             994c8fc7e18f0ff8010f0f00fe0f0f00000f0f00000f0f00000f0000003e13000100f029aaaaaaaa999999992d2d2d2d9b64649b\
             2d49b62dce7138cea5d46aa536994c36c7e18fc7f8010ff800fe0f0000000f0000000f0000000f00d80e041030115c128813b414\
             e015",
            filter(BITSHUFFLE, &[0, 4, 2, 32, 2]),
            &ramp[..142],
        ),
        (
            "000000000000008e000020000000004628b52ffd2080ed0100f80000aa992d649b64b62d4938ce716aa5d44c36998fc7e10ff801\
             0f00fe0f000e002b0880c1e0066803c80037401b4006b8a16b03dc01c7802b648005d80e041030115c128813b414e015",
            filter(BITSHUFFLE, &[0, 4, 2, 0, 3, 3]),
            &ramp[..142],
        ),
    ];
    for (stored, filter, expected) in cases {
        let stored = unhex(stored);
        let decoded = decode(std::slice::from_ref(&filter), expected.len(), &stored, 0).unwrap();
        assert_eq!(decoded, expected, "{filter:?}");
        assert_eq!(decode_unsized(&filter, 1, &stored, 1 << 20).unwrap(), expected, "{filter:?}");
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn numbers_in_front_of_blocks_are_checked_before_they_are_used() {
    let (lz4, bitshuffle) = (filter(LZ4, &[]), filter(BITSHUFFLE, &[0, 5, 2, 0, 2]));
    let reason =
        |filter: &Filter, stored: &[u8]| decode(std::slice::from_ref(filter), 32, stored, 0).unwrap_err().reason;
    let block = sized(&[0xAB; 32]);
    for filter in [&lz4, &bitshuffle] {
        assert_eq!(reason(filter, &[0; 11]), Reason::MalformedFile, "no whole header");
        assert_eq!(reason(filter, &[0; 12]), Reason::ChunkSizeMismatch, "nothing in it");
        let huge = [&frame_header(usize::MAX, 32)[..], &block].concat();
        assert_eq!(reason(filter, &huge), Reason::ChunkSizeMismatch, "more than the chunk has");
        assert_eq!(reason(filter, &frame_header(32, 32)), Reason::MalformedFile, "no block");
        let cut = [&frame_header(32, 32)[..], &block[..35]].concat();
        assert_eq!(reason(filter, &cut), Reason::MalformedFile, "a block cut off");
    }
    let empty = [frame_header(32, 0), sized(&[]), sized(&[])].concat();
    assert_eq!(reason(&lz4, &empty), Reason::MalformedFile, "blocks of nothing never end");
    let odd = [&frame_header(32, 24)[..], &block].concat();
    assert_eq!(reason(&bitshuffle, &odd), Reason::MalformedFile, "blocks that are no eights of elements");
    let large = [&frame_header(32, u32::MAX as usize)[..], &block].concat();
    assert_eq!(decode(&[lz4], 32, &large, 0).unwrap(), vec![0xAB; 32], "one block, stored as it is");
}

#[test]
fn a_zstd_window_is_never_allocated() {
    // A frame without a size and with a window of 2 GiB; its one block is a run of 32 times 0xAB.
    let stored = unhex("28b52ffd00a8030100ab");
    assert_eq!(decode(&[filter(ZSTD, &[])], 32, &stored, 0).unwrap(), vec![0xAB; 32]);
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
    assert_eq!(message(&[filter(305, &[])]), "filter 305 (lzo) has no decoder here");
    let unknown = [filter(BITSHUFFLE, &[0, 5, 2, 0, 4])];
    assert_eq!(message(&unknown), "filter 32008 (bitshuffle) with compression 4 has no decoder here");
    assert_eq!(message(&[filter(77, &[])]), "filter 77 (unnamed) has no decoder here");
    let named = Filter { id: 77, name: "my\nown".into(), params: vec![] };
    assert_eq!(message(&[filter(2, &[2]), named]), "filter 77 (myown) has no decoder here");
    for (id, _) in known() {
        let refused = Pipeline::new(&[filter(id, &[2, 0, 2])], 2, 4).err();
        assert!(supported(id) && refused.is_none_or(|error| error.reason == Reason::MalformedFile), "{id}");
    }
    assert!(!supported(0) && !supported(305));
}

#[test]
fn pipelines_that_cannot_be_are_malformed() {
    let reason = |filters: &[Filter], element_bytes, chunk_bytes| {
        Pipeline::new(filters, element_bytes, chunk_bytes).unwrap_err().reason
    };
    assert_eq!(reason(&vec![filter(FLETCHER32, &[]); 33], 2, 4), Reason::MalformedFile);
    assert_eq!(reason(&[filter(SHUFFLE, &[0])], 2, 4), Reason::MalformedFile);
    assert_eq!(reason(&[filter(SHUFFLE, &[])], 0, 4), Reason::MalformedFile);
    for params in [&[0, 5][..], &[0, 5, 0], &[0, 5, 2, 12], &[0, 5, 2, 7, 2]] {
        assert_eq!(reason(&[filter(BITSHUFFLE, params)], 2, 4), Reason::MalformedFile, "{params:?}");
    }
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
