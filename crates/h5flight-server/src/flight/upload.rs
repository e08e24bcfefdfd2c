//! Uploads over Flight, for clients that speak nothing else: DoExchange, the descriptor's command is a header
//! (`h5flight.v1.IngestHeader` in an `Any`), the `app_metadata` of each message bytes of the file.
//!
//! Answered in `app_metadata` too, as JSON: now and then `{"durable_bytes"}`, and in the end what the upload made.

use std::sync::Arc;

use arrow_flight::FlightData;
use bytes::Bytes;
use futures::StreamExt;
use h5flight_array::Reason;
use h5flight_catalog::model::Role;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use crate::convert::{self, as_json};
use crate::error::{Error, Result as Answer};
use crate::grpc::{Messages, admit, broken};
use crate::publish;
use crate::service::Service;
use crate::telemetry::Call;

/// Answers that wait for the client; while it does not read, no more are made.
const ANSWERS_QUEUED_MAX: usize = 4;

/// Takes an upload in a task of its own, as [`crate::grpc`] does.
pub fn exchange(
    service: Arc<Service>,
    mut call: Call,
    metadata: MetadataMap,
    messages: Streaming<FlightData>,
) -> Messages<FlightData> {
    let (answers, receiver) = mpsc::channel(ANSWERS_QUEUED_MAX);
    tokio::spawn(async move {
        let answer = upload(&service, &mut call, &metadata, messages, &answers).await;
        let answer = call.end(answer).map(message).map_err(|error| error.status());
        // A client that is gone asks again.
        let _ = answers.send(answer).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn upload(
    service: &Arc<Service>,
    call: &mut Call,
    metadata: &MetadataMap,
    mut messages: Streaming<FlightData>,
    answers: &mpsc::Sender<Result<FlightData, Status>>,
) -> Answer<Value> {
    let principal = admit(service, call, metadata, Role::Ingest).await?;
    let first = messages.next().await.transpose().map_err(broken)?.unwrap_or_default();
    let command = first.flight_descriptor.map(|descriptor| descriptor.cmd).unwrap_or_default();
    let header = h5flight_proto::unpack_header(&command).ok_or_else(|| {
        let message = "an upload begins with a h5flight.v1.IngestHeader in a google.protobuf.Any as its command";
        Error::new(Reason::BadRequest, message)
    })?;
    call.path(&header.file_name);
    let header = convert::upload_header(header, &principal)?;
    let first: Answer<Bytes> = Ok(first.app_metadata);
    let rest = messages.map(|message| message.map(|message| message.app_metadata).map_err(broken));
    let data = futures::stream::iter([first]).chain(rest);
    let durable = |bytes: u64| {
        let _ = answers.try_send(Ok(message(json!({ "durable_bytes": bytes }))));
    };
    let uploaded = publish::upload(service, header, data, durable).await?;
    call.sent(0, 0, "upload");
    Ok(as_json::uploaded(&convert::uploaded(uploaded)))
}

fn message(answer: Value) -> FlightData {
    FlightData { app_metadata: answer.to_string().into(), ..FlightData::default() }
}
