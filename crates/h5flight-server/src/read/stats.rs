//! What one read did: for its trailer, the metrics and the access log.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::metrics;

/// Where a block came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Memory cache, or another read that was fetching it.
    Memory,
    /// Redis.
    Redis,
    /// The file, decoded here.
    File,
    /// A worker.
    Worker,
    /// The catalogue.
    Inline,
    /// Nowhere: the fill value.
    Fill,
}

const TIERS: [(Tier, &str); 6] = [
    (Tier::Memory, "memory"),
    (Tier::Redis, "redis"),
    (Tier::File, "file"),
    (Tier::Worker, "worker"),
    (Tier::Inline, "inline"),
    (Tier::Fill, "fill"),
];

/// Counters of one read; shared by its tasks.
#[derive(Debug, Default)]
pub struct ReadStats {
    rows: AtomicU64,
    bytes: AtomicU64,
    blocks: [AtomicU64; TIERS.len()],
    stored_bytes: AtomicU64,
    decoded_bytes: AtomicU64,
    preads: AtomicU64,
}

impl ReadStats {
    /// Blocks came from a tier.
    pub fn blocks(&self, tier: Tier, count: u64) {
        self.blocks[tier as usize].fetch_add(count, Ordering::Relaxed);
        metrics::blocks(TIERS[tier as usize].1, count);
    }

    /// Bytes were read from a file in so many calls, and decoded to so many.
    pub fn decoded(&self, preads: u64, stored_bytes: u64, decoded_bytes: u64) {
        self.preads.fetch_add(preads, Ordering::Relaxed);
        self.stored_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
        self.decoded_bytes.fetch_add(decoded_bytes, Ordering::Relaxed);
        metrics::decoded(stored_bytes, decoded_bytes);
    }

    /// A batch was handed to the stream.
    pub fn sent(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::sent(rows, bytes);
    }

    /// Rows and bytes so far.
    pub fn totals(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Names of the tiers that gave blocks, joined by "+".
    pub fn tiers(&self) -> String {
        let used = TIERS.iter().filter(|(tier, _)| self.blocks[*tier as usize].load(Ordering::Relaxed) > 0);
        used.map(|(_, name)| *name).collect::<Vec<_>>().join("+")
    }

    /// The trailer.
    pub fn to_json(&self) -> Value {
        let (rows, bytes) = self.totals();
        let count =
            |tier: &(Tier, &str)| (tier.1.to_owned(), json!(self.blocks[tier.0 as usize].load(Ordering::Relaxed)));
        let blocks: serde_json::Map<String, Value> = TIERS.iter().map(count).collect();
        json!({
            "rows": rows,
            "bytes": bytes,
            "blocks": blocks,
            "preads": self.preads.load(Ordering::Relaxed),
            "stored_bytes": self.stored_bytes.load(Ordering::Relaxed),
            "decoded_bytes": self.decoded_bytes.load(Ordering::Relaxed),
        })
    }
}
