//! The catalogue: what exists, where its bytes are, who may see it. The only crate with SQL.
//!
//! [`Catalog`] is the one trait; [`open`] gives PostgreSQL or SQLite behind it, by the scheme of a URL. Both pass
//! the one conformance suite in `tests/conformance.rs`. Lock order: none, no call holds a connection while it waits
//! for another; every publication is one transaction.
//!
//! `portable/` is SQL that both databases understand: the same text is compiled once for each, as a child of
//! `postgres` and of `sqlite`, which themselves hold only what differs (connecting, batched inserts, lists as
//! parameters, the meaning of error codes). What is no SQL at all lives in modules that know no database: `staging`
//! and `identity` (what goes in), `rows` (what comes out, checked), `mosaic` (sources of virtual arrays), `names`, `paging`, `token`, `text`.

#![expect(clippy::duplicate_mod, reason = "portable/ is compiled once for each database")]

pub mod error;
pub mod model;

mod dump;
mod fault;
mod identity;
mod mosaic;
pub mod names;
mod paging;
mod postgres;
mod rows;
mod sqlite;
mod staging;
mod text;
mod token;
mod wanted;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub use dump::{OWNER_SECRET, TICKET_SECRET, files_of_dump};
pub use error::{Error, ErrorKind, Result};
use model::*;

/// Opens the catalogue at `sqlite://PATH` (created when missing) or `postgres://...` and migrates it to this version.
///
/// # Errors
/// [`ErrorKind::Unavailable`] when the database does not answer, [`ErrorKind::Invalid`] for another scheme.
pub async fn open(url: &str, options: &OpenOptions) -> Result<Arc<dyn Catalog>> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => Ok(Arc::new(sqlite::SqliteCatalog::open(url, options).await?)),
        Some("postgres" | "postgresql") => Ok(Arc::new(postgres::PostgresCatalog::open(url, options).await?)),
        _ => Err(Error::invalid("the database URL must begin with sqlite:// or postgres://")),
    }
}

