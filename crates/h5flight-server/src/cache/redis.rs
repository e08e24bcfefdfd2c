//! The Redis tier: shared by servers, survives their restarts, and may be absent, slow, full or wrong.
//!
//! Reads get slower without it, never fail and never become wrong: every command has a short timeout, a breaker leaves
//! Redis alone after failures in a row, and a value counts only when it carries its own key and a MAC made with a
//! secret of the catalogue. What is superseded is left to its time to live: its keys are unreachable, and to find them
//! would be a walk over the whole keyspace. Single GETs, not MGET: measured 2 to 4 times faster for values of this size.
//!
//! Value: [`MAGIC`], 32 bytes of MAC (keyed blake3 over key and block), the 24 bytes of the key, the decoded block.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_redis::redis::{self, AsyncCommands, RedisWrite, ToRedisArgs, ToSingleRedisArg};
use deadpool_redis::{Config as PoolConfig, Pool, PoolConfig as PoolLimits, Runtime, Timeouts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::BlockKey;
use super::worth::Worth;
use crate::error::Error;
use crate::metrics;

const MAGIC: &[u8; 5] = b"h5fb1";
const MAC_BYTES: usize = 32;
const KEY_BYTES: usize = 24;
const HEADER_BYTES: usize = MAGIC.len() + MAC_BYTES + KEY_BYTES;
/// Larger blocks stay out: at 2 GB/s one of them would hold a connection for more than 10 ms.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Connections: enough for the decode threads of a few reads, few enough for a small Redis.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection or a small answer may take; a block of 16 MiB takes about 10 ms.
const TIMEOUT: Duration = Duration::from_millis(250);
/// Failures in a row after which Redis is left alone.
const FAILURES_MAX: u32 = 3;
/// For how long it is left alone.
const BREAK: Duration = Duration::from_secs(2);
/// Bytes of blocks that wait to be stored or are being stored, beside the budget of reads; what passes them is not
/// stored. Two of the largest blocks.
const QUEUE_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;
/// How many blocks they are at most: a few groups of small chunks.
const QUEUE_BLOCKS_MAX: usize = 1024;

/// The Redis tier.
pub struct RedisCache {
    pool: Pool,
    secret: [u8; 32],
    breaker: Breaker,
    queue: mpsc::Sender<Queued>,
    /// Which arrays are worth asking for.
    pub worth: Worth,
    /// A permit for each byte that may be queued.
    queue_room: Arc<Semaphore>,
    started: Instant,
}

/// A block that waits to be stored.
pub struct Queued {
    key: BlockKey,
    block: Bytes,
    _room: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Breaker {
    failures: AtomicU32,
    /// Milliseconds since the start until which Redis is left alone.
    open_until_ms: AtomicU64,
}

impl RedisCache {
    /// Prepares the tier; nothing is connected yet, so a dead Redis does not delay the start. The returned receiver
    /// belongs to [`RedisCache::store_queued`].
    ///
    /// # Errors
    /// `bad_request` for a URL that is not one.
    pub fn new(url: &str, secret: [u8; 32]) -> Result<(Self, mpsc::Receiver<Queued>), Error> {
        let bad_url = |error: String| {
            let message = format!("the Redis URL is not usable: {error}");
            Error::new(h5flight_array::Reason::BadRequest, message)
        };
        // redis-rs calls a socket "unix:" or "redis+unix:"; both are accepted.
        let mut config = PoolConfig::from_url(url);
        let timeouts = Timeouts { wait: Some(TIMEOUT), create: Some(TIMEOUT), recycle: Some(TIMEOUT) };
        config.pool = Some(PoolLimits { max_size: CONNECTIONS_MAX, timeouts, ..PoolLimits::default() });
        let pool = config.create_pool(Some(Runtime::Tokio1)).map_err(|error| bad_url(error.to_string()))?;
        let (queue, queued) = mpsc::channel(QUEUE_BLOCKS_MAX);
        let queue_room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let (breaker, worth, started) = (Breaker::default(), Worth::default(), Instant::now());
        Ok((Self { pool, secret, breaker, queue, worth, queue_room, started }, queued))
    }

    /// Whether Redis answered lately.
    pub fn is_up(&self) -> bool {
        self.now_ms() >= self.breaker.open_until_ms.load(Ordering::Relaxed)
    }

    /// One PING, for the page of health; counts for the breaker like any command.
    pub async fn ping(&self) -> bool {
        self.command(async |connection| redis::cmd("PING").query_async::<String>(connection).await).await.is_some()
    }

    /// The decoded bytes of a block, which are this many or, where that is not known, up to [`VALUE_BYTES_MAX`]. No
    /// more is taken from Redis, whatever lies there. Whatever is wrong is a miss.
    pub async fn get(&self, key: BlockKey, block_bytes: Option<u64>) -> Option<Bytes> {
        let (name, last) = (name(key), last_byte(block_bytes)?);
        // Of a value that is longer the MAC does not fit what comes.
        let found = self.command(async |connection| connection.getrange::<_, Vec<u8>>(&name[..], 0, last).await);
        let value = found.await?;
        if value.is_empty() {
            metrics::cache("redis", "miss", 0);
            return None;
        }
        match open(&self.secret, key, value.into()) {
            Some(block) => {
                metrics::cache("redis", "hit", block.len() as u64);
                Some(block)
            }
            None => {
                metrics::cache("redis", "corrupt", 0);
                tracing::warn!(block = key.number, "a value in Redis is not what was stored there; it is not used");
                None
            }
        }
    }

    /// Queues a block to be stored. When the queue is full it is not stored: a cache owes nothing.
    pub fn put(&self, key: BlockKey, block: Bytes) {
        if block.len() > VALUE_BYTES_MAX || !self.is_up() {
            return;
        }
        let room = u32::try_from(block.len()).expect("a block of 16 MiB has fewer than 2^32 bytes");
        if let Ok(room) = Arc::clone(&self.queue_room).try_acquire_many_owned(room) {
            let _ = self.queue.try_send(Queued { key, block, _room: room });
        }
    }

    /// Stores queued blocks with a time to live, one after another, until the cache is dropped.
    pub async fn store_queued(&self, mut queued: mpsc::Receiver<Queued>, ttl: Duration) {
        while let Some(Queued { key, block, _room }) = queued.recv().await {
            let value = Sealed { head: head(&self.secret, key, &block), block: &block };
            let (name, seconds) = (name(key), ttl.as_secs().max(1));
            let stored =
                self.command(async |connection| connection.set_ex::<_, _, ()>(&name[..], &value, seconds).await);
            if stored.await.is_some() {
                metrics::cache("redis", "store", block.len() as u64);
            }
        }
    }

    /// Runs a command unless the breaker is open; failures and timeouts are counted, not returned.
    async fn command<T>(
        &self,
        work: impl AsyncFnOnce(&mut deadpool_redis::Connection) -> redis::RedisResult<T>,
    ) -> Option<T> {
        if !self.is_up() {
            return None;
        }
        let attempt = async {
            let mut connection = self.pool.get().await.map_err(|error| error.to_string())?;
            match tokio::time::timeout(TIMEOUT, work(&mut connection)).await {
                Ok(Ok(value)) => Ok(value),
                outcome => {
                    // The answer of a timed-out command may still come: this connection must not be used again.
                    drop(deadpool_redis::Connection::take(connection));
                    Err(match outcome {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("no answer within {} ms", TIMEOUT.as_millis()),
                    })
                }
            }
        };
        match attempt.await {
            Ok(value) => {
                if self.breaker.failures.swap(0, Ordering::Relaxed) >= FAILURES_MAX {
                    tracing::info!("redis answers again");
                }
                metrics::redis_up(true);
                Some(value)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    fn failed(&self, error: &str) {
        metrics::cache("redis", "error", 0);
        let failures = self.breaker.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES_MAX {
            self.breaker.open_until_ms.store(self.now_ms() + BREAK.as_millis() as u64, Ordering::Relaxed);
            metrics::redis_up(false);
        }
        if failures == FAILURES_MAX {
            tracing::info!(error, "redis does not answer; reads go on without it");
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// The last byte that a value may have; `None` for a block that is too large to be stored.
fn last_byte(block_bytes: Option<u64>) -> Option<isize> {
    let block_bytes = block_bytes.map_or(Some(VALUE_BYTES_MAX), |bytes| usize::try_from(bytes).ok())?;
    (block_bytes <= VALUE_BYTES_MAX).then(|| (HEADER_BYTES + block_bytes - 1) as isize)
}

fn name(key: BlockKey) -> Vec<u8> {
    format!("h5f:{}:{}", hex(&key.array), key.number).into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

fn identity(key: BlockKey) -> [u8; KEY_BYTES] {
    let mut identity = [0; KEY_BYTES];
    identity[..16].copy_from_slice(&key.array);
    identity[16..].copy_from_slice(&key.number.to_le_bytes());
    identity
}

fn mac(secret: &[u8; 32], identity: &[u8; KEY_BYTES], block: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(identity).update(block);
    hasher.finalize()
}

/// A value; it is put together where the command is written, not before.
struct Sealed<'a> {
    head: [u8; HEADER_BYTES],
    block: &'a [u8],
}

impl ToRedisArgs for Sealed<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut argument = out.writer_for_next_arg();
        let written = argument.write_all(&self.head).and_then(|()| argument.write_all(self.block));
        written.expect("a command is written to memory");
    }
}

impl ToSingleRedisArg for Sealed<'_> {}

/// What stands before a block in its value.
fn head(secret: &[u8; 32], key: BlockKey, block: &[u8]) -> [u8; HEADER_BYTES] {
    let (identity, mut head) = (identity(key), [0; HEADER_BYTES]);
    let (magic, rest) = head.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    rest[..MAC_BYTES].copy_from_slice(mac(secret, &identity, block).as_bytes());
    rest[MAC_BYTES..].copy_from_slice(&identity);
    head
}

fn open(secret: &[u8; 32], key: BlockKey, value: Bytes) -> Option<Bytes> {
    let sealed = value.strip_prefix(MAGIC)?;
    let (stored_mac, rest) = sealed.split_first_chunk::<MAC_BYTES>()?;
    let (stored_identity, block) = rest.split_first_chunk::<KEY_BYTES>()?;
    let right = *stored_identity == identity(key)
        && mac(secret, stored_identity, block) == blake3::Hash::from_bytes(*stored_mac);
    right.then(|| value.slice(HEADER_BYTES..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_that_was_stored_under_this_key_is_used() {
        let (secret, key) = ([3; 32], BlockKey { array: [1; 16], number: 9 });
        let value = Sealed { head: head(&secret, key, b"decoded"), block: b"decoded" };
        let value = value.to_redis_args().concat();
        assert_eq!(last_byte(Some(7)), Some(value.len() as isize - 1), "no more than this is taken");
        assert_eq!(open(&secret, key, value.clone().into()).as_deref(), Some(b"decoded".as_slice()));
        let other = BlockKey { number: 10, ..key };
        assert_eq!(open(&secret, other, value.clone().into()), None, "a value of another key");
        assert_eq!(open(&[4; 32], key, value.clone().into()), None, "a value of another catalogue");
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&secret, key, flipped.into()), None, "bit {bit}");
        }
        for cut in 0..value.len() {
            assert_eq!(open(&secret, key, value[..cut].to_vec().into()), None, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_taken_from_redis_has_the_length_of_the_block_or_of_the_largest() {
        let most = (HEADER_BYTES + VALUE_BYTES_MAX) as isize - 1;
        for (block_bytes, expected) in [
            (None, Some(most)),
            (Some(0), Some(HEADER_BYTES as isize - 1)),
            (Some(VALUE_BYTES_MAX as u64), Some(most)),
            (Some(VALUE_BYTES_MAX as u64 + 1), None),
            (Some(u64::MAX), None),
        ] {
            assert_eq!(last_byte(block_bytes), expected, "{block_bytes:?}");
        }
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_and_what_does_not_fit_is_dropped() {
        let (cache, mut queued) = RedisCache::new("redis://127.0.0.1:1", [3; 32]).unwrap();
        let key = |number| BlockKey { array: [1; 16], number };
        let large = Bytes::from(vec![0; VALUE_BYTES_MAX]);
        (0..5).for_each(|number| cache.put(key(number), large.clone()));
        cache.put(key(5), Bytes::from_static(b"small"));
        let numbers = |queued: &mut mpsc::Receiver<Queued>| {
            std::iter::from_fn(|| queued.try_recv().ok()).map(|queued| queued.key.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&mut queued), [0, 1]);
        // Their room is free again.
        cache.put(key(6), large);
        cache.put(key(7), Bytes::from_static(b"small"));
        assert_eq!(numbers(&mut queued), [6, 7]);
    }
}
