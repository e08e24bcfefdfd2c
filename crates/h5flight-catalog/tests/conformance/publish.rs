//! How files come in.

use std::collections::BTreeMap;

use h5flight_array::inspect::{LinkKind, ObjectKind};
use h5flight_array::meta::{Filter, Space, Storage};
use h5flight_catalog::model::*;
use h5flight_catalog::{Catalog, ErrorKind};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use super::world::*;

/// The smallest file there is.
pub async fn publish_one(catalog: &dyn Catalog) {
    catalog.publish(&publication(registered("one.h5"), 1).dataset(&path("a", "e", "d"), chunked(3))).await.unwrap();
}

pub async fn what_was_published_is_resolved(world: &World) {
    let at = path("Ümlaut-1", "2024-05-01 x", "acquisition/séries/data");
    let odd = json!({"float": 1e16, "int": -5, "nul": "a\u{0}b", "nested": [[1.5, "NaN"], {"k": null}], "\u{1F42D}":
    true,
                     "big": u64::MAX, "tiny": 5e-324});
    let mut array = chunked(9_000);
    array.meta.filters.push(Filter { id: 1, name: "deflate".into(), params: vec![4] });
    array.meta.fill = Some(vec![1, 2]);
    let file = publication(registered("2024/rec \u{1F42D}.h5"), -7)
        .group(&path(&at.animal, &at.experiment, ""), json!({"root": 1}))
        .object(&at, ObjectKind::Dataset, odd.clone(), Some(array.clone()))
        .dataset(&path(&at.animal, &at.experiment, "small"), inline(b"\x00\xff"))
        .dataset(
            &path(&at.animal, &at.experiment, "broken"),
            NewArray { problem: Some(("unsupported_type".into(), "time".into())), ..inline(b"") },
        );
    let done = world.first.publish(&file).await.unwrap();
    assert_eq!((done.datasets, done.chunks, done.already), (3, 9_000, false));
    assert_eq!(done.experiments, [(at.animal.clone(), at.experiment.clone())]);
    assert!(done.superseded.is_empty());

    let version = world.second.resolve(&at, VersionSelector::Current).await.unwrap();
    assert_eq!((version.version, &version.path, version.extents.len()), (1, &at, 1));
    assert_eq!(serde_json::Value::Object(version.attributes.clone()), odd);
    let Extent { first_row, array_row, rows, array: stored } = &version.extents[0];
    assert_eq!((*first_row, *array_row, *rows), (0, 0, 90_000));
    assert_eq!((&stored.meta, stored.index.to_runs()), (&array.meta, array.runs));
    assert_eq!(
        (stored.hdf5_path.as_str(), &stored.inline, &stored.problem),
        ("/acquisition/séries/data", &None, &None)
    );
    let record = &stored.file;
    assert_eq!((&record.place, record.fingerprint, record.datasets), (&file.place, file.fingerprint, 3));
    assert_eq!((record.source_name.as_str(), &record.quarantined), ("rec \u{1F42D}.h5", &None));
    assert_eq!(world.first.find_file(&file.place).await.unwrap().as_ref(), Some(&**record));

    let by_id = world.second.resolve_version(version.version_id).await.unwrap();
    assert_eq!((by_id.dataset_id, by_id.created_at), (version.dataset_id, version.created_at));
    assert_eq!(by_id.extents[0].array.identity, stored.identity);
    assert_eq!(world.second.current_version(&at).await.unwrap(), (version.version_id, 1));

    let small =
        world.first.resolve(&path(&at.animal, &at.experiment, "small"), VersionSelector::Number(1)).await.unwrap();
    assert_eq!((small.extents[0].rows, small.extents[0].array.inline.as_deref()), (1, Some(b"\x00\xff".as_slice())));
    let broken =
        world.first.resolve(&path(&at.animal, &at.experiment, "broken"), VersionSelector::Current).await.unwrap();
    assert_eq!(broken.extents[0].array.problem, Some(("unsupported_type".into(), "time".into())));
    assert_ne!(small.extents[0].array.identity, broken.extents[0].array.identity);
}

