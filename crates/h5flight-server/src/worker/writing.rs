//! A worker that writes a file, for as long as its chunks come.
//!
//! No clock runs while it waits for the client; each step has its own time. Those that write have places apart from those
//! that look: a client may take hours over its put.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use h5flight_array::Reason;
use h5flight_array::inspect::{Frame, HEAD_BYTES, Message, NewDataset, Request, WriteStep};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::OwnedSemaphorePermit;

use super::{REAP_TIMEOUT, Workers, unexpected};
use crate::error::{Error, Result};

/// Workers that write at the same time; each takes some 10 MB.
pub(super) const WRITERS_MAX: usize = 16;
/// How long the disk may take over one chunk, or over the end of a file.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Bytes of the file beside its chunks, at most: indexes and attributes.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// A worker that writes; dropped, it is killed.
pub struct Writer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _permit: OwnedSemaphorePermit,
}

impl Workers {
    /// Makes the file anew with this dataset, to be filled. The descriptor is open for writing.
    ///
    /// # Errors
    /// `busy`, `internal`.
    pub async fn write(&self, file: &OwnedFd, dataset: NewDataset) -> Result<Writer> {
        let waiting = Arc::clone(&self.writers).acquire_owned();
        let permit = match tokio::time::timeout(self.admission_timeout, waiting).await {
            Ok(permit) => permit.expect("the semaphore is never closed"),
            Err(_) => {
                let message = format!("{WRITERS_MAX} puts are under way; try again");
                return Err(Error::new(Reason::Busy, message));
            }
        };
        let mut child = self.spawn(file)?;
        let input = child.stdin.take().expect("the worker's input is piped");
        let output = BufReader::new(child.stdout.take().expect("the worker's output is piped"));
        let request = Request::Write {
            dataset: Box::new(dataset),
            file_bytes_max: self.write_bytes_max.saturating_add(INDEX_BYTES_MAX),
            memory_bytes_max: self.memory_bytes_max,
        };
        let mut writer = Writer { child, input, output, _permit: permit };
        writer.send(&request.to_wire()).await?;
        Ok(writer)
    }
}

impl Writer {
    /// Hands on one chunk.
    ///
    /// # Errors
    /// What the worker met: `disk_full`, `bad_request` for the dataset as a whole, `io`, `internal`.
    pub async fn chunk(&mut self, step: &WriteStep, bytes: &[u8]) -> Result<()> {
        let size = u32::try_from(bytes.len());
        let size = size.map_err(|_| Error::new(Reason::ChunkTooLarge, "a chunk of more than 4 GiB"))?;
        self.send(&step.head(size)).await?;
        self.send(bytes).await
    }

    /// Has the file made whole.
    ///
    /// # Errors
    /// As [`Writer::chunk`].
    pub async fn finish(mut self) -> Result<()> {
        self.send(&WriteStep::Finish.head(0)).await?;
        self.answer().await?;
        let _ = tokio::time::timeout(REAP_TIMEOUT, self.child.wait()).await;
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match tokio::time::timeout(STEP_MAX, self.input.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            // It has ended, and has said why.
            Ok(Err(_)) => match self.answer().await {
                Ok(()) => Err(Error::new(Reason::Internal, "the worker ended before its file did")),
                Err(error) => Err(error),
            },
            Err(_) => Err(too_slow()),
        }
    }

    /// The one frame that a worker that writes sends.
    async fn answer(&mut self) -> Result<()> {
        let read = async {
            let mut head = [0; HEAD_BYTES];
            self.output.read_exact(&mut head).await.map_err(died)?;
            let (message_bytes, data_bytes) = Frame::lengths(head)?;
            if data_bytes > 0 {
                return Err(Error::new(Reason::Internal, "the worker answered with data where there is none"));
            }
            let mut message = vec![0; message_bytes];
            self.output.read_exact(&mut message).await.map_err(died)?;
            match Frame::from_parts(&message, bytes::Bytes::new())?.message {
                Message::Done => Ok(()),
                Message::Failed { reason, message } => Err(Error::new(reason, message)),
                other => Err(unexpected(&other).into()),
            }
        };
        tokio::time::timeout(STEP_MAX, read).await.unwrap_or_else(|_| Err(too_slow()))
    }
}

fn too_slow() -> Error {
    let message = format!("the disk took longer than {} s over a part of a put", STEP_MAX.as_secs());
    Error::new(Reason::Io, message)
}

fn died(error: std::io::Error) -> Error {
    h5flight_array::Error::new(Reason::Internal, "the worker died over the file of a put").with_source(error).into()
}
