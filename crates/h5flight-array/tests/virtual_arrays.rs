//! Virtual arrays against a naive reader: every selection of random mappings of random sources.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt32Type;
use h5flight_array::batch::{Composition, Decoded};
use h5flight_array::index::{ChunkIndex, ChunkPointer};
use h5flight_array::meta::{
    ArrayMeta, ByteOrder, ElementType, SlabAxis, Space, Storage, Text, VirtualMapping, product,
};
use h5flight_array::plan::{
    BatchPlan, Block, BlockSource, ExtentView, Layout, Looks, Plan, PlanOptions, SourceView, VirtualSource, total_shape,
};
use h5flight_array::selection::{AxisSelection, Item, Part, Picked, Points, Selection};
use h5flight_array::{Error, Reason};
use proptest::prelude::*;

const U32: ElementType = ElementType::Integer { bytes: 4, signed: false, order: ByteOrder::Little };
const TEXT: ElementType = ElementType::VarString { text: Text::Utf8 };

/// An array with the value of each element; a virtual one has sources, `None` where one is not served.
#[derive(Clone, Debug)]
struct NaiveArray {
    meta: ArrayMeta,
    inline: bool,
    values: Vec<u32>,
    sources: Vec<Option<Arc<NaiveArray>>>,
}

impl NaiveArray {
    fn plain(shape: &[u64], storage: Storage, element: &ElementType, seed: u32) -> Self {
        let count = product(shape).unwrap() as u32;
        let filters = Vec::new();
        Self {
            meta: ArrayMeta {
                space: Space::Simple { shape: shape.to_vec() },
                max_shape: shape.iter().map(|size| Some(*size)).collect(),
                element: element.clone(),
                converted: false,
                type_note: String::new(),
                storage,
                filters,
                fill: None,
            },
            inline: false,
            values: (0..count).map(|at| seed + at).collect(),
            sources: Vec::new(),
        }
    }

    fn composed(shape: &[u64], mappings: Vec<(VirtualMapping, Option<Arc<Self>>)>, element: &ElementType) -> Self {
        let (mappings, sources): (Vec<_>, Vec<_>) = mappings.into_iter().unzip();
        let mut array = Self::plain(shape, Storage::Virtual { mappings: mappings.clone() }, element, 0);
        let fill = 7;
        array.meta.fill = Some(stored(element, &[fill]));
        array.values.fill(fill);
        for (mapping, source) in mappings.iter().zip(&sources) {
            let Some(source) = source else { continue };
            let whole: Vec<SlabAxis> = source.meta.shape().iter().map(|size| SlabAxis::run(0, *size)).collect();
            let from = mapping.source_slab.as_ref().unwrap_or(&whole);
            let to = indices(&mapping.slab, shape);
            let from = indices(from, source.meta.shape());
            for (to, from) in to.into_iter().zip(from) {
                array.values[to] = source.values[from];
            }
        }
        array.sources = sources;
        array.meta.check().unwrap();
        array
    }

