//! The history of a dataset: its versions, their tags, and how an older one comes back.

use chrono::{DateTime, Utc};
use h5flight_array::meta::ArrayMeta;

use super::DatasetPath;

/// Which version of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    /// The newest one.
    Current,
    /// The one with this number, counted from 1.
    Number(u64),
    /// The newest one that was published by then.
    AsOf(DateTime<Utc>),
    /// The one with this tag.
    Tag(String),
}

/// A version in the history of its dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionSummary {
    /// Number, from 1.
    pub number: u64,
    /// When it was published.
    pub created_at: DateTime<Utc>,
    /// Who published it; empty for anonymous.
    pub principal: String,
    /// Rows over all extents, then the other axes.
    pub meta: ArrayMeta,
    /// Row ranges of arrays that it is made of.
    pub extents: u64,
    /// Stored chunks.
    pub chunks: u64,
    /// Stored bytes, 0 where not known.
    pub stored_bytes: u64,
    /// Name of the file that it came with, for people.
    pub source_name: String,
    /// Whether the file was uploaded: the bytes of a registered one are gone when it changes.
    pub managed: bool,
    /// The version that it is again, where it was rolled back to one.
    pub restored: Option<u64>,
    /// Its tags, ascending.
    pub tags: Vec<String>,
    /// Why it cannot be read: stable reason and message.
    pub problem: Option<(String, String)>,
}

/// What a publication was based on: it is refused when the dataset has another version by then. One that changes nothing,
/// because all of it is there already, is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedVersion {
    /// A dataset of an experiment that the publication touches.
    pub path: DatasetPath,
    /// Number of its newest version; 0 when there is none.
    pub version: u64,
}

/// An older version that is to be the newest one again.
#[derive(Clone, Debug)]
pub struct Rollback {
    /// Dataset.
    pub path: DatasetPath,
    /// Number of the older version.
    pub version: u64,
    /// Number of the version that is the newest one, as far as the caller knows; `None` is whichever is.
    pub expected: Option<u64>,
    /// Who; empty for anonymous.
    pub principal: String,
}

/// What a rollback made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Dataset, after links.
    pub path: DatasetPath,
    /// Number of the version that is the newest one now.
    pub version: u64,
    /// Number of the one before.
    pub before: u64,
    /// True when the newest version was made of the same extents already: nothing changed.
    pub already: bool,
    /// Identities of arrays that are no longer any current version's.
    pub superseded: Vec<[u8; 16]>,
}

/// A tag to be set.
#[derive(Clone, Debug)]
pub struct NewTag {
    /// Which datasets.
    pub of: TagScope,
    /// Its name: a letter, then letters, digits, ".", "_" and "-"; at most 64 bytes.
    pub name: String,
    /// Which version of each; of a whole experiment the current one or that of a time.
    pub version: VersionSelector,
    /// Whether a tag that other versions have is moved; else it is refused.
    pub move_existing: bool,
    /// Who; empty for anonymous.
    pub principal: String,
}

/// Datasets that share a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagScope {
    /// All listed datasets of an experiment.
    Experiment {
        /// Animal.
        animal: String,
        /// Experiment.
        experiment: String,
    },
    /// One dataset.
    Dataset(DatasetPath),
}

/// What setting or removing a tag did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tagged {
    /// Datasets that are meant.
    pub datasets: u64,
    /// Those whose tag was set, moved or removed; the others had it already.
    pub changed: u64,
}
