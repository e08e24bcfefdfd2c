//! What every case gets, and what publications are made of.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use h5flight_array::index::{ChunkIndex, ChunkPointer};
use h5flight_array::inspect::{Link, LinkKind, ObjectKind};
use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Space, Storage};
use h5flight_catalog::model::*;
use h5flight_catalog::{Catalog, open};
use serde_json::{Map, Value, json};
use sqlx::{PgPool, SqlitePool};

/// One catalogue, opened by two servers.
pub struct World {
    /// One server's.
    pub first: Arc<dyn Catalog>,
    /// The other server's.
    pub second: Arc<dyn Catalog>,
    /// For what no server would do.
    pub raw: Raw,
    /// Its URL.
    pub url: String,
}

impl World {
    pub async fn open(url: &str) -> Self {
        let options = OpenOptions { acquire_timeout_ms: 20_000, ..OpenOptions::default() };
        let first = open(url, &options).await.expect("a new catalogue opens");
        let second = open(url, &options).await.expect("it opens again");
        Self { first, second, raw: Raw::open(url).await, url: url.to_owned() }
    }

    /// Foreign keys hold (PostgreSQL enforces them, SQLite is asked), and so do the rules that span tables.
    pub async fn check_integrity(&self) {
        if let Raw::Sqlite(pool) = &self.raw {
            let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(pool).await.expect("the check runs");
            assert!(broken.is_empty(), "{} foreign keys are broken", broken.len());
        }
        for (rule, count) in [
            ("every dataset has a current version", "SELECT count(*) FROM datasets WHERE current_version_id IS NULL"),
            (
                "a current version is its dataset's newest",
                "SELECT count(*) FROM datasets d JOIN versions v ON v.id = d.current_version_id WHERE v.dataset_id <> \
                 d.id \
                 OR v.number <> (SELECT max(m.number) FROM versions m WHERE m.dataset_id = d.id)",
            ),
            (
                "versions count from 1 without gaps",
                "SELECT count(*) FROM datasets d WHERE (SELECT max(v.number) FROM versions v WHERE v.dataset_id = \
                 d.id) \
                 <> (SELECT count(*) FROM versions v WHERE v.dataset_id = d.id)",
            ),
            (
                "a dataset is listed while the object of its current version is current",
                "SELECT count(*) FROM datasets d JOIN versions v ON v.id = d.current_version_id \
                 JOIN objects o ON o.id = v.object_id WHERE (d.withdrawn_by IS NULL) <> (o.superseded_by IS NULL)",
            ),
            (
                "a tag is at a version of its dataset",
                "SELECT count(*) FROM tags t JOIN versions v ON v.id = t.version_id WHERE v.dataset_id <> t.dataset_id",
            ),
            (
                "a list of extents is its dataset's own, and its owner's",
                "SELECT count(*) FROM versions v JOIN versions o ON o.id = v.extents_of \
                 WHERE o.dataset_id <> v.dataset_id OR o.extents_of IS NOT NULL",
            ),
            (
                "times ascend in a history",
                "SELECT count(*) FROM versions a JOIN versions b ON b.dataset_id = a.dataset_id \
                 AND b.number = a.number + 1 WHERE b.created_at < a.created_at",
            ),
            (
                "every version has its rows in extents",
                "SELECT count(*) FROM versions v \
                 WHERE v.rows <> coalesce((SELECT sum(CASE WHEN x.rows > v.rows - x.first_row THEN v.rows - x.first_row \
                 ELSE x.rows END) FROM extents x WHERE x.version_id = coalesce(v.extents_of, v.id) \
                 AND (x.ordinal = 0 OR x.first_row < v.rows)), -1)",
            ),
        ] {
            assert_eq!(self.raw.number(count).await, 0, "not so: {rule}");
        }
    }
}

/// SQL past the catalogue.
pub enum Raw {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Raw {
    pub async fn open(url: &str) -> Self {
        match url.strip_prefix("sqlite://") {
            Some(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                Self::Sqlite(SqlitePool::connect_with(options).await.expect("SQLite opens"))
            }
            None => Self::Postgres(PgPool::connect(url).await.expect("PostgreSQL answers")),
        }
    }

    pub async fn run(&self, statement: &'static str) {
        match self {
            Self::Sqlite(pool) => sqlx::query(statement).execute(pool).await.map(|_| ()),
            Self::Postgres(pool) => sqlx::query(statement).execute(pool).await.map(|_| ()),
        }
        .expect(statement);
    }

    /// Sets when the version of this number was published, of whichever dataset.
    pub async fn set_version_time(&self, number: i64, at: DateTime<Utc>) {
        let statement = "UPDATE versions SET created_at = $2 WHERE number = $1";
        match self {
            Self::Sqlite(pool) => sqlx::query(statement).bind(number).bind(at).execute(pool).await.map(|_| ()),
            Self::Postgres(pool) => sqlx::query(statement).bind(number).bind(at).execute(pool).await.map(|_| ()),
        }
        .expect(statement);
    }