pub async fn an_unchanged_file_is_published_once(world: &World) {
    let file = publication(registered("a.h5"), 1).dataset(&path("a", "e", "d"), chunked(2));
    let first = world.first.publish(&file).await.unwrap();
    let again = world.second.publish(&file).await.unwrap();
    assert_eq!(again, Published { already: true, ..first.clone() });
    assert_eq!(world.first.current_version(&path("a", "e", "d")).await.unwrap().1, 1);
    // The same bytes under one more name are another publication, and no bytes go out of use.
    let more = file.clone().dataset(&path("a", "e", "d2"), chunked(2));
    let done = world.first.publish(&more).await.unwrap();
    assert!(!done.already && done.superseded.is_empty(), "{done:?}");
    assert_eq!(world.first.current_version(&path("a", "e", "d")).await.unwrap().1, 2);
    // And the older one is another one again: it is not the newest state any more.
    assert!(!world.first.publish(&file).await.unwrap().already);
    assert_eq!(world.first.counts().await.unwrap(), Counts { animals: 1, experiments: 1, datasets: 1, files: 1 });
}

pub async fn a_changed_file_makes_new_versions_and_withdraws_what_it_lost(world: &World) {
    let (kept, lost) = (path("a", "e", "g/kept"), path("a", "e", "g/lost"));
    let before = publication(registered("a.h5"), 1).dataset(&kept, chunked(2)).dataset(&lost, chunked(2));
    world.first.publish(&before).await.unwrap();
    let old: Vec<_> = [
        world.first.resolve(&kept, VersionSelector::Current).await.unwrap(),
        world.first.resolve(&lost, VersionSelector::Current).await.unwrap(),
    ]
    .into();
    let after = publication(registered("a.h5"), 2).dataset(&kept, chunked(5));
    let done = world.first.publish(&after).await.unwrap();
    let mut superseded = done.superseded;
    superseded.sort_unstable();
    let mut expected: Vec<_> = old.iter().map(|version| version.extents[0].array.identity).collect();
    expected.sort_unstable();
    assert_eq!(superseded, expected);

    let new = world.second.resolve(&kept, VersionSelector::Current).await.unwrap();
    assert_eq!((new.version, new.extents[0].rows), (2, 50));
    assert_eq!(new.extents[0].array.file.id, done.file_id);
    assert_eq!(world.second.find_file(&before.place).await.unwrap().unwrap().id, done.file_id);
    // What was pinned stays what it was, with the file as it was.
    for (version, path) in old.iter().zip([&kept, &lost]) {
        for pinned in [
            world.second.resolve_version(version.version_id).await.unwrap(),
            world.second.resolve(path, VersionSelector::Number(1)).await.unwrap(),
        ] {
            assert_eq!((pinned.version, pinned.extents[0].rows), (1, 20));
            assert_eq!(pinned.extents[0].array.file.fingerprint, before.fingerprint);
        }
    }
    for error in [
        world.second.resolve(&lost, VersionSelector::Current).await.unwrap_err(),
        world.second.current_version(&lost).await.unwrap_err(),
    ] {
        assert!(matches!(error.kind, ErrorKind::NotFound { .. }) && error.message.contains("no longer"), "{error:?}");
    }
    let listed = crate::all_pages!(10u32, |page| world.first.list_datasets("a", "e", page));
    assert_eq!(listed.iter().map(|dataset| &dataset.path).collect::<Vec<_>>(), [&kept]);
    // It comes back as its next version.
    let back = publication(registered("a.h5"), 3).dataset(&kept, chunked(5)).dataset(&lost, chunked(1));
    world.first.publish(&back).await.unwrap();
    assert_eq!(world.first.current_version(&lost).await.unwrap().1, 2);
}

pub async fn a_file_under_another_experiment_leaves_the_old_one(world: &World) {
    let file = |experiment| publication(registered("a.h5"), 1).dataset(&path("a", experiment, "d"), chunked(1));
    world.first.publish(&file("old")).await.unwrap();
    let done = world.first.publish(&file("new")).await.unwrap();
    assert_eq!(done.experiments, [("a".into(), "new".into()), ("a".into(), "old".into())]);
    assert!(done.superseded.is_empty(), "the same bytes are still served");
    let listed = crate::all_pages!(10u32, |page| world.first.list_experiments("a", page));
    assert_eq!(listed.iter().map(|experiment| experiment.experiment.as_str()).collect::<Vec<_>>(), ["new"]);
    assert_eq!(world.first.counts().await.unwrap(), Counts { animals: 1, experiments: 1, datasets: 1, files: 1 });
}

