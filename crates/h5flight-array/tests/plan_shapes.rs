//! How arrays are cut and what is refused: cases written out.

use std::collections::BTreeSet;

use h5flight_array::Reason;
use h5flight_array::codec;
use h5flight_array::index::{ChunkIndex, ChunkPointer};
use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Filter, Space, Storage, Text};
use h5flight_array::plan::{BlockId, BlockSource, ByteRange, ExtentView, Layout, Plan, PlanOptions, total_shape};
use h5flight_array::selection::{Item, Part, Points, Selection};

const BYTE: ElementType = ElementType::Integer { bytes: 1, signed: false, order: ByteOrder::Little };
const U16: ElementType = ElementType::Integer { bytes: 2, signed: false, order: ByteOrder::Little };

fn array(shape: &[u64], storage: Storage, element: ElementType) -> ArrayMeta {
    ArrayMeta {
        space: Space::Simple { shape: shape.to_vec() },
        max_shape: shape.iter().map(|size| Some(*size)).collect(),
        element,
        converted: false,
        type_note: String::new(),
        storage,
        filters: Vec::new(),
        fill: None,
    }
}

fn chunked(shape: &[u64], chunk_shape: &[u64]) -> ArrayMeta {
    array(shape, Storage::Chunked { chunk_shape: chunk_shape.to_vec() }, U16)
}

fn contiguous(shape: &[u64]) -> ArrayMeta {
    array(shape, Storage::Contiguous { offset: Some(100) }, U16)
}

fn plan_with(meta: &ArrayMeta, text: &str, options: &PlanOptions) -> h5flight_array::Result<Plan> {
    let rows = meta.shape().first().copied().unwrap_or(1);
    let extents = [ExtentView { first_row: 0, array_row: 0, rows, meta, inline: false, sources: &[] }];
    let selected = Selection::parse(text)?.resolve(&total_shape(&extents)?)?;
    Plan::new(&extents, &selected, options)
}

fn plan(meta: &ArrayMeta, text: &str) -> Plan {
    plan_with(meta, text, &PlanOptions { layout: Layout::Tensor, ..PlanOptions::default() }).unwrap()
}

/// Rows of each batch.
fn batch_rows(plan: &Plan) -> Vec<u64> {
    (0..plan.batches()).map(|at| plan.batch(at).rows()).map(|rows| rows.end - rows.start).collect()
}

/// Decodes of the whole read when every block is let go after its last use: one per block.
fn decodes(plan: &Plan) -> usize {
    let mut held = BTreeSet::new();
    let mut decodes = 0;
    for at in 0..plan.batches() {
        for id in plan.batch(at).blocks() {
            decodes += usize::from(held.insert(*id));
        }
        held.retain(|id| plan.last_use(*id) > at);
    }
    decodes
}

fn raw_ranges(meta: &ArrayMeta, text: &str) -> Vec<(u64, u64)> {
    let plan = plan(meta, text);
    let source = |at: usize| plan.block(plan.batch(at).blocks()[0], &ChunkIndex::default()).unwrap().source;
    let ranges = (0..plan.batches()).flat_map(|at| match source(at) {
        BlockSource::Raw { ranges } => ranges,
        other => panic!("{other:?}"),
    });
    ranges.map(|ByteRange { offset, bytes }| (offset, bytes)).collect()
}

#[test]
fn batches_end_where_rows_of_chunks_end() {
    // 2,000 bytes a row, 524 rows would be 1 MiB.
    assert_eq!(batch_rows(&plan(&chunked(&[2000, 1000], &[250, 1000]), "")), [500, 500, 500, 500]);
    assert_eq!(batch_rows(&plan(&chunked(&[2000, 1000], &[250, 1000]), "100:")), [400, 500, 500, 500]);
    assert_eq!(batch_rows(&plan(&chunked(&[2000, 1000], &[250, 1000]), "::-1")), [500, 500, 500, 500]);
    // A chunk of 600 rows is one batch and a little, not one and a tiny one; one of 1,500 rows is three.
    assert_eq!(batch_rows(&plan(&chunked(&[1800, 1000], &[600, 1000]), "")), [600, 600, 600]);
    assert_eq!(batch_rows(&plan(&chunked(&[1500, 1000], &[1500, 1000]), "")), [500, 500, 500]);
    // Every second row: a chunk has half as many.
    assert_eq!(batch_rows(&plan(&chunked(&[4000, 1000], &[250, 1000]), "::2")), [500, 500, 500, 500]);
    assert_eq!(batch_rows(&plan(&chunked(&[4000, 1000], &[250, 1000]), "101::2")), [450, 500, 500, 500]);
    assert_eq!(batch_rows(&plan(&chunked(&[4000, 1000], &[250, 1000]), "-101::-2")), [450, 500, 500, 500]);
}

