//! The history of a dataset: its versions, and an older one that becomes the newest again.
//!
//! A rollback is a publication of what is there already: it takes the lock of the experiment, as every publication does,
//! and only adds rows. What changes is which objects are current, so that lists show what is read.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::resolve::{Located, locate, not_found};
use super::{Conn, Db, Store, dialect, fault};
use crate::error::{Error, Level, Result};
use crate::model::*;
use crate::names;
use crate::paging::Request;
use crate::rows::{VersionSummaryRow, identities, not_in_use, now, unsigned};
use crate::text::{self, NAME_BYTES_MAX};

pub(super) async fn list_versions(store: &Store, path: &DatasetPath, page: &Page) -> Result<Paged<VersionSummary>> {
    let request: Request<1> = Request::parse("versions", page)?;
    let before = match request.after[0].as_str() {
        "" => i64::MAX,
        number => number.parse().map_err(|_| Error::invalid("the page token is not one of this list"))?,
    };
    let dataset_id = locate(store, path).await?.dataset_id;
    let rows: Vec<VersionSummaryRow> = sqlx::query_as::<Db, _>(
        "SELECT v.number, v.created_at, coalesce(v.published_by, f.published_by) AS principal, \
                CAST(a.meta AS TEXT) AS meta, v.rows, v.chunks, v.stored_bytes, v.restored_number, f.kind AS file_kind, \
                f.source_name, a.problem_reason, a.problem_message, coalesce(v.extents_of, v.id) AS list \
         FROM versions v JOIN files f ON f.id = v.file_id \
         JOIN extents x ON x.version_id = coalesce(v.extents_of, v.id) AND x.ordinal = 0 \
         JOIN arrays a ON a.id = x.array_id \
         WHERE v.dataset_id = $1 AND v.number < $2 AND v.expired_at IS NULL ORDER BY v.number DESC LIMIT $3",
    )
    .bind(dataset_id)
    .bind(before)
    .bind(request.limit())
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    // The page, as the numbers of its versions.
    let shown = (dataset_id, before, rows.last().map_or(before, |row| row.number));
    let mut tags = tags_of(store, shown).await?;
    let lists = lists_of(store, shown).await?;
    let mut numbered = Vec::with_capacity(rows.len());
    for row in rows {
        let extents = lists.get(&row.list).map_or(0, |starts| starts.partition_point(|start| *start < row.rows).max(1));
        let version = row.summary(extents as u64, &mut tags)?;
        numbered.push((version.number.to_string(), version));
    }
    let Paged { items, next } = request.page(numbered, |(number, _)| [number]);
    Ok(Paged { items: items.into_iter().map(|(_, version)| version).collect(), next })
}

/// Tags of a dataset's versions below the first number and from the second one on, by number.
async fn tags_of(store: &Store, (dataset_id, before, last): (i64, i64, i64)) -> Result<HashMap<i64, Vec<String>>> {
    let rows: Vec<(i64, String)> = sqlx::query_as::<Db, _>(
        "SELECT v.number, t.name FROM versions v JOIN tags t ON t.version_id = v.id \
         WHERE v.dataset_id = $1 AND v.number < $2 AND v.number >= $3 ORDER BY t.name",
    )
    .bind(dataset_id)
    .bind(before)
    .bind(last)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let mut tags: HashMap<i64, Vec<String>> = HashMap::new();
    for (number, tag) in rows {
        tags.entry(number).or_default().push(tag);
    }
    Ok(tags)
}

/// The first rows of the extents of the lists that these versions share, ascending: each list once, for counting the
/// extents of a thousand versions of it one by one would read it a thousand times.
async fn lists_of(store: &Store, (dataset_id, before, last): (i64, i64, i64)) -> Result<HashMap<i64, Vec<i64>>> {
    let rows: Vec<(i64, i64)> = sqlx::query_as::<Db, _>(
        "SELECT x.version_id, x.first_row FROM extents x WHERE x.version_id IN \
            (SELECT coalesce(v.extents_of, v.id) FROM versions v \
             WHERE v.dataset_id = $1 AND v.number < $2 AND v.number >= $3) \
         ORDER BY x.version_id, x.ordinal",
    )
    .bind(dataset_id)
    .bind(before)
    .bind(last)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let mut lists: HashMap<i64, Vec<i64>> = HashMap::new();
    for (list, first_row) in rows {
        lists.entry(list).or_default().push(first_row);
    }
    Ok(lists)
}

