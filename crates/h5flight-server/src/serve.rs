//! From settings to a running server, and down again.
//!
//! Start: check, open, listen, serve; every refusal is one sentence for the operator. Stop: not ready -> no new calls ->
//! wait for running streams -> write the access log -> close.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use h5flight_array::Reason;
use h5flight_catalog::Catalog;
use h5flight_catalog::model::OpenOptions;
use h5flight_proto::v1::data_service_server::DataServiceServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::Auth;
use crate::blocking::{Blocking, Scratches};
use crate::cache::MemoryCache;
use crate::cache::redis::RedisCache;
use crate::config::{Config, TlsFiles};
use crate::files::Files;
use crate::flight::{Flight, FlightDoor};
use crate::grpc::Grpc;
use crate::memory::MEMORY_UNIT_BYTES;
use crate::publish::put::compact::{Skipped, compact};
use crate::publish::{Uploads, garbage};
use crate::service::Service;
use crate::telemetry::AccessLog;
use crate::versions::Versions;
use crate::worker::Workers;
use crate::{http, metrics};

/// Streams of one connection at the same time.
const STREAMS_MAX: u32 = 128;
/// Headers of one call, in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// A message to the server: a selection with a million indices, or a part of an upload.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A message from the server: one row may be a whole frame.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;
/// Of 32 parts of the memory, those that keep decoded blocks.
const CACHE_PARTS: u64 = 15;
/// Received bytes that may be under way per stream and per connection: an upload at 1 GB/s with 4 ms of round trip.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A connection that does not answer this ping is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why a server does not start: one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StartError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    fn because(message: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

/// The sockets, bound before anything else, so that a port in use is said at once.
pub struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
    unix: Option<UnixListener>,
}

impl Listeners {
    /// Binds what the settings name.
    ///
    /// # Errors
    /// A sentence naming the address or the socket.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = async |address: SocketAddr| {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| StartError::because(format!("cannot listen on {address}: {error}"), error))
        };
        let (grpc, http) = (bind(config.listen).await?, bind(config.http_listen).await?);
        let unix = match &config.unix_socket {
            None => None,
            Some(path) => {
                remove_dead_socket(path);
                let bound = UnixListener::bind(path);
                let sentence = |error: std::io::Error| {
                    StartError::because(format!("cannot listen on the socket {}: {error}", path.display()), error)
                };
                Some(bound.map_err(sentence)?)
            }
        };
        Ok(Self { grpc, http, unix })
    }

    /// Where gRPC and Flight are served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.local_addr().expect("a bound socket has an address")
    }

    /// Where health and metrics are served.
    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr().expect("a bound socket has an address")
    }
}

/// Removes a socket that a killed server left behind: only a socket, and only one that nobody listens on.
fn remove_dead_socket(path: &Path) {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused) {
        let _ = std::fs::remove_file(path);
    }
}

/// Serves until `shutdown`, then drains. `sandbox` says in words how workers are confined; `ready` is called when nothing
/// can be refused any more.
///
/// # Errors
/// When the server cannot start, or a listener fails.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    sandbox: String,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let metrics = metrics::install();
    let catalog = open_catalog(&config).await?;
    check_exposure(&config, &listeners, catalog.as_ref()).await?;
    let stop_log = CancellationToken::new();
    let (log, log_task) = AccessLog::start(Arc::clone(&catalog), stop_log.clone());
    let service = build(config, catalog, log, sandbox).await?;
    let (draining, stopped) = (CancellationToken::new(), CancellationToken::new());
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, ServingStatus::Serving).await;
    let routes = routes(&service, health_service)?;
    let page =
        http::serve(listeners.http, Arc::clone(&service), metrics, draining.clone(), stopped.clone().cancelled_owned());
    let page = tokio::spawn(page);
    tokio::spawn(collect_garbage(Arc::clone(&service), draining.clone()));
    if service.config.compact_interval_s > 0 {
        tokio::spawn(compact_files(Arc::clone(&service), draining.clone()));
    }
    let stopping = tokio::spawn({
        let draining = draining.clone();
        async move {
            shutdown.await;
            tracing::info!("shutting down: no new calls, waiting for running ones");
            set_health(&health, ServingStatus::NotServing).await;
            draining.cancel();
        }
    });
    // The builder's own socket options count for sockets that it binds itself; without nodelay a small answer waits 40 ms.
    let incoming = TcpIncoming::from(listeners.grpc).with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE));
    let tcp = server(&service.config)?
        .add_routes(routes.clone())
        .serve_with_incoming_shutdown(incoming, draining.clone().cancelled_owned());
    let unix = serve_unix(&service.config, listeners.unix, routes, draining.clone());
    ready();
    let both = async { tokio::try_join!(async { tcp.await.map_err(port_failed) }, unix).map(drop) };
    let served = tokio::select! {
        served = both => served,
        () = drained(&draining, service.config.drain_timeout_ms) => Ok(()),
    };
    stopping.abort();
    stop_log.cancel();
    let _ = log_task.await;
    stopped.cancel();
    let _ = page.await;
    served
}