#[test]
fn every_chunk_is_decoded_once_whatever_its_shape() {
    for (shape, chunk_shape, chunks) in [
        ([60_000, 384], [30_000, 1], 768),
        ([60_000, 384], [1, 384], 60_000),
        ([60_000, 384], [60_000, 384], 1),
        ([60_000, 384], [70_000, 400], 1),
        ([60_000, 384], [7_001, 100], 36),
    ] {
        let plan = plan_with(&chunked(&shape, &chunk_shape), "", &PlanOptions::default()).unwrap();
        assert!(plan.batches() > 20, "{} batches", plan.batches());
        assert_eq!(decodes(&plan), chunks, "chunks of {chunk_shape:?}");
    }
}

#[test]
fn the_plan_of_a_huge_array_is_made_at_once() {
    // 2^50 chunks could never be listed.
    let huge = chunked(&[1 << 60, 8], &[1024, 8]);
    let plan = plan(&huge, "");
    assert_eq!(plan.rows(), 1 << 60);
    let last = plan.batch(plan.batches() - 1);
    assert_eq!(last.rows().end, 1 << 60);
    assert_eq!(plan.first_use(last.blocks()[0]), plan.batches() - 1);
    assert_eq!(plan.split(4).len(), 4);
}

#[test]
fn stored_absent_and_foreign_chunks_have_their_sources() {
    let pointer = ChunkPointer { number: 3, offset: 7, bytes: 9, mask: 0 };
    let index = ChunkIndex::from_pointers(vec![pointer]).unwrap();
    let mut meta = chunked(&[5, 5], &[3, 3]);
    let source = |meta: &ArrayMeta, number| {
        let block = plan(meta, "").block(BlockId { extent: 0, number }, &index).unwrap();
        (block.source.clone(), block.shape.clone(), block.cacheable())
    };
    assert_eq!(source(&meta, 3), (BlockSource::Stored(pointer), vec![3, 3], true));
    assert_eq!(source(&meta, 0), (BlockSource::Fill, vec![3, 3], false));
    meta.filters.push(Filter { id: 305, name: "lzo".into(), params: Vec::new() });
    let (worker, shape, _) = source(&meta, 3);
    assert!(matches!(worker, BlockSource::Worker(slab) if slab.origin == [3, 3] && slab.shape == [2, 2]));
    assert_eq!(shape, [2, 2]);
    assert_eq!(source(&meta, 1).0, BlockSource::Fill);
    let unknown = plan(&meta, "").block(BlockId { extent: 0, number: 4 }, &index).unwrap_err();
    assert_eq!(unknown.reason, Reason::Internal);
    assert_eq!([1, 2, 3, 32_000, 0, 305].map(codec::supported), [true, true, true, true, false, false]);
}

#[test]
fn contiguous_arrays_are_read_by_the_bytes_that_are_wanted() {
    // 2,000 bytes a row: rows further apart than a gap are read by themselves, near ones together.
    let meta = contiguous(&[1000, 1000]);
    assert_eq!(raw_ranges(&meta, "10:20"), [(100 + 20_000, 20_000)]);
    assert_eq!(raw_ranges(&meta, "[3, 500, 999]"), [(6_100, 2000), (1_000_100, 2000), (1_998_100, 2000)]);
    assert_eq!(raw_ranges(&meta, "500::-250"), [(100, 2000), (500_100, 2000), (1_000_100, 2000)]);
    assert_eq!(raw_ranges(&meta, "0:6:2"), [(100, 10_000)]);
    // A few columns of each row; many columns are read along.
    assert_eq!(raw_ranges(&meta, "2:4, 10:12"), [(4_120, 4), (6_120, 4)]);
    assert_eq!(raw_ranges(&meta, "2:4, 100:900"), [(4_100, 4000)]);
    assert_eq!(raw_ranges(&meta, "5, 10:12"), [(10_120, 4)]);
    assert_eq!(raw_ranges(&meta, "5, 7"), [(10_114, 2)]);
    assert_eq!(raw_ranges(&contiguous(&[]), ""), [(100, 2)]);
}

