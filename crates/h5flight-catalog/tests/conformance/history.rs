//! What a dataset was: versions by number, time and tag, and older ones that come back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use h5flight_catalog::error::{Level, VersionConflict};
use h5flight_catalog::model::*;
use h5flight_catalog::{Catalog, ErrorKind};
use serde_json::json;

use super::world::*;

/// An upload of `chunks` chunks under the name "a/e/g/d", whose attributes say the same number.
fn upload(content: &str, chunks: u64) -> Publication {
    let kind = h5flight_array::inspect::ObjectKind::Dataset;
    publication(managed(content), 1).group(&path("a", "e", "g"), json!({})).object(
        &at(),
        kind,
        json!({"chunks": chunks}),
        Some(chunked(chunks)),
    )
}

fn at() -> DatasetPath {
    path("a", "e", "g/d")
}

async fn number(catalog: &dyn Catalog, selector: VersionSelector) -> u64 {
    let (id, number) = catalog.find_version(&at(), &selector).await.unwrap();
    let resolved = catalog.resolve(&at(), selector).await.unwrap();
    assert_eq!((resolved.version_id, resolved.version), (id, number));
    number
}

async fn history(catalog: &dyn Catalog) -> Vec<VersionSummary> {
    crate::all_pages!(2u32, |page| catalog.list_versions(&at(), page))
}

fn is_missing_version(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound { level: Level::Version, .. })
}

fn rollback(version: u64, expected: Option<u64>) -> Rollback {
    Rollback { path: at(), version, expected, principal: "roller".into() }
}

fn tag(of: TagScope, name: &str, version: VersionSelector) -> NewTag {
    NewTag { of, name: name.into(), version, move_existing: false, principal: "tagger".into() }
}

fn one() -> TagScope {
    TagScope::Dataset(at())
}

fn all() -> TagScope {
    TagScope::Experiment { animal: "a".into(), experiment: "e".into() }
}

pub async fn a_time_means_the_version_that_was_current_then(world: &World) {
    for chunks in 1..=5 {
        world.first.publish(&upload(&format!("c{chunks}"), chunks)).await.unwrap();
    }
    let times: Vec<DateTime<Utc>> = history(&*world.second).await.iter().map(|version| version.created_at).collect();
    let early = Duration::from_micros(1);
    for (times_at, time) in times.iter().enumerate() {
        let expected = 5 - times_at as u64;
        assert_eq!(number(&*world.second, VersionSelector::AsOf(*time)).await, expected);
        // A fraction of a microsecond more is the same microsecond.
        assert_eq!(number(&*world.second, VersionSelector::AsOf(*time + Duration::from_nanos(999))).await, expected);
        if expected > 1 {
            assert_eq!(number(&*world.first, VersionSelector::AsOf(*time - early)).await, expected - 1);
        }
    }
    let before = world.first.resolve(&at(), VersionSelector::AsOf(times[4] - early)).await.unwrap_err();
    assert!(is_missing_version(&before.kind), "{before:?}");
    let first = times[4].to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    assert!(before.message.contains(&first), "{before} has no {first}");
    for extreme in [DateTime::<Utc>::MIN_UTC, DateTime::UNIX_EPOCH] {
        let error = world.first.find_version(&at(), &VersionSelector::AsOf(extreme)).await.unwrap_err();
        assert!(is_missing_version(&error.kind), "{error:?}");
    }
    assert_eq!(number(&*world.first, VersionSelector::AsOf(DateTime::<Utc>::MAX_UTC)).await, 5);
}

