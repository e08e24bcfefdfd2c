//! What is compared with the files.

use h5flight_catalog::ErrorKind;
use h5flight_catalog::model::*;

use super::world::*;
use crate::all_pages;

pub async fn files_are_listed_by_what_they_publish(world: &World) {
    for (place, experiment, at) in [("b.h5", "e1", 1), ("a.h5", "e1", 1), ("a.h5", "e1", 2), ("c.h5", "e2", 1)] {
        let file = publication(registered(place), at).dataset(&path("m", experiment, place), chunked(2));
        world.first.publish(&file).await.unwrap();
    }
    let other = publication(managed("cafe"), 1).dataset(&path("n", "e1", "d"), chunked(2));
    world.first.publish(&other).await.unwrap();
    let listed = async |animal: &str, experiment: &str| -> Vec<String> {
        let all: Vec<FileRecord> = all_pages!(2, |page| world.second.list_files_of(animal, experiment, page));
        all.into_iter()
            .map(|file| match file.place {
                FilePlace::Registered { path, .. } => format!("{path} {}", file.fingerprint.modified_ns),
                FilePlace::Managed { content } => content,
            })
            .collect()
    };
    assert_eq!(listed("", "").await, ["cafe", "a.h5 2", "b.h5 1", "c.h5 1"]);
    assert_eq!(listed("m", "").await, ["a.h5 2", "b.h5 1", "c.h5 1"]);
    assert_eq!(listed("m", "e1").await, ["a.h5 2", "b.h5 1"]);
    assert_eq!(listed("n", "e1").await, ["cafe"]);
    assert!(listed("m", "e3").await.is_empty());
}

pub async fn the_arrays_of_a_file_come_in_parts_and_whole(world: &World) {
    let mut file = publication(registered("a.h5"), 1);
    for number in 0..300 {
        file = file.dataset(&path("a", "e", &format!("d{number}")), chunked(number % 3 + 1));
    }
    let done = world.first.publish(&file).await.unwrap();
    let (mut found, mut parts, mut after) = (Vec::new(), 0, 0);
    loop {
        let part = world.second.arrays_of(done.file_id, after).await.unwrap();
        let Some(last) = part.last() else { break };
        after = last.id;
        parts += 1;
        found.extend(part.iter().map(|array| (array.hdf5_path.clone(), array.index.pointers().len() as u64)));
    }
    assert_eq!(parts, 2, "256 and 44");
    let mut expected: Vec<_> = (0..300).map(|number| (format!("/d{number}"), number % 3 + 1)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(world.second.arrays_of(done.file_id + 1, 0).await.unwrap().is_empty());
}

pub async fn a_released_file_is_read_again(world: &World) {
    let at = path("a", "e", "d");
    let file = publication(registered("a.h5"), 1).dataset(&at, chunked(2));
    let done = world.first.publish(&file).await.unwrap();
    let quarantined = async || {
        let version = world.second.resolve(&at, VersionSelector::Current).await.unwrap();
        version.extents[0].array.file.quarantined.clone()
    };
    world.first.quarantine(done.file_id, "file_not_found", "no such file").await.unwrap();
    assert_eq!(quarantined().await, Some(("file_not_found".into(), "no such file".into())));
    world.first.release(done.file_id).await.unwrap();
    assert_eq!(quarantined().await, None);
    // Nothing was published anew.
    assert!(world.first.publish(&file).await.unwrap().already);
    assert_eq!(world.first.release(done.file_id + 1).await.unwrap_err().kind, ErrorKind::Invalid);
}

pub async fn checksums_are_of_all_chunks_of_an_array_or_of_none(world: &World) {
    let (with, without) = (path("a", "e", "with"), path("a", "e", "without"));
    // Three runs.
    let checksums: Vec<u64> = (0..9_000u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let known = NewArray { checksums: checksums.clone(), ..chunked(9_000) };
    let file = publication(registered("a.h5"), 1).dataset(&with, known.clone()).dataset(&without, chunked(9_000));
    let done = world.first.publish(&file).await.unwrap();
    let of = async |at: &DatasetPath| {
        let version = world.second.resolve(at, VersionSelector::Current).await.unwrap();
        version.extents[0].array.clone()
    };
    let array = of(&with).await;
    assert_eq!(array.index.checksums(), checksums);
    assert_eq!(array.index.checksum(8_999), Some(checksums[8_999]));
    let array = of(&without).await;
    assert!(array.index.checksums().is_empty());
    let few = world.first.keep_checksums(array.id, &checksums[1..]).await.unwrap_err();
    assert_eq!(few.kind, ErrorKind::Invalid);
    world.first.keep_checksums(array.id, &checksums).await.unwrap();
    assert_eq!(of(&without).await.index.checksums(), checksums);
    let listed = world.first.arrays_of(done.file_id, 0).await.unwrap();
    assert!(listed.iter().all(|array| array.index.checksums() == checksums));

    // A part of them is none.
    world.raw.run("UPDATE chunk_runs SET checksums = NULL WHERE run = 1").await;
    assert!(of(&with).await.index.checksums().is_empty());
    let odd = NewArray { checksums: vec![1], ..known };
    let refused = world.first.publish(&publication(registered("b.h5"), 1).dataset(&path("a", "f", "d"), odd)).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Invalid);
}

pub async fn fingerprints_are_those_of_a_folder_and_the_newest(world: &World) {
    for (place, at) in [("a/x.h5", 1), ("a/x.h5", 2), ("a/é/y.h5", 3), ("a.h5", 4), ("a0", 5), ("a", 6), ("b/z.h5", 7)]
    {
        let file = publication(registered(place), at).dataset(&path("m", "e", place), chunked(1));
        world.first.publish(&file).await.unwrap();
    }
    world.first.publish(&publication(managed("cafe"), 8).dataset(&path("m", "e", "d"), chunked(1))).await.unwrap();
    let below = async |root: &str, path: &str| {
        let known = world.second.fingerprints_below(root, path).await.unwrap();
        let mut times: Vec<i64> = known.values().map(|fingerprint| fingerprint.modified_ns).collect();
        times.sort_unstable();
        (times, known.get("a/x.h5").copied())
    };
    assert_eq!(below("lab", "").await, (vec![2, 3, 4, 5, 6, 7], Some(print(2))));
    assert_eq!(below("lab", "a").await, (vec![2, 3, 6], Some(print(2))));
    assert_eq!(below("lab", "a/x.h5").await.0, [2]);
    assert_eq!(below("lab", "a/é").await.0, [3]);
    assert!(below("lab", "c").await.0.is_empty());
    assert!(below("other", "").await.0.is_empty());
}
