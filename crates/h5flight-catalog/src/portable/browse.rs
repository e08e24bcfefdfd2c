//! What people look at: lists, descriptions, search.

use std::collections::BTreeMap;

use h5flight_array::inspect::{LinkKind, ObjectKind};
use serde_json::{Map, Value};

use super::{Db, Store, fault, resolve};
use crate::error::{Level, Result};
use crate::model::*;
use crate::names::{self, LINKS_MAX};
use crate::paging::Request;
use crate::rows::{
    AnimalRow, ExperimentRow, FileRow, ObjectRow, SummaryRow, attributes, dimensions, experiment_columns, file_columns,
    link_kind, object_kind, select_summaries, unsigned,
};
use crate::text;

/// Members of a group that a description shows at most; a longer list is what `list_datasets` is for.
const CHILDREN_MAX: i64 = 100_000;
/// Other names of an object that a description shows at most.
const ALIASES_MAX: i64 = 1_000;
/// Soft links of one group that lead over further links and are still followed for its description.
const LINKS_FOLLOWED_MAX: usize = 100;

pub(super) async fn list_animals(store: &Store, page: &Page) -> Result<Paged<AnimalSummary>> {
    let request = Request::parse("animals", page)?;
    let [after] = &request.after;
    let rows: Vec<AnimalRow> = sqlx::query_as::<Db, _>(
        "SELECT n.name AS animal, coalesce(n.species, '') AS species, \
                (SELECT count(*) FROM experiments e WHERE e.animal_id = n.id AND EXISTS \
                    (SELECT 1 FROM objects o WHERE o.experiment_id = e.id AND o.superseded_by IS NULL)) AS experiments \
         FROM animals n \
         WHERE n.name > $1 AND EXISTS \
            (SELECT 1 FROM experiments e JOIN objects o ON o.experiment_id = e.id AND o.superseded_by IS NULL \
             WHERE e.animal_id = n.id) \
         ORDER BY n.name LIMIT $2",
    )
    .bind(after)
    .bind(request.limit())
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let animals = rows.into_iter().map(AnimalRow::summary).collect::<Result<Vec<_>>>()?;
    Ok(request.page(animals, |animal| [&animal.animal]))
}

pub(super) async fn list_experiments(store: &Store, animal: &str, page: &Page) -> Result<Paged<ExperimentSummary>> {
    let request = Request::parse("experiments", page)?;
    let animal_id = resolve::animal_id(store, animal).await?;
    let [after] = &request.after;
    let rows: Vec<ExperimentRow> = sqlx::query_as::<Db, _>(concat!(
        "SELECT ",
        experiment_columns!(),
        "FROM experiments e \
         WHERE e.animal_id = $1 AND e.name > $2 \
           AND EXISTS (SELECT 1 FROM objects o WHERE o.experiment_id = e.id AND o.superseded_by IS NULL) \
         ORDER BY e.name LIMIT $3"
    ))
    .bind(animal_id)
    .bind(after)
    .bind(request.limit())
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let experiments = rows.into_iter().map(|row| row.summary(animal)).collect::<Result<Vec<_>>>()?;
    Ok(request.page(experiments, |experiment| [&experiment.experiment]))
}

pub(super) async fn list_datasets(
    store: &Store,
    animal: &str,
    experiment: &str,
    page: &Page,
) -> Result<Paged<DatasetSummary>> {
    let request = Request::parse("datasets", page)?;
    let experiment_id = resolve::experiment_id(store, animal, experiment).await?;
    let [after] = &request.after;
    let rows: Vec<SummaryRow> = sqlx::query_as::<Db, _>(concat!(
        select_summaries!(),
        "AND d.experiment_id = $1 AND d.name > $2 ORDER BY d.name LIMIT $3"
    ))
    .bind(experiment_id)
    .bind(after)
    .bind(request.limit())
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let datasets = rows.into_iter().map(SummaryRow::summary).collect::<Result<Vec<_>>>()?;
    Ok(request.page(datasets, |dataset| [&dataset.path.dataset]))
}

