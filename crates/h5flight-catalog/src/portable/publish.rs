//! How files come in: one transaction a publication.
//!
//! Order of locks: the rows of the experiments, ascending; they are held until the end, so two publications into one
//! experiment follow each other, and everything after reads what the other one wrote. What they cannot see (the same
//! file into two experiments) is settled by the unique constraint on a file's generation.
//!
//! The steps after the rows are sent are statements over what is already in the tables, whatever the size of the file.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{Conn, Db, Store, dialect, fault, history, puts};
use crate::error::{Error, ErrorKind, Result};
use crate::model::*;
use crate::rows::{self, EnsuredExperimentRow, FileRow, file_columns, not_in_use, now, unsigned};
use crate::staging::{ContentIds, ExperimentIds, Slice, Staged, facts_search_text, place_columns, renewed, storable};
use crate::text::{self, FACT_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX};

pub(super) async fn find_file(store: &Store, place: &FilePlace) -> Result<Option<FileRecord>> {
    let (kind, root, path) = place_columns(place);
    let row: Option<FileRow> = sqlx::query_as::<Db, _>(concat!(
        "SELECT ",
        file_columns!(),
        " FROM files f WHERE f.kind = $1 AND f.root = $2 AND f.path = $3 ORDER BY f.generation DESC LIMIT 1"
    ))
    .bind(kind)
    .bind(text::asked(root))
    .bind(text::asked(path))
    .fetch_optional(&store.readers)
    .await
    .map_err(fault)?;
    row.map(FileRow::record).transpose()
}

pub(super) async fn find_published(store: &Store, file_id: i64) -> Result<Published> {
    let mut connection = store.readers.acquire().await.map_err(fault)?;
    published(&mut connection, file_id, Done::Already).await
}

pub(super) async fn find_ingest(store: &Store, key: &str) -> Result<Option<Published>> {
    let mut connection = store.readers.acquire().await.map_err(fault)?;
    let file_id: Option<i64> = sqlx::query_scalar::<Db, _>("SELECT file_id FROM ingests WHERE key = $1")
        .bind(text::asked(key))
        .fetch_optional(&mut *connection)
        .await
        .map_err(fault)?;
    match file_id {
        Some(file_id) => published(&mut connection, file_id, Done::Already).await.map(Some),
        None => Ok(None),
    }
}

pub(super) async fn quarantine(store: &Store, file_id: i64, reason: &str, message: &str) -> Result<()> {
    let marked = sqlx::query::<Db>("UPDATE files SET quarantine_reason = $2, quarantine_message = $3 WHERE id = $1")
        .bind(file_id)
        .bind(text::words(reason, NAME_BYTES_MAX))
        .bind(text::words(message, MESSAGE_BYTES_MAX))
        .execute(&store.writer)
        .await
        .map_err(fault)?;
    match marked.rows_affected() {
        0 => Err(Error::invalid(format!("no file has the id {file_id}"))),
        _ => Ok(()),
    }
}

pub(super) async fn publish(store: &Store, publication: &Publication) -> Result<Published> {
    let staged = Staged::new(publication).await?;
    if let Some(done) = already_there(store, &staged).await? {
        return Ok(done);
    }
    let mut transaction = dialect::begin(store).await?;
    let connection = &mut *transaction;
    let at = now();
    let experiments = ensure_experiments(connection, &staged, at).await?;
    if let Some(done) = made_before(connection, &staged, &experiments).await? {
        transaction.commit().await.map_err(fault)?;
        return Ok(done);
    }
    history::check_expected(connection, &publication.expected).await?;
    // Taken under the lock: in a history times ascend as numbers do.
    let at = now();
    let file_id = insert_file(connection, &staged, at).await?;
    insert_contents(connection, &staged, file_id, &experiments).await?;
    supersede_objects(connection, file_id).await?;
    match publication.replace {
        true => supersede_strangers(connection, file_id).await?,
        false => refuse_strangers(connection, file_id).await?,
    }
    make_versions(connection, file_id, at).await?;
    record_key(connection, publication, file_id, at).await?;
    let mut done = published(connection, file_id, Done::Now).await?;
    done.put = record_put(connection, &staged, &experiments).await?;
    transaction.commit().await.map_err(fault)?;
    Ok(done)
}

