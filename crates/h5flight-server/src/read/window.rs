//! The look-ahead: which blocks are fetched before the client has taken the batches in front of them.
//!
//! Blocks are asked for in the order of their first use, each once, and kept until their last batch is assembled. What
//! is asked for beyond the current batch is bounded by [`AHEAD_BYTES`] and by the memory that is free right now; the
//! current batch itself waits for memory. A list that jumps between chunks may ask for a block again: the memory cache
//! has it then.
//!
//! A client that does not take its batches for [`PATIENCE`] has what was fetched ahead let go, and gets nothing fetched
//! ahead until it reads on: what it holds meanwhile are the batches that wait for it.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use h5flight_array::batch::Decoded;
use h5flight_array::batch::scale::Scaling;
use h5flight_array::plan::{BatchPlan, BlockId, Plan};
use h5flight_array::{Error as ArrayError, Reason};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::fetch::{Fetched, Fetcher, Fetching};
use super::internal;
use crate::blocking::Lane;
use crate::error::{Error, Result};
use crate::memory::{reserve, units};
use crate::metrics;
use crate::service::Service;

/// Decoded bytes asked for beyond what the current batch needs: enough to keep the processors busy with chunks of
/// 10 MB, the size that NWB writers choose.
const AHEAD_BYTES: u64 = 48 << 20;

/// The part of the memory for blocks that is not taken for what is fetched ahead: 1 / 4.
const AHEAD_FREE_PART: u32 = 4;
/// How long a batch waits for its client before the look-ahead is given up: longer than any client that works on what
/// it got takes for a batch of a few megabytes.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is asked for ahead after the first batch that such a client took again; it doubles with each.
const AHEAD_BYTES_MIN: u64 = 1 << 20;

/// The largest batch of a tensor that is assembled on the thread where the read runs, in bytes: the usual one, with the
/// half on top that it may have.
const COPIED_HERE_BYTES_MAX: u64 = 3 << 20;
/// The same for several columns, records and strings, whose values are taken one by one.
const CONVERTED_HERE_BYTES_MAX: u64 = 64 << 10;

/// Where assembled batches go.
pub(super) trait Outlet: Send + 'static {
    /// What a batch becomes.
    type Item: Send + 'static;

    /// Whether that takes work beyond a few headers.
    fn compresses(&self) -> bool;

    /// Takes a batch with these rows of the result.
    fn pass(&mut self, batch: RecordBatch, rows: std::ops::Range<u64>) -> Result<Self::Item>;
}

/// The blocks of one read, from being asked for to being let go.
pub(super) struct Window {
    service: Arc<Service>,
    plan: Arc<Plan>,
    /// Whether batches are numbers, in the order in which blocks have them: assembling is copying.
    copied: bool,
    fetcher: Arc<Fetcher>,
    /// How assembled values are scaled.
    scaling: Option<Arc<Scaling>>,
    /// Batches that were looked at but not yet assembled.
    upcoming: VecDeque<BatchPlan>,
    /// The next batch to look at.
    next: usize,
    /// Fetches under way, in order of first use.
    fetching: VecDeque<Fetching>,
    /// Blocks that were asked for and not let go, with the number of upcoming batches that need them.
    asked: HashMap<BlockId, usize>,
    ahead_bytes: u64,
    /// How much may be asked for ahead.
    ahead_bytes_max: u64,
    held: HashMap<BlockId, Held>,
}

/// A block that some batch still needs, with the memory reserved for it.
struct Held {
    block: Arc<Decoded>,
    bytes: u64,
    _reserved: Option<OwnedSemaphorePermit>,
    _grown: Option<Arc<OwnedSemaphorePermit>>,
}

impl Window {
    pub(super) fn new(service: Arc<Service>, plan: Arc<Plan>, fetcher: Arc<Fetcher>) -> Self {
        metrics::reads(1);
        let copied = match plan.schema().fields().as_ref() {
            [field] => match field.data_type() {
                DataType::FixedSizeList(item, _) => item.data_type().is_primitive(),
                values => values.is_primitive(),
            },
            _ => false,
        };
        Self {
            copied,
            service,
            plan,
            fetcher,
            scaling: None,
            upcoming: VecDeque::new(),
            next: 0,
            fetching: VecDeque::new(),
            asked: HashMap::new(),
            ahead_bytes: 0,
            ahead_bytes_max: AHEAD_BYTES,
            held: HashMap::new(),
        }
    }

    /// The same with scaled values.
    pub(super) fn scaled(mut self, scaling: Option<Arc<Scaling>>) -> Self {
        self.copied &= scaling.is_none();
        self.scaling = scaling;
        self
    }

