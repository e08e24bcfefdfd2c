//! Uploads that survive broken connections: asked how far they are, gone on with from there, a bounded number of times.

use std::io::SeekFrom;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tonic::{Code, Status};

use super::{Client, ClientError};
use crate::v1::{IngestHeader, IngestRequest, IngestResponse, UploadState, UploadStatusRequest, ingest_request};

/// Bytes of one message of an upload.
const UPLOAD_BYTES: usize = 1 << 20;

/// How an upload is repeated when it broke off.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Failures in a row, without a byte of progress between them, before it is given up.
    pub failures_max: u32,
    /// Wait after the first failure; it doubles with each.
    pub wait_min: Duration,
    /// Longest wait.
    pub wait_max: Duration,
}

impl Default for Retry {
    /// About two minutes without progress: a server that is started anew is back by then.
    fn default() -> Self {
        Self { failures_max: 10, wait_min: Duration::from_millis(500), wait_max: Duration::from_secs(20) }
    }
}

/// What happens to an upload.
#[derive(Clone, Debug)]
pub enum UploadEvent {
    /// So many bytes of the file were handed to the connection, those of earlier attempts included.
    Sent(u64),
    /// It broke off and goes on after a wait.
    Waiting {
        /// Why, for people.
        why: String,
        /// How long.
        wait: Duration,
    },
}

impl Client {
    /// Uploads a file and goes on after broken connections, from what the server has durable. The header should tell a
    /// blake3 or a key: without them a new attempt begins at the start.
    ///
    /// # Errors
    /// [`ClientError::File`] when the file cannot be read; [`ClientError::Refused`] when the server refuses, or when
    /// there was no progress for too long.
    pub async fn upload(
        &self,
        file: &Path,
        header: IngestHeader,
        retry: Retry,
        events: impl Fn(UploadEvent) + Clone + Send + 'static,
    ) -> Result<IngestResponse, ClientError> {
        let (mut failures, mut best_bytes) = (0, 0);
        loop {
            let attempt = self.attempt(file, &header, &mut best_bytes, &mut failures, events.clone()).await;
            let status = match attempt {
                Ok(answer) => return Ok(answer),
                Err(ClientError::Refused(status)) if passes(&status) && failures < retry.failures_max => status,
                Err(error) => return Err(error),
            };
            let wait = retry.wait_min.saturating_mul(1 << failures.min(16)).min(retry.wait_max);
            failures += 1;
            events(UploadEvent::Waiting { why: status.message().to_owned(), wait });
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks how far it is and sends the rest.
    async fn attempt(
        &self,
        file: &Path,
        header: &IngestHeader,
        best_bytes: &mut u64,
        failures: &mut u32,
        events: impl Fn(UploadEvent) + Send + 'static,
    ) -> Result<IngestResponse, ClientError> {
        let offset = self.durable_bytes(header).await?;
        if offset > *best_bytes {
            (*best_bytes, *failures) = (offset, 0);
        }
        self.ingest(file, IngestHeader { offset, ..header.clone() }, move |sent| events(UploadEvent::Sent(sent))).await
    }

    async fn durable_bytes(&self, header: &IngestHeader) -> Result<u64, ClientError> {
        if header.blake3.is_empty() && header.idempotency_key.is_empty() {
            return Ok(0);
        }
        let asked = UploadStatusRequest {
            file_bytes: header.file_bytes,
            blake3: header.blake3.clone(),
            idempotency_key: header.idempotency_key.clone(),
        };
        match self.data.clone().upload_status(asked).await {
            // What is under way elsewhere is refused by the upload itself, once it has looked whether it still is.
            Ok(answer) => {
                let answer = answer.into_inner();
                Ok(if answer.state() == UploadState::None { 0 } else { answer.durable_bytes })
            }
            // A server from before uploads could go on.
            Err(status) if status.code() == Code::Unimplemented => Ok(0),
            Err(status) => Err(status.into()),
        }
    }

    /// Sends a file from the header's offset on, once. `progress` is told the bytes of the file that were handed to the
    /// connection so far.
    ///
    /// # Errors
    /// [`ClientError::File`] when the file cannot be read: the stream then breaks off, so that it can go on later.
    /// [`ClientError::Refused`] when the server refuses.
    pub async fn ingest(
        &self,
        file: &Path,
        header: IngestHeader,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<IngestResponse, ClientError> {
        let failed = |source| ClientError::File { path: file.display().to_string(), source };
        let mut opened = tokio::fs::File::open(file).await.map_err(failed)?;
        opened.seek(SeekFrom::Start(header.offset)).await.map_err(failed)?;
        // No more than was announced: a file that grows meanwhile is not what was hashed.
        let rest = opened.take(header.file_bytes.saturating_sub(header.offset));
        let (told, broken) = tokio::sync::oneshot::channel();
        let (told, mut sent) = (Arc::new(Mutex::new(Some(told))), header.offset);
        progress(sent);
        let data = futures::stream::unfold(rest, move |mut rest| {
            let told = Arc::clone(&told);
            async move {
                let mut buffer = Vec::with_capacity(UPLOAD_BYTES);
                match (&mut rest).take(UPLOAD_BYTES as u64).read_to_end(&mut buffer).await {
                    Ok(0) if rest.limit() == 0 => None,
                    Ok(bytes) if bytes > 0 => Some((Bytes::from(buffer), rest)),
                    other => {
                        let error = other.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
                        let told = told.lock().expect("no code panics while it holds this lock").take();
                        told.map(|told| told.send(error));
                        // An end would say that this was all.
                        std::future::pending().await
                    }
                }
            }
        });
        let data = data.map(move |data| {
            sent += data.len() as u64;
            progress(sent);
            IngestRequest { kind: Some(ingest_request::Kind::Data(data)) }
        });
        let first = IngestRequest { kind: Some(ingest_request::Kind::Header(header)) };
        let mut data_service = self.data.clone();
        let answer = data_service.ingest(futures::stream::once(async { first }).chain(data));
        tokio::select! {
            answer = answer => Ok(answer?.into_inner()),
            Ok(error) = broken => Err(failed(error)),
        }
    }
}

/// Whether a repetition may succeed: the connection or the server went away, or something was in the way.
fn passes(status: &Status) -> bool {
    const REASONS: [&str; 7] =
        ["busy", "catalog_unavailable", "conflict", "draining", "upload_broken", "upload_in_progress", "upload_offset"];
    match crate::reason::reason_of(status) {
        Some(reason) => REASONS.contains(&reason.as_str()),
        // Not our server's words: the transport made the status up.
        None => matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal),
    }
}
