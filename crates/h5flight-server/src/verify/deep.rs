//! The contents of one file, read past every cache: chunks are decoded by the code that reads use, what only libhdf5
//! reads is asked of workers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use h5flight_array::codec::{Pipeline, Scratch};
use h5flight_array::file::{ByteRange, StoredFile};
use h5flight_array::index::ChunkPointer;
use h5flight_array::meta::Storage;
use h5flight_array::{Error as ArrayError, Reason, checksum};
use h5flight_catalog::model::ArrayRecord;
use tokio::sync::OwnedSemaphorePermit;

use super::file::contiguous;
use super::found::{Finding, Found};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::memory::{reserve, units};
use crate::read::{self, verified};
use crate::service::Service;

mod slabs;

/// Stored and decoded bytes of chunks that are read in one task: about a millisecond of work.
const GROUP_BYTES: u64 = 1 << 20;
/// Chunks of a group.
const GROUP_CHUNKS_MAX: usize = 256;
/// Groups under way: enough for two processors and the disk, and little of the memory for reads.
const GROUPS_MAX: usize = 4;
/// Bytes that are read at once of what has no chunks.
const PIECE_BYTES: u64 = 4 << 20;

/// A file whose contents are looked at.
pub(super) struct Deep<'a> {
    service: &'a Arc<Service>,
    file: &'a Arc<StoredFile>,
    /// This job's part of the processors.
    share: Share,
    bytes_read: &'a AtomicU64,
    /// Whether what is read is known to be right, so that its checksums may be kept.
    trusted: bool,
    /// Whether the catalogue learned checksums.
    learned: AtomicBool,
}

/// What reading a group found.
#[derive(Default)]
struct GroupRead {
    failures: Vec<(u64, ArrayError)>,
    /// Of chunks that did not fail, by number.
    checksums: Vec<(u64, u64)>,
    bytes: u64,
}

impl<'a> Deep<'a> {
    /// Whether the catalogue learned checksums: what is in memory of the file is not all there is any more.
    pub(super) fn has_learned(&self) -> bool {
        self.learned.load(Ordering::Relaxed)
    }

    pub(super) fn new(service: &'a Arc<Service>, file: &'a Arc<StoredFile>, bytes_read: &'a AtomicU64) -> Self {
        Self { service, file, share: Share::default(), bytes_read, trusted: true, learned: AtomicBool::new(false) }
    }

    /// Compares the hash of the file with its content address.
    pub(super) async fn check_content(&mut self, content: &str, found: &mut Found) -> Result<()> {
        let whole = ByteRange { offset: 0, bytes: self.file.fingerprint().bytes };
        let mut hasher = blake3::Hasher::new();
        for piece in pieces(whole) {
            let file = Arc::clone(self.file);
            let hash = move || {
                let mut data = vec![0; piece.bytes as usize];
                file.read_exact_at(piece.offset, &mut data)?;
                hasher.update(&data);
                Ok::<_, Error>(hasher)
            };
            hasher = match self.service.blocking.run(Lane::Decode(&self.share, piece.bytes), hash).await {
                Ok(hasher) => hasher,
                Err(error) => {
                    self.trusted = false;
                    found.add(Finding::of_file(&error));
                    return Ok(());
                }
            };
            self.count(found, piece.bytes);
        }
        let now = hasher.finalize().to_hex();
        if now.as_str() != content {
            self.trusted = false;
            let message = format!("the file's blake3 is {now}, it was uploaded as {content}");
            found.add(Finding::of_file(&Error::new(Reason::Checksum, message)));
        }
        Ok(())
    }

    /// Reads and decodes everything that is stored of an array.
    pub(super) async fn check_array(&self, array: &Arc<ArrayRecord>, found: &mut Found) -> Result<()> {
        match &array.meta.storage {
            // Their sources are arrays of their own, or refused.
            Storage::Virtual { .. } | Storage::External => Ok(()),
            Storage::Contiguous { offset: None } => Ok(()),
            Storage::Contiguous { offset: Some(_) } => match contiguous(&array.meta) {
                Some(range) => self.check_bytes(array, range, found).await,
                None => self.check_by_worker(array, found).await,
            },
            Storage::Compact if array.inline.is_some() => Ok(()),
            Storage::Compact => self.check_by_worker(array, found).await,
            Storage::Chunked { .. } => match read::pipeline(&array.meta) {
                Ok(pipeline) => self.check_chunked(array, pipeline, found).await,
                Err(error) => {
                    found.add(Finding::of_array(&error, array, None));
                    Ok(())
                }
            },
        }
    }

