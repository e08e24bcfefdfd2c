//! Whether stored bytes are still those that were indexed, as far as the catalogue knows their checksums.

use h5flight_array::file::{ByteRange, StoredFile};
use h5flight_array::index::ChunkPointer;
use h5flight_array::{Error as ArrayError, Reason, Result as ArrayResult, checksum};
use h5flight_catalog::model::ArrayRecord;

/// Compares a chunk that was read with its checksum, where there is one.
///
/// # Errors
/// `checksum`, naming both.
pub(crate) fn check(array: &ArrayRecord, pointer: &ChunkPointer, stored: &[u8]) -> ArrayResult<()> {
    let Some(expected) = array.index.checksum(pointer.number) else { return Ok(()) };
    let found = checksum::of(stored);
    if found == expected {
        return Ok(());
    }
    let message = format!("its stored bytes changed: their checksum is {found:016x}, {expected:016x} was indexed");
    Err(ArrayError::new(Reason::Checksum, message))
}

/// Reads chunks that libhdf5 will decode and compares them. Blocks.
///
/// # Errors
/// `checksum`, naming the chunk; `truncated`, `io`.
pub(super) fn check_stored(file: &StoredFile, array: &ArrayRecord, pointers: &[ChunkPointer]) -> ArrayResult<()> {
    let range = |pointer: &ChunkPointer| ByteRange { offset: pointer.offset, bytes: u64::from(pointer.bytes) };
    let ranges: Vec<ByteRange> = pointers.iter().map(range).collect();
    let read = file.read_ranges(&ranges)?;
    pointers.iter().zip(&read.ranges).try_for_each(|(pointer, stored)| {
        check(array, pointer, stored).map_err(|error| name_chunk(error, array, pointer))
    })
}

/// The error with the chunk in front.
pub(super) fn name_chunk(error: ArrayError, array: &ArrayRecord, pointer: &ChunkPointer) -> ArrayError {
    let position = array.meta.chunk_position(pointer.number);
    let (path, offset, cause) = (&array.hdf5_path, pointer.offset, &error.message);
    let message = format!("chunk {position:?} of {path} at {offset}: {cause}");
    ArrayError { message, ..error }
}
