//! A read on its way to the client: messages, and in the end the statistics as a trailer.

use std::sync::Arc;

use arrow_flight::FlightData;
use futures::stream;
use h5flight_proto::STATS_TRAILER;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use super::ReadStats;
use super::encode::EncodedBatch;
use super::internal;
use crate::error::Result;
use crate::grpc::Messages;
use crate::telemetry::Call;

/// Schema, then batches, then the outcome. Dropping it stops the read.
pub struct ReadStream {
    schema: FlightData,
    batches: mpsc::Receiver<EncodedBatch>,
    pipeline: AbortOnDropHandle<Result<()>>,
    stats: Arc<ReadStats>,
}

struct Sending {
    read: ReadStream,
    call: Option<Call>,
    ready: std::collections::VecDeque<FlightData>,
}

impl ReadStream {
    pub(super) fn new(
        schema: FlightData,
        batches: mpsc::Receiver<EncodedBatch>,
        pipeline: AbortOnDropHandle<Result<()>>,
        stats: Arc<ReadStats>,
    ) -> Self {
        Self { schema, batches, pipeline, stats }
    }

    /// The messages of the answer; `call` ends with the last of them, or when the client goes away.
    pub fn messages(mut self, call: Call) -> Messages<FlightData> {
        let ready = [std::mem::take(&mut self.schema)].into();
        let sending = Sending { read: self, call: Some(call), ready };
        Box::pin(stream::unfold(sending, |mut sending| async move {
            let message = sending.next().await?;
            Some((message, sending))
        }))
    }
}

impl Sending {
    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
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
        let outcome = match (&mut self.read.pipeline).await {
            Ok(outcome) => outcome,
            Err(error) => Err(internal("the read's pipeline panicked", error)),
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
