//! When the rows of a series are: by a rate, or by timestamps of which only the chunks that matter are read.

use std::sync::Arc;

use h5flight_array::meta::Storage;
use h5flight_array::selection::{Item, Selection};
use h5flight_array::series::Clock;
use h5flight_catalog::model::ResolvedVersion;
use serde_json::{Value, json};

use super::refuse;
use crate::error::Result;
use crate::read::{NUMBERS_MAX, numbers_of};
use crate::service::Service;

/// Timestamps that are read at once where chunks are smaller, or where there are none.
const BLOCK_ROWS_MIN: u64 = 8_192;
/// Blocks that are guessed by the rate, before every other one is taken from the middle: clocks with gaps are rare.
const GUESSES_MAX: usize = 3;

/// Steps between timestamps that the rate is found from.
const STEPS: usize = 8_192;

/// When rows are.
pub(super) enum Time {
    /// At a rate.
    Even(Clock),
    /// At times of their own.
    Stamped(Stamps),
}

impl Time {
    /// The first row at or after a time. Before row 0 and after the last one, rows go on at the series' rate.
    pub(super) async fn first_at_or_after(&mut self, time_s: f64) -> Result<i64> {
        let stamps = match self {
            Self::Even(clock) => return Ok(clock.first_at_or_after(time_s)),
            Self::Stamped(stamps) => stamps,
        };
        let (hz, row) = (stamps.hz().await?, stamps.first_at_or_after(time_s).await?);
        let beyond =
            |row: u64, end_s: f64| (row as i64).saturating_add(Clock { start_s: end_s, hz }.first_at_or_after(time_s));
        if row == stamps.rows {
            let last_s = stamps.block(stamps.blocks() - 1).await?.last_s;
            return Ok(beyond(row - 1, last_s));
        }
        if row == 0 {
            let first_s = stamps.block(0).await?.first_s;
            return Ok(beyond(0, first_s));
        }
        Ok(row as i64)
    }

    /// The rows of a time range, those that there are.
    pub(super) async fn rows(
        &mut self,
        (start_s, stop_s): (Option<f64>, Option<f64>),
        rows: u64,
    ) -> Result<(u64, u64)> {
        let first = self.edge(start_s, 0, rows).await?;
        Ok((first, self.edge(stop_s, rows, rows).await?.max(first)))
    }

    async fn edge(&mut self, time_s: Option<f64>, otherwise: u64, rows: u64) -> Result<u64> {
        match (self, time_s) {
            (_, None) => Ok(otherwise),
            (Self::Even(clock), Some(time_s)) => {
                Ok(u64::try_from(clock.first_at_or_after(time_s)).unwrap_or(0).min(rows))
            }
            (Self::Stamped(stamps), Some(time_s)) => stamps.first_at_or_after(time_s).await,
        }
    }

    /// Rows a second.
    pub(super) async fn hz(&mut self) -> Result<f64> {
        match self {
            Self::Even(clock) => Ok(clock.hz),
            Self::Stamped(stamps) => stamps.hz().await,
        }
    }

    /// What a client makes an axis of.
    pub(super) fn told(&self) -> Value {
        match self {
            Self::Even(clock) => json!({ "start_s": clock.start_s, "hz": clock.hz }),
            Self::Stamped(stamps) => {
                json!({ "timestamps": stamps.version.path.dataset, "timestamps_version": stamps.version.version })
            }
        }
    }
}

/// A block whose times are known.
#[derive(Clone, Copy)]
struct Known {
    block: u64,
    first_s: f64,
    last_s: f64,
}

/// Timestamps, searched by blocks of rows that are chunks of them.
pub(super) struct Stamps {
    service: Arc<Service>,
    version: Arc<ResolvedVersion>,
    rows: u64,
    block_rows: u64,
    /// The blocks that were read, ascending.
    known: Vec<Known>,
    /// The block that was read last.
    held: Option<(u64, Vec<f64>)>,
    hz: Option<f64>,
}

impl Stamps {
    pub(super) fn new(service: &Arc<Service>, version: Arc<ResolvedVersion>, rows: u64) -> Result<Self> {
        let stamps: u64 = version.extents.iter().map(|extent| extent.rows).sum();
        if stamps != rows {
            return Err(refuse(format!("{} has {stamps} rows, its series {rows}", version.path)));
        }
        if version.extents.iter().any(|extent| extent.array.meta.shape().len() != 1) {
            return Err(refuse(format!("{} has not one axis: a time for each row", version.path)));
        }
        let chunk_rows = version.extents.first().map_or(1, |extent| match &extent.array.meta.storage {
            Storage::Chunked { chunk_shape } => chunk_shape.first().copied().unwrap_or(1),
            _ => 1,
        });
        // Whole chunks, so that none is decoded for two blocks.
        let block_rows = (chunk_rows * BLOCK_ROWS_MIN.div_ceil(chunk_rows.max(1)).max(1)).min(NUMBERS_MAX);
        let service = Arc::clone(service);
        Ok(Self { service, version, rows, block_rows, known: Vec::new(), held: None, hz: None })
    }

    fn blocks(&self) -> u64 {
        self.rows.div_ceil(self.block_rows)
    }