/// SQLite compares times as texts: with and without fractions they must ascend.
pub async fn times_with_and_without_fractions_are_compared_as_times(world: &World) {
    for chunks in 1..=4 {
        world.first.publish(&upload(&format!("c{chunks}"), chunks)).await.unwrap();
    }
    let second = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let times = [0, 500_000, 500_001, 1_000_000].map(|micros| second + Duration::from_micros(micros));
    for (at, time) in times.iter().enumerate() {
        world.raw.set_version_time(at as i64 + 1, *time).await;
    }
    for (at, time) in times.iter().enumerate() {
        assert_eq!(number(&*world.first, VersionSelector::AsOf(*time)).await, at as u64 + 1, "{time}");
    }
    assert_eq!(number(&*world.first, VersionSelector::AsOf(second + Duration::from_millis(999))).await, 3);
    // A clock that runs behind does not turn the history around.
    world.raw.set_version_time(4, Utc::now() + Duration::from_secs(3_600)).await;
    world.first.publish(&upload("c5", 5)).await.unwrap();
    world.first.roll_back(&rollback(2, None)).await.unwrap();
    let found = history(&*world.first).await;
    assert!(found[0].created_at >= found[1].created_at && found[1].created_at >= found[2].created_at, "{found:?}");
}

pub async fn a_history_is_listed_newest_first_with_who_and_what(world: &World) {
    world.first.publish(&upload("c1", 1)).await.unwrap();
    let second =
        Publication { source_name: "other.h5".into(), replace: true, principal: "x".into(), ..upload("c2", 2) };
    world.first.publish(&second).await.unwrap();
    world.second.roll_back(&rollback(1, Some(2))).await.unwrap();
    world.first.set_tag(&tag(one(), "b", VersionSelector::Current)).await.unwrap();
    world.first.set_tag(&tag(one(), "a", VersionSelector::Number(3))).await.unwrap();
    let found = history(&*world.second).await;
    let told: Vec<_> = found
        .iter()
        .map(|v| {
            (v.number, v.principal.as_str(), v.source_name.as_str(), v.meta.shape()[0], v.restored, v.tags.join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            (3, "roller", "upload.h5", 10, Some(1), "a b".to_owned()),
            (2, "x", "other.h5", 20, None, String::new()),
            (1, "tester", "upload.h5", 10, None, String::new()),
        ]
    );
    assert!(found.iter().all(|version| version.managed && version.extents == 1 && version.problem.is_none()));
    let error = world.first.list_versions(&path("a", "e", "none"), &Page::default()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound { level: Level::Dataset, .. }), "{error:?}");
    let bad = Page { size: 1, token: "00".into() };
    assert_eq!(world.first.list_versions(&at(), &bad).await.unwrap_err().kind, ErrorKind::Invalid);
}

pub async fn a_rollback_is_a_new_version_with_the_old_extents(world: &World) {
    for chunks in 1..=2 {
        world.first.publish(&upload(&format!("c{chunks}"), chunks)).await.unwrap();
    }
    let old = world.first.resolve(&at(), VersionSelector::Number(1)).await.unwrap();
    let second = world.first.resolve(&at(), VersionSelector::Number(2)).await.unwrap();
    let done = world.first.roll_back(&rollback(1, None)).await.unwrap();
    assert_eq!((done.version, done.before, done.already, &done.path), (3, 2, false, &at()));
    assert_eq!(done.superseded, [second.extents[0].array.identity]);
    let now = world.second.resolve(&at(), VersionSelector::Current).await.unwrap();
    assert_eq!((now.version, now.extents[0].array.id), (3, old.extents[0].array.id));
    assert_eq!(now.attributes, old.attributes);
    let described = world.second.describe(&at()).await.unwrap();
    assert_eq!((described.attributes["chunks"].as_u64(), described.dataset.unwrap().version), (Some(1), 3));
    assert_eq!(world.second.resolve(&at(), VersionSelector::Number(2)).await.unwrap().version_id, second.version_id);
    // An old version is described as it was.
    let described = world.second.describe_version(second.version_id).await.unwrap();
    assert_eq!((&described.path, described.attributes["chunks"].as_u64()), (&at(), Some(2)));
    let summary = described.dataset.expect("it is a dataset");
    assert_eq!((summary.version, summary.meta.shape(), summary.chunks), (2, [20].as_slice(), 2));
    assert!(is_missing_version(&world.second.describe_version(9_999).await.unwrap_err().kind));
    // It is what it was already; and from there any version, also the one before.
    for same in [1, 3] {
        let again = world.first.roll_back(&rollback(same, Some(3))).await.unwrap();
        assert_eq!((again.version, again.already), (3, true));
    }
    assert_eq!(world.first.roll_back(&rollback(2, Some(3))).await.unwrap().version, 4);
    // The content that is served again is "already" there, the other one is not.
    assert!(world.first.publish(&upload("c2", 2)).await.unwrap().already);
    assert!(!world.first.publish(&upload("c1", 1)).await.unwrap().already);
    assert_eq!(number(&*world.first, VersionSelector::Current).await, 5);
    for missing in [0, 6, u64::MAX] {
        let error = world.first.roll_back(&rollback(missing, None)).await.unwrap_err();
        assert!(is_missing_version(&error.kind) && error.message.contains("newest is 5"), "{error:?}");
    }
}

