//! What each put of a writer made, so that a retry is answered with just that. Read and written under the lock of the
//! experiment: of two tries of one put at once the second finds what the first made.

use chrono::{DateTime, Utc};

use super::{Conn, Db, Store, fault, resolve};
use crate::error::{Error, ErrorKind, Result};
use crate::model::*;
use crate::rows::unsigned;
use crate::staging::storable;
use crate::text;

pub(super) async fn find_append(
    store: &Store,
    path: &DatasetPath,
    writer: &str,
    sequence: u64,
) -> Result<Option<Appended>> {
    let Ok(sequence) = i64::try_from(sequence) else { return Ok(None) };
    let dataset_id = match resolve::locate(store, path).await {
        Ok(located) => located.dataset_id,
        Err(error) if matches!(error.kind, ErrorKind::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut connection = store.readers.acquire().await.map_err(fault)?;
    answer(&mut connection, dataset_id, (writer, sequence)).await
}

/// The answer to this put where it was made before.
///
/// # Errors
/// [`ErrorKind::Refused`] with `put_sequence` where only later ones of the writer are known.
pub(super) async fn known(
    connection: &mut Conn,
    dataset_id: i64,
    writer: Option<&WriterSequence>,
) -> Result<Option<Appended>> {
    let Some(WriterSequence { writer, sequence }) = writer else { return Ok(None) };
    let wanted = storable("the sequence number", *sequence)?;
    if let Some(answer) = answer(connection, dataset_id, (writer, wanted)).await? {
        return Ok(Some(answer));
    }
    let last: Option<i64> =
        sqlx::query_scalar::<Db, _>("SELECT max(sequence) FROM puts WHERE dataset_id = $1 AND writer = $2")
            .bind(dataset_id)
            .bind(text::asked(writer))
            .fetch_one(connection)
            .await
            .map_err(fault)?;
    match last {
        Some(last) if last > wanted => {
            let message =
                format!("put {wanted} of the writer \"{writer}\" is not known, and put {last} is there already");
            Err(Error::new(ErrorKind::Refused("put_sequence".into()), message))
        }
        Some(_) | None => Ok(None),
    }
}

async fn answer(connection: &mut Conn, dataset_id: i64, (writer, sequence): (&str, i64)) -> Result<Option<Appended>> {
    let row: Option<(i64, i64, i64, i64, i64, String)> = sqlx::query_as::<Db, _>(
        "SELECT version, version_id, first_row, rows, total_rows, content FROM puts \
         WHERE dataset_id = $1 AND writer = $2 AND sequence = $3",
    )
    .bind(dataset_id)
    .bind(text::asked(writer))
    .bind(sequence)
    .fetch_optional(connection)
    .await
    .map_err(fault)?;
    let Some((version, version_id, first_row, rows, total_rows, content)) = row else { return Ok(None) };
    Ok(Some(Appended {
        version: unsigned("the number of a version", version)?,
        version_id,
        first_row: unsigned("a row", first_row)?,
        rows: unsigned("a number of rows", rows)?,
        total_rows: unsigned("a number of rows", total_rows)?,
        already: true,
        content,
        superseded: Vec::new(),
    }))
}

/// Writes down what a put made, where it has a writer.
pub(super) async fn record(
    connection: &mut Conn,
    dataset_id: i64,
    (writer, made): (Option<&WriterSequence>, &Appended),
    at: DateTime<Utc>,
) -> Result<()> {
    let Some(WriterSequence { writer, sequence }) = writer else { return Ok(()) };
    sqlx::query::<Db>(
        "INSERT INTO puts (dataset_id, writer, sequence, version_id, version, first_row, rows, total_rows, content, \
                           created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(dataset_id)
    .bind(writer)
    .bind(storable("the sequence number", *sequence)?)
    .bind(made.version_id)
    .bind(storable("the number of a version", made.version)?)
    .bind(storable("a row", made.first_row)?)
    .bind(storable("a number of rows", made.rows)?)
    .bind(storable("a number of rows", made.total_rows)?)
    .bind(&made.content)
    .bind(at)
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

/// The answer to a put that is a whole publication: the current version of its dataset, in which its rows are all.
pub(super) async fn whole(connection: &mut Conn, dataset_id: i64, place: &FilePlace) -> Result<Appended> {
    let (version_id, version, rows): (i64, i64, i64) = sqlx::query_as::<Db, _>(
        "SELECT v.id, v.number, v.rows FROM datasets d JOIN versions v ON v.id = d.current_version_id WHERE d.id = $1",
    )
    .bind(dataset_id)
    .fetch_one(connection)
    .await
    .map_err(fault)?;
    let rows = unsigned("a number of rows", rows)?;
    Ok(Appended {
        version: unsigned("the number of a version", version)?,
        version_id,
        first_row: 0,
        rows,
        total_rows: rows,
        already: false,
        content: content(place).to_owned(),
        superseded: Vec::new(),
    })
}

/// The content address of a managed file; empty for others.
pub(super) fn content(place: &FilePlace) -> &str {
    match place {
        FilePlace::Managed { content } => content,
        FilePlace::Registered { .. } => "",
    }
}
