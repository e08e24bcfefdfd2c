//! SQL that only SQLite understands: batches as rows of values, lists as JSON.

use chrono::{DateTime, Utc};
use h5flight_array::expression::Literal;
use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, Transaction};

use super::{SqliteCatalog, fault};
use crate::error::Result;
use crate::mosaic::{select_current_arrays, select_file_arrays, select_runs};
use crate::rows::{self, EnsuredExperimentRow, LinkOnPathRow};
use crate::staging::{ArrayRow, LinkRow, LogRow, ObjectRow, RunRow};
use crate::wanted::Kind;

pub(super) async fn begin(store: &SqliteCatalog) -> Result<Transaction<'static, Sqlite>> {
    // IMMEDIATE: a transaction that begins by reading could not become a writer once another has written.
    store.writer.begin_with("BEGIN IMMEDIATE").await.map_err(fault)
}

/// A list of texts as one parameter.
fn list<T: serde::Serialize>(items: &[T]) -> String {
    serde_json::to_string(items).expect("texts are always JSON")
}

/// Makes missing animals; the first species that a file names stays.
pub(super) async fn ensure_animals(
    connection: &mut SqliteConnection,
    animals: &[&str],
    species: Option<&str>,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO animals (name, species, created_at) SELECT value, $2, $3 FROM json_each($1) WHERE TRUE \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(list(animals))
    .bind(species)
    .bind(at)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    if species.is_some() {
        sqlx::query(
            "UPDATE animals SET species = $2 WHERE species IS NULL AND name IN (SELECT value FROM json_each($1))",
        )
        .bind(list(animals))
        .bind(species)
        .execute(connection)
        .await
        .map_err(fault)?;
    }
    Ok(())
}

/// Makes missing experiments. DO UPDATE and not DO NOTHING because only changed rows are returned.
pub(super) async fn ensure_experiments(
    connection: &mut SqliteConnection,
    experiments: &[(&str, &str)],
    at: DateTime<Utc>,
) -> Result<Vec<EnsuredExperimentRow>> {
    sqlx::query_as(
        "INSERT INTO experiments (animal_id, name, search_text, created_at) \
         SELECT n.id, t.value ->> 1, '', $2 FROM json_each($1) AS t JOIN animals n ON n.name = t.value ->> 0 WHERE \
         TRUE \
         ON CONFLICT (animal_id, name) DO UPDATE SET name = excluded.name \
         RETURNING id, (SELECT n.name FROM animals n WHERE n.id = animal_id) AS animal, name AS experiment, \
                   identifier, session_id, start_time, nwb_version, species, CAST(details AS TEXT) AS details",
    )
    .bind(list(experiments))
    .bind(at)
    .fetch_all(connection)
    .await
    .map_err(fault)
}

/// Values of one row of a batch.
type Values<'v> = Separated<'v, Sqlite, &'static str>;

/// A statement with a row of values for each of `rows`. Its text differs with their number, so it is never kept.
fn batch<'r, R>(insert: &'static str, rows: &'r [R], values: impl Fn(&mut Values<'_>, &'r R)) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(insert);
    statement.push_values(rows, |mut row, of| values(&mut row, of));
    statement
}

async fn execute(connection: &mut SqliteConnection, mut statement: QueryBuilder<Sqlite>) -> Result<()> {
    statement.build().persistent(false).execute(connection).await.map_err(fault)?;
    Ok(())
}

