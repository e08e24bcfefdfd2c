//! What a read needs to know.

use h5flight_array::inspect::LinkKind;
use h5flight_catalog::error::Level;
use h5flight_catalog::model::*;
use h5flight_catalog::{Error, ErrorKind};
use serde_json::json;

use super::world::*;

async fn missing(world: &World, at: &DatasetPath) -> Error {
    let error = world.first.resolve(at, VersionSelector::Current).await.unwrap_err();
    assert_eq!(world.first.current_version(at).await.unwrap_err().kind, error.kind);
    error
}

pub async fn missing_names_are_explained(world: &World) {
    let file = publication(registered("a.h5"), 1)
        .group(&path("mouse-1", "day-1", ""), json!({}))
        .group(&path("mouse-1", "day-1", "g"), json!({}))
        .group(&path("mouse-1", "day-1", "g/inner"), json!({}))
        .group(&path("mouse-1", "day-1", "empty"), json!({}))
        .dataset(&path("mouse-1", "day-1", "g/inner/deep"), chunked(1))
        .dataset(&path("mouse-1", "day-1", "g/data"), chunked(1))
        .dataset(&path("rat", "day-1", "x"), chunked(1));
    world.first.publish(&file).await.unwrap();
    for (at, level, nearest, said) in [
        (
            path("mouse1", "day-1", "x"),
            Level::Animal,
            vec!["mouse-1"],
            "no animal \"mouse1\"; did you mean \"mouse-1\"?",
        ),
        (path("zebra", "x", "x"), Level::Animal, vec![], "no animal \"zebra\""),
        (path("mouse-1\0", "x", "x"), Level::Animal, vec!["mouse-1"], "no animal"),
        (path("", "", ""), Level::Animal, vec![], "no animal \"\""),
        (
            path("mouse-1", "day1", "x"),
            Level::Experiment,
            vec!["day-1"],
            "has no experiment \"day1\"; did you mean \"day-1\"?",
        ),
        (path("mouse-1", "day-1", "g/dat"), Level::Dataset, vec!["g/data"], "did you mean \"g/data\"?"),
        (path("mouse-1", "day-1", "deep"), Level::Dataset, vec!["g/inner/deep"], "did you mean \"g/inner/deep\"?"),
        (
            path("mouse-1", "day-1", "quite something else"),
            Level::Dataset,
            vec![],
            "no dataset \"quite something else\"",
        ),
        (
            path("mouse-1", "day-1", "g"),
            Level::Dataset,
            vec!["g/data", "g/inner"],
            "is a group; its members are data, inner",
        ),
        (path("mouse-1", "day-1", ""), Level::Dataset, vec!["empty", "g"], "is a group; its members are empty, g"),
        (path("mouse-1", "day-1", "empty"), Level::Dataset, vec![], "no members"),
        (path("mouse-1", "day-1", &"x/".repeat(9_999)), Level::Dataset, vec![], "no dataset"),
    ] {
        let error = missing(world, &at).await;
        let nearest: Vec<String> = nearest.into_iter().map(String::from).collect();
        assert_eq!(error.kind, ErrorKind::NotFound { level, nearest }, "{at}");
        assert!(error.message.contains(said), "{at}: {error}");
    }
    let error = world.first.resolve(&path("rat", "day-1", "x"), VersionSelector::Number(7)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound { level: Level::Version, nearest: vec!["1".into()] });
    let error = world.first.resolve_version(123_456).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound { level: Level::Version, .. }));
    // Slashes that mean nothing to HDF5 mean nothing here.
    let found = world.first.resolve(&path("mouse-1", "day-1", "/g//./data/"), VersionSelector::Current).await.unwrap();
    assert_eq!(found.path.dataset, "g/data");
}

pub async fn links_are_followed(world: &World) {
    let at = |name: &str| path("a", "e", name);
    let file = publication(registered("a.h5"), 1)
        .group(&at("g"), json!({}))
        .dataset(&at("g/data"), chunked(1))
        .link(&at("alias"), LinkKind::Hard, "g/data")
        .link(&at("soft"), LinkKind::Soft, "alias")
        .link(&at("h"), LinkKind::Soft, "g")
        .link(&at("i"), LinkKind::Soft, "h")
        .link(&at("i2"), LinkKind::Soft, "/i/./")
        .link(&at("root"), LinkKind::Soft, "");
    world.first.publish(&file).await.unwrap();
    world
        .first
        .publish(&publication(registered("b.h5"), 1).dataset(&path("a", "f", "alias"), chunked(2)))
        .await
        .unwrap();
    for name in ["alias", "soft", "h/data", "i/data", "i2/data", "root/g/data", "root/root/i2/data", "/soft/"] {
        let version = world.first.resolve(&at(name), VersionSelector::Current).await.expect(name);
        assert_eq!((version.path, version.version), (at("g/data"), 1));
        world.first.resolve(&at(name), VersionSelector::Number(1)).await.expect(name);
        assert_eq!(world.first.current_version(&at(name)).await.unwrap(), (version.version_id, 1));
        assert_eq!(world.first.describe(&at(name)).await.unwrap().path, at("g/data"));
    }
    // The newest file's links are the ones that count.
    let moved =
        publication(registered("a.h5"), 2).dataset(&at("data"), chunked(1)).link(&at("alias"), LinkKind::Hard, "data");
    world.first.publish(&moved).await.unwrap();
    assert_eq!(world.first.resolve(&at("alias"), VersionSelector::Current).await.unwrap().path, at("data"));
    assert!(missing(world, &at("soft")).await.message.contains("no dataset"));
}

