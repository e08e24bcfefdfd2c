//! The one place where blocking work leaves the async world: file reads, decoding, fsync, walks of folders.
//!
//! Two lanes, each of `threads` pieces at once. Decoding is long and queues deep: a read asks for many chunks ahead. What
//! delivers (assembling a batch, opening a file) is short and must not stand behind it: in one lane, each batch of 1 MiB
//! waited for chunks of 10 MB that were decoded for later, and bulk reads took twice as long. Waiting callers queue in
//! the semaphores, which each request bounds by its own look-ahead.

use std::sync::{Arc, Mutex, PoisonError};

use h5flight_array::codec::Scratch;
use h5flight_array::{Error as ArrayError, Reason};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::metrics;

/// Runs blocking work on a bounded number of threads. Cheap to clone.
#[derive(Clone)]
pub struct Blocking {
    decode: Arc<Semaphore>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Reading and decoding chunks, writing uploads: milliseconds.
    Decode,
    /// What a client is waiting for right now: well below a millisecond.
    Deliver,
}

impl Blocking {
    /// For `threads` threads; 0 is one per processor.
    pub fn new(threads: usize) -> Self {
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { processors() } else { threads };
        let lane = || Arc::new(Semaphore::new(threads));
        Self { decode: lane(), deliver: lane(), threads }
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
    pub async fn run<T, E>(&self, lane: Lane, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
    {
        let permits = match lane {
            Lane::Decode => &self.decode,
            Lane::Deliver => &self.deliver,
        };
        metrics::blocking_queue(1);
        let permit = Arc::clone(permits).acquire_owned().await;
        metrics::blocking_queue(-1);
        let permit = permit.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        match done.await {
            Ok(result) => result.map_err(Into::into),
            Err(error) => Err(ArrayError::new(Reason::Internal, "blocking work panicked").with_source(error).into()),
        }
    }
}
