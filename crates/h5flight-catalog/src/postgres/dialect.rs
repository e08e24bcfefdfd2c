//! SQL that only PostgreSQL understands: batches and lists as arrays.

use chrono::{DateTime, Utc};
use h5flight_array::expression::Literal;
use sqlx::{Executor, PgConnection, Postgres, QueryBuilder, Transaction};

use super::{PostgresCatalog, fault};
use crate::error::Result;
use crate::mosaic::{select_current_arrays, select_file_arrays, select_runs};
use crate::rows::{self, EnsuredExperimentRow, LinkOnPathRow};
use crate::staging::{ArrayRow, LinkRow, LogRow, ObjectRow, RunRow};
use crate::wanted::Kind;

/// The statements of a publication go over whole files at once and may take longer than a read; they are planned anew
/// each time, because the tables grow under them.
const WRITING: &str = "SET LOCAL statement_timeout = '10min'; SET LOCAL plan_cache_mode = force_custom_plan";

pub(super) async fn begin(store: &PostgresCatalog) -> Result<Transaction<'static, Postgres>> {
    let mut transaction = store.writer.begin().await.map_err(fault)?;
    transaction.execute(WRITING).await.map_err(fault)?;
    Ok(transaction)
}

/// Makes missing animals; the first species that a file names stays.
pub(super) async fn ensure_animals(
    connection: &mut PgConnection,
    animals: &[&str],
    species: Option<&str>,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO animals (name, species, created_at) SELECT name, $2, $3 FROM unnest($1::text[]) AS t (name) \
         ORDER BY name COLLATE \"C\" ON CONFLICT (name) DO NOTHING",
    )
    .bind(animals)
    .bind(species)
    .bind(at)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    if species.is_some() {
        sqlx::query("UPDATE animals SET species = $2 WHERE name = ANY ($1) AND species IS NULL")
            .bind(animals)
            .bind(species)
            .execute(connection)
            .await
            .map_err(fault)?;
    }
    Ok(())
}

/// Makes missing experiments, and locks all of them: DO UPDATE is what locks the rows that exist.
pub(super) async fn ensure_experiments(
    connection: &mut PgConnection,
    experiments: &[(&str, &str)],
    at: DateTime<Utc>,
) -> Result<Vec<EnsuredExperimentRow>> {
    let (animals, names): (Vec<&str>, Vec<&str>) = experiments.iter().copied().unzip();
    sqlx::query_as(
        "INSERT INTO experiments (animal_id, name, search_text, created_at) \
         SELECT n.id, t.name, '', $3 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (animal, name, place) \
         JOIN animals n ON n.name = t.animal ORDER BY t.place \
         ON CONFLICT (animal_id, name) DO UPDATE SET name = excluded.name \
         RETURNING id, (SELECT n.name FROM animals n WHERE n.id = animal_id) AS animal, name AS experiment, \
                   identifier, session_id, start_time, nwb_version, species, CAST(details AS TEXT) AS details",
    )
    .bind(animals)
    .bind(names)
    .bind(at)
    .fetch_all(connection)
    .await
    .map_err(fault)
}

/// One column of a batch.
fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Gives (position, id) of each.
pub(super) async fn insert_objects(
    connection: &mut PgConnection,
    file_id: i64,
    rows: &[ObjectRow<'_>],
) -> Result<Vec<(i64, i64)>> {
    sqlx::query_as(
        "INSERT INTO objects (file_id, position, experiment_id, name, parent, hdf5_path, kind, attributes, \
                              attribute_types, dimensions, search_text) \
         SELECT $1, position, experiment_id, name, parent, hdf5_path, kind, attributes::json, types::json, \
                dimensions::json, search_text \
         FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
                     $9::text[], $10::text[], $11::text[]) \
              AS t (position, experiment_id, name, parent, hdf5_path, kind, attributes, types, dimensions, \
                    search_text) \
         RETURNING position, id",
    )
    .bind(file_id)
    .bind(column(rows, |row| row.position))
    .bind(column(rows, |row| row.experiment_id))
    .bind(column(rows, |row| row.name))
    .bind(column(rows, |row| row.parent))
    .bind(column(rows, |row| row.hdf5_path))
    .bind(column(rows, |row| row.kind))
    .bind(column(rows, |row| row.attributes.as_str()))
    .bind(column(rows, |row| row.attribute_types.as_str()))
    .bind(column(rows, |row| row.dimensions.as_str()))
    .bind(column(rows, |row| row.search_text.as_str()))
    .fetch_all(connection)
    .await
    .map_err(fault)
}

