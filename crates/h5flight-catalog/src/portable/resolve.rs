//! What a read needs to know: a name becomes a version with everything that belongs to it.
//!
//! The common case is two statements: the version with its extents, and its chunk runs. Links and "no such name" are
//! the slow way, taken only when the name itself is no dataset.

use super::{Db, Store, dialect, fault, find, sources};
use crate::error::{Error, ErrorKind, Level, Result};
use crate::model::*;
use crate::names::{self, LINKS_MAX};
use crate::rows::{self, VersionRow, unsigned, version_columns};
use crate::text;

/// Names of the same level among which the nearest are looked for, before and after the wanted one.
const CANDIDATES_EACH_WAY: i64 = 500;
/// Members that "is a group" shows.
const MEMBERS_SHOWN: usize = 20;

macro_rules! select_version {
    () => {
        concat!(
            "SELECT ",
            version_columns!(),
            " FROM datasets d \
             JOIN experiments e ON e.id = d.experiment_id \
             JOIN animals n ON n.id = e.animal_id \
             JOIN versions v ON v.dataset_id = d.id \
             JOIN objects o ON o.id = v.object_id \
             JOIN extents x ON x.version_id = coalesce(v.extents_of, v.id) \
                           AND (x.ordinal = 0 OR x.first_row < v.rows) \
             JOIN arrays a ON a.id = x.array_id \
             JOIN files f ON f.id = a.file_id "
        )
    };
}

pub(super) async fn resolve(store: &Store, path: &DatasetPath, selector: VersionSelector) -> Result<ResolvedVersion> {
    if let VersionSelector::AsOf(_) | VersionSelector::Tag(_) = selector {
        let (version_id, _) = find::find_version(store, path, &selector).await?;
        return resolve_version(store, version_id).await;
    }
    if let Some(version) = version_at(store, path, &selector).await? {
        return Ok(version);
    }
    let found = locate(store, path).await?;
    match version_at(store, &found.path, &selector).await? {
        Some(version) => Ok(version),
        None => Err(find::missing_version(store, &found, &selector).await?),
    }
}

pub(super) async fn resolve_version(store: &Store, version_id: i64) -> Result<ResolvedVersion> {
    let extents: Vec<VersionRow> = sqlx::query_as::<Db, _>(concat!(
        select_version!(),
        "WHERE v.id = $1 AND v.expired_at IS NULL ORDER BY x.ordinal"
    ))
    .bind(version_id)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let unknown = || not_found(Level::Version, Vec::new(), format!("no version has the id {version_id}"));
    completed(store, extents).await?.ok_or_else(unknown)
}

/// The version of exactly this name, the current or a numbered one; a withdrawn dataset has only numbered ones.
async fn version_at(store: &Store, path: &DatasetPath, selector: &VersionSelector) -> Result<Option<ResolvedVersion>> {
    let (query, number) = match selector {
        VersionSelector::Number(number) => {
            let Ok(number) = i64::try_from(*number) else { return Ok(None) };
            let query = sqlx::query_as::<Db, VersionRow>(concat!(
                select_version!(),
                "WHERE n.name = $1 AND e.name = $2 AND d.name = $3 AND v.number = $4 AND v.expired_at IS NULL \
                 ORDER BY x.ordinal"
            ));
            (query, Some(number))
        }
        VersionSelector::Current | VersionSelector::AsOf(_) | VersionSelector::Tag(_) => {
            let query = sqlx::query_as::<Db, VersionRow>(concat!(
                select_version!(),
                "WHERE n.name = $1 AND e.name = $2 AND d.name = $3 AND d.withdrawn_by IS NULL \
                 AND v.id = d.current_version_id ORDER BY x.ordinal"
            ));
            (query, None)
        }
    };
    let named =
        query.bind(text::asked(&path.animal)).bind(text::asked(&path.experiment)).bind(text::asked(&path.dataset));
    let named = match number {
        Some(number) => named.bind(number),
        None => named,
    };
    let extents = named.fetch_all(&store.readers).await.map_err(fault)?;
    completed(store, extents).await
}