    pub async fn number(&self, query: &'static str) -> i64 {
        match self {
            Self::Sqlite(pool) => sqlx::query_scalar(query).fetch_one(pool).await,
            Self::Postgres(pool) => sqlx::query_scalar(query).fetch_one(pool).await,
        }
        .expect(query)
    }
}

pub fn path(animal: &str, experiment: &str, dataset: &str) -> DatasetPath {
    DatasetPath { animal: animal.into(), experiment: experiment.into(), dataset: dataset.into() }
}

pub fn registered(path: &str) -> FilePlace {
    FilePlace::Registered { root: "lab".into(), path: path.into() }
}

pub fn managed(content: &str) -> FilePlace {
    FilePlace::Managed { content: content.into() }
}

pub fn print(modified_ns: i64) -> Fingerprint {
    Fingerprint { device: u64::MAX, inode: 1 << 63, bytes: 1 << 40, modified_ns }
}

pub fn attributes(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

/// A chunked array of u16 with this many chunks of ten rows.
pub fn chunked(chunks: u64) -> NewArray {
    let pointers = (0..chunks).map(|number| ChunkPointer { number, offset: 2048 + number * 100, bytes: 100, mask: 0 });
    let index = ChunkIndex::from_pointers(pointers.collect()).expect("pointers are distinct");
    NewArray {
        meta: meta(Space::Simple { shape: vec![chunks * 10] }, Storage::Chunked { chunk_shape: vec![10] }),
        runs: index.to_runs(),
        checksums: Vec::new(),
        inline: None,
        problem: None,
    }
}

pub fn meta(space: Space, storage: Storage) -> ArrayMeta {
    let rank = match &space {
        Space::Null => 0,
        Space::Simple { shape } => shape.len(),
    };
    ArrayMeta {
        space,
        max_shape: vec![None; rank],
        element: ElementType::Integer { bytes: 2, signed: false, order: ByteOrder::Little },
        converted: false,
        type_note: String::new(),
        storage,
        filters: Vec::new(),
        fill: None,
    }
}

/// A scalar that is kept inline.
pub fn inline(bytes: &'static [u8]) -> NewArray {
    NewArray {
        meta: meta(Space::Simple { shape: Vec::new() }, Storage::Compact),
        runs: Vec::new(),
        checksums: Vec::new(),
        inline: Some(bytes::Bytes::from_static(bytes)),
        problem: None,
    }
}

/// An empty publication of a registered file.
pub fn publication(place: FilePlace, modified_ns: i64) -> Publication {
    let source_name = match &place {
        FilePlace::Registered { path, .. } => path.rsplit('/').next().unwrap_or_default().to_owned(),
        FilePlace::Managed { .. } => "upload.h5".to_owned(),
    };
    Publication {
        place,
        fingerprint: print(modified_ns),
        source_name,
        objects: Vec::new(),
        links: Vec::new(),
        facts: ExperimentFacts::default(),
        ingest_key: None,
        replace: false,
        principal: "tester".into(),
        expected: Vec::new(),
        writer: None,
    }
}

/// Adds to a publication.
pub trait With: Sized {
    fn object(self, at: &DatasetPath, kind: ObjectKind, attributes: Value, array: Option<NewArray>) -> Self;
    fn dataset(self, at: &DatasetPath, array: NewArray) -> Self {
        self.object(at, ObjectKind::Dataset, json!({}), Some(array))
    }
    fn group(self, at: &DatasetPath, attributes: Value) -> Self {
        self.object(at, ObjectKind::Group, attributes, None)
    }
    fn link(self, at: &DatasetPath, kind: LinkKind, target: &str) -> Self;
}

impl With for Publication {
    fn object(mut self, at: &DatasetPath, kind: ObjectKind, values: Value, array: Option<NewArray>) -> Self {
        self.objects.push(NewObject {
            animal: at.animal.clone(),
            experiment: at.experiment.clone(),
            name: at.dataset.clone(),
            hdf5_path: format!("/{}", at.dataset),
            kind,
            attributes: attributes(values),
            attribute_types: Map::new(),
            dimensions: Vec::new(),
            array,
        });
        self
    }

    fn link(mut self, at: &DatasetPath, kind: LinkKind, target: &str) -> Self {
        let link = Link { path: at.dataset.clone(), kind, target: target.into() };
        self.links.push(NewLink { animal: at.animal.clone(), experiment: at.experiment.clone(), link });
        self
    }
}

/// All entries of a list, page by page.
#[macro_export]
macro_rules! all_pages {
    ($size:expr, |$page:ident| $call:expr) => {{
        let mut items = Vec::new();
        let mut token = String::new();
        loop {
            let $page = &h5flight_catalog::model::Page { size: $size, token };
            let paged = $call.await.expect("a page");
            assert!(paged.items.len() <= usize::try_from($size).unwrap().max(1));
            items.extend(paged.items);
            token = paged.next;
            if token.is_empty() {
                break items;
            }
        }
    }};
}
