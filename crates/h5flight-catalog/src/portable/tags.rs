//! Tags: names that people give to versions. Set and removed under the lock of the experiment, all or none.

use chrono::{DateTime, Utc};

use super::resolve::{self, Located, locate};
use super::{Conn, Db, Store, dialect, fault, find, history};
use crate::error::{Error, ErrorKind, Level, Result};
use crate::model::*;
use crate::rows::{now, storable_time, unsigned};
use crate::text::{self, NAME_BYTES_MAX};

/// What each dataset of an experiment, or one of them, is to be tagged with: dataset_id, name, version_id.
macro_rules! select_targets {
    (experiment) => {
        "SELECT d.id AS dataset_id, d.name AS dataset, \
                (SELECT v.id FROM versions v WHERE v.dataset_id = d.id AND v.created_at <= $2 AND v.expired_at IS NULL \
                 ORDER BY v.number DESC LIMIT 1) AS version_id \
         FROM datasets d WHERE d.experiment_id = $1 AND d.withdrawn_by IS NULL"
    };
    (dataset) => {
        "SELECT d.id AS dataset_id, d.name AS dataset, v.id AS version_id \
         FROM datasets d JOIN versions v ON v.dataset_id = d.id AND v.id = $2 AND v.expired_at IS NULL \
         WHERE d.id = $1"
    };
}

/// Which rows a statement is about: the first two parameters of [`select_targets`].
enum Targets {
    /// An experiment, and the time whose versions are meant.
    Experiment(i64, DateTime<Utc>),
    /// A dataset and a version of it.
    Dataset(i64, i64),
}

pub(super) async fn set_tag(store: &Store, tag: &NewTag) -> Result<Tagged> {
    let name = text::tag(&tag.name)?;
    let (experiment_id, targets) = targets(store, tag).await?;
    let mut transaction = dialect::begin(store).await?;
    let connection = &mut *transaction;
    history::lock_experiment(connection, experiment_id).await?;
    if !tag.move_existing {
        refuse_tagged(connection, &targets, name).await?;
    }
    let datasets = count(connection, &targets).await?;
    if datasets == 0 {
        return Err(nothing_to_tag(tag));
    }
    let changed = insert(connection, &targets, tag, name).await?;
    transaction.commit().await.map_err(fault)?;
    Ok(Tagged { datasets, changed })
}

fn nothing_to_tag(tag: &NewTag) -> Error {
    let message = match &tag.of {
        TagScope::Experiment { animal, experiment } => {
            format!("experiment \"{animal}/{experiment}\" has no dataset with such a version")
        }
        TagScope::Dataset(path) => format!("dataset \"{path}\" has no such version"),
    };
    resolve::not_found(Level::Version, Vec::new(), message)
}

async fn targets(store: &Store, tag: &NewTag) -> Result<(i64, Targets)> {
    match &tag.of {
        TagScope::Dataset(path) => {
            let Located { experiment_id, dataset_id, path, .. } = locate(store, path).await?;
            let (version_id, _) = find::find_version(store, &path, &tag.version).await?;
            Ok((experiment_id, Targets::Dataset(dataset_id, version_id)))
        }
        TagScope::Experiment { animal, experiment } => {
            let experiment_id = resolve::experiment_id(store, animal, experiment).await?;
            let at = match &tag.version {
                // Whatever the clocks of servers say: no version is later.
                VersionSelector::Current => storable_time(DateTime::<Utc>::MAX_UTC),
                VersionSelector::AsOf(at) => storable_time(*at),
                VersionSelector::Number(_) | VersionSelector::Tag(_) => {
                    let message = "a version of a whole experiment is the current one or that of a time";
                    return Err(Error::invalid(message));
                }
            };
            Ok((experiment_id, Targets::Experiment(experiment_id, at)))
        }
    }
}