    fn with_view<T>(&self, use_view: impl FnOnce(&ExtentView<'_>) -> T) -> T {
        let sources: Vec<SourceView<'_>> = self
            .sources
            .iter()
            .map(|source| match source {
                Some(source) => SourceView::Served(&source.meta),
                None => SourceView::Refused(Reason::VirtualSourceRefused, "not served"),
            })
            .collect();
        let rows = self.meta.shape().first().copied().unwrap_or(1);
        let (meta, inline) = (&self.meta, self.inline);
        use_view(&ExtentView { first_row: 0, array_row: 0, rows, meta, inline, sources: &sources })
    }

    fn index(&self) -> ChunkIndex {
        let Storage::Chunked { chunk_shape } = &self.meta.storage else { return ChunkIndex::default() };
        let chunks = self.meta.shape().iter().zip(chunk_shape).map(|(size, chunk)| size.div_ceil(*chunk)).product();
        let pointer = |number| ChunkPointer { number, offset: 0, bytes: 1, mask: 0 };
        ChunkIndex::from_pointers((0..chunks).map(pointer).collect()).unwrap()
    }

    fn decode(&self, block: &Block, options: &PlanOptions) -> Result<Decoded, Error> {
        match &block.source {
            BlockSource::Fill => Decoded::fill(block, &self.meta),
            BlockSource::Virtual(copies) => {
                let mut composition = Composition::new(block, &self.meta)?;
                for copy in copies {
                    let source =
                        self.sources[copy.mapping as usize].as_ref().expect("a plan refuses what is not served");
                    let prepared = source.with_view(|view| VirtualSource::new(view.meta, view.inline, view.sources))?;
                    let plan = copy.plan(&prepared, options, &mut Looks::default())?;
                    for at in 0..plan.batches() {
                        let batch = plan.batch(at);
                        composition.take(copy, &plan, &batch, &source.blocks(&plan, &batch, options)?)?;
                    }
                }
                composition.finish(&self.meta)
            }
            BlockSource::Raw { ranges } => {
                let file = stored(&self.meta.element, &self.values);
                let bytes: Vec<u8> = ranges
                    .iter()
                    .flat_map(|range| file[range.offset as usize..(range.offset + range.bytes) as usize].to_vec())
                    .collect();
                Decoded::new(bytes.into(), block, &self.meta)
            }
            BlockSource::Inline | BlockSource::Stored(_) | BlockSource::Worker(_) => {
                let axes: Vec<SlabAxis> =
                    block.origin.iter().zip(&block.shape).map(|(origin, size)| SlabAxis::run(*origin, *size)).collect();
                let shape: Vec<u64> =
                    block.origin.iter().zip(&block.shape).map(|(origin, size)| origin + size).collect();
                let wide: Vec<u64> = self.meta.shape().iter().zip(&shape).map(|(a, b)| *a.max(b)).collect();
                // Past the array's edge chunks hold rubbish.
                let value = |at: usize| {
                    let index = unravel(at as u64, &wide);
                    let inside = index.iter().zip(self.meta.shape()).all(|(index, size)| index < size);
                    if inside { self.values[ravel(&index, self.meta.shape())] } else { 999_999 }
                };
                let values: Vec<u32> = indices(&axes, &wide).into_iter().map(value).collect();
                Decoded::new(stored(&self.meta.element, &values).into(), block, &self.meta)
            }
        }
    }

    fn blocks(&self, plan: &Plan, batch: &BatchPlan, options: &PlanOptions) -> Result<Vec<Arc<Decoded>>, Error> {
        let index = self.index();
        let decode = |id| Ok(Arc::new(self.decode(&plan.block(id, &index)?, options)?));
        batch.blocks().iter().map(|id| decode(*id)).collect()
    }

    fn read(&self, selection: &Selection, options: &PlanOptions) -> Result<Vec<u32>, Error> {
        let plan = self.with_view(|view| {
            let selected = selection.resolve(&total_shape(&[*view])?)?;
            Plan::new(&[*view], &selected, options)
        })?;
        let mut values = Vec::new();
        for at in 0..plan.batches() {
            let batch = plan.batch(at);
            let records = plan.assemble(&batch, &self.blocks(&plan, &batch, options)?)?;
            let column = records.column(0);
            let column = column.as_fixed_size_list_opt().map_or(column, |list| list.values());
            match column.as_primitive_opt::<UInt32Type>() {
                Some(numbers) => values.extend(numbers.values()),
                None => {
                    values.extend(column.as_string::<i32>().iter().map(|text| text.unwrap().parse::<u32>().unwrap()))
                }
            }
        }
        Ok(values)
    }

    fn expected(&self, selection: &Selection) -> Vec<u32> {
        let shape = self.meta.shape();
        let selected = selection.resolve(shape).unwrap();
        if let Picked::Elements(positions) = selected.picked() {
            return positions.iter().map(|position| self.values[*position as usize]).collect();
        }
        let axes: Vec<Vec<u64>> = selected
            .axes()
            .iter()
            .map(|axis| match axis {
                AxisSelection::Index(index) => vec![*index],
                AxisSelection::Range { start, step, count } => {
                    (0..*count).map(|at| start.checked_add_signed(step * at as i64).unwrap()).collect()
                }
                AxisSelection::List(list) => list.to_vec(),
                AxisSelection::Runs(runs) => runs.ranges().flatten().collect(),
            })
            .collect();
        products(&axes).into_iter().map(|index| self.values[ravel(&index, shape)]).collect()
    }
}

fn stored(element: &ElementType, values: &[u32]) -> Vec<u8> {
    let bytes = |value: &u32| match element {
        ElementType::VarString { .. } => {
            let text = value.to_string();
            [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
        }
        _ => value.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

fn ravel(index: &[u64], shape: &[u64]) -> usize {
    index.iter().zip(shape).fold(0, |number, (index, size)| number * size + index) as usize
}

fn unravel(mut number: u64, shape: &[u64]) -> Vec<u64> {
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = number % shape[axis];
        number /= shape[axis];
    }
    index
}

/// All combinations, the last axis fastest.
fn products(axes: &[Vec<u64>]) -> Vec<Vec<u64>> {
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        all.iter().flat_map(|head| axis.iter().map(|index| [&head[..], &[*index]].concat())).collect()
    })
}

/// The elements of a slab in C order, as numbers.
fn indices(slab: &[SlabAxis], shape: &[u64]) -> Vec<usize> {
    let axes: Vec<Vec<u64>> = slab
        .iter()
        .map(|axis| {
            let count = axis.count.expect("these slabs do not grow");
            (0..count)
                .flat_map(|at| (0..axis.block).map(move |within| axis.start + at * axis.stride + within))
                .collect()
        })
        .collect();
    products(&axes).into_iter().map(|index| ravel(&index, shape)).collect()
}

/// A stream of decisions that shrinks towards the simplest case: everything 0.
struct Choices(std::vec::IntoIter<u32>);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.0.next().unwrap_or(0)) % bound
    }

    /// A slab of `len` indices on an axis that is longer than them by up to a few; and the axis' length.
    fn slab(&mut self, len: u64) -> (SlabAxis, u64) {
        let divisors: Vec<u64> = (1..=len.max(1)).filter(|block| len.is_multiple_of(*block)).collect();
        let block = divisors[self.below(divisors.len() as u64) as usize];
        let (start, stride) = (self.below(3), block + self.below(3));
        let slab = SlabAxis { start, stride, count: Some(len / block), block };
        (slab, start + (len / block).max(1) * stride + self.below(3))
    }

    fn source(&mut self, shape: &[u64], element: &ElementType, seed: u32) -> NaiveArray {
        let chunk_shape = shape.iter().map(|size| 1 + self.below(*size + 1)).collect();
        let kind = self.below(4);
        let storage = match kind {
            0 | 1 if !shape.is_empty() => Storage::Chunked { chunk_shape },
            _ => Storage::Contiguous { offset: Some(0) },
        };
        NaiveArray { inline: kind == 3, ..NaiveArray::plain(shape, storage, element, seed) }
    }

    /// A virtual array of a few sources, which may be virtual themselves.
    fn composed(&mut self, shape: &[u64], element: &ElementType, depth: u32) -> NaiveArray {
        let count = 1 + self.below(3);
        let mapping = |number: u64, choices: &mut Self| {
            let mut slab = Vec::new();
            let (mut lens, mut sizes, mut source_slab) = (Vec::new(), Vec::new(), Vec::new());
            for size in shape {
                let (start, len) = (choices.below(*size), choices.below(*size));
                let room = size - start;
                let len = 1 + len % room;
                // Inside the array: with gaps where there is room for them.
                let spread = len > 1 && choices.below(2) == 1 && (len - 1) * 2 < room;
                let (stride, count, block) = if spread { (2, len, 1) } else { (len, 1, len) };
                slab.push(SlabAxis { start, stride, count: Some(count), block });
                lens.push(len);
            }
            let mut push = |len: u64, choices: &mut Self| {
                let (axis, size) = choices.slab(len);
                source_slab.push(axis);
                sizes.push(size);
            };
            for len in lens {
                // An axis of size 1 may be missing, or be there once more.
                if len > 1 || choices.below(2) == 1 {
                    push(len, choices);
                }
                if choices.below(5) == 4 {
                    push(1, choices);
                }
            }
            let seed = 1000 * (number as u32 + 1) + 10_000 * depth;
            let source = if depth < 2 && choices.below(4) == 3 && !sizes.is_empty() {
                choices.composed(&sizes, element, depth + 1)
            } else {
                choices.source(&sizes, element, seed)
            };
            let file = (choices.below(2) == 1).then(|| "other.h5".to_owned());
            let mapping = VirtualMapping { file, path: format!("/s{number}"), slab, source_slab: Some(source_slab) };
            (mapping, Some(Arc::new(source)))
        };
        let mappings = (0..count).map(|number| mapping(number, self)).collect();
        NaiveArray::composed(shape, mappings, element)
    }

    fn selection(&mut self, shape: &[u64]) -> Selection {
        if self.below(4) == 3 {
            let count = self.below(12);
            let points = (0..count).flat_map(|_| shape.to_vec()).map(|size| self.below(size) as i64).collect();
            return Selection::of(Part::Points(Points::new(shape.len(), points).unwrap()), Vec::new()).unwrap();
        }
        let item = |size: &u64, choices: &mut Self| {
            let size = *size as i64;
            match choices.below(6) {
                0 | 1 => Item::ALL,
                2 => Item::Index(choices.below(size as u64) as i64),
                3 => {
                    let list = (0..1 + choices.below(4)).map(|_| choices.below(size as u64) as i64);
                    Item::List(list.collect())
                }
                _ => {
                    let (a, b) = (choices.below(size as u64 + 1) as i64, choices.below(size as u64 + 1) as i64);
                    let step = 1 + choices.below(3) as i64;
                    let back = choices.below(2) == 1;
                    Item::Slice { start: Some(a), stop: Some(b), step: Some(if back { -step } else { step }) }
                }
            }
        };
        Selection::new(shape.iter().map(|size| item(size, self)).collect(), Vec::new()).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_part_of_a_virtual_array_has_the_values_of_its_sources(
        numbers in prop::collection::vec(any::<u32>(), 0..120), batch_bytes in 1u64..200, blocks_bytes in 1u64..400,
    ) {
        let mut choices = Choices(numbers.into_iter());
        let element = if choices.below(3) == 2 { TEXT } else { U32 };
        let rank = 1 + choices.below(3);
        let shape: Vec<u64> = (0..rank).map(|_| 1 + choices.below(9)).collect();
        let array = choices.composed(&shape, &element, 0);
        let selection = choices.selection(&shape);
        let options = PlanOptions {
            layout: Layout::Tensor, batch_bytes, batch_blocks_bytes_max: blocks_bytes, ..PlanOptions::default()
        };
        prop_assert_eq!(array.read(&selection, &options).unwrap(), array.expected(&selection), "{}", selection);
    }
}