pub(super) async fn roll_back(store: &Store, rollback: &Rollback) -> Result<RolledBack> {
    let Located { path, experiment_id, dataset_id, .. } = locate(store, &rollback.path).await?;
    let mut transaction = dialect::begin(store).await?;
    let connection = &mut *transaction;
    lock_experiment(connection, experiment_id).await?;
    let current = current(connection, dataset_id).await?;
    let before = unsigned("the number of a version", current.number)?;
    if let Some(expected) = rollback.expected.filter(|expected| *expected != before) {
        return Err(Error::version_conflict(path, expected, before));
    }
    let Some(target) = numbered(connection, dataset_id, rollback.version).await? else {
        let message = format!("dataset \"{path}\" has no version {}; the newest is {before}", rollback.version);
        return Err(not_found(Level::Version, vec![before.to_string()], message));
    };
    if !current.withdrawn
        && (current.range() == target.range()
            || extents(connection, current.range()).await? == extents(connection, target.range()).await?)
    {
        return Ok(RolledBack { path, version: before, before, already: true, superseded: Vec::new() });
    }
    let restored = Restored { experiment_id, dataset: &path.dataset, current, target };
    let version_id = restored.insert(connection, rollback).await?;
    restored.show_object(connection).await?;
    sqlx::query::<Db>("UPDATE datasets SET current_version_id = $2, withdrawn_by = NULL WHERE id = $1")
        .bind(dataset_id)
        .bind(version_id)
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
    let superseded = out_of_use(connection, restored.current.list).await?;
    transaction.commit().await.map_err(fault)?;
    Ok(RolledBack { path, version: before + 1, before, already: false, superseded })
}

/// Waits until nobody else publishes into this experiment, and keeps it so until the end of the transaction: a write
/// that changes nothing locks in either database.
pub(super) async fn lock_experiment(connection: &mut Conn, experiment_id: i64) -> Result<()> {
    sqlx::query::<Db>("UPDATE experiments SET search_text = search_text WHERE id = $1")
        .bind(experiment_id)
        .execute(connection)
        .await
        .map_err(fault)?;
    Ok(())
}

/// The newest version of a dataset.
struct CurrentVersion {
    number: i64,
    created_at: DateTime<Utc>,
    withdrawn: bool,
    /// The version whose list of extents it has.
    list: i64,
    rows: i64,
}

impl CurrentVersion {
    /// The list, and how far it is this version.
    const fn range(&self) -> (i64, i64) {
        (self.list, self.rows)
    }
}

async fn current(connection: &mut Conn, dataset_id: i64) -> Result<CurrentVersion> {
    let row: (i64, DateTime<Utc>, Option<i64>, i64, i64) = sqlx::query_as::<Db, _>(
        "SELECT v.number, v.created_at, d.withdrawn_by, coalesce(v.extents_of, v.id), v.rows FROM datasets d \
         JOIN versions v ON v.id = d.current_version_id WHERE d.id = $1",
    )
    .bind(dataset_id)
    .fetch_one(connection)
    .await
    .map_err(fault)?;
    let (number, created_at, withdrawn_by, list, rows) = row;
    Ok(CurrentVersion { number, created_at, withdrawn: withdrawn_by.is_some(), list, rows })
}

/// A version that is to come back.
struct OldVersion {
    version_id: i64,
    file_id: i64,
    object_id: i64,
    list: i64,
    rows: i64,
}

impl OldVersion {
    const fn range(&self) -> (i64, i64) {
        (self.list, self.rows)
    }
}

async fn numbered(connection: &mut Conn, dataset_id: i64, number: u64) -> Result<Option<OldVersion>> {
    let Ok(number) = i64::try_from(number) else { return Ok(None) };
    let row: Option<(i64, i64, i64, i64, i64)> = sqlx::query_as::<Db, _>(
        "SELECT id, file_id, object_id, coalesce(extents_of, id), rows FROM versions \
         WHERE dataset_id = $1 AND number = $2 AND expired_at IS NULL",
    )
    .bind(dataset_id)
    .bind(number)
    .fetch_optional(connection)
    .await
    .map_err(fault)?;
    Ok(row.map(|(version_id, file_id, object_id, list, rows)| OldVersion {
        version_id,
        file_id,
        object_id,
        list,
        rows,
    }))
}

