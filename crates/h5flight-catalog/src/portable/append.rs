//! More rows of a dataset: an append is one transaction of a size that does not depend on what is there.
//!
//! Lists of extents are shared by the versions that grew out of one another (migration 0007 says how and why). It takes
//! the lock of the experiment, as every publication does: two appends follow each other, and a rollback or a publication
//! does not come between.

use chrono::{DateTime, Utc};
use h5flight_array::inspect::ObjectKind;
use h5flight_array::meta::{ArrayMeta, Space, Storage};
use serde_json::Map;

use super::resolve::locate;
use super::{Conn, Db, Store, dialect, fault, history, publish, puts};
use crate::error::{Error, ErrorKind, Result};
use crate::model::*;
use crate::names;
use crate::rows::{now, read_meta, rows_of, unsigned};
use crate::staging::{ExperimentIds, Staged, storable};
use crate::text::{self, NAME_BYTES_MAX};

pub(super) async fn append(store: &Store, append: &Append) -> Result<Appended> {
    let path = target(store, append).await?;
    let more = publication(append, &path, Vec::new());
    let staged = Staged::new(&more).await?;
    if let FilePlace::Registered { .. } = append.place {
        return Err(Error::invalid("a registered file is not appended"));
    }
    let mut transaction = dialect::begin(store).await?;
    let connection = &mut *transaction;
    let experiments = publish::ensure_experiments(connection, &staged, now()).await?;
    let experiment_id = experiments.id(&path.animal, &path.experiment)?;
    let base = base(connection, experiment_id, &path.dataset).await?;
    if let Some(base) = &base
        && let Some(answer) = puts::known(connection, base.dataset_id, append.writer.as_ref()).await?
    {
        return Ok(answer);
    }
    history::check_expected(connection, &more.expected).await?;
    let writing = Writing { append, path: &path, experiments: &experiments, experiment_id };
    let base = base.filter(|base| !base.withdrawn);
    writing.check_first_row(base.as_ref().map_or(0, |base| base.rows))?;
    let at = now();
    let (dataset_id, made) = match base {
        Some(base) => (base.dataset_id, writing.extend(connection, &staged, &base).await?),
        None => writing.create(connection, at).await?,
    };
    puts::record(connection, dataset_id, (append.writer.as_ref(), &made), at).await?;
    transaction.commit().await.map_err(fault)?;
    Ok(made)
}

/// The dataset that is meant: links are followed; a name that leads nowhere is that of a new one.
async fn target(store: &Store, append: &Append) -> Result<DatasetPath> {
    let NewObject { animal, experiment, name, .. } = &append.object;
    let path = DatasetPath { animal: animal.clone(), experiment: experiment.clone(), dataset: names::normal(name) };
    match locate(store, &path).await {
        Ok(located) => Ok(located.path),
        Err(error) if matches!(error.kind, ErrorKind::NotFound { .. }) => Ok(path),
        Err(error) => Err(error),
    }
}

/// The file as a publication, with these groups beside its dataset.
fn publication(append: &Append, path: &DatasetPath, groups: Vec<NewObject>) -> Publication {
    let mut objects = vec![NewObject { name: path.dataset.clone(), ..append.object.clone() }];
    objects.extend(groups);
    let expected = append.expected_version.map(|version| ExpectedVersion { path: path.clone(), version });
    Publication {
        place: append.place.clone(),
        fingerprint: append.fingerprint,
        source_name: append.source_name.clone(),
        objects,
        links: Vec::new(),
        facts: ExperimentFacts::default(),
        ingest_key: None,
        replace: false,
        principal: append.principal.clone(),
        expected: expected.into_iter().collect(),
        writer: append.writer.clone(),
    }
}

/// The version that is appended to.
struct Base {
    dataset_id: i64,
    version_id: i64,
    /// The version whose list of extents it has.
    list: i64,
    number: i64,
    rows: u64,
    chunks: i64,
    stored_bytes: i64,
    created_at: DateTime<Utc>,
    withdrawn: bool,
}

