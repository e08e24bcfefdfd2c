//! Where the chunks of an array are: chunk pointers, in memory and packed for SQL.
//!
//! A chunk's *number* is its position in the grid of chunks, C order: chunk `[i, j]` of a grid of `[m, n]` chunks is
//! number `i * n + j`. Only stored chunks have a pointer; every other chunk is the fill value.

use crate::error::{Error, Reason, Result};

/// The most pointers in one [`ChunkRun`]: one SQL row.
pub const RUN_POINTERS_MAX: usize = 4096;
/// The largest packed run accepted: all four columns of a full run, incompressible, and zstd's frame around them.
const RUN_BYTES_MAX: usize = RUN_POINTERS_MAX * POINTER_BYTES + 1024;
/// Bytes of one pointer before compression: number gap (8), file gap (8), stored bytes (4), filter mask (4).
const POINTER_BYTES: usize = 24;

/// One stored chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPointer {
    /// Position in the grid of chunks.
    pub number: u64,
    /// File address in bytes, user block included.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u32,
    /// Bit i set: filter i was skipped for this chunk.
    pub mask: u32,
}

/// Up to [`RUN_POINTERS_MAX`] pointers with ascending numbers, packed.
///
/// Packed form: the columns number gap, file gap (to the previous chunk's end, two's complement), stored bytes, mask,
/// each little-endian and byte-shuffled, all compressed with zstd. About 2 bytes a pointer on real files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRun {
    /// Number of the first chunk in it.
    pub first_number: u64,
    /// Number of the last chunk in it.
    pub last_number: u64,
    /// How many pointers.
    pub pointers: u32,
    /// The packed columns.
    pub packed: Vec<u8>,
}

impl ChunkRun {
    /// Packs pointers, which must be sorted by number without duplicates and at most [`RUN_POINTERS_MAX`].
    ///
    /// # Panics
    /// On an empty, unsorted or too long slice: the caller's mistake.
    pub fn pack(pointers: &[ChunkPointer]) -> Self {
        assert!((1..=RUN_POINTERS_MAX).contains(&pointers.len()), "a run has 1 to {RUN_POINTERS_MAX} pointers");
        assert!(pointers.windows(2).all(|pair| pair[0].number < pair[1].number), "a run is sorted by chunk number");
        let (first_number, last_number) = (pointers[0].number, pointers[pointers.len() - 1].number);
        let mut numbers = Vec::with_capacity(pointers.len());
        let mut gaps = Vec::with_capacity(pointers.len());
        let (mut number, mut end) = (first_number, 0u64);
        for pointer in pointers {
            numbers.push(pointer.number - number);
            gaps.push(pointer.offset.wrapping_sub(end));
            number = pointer.number;
            end = pointer.offset.wrapping_add(u64::from(pointer.bytes));
        }
        let mut columns = Vec::with_capacity(pointers.len() * POINTER_BYTES);
        shuffle_into(&mut columns, numbers.iter().map(|n| n.to_le_bytes()));
        shuffle_into(&mut columns, gaps.iter().map(|n| n.to_le_bytes()));
        shuffle_into(&mut columns, pointers.iter().map(|p| p.bytes.to_le_bytes()));
        shuffle_into(&mut columns, pointers.iter().map(|p| p.mask.to_le_bytes()));
        let packed = zstd::bulk::compress(&columns, 3).expect("compressing into memory does not fail");
        Self { first_number, last_number, pointers: pointers.len() as u32, packed }
    }

    /// Appends the run's pointers to `out`, every number checked.
    ///
    /// # Errors
    /// `malformed_file` when the run is not what [`ChunkRun::pack`] makes.
    pub fn unpack_into(&self, out: &mut Vec<ChunkPointer>) -> Result<()> {
        let damaged = || {
            let (first, last) = (self.first_number, self.last_number);
            Error::new(Reason::MalformedFile, format!("the packed index of chunks {first} to {last} is damaged"))
        };
        let count = self.pointers as usize;
        if count == 0 || count > RUN_POINTERS_MAX || self.packed.len() > RUN_BYTES_MAX {
            return Err(damaged());
        }
        let columns =
            zstd::bulk::decompress(&self.packed, count * POINTER_BYTES).map_err(|e| damaged().with_source(e))?;
        if columns.len() != count * POINTER_BYTES {
            return Err(damaged());
        }
        let (numbers, rest) = columns.split_at(count * 8);
        let (gaps, rest) = rest.split_at(count * 8);
        let (sizes, masks) = rest.split_at(count * 4);
        let (mut number, mut end) = (self.first_number, 0u64);
        for at in 0..count {
            let step = u64::from_le_bytes(unshuffled(numbers, count, at));
            if (at == 0) != (step == 0) {
                return Err(damaged());
            }
            number = number.checked_add(step).ok_or_else(damaged)?;
            let offset = end.wrapping_add(u64::from_le_bytes(unshuffled(gaps, count, at)));
            let bytes = u32::from_le_bytes(unshuffled(sizes, count, at));
            end = offset.checked_add(u64::from(bytes)).ok_or_else(damaged)?;
            let mask = u32::from_le_bytes(unshuffled(masks, count, at));
            out.push(ChunkPointer { number, offset, bytes, mask });
        }
        if number == self.last_number { Ok(()) } else { Err(damaged()) }
    }
}

