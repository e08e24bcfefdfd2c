//! Appends: versions that share a list of extents.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use h5flight_array::inspect::{LinkKind, ObjectKind};
use h5flight_array::meta::{ByteOrder, ElementType, Space, Storage};
use h5flight_catalog::error::{Level, VersionConflict};
use h5flight_catalog::model::*;
use h5flight_catalog::{Catalog, ErrorKind};
use serde_json::json;

use super::world::*;

pub fn at() -> DatasetPath {
    path("a", "e", "g/d")
}

/// `chunks` chunks of ten rows, as a file of this content.
pub fn more(content: &str, chunks: u64) -> Append {
    Append {
        object: object(&at(), chunked(chunks)),
        place: managed(content),
        fingerprint: print(1),
        source_name: "put".into(),
        writer: None,
        expected_version: None,
        expected_first_row: None,
        principal: "rig".into(),
    }
}

fn object(at: &DatasetPath, array: NewArray) -> NewObject {
    publication(managed("x"), 1)
        .object(at, ObjectKind::Dataset, json!({"unit": "V"}), Some(array))
        .objects
        .pop()
        .expect("one was added")
}

fn by(append: Append, writer: &str, sequence: u64) -> Append {
    Append { writer: Some(WriterSequence { writer: writer.into(), sequence }), ..append }
}

/// The contents and rows that a version is made of.
pub async fn parts(catalog: &dyn Catalog, version: VersionSelector) -> Vec<(String, u64, u64)> {
    let version = catalog.resolve(&at(), version).await.unwrap();
    let parts = version.extents.iter().map(|extent| {
        let FilePlace::Managed { content } = &extent.array.file.place else { panic!("a managed file") };
        (content.clone(), extent.array_row, extent.rows)
    });
    parts.collect()
}

fn named(all: &[(&str, u64)]) -> Vec<(String, u64, u64)> {
    all.iter().map(|(content, rows)| ((*content).to_owned(), 0, *rows)).collect()
}

pub async fn appended_rows_come_after_the_others_in_one_shared_list(world: &World) {
    for n in 1..=5u64 {
        let catalog = if n % 2 == 0 { &world.second } else { &world.first };
        let done = catalog.append(&more(&format!("c{n}"), n)).await.unwrap();
        let before = 10 * n * (n - 1) / 2;
        assert_eq!((done.version, done.first_row, done.rows, done.total_rows), (n, before, 10 * n, before + 10 * n));
        assert_eq!((done.already, done.content.as_str()), (false, format!("c{n}").as_str()));
        assert_eq!(world.first.current_version(&at()).await.unwrap(), (done.version_id, n));
    }
    let all = named(&[("c1", 10), ("c2", 20), ("c3", 30), ("c4", 40), ("c5", 50)]);
    for number in 1..=5 {
        assert_eq!(parts(&*world.second, VersionSelector::Number(number)).await, all[..number as usize]);
    }
    // An append is one row in extents, and its object is not one more thing to look at.
    assert_eq!(world.raw.number("SELECT count(*) FROM extents").await, 5);
    assert_eq!(world.raw.number("SELECT count(*) FROM objects WHERE superseded_by IS NULL").await, 2);
    let listed = crate::all_pages!(5u32, |page| world.first.list_datasets("a", "e", page));
    let [only] = listed.as_slice() else { panic!("one dataset: {listed:?}") };
    assert_eq!((only.version, only.meta.shape(), only.chunks), (5, [150].as_slice(), 15));
    let described = world.first.describe(&at()).await.unwrap();
    assert_eq!((described.attributes["unit"].as_str(), described.dataset.as_ref()), (Some("V"), Some(only)));
    assert_eq!(world.first.search("g/d", &Page::default()).await.unwrap().items, listed);
    // The history, in pages of any size, tells of each how many extents it has and who made it.
    for size in [1u32, 2, 100] {
        let history = crate::all_pages!(size, |page| world.first.list_versions(&at(), page));
        let told: Vec<_> =
            history.iter().map(|v| (v.number, v.extents, v.meta.shape()[0], v.principal.as_str())).collect();
        assert_eq!(
            told,
            [(5, 5, 150, "rig"), (4, 4, 100, "rig"), (3, 3, 60, "rig"), (2, 2, 30, "rig"), (1, 1, 10, "rig")]
        );
    }
    let third = world.first.resolve(&at(), VersionSelector::Number(3)).await.unwrap();
    let described = world.first.describe_version(third.version_id).await.unwrap().dataset.unwrap();
    assert_eq!((described.version, described.meta.shape()), (3, [60].as_slice()));
    let then = VersionSelector::AsOf(third.created_at);
    assert!(world.first.resolve(&at(), then).await.unwrap().version >= 3);
    let tag = NewTag {
        of: TagScope::Dataset(at()),
        name: "third".into(),
        version: VersionSelector::Number(3),
        move_existing: false,
        principal: String::new(),
    };
    world.first.set_tag(&tag).await.unwrap();
    assert_eq!(parts(&*world.second, VersionSelector::Tag("third".into())).await, all[..3]);
    // All files of the appends are verified and kept, and every one has its array.
    let files = crate::all_pages!(2u32, |page| world.first.list_files_of("a", "e", page));
    assert_eq!(files.len(), 5);
    for file in files {
        assert_eq!(world.first.arrays_of(file.id, 0).await.unwrap().len(), 1);
    }
    // A new publication of the dataset begins a list of its own.
    let upload = publication(managed("new"), 1).dataset(&at(), chunked(2));
    let done = world.first.publish(&Publication { replace: true, ..upload }).await.unwrap();
    assert_eq!(done.superseded.len(), 5);
    assert_eq!(parts(&*world.first, VersionSelector::Current).await, named(&[("new", 20)]));
    assert_eq!(parts(&*world.first, VersionSelector::Number(4)).await, all[..4]);
}