pub async fn links_that_lead_nowhere_are_not_found_and_those_that_leave_are_refused(world: &World) {
    let at = |name: &str| path("a", "e", name);
    let mut file = publication(registered("a.h5"), 1)
        .dataset(&at("data"), chunked(1))
        .link(&at("dangling"), LinkKind::Soft, "nothing")
        .link(&at("self"), LinkKind::Soft, "self")
        .link(&at("ping"), LinkKind::Soft, "pong/x")
        .link(&at("pong"), LinkKind::Soft, "ping/x")
        .link(&at("out"), LinkKind::External, &format!("{}:/data", "x".repeat(5_000)))
        .link(&at("to_out"), LinkKind::Soft, "out/deep")
        .link(&at("user"), LinkKind::User, "\0");
    for step in 0..20 {
        file = file.link(
            &at(&format!("chain{step}")),
            LinkKind::Soft,
            &match step {
                0 => "data".to_owned(),
                _ => format!("chain{}", step - 1),
            },
        );
    }
    world.first.publish(&file).await.unwrap();
    for name in ["dangling", "dangling/x", "self", "ping", "pong/y", "chain16", "chain19"] {
        let error = missing(world, &at(name)).await;
        assert!(matches!(error.kind, ErrorKind::NotFound { level: Level::Dataset, .. }), "{name}: {error:?}");
        assert!(world.first.describe(&at(name)).await.is_err());
    }
    assert_eq!(world.first.resolve(&at("chain15"), VersionSelector::Current).await.unwrap().path, at("data"));
    for name in ["out", "out/deep", "to_out", "user"] {
        assert_eq!(missing(world, &at(name)).await.kind, ErrorKind::Refused("external_link_refused".into()), "{name}");
        let error = world.first.describe(&at(name)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused("external_link_refused".into()), "{name}");
    }
}

pub async fn damaged_rows_are_damage_and_nothing_else(world: &World) {
    let at = path("a", "e", "d");
    let write = [
        "UPDATE chunk_runs SET packed = substr(packed, 1, 4)",
        "UPDATE chunk_runs SET pointers = pointers - 1",
        "DELETE FROM chunk_runs WHERE run = 1",
        "UPDATE arrays SET meta = '{}'",
        "UPDATE arrays SET rows = rows + 1",
        "UPDATE arrays SET chunks = 1",
        "UPDATE extents SET first_row = 1",
        "UPDATE extents SET rows = rows + 1",
    ];
    for (round, damage) in write.into_iter().enumerate() {
        let file = publication(registered("a.h5"), round as i64).dataset(&at, chunked(9_000));
        world.first.publish(&file).await.unwrap();
        world.first.resolve(&at, VersionSelector::Current).await.unwrap();
        world.raw.run(damage).await;
        let error = world.first.resolve(&at, VersionSelector::Current).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Damaged, "{damage}: {error:?}");
    }
    world.raw.run("DELETE FROM extents").await;
    world.raw.run("UPDATE versions SET rows = -1").await;
}

pub async fn versions_of_many_extents_are_joined(world: &World) {
    let at = path("a", "e", "d");
    world.first.publish(&publication(registered("a.h5"), 1).dataset(&at, chunked(4))).await.unwrap();
    world.first.publish(&publication(registered("a.h5"), 2).dataset(&at, chunked(7))).await.unwrap();
    // As an append will do: the second version becomes rows 10.. of the first array, then the second one, then the
    // first again.
    world
        .raw
        .run(
            "INSERT INTO extents (version_id, ordinal, array_id, first_row, array_row, rows) \
             SELECT second.version_id, 1 + ordinals.n, first.array_id, 70 + 30 * ordinals.n, 10, 30 \
             FROM extents first JOIN versions v1 ON v1.id = first.version_id AND v1.number = 1 \
             JOIN versions v2 ON v2.number = 2 JOIN extents second ON second.version_id = v2.id \
             JOIN (SELECT 0 AS n UNION ALL SELECT 1) ordinals ON TRUE",
        )
        .await;
    world.raw.run("UPDATE versions SET rows = 130, chunks = 11 WHERE number = 2").await;
    let version = world.first.resolve(&at, VersionSelector::Current).await.unwrap();
    let rows: Vec<_> = version.extents.iter().map(|x| (x.first_row, x.array_row, x.rows)).collect();
    assert_eq!(rows, [(0, 0, 70), (70, 10, 30), (100, 10, 30)]);
    assert!(std::sync::Arc::ptr_eq(&version.extents[1].array, &version.extents[2].array));
    assert_eq!(version.extents[1].array.index.pointers().len(), 4);
    let listed = crate::all_pages!(5u32, |page| world.first.list_datasets("a", "e", page));
    assert_eq!((listed[0].meta.shape(), listed[0].chunks), ([130].as_slice(), 11));
}
