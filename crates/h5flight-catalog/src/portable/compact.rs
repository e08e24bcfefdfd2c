//! Many small files of one dataset become few: neighbours in a list of extents give way to one extent of the same rows.
//!
//! Migration 0007 says why all versions of the list stay right. It takes the lock of the experiment, as an append does;
//! the place that is always there, ordinal 0, is the file that describes the dataset and is never replaced.

use chrono::{DateTime, Utc};

use super::append::{NewArrayRow, check_same_rows};
use super::{Conn, Db, Store, dialect, fault, publish};
use crate::error::{Error, ErrorKind, Result};
use crate::model::*;
use crate::rows::{now, unsigned};
use crate::staging::{Staged, storable};

/// Lists that are looked at in one call.
const LISTS_MAX: i64 = 16;
/// Extents of one list that are looked at in one call.
const EXTENTS_MAX: i64 = 65_536;
/// Files that are forgotten in one transaction.
const DROPPED_MAX: i64 = 1_000;

pub(super) async fn long_lists(store: &Store, extents_min: u64, after: i64) -> Result<Vec<LongList>> {
    let lists: Vec<i64> = sqlx::query_scalar::<Db, _>(
        "SELECT x.version_id FROM extents x JOIN versions owner ON owner.id = x.version_id \
         JOIN datasets d ON d.id = owner.dataset_id JOIN versions v ON v.id = d.current_version_id \
         WHERE x.ordinal > 0 AND x.version_id > $1 AND coalesce(v.extents_of, v.id) = x.version_id \
           AND d.withdrawn_by IS NULL \
         GROUP BY x.version_id HAVING count(*) >= $2 ORDER BY x.version_id LIMIT $3",
    )
    .bind(after)
    .bind(storable("a number of extents", extents_min)?)
    .bind(LISTS_MAX)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let mut found = Vec::with_capacity(lists.len());
    for list in lists {
        found.extend(long_list(store, list).await?);
    }
    Ok(found)
}

/// A list with the newest version, where that has it.
async fn long_list(store: &Store, list: i64) -> Result<Option<LongList>> {
    let current: Option<(String, String, String, i64, i64)> = sqlx::query_as::<Db, _>(
        "SELECT n.name, e.name, d.name, v.id, v.rows FROM versions owner JOIN datasets d ON d.id = owner.dataset_id \
         JOIN versions v ON v.id = d.current_version_id JOIN experiments e ON e.id = d.experiment_id \
         JOIN animals n ON n.id = e.animal_id \
         WHERE owner.id = $1 AND coalesce(v.extents_of, v.id) = $1 AND d.withdrawn_by IS NULL",
    )
    .bind(list)
    .fetch_optional(&store.readers)
    .await
    .map_err(fault)?;
    // The list of a version that is no longer the newest one does not grow.
    let Some((animal, experiment, dataset, version_id, rows)) = current else { return Ok(None) };
    let extents: Vec<(i64, i64, i64, i64, i64)> = sqlx::query_as::<Db, _>(
        "SELECT x.ordinal, x.array_id, x.first_row, x.rows, a.stored_bytes \
         FROM extents x JOIN arrays a ON a.id = x.array_id JOIN files f ON f.id = a.file_id \
         WHERE x.version_id = $1 AND x.ordinal > 0 AND x.first_row + x.rows <= $2 AND x.array_row = 0 \
           AND x.rows = a.rows AND f.kind = 'managed' AND f.quarantine_reason IS NULL \
         ORDER BY x.ordinal LIMIT $3",
    )
    .bind(list)
    .bind(rows)
    .bind(EXTENTS_MAX)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let extents = extents.into_iter().map(|(ordinal, array_id, first_row, rows, stored_bytes)| {
        Ok(ListedExtent {
            ordinal,
            array_id,
            first_row: unsigned("a row", first_row)?,
            rows: unsigned("a number of rows", rows)?,
            stored_bytes: unsigned("a size", stored_bytes)?,
        })
    });
    let path = DatasetPath { animal, experiment, dataset };
    Ok(Some(LongList { path, version_id, list, extents: extents.collect::<Result<_>>()? }))
}

