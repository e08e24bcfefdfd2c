//! Several servers at once, and how fast one is.

use std::time::{Duration, Instant};

use h5flight_array::inspect::LinkKind;
use h5flight_catalog::ErrorKind;
use h5flight_catalog::model::*;
use serde_json::json;

use super::world::*;

pub async fn one_dataset_published_at_once_has_one_history(world: &World) {
    let at = path("a", "e", "d");
    for round in 0..5i64 {
        // Four states of one file, and a stranger that must never get between them.
        let mut tasks = Vec::new();
        for task in 0..4i64 {
            let file = publication(registered("a.h5"), round * 10 + task).dataset(&at, chunked(task as u64 + 1));
            let catalog = if task % 2 == 0 { world.first.clone() } else { world.second.clone() };
            tasks.push(tokio::spawn(async move { catalog.publish(&file).await.map(|done| done.datasets) }));
        }
        if round > 0 {
            let stranger = publication(registered("stranger.h5"), round).dataset(&at, chunked(9));
            let error = world.second.publish(&stranger).await.unwrap_err();
            assert!(matches!(error.kind, ErrorKind::DatasetExists | ErrorKind::Conflict), "{error:?}");
        }
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(datasets) => won += datasets,
                Err(error) => assert_eq!(error.kind, ErrorKind::Conflict, "{error:?}"),
            }
        }
        assert!(won >= 1);
        let current = world.first.resolve(&at, VersionSelector::Current).await.unwrap();
        for number in 1..=current.version {
            let version = world.second.resolve(&at, VersionSelector::Number(number)).await.unwrap();
            assert_eq!(version.extents[0].array.index.pointers().len() as u64 * 10, version.extents[0].rows);
        }
    }
}

pub async fn many_files_of_one_experiment_are_published_at_once(world: &World) {
    let mut tasks = Vec::new();
    for task in 0..16 {
        let (own, both) = (format!("animal {}", task % 3), path("shared", "e", &format!("d{task}")));
        let file = publication(registered(&format!("{task}.h5")), 1)
            .group(&path("shared", "e", ""), json!({}))
            .dataset(&both, chunked(2))
            .dataset(&path(&own, "e", &format!("d{task}")), chunked(2));
        let facts = ExperimentFacts { species: Some(format!("species {task}")), ..ExperimentFacts::default() };
        let file = Publication { facts, ..file };
        let catalog = if task % 2 == 0 { world.first.clone() } else { world.second.clone() };
        tasks.push(tokio::spawn(async move { catalog.publish(&file).await }));
    }
    for task in tasks {
        let done = task.await.unwrap().unwrap();
        assert_eq!((done.datasets, done.already, done.experiments.len()), (2, false, 2));
    }
    assert_eq!(world.first.counts().await.unwrap(), Counts { animals: 4, experiments: 4, datasets: 32, files: 16 });
}

pub async fn a_dropped_publication_is_whole_or_absent(world: &World) {
    for round in 0..12u64 {
        let at = |n: usize| path("a", &format!("e{round}"), &format!("d{n}"));
        let mut file = publication(registered(&format!("{round}.h5")), 1);
        for n in 0..300 {
            file = file.dataset(&at(n), chunked(2));
        }
        let given = Duration::from_millis(2 + 7 * round);
        let outcome = tokio::time::timeout(given, world.first.publish(&file)).await;
        let listed =
            match world.second.list_datasets("a", &format!("e{round}"), &Page { size: 1_000, ..Page::default() }).await
            {
                Ok(page) => page.items.len(),
                Err(error) => {
                    assert!(matches!(error.kind, ErrorKind::NotFound { .. }), "{error:?}");
                    0
                }
            };
        match outcome {
            Ok(done) => assert_eq!((done.unwrap().datasets, listed), (300, 300)),
            Err(_) => assert!(listed == 0 || listed == 300, "{listed} of 300 after {given:?}"),
        }
        // And nothing is left in the way of the next try.
        assert_eq!(world.first.publish(&file).await.unwrap().datasets, 300);
    }
}

