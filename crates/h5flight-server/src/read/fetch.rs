//! Blocks, wherever they are: memory, Redis, the file, a worker.
//!
//! Blocks are fetched in groups of about [`GROUP_BYTES`]: one group is one blocking task with few file reads and many
//! small chunks, or one large chunk. Groups run side by side; one whose blocks are all in the memory cache is no task at
//! all. Own duties come first, then waiting for other reads: so two reads that want each other's blocks cannot wait for
//! each other in a circle.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h5flight_array::batch::Decoded;
use h5flight_array::codec::{self, Pipeline, Scratch};
use h5flight_array::file::{ByteRange, StoredFile};
use h5flight_array::index::ChunkPointer;
use h5flight_array::inspect::Hyperslab;
use h5flight_array::meta::{ArrayMeta, Storage, product};
use h5flight_array::plan::{Block, BlockId, BlockSource, Plan, PlanOptions};
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::model::{ArrayRecord, FilePlace};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

use super::compose::{Sizing, Sources, compose, sized, sources_bytes};
use super::stats::{ReadStats, Tier};
use super::verified::{self, name_chunk};
use super::{Planned, internal};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::cache::redis::RedisCache;
use crate::cache::{Admission, BlockKey, Claim, Lookup, Waiter};
use crate::error::{Error, Result};
use crate::memory::{Growth, MEMORY_UNIT_BYTES, units};
use crate::service::Service;
use crate::worker::WorkerRead;
use crate::{faults, files};

/// Decoded bytes of a group of chunks that are read and decoded in one task: about a millisecond of work.
const GROUP_BYTES: u64 = 1 << 20;
/// The least that is given to another thread when little is wanted: a few times what starting there takes.
const GROUP_BYTES_MIN: u64 = 64 << 10;
/// Decoded bytes that one worker is asked for: starting it takes as long as reading some megabytes.
const WORKER_GROUP_BYTES: u64 = 16 << 20;
/// Blocks of a group.
const GROUP_BLOCKS_MAX: usize = 256;
/// What is reserved for a block whose elements have no fixed size, in bytes; what it turns out to need more is reserved
/// when the worker says so.
const PACKED_BLOCK_BYTES: u64 = 1 << 20;
/// Chunks that decode to less are not measured by their ratio: they cannot take memory that matters.
const RATIO_CHUNK_BYTES_MIN: u64 = 1 << 20;

/// Fetches the blocks of one read.
pub(super) struct Fetcher {
    pub(super) service: Arc<Service>,
    /// How the sources of virtual arrays are planned.
    pub(super) options: Arc<PlanOptions>,
    pub(super) sources: Arc<Sources>,
    /// By extent.
    arrays: Vec<Arc<ArrayRecord>>,
    files: HashMap<i64, Arc<StoredFile>>,
    /// By extent; `None` where nothing is decoded here.
    pipelines: Vec<Option<Pipeline>>,
    admission: Admission,
    /// The read's part of the processors.
    pub(super) share: Arc<Share>,
    stats: Arc<ReadStats>,
}

/// The blocks of a group, with what they took beyond what was reserved for them.
struct Group {
    blocks: Vec<Arc<Decoded>>,
    grown: Option<Arc<OwnedSemaphorePermit>>,
}

/// A block that is to be fetched.
pub(super) struct Wanted {
    pub(super) block: Block,
    /// Memory that fetching it takes, in bytes.
    pub(super) bytes: u64,
}

/// A group of blocks on its way. Dropping it stops the fetch.
pub(super) struct Fetching {
    group: Coming,
    blocks: Vec<(BlockId, u64)>,
    reserved: Option<OwnedSemaphorePermit>,
}

enum Coming {
    /// All of it was in memory.
    There(Group),
    /// A task fetches it.
    Fetched(AbortOnDropHandle<Result<Group>>),
}

/// A block that is there.
pub(super) struct Fetched {
    pub(super) id: BlockId,
    pub(super) block: Arc<Decoded>,
    /// What was reserved for it.
    pub(super) bytes: u64,
    pub(super) reserved: Option<OwnedSemaphorePermit>,
    /// What its group took beyond that.
    pub(super) grown: Option<Arc<OwnedSemaphorePermit>>,
}

