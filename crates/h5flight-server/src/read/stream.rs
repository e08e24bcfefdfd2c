//! A read on its way to the client: messages, and in the end the statistics as a trailer.
//!
//! It leaves as a stream of messages for tonic's codec, or as the body of an HTTP/2 stream with the frames that are
//! there already: the codec would copy each message, and let its buffer grow while it does.

use std::sync::Arc;

use arrow_flight::FlightData;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use h5flight_proto::STATS_TRAILER;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::{Code, Status};

use super::ReadStats;
use super::encode::{EncodedBatch, FlightMessage};
use super::internal;
use crate::error::Result;
use crate::grpc::Messages;
use crate::telemetry::Call;

/// Schema, then batches, then the outcome. Dropping it stops the read.
pub struct ReadStream {
    schema: FlightMessage,
    batches: mpsc::Receiver<EncodedBatch>,
    pipeline: Pipeline,
    stats: Arc<ReadStats>,
}

/// What makes the batches.
pub(crate) enum Pipeline {
    /// A task, some batches ahead of the client.
    Running(AbortOnDropHandle<Result<()>>),
    /// Nothing any more: all batches are made. A task has the memory reserved that they take while they wait.
    Ended(Result<()>, #[expect(dead_code, reason = "it is held, and dropped with the stream")] AbortOnDropHandle<()>),
    /// The outcome was told.
    Told,
}

struct Sending {
    read: ReadStream,
    call: Option<Call>,
    ready: std::collections::VecDeque<FlightMessage>,
}

impl ReadStream {
    pub(crate) fn new(
        schema: FlightMessage,
        batches: mpsc::Receiver<EncodedBatch>,
        pipeline: Pipeline,
        stats: Arc<ReadStats>,
    ) -> Self {
        Self { schema, batches, pipeline, stats }
    }

    /// The messages of the answer; `call` ends with the last of them, or when the client goes away.
    pub fn messages(self, call: Call) -> Messages<FlightData> {
        Box::pin(self.sent(call).map(|message| message.map(FlightMessage::into_flight_data)))
    }

    /// The same as the body of an answer of gRPC: frames and, in the end, trailers.
    pub fn body(self, call: Call) -> Body {
        let frames = self.sent(call).flat_map(|message| {
            let message = message.and_then(|message| message.into_frame().map_err(|error| error.status()));
            let frames: Vec<Frame<Bytes>> = match message {
                Ok(pieces) => pieces.into_iter().map(Frame::data).collect(),
                Err(status) => vec![Frame::trailers(trailers(&status))],
            };
            stream::iter(frames.into_iter().map(Ok::<_, Status>))
        });
        Body::new(StreamBody::new(frames))
    }

    fn sent(mut self, call: Call) -> impl Stream<Item = Result<FlightMessage, Status>> + Send {
        let ready = [std::mem::take(&mut self.schema)].into();
        let sending = Sending { read: self, call: Some(call), ready };
        stream::unfold(sending, |mut sending| async move {
            let message = sending.next().await?;
            Some((message, sending))
        })
    }
}

/// What gRPC says at the end of a stream. A status that no header can hold becomes one without details.
fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        headers.clear();
        let plain = Status::new(status.code(), "");
        // A number is a header.
        let _ = plain.add_header(&mut headers);
    }
    headers
}

impl Sending {
    async fn next(&mut self) -> Option<Result<FlightMessage, Status>> {
        if let Some(message) = self.ready.pop_front() {
            return Some(Ok(message));
        }
        if let Some(batch) = self.read.batches.recv().await {
            self.read.stats.sent(batch.rows, batch.bytes);
            let (rows, bytes) = self.read.stats.totals();
            if let Some(call) = &mut self.call {
                call.sent(rows, bytes, &self.read.stats.tiers());
            }
            self.ready.extend(batch.messages);
            return self.ready.pop_front().map(Ok);
        }
        // No more batches: the pipeline has ended, well or badly. After that the stream is at its end.
        let call = self.call.take()?;
        let outcome = match std::mem::replace(&mut self.read.pipeline, Pipeline::Told) {
            Pipeline::Ended(outcome, _) => outcome,
            Pipeline::Told => Ok(()),
            Pipeline::Running(task) => {
                task.await.unwrap_or_else(|error| Err(internal("the read's pipeline panicked", error)))
            }
        };
        Some(Err(match call.end(outcome) {
            Ok(()) => self.trailer(),
            Err(error) => error.status(),
        }))
    }

    /// Tonic sends the metadata of a final status as trailers, also of the status "ok".
    fn trailer(&self) -> Status {
        let mut status = Status::new(Code::Ok, "");
        let stats = self.read.stats.to_json().to_string();
        status.metadata_mut().insert(STATS_TRAILER, stats.parse().expect("JSON of numbers is plain text"));
        status
    }
}
