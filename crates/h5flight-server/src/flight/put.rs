//! DoPut: rows that become a dataset. The descriptor's command is a `h5flight.v1.PutRequest` in an `Any`, or its path is
//! [animal, experiment, dataset...]; the one answer comes when all is durable and visible.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use futures::StreamExt;
use h5flight_array::Reason;
use h5flight_catalog::model::Role;
use h5flight_proto::v1::PutRequest;
use http_body::{Frame, SizeHint};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Request, Status, Streaming};

use crate::blocking::Lane;
use crate::convert;
use crate::error::{Error, Result as Answer};
use crate::grpc::{Messages, admit, broken};
use crate::publish;
use crate::service::Service;
use crate::telemetry::Call;

/// Set when a client has ended its stream, and not when it went away: for a put that is all the difference, and neither
/// tonic nor hyper tell it.
#[derive(Clone, Debug, Default)]
pub struct Ended(Arc<AtomicBool>);

/// A body that tells how it ended.
pub struct Watched {
    body: Body,
    ended: Ended,
}

impl Watched {
    /// Puts the watch into the request's extensions.
    pub fn wrap(request: tonic::codegen::http::Request<Body>) -> tonic::codegen::http::Request<Body> {
        let (mut parts, body) = request.into_parts();
        let ended = Ended::default();
        parts.extensions.insert(ended.clone());
        tonic::codegen::http::Request::from_parts(parts, Body::new(Self { body, ended }))
    }
}

impl http_body::Body for Watched {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // A reset stream gives out nothing more as well, but it is not at its end.
        if matches!(frame, Poll::Ready(None)) && http_body::Body::is_end_stream(&self.body) {
            self.ended.0.store(true, Ordering::Release);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        // Whoever believes it would not ask for the end, which is where it is seen.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Takes a put in a task of its own: what it began is cleared away whatever the client does.
pub fn put(service: Arc<Service>, mut call: Call, request: Request<Streaming<FlightData>>) -> Messages<PutResult> {
    let (answers, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let answer = taken(&service, &mut call, request).await;
        let answer = call.end(answer).map_err(|error| error.status());
        // A client that is gone asks again.
        let _ = answers.send(answer).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn taken(service: &Arc<Service>, call: &mut Call, request: Request<Streaming<FlightData>>) -> Answer<PutResult> {
    let (metadata, extensions, mut messages) = request.into_parts();
    let principal = admit(service, call, &metadata, Role::Ingest).await?;
    let first = messages.next().await.transpose().map_err(broken)?.unwrap_or_default();
    let asked = asked(first.flight_descriptor.as_ref())?;
    call.path(&format!("{}/{}/{}", asked.animal, asked.experiment, asked.dataset));
    let asked = convert::put::put_request(asked, &principal)?;
    let header = first.data_header;
    let schema = service.blocking.run(Lane::Deliver, move || publish::put::schema(&header)).await?;
    let ended = extensions.get::<Ended>().cloned().unwrap_or_default().0;
    let messages = messages.map(|message| message.map_err(broken));
    let put = publish::put::put(service, asked, publish::put::Rows { schema, messages, ended }).await?;
    call.sent(put.rows, 0, "put");
    Ok(PutResult { app_metadata: convert::put::put_response(put).encode_to_vec().into() })
}

fn asked(descriptor: Option<&FlightDescriptor>) -> Answer<PutRequest> {
    let refuse = || {
        let message = "a put begins with a descriptor: a h5flight.v1.PutRequest in a google.protobuf.Any, or the path \
                       [animal, experiment, dataset...]";
        Error::new(Reason::BadRequest, message)
    };
    let descriptor = descriptor.ok_or_else(refuse)?;
    match (descriptor.r#type(), descriptor.path.as_slice()) {
        (DescriptorType::Path, [animal, experiment, dataset @ ..]) if !dataset.is_empty() => Ok(PutRequest {
            animal: animal.clone(),
            experiment: experiment.clone(),
            dataset: dataset.join("/"),
            ..PutRequest::default()
        }),
        (DescriptorType::Cmd, _) => h5flight_proto::unpack_put(&descriptor.cmd).ok_or_else(refuse),
        _ => Err(refuse()),
    }
}
