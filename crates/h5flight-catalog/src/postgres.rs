//! PostgreSQL (15 or newer): connecting, and what its errors mean. Its own SQL is in `dialect`; all other SQL is in
//! `portable/`, compiled here for PostgreSQL.
//!
//! A publication is acknowledged when it is committed; `synchronous_commit` is left as the operator set it.
//! Isolation is READ COMMITTED: `portable/publish.rs` says which locks make that enough.

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres};

use crate::OpenOptions;
use crate::error::{Error, Result};
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
type Db = Postgres;
type Conn = PgConnection;
type Store = PostgresCatalog;
const BACKEND: &str = "postgres";
const IS_SHARED: bool = true;

/// A connection idle for longer is asked whether it lives before it is used: a restart of PostgreSQL costs the calls
/// under way, and one check after each pause, not a round trip on every call.
const UNTESTED_IDLE_MAX: Duration = Duration::from_millis(250);
/// Settings of every session. A statement of a read is one index lookup; 30 s is far beyond any that is well. Its plan
/// never depends on the parameters: planning the joins of a resolve on each call took two thirds of its time.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '30s'; \
                       SET idle_in_transaction_session_timeout = '60s'; SET TIME ZONE 'UTC'; \
                       SET plan_cache_mode = force_generic_plan";

static MIGRATIONS: sqlx::migrate::Migrator = {
    let mut migrations = sqlx::migrate!("./migrations/postgres");
    // An older server goes on beside a newer one: it meets migrations it does not know.
    migrations.ignore_missing = true;
    migrations
};

/// The catalogue in a PostgreSQL database.
pub(crate) struct PostgresCatalog {
    /// For statements that only read.
    readers: PgPool,
    /// For those that write: the same pool, PostgreSQL has many writers.
    writer: PgPool,
}

impl PostgresCatalog {
    /// Connects and migrates.
    pub(crate) async fn open(url: &str, options: &OpenOptions) -> Result<Self> {
        let invalid = |error| Error::invalid("the PostgreSQL URL is not understood").with_source(error);
        let connect: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| invalid(error))?;
        let connect = connect.application_name("h5flight").disable_statement_logging();
        let wait = Duration::from_millis(options.acquire_timeout_ms);
        migrate(&connect, wait).await?;
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(wait)
            .acquire_slow_threshold(wait)
            .test_before_acquire(false)
            .before_acquire(|connection, state| {
                Box::pin(async move { Ok(state.idle_for < UNTESTED_IDLE_MAX || connection.ping().await.is_ok()) })
            })
            .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(|_| ()) }))
            .connect_lazy_with(connect);
        Ok(Self { readers: pool.clone(), writer: pool })
    }
}

/// Migrates on a connection of its own, which has no time limits.
async fn migrate(connect: &PgConnectOptions, wait: Duration) -> Result<()> {
    let timed_out = |_| faults::error(sqlx::Error::PoolTimedOut, meaning);
    let mut connection =
        tokio::time::timeout(wait, PgConnection::connect_with(connect)).await.map_err(timed_out)?.map_err(fault)?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| faults::migration(error, meaning))?;
    connection.close().await.map_err(fault)
}

/// The error for callers.
fn fault(error: sqlx::Error) -> Error {
    faults::error(error, meaning)
}

/// What a SQLSTATE means (PostgreSQL manual, appendix A).
fn meaning(error: &dyn DatabaseError) -> Meaning {
    if let Some(constraint) = error.constraint() {
        return faults::of_constraint(constraint);
    }
    let code = error.code().unwrap_or_default();
    match code.as_ref() {
        // serialization_failure, deadlock_detected, lock_not_available
        "40001" | "40P01" | "55P03" => Meaning::Conflict,
        // query_canceled (a timeout), admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped,
        // idle_session_timeout, idle_in_transaction_session_timeout, read_only_sql_transaction (a standby)
        "57014" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25006" => Meaning::Unavailable,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => Meaning::Damaged,
        // connection_exception, insufficient_resources, system_error
        code if ["08", "53", "58"].iter().any(|class| code.starts_with(class)) => Meaning::Unavailable,
        _ => Meaning::Unknown,
    }
}
