//! Metadata as the catalogue or the worker has it, with any numbers, and plans of it.

use h5flight_array::index::ChunkIndex;
use h5flight_array::meta::{ArrayMeta, ElementType, Filter, Space, Storage};
use h5flight_array::plan::{BlockSource, ExtentView, Layout, Plan, PlanOptions, total_shape};
use h5flight_array::selection::{Item, Selection};

use super::input::Input;

/// Blocks of a batch that are looked at.
const BLOCKS_MAX: usize = 50;

/// Any facts about an array and any selection of it: refused, or a plan whose numbers fit each other.
pub fn plans(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let metas: Vec<ArrayMeta> = if input.below(4) == 3 {
        serde_json::from_slice(data.get(1..).unwrap_or_default()).into_iter().collect()
    } else {
        arrays(&mut input)
    };
    if metas.iter().any(|meta| meta.check().is_err()) {
        return 0;
    }
    let mut first_row = 0;
    let views: Vec<ExtentView<'_>> = metas
        .iter()
        .map(|meta| {
            let size = meta.shape().first().copied().unwrap_or(1);
            let array_row = if input.coin() { input.number().min(size) } else { 0 };
            let rows = if input.coin() { input.number() } else { size - array_row };
            let view = ExtentView { first_row, array_row, rows, meta, inline: input.below(8) == 7, sources: &[] };
            first_row = first_row.wrapping_add(rows);
            view
        })
        .collect();
    let Ok(shape) = total_shape(&views) else { return 0 };
    let Ok(selection) = Selection::new(items(&mut input, &shape), Vec::new()) else { return 0 };
    let Ok(selected) = selection.resolve(&shape) else { return 0 };
    let options = options(&mut input);
    if let Ok(plan) = Plan::new(&views, &selected, &options) {
        look_at(&plan, &options);
    }
    // Fixed bounds of a plan, whatever the input: a million ranges or blocks of one row, their pieces, growth by halves.
    160 << 20
}

fn arrays(input: &mut Input<'_>) -> Vec<ArrayMeta> {
    let element = if input.coin() { input.element(1) } else { input.element(4) };
    let trailing: Vec<u64> = (0..input.below(5)).map(|_| input.number()).collect();
    let rank = if input.below(8) == 7 { 0 } else { trailing.len() + 1 };
    let extents = if input.below(3) == 2 { 1 + input.below(4) } else { 1 };
    (0..extents).map(|_| array(input, &element, if rank == 0 { None } else { Some(&trailing) })).collect()
}

fn array(input: &mut Input<'_>, element: &ElementType, trailing: Option<&Vec<u64>>) -> ArrayMeta {
    let shape: Vec<u64> = trailing.map_or_else(Vec::new, |trailing| [&[input.number()], trailing.as_slice()].concat());
    let storage = match input.below(6) {
        0 => Storage::Compact,
        1 => Storage::Contiguous { offset: None },
        2 => Storage::Contiguous { offset: Some(input.number()) },
        _ => Storage::Chunked { chunk_shape: shape.iter().map(|_| input.number()).collect() },
    };
    let filters =
        (0..input.below(3)).map(|_| Filter { id: input.below(5) as u32, name: String::new(), params: vec![] });
    let filters = filters.collect();
    let fill = input.coin().then(|| vec![7; element.fixed_bytes().unwrap_or(0).min(1 << 16) as usize]);
    ArrayMeta {
        max_shape: Vec::new(),
        space: Space::Simple { shape },
        element: element.clone(),
        converted: input.below(4) == 3,
        type_note: String::new(),
        storage,
        filters,
        fill,
    }
}

fn items(input: &mut Input<'_>, shape: &[u64]) -> Vec<Item> {
    let mut items = Vec::new();
    for size in shape {
        let inside = |input: &mut Input<'_>| (input.number() % (*size).max(1)) as i64;
        items.push(match input.below(6) {
            0 => Item::ALL,
            1 => Item::Index(inside(input)),
            2 => Item::List((0..input.below(20)).map(|_| inside(input)).collect()),
            _ => {
                let bound = |input: &mut Input<'_>| input.coin().then(|| input.signed());
                Item::Slice { start: bound(input), stop: bound(input), step: input.coin().then(|| input.signed()) }
            }
        });
    }
    items
}

fn options(input: &mut Input<'_>) -> PlanOptions {
    PlanOptions {
        layout: [Layout::Auto, Layout::Tensor, Layout::Columns, Layout::Tidy][input.below(4)],
        batch_bytes: 1 << input.below(24),
        batch_rows_min_columns: input.number(),
        batch_blocks_bytes_max: 1 << input.below(21),
        row_blocks_bytes_max: 1 << input.below(26),
        row_range: input.coin().then(|| input.number()..input.number()),
        ..PlanOptions::default()
    }
}

fn look_at(plan: &Plan, options: &PlanOptions) {
    let range = plan.row_range();
    let _ = (plan.records(), plan.bytes(), plan.working_bytes());
    let parts = plan.split(3);
    assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?}");
    let last = plan.batches().saturating_sub(1);
    for at in [0, 1, last / 2, last] {
        if at >= plan.batches() {
            continue;
        }
        let batch = plan.batch(at);
        let rows = batch.rows();
        assert!(rows.start < rows.end && range.start <= rows.start && rows.end <= range.end, "{rows:?} of {range:?}");
        assert!(at > 0 || rows.start == range.start);
        assert!(at < last || rows.end == range.end);
        let blocks = batch.blocks();
        let picked = blocks.iter().take(BLOCKS_MAX).chain(blocks.iter().rev().take(BLOCKS_MAX));
        for id in picked {
            let block = plan.block(*id, &ChunkIndex::default()).unwrap();
            let uses = plan.first_use(*id)..=plan.last_use(*id);
            assert!(uses.contains(&at), "batch {at} needs {id:?}, used in {uses:?}");
            if let BlockSource::Raw { ranges } = &block.source {
                let bytes: u64 = ranges.iter().map(|range| range.bytes).sum();
                assert_eq!(Some(bytes), block.decoded_bytes);
                assert!(ranges.windows(2).all(|pair| pair[0].offset + pair[0].bytes < pair[1].offset));
            }
            let bytes_max = options.row_bytes_max.max(options.batch_blocks_bytes_max).max(options.chunk_bytes_max);
            assert!(block.decoded_bytes.is_none_or(|bytes| bytes <= bytes_max), "{block:?}");
        }
    }
}
