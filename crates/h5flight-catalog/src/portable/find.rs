//! Which version a selector means: its id and number, and what is said when there is none.

use chrono::{DateTime, SecondsFormat, Utc};

use super::resolve::{Located, locate, not_found};
use super::{Db, Store, fault};
use crate::error::{Error, Level, Result};
use crate::model::*;
use crate::names;
use crate::rows::{storable_time, unsigned};
use crate::text;

/// Tags among which the nearest are looked for.
const TAGS_COMPARED_MAX: i64 = 1_000;

macro_rules! select_number {
    () => {
        "SELECT v.id, v.number FROM datasets d \
         JOIN experiments e ON e.id = d.experiment_id \
         JOIN animals n ON n.id = e.animal_id \
         JOIN versions v ON v.dataset_id = d.id "
    };
}

pub(super) async fn find_version(store: &Store, path: &DatasetPath, selector: &VersionSelector) -> Result<(i64, u64)> {
    if let Some(found) = number_at(store, path, selector).await? {
        return Ok(found);
    }
    let located = locate(store, path).await?;
    match number_at(store, &located.path, selector).await? {
        Some(found) => Ok(found),
        None => Err(missing_version(store, &located, selector).await?),
    }
}

/// The version of exactly this name. Of several that were published at the same time the last one counts.
async fn number_at(store: &Store, path: &DatasetPath, selector: &VersionSelector) -> Result<Option<(i64, u64)>> {
    let query = match selector {
        VersionSelector::Current => sqlx::query_as::<Db, (i64, i64)>(concat!(
            select_number!(),
            "WHERE n.name = $1 AND e.name = $2 AND d.name = $3 AND v.id = d.current_version_id \
             AND d.withdrawn_by IS NULL"
        )),
        VersionSelector::Number(_) => sqlx::query_as::<Db, (i64, i64)>(concat!(
            select_number!(),
            "WHERE n.name = $1 AND e.name = $2 AND d.name = $3 AND v.number = $4 AND v.expired_at IS NULL"
        )),
        VersionSelector::AsOf(_) => sqlx::query_as::<Db, (i64, i64)>(concat!(
            select_number!(),
            "WHERE n.name = $1 AND e.name = $2 AND d.name = $3 AND v.created_at <= $4 AND v.expired_at IS NULL \
             ORDER BY v.number DESC LIMIT 1"
        )),
        VersionSelector::Tag(_) => sqlx::query_as::<Db, (i64, i64)>(concat!(
            select_number!(),
            "JOIN tags t ON t.dataset_id = d.id AND t.version_id = v.id \
             WHERE n.name = $1 AND e.name = $2 AND d.name = $3 AND t.name = $4"
        )),
    };
    let named =
        query.bind(text::asked(&path.animal)).bind(text::asked(&path.experiment)).bind(text::asked(&path.dataset));
    let selected = match selector {
        VersionSelector::Current => named,
        VersionSelector::Number(number) => match i64::try_from(*number) {
            Ok(number) => named.bind(number),
            Err(_) => return Ok(None),
        },
        VersionSelector::AsOf(at) => named.bind(storable_time(*at)),
        VersionSelector::Tag(tag) => named.bind(text::asked(tag)),
    };
    let found = selected.fetch_optional(&store.readers).await.map_err(fault)?;
    found.map(|(id, number)| Ok((id, unsigned("the number of a version", number)?))).transpose()
}

/// The error for a dataset that has no such version.
pub(super) async fn missing_version(store: &Store, found: &Located, selector: &VersionSelector) -> Result<Error> {
    let Located { path, newest, dataset_id, .. } = found;
    Ok(match selector {
        VersionSelector::Current => not_found(
            Level::Dataset,
            Vec::new(),
            format!("dataset \"{path}\" is no longer in its file; version {newest} was its last and can be asked for"),
        ),
        VersionSelector::Number(number) => not_found(
            Level::Version,
            vec![newest.to_string()],
            format!("dataset \"{path}\" has no version {number}; the newest is {newest}"),
        ),
        VersionSelector::AsOf(at) => {
            let first = shown(first_time(store, *dataset_id).await?);
            let at = shown(*at);
            let message = format!("dataset \"{path}\" had no version at {at}; its first is of {first}");
            not_found(Level::Version, vec![first], message)
        }
        VersionSelector::Tag(tag) => {
            let nearest = names::nearest(tag, &tags_of(store, *dataset_id).await?);
            let hint = names::did_you_mean(&nearest);
            not_found(
                Level::Version,
                nearest,
                format!("dataset \"{path}\" has no version with the tag \"{tag}\"{hint}"),
            )
        }
    })
}

/// To the microsecond, so that what is shown can be asked for.
fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

async fn first_time(store: &Store, dataset_id: i64) -> Result<DateTime<Utc>> {
    sqlx::query_scalar::<Db, _>(
        "SELECT created_at FROM versions WHERE dataset_id = $1 AND expired_at IS NULL ORDER BY number LIMIT 1",
    )
    .bind(dataset_id)
    .fetch_one(&store.readers)
    .await
    .map_err(fault)
}

async fn tags_of(store: &Store, dataset_id: i64) -> Result<Vec<String>> {
    sqlx::query_scalar::<Db, _>("SELECT name FROM tags WHERE dataset_id = $1 ORDER BY name LIMIT $2")
        .bind(dataset_id)
        .bind(TAGS_COMPARED_MAX)
        .fetch_all(&store.readers)
        .await
        .map_err(fault)
}