#[test]
fn points_of_contiguous_arrays_are_read_by_their_bytes() {
    let meta = contiguous(&[1000, 1000]);
    // Far ones by themselves, near ones together, in the order of the file and each once.
    let text = "points[[999, 999], [0, 0], [0, 0], [500, 7], [500, 10], [-1, -2]]";
    assert_eq!(raw_ranges(&meta, text), [(100, 2), (1_000_114, 8), (2_000_096, 4)]);
}

#[test]
fn points_need_the_chunks_that_they_lie_in_and_no_others() {
    let meta = chunked(&[100, 100], &[10, 30]);
    let plan = plan(&meta, "points[[99, 99], [0, 0], [5, 29], [5, 30], [0, 0], [95, 90]]");
    assert_eq!((plan.shape(), plan.rows(), plan.batches()), (&[6][..], 6, 1));
    let numbers: Vec<u64> = plan.batch(0).blocks().iter().map(|id| id.number).collect();
    assert_eq!(numbers, [0, 1, 39]);
    let block = plan.block(BlockId { extent: 0, number: 39 }, &ChunkIndex::default()).unwrap();
    assert_eq!((block.origin, block.shape), (vec![90, 90], vec![10, 30]));
}

#[test]
fn chunks_that_points_come_back_to_are_decoded_once_while_there_is_memory() {
    // Points run down the first column and up the last one: 2 x 10 chunks of 600 bytes.
    let meta = chunked(&[100, 100], &[10, 30]);
    let points = (0..100).map(|row| format!("[{row},0]")).chain((0..100).rev().map(|row| format!("[{row},99]")));
    let text = format!("points[{}]", points.collect::<Vec<_>>().join(","));
    let options = |batch_bytes, batch_blocks_bytes_max| PlanOptions {
        batch_bytes,
        batch_blocks_bytes_max,
        ..PlanOptions::default()
    };
    let small = plan_with(&meta, &text, &options(40, 64 << 20)).unwrap();
    assert_eq!((batch_rows(&small), decodes(&small)), (vec![20; 10], 20));
    let tight = plan_with(&meta, &text, &options(1 << 20, 1800)).unwrap();
    assert_eq!((batch_rows(&tight), decodes(&tight)), (vec![30, 30, 30, 30, 30, 30, 20], 20));
}

/// Places all over an array of this many elements.
fn scattered(count: u64, size: u64) -> impl Iterator<Item = i64> {
    (0..count).map(move |at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) % size) as i64)
}

/// What plans of 650,000 scattered values do: batches, blocks listed, bytes of the ranges.
fn work(meta: &ArrayMeta, part: Part) -> (usize, usize, u64) {
    let rows = meta.shape()[0];
    let extents = [ExtentView { first_row: 0, array_row: 0, rows, meta, inline: false, sources: &[] }];
    let selected = Selection::of(part, Vec::new()).unwrap().resolve(meta.shape()).unwrap();
    let plan = Plan::new(&extents, &selected, &PlanOptions::default()).unwrap();
    assert_eq!(plan.rows(), 650_000);
    let (mut blocks, mut bytes) = (0, 0);
    for at in 0..plan.batches() {
        let batch = plan.batch(at);
        blocks += batch.blocks().len();
        for id in batch.blocks() {
            let block = plan.block(*id, &ChunkIndex::default()).unwrap();
            if let BlockSource::Raw { ranges } = block.source {
                assert!(ranges.len() <= 1 << 18, "{} ranges in batch {at}", ranges.len());
                bytes += ranges.iter().map(|range| range.bytes).sum::<u64>();
            }
        }
    }
    (plan.batches(), blocks, bytes)
}