    /// Assembles batch by batch into `out`. Ends early, and well, when nobody receives any more.
    ///
    /// # Errors
    /// What fetching, decoding or assembling finds; `busy` without memory or with a client that does not read.
    pub(super) async fn run<O: Outlet>(
        mut self,
        mut outlet: O,
        schema: SchemaRef,
        out: mpsc::Sender<O::Item>,
    ) -> Result<()> {
        for at in 0..self.plan.batches() {
            self.look_ahead(at).await?;
            let batch = self.upcoming.pop_front().expect("the look-ahead covers the current batch");
            let blocks = self.collect(&batch).await?;
            let (plan, schema, scaling) = (Arc::clone(&self.plan), Arc::clone(&schema), self.scaling.clone());
            let (rows, used, short) =
                (batch.rows(), batch.blocks().to_vec(), self.is_short(&batch) && !outlet.compresses());
            let assemble = move || {
                let mut records = plan.assemble(&batch, &blocks)?;
                if let Some(scaling) = scaling {
                    records = scaling.apply(&plan, &records, rows.start)?;
                }
                let records = records.with_schema(schema).map_err(|error| internal("a batch's schema", error))?;
                let passed = outlet.pass(records, rows)?;
                Ok::<_, Error>((outlet, passed))
            };
            let passed;
            (outlet, passed) =
                if short { assemble()? } else { self.service.blocking.run(Lane::Deliver, assemble).await? };
            self.let_go(at, &used);
            if self.send(at, passed, &out).await?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a batch is put together where the read runs: it takes less than changing threads twice, or, of values
    /// that are only copied, well below a millisecond.
    fn is_short(&self, batch: &BatchPlan) -> bool {
        let bytes_max = if self.copied { COPIED_HERE_BYTES_MAX } else { CONVERTED_HERE_BYTES_MAX };
        let rows = batch.rows();
        let bytes = self.plan.bytes().map(|all| all / self.plan.rows().max(1) * (rows.end - rows.start));
        bytes.is_some_and(|bytes| bytes <= bytes_max)
    }

    /// Hands a batch to the client; breaks where there is none any more.
    ///
    /// # Errors
    /// `busy` with a client that does not read.
    async fn send<T: Send>(&mut self, at: usize, passed: T, out: &mpsc::Sender<T>) -> Result<ControlFlow<()>> {
        let stall_timeout = Duration::from_millis(self.service.config.stall_timeout_ms);
        let patience = PATIENCE.min(stall_timeout);
        let passed = match out.send_timeout(passed, patience).await {
            Ok(()) => {
                self.ahead_bytes_max = (2 * self.ahead_bytes_max).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES);
                return Ok(ControlFlow::Continue(()));
            }
            Err(SendTimeoutError::Closed(_)) => return Ok(ControlFlow::Break(())),
            Err(SendTimeoutError::Timeout(passed)) => passed,
        };
        self.draw_in(at + 1);
        match out.send_timeout(passed, stall_timeout - patience).await {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(SendTimeoutError::Closed(_)) => Ok(ControlFlow::Break(())),
            Err(SendTimeoutError::Timeout(_)) => {
                let message = format!("the client has not read for {} ms", stall_timeout.as_millis());
                Err(Error::new(Reason::Busy, message))
            }
        }
    }

    /// Lets go of all that was asked for, to begin again with batch `next`.
    fn draw_in(&mut self, next: usize) {
        self.next = next;
        self.upcoming.clear();
        self.fetching.clear();
        self.asked.clear();
        self.held.clear();
        (self.ahead_bytes, self.ahead_bytes_max) = (0, 0);
    }

    /// Asks for the blocks of batch `at`, whatever it takes, and of the following ones as far as memory goes.
    async fn look_ahead(&mut self, at: usize) -> Result<()> {
        while self.next < self.plan.batches() {
            let batch = self.plan.batch(self.next);
            let mut wanted = Vec::new();
            for id in batch.blocks() {
                if !self.asked.contains_key(id) {
                    wanted.push(self.fetcher.block(&self.plan, *id).await?);
                }
            }
            let bytes = wanted.iter().map(|wanted| wanted.bytes).fold(0, u64::saturating_add);
            let reserved = if self.next <= at {
                Some(reserve(&self.service, &self.service.read_memory, units(&self.service, bytes)).await?)
            } else if bytes > 0 {
                if self.ahead_bytes.saturating_add(bytes) > self.ahead_bytes_max {
                    return Ok(());
                }
                let (memory, wanted) = (Arc::clone(&self.service.read_memory), units(&self.service, bytes));
                // What is fetched ahead leaves room for reads that come with less.
                let most = self.service.read_memory_units / AHEAD_FREE_PART * (AHEAD_FREE_PART - 1);
                let taken = self.service.read_memory_units as usize - memory.available_permits();
                if taken + wanted as usize > most as usize {
                    return Ok(());
                }
                let Ok(free) = memory.try_acquire_many_owned(wanted) else { return Ok(()) };
                Some(free)
            } else {
                None
            };
            for id in batch.blocks() {
                *self.asked.entry(*id).or_default() += 1;
            }
            self.ahead_bytes = self.ahead_bytes.saturating_add(bytes);
            self.fetching.extend(self.fetcher.start(wanted, reserved));
            self.upcoming.push_back(batch);
            self.next += 1;
        }
        Ok(())
    }

    /// The decoded blocks of a batch, in its order.
    async fn collect(&mut self, batch: &BatchPlan) -> Result<Vec<Arc<Decoded>>> {
        let mut blocks = Vec::with_capacity(batch.blocks().len());
        for id in batch.blocks() {
            while !self.held.contains_key(id) {
                let missing = || ArrayError::new(Reason::Internal, "a block was let go before its last use");
                let fetching = self.fetching.pop_front().ok_or_else(missing)?;
                for Fetched { id, block, bytes, reserved, grown } in fetching.wait().await? {
                    self.held.insert(id, Held { block, bytes, _reserved: reserved, _grown: grown });
                }
            }
            blocks.push(Arc::clone(&self.held[id].block));
        }
        Ok(blocks)
    }

    /// Lets go of the blocks of batch `at` that no later batch needs.
    fn let_go(&mut self, at: usize, blocks: &[BlockId]) {
        for id in blocks {
            let Some(uses) = self.asked.get_mut(id) else { continue };
            *uses -= 1;
            // A list that jumps may want a block again much later: it is kept only while there is room.
            if *uses == 0 && (self.plan.last_use(*id) <= at || self.ahead_bytes > AHEAD_BYTES) {
                self.asked.remove(id);
                let held = self.held.remove(id);
                self.ahead_bytes = self.ahead_bytes.saturating_sub(held.map_or(0, |held| held.bytes));
            }
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        metrics::reads(-1);
    }
}