async fn base(connection: &mut Conn, experiment_id: i64, dataset: &str) -> Result<Option<Base>> {
    type Row = (i64, i64, i64, i64, i64, i64, i64, DateTime<Utc>, Option<i64>);
    let row: Option<Row> = sqlx::query_as::<Db, _>(
        "SELECT d.id, v.id, coalesce(v.extents_of, v.id), v.number, v.rows, v.chunks, v.stored_bytes, v.created_at, \
                d.withdrawn_by \
         FROM datasets d JOIN versions v ON v.id = d.current_version_id WHERE d.experiment_id = $1 AND d.name = $2",
    )
    .bind(experiment_id)
    .bind(dataset)
    .fetch_optional(connection)
    .await
    .map_err(fault)?;
    let Some((dataset_id, version_id, list, number, rows, chunks, stored_bytes, created_at, withdrawn_by)) = row else {
        return Ok(None);
    };
    let (rows, withdrawn) = (unsigned("a number of rows", rows)?, withdrawn_by.is_some());
    Ok(Some(Base { dataset_id, version_id, list, number, rows, chunks, stored_bytes, created_at, withdrawn }))
}

/// An append on its way; holds the lock of the experiment.
struct Writing<'a> {
    append: &'a Append,
    path: &'a DatasetPath,
    experiments: &'a ExperimentIds,
    experiment_id: i64,
}

