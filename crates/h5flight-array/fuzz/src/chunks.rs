//! Stored chunks and the index that finds them.

use bytes::Bytes;
use h5flight_array::codec::{self, Pipeline, Scratch};
use h5flight_array::index::{ChunkIndex, ChunkRun, RUN_POINTERS_MAX};
use h5flight_array::meta::Filter;

use super::input::Input;

/// Buffers of a chunk's size that decoding may hold at once: two between stages, the result, and one inside a decoder.
const BUFFERS: u64 = 4;

/// Any bytes through any pipeline of known filters: an error, or exactly the declared bytes.
pub fn chunk_decoders(data: &[u8]) -> u64 {
    let known: Vec<u32> = codec::known().map(|(id, _)| id).collect();
    let mut input = Input::new(data);
    let filter = |input: &mut Input<'_>| {
        let id = known[input.below(known.len())];
        let params = (0..input.below(8)).map(|_| input.number() as u32).collect();
        Filter { id, name: String::new(), params }
    };
    let filters: Vec<Filter> = (0..1 + input.below(4)).map(|_| filter(&mut input)).collect();
    let element_bytes = if input.coin() { input.number() } else { 1 << input.below(5) };
    let chunk_bytes = if input.coin() { input.number() & 0xF_FFFF } else { (input.number() & 0x1FF) * 8 } as usize;
    let mask = if input.coin() { input.number() as u32 } else { 0 };
    let stored = input.rest();
    if let Ok(pipeline) = Pipeline::new(&filters, element_bytes, chunk_bytes) {
        let mut scratch = Scratch::default();
        for mask in [mask, u32::MAX] {
            if let Ok(decoded) = pipeline.decode(Bytes::copy_from_slice(stored), mask, &mut scratch) {
                assert_eq!(decoded.len(), chunk_bytes, "{filters:?}");
            }
        }
    }
    if let Ok(decoded) = codec::decode_unsized(&filters[0], element_bytes, stored, chunk_bytes) {
        assert!(decoded.len() <= chunk_bytes.max(stored.len()), "{filters:?}: {} bytes", decoded.len());
    }
    BUFFERS * (chunk_bytes as u64 * 17 / 16 + (64 << 10))
}

/// A packed run from a row: refused, or pointers that pack to the same pointers.
pub fn chunk_runs(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let (first_number, last_number) = (input.number(), input.number());
    let (pointers, packs) = (input.number() as u32, input.coin());
    let file_bytes = input.number();
    let rest = input.rest();
    // Half of the time the columns are well compressed, so that their numbers are looked at.
    let (pointers, packed) = match packs {
        true => ((rest.len() / 24) as u32, zstd::bulk::compress(&rest[..rest.len() / 24 * 24], 1).unwrap()),
        false => (pointers, rest.to_vec()),
    };
    let run = ChunkRun { first_number, last_number, pointers, packed };
    let mut unpacked = Vec::new();
    if run.unpack_into(&mut unpacked).is_ok() {
        assert_eq!((unpacked.len(), unpacked[0].number), (pointers as usize, first_number));
        let index = ChunkIndex::from_runs(std::slice::from_ref(&run)).unwrap();
        assert_eq!(index.pointers(), unpacked);
        assert!(unpacked.iter().all(|pointer| index.find(pointer.number) == Some(*pointer)));
        assert_eq!(ChunkIndex::from_runs(&index.to_runs()).unwrap(), index);
        let _ = index.check_addresses(file_bytes);
        assert!(ChunkIndex::from_runs(&[run.clone(), run.clone()]).is_err(), "every chunk is there twice");
    }
    // Room for the pointers of two full runs, and zstd's own tables.
    2 * 24 * RUN_POINTERS_MAX as u64 * 4 + (4 << 20)
}