pub(super) async fn compact(store: &Store, compaction: &Compaction) -> Result<()> {
    let whole = publication(compaction);
    let staged = Staged::new(&whole).await?;
    let mut transaction = dialect::begin(store).await?;
    let connection = &mut *transaction;
    let at = now();
    let experiments = publish::ensure_experiments(connection, &staged, at).await?;
    let first = unchanged(connection, compaction).await?;
    let NewObject { animal, experiment, name, .. } = &compaction.object;
    let path = DatasetPath { animal: animal.clone(), experiment: experiment.clone(), dataset: name.clone() };
    check_same_rows(connection, compaction.list, (&path, &compaction.object)).await?;
    let array = NewArrayRow::insert(connection, &staged, (&experiments, at)).await?;
    let rows: u64 = compaction.replaced.iter().map(|extent| extent.rows).sum();
    if unsigned("a number of rows", array.rows)? != rows {
        return Err(Error::invalid(format!("a file of {} rows in the place of {rows}", array.rows)));
    }
    let last = compaction.replaced.last().map_or(first.ordinal, |extent| extent.ordinal);
    sqlx::query::<Db>(
        "UPDATE versions SET chunks = chunks + $4 - (SELECT sum(a.chunks) FROM extents x JOIN arrays a ON a.id = x.array_id \
                                                     WHERE x.version_id = $1 AND x.ordinal BETWEEN $2 AND $3), \
                stored_bytes = stored_bytes + $5 - (SELECT sum(a.stored_bytes) FROM extents x \
                                                    JOIN arrays a ON a.id = x.array_id \
                                                    WHERE x.version_id = $1 AND x.ordinal BETWEEN $2 AND $3) \
         WHERE id = (SELECT d.current_version_id FROM versions owner JOIN datasets d ON d.id = owner.dataset_id \
                     WHERE owner.id = $1) AND coalesce(extents_of, id) = $1",
    )
    .bind(compaction.list)
    .bind(first.ordinal)
    .bind(last)
    .bind(array.chunks)
    .bind(array.stored_bytes)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    sqlx::query::<Db>("DELETE FROM extents WHERE version_id = $1 AND ordinal BETWEEN $2 AND $3")
        .bind(compaction.list)
        .bind(first.ordinal)
        .bind(last)
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
    sqlx::query::<Db>(
        "INSERT INTO extents (version_id, ordinal, array_id, first_row, array_row, rows) VALUES ($1, $2, $3, $4, 0, $5)",
    )
    .bind(compaction.list)
    .bind(first.ordinal)
    .bind(array.id)
    .bind(storable("a row", first.first_row)?)
    .bind(array.rows)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    for extent in &compaction.replaced {
        mark_unused(connection, extent.array_id, at).await?;
    }
    transaction.commit().await.map_err(fault)
}

/// The file as a publication.
fn publication(compaction: &Compaction) -> Publication {
    Publication {
        place: compaction.place.clone(),
        fingerprint: compaction.fingerprint,
        source_name: compaction.source_name.clone(),
        objects: vec![compaction.object.clone()],
        links: Vec::new(),
        facts: ExperimentFacts::default(),
        ingest_key: None,
        replace: false,
        principal: String::new(),
        expected: Vec::new(),
        writer: None,
    }
}