pub async fn an_append_makes_what_is_missing_and_only_that(world: &World) {
    let deep = path("new animal", "new", "p/q/d");
    let append = Append { object: object(&deep, chunked(1)), ..more("c1", 1) };
    world.first.append(&append).await.unwrap();
    for group in ["p", "p/q"] {
        let described = world.second.describe(&path("new animal", "new", group)).await.unwrap();
        assert_eq!((described.kind, described.children.len()), (ObjectKind::Group, 1), "{group}");
    }
    let next = Append { object: object(&path("new animal", "new", "p/q/other"), chunked(1)), ..more("c2", 1) };
    world.first.append(&next).await.unwrap();
    assert_eq!(world.raw.number("SELECT count(*) FROM objects WHERE kind = 'group'").await, 2);
    // Groups are no datasets, and datasets no groups.
    for name in ["p/q", "p/q/d/below"] {
        let append = Append { object: object(&path("new animal", "new", name), chunked(1)), ..more("c3", 1) };
        let error = world.first.append(&append).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused("put_mismatch".into()), "{name}: {error}");
    }
    // A link leads to the dataset; one out of the file is not followed.
    let links = publication(registered("links.h5"), 1)
        .link(&path("new animal", "new", "alias"), LinkKind::Soft, "p/q/d")
        .link(&path("new animal", "new", "out"), LinkKind::External, "/elsewhere");
    world.first.publish(&links).await.unwrap();
    let linked = |name: &str| Append { object: object(&path("new animal", "new", name), chunked(1)), ..more("c4", 1) };
    assert_eq!(world.first.append(&linked("alias")).await.unwrap().version, 2);
    assert_eq!(world.first.current_version(&deep).await.unwrap().1, 2);
    let error = world.first.append(&linked("out")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused("external_link_refused".into()));
    // Rows after none.
    let empty = path("a", "e", "empty");
    for (n, chunks) in [0, 3, 0, 1].into_iter().enumerate() {
        let append = Append { object: object(&empty, chunked(chunks)), ..more(&format!("e{n}"), 1) };
        world.first.append(&append).await.unwrap();
    }
    let version = world.first.resolve(&empty, VersionSelector::Current).await.unwrap();
    let rows: Vec<_> = version.extents.iter().map(|extent| (extent.first_row, extent.rows)).collect();
    assert_eq!((version.version, rows), (3, vec![(0, 30), (30, 10)]));
    let first = world.first.resolve(&empty, VersionSelector::Number(1)).await.unwrap();
    assert_eq!(first.extents.iter().map(|extent| extent.rows).collect::<Vec<_>>(), [0]);
}

