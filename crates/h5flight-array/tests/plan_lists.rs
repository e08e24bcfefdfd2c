//! Plans of long lists in hostile orders: work and memory in proportion to the list.

use h5flight_array::index::ChunkIndex;
use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Space, Storage};
use h5flight_array::plan::{BlockSource, ExtentView, Layout, Plan, PlanOptions, total_shape};
use h5flight_array::selection::{Item, Selection};
use rustix::time::{ClockId, clock_gettime};

const ENTRIES: u64 = 650_000;
const ROWS: u64 = 1_000_000;
/// Time of this thread, not of the clock on the wall: a hundred times what a list takes, and a thousandth of what it
/// would take if each entry looked at all others.
const CPU_SECONDS_MAX: i64 = 20;

fn lists() -> Vec<(&'static str, Vec<u64>)> {
    let entries = |index: fn(u64) -> u64| (0..ENTRIES).map(index).collect();
    vec![
        ("ascending with a gap", entries(|at| at + at / 1000)),
        ("descending with a gap", entries(|at| ROWS - 1 - at - at / 1000)),
        ("alternating ends", entries(|at| if at % 2 == 0 { at / 2 } else { ROWS - 1 - at / 2 })),
        ("two rows in turn", entries(|at| at % 2 * (ROWS - 1))),
        ("all equal but one", entries(|at| u64::from(at == 7))),
        ("scattered", entries(|at| at * 612_361 % ROWS)),
        ("scattered pairs", entries(|at| at / 2 * 612_361 % ROWS)),
        ("ten thousand rows again and again", entries(|at| at % 10_000 * 97)),
    ]
}

/// Arrays that are cut into blocks in every way.
fn arrays() -> Vec<ArrayMeta> {
    let array = |storage, converted| ArrayMeta {
        space: Space::Simple { shape: vec![ROWS, 4] },
        max_shape: Vec::new(),
        element: ElementType::Integer { bytes: 2, signed: false, order: ByteOrder::Little },
        converted,
        type_note: String::new(),
        storage,
        filters: Vec::new(),
        fill: None,
    };
    vec![
        array(Storage::Chunked { chunk_shape: vec![1, 4] }, false),
        array(Storage::Chunked { chunk_shape: vec![1000, 3] }, false),
        array(Storage::Chunked { chunk_shape: vec![ROWS, 4] }, false),
        array(Storage::Contiguous { offset: Some(800) }, false),
        array(Storage::Contiguous { offset: Some(800) }, true),
    ]
}

/// Plans the list and looks at every batch and block: (batches, blocks and byte ranges).
fn work(meta: &ArrayMeta, list: &[u64], options: &PlanOptions) -> (u64, u64) {
    let items = vec![Item::List(list.iter().map(|index| *index as i64).collect())];
    let selection = Selection::new(items, Vec::new()).unwrap();
    let view = ExtentView { first_row: 0, array_row: 0, rows: ROWS, meta, inline: false, sources: &[] };
    let selected = selection.resolve(&total_shape(&[view]).unwrap()).unwrap();
    let before = clock_gettime(ClockId::ThreadCPUTime).tv_sec;
    let plan = Plan::new(&[view], &selected, options).unwrap();
    let mut touched = 0;
    for at in 0..plan.batches() {
        let batch = plan.batch(at);
        touched += batch.blocks().len() as u64;
        for id in batch.blocks() {
            assert!((plan.first_use(*id)..=plan.last_use(*id)).contains(&at), "{id:?}");
            if let BlockSource::Raw { ranges } = plan.block(*id, &ChunkIndex::default()).unwrap().source {
                touched += ranges.len() as u64;
            }
        }
    }
    let seconds = clock_gettime(ClockId::ThreadCPUTime).tv_sec - before;
    assert!(seconds < CPU_SECONDS_MAX, "{seconds} s for {:?}", meta.storage);
    (plan.batches() as u64, touched)
}

#[test]
fn a_list_of_650_000_indices_is_planned_in_linear_work_whatever_its_order() {
    let arrays = arrays();
    for (name, list) in lists() {
        // Chunks of one row are the most that can be touched; the worst order meets every way of cutting.
        let arrays = match name {
            "scattered" => &arrays[..],
            "alternating ends" => &arrays[..1],
            _ => &arrays[1..2],
        };
        for meta in arrays {
            let (batches, touched) = work(meta, &list, &PlanOptions::default());
            // Two blocks side by side hold a row; no order makes it more.
            assert!(touched <= 2 * ENTRIES && batches < 64, "{name}: {batches} batches, {touched} blocks and ranges");
        }
    }
}

#[test]
fn a_batch_for_each_row_of_a_long_list_is_linear_too() {
    let (_, list) = lists().into_iter().find(|(name, _)| *name == "scattered").unwrap();
    let options = PlanOptions { layout: Layout::Tensor, batch_bytes: 1, ..PlanOptions::default() };
    for meta in [&arrays()[0], &arrays()[3]] {
        assert_eq!(work(meta, &list[..100_000], &options).0, 100_000);
    }
}