#[test]
fn the_work_of_650_000_scattered_points_or_indices_grows_with_them_and_not_with_the_array() {
    let line = || Part::Axes(vec![Item::List(scattered(650_000, 1 << 40).collect())]);
    let plane = || {
        let coordinates = scattered(650_000, 1 << 40).flat_map(|at| [at >> 20, at & 0xF_FFFF]).collect();
        Part::Points(Points::new(2, coordinates).unwrap())
    };
    // Contiguous: three batches of up to 2^18 ranges, and no more bytes than the values have.
    assert_eq!(work(&contiguous(&[1 << 40]), line()), (3, 3, 1_300_000));
    assert_eq!(work(&contiguous(&[1 << 20, 1 << 20]), plane()), (3, 3, 1_300_000));
    // Chunks of 8 KiB, nearly all of them with one value: as many as fit the memory of a batch, 8,192.
    let (batches, blocks, _) = work(&chunked(&[1 << 40], &[4096]), line());
    assert!(batches <= 80 && blocks <= 650_000, "{batches} batches, {blocks} blocks");
    let (batches, blocks, _) = work(&chunked(&[1 << 20, 1 << 20], &[64, 64]), plane());
    assert!(batches <= 80 && blocks <= 650_000, "{batches} batches, {blocks} blocks");
    // Few chunks: each is listed once in each of two batches.
    let near = scattered(650_000, 1 << 20).flat_map(|at| [at >> 10, at & 0x3FF]).collect();
    let near = Part::Points(Points::new(2, near).unwrap());
    assert_eq!(work(&chunked(&[1 << 20, 1 << 20], &[256, 256]), near), (2, 32, 0));
}

#[test]
fn arrays_that_need_the_worker_without_chunks_are_cut_into_whole_rows() {
    let text = ElementType::VarString { text: Text::Utf8 };
    let meta = array(&[100_000, 3], Storage::Contiguous { offset: Some(0) }, text);
    // 1 MiB of strings of an assumed 32 bytes are 32,768 of them, 10,922 whole rows.
    let plan = plan(&meta, "20000:");
    let block = plan.block(plan.batch(0).blocks()[0], &ChunkIndex::default()).unwrap();
    assert!(
        matches!(&block.source, BlockSource::Worker(slab) if slab.origin == [10_922, 0] && slab.shape == [10_922, 3])
    );
    assert_eq!((block.id.number, block.decoded_bytes, block.cacheable()), (1, None, true));
    assert_eq!(decodes(&plan), 9);
}

