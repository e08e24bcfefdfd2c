//! The checksums of the chunks of a new managed file, taken before it is published: from then on a read can tell that
//! the bytes are still those that came.

use std::sync::Arc;

use h5flight_array::checksum;
use h5flight_array::file::{ByteRange, StoredFile};
use h5flight_array::index::{ChunkPointer, ChunkRun};

use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::service::Service;
use crate::worker::Inspected;

/// Stored bytes that are read in one task, unless one chunk alone has more: about a millisecond of work.
const GROUP_BYTES: u64 = 4 << 20;
/// Chunks that are read in one task.
const GROUP_CHUNKS_MAX: usize = 1_024;

/// Takes the checksums of all chunks. An array whose chunks cannot be read, for whatever reason, has none: reads of it
/// will say why.
///
/// # Errors
/// `internal`, should the work panic.
pub async fn take(service: &Service, file: &Arc<StoredFile>, objects: &mut [Inspected]) -> Result<()> {
    let share = Share::default();
    for inspected in objects.iter_mut().filter(|inspected| inspected.object.problem.is_none()) {
        let mut checksums = Vec::new();
        for run in &inspected.runs {
            match of_run(service, file, &share, run).await {
                Ok(own) => checksums.extend(own),
                Err(error) if error.reason() == h5flight_array::Reason::Internal => return Err(error),
                Err(_) => {
                    checksums.clear();
                    break;
                }
            }
        }
        inspected.checksums = checksums;
    }
    Ok(())
}

async fn of_run(service: &Service, file: &Arc<StoredFile>, share: &Share, run: &ChunkRun) -> Result<Vec<u64>> {
    let mut pointers = Vec::with_capacity(run.pointers as usize);
    run.unpack_into(&mut pointers)?;
    let mut checksums = Vec::with_capacity(pointers.len());
    let mut rest = pointers.as_slice();
    while !rest.is_empty() {
        let (group, after) = rest.split_at(group_len(rest));
        rest = after;
        let ranges: Vec<ByteRange> = group.iter().map(range).collect();
        let bytes = ranges.iter().map(|range| range.bytes).sum();
        let file = Arc::clone(file);
        let read = move || {
            let read = file.read_ranges(&ranges)?;
            Ok::<_, Error>(read.ranges.iter().map(|stored| checksum::of(stored)).collect::<Vec<u64>>())
        };
        checksums.extend(service.blocking.run(Lane::Decode(share, bytes), read).await?);
    }
    Ok(checksums)
}

/// How many chunks are read together, at least one.
fn group_len(pointers: &[ChunkPointer]) -> usize {
    let mut bytes = 0u64;
    let fits = pointers.iter().take(GROUP_CHUNKS_MAX).take_while(|pointer| {
        bytes = bytes.saturating_add(u64::from(pointer.bytes));
        bytes <= GROUP_BYTES
    });
    fits.count().max(1)
}

fn range(pointer: &ChunkPointer) -> ByteRange {
    ByteRange { offset: pointer.offset, bytes: u64::from(pointer.bytes) }
}