async fn serve_unix(
    config: &Config,
    socket: Option<UnixListener>,
    routes: Routes,
    draining: CancellationToken,
) -> Result<(), StartError> {
    let Some(socket) = socket else { return Ok(()) };
    // The socket's own permissions are its protection: TLS on it would only cost.
    let plain = Config { tls: None, ..config.clone() };
    let router = server(&plain)?.add_routes(routes);
    let served = router.serve_with_incoming_shutdown(UnixListenerStream::new(socket), draining.cancelled_owned());
    served.await.map_err(port_failed)
}

fn port_failed(error: tonic::transport::Error) -> StartError {
    StartError::because("the gRPC port failed", error)
}

/// Again and again, until the server stops; what is under way then is left undone.
async fn compact_files(service: Arc<Service>, draining: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_secs(service.config.compact_interval_s));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut skipped = Skipped::default();
    while draining.run_until_cancelled(ticks.tick()).await.is_some() {
        match draining.run_until_cancelled(compact(&service, &mut skipped)).await {
            None | Some(Ok((0, _))) => {}
            Some(Ok((replaced, made))) => tracing::info!(replaced, made, "small files were compacted"),
            Some(Err(error)) => tracing::warn!(error = error.chain(), "small files were not looked for"),
        }
    }
}

/// Now and then, until the server stops.
async fn collect_garbage(service: Arc<Service>, draining: CancellationToken) {
    let mut ticks = tokio::time::interval(garbage::INTERVAL);
    while draining.run_until_cancelled(ticks.tick()).await.is_some() {
        match garbage::collect(&service, garbage::Collect::Remove).await {
            Ok(found) if found.count == 0 => {}
            Ok(found) => tracing::info!(pieces = found.count, bytes = found.bytes, "garbage was collected"),
            Err(error) if error.reason() == Reason::Busy => {}
            Err(error) => tracing::warn!(error = error.chain(), "garbage was not collected"),
        }
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in ["", "h5flight.v1.DataService", "arrow.flight.protocol.FlightService"] {
        health.set_service_status(name, status).await;
    }
}

/// Ends when draining has begun and its time is over.
async fn drained(draining: &CancellationToken, drain_timeout_ms: u64) {
    draining.cancelled().await;
    tokio::time::sleep(Duration::from_millis(drain_timeout_ms)).await;
    tracing::warn!(drain_timeout_ms, "calls were cut off: the drain time is over");
}

async fn open_catalog(config: &Config) -> Result<Arc<dyn Catalog>, StartError> {
    std::fs::create_dir_all(&config.data_dir).map_err(|error| {
        StartError::because(format!("the data folder {} cannot be made: {error}", config.data_dir.display()), error)
    })?;
    let opened = h5flight_catalog::open(&config.catalog_url(), &OpenOptions::default()).await;
    opened.map_err(|error| StartError::because(format!("the catalogue cannot be opened: {error}"), error))
}

/// Without tokens everybody is an administrator: such a server stays on loopback unless it is told otherwise.
async fn check_exposure(config: &Config, listeners: &Listeners, catalog: &dyn Catalog) -> Result<(), StartError> {
    let has_tokens = catalog.has_tokens().await;
    let has_tokens = has_tokens.map_err(|error| StartError::because("the catalogue cannot be read", error))?;
    let address = listeners.grpc_address();
    match (has_tokens, address.ip().is_loopback(), config.insecure_anonymous) {
        (true, _, false) => {}
        (_, _, true) => {
            tracing::warn!(%address, "anybody who reaches this server may read and write: --insecure-anonymous")
        }
        (false, true, false) => {
            tracing::info!(
                "there are no tokens: everybody on this machine may read and write; see `h5flight token create`"
            );
        }
        (false, false, false) => {
            return Err(StartError::new(format!(
                "there are no tokens, and {address} can be reached from other machines; make a token with `h5flight token create --role admin --principal NAME`, or listen on 127.0.0.1, or pass --insecure-anonymous"
            )));
        }
    }
    if !address.ip().is_loopback() && config.tls.is_none() {
        tracing::warn!(%address, "without TLS, tokens and data can be read on the network; see --tls-certificate");
    }
    Ok(())
}

async fn build(
    config: Config,
    catalog: Arc<dyn Catalog>,
    log: AccessLog,
    sandbox: String,
) -> Result<Arc<Service>, StartError> {
    let files = Files::open(&config.roots, &config.data_dir).map_err(|error| StartError::new(error.to_string()))?;
    let secret = async |name| {
        let made = catalog.secret(name).await;
        made.map_err(|error| StartError::because("the catalogue cannot be read", error))
    };
    let ticket_key = secret(h5flight_catalog::TICKET_SECRET).await?;
    let redis = match &config.redis_url {
        None => None,
        Some(url) => {
            let (redis, queued) =
                RedisCache::new(url, secret("redis").await?).map_err(|error| StartError::new(error.to_string()))?;
            let redis = Arc::new(redis);
            let (storing, ttl) = (Arc::clone(&redis), Duration::from_secs(config.redis_ttl_s));
            tokio::spawn(async move { storing.store_queued(queued, ttl).await });
            Some(redis)
        }
    };
    let program = Service::worker_program();
    let program = program.map_err(|error| StartError::because("this program's own file cannot be found", error))?;
    // A little less than half of the memory keeps blocks and a quarter is for reads under way. The rest is the process
    // itself, and what the allocator cannot give out: blocks of 10 MB leave holes.
    let units = u32::try_from(config.memory_bytes / 4 / MEMORY_UNIT_BYTES).unwrap_or(u32::MAX);
    let (batch_memory_units, read_memory_units) = ((units / 4).max(1), (units / 4 * 3).max(3));
    let put_memory_units = (config.memory_bytes / 8 / MEMORY_UNIT_BYTES).clamp(1, u64::from(u32::MAX)) as usize;
    tracing::info!(
        catalog = catalog.backend(),
        redis = redis.is_some(),
        memory_bytes = config.memory_bytes,
        roots = files.root_names().join(","),
        worker_sandbox = sandbox,
        "starting"
    );
    Ok(Arc::new(Service {
        versions: Versions::new(Arc::clone(&catalog)),
        files: Arc::new(files),
        collecting: tokio::sync::Mutex::default(),
        verifying: tokio::sync::Mutex::default(),
        uploads: Arc::new(Uploads::new(config.data_dir.join("uploads"))),
        blocking: Blocking::new(config.decode_threads),
        scratches: Scratches::default(),
        workers: Workers::new(program, &config),
        memory: MemoryCache::new(config.memory_bytes / 32 * CACHE_PARTS),
        redis,
        auth: Auth::new(Arc::clone(&catalog), config.insecure_anonymous),
        log,
        batch_memory: Arc::new(Semaphore::new(batch_memory_units as usize)),
        read_memory: Arc::new(Semaphore::new(read_memory_units as usize)),
        put_memory: Arc::new(Semaphore::new(put_memory_units)),
        read_memory_units,
        ticket_key,
        sandbox,
        started: Instant::now(),
        catalog,
        config,
    }))
}

/// A server with every limit said.
fn server(config: &Config) -> Result<Server<Layers>, StartError> {
    let mut server = Server::builder();
    if let Some(files) = &config.tls {
        let tls = tls(files)?;
        server = server.tls_config(tls).map_err(|error| StartError::because("the TLS files are not usable", error))?;
    }
    Ok(server
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .layer(CatchPanicLayer::custom(answer_panic as fn(Panic) -> tonic::codegen::http::Response<tonic::body::Body>)))
}

type Panic = Box<dyn std::any::Any + Send>;
type Layers = Stack<CatchPanicLayer<fn(Panic) -> tonic::codegen::http::Response<tonic::body::Body>>, Identity>;

/// A panic is our mistake: the client is told so, the process goes on. The panic hook has logged it.
fn answer_panic(_: Panic) -> tonic::codegen::http::Response<tonic::body::Body> {
    crate::error::Error::new(h5flight_array::Reason::Internal, "a call panicked").status().into_http()
}

/// All services of the port.
fn routes(service: &Arc<Service>, health: HealthServer<impl Health>) -> Result<Routes, StartError> {
    let data = DataServiceServer::new(Grpc::new(Arc::clone(service)))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let flight = FlightDoor::new(Flight::new(Arc::clone(service)), |flight| {
        FlightServiceServer::from_arc(flight)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(h5flight_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| StartError::because("reflection cannot be built", error))?;
    Ok(Routes::new(data).add_service(flight).add_service(health).add_service(reflection))
}

fn tls(files: &TlsFiles) -> Result<ServerTlsConfig, StartError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            StartError::because(format!("the TLS file {} cannot be read: {error}", path.display()), error)
        })
    };
    Ok(ServerTlsConfig::new()
        .identity(tonic::transport::Identity::from_pem(read(&files.certificate)?, read(&files.key)?)))
}
