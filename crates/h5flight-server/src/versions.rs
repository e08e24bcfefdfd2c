//! Resolved dataset versions, kept in memory: a read of a known dataset asks SQL nothing, or one small question.
//!
//! What a version is never changes, so it is kept for as long as there is room. Which version is the current one does
//! change: by our own publications, which tell us, and by other servers on the same catalogue. Where there may be such,
//! each read asks what its name means now: what was acknowledged anywhere before it began is what it sees. An embedded
//! catalogue's names are trusted for [`FRESH`]. Tags, which move, and times are treated alike. When the catalogue is away, what
//! is known goes on being served, and it is asked again after [`AWAY`].
//!
//! Of several reads of a version one asks, and the others that waited before it asked have its answer. A version that is heavier than all room
//! is not kept, but shared by the reads that hold it at the same time.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use h5flight_array::meta::Storage;
use h5flight_catalog::Catalog;
use h5flight_catalog::error::ErrorKind;
use h5flight_catalog::model::{ArrayRecord, DatasetPath, ResolvedVersion, VersionSelector};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Result;

/// How long a name of an embedded catalogue is trusted to mean the same version: what another process publishes, against
/// all custom, shows up within this time.
const FRESH: Duration = Duration::from_secs(1);
/// How long a catalogue that did not answer is left alone by reads of names that are known: each question waits for its
/// timeout.
const AWAY: Duration = Duration::from_secs(1);
/// Memory for resolved versions, in bytes. A chunk takes 24: room for about 5 M chunks.
const BYTES_MAX: u64 = 128 << 20;
/// Memory for names, in bytes: about 100,000 of them.
const NAMES_BYTES_MAX: u64 = 32 << 20;
/// Bytes of a version without what is counted: names, metadata.
const VERSION_BYTES: u64 = 4096;
/// Bytes of a name beside its text.
const NAME_BYTES: u64 = 256;
/// Bytes of a mapping of a virtual array.
const MAPPING_BYTES: u64 = 256;
/// Bytes of an entry of attributes beside its text.
const ATTRIBUTE_BYTES: u64 = 64;
/// Questions that are told apart while they are asked; beyond them the same one may be asked twice.
const TURNS_MAX: u64 = 1024;
/// How long one read waits for the answer to another, before it asks for itself: longer than a catalogue that is away
/// takes to be given up.
const TURN_MAX: Duration = Duration::from_secs(5);

/// The versions in memory.
pub struct Versions {
    catalog: Arc<dyn Catalog>,
    known: Known,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asked {
    Name(DatasetPath, VersionSelector),
    Id(i64),
}

/// What was answered, and who is asking.
struct Known {
    answers: moka::sync::Cache<Asked, Answer>,
    /// What keeps the versions of the answers alive.
    kept: moka::sync::Cache<i64, Arc<ResolvedVersion>>,
    turns: moka::sync::Cache<Asked, Arc<Semaphore>>,
    bytes_max: u64,
    /// How long a name is trusted.
    fresh: Duration,
    /// When the catalogue was last found away.
    away: RwLock<Option<Instant>>,
}

#[derive(Clone)]
struct Answer {
    version: Weak<ResolvedVersion>,
    /// When it was asked for: what was published before is in it.
    seen: Instant,
    /// False where a source of a virtual array lies in another file: when that is registered, or registered anew, the
    /// same version has other sources.
    settled: bool,
}

/// A version in memory.
struct Found {
    version: Arc<ResolvedVersion>,
    settled: bool,
    /// When it was asked for, of what may mean another one by now; `None` is always right.
    changes_since: Option<Instant>,
}

impl Versions {
    /// In front of a catalogue.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        let fresh = if catalog.is_shared() { Duration::ZERO } else { FRESH };
        Self { catalog, known: Known::new(BYTES_MAX, fresh) }
    }