pub async fn a_dataset_of_another_file_is_refused_or_replaced(world: &World) {
    let (shared, own) = (path("a", "e", "shared"), path("a", "e", "own"));
    let first = publication(registered("first.h5"), 1)
        .group(&path("a", "e", ""), json!({}))
        .dataset(&shared, chunked(1))
        .dataset(&own, chunked(1));
    world.first.publish(&first).await.unwrap();
    let mut second =
        publication(registered("second.h5"), 1).group(&path("a", "e", ""), json!({})).dataset(&shared, chunked(2));
    let error = world.first.publish(&second).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DatasetExists);
    assert!(error.message.contains("a/e/shared") && error.message.contains("first.h5"), "{error}");
    assert_eq!(world.first.find_file(&second.place).await.unwrap(), None, "nothing of it stays");

    second.replace = true;
    let done = world.second.publish(&second).await.unwrap();
    assert_eq!((done.datasets, done.superseded.len()), (1, 1));
    assert_eq!(world.first.resolve(&shared, VersionSelector::Current).await.unwrap().version, 2);
    assert_eq!(world.first.resolve(&own, VersionSelector::Current).await.unwrap().version, 1);
    // Unchanged, yet no longer what is served: not "already".
    assert_eq!(world.first.publish(&first).await.unwrap_err().kind, ErrorKind::DatasetExists);
    let back = Publication { replace: true, ..first };
    assert!(!world.first.publish(&back).await.unwrap().already);
    assert_eq!(world.first.resolve(&shared, VersionSelector::Current).await.unwrap().version, 3);
    assert_eq!(world.first.resolve(&own, VersionSelector::Current).await.unwrap().version, 2);
}

pub async fn uploads_succeed_each_other_by_content_and_name(world: &World) {
    let upload = |content: &str, experiment: &str, chunks| {
        publication(managed(content), 1).dataset(&path("a", experiment, "d"), chunked(chunks))
    };
    world.first.publish(&upload("c1", "e", 1)).await.unwrap();
    let again = Publication { fingerprint: print(99), ..upload("c1", "e", 1) };
    assert!(world.first.publish(&again).await.unwrap().already, "the content is what counts");
    // The same content elsewhere is served at both places, and both stay "already".
    assert!(!world.first.publish(&upload("c1", "f", 1)).await.unwrap().already);
    for experiment in ["e", "f"] {
        assert!(world.first.publish(&upload("c1", experiment, 1)).await.unwrap().already);
        assert_eq!(world.first.current_version(&path("a", experiment, "d")).await.unwrap().1, 1);
    }
    // New content under the same file name: the next version where it goes, nothing elsewhere.
    let done = world.first.publish(&upload("c2", "e", 2)).await.unwrap();
    assert_eq!(world.first.current_version(&path("a", "e", "d")).await.unwrap().1, 2);
    assert_eq!(world.first.current_version(&path("a", "f", "d")).await.unwrap().1, 1);
    assert!(done.superseded.is_empty(), "the bytes are still served from the other experiment");
    // Another file name is another source.
    let stranger = Publication { source_name: "other.h5".into(), ..upload("c3", "e", 2) };
    assert_eq!(world.first.publish(&stranger).await.unwrap_err().kind, ErrorKind::DatasetExists);
}