pub async fn a_dataset_that_its_file_lost_comes_back_by_a_rollback(world: &World) {
    let file = |n: i64| publication(registered("a.h5"), n).dataset(&path("a", "e", "kept"), chunked(1));
    let whole = file(1).group(&path("a", "e", "g"), json!({})).dataset(&at(), chunked(3));
    world.first.publish(&whole).await.unwrap();
    world.first.publish(&file(2)).await.unwrap();
    assert!(world.first.current_version(&at()).await.is_err());
    assert_eq!(history(&*world.first).await.len(), 1, "its history is still told");
    let done = world.first.roll_back(&rollback(1, Some(1))).await.unwrap();
    assert_eq!((done.version, done.already), (2, false));
    assert_eq!(number(&*world.second, VersionSelector::Current).await, 2);
    let members = world.second.describe(&path("a", "e", "")).await.unwrap().children;
    assert_eq!(members.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["g", "kept"]);
    // The next state of the file takes it out again.
    world.first.publish(&file(3)).await.unwrap();
    assert!(world.second.current_version(&at()).await.is_err());
}

pub async fn tags_stay_until_they_are_moved(world: &World) {
    let other = path("a", "e", "other");
    world.first.publish(&upload("c1", 1).dataset(&other, chunked(7))).await.unwrap();
    let first = world.first.resolve(&at(), VersionSelector::Current).await.unwrap();
    let set = |of, name: &str, version| {
        let new = tag(of, name, version);
        async move { world.first.set_tag(&new).await }
    };
    assert_eq!(set(all(), "paper-2026", VersionSelector::Current).await.unwrap(), Tagged { datasets: 2, changed: 2 });
    world.first.publish(&upload("c2", 2).dataset(&other, chunked(7))).await.unwrap();
    let paper = || VersionSelector::Tag("paper-2026".into());
    assert_eq!(number(&*world.second, paper()).await, 1);
    // The same again is no change, anything else is a refusal, and nothing is moved by halves.
    assert_eq!(set(one(), "paper-2026", VersionSelector::Number(1)).await.unwrap(), Tagged { datasets: 1, changed: 0 });
    for of in [one(), all()] {
        let error = set(of, "paper-2026", VersionSelector::Current).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TagExists);
        assert!(error.message.contains("paper-2026") && error.message.contains("version 1"), "{error}");
    }
    let then = VersionSelector::AsOf(first.created_at);
    assert_eq!(set(all(), "paper-2026", then).await.unwrap(), Tagged { datasets: 2, changed: 0 });
    let moved = NewTag { move_existing: true, ..tag(one(), "paper-2026", VersionSelector::Current) };
    assert_eq!(world.first.set_tag(&moved).await.unwrap(), Tagged { datasets: 1, changed: 1 });
    assert_eq!(number(&*world.second, paper()).await, 2);
    assert_eq!(world.second.find_version(&other, &paper()).await.unwrap().1, 1);
    // Names that are none, versions that are none.
    for bad in ["", "2026", "a b", "a\0"] {
        assert_eq!(set(one(), bad, VersionSelector::Current).await.unwrap_err().kind, ErrorKind::Invalid, "{bad:?}");
    }
    assert_eq!(set(all(), "x", VersionSelector::Number(1)).await.unwrap_err().kind, ErrorKind::Invalid);
    let early = VersionSelector::AsOf(DateTime::UNIX_EPOCH);
    assert!(is_missing_version(&set(all(), "x", early).await.unwrap_err().kind));
    assert!(is_missing_version(&set(one(), "x", VersionSelector::Number(9)).await.unwrap_err().kind));
    let alike = world.first.resolve(&at(), VersionSelector::Tag("paper-2025".into())).await.unwrap_err();
    assert!(is_missing_version(&alike.kind) && alike.message.contains("did you mean \"paper-2026\""), "{alike:?}");
    // Removed from one, then from what is left; then there is none.
    assert_eq!(world.second.delete_tag(&one(), "paper-2026").await.unwrap(), Tagged { datasets: 1, changed: 1 });
    assert_eq!(world.second.delete_tag(&all(), "paper-2026").await.unwrap(), Tagged { datasets: 1, changed: 1 });
    assert!(is_missing_version(&world.second.delete_tag(&all(), "paper-2026").await.unwrap_err().kind));
    assert!(is_missing_version(&world.second.resolve(&at(), paper()).await.unwrap_err().kind));
}