pub async fn a_rollback_and_another_append_leave_every_version_as_it_was(world: &World) {
    for n in 1..=3 {
        world.first.append(&more(&format!("c{n}"), n)).await.unwrap();
    }
    let back = |version| Rollback { path: at(), version, expected: None, principal: "roller".into() };
    let done = world.first.roll_back(&back(2)).await.unwrap();
    assert_eq!((done.version, done.already, done.superseded.len()), (4, false, 1));
    assert!(world.first.roll_back(&back(2)).await.unwrap().already);
    assert_eq!(world.raw.number("SELECT count(*) FROM extents").await, 3, "a rollback copies no extents");
    let done = world.second.append(&more("c4", 4)).await.unwrap();
    assert_eq!((done.version, done.first_row, done.total_rows), (5, 30, 70));
    let other = named(&[("c1", 10), ("c2", 20), ("c4", 40)]);
    assert_eq!(parts(&*world.first, VersionSelector::Current).await, other);
    assert_eq!(parts(&*world.first, VersionSelector::Number(4)).await, other[..2]);
    assert_eq!(parts(&*world.first, VersionSelector::Number(3)).await, named(&[("c1", 10), ("c2", 20), ("c3", 30)]));
    // Both lists go on growing, each where it ends.
    world.first.append(&more("c5", 1)).await.unwrap();
    assert_eq!(world.raw.number("SELECT count(*) FROM extents").await, 3 + 4);
    world.first.roll_back(&back(3)).await.unwrap();
    world.first.append(&more("c6", 1)).await.unwrap();
    assert_eq!(world.raw.number("SELECT count(*) FROM extents").await, 3 + 4 + 1);
    let longest = named(&[("c1", 10), ("c2", 20), ("c3", 30), ("c6", 10)]);
    assert_eq!(parts(&*world.second, VersionSelector::Number(8)).await, longest);
    assert_eq!(parts(&*world.second, VersionSelector::Number(6)).await.len(), 4);
}