fn row(number: u64, file: Option<&str>, columns: u64) -> VirtualMapping {
    VirtualMapping {
        file: file.map(str::to_owned),
        path: format!("/rows/{number}"),
        slab: vec![SlabAxis::run(number, 1), SlabAxis::run(0, columns)],
        source_slab: None,
    }
}

fn contiguous(shape: &[u64], seed: u32) -> Arc<NaiveArray> {
    Arc::new(NaiveArray::plain(shape, Storage::Contiguous { offset: Some(0) }, &U32, seed))
}

fn reason(array: &NaiveArray, selection: &str) -> Option<Reason> {
    let selection = Selection::parse(selection).unwrap();
    array.read(&selection, &PlanOptions::default()).err().map(|error| error.reason)
}

#[test]
fn only_what_reaches_a_source_that_is_not_served_is_refused() {
    let mappings = (0..4).map(|at| (row(at, Some("there.h5"), 5), (at != 2).then(|| contiguous(&[5], 10)))).collect();
    let array = NaiveArray::composed(&[5, 5], mappings, &U32);
    for fine in ["0:2", "3:", "[0,1,4]", "3", "::-3", "2:2", "[4,3,0], ::2"] {
        assert_eq!(reason(&array, fine), None, "{fine}");
    }
    for refused in ["", "2", "1:3", "::2", "[3,2]", "2, 4", ":, 0", "::-1"] {
        assert_eq!(reason(&array, refused), Some(Reason::VirtualSourceRefused), "{refused}");
    }
    let points = |points: Vec<i64>| {
        let points = Selection::of(Part::Points(Points::new(2, points).unwrap()), Vec::new()).unwrap();
        array.read(&points, &PlanOptions::default()).map_err(|error| error.reason)
    };
    assert_eq!(points(vec![4, 4, 1, 2, 0, 0]), Ok(vec![7, 12, 10]));
    assert_eq!(points(vec![4, 4, 2, 2]), Err(Reason::VirtualSourceRefused));
    let selected = Selection::parse("1:3").unwrap().resolve(&[5, 5]).unwrap();
    let planned = array.with_view(|view| Plan::new(&[*view], &selected, &PlanOptions::default()).map(drop));
    assert_eq!(planned.unwrap_err().message, "not served", "a range is refused before anything is read");
}

