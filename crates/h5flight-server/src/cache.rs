//! Decoded blocks, kept where the next read finds them: in memory, and beside it in Redis.
//!
//! A key holds the identity of the bytes (fingerprint of the file, array, block), so an entry of a changed file is
//! unreachable, not merely deleted in time. Authorisation was decided before anyone asks here.
//!
//! A read of more than a part of the memory would push out what others come back to, and find nothing of itself when it
//! comes again: its blocks are kept only when they were asked for before ([`Admission`]). They are shared all the same
//! by reads that want them at the same moment.
//!
//! Single flight: of all reads that want a block that nobody has, one fetches it (it holds a [`Claim`]), the others wait
//! for it. A claim that is dropped unfulfilled (its read was cancelled or failed) lets the waiters try for themselves.
//!
//! Lock order: `pending` is held for the look-up only, never across an await and never while the cache is called.

pub mod redis;
pub mod worth;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use h5flight_array::batch::Decoded;
use tokio::sync::watch;

use crate::metrics;

/// Bytes of bookkeeping for one entry: key, reference counts, moka's own nodes.
const ENTRY_BYTES: u64 = 200;
/// A read whose blocks take more than this part of the cache is a scan: 1 / 8.
const SCAN_PART: u64 = 8;
/// The cache is told to evict when more than this part of it was put in: 1 / 64. By itself it does so three times a
/// second, and held 200 MiB more than it may when 8 clients read chunks of 10 MB.
const EVICTION_PART: u64 = 64;
/// Blocks of scans that are remembered: 512 KiB of marks, enough for 80 GB in chunks of a megabyte.
const MARKS: usize = 1 << 16;

/// Which bytes: identity of the array, number of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// Identity of the array's bytes.
    pub array: [u8; 16],
    /// Number of the block.
    pub number: u64,
}

/// Whether a block is kept after its first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Always,
    /// Only when it was fetched before: it belongs to a scan.
    SecondUse,
}

/// What is known of a block.
pub enum Lookup {
    /// Here it is.
    Hit(Arc<Decoded>),
    /// Another read is fetching it.
    Pending(Waiter),
    /// Fetch it: nobody else does.
    Claimed(Claim),
}

/// The memory tier with its single flight.
pub struct MemoryCache {
    blocks: moka::sync::Cache<BlockKey, Arc<Decoded>>,
    pending: Mutex<HashMap<BlockKey, watch::Receiver<Outcome>>>,
    scanned: Marks,
    /// Bytes that were put in since the last eviction.
    put_bytes: AtomicU64,
    bytes_max: u64,
}

/// Which blocks were fetched by scans. A mark may be lost to that of another block, which costs one more fetch.
struct Marks {
    hasher: RandomState,
    slots: Box<[AtomicU64]>,
}