pub async fn a_retry_is_answered_as_it_was(world: &World) {
    let find = |sequence| {
        let catalog = world.second.clone();
        async move { catalog.find_append(&at(), "rig", sequence).await.unwrap() }
    };
    assert_eq!(find(7).await, None);
    let first = world.first.append(&by(more("c1", 1), "rig", 7)).await.unwrap();
    let second = world.first.append(&by(more("c2", 2), "rig", 9)).await.unwrap();
    world.first.append(&by(more("c3", 3), "other", 1)).await.unwrap();
    for (sequence, made) in [(7, &first), (9, &second)] {
        let known = Appended { already: true, ..made.clone() };
        assert_eq!(find(sequence).await.as_ref(), Some(&known));
        // Whatever came: the answer is that of the first time, and nothing was added.
        assert_eq!(world.second.append(&by(more("another", 5), "rig", sequence)).await.unwrap(), known);
    }
    assert_eq!(world.first.current_version(&at()).await.unwrap().1, 3);
    let error = world.first.append(&by(more("c4", 1), "rig", 8)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused("put_sequence".into()), "{error}");
    assert_eq!((find(8).await, find(u64::MAX).await), (None, None));
    // A put that is a whole publication has the same memory.
    let put = |content: &str, sequence| Publication {
        replace: true,
        writer: Some(WriterSequence { writer: "rig".into(), sequence }),
        ..publication(managed(content), 1).dataset(&at(), chunked(4))
    };
    let done = world.first.publish(&put("whole", 10)).await.unwrap();
    let made = done.put.expect("it has a writer");
    assert_eq!((made.version, made.first_row, made.rows, made.total_rows, made.already), (4, 0, 40, 40, false));
    assert_eq!(world.first.append(&by(more("c5", 1), "rig", 11)).await.unwrap().first_row, 40);
    let again = world.second.publish(&put("whole", 10)).await.unwrap();
    let known = Appended { already: true, ..made };
    assert_eq!((again.already, again.put.as_ref(), again.file_id), (true, Some(&known), done.file_id));
    assert_eq!(find(10).await, Some(known));
    // The same content as a new put is a new version: what was appended is not part of it.
    let anew = world.first.publish(&put("whole", 12)).await.unwrap();
    assert_eq!((anew.already, anew.put.map(|put| (put.version, put.total_rows))), (false, Some((6, 40))));
    let error = world.first.publish(&put("late", 3)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused("put_sequence".into()), "{error}");
    for (writer, sequence) in [("", 1), ("w\0", 1), ("w", u64::MAX)] {
        let error = world.first.append(&by(more("x", 1), writer, sequence)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{writer:?} {sequence}");
    }
    let two = put("two", 20).dataset(&path("a", "e", "second"), chunked(1));
    assert_eq!(world.first.publish(&two).await.unwrap_err().kind, ErrorKind::Invalid);
}

pub async fn what_does_not_fit_is_refused_and_leaves_nothing(world: &World) {
    world.first.append(&more("c1", 1)).await.unwrap();
    let with = |change: &dyn Fn(&mut NewArray)| {
        let mut append = more("other", 1);
        change(append.object.array.as_mut().expect("it has one"));
        append
    };
    let space = |shape: &[u64]| Space::Simple { shape: shape.to_vec() };
    let counts = ["SELECT count(*) FROM files", "SELECT count(*) FROM versions", "SELECT count(*) FROM arrays"];
    let refused = [
        with(&|array| array.meta.element = ElementType::Integer { bytes: 2, signed: true, order: ByteOrder::Little }),
        with(&|array| array.meta.element = ElementType::Integer { bytes: 2, signed: false, order: ByteOrder::Big }),
        with(&|array| *array = NewArray { meta: meta(space(&[10, 1]), Storage::Compact), ..inline(b"") }),
        with(&|array| *array = inline(b"\x00\x00")),
        with(&|array| *array = NewArray { meta: meta(Space::Null, Storage::Compact), ..inline(b"") }),
    ];
    for append in &refused {
        let error = world.first.append(append).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused("put_mismatch".into()), "{error}");
    }
    let conflict = ErrorKind::VersionConflict(VersionConflict { dataset: at().to_string(), expected: 0, current: 1 });
    let based = Append { expected_version: Some(0), ..more("c2", 1) };
    assert_eq!(world.first.append(&based).await.unwrap_err().kind, conflict);
    let placed = Append { expected_first_row: Some(20), ..more("c2", 1) };
    let error = world.first.append(&placed).await.unwrap_err();
    assert!(error.kind == ErrorKind::Conflict && error.message.contains("has 10 rows"), "{error:?}");
    let foreign = Append { place: registered("x.h5"), ..more("c2", 1) };
    assert_eq!(world.first.append(&foreign).await.unwrap_err().kind, ErrorKind::Invalid);
    let huge = NewArray { meta: meta(space(&[i64::MAX as u64]), Storage::Contiguous { offset: None }), ..inline(b"") };
    let huge = Append { object: object(&at(), NewArray { inline: None, ..huge }), ..more("huge", 1) };
    assert_eq!(world.first.append(&huge).await.unwrap_err().kind, ErrorKind::Invalid);
    for count in counts {
        assert_eq!(world.raw.number(count).await, 1, "{count}");
    }
    let fits = Append { expected_version: Some(1), expected_first_row: Some(10), ..more("c2", 1) };
    assert_eq!(world.first.append(&fits).await.unwrap().version, 2);
    // Only a dataset with values of its own that can be read has more rows.
    let broken = NewArray { problem: Some(("unsupported_type".into(), "time".into())), ..chunked(1) };
    let virtual_ = NewArray { meta: meta(space(&[10]), Storage::Virtual { mappings: Vec::new() }), ..inline(b"") };
    let virtual_ = NewArray { inline: None, ..virtual_ };
    for (name, array) in [("broken", broken), ("virtual", virtual_), ("scalar", inline(b"\x00\x00"))] {
        let dataset = path("a", "e", name);
        world.first.publish(&publication(registered(name), 1).dataset(&dataset, array)).await.unwrap();
        let append = Append { object: object(&dataset, chunked(1)), ..more("c3", 1) };
        let error = world.first.append(&append).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused("put_mismatch".into()), "{name}: {error}");
    }
}

pub async fn what_a_registered_file_serves_is_appended_to(world: &World) {
    let file = |n: i64, chunks| publication(registered("a.h5"), n).dataset(&at(), chunked(chunks));
    world.first.publish(&file(1, 3)).await.unwrap();
    let done = world.first.append(&more("c1", 1)).await.unwrap();
    assert_eq!((done.version, done.first_row, done.total_rows), (2, 30, 40));
    let places = |version: ResolvedVersion| version.extents.into_iter().map(|x| x.array.file.place.clone());
    let now: Vec<_> = places(world.second.resolve(&at(), VersionSelector::Current).await.unwrap()).collect();
    assert_eq!(now, [registered("a.h5"), managed("c1")]);
    // Seen again unchanged, the file takes nothing away; changed, it begins anew, and the history stays.
    assert!(world.first.publish(&file(1, 3)).await.unwrap().already);
    assert_eq!(world.first.current_version(&at()).await.unwrap().1, 2);
    assert_eq!(world.first.publish(&file(2, 5)).await.unwrap().superseded.len(), 2);
    let now = world.first.resolve(&at(), VersionSelector::Current).await.unwrap();
    assert_eq!((now.version, now.extents.len(), now.extents[0].rows), (3, 1, 50));
    assert_eq!(world.first.resolve(&at(), VersionSelector::Number(2)).await.unwrap().extents.len(), 2);
    // What is no longer in its file begins anew as well, behind its history.
    world.first.append(&more("c2", 1)).await.unwrap();
    world
        .first
        .publish(&publication(registered("a.h5"), 3).dataset(&path("a", "e", "kept"), chunked(1)))
        .await
        .unwrap();
    let error = world.first.resolve(&at(), VersionSelector::Current).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound { level: Level::Dataset, .. }), "{error:?}");
    let done = world.first.append(&more("c3", 2)).await.unwrap();
    assert_eq!((done.version, done.first_row, done.total_rows), (5, 0, 20));
    assert_eq!(parts(&*world.second, VersionSelector::Current).await, named(&[("c3", 20)]));
}

