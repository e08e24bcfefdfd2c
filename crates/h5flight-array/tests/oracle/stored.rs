//! The naive arrays as a file: chunks encoded, laid anywhere with gaps between them, and read back the whole way.

use std::io::Write;

use bytes::Bytes;
use h5flight_array::batch::Decoded;
use h5flight_array::codec::{Pipeline, Scratch};
use h5flight_array::file::{ByteRange, StoredFile};
use h5flight_array::index::{ChunkIndex, ChunkPointer};
use h5flight_array::meta::Storage;
use h5flight_array::plan::{Block, BlockId, BlockSource, Plan};

use super::encode::{encode, pipeline};
use super::{Choices, NaiveArray, Store, each_index, value};

/// A store whose arrays, where they would lie in a file, do.
pub struct StoredStore {
    pub store: Store,
    pub file: StoredFile,
}

impl StoredStore {
    pub fn new(mut store: Store, choices: &mut Choices) -> Self {
        let mut bytes = Vec::new();
        for extent in &mut store.extents {
            extent.array.lay_out(choices, &mut bytes);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        Self { store, file: StoredFile::new(file).unwrap() }
    }

    /// The decoded block: from the file where the plan says so, else as the naive store has it.
    pub fn fetch(&self, plan: &Plan, id: BlockId) -> Decoded {
        let array = &self.store.extents[id.extent as usize].array;
        let block = plan.block(id, &array.index).unwrap();
        let bytes = match &block.source {
            BlockSource::Stored(pointer) => {
                let stored = self.read(&[ByteRange { offset: pointer.offset, bytes: u64::from(pointer.bytes) }]);
                array.decode_stored(stored, pointer, &block)
            }
            BlockSource::Raw { ranges } => self.read(ranges),
            BlockSource::Inline | BlockSource::Fill | BlockSource::Worker(_) | BlockSource::Virtual(_) => {
                return array.decode(&block);
            }
        };
        Decoded::new(bytes, &block, &array.meta).unwrap()
    }

    fn read(&self, ranges: &[ByteRange]) -> Bytes {
        let read = self.file.read_ranges(ranges).unwrap();
        assert_eq!(read.ranges.len(), ranges.len());
        read.ranges.concat().into()
    }
}

impl NaiveArray {
    /// Appends the array to a file, after a gap; chunks in any order, with gaps and masks of their own.
    fn lay_out(&mut self, choices: &mut Choices, file: &mut Vec<u8>) {
        let Some(element_bytes) = self.meta.element.fixed_bytes() else { return };
        gap(choices, file);
        match &mut self.meta.storage {
            Storage::Contiguous { offset: offset @ Some(_) } => {
                *offset = Some(file.len() as u64);
                let shape = self.meta.shape().to_vec();
                each_index(&shape, |index| file.extend(value(&self.meta.element, self.seed + self.linear(index))));
            }
            Storage::Chunked { .. } if self.meta.filters.iter().all(|filter| filter.id < 300) && !self.inline => {
                self.meta.filters = pipeline(choices, element_bytes as u32);
                let mut pointers: Vec<ChunkPointer> = self.index.pointers().to_vec();
                if choices.one_in(2) {
                    pointers.reverse();
                }
                for pointer in &mut pointers {
                    gap(choices, file);
                    self.store_chunk(choices, pointer, file);
                }
                let mut runs = ChunkIndex::from_pointers(pointers).unwrap().to_runs();
                runs.reverse();
                self.index = ChunkIndex::from_runs(&runs).unwrap();
                self.index.check_addresses(file.len() as u64).unwrap();
            }
            _ => {}
        }
    }

    fn store_chunk(&self, choices: &mut Choices, pointer: &mut ChunkPointer, file: &mut Vec<u8>) {
        let Storage::Chunked { chunk_shape } = &self.meta.storage else { unreachable!("only chunks are stored so") };
        let mut left = pointer.number;
        let mut origin = vec![0; chunk_shape.len()];
        for axis in (0..chunk_shape.len()).rev() {
            let chunks = self.meta.shape()[axis].div_ceil(chunk_shape[axis]);
            origin[axis] = left % chunks * chunk_shape[axis];
            left /= chunks;
        }
        // Bits past the filters mean nothing.
        pointer.mask = if choices.one_in(3) { choices.below(usize::MAX) as u32 } else { 0 };
        let element_bytes = self.meta.element.fixed_bytes().unwrap() as usize;
        let stored = encode(&self.meta.filters, element_bytes, pointer.mask, self.boxed_at(&origin, chunk_shape));
        (pointer.offset, pointer.bytes) = (file.len() as u64, stored.len() as u32);
        file.extend(stored);
    }

    fn decode_stored(&self, stored: Bytes, pointer: &ChunkPointer, block: &Block) -> Bytes {
        let element_bytes = self.meta.element.fixed_bytes().unwrap();
        let chunk_bytes = block.decoded_bytes.unwrap() as usize;
        let pipeline = Pipeline::new(&self.meta.filters, element_bytes, chunk_bytes).unwrap();
        pipeline.decode(stored, pointer.mask, &mut Scratch::default()).unwrap()
    }
}

fn gap(choices: &mut Choices, file: &mut Vec<u8>) {
    let gap = [0, 1, 7, 100, 5000][choices.below(5)];
    file.resize(file.len() + gap, 0xA5);
}