pub async fn an_idempotency_key_is_used_once(world: &World) {
    let upload = |content: &str, key: &str| Publication {
        ingest_key: Some(key.into()),
        ..publication(managed(content), 1).dataset(&path("a", content, "d"), chunked(1))
    };
    assert_eq!(world.first.find_ingest("k1").await.unwrap(), None);
    let done = world.first.publish(&upload("c1", "k1")).await.unwrap();
    let already = Published { already: true, ..done };
    assert_eq!(world.second.find_ingest("k1").await.unwrap(), Some(already.clone()));
    assert_eq!(world.second.publish(&upload("c1", "k1")).await.unwrap(), already);
    assert_eq!(world.second.publish(&upload("c1", "k2")).await.unwrap(), already);
    assert_eq!(world.first.find_ingest("k2").await.unwrap(), Some(already));
    assert_eq!(world.first.publish(&upload("c2", "k1")).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(world.first.find_ingest("no\0key").await.unwrap(), None);
}

pub async fn a_quarantined_file_is_read_again_after_it_is_registered_anew(world: &World) {
    let file = publication(registered("a.h5"), 1).dataset(&path("a", "e", "d"), chunked(1));
    let done = world.first.publish(&file).await.unwrap();
    world.second.quarantine(done.file_id, "malformed_file", "it \0 died").await.unwrap();
    let bad = Some(("malformed_file".to_owned(), "it \u{FFFD} died".to_owned()));
    let version = world.first.resolve(&path("a", "e", "d"), VersionSelector::Current).await.unwrap();
    assert_eq!(version.extents[0].array.file.quarantined, bad);
    assert_eq!(world.first.find_file(&file.place).await.unwrap().unwrap().quarantined, bad);
    let anew = world.first.publish(&file).await.unwrap();
    assert!(!anew.already);
    assert_eq!(world.first.find_file(&file.place).await.unwrap().unwrap().quarantined, None);
    assert_eq!(world.first.resolve(&path("a", "e", "d"), VersionSelector::Current).await.unwrap().version, 2);
    assert_eq!(world.first.quarantine(999_999, "x", "y").await.unwrap_err().kind, ErrorKind::Invalid);
}

pub async fn what_cannot_be_stored_is_refused_and_leaves_nothing(world: &World) {
    let fine = || publication(registered("a.h5"), 1).dataset(&path("a", "e", "d"), chunked(1));
    let at = |animal: &str, experiment: &str, name: &str| fine().dataset(&path(animal, experiment, name), chunked(1));
    let mut out_of_order = chunked(9_000);
    out_of_order.runs.swap(0, 1);
    let mut damaged = chunked(3);
    damaged.runs[0].packed.truncate(3);
    let mut contradiction = chunked(3);
    contradiction.meta.storage = Storage::Chunked { chunk_shape: vec![1, 2] };
    let rows =
        |shape| NewArray { meta: meta(Space::Simple { shape }, Storage::Contiguous { offset: None }), ..inline(b"") };
    let d2 = path("a", "e", "d2");
    let bad = [
        at("", "e", "x"),
        at("a", "", "x"),
        at("a", "e", ""),
        at("a", "e", "/x"),
        at("a", "e", "x//y"),
        at("a", "e", "d"),
        at("a\0", "e", "x"),
        at(&"a".repeat(256), "e", "x"),
        at("a", &"e".repeat(256), "x"),
        at("a", "e", &"x".repeat(2_049)),
        fine().dataset(&d2, out_of_order),
        fine().dataset(&d2, damaged),
        fine().dataset(&d2, contradiction),
        fine().dataset(&d2, rows(vec![1 << 63])),
        fine().object(&d2, ObjectKind::Dataset, json!({}), None),
        fine().object(&d2, ObjectKind::Group, json!({}), Some(chunked(1))),
        fine().link(&path("a", "e", ""), LinkKind::Soft, "d"),
        fine().link(&path("a", "e", "l"), LinkKind::Soft, "d").link(&path("a", "e", "l"), LinkKind::Soft, "d"),
        Publication { place: registered(""), ..fine() },
        Publication { place: registered(&"p".repeat(2_049)), ..fine() },
        Publication { fingerprint: Fingerprint { bytes: u64::MAX, ..print(1) }, ..fine() },
        Publication { ingest_key: Some(String::new()), ..fine() },
    ];
    for (at, bad) in bad.iter().enumerate() {
        let error = world.first.publish(bad).await.expect_err(&format!("case {at}"));
        assert_eq!(error.kind, ErrorKind::Invalid, "case {at}: {error:?}");
    }
    assert_eq!(world.first.counts().await.unwrap(), Counts::default());
    for query in ["SELECT count(*) FROM animals", "SELECT count(*) FROM objects", "SELECT count(*) FROM arrays"] {
        assert_eq!(world.raw.number(query).await, 0, "{query}");
    }
    // The longest that is allowed is allowed.
    let long = path(&"a".repeat(255), &"ä".repeat(127), &format!("{}/y", "x".repeat(2_046)));
    let longest = publication(registered(&"p".repeat(2_048)), 1).dataset(&long, chunked(1));
    world.first.publish(&longest).await.unwrap();
    assert_eq!(world.first.resolve(&long, VersionSelector::Current).await.unwrap().path, long);
}

pub async fn numbers_at_their_limits_come_back(world: &World) {
    let shapes = [
        Space::Null,
        Space::Simple { shape: vec![] },
        Space::Simple { shape: vec![0, 5] },
        Space::Simple { shape: vec![i64::MAX as u64] },
        Space::Simple { shape: vec![1, i64::MAX as u64] },
    ];
    let rows = [0, 1, 0, i64::MAX as u64, 1];
    let mut file = publication(registered("a.h5"), i64::MIN);
    file.fingerprint.bytes = i64::MAX as u64;
    for (at, space) in shapes.iter().enumerate() {
        let array =
            NewArray { meta: meta(space.clone(), Storage::Contiguous { offset: Some(u64::MAX) }), ..inline(b"") };
        file = file.dataset(&path("a", "e", &format!("d{at}")), array);
    }
    world.first.publish(&file).await.unwrap();
    for (at, (space, rows)) in shapes.iter().zip(rows).enumerate() {
        let version = world.first.resolve(&path("a", "e", &format!("d{at}")), VersionSelector::Current).await.unwrap();
        assert_eq!((&version.extents[0].array.meta.space, version.extents[0].rows), (space, rows));
        assert_eq!(version.extents[0].array.file.fingerprint, file.fingerprint);
    }
    for number in [0, 2, u64::MAX] {
        let error = world.first.resolve(&path("a", "e", "d0"), VersionSelector::Number(number)).await.unwrap_err();
        assert!(error.message.contains("newest is 1"), "{error}");
    }
}

pub async fn newer_facts_take_the_place_of_older_ones(world: &World) {
    let facts = |identifier: Option<&str>, species: Option<&str>| ExperimentFacts {
        identifier: identifier.map(String::from),
        species: species.map(String::from),
        start_time: Some(String::new()),
        ..ExperimentFacts::default()
    };
    for (at, facts) in
        [facts(None, None), facts(Some("id"), None), facts(Some("later"), Some("Mus musculus"))].iter().enumerate()
    {
        let file =
            publication(registered(&format!("{at}.h5")), 1).dataset(&path("a", "e", &format!("d{at}")), chunked(1));
        world.first.publish(&Publication { facts: facts.clone(), ..file }).await.unwrap();
    }
    let listed = crate::all_pages!(10u32, |page| world.first.list_experiments("a", page));
    let expected = ExperimentFacts { start_time: None, ..facts(Some("later"), Some("Mus musculus")) };
    assert_eq!((&listed[0].facts, listed[0].datasets), (&expected, 3));
    let animals = crate::all_pages!(10u32, |page| world.first.list_animals(page));
    assert_eq!(animals, [AnimalSummary { animal: "a".into(), species: "Mus musculus".into(), experiments: 1 }]);
}

/// Names of datasets below groups, with their chunks.
fn hierarchy() -> impl Strategy<Value = BTreeMap<(String, String), u64>> {
    let name = prop::collection::vec("[a-cé _%-]{1,3}", 1..4).prop_map(|parts| parts.join("/"));
    let experiment = prop::sample::select(vec!["e1", "e2"]).prop_map(String::from);
    prop::collection::btree_map((experiment, name), 0u64..50, 1..20)
}

pub async fn any_hierarchy_comes_back_as_it_was(world: &World) {
    // H5FLIGHT_TEST_SEED repeats a run.
    let given = std::env::var("H5FLIGHT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("  H5FLIGHT_TEST_SEED={seed}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat());
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    for round in 0..12 {
        let model = hierarchy().new_tree(&mut runner).unwrap().current();
        let animal = format!("animal {round}");
        let mut file = publication(registered(&format!("{round}.h5")), 1);
        for ((experiment, name), chunks) in &model {
            file = file.object(
                &path(&animal, experiment, name),
                ObjectKind::Dataset,
                json!({"of": name}),
                Some(chunked(*chunks)),
            );
        }
        world.first.publish(&file).await.unwrap();
        for experiment in ["e1", "e2"] {
            let expected: Vec<_> =
                model.iter().filter(|((e, _), _)| e == experiment).map(|((_, n), c)| (n.clone(), *c)).collect();
            if expected.is_empty() {
                assert!(world.second.list_datasets(&animal, experiment, &Page::default()).await.is_err());
                continue;
            }
            let listed = crate::all_pages!(3u32, |page| world.second.list_datasets(&animal, experiment, page));
            let listed: Vec<_> = listed.into_iter().map(|d| (d.path.dataset, d.chunks)).collect();
            assert_eq!(listed, expected, "round {round}");
            for (name, chunks) in expected {
                let at = path(&animal, experiment, &name);
                let version = world.second.resolve(&at, VersionSelector::Current).await.unwrap();
                assert_eq!(version.extents[0].array.index.pointers().len() as u64, chunks, "{model:?}");
                let described = world.second.describe(&at).await.unwrap();
                assert_eq!(
                    (described.kind, described.attributes["of"].as_str()),
                    (ObjectKind::Dataset, Some(name.as_str()))
                );
                assert_eq!(described.dataset.unwrap().stored_bytes, chunks * 100);
            }
        }
    }
}