pub async fn writers_at_once_leave_no_gap(world: &World) {
    let mut tasks = Vec::new();
    for writer in 0..6u64 {
        let catalog = if writer % 2 == 0 { world.first.clone() } else { world.second.clone() };
        tasks.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for sequence in 0..10 {
                let append = by(more(&format!("w{writer} {sequence}"), 1), &format!("w{writer}"), sequence);
                let done = loop {
                    match catalog.append(&append).await {
                        Ok(done) => break done,
                        Err(error) => assert_eq!(error.kind, ErrorKind::Conflict, "{error:?}"),
                    }
                };
                made.push(done);
            }
            made
        }));
    }
    let mut made = Vec::new();
    for task in tasks {
        made.extend(task.await.unwrap());
    }
    made.sort_by_key(|done| done.version);
    for (n, done) in made.iter().enumerate() {
        assert_eq!((done.version, done.first_row), (n as u64 + 1, n as u64 * 10));
    }
    let order: Vec<_> = made.iter().map(|done| (done.content.clone(), 0, 10)).collect();
    assert_eq!(parts(&*world.first, VersionSelector::Current).await, order);
    let objects = "SELECT count(*) FROM objects WHERE superseded_by IS NULL AND kind = 'dataset'";
    assert_eq!((made.len(), world.raw.number(objects).await), (60, 1));
}