impl Writing<'_> {
    fn check_first_row(&self, first_row: u64) -> Result<()> {
        match self.append.expected_first_row {
            Some(expected) if expected != first_row => {
                let path = self.path;
                let message =
                    format!("dataset \"{path}\" has {first_row} rows, the first new one was to be {expected}");
                Err(Error::new(ErrorKind::Conflict, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The first version of the dataset, with the groups above it where they are missing.
    async fn create(&self, connection: &mut Conn, at: DateTime<Utc>) -> Result<(i64, Appended)> {
        if let Some(array) = &self.append.object.array {
            refuse_rowless(self.path, &array.meta)?;
        }
        let groups = self.missing_groups(connection).await?;
        let whole = publication(self.append, self.path, groups);
        let staged = Staged::new(&whole).await?;
        let file_id = publish::insert_file(connection, &staged, at).await?;
        publish::insert_contents(connection, &staged, file_id, self.experiments).await?;
        publish::make_versions(connection, file_id, at).await?;
        let dataset_id = publish::dataset_id(connection, self.experiment_id, &self.path.dataset).await?;
        let dataset_id = dataset_id.ok_or_else(|| Error::new(ErrorKind::Database, "a dataset was not written"))?;
        Ok((dataset_id, puts::whole(connection, dataset_id, &self.append.place).await?))
    }

    /// The groups above the dataset that no file has.
    ///
    /// # Errors
    /// `put_mismatch` where the dataset is a group, or a group above it a dataset.
    async fn missing_groups(&self, connection: &mut Conn) -> Result<Vec<NewObject>> {
        let mut missing = Vec::new();
        for name in names::prefixes(&self.path.dataset) {
            let kinds: Vec<String> = sqlx::query_scalar::<Db, _>(
                "SELECT DISTINCT kind FROM objects WHERE experiment_id = $1 AND name = $2 AND superseded_by IS NULL",
            )
            .bind(self.experiment_id)
            .bind(&name)
            .fetch_all(&mut *connection)
            .await
            .map_err(fault)?;
            let is_dataset = name == self.path.dataset;
            match kinds.iter().find(|kind| is_dataset || *kind != "group") {
                Some(kind) => return Err(self.mismatch(format!("\"{name}\" is a {} already", kind.replace('_', " ")))),
                None if is_dataset || !kinds.is_empty() => {}
                None => missing.push(self.group(name)),
            }
        }
        Ok(missing)
    }

    fn group(&self, name: String) -> NewObject {
        NewObject {
            hdf5_path: format!("/{name}"),
            name,
            kind: ObjectKind::Group,
            attributes: Map::new(),
            attribute_types: Map::new(),
            dimensions: Vec::new(),
            array: None,
            ..self.append.object.clone()
        }
    }

    /// The next version: the one before and the new rows. No rows are no version.
    async fn extend(&self, connection: &mut Conn, staged: &Staged<'_>, base: &Base) -> Result<Appended> {
        let rows = self.check_fits(connection, base).await?;
        let total_rows = base.rows.checked_add(rows).filter(|total| i64::try_from(*total).is_ok());
        let Some(total_rows) = total_rows else {
            let (path, before) = (self.path, base.rows);
            return Err(Error::invalid(format!("dataset \"{path}\" of {before} rows has no room for {rows} more")));
        };
        let mut made = Appended {
            version: unsigned("the number of a version", base.number)?,
            version_id: base.version_id,
            first_row: base.rows,
            rows,
            total_rows,
            already: false,
            content: puts::content(&self.append.place).to_owned(),
            superseded: Vec::new(),
        };
        if rows == 0 {
            return Ok(made);
        }
        // Time never runs backwards in a history.
        let at = now().max(base.created_at);
        let array = NewArrayRow::insert(connection, staged, (self.experiments, at)).await?;
        made.version += 1;
        made.version_id = self.insert_version(connection, base, (&array, total_rows, at)).await?;
        Ok(made)
    }

    /// The version, its place in a list of extents, and what is current changes over; gives its id.
    async fn insert_version(
        &self,
        connection: &mut Conn,
        base: &Base,
        (array, total_rows, at): (&NewArrayRow, u64, DateTime<Utc>),
    ) -> Result<i64> {
        let first_row = storable("a row", base.rows)?;
        let last: Option<(i64, i64, i64)> = sqlx::query_as::<Db, _>(
            "SELECT ordinal, first_row, rows FROM extents WHERE version_id = $1 ORDER BY ordinal DESC LIMIT 1",
        )
        .bind(base.list)
        .fetch_optional(&mut *connection)
        .await
        .map_err(fault)?;
        let (last, end) = last.map_or((0, 0), |(ordinal, first, rows)| (ordinal, first.saturating_add(rows)));
        // Another version may have grown beyond this one, which became the current one again by a rollback.
        let own_list = end != first_row;
        let version_id: i64 = sqlx::query_scalar::<Db, _>(
            "INSERT INTO versions (dataset_id, number, file_id, object_id, rows, chunks, stored_bytes, created_at, \
                                   published_by, extents_of) \
             SELECT dataset_id, number + 1, file_id, object_id, $2, $3, $4, $5, $6, $7 FROM versions WHERE id = $1 \
             RETURNING id",
        )
        .bind(base.version_id)
        .bind(storable("a number of rows", total_rows)?)
        .bind(base.chunks.saturating_add(array.chunks))
        .bind(base.stored_bytes.saturating_add(array.stored_bytes))
        .bind(at)
        .bind(text::words(&self.append.principal, NAME_BYTES_MAX))
        .bind((!own_list).then_some(base.list))
        .fetch_one(&mut *connection)
        .await
        .map_err(fault)?;
        let list = if own_list { version_id } else { base.list };
        if own_list {
            copy_list(connection, (base.list, first_row), version_id).await?;
        }
        sqlx::query::<Db>(
            "INSERT INTO extents (version_id, ordinal, array_id, first_row, array_row, rows) VALUES ($1, $2, $3, $4, 0, \
             $5)",
        )
        .bind(list)
        .bind(last + 1)
        .bind(array.id)
        .bind(first_row)
        .bind(array.rows)
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
        sqlx::query::<Db>("UPDATE datasets SET current_version_id = $2 WHERE id = $1")
            .bind(base.dataset_id)
            .bind(version_id)
            .execute(connection)
            .await
            .map_err(fault)?;
        Ok(version_id)
    }

    /// The rows of the append, if they may come after those of the dataset.
    async fn check_fits(&self, connection: &mut Conn, base: &Base) -> Result<u64> {
        check_same_rows(connection, base.list, (self.path, &self.append.object)).await
    }

    fn mismatch(&self, why: String) -> Error {
        mismatch(self.path, why)
    }
}

/// How many rows an object has, if they are of the kind that a list has.
///
/// # Errors
/// `put_mismatch`.
pub(super) async fn check_same_rows(
    connection: &mut Conn,
    list: i64,
    (path, object): (&DatasetPath, &NewObject),
) -> Result<u64> {
    let NewObject { array: Some(array), .. } = object else {
        return Err(Error::invalid(format!("\"{path}\" has no array to append")));
    };
    let (known, problem): (String, Option<String>) = sqlx::query_as::<Db, _>(
        "SELECT CAST(a.meta AS TEXT), a.problem_message FROM extents x JOIN arrays a ON a.id = x.array_id \
         WHERE x.version_id = $1 AND x.ordinal = 0",
    )
    .bind(list)
    .fetch_one(connection)
    .await
    .map_err(fault)?;
    if let Some(problem) = problem {
        return Err(mismatch(path, format!("it cannot be read: {problem}")));
    }
    let known = read_meta(&known)?;
    match known.storage {
        Storage::Virtual { .. } => return Err(mismatch(path, "it is virtual".into())),
        Storage::External => return Err(mismatch(path, "its values lie in another file".into())),
        Storage::Compact | Storage::Contiguous { .. } | Storage::Chunked { .. } => {}
    }
    refuse_rowless(path, &known)?;
    refuse_rowless(path, &array.meta)?;
    if known.element != array.meta.element {
        let (was, is) = (&known.element, &array.meta.element);
        return Err(mismatch(path, format!("its elements are {was:?}, those of the new rows {is:?}")));
    }
    if known.shape()[1..] != array.meta.shape()[1..] {
        let (was, is) = (&known.shape()[1..], &array.meta.shape()[1..]);
        return Err(mismatch(path, format!("its rows have the shape {was:?}, the new ones {is:?}")));
    }
    Ok(rows_of(&array.meta))
}

/// Only what has a first axis has rows that others may follow.
fn refuse_rowless(path: &DatasetPath, meta: &ArrayMeta) -> Result<()> {
    match &meta.space {
        Space::Simple { shape } if !shape.is_empty() => Ok(()),
        Space::Simple { .. } => Err(mismatch(path, "a scalar has no rows".into())),
        Space::Null => Err(mismatch(path, "a null dataspace has no rows".into())),
    }
}

fn mismatch(path: &DatasetPath, why: String) -> Error {
    let message = format!("nothing can be appended to dataset \"{path}\": {why}");
    Error::new(ErrorKind::Refused("put_mismatch".into()), message)
}

/// The array of a file that was just written.
pub(super) struct NewArrayRow {
    pub(super) id: i64,
    pub(super) rows: i64,
    pub(super) chunks: i64,
    pub(super) stored_bytes: i64,
}

impl NewArrayRow {
    /// Writes a one-dataset file whose object is never current: it does not describe the dataset.
    pub(super) async fn insert(
        connection: &mut Conn,
        staged: &Staged<'_>,
        (experiments, at): (&ExperimentIds, DateTime<Utc>),
    ) -> Result<Self> {
        let file_id = publish::insert_file(connection, staged, at).await?;
        publish::insert_contents(connection, staged, file_id, experiments).await?;
        sqlx::query::<Db>("UPDATE objects SET superseded_by = $1 WHERE file_id = $1")
            .bind(file_id)
            .execute(&mut *connection)
            .await
            .map_err(fault)?;
        let (id, rows, chunks, stored_bytes): (i64, i64, i64, i64) =
            sqlx::query_as::<Db, _>("SELECT id, rows, chunks, stored_bytes FROM arrays WHERE file_id = $1")
                .bind(file_id)
                .fetch_one(connection)
                .await
                .map_err(fault)?;
        Ok(Self { id, rows, chunks, stored_bytes })
    }
}

/// Copies a list, cut at so many rows.
async fn copy_list(connection: &mut Conn, (list, rows): (i64, i64), to: i64) -> Result<()> {
    sqlx::query::<Db>(
        "INSERT INTO extents (version_id, ordinal, array_id, first_row, array_row, rows) \
         SELECT $2, ordinal, array_id, first_row, array_row, \
                CASE WHEN rows > $3 - first_row THEN $3 - first_row ELSE rows END \
         FROM extents WHERE version_id = $1 AND (ordinal = 0 OR first_row < $3)",
    )
    .bind(list)
    .bind(to)
    .bind(rows)
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}
