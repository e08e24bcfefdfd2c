//! Whether the blocks of an array are worth a place in Redis: whether they come from there sooner than from the file.
//!
//! It is measured, not guessed from the filters: the same LZ4 chunk is not worth it in the page cache, and is on a slow
//! network file system. An array of which nothing is known is asked for once.

use std::time::Duration;

use moka::sync::Cache;

/// What a block costs from Redis, in nanoseconds a megabyte: about 0.45 ms to fetch it, the rest to check its MAC.
const REDIS_NANOS_PER_MB: u64 = 700_000;
/// What each answer costs beside its bytes.
const REDIS_NANOS: u64 = 100_000;
/// Arrays that are remembered.
const ARRAYS_MAX: u64 = 10_000;

/// What reading and decoding cost, by array.
#[derive(Debug)]
pub struct Worth(Cache<[u8; 16], bool>);

impl Default for Worth {
    fn default() -> Self {
        Self(Cache::new(ARRAYS_MAX))
    }
}

impl Worth {
    /// Notes what it took one thread to read and decode `blocks` blocks of `bytes` decoded bytes together.
    pub fn note(&self, array: [u8; 16], blocks: usize, bytes: u64, took: Duration) {
        let redis = bytes.saturating_mul(REDIS_NANOS_PER_MB) / 1_000_000 + REDIS_NANOS.saturating_mul(blocks as u64);
        self.0.insert(array, took.as_nanos() > u128::from(redis));
    }

    /// Whether Redis is to be asked, or given a block.
    pub fn is_worth(&self, array: [u8; 16]) -> bool {
        self.0.get(&array).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decodes_sooner_than_redis_answers_is_not_asked_for() {
        let worth = Worth::default();
        let [inflated, copied] = [[1; 16], [2; 16]];
        assert!(worth.is_worth(inflated) && worth.is_worth(copied), "nothing is known");
        worth.note(inflated, 1, 10_000_000, Duration::from_millis(13));
        worth.note(copied, 1, 10_000_000, Duration::from_millis(3));
        assert!(worth.is_worth(inflated) && !worth.is_worth(copied));
        // The file system became slow.
        worth.note(copied, 1, 10_000_000, Duration::from_millis(100));
        assert!(worth.is_worth(copied));
    }
}