#[test]
fn refusals_name_their_reason_and_numbers() {
    let text = || ElementType::VarString { text: Text::Utf8 };
    let null = ArrayMeta { space: Space::Null, ..contiguous(&[]) };
    let unsupported = array(&[3], Storage::Compact, ElementType::Unsupported { why: "a time".into() });
    let compound = ElementType::Compound {
        bytes: 2,
        members: vec![h5flight_array::meta::Member { name: "a".into(), offset: 0, element: U16 }],
    };
    let compound = array(&[3, 3], Storage::Compact, compound);
    let compound_points = compound.clone();
    let default = PlanOptions::default;
    let columns = || PlanOptions { layout: Layout::Columns, ..default() };
    let cases: Vec<(ArrayMeta, &str, PlanOptions, Reason, &str)> = vec![
        (null, "", default(), Reason::NullDataspace, "holds no value"),
        (
            array(&[3], Storage::Virtual { mappings: vec![] }, U16),
            "",
            default(),
            Reason::VirtualSourceRefused,
            "virtual",
        ),
        (array(&[3], Storage::External, U16), "", default(), Reason::ExternalStorageRefused, "external"),
        (unsupported, "", default(), Reason::UnsupportedType, "a time"),
        (chunked(&[9000, 9000], &[9000, 9000]), "0, 0", default(), Reason::ChunkTooLarge, "162000000 bytes"),
        (chunked(&[3, 1 << 30], &[1, 100]), "", default(), Reason::ResultTooLarge, "one row"),
        (chunked(&[3, 1 << 22], &[1, 1]), "", default(), Reason::ResultTooLarge, "touches 4194304 chunks"),
        (
            chunked(&[1000, 1000], &[10, 1000]),
            "",
            PlanOptions { result_bytes_max: Some(1_000_000), ..default() },
            Reason::ResultTooLarge,
            "2000000 bytes, the server sends at most 1000000",
        ),
        (chunked(&[9, 9, 9], &[9, 9, 9]), "", columns(), Reason::BadLayout, "rank 3"),
        (chunked(&[9, 5000], &[9, 9]), "", columns(), Reason::BadLayout, "5000 columns, the most is 4096"),
        (compound.clone(), "", columns(), Reason::BadLayout, "column for each member"),
        (compound, "\"b\"", default(), Reason::BadSelection, "no field \"b\"; the fields are a"),
        (contiguous(&[3]), "\"b\"", default(), Reason::BadSelection, "no compounds"),
        (compound_points.clone(), "'b', points[[0, 0]]", default(), Reason::BadSelection, "no field \"b\""),
        (chunked(&[9000, 9000], &[9000, 9000]), "points[[0, 0]]", default(), Reason::ChunkTooLarge, "162000000 bytes"),
        (
            chunked(&[(1 << 62) + 1, 2], &[1 << 61, 3]),
            "points[[0, 0]]",
            PlanOptions { chunk_bytes_max: u64::MAX, row_blocks_bytes_max: u64::MAX, ..default() },
            Reason::ResultTooLarge,
            "more than 2^64 elements",
        ),
        (contiguous(&[3]), "", PlanOptions { row_range: Some(2..4), ..default() }, Reason::OutOfBounds, "rows 2 to 4"),
        (
            array(&[9], Storage::Chunked { chunk_shape: vec![1 << 40] }, text()),
            "",
            default(),
            Reason::ChunkTooLarge,
            "",
        ),
    ];
    for (meta, text, options, reason, message) in cases {
        let error = plan_with(&meta, text, &options).expect_err(message);
        assert_eq!(error.reason, reason, "{}", error.message);
        assert!(error.message.contains(message), "{}", error.message);
    }
}

/// Each of these was once planned: gigabytes from a small request, or from a small file.
#[test]
fn what_one_row_takes_is_bounded_before_it_is_planned() {
    let default = PlanOptions::default;
    let tidy = || PlanOptions { layout: Layout::Tidy, ..default() };
    let deep: Vec<u64> = [vec![1; 31], vec![1 << 24]].concat();
    let cases = [
        // 2^20 chunks that were never stored, 64 MiB each.
        (chunked(&[1, 1 << 45], &[1, 1 << 25]), "0:1, ::33554432", default(), "1048576 chunks"),
        // 2^26 ranges of two bytes: a list of 1 GiB, and as many reads.
        (contiguous(&[2, 1 << 13, 1 << 26]), ":, :, ::8192", default(), "67108864 places"),
        // 16 MiB of values with 31 indices of 8 bytes each.
        (array(&deep, Storage::Compact, U16), "", tidy(), "one row"),
    ];
    for (meta, text, options, message) in cases {
        meta.check().unwrap();
        let error = plan_with(&meta, text, &options).expect_err(message);
        assert_eq!(error.reason, Reason::ResultTooLarge, "{}", error.message);
        assert!(error.message.contains(message), "{}", error.message);
    }
}

/// They were joined into one range from the first to the last, however far apart.
#[test]
fn many_rows_far_apart_are_read_one_by_one() {
    let meta = array(&[1 << 40], Storage::Contiguous { offset: Some(0) }, BYTE);
    let scattered = (0..200_000u64).map(|at| (at * 7_919 % 200_000 * 5000).to_string()).collect::<Vec<_>>().join(",");
    for (text, rows) in [(":2000000000:5000".to_owned(), 400_000), (format!("[{scattered}]"), 200_000)] {
        let ranges = raw_ranges(&meta, &text);
        assert_eq!(ranges.len(), rows);
        assert!(ranges.iter().all(|(_, bytes)| *bytes == 1));
    }
}

