//! What an error of the database means to a caller. Each backend tells what its own codes mean ([`Meaning`]); the
//! words and everything that is not a code are here.

use sqlx::error::DatabaseError;

use crate::error::{Error, ErrorKind};

/// What an error code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It will pass: the database restarts, is busy.
    Unavailable,
    /// No space is left.
    Full,
    /// Somebody else was first.
    Conflict,
    /// A value that the schema refuses.
    Invalid,
    /// The database file is not sound.
    Damaged,
    /// Our own mistake, or one nobody thought of.
    Unknown,
}

/// What the violation of this constraint means. The names are those of the migrations.
pub(crate) fn of_constraint(name: &str) -> Meaning {
    match name {
        // Races that only one of two publications can win.
        "files_place_generation_key"
        | "datasets_experiment_name_key"
        | "versions_dataset_number_key"
        | "extents_pkey"
        | "puts_pkey"
        | "tags_dataset_name_key"
        | "ingests_pkey" => Meaning::Conflict,
        // A prefix drawn twice: the next try draws another.
        "tokens_prefix_key" => Meaning::Conflict,
        "links_file_experiment_path_key" => Meaning::Invalid,
        name if name.ends_with("_bytes") || name.ends_with("_known") || name.ends_with("_whole") => Meaning::Invalid,
        name if name.ends_with("_positive") || name.ends_with("_ordered") || name.ends_with("_bounded") => {
            Meaning::Invalid
        }
        _ => Meaning::Unknown,
    }
}

/// The error for callers; the cause stays as source.
pub(crate) fn error(error: sqlx::Error, meaning: impl Fn(&dyn DatabaseError) -> Meaning) -> Error {
    let meaning = match &error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Meaning::Unavailable,
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Meaning::Unavailable,
        sqlx::Error::BeginFailed => Meaning::Unavailable,
        sqlx::Error::Database(error) => meaning(error.as_ref()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Meaning::Damaged,
        // The rest (and what later versions of sqlx add) are mistakes in our SQL.
        _ => Meaning::Unknown,
    };
    let (kind, message) = match meaning {
        Meaning::Unavailable => (ErrorKind::Unavailable, "the catalogue does not answer"),
        Meaning::Full => (ErrorKind::Full, "the disk of the catalogue is full"),
        Meaning::Conflict => (ErrorKind::Conflict, "another change of the catalogue came first"),
        Meaning::Invalid => (ErrorKind::Invalid, "the catalogue does not hold such a value"),
        Meaning::Damaged => (ErrorKind::Damaged, "the catalogue holds something that was not written so"),
        Meaning::Unknown => (ErrorKind::Database, "the catalogue failed"),
    };
    Error::new(kind, message).with_source(error)
}

/// The error for a migration that failed.
pub(crate) fn migration(failed: sqlx::migrate::MigrateError, meaning: impl Fn(&dyn DatabaseError) -> Meaning) -> Error {
    match failed {
        sqlx::migrate::MigrateError::Execute(cause) | sqlx::migrate::MigrateError::ExecuteMigration(cause, _) => {
            error(cause, meaning)
        }
        other => Error::new(ErrorKind::Database, "the catalogue cannot be brought to this version").with_source(other),
    }
}
