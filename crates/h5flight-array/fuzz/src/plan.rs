//! Metadata as the catalogue or the worker has it, with any numbers, and plans of it.

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::batch::{Composition, Decoded};
use h5flight_array::index::ChunkIndex;
use h5flight_array::meta::{ArrayMeta, ElementType, Filter, SlabAxis, Space, Storage, VirtualMapping};
use h5flight_array::plan::{
    Block, BlockSource, ExtentView, Layout, Looks, Plan, PlanOptions, SourceView, VirtualCopy, VirtualSource,
    total_shape,
};
use h5flight_array::selection::{Item, Part, Points, Runs, Selection};

use super::input::Input;

/// Blocks of a batch that are looked at.
const BLOCKS_MAX: usize = 50;
/// Mappings of a virtual array.
const MAPPINGS_MAX: usize = 5;
/// Elements of a block that is put together.
const SMALL_BLOCK: u64 = 500;

/// Any facts about an array and any selection of it: refused, or a plan whose numbers fit each other.
pub fn plans(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let metas: Vec<ArrayMeta> = if input.below(4) == 3 {
        serde_json::from_slice(data.get(1..).unwrap_or_default()).into_iter().collect()
    } else {
        arrays(&mut input)
    };
    let source = source(&mut input, metas.first());
    if metas.iter().chain([&source]).any(|meta| meta.check().is_err()) {
        return 0;
    }
    let sources = [SourceView::Served(&source); MAPPINGS_MAX];
    let mut first_row = 0;
    let views: Vec<ExtentView<'_>> = metas
        .iter()
        .map(|meta| {
            let size = meta.shape().first().copied().unwrap_or(1);
            let array_row = if input.coin() { input.number().min(size) } else { 0 };
            let rows = if input.coin() { input.number() } else { size - array_row };
            let sources = &sources[..mappings(meta).min(MAPPINGS_MAX)];
            let view = ExtentView { first_row, array_row, rows, meta, inline: input.below(8) == 7, sources };
            first_row = first_row.wrapping_add(rows);
            view
        })
        .collect();
    let Ok(shape) = total_shape(&views) else { return 0 };
    let Ok(selection) = Selection::of(part(&mut input, &shape), Vec::new()) else { return 0 };
    let Ok(selected) = selection.resolve(&shape) else { return 0 };
    let options = options(&mut input);
    if let Ok(plan) = Plan::new(&views, &selected, &options) {
        look_at(&plan, &options, &source);
    }
    // Fixed bounds of a plan, whatever the input: a million ranges or blocks of one row, their pieces, growth by halves.
    160 << 20
}

fn mappings(meta: &ArrayMeta) -> usize {
    if let Storage::Virtual { mappings } = &meta.storage { mappings.len() } else { 0 }
}

/// What virtual arrays are made of: mostly of their own element type, or nothing could be mapped.
fn source(input: &mut Input<'_>, of: Option<&ArrayMeta>) -> ArrayMeta {
    let element = match of {
        Some(meta) if input.below(8) < 7 => meta.element.clone(),
        _ => input.element(1),
    };
    let trailing: Vec<u64> = (0..input.below(3)).map(|_| input.number()).collect();
    let made = array(input, &element, Some(&trailing));
    let storage = match made.storage {
        Storage::Virtual { .. } => Storage::Compact,
        storage => storage,
    };
    ArrayMeta { storage, converted: of.is_some_and(|meta| meta.converted), ..made }
}