#[test]
fn wide_rows_do_not_fill_the_least_batch_of_columns() {
    let wide = ElementType::Opaque { bytes: 16_384, tag: String::new() };
    let meta = array(&[5000, 4096], Storage::Contiguous { offset: Some(0) }, wide);
    let options = || PlanOptions { layout: Layout::Columns, ..PlanOptions::default() };
    // 1,000 rows would be 64 GiB.
    assert_eq!(batch_rows(&plan_with(&meta, ":3", &options()).unwrap()), [1, 1, 1]);
    let numbers = array(
        &[2000, 4096],
        Storage::Contiguous { offset: Some(0) },
        ElementType::Float { bytes: 8, order: ByteOrder::Little },
    );
    assert_eq!(batch_rows(&plan_with(&numbers, "", &options()).unwrap()), [1000, 1000]);
}

#[test]
fn batches_of_tiny_chunks_hold_a_bounded_number_of_them() {
    let meta = chunked(&[1_000_000], &[1]);
    assert!((0..plan(&meta, "").batches()).all(|at| plan(&meta, "").batch(at).blocks().len() <= 1 << 17));
}

#[test]
fn arrays_of_more_elements_than_libhdf5_counts_are_malformed() {
    // A chunk number or the end of an array would pass 64 bits.
    for shape in [&[1 << 63][..], &[1 << 32, 1 << 32], &[0, u64::MAX], &[1 << 40, 1 << 40, 0, 1 << 63]] {
        assert_eq!(
            chunked(shape, &vec![1; shape.len()]).check().unwrap_err().reason,
            Reason::MalformedFile,
            "{shape:?}"
        );
    }
    chunked(&[(1 << 63) - 1], &[1]).check().unwrap();
    let half = chunked(&[1 << 62], &[1]);
    let view =
        |first_row| ExtentView { first_row, array_row: 0, rows: 1 << 62, meta: &half, inline: false, sources: &[] };
    assert_eq!(total_shape(&[view(0)]).unwrap(), [1 << 62]);
    assert_eq!(total_shape(&[view(0), view(1 << 62)]).unwrap_err().reason, Reason::UnsupportedLayout);
    let text = || Box::new(ElementType::VarString { text: Text::Utf8 });
    let large = |dims: &[u32]| ElementType::Array { dims: dims.to_vec(), item: text() };
    large(&[1 << 29]).check().unwrap();
    for dims in [&[1 << 30][..], &[1 << 20, 1 << 20], &[u32::MAX; 32]] {
        assert_eq!(large(dims).check().unwrap_err().reason, Reason::MalformedFile, "{dims:?}");
    }
}

/// The ends of the longest axes there are, both ways.
#[test]
fn the_longest_axis_is_cut_without_overflow() {
    for (rows, chunk) in [((1u64 << 63) - 1, 1u64 << 25), ((1 << 63) - 1, 1000), ((1 << 62) + 1, 3)] {
        for text in ["::-1", "::-3", ":", "5:", "::9223372036854775806", "-1::-9223372036854775806"] {
            let plan = plan(&chunked(&[rows], &[chunk]), text);
            for at in [0, plan.batches() / 2, plan.batches() - 1] {
                let batch = plan.batch(at);
                assert!(!batch.rows().is_empty());
                batch.blocks().iter().for_each(|id| assert!((plan.first_use(*id)..=plan.last_use(*id)).contains(&at)));
            }
        }
    }
}

#[test]
fn extents_that_do_not_fit_each_other_are_refused() {
    let (a, b) = (chunked(&[4, 3], &[2, 3]), chunked(&[4, 5], &[2, 3]));
    let view =
        |first_row, array_row, rows, meta| ExtentView { first_row, array_row, rows, meta, inline: false, sources: &[] };
    assert_eq!(total_shape(&[view(0, 0, 4, &a), view(4, 2, 2, &a)]).unwrap(), [6, 3]);
    for bad in [vec![], vec![view(0, 0, 4, &a), view(4, 0, 4, &b)], vec![view(1, 0, 3, &a)], vec![view(0, 2, 3, &a)]] {
        assert_eq!(total_shape(&bad).unwrap_err().reason, Reason::UnsupportedLayout);
    }
}

#[test]
fn a_split_read_has_the_same_batches() {
    let meta = chunked(&[2000, 1000], &[250, 1000]);
    let whole = plan(&meta, "");
    assert_eq!(whole.split(2), [0..1000, 1000..2000]);
    assert_eq!(whole.split(3), [0..500, 500..1000, 1000..2000]);
    assert_eq!(whole.split(100).len(), 4);
}