    /// Rows a second, as the median of the first steps says: pauses do not change it.
    async fn hz(&mut self) -> Result<f64> {
        if self.rows < 2 {
            return Err(refuse(format!("{} has {} rows, so no rate", self.version.path, self.rows)));
        }
        if self.hz.is_none() {
            let times = self.values(0).await?;
            let mut steps: Vec<f64> = times.windows(2).take(STEPS).map(|pair| pair[1] - pair[0]).collect();
            let middle = steps.len() / 2;
            let (_, median, _) = steps.select_nth_unstable_by(middle, f64::total_cmp);
            self.hz = Some(1.0 / *median);
        }
        match self.hz {
            Some(hz) if hz.is_finite() && hz > 0.0 => Ok(hz),
            _ => Err(refuse(format!("{} begins with equal times, so no rate", self.version.path))),
        }
    }

    /// The first row at or after a time; the number of rows where all are before it.
    async fn first_at_or_after(&mut self, time_s: f64) -> Result<u64> {
        // Blocks before `low` end before the time; `high`, or what is behind all, ends at it or after.
        let (mut low, mut high) = (0, self.blocks());
        let before = self.known.partition_point(|known| known.last_s < time_s);
        for known in &self.known[before.saturating_sub(1)..(before + 1).min(self.known.len())] {
            narrow(&mut low, &mut high, *known, time_s);
        }
        let mut tries = 0;
        while low < high {
            let guess = match tries {
                0..GUESSES_MAX => self.guess(time_s),
                tries if tries % 2 == 0 => self.guess(time_s),
                _ => low + (high - low) / 2,
            };
            let block = guess.clamp(low, high - 1);
            let known = self.block(block).await?;
            narrow(&mut low, &mut high, known, time_s);
            tries += 1;
        }
        if low == self.blocks() {
            return Ok(self.rows);
        }
        let first_s = self.block(low).await?.first_s;
        let within = if first_s >= time_s { 0 } else { self.values(low).await?.partition_point(|at| *at < time_s) };
        Ok(low * self.block_rows + within as u64)
    }

    /// The block in which a time would lie if rows were even between the blocks that are known.
    fn guess(&self, time_s: f64) -> u64 {
        let Some(first) = self.known.first() else { return 0 };
        let before = self.known[..self.known.partition_point(|known| known.last_s < time_s)].last();
        let after = self.known.get(self.known.partition_point(|known| known.first_s <= time_s));
        let begin = |known: &Known| ((known.block * self.block_rows) as f64, known.first_s);
        let end = |known: &Known| ((((known.block + 1) * self.block_rows).min(self.rows) - 1) as f64, known.last_s);
        let (from, to) = match (before, after) {
            (Some(left), Some(right)) => (end(left), begin(right)),
            // Only one side is known: as even as from the first row to it.
            (Some(left), None) => (begin(first), end(left)),
            _ => (begin(first), end(first)),
        };
        let guess = from.0 + (time_s - from.1) * (to.0 - from.0) / (to.1 - from.1);
        // A slope of nothing makes no number, which is block 0; a cast saturates.
        guess as u64 / self.block_rows
    }

    /// First and last time of a block.
    async fn block(&mut self, block: u64) -> Result<Known> {
        if let Ok(at) = self.known.binary_search_by_key(&block, |known| known.block) {
            return Ok(self.known[at]);
        }
        let values = self.values(block).await?;
        let (Some(first_s), Some(last_s)) = (values.first().copied(), values.last().copied()) else {
            return Err(refuse(format!("timestamps of block {block} are missing")));
        };
        Ok(Known { block, first_s, last_s })
    }

    /// The times of a block, which must not decrease.
    async fn values(&mut self, block: u64) -> Result<&[f64]> {
        if self.held.as_ref().is_none_or(|(held, _)| *held != block) {
            let first = block * self.block_rows;
            let stop = (first + self.block_rows).min(self.rows);
            let item = Item::Slice { start: Some(first as i64), stop: Some(stop as i64), step: None };
            let part = Selection::new(vec![item], Vec::new())?;
            let values = numbers_of(&self.service, Arc::clone(&self.version), part).await?;
            let place = self.known.binary_search_by_key(&block, |known| known.block);
            let (Ok(at) | Err(at)) = place;
            let before = self.known[..at].last().map_or(f64::NEG_INFINITY, |known| known.last_s);
            let after = self.known.get(at + usize::from(place.is_ok())).map_or(f64::INFINITY, |known| known.first_s);
            let is_sorted = values.is_sorted() && values.iter().all(|value| value.is_finite());
            match (values.first(), values.last()) {
                (Some(&first_s), Some(&last_s)) if is_sorted && before <= first_s && last_s <= after => {
                    if place.is_err() {
                        self.known.insert(at, Known { block, first_s, last_s });
                    }
                }
                _ => {
                    let message = format!("{} decreases in or beside rows {first} to {stop}", self.version.path);
                    return Err(refuse(message));
                }
            }
            self.held = Some((block, values));
        }
        Ok(self.held.as_ref().map_or(&[], |(_, values)| values.as_slice()))
    }
}

/// Narrows where the first block is that ends at a time or after it, by what one block says.
fn narrow(low: &mut u64, high: &mut u64, Known { block, first_s, last_s }: Known, time_s: f64) {
    if last_s < time_s {
        *low = (*low).max(block + 1);
        return;
    }
    *high = (*high).min(block);
    if first_s < time_s {
        // All before it end before its first time.
        *low = (*low).max(block);
    }
}