impl Fetching {
    /// The blocks of the group.
    pub(super) async fn wait(mut self) -> Result<Vec<Fetched>> {
        let Group { blocks, grown } = match self.group {
            Coming::There(group) => group,
            Coming::Fetched(task) => task.await.map_err(|error| internal("a fetch panicked", error))??,
        };
        let mut reserved = self.reserved.take();
        let fetched = self.blocks.iter().zip(blocks).map(|((id, bytes), block)| {
            let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT_BYTES)).unwrap_or(u32::MAX);
            let own = reserved.as_mut().and_then(|all| all.split((units as usize).min(all.num_permits())));
            Fetched { id: *id, block, bytes: *bytes, reserved: own, grown: grown.clone() }
        });
        Ok(fetched.collect())
    }
}

impl Fetcher {
    pub(super) fn new(
        service: &Arc<Service>,
        planned: &Planned,
        files: HashMap<i64, Arc<StoredFile>>,
        stats: Arc<ReadStats>,
    ) -> Result<Self> {
        let arrays: Vec<_> = planned.version.extents.iter().map(|extent| Arc::clone(&extent.array)).collect();
        let pipelines = arrays.iter().map(|array| pipeline(&array.meta)).collect::<Result<_>>()?;
        let (service, options) = (Arc::clone(service), Arc::clone(&planned.options));
        let admission = service.memory.admission(planned.plan.bytes().unwrap_or(0));
        let share = Arc::default();
        Ok(Self { service, options, sources: Arc::default(), arrays, files, pipelines, admission, share, stats })
    }

    /// Fetches the blocks of one source of a virtual array. Its file is opened, and must be the one that was indexed,
    /// unless it is the file of the virtual array, which is open.
    ///
    /// # Errors
    /// `file_changed` and what opening a file finds.
    pub(super) async fn of_source(&self, source: &Arc<ArrayRecord>) -> Result<Self> {
        let file = match self.files.get(&source.file.id) {
            Some(file) => Arc::clone(file),
            None => {
                let (files, record) = (Arc::clone(&self.service.files), Arc::clone(&source.file));
                let open = move || files.open_unchanged(&record);
                Arc::new(self.service.blocking.run(Lane::Deliver, open).await?)
            }
        };
        Ok(Self {
            service: Arc::clone(&self.service),
            options: Arc::clone(&self.options),
            sources: Arc::clone(&self.sources),
            arrays: vec![Arc::clone(source)],
            files: HashMap::from([(source.file.id, file)]),
            pipelines: vec![pipeline(&source.meta)?],
            admission: self.admission,
            share: Arc::clone(&self.share),
            stats: Arc::clone(&self.stats),
        })
    }

    /// What a block of the plan is, and what fetching it takes.
    ///
    /// # Errors
    /// `chunk_too_large` for a chunk that claims to decode to absurdly more than it has stored; of a virtual array why a
    /// source cannot be read, and `result_too_large` where it is made of too many parts.
    pub(super) async fn block(&self, plan: &Arc<Plan>, id: BlockId) -> Result<Wanted> {
        let wanted = sized(self, plan, id).await?;
        if let (BlockSource::Stored(pointer), Some(decoded)) = (&wanted.block.source, wanted.block.decoded_bytes) {
            refuse_odd_sizes(pointer, decoded, self.service.config.decode_ratio_max)?;
        }
        Ok(wanted)
    }

