//! The whole catalogue out and in again.

use h5flight_array::inspect::ObjectKind;
use h5flight_catalog::model::*;
use h5flight_catalog::{ErrorKind, TICKET_SECRET, files_of_dump};
use serde_json::json;

use super::publish::publish_one;
use super::world::*;

/// A catalogue that uses what there is, its token and its dump.
pub struct Filled {
    token: String,
    gone_id: i64,
    dump: Vec<u8>,
}

fn odd_path() -> DatasetPath {
    path("tab\tline\nback\\slash", "\\N", "µ/x")
}

/// Fills a catalogue and dumps it.
pub async fn filled(world: &World) -> Filled {
    let values = json!({"nul": "a\u{0}b", "float": 1e16, "text": "tab\t, \\. and \n"});
    let upload = publication(managed(&"ab".repeat(32)), 5)
        .object(&odd_path(), ObjectKind::Dataset, values, Some(chunked(9_000)))
        .dataset(&path("a", "e", "small"), inline(b"\x00\xff\n\\"));
    world.first.publish(&upload).await.unwrap();
    publish_one(&*world.first).await;
    let two = publication(registered("one.h5"), 2).dataset(&path("a", "e", "d"), chunked(4));
    world.first.publish(&two).await.unwrap();
    let new = NewToken {
        principal: "anna".into(),
        role: Role::Read,
        expires_at: Some(chrono::Utc::now() + chrono::TimeDelta::days(1)),
    };
    let token = world.first.create_token(&new).await.unwrap().token;
    for name in [TICKET_SECRET, "redis"] {
        world.first.secret(name).await.unwrap();
    }
    // An id that is gone must not come back.
    world.raw.run("INSERT INTO animals (name, created_at) SELECT 'gone', created_at FROM animals LIMIT 1").await;
    let gone_id = world.raw.number("SELECT id FROM animals WHERE name = 'gone'").await;
    world.raw.run("DELETE FROM animals WHERE name = 'gone'").await;
    let mut dump = Vec::new();
    world.second.dump(&mut dump).await.unwrap();
    let files = files_of_dump(&mut dump.as_slice()).unwrap();
    let known: Vec<_> = files.iter().map(|file| (&file.place, file.fingerprint, file.generation)).collect();
    let one = registered("one.h5");
    assert_eq!(known, [(&upload.place, print(5), 1), (&one, print(1), 1), (&one, print(2), 2)]);
    Filled { token, gone_id, dump }
}

/// Loads the dump and compares.
pub async fn check_filled(from: &World, filled: &Filled, to: &World) {
    assert_eq!(to.first.occupied().await.unwrap(), None);
    to.first.load(&mut filled.dump.as_slice()).await.unwrap();
    assert!(to.first.occupied().await.unwrap().is_some());
    for (at, selector) in [
        (odd_path(), VersionSelector::Current),
        (path("a", "e", "small"), VersionSelector::Current),
        (path("a", "e", "d"), VersionSelector::Number(1)),
        (path("a", "e", "d"), VersionSelector::Current),
    ] {
        let (was, is) =
            (from.first.resolve(&at, selector.clone()).await.unwrap(), to.second.resolve(&at, selector).await.unwrap());
        assert_eq!(format!("{was:?}"), format!("{is:?}"), "{at}");
    }
    let principal = to.first.authenticate(&filled.token).await.unwrap().expect("the token opens");
    assert_eq!((principal.name.as_str(), principal.role), ("anna", Role::Read));
    assert_eq!(from.first.list_tokens().await.unwrap().len(), to.first.list_tokens().await.unwrap().len());
    assert_eq!(from.first.secret("redis").await.unwrap(), to.first.secret("redis").await.unwrap());
    // Tickets from before name ids that may mean something else now.
    assert_ne!(from.first.secret(TICKET_SECRET).await.unwrap(), to.first.secret(TICKET_SECRET).await.unwrap());
    to.raw.run("INSERT INTO animals (name, created_at) SELECT 'next', created_at FROM animals LIMIT 1").await;
    let next_id = to.raw.number("SELECT id FROM animals WHERE name = 'next'").await;
    assert_eq!(next_id, filled.gone_id + 1);
    let next = publication(registered("one.h5"), 3).dataset(&path("a", "e", "d"), chunked(5));
    assert_eq!(to.second.publish(&next).await.unwrap().datasets, 1);
    assert_eq!(to.first.current_version(&path("a", "e", "d")).await.unwrap().1, 3);
}

pub async fn what_is_not_empty_or_not_whole_is_refused(world: &World) {
    let mut empty = Vec::new();
    world.first.dump(&mut empty).await.unwrap();
    let cut = &empty[..empty.len() - 3];
    assert_eq!(world.first.load(&mut &cut[..]).await.unwrap_err().kind, ErrorKind::Damaged);
    let newer = String::from_utf8(empty.clone()).unwrap().replacen("\"schema\":", "\"schema\":99", 1);
    assert_eq!(world.first.load(&mut newer.as_bytes()).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(world.first.occupied().await.unwrap(), None);
    world.first.load(&mut empty.as_slice()).await.unwrap();
    publish_one(&*world.first).await;
    let refused = world.second.load(&mut empty.as_slice()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused("database_not_empty".into()), "{refused}");
}
