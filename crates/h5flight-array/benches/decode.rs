//! What decoding a chunk costs, in bytes of output a second: `cargo bench -p h5flight-array --bench decode`.
//!
//! Read each line against `memcpy`, and the pipelines against `inflate_alone`. Chunks are smooth ramps with noise in the
//! low bits, which deflate makes about half as large, as it does microscope and probe data; 1 MB each.

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use h5flight_array::codec::{self, Pipeline, Scratch};
use h5flight_array::meta::Filter;
use libdeflater::{CompressionLvl, Compressor, Decompressor};

/// Not a power of two: planes that lie a multiple of 4096 apart fall into the same cache sets.
const CHUNK_BYTES: usize = 1_000_000;

fn main() {
    divan::main();
}

/// Measured values of this many bytes: u16 counts, f32 and f64 traces.
fn chunk(element_bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 58) as f64
    };
    let values = (0..CHUNK_BYTES / element_bytes).map(|at| 500.0 + 200.0 * (at as f64 / 700.0).sin() + noise());
    match element_bytes {
        2 => values.flat_map(|value| (value as u16).to_le_bytes()).collect(),
        4 => values.flat_map(|value| (value.round() as f32).to_le_bytes()).collect(),
        8 => values.flat_map(|value| value.round().to_le_bytes()).collect(),
        _ => (0..CHUNK_BYTES).map(|at| at as u8).collect(),
    }
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::new(4).expect("a valid level"));
    let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
    let bytes = compressor.zlib_compress(data, &mut out).expect("the buffer has room for the worst case");
    out.truncate(bytes);
    out
}

fn filter(id: u32, params: &[u32]) -> Filter {
    Filter { id, name: String::new(), params: params.to_vec() }
}

/// Decodes `stored` again and again, as a blocking thread does.
fn bench_pipeline(bencher: Bencher, filters: &[Filter], stored: Vec<u8>, expected: &[u8]) {
    let pipeline = Pipeline::new(filters, 1, expected.len()).expect("a valid pipeline");
    let mut scratch = Scratch::default();
    let stored = Bytes::from(stored);
    assert_eq!(pipeline.decode(stored.clone(), 0, &mut scratch).expect("a valid chunk"), expected);
    bencher
        .counter(BytesCount::new(expected.len()))
        .bench_local(|| pipeline.decode(black_box(stored.clone()), 0, &mut scratch));
}

/// What comparing a chunk with its checksum adds to each of the others, by stored byte.
#[divan::bench]
fn checksum(bencher: Bencher) {
    let data = chunk(2);
    bencher.counter(BytesCount::new(data.len())).bench_local(|| h5flight_array::checksum::of(black_box(&data)));
}

#[divan::bench]
fn memcpy(bencher: Bencher) {
    let (source, mut out) = (chunk(1), vec![0; CHUNK_BYTES]);
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .bench_local(|| black_box(&mut out).copy_from_slice(black_box(&source)));
}

#[divan::bench(args = [2, 4, 8, 16, 12])]
fn unshuffle_alone(bencher: Bencher, element_bytes: usize) {
    let source = codec::shuffle::shuffle(&chunk(element_bytes), element_bytes);
    let mut out = vec![0; source.len()];
    bencher
        .counter(BytesCount::new(source.len()))
        .bench_local(|| codec::shuffle::unshuffle(black_box(&source), element_bytes, black_box(&mut out)));
}

#[divan::bench(args = [2, 4, 8])]
fn inflate_alone(bencher: Bencher, element_bytes: usize) {
    let stored = deflated(&codec::shuffle::shuffle(&chunk(element_bytes), element_bytes));
    let (mut decompressor, mut out) = (Decompressor::new(), vec![0; CHUNK_BYTES]);
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .bench_local(|| decompressor.zlib_decompress(black_box(&stored), black_box(&mut out)));
}

#[divan::bench(args = [2, 4, 8])]
fn inflate_and_unshuffle(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    let stored = deflated(&codec::shuffle::shuffle(&data, element_bytes));
    let filters = [filter(codec::SHUFFLE, &[element_bytes as u32]), filter(codec::DEFLATE, &[4])];
    bench_pipeline(bencher, &filters, stored, &data);
}

#[divan::bench(args = [2, 8])]
fn inflate_without_shuffle(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    bench_pipeline(bencher, &[filter(codec::DEFLATE, &[4])], deflated(&data), &data);
}

#[divan::bench]
fn fletcher32(bencher: Bencher) {
    let data = chunk(1);
    bencher.counter(BytesCount::new(CHUNK_BYTES)).bench_local(|| codec::fletcher32::checksum(black_box(&data)));
}

/// Runs of literals and copies of mixed lengths, as LZF finds them in shuffled integers: 1.5 to 1.
#[divan::bench]
fn lzf(bencher: Bencher) {
    let (mut stored, mut bytes, mut state) = (vec![31], 32, 1u32);
    stored.extend(0..32);
    while bytes < CHUNK_BYTES {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let literals = 1 + (state >> 28) as usize;
        let (short, distance) = (1 + (state >> 20) as u8 % 6, (state >> 8) as u8 % 31);
        stored.push(literals as u8 - 1);
        stored.extend((0..literals).map(|at| (state >> at) as u8));
        stored.extend([short << 5, distance]);
        bytes += literals + usize::from(short) + 2;
    }
    let mut data = vec![0; bytes];
    codec::lzf::decompress(&stored, &mut data).expect("a valid stream");
    bench_pipeline(bencher, &[filter(codec::LZF, &[])], stored, &data);
}

