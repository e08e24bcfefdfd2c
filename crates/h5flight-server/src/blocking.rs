//! The one place where blocking work leaves the async world: file reads, decoding, fsync, walks of folders.
//!
//! Two lanes, each of `threads` pieces at once. Decoding is long and queues deep: a read asks for many chunks ahead. What
//! delivers (assembling a batch, opening a file) is short and must not stand behind it: in one lane, each batch of 1 MiB
//! waited for chunks of 10 MB that were decoded for later, and bulk reads took twice as long.
//!
//! Who waits for decoding is served fairly by bytes, not by arrival ([`turns`]): a small read does not stand behind what
//! large ones ask for ahead. Each request bounds by its own look-ahead how much of it waits.

pub mod turns;

use std::sync::{Arc, Mutex, PoisonError};

use h5flight_array::codec::Scratch;
use h5flight_array::{Error as ArrayError, Reason};
use tokio::sync::Semaphore;

use self::turns::{Share, Turns};
use crate::error::{Error, Result};
use crate::metrics;

/// Runs blocking work on a bounded number of threads. Cheap to clone.
#[derive(Clone)]
pub struct Blocking {
    decode: Arc<Turns>,
    deliver: Arc<Semaphore>,
    threads: usize,
}

/// Decompressors and their buffers, as many as were ever at work at once: threads come and go, and each would keep its own.
#[derive(Default)]
pub struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    /// Runs `work` with one that nobody else has.
    pub fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let idle = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = idle().pop().unwrap_or_default();
        let done = work(&mut scratch);
        idle().push(scratch);
        done
    }
}

/// Which queue a piece of work waits in.
#[derive(Clone, Copy, Debug)]
pub enum Lane<'a> {
    /// Reading and decoding chunks, writing uploads: milliseconds. For whom, and how many bytes come out.
    Decode(&'a Share, u64),
    /// What a client is waiting for right now: well below a millisecond.
    Deliver,
}

impl Blocking {
    /// For `threads` threads; 0 is one per processor.
    pub fn new(threads: usize) -> Self {
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { processors() } else { threads };
        Self { decode: Arc::new(Turns::new(threads)), deliver: Arc::new(Semaphore::new(threads)), threads }
    }

    /// How many pieces of work run at once.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` and waits for it. When the future is dropped before the work began, it never begins; once it runs it
    /// runs to its end, so a piece must be short: one chunk, about 1 MiB.
    ///
    /// # Errors
    /// What the work returns; `internal` when it panics.
    pub async fn run<T, E>(&self, lane: Lane<'_>, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
    {
        let waiting = Waiting::new();
        let turn: Box<dyn Send> = match lane {
            Lane::Decode(share, bytes) => Box::new(self.decode.take(share, bytes).await),
            Lane::Deliver => {
                let permit = Arc::clone(&self.deliver).acquire_owned().await;
                Box::new(permit.expect("the semaphore is never closed"))
            }
        };
        drop(waiting);
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        match done.await {
            Ok(result) => result.map_err(Into::into),
            Err(error) => Err(ArrayError::new(Reason::Internal, "blocking work panicked").with_source(error).into()),
        }
    }
}

/// Counts one who waits, however the waiting ends.
struct Waiting;

impl Waiting {
    fn new() -> Self {
        metrics::blocking_queue(1);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::blocking_queue(-1);
    }
}
