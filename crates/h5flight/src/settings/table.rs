//! Each setting once: its name, what it takes, its default, what the operator needs to know, where it goes.
//!
//! The sample configuration file and the help text are made from this table, in this order.

use h5flight_server::config::{LogFormat, VerifyReads};

use super::Draft;
use super::parse::{address, bytes, choice, count, millis, root, seconds, set, switch};

/// How many values a setting takes, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    One,
    /// One value that may also come from the file named by `H5FLIGHT_..._FILE`.
    Secret,
    /// Any number: the flag repeated, the variable separated by commas, the key an array.
    List,
    /// On or off; the flag takes no value.
    Switch,
}

/// One setting.
pub struct Setting {
    /// Key in the file; flag and variable are made of it.
    pub key: &'static str,
    /// What its value is called in the help text.
    pub value: &'static str,
    /// Its default as text; empty where there is none.
    pub default: &'static str,
    /// Shown in the sample file where there is no default.
    pub example: &'static str,
    /// For the operator.
    pub help: &'static str,
    /// How many values.
    pub kind: Kind,
    /// Puts one value where it belongs, or says what was expected.
    pub apply: Apply,
}

type Apply = fn(&mut Draft, &str) -> Result<(), String>;

impl Setting {
    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("H5FLIGHT_{}", self.key.to_uppercase())
    }

    const fn new(
        key: &'static str,
        value: &'static str,
        default: &'static str,
        help: &'static str,
        apply: Apply,
    ) -> Self {
        Self { key, value, default, example: "", help, kind: Kind::One, apply }
    }

    const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }
}