/// The newest record of every place.
pub(super) async fn list_files(store: &Store, page: &Page) -> Result<Paged<FileRecord>> {
    let request: Request<3> = Request::parse("files", page)?;
    let [kind, root, path] = &request.after;
    let rows: Vec<FileRow> = sqlx::query_as::<Db, _>(concat!(
        "SELECT ",
        file_columns!(),
        " FROM files f WHERE (f.kind, f.root, f.path) > ($1, $2, $3) \
           AND NOT EXISTS (SELECT 1 FROM files newer WHERE newer.kind = f.kind AND newer.root = f.root \
                           AND newer.path = f.path AND newer.generation > f.generation) \
         ORDER BY f.kind, f.root, f.path LIMIT $4"
    ))
    .bind(kind)
    .bind(root)
    .bind(path)
    .bind(request.limit())
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let files = rows.into_iter().map(FileRow::record).collect::<Result<Vec<_>>>()?;
    Ok(request.page(files, |file| {
        let (kind, root, path) = crate::staging::place_columns(&file.place);
        [kind, root, path]
    }))
}

pub(super) async fn counts(store: &Store) -> Result<Counts> {
    let (animals, experiments, datasets, files): (i64, i64, i64, i64) = sqlx::query_as::<Db, _>(
        "SELECT (SELECT count(*) FROM animals n WHERE EXISTS \
                    (SELECT 1 FROM experiments e JOIN objects o ON o.experiment_id = e.id AND o.superseded_by IS NULL \
                     WHERE e.animal_id = n.id)), \
                (SELECT count(*) FROM experiments e WHERE EXISTS \
                    (SELECT 1 FROM objects o WHERE o.experiment_id = e.id AND o.superseded_by IS NULL)), \
                (SELECT count(*) FROM datasets WHERE withdrawn_by IS NULL), \
                (SELECT count(*) FROM files f WHERE f.generation = 1)",
    )
    .fetch_one(&store.readers)
    .await
    .map_err(fault)?;
    Ok(Counts {
        animals: unsigned("a count", animals)?,
        experiments: unsigned("a count", experiments)?,
        datasets: unsigned("a count", datasets)?,
        files: unsigned("a count", files)?,
    })
}

pub(super) async fn describe(store: &Store, path: &DatasetPath) -> Result<Description> {
    let experiment_id = resolve::experiment_id(store, &path.animal, &path.experiment).await?;
    let mut name = names::normal(&path.dataset);
    for _ in 0..=LINKS_MAX {
        let objects = objects_at(store, experiment_id, &name).await?;
        if let Some(description) = described(store, experiment_id, path, (&name, objects)).await? {
            return Ok(description);
        }
        match resolve::next_name(store, experiment_id, &name).await? {
            Some(next) => name = next,
            None => return Err(resolve::missing_dataset(store, experiment_id, path, &name).await?),
        }
    }
    Err(resolve::too_many_links(path))
}

pub(super) async fn describe_version(store: &Store, version_id: i64) -> Result<Description> {
    let unknown = || {
        let message = format!("no version has the id {version_id}");
        resolve::not_found(Level::Version, Vec::new(), message)
    };
    let object: Option<ObjectRow> = sqlx::query_as::<Db, _>(
        "SELECT o.kind, CAST(o.attributes AS TEXT) AS attributes, CAST(o.attribute_types AS TEXT) AS attribute_types, \
                CAST(o.dimensions AS TEXT) AS dimensions \
         FROM versions v JOIN objects o ON o.id = v.object_id WHERE v.id = $1 AND v.expired_at IS NULL",
    )
    .bind(version_id)
    .fetch_optional(&store.readers)
    .await
    .map_err(fault)?;
    let summary: Option<SummaryRow> = sqlx::query_as::<Db, _>(concat!(
        select_summaries!("JOIN versions v ON v.dataset_id = d.id "),
        "WHERE v.id = $1 AND v.expired_at IS NULL"
    ))
    .bind(version_id)
    .fetch_optional(&store.readers)
    .await
    .map_err(fault)?;
    let (Some(object), Some(summary)) = (object, summary) else { return Err(unknown()) };
    let summary = summary.summary()?;
    let path = summary.path.clone();
    let experiment_id = resolve::experiment_id(store, &path.animal, &path.experiment).await?;
    Ok(Description {
        kind: ObjectKind::Dataset,
        attributes: attributes(&object.attributes)?,
        attribute_types: attributes(&object.attribute_types)?,
        dimensions: dimensions(&object.dimensions)?,
        children: Vec::new(),
        aliases: aliases(store, experiment_id, &path.dataset).await?,
        dataset: Some(summary),
        path,
    })
}

