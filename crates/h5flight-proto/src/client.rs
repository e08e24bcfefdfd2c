//! The Rust client: what the command line and the end-to-end tests speak through.
//!
//! ```no_run
//! # async fn example() -> Result<(), h5flight_proto::client::ClientError> {
//! use futures::TryStreamExt;
//! use h5flight_proto::{client::Client, v1::GetDataRequest};
//! let client = Client::connect("grpc://127.0.0.1:8815", None).await?;
//! let request = GetDataRequest { animal: "m1".into(), experiment: "day1".into(), dataset: "imaging".into(), ..Default::default() };
//! let batches: Vec<_> = client.get_data(request).await?.batches.try_collect().await?;
//! # Ok(()) }
//! ```

mod upload;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::v1::data_service_client::DataServiceClient;
use crate::v1::{self, GetDataRequest};

pub use self::upload::{Retry, UploadEvent};

/// One Arrow row may be a whole frame: the protocol's own bound of 2 GiB is the only one that fits.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that does not even answer a ping within this time is given up, twice this after the call.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What went wrong between the client and the server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is not one.
    #[error("{0:?} is not a server URL: expected grpc://host:port or grpc+tls://host:port")]
    Url(String),
    /// Nobody answers there.
    #[error("no h5flight server answers at {url}; start one with `h5flight serve` or name another with --url")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The token has characters that a header cannot carry.
    #[error("the token has characters that a token never has")]
    Token,
    /// The server refused.
    #[error("{}", .0.message())]
    Refused(#[from] Box<Status>),
    /// The stream of batches broke.
    #[error("the answer cannot be read: {0}")]
    Stream(#[from] Box<FlightError>),
    /// A local file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl ClientError {
    /// The server's stable reason, where it refused.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Refused(status) => crate::reason::reason_of(status),
            Self::Stream(error) => match error.as_ref() {
                FlightError::Tonic(status) => crate::reason::reason_of(status),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Adds the bearer token to each call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

type Authorized = InterceptedService<Channel, Bearer>;

/// A connection to a server. Cheap to clone; calls run side by side over one HTTP/2 connection.
#[derive(Clone)]
pub struct Client {
    /// The service's own calls.
    pub data: DataServiceClient<Authorized>,
    /// Arrow Flight's calls.
    pub flight: FlightServiceClient<Authorized>,
}

/// A slice on its way: batches in order of rows, and after the last one the read's statistics.
pub struct SliceStream {
    /// The batches.
    pub batches: BoxStream<'static, Result<RecordBatch, ClientError>>,
    stats: Arc<Mutex<Option<String>>>,
}

impl SliceStream {
    /// The JSON object of the trailer `h5flight-stats`; `None` before the stream has ended.
    pub fn stats_json(&self) -> Option<String> {
        self.stats.lock().expect("no code panics while it holds this lock").clone()
    }
}

impl Client {
    /// Connects to `grpc://host:port`, `grpc+tls://host:port` (system roots) or `http(s)://...`.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Connect`] or [`ClientError::Token`].
    pub async fn connect(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let bad_url = || ClientError::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(bad_url)?;
        let scheme = match scheme {
            "grpc" | "grpc+tcp" | "http" => "http",
            "grpc+tls" | "https" => "https",
            _ => return Err(bad_url()),
        };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{rest}"))
            .map_err(|_| bad_url())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        if scheme == "https" {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots()).map_err(|_| bad_url())?;
        }
        let bearer = token
            .map(|token| MetadataValue::try_from(format!("Bearer {token}")))
            .transpose()
            .map_err(|_| ClientError::Token)?;
        let connected = endpoint.connect().await;
        let channel = connected.map_err(|source| ClientError::Connect { url: url.to_owned(), source })?;
        Ok(Self::over(channel, bearer))
    }

    fn over(channel: Channel, bearer: Option<MetadataValue<Ascii>>) -> Self {
        let bearer = Bearer(bearer);
        Self {
            data: DataServiceClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            flight: FlightServiceClient::with_interceptor(channel, bearer)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    /// One slice, as GetData streams it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] at once when the request is refused; later errors come through the stream.
    pub async fn get_data(&self, request: GetDataRequest) -> Result<SliceStream, ClientError> {
        Ok(slice_stream(self.data.clone().get_data(request).await?.into_inner()))
    }

    /// Reads a table as a stream of batches.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's reason; later errors come through the stream.
    pub async fn get_table(&self, request: v1::GetTableRequest) -> Result<SliceStream, ClientError> {
        Ok(slice_stream(self.data.clone().get_table(request).await?.into_inner()))
    }

    /// Who and what the server is.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn server_info(&self) -> Result<v1::GetServerInfoResponse, ClientError> {
        Ok(self.data.clone().get_server_info(v1::GetServerInfoRequest {}).await?.into_inner())
    }
}

fn stats_text(trailers: &tonic::metadata::MetadataMap) -> Option<String> {
    trailers.get(crate::STATS_TRAILER)?.to_str().ok().map(str::to_owned)
}

/// Messages as batches; what the trailer says is kept for later.
fn slice_stream(messages: tonic::Streaming<arrow_flight::FlightData>) -> SliceStream {
    let stats = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&stats);
    let messages = futures::stream::try_unfold(messages, move |mut messages| {
        let kept = Arc::clone(&kept);
        async move {
            if let Some(message) = messages.message().await? {
                return Ok(Some((message, messages)));
            }
            if let Some(text) = messages.trailers().await?.and_then(|all| stats_text(&all)) {
                *kept.lock().expect("no code panics while it holds this lock") = Some(text);
            }
            Ok::<_, Status>(None)
        }
    });
    let batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
    let batches = batches.map_err(|error| match error {
        FlightError::Tonic(status) => ClientError::Refused(status),
        other => ClientError::Stream(Box::new(other)),
    });
    SliceStream { batches: batches.boxed(), stats }
}