/// Adds the chunk runs, where there are any: those of the arrays that were found, for the list of extents may be
/// compacted between two statements, and the arrays that it named stay for the grace period.
async fn completed(store: &Store, extents: Vec<VersionRow>) -> Result<Option<ResolvedVersion>> {
    if extents.is_empty() {
        return Ok(None);
    }
    let mut chunked: Vec<i64> =
        extents.iter().filter(|extent| extent.array.chunks > 0).map(|extent| extent.array.array_id).collect();
    chunked.sort_unstable();
    chunked.dedup();
    let runs = if chunked.is_empty() { Vec::new() } else { dialect::runs_of(store, &chunked).await? };
    let mut version = rows::version(extents, runs).await?;
    sources::attach(store, &mut version).await?;
    Ok(Some(version))
}

/// A dataset that a name means.
pub(super) struct Located {
    pub(super) path: DatasetPath,
    pub(super) experiment_id: i64,
    pub(super) dataset_id: i64,
    /// Number of its newest version.
    pub(super) newest: u64,
}

/// Follows links until a dataset is found, listed or withdrawn; explains what is missing otherwise.
pub(super) async fn locate(store: &Store, path: &DatasetPath) -> Result<Located> {
    let experiment_id = experiment_id(store, &path.animal, &path.experiment).await?;
    let mut name = names::normal(&path.dataset);
    for _ in 0..=LINKS_MAX {
        let dataset: Option<(i64, i64, Option<i64>)> = sqlx::query_as::<Db, _>(
            "SELECT d.id, v.number, d.withdrawn_by FROM datasets d JOIN versions v ON v.id = d.current_version_id \
             WHERE d.experiment_id = $1 AND d.name = $2",
        )
        .bind(experiment_id)
        .bind(text::asked(&name))
        .fetch_optional(&store.readers)
        .await
        .map_err(fault)?;
        let located = |dataset_id, number| -> Result<Located> {
            let path = DatasetPath { dataset: name.clone(), ..path.clone() };
            Ok(Located { path, experiment_id, dataset_id, newest: unsigned("the number of a version", number)? })
        };
        if let Some((id, number, None)) = dataset {
            return located(id, number);
        }
        match (next_name(store, experiment_id, &name).await?, dataset) {
            (Some(next), _) => name = next,
            (None, Some((id, number, _))) => return located(id, number),
            (None, None) => return Err(missing_dataset(store, experiment_id, path, &name).await?),
        }
    }
    Err(too_many_links(path))
}

/// The error for a name that links lead in circles from.
pub(super) fn too_many_links(path: &DatasetPath) -> Error {
    not_found(Level::Dataset, Vec::new(), format!("\"{path}\" leads over more than {LINKS_MAX} links, or in circles"))
}

/// The name after following the link that `name` is or goes through; `None` where there is none.
///
/// # Errors
/// [`ErrorKind::Refused`] for a link that leaves the file.
pub(super) async fn next_name(store: &Store, experiment_id: i64, name: &str) -> Result<Option<String>> {
    if name.len() > text::PATH_BYTES_MAX || name.contains('\0') {
        return Ok(None);
    }
    let Some(link) = dialect::link_on_path(store, experiment_id, &names::prefixes(name)).await? else {
        return Ok(None);
    };
    match link.kind.as_str() {
        "hard" | "soft" => Ok(Some(names::substitute(name, &link.path, &link.target))),
        _ => Err(Error::new(
            ErrorKind::Refused("external_link_refused".into()),
            format!("\"{}\" is a link out of its file, which is never followed", link.path),
        )),
    }
}

/// The id of an experiment.
///
/// # Errors
/// [`ErrorKind::NotFound`], saying whether the animal or the experiment is missing.
pub(super) async fn experiment_id(store: &Store, animal: &str, experiment: &str) -> Result<i64> {
    let id: Option<i64> = sqlx::query_scalar::<Db, _>(
        "SELECT e.id FROM experiments e JOIN animals n ON n.id = e.animal_id WHERE n.name = $1 AND e.name = $2",
    )
    .bind(text::asked(animal))
    .bind(text::asked(experiment))
    .fetch_optional(&store.readers)
    .await
    .map_err(fault)?;
    if let Some(id) = id {
        return Ok(id);
    }
    let animal_id = animal_id(store, animal).await?;
    let candidates: Vec<String> = sqlx::query_scalar::<Db, _>(
        "SELECT name FROM (SELECT name FROM experiments WHERE animal_id = $1 AND name >= $2 \
                           ORDER BY name LIMIT $3) after \
         UNION ALL \
         SELECT name FROM (SELECT name FROM experiments WHERE animal_id = $1 AND name < $2 \
                           ORDER BY name DESC LIMIT $3) before",
    )
    .bind(animal_id)
    .bind(text::asked(experiment))
    .bind(CANDIDATES_EACH_WAY)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let nearest = names::nearest(experiment, &candidates);
    let hint = names::did_you_mean(&nearest);
    let message = format!("animal \"{animal}\" has no experiment \"{experiment}\"{hint}");
    Err(not_found(Level::Experiment, nearest, message))
}

