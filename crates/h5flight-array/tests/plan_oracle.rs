//! Random arrays, chunkings, extents and selections against a reader that takes every element by itself.
//!
//! Blocks come from a naive store in memory, or from its arrays encoded into a file. What is checked: the values, the schema, that every block is fetched once
//! and never asked for after its last use, that batches cover the rows in order and keep to their size, and that
//! a read in several row ranges is the same read.

#[path = "oracle/naive.rs"]
mod naive;
#[path = "oracle/seed.rs"]
mod seed;

use std::collections::HashMap;
use std::sync::Arc;

use h5flight_array::batch::Decoded;
use h5flight_array::plan::{BlockId, Layout, Plan, PlanOptions, total_shape};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use naive::stored::StoredStore;
use naive::{Choices, Store, canonical_cells, expected_cells};

/// Makes the decoded block of a plan.
type Fetch<'a> = &'a dyn Fn(&Plan, BlockId) -> Decoded;

/// Reads the plan's rows batch by batch as a server does, and checks what it sees on the way.
fn read(fetch: Fetch<'_>, plan: &Plan, options: &PlanOptions) -> Vec<arrow::record_batch::RecordBatch> {
    let mut held: HashMap<BlockId, Arc<Decoded>> = HashMap::new();
    let mut fetched: HashMap<BlockId, usize> = HashMap::new();
    let mut next_row = plan.row_range().start;
    let mut batches = Vec::new();
    for at in 0..plan.batches() {
        let batch = plan.batch(at);
        assert_eq!(batch.rows().start, next_row, "batch {at} does not follow the one before");
        assert!(!batch.rows().is_empty(), "batch {at} is empty");
        next_row = batch.rows().end;
        check_size(plan, options, batch.rows().end - batch.rows().start);
        let mut blocks = Vec::new();
        for id in batch.blocks() {
            let decoded = held.entry(*id).or_insert_with(|| {
                *fetched.entry(*id).or_default() += 1;
                assert_eq!(fetched[id], 1, "{id:?} is fetched again in batch {at}");
                assert_eq!(plan.first_use(*id), at, "first use of {id:?}");
                Arc::new(fetch(plan, *id))
            });
            blocks.push(Arc::clone(decoded));
        }
        batches.push(plan.assemble(&batch, &blocks).unwrap());
        for id in batch.blocks() {
            assert!(plan.last_use(*id) >= at, "{id:?} is used after batch {}", plan.last_use(*id));
        }
        held.retain(|id, _| plan.last_use(*id) > at);
    }
    assert_eq!(next_row, plan.row_range().end, "rows are missing");
    assert!(held.is_empty(), "blocks are kept after the last batch");
    batches
}

fn check_size(plan: &Plan, options: &PlanOptions, rows: u64) {
    let Some(bytes) = plan.bytes().filter(|bytes| *bytes > 0) else { return };
    let row_bytes = bytes / plan.rows();
    let rows_min = if plan.layout() == Layout::Columns { options.batch_rows_min_columns } else { 1 };
    let rows_max = (options.batch_bytes / row_bytes).max(rows_min).max(1);
    assert!(rows <= rows_max + rows_max / 2 + 1, "{rows} rows in a batch, the target is {rows_max}");
}

fn check(store: &Store, choices: &mut Choices, fetch: Fetch<'_>) {
    let views = store.views();
    let shape = total_shape(&views).unwrap();
    let selection = naive::selection(choices, &shape, store.element());
    let selected = selection.resolve(&shape).unwrap();
    let mut options = naive::options(choices, selected.shape().len(), store.element());
    let plan = Plan::new(&views, &selected, &options).unwrap();
    let expected = expected_cells(store, &selection, &shape);
    let batches = read(fetch, &plan, &options);
    assert_eq!(plan.shape(), expected.shape, "shape of {selection}");
    assert_eq!(batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), plan.records());
    let cells = canonical_cells(&plan, &batches);
    assert_eq!(cells, expected.cells, "values of {selection} of {store:?}, layout {:?}", plan.layout());
    naive::check_index_columns(&plan, &batches, &expected);

    let parts = plan.split(1 + choices.below(4));
    let mut again = Vec::new();
    for range in &parts {
        options.row_range = Some(range.clone());
        let part = Plan::new(&views, &selected, &options).unwrap();
        again.extend(read(fetch, &part, &options));
    }
    assert_eq!(again, batches, "{selection} in the parts {parts:?}");
    // Rows that begin within a batch, as when a broken stream is resumed.
    let start = choices.below(plan.rows() as usize + 1) as u64;
    options.row_range = Some(start..plan.rows());
    let rest = Plan::new(&views, &selected, &options).unwrap();
    let resumed = canonical_cells(&rest, &read(fetch, &rest, &options));
    for (whole, resumed) in cells.iter().zip(&resumed) {
        assert_eq!(whole[start as usize..], resumed[..], "{selection} from row {start}");
    }
}

/// Runs `check` on random decisions; the seed is printed, and a failure is made simpler.
fn run(what: &str, cases: u32, choices_max: usize, check: fn(Vec<u32>)) {
    let rng_seed = RngSeed::Fixed(seed::seed(what));
    let cases = seed::cases(cases);
    let config = Config { cases, rng_seed, max_shrink_iters: 20_000, failure_persistence: None, ..Config::default() };
    let strategy = prop::collection::vec(any::<u32>(), 0..choices_max);
    let outcome = TestRunner::new(config).run(&strategy, |choices| {
        check(choices);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_value_of_a_random_selection_is_the_one_the_naive_reader_finds() {
    run("plan_oracle", 4000, 120, |choices| {
        let mut choices = Choices::new(choices);
        let store = Store::random(&mut choices);
        check(&store, &mut choices, &|plan, id| store.fetch(plan, id));
    });
}

/// The whole way: encoded chunks in a file, packed index, coalesced reads, decoders.
#[test]
fn every_value_comes_out_of_a_file_as_it_was_encoded() {
    run("file_oracle", 2000, 500, |choices| {
        let mut choices = Choices::new(choices);
        let store = Store::random(&mut choices);
        let stored = StoredStore::new(store, &mut choices);
        check(&stored.store, &mut choices, &|plan, id| stored.fetch(plan, id));
    });
}
