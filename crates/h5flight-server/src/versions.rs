//! Resolved dataset versions, kept in memory: a read of a known dataset asks SQL nothing, or one small question.
//!
//! What a version is never changes, so it is kept for as long as there is room. Which version is the current one does
//! change: by our own publications, which tell us, and by other servers on the same catalogue, so a name is trusted for
//! [`FRESH`] and then asked again. When the catalogue is away, what is known goes on being served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use h5flight_catalog::Catalog;
use h5flight_catalog::error::ErrorKind;
use h5flight_catalog::model::{ArrayRecord, DatasetPath, ResolvedVersion, VersionSelector};

use crate::error::Result;

/// How long a name is trusted to mean the same version: another server's publication shows up within this time.
const FRESH: Duration = Duration::from_secs(1);
/// Memory for resolved versions, in bytes. A chunk takes 24: room for about 5 M chunks.
const BYTES_MAX: u64 = 128 << 20;
/// Bytes of a version without its chunks: names, attributes, metadata.
const VERSION_BYTES: u64 = 4096;
/// Bytes of a mapping of a virtual array.
const MAPPING_BYTES: u64 = 256;

/// The versions in memory.
pub struct Versions {
    catalog: Arc<dyn Catalog>,
    by_name: moka::sync::Cache<(DatasetPath, VersionSelector), Named>,
}

#[derive(Clone)]
struct Named {
    version: Arc<ResolvedVersion>,
    seen: Instant,
    /// False where a source of a virtual array lies in another file: when that is registered, or registered anew, the
    /// same version has other sources.
    settled: bool,
}

impl Versions {
    /// In front of a catalogue.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        let weigh = |_: &(DatasetPath, VersionSelector), named: &Named| {
            u32::try_from(weight(&named.version)).unwrap_or(u32::MAX)
        };
        let by_name = moka::sync::Cache::builder().max_capacity(BYTES_MAX).weigher(weigh).build();
        Self { catalog, by_name }
    }

    /// The version that a name means.
    ///
    /// # Errors
    /// The catalogue's; but when it is away and the name is known, the known version.
    pub async fn resolve(&self, path: &DatasetPath, selector: VersionSelector) -> Result<Arc<ResolvedVersion>> {
        let key = (path.clone(), selector);
        let known = self.by_name.get(&key);
        if let Some(named) = &known
            && (named.seen.elapsed() < FRESH || (selector != VersionSelector::Current && named.settled))
        {
            return Ok(Arc::clone(&named.version));
        }
        if let Some(named) = known {
            match self.catalog.current_version(path).await {
                Ok((version_id, _)) if version_id == named.version.version_id && named.settled => {
                    self.keep(key, &named.version);
                    return Ok(named.version);
                }
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    self.keep(key, &named.version);
                    return Ok(named.version);
                }
                Ok(_) | Err(_) => {}
            }
        }
        let version = Arc::new(self.catalog.resolve(path, selector).await?);
        self.keep(key, &version);
        Ok(version)
    }

    /// The version that a ticket pins. The name is the one the ticket was made for: a hint where to look first.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn pinned(&self, path: &DatasetPath, version_id: i64) -> Result<Arc<ResolvedVersion>> {
        let known = self.by_name.get(&(path.clone(), VersionSelector::Current));
        if let Some(named) = known.filter(|named| named.version.version_id == version_id) {
            return Ok(named.version);
        }
        let version = Arc::new(self.catalog.resolve_version(version_id).await?);
        self.keep((version.path.clone(), VersionSelector::Number(version.version)), &version);
        Ok(version)
    }

    /// Forgets what the names of an experiment mean: it was published to.
    pub fn forget(&self, animal: &str, experiment: &str) {
        let of_experiment = |path: &DatasetPath| path.animal == animal && path.experiment == experiment;
        let names: Vec<_> = self.by_name.iter().map(|(key, _)| key).filter(|key| of_experiment(&key.0)).collect();
        for name in names {
            self.by_name.invalidate(name.as_ref());
        }
    }

    fn keep(&self, key: (DatasetPath, VersionSelector), version: &Arc<ResolvedVersion>) {
        let settled = !version.arrays().into_iter().any(|array| array.names_other_files());
        self.by_name.insert(key, Named { version: Arc::clone(version), seen: Instant::now(), settled });
    }
}

/// Memory that a version takes, in bytes, sources of virtual arrays included.
fn weight(version: &ResolvedVersion) -> u64 {
    let of_array = |array: &ArrayRecord| {
        let (chunks, mappings) = (array.index.pointers().len() as u64, array.sources.len() as u64);
        VERSION_BYTES + 24 * chunks + MAPPING_BYTES * mappings
    };
    version.arrays().into_iter().map(|array| of_array(array)).sum()
}