/// All settings.
pub static TABLE: &[Setting] = &[
    Setting::new(
        "listen",
        "HOST:PORT",
        "127.0.0.1:8815",
        "Address of gRPC and Arrow Flight; port 0 takes a free one",
        |draft, text| set(&mut draft.config.listen, address(text)),
    ),
    Setting::new(
        "http_listen",
        "HOST:PORT",
        "127.0.0.1:8816",
        "Address of /healthz, /readyz and /metrics",
        |draft, text| set(&mut draft.config.http_listen, address(text)),
    ),
    Setting::new(
        "unix_socket",
        "PATH",
        "",
        "Unix socket on which gRPC and Flight are served as well",
        |draft, text| set(&mut draft.config.unix_socket, Ok(Some(text.into()))),
    )
    .example("/run/h5flight/h5flight.sock"),
    Setting::new(
        "data_dir",
        "DIR",
        "h5flight-data",
        "Folder for uploads and, by default, the SQLite catalogue",
        |draft, text| set(&mut draft.config.data_dir, Ok(text.into())),
    ),
    Setting::new(
        "root",
        "NAME=PATH",
        "",
        "Folder below which files may be registered, and the name by which clients know it; any number",
        |draft, text| root(text).map(|root| draft.config.roots.push(root)),
    )
    .kind(Kind::List)
    .example("lab=/data/lab"),
    Setting::new(
        "database_url",
        "URL",
        "",
        "Catalogue: sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE; without it SQLite in the data folder. \
         H5FLIGHT_DATABASE_URL_FILE names a file that holds it",
        |draft, text| set(&mut draft.config.database_url, super::parse::database_url(text).map(Some)),
    )
    .kind(Kind::Secret)
    .example("postgres://h5flight:secret@localhost/h5flight"),
    Setting::new(
        "redis_url",
        "URL",
        "",
        "Second cache: redis://HOST:PORT, rediss://HOST:PORT or redis+unix://PATH; without it memory only. \
         H5FLIGHT_REDIS_URL_FILE names a file that holds it",
        |draft, text| set(&mut draft.config.redis_url, super::parse::redis_url(text).map(Some)),
    )
    .kind(Kind::Secret)
    .example("redis://localhost:6379"),
    Setting::new("redis_ttl_s", "SECONDS", "3600", "How long a block stays in Redis, in seconds", |draft, text| {
        set(&mut draft.config.redis_ttl_s, seconds(text))
    }),
    Setting::new(
        "memory_bytes",
        "BYTES",
        "1GiB",
        "Memory for cached blocks and reads under way: half of it cache, a quarter reads, the rest for the process itself",
        |draft, text| set(&mut draft.config.memory_bytes, bytes(text, 1 << 20)),
    ),
    Setting::new(
        "touch_memory",
        "yes|no",
        "yes",
        "Make half of memory_bytes present at the start, where the machine has twice as much to spare: fresh \
         memory costs a cold read more than decoding does on many virtual machines",
        |draft, text| set(&mut draft.config.touch_memory, switch(text)),
    ),
    Setting::new(
        "decode_threads",
        "N",
        "0",
        "Threads that read files and decode; 0 is one per processor",
        |draft, text| set(&mut draft.config.decode_threads, count(text, 0)),
    ),
    Setting::new("workers_max", "N", "2", "Worker processes at the same time", |draft, text| {
        set(&mut draft.config.workers_max, count(text, 1))
    }),
    Setting::new("worker_memory_bytes", "BYTES", "4GiB", "Address space of one worker process", |draft, text| {
        set(&mut draft.config.worker_memory_bytes, bytes(text, 64 << 20))
    }),
    Setting::new(
        "inspect_timeout_ms",
        "MILLIS",
        "9000",
        "How long workers may inspect one file, in milliseconds; 100,000 datasets take about 5 s",
        |draft, text| set(&mut draft.config.inspect_timeout_ms, millis(text)),
    ),
    Setting::new(
        "worker_read_timeout_ms",
        "MILLIS",
        "9000",
        "How long a worker may take for one read, in milliseconds",
        |draft, text| set(&mut draft.config.worker_read_timeout_ms, millis(text)),
    ),
    Setting::new(
        "inspect_objects_max",
        "N",
        "1000000",
        "Groups, datasets and named types of one file; more is file_too_complex, as with the bounds that follow",
        |draft, text| set(&mut draft.config.inspect_limits.objects_max, count(text, 1)),
    ),
    Setting::new("inspect_links_max", "N", "2000000", "Links of all groups of one file together", |draft, text| {
        set(&mut draft.config.inspect_limits.links_max, count(text, 1))
    }),
    Setting::new("inspect_depth_max", "N", "1000", "Groups inside groups", |draft, text| {
        set(&mut draft.config.inspect_limits.depth_max, count(text, 1))
    }),
    Setting::new("inspect_name_bytes_max", "BYTES", "4096", "Length of one link name", |draft, text| {
        set(&mut draft.config.inspect_limits.name_bytes_max, bytes(text, 1))
    }),
    Setting::new("inspect_attributes_max", "N", "10000", "Attributes of one object", |draft, text| {
        set(&mut draft.config.inspect_limits.attributes_max, count(text, 0))
    }),
    Setting::new(
        "inspect_attribute_bytes_max",
        "BYTES",
        "1MiB",
        "Size of one attribute's value; larger ones are listed without their value",
        |draft, text| set(&mut draft.config.inspect_limits.attribute_bytes_max, bytes(text, 0)),
    ),
    Setting::new("inspect_chunks_max", "N", "50000000", "Chunks of all arrays of one file together", |draft, text| {
        set(&mut draft.config.inspect_limits.chunks_max, count(text, 1))
    }),
    Setting::new(
        "inspect_report_bytes_max",
        "BYTES",
        "1GiB",
        "Memory of the server that the report of one inspection may take, besides memory_bytes; about 2 kB for a dataset",
        |draft, text| set(&mut draft.config.inspect_report_bytes_max, bytes(text, 1 << 20)),
    ),
    Setting::new("chunk_bytes_max", "BYTES", "64MiB", "Largest declared chunk that is decoded", |draft, text| {
        set(&mut draft.config.chunk_bytes_max, bytes(text, 1))
    }),
    Setting::new(
        "decode_ratio_max",
        "N",
        "4194304",
        "Decoded bytes of a chunk for each of its stored bytes at most; a chunk of zeros may well pass a million",
        |draft, text| set(&mut draft.config.decode_ratio_max, count(text, 1)),
    ),
    Setting::new(
        "verify_reads",
        "off|managed|all",
        "managed",
        "Whose chunks are compared with their checksums when they are read from the file: uploaded files have them, \
         registered ones after a deep verification. A GB of stored bytes takes 0.05 to 0.1 s of processor time",
        |draft, text| {
            let choices = [("off", VerifyReads::Off), ("managed", VerifyReads::Managed), ("all", VerifyReads::All)];
            set(&mut draft.config.verify_reads, choice(text, &choices))
        },
    ),
    Setting::new(
        "result_bytes_max",
        "BYTES",
        "0",
        "Largest result of one request, decoded; 0 is no bound",
        |draft, text| set(&mut draft.config.result_bytes_max, bytes(text, 0)),
    ),
    Setting::new("upload_bytes_max", "BYTES", "1TiB", "Largest upload", |draft, text| {
        set(&mut draft.config.upload_bytes_max, bytes(text, 1))
    }),
    Setting::new(
        "upload_quota_bytes",
        "BYTES",
        "2TiB",
        "Bytes of uploads that are not finished, all together, those that are announced included; 0 is no bound but the disk",
        |draft, text| set(&mut draft.config.upload_quota_bytes, bytes(text, 0)),
    ),
    Setting::new(
        "upload_expiry_hours",
        "HOURS",
        "48",
        "How long an upload that broke off can go on, in hours; then its bytes are removed",
        |draft, text| set(&mut draft.config.upload_expiry_hours, count(text, 0)),
    ),
    Setting::new(
        "garbage_grace_hours",
        "HOURS",
        "24",
        "How long an uploaded file is kept that nothing in the catalogue names, in hours",
        |draft, text| set(&mut draft.config.garbage_grace_hours, count(text, 0)),
    ),
    Setting::new(
        "compact_interval_s",
        "SECONDS",
        "30",
        "How often the small files of appends are made into few, in seconds; 0 is never",
        |draft, text| set(&mut draft.config.compact_interval_s, count(text, 0)),
    ),
    Setting::new(
        "admission_timeout_ms",
        "MILLIS",
        "10000",
        "How long a read waits for memory before it is `busy`, in milliseconds",
        |draft, text| set(&mut draft.config.admission_timeout_ms, millis(text)),
    ),
    Setting::new(
        "stall_timeout_ms",
        "MILLIS",
        "60000",
        "How long a stream may stand still because its client does not read, in milliseconds",
        |draft, text| set(&mut draft.config.stall_timeout_ms, millis(text)),
    ),
    Setting::new(
        "drain_timeout_ms",
        "MILLIS",
        "30000",
        "How long a stopping server waits for running streams, in milliseconds",
        |draft, text| set(&mut draft.config.drain_timeout_ms, millis(text)),
    ),
    Setting::new(
        "ticket_ttl_s",
        "SECONDS",
        "3600",
        "How long a ticket made by GetFlightInfo is valid, in seconds",
        |draft, text| set(&mut draft.config.ticket_ttl_s, seconds(text)),
    ),
    Setting::new(
        "insecure_anonymous",
        "",
        "false",
        "Serve without tokens on other addresses than loopback",
        |draft, text| set(&mut draft.config.insecure_anonymous, switch(text)),
    )
    .kind(Kind::Switch),
    Setting::new(
        "tls_certificate",
        "PATH",
        "",
        "Certificate chain, PEM; with tls_key the server speaks TLS",
        |draft, text| set(&mut draft.tls_certificate, Ok(Some(text.into()))),
    )
    .example("/etc/h5flight/tls.crt"),
    Setting::new("tls_key", "PATH", "", "Private key of the certificate, PEM", |draft, text| {
        set(&mut draft.tls_key, Ok(Some(text.into())))
    })
    .example("/etc/h5flight/tls.key"),
    Setting::new(
        "log_format",
        "human|json",
        "human",
        "Form of the log: lines for people or JSON objects",
        |draft, text| {
            set(&mut draft.config.log_format, choice(text, &[("human", LogFormat::Human), ("json", LogFormat::Json)]))
        },
    ),
    Setting::new(
        "log",
        "FILTER",
        "info",
        "Which log lines are written: a level, or levels by module such as info,h5flight_server=debug; RUST_LOG serves too",
        |draft, text| set(&mut draft.log, Ok(Some(text.to_owned()))),
    ),
];
