//! The one place where blocking work leaves the async world: file reads, decoding, fsync, walks of folders.
//!
//! Never more than `threads` pieces run at once, so that decoding does not oversubscribe the processors, however many
//! requests there are. Waiting callers queue in the semaphore, which each request bounds by its own look-ahead.

use std::sync::Arc;

use h5flight_array::{Error as ArrayError, Reason};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::metrics;

/// Runs blocking work on a bounded number of threads. Cheap to clone.
#[derive(Clone)]
pub struct Blocking {
    permits: Arc<Semaphore>,
    threads: usize,
}

impl Blocking {
    /// For `threads` threads; 0 is one per processor.
    pub fn new(threads: usize) -> Self {
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { processors() } else { threads };
        Self { permits: Arc::new(Semaphore::new(threads)), threads }
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
    pub async fn run<T, E>(&self, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
    {
        metrics::blocking_queue(1);
        let permit = Arc::clone(&self.permits).acquire_owned().await;
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
