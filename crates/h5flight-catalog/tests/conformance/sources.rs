//! Sources of virtual datasets: which array a mapping means.

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::meta::{SlabAxis, Space, Storage, VirtualMapping};
use h5flight_catalog::model::*;

use super::world::*;

fn virtual_of(sources: &[(Option<&str>, &str)]) -> NewArray {
    let mapping = |(row, (file, path)): (u64, &(Option<&str>, &str))| VirtualMapping {
        file: file.map(str::to_owned),
        path: (*path).to_owned(),
        slab: vec![SlabAxis::run(row * 10, 10)],
        source_slab: None,
    };
    let mappings = (0..).zip(sources).map(mapping).collect();
    let space = Space::Simple { shape: vec![10 * sources.len() as u64] };
    NewArray {
        meta: meta(space, Storage::Virtual { mappings }),
        runs: Vec::new(),
        checksums: Vec::new(),
        inline: None,
        problem: None,
    }
}

async fn sources(world: &World, at: &DatasetPath) -> Vec<SourceRecord> {
    let version = world.first.resolve(at, VersionSelector::Current).await.expect("it is there");
    let pinned = world.first.resolve_version(version.version_id).await.expect("it is there");
    assert_eq!(pinned.extents[0].array.sources.len(), version.extents[0].array.sources.len());
    version.extents[0].array.sources.clone()
}

fn served(source: &SourceRecord) -> &Arc<ArrayRecord> {
    match source {
        SourceRecord::Served(array) => array,
        SourceRecord::Refused(reason, message) => panic!("{reason}: {message}"),
    }
}

fn refused(source: &SourceRecord) -> (Reason, &str) {
    match source {
        SourceRecord::Served(array) => panic!("{} of {} is served", array.hdf5_path, array.file.source_name),
        SourceRecord::Refused(reason, message) => (*reason, message),
    }
}

pub async fn sources_of_virtual_datasets_are_those_of_the_same_experiment(world: &World) {
    let at = |name: &str| path("a", "e", name);
    let named = [
        (None, "/data"),
        (Some("whole.h5"), "/data"),
        (None, "/gone"),
        (Some("/old/disk/part.h5"), "/part"),
        (Some("part.h5"), "/gone"),
        (Some("C:\\data\\part.h5"), "/part"),
        (Some("elsewhere.h5"), "/elsewhere"),
        (None, "/foreign"),
    ];
    let whole = publication(registered("x/whole.h5"), 1)
        .dataset(&at("data"), chunked(3))
        .dataset(&at("whole"), virtual_of(&named))
        .dataset(&path("a", "other", "foreign"), chunked(1));
    let part = publication(registered("x/part.h5"), 1).dataset(&at("part"), chunked(2));
    let elsewhere = publication(registered("x/elsewhere.h5"), 1).dataset(&path("a", "f", "elsewhere"), chunked(1));
    for file in [&whole, &elsewhere] {
        world.first.publish(file).await.unwrap();
    }
    let before = sources(world, &at("whole")).await;
    assert_eq!(refused(&before[3]).0, Reason::VirtualSourceRefused);
    assert!(refused(&before[3]).1.contains("part.h5:/part"), "{}", refused(&before[3]).1);
    assert!(!refused(&before[3]).1.contains("disk"), "no folder is told: {}", refused(&before[3]).1);
    world.first.publish(&part).await.unwrap();
    let found = sources(world, &at("whole")).await;
    for own in [0, 1] {
        assert_eq!((served(&found[own]).hdf5_path.as_str(), served(&found[own]).index.pointers().len()), ("/data", 3));
    }
    for other in [3, 5] {
        assert_eq!(served(&found[other]).file.source_name, "part.h5");
        assert_eq!(served(&found[other]).index.pointers().len(), 2);
    }
    for gone in [2, 4, 6, 7] {
        assert_eq!(refused(&found[gone]).0, Reason::VirtualSourceRefused, "mapping {gone}");
    }
    // Registered anew, the same version has the new source.
    world.first.publish(&Publication { fingerprint: print(2), ..part }).await.unwrap();
    let anew = sources(world, &at("whole")).await;
    assert_eq!(served(&anew[3]).file.fingerprint, print(2));
    assert_ne!(served(&anew[3]).identity, served(&found[3]).identity);
}

pub async fn circles_of_virtual_datasets_end(world: &World) {
    let at = |name: &str| path("a", "e", name);
    let mut file = publication(registered("a.h5"), 1)
        .dataset(&at("data"), chunked(1))
        .dataset(&at("own"), virtual_of(&[(None, "/own"), (None, "/data")]))
        .dataset(&at("ping"), virtual_of(&[(None, "/pong")]))
        .dataset(&at("pong"), virtual_of(&[(None, "/ping"), (None, "/data")]))
        .dataset(&at("deep0"), virtual_of(&[(None, "/data")]));
    for depth in 1..8 {
        let below = format!("/deep{}", depth - 1);
        // Twice each: what is resolved once is not resolved anew for every way that leads to it.
        file = file.dataset(&at(&format!("deep{depth}")), virtual_of(&[(None, &below), (None, &below)]));
    }
    world.first.publish(&file).await.unwrap();
    let own = sources(world, &at("own")).await;
    assert_eq!(refused(&own[0]).0, Reason::VirtualCycle);
    served(&own[1]);
    let ping = sources(world, &at("ping")).await;
    let pong = &served(&ping[0]).sources;
    assert_eq!(refused(&pong[0]).0, Reason::VirtualCycle);
    served(&pong[1]);
    for depth in 0..8 {
        let mut level = sources(world, &at(&format!("deep{depth}"))).await;
        for _ in 0..depth.min(4) {
            level = served(&level[0]).sources.clone();
        }
        if depth <= 4 {
            assert_eq!(served(&level[0]).hdf5_path, "/data", "depth {depth}");
        } else {
            assert_eq!(refused(&level[0]).0, Reason::VirtualCycle, "depth {depth}");
        }
    }
}