    /// Sets the fetch of blocks going, in groups; `reserved` is divided among them.
    pub(super) fn start(
        self: &Arc<Self>,
        blocks: Vec<Wanted>,
        mut reserved: Option<OwnedSemaphorePermit>,
    ) -> Vec<Fetching> {
        let mut groups: Vec<Vec<Wanted>> = Vec::new();
        let mut group_bytes = 0u64;
        // A small read has all processors too.
        let all_bytes = blocks.iter().map(|wanted| wanted.bytes).fold(0, u64::saturating_add);
        let part_bytes = (all_bytes / self.service.blocking.threads() as u64).clamp(GROUP_BYTES_MIN, GROUP_BYTES);
        for wanted in blocks {
            let Wanted { ref block, bytes } = wanted;
            let together = group_bytes.saturating_add(bytes);
            if groups.last().is_some_and(|group| belongs(group, block) && together <= group_limit(block, part_bytes)) {
                group_bytes = together;
                groups.last_mut().expect("a block fits into a group that is there").push(wanted);
            } else {
                group_bytes = bytes;
                groups.push(vec![wanted]);
            }
        }
        let start = |group: Vec<Wanted>| {
            let blocks: Vec<_> = group.iter().map(|wanted| (wanted.block.id, wanted.bytes)).collect();
            let group: Vec<Block> = group.into_iter().map(|wanted| wanted.block).collect();
            let bytes = blocks.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
            let wanted = units(&self.service, bytes) as usize;
            let own = reserved.as_mut().and_then(|all| all.split(wanted.min(all.num_permits())));
            let group = match self.in_memory(&group) {
                Some(blocks) => Coming::There(Group { blocks, grown: None }),
                None => {
                    let fetcher = Arc::clone(self);
                    let task = tokio::spawn(async move { fetcher.fetch(group, bytes).await });
                    Coming::Fetched(AbortOnDropHandle::new(task))
                }
            };
            Fetching { group, blocks, reserved: own }
        };
        groups.into_iter().map(start).collect()
    }

    /// The blocks of a group when all are in the memory cache.
    fn in_memory(&self, group: &[Block]) -> Option<Vec<Arc<Decoded>>> {
        let cached = |block: &Block| matches!(block.source, BlockSource::Stored(_) | BlockSource::Worker(_));
        if !group.iter().all(cached) {
            return None;
        }
        let found = self.service.memory.all_of(group.iter().map(|block| self.key(block)))?;
        self.stats.blocks(Tier::Memory, found.len() as u64);
        Some(found)
    }

    fn key(&self, block: &Block) -> BlockKey {
        BlockKey { array: self.array(block.id).identity, number: block.id.number }
    }

    /// The blocks of one group, in its order.
    async fn fetch(&self, group: Vec<Block>, reserved_bytes: u64) -> Result<Group> {
        let mut growth = Growth::new(&self.service, reserved_bytes);
        let mut found: Vec<Option<Arc<Decoded>>> = vec![None; group.len()];
        while found.iter().any(Option::is_none) {
            let mut duties = Vec::new();
            let mut waiting: Vec<(usize, Waiter)> = Vec::new();
            for (at, block) in group.iter().enumerate() {
                if found[at].is_some() {
                    continue;
                }
                match self.look_up(block)? {
                    Step::Ready(decoded) => found[at] = Some(decoded),
                    Step::Duty(claim) => duties.push(Duty { at, claim }),
                    Step::Wait(waiter) => waiting.push((at, waiter)),
                }
            }
            for (at, decoded) in self.fulfil(&group, duties, &mut growth).await? {
                found[at] = Some(decoded);
            }
            for (at, waiter) in waiting {
                found[at] = waiter.wait().await;
                if found[at].is_some() {
                    self.stats.blocks(Tier::Memory, 1);
                }
            }
        }
        Ok(Group { blocks: found.into_iter().flatten().collect(), grown: growth.into_taken().map(Arc::new) })
    }