/// All stored chunks of an array, sorted by number. 24 bytes a chunk in memory, 32 with checksums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkIndex {
    pointers: Vec<ChunkPointer>,
    /// [`crate::checksum`] of each, in the same order; of all of them or of none.
    checksums: Vec<u64>,
}

impl ChunkIndex {
    /// From runs in any order.
    ///
    /// # Errors
    /// `malformed_file` when a run is damaged or two runs name the same chunk.
    pub fn from_runs(runs: &[ChunkRun]) -> Result<Self> {
        // A run that claims more than it may is refused when its turn comes: until then it gets no room.
        let claimed = runs.iter().map(|run| (run.pointers as usize).min(RUN_POINTERS_MAX));
        let mut pointers = Vec::with_capacity(claimed.sum());
        for run in runs {
            run.unpack_into(&mut pointers)?;
        }
        Self::from_pointers(pointers)
    }

    /// From pointers in any order.
    ///
    /// # Errors
    /// `malformed_file` when two pointers have the same number.
    pub fn from_pointers(mut pointers: Vec<ChunkPointer>) -> Result<Self> {
        pointers.sort_unstable_by_key(|pointer| pointer.number);
        match pointers.windows(2).find(|pair| pair[0].number == pair[1].number) {
            Some(pair) => {
                Err(Error::new(Reason::MalformedFile, format!("chunk number {} is indexed twice", pair[0].number)))
            }
            None => Ok(Self { pointers, checksums: Vec::new() }),
        }
    }

    /// The same with the checksums of all chunks, ascending by number; none where they are not known.
    ///
    /// # Errors
    /// `malformed_file` when there are not as many as chunks.
    pub fn with_checksums(self, checksums: Vec<u64>) -> Result<Self> {
        if checksums.is_empty() || checksums.len() == self.pointers.len() {
            return Ok(Self { checksums, ..self });
        }
        let (found, chunks) = (checksums.len(), self.pointers.len());
        Err(Error::new(Reason::MalformedFile, format!("{found} checksums of {chunks} chunks")))
    }

    /// The pointer of a chunk, `None` where the chunk was never stored. Constant time when every chunk is stored.
    pub fn find(&self, number: u64) -> Option<ChunkPointer> {
        self.place(number).map(|at| self.pointers[at])
    }

    /// The checksum of a chunk's stored bytes, where it is known.
    pub fn checksum(&self, number: u64) -> Option<u64> {
        self.checksums.get(self.place(number)?).copied()
    }

    /// Checksums of all chunks, ascending by number; empty where they are not known.
    pub fn checksums(&self) -> &[u64] {
        &self.checksums
    }

    /// Where a chunk stands among [`ChunkIndex::pointers`].
    pub fn place(&self, number: u64) -> Option<usize> {
        let direct =
            usize::try_from(number).ok().filter(|at| self.pointers.get(*at).is_some_and(|p| p.number == number));
        direct.or_else(|| self.pointers.binary_search_by_key(&number, |pointer| pointer.number).ok())
    }

    /// All pointers, ascending by number.
    pub fn pointers(&self) -> &[ChunkPointer] {
        &self.pointers
    }

    /// Packs all pointers.
    pub fn to_runs(&self) -> Vec<ChunkRun> {
        self.pointers.chunks(RUN_POINTERS_MAX).map(ChunkRun::pack).collect()
    }

