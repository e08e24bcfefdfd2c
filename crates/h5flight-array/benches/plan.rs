//! What deciding costs, without reading: `cargo bench -p h5flight-array --bench plan`.
//!
//! Lists of 650,000 indices and as many points, scattered over an array and in its order: resolving the selection, making
//! the plan, and going through all its batches, as the look-ahead of a read does.

use divan::{Bencher, black_box};
use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Space, Storage};
use h5flight_array::plan::{ExtentView, Plan, PlanOptions};
use h5flight_array::selection::{Item, Part, Points, Selection};

const COUNT: u64 = 650_000;
const ROWS: u64 = 1 << 20;
const COLUMNS: u64 = 384;

/// How the entries follow each other.
#[derive(Clone, Copy, Debug)]
enum Order {
    Scattered,
    Ascending,
}

const ORDERS: [Order; 2] = [Order::Scattered, Order::Ascending];

fn main() {
    divan::main();
}

fn places(order: Order, size: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..COUNT).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15) % size).collect();
    if matches!(order, Order::Ascending) {
        places.sort_unstable();
    }
    places
}

fn list(order: Order) -> Part {
    Part::Axes(vec![Item::List(places(order, ROWS).into_iter().map(u64::cast_signed).collect()), Item::Index(7)])
}

fn points(order: Order) -> Part {
    let coordinates = places(order, ROWS * COLUMNS).into_iter().flat_map(|at| [at / COLUMNS, at % COLUMNS]);
    Part::Points(Points::new(2, coordinates.map(u64::cast_signed).collect()).expect("whole points"))
}

fn chunked() -> Storage {
    Storage::Chunked { chunk_shape: vec![30_000, 8] }
}

fn contiguous() -> Storage {
    Storage::Contiguous { offset: Some(2048) }
}

fn bench_plan(bencher: Bencher, storage: Storage, part: Part) {
    let shape = vec![ROWS, COLUMNS];
    let meta = ArrayMeta {
        max_shape: shape.iter().map(|size| Some(*size)).collect(),
        space: Space::Simple { shape },
        element: ElementType::Integer { bytes: 2, signed: true, order: ByteOrder::Little },
        converted: false,
        type_note: String::new(),
        storage,
        filters: Vec::new(),
        fill: None,
    };
    let selection = Selection::of(part, Vec::new()).expect("a valid selection");
    bencher.bench_local(|| {
        let extents = [ExtentView { first_row: 0, array_row: 0, rows: ROWS, meta: &meta, inline: false, sources: &[] }];
        let selected = black_box(&selection).resolve(meta.shape()).expect("all inside");
        let plan = Plan::new(&extents, &selected, &PlanOptions::default()).expect("a valid plan");
        (0..plan.batches()).map(|at| plan.batch(at).blocks().len()).sum::<usize>()
    });
}

#[divan::bench(args = ORDERS)]
fn indices_chunked(bencher: Bencher, order: Order) {
    bench_plan(bencher, chunked(), list(order));
}

#[divan::bench(args = ORDERS)]
fn indices_contiguous(bencher: Bencher, order: Order) {
    bench_plan(bencher, contiguous(), list(order));
}

#[divan::bench(args = ORDERS)]
fn points_chunked(bencher: Bencher, order: Order) {
    bench_plan(bencher, chunked(), points(order));
}

#[divan::bench(args = ORDERS)]
fn points_contiguous(bencher: Bencher, order: Order) {
    bench_plan(bencher, contiguous(), points(order));
}
