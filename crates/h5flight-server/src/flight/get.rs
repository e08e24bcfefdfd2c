//! DoGet without tonic's codec: the answer's body is made of the frames that the read path has ready.
//!
//! All other calls go on to the generated server. What a client sends and gets is the same either way.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::{Buf, Bytes};
use h5flight_array::Reason;
use http_body_util::{BodyExt, Limited};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::server::NamedService;

use super::Flight;
use super::put::Watched;
use crate::error::{Error, Result as Answer};

const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";
const DO_PUT: &str = "/arrow.flight.protocol.FlightService/DoPut";
/// A ticket is a selection with up to a million indices.
const TICKET_BYTES_MAX: usize = 16 << 20;
/// Before a message of gRPC: whether it is compressed, and its size.
const PREFIX_BYTES: usize = 5;

/// All of Flight behind one name.
#[derive(Clone)]
pub struct FlightDoor {
    flight: Arc<Flight>,
    others: FlightServiceServer<Flight>,
}

impl FlightDoor {
    /// `serve` makes the generated server of all calls but DoGet.
    pub fn new(flight: Flight, serve: impl FnOnce(Arc<Flight>) -> FlightServiceServer<Flight>) -> Self {
        let flight = Arc::new(flight);
        Self { others: serve(Arc::clone(&flight)), flight }
    }
}

impl NamedService for FlightDoor {
    const NAME: &'static str = <FlightServiceServer<Flight> as NamedService>::NAME;
}

impl Service<Request<Body>> for FlightDoor {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.uri().path() {
            DO_GET => {}
            DO_PUT => return self.others.call(Watched::wrap(request)),
            _ => return self.others.call(request),
        }
        let flight = Arc::clone(&self.flight);
        Box::pin(async move { Ok(flight.get(request).await) })
    }
}

impl Flight {
    async fn get(&self, request: Request<Body>) -> Response<Body> {
        let mut call = self.service.log.call("DoGet");
        let (parts, body) = request.into_parts();
        let metadata = MetadataMap::from_headers(parts.headers);
        let read = async {
            let ticket = received(body).await?;
            self.read(&mut call, &metadata, &ticket).await
        };
        match read.await {
            Ok(stream) => {
                let mut response = Response::new(stream.body(call));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::clone(&GRPC_CONTENT_TYPE));
                response
            }
            Err(error) => call.end::<()>(Err(error)).expect_err("it failed").status().into_http(),
        }
    }
}

/// The one message of a call.
async fn received(body: Body) -> Answer<Ticket> {
    let refuse = |message: String| Error::new(Reason::BadRequest, message);
    let collected = Limited::new(body, PREFIX_BYTES + TICKET_BYTES_MAX).collect().await;
    let bytes = collected.map_err(|error| refuse(format!("the ticket cannot be received: {error}")))?.to_bytes();
    let message = unframed(bytes).ok_or_else(|| refuse("the call is not one uncompressed message".to_owned()))?;
    Ticket::decode(message).map_err(|error| refuse(format!("the ticket is no ticket: {error}")))
}

/// What is in a frame of gRPC; `None` where it is not one whole, uncompressed message.
fn unframed(mut frame: Bytes) -> Option<Bytes> {
    let is_plain = frame.try_get_u8().ok()? == 0;
    let bytes = frame.try_get_u32().ok()?;
    (is_plain && frame.len() as u64 == u64::from(bytes)).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_whole_uncompressed_message() {
        let unframed = |frame: &'static [u8]| unframed(Bytes::from_static(frame));
        assert_eq!(unframed(&[0, 0, 0, 0, 2, 7, 8]).as_deref(), Some(&[7, 8][..]));
        assert_eq!(unframed(&[0, 0, 0, 0, 0]).as_deref(), Some(&[][..]));
        for wrong in [&[][..], &[0, 0, 0], &[1, 0, 0, 0, 1, 7], &[0, 0, 0, 0, 2, 7], &[0, 0, 0, 0, 1, 7, 8]] {
            assert_eq!(unframed(wrong), None, "{wrong:?}");
        }
    }
}