/// 8 KiB at a time, as bitshuffle does; against the interleaving of bytes alone see `unshuffle_alone`.
#[divan::bench(args = [1, 2, 4, 8, 12])]
fn bitshuffle_alone(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    let params = [0, 5, element_bytes as u32, 0, 0];
    bench_pipeline(
        bencher,
        &[filter(codec::BITSHUFFLE, &params)],
        bitshuffled(&data, element_bytes, <[u8]>::to_vec),
        &data,
    );
}

#[divan::bench(args = [2, 4, 8])]
fn bitshuffle_lz4(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    let stored = bitshuffled(&data, element_bytes, |block| sized(&lz4_flex::block::compress(block)));
    let params = [0, 5, element_bytes as u32, 0, 2];
    bench_pipeline(bencher, &[filter(codec::BITSHUFFLE, &params)], framed(CHUNK_BYTES, 8192, stored), &data);
}

#[divan::bench(args = [2, 4, 8])]
fn bitshuffle_zstd(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    let compress = |block: &[u8]| sized(&zstd::bulk::compress(block, 3).expect("memory to compress"));
    let stored = bitshuffled(&data, element_bytes, compress);
    let params = [0, 5, element_bytes as u32, 0, 3];
    bench_pipeline(bencher, &[filter(codec::BITSHUFFLE, &params)], framed(CHUNK_BYTES, 8192, stored), &data);
}

#[divan::bench(args = [2, 8])]
fn shuffle_lz4(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    let block = lz4_flex::block::compress(&codec::shuffle::shuffle(&data, element_bytes));
    let filters = [filter(codec::SHUFFLE, &[element_bytes as u32]), filter(codec::LZ4, &[])];
    bench_pipeline(bencher, &filters, framed(CHUNK_BYTES, CHUNK_BYTES, sized(&block)), &data);
}

#[divan::bench(args = [2, 8])]
fn shuffle_zstd(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    let shuffled = codec::shuffle::shuffle(&data, element_bytes);
    let stored = zstd::bulk::compress(&shuffled, 3).expect("memory to compress");
    let filters = [filter(codec::SHUFFLE, &[element_bytes as u32]), filter(codec::ZSTD, &[])];
    bench_pipeline(bencher, &filters, stored, &data);
}

#[divan::bench(args = [2, 8])]
fn bzip2(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    let mut stored = Vec::with_capacity(2 * CHUNK_BYTES);
    let mut compressor = bzip2::Compress::new(bzip2::Compression::best(), 0);
    compressor.compress_vec(&data, &mut stored, bzip2::Action::Finish).expect("a valid call");
    bench_pipeline(bencher, &[filter(codec::BZIP2, &[9])], stored, &data);
}

/// Blocks of 8 KiB, bit by bit, each then stored as `store` says; what is no whole block is in eights of elements.
fn bitshuffled(data: &[u8], element_bytes: usize, store: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (whole, plain) = data.split_at(data.len() - data.len() % (8 * element_bytes));
    let blocks = whole.chunks(8192 / element_bytes / 8 * 8 * element_bytes).flat_map(|block| {
        let row_bytes = block.len() / (8 * element_bytes);
        let mut transposed = vec![0; block.len()];
        for (element, bytes) in block.chunks_exact(element_bytes).enumerate() {
            for bit in 0..8 * element_bytes {
                transposed[bit * row_bytes + element / 8] |= (bytes[bit / 8] >> (bit % 8) & 1) << (element % 8);
            }
        }
        store(&transposed)
    });
    blocks.chain(plain.iter().copied()).collect()
}

/// Bytes behind their number, and blocks behind what they decode to.
fn sized(block: &[u8]) -> Vec<u8> {
    [&(block.len() as u32).to_be_bytes()[..], block].concat()
}

fn framed(bytes: usize, block_bytes: usize, blocks: Vec<u8>) -> Vec<u8> {
    [&(bytes as u64).to_be_bytes()[..], &(block_bytes as u32).to_be_bytes(), &blocks].concat()
}

/// Blosc's usual form of shuffled elements: blocks of 256 KiB, each of one LZ4 stream.
fn blosc_chunk(data: &[u8], element_bytes: usize) -> Vec<u8> {
    const BLOCK_BYTES: usize = 256 << 10;
    /// Shuffled, not split, LZ4.
    const FLAGS: u8 = 0x31;
    let blocks = data.chunks(BLOCK_BYTES).map(|block| codec::shuffle::shuffle(block, element_bytes));
    let (mut starts, mut streams) = (Vec::new(), Vec::new());
    let header_bytes = 16 + 4 * data.len().div_ceil(BLOCK_BYTES);
    for block in blocks {
        let stream = lz4_flex::block::compress(&block);
        starts.extend(((header_bytes + streams.len()) as u32).to_le_bytes());
        streams.extend((stream.len() as u32).to_le_bytes());
        streams.extend(stream);
    }
    let sizes = [data.len(), BLOCK_BYTES, header_bytes + streams.len()].map(|bytes| (bytes as u32).to_le_bytes());
    [&[2, 1, FLAGS, element_bytes as u8], sizes.as_flattened(), &starts, &streams].concat()
}

#[divan::bench(args = [2, 4, 8])]
fn blosc_lz4(bencher: Bencher, element_bytes: usize) {
    let data = chunk(element_bytes);
    bench_pipeline(bencher, &[filter(codec::BLOSC, &[])], blosc_chunk(&data, element_bytes), &data);
}