    /// The version that a name means.
    ///
    /// # Errors
    /// The catalogue's; but when it is away and the name is known, the known version.
    pub async fn resolve(&self, path: &DatasetPath, selector: VersionSelector) -> Result<Arc<ResolvedVersion>> {
        let (asked, began) = (Asked::Name(path.clone(), selector.clone()), Instant::now());
        if let Some(version) = self.known.trusted(&asked, began) {
            return Ok(version);
        }
        let _turn = self.known.turn(&asked).await;
        let asking = Instant::now();
        if let Some(found) = self.known.look_up(&asked) {
            if self.known.trusts(&found, began) {
                return Ok(found.version);
            }
            match self.catalog.find_version(path, &selector).await {
                Ok((version_id, _)) if version_id == found.version.version_id && found.settled => {
                    self.known.keep(asked, &found.version, asking);
                    return Ok(found.version);
                }
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    self.known.found_away();
                    return Ok(found.version);
                }
                Ok(_) | Err(_) => {}
            }
        }
        let version = match selector {
            VersionSelector::Current | VersionSelector::Number(_) => {
                Arc::new(self.catalog.resolve(path, selector).await?)
            }
            // Many times mean the same version.
            VersionSelector::AsOf(_) | VersionSelector::Tag(_) => {
                let (version_id, _) = self.catalog.find_version(path, &selector).await?;
                self.pinned(version_id).await?
            }
        };
        self.known.keep(asked, &version, asking);
        Ok(version)
    }

    /// The version that a ticket pins, whichever name it was found by.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn pinned(&self, version_id: i64) -> Result<Arc<ResolvedVersion>> {
        let (asked, began) = (Asked::Id(version_id), Instant::now());
        if let Some(version) = self.known.trusted(&asked, began) {
            return Ok(version);
        }
        let _turn = self.known.turn(&asked).await;
        let asking = Instant::now();
        if let Some(version) = self.known.trusted(&asked, began) {
            return Ok(version);
        }
        let version = Arc::new(self.catalog.resolve_version(version_id).await?);
        self.known.keep(asked, &version, asking);
        Ok(version)
    }

    /// Forgets what the names of an experiment mean: it was published to.
    pub fn forget(&self, animal: &str, experiment: &str) {
        self.known.forget(animal, experiment);
    }

    /// Forgets all versions of a dataset: they are made of other files now. Other servers go on with what they know until
    /// a file is missing, see [`Versions::renewed`].
    pub fn forget_made_of(&self, path: &DatasetPath) {
        self.known.forget_if(|_, answer| answer.version.upgrade().is_none_or(|version| version.path == *path));
    }

    /// The same version as the catalogue has it now, where it is made of other files than `known`; `None` where it is not.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn renewed(&self, known: &Arc<ResolvedVersion>) -> Result<Option<Arc<ResolvedVersion>>> {
        let asking = Instant::now();
        let version = Arc::new(self.catalog.resolve_version(known.version_id).await?);
        let arrays =
            |version: &ResolvedVersion| -> Vec<i64> { version.extents.iter().map(|extent| extent.array.id).collect() };
        if arrays(&version) == arrays(known) {
            return Ok(None);
        }
        self.forget_made_of(&known.path);
        self.known.keep(Asked::Id(version.version_id), &version, asking);
        Ok(Some(version))
    }

    /// Forgets all that is made of a file: its record has changed. Other servers go on with what they know for as long as
    /// they keep it.
    pub fn forget_file(&self, file_id: i64) {
        self.known.forget_file(file_id);
    }
}

impl Known {
    fn new(bytes_max: u64, fresh: Duration) -> Self {
        let weigh = |_: &i64, version: &Arc<ResolvedVersion>| u32::try_from(weight(version)).unwrap_or(u32::MAX);
        let kept = moka::sync::Cache::builder().max_capacity(bytes_max).weigher(weigh).build();
        let weigh = |asked: &Asked, _: &Answer| u32::try_from(asked.weight()).unwrap_or(u32::MAX);
        let answers = moka::sync::Cache::builder().max_capacity(NAMES_BYTES_MAX).weigher(weigh).build();
        Self { answers, kept, turns: moka::sync::Cache::new(TURNS_MAX), bytes_max, fresh, away: RwLock::default() }
    }

    fn look_up(&self, asked: &Asked) -> Option<Found> {
        let Answer { version, seen, settled } = self.answers.get(asked)?;
        let version = version.upgrade()?;
        // Counts as a use, so that what is read stays.
        let _ = self.kept.get(&version.version_id);
        let changes = !settled || asked.may_mean_another();
        Some(Found { version, settled, changes_since: changes.then_some(seen) })
    }

    /// What need not be asked for by a read that began at `began`.
    fn trusted(&self, asked: &Asked, began: Instant) -> Option<Arc<ResolvedVersion>> {
        self.look_up(asked).filter(|found| self.trusts(found, began)).map(|found| found.version)
    }

