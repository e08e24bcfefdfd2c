//! Which uploads are under way in this server: one stream each.
//!
//! A second stream is refused, unless the first one has stood still: its client may be gone without a word, and the one
//! who comes back should not wait for the end of TCP's patience. Between servers the lock on the part decides.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use h5flight_array::Reason;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// A stream that brought nothing for this long is taken over by one that comes: longer than a retransmission.
const STILL_MAX: Duration = Duration::from_secs(10);
/// How long the one who takes over waits for the other to let go: it makes its last bytes durable.
const LET_GO_MAX: Duration = Duration::from_secs(30);

/// The uploads of a data folder.
pub struct Uploads {
    folder: PathBuf,
    running: Mutex<HashMap<String, Arc<Stream>>>,
}

/// One stream.
#[derive(Default)]
struct Stream {
    durable_bytes: AtomicU64,
    /// Bytes that it may still bring: the disk has to have room for them.
    missing_bytes: AtomicU64,
    waits_since: Mutex<Option<Instant>>,
    taken_over: CancellationToken,
    ended: CancellationToken,
}

/// The right to be the stream of an upload; given back when dropped.
pub struct Slot {
    uploads: Arc<Uploads>,
    id: String,
    stream: Arc<Stream>,
}

impl Uploads {
    /// In this folder, which exists.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, running: Mutex::default() }
    }

    /// Where the bytes are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of this upload that are durable, when it is under way here.
    pub fn running(&self, id: &str) -> Option<u64> {
        self.lock().get(id).map(|stream| stream.durable_bytes.load(Ordering::Acquire))
    }

    /// Becomes the stream of an upload.
    ///
    /// # Errors
    /// `upload_in_progress`.
    pub async fn enter(self: &Arc<Self>, id: &str) -> Result<Slot> {
        let refusal = || Error::new(Reason::UploadInProgress, "another stream of the same upload is under way");
        loop {
            let other = match self.lock().entry(id.to_owned()) {
                std::collections::hash_map::Entry::Occupied(other) => Arc::clone(other.get()),
                std::collections::hash_map::Entry::Vacant(free) => {
                    let stream = Arc::clone(free.insert(Arc::default()));
                    return Ok(Slot { uploads: Arc::clone(self), id: id.to_owned(), stream });
                }
            };
            if !other.stands_still() {
                return Err(refusal());
            }
            other.taken_over.cancel();
            let ended = tokio::time::timeout(LET_GO_MAX, other.ended.cancelled()).await;
            ended.map_err(|_| refusal())?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Stream>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn stands_still(&self) -> bool {
        let since = *self.waits_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > STILL_MAX)
    }
}

impl Slot {
    /// Bytes that are durable now.
    pub fn durable(&self, bytes: u64) {
        self.stream.durable_bytes.store(bytes, Ordering::Release);
    }

    /// Reserves room for the bytes that are to come, beside what other streams under way may still bring.
    ///
    /// # Errors
    /// With the bytes that are promised to those, when there is too little left.
    pub fn reserve(&self, needed_bytes: u64, room_bytes: u64) -> std::result::Result<(), u64> {
        let running = self.uploads.lock();
        let promised = running.values().map(|stream| stream.missing_bytes.load(Ordering::Acquire)).sum();
        if needed_bytes > room_bytes.saturating_sub(promised) {
            return Err(promised);
        }
        self.missing(needed_bytes);
        Ok(())
    }

    /// Bytes that are still to come.
    pub fn missing(&self, bytes: u64) {
        self.stream.missing_bytes.store(bytes, Ordering::Release);
    }

    /// Runs `arrival`, which waits for the client since `since`, until another stream takes over.
    ///
    /// # Errors
    /// `upload_in_progress` when that happens.
    pub async fn waiting<T>(&self, since: Instant, arrival: impl Future<Output = T>) -> Result<T> {
        let waits = |since| *self.stream.waits_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
        waits(Some(since));
        let arrived = tokio::select! {
            arrived = arrival => Ok(arrived),
            () = self.stream.taken_over.cancelled() => {
                Err(Error::new(Reason::UploadInProgress, "another stream took the upload over while this one stood still"))
            }
        };
        waits(None);
        arrived
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.uploads.lock().remove(&self.id);
        self.stream.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_stream_an_upload_and_the_next_after_its_end() {
        let uploads = Arc::new(Uploads::new(PathBuf::new()));
        let first = uploads.enter("a").await.unwrap();
        first.durable(7);
        assert_eq!(uploads.running("a"), Some(7));
        let second = uploads.enter("a").await.err().unwrap();
        assert_eq!(second.reason(), Reason::UploadInProgress);
        let _other = uploads.enter("b").await.unwrap();
        drop(first);
        assert_eq!(uploads.running("a"), None);
        uploads.enter("a").await.unwrap();
    }

    #[tokio::test]
    async fn room_is_promised_once_and_given_back() {
        let uploads = Arc::new(Uploads::new(PathBuf::new()));
        let (first, second) = (uploads.enter("a").await.unwrap(), uploads.enter("b").await.unwrap());
        assert_eq!(first.reserve(60, 100), Ok(()));
        assert_eq!(second.reserve(60, 100), Err(60));
        first.missing(40);
        assert_eq!(second.reserve(60, 100), Ok(()));
        drop(second);
        assert_eq!(uploads.enter("c").await.unwrap().reserve(61, 100), Err(40));
    }

    #[tokio::test]
    async fn a_stream_that_stands_still_is_taken_over() {
        let uploads = Arc::new(Uploads::new(PathBuf::new()));
        let first = uploads.enter("a").await.unwrap();
        *first.stream.waits_since.lock().unwrap() = Instant::now().checked_sub(STILL_MAX * 2);
        let second = uploads.enter("a");
        let waiting = async {
            first.stream.taken_over.cancelled().await;
            let told = first.waiting(Instant::now(), std::future::pending::<()>()).await.err().unwrap();
            drop(first);
            told.reason()
        };
        let (second, told) = tokio::join!(second, waiting);
        assert_eq!(told, Reason::UploadInProgress);
        assert_eq!(uploads.running("a"), Some(0));
        drop(second);
        assert_eq!(uploads.running("a"), None);
    }
}