/// What there is to answer where somebody has made it already. Only now nobody else can publish into these experiments.
async fn made_before(
    connection: &mut Conn,
    staged: &Staged<'_>,
    experiments: &ExperimentIds,
) -> Result<Option<Published>> {
    if let Some(done) = put_before(connection, staged, experiments).await? {
        return Ok(Some(done));
    }
    let Some(Earlier { file_id, key }) = earlier(connection, staged).await? else { return Ok(None) };
    if key == Key::New {
        record_key(connection, staged.publication, file_id, now()).await?;
    }
    let mut done = published(connection, file_id, Done::Already).await?;
    done.put = record_put(connection, staged, experiments).await?;
    Ok(Some(done))
}

/// What this publication would make, where it is all there and nothing is left to be written down: with a writer there is
/// the answer to this put.
async fn already_there(store: &Store, staged: &Staged<'_>) -> Result<Option<Published>> {
    if staged.publication.writer.is_some() {
        return Ok(None);
    }
    let mut reader = store.readers.acquire().await.map_err(fault)?;
    match earlier(&mut reader, staged).await? {
        Some(Earlier { file_id, key: Key::Recorded }) => published(&mut reader, file_id, Done::Already).await.map(Some),
        Some(_) | None => Ok(None),
    }
}

/// Whether the idempotency key of a publication is (or need not be) in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Recorded,
    New,
}

/// A file that already is what a publication wants to make.
struct Earlier {
    file_id: i64,
    key: Key,
}

async fn earlier(connection: &mut Conn, staged: &Staged<'_>) -> Result<Option<Earlier>> {
    let (kind, root, path) = place_columns(&staged.publication.place);
    if let Some(key) = &staged.publication.ingest_key {
        let known: Option<(i64, String, String, String, Vec<u8>)> = sqlx::query_as::<Db, _>(
            "SELECT f.id, f.kind, f.root, f.path, f.names_digest FROM ingests i JOIN files f ON f.id = i.file_id \
             WHERE i.key = $1",
        )
        .bind(key)
        .fetch_optional(&mut *connection)
        .await
        .map_err(fault)?;
        if let Some((file_id, known_kind, known_root, known_path, digest)) = known {
            let same_place = (known_kind.as_str(), known_root.as_str(), known_path.as_str()) == (kind, root, path);
            return match same_place && digest == staged.names_digest {
                true => Ok(Some(Earlier { file_id, key: Key::Recorded })),
                false => Err(Error::invalid(format!("the idempotency key \"{key}\" was used for another file"))),
            };
        }
    }
    let Fingerprint { device, inode, bytes, modified_ns } = staged.publication.fingerprint;
    // Still what it made: nothing of it was replaced or withdrawn since, and it is the newest state of its place (the
    // same content may be uploaded under several names, so that managed files need not be). What was appended to a
    // dataset of a registered file stays when the file is seen again unchanged; an upload begins anew.
    let file_id: Option<i64> = sqlx::query_scalar::<Db, _>(
        "SELECT f.id FROM files f \
         WHERE f.kind = $1 AND f.root = $2 AND f.path = $3 AND f.names_digest = $4 AND f.quarantine_reason IS NULL \
           AND f.datasets = (SELECT count(*) FROM versions v JOIN datasets d ON d.current_version_id = v.id \
                             JOIN arrays a ON a.object_id = v.object_id \
                             WHERE v.file_id = f.id AND d.withdrawn_by IS NULL \
                               AND (f.kind = 'registered' OR v.rows = a.rows)) \
           AND (f.kind = 'managed' OR (f.device = $5 AND f.inode = $6 AND f.bytes = $7 AND f.modified_ns = $8 \
                AND NOT EXISTS (SELECT 1 FROM files newer WHERE newer.kind = f.kind AND newer.root = f.root \
                                AND newer.path = f.path AND newer.generation > f.generation))) \
         ORDER BY f.generation DESC LIMIT 1",
    )
    .bind(kind)
    .bind(root)
    .bind(path)
    .bind(staged.names_digest.to_vec())
    .bind(device.cast_signed())
    .bind(inode.cast_signed())
    .bind(storable("the size of the file", bytes)?)
    .bind(modified_ns)
    .fetch_optional(&mut *connection)
    .await
    .map_err(fault)?;
    let key = if staged.publication.ingest_key.is_some() { Key::New } else { Key::Recorded };
    Ok(file_id.map(|file_id| Earlier { file_id, key }))
}