#[test]
fn sources_that_do_not_fit_are_refused_and_libhdf5_reads_those_of_the_own_file_that_it_can() {
    let planned = |file: Option<&str>, shape: &[u64], element: ElementType, slab: Option<Vec<SlabAxis>>| {
        let source = NaiveArray::plain(shape, Storage::Contiguous { offset: Some(0) }, &element, 0);
        let file = file.map(str::to_owned);
        let whole = vec![SlabAxis::run(0, 2), SlabAxis::run(0, 3)];
        let mapping = VirtualMapping { file, path: "/s".into(), slab: whole, source_slab: slab };
        let mut array = NaiveArray::plain(&[2, 3], Storage::Virtual { mappings: vec![mapping] }, &U32, 0);
        array.sources = vec![Some(Arc::new(source))];
        let selected = Selection::all().resolve(&[2, 3]).unwrap();
        array.with_view(|view| {
            let plan = Plan::new(&[*view], &selected, &PlanOptions::default())?;
            Ok::<_, Error>(plan.block(plan.batch(0).blocks()[0], &ChunkIndex::default())?.source)
        })
    };
    let float = || ElementType::Float { bytes: 4, order: ByteOrder::Little };
    assert!(matches!(planned(None, &[2, 1, 3], U32, None), Ok(BlockSource::Virtual(_))));
    assert!(matches!(planned(None, &[2, 3], float(), None), Ok(BlockSource::Worker(_))));
    assert!(matches!(planned(None, &[3, 2], U32, None), Ok(BlockSource::Worker(_))));
    let there = Some("/secret/there.h5");
    let slab = || Some(vec![SlabAxis::run(0, 2), SlabAxis::run(1, 3)]);
    for (file, shape, element, slab, reason) in [
        (there, &[2, 3], float(), None, Reason::UnsupportedType),
        (there, &[3, 2], U32, None, Reason::UnsupportedLayout),
        (None, &[2, 2], U32, None, Reason::VirtualSourceRefused),
        (there, &[2, 2], float(), None, Reason::VirtualSourceRefused),
        (None, &[2, 3], U32, slab(), Reason::VirtualSourceRefused),
    ] {
        let error = planned(file, shape, element, slab).unwrap_err();
        assert_eq!(error.reason, reason, "{}", error.message);
        let name = if file.is_some() { "mapping 0 to there.h5:/s" } else { "mapping 0 to /s" };
        assert!(error.message.contains(name) && !error.message.contains("secret"), "{}", error.message);
    }
}