    async fn check_bytes(&self, array: &ArrayRecord, range: ByteRange, found: &mut Found) -> Result<()> {
        for piece in pieces(range) {
            let file = Arc::clone(self.file);
            let read = move || file.read_ranges(&[piece]).map(|_| ());
            match self.service.blocking.run(Lane::Decode(&self.share, piece.bytes), read).await {
                Ok(()) => self.count(found, piece.bytes),
                Err(error) => found.add(Finding::of_array(&error, array, None)),
            }
        }
        Ok(())
    }

    /// Checks all chunks. Where nothing is wrong with them, checksums that were not known are kept from now on.
    async fn check_chunked(
        &self,
        array: &Arc<ArrayRecord>,
        pipeline: Option<Pipeline>,
        found: &mut Found,
    ) -> Result<()> {
        let (before, by_worker) = (found.count(), pipeline.is_none());
        let checksums = self.check_chunks(array, pipeline, found).await?;
        // What has changed needs no worker to tell.
        if by_worker && found.count() == before {
            self.check_by_worker(array, found).await?;
        }
        let unknown = array.index.checksums().is_empty() && self.trusted;
        match checksums.all().filter(|_| unknown && found.count() == before && self.is_unchanged()) {
            Some(all) => self.keep(array, all).await,
            None => Ok(()),
        }
    }

    /// Reads all chunks, compares them with their checksums and decodes them; without a pipeline the latter is left to
    /// workers.
    async fn check_chunks(
        &self,
        array: &Arc<ArrayRecord>,
        pipeline: Option<Pipeline>,
        found: &mut Found,
    ) -> Result<Checksums> {
        let mut checksums = Checksums::of(array);
        let decoded_bytes = pipeline.as_ref().map_or(0, Pipeline::chunk_bytes) as u64;
        if let Err(error) = read::refuse_large_chunk(self.service, decoded_bytes) {
            found.add(Finding::of_array(&error, array, None));
            return Ok(checksums);
        }
        let ratio_max = self.service.config.decode_ratio_max;
        let mut pointers = Vec::with_capacity(array.index.pointers().len());
        for pointer in array.index.pointers() {
            let sizes = || read::refuse_odd_sizes(pointer, decoded_bytes, ratio_max);
            match pipeline.as_ref().map_or(Ok(()), |_| sizes()) {
                Ok(()) => pointers.push(*pointer),
                Err(error) => found.add(Finding::of_array(&error, array, Some(pointer.number))),
            }
        }
        // In the order of the disk.
        pointers.sort_unstable_by_key(|pointer| pointer.offset);
        let pipeline = Arc::new(pipeline);
        let groups = groups(&pointers, decoded_bytes).into_iter();
        let read = groups.map(|group| self.read_group(array, &pipeline, pointers[group].to_vec()));
        let mut read = futures::stream::iter(read).buffered(GROUPS_MAX);
        while let Some(group) = read.next().await {
            let GroupRead { failures, checksums: of_group, bytes } = group?;
            self.count(found, bytes);
            checksums.add(array, &of_group);
            for (number, error) in failures {
                found.add(Finding::of_array(&error.into(), array, Some(number)));
            }
        }
        Ok(checksums)
    }

    fn is_unchanged(&self) -> bool {
        self.file.check_unchanged(self.file.fingerprint()).is_ok()
    }

    async fn keep(&self, array: &ArrayRecord, checksums: &[u64]) -> Result<()> {
        self.learned.store(true, Ordering::Relaxed);
        Ok(self.service.catalog.keep_checksums(array.id, checksums).await?)
    }

    async fn read_group(
        &self,
        array: &Arc<ArrayRecord>,
        pipeline: &Arc<Option<Pipeline>>,
        pointers: Vec<ChunkPointer>,
    ) -> Result<GroupRead> {
        let stored: u64 = pointers.iter().map(|pointer| u64::from(pointer.bytes)).sum();
        let decoded = pipeline.as_ref().as_ref().map_or(0, Pipeline::chunk_bytes) as u64;
        // One of them is decoded at a time.
        let _reserved = self.memory(stored.saturating_add(decoded)).await?;
        let (service, file) = (Arc::clone(self.service), Arc::clone(self.file));
        let (array, pipeline) = (Arc::clone(array), Arc::clone(pipeline));
        let work = decoded.saturating_mul(pointers.len() as u64);
        let read = move || {
            let mut group = GroupRead::default();
            let source = Source { file: &file, array: &array, pipeline: pipeline.as_ref().as_ref() };
            service.scratches.with(|scratch| source.read_chunks(&pointers, scratch, &mut group));
            Ok::<_, Error>(group)
        };
        self.service.blocking.run(Lane::Decode(&self.share, work), read).await
    }