    /// What is to be done about a block.
    fn look_up(&self, block: &Block) -> Result<Step> {
        let array = self.array(block.id);
        let ready = |tier, decoded| {
            self.stats.blocks(tier, 1);
            Ok(Step::Ready(Arc::new(decoded)))
        };
        match &block.source {
            BlockSource::Inline => {
                let missing = || ArrayError::new(Reason::Internal, "an inline array without its values");
                let values = array.inline.clone().ok_or_else(missing)?;
                ready(Tier::Inline, Decoded::new(values, block, &array.meta)?)
            }
            BlockSource::Fill => ready(Tier::Fill, Decoded::fill(block, &array.meta)?),
            BlockSource::Raw { .. } | BlockSource::Virtual(_) => Ok(Step::Duty(None)),
            BlockSource::Stored(_) | BlockSource::Worker(_) => match self.service.memory.look_up(self.key(block)) {
                Lookup::Hit(decoded) => {
                    self.stats.blocks(Tier::Memory, 1);
                    Ok(Step::Ready(decoded))
                }
                Lookup::Pending(waiter) => Ok(Step::Wait(waiter)),
                Lookup::Claimed(claim) => Ok(Step::Duty(Some(claim))),
            },
        }
    }

    /// Fetches what nobody else does, and tells those who wait for it.
    async fn fulfil(
        &self,
        group: &[Block],
        duties: Vec<Duty>,
        growth: &mut Growth,
    ) -> Result<Vec<(usize, Arc<Decoded>)>> {
        let mut done = Vec::with_capacity(duties.len());
        let duties = self.ask_redis(group, duties, &mut done).await;
        if duties.is_empty() {
            return Ok(done);
        }
        let blocks: Vec<&Block> = duties.iter().map(|duty| &group[duty.at]).collect();
        let fetched = match blocks[0].source {
            BlockSource::Worker(_) => self.ask_worker(&blocks, growth).await?,
            BlockSource::Virtual(_) => {
                let mut composed = Vec::with_capacity(blocks.len());
                for block in blocks {
                    // A source may be virtual itself.
                    composed.push(Box::pin(compose(self, block, growth)).await?);
                }
                composed
            }
            _ => self.read_file(&blocks).await?,
        };
        for (duty, decoded) in duties.into_iter().zip(fetched) {
            let decoded = Arc::new(decoded);
            if let Some(claim) = duty.claim {
                self.settle(claim, &decoded);
            }
            done.push((duty.at, decoded));
        }
        Ok(done)
    }

    /// Gives a block to the caches, as far as it is worth keeping, and to all who wait for it.
    fn settle(&self, claim: Claim, decoded: &Arc<Decoded>) {
        if !claim.admit(self.admission) {
            return claim.pass_on(Arc::clone(decoded));
        }
        if let Some(redis) = self.service.redis.as_ref().filter(|redis| redis.worth.is_worth(claim.key().array)) {
            redis.put(claim.key(), decoded.bytes().clone());
        }
        claim.fulfil(Arc::clone(decoded));
    }

    /// Takes from Redis what is there, all at once; returns the duties that remain.
    async fn ask_redis(&self, group: &[Block], duties: Vec<Duty>, done: &mut Vec<(usize, Arc<Decoded>)>) -> Vec<Duty> {
        let array = self.array(group[0].id).identity;
        let ask = |redis: &&Arc<RedisCache>| redis.is_up() && redis.worth.is_worth(array);
        let Some(redis) = self.service.redis.as_ref().filter(ask) else { return duties };
        let asked = duties.iter().map(|duty| (duty.claim.as_ref().map(Claim::key), group[duty.at].decoded_bytes));
        let gets = asked.map(|(key, block_bytes)| async move { redis.get(key?, block_bytes).await });
        let values = futures::future::join_all(gets).await;
        let mut remaining = Vec::new();
        for (duty, value) in duties.into_iter().zip(values) {
            let block = &group[duty.at];
            let value = value.and_then(|value| Decoded::new(value, block, &self.array(block.id).meta).ok());
            match (duty.claim, value) {
                (Some(claim), Some(value)) => {
                    let value = Arc::new(value);
                    self.stats.blocks(Tier::Redis, 1);
                    if claim.admit(self.admission) {
                        claim.fulfil(Arc::clone(&value));
                    } else {
                        claim.pass_on(Arc::clone(&value));
                    }
                    done.push((duty.at, value));
                }
                (claim, _) => remaining.push(Duty { at: duty.at, claim }),
            }
        }
        remaining
    }

