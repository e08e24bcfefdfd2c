//! An upload whose bytes arrive: taken, flushed now and then, checked, and handed on or put aside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use h5flight_array::Reason;

use super::header::UploadHeader;
use super::keeping::keep;
use super::partial::Partial;
use super::running::Slot;
use super::upload::{Inspected, Uploaded, inspect, publish, run};
use crate::error::{Error, Result};
use crate::service::Service;

/// Bytes that may be written and not yet durable. On a fast link this decides how often is flushed: 64 MiB keep a disk
/// busy for longer than a flush takes, and are sent again within a second.
const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;
/// How long bytes may be written and not yet durable. On a slow link this decides.
const UNFLUSHED_MAX: Duration = Duration::from_secs(1);

/// How long a client may send nothing: it holds what was promised to it of the disk and the quota.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// An upload whose bytes arrive.
pub struct Receiving {
    service: Arc<Service>,
    header: UploadHeader,
    slot: Slot,
    /// While a blocking thread works on it, it is there and not here.
    partial: Option<Box<Partial>>,
}

impl Receiving {
    /// Into this partial file.
    pub fn new(service: &Arc<Service>, header: UploadHeader, slot: Slot, partial: Box<Partial>) -> Self {
        slot.durable(partial.durable_bytes());
        Self { service: Arc::clone(service), header, slot, partial: Some(partial) }
    }

    /// Takes all bytes that come. `durable` is told how many are durable, after each flush.
    ///
    /// # Errors
    /// `upload_mismatch`, `upload_in_progress`, `disk_full`, `io`, and those of `data`.
    pub async fn receive(
        &mut self,
        mut data: impl Stream<Item = Result<Bytes>> + Unpin,
        durable: impl Fn(u64),
    ) -> Result<()> {
        let (mut waiting, mut flushed) = (Instant::now(), Instant::now());
        loop {
            let arrival = tokio::time::timeout(UNFLUSHED_MAX, data.next());
            match self.slot.waiting(waiting, arrival).await? {
                Ok(None) => return Ok(()),
                Ok(Some(bytes)) => {
                    self.take(bytes?).await?;
                    waiting = Instant::now();
                }
                Err(_) if waiting.elapsed() > IDLE_MAX => {
                    let message = format!("no byte came for {} s; the upload can go on", IDLE_MAX.as_secs());
                    return Err(Error::new(Reason::UploadBroken, message));
                }
                Err(_) => {}
            }
            if self.partial().unflushed_bytes() >= UNFLUSHED_BYTES_MAX || flushed.elapsed() >= UNFLUSHED_MAX {
                self.work(Partial::checkpoint).await?;
                flushed = Instant::now();
                let bytes = self.partial().durable_bytes();
                self.slot.durable(bytes);
                durable(bytes);
            }
        }
    }

    async fn take(&mut self, data: Bytes) -> Result<()> {
        let (bytes, announced) = (self.partial().written_bytes() + data.len() as u64, self.header.file_bytes);
        if bytes > announced {
            let message = format!("{bytes} bytes came of an upload of {announced}");
            return Err(Error::new(Reason::UploadMismatch, message));
        }
        self.work(move |partial| partial.append(&data)).await?;
        self.slot.missing(announced - bytes);
        Ok(())
    }

    /// Makes the upload durable and visible.
    ///
    /// # Errors
    /// As the whole upload has them.
    pub async fn finish(mut self) -> Result<Uploaded> {
        let content = match self.checked() {
            Ok(content) => content,
            Err(error) => return Err(self.give_up(error).await),
        };
        let inspected = match self.inspected().await {
            Ok(inspected) => inspected,
            Err(error) => return Err(self.give_up(error).await),
        };
        let files = Arc::clone(&self.service.files);
        let address = content.clone();
        let path = run(&self.service, move || files.managed_path(&address)).await?;
        let partial = self.partial.take().expect("an upload that failed is not continued");
        let held = keep(&self.service, partial, path, &content).await?;
        publish(&self.service, &self.header, content, inspected, held).await
    }

    /// The content address, if the bytes are those that were announced.
    fn checked(&self) -> Result<String> {
        let UploadHeader { file_bytes, blake3, .. } = &self.header;
        let partial = self.partial();
        if partial.written_bytes() != *file_bytes {
            let message = format!("{} bytes came of an upload of {file_bytes}", partial.written_bytes());
            // A client that cancels looks like one that ends its stream: both can go on, where the upload has a name.
            let reason = if self.header.id().is_some() { Reason::UploadBroken } else { Reason::UploadMismatch };
            return Err(Error::new(reason, message));
        }
        let content = partial.content();
        if !blake3.is_empty() && *blake3 != content {
            let message = format!("the upload's blake3 is {content}, announced was {blake3}");
            return Err(Error::new(Reason::UploadMismatch, message));
        }
        Ok(content)
    }

    async fn inspected(&mut self) -> Result<Inspected> {
        self.work(Partial::seal).await?;
        let path = self.partial().path().to_owned();
        inspect(&self.service, path).await
    }

    /// Removes what can never be published, and makes durable what can go on.
    pub async fn give_up(mut self, error: Error) -> Error {
        let Some(partial) = self.partial.take() else { return error };
        let may_go_on = may_go_on(error.reason());
        let put_aside = move || {
            if may_go_on {
                partial.settle();
            } else {
                partial.remove();
            }
            Ok(())
        };
        if let Err(second) = run(&self.service, put_aside).await {
            tracing::warn!(error = second.chain(), "an upload could not be put aside");
        }
        error
    }

    fn partial(&self) -> &Partial {
        self.partial.as_ref().expect("an upload that failed is not continued")
    }

    /// Works on the partial file; it comes back also when that fails.
    async fn work(&mut self, work: impl FnOnce(&mut Partial) -> Result<()> + Send + 'static) -> Result<()> {
        let mut partial = self.partial.take().expect("an upload that failed is not continued");
        let (partial, done) = run(&self.service, move || {
            let done = work(&mut partial);
            Ok((partial, done))
        })
        .await?;
        self.partial = Some(partial);
        done
    }
}

/// Whether a repetition with the same bytes can succeed.
fn may_go_on(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UploadBroken
            | Reason::UploadInProgress
            | Reason::DiskFull
            | Reason::Io
            | Reason::Busy
            | Reason::CatalogUnavailable
            | Reason::Draining
            | Reason::BadRequest
            | Reason::Internal
    )
}