#[test]
fn what_grows_is_as_long_as_its_source_and_the_rest_is_the_fill_value() {
    let growing = |start, stride| SlabAxis { start, stride, count: None, block: 1 };
    let mapping = |start: u64, source: &Arc<NaiveArray>| {
        let mapping = VirtualMapping {
            file: None,
            path: "/s".into(),
            slab: vec![growing(start, 2)],
            source_slab: Some(vec![growing(0, 1)]),
        };
        (mapping, Some(Arc::clone(source)))
    };
    let (three, five) = (contiguous(&[3], 10), contiguous(&[5], 20));
    let fixed = VirtualMapping {
        slab: vec![SlabAxis::run(0, 1)],
        source_slab: Some(vec![SlabAxis::run(0, 1)]),
        ..mapping(0, &three).0
    };
    let mut array = NaiveArray::composed(&[10], vec![(fixed.clone(), Some(Arc::clone(&three))); 2], &U32);
    let (first, second) = (mapping(0, &three), mapping(1, &five));
    array.meta.storage = Storage::Virtual { mappings: vec![first.0, second.0] };
    array.sources = vec![first.1, second.1];
    array.meta.check().unwrap();
    let read = array.read(&Selection::all(), &PlanOptions::default()).unwrap();
    assert_eq!(read, [10, 20, 11, 21, 12, 22, 7, 23, 7, 24]);
}

#[test]
fn mappings_that_no_array_can_have_do_not_pass_the_check() {
    let meta = |slab: SlabAxis| {
        let source_slab = Some(vec![SlabAxis::run(0, 1)]);
        let mapping = VirtualMapping { file: None, path: "/s".into(), slab: vec![slab], source_slab };
        let plain = NaiveArray::plain(&[9], Storage::Virtual { mappings: vec![mapping] }, &U32, 0);
        plain.meta.check().map_err(|error| error.reason)
    };
    let slab = |start, stride, count, block| SlabAxis { start, stride, count, block };
    assert_eq!(meta(slab(0, 2, Some(4), 1)), Ok(()));
    for bad in [
        slab(0, 1, Some(1), 0),
        slab(0, 1, Some(2), 2),
        slab(u64::MAX, 1, Some(1), 1),
        slab(0, 1 << 62, Some(9), 1),
        slab(1 << 62, 1 << 62, Some(2), 1 << 62),
    ] {
        assert_eq!(meta(bad), Err(Reason::MalformedFile), "{bad:?}");
    }
    let old: Storage = serde_json::from_str(r#"{"kind":"virtual"}"#).unwrap();
    assert_eq!(old, Storage::Virtual { mappings: Vec::new() }, "what was indexed before can be read");
    let text = serde_json::to_string(&slab(1, 2, None, 1)).unwrap();
    assert_eq!(
        (text.as_str(), serde_json::from_str::<SlabAxis>(&text).unwrap()),
        ("[1,2,null,1]", slab(1, 2, None, 1))
    );
}