pub async fn many_readers_and_a_writer_see_whole_versions(world: &World) {
    let at = path("a", "e", "d");
    let file = |n: i64| publication(registered("a.h5"), n).dataset(&at, chunked(n as u64 * 5_000));
    world.first.publish(&file(1)).await.unwrap();
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (catalog, at) = (world.second.clone(), at.clone());
            tokio::spawn(async move {
                for _ in 0..15 {
                    let version = catalog.resolve(&at, VersionSelector::Current).await.unwrap();
                    let array = &version.extents[0].array;
                    assert_eq!(array.index.pointers().len() as u64, version.version * 5_000);
                    assert_eq!(array.file.fingerprint.modified_ns, version.version as i64);
                }
            })
        })
        .collect();
    for n in 2..=8 {
        world.first.publish(&file(n)).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Prints what publishing and resolving cost. The bounds are far above what they should be: they catch a missing index.
pub async fn measure(world: &World) {
    let backend = world.first.backend();
    for (datasets, most) in [(2_000usize, 30u64), (20_000, 90)] {
        let mut file = publication(registered(&format!("{datasets}.h5")), 1);
        for n in 0..datasets {
            let at = path("a", &format!("e{datasets}"), &format!("group{}/dataset{n}", n % 100));
            let attributes =
                json!({"unit": "volts", "description": "what this dataset is about, in a sentence", "n": n});
            file = file.object(&at, h5flight_array::inspect::ObjectKind::Dataset, attributes, Some(chunked(3)));
            if n % 10 == 7 {
                file = file.link(&path("a", &format!("e{datasets}"), &format!("link{n}")), LinkKind::Hard, &at.dataset);
            }
        }
        for again in ["first", "unchanged"] {
            let begun = Instant::now();
            world.first.publish(&file).await.unwrap();
            println!("{backend}: publish {datasets} datasets, {again}: {:?}", begun.elapsed());
            assert!(begun.elapsed() < Duration::from_secs(most), "{again} took {:?}", begun.elapsed());
        }
    }
    let big = path("a", "big", "d");
    let begun = Instant::now();
    world.first.publish(&publication(registered("big.h5"), 1).dataset(&big, chunked(1_000_000))).await.unwrap();
    println!("{backend}: publish 1,000,000 chunks (with making them): {:?}", begun.elapsed());
    let small = path("a", "e20000", "group7/dataset7");
    let calls: [(&str, DatasetPath, u32); 3] = [
        ("3 chunks", small.clone(), 300),
        ("3 chunks through a link", path("a", "e20000", "link7"), 300),
        ("1,000,000 chunks", big, 5),
    ];
    for (what, path, times) in calls {
        let begun = Instant::now();
        for _ in 0..times {
            world.first.resolve(&path, VersionSelector::Current).await.unwrap();
        }
        let each = begun.elapsed() / times;
        println!("{backend}: resolve {what}: {each:?}");
        assert!(each < Duration::from_secs(2));
    }
    let begun = Instant::now();
    for _ in 0..300 {
        world.first.current_version(&small).await.unwrap();
    }
    println!("{backend}: current_version: {:?}", begun.elapsed() / 300);
    for query in ["dataset7", "no such word"] {
        let begun = Instant::now();
        let found = world.first.search(query, &Page::default()).await.unwrap();
        println!("{backend}: search {query:?} ({} on the page): {:?}", found.items.len(), begun.elapsed());
    }
    let begun = Instant::now();
    world.first.list_datasets("a", "e20000", &Page { size: 1_000, ..Page::default() }).await.unwrap();
    world.first.counts().await.unwrap();
    let missing = world.first.resolve(&path("a", "e20000", "group7/dataset8"), VersionSelector::Current).await;
    assert!(missing.is_err());
    println!("{backend}: a page of 1,000, counts, a missing name: {:?}", begun.elapsed());
}