/// Against a list of versions that knows nothing of shared lists.
pub async fn any_sequence_of_changes_leaves_every_version_readable(world: &World) {
    // H5FLIGHT_TEST_SEED repeats a run.
    let given = std::env::var("H5FLIGHT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut state: u64 = given.unwrap_or_else(rand::random);
    println!("  H5FLIGHT_TEST_SEED={state}");
    // splitmix64
    let mut draw = move |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    let mut versions: HashMap<u64, Vec<(String, u64, u64)>> = HashMap::new();
    let mut origins = Origins::new();
    let mut newest = 0u64;
    for step in 0..90u64 {
        let before = versions.get(&newest).cloned().unwrap_or_default();
        let content = format!("s{step}");
        let next = match draw(11) {
            8.. => {
                compact(&*world.second, &content, &mut draw, &mut origins).await;
                continue;
            }
            0 if newest > 0 => {
                let version = 1 + draw(newest);
                let rollback = Rollback { path: at(), version, expected: Some(newest), principal: String::new() };
                let done = world.first.roll_back(&rollback).await.unwrap();
                assert_eq!(done.already, versions[&version] == before, "step {step}");
                if done.already {
                    continue;
                }
                versions[&version].clone()
            }
            1 => {
                let chunks = 1 + draw(3);
                let upload = publication(managed(&content), 1).dataset(&at(), chunked(chunks));
                world.first.publish(&Publication { replace: true, ..upload }).await.unwrap();
                vec![(content, 0, chunks * 10)]
            }
            _ => {
                let chunks = 1 + draw(3);
                world.second.append(&more(&content, chunks)).await.unwrap();
                before.into_iter().chain([(content, 0, chunks * 10)]).collect()
            }
        };
        newest += 1;
        versions.insert(newest, next);
    }
    let check = async || {
        for (number, expected) in &versions {
            let made_of = parts(&*world.second, VersionSelector::Number(*number)).await;
            assert_eq!(&expanded(&made_of, &origins), expected, "version {number}");
        }
    };
    check().await;
    let history = crate::all_pages!(7u32, |page| world.first.list_versions(&at(), page));
    for version in history {
        let made_of = parts(&*world.first, VersionSelector::Number(version.number)).await;
        assert_eq!(version.extents, made_of.len() as u64, "version {}", version.number);
    }
    let unused = "SELECT count(*) FROM files WHERE unused_since IS NOT NULL";
    let marked = world.raw.number(unused).await;
    let files = world.raw.number("SELECT count(*) FROM files").await;
    assert!(world.first.drop_unused(chrono::Utc::now() - chrono::Duration::hours(1)).await.unwrap().is_empty());
    let dropped = world.first.drop_unused(chrono::Utc::now() + chrono::Duration::hours(1)).await.unwrap();
    // What a list names again, after a rollback, stays.
    assert!(dropped.len() as i64 <= marked);
    assert_eq!(world.raw.number("SELECT count(*) FROM files").await, files - dropped.len() as i64);
    check().await;
}

/// What compacted files are made of.
type Origins = HashMap<String, Vec<(String, u64, u64)>>;

/// Puts a file in the place of some neighbours.
async fn compact(catalog: &dyn Catalog, content: &str, draw: &mut impl FnMut(u64) -> u64, origins: &mut Origins) {
    let lists = catalog.long_lists(2, 0).await.unwrap();
    let Some(list) = lists.into_iter().find(|list| !list.extents.is_empty()) else { return };
    let runs: Vec<_> = list.extents.chunk_by(|a, b| a.first_row + a.rows == b.first_row).collect();
    let run = runs[draw(runs.len() as u64) as usize];
    let first = draw(run.len() as u64) as usize;
    let end = first + 1 + draw((run.len() - first) as u64) as usize;
    let replaced = run[first..end].to_vec();
    let chunks = replaced.iter().map(|extent| extent.rows).sum::<u64>() / 10;
    let rows = replaced[0].first_row..replaced[0].first_row + chunks * 10;
    let before = catalog.resolve_version(list.version_id).await.unwrap();
    let within = before.extents.iter().filter(|extent| rows.contains(&extent.first_row));
    let made_of = within.map(|extent| {
        let FilePlace::Managed { content } = &extent.array.file.place else { panic!("a managed file") };
        (content.clone(), extent.array_row, extent.rows)
    });
    origins.insert(content.to_owned(), expanded(&made_of.collect::<Vec<_>>(), origins));
    let compaction = Compaction {
        list: list.list,
        replaced,
        object: object(&at(), chunked(chunks)),
        place: managed(content),
        fingerprint: print(1),
        source_name: "compacted".into(),
    };
    let wrong = Compaction { object: object(&at(), chunked(chunks + 1)), ..compaction.clone() };
    assert_eq!(catalog.compact(&wrong).await.unwrap_err().kind, ErrorKind::Invalid);
    catalog.compact(&compaction).await.unwrap();
    let again = Compaction { place: managed("again"), ..compaction };
    assert_eq!(catalog.compact(&again).await.unwrap_err().kind, ErrorKind::Conflict);
}

/// Parts with what compacted ones are made of in their place.
fn expanded(parts: &[(String, u64, u64)], origins: &Origins) -> Vec<(String, u64, u64)> {
    let mut found = Vec::new();
    for (content, array_row, rows) in parts {
        let Some(origin) = origins.get(content) else {
            found.push((content.clone(), *array_row, *rows));
            continue;
        };
        assert_eq!(*array_row, 0);
        let mut left = *rows;
        for (content, array_row, rows) in origin {
            let taken = left.min(*rows);
            if taken > 0 {
                found.push((content.clone(), *array_row, taken));
            }
            left -= taken;
        }
    }
    found
}

/// Prints what an append and the read after it cost; the bounds catch what grows with what is there.
pub async fn measure(world: &World) {
    let backend = world.first.backend();
    let mut hundreds = Vec::new();
    for hundred in 0..10 {
        let begun = Instant::now();
        for n in 0..100 {
            world.first.append(&by(more(&format!("c{hundred} {n}"), 1), "rig", hundred * 100 + n)).await.unwrap();
        }
        hundreds.push(begun.elapsed() / 100);
    }
    println!("{backend}: append, first and last of 10 hundreds: {:?}, {:?}", hundreds[0], hundreds[9]);
    assert!(hundreds[9] < hundreds[0] * 4 + Duration::from_millis(20), "appends slow down: {hundreds:?}");
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(world.second.resolve(&at(), VersionSelector::Current).await.unwrap().extents.len(), 1_000);
    }
    println!("{backend}: resolve a version of 1,000 extents: {:?}", begun.elapsed() / 10);
    let begun = Instant::now();
    world.second.list_versions(&at(), &Page { size: 1_000, ..Page::default() }).await.unwrap();
    println!("{backend}: a page of 1,000 versions of it: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5));
}