/// The objects of this name, the newest first: several files of an experiment may have the same groups.
async fn objects_at(store: &Store, experiment_id: i64, name: &str) -> Result<Vec<ObjectRow>> {
    sqlx::query_as::<Db, _>(
        "SELECT kind, CAST(attributes AS TEXT) AS attributes, CAST(attribute_types AS TEXT) AS attribute_types, \
                CAST(dimensions AS TEXT) AS dimensions FROM objects \
         WHERE experiment_id = $1 AND name = $2 AND superseded_by IS NULL ORDER BY id DESC",
    )
    .bind(experiment_id)
    .bind(text::asked(name))
    .fetch_all(&store.readers)
    .await
    .map_err(fault)
}

/// What the objects of one name are together.
#[derive(Default)]
struct Merged {
    kind: Option<ObjectKind>,
    attributes: BTreeMap<String, Value>,
    types: Map<String, Value>,
    dimensions: Vec<Dimension>,
}

impl Merged {
    /// Adds the next older object of the name.
    fn add(&mut self, object: &ObjectRow) -> Result<()> {
        let this = object_kind(&object.kind)?;
        match self.kind {
            // A dataset hides a group of the same name from another file; groups are one, the newer file's attribute
            // wins.
            Some(ObjectKind::Group) if this == ObjectKind::Dataset => *self = Self::default(),
            Some(first) if first != this => return Ok(()),
            Some(_) | None => {}
        }
        if self.kind.is_none() {
            self.dimensions = dimensions(&object.dimensions)?;
        }
        self.kind = Some(this);
        let mut types = attributes(&object.attribute_types)?;
        for (name, value) in attributes(&object.attributes)? {
            if self.attributes.contains_key(&name) {
                continue;
            }
            if let Some(told) = types.remove(&name) {
                self.types.insert(name.clone(), told);
            }
            self.attributes.insert(name, value);
        }
        Ok(())
    }
}

/// The description of what is at a name; the root of an experiment is a group even when no file says so.
async fn described(
    store: &Store,
    experiment_id: i64,
    asked: &DatasetPath,
    (name, objects): (&str, Vec<ObjectRow>),
) -> Result<Option<Description>> {
    let mut merged = Merged::default();
    for object in &objects {
        merged.add(object)?;
    }
    let Merged { kind, attributes, types, dimensions } = merged;
    let Some(kind) = kind.or(name.is_empty().then_some(ObjectKind::Group)) else { return Ok(None) };
    let dataset = match kind {
        ObjectKind::Dataset => summary_at(store, experiment_id, name).await?,
        ObjectKind::Group | ObjectKind::NamedType => None,
    };
    let children = match kind {
        ObjectKind::Group => children(store, experiment_id, name).await?,
        ObjectKind::Dataset | ObjectKind::NamedType => Vec::new(),
    };
    Ok(Some(Description {
        path: DatasetPath { dataset: name.to_owned(), ..asked.clone() },
        kind,
        attributes: attributes.into_iter().collect(),
        attribute_types: types,
        dataset,
        dimensions,
        children,
        aliases: aliases(store, experiment_id, name).await?,
    }))
}

