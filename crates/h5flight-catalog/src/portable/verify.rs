//! What is compared with the files: their records, their arrays, and the mark that takes one out of use.

use std::collections::HashMap;
use std::sync::Arc;

use h5flight_array::checksum;

use super::{Db, Store, dialect, fault};
use crate::error::{Error, Result};
use crate::model::*;
use crate::mosaic::select_runs;
use crate::paging::Request;
use crate::rows::{self, ArrayRow, FileRow, RunRow, array_columns, file_columns, unsigned};
use crate::staging::place_columns;
use crate::text;

/// Arrays that one call gives at most: each may have 64 KiB of values with it.
const ARRAYS_MAX: i64 = 256;
/// Chunks of all arrays that one call gives, unless the first alone has more: 32 MiB in memory.
const CHUNKS_MAX: u64 = 1 << 20;

pub(super) async fn release(store: &Store, file_id: i64) -> Result<()> {
    let released =
        sqlx::query::<Db>("UPDATE files SET quarantine_reason = NULL, quarantine_message = NULL WHERE id = $1")
            .bind(file_id)
            .execute(&store.writer)
            .await
            .map_err(fault)?;
    match released.rows_affected() {
        0 => Err(Error::invalid(format!("no file has the id {file_id}"))),
        _ => Ok(()),
    }
}

pub(super) async fn list_files_of(
    store: &Store,
    animal: &str,
    experiment: &str,
    page: &Page,
) -> Result<Paged<FileRecord>> {
    let request: Request<3> = Request::parse("files", page)?;
    let [kind, root, path] = &request.after;
    let rows: Vec<FileRow> = sqlx::query_as::<Db, _>(concat!(
        "SELECT ",
        file_columns!(),
        " FROM files f WHERE (f.kind, f.root, f.path) > ($1, $2, $3) \
           AND NOT EXISTS (SELECT 1 FROM files newer WHERE newer.kind = f.kind AND newer.root = f.root \
                           AND newer.path = f.path AND newer.generation > f.generation) \
           AND ($5 = '' OR EXISTS (SELECT 1 FROM objects o JOIN experiments e ON e.id = o.experiment_id \
                                   JOIN animals n ON n.id = e.animal_id \
                                   WHERE o.file_id = f.id AND n.name = $5 AND ($6 = '' OR e.name = $6))) \
         ORDER BY f.kind, f.root, f.path LIMIT $4"
    ))
    .bind(kind)
    .bind(root)
    .bind(path)
    .bind(request.limit())
    .bind(text::asked(animal))
    .bind(text::asked(experiment))
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let files = rows.into_iter().map(FileRow::record).collect::<Result<Vec<_>>>()?;
    Ok(request.page(files, |file| {
        let (kind, root, path) = place_columns(&file.place);
        [kind, root, path]
    }))
}

pub(super) async fn fingerprints_below(store: &Store, root: &str, path: &str) -> Result<HashMap<String, Fingerprint>> {
    // Names are compared by bytes: what begins with "path/" lies before "path0".
    let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as::<Db, _>(
        "SELECT f.path, f.device, f.inode, f.bytes, f.modified_ns FROM files f \
         WHERE f.kind = 'registered' AND f.root = $1 \
           AND ($2 = '' OR f.path = $2 OR (f.path > $3 AND f.path < $4)) \
           AND NOT EXISTS (SELECT 1 FROM files newer WHERE newer.kind = f.kind AND newer.root = f.root \
                           AND newer.path = f.path AND newer.generation > f.generation)",
    )
    .bind(text::asked(root))
    .bind(text::asked(path))
    .bind(text::asked(&format!("{path}/")))
    .bind(text::asked(&format!("{path}0")))
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let known = rows.into_iter().map(|(path, device, inode, bytes, modified_ns)| {
        let (device, inode) = (device.cast_unsigned(), inode.cast_unsigned());
        Ok((path, Fingerprint { device, inode, bytes: unsigned("the size of a file", bytes)?, modified_ns }))
    });
    known.collect()
}

pub(super) async fn arrays_of(store: &Store, file_id: i64, after: i64) -> Result<Vec<Arc<ArrayRecord>>> {
    let Some(last) = last_of_next(store, file_id, after).await? else { return Ok(Vec::new()) };
    let arrays: Vec<ArrayRow> = sqlx::query_as::<Db, _>(concat!(
        "SELECT ",
        array_columns!(),
        " FROM arrays a JOIN files f ON f.id = a.file_id \
         WHERE a.file_id = $1 AND a.id > $2 AND a.id <= $3 ORDER BY a.id"
    ))
    .bind(file_id)
    .bind(after)
    .bind(last)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let runs: Vec<RunRow> = sqlx::query_as::<Db, _>(concat!(
        select_runs!(),
        "WHERE r.array_id IN (SELECT id FROM arrays WHERE file_id = $1 AND id > $2 AND id <= $3) \
         ORDER BY r.array_id, r.run"
    ))
    .bind(file_id)
    .bind(after)
    .bind(last)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    rows::arrays(arrays, runs).await
}

/// The key up to which arrays fit into one answer.
async fn last_of_next(store: &Store, file_id: i64, after: i64) -> Result<Option<i64>> {
    let sizes: Vec<(i64, i64)> =
        sqlx::query_as::<Db, _>("SELECT id, chunks FROM arrays WHERE file_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(file_id)
            .bind(after)
            .bind(ARRAYS_MAX)
            .fetch_all(&store.readers)
            .await
            .map_err(fault)?;
    let (mut last, mut sum) = (None, 0u64);
    for (id, chunks) in sizes {
        sum = sum.saturating_add(unsigned("a number of chunks", chunks)?);
        if last.is_some() && sum > CHUNKS_MAX {
            break;
        }
        last = Some(id);
    }
    Ok(last)
}

/// All runs of the array in one transaction: it has the checksums of all its chunks or of none.
pub(super) async fn keep_checksums(store: &Store, array_id: i64, checksums: &[u64]) -> Result<()> {
    let mut transaction = dialect::begin(store).await?;
    let runs: Vec<(i64, i64)> =
        sqlx::query_as::<Db, _>("SELECT run, pointers FROM chunk_runs WHERE array_id = $1 ORDER BY run")
            .bind(array_id)
            .fetch_all(&mut *transaction)
            .await
            .map_err(fault)?;
    let chunks: i64 = runs.iter().map(|(_, pointers)| pointers).sum();
    if usize::try_from(chunks).ok() != Some(checksums.len()) {
        let found = checksums.len();
        return Err(Error::invalid(format!("{found} checksums of the {chunks} chunks of array {array_id}")));
    }
    let mut rest = checksums;
    for (run, pointers) in runs {
        // Not negative, and not more than there are: the sum was compared.
        let (own, after) = rest.split_at((pointers.max(0) as usize).min(rest.len()));
        rest = after;
        sqlx::query::<Db>("UPDATE chunk_runs SET checksums = $3 WHERE array_id = $1 AND run = $2")
            .bind(array_id)
            .bind(run)
            .bind(checksum::packed(own))
            .execute(&mut *transaction)
            .await
            .map_err(fault)?;
    }
    transaction.commit().await.map_err(fault)
}
