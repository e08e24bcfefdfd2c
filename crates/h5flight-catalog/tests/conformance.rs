//! One suite for every database behind [`Catalog`]: each case is a promise of the trait, checked on an empty catalogue
//! opened twice, as two servers do. PostgreSQL is a private server of this test.

#![expect(clippy::cognitive_complexity, reason = "a case is one assertion after another")]

mod conformance {
    pub mod access;
    pub mod append;
    pub mod browse;
    pub mod concurrency;
    pub mod dump;
    pub mod history;
    pub mod publish;
    pub mod resolve;
    pub mod sources;
    pub mod verify;
    pub mod world;
}
#[path = "../../../tests/src/postgres.rs"]
mod postgres;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use conformance::world::{Raw, World};
use conformance::{access, append, browse, concurrency, dump, history, publish, resolve, sources, verify};
use h5flight_catalog::model::{DatasetPath, OpenOptions, VersionSelector};
use h5flight_catalog::{ErrorKind, open};

type Case = (&'static str, for<'w> fn(&'w World) -> Pin<Box<dyn Future<Output = ()> + Send + 'w>>);

macro_rules! cases {
    ($($module:ident::$name:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), |world| Box::pin($module::$name(world))),)*]
    };
}

const CASES: &[Case] = cases![
    publish::what_was_published_is_resolved,
    publish::an_unchanged_file_is_published_once,
    publish::a_changed_file_makes_new_versions_and_withdraws_what_it_lost,
    publish::a_file_under_another_experiment_leaves_the_old_one,
    publish::a_dataset_of_another_file_is_refused_or_replaced,
    publish::uploads_succeed_each_other_by_content_and_name,
    publish::an_idempotency_key_is_used_once,
    publish::a_quarantined_file_is_read_again_after_it_is_registered_anew,
    publish::what_cannot_be_stored_is_refused_and_leaves_nothing,
    publish::numbers_at_their_limits_come_back,
    publish::newer_facts_take_the_place_of_older_ones,
    publish::any_hierarchy_comes_back_as_it_was,
    resolve::missing_names_are_explained,
    sources::sources_of_virtual_datasets_are_those_of_the_same_experiment,
    sources::circles_of_virtual_datasets_end,
    resolve::links_are_followed,
    resolve::links_that_lead_nowhere_are_not_found_and_those_that_leave_are_refused,
    resolve::damaged_rows_are_damage_and_nothing_else,
    resolve::versions_of_many_extents_are_joined,
    history::a_time_means_the_version_that_was_current_then,
    history::times_with_and_without_fractions_are_compared_as_times,
    history::a_history_is_listed_newest_first_with_who_and_what,
    history::a_rollback_is_a_new_version_with_the_old_extents,
    history::a_dataset_that_its_file_lost_comes_back_by_a_rollback,
    history::tags_stay_until_they_are_moved,
    history::of_two_publications_based_on_the_same_version_one_wins,
    append::appended_rows_come_after_the_others_in_one_shared_list,
    append::an_append_makes_what_is_missing_and_only_that,
    append::a_rollback_and_another_append_leave_every_version_as_it_was,
    append::a_retry_is_answered_as_it_was,
    append::what_does_not_fit_is_refused_and_leaves_nothing,
    append::what_a_registered_file_serves_is_appended_to,
    append::writers_at_once_leave_no_gap,
    append::any_sequence_of_changes_leaves_every_version_readable,
    browse::lists_are_whole_in_pages_of_any_size,
    browse::a_description_has_children_links_and_aliases,
    browse::groups_of_several_files_are_one,
    browse::types_of_attributes_and_meanings_of_axes_come_back,
    browse::search_finds_words_as_they_are,
    browse::search_compares_what_datasets_have,
    verify::files_are_listed_by_what_they_publish,
    verify::the_arrays_of_a_file_come_in_parts_and_whole,
    verify::a_released_file_is_read_again,
    verify::fingerprints_are_those_of_a_folder_and_the_newest,
    verify::checksums_are_of_all_chunks_of_an_array_or_of_none,
    access::tokens_open_what_they_say_until_they_end,
    access::secrets_are_shared_and_kept,
    access::the_access_log_keeps_the_newest_first_and_cuts_words,
    dump::what_is_not_empty_or_not_whole_is_refused,
    concurrency::one_dataset_published_at_once_has_one_history,
    concurrency::many_files_of_one_experiment_are_published_at_once,
    concurrency::a_dropped_publication_is_whole_or_absent,
    concurrency::many_readers_and_a_writer_see_whole_versions,
];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts")
}