/// Everything the service asks of the database. Each method is one statement or one transaction; none blocks a tokio
/// worker thread; a dropped future rolls back.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// "sqlite" or "postgres".
    fn backend(&self) -> &'static str;
    /// Whether other servers may publish into it while this one runs.
    fn is_shared(&self) -> bool;
    /// One cheap round trip.
    async fn ping(&self) -> Result<()>;
    /// A secret shared by all servers of this catalogue, made at first use; 32 random bytes.
    async fn secret(&self, name: &str) -> Result<[u8; 32]>;

    // resolve: what a read needs

    /// The version that a name means, complete: extents, arrays, chunk runs, file places. Follows the aliases and soft
    /// links of the experiment's files (at most 16).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with which level is missing and the nearest names;
    /// [`ErrorKind::Refused`] with the stored reason when the name is an external link.
    async fn resolve(&self, path: &DatasetPath, version: VersionSelector) -> Result<ResolvedVersion>;
    /// The same by the id that a ticket pins.
    async fn resolve_version(&self, version_id: i64) -> Result<ResolvedVersion>;
    /// Id and number of a version: one small statement, for checking what is kept in memory.
    ///
    /// # Errors
    /// As [`Catalog::resolve`]; before the first version its time is told.
    async fn find_version(&self, path: &DatasetPath, version: &VersionSelector) -> Result<(i64, u64)>;
    /// The same of the newest version.
    async fn current_version(&self, path: &DatasetPath) -> Result<(i64, u64)> {
        self.find_version(path, &VersionSelector::Current).await
    }

    // publish: how files come in

    /// The newest record of the file at this place, if any.
    async fn find_file(&self, place: &FilePlace) -> Result<Option<FileRecord>>;
    /// What the publication of this file made.
    async fn published(&self, file_id: i64) -> Result<Published>;
    /// The result of an earlier publication with this idempotency key, if any.
    async fn find_ingest(&self, key: &str) -> Result<Option<Published>>;
    /// Publishes one inspected file: animals, experiments, file, arrays, chunk runs, objects, datasets, versions,
    /// extents, links and the idempotency key in one transaction, batched inserts.
    ///
    /// A dataset that exists and whose current version comes from a file at the same place (or, for managed files, with
    /// the same `source_name`) gets the next version. From another file it is refused unless `replace`.
    ///
    /// # Errors
    /// [`ErrorKind::DatasetExists`] naming the dataset; [`ErrorKind::Conflict`] when another publication won, and
    /// [`ErrorKind::VersionConflict`] when it is not based on what it expected.
    async fn publish(&self, publication: &Publication) -> Result<Published>;
    /// Publishes a managed file with one dataset as more rows of a dataset: the next version is the one before with these
    /// rows behind it. Animal, experiment, dataset and the groups above it are made where they are missing; then, and
    /// where the dataset is no longer in its file, it is the whole version. Links are followed to the dataset. No rows
    /// are no new version. Costs the same whatever was appended before.
    ///
    /// A writer's put that is known already changes nothing and is answered as it was, with `already`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with `put_mismatch` when element type or shape of the rows are others, or the dataset is
    /// virtual, a scalar or has a problem, and with `put_sequence` when only later puts of the writer are known;
    /// [`ErrorKind::VersionConflict`] when another version is the newest than was expected, [`ErrorKind::Conflict`] when
    /// another row is the next one; [`ErrorKind::Invalid`] when it had more than 2^63 - 1 rows.
    async fn append(&self, append: &Append) -> Result<Appended>;
    /// What a put made, whatever its mode, if it is known; `already` is set.
    async fn find_append(&self, path: &DatasetPath, writer: &str, sequence: u64) -> Result<Option<Appended>>;
    /// Datasets whose newest version is made of at least so many appended files, by the key of their list, behind `after`.
    async fn long_lists(&self, extents_min: u64, after: i64) -> Result<Vec<LongList>>;
    /// Puts one file in the place of neighbours of a list: every version of the list has the same rows as before. Files that no
    /// list names any more are marked, and stay until [`Catalog::drop_unused`].
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the list was changed meanwhile, [`ErrorKind::Refused`] with `put_mismatch` when the file does
    /// not have the same kind of rows.
    async fn compact(&self, compaction: &Compaction) -> Result<()>;
    /// Forgets managed files that no list has named since before a time: their rows go, and with them what keeps them from
    /// being garbage. Gives their keys, at most 1,000 at once.
    async fn drop_unused(&self, before: DateTime<Utc>) -> Result<Vec<i64>>;
    /// Marks a file as unreadable, with its stable reason: reads of it are refused until it is registered anew.
    async fn quarantine(&self, file_id: i64, reason: &str, message: &str) -> Result<()>;
    /// Takes that mark away: the file was found whole again.
    async fn release(&self, file_id: i64) -> Result<()>;

    // verify: what is compared with the files

    /// The newest record of each file that publishes into an animal, or one experiment of it; empty names mean all.
    /// Ascending by place, as [`Catalog::list_files`].
    async fn list_files_of(&self, animal: &str, experiment: &str, page: &Page) -> Result<Paged<FileRecord>>;
    /// The state in which each registered file at or below a path of a root was indexed at last; an empty path is all of the
    /// root.
    async fn fingerprints_below(&self, root: &str, path: &str) -> Result<HashMap<String, Fingerprint>>;
    /// The next arrays of a file in the order of their keys, behind `after` (0 for the first), without the sources of
    /// virtual ones: as many as have a million chunks together, at least one; none at the end.
    async fn arrays_of(&self, file_id: i64, after: i64) -> Result<Vec<Arc<ArrayRecord>>>;

    /// Keeps the checksums of the chunks of an array, ascending by number.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when there are not as many as chunks.
    async fn keep_checksums(&self, array_id: i64, checksums: &[u64]) -> Result<()>;

    // history: what a dataset was

    /// The versions of a dataset, the newest first; also those of one that is no longer in its file.
    async fn list_versions(&self, path: &DatasetPath, page: &Page) -> Result<Paged<VersionSummary>>;
    /// Publishes the extents of an older version as the newest one. Nothing of the history changes; a dataset that is
    /// no longer in its file is listed again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::VersionConflict`] when another version is the newest than was expected.
    async fn roll_back(&self, rollback: &Rollback) -> Result<RolledBack>;
    /// Gives versions a name: one dataset's, or those of all listed datasets of an experiment, all or none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for a bad name; [`ErrorKind::TagExists`] when another version has
    /// the tag and it is not to be moved.
    async fn set_tag(&self, tag: &NewTag) -> Result<Tagged>;
    /// Removes a tag from one dataset or from all of an experiment.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing has it.
    async fn delete_tag(&self, of: &TagScope, name: &str) -> Result<Tagged>;

    // browse: what people look at

    /// Animals, ascending by name.
    async fn list_animals(&self, page: &Page) -> Result<Paged<AnimalSummary>>;
    /// Experiments of an animal.
    async fn list_experiments(&self, animal: &str, page: &Page) -> Result<Paged<ExperimentSummary>>;
    /// Datasets of an experiment.
    async fn list_datasets(&self, animal: &str, experiment: &str, page: &Page) -> Result<Paged<DatasetSummary>>;
    /// One dataset or group with its attributes. `dataset` empty is the root group of the experiment.
    async fn describe(&self, path: &DatasetPath) -> Result<Description>;
    /// A dataset as it was in the version with this id: its own facts and attributes; aliases are those of today.
    async fn describe_version(&self, version_id: i64) -> Result<Description>;
    /// Animals, experiments and datasets whose names or attribute texts contain all words of `query`,
    /// case-insensitively; datasets ascending by animal, experiment, name.
    async fn search(&self, query: &str, page: &Page) -> Result<Paged<DatasetSummary>>;
    /// The experiments that have at least one dataset that [`Catalog::search`] finds, ascending by animal and name.
    async fn search_experiments(&self, query: &str, page: &Page) -> Result<Paged<ExperimentSummary>>;
    /// Registered and managed files.
    async fn list_files(&self, page: &Page) -> Result<Paged<FileRecord>>;
    /// Totals, for ServerInfo and metrics.
    async fn counts(&self) -> Result<Counts>;

    // access: who may see it, who saw it

    /// Makes a token for a principal (made when missing). The secret is returned once and stored hashed.
    async fn create_token(&self, new: &NewToken) -> Result<CreatedToken>;
    /// The principal of a token text, if it is known, not expired, not revoked.
    async fn authenticate(&self, token: &str) -> Result<Option<Principal>>;
    /// All tokens, without secrets.
    async fn list_tokens(&self) -> Result<Vec<TokenSummary>>;
    /// Revokes the token with this prefix; false when there is none.
    async fn revoke_token(&self, prefix: &str) -> Result<bool>;
    /// Whether a token was ever made. Revoked and expired ones count: losing the last valid token must not open a
    /// server to everybody.
    async fn has_tokens(&self) -> Result<bool>;
    /// Appends to the access log, one statement.
    async fn log_accesses(&self, entries: &[AccessEntry]) -> Result<()>;
    /// The newest entries of the access log.
    async fn list_accesses(&self, limit: u32) -> Result<Vec<AccessEntry>>;

    // dump: the whole catalogue out and in again

    /// Writes the whole catalogue, as it is at one moment, in the lines that `dump.rs` describes; others go on writing
    /// meanwhile. Waits for `out` on the calling thread.
    async fn dump(&self, out: &mut (dyn std::io::Write + Send)) -> Result<()>;
    /// The name of a table that has rows; `None` in a catalogue that nobody used yet.
    async fn occupied(&self) -> Result<Option<String>>;
    /// Fills an empty catalogue with a dump of either database, in one transaction: wholly or not at all. The secret of
    /// the tickets is made anew. Waits for `from` on the calling thread.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it is not empty, [`ErrorKind::Damaged`] for a dump that is not whole,
    /// [`ErrorKind::Invalid`] for one of a newer schema.
    async fn load(&self, from: &mut (dyn std::io::BufRead + Send)) -> Result<()>;
}