/// The first of the extents that are replaced, if they are what they were when they were read.
async fn unchanged<'a>(connection: &mut Conn, compaction: &'a Compaction) -> Result<&'a ListedExtent> {
    let (Some(first), Some(last)) = (compaction.replaced.first(), compaction.replaced.last()) else {
        return Err(Error::invalid("nothing is compacted"));
    };
    if first.ordinal < 1 {
        return Err(Error::invalid("the file that describes a dataset is not replaced"));
    }
    let there: Vec<(i64, i64, i64, i64)> = sqlx::query_as::<Db, _>(
        "SELECT ordinal, array_id, first_row, rows FROM extents \
         WHERE version_id = $1 AND ordinal BETWEEN $2 AND $3 AND array_row = 0 ORDER BY ordinal",
    )
    .bind(compaction.list)
    .bind(first.ordinal)
    .bind(last.ordinal)
    .fetch_all(&mut *connection)
    .await
    .map_err(fault)?;
    let current: Option<i64> = sqlx::query_scalar::<Db, _>(
        "SELECT v.rows FROM versions owner JOIN datasets d ON d.id = owner.dataset_id \
         JOIN versions v ON v.id = d.current_version_id WHERE owner.id = $1 AND coalesce(v.extents_of, v.id) = $1",
    )
    .bind(compaction.list)
    .fetch_optional(connection)
    .await
    .map_err(fault)?;
    let same = |((ordinal, array_id, first_row, rows), extent): (&(i64, i64, i64, i64), &ListedExtent)| {
        (*ordinal, *array_id) == (extent.ordinal, extent.array_id)
            && u64::try_from(*first_row) == Ok(extent.first_row)
            && u64::try_from(*rows) == Ok(extent.rows)
    };
    let follows = |pair: &[ListedExtent]| pair[0].first_row + pair[0].rows == pair[1].first_row;
    let end = storable("a row", last.first_row.saturating_add(last.rows))?;
    if current.is_some_and(|rows| rows < end) {
        return Err(Error::new(ErrorKind::Conflict, "an older version became the current one while files were read"));
    }
    if there.len() != compaction.replaced.len() || !there.iter().zip(&compaction.replaced).all(same) {
        return Err(Error::new(ErrorKind::Conflict, "the list of extents was changed while its files were read"));
    }
    match compaction.replaced.windows(2).all(follows) {
        true => Ok(first),
        false => Err(Error::invalid("what is replaced are no neighbours")),
    }
}

/// Remembers since when no list names an array of a file. The file that describes a dataset is always needed.
async fn mark_unused(connection: &mut Conn, array_id: i64, at: DateTime<Utc>) -> Result<()> {
    sqlx::query::<Db>(
        "UPDATE files SET unused_since = $2 WHERE id = (SELECT file_id FROM arrays WHERE id = $1) AND kind = 'managed' \
           AND NOT EXISTS (SELECT 1 FROM arrays a JOIN extents x ON x.array_id = a.id WHERE a.file_id = files.id) \
           AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.file_id = files.id)",
    )
    .bind(array_id)
    .bind(at)
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

pub(super) async fn drop_unused(store: &Store, before: DateTime<Utc>) -> Result<Vec<i64>> {
    let mut transaction = dialect::begin(store).await?;
    let connection = &mut *transaction;
    // A rollback may have named it again; a reader who took a list before reads what it named.
    let files: Vec<i64> = sqlx::query_scalar::<Db, _>(
        "SELECT id FROM files WHERE unused_since < $1 \
           AND NOT EXISTS (SELECT 1 FROM arrays a JOIN extents x ON x.array_id = a.id WHERE a.file_id = files.id) \
           AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.file_id = files.id) \
           AND NOT EXISTS (SELECT 1 FROM ingests i WHERE i.file_id = files.id) \
           AND NOT EXISTS (SELECT 1 FROM links l WHERE l.file_id = files.id OR l.superseded_by = files.id) \
           AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.superseded_by = files.id AND o.file_id <> files.id) \
           AND NOT EXISTS (SELECT 1 FROM datasets d WHERE d.withdrawn_by = files.id) \
         ORDER BY id LIMIT $2",
    )
    .bind(before)
    .bind(DROPPED_MAX)
    .fetch_all(&mut *connection)
    .await
    .map_err(fault)?;
    for file_id in &files {
        for statement in [
            "DELETE FROM chunk_runs WHERE array_id IN (SELECT id FROM arrays WHERE file_id = $1)",
            "DELETE FROM arrays WHERE file_id = $1",
            "DELETE FROM objects WHERE file_id = $1",
            "DELETE FROM files WHERE id = $1",
        ] {
            sqlx::query::<Db>(statement).bind(file_id).execute(&mut *connection).await.map_err(fault)?;
        }
    }
    transaction.commit().await.map_err(fault)?;
    Ok(files)
}