    /// Whether it need not be asked for again by a read that began at `began`.
    fn trusts(&self, found: &Found, began: Instant) -> bool {
        let away = *self.away.read().unwrap_or_else(PoisonError::into_inner);
        found.changes_since.is_none_or(|seen| seen >= began || seen.elapsed() < self.fresh)
            || away.is_some_and(|away| away.elapsed() < AWAY)
    }

    /// Remembers that the catalogue does not answer.
    fn found_away(&self) {
        *self.away.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Keeps what was answered to a question of the moment `seen`; the catalogue is there.
    fn keep(&self, asked: Asked, version: &Arc<ResolvedVersion>, seen: Instant) {
        let settled = !version.arrays().into_iter().any(|array| array.names_other_files());
        let answer = Answer { version: Arc::downgrade(version), seen, settled };
        *self.away.write().unwrap_or_else(PoisonError::into_inner) = None;
        if weight(version) <= self.bytes_max {
            self.kept.insert(version.version_id, Arc::clone(version));
        }
        self.answers.insert(Asked::Id(version.version_id), answer.clone());
        self.answers.insert(asked, answer);
    }

    /// Waits until nobody asks the same, and asks.
    async fn turn(&self, asked: &Asked) -> Option<OwnedSemaphorePermit> {
        let turn = self.turns.get_with(asked.clone(), || Arc::new(Semaphore::new(1)));
        tokio::time::timeout(TURN_MAX, turn.acquire_owned()).await.ok()?.ok()
    }

    fn forget(&self, animal: &str, experiment: &str) {
        let of_experiment = |path: &DatasetPath| path.animal == animal && path.experiment == experiment;
        let is_gone = |asked: &Asked, answer: &Answer| match asked {
            Asked::Name(path, _) => of_experiment(path),
            // An id means the same version, but not the same sources.
            Asked::Id(_) => {
                !answer.settled && answer.version.upgrade().is_none_or(|version| of_experiment(&version.path))
            }
        };
        self.forget_if(is_gone);
    }

    fn forget_file(&self, file_id: i64) {
        let is_gone = |_: &Asked, answer: &Answer| {
            let version = answer.version.upgrade();
            version.is_none_or(|version| version.arrays().iter().any(|array| array.file.id == file_id))
        };
        self.forget_if(is_gone);
    }

    fn forget_if(&self, is_gone: impl Fn(&Asked, &Answer) -> bool) {
        let gone = self.answers.iter().filter(|(asked, answer)| is_gone(asked, answer));
        let gone: Vec<Arc<Asked>> = gone.map(|(asked, _)| asked).collect();
        gone.iter().for_each(|asked| self.answers.invalidate(asked.as_ref()));
    }
}

impl Asked {
    /// Whether a publication or a tag can make it mean another version; that of a time as well, until every server's
    /// publications of that time are committed.
    const fn may_mean_another(&self) -> bool {
        match self {
            Self::Name(_, VersionSelector::Number(_)) | Self::Id(_) => false,
            Self::Name(_, VersionSelector::Current | VersionSelector::AsOf(_) | VersionSelector::Tag(_)) => true,
        }
    }

    fn weight(&self) -> u64 {
        match self {
            Self::Name(DatasetPath { animal, experiment, dataset }, selector) => {
                let tag = if let VersionSelector::Tag(tag) = selector { tag.len() } else { 0 };
                NAME_BYTES + (animal.len() + experiment.len() + dataset.len() + tag) as u64
            }
            Self::Id(_) => NAME_BYTES,
        }
    }
}

/// Memory that a version takes, in bytes, sources of virtual arrays included.
fn weight(version: &ResolvedVersion) -> u64 {
    let arrays: u64 = version.arrays().into_iter().map(|array| array_weight(array)).sum();
    VERSION_BYTES + attributes_weight(&version.attributes) + arrays
}

fn array_weight(array: &ArrayRecord) -> u64 {
    let mappings = match &array.meta.storage {
        Storage::Virtual { mappings } => mappings.len() as u64,
        Storage::Compact | Storage::Contiguous { .. } | Storage::Chunked { .. } | Storage::External => 0,
    };
    let inline = array.inline.as_ref().map_or(0, |values| values.len() as u64);
    let fill = array.meta.fill.as_ref().map_or(0, |fill| fill.len() as u64);
    VERSION_BYTES
        + 24 * array.index.pointers().len() as u64
        + 8 * array.index.checksums().len() as u64
        + MAPPING_BYTES * mappings
        + inline
        + fill
}

fn attributes_weight(attributes: &Map<String, Value>) -> u64 {
    attributes.iter().map(|(name, value)| ATTRIBUTE_BYTES + name.len() as u64 + value_weight(value)).sum()
}

fn value_weight(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => ATTRIBUTE_BYTES,
        Value::String(text) => ATTRIBUTE_BYTES + text.len() as u64,
        Value::Array(values) => ATTRIBUTE_BYTES + values.iter().map(value_weight).sum::<u64>(),
        Value::Object(members) => ATTRIBUTE_BYTES + attributes_weight(members),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version_id: i64, attribute_bytes: usize) -> Arc<ResolvedVersion> {
        let path = DatasetPath { animal: "a".into(), experiment: "e".into(), dataset: format!("d{version_id}") };
        let attributes = Map::from_iter([("note".to_owned(), Value::String("x".repeat(attribute_bytes)))]);
        let (created_at, dimensions, extents) = (chrono::DateTime::UNIX_EPOCH, Vec::new(), Vec::new());
        let (version, dataset_id) = (1, 1);
        Arc::new(ResolvedVersion { version_id, version, dataset_id, path, created_at, attributes, dimensions, extents })
    }