/// Refuses when one of the targets has the tag at another version.
async fn refuse_tagged(connection: &mut Conn, targets: &Targets, name: &str) -> Result<()> {
    macro_rules! tagged {
        ($targets:tt) => {
            concat!(
                "SELECT m.dataset, v.number FROM (",
                select_targets!($targets),
                ") m JOIN tags t ON t.dataset_id = m.dataset_id AND t.name = $3 JOIN versions v ON v.id = t.version_id \
                 WHERE t.version_id <> m.version_id ORDER BY m.dataset LIMIT 1"
            )
        };
    }
    let query = match targets {
        Targets::Experiment(id, at) => sqlx::query_as::<Db, (String, i64)>(tagged!(experiment)).bind(*id).bind(*at),
        Targets::Dataset(id, version_id) => sqlx::query_as(tagged!(dataset)).bind(*id).bind(*version_id),
    };
    match query.bind(name).fetch_optional(connection).await.map_err(fault)? {
        None => Ok(()),
        Some((dataset, number)) => Err(Error::new(
            ErrorKind::TagExists,
            format!("the tag \"{name}\" is version {number} of dataset \"{dataset}\" already; it can be moved"),
        )),
    }
}

async fn count(connection: &mut Conn, targets: &Targets) -> Result<u64> {
    macro_rules! counted {
        ($targets:tt) => {
            concat!("SELECT count(*) FROM (", select_targets!($targets), ") m WHERE m.version_id IS NOT NULL")
        };
    }
    let query = match targets {
        Targets::Experiment(id, at) => sqlx::query_scalar::<Db, i64>(counted!(experiment)).bind(*id).bind(*at),
        Targets::Dataset(id, version_id) => sqlx::query_scalar(counted!(dataset)).bind(*id).bind(*version_id),
    };
    unsigned("a number of datasets", query.fetch_one(connection).await.map_err(fault)?)
}

/// Sets the tag; gives the number of datasets for which that changed anything.
async fn insert(connection: &mut Conn, targets: &Targets, tag: &NewTag, name: &str) -> Result<u64> {
    macro_rules! inserted {
        ($targets:tt) => {
            concat!(
                "INSERT INTO tags (dataset_id, name, version_id, tagged_by, created_at) \
                 SELECT m.dataset_id, $3, m.version_id, $4, $5 FROM (",
                select_targets!($targets),
                ") m WHERE m.version_id IS NOT NULL ORDER BY m.dataset_id \
                 ON CONFLICT (dataset_id, name) DO UPDATE SET version_id = excluded.version_id, \
                    tagged_by = excluded.tagged_by, created_at = excluded.created_at \
                 WHERE tags.version_id <> excluded.version_id"
            )
        };
    }
    let query = match targets {
        Targets::Experiment(id, at) => sqlx::query::<Db>(inserted!(experiment)).bind(*id).bind(*at),
        Targets::Dataset(id, version_id) => sqlx::query::<Db>(inserted!(dataset)).bind(*id).bind(*version_id),
    };
    let query = query.bind(name).bind(text::words(&tag.principal, NAME_BYTES_MAX)).bind(now());
    Ok(query.execute(connection).await.map_err(fault)?.rows_affected())
}

pub(super) async fn delete_tag(store: &Store, of: &TagScope, name: &str) -> Result<Tagged> {
    let (scope, deleted) = match of {
        TagScope::Dataset(path) => {
            let Located { dataset_id, path, .. } = locate(store, path).await?;
            let query = sqlx::query::<Db>("DELETE FROM tags WHERE dataset_id = $1 AND name = $2").bind(dataset_id);
            (format!("dataset \"{path}\""), query)
        }
        TagScope::Experiment { animal, experiment } => {
            let experiment_id = resolve::experiment_id(store, animal, experiment).await?;
            let query = sqlx::query::<Db>(
                "DELETE FROM tags WHERE dataset_id IN (SELECT id FROM datasets WHERE experiment_id = $1) AND name = $2",
            );
            (format!("experiment \"{animal}/{experiment}\""), query.bind(experiment_id))
        }
    };
    let deleted = deleted.bind(text::asked(name)).execute(&store.writer).await.map_err(fault)?.rows_affected();
    match deleted {
        0 => Err(resolve::not_found(Level::Version, Vec::new(), format!("nothing of {scope} has the tag \"{name}\""))),
        datasets => Ok(Tagged { datasets, changed: datasets }),
    }
}