    async fn ask_worker(&self, blocks: &[&Block], growth: &mut Growth) -> Result<Vec<Decoded>> {
        let array = self.array(blocks[0].id);
        let file = self.file(array)?;
        check(&file, array)?;
        if self.is_verified(array) {
            self.check_chunks(blocks, &file).await?;
        }
        let slabs: Vec<Hyperslab> = blocks
            .iter()
            .filter_map(|block| match &block.source {
                BlockSource::Worker(slab) => Some(slab.clone()),
                _ => None,
            })
            .collect();
        let duplicate =
            file.as_file().try_clone().map_err(|error| files::disk_error("opening a file for a worker", error))?;
        let asked = WorkerRead { array, blocks: slabs };
        let values = self.service.workers.read(&duplicate.into(), asked, growth).await?;
        check(&file, array)?;
        let decoded_bytes = values.iter().map(|value| value.len() as u64).sum();
        self.stats.blocks(Tier::Worker, blocks.len() as u64);
        self.stats.decoded(0, 0, decoded_bytes);
        let decoded = blocks.iter().zip(values).map(|(block, value)| Decoded::new(value, block, &array.meta));
        Ok(decoded.collect::<Result<_, _>>()?)
    }

    /// Whether chunks of this array are compared with their checksums.
    fn is_verified(&self, array: &ArrayRecord) -> bool {
        !array.index.checksums().is_empty() && self.service.config.verify_reads.covers(&array.file.place)
    }

    /// Compares the chunks that a worker is about to decode. Their blocks have the chunks' numbers. Between this reading
    /// and libhdf5's own lie milliseconds.
    async fn check_chunks(&self, blocks: &[&Block], file: &Arc<StoredFile>) -> Result<()> {
        let array = Arc::clone(self.array(blocks[0].id));
        let pointers: Vec<ChunkPointer> = blocks.iter().filter_map(|block| array.index.find(block.id.number)).collect();
        let bytes = pointers.iter().map(|pointer| u64::from(pointer.bytes)).sum();
        let file = Arc::clone(file);
        let compare = move || verified::check_stored(&file, &array, &pointers);
        self.service.blocking.run(Lane::Decode(&self.share, bytes), compare).await
    }

    async fn read_file(&self, blocks: &[&Block]) -> Result<Vec<Decoded>> {
        let id = blocks[0].id;
        let array = Arc::clone(&self.arrays[id.extent as usize]);
        let (file, pipeline) = (self.file(&array)?, self.pipelines[id.extent as usize].clone());
        let (stats, count) = (Arc::clone(&self.stats), blocks.len() as u64);
        let service = Arc::clone(&self.service);
        let verified = self.is_verified(&array);
        let bytes = blocks.iter().filter_map(|block| block.decoded_bytes).fold(0, u64::saturating_add);
        let blocks: Vec<Block> = blocks.iter().map(|block| (*block).clone()).collect();
        let read = move || {
            let source = Source { file: &file, array: &array, pipeline: pipeline.as_ref(), verified };
            let began = Instant::now();
            faults::pass("file::read")?;
            let decoded = service.scratches.with(|scratch| read_blocks(&source, &blocks, scratch, &stats))?;
            if let Some(redis) = &service.redis {
                redis.worth.note(array.identity, blocks.len(), bytes, began.elapsed());
            }
            Ok::<_, Error>(decoded)
        };
        let decoded = self.service.blocking.run(Lane::Decode(&self.share, bytes), read).await?;
        self.stats.blocks(Tier::File, count);
        Ok(decoded)
    }

    pub(super) fn array(&self, id: BlockId) -> &Arc<ArrayRecord> {
        &self.arrays[id.extent as usize]
    }

    fn file(&self, array: &ArrayRecord) -> Result<Arc<StoredFile>> {
        let file = self.files.get(&array.file.id).map(Arc::clone);
        file.ok_or_else(|| Error::new(Reason::Internal, "the file of an array was not opened"))
    }
}

