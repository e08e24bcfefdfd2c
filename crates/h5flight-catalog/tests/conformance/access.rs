//! Who may see it, who saw it.

use chrono::{SubsecRound, TimeDelta, Utc};
use h5flight_catalog::ErrorKind;
use h5flight_catalog::model::*;

use super::world::World;

pub async fn tokens_open_what_they_say_until_they_end(world: &World) {
    assert!(!world.first.has_tokens().await.unwrap());
    let new = |principal: &str, role, hours: Option<i64>| NewToken {
        principal: principal.into(),
        role,
        expires_at: hours.map(|hours| Utc::now() + TimeDelta::hours(hours)),
    };
    let expired = world.first.create_token(&new("anna", Role::Admin, Some(-1))).await.unwrap();
    assert!(world.first.has_tokens().await.unwrap(), "an expired token is one");
    assert_eq!(world.first.authenticate(&expired.token).await.unwrap(), None);
    let read = world.first.create_token(&new("anna", Role::Read, Some(1))).await.unwrap();
    let admin = world.second.create_token(&new("bernd", Role::Admin, None)).await.unwrap();
    assert!(read.token.starts_with(&format!("h5f_{}_", read.prefix)) && read.token.len() == 56);

    let anna = world.second.authenticate(&read.token).await.unwrap().unwrap();
    assert_eq!((anna.name.as_str(), anna.role, &anna.token_prefix), ("anna", Role::Read, &read.prefix));
    let bernd = world.first.authenticate(&admin.token).await.unwrap().unwrap();
    assert_eq!((bernd.name.as_str(), bernd.role), ("bernd", Role::Admin));
    assert_ne!(anna.id, bernd.id);

    // One character is enough to be somebody else: nobody.
    for at in 0..read.token.len() {
        let mut other = read.token.clone().into_bytes();
        other[at] = if other[at] == b'a' { b'b' } else { b'a' };
        let other = String::from_utf8(other).unwrap();
        assert_eq!(world.first.authenticate(&other).await.unwrap(), None, "{at}");
    }
    for other in ["", "\0", "h5f_", &format!("h5f_{}_{}", read.prefix, &admin.token[13..])] {
        assert_eq!(world.first.authenticate(other).await.unwrap(), None);
    }

    let listed = world.first.list_tokens().await.unwrap();
    let prefixes: Vec<_> = listed.iter().map(|token| token.prefix.as_str()).collect();
    assert_eq!(prefixes, [&expired.prefix, &read.prefix, &admin.prefix]);
    assert!(listed.iter().all(|token| token.revoked_at.is_none()));
    assert!(world.first.revoke_token(&read.prefix).await.unwrap());
    assert!(!world.first.revoke_token("nothing\0").await.unwrap());
    assert_eq!(world.second.authenticate(&read.token).await.unwrap(), None);
    let revoked_at = world.first.list_tokens().await.unwrap()[1].revoked_at;
    assert!(revoked_at.is_some() && world.first.revoke_token(&read.prefix).await.unwrap());
    assert_eq!(world.first.list_tokens().await.unwrap()[1].revoked_at, revoked_at, "the first time counts");
    assert!(world.first.has_tokens().await.unwrap());
    world.first.revoke_token(&admin.prefix).await.unwrap();
    assert!(world.first.has_tokens().await.unwrap(), "revoking the last one opens nothing");
    let nobody = world.first.create_token(&new("", Role::Read, None)).await.unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::Invalid);
}

pub async fn secrets_are_shared_and_kept(world: &World) {
    let many = (0..8).map(|at| {
        let catalog = if at % 2 == 0 { world.first.clone() } else { world.second.clone() };
        tokio::spawn(async move { catalog.secret("tickets").await.unwrap() })
    });
    let mut secrets = Vec::new();
    for one in many.collect::<Vec<_>>() {
        secrets.push(one.await.unwrap());
    }
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    assert_eq!(world.first.secret("tickets").await.unwrap(), secrets[0]);
    assert_ne!(world.first.secret("others").await.unwrap(), secrets[0]);
    assert_eq!(world.first.secret("").await.unwrap_err().kind, ErrorKind::Invalid);
}

pub async fn the_access_log_keeps_the_newest_first_and_cuts_words(world: &World) {
    let entry = |at: u64| AccessEntry {
        at: Utc::now().trunc_subsecs(6),
        principal: "anna".into(),
        call: "GetData".into(),
        path: format!("a/e/{at}"),
        selection: ":".into(),
        outcome: "ok".into(),
        rows: at,
        bytes: at * 2,
        tier: "memory+file".into(),
        millis: 0.1,
    };
    let entries: Vec<_> = (0..5_000).map(entry).collect();
    world.first.log_accesses(&[]).await.unwrap();
    world.first.log_accesses(&entries).await.unwrap();
    let newest = world.second.list_accesses(3).await.unwrap();
    assert_eq!(newest, [entries[4_999].clone(), entries[4_998].clone(), entries[4_997].clone()]);
    assert_eq!(world.second.list_accesses(u32::MAX).await.unwrap().len(), 5_000);
    assert_eq!(world.second.list_accesses(0).await.unwrap_err().kind, ErrorKind::Invalid);
    // Whatever clients send, it is logged.
    let odd = AccessEntry { path: "ä\0".repeat(9_999), rows: u64::MAX, millis: f64::INFINITY, ..entry(1) };
    world.first.log_accesses(&[odd]).await.unwrap();
    let logged = &world.first.list_accesses(1).await.unwrap()[0];
    assert!(logged.path.starts_with("ä\u{FFFD}ä") && logged.path.len() <= 4_096);
    assert_eq!((logged.rows, logged.millis), (i64::MAX as u64, f64::INFINITY));
}
