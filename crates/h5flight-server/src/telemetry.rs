//! One line per call, and the same into the access log of the catalogue, in batches.
//!
//! The log sink itself (human or JSON) is the binary's; what is said, is said here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use h5flight_array::Reason;
use h5flight_catalog::Catalog;
use h5flight_catalog::model::AccessEntry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::metrics;

/// Entries that wait for the catalogue; more are dropped and counted, for a read must not wait for its log.
const QUEUE_MAX: usize = 10_000;
/// Entries of one statement.
const BATCH_MAX: usize = 500;
/// How long an entry waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// A selection is logged up to this many bytes: lists can be long.
const SELECTION_BYTES_MAX: usize = 500;

/// Where calls are reported.
#[derive(Clone)]
pub struct AccessLog {
    queue: mpsc::Sender<AccessEntry>,
}

/// A call on its way. Dropped without [`Call::end`], it is logged as cancelled: its client went away.
pub struct Call {
    log: AccessLog,
    method: &'static str,
    started: Instant,
    entry: Option<AccessEntry>,
}

impl AccessLog {
    /// Starts the task that writes batches; it ends, with everything written, after `stop`.
    pub fn start(catalog: Arc<dyn Catalog>, stop: CancellationToken) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, tokio::spawn(write(catalog, queued, stop)))
    }

    /// Begins a call.
    pub fn call(&self, method: &'static str) -> Call {
        let entry = AccessEntry {
            at: Utc::now(),
            principal: String::new(),
            call: method.to_owned(),
            path: String::new(),
            selection: String::new(),
            outcome: String::new(),
            rows: 0,
            bytes: 0,
            tier: String::new(),
            millis: 0.0,
        };
        Call { log: self.clone(), method, started: Instant::now(), entry: Some(entry) }
    }
}

impl Call {
    /// Who asks.
    pub fn principal(&mut self, name: &str) {
        self.entry_mut().principal = name.to_owned();
    }

    /// For what.
    pub fn path(&mut self, path: &str) {
        self.entry_mut().path = path.to_owned();
    }

    /// For which part.
    pub fn selection(&mut self, selection: &impl std::fmt::Display) {
        use std::fmt::Write;
        let mut text = Cut(String::new());
        // An error only says that the text is long enough.
        let _ = write!(text, "{selection}");
        self.entry_mut().selection = text.0;
    }

    /// What was sent so far, and where it came from.
    pub fn sent(&mut self, rows: u64, bytes: u64, tier: &str) {
        let entry = self.entry_mut();
        (entry.rows, entry.bytes) = (rows, bytes);
        entry.tier = tier.to_owned();
    }

    /// Ends the call well or badly, and passes the outcome through.
    pub fn end<T>(mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        match &outcome {
            Ok(_) => self.report("ok", None),
            Err(error) => self.report(error.reason().as_str(), Some(error)),
        }
        outcome
    }

    /// Ends a call that is made again and again and found nothing: it is counted, and no line is worth it.
    pub fn end_quietly(mut self) {
        if self.entry.take().is_some() {
            metrics::call(self.method, "ok", self.started.elapsed());
        }
    }

    fn entry_mut(&mut self) -> &mut AccessEntry {
        self.entry.as_mut().expect("an entry is there until the call has ended")
    }

    fn report(&mut self, outcome: &'static str, error: Option<&Error>) {
        let Some(mut entry) = self.entry.take() else { return };
        let took = self.started.elapsed();
        entry.at = Utc::now();
        entry.outcome = outcome.to_owned();
        entry.millis = (took.as_secs_f64() * 1e6).round() / 1e3;
        metrics::call(self.method, outcome, took);
        let AccessEntry { principal, path, selection, rows, bytes, tier, millis, .. } = &entry;
        let call = self.method;
        match error {
            None => tracing::info!(call, principal, path, selection, rows, bytes, tier, millis, outcome),
            Some(error) if error.reason() == Reason::Internal => {
                tracing::error!(call, principal, path, selection, millis, outcome, error = error.chain());
            }
            Some(error) => {
                tracing::info!(call, principal, path, selection, millis, outcome, error = error.chain());
            }
        }
        if self.log.queue.try_send(entry).is_err() {
            metrics::access_log_dropped(1);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.report("cancelled", None);
    }
}

async fn write(catalog: Arc<dyn Catalog>, mut queued: mpsc::Receiver<AccessEntry>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        let received = tokio::select! {
            received = queued.recv_many(&mut batch, BATCH_MAX) => received,
            () = stop.cancelled() => {
                queued.close();
                queued.recv_many(&mut batch, QUEUE_MAX).await
            }
        };
        if received == 0 {
            return;
        }
        // A moment for more: one statement for many entries.
        let more = async { while batch.len() < BATCH_MAX && queued.recv_many(&mut batch, BATCH_MAX).await > 0 {} };
        tokio::select! {
            () = more => {}
            () = tokio::time::sleep(BATCH_WAIT) => {}
            () = stop.cancelled() => {}
        }
        if let Err(error) = catalog.log_accesses(&batch).await {
            metrics::access_log_dropped(batch.len() as u64);
            tracing::info!(entries = batch.len(), error = %error, "access log entries could not be written");
        }
        batch.clear();
    }
}

/// Takes text up to [`SELECTION_BYTES_MAX`], then an ellipsis, then nothing: a long list is not even written out.
struct Cut(String);

impl std::fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = SELECTION_BYTES_MAX.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        self.0.push('…');
        Err(std::fmt::Error)
    }
}