/// Refuses a chunk whose stored and declared bytes are absurdly far apart, in either direction: both are memory.
pub(crate) fn refuse_odd_sizes(pointer: &ChunkPointer, decoded: u64, ratio_max: u64) -> Result<()> {
    let ChunkPointer { number, bytes, .. } = pointer;
    let why = if decoded > RATIO_CHUNK_BYTES_MIN.max(ratio_max.saturating_mul(u64::from(*bytes))) {
        format!("more than {ratio_max} for each (decode_ratio_max)")
    } else if codec::stored_bytes_max(decoded).is_none_or(|most| u64::from(*bytes) > most) {
        "no filter makes a chunk so much larger".to_owned()
    } else {
        return Ok(());
    };
    let message = format!("chunk {number} has {bytes} stored bytes and declares {decoded}: {why}");
    Err(Error::new(Reason::ChunkTooLarge, message))
}

/// Refuses chunks that are declared larger than this server decodes.
pub(crate) fn refuse_large_chunk(service: &Service, decoded: u64) -> Result<()> {
    let bytes_max = service.config.chunk_bytes_max;
    if decoded <= bytes_max {
        return Ok(());
    }
    let message = format!("chunks of {decoded} bytes, the most is {bytes_max} (chunk_bytes_max)");
    Err(Error::new(Reason::ChunkTooLarge, message))
}

/// What is to be done about a block: nothing, fetch it, or wait for the read that does.
enum Step {
    Ready(Arc<Decoded>),
    Duty(Option<Claim>),
    Wait(Waiter),
}

/// A block of a group that is to be fetched here; the claim is there when others may wait for it.
struct Duty {
    at: usize,
    claim: Option<Claim>,
}

/// Memory that fetching a block takes, in bytes.
///
/// # Errors
/// Why a source of a virtual array cannot be read; `result_too_large` when the looks do not suffice.
pub(super) fn reserved_bytes(array: &ArrayRecord, block: &Block, sizing: &mut Sizing<'_>) -> Result<u64> {
    let decoded = block.decoded_bytes.unwrap_or(PACKED_BLOCK_BYTES);
    Ok(match &block.source {
        BlockSource::Inline => 0,
        BlockSource::Stored(pointer) => decoded.saturating_add(u64::from(pointer.bytes)),
        BlockSource::Fill | BlockSource::Raw { .. } | BlockSource::Worker(_) => decoded,
        // Beside the block one batch of a source, its blocks and its values in order.
        BlockSource::Virtual(copies) => decoded.saturating_mul(2).saturating_add(sources_bytes(array, copies, sizing)?),
    })
}

/// Whether a block can be fetched together with a group: same array, same way.
fn belongs(group: &[Wanted], block: &Block) -> bool {
    let way = |block: &Block| match block.source {
        BlockSource::Worker(_) => 1,
        BlockSource::Virtual(_) => 2,
        BlockSource::Inline | BlockSource::Stored(_) | BlockSource::Fill | BlockSource::Raw { .. } => 0,
    };
    let first = &group[0].block;
    group.len() < GROUP_BLOCKS_MAX && first.id.extent == block.id.extent && way(first) == way(block)
}

fn group_limit(block: &Block, part_bytes: u64) -> u64 {
    match block.source {
        BlockSource::Worker(_) => WORKER_GROUP_BYTES,
        BlockSource::Inline
        | BlockSource::Stored(_)
        | BlockSource::Fill
        | BlockSource::Raw { .. }
        | BlockSource::Virtual(_) => part_bytes,
    }
}

/// The pipeline that decodes the chunks of an array here; `None` where libhdf5 does it, or nothing is to be done.
///
/// # Errors
/// `chunk_too_large`; what is wrong with the filters' parameters.
pub(crate) fn pipeline(meta: &ArrayMeta) -> Result<Option<Pipeline>> {
    let (Storage::Chunked { chunk_shape }, Some(element_bytes)) = (&meta.storage, meta.element.fixed_bytes()) else {
        return Ok(None);
    };
    if meta.converted || !meta.filters.iter().all(|filter| codec::supported(filter.id)) {
        return Ok(None);
    }
    let bytes = product(chunk_shape).and_then(|elements| elements.checked_mul(element_bytes));
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let too_large =
        || ArrayError::new(Reason::ChunkTooLarge, format!("chunks of shape {chunk_shape:?} (chunk_bytes_max)"));
    Ok(Some(Pipeline::new(&meta.filters, element_bytes, bytes.ok_or_else(too_large)?)?))
}

