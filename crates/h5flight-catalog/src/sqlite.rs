//! SQLite, the embedded default: opening, and what its errors mean. Its own SQL is in `dialect`; all other SQL is in
//! `portable/`, compiled here for SQLite.
//!
//! A write-ahead log with `synchronous = FULL`: an acknowledged publication survives `kill -9`, and the loss of
//! power as far as the disk is honest. There is one writer at a time: a pool of one connection within this process,
//! BEGIN IMMEDIATE and the busy timeout between processes. Readers never wait for it.

use std::path::Path;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool};

use crate::OpenOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{self as faults, Meaning};

#[path = "portable/access.rs"]
mod access;
#[path = "portable/append.rs"]
mod append;
#[path = "portable/browse.rs"]
mod browse;
#[path = "portable/catalog.rs"]
mod catalog;
#[path = "portable/compact.rs"]
mod compact;
mod dialect;
mod dump;
#[path = "portable/find.rs"]
mod find;
#[path = "portable/history.rs"]
mod history;
#[path = "portable/publish.rs"]
mod publish;
#[path = "portable/puts.rs"]
mod puts;
#[path = "portable/resolve.rs"]
mod resolve;
#[path = "portable/search.rs"]
mod search;
#[path = "portable/sources.rs"]
mod sources;
#[path = "portable/tags.rs"]
mod tags;
#[path = "portable/verify.rs"]
mod verify;

/// What the portable modules see.
type Db = Sqlite;
type Conn = SqliteConnection;
type Store = SqliteCatalog;
const BACKEND: &str = "sqlite";
const IS_SHARED: bool = false;

/// How long a write waits for the one before it: the publication of a large file takes seconds.
const WRITER_WAIT: Duration = Duration::from_secs(30);
/// Attempts to migrate a new database: another process may be at it, and the loser of each step finds it done. More than
/// there are steps, several times.
const MIGRATION_ATTEMPTS: usize = 20;
/// Attempts to open a database that is locked: switching a file to its write-ahead log is refused at once while somebody
/// else does the same, whatever the busy timeout.
const LOCKED_ATTEMPTS: usize = 50;
/// The wait before another of either.
const ATTEMPT_WAIT: Duration = Duration::from_millis(100);

static MIGRATIONS: sqlx::migrate::Migrator = {
    let mut migrations = sqlx::migrate!("./migrations/sqlite");
    // An older program opens a newer database: it meets migrations it does not know.
    migrations.ignore_missing = true;
    migrations
};

/// The catalogue in a SQLite file.
pub(crate) struct SqliteCatalog {
    /// For statements that only read.
    readers: SqlitePool,
    /// One connection: writers queue here instead of polling the lock of the file.
    writer: SqlitePool,
}

impl SqliteCatalog {
    /// Opens the file named by `sqlite://PATH`, taken as it stands (no percent escapes); makes it where it is missing,
    /// readable for its owner only.
    pub(crate) async fn open(url: &str, options: &OpenOptions) -> Result<Self> {
        let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path)).unwrap_or_default();
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(Error::invalid("the SQLite URL must be sqlite://PATH, the path of a file"));
        }
        let owned = path.to_owned();
        tokio::task::spawn_blocking(move || make_file(Path::new(&owned)))
            .await
            .map_err(|error| Error::new(ErrorKind::Database, "making the SQLite file failed").with_source(error))?
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the SQLite file cannot be opened").with_source(error)
            })?;
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WRITER_WAIT)
            .disable_statement_logging();
        migrate(&connect).await?;
        // A local file does not go away: no test before use.
        let pool = |connections, wait| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(wait)
                .acquire_slow_threshold(wait)
                .test_before_acquire(false)
        };
        let wait = Duration::from_millis(options.acquire_timeout_ms);
        Ok(Self {
            readers: pool(options.connections_max, wait).connect_lazy_with(connect.clone()),
            writer: pool(1, WRITER_WAIT)
                .before_acquire(|writer, _| Box::pin(is_free(writer)))
                .connect_lazy_with(connect),
        })
    }
}