    /// Checks that every chunk lies inside a file of `file_bytes` and that no two overlap.
    ///
    /// # Errors
    /// `chunk_address`, naming the chunk and the bytes.
    pub fn check_addresses(&self, file_bytes: u64) -> Result<()> {
        let refuse = |message: String| Err(Error::new(Reason::ChunkAddress, message));
        let mut by_address: Vec<&ChunkPointer> = self.pointers.iter().filter(|pointer| pointer.bytes > 0).collect();
        by_address.sort_unstable_by_key(|pointer| pointer.offset);
        let mut end_before = 0u64;
        for pointer in by_address {
            let ChunkPointer { number, offset, bytes, .. } = *pointer;
            let Some(end) = offset.checked_add(u64::from(bytes)).filter(|end| *end <= file_bytes) else {
                return refuse(format!("chunk {number}: {bytes} bytes at {offset} of a file of {file_bytes} bytes"));
            };
            if offset < end_before {
                return refuse(format!(
                    "chunk {number} at {offset} overlaps the chunk before, which ends at {end_before}"
                ));
            }
            end_before = end;
        }
        Ok(())
    }
}

/// Appends the first bytes of all values, then all second bytes, and so on: equal high bytes become long runs.
fn shuffle_into<const N: usize>(out: &mut Vec<u8>, values: impl Iterator<Item = [u8; N]> + Clone) {
    for byte in 0..N {
        out.extend(values.clone().map(|value| value[byte]));
    }
}

fn unshuffled<const N: usize>(column: &[u8], count: usize, at: usize) -> [u8; N] {
    std::array::from_fn(|byte| column[byte * count + at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpacking_returns_what_was_packed(
            steps in prop::collection::vec((1u64..1 << 40, any::<u32>(), any::<u32>(), 0u64..1 << 60), 1..300),
        ) {
            let mut number = 0;
            let pointers: Vec<_> = steps.into_iter().map(|(step, bytes, mask, offset)| {
                number += step;
                ChunkPointer { number, offset, bytes, mask }
            }).collect();
            let index = ChunkIndex::from_pointers(pointers.clone()).unwrap();
            prop_assert_eq!(ChunkIndex::from_runs(&index.to_runs()).unwrap(), index.clone());
            for pointer in &pointers {
                prop_assert_eq!(index.find(pointer.number), Some(*pointer));
                prop_assert_eq!(index.find(pointer.number - 1).filter(|p| p.number == pointer.number), None);
            }
        }

        #[test]
        fn a_damaged_run_is_an_error_or_other_pointers_never_a_panic(
            packed in prop::collection::vec(any::<u8>(), 0..200), pointers in 0u32..5000, first_number: u64, last_number: u64,
        ) {
            let run = ChunkRun { first_number, last_number, pointers, packed };
            let _ = run.unpack_into(&mut Vec::new());
        }
    }

    /// It asked for 96 GiB first.
    #[test]
    fn a_run_that_claims_too_many_pointers_is_damaged() {
        let run = ChunkRun { first_number: 0, last_number: 9, pointers: u32::MAX, packed: vec![1; 9] };
        assert_eq!(ChunkIndex::from_runs(&[run.clone(), run]).unwrap_err().reason, Reason::MalformedFile);
    }

    #[test]
    fn equal_chunks_take_about_two_bytes_each() {
        let pointers: Vec<_> = (0..4096u64)
            .map(|number| ChunkPointer { number, offset: 4096 + number * 30_000, bytes: 30_000, mask: 0 })
            .collect();
        let run = ChunkRun::pack(&pointers);
        assert!(run.packed.len() < 4096 / 8, "{} bytes", run.packed.len());
    }

    #[test]
    fn a_checksum_is_found_by_the_number_of_its_chunk() {
        let pointers = [2, 3, 9].map(|number| ChunkPointer { number, offset: number * 10, bytes: 10, mask: 0 });
        let index = ChunkIndex::from_pointers(pointers.to_vec()).unwrap();
        assert_eq!(index.checksum(3), None);
        assert_eq!(index.clone().with_checksums(vec![1, 2]).unwrap_err().reason, Reason::MalformedFile);
        let index = index.with_checksums(vec![20, 30, 90]).unwrap();
        assert_eq!([0, 2, 3, 4, 9].map(|number| index.checksum(number)), [None, Some(20), Some(30), None, Some(90)]);
    }

    #[test]
    fn chunks_outside_the_file_or_inside_another_are_refused() {
        let at = |number, offset, bytes| ChunkPointer { number, offset, bytes, mask: 0 };
        let check = |pointers: Vec<_>| ChunkIndex::from_pointers(pointers).unwrap().check_addresses(1000);
        assert!(check(vec![at(0, 0, 500), at(1, 500, 500)]).is_ok());
        for bad in [vec![at(0, 501, 500)], vec![at(0, u64::MAX, 2)], vec![at(0, 0, 500), at(1, 499, 10)]] {
            assert_eq!(check(bad).unwrap_err().reason, Reason::ChunkAddress);
        }
    }
}