async fn summary_at(store: &Store, experiment_id: i64, name: &str) -> Result<Option<DatasetSummary>> {
    let row: Option<SummaryRow> =
        sqlx::query_as::<Db, _>(concat!(select_summaries!(), "AND d.experiment_id = $1 AND d.name = $2"))
            .bind(experiment_id)
            .bind(text::asked(name))
            .fetch_optional(&store.readers)
            .await
            .map_err(fault)?;
    row.map(SummaryRow::summary).transpose()
}

/// Last parts of the names directly below a group. A link has the kind of what it leads to; one that leads nowhere, or
/// out of the file, is listed as a link.
async fn children(store: &Store, experiment_id: i64, group: &str) -> Result<Vec<(String, ChildKind)>> {
    let objects: Vec<(String, String)> = sqlx::query_as::<Db, _>(
        "SELECT DISTINCT name, kind FROM objects WHERE experiment_id = $1 AND parent = $2 AND superseded_by IS NULL \
         ORDER BY name LIMIT $3",
    )
    .bind(experiment_id)
    .bind(text::asked(group))
    .bind(CHILDREN_MAX)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let links: Vec<(String, String, Option<String>)> = sqlx::query_as::<Db, _>(
        "SELECT l.path, l.kind, (SELECT min(o.kind) FROM objects o WHERE o.experiment_id = l.experiment_id \
                                 AND o.name = l.target AND o.superseded_by IS NULL AND l.kind IN ('hard', 'soft')) \
         FROM links l WHERE l.experiment_id = $1 AND l.parent = $2 AND l.superseded_by IS NULL \
         ORDER BY l.path LIMIT $3",
    )
    .bind(experiment_id)
    .bind(text::asked(group))
    .bind(CHILDREN_MAX)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    let mut children = BTreeMap::new();
    // Of the same name, dataset comes after group: it is what a read gets.
    for (name, kind) in objects {
        let kind = object_kind(&kind)?;
        children
            .entry(names::last_part(&name).to_owned())
            .and_modify(|known| *known = preferred(*known, kind))
            .or_insert(ChildKind::Object(kind));
    }
    let mut followed = 0;
    for (path, link, target) in links {
        let link = link_kind(&link)?;
        let is_inside = matches!(link, LinkKind::Hard | LinkKind::Soft);
        let target = match target {
            Some(kind) => Some(object_kind(&kind)?),
            None if is_inside && followed < LINKS_FOLLOWED_MAX => {
                followed += 1;
                kind_behind(store, experiment_id, &path).await?
            }
            None => None,
        };
        let kind = target.map_or(ChildKind::Link(link), ChildKind::Object);
        children.entry(names::last_part(&path).to_owned()).or_insert(kind);
    }
    Ok(children.into_iter().collect())
}

fn preferred(known: ChildKind, other: ObjectKind) -> ChildKind {
    if other == ObjectKind::Dataset { ChildKind::Object(other) } else { known }
}

/// What is at the end of a chain of links, if anything.
async fn kind_behind(store: &Store, experiment_id: i64, link: &str) -> Result<Option<ObjectKind>> {
    let mut name = link.to_owned();
    for _ in 0..=LINKS_MAX {
        let found = objects_at(store, experiment_id, &name).await?;
        if let Some(object) = found.first() {
            return object_kind(&object.kind).map(Some);
        }
        match resolve::next_name(store, experiment_id, &name).await {
            Ok(Some(next)) => name = next,
            Ok(None) => return Ok(None),
            Err(error) if matches!(error.kind, crate::ErrorKind::Refused(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn aliases(store: &Store, experiment_id: i64, name: &str) -> Result<Vec<String>> {
    sqlx::query_scalar::<Db, _>(
        "SELECT DISTINCT path FROM links WHERE experiment_id = $1 AND target = $2 AND superseded_by IS NULL \
           AND kind IN ('hard', 'soft') ORDER BY path LIMIT $3",
    )
    .bind(experiment_id)
    .bind(text::asked(name))
    .bind(ALIASES_MAX)
    .fetch_all(&store.readers)
    .await
    .map_err(fault)
}