/// The id of an animal.
///
/// # Errors
/// [`ErrorKind::NotFound`] with the nearest names.
pub(super) async fn animal_id(store: &Store, animal: &str) -> Result<i64> {
    let id: Option<i64> = sqlx::query_scalar::<Db, _>("SELECT id FROM animals WHERE name = $1")
        .bind(text::asked(animal))
        .fetch_optional(&store.readers)
        .await
        .map_err(fault)?;
    if let Some(id) = id {
        return Ok(id);
    }
    let candidates: Vec<String> = sqlx::query_scalar::<Db, _>(
        "SELECT name FROM (SELECT name FROM animals WHERE name >= $1 ORDER BY name LIMIT $2) after \
         UNION ALL \
         SELECT name FROM (SELECT name FROM animals WHERE name < $1 ORDER BY name DESC LIMIT $2) before",
    )
    .bind(text::asked(animal))
    .bind(CANDIDATES_EACH_WAY)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let nearest = names::nearest(animal, &candidates);
    let message = format!("no animal \"{animal}\"{}", names::did_you_mean(&nearest));
    Err(not_found(Level::Animal, nearest, message))
}

/// The error for a name that is no dataset: a group with its members, or nothing with the nearest names.
pub(super) async fn missing_dataset(
    store: &Store,
    experiment_id: i64,
    path: &DatasetPath,
    name: &str,
) -> Result<Error> {
    let objects: Vec<String> = sqlx::query_scalar::<Db, _>(
        "SELECT name FROM (SELECT name FROM objects WHERE experiment_id = $1 AND superseded_by IS NULL AND name >= $2 \
                           ORDER BY name LIMIT $3) after \
         UNION ALL \
         SELECT name FROM (SELECT name FROM objects WHERE experiment_id = $1 AND superseded_by IS NULL AND name < $2 \
                           ORDER BY name DESC LIMIT $3) before",
    )
    .bind(experiment_id)
    .bind(text::asked(name))
    .bind(CANDIDATES_EACH_WAY)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    if name.is_empty() || objects.iter().any(|object| object == name) {
        return group_instead(store, experiment_id, path, name).await;
    }
    let nearest = names::nearest(name, &objects);
    let (animal, experiment, hint) = (&path.animal, &path.experiment, names::did_you_mean(&nearest));
    let message = match name == names::normal(&path.dataset) {
        true => format!("experiment \"{animal}/{experiment}\" has no dataset \"{name}\"{hint}"),
        false => format!("\"{path}\" is a link to \"{name}\", which does not exist{hint}"),
    };
    Ok(not_found(Level::Dataset, nearest, message))
}

async fn group_instead(store: &Store, experiment_id: i64, path: &DatasetPath, name: &str) -> Result<Error> {
    let mut members: Vec<String> = sqlx::query_scalar::<Db, _>(
        "SELECT DISTINCT name FROM objects \
         WHERE experiment_id = $1 AND parent = $2 AND superseded_by IS NULL ORDER BY name LIMIT $3",
    )
    .bind(experiment_id)
    .bind(text::asked(name))
    .bind(MEMBERS_SHOWN as i64 + 1)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let more = if members.len() > MEMBERS_SHOWN { " and more" } else { "" };
    members.truncate(MEMBERS_SHOWN);
    let shown = members.iter().map(|member| names::last_part(member)).collect::<Vec<_>>().join(", ");
    let message = match members.is_empty() {
        true => format!("\"{path}\" is no dataset and has no members"),
        false => format!("\"{path}\" is a group; its members are {shown}{more}"),
    };
    members.truncate(5);
    Ok(not_found(Level::Dataset, members, message))
}

pub(super) fn not_found(level: Level, nearest: Vec<String>, message: String) -> Error {
    Error::new(ErrorKind::NotFound { level, nearest }, message)
}
