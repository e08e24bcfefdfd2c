//! All that the calls share. Built once by [`crate::serve`]; nothing here is mutable from outside.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use h5flight_catalog::Catalog;
use tokio::sync::Semaphore;

use crate::auth::Auth;
use crate::blocking::{Blocking, Scratches};
use crate::cache::MemoryCache;
use crate::cache::redis::RedisCache;
use crate::config::Config;
use crate::files::Files;
use crate::publish::Uploads;
use crate::telemetry::AccessLog;
use crate::versions::Versions;
use crate::worker::Workers;

/// The service's parts.
pub struct Service {
    /// Settings.
    pub config: Config,
    /// What exists.
    pub catalog: Arc<dyn Catalog>,
    /// What names mean, in memory.
    pub versions: Versions,
    /// Where files are.
    pub files: Arc<Files>,
    /// Uploads that are not finished.
    pub uploads: Arc<Uploads>,
    /// Held while garbage is collected.
    pub collecting: tokio::sync::Mutex<()>,
    /// Held by the verification under way: what it compares takes memory beside the reads.
    pub verifying: tokio::sync::Mutex<()>,
    /// Where blocking work runs.
    pub blocking: Blocking,
    /// What decoding needs.
    pub scratches: Scratches,
    /// libhdf5, behind its wall.
    pub workers: Workers,
    /// Decoded blocks in memory.
    pub memory: Arc<MemoryCache>,
    /// Decoded blocks in Redis.
    pub redis: Option<Arc<RedisCache>>,
    /// Who may do what.
    pub auth: Auth,
    /// Where calls are reported.
    pub log: AccessLog,
    /// Memory for batches on their way to clients, in units of [`crate::memory::MEMORY_UNIT_BYTES`]. Apart from that for blocks: a
    /// read that holds the one and waits for the other would otherwise wait for itself.
    pub batch_memory: Arc<Semaphore>,
    /// Memory for blocks that reads under way hold, in the same units.
    pub read_memory: Arc<Semaphore>,
    /// Memory for rows on their way into files, in the same units.
    pub put_memory: Arc<Semaphore>,
    /// How many units there are for blocks; for batches there are a third as many.
    pub read_memory_units: u32,
    /// Key of tickets, shared by all servers of the catalogue.
    pub ticket_key: [u8; 32],
    /// The worker's sandbox in words.
    pub sandbox: String,
    /// When the server began.
    pub started: Instant,
}

impl Service {
    /// The program that workers run: this one.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn worker_program() -> std::io::Result<PathBuf> {
        std::env::current_exe()
    }
}