/// Where blocks are read from.
struct Source<'a> {
    file: &'a StoredFile,
    array: &'a ArrayRecord,
    pipeline: Option<&'a Pipeline>,
    /// Whether chunks are compared with their checksums.
    verified: bool,
}

/// Reads and decodes blocks of one array; blocks. The file is checked before and after: what comes out is never torn.
fn read_blocks(
    source: &Source<'_>,
    blocks: &[Block],
    scratch: &mut Scratch,
    stats: &ReadStats,
) -> Result<Vec<Decoded>> {
    let Source { file, array, pipeline, verified } = *source;
    let ranges: Vec<ByteRange> = blocks.iter().flat_map(ranges).collect();
    check(file, array)?;
    let read = file.read_ranges(&ranges)?;
    check(file, array)?;
    let stored_bytes = ranges.iter().map(|range| range.bytes).sum();
    let mut stored = read.ranges.into_iter();
    let mut all = Vec::with_capacity(blocks.len());
    for block in blocks {
        let bytes = match &block.source {
            BlockSource::Stored(pointer) => {
                let missing = || ArrayError::new(Reason::Internal, "a chunk without a pipeline");
                let stored = stored.next().unwrap_or_default();
                let pipeline = pipeline.ok_or_else(missing)?;
                let shared = pipeline.is_identity(pointer.mask) && blocks.len() > 1;
                if verified {
                    verified::check(array, pointer, &stored).map_err(|error| name_chunk(error, array, pointer))?;
                }
                let decoded = pipeline.decode(stored, pointer.mask, scratch);
                // A chunk that is stored as it is shares the buffer of its whole group: it is copied unless it is alone
                // in it, for the cache may keep it long.
                decoded
                    .map(|bytes| if shared { Bytes::copy_from_slice(&bytes) } else { bytes })
                    .map_err(|error| name_chunk(error, array, pointer))?
            }
            BlockSource::Raw { ranges } => joined(stored.by_ref().take(ranges.len())),
            BlockSource::Inline | BlockSource::Fill | BlockSource::Worker(_) | BlockSource::Virtual(_) => {
                return Err(Error::new(Reason::Internal, "a block that is in no file was to be read from one"));
            }
        };
        all.push(Decoded::fixed(bytes, block)?);
    }
    stats.decoded(read.counts.preads, stored_bytes, all.iter().map(|block| block.bytes().len() as u64).sum());
    Ok(all)
}

fn ranges(block: &Block) -> Vec<ByteRange> {
    match &block.source {
        BlockSource::Stored(pointer) => vec![ByteRange { offset: pointer.offset, bytes: u64::from(pointer.bytes) }],
        BlockSource::Raw { ranges } => ranges.clone(),
        BlockSource::Inline | BlockSource::Fill | BlockSource::Worker(_) | BlockSource::Virtual(_) => Vec::new(),
    }
}

/// One range is taken as it is; several are put one after the other.
fn joined(mut parts: impl ExactSizeIterator<Item = Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.next().unwrap_or_default();
    }
    let parts: Vec<Bytes> = parts.collect();
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| all.extend_from_slice(part));
    all.freeze()
}

/// # Errors
/// `file_changed` when the open file is not, or no longer, the one that was indexed.
fn check(file: &StoredFile, array: &ArrayRecord) -> Result<()> {
    let now = file.fingerprint_now()?;
    // Managed files are immutable: they were checked when they were opened.
    let was = match array.file.place {
        FilePlace::Registered { .. } => file.fingerprint(),
        FilePlace::Managed { .. } => return Ok(()),
    };
    if now == was {
        return Ok(());
    }
    let message = format!("{} changed while it was read; register it again", array.file.source_name);
    Err(Error::new(Reason::FileChanged, message))
}