fn mapping(input: &mut Input<'_>, rank: usize) -> VirtualMapping {
    let axis = |input: &mut Input<'_>| match input.below(3) {
        0 => SlabAxis {
            start: input.number(),
            stride: input.number(),
            count: Some(input.number()),
            block: input.number(),
        },
        1 => SlabAxis { start: input.number(), stride: 1 + input.number() % 9, count: None, block: 1 },
        _ => SlabAxis::run(input.number(), input.number()),
    };
    let slab = |input: &mut Input<'_>, rank| (0..rank).map(|_| axis(input)).collect::<Vec<_>>();
    let own = slab(input, rank);
    let source_slab = match input.below(4) {
        0 => None,
        // The same boxes elsewhere: the two sides fit.
        1 | 2 => Some(own.iter().map(|axis| SlabAxis { start: input.number(), ..*axis }).collect()),
        _ => Some(slab(input, rank)),
    };
    VirtualMapping { file: None, path: "/a".into(), slab: own, source_slab }
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
    let storage = match input.below(7) {
        0 => Storage::Compact,
        1 => Storage::Contiguous { offset: None },
        2 => Storage::Contiguous { offset: Some(input.number()) },
        3 => {
            Storage::Virtual { mappings: (0..input.below(MAPPINGS_MAX)).map(|_| mapping(input, shape.len())).collect() }
        }
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

fn part(input: &mut Input<'_>, shape: &[u64]) -> Part {
    if input.below(4) < 3 {
        return Part::Axes(items(input, shape));
    }
    let points = input.below(20);
    let coordinates = (0..points).flat_map(|_| shape).map(|size| (input.number() % (*size).max(1)) as i64).collect();
    Points::new(shape.len(), coordinates).map_or(Part::Axes(Vec::new()), Part::Points)
}

fn items(input: &mut Input<'_>, shape: &[u64]) -> Vec<Item> {
    let mut items = Vec::new();
    for size in shape {
        let inside = |input: &mut Input<'_>| (input.number() % (*size).max(1)) as i64;
        items.push(match input.below(7) {
            0 => Item::ALL,
            1 => Item::Index(inside(input)),
            2 => Item::List((0..input.below(20)).map(|_| inside(input)).collect()),
            3 => {
                let range = |input: &mut Input<'_>| {
                    let first = inside(input) as u64;
                    first..(first + input.below(30) as u64).min(*size)
                };
                Item::Runs(Arc::new(Runs::new((0..input.below(8)).map(|_| range(input)))))
            }
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

fn look_at(plan: &Plan, options: &PlanOptions, source: &ArrayMeta) {
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
            let block = match plan.block(*id, &ChunkIndex::default()) {
                Ok(block) => block,
                // A tile that cannot be read, or too many points among too many tiles.
                Err(error) => {
                    assert_ne!(error.reason, Reason::Internal, "{error}");
                    continue;
                }
            };
            let uses = plan.first_use(*id)..=plan.last_use(*id);
            assert!(uses.contains(&at), "batch {at} needs {id:?}, used in {uses:?}");
            if let BlockSource::Virtual(copies) = &block.source {
                compose(&block, copies, options, source);
            }
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

/// Puts a small virtual block together from fill values.
fn compose(block: &Block, copies: &[VirtualCopy], options: &PlanOptions, source: &ArrayMeta) {
    let Ok(prepared) = VirtualSource::new(source, false, &[]) else { return };
    if block.elements() > SMALL_BLOCK {
        return;
    }
    let mut composition = Composition::new(block, source).unwrap();
    for copy in copies.iter().take(BLOCKS_MAX) {
        let Ok(plan) = copy.plan(&prepared, options, &mut Looks::default()) else { continue };
        for batch in (0..plan.batches()).map(|at| plan.batch(at)) {
            let blocks = batch.blocks().iter().map(|id| {
                let block = plan.block(*id, &ChunkIndex::default()).unwrap();
                let small = block.elements() <= SMALL_BLOCK && block.decoded_bytes.is_none_or(|bytes| bytes < 1 << 16);
                small.then(|| Arc::new(Decoded::fill(&block, source).unwrap()))
            });
            if let Some(blocks) = blocks.collect::<Option<Vec<_>>>() {
                composition.take(copy, &plan, &batch, &blocks).unwrap();
            }
        }
    }
    assert!(composition.finish(source).is_ok());
}