/// Gives (id of the object, id) of each.
pub(super) async fn insert_arrays(
    connection: &mut PgConnection,
    file_id: i64,
    rows: &[ArrayRow<'_>],
) -> Result<Vec<(i64, i64)>> {
    sqlx::query_as(
        "INSERT INTO arrays (file_id, object_id, identity, hdf5_path, meta, rows, chunks, stored_bytes, inline_data, \
                             problem_reason, problem_message) \
         SELECT $1, object_id, identity, hdf5_path, meta::json, row_count, chunks, stored_bytes, inline_data, reason, \
         message \
         FROM unnest($2::bigint[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], \
                     $9::bytea[], $10::text[], $11::text[]) \
              AS t (object_id, identity, hdf5_path, meta, row_count, chunks, stored_bytes, inline_data, reason, \
              message) \
         RETURNING object_id, id",
    )
    .bind(file_id)
    .bind(column(rows, |row| row.object_id))
    .bind(column(rows, |row| row.identity.as_slice()))
    .bind(column(rows, |row| row.hdf5_path))
    .bind(column(rows, |row| row.meta.as_str()))
    .bind(column(rows, |row| row.rows))
    .bind(column(rows, |row| row.chunks))
    .bind(column(rows, |row| row.stored_bytes))
    .bind(column(rows, |row| row.inline))
    .bind(column(rows, |row| row.problem_reason.as_deref()))
    .bind(column(rows, |row| row.problem_message.as_deref()))
    .fetch_all(connection)
    .await
    .map_err(fault)
}

pub(super) async fn insert_runs(connection: &mut PgConnection, rows: &[RunRow<'_>]) -> Result<()> {
    sqlx::query(
        "INSERT INTO chunk_runs (array_id, run, first_number, last_number, pointers, packed, checksums) \
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], \
                              $7::bytea[])",
    )
    .bind(column(rows, |row| row.array_id))
    .bind(column(rows, |row| row.run))
    .bind(column(rows, |row| row.first_number))
    .bind(column(rows, |row| row.last_number))
    .bind(column(rows, |row| row.pointers))
    .bind(column(rows, |row| row.packed))
    .bind(column(rows, |row| row.checksums.as_deref()))
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

pub(super) async fn insert_links(connection: &mut PgConnection, file_id: i64, rows: &[LinkRow<'_>]) -> Result<()> {
    sqlx::query(
        "INSERT INTO links (file_id, experiment_id, path, parent, kind, target) \
         SELECT $1, experiment_id, path, parent, kind, target \
         FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[]) \
              AS t (experiment_id, path, parent, kind, target)",
    )
    .bind(file_id)
    .bind(column(rows, |row| row.experiment_id))
    .bind(column(rows, |row| row.path))
    .bind(column(rows, |row| row.parent))
    .bind(column(rows, |row| row.kind))
    .bind(column(rows, |row| row.target.as_str()))
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

pub(super) async fn insert_log(connection: &mut PgConnection, rows: &[LogRow]) -> Result<()> {
    sqlx::query(
        "INSERT INTO access_log (at, principal, call, path, selection, outcome, rows, bytes, tier, millis) \
         SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
                              $7::bigint[], $8::bigint[], $9::text[], $10::double precision[])",
    )
    .bind(column(rows, |row| row.at))
    .bind(column(rows, |row| row.principal.as_str()))
    .bind(column(rows, |row| row.call.as_str()))
    .bind(column(rows, |row| row.path.as_str()))
    .bind(column(rows, |row| row.selection.as_str()))
    .bind(column(rows, |row| row.outcome.as_str()))
    .bind(column(rows, |row| row.rows))
    .bind(column(rows, |row| row.bytes))
    .bind(column(rows, |row| row.tier.as_str()))
    .bind(column(rows, |row| row.millis))
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

/// The link that is the longest of these paths; the newest file's where several have it.
pub(super) async fn link_on_path(
    store: &PostgresCatalog,
    experiment_id: i64,
    paths: &[String],
) -> Result<Option<LinkOnPathRow>> {
    sqlx::query_as(
        "SELECT path, kind, target FROM links \
         WHERE experiment_id = $1 AND path = ANY ($2) AND superseded_by IS NULL \
         ORDER BY octet_length(path) DESC, id DESC LIMIT 1",
    )
    .bind(experiment_id)
    .bind(paths)
    .fetch_optional(&store.readers)
    .await
    .map_err(fault)
}

/// Whether a column has a text in it.
pub(super) fn write_contains(sql: &mut QueryBuilder<Postgres>, column: &str, text: &str) {
    sql.push(format!("strpos({column}, "));
    sql.push_bind(text.to_owned());
    sql.push(") > 0");
}

/// A text with A to Z in small letters.
pub(super) fn write_folded(sql: &mut QueryBuilder<Postgres>, value: impl FnOnce(&mut QueryBuilder<Postgres>)) {
    sql.push("lower((");
    value(sql);
    sql.push(") COLLATE \"C\")");
}

/// As digits: a float that became a numeric by itself would lose its last ones.
pub(super) fn write_number(sql: &mut QueryBuilder<Postgres>, literal: &Literal) {
    sql.push("CAST(");
    sql.push_bind(literal.to_string());
    sql.push(" AS numeric)");
}

/// Number of axes.
pub(super) fn write_rank(sql: &mut QueryBuilder<Postgres>) {
    sql.push("json_array_length(a.meta -> 'space' -> 'shape')");
}

/// A member of a column of JSON where it is of that kind, else NULL.
///
/// PostgreSQL refuses to look into JSON with a NUL anywhere in it, so that stands as U+FFFD here.
pub(super) fn write_member(sql: &mut QueryBuilder<Postgres>, column: &str, name: &str, kind: Option<Kind>) {
    let json = format!("CAST(replace(CAST({column} AS text), '\\u0000', '\\ufffd') AS json)");
    let mut member = |before: &str, arrow: &str, after: &str| {
        sql.push(format!("{before}{json} {arrow} "));
        sql.push_bind(name.to_owned());
        sql.push(after);
    };
    match kind {
        None => member("nullif(json_typeof(", "->", "), 'null')"),
        Some(Kind::Bool) => {
            member("CASE WHEN json_typeof(", "->", ") = 'boolean' THEN CASE ");
            member("", "->>", " WHEN 'true' THEN 1 ELSE 0 END END");
        }
        Some(Kind::Number) => {
            member("CASE WHEN json_typeof(", "->", ") = 'number' THEN CAST(");
            member("", "->>", " AS numeric) END");
        }
        Some(Kind::Text) => {
            member("CASE WHEN json_typeof(", "->", ") = 'string' THEN (");
            member("", "->>", ") COLLATE \"C\" END");
        }
    }
}

/// One text of [`write_texts`].
pub(super) const LISTED_TEXT: &str = "listed.value COLLATE \"C\"";

/// The texts of a list in a column of JSON, as rows; none where it has no such list.
pub(super) fn write_texts(sql: &mut QueryBuilder<Postgres>, column: &str, name: &str) {
    sql.push(format!("json_array_elements_text({column} -> "));
    sql.push_bind(name.to_owned());
    sql.push(") AS listed (value)");
}

/// Arrays of one file at these paths, among the experiment's of a dataset.
pub(super) async fn file_arrays(
    store: &PostgresCatalog,
    dataset_id: i64,
    file_id: i64,
    paths: &[&str],
) -> Result<Vec<rows::ArrayRow>> {
    sqlx::query_as(concat!(select_file_arrays!(), "AND a.hdf5_path = ANY ($3)"))
        .bind(dataset_id)
        .bind(file_id)
        .bind(paths)
        .fetch_all(&store.readers)
        .await
        .map_err(fault)
}

/// Arrays at these paths of files of these names that are current datasets of the experiment of a dataset.
pub(super) async fn current_arrays(
    store: &PostgresCatalog,
    dataset_id: i64,
    files: &[&str],
    paths: &[&str],
) -> Result<Vec<rows::ArrayRow>> {
    sqlx::query_as(concat!(
        select_current_arrays!(),
        "AND f.source_name = ANY ($2) \
         AND a.hdf5_path = ANY ($3)"
    ))
    .bind(dataset_id)
    .bind(files)
    .bind(paths)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)
}

/// The chunk runs of these arrays, in order.
pub(super) async fn runs_of(store: &PostgresCatalog, arrays: &[i64]) -> Result<Vec<rows::RunRow>> {
    sqlx::query_as(concat!(select_runs!(), "WHERE r.array_id = ANY ($1) ORDER BY r.array_id, r.run"))
        .bind(arrays)
        .fetch_all(&store.readers)
        .await
        .map_err(fault)
}