/// The extents of a version: array, first row, row of the array, rows.
async fn extents(connection: &mut Conn, (list, rows): (i64, i64)) -> Result<Vec<(i64, i64, i64, i64)>> {
    sqlx::query_as::<Db, _>(
        "SELECT array_id, first_row, array_row, CASE WHEN rows > $2 - first_row THEN $2 - first_row ELSE rows END \
         FROM extents WHERE version_id = $1 AND (ordinal = 0 OR first_row < $2) ORDER BY ordinal",
    )
    .bind(list)
    .bind(rows)
    .fetch_all(connection)
    .await
    .map_err(fault)
}

/// A rollback on its way.
struct Restored<'p> {
    experiment_id: i64,
    dataset: &'p str,
    current: CurrentVersion,
    target: OldVersion,
}

impl Restored<'_> {
    /// Adds the next version with the list of the old one; gives its id. Time never runs backwards in a history.
    async fn insert(&self, connection: &mut Conn, rollback: &Rollback) -> Result<i64> {
        sqlx::query_scalar::<Db, _>(
            "INSERT INTO versions (dataset_id, number, file_id, object_id, rows, chunks, stored_bytes, created_at, \
                                   published_by, restored_number, extents_of) \
             SELECT dataset_id, $2, file_id, object_id, rows, chunks, stored_bytes, $3, $4, number, \
                    coalesce(extents_of, id) \
             FROM versions WHERE id = $1 RETURNING id",
        )
        .bind(self.target.version_id)
        .bind(self.current.number + 1)
        .bind(now().max(self.current.created_at))
        .bind(text::words(&rollback.principal, NAME_BYTES_MAX))
        .fetch_one(connection)
        .await
        .map_err(fault)
    }

    /// Makes the old version's object the one that is shown, in the place of whichever is now, with the groups above it
    /// where no file has them any more.
    async fn show_object(&self, connection: &mut Conn) -> Result<()> {
        sqlx::query::<Db>(
            "UPDATE objects SET superseded_by = $3 WHERE experiment_id = $1 AND name = $2 AND kind = 'dataset' \
               AND superseded_by IS NULL AND id <> $4",
        )
        .bind(self.experiment_id)
        .bind(self.dataset)
        .bind(self.target.file_id)
        .bind(self.target.object_id)
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
        sqlx::query::<Db>("UPDATE objects SET superseded_by = NULL WHERE id = $1")
            .bind(self.target.object_id)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
        for group in names::prefixes(names::parent(self.dataset).unwrap_or_default()) {
            sqlx::query::<Db>(
                "UPDATE objects SET superseded_by = NULL WHERE file_id = $3 AND experiment_id = $1 AND name = $2 \
                   AND kind = 'group' AND superseded_by IS NOT NULL \
                   AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.experiment_id = $1 AND o.name = $2 \
                                   AND o.superseded_by IS NULL)",
            )
            .bind(self.experiment_id)
            .bind(group)
            .bind(self.target.file_id)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
        }
        Ok(())
    }
}

/// Identities of the arrays of a list that no current version uses any more.
async fn out_of_use(connection: &mut Conn, list: i64) -> Result<Vec<[u8; 16]>> {
    let found: Vec<Vec<u8>> = sqlx::query_scalar::<Db, _>(concat!(
        "SELECT DISTINCT a.identity FROM arrays a JOIN extents x ON x.array_id = a.id WHERE x.version_id = $1 ",
        not_in_use!()
    ))
    .bind(list)
    .fetch_all(connection)
    .await
    .map_err(fault)?;
    identities(found)
}

/// Refuses a publication that is not based on what is there now. Holds the lock of the experiments.
pub(super) async fn check_expected(connection: &mut Conn, expected: &[ExpectedVersion]) -> Result<()> {
    for ExpectedVersion { path, version } in expected {
        let number: Option<i64> = sqlx::query_scalar::<Db, _>(
            "SELECT v.number FROM datasets d \
             JOIN experiments e ON e.id = d.experiment_id \
             JOIN animals n ON n.id = e.animal_id \
             JOIN versions v ON v.id = d.current_version_id \
             WHERE n.name = $1 AND e.name = $2 AND d.name = $3",
        )
        .bind(text::asked(&path.animal))
        .bind(text::asked(&path.experiment))
        .bind(text::asked(&path.dataset))
        .fetch_optional(&mut *connection)
        .await
        .map_err(fault)?;
        let current = unsigned("the number of a version", number.unwrap_or(0))?;
        if current != *version {
            return Err(Error::version_conflict(path, *version, current));
        }
    }
    Ok(())
}
