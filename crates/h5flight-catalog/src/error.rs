//! What can go wrong with the catalogue.

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such animal, experiment, dataset or version; `nearest` are names that exist and look alike.
    NotFound {
        /// Which level is missing.
        level: Level,
        /// At most five names.
        nearest: Vec<String>,
    },
    /// The name exists but is refused: stable reason (for example "external_link_refused").
    Refused(String),
    /// The dataset is served from another file.
    DatasetExists,
    /// Another publication won.
    Conflict,
    /// Another publication won, and this is its version.
    VersionConflict(VersionConflict),
    /// The tag is another version's.
    TagExists,
    /// The database does not answer; worth a retry.
    Unavailable,
    /// No space is left where the database is.
    Full,
    /// What was asked means nothing (a bad page token, a bad URL).
    Invalid,
    /// What the database holds is not what was written: a damaged row.
    Damaged,
    /// Any other failure of the database.
    Database,
}

/// What a publication was based on, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionConflict {
    /// The dataset, as "animal/experiment/dataset".
    pub dataset: String,
    /// Number of the version that the publication was based on; 0 when there was none.
    pub expected: u64,
    /// Number of the version that won; 0 when there is none.
    pub current: u64,
}

/// Level of the hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Animal.
    Animal,
    /// Experiment.
    Experiment,
    /// Dataset.
    Dataset,
    /// Version.
    Version,
}

/// An error; SQL stays in `source`, for the log only.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What a caller acts on.
    pub kind: ErrorKind,
    /// For people; no SQL.
    pub message: String,
    /// For the log.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without an inner cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// [`ErrorKind::VersionConflict`].
    pub fn version_conflict(dataset: impl std::fmt::Display, expected: u64, current: u64) -> Self {
        let dataset = dataset.to_string();
        let message = match current {
            0 => format!("dataset \"{dataset}\" has no version yet, expected was {expected}"),
            _ => format!("version {current} of dataset \"{dataset}\" was published first, expected was {expected}"),
        };
        Self::new(ErrorKind::VersionConflict(VersionConflict { dataset, expected, current }), message)
    }

    /// [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Keeps `source` as the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}