impl Marks {
    fn new(slots: usize) -> Self {
        Self { hasher: RandomState::new(), slots: (0..slots).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Marks a block; true when it was marked already.
    fn mark(&self, key: &BlockKey) -> bool {
        let hash = self.hasher.hash_one(key) | 1;
        let slot = &self.slots[(hash >> 32) as usize % self.slots.len()];
        slot.swap(hash, Ordering::Relaxed) == hash
    }
}

#[derive(Clone)]
enum Outcome {
    Open,
    Fetched(Arc<Decoded>),
}

impl MemoryCache {
    /// For `bytes_max` bytes of decoded blocks, bookkeeping included.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        let weigh =
            |_: &BlockKey, block: &Arc<Decoded>| u32::try_from(block.weight() as u64 + ENTRY_BYTES).unwrap_or(u32::MAX);
        let blocks = moka::sync::Cache::builder().max_capacity(bytes_max).weigher(weigh).build();
        let (pending, scanned) = (Mutex::default(), Marks::new(MARKS));
        Arc::new(Self { blocks, pending, scanned, put_bytes: AtomicU64::new(0), bytes_max })
    }

    /// How the blocks of a read of `bytes` decoded bytes are kept.
    pub fn admission(&self, bytes: u64) -> Admission {
        if bytes > self.bytes_max / SCAN_PART { Admission::SecondUse } else { Admission::Always }
    }

    /// Looks a block up and, when it is nowhere, makes the caller the one who fetches it.
    pub fn look_up(self: &Arc<Self>, key: BlockKey) -> Lookup {
        if let Some(block) = self.blocks.get(&key) {
            metrics::cache("memory", "hit", block.weight() as u64);
            return Lookup::Hit(block);
        }
        metrics::cache("memory", "miss", 0);
        match self.lock().entry(key) {
            Entry::Occupied(found) => Lookup::Pending(Waiter(found.get().clone())),
            Entry::Vacant(free) => {
                let (outcome, receiver) = watch::channel(Outcome::Open);
                free.insert(receiver);
                Lookup::Claimed(Claim { key, cache: Arc::downgrade(self), outcome })
            }
        }
    }

    /// The blocks of all these keys, or none when one is not here; claims nothing.
    pub fn all_of(&self, keys: impl Iterator<Item = BlockKey>) -> Option<Vec<Arc<Decoded>>> {
        let blocks: Vec<Arc<Decoded>> = keys.map(|key| self.blocks.get(&key)).collect::<Option<_>>()?;
        blocks.iter().for_each(|block| metrics::cache("memory", "hit", block.weight() as u64));
        Some(blocks)
    }

    fn put(&self, key: BlockKey, block: Arc<Decoded>) {
        let bytes = block.weight() as u64 + ENTRY_BYTES;
        self.blocks.insert(key, block);
        if self.put_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max / EVICTION_PART {
            self.put_bytes.store(0, Ordering::Relaxed);
            self.blocks.run_pending_tasks();
        }
    }

    /// Forgets all blocks of these arrays. Their keys are unreachable already: this only frees memory early.
    pub fn forget(&self, arrays: &[[u8; 16]]) {
        if arrays.is_empty() {
            return;
        }
        let gone: Vec<BlockKey> =
            self.blocks.iter().map(|(key, _)| *key).filter(|key| arrays.contains(&key.array)).collect();
        for key in gone {
            self.blocks.invalidate(&key);
        }
    }

    /// Bytes held and bytes allowed.
    pub fn size(&self) -> (u64, u64) {
        self.blocks.run_pending_tasks();
        (self.blocks.weighted_size(), self.bytes_max)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BlockKey, watch::Receiver<Outcome>>> {
        self.pending.lock().expect("no code panics while it holds this lock")
    }
}

/// The duty to fetch a block. Dropping it unfulfilled passes the duty on.
pub struct Claim {
    key: BlockKey,
    cache: Weak<MemoryCache>,
    outcome: watch::Sender<Outcome>,
}

impl Claim {
    /// Which block.
    pub fn key(&self) -> BlockKey {
        self.key
    }

    /// Whether the block will be kept: a scan's is marked, and is when it was marked before.
    pub fn admit(&self, admission: Admission) -> bool {
        let marked = || self.cache.upgrade().is_some_and(|cache| cache.scanned.mark(&self.key));
        admission == Admission::Always || marked()
    }

    /// Puts the block into the cache and wakes all who wait for it.
    pub fn fulfil(self, block: Arc<Decoded>) {
        if let Some(cache) = self.cache.upgrade() {
            cache.put(self.key, Arc::clone(&block));
        }
        self.outcome.send_replace(Outcome::Fetched(block));
    }

    /// Gives the block to all who wait for it, and keeps nothing.
    pub fn pass_on(self, block: Arc<Decoded>) {
        self.outcome.send_replace(Outcome::Fetched(block));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.lock().remove(&self.key);
        }
    }
}

/// Waits for a block that another read fetches.
pub struct Waiter(watch::Receiver<Outcome>);

impl Waiter {
    /// The block, or `None` when the other read gave up: look it up again.
    pub async fn wait(mut self) -> Option<Arc<Decoded>> {
        match self.0.wait_for(|outcome| matches!(outcome, Outcome::Fetched(_))).await.as_deref() {
            Ok(Outcome::Fetched(block)) => Some(Arc::clone(block)),
            Ok(Outcome::Open) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use h5flight_array::plan::{Block, BlockId, BlockSource};

    use super::*;

    fn key(number: u64) -> BlockKey {
        BlockKey { array: [7; 16], number }
    }

    fn block(bytes: usize) -> Arc<Decoded> {
        let id = BlockId { extent: 0, number: 0 };
        let (origin, shape) = (vec![0], vec![bytes as u64]);
        let of = Block { id, origin, shape, source: BlockSource::Fill, decoded_bytes: Some(bytes as u64) };
        Arc::new(Decoded::fixed(vec![1u8; bytes].into(), &of).unwrap())
    }

    #[tokio::test]
    async fn of_many_reads_one_fetches_and_all_get_the_block() {
        let cache = MemoryCache::new(1 << 20);
        let Lookup::Claimed(claim) = cache.look_up(key(1)) else { panic!("the first one fetches") };
        let waiters: Vec<_> = (0..10)
            .map(|_| match cache.look_up(key(1)) {
                Lookup::Pending(waiter) => tokio::spawn(waiter.wait()),
                _ => panic!("the others wait"),
            })
            .collect();
        claim.fulfil(block(10));
        for waiter in waiters {
            assert!(waiter.await.unwrap().is_some());
        }
        assert!(matches!(cache.look_up(key(1)), Lookup::Hit(_)));
    }

    #[test]
    fn several_blocks_are_there_together_or_not_at_all() {
        let cache = MemoryCache::new(1 << 20);
        for number in [1, 2] {
            let Lookup::Claimed(claim) = cache.look_up(key(number)) else { panic!("nobody has it") };
            claim.fulfil(block(number as usize));
        }
        let bytes = |blocks: Vec<Arc<Decoded>>| blocks.iter().map(|block| block.bytes().len()).collect::<Vec<_>>();
        assert_eq!(cache.all_of([2, 1].map(key).into_iter()).map(bytes), Some(vec![2, 1]));
        assert_eq!(cache.all_of([1, 3].map(key).into_iter()).map(bytes), None);
        assert!(matches!(cache.look_up(key(3)), Lookup::Claimed(_)), "asking was no claim");
    }

    #[tokio::test]
    async fn a_dropped_claim_passes_the_duty_on() {
        let cache = MemoryCache::new(1 << 20);
        let Lookup::Claimed(claim) = cache.look_up(key(1)) else { panic!("the first one fetches") };
        let Lookup::Pending(waiter) = cache.look_up(key(1)) else { panic!("the second one waits") };
        drop(claim);
        assert!(waiter.wait().await.is_none());
        assert!(matches!(cache.look_up(key(1)), Lookup::Claimed(_)));
    }

    #[tokio::test]
    async fn a_scan_is_kept_when_it_comes_again() {
        let cache = MemoryCache::new(80_000);
        assert_eq!(cache.admission(10_000), Admission::Always);
        let scan = cache.admission(10_001);
        for (kept_before, kept_after) in [(false, false), (false, true), (true, true)] {
            match cache.look_up(key(1)) {
                Lookup::Claimed(claim) => {
                    assert!(!kept_before);
                    let Lookup::Pending(waiter) = cache.look_up(key(1)) else { panic!("the second one waits") };
                    if claim.admit(scan) {
                        claim.fulfil(block(10))
                    } else {
                        claim.pass_on(block(10))
                    }
                    assert!(waiter.wait().await.is_some(), "whoever waits gets it either way");
                }
                Lookup::Hit(_) => assert!(kept_before),
                Lookup::Pending(_) => panic!("nobody fetches it"),
            }
            assert_eq!(cache.blocks.contains_key(&key(1)), kept_after);
        }
    }

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = MemoryCache::new(100_000);
        for number in 0..1000 {
            if let Lookup::Claimed(claim) = cache.look_up(key(number)) {
                claim.fulfil(block(1000));
            }
        }
        let (held, allowed) = cache.size();
        assert!(held <= allowed, "{held} of {allowed} bytes");
        cache.forget(&[[7; 16]]);
        assert_eq!(cache.size().0, 0);
    }
}
