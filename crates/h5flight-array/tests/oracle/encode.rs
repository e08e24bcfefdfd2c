//! What a writer stores: an encoder for each filter that is decoded here, as plain as its format allows.

use h5flight_array::codec::{BITSHUFFLE, BZIP2, DEFLATE, FLETCHER32, LZ4, LZF, SHUFFLE, ZSTD, fletcher32, shuffle};
use h5flight_array::meta::Filter;
use libdeflater::{CompressionLvl, Compressor};

use super::Choices;

/// Up to three filters, at most one of which compresses, and parameters as writers set them.
pub fn pipeline(choices: &mut Choices, element_bytes: u32) -> Vec<Filter> {
    let filter = |id, params: &[u32]| Filter { id, name: String::new(), params: params.to_vec() };
    let mut filters = Vec::new();
    if choices.one_in(3) {
        filters.push(filter(FLETCHER32, &[]));
    }
    match choices.below(4) {
        1 => filters.push(filter(SHUFFLE, &[element_bytes])),
        2 => filters.push(filter(SHUFFLE, &[])),
        3 => {
            let block_elements = 8 * (1 + choices.below(3) as u32);
            filters.push(filter(BITSHUFFLE, &[0, 5, element_bytes, block_elements, 0]));
        }
        _ => {}
    }
    match choices.below(7) {
        1 => filters.push(filter(DEFLATE, &[4])),
        2 => filters.push(filter(LZF, &[4, 261, 144])),
        3 => filters.push(filter(BZIP2, &[9])),
        4 => filters.push(filter(LZ4, &[64])),
        5 => filters.push(filter(ZSTD, &[3])),
        6 => filters.reverse(),
        _ => {}
    }
    if choices.one_in(3) {
        filters.push(filter(FLETCHER32, &[]));
    }
    filters
}

/// A chunk as it is stored by these filters, those of `mask` left out.
pub fn encode(filters: &[Filter], element_bytes: usize, mask: u32, chunk: Vec<u8>) -> Vec<u8> {
    let active = filters.iter().enumerate().filter(|(at, _)| mask & (1 << at) == 0);
    active.fold(chunk, |data, (_, filter)| match filter.id {
        DEFLATE => deflate(&data),
        SHUFFLE => shuffle::shuffle(&data, element_bytes),
        FLETCHER32 => [data.clone(), fletcher32::checksum(&data).to_le_bytes().to_vec()].concat(),
        BZIP2 => bzip2(&data),
        LZF => lzf(&data),
        LZ4 => lz4(&data, filter.params[0] as usize),
        ZSTD => zstd::bulk::compress(&data, 3).unwrap(),
        BITSHUFFLE => bitshuffle(&data, element_bytes, filter.params[3] as usize),
        id => panic!("no encoder for filter {id}"),
    })
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::fastest());
    let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
    let bytes = compressor.zlib_compress(data, &mut out).unwrap();
    out.truncate(bytes);
    out
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut compressor = bzip2::Compress::new(bzip2::Compression::fast(), 0);
    let mut out = Vec::with_capacity(data.len() * 2 + 700);
    let status = compressor.compress_vec(data, &mut out, bzip2::Action::Finish).unwrap();
    assert_eq!(status, bzip2::Status::StreamEnd);
    out
}

/// Bytes that repeat the one before them become copies from 1 back; the others are literals.
fn lzf(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in data.chunk_by(|a, b| a == b) {
        out.extend([0, run[0]]);
        for copy in run[1..].chunks(8) {
            match copy.len() {
                1 | 2 => out.extend(copy.iter().flat_map(|byte| [0, *byte])),
                long => out.extend([((long - 2) << 5) as u8, 0]),
            }
        }
    }
    out
}

fn lz4(data: &[u8], block_bytes: usize) -> Vec<u8> {
    let mut out = [&(data.len() as u64).to_be_bytes()[..], &(block_bytes as u32).to_be_bytes()].concat();
    for block in data.chunks(block_bytes) {
        let compressed = lz4_flex::block::compress(block);
        let stored = if compressed.len() < block.len() { compressed.as_slice() } else { block };
        out.extend((stored.len() as u32).to_be_bytes());
        out.extend_from_slice(stored);
    }
    out
}

/// Bit by bit: in each block all lowest bits of all elements come first, eight to a byte.
fn bitshuffle(data: &[u8], element_bytes: usize, block_elements: usize) -> Vec<u8> {
    let whole = data.len() - data.len() % (8 * element_bytes);
    let mut out = Vec::new();
    for block in data[..whole].chunks(block_elements * element_bytes) {
        let elements = block.len() / element_bytes;
        let mut shuffled = vec![0u8; block.len()];
        for bit in 0..element_bytes * 8 {
            for element in 0..elements {
                let value = block[element * element_bytes + bit / 8] >> (bit % 8) & 1;
                shuffled[(bit * elements + element) / 8] |= value << (element % 8);
            }
        }
        out.extend(shuffled);
    }
    out.extend_from_slice(&data[whole..]);
    out
}
