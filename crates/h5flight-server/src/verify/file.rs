//! One file: is it there, is it the one that was indexed, does everything that was indexed lie in it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use h5flight_array::file::StoredFile;
use h5flight_array::meta::{ArrayMeta, Storage};
use h5flight_array::overlap::{self, Owned};
use h5flight_array::plan::ByteRange;
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::model::{ArrayRecord, FilePlace, FileRecord};

use super::Depth;
use super::deep::Deep;
use super::found::{Finding, Found};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::files;
use crate::service::Service;

/// Ranges of one file that are compared with each other, in 50 MB: of larger files, part by part, but each array whole.
const RANGES_MAX: usize = 1 << 20;

/// Overlaps that are told of such a part.
const OVERLAPS_MAX: usize = 1_000;

/// Looks at a file.
///
/// # Errors
/// The catalogue's.
pub(super) async fn check(
    service: &Arc<Service>,
    record: &FileRecord,
    depth: Depth,
    bytes_read: &Arc<AtomicU64>,
) -> Result<Found> {
    let file = match open(service, record).await {
        Ok(file) => Arc::new(file),
        Err(error) => return Ok(Found::only(Finding::of_file(&error))),
    };
    let mut found = Found::default();
    let mut deep = Deep::new(service, &file, bytes_read);
    if let (Depth::Contents, FilePlace::Managed { content }) = (depth, &record.place) {
        deep.check_content(content, &mut found).await?;
    }
    let mut places = Places { file_bytes: record.fingerprint.bytes, arrays: Vec::new(), ranges: Vec::new() };
    let mut after = 0;
    loop {
        let arrays = service.catalog.arrays_of(record.id, after).await?;
        let Some(last) = arrays.last() else { break };
        after = last.id;
        // What was listed with a problem is known to be refused.
        for array in arrays.iter().filter(|array| array.problem.is_none()) {
            if places.ranges.len() + array.index.pointers().len() > RANGES_MAX {
                places.compare(service, &mut found).await?;
            }
            found.chunks += array.index.pointers().len() as u64;
            let inside = places.add(array, &mut found);
            if depth == Depth::Contents && inside {
                deep.check_array(array, &mut found).await?;
            }
        }
    }
    places.compare(service, &mut found).await?;
    if deep.has_learned() {
        service.versions.forget_file(record.id);
    }
    // What was read of a file that is written to says nothing.
    if let Err(error) = unchanged(&file, record) {
        let Found { chunks, bytes_read, .. } = found;
        return Ok(Found { chunks, bytes_read, ..Found::only(Finding::of_file(&error)) });
    }
    Ok(found)
}

async fn open(service: &Service, record: &FileRecord) -> Result<StoredFile> {
    let (files, record) = (Arc::clone(&service.files), record.clone());
    let open = move || {
        let file = files.open_place(&record.place)?;
        unchanged(&file, &record)?;
        Ok::<_, Error>(file)
    };
    service.blocking.run(Lane::Deliver, open).await
}

/// # Errors
/// `file_changed`, in words that fit a managed file too.
fn unchanged(file: &StoredFile, record: &FileRecord) -> Result<()> {
    files::check_unchanged(file, record).map_err(|error| match record.place {
        FilePlace::Managed { .. } => {
            let (name, was) = (&record.source_name, record.fingerprint.bytes);
            let now = file.fingerprint_now().map_or(0, |now| now.bytes);
            Error::new(Reason::FileChanged, format!("{name} has {now} bytes, {was} were uploaded"))
        }
        FilePlace::Registered { .. } => error,
    })
}

/// Where the arrays of a file say that their bytes are.
struct Places {
    file_bytes: u64,
    /// HDF5 paths.
    arrays: Vec<String>,
    ranges: Vec<Owned>,
}

impl Places {
    /// Whether all of an array lies inside the file.
    fn add(&mut self, array: &ArrayRecord, found: &mut Found) -> bool {
        let number = self.arrays.len();
        self.arrays.push(array.hdf5_path.clone());
        let before = found.count();
        for (chunk, range) in stored(array) {
            if range.offset.checked_add(range.bytes).is_some_and(|end| end <= self.file_bytes) {
                self.ranges.push(Owned { range, array: number, chunk });
                continue;
            }
            let (ByteRange { offset, bytes }, file_bytes) = (range, self.file_bytes);
            let message = format!("{bytes} bytes at {offset} of a file of {file_bytes} bytes");
            found.add(Finding::of_array(&Error::new(Reason::ChunkAddress, message), array, chunk));
        }
        found.count() == before
    }

    /// Looks for overlaps among all ranges so far, and forgets them.
    async fn compare(&mut self, service: &Service, found: &mut Found) -> Result<()> {
        let mut ranges = std::mem::take(&mut self.ranges);
        let compare = move || Ok::<_, Error>(overlap::overlaps(&mut ranges, OVERLAPS_MAX));
        for (a, b) in service.blocking.run(Lane::Decode(&Share::default(), 0), compare).await? {
            let text = |owned: &Owned| {
                let (array, ByteRange { offset, bytes }) = (&self.arrays[owned.array], owned.range);
                match owned.chunk {
                    Some(number) => format!("chunk {number} of {array} ({bytes} bytes at {offset})"),
                    None => format!("{array} ({bytes} bytes at {offset})"),
                }
            };
            let error = ArrayError::new(Reason::ChunkAddress, format!("{} overlaps {}", text(&b), text(&a)));
            found.add(Finding { array: self.arrays[b.array].clone(), ..Finding::of_file(&error.into()) });
        }
        Ok(())
    }
}

/// The bytes of an array in its file, as far as they are known.
fn stored(array: &ArrayRecord) -> impl Iterator<Item = (Option<u64>, ByteRange)> {
    let chunks =
        array.index.pointers().iter().map(|pointer| {
            (Some(pointer.number), ByteRange { offset: pointer.offset, bytes: u64::from(pointer.bytes) })
        });
    chunks.chain(contiguous(&array.meta).map(|range| (None, range)))
}

/// The bytes of a contiguous array whose elements are stored as they are delivered.
pub(super) fn contiguous(meta: &ArrayMeta) -> Option<ByteRange> {
    let Storage::Contiguous { offset: Some(offset) } = meta.storage else { return None };
    let element_bytes = meta.element.fixed_bytes().filter(|_| !meta.converted)?;
    let bytes = meta.elements().ok()?.checked_mul(element_bytes)?;
    Some(ByteRange { offset, bytes })
}