/// Whether a connection has no transaction open, as sqlx counts them. On a full disk SQLite rolls back by itself; sqlx's
/// own rollback then fails and is never made good: such a connection is replaced.
async fn is_free(connection: &mut SqliteConnection) -> std::result::Result<bool, sqlx::Error> {
    // A rollback that is still on its way comes first.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Makes an empty file where there is none. It will hold hashes of tokens and secrets.
fn make_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(|_| ())
}

async fn migrate(connect: &SqliteConnectOptions) -> Result<()> {
    let (mut attempts, mut locked) = (0, 0);
    while let Err(error) = migrate_once(connect).await {
        match is_locked(&error) {
            true => locked += 1,
            false => attempts += 1,
        }
        if attempts == MIGRATION_ATTEMPTS || locked == LOCKED_ATTEMPTS {
            return Err(faults::migration(error, meaning));
        }
        tokio::time::sleep(ATTEMPT_WAIT).await;
    }
    Ok(())
}

async fn migrate_once(connect: &SqliteConnectOptions) -> std::result::Result<(), MigrateError> {
    let mut connection = SqliteConnection::connect_with(connect).await.map_err(MigrateError::Execute)?;
    MIGRATIONS.run(&mut connection).await?;
    connection.close().await.map_err(MigrateError::Execute)
}

/// BUSY or LOCKED, which pass.
fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = error else { return false };
    let code = cause.as_database_error().and_then(primary_code);
    matches!(code, Some(5 | 6))
}

/// The primary result code: the low byte, the rest says more.
fn primary_code(error: &dyn DatabaseError) -> Option<u32> {
    error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff)
}

/// The error for callers.
fn fault(error: sqlx::Error) -> Error {
    faults::error(error, meaning)
}

/// What a result code means (sqlite.org/rescode.html). SQLite names only CHECK constraints in its messages; a unique
/// one is told by its columns.
fn meaning(error: &dyn DatabaseError) -> Meaning {
    let message = error.message();
    if let Some(name) = message.strip_prefix("CHECK constraint failed: ") {
        return faults::of_constraint(name);
    }
    if let Some(columns) = message.strip_prefix("UNIQUE constraint failed: ") {
        return faults::of_constraint(match columns {
            "files.kind, files.root, files.path, files.generation" => "files_place_generation_key",
            "datasets.experiment_id, datasets.name" => "datasets_experiment_name_key",
            "versions.dataset_id, versions.number" => "versions_dataset_number_key",
            "links.file_id, links.experiment_id, links.path" => "links_file_experiment_path_key",
            "extents.version_id, extents.ordinal" => "extents_pkey",
            "puts.dataset_id, puts.writer, puts.sequence" => "puts_pkey",
            "tags.dataset_id, tags.name" => "tags_dataset_name_key",
            "ingests.key" => "ingests_pkey",
            "tokens.prefix" => "tokens_prefix_key",
            other => other,
        });
    }
    match primary_code(error) {
        // BUSY, LOCKED, READONLY (a failing disk is mounted so), IOERR, CANTOPEN
        Some(5 | 6 | 8 | 10 | 14) => Meaning::Unavailable,
        // FULL
        Some(13) => Meaning::Full,
        // CORRUPT, NOTADB
        Some(11 | 26) => Meaning::Damaged,
        _ => Meaning::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_full_disk_the_catalogue_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
        let catalog = SqliteCatalog::open(&url, &OpenOptions::default()).await.unwrap();
        let mut lost = catalog.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        // No page more than there are.
        sqlx::query("PRAGMA max_page_count = 1").execute(&mut *lost).await.unwrap();
        let full = sqlx::query("CREATE TABLE filler AS SELECT zeroblob(1000000)").execute(&mut *lost).await;
        assert_eq!(fault(full.unwrap_err()).kind, ErrorKind::Full);
        // What SQLite does by itself when the disk is full.
        sqlx::query("ROLLBACK").execute(&mut *lost).await.unwrap();
        drop(lost);
        let mut next = catalog.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        sqlx::query("CREATE TABLE filler AS SELECT zeroblob(1000000)").execute(&mut *next).await.unwrap();
        next.commit().await.unwrap();
    }
}