/// Makes animals and experiments where they are missing, fills what they do not yet say of themselves, and keeps the
/// experiments locked.
pub(super) async fn ensure_experiments(
    connection: &mut Conn,
    staged: &Staged<'_>,
    at: DateTime<Utc>,
) -> Result<ExperimentIds> {
    let pairs: Vec<(&str, &str)> = staged.experiments.iter().copied().collect();
    let mut animals: Vec<&str> = pairs.iter().map(|(animal, _)| *animal).collect();
    animals.dedup();
    dialect::ensure_animals(connection, &animals, staged.facts.species.as_deref(), at).await?;
    let ensured = dialect::ensure_experiments(connection, &pairs, at).await?;
    let mut ids = Vec::with_capacity(ensured.len());
    for EnsuredExperimentRow { id, animal, experiment, facts } in ensured {
        if let Some(facts) = renewed(&facts.facts()?, &staged.facts) {
            update_facts(connection, id, &facts).await?;
        }
        ids.push(((animal, experiment), id));
    }
    Ok(ExperimentIds::new(ids))
}

async fn update_facts(connection: &mut Conn, experiment_id: i64, facts: &ExperimentFacts) -> Result<()> {
    sqlx::query::<Db>(
        "UPDATE experiments SET identifier = $2, session_id = $3, start_time = $4, nwb_version = $5, species = $6, \
                                details = $7, search_text = $8 WHERE id = $1",
    )
    .bind(experiment_id)
    .bind(&facts.identifier)
    .bind(&facts.session_id)
    .bind(&facts.start_time)
    .bind(&facts.nwb_version)
    .bind(&facts.species)
    .bind(Json(&facts.details))
    .bind(facts_search_text(facts))
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

pub(super) async fn insert_file(connection: &mut Conn, staged: &Staged<'_>, at: DateTime<Utc>) -> Result<i64> {
    let publication = staged.publication;
    let (kind, root, path) = place_columns(&publication.place);
    let Fingerprint { device, inode, bytes, modified_ns } = publication.fingerprint;
    sqlx::query_scalar::<Db, _>(
        "INSERT INTO files (kind, root, path, generation, device, inode, bytes, modified_ns, source_name, \
         names_digest, \
                            datasets, chunks, published_by, created_at) \
         SELECT $1, $2, $3, coalesce(max(generation), 0) + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 \
         FROM files WHERE kind = $1 AND root = $2 AND path = $3 RETURNING id",
    )
    .bind(kind)
    .bind(root)
    .bind(path)
    .bind(device.cast_signed())
    .bind(inode.cast_signed())
    .bind(storable("the size of the file", bytes)?)
    .bind(modified_ns)
    .bind(text::words(&publication.source_name, FACT_BYTES_MAX))
    .bind(staged.names_digest.to_vec())
    .bind(storable("the number of datasets", staged.datasets)?)
    .bind(storable("the number of chunks", staged.chunks)?)
    .bind(text::words(&publication.principal, NAME_BYTES_MAX))
    .bind(at)
    .fetch_one(connection)
    .await
    .map_err(fault)
}

/// Objects, arrays, chunk runs, links: all that has to be sent, a slice a statement.
pub(super) async fn insert_contents(
    connection: &mut Conn,
    staged: &Staged<'_>,
    file_id: i64,
    experiments: &ExperimentIds,
) -> Result<()> {
    let mut ids = ContentIds::default();
    let mut objects = staged.object_rows(experiments);
    loop {
        let slice = Slice::next_of(&mut objects)?;
        if slice.is_empty() {
            break;
        }
        ids.add_objects(dialect::insert_objects(connection, file_id, &slice).await?);
    }
    let mut slice = Slice::new();
    for dataset in staged.arrays() {
        if slice.push(staged.array_row(dataset, &ids).await?) {
            ids.add_arrays(dialect::insert_arrays(connection, file_id, &slice.take()).await?);
        }
    }
    let rest = slice.take();
    if !rest.is_empty() {
        ids.add_arrays(dialect::insert_arrays(connection, file_id, &rest).await?);
    }
    let mut runs = staged.run_rows(&ids);
    loop {
        let slice = Slice::next_of(&mut runs)?;
        if slice.is_empty() {
            break;
        }
        dialect::insert_runs(connection, &slice).await?;
    }
    let mut links = staged.link_rows(experiments);
    loop {
        let slice = Slice::next_of(&mut links)?;
        if slice.is_empty() {
            return Ok(());
        }
        dialect::insert_links(connection, file_id, &slice).await?;
    }
}

/// The files whose place this one takes: older states of the same registered file, wherever it was published; for an
/// upload, those with the same content or the same name, within the experiments it touches.
macro_rules! of_predecessors {
    () => {
        "superseded_by IS NULL AND file_id IN \
            (SELECT older.id FROM files mine JOIN files older ON older.kind = mine.kind AND older.id <> mine.id \
             AND ((older.root = mine.root AND older.path = mine.path) \
                  OR (mine.kind = 'managed' AND mine.source_name <> '' AND older.source_name = mine.source_name)) \
             WHERE mine.id = $1) \
         AND ((SELECT kind FROM files WHERE id = $1) = 'registered' \
              OR experiment_id IN (SELECT DISTINCT experiment_id FROM objects WHERE file_id = $1))"
    };
}

async fn supersede_objects(connection: &mut Conn, file_id: i64) -> Result<()> {
    for statement in [
        concat!("UPDATE objects SET superseded_by = $1 WHERE ", of_predecessors!()),
        concat!("UPDATE links SET superseded_by = $1 WHERE ", of_predecessors!()),
    ] {
        sqlx::query::<Db>(statement).bind(file_id).execute(&mut *connection).await.map_err(fault)?;
    }
    Ok(())
}

/// Refuses the publication when another file serves one of its datasets.
async fn refuse_strangers(connection: &mut Conn, file_id: i64) -> Result<()> {
    let stranger: Option<(String, String, String, String)> = sqlx::query_as::<Db, _>(
        "SELECT n.name, e.name, d.name, f.source_name \
         FROM objects mine \
         JOIN datasets d ON d.experiment_id = mine.experiment_id AND d.name = mine.name \
         JOIN versions v ON v.id = d.current_version_id \
         JOIN objects theirs ON theirs.id = v.object_id \
         JOIN files f ON f.id = v.file_id \
         JOIN experiments e ON e.id = d.experiment_id \
         JOIN animals n ON n.id = e.animal_id \
         WHERE mine.file_id = $1 AND mine.kind = 'dataset' AND d.withdrawn_by IS NULL AND theirs.superseded_by IS NULL \
         ORDER BY n.name, e.name, d.name LIMIT 1",
    )
    .bind(file_id)
    .fetch_optional(connection)
    .await
    .map_err(fault)?;
    match stranger {
        None => Ok(()),
        Some((animal, experiment, dataset, source)) => Err(Error::new(
            ErrorKind::DatasetExists,
            format!("dataset \"{animal}/{experiment}/{dataset}\" is already served from the file \"{source}\""),
        )),
    }
}

/// Takes over the datasets of this publication that other files serve.
async fn supersede_strangers(connection: &mut Conn, file_id: i64) -> Result<()> {
    sqlx::query::<Db>(
        "UPDATE objects SET superseded_by = $1 WHERE id IN \
            (SELECT theirs.id FROM objects mine \
             JOIN objects theirs ON theirs.experiment_id = mine.experiment_id AND theirs.name = mine.name \
                                AND theirs.superseded_by IS NULL \
             WHERE mine.file_id = $1 AND mine.kind = 'dataset' AND theirs.kind = 'dataset' AND theirs.file_id <> $1)",
    )
    .bind(file_id)
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Datasets where they are missing, their next versions, the extents of those; then what is current changes over.
///
/// In each statement only one table is selected by the file, all others by unique keys: the tables' statistics know
/// nothing yet of what was just written, and PostgreSQL would join two "few rows" by comparing all with all.
pub(super) async fn make_versions(connection: &mut Conn, file_id: i64, at: DateTime<Utc>) -> Result<()> {
    for statement in [
        "INSERT INTO datasets (experiment_id, name, created_at) \
         SELECT experiment_id, name, $2 FROM objects WHERE file_id = $1 AND kind = 'dataset' \
         ORDER BY experiment_id, name ON CONFLICT (experiment_id, name) DO NOTHING",
        "INSERT INTO versions (dataset_id, number, file_id, object_id, rows, chunks, stored_bytes, created_at) \
         SELECT d.id, coalesce((SELECT max(p.number) FROM versions p WHERE p.dataset_id = d.id), 0) + 1, o.file_id, \
         o.id, \
                a.rows, a.chunks, a.stored_bytes, \
                (SELECT coalesce(max(p.created_at), $2) FROM versions p WHERE p.id = d.current_version_id \
                 AND p.created_at > $2) \
         FROM objects o \
         JOIN arrays a ON a.object_id = o.id \
         JOIN datasets d ON d.experiment_id = o.experiment_id AND d.name = o.name \
         WHERE o.file_id = $1",
    ] {
        sqlx::query::<Db>(statement).bind(file_id).bind(at).execute(&mut *connection).await.map_err(fault)?;
    }
    for statement in [
        "INSERT INTO extents (version_id, ordinal, array_id, first_row, array_row, rows) \
         SELECT v.id, 0, a.id, 0, 0, a.rows \
         FROM versions v JOIN arrays a ON a.object_id = v.object_id WHERE v.file_id = $1",
        "UPDATE datasets SET current_version_id = v.id, withdrawn_by = NULL \
         FROM versions v WHERE v.file_id = $1 AND v.dataset_id = datasets.id",
        // What the older state of the file had and this one has not: its current version is still of an old object.
        "UPDATE datasets SET withdrawn_by = $1 \
         WHERE withdrawn_by IS NULL \
           AND current_version_id IN (SELECT v.id FROM objects o JOIN versions v ON v.object_id = o.id \
                                      WHERE o.superseded_by = $1)",
    ] {
        sqlx::query::<Db>(statement).bind(file_id).execute(&mut *connection).await.map_err(fault)?;
    }
    Ok(())
}

/// What the put with this writer and sequence made, where it was made before.
async fn put_before(
    connection: &mut Conn,
    staged: &Staged<'_>,
    experiments: &ExperimentIds,
) -> Result<Option<Published>> {
    let Some(dataset_id) = put_dataset(connection, staged, experiments).await? else { return Ok(None) };
    let Some(put) = puts::known(connection, dataset_id, staged.publication.writer.as_ref()).await? else {
        return Ok(None);
    };
    // The file may be gone by now.
    let file_id: Option<i64> =
        sqlx::query_scalar::<Db, _>("SELECT max(id) FROM files WHERE kind = 'managed' AND root = '' AND path = $1")
            .bind(&put.content)
            .fetch_one(connection)
            .await
            .map_err(fault)?;
    Ok(Some(Published {
        file_id: file_id.unwrap_or(0),
        content: Some(put.content.clone()).filter(|content| !content.is_empty()),
        experiments: staged.experiments.iter().map(|(animal, name)| (animal.to_string(), name.to_string())).collect(),
        datasets: 1,
        chunks: staged.chunks,
        superseded: Vec::new(),
        already: true,
        put: Some(put),
    }))
}

/// Writes down which version a put is, where it has a writer.
async fn record_put(
    connection: &mut Conn,
    staged: &Staged<'_>,
    experiments: &ExperimentIds,
) -> Result<Option<Appended>> {
    let publication = staged.publication;
    let Some(dataset_id) = put_dataset(connection, staged, experiments).await? else { return Ok(None) };
    let put = puts::whole(connection, dataset_id, &publication.place).await?;
    puts::record(connection, dataset_id, (publication.writer.as_ref(), &put), now()).await?;
    Ok(Some(put))
}

/// The dataset of a publication with a writer, where it is known.
async fn put_dataset(connection: &mut Conn, staged: &Staged<'_>, experiments: &ExperimentIds) -> Result<Option<i64>> {
    if staged.publication.writer.is_none() {
        return Ok(None);
    }
    let Some((_, object, _)) = staged.arrays().next() else { return Ok(None) };
    dataset_id(connection, experiments.id(&object.animal, &object.experiment)?, &object.name).await
}

/// The id of a dataset, listed or withdrawn.
pub(super) async fn dataset_id(connection: &mut Conn, experiment_id: i64, name: &str) -> Result<Option<i64>> {
    sqlx::query_scalar::<Db, _>("SELECT id FROM datasets WHERE experiment_id = $1 AND name = $2")
        .bind(experiment_id)
        .bind(name)
        .fetch_optional(connection)
        .await
        .map_err(fault)
}

async fn record_key(connection: &mut Conn, publication: &Publication, file_id: i64, at: DateTime<Utc>) -> Result<()> {
    let Some(key) = &publication.ingest_key else { return Ok(()) };
    sqlx::query::<Db>("INSERT INTO ingests (key, file_id, created_at) VALUES ($1, $2, $3)")
        .bind(key)
        .bind(file_id)
        .bind(at)
        .execute(connection)
        .await
        .map_err(fault)?;
    Ok(())
}

/// Whether a publication made something or found it made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Now,
    Already,
}

/// What the publication of this file made.
async fn published(connection: &mut Conn, file_id: i64, done: Done) -> Result<Published> {
    let file: (i64, i64, String, String) =
        sqlx::query_as::<Db, _>("SELECT datasets, chunks, kind, path FROM files WHERE id = $1")
            .bind(file_id)
            .fetch_one(&mut *connection)
            .await
            .map_err(fault)?;
    let (datasets, chunks, kind, path) = file;
    let experiments: Vec<(String, String)> = sqlx::query_as::<Db, _>(
        "SELECT n.name, e.name FROM experiments e JOIN animals n ON n.id = e.animal_id \
         WHERE e.id IN (SELECT experiment_id FROM objects WHERE file_id = $1 \
                        UNION SELECT experiment_id FROM objects WHERE superseded_by = $1 \
                        UNION SELECT experiment_id FROM links WHERE file_id = $1) \
         ORDER BY n.name, e.name",
    )
    .bind(file_id)
    .fetch_all(&mut *connection)
    .await
    .map_err(fault)?;
    let superseded = match done {
        Done::Now => superseded(connection, file_id).await?,
        Done::Already => Vec::new(),
    };
    Ok(Published {
        file_id,
        content: (kind == "managed").then_some(path),
        experiments,
        datasets: unsigned("a number of datasets", datasets)?,
        chunks: unsigned("a number of chunks", chunks)?,
        superseded,
        already: done == Done::Already,
        put: None,
    })
}

/// Identities of the arrays that this publication took out of use: those of the versions before, and of the datasets
/// it withdrew, as far as no other current version has the same bytes.
async fn superseded(connection: &mut Conn, file_id: i64) -> Result<Vec<[u8; 16]>> {
    let identities: Vec<Vec<u8>> = sqlx::query_scalar::<Db, _>(concat!(
        "SELECT DISTINCT a.identity FROM arrays a JOIN extents x ON x.array_id = a.id \
         WHERE x.version_id IN (SELECT coalesce(before.extents_of, before.id) FROM versions mine \
                                JOIN versions before ON before.dataset_id = mine.dataset_id \
                                                    AND before.number = mine.number - 1 \
                                WHERE mine.file_id = $1 \
                                UNION ALL SELECT coalesce(v.extents_of, v.id) FROM datasets d \
                                JOIN versions v ON v.id = d.current_version_id WHERE d.withdrawn_by = $1) ",
        not_in_use!()
    ))
    .bind(file_id)
    .fetch_all(connection)
    .await
    .map_err(fault)?;
    rows::identities(identities)
}