    fn numbered(version: &ResolvedVersion) -> Asked {
        Asked::Name(version.path.clone(), VersionSelector::Number(1))
    }

    #[test]
    fn a_version_is_found_by_its_id_whichever_name_it_was_resolved_by() {
        let (known, version) = (Known::new(1 << 20, Duration::ZERO), version(7, 0));
        known.keep(numbered(&version), &version, Instant::now());
        assert!(known.trusted(&Asked::Id(7), Instant::now()).is_some());
        known.forget("a", "e");
        assert!(known.look_up(&numbered(&version)).is_none(), "the name may mean another one now");
        assert!(known.look_up(&Asked::Id(7)).is_some(), "the id never does");
    }

    #[test]
    fn an_answer_serves_whoever_waited_before_it_was_asked_for_and_nobody_after() {
        let (known, version) = (Known::new(1 << 20, Duration::ZERO), version(7, 0));
        let current = Asked::Name(version.path.clone(), VersionSelector::Current);
        let before = Instant::now();
        let asking = before + Duration::from_millis(1);
        known.keep(current.clone(), &version, asking);
        assert!(known.trusted(&current, before).is_some());
        assert!(
            known.trusted(&current, asking + Duration::from_nanos(1)).is_none(),
            "somebody may have published since"
        );
        known.found_away();
        assert!(known.trusted(&current, Instant::now()).is_some(), "nobody can tell");
        let embedded = Known::new(1 << 20, FRESH);
        embedded.keep(current.clone(), &version, Instant::now());
        assert!(embedded.trusted(&current, Instant::now()).is_some());
    }

    #[test]
    fn attributes_count_and_what_is_heavier_than_all_room_is_shared_while_it_is_read() {
        let (known, heavy) = (Known::new(100_000, Duration::ZERO), version(7, 200_000));
        known.keep(numbered(&heavy), &heavy, Instant::now());
        known.kept.run_pending_tasks();
        assert_eq!(known.kept.weighted_size(), 0);
        assert!(known.look_up(&Asked::Id(7)).is_some(), "somebody reads it");
        drop(heavy);
        assert!(known.look_up(&Asked::Id(7)).is_none(), "nobody reads it");
        (0..100)
            .map(|id| version(id, 10_000))
            .for_each(|version| known.keep(numbered(&version), &version, Instant::now()));
        known.kept.run_pending_tasks();
        assert!((1..=100_000).contains(&known.kept.weighted_size()));
    }

    #[tokio::test]
    async fn of_several_first_reads_one_asks_and_the_others_find_its_answer() {
        let (known, asked_count) = (Known::new(1 << 20, Duration::ZERO), std::sync::atomic::AtomicUsize::new(0));
        let read = async || {
            let _turn = known.turn(&Asked::Id(7)).await;
            if known.look_up(&Asked::Id(7)).is_none() {
                tokio::task::yield_now().await;
                asked_count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                known.keep(Asked::Id(7), &version(7, 0), Instant::now());
            }
        };
        futures::future::join_all((0..10).map(|_| read())).await;
        assert_eq!(asked_count.into_inner(), 1);
    }
}
