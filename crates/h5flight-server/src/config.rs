//! What can be set. The command line, the environment and the TOML file all fill this one struct; the docs of its fields
//! are the operator's manual.

use std::net::SocketAddr;
use std::path::PathBuf;

use h5flight_array::inspect::InspectLimits;
use h5flight_catalog::model::FilePlace;

/// A folder below which files may be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its name: the only thing of it that clients see.
    pub name: String,
    /// Where it is on this machine.
    pub path: PathBuf,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Whose chunks are compared with their checksums when they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyReads {
    /// Nobody's.
    Off,
    /// Those of managed files.
    #[default]
    Managed,
    /// Those of registered files too.
    All,
}

impl VerifyReads {
    /// Whether this file's are.
    pub const fn covers(self, place: &FilePlace) -> bool {
        match (self, place) {
            (Self::Off, _) | (Self::Managed, FilePlace::Registered { .. }) => false,
            (Self::Managed, FilePlace::Managed { .. }) | (Self::All, _) => true,
        }
    }
}

/// Certificate and key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// All settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address of gRPC and Arrow Flight.
    pub listen: SocketAddr,
    /// Address of /healthz, /readyz and /metrics.
    pub http_listen: SocketAddr,
    /// Unix socket on which gRPC and Flight are served as well.
    pub unix_socket: Option<PathBuf>,
    /// Folder for uploads and, by default, the SQLite catalogue.
    pub data_dir: PathBuf,
    /// Folders below which files may be registered.
    pub roots: Vec<Root>,
    /// `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`; default: SQLite in the data folder.
    pub database_url: Option<String>,
    /// `redis://HOST:PORT`, `rediss://...` or `redis+unix://PATH`; none: memory cache only.
    pub redis_url: Option<String>,
    /// How long a block stays in Redis, in seconds.
    pub redis_ttl_s: u64,
    /// Memory for cached blocks and reads under way, in bytes: half of it cache, a quarter reads, the rest for the process.
    pub memory_bytes: u64,
    /// Whether half of `memory_bytes` is made present at the start, where the machine has twice as much to
    /// spare, and kept.
    pub touch_memory: bool,
    /// Threads that read files and decode; 0 is one per processor.
    pub decode_threads: usize,
    /// Worker processes at the same time.
    pub workers_max: usize,
    /// Address space of one worker process, in bytes.
    pub worker_memory_bytes: u64,
    /// How long a worker may inspect one file, in milliseconds.
    pub inspect_timeout_ms: u64,
    /// How long a worker may take for one read, in milliseconds.
    pub worker_read_timeout_ms: u64,
    /// Bounds of an inspection.
    pub inspect_limits: InspectLimits,
    /// Memory of the server that the report of one inspection may take, in bytes: about 2 kB for a dataset.
    pub inspect_report_bytes_max: u64,
    /// Largest declared chunk that is decoded, in bytes.
    pub chunk_bytes_max: u64,
    /// Decoded bytes of a chunk for each of its stored bytes at most. Real filters pass a million on constant data.
    pub decode_ratio_max: u64,
    /// Which files' chunks are compared with their checksums when they are read, where these are known: since the upload,
    /// or since a first deep verification.
    pub verify_reads: VerifyReads,
    /// Largest result of one request, in decoded bytes; 0 is no bound.
    pub result_bytes_max: u64,
    /// Largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// Bytes of uploads that are not finished, all together, those that are announced included; 0 is no bound.
    pub upload_quota_bytes: u64,
    /// How long an upload that broke off can go on, in hours.
    pub upload_expiry_hours: u64,
    /// How long a managed file that nothing names is kept, in hours.
    pub garbage_grace_hours: u64,
    /// How often the small files of appends are made into few, in seconds; 0 is never.
    pub compact_interval_s: u64,
    /// How long a read waits for memory, and a read or an inspection for a worker, before it is `busy`, in milliseconds.
    pub admission_timeout_ms: u64,
    /// How long a stream may stand still because its client does not read, in milliseconds.
    pub stall_timeout_ms: u64,
    /// How long a stopping server waits for running streams, in milliseconds.
    pub drain_timeout_ms: u64,
    /// How long a ticket made by GetFlightInfo is valid, in seconds.
    pub ticket_ttl_s: u64,
    /// Serve without tokens on other addresses than loopback.
    pub insecure_anonymous: bool,
    /// TLS.
    pub tls: Option<TlsFiles>,
    /// Form of the log.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8815)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 8816)),
            unix_socket: None,
            data_dir: "h5flight-data".into(),
            roots: Vec::new(),
            database_url: None,
            redis_url: None,
            redis_ttl_s: 3_600,
            memory_bytes: 1 << 30,
            touch_memory: true,
            decode_threads: 0,
            workers_max: 2,
            worker_memory_bytes: 4 << 30,
            inspect_timeout_ms: 9_000,
            worker_read_timeout_ms: 9_000,
            inspect_limits: InspectLimits::default(),
            inspect_report_bytes_max: 1 << 30,
            chunk_bytes_max: 64 << 20,
            decode_ratio_max: 1 << 22,
            verify_reads: VerifyReads::default(),
            result_bytes_max: 0,
            upload_bytes_max: 1 << 40,
            upload_quota_bytes: 2 << 40,
            upload_expiry_hours: 48,
            garbage_grace_hours: 24,
            compact_interval_s: 30,
            admission_timeout_ms: 10_000,
            stall_timeout_ms: 60_000,
            drain_timeout_ms: 30_000,
            ticket_ttl_s: 3_600,
            insecure_anonymous: false,
            tls: None,
            log_format: LogFormat::Human,
        }
    }
}

impl Config {
    /// URL of the catalogue.
    pub fn catalog_url(&self) -> String {
        let sqlite = || format!("sqlite://{}", self.data_dir.join("catalog.sqlite").display());
        self.database_url.clone().unwrap_or_else(sqlite)
    }
}