/// Gives (position, id) of each.
pub(super) async fn insert_objects(
    connection: &mut SqliteConnection,
    file_id: i64,
    rows: &[ObjectRow<'_>],
) -> Result<Vec<(i64, i64)>> {
    let into = "INSERT INTO objects (file_id, position, experiment_id, name, parent, hdf5_path, kind, attributes, \
                                     attribute_types, dimensions, search_text) ";
    let mut statement = batch(into, rows, |values, row| {
        values
            .push_bind(file_id)
            .push_bind(row.position)
            .push_bind(row.experiment_id)
            .push_bind(row.name)
            .push_bind(row.parent)
            .push_bind(row.hdf5_path)
            .push_bind(row.kind)
            .push_bind(row.attributes.as_str())
            .push_bind(row.attribute_types.as_str())
            .push_bind(row.dimensions.as_str())
            .push_bind(row.search_text.as_str());
    });
    statement.push(" RETURNING position, id");
    statement.build_query_as().persistent(false).fetch_all(connection).await.map_err(fault)
}

/// Gives (id of the object, id) of each.
pub(super) async fn insert_arrays(
    connection: &mut SqliteConnection,
    file_id: i64,
    rows: &[ArrayRow<'_>],
) -> Result<Vec<(i64, i64)>> {
    let into = "INSERT INTO arrays (file_id, object_id, identity, hdf5_path, meta, rows, chunks, stored_bytes, \
                                    inline_data, problem_reason, problem_message) ";
    let mut statement = batch(into, rows, |values, row| {
        values
            .push_bind(file_id)
            .push_bind(row.object_id)
            .push_bind(row.identity.as_slice())
            .push_bind(row.hdf5_path)
            .push_bind(row.meta.as_str())
            .push_bind(row.rows)
            .push_bind(row.chunks)
            .push_bind(row.stored_bytes)
            .push_bind(row.inline)
            .push_bind(row.problem_reason.as_deref())
            .push_bind(row.problem_message.as_deref());
    });
    statement.push(" RETURNING object_id, id");
    statement.build_query_as().persistent(false).fetch_all(connection).await.map_err(fault)
}

pub(super) async fn insert_runs(connection: &mut SqliteConnection, rows: &[RunRow<'_>]) -> Result<()> {
    let into = "INSERT INTO chunk_runs (array_id, run, first_number, last_number, pointers, packed, checksums) ";
    let statement = batch(into, rows, |values, row| {
        values
            .push_bind(row.array_id)
            .push_bind(row.run)
            .push_bind(row.first_number)
            .push_bind(row.last_number)
            .push_bind(row.pointers)
            .push_bind(row.packed)
            .push_bind(row.checksums.as_deref());
    });
    execute(connection, statement).await
}

pub(super) async fn insert_links(connection: &mut SqliteConnection, file_id: i64, rows: &[LinkRow<'_>]) -> Result<()> {
    let into = "INSERT INTO links (file_id, experiment_id, path, parent, kind, target) ";
    let statement = batch(into, rows, |values, row| {
        values
            .push_bind(file_id)
            .push_bind(row.experiment_id)
            .push_bind(row.path)
            .push_bind(row.parent)
            .push_bind(row.kind)
            .push_bind(row.target.as_str());
    });
    execute(connection, statement).await
}

pub(super) async fn insert_log(connection: &mut SqliteConnection, rows: &[LogRow]) -> Result<()> {
    let into = "INSERT INTO access_log (at, principal, call, path, selection, outcome, rows, bytes, tier, millis) ";
    let statement = batch(into, rows, |values, row| {
        values
            .push_bind(row.at)
            .push_bind(row.principal.as_str())
            .push_bind(row.call.as_str())
            .push_bind(row.path.as_str())
            .push_bind(row.selection.as_str())
            .push_bind(row.outcome.as_str())
            .push_bind(row.rows)
            .push_bind(row.bytes)
            .push_bind(row.tier.as_str())
            .push_bind(row.millis);
    });
    execute(connection, statement).await
}

/// The link that is the longest of these paths; the newest file's where several have it.
pub(super) async fn link_on_path(
    store: &SqliteCatalog,
    experiment_id: i64,
    paths: &[String],
) -> Result<Option<LinkOnPathRow>> {
    sqlx::query_as(
        "SELECT path, kind, target FROM links \
         WHERE experiment_id = $1 AND path IN (SELECT value FROM json_each($2)) AND superseded_by IS NULL \
         ORDER BY octet_length(path) DESC, id DESC LIMIT 1",
    )
    .bind(experiment_id)
    .bind(list(paths))
    .fetch_optional(&store.readers)
    .await
    .map_err(fault)
}

/// Whether a column has a text in it.
pub(super) fn write_contains(sql: &mut QueryBuilder<Sqlite>, column: &str, text: &str) {
    sql.push(format!("instr({column}, "));
    sql.push_bind(text.to_owned());
    sql.push(") > 0");
}

/// A text with A to Z in small letters.
pub(super) fn write_folded(sql: &mut QueryBuilder<Sqlite>, value: impl FnOnce(&mut QueryBuilder<Sqlite>)) {
    sql.push("lower(");
    value(sql);
    sql.push(")");
}

pub(super) fn write_number(sql: &mut QueryBuilder<Sqlite>, literal: &Literal) {
    match literal {
        Literal::Integer(number) => match i64::try_from(*number) {
            Ok(number) => sql.push_bind(number),
            // What is larger, SQLite has as a float as well.
            Err(_) => sql.push_bind(*number as f64),
        },
        Literal::Float(number) => sql.push_bind(*number),
        Literal::Text(_) | Literal::Bool(_) => sql.push("NULL"),
    };
}

/// Number of axes.
pub(super) fn write_rank(sql: &mut QueryBuilder<Sqlite>) {
    sql.push("json_array_length(a.meta, '$.space.shape')");
}

/// A member of a column of JSON where it is of that kind, else NULL.
pub(super) fn write_member(sql: &mut QueryBuilder<Sqlite>, column: &str, name: &str, kind: Option<Kind>) {
    let path = format!("$.\"{name}\"");
    let types = match kind {
        None => "nullif(json_type(",
        Some(Kind::Number | Kind::Text) => "CASE WHEN json_type(",
        Some(Kind::Bool) => "CASE json_type(",
    };
    sql.push(format!("{types}{column}, "));
    sql.push_bind(path.clone());
    match kind {
        // The type of null is a word, of nothing it is NULL.
        None => {
            sql.push("), 'null')");
        }
        Some(Kind::Bool) => {
            sql.push(") WHEN 'true' THEN 1 WHEN 'false' THEN 0 END");
        }
        Some(kind) => {
            let is_of = if kind == Kind::Number { "IN ('integer', 'real')" } else { "= 'text'" };
            sql.push(format!(") {is_of} THEN json_extract({column}, "));
            sql.push_bind(path);
            sql.push(") END");
        }
    }
}

/// One text of [`write_texts`].
pub(super) const LISTED_TEXT: &str = "listed.value";

/// The texts of a list in a column of JSON, as rows; none where it has no such list.
pub(super) fn write_texts(sql: &mut QueryBuilder<Sqlite>, column: &str, name: &str) {
    sql.push(format!("json_each({column}, "));
    sql.push_bind(format!("$.\"{name}\""));
    sql.push(") AS listed");
}

/// Arrays of one file at these paths, among the experiment's of a dataset.
pub(super) async fn file_arrays(
    store: &SqliteCatalog,
    dataset_id: i64,
    file_id: i64,
    paths: &[&str],
) -> Result<Vec<rows::ArrayRow>> {
    sqlx::query_as(concat!(select_file_arrays!(), "AND a.hdf5_path IN (SELECT value FROM json_each($3))"))
        .bind(dataset_id)
        .bind(file_id)
        .bind(list(paths))
        .fetch_all(&store.readers)
        .await
        .map_err(fault)
}

/// Arrays at these paths of files of these names that are current datasets of the experiment of a dataset.
pub(super) async fn current_arrays(
    store: &SqliteCatalog,
    dataset_id: i64,
    files: &[&str],
    paths: &[&str],
) -> Result<Vec<rows::ArrayRow>> {
    sqlx::query_as(concat!(
        select_current_arrays!(),
        "AND f.source_name IN (SELECT value FROM json_each($2)) \
         AND a.hdf5_path IN (SELECT value FROM json_each($3))"
    ))
    .bind(dataset_id)
    .bind(list(files))
    .bind(list(paths))
    .fetch_all(&store.readers)
    .await
    .map_err(fault)
}

/// The chunk runs of these arrays, in order.
pub(super) async fn runs_of(store: &SqliteCatalog, arrays: &[i64]) -> Result<Vec<rows::RunRow>> {
    sqlx::query_as(concat!(
        select_runs!(),
        "WHERE r.array_id IN (SELECT value FROM json_each($1)) ORDER BY r.array_id, r.run"
    ))
    .bind(list(arrays))
    .fetch_all(&store.readers)
    .await
    .map_err(fault)
}