async fn check_all(mut url: impl FnMut(&str) -> String) {
    for (at, (name, case)) in CASES.iter().enumerate() {
        let begun = Instant::now();
        println!("{name}");
        let world = World::open(&url(&format!("case{at}"))).await;
        case(&world).await;
        world.check_integrity().await;
        println!("  {:.2} s", begun.elapsed().as_secs_f64());
    }
}

#[test]
fn every_promise_holds_on_sqlite() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    runtime().block_on(check_all(|name| format!("sqlite://{}/{name} %.db", folder.path().display())));
}

#[test]
fn every_promise_holds_on_postgresql() {
    let server = postgres::Postgres::start().expect("PostgreSQL starts");
    runtime().block_on(check_all(|name| server.url(name)));
}

#[test]
fn a_catalogue_recovers_by_itself_after_postgresql_was_away() {
    let mut server = postgres::Postgres::start().expect("PostgreSQL starts");
    runtime().block_on(async {
        let world = World::open(&server.url("restart")).await;
        publish::publish_one(&*world.first).await;
        let path = DatasetPath { animal: "a".into(), experiment: "e".into(), dataset: "d".into() };
        server.stop().expect("PostgreSQL stops");
        for _ in 0..12 {
            let error = world.first.resolve(&path, VersionSelector::Current).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
        }
        assert_eq!(world.first.ping().await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(
            open(&server_url(&world), &quick()).await.err().expect("nobody answers").kind,
            ErrorKind::Unavailable
        );
        server.resume().expect("PostgreSQL starts again");
        let version = world.first.resolve(&path, VersionSelector::Current).await.expect("it is back");
        assert_eq!(version.version, 1);
        publish::publish_one(&*world.second).await;

        // Back at once: whatever connections the pool keeps are dead, and the first calls may say so.
        server.restart().expect("PostgreSQL restarts");
        let mut failed = 0;
        while let Err(error) = world.first.resolve(&path, VersionSelector::Current).await {
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
            failed += 1;
            assert!(failed <= 8, "the pool does not recover");
        }
    });
}

#[test]
fn a_dump_of_either_database_fills_either() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = postgres::Postgres::start().expect("PostgreSQL starts");
    runtime().block_on(async {
        let urls = |name: &str| [format!("sqlite://{}/{name}.db", folder.path().display()), server.url(name)];
        for (at, from) in urls("from").into_iter().enumerate() {
            let from = World::open(&from).await;
            let dumped = dump::filled(&from).await;
            for (to, url) in urls(&format!("to{at}")).into_iter().enumerate() {
                let target = World::open(&url).await;
                dump::check_filled(&from, &dumped, &target).await;
                target.check_integrity().await;
                println!("from {at} to {to}");
            }
        }
    });
}

fn quick() -> OpenOptions {
    OpenOptions { acquire_timeout_ms: 200, ..OpenOptions::default() }
}

fn server_url(world: &World) -> String {
    world.url.clone()
}

#[test]
fn urls_of_no_database_are_refused() {
    runtime().block_on(async {
        for url in ["", "mysql://x", "sqlite:", "sqlite://", "sqlite://:memory:", "postgres://%%%:x:y"] {
            let error = open(url, &quick()).await.err().expect(url);
            assert_eq!(error.kind, ErrorKind::Invalid, "{url}: {error:?}");
        }
        let nowhere = open("sqlite:///no/such/folder/x.db", &quick()).await.err().expect("no folder");
        assert_eq!(nowhere.kind, ErrorKind::Unavailable);
    });
}

#[test]
fn two_servers_open_a_new_catalogue_at_once_and_an_older_one_opens_a_newer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = postgres::Postgres::start().expect("PostgreSQL starts");
    runtime().block_on(async {
        for url in [format!("sqlite://{}/x.db", folder.path().display()), server.url("x")] {
            let options = OpenOptions { acquire_timeout_ms: 20_000, ..OpenOptions::default() };
            let opened = tokio::join!(open(&url, &options), open(&url, &options), open(&url, &options));
            for catalog in [opened.0, opened.1, opened.2] {
                catalog.expect("all open").ping().await.expect("all answer");
            }
            let raw = Raw::open(&url).await;
            raw.run(
                "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
                 SELECT 9999, 'newer', installed_on, success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
            )
            .await;
            open(&url, &options).await.expect("an older program opens a newer catalogue");
        }
    });
}

#[test]
fn twenty_thousand_datasets_are_published_in_seconds_and_resolved_in_milliseconds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = postgres::Postgres::start().expect("PostgreSQL starts");
    runtime().block_on(async {
        for url in [format!("sqlite://{}/x.db", folder.path().display()), server.url("x")] {
            let world = World::open(&url).await;
            concurrency::measure(&world).await;
            append::measure(&world).await;
            world.check_integrity().await;
        }
    });
}