    /// Waits for memory for as long as reads have it all.
    async fn memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        loop {
            match reserve(self.service, &self.service.read_memory, units(self.service, bytes)).await {
                Err(error) if error.reason() == Reason::Busy => {}
                done => return done,
            }
        }
    }

    fn count(&self, found: &mut Found, bytes: u64) {
        found.bytes_read += bytes;
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Where chunks are read from.
struct Source<'a> {
    file: &'a StoredFile,
    array: &'a ArrayRecord,
    pipeline: Option<&'a Pipeline>,
}

impl Source<'_> {
    /// Reads chunks; where that fails together, one by one, so that each that fails is named. Blocks.
    fn read_chunks(&self, pointers: &[ChunkPointer], scratch: &mut Scratch, group: &mut GroupRead) {
        let range = |pointer: &ChunkPointer| ByteRange { offset: pointer.offset, bytes: u64::from(pointer.bytes) };
        let ranges: Vec<ByteRange> = pointers.iter().map(range).collect();
        let read = match self.file.read_ranges(&ranges) {
            Ok(read) => read,
            Err(error) if pointers.len() == 1 => return group.failures.push((pointers[0].number, error)),
            Err(_) => return pointers.iter().for_each(|pointer| self.read_chunks(&[*pointer], scratch, group)),
        };
        for (pointer, stored) in pointers.iter().zip(read.ranges) {
            group.bytes += stored.len() as u64;
            match self.check_chunk(pointer, stored, scratch) {
                Ok(checksum) => group.checksums.push((pointer.number, checksum)),
                Err(error) => group.failures.push((pointer.number, error)),
            }
        }
    }

    fn check_chunk(&self, pointer: &ChunkPointer, stored: Bytes, scratch: &mut Scratch) -> Result<u64, ArrayError> {
        verified::check(self.array, pointer, &stored)?;
        let checksum = checksum::of(&stored);
        if let Some(pipeline) = self.pipeline {
            pipeline.decode(stored, pointer.mask, scratch)?;
        }
        Ok(checksum)
    }
}

/// Checksums of the chunks of an array, until all are there.
struct Checksums {
    by_place: Vec<u64>,
    missing: usize,
}

impl Checksums {
    fn of(array: &ArrayRecord) -> Self {
        let chunks = array.index.pointers().len();
        Self { by_place: vec![0; chunks], missing: chunks }
    }

    /// Each chunk comes once.
    fn add(&mut self, array: &ArrayRecord, checksums: &[(u64, u64)]) {
        for (number, checksum) in checksums {
            if let Some(place) = array.index.place(*number) {
                self.by_place[place] = *checksum;
                self.missing -= 1;
            }
        }
    }

    /// All of them, where there are any.
    fn all(&self) -> Option<&[u64]> {
        (self.missing == 0 && !self.by_place.is_empty()).then_some(&self.by_place)
    }
}

/// Chunks that are read together.
fn groups(pointers: &[ChunkPointer], decoded_bytes: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut group_bytes = 0u64;
    for (at, pointer) in pointers.iter().enumerate() {
        let bytes = decoded_bytes.saturating_add(u64::from(pointer.bytes));
        let together = group_bytes.saturating_add(bytes);
        match groups.last_mut() {
            Some(group) if together <= GROUP_BYTES && group.len() < GROUP_CHUNKS_MAX => {
                group.end = at + 1;
                group_bytes = together;
            }
            _ => {
                groups.push(at..at + 1);
                group_bytes = bytes;
            }
        }
    }
    groups
}

/// A range in pieces that are read one after the other.
fn pieces(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let ByteRange { offset, bytes } = range;
    (0..bytes.div_ceil(PIECE_BYTES)).map(move |at| {
        let start = at * PIECE_BYTES;
        ByteRange { offset: offset + start, bytes: PIECE_BYTES.min(bytes - start) }
    })
}