pub async fn of_two_publications_based_on_the_same_version_one_wins(world: &World) {
    let based = |content: &str, chunks, version| Publication {
        expected: vec![ExpectedVersion { path: at(), version }],
        ..upload(content, chunks)
    };
    world.first.publish(&based("c1", 1, 0)).await.unwrap();
    for round in 1..=6u64 {
        let rivals = [(&world.first, "one"), (&world.second, "two")].map(|(catalog, name)| {
            let (catalog, file) = (catalog.clone(), based(&format!("{name}{round}"), round + 1, round));
            tokio::spawn(async move { catalog.publish(&file).await })
        });
        let [one, two] = rivals;
        let mut outcomes = [one.await.unwrap(), two.await.unwrap()];
        outcomes.sort_by_key(|outcome| outcome.is_err());
        let [won, lost] = outcomes;
        assert_eq!(won.expect("one wins").datasets, 1);
        let lost = lost.expect_err("one loses");
        let facts = VersionConflict { dataset: at().to_string(), expected: round, current: round + 1 };
        assert_eq!(lost.kind, ErrorKind::VersionConflict(facts), "{lost:?}");
        assert!(lost.message.contains(&format!("version {}", round + 1)), "{lost}");
        // Nothing of the loser is there.
        let (versions, files) = ("SELECT count(*) FROM versions", "SELECT count(*) FROM files");
        assert_eq!(
            (world.raw.number(versions).await, world.raw.number(files).await),
            (round as i64 + 1, round as i64 + 1)
        );
    }
    // A publication and a rollback, the same way.
    let rolled = tokio::spawn({
        let catalog = world.second.clone();
        async move { catalog.roll_back(&rollback(1, Some(7))).await.map(|done| done.version) }
    });
    let published = world.first.publish(&based("last", 9, 7)).await.map(|_| 8);
    let outcomes = [rolled.await.unwrap(), published];
    let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert_eq!(lost.map(|error| matches!(error.kind, ErrorKind::VersionConflict(_))).collect::<Vec<_>>(), [true]);
    assert_eq!(number(&*world.first, VersionSelector::Current).await, 8);
    // What was expected of a dataset elsewhere is not locked, and refused.
    let elsewhere = ExpectedVersion { path: path("a", "other", "d"), version: 1 };
    let error = world.first.publish(&Publication { expected: vec![elsewhere], ..upload("x", 1) }).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
}
