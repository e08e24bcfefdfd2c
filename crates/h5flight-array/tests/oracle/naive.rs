//! The naive side: random arrays in memory, blocks made element by element, results as plain bytes.
//!
//! A *cell* is one row of one column in a form that does not depend on the layout: numbers little-endian, strings and
//! sequences behind their length.

pub mod encode;
pub mod stored;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use h5flight_array::batch::Decoded;
use h5flight_array::index::{ChunkIndex, ChunkPointer};
use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Filter, Member, Space, Storage, StringPadding, Text};
use h5flight_array::plan::{Block, BlockId, BlockSource, ExtentView, Layout, Plan, PlanOptions, Strings};
use h5flight_array::selection::{ElementMask, Item, Part, Points, Runs, Selection};

/// Where a contiguous array starts in its file.
const ARRAY_OFFSET: u64 = 48;

/// A stream of decisions that shrinks towards the simplest case: everything 0.
pub struct Choices {
    numbers: std::vec::IntoIter<u32>,
}

impl Choices {
    pub fn new(numbers: Vec<u32>) -> Self {
        Self { numbers: numbers.into_iter() }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.numbers.next().unwrap_or(0) as usize % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == bound - 1
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

#[derive(Debug)]
struct NaiveArray {
    meta: ArrayMeta,
    index: ChunkIndex,
    inline: bool,
    seed: u64,
    /// Chunks that were stored, by number; others hold the fill value.
    stored: Option<BTreeSet<u64>>,
}

#[derive(Debug)]
struct NaiveExtent {
    first_row: u64,
    array_row: u64,
    rows: u64,
    array: NaiveArray,
}

/// A version: random arrays with their values.
#[derive(Debug)]
pub struct Store {
    extents: Vec<NaiveExtent>,
}

/// What a read must deliver.
pub struct Expected {
    pub shape: Vec<u64>,
    /// By column, by row.
    pub cells: Vec<Vec<Vec<u8>>>,
    /// Axes of the result with their indices.
    pub axes: Vec<(usize, Vec<u64>)>,
    /// Where single elements are selected: their indices.
    pub points: Option<Vec<Vec<u64>>>,
}

impl Store {
    pub fn random(choices: &mut Choices) -> Self {
        let rank = choices.below(5);
        let element = random_element(choices, rank);
        let trailing: Vec<u64> = (1..rank).map(|_| choices.of(&[1, 2, 3, 4, 6, 0, 7])).collect();
        let count = if rank == 0 { 1 } else { choices.of(&[1, 1, 1, 2, 3, 5]) };
        let mut first_row = 0;
        let mut extents = Vec::new();
        for _ in 0..count {
            let size = choices.of(&[1, 2, 3, 5, 8, 13, 21, 0, 40]);
            let shape: Vec<u64> = if rank == 0 { vec![] } else { [&[size][..], &trailing].concat() };
            let (array_row, rows) = if rank == 0 {
                (0, 1)
            } else if choices.one_in(2) {
                let array_row = choices.below(size as usize + 1) as u64;
                (array_row, choices.below((size - array_row) as usize + 1) as u64)
            } else {
                (0, size)
            };
            extents.push(NaiveExtent {
                first_row,
                array_row,
                rows,
                array: NaiveArray::random(choices, shape, &element),
            });
            first_row += rows;
        }
        Self { extents }
    }

    pub fn element(&self) -> &ElementType {
        &self.extents[0].array.meta.element
    }

    pub fn views(&self) -> Vec<ExtentView<'_>> {
        self.extents
            .iter()
            .map(|NaiveExtent { first_row, array_row, rows, array }| ExtentView {
                first_row: *first_row,
                array_row: *array_row,
                rows: *rows,
                meta: &array.meta,
                inline: array.inline,
                sources: &[],
            })
            .collect()
    }

    /// The decoded block, as the server would have it.
    pub fn fetch(&self, plan: &Plan, id: BlockId) -> Decoded {
        let array = &self.extents[id.extent as usize].array;
        let block = plan.block(id, &array.index).unwrap();
        array.decode(&block)
    }

    /// The element at an index of the version, in the form of a decoded block.
    fn element_at(&self, index: &[u64]) -> Vec<u8> {
        let Some(row) = index.first() else { return self.extents[0].array.element_at(index) };
        let extent =
            self.extents.iter().find(|extent| (extent.first_row..extent.first_row + extent.rows).contains(row));
        let extent = extent.expect("extents cover all rows");
        let mut own = index.to_vec();
        own[0] = row - extent.first_row + extent.array_row;
        extent.array.element_at(&own)
    }
}

impl NaiveArray {
    fn random(choices: &mut Choices, shape: Vec<u64>, element: &ElementType) -> Self {
        let seed = choices.below(1000) as u64;
        let fixed = element.fixed_bytes().is_some();
        let kind = choices.below(6);
        let chunk_shape: Vec<u64> = shape
            .iter()
            .map(|size| match choices.below(4) {
                0 => size.max(&1) + choices.below(2) as u64,
                1 => 1,
                _ => 1 + choices.below(*size as usize + 3) as u64,
            })
            .collect();
        let chunked = !shape.is_empty() && (1..=3).contains(&kind);
        let storage = match kind {
            _ if chunked => Storage::Chunked { chunk_shape: chunk_shape.clone() },
            4 => Storage::Contiguous { offset: None },
            _ => Storage::Contiguous { offset: Some(ARRAY_OFFSET) },
        };
        let filter = |id| Filter { id, name: String::new(), params: Vec::new() };
        let filters = if chunked && kind == 3 { vec![filter(305)] } else { vec![filter(2), filter(1)] };
        let fill = (fixed && choices.one_in(2)).then(|| value(element, 4711));
        let grid: Vec<u64> = shape.iter().zip(&chunk_shape).map(|(size, chunk)| size.div_ceil(*chunk)).collect();
        let sparse = choices.one_in(2);
        let stored: BTreeSet<u64> =
            (0..grid.iter().product()).filter(|_| chunked && !(sparse && choices.one_in(2))).collect();
        let pointer = |number: &u64| ChunkPointer { number: *number, offset: 0, bytes: 1, mask: 0 };
        let index = ChunkIndex::from_pointers(stored.iter().map(pointer).collect()).unwrap();
        let meta = ArrayMeta {
            max_shape: shape.iter().map(|size| Some(*size)).collect(),
            space: Space::Simple { shape },
            element: element.clone(),
            converted: choices.one_in(4),
            type_note: String::new(),
            storage,
            filters: if chunked { filters } else { Vec::new() },
            fill,
        };
        meta.check().unwrap();
        Self { meta, index, inline: kind == 5, seed, stored: chunked.then_some(stored) }
    }

    fn element_at(&self, index: &[u64]) -> Vec<u8> {
        let never_written = match (&self.meta.storage, &self.stored) {
            (Storage::Contiguous { offset: None }, _) => self.is_raw(),
            (Storage::Chunked { chunk_shape }, Some(stored)) if !self.inline => {
                let shape = self.meta.shape();
                let number = (0..shape.len()).fold(0, |number, axis| {
                    number * shape[axis].div_ceil(chunk_shape[axis]) + index[axis] / chunk_shape[axis]
                });
                !stored.contains(&number) && self.meta.element.fixed_bytes().is_some()
            }
            _ => false,
        };
        match (&self.meta.fill, self.meta.element.fixed_bytes()) {
            (Some(fill), _) if never_written => fill.clone(),
            (None, Some(bytes)) if never_written => vec![0; bytes as usize],
            _ => value(&self.meta.element, self.seed + self.linear(index)),
        }
    }

    fn is_raw(&self) -> bool {
        !self.inline && !self.meta.converted && self.meta.element.fixed_bytes().is_some()
    }

    fn linear(&self, index: &[u64]) -> u64 {
        index.iter().zip(self.meta.shape()).fold(0, |number, (index, size)| number * size + index)
    }

    fn decode(&self, block: &Block) -> Decoded {
        let bytes = match &block.source {
            BlockSource::Fill => return Decoded::fill(block, &self.meta).unwrap(),
            BlockSource::Raw { ranges } => {
                let shape = self.meta.shape();
                let mut file = vec![0xA5; ARRAY_OFFSET as usize];
                each_index(shape, |index| file.extend(value(&self.meta.element, self.seed + self.linear(index))));
                let mut end_before = ARRAY_OFFSET;
                let mut bytes = Vec::new();
                for range in ranges {
                    assert!(range.offset >= end_before && range.bytes > 0, "{ranges:?}");
                    assert!(range.offset > end_before || bytes.is_empty(), "neighbours are not merged: {ranges:?}");
                    end_before = range.offset + range.bytes;
                    bytes.extend_from_slice(&file[range.offset as usize..end_before as usize]);
                }
                bytes
            }
            BlockSource::Worker(slab) => {
                assert_eq!((&slab.origin, &slab.shape), (&block.origin, &block.shape));
                let ends = slab.origin.iter().zip(&slab.shape).map(|(origin, size)| origin + size);
                assert!(ends.zip(self.meta.shape()).all(|(end, size)| end <= *size), "{slab:?} leaves the array");
                self.boxed(block)
            }
            BlockSource::Inline | BlockSource::Stored(_) => self.boxed(block),
            BlockSource::Virtual(_) => unreachable!("no array here is virtual"),
        };
        let decoded = Decoded::new(Bytes::from(bytes.clone()), block, &self.meta).unwrap();
        assert_eq!(decoded.bytes(), &bytes);
        decoded
    }

    /// All elements of a box; past the array's edge chunks hold rubbish.
    fn boxed(&self, block: &Block) -> Vec<u8> {
        self.boxed_at(&block.origin, &block.shape)
    }

    fn boxed_at(&self, origin: &[u64], shape: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        each_index(shape, |within| {
            let index: Vec<u64> = within.iter().zip(origin).map(|(within, origin)| within + origin).collect();
            if index.iter().zip(self.meta.shape()).all(|(index, size)| index < size) {
                bytes.extend(self.element_at(&index));
            } else {
                bytes.extend(value(&self.meta.element, 999_999));
            }
        });
        bytes
    }
}

/// All indices of a shape in C order.
fn each_index(shape: &[u64], mut visit: impl FnMut(&[u64])) {
    let mut index = vec![0; shape.len()];
    if shape.contains(&0) {
        return;
    }
    loop {
        visit(&index);
        let advanced = (0..shape.len()).rev().any(|axis| {
            index[axis] = (index[axis] + 1) % shape[axis];
            index[axis] != 0
        });
        if !advanced {
            return;
        }
    }
}

fn integer(bytes: u32, signed: bool, order: ByteOrder) -> ElementType {
    ElementType::Integer { bytes, signed, order }
}

fn named() -> ElementType {
    let members = [("red", 0), ("green", 1), ("also green", 1), ("last", -2)];
    let members = members.map(|(name, value)| (name.to_owned(), value)).to_vec();
    ElementType::Enum { base: Box::new(integer(1, true, ByteOrder::Little)), members }
}

fn member(name: &str, offset: u32, element: ElementType) -> Member {
    Member { name: name.to_owned(), offset, element }
}

fn string(bytes: u32, padding: StringPadding) -> ElementType {
    ElementType::FixedString { bytes, padding, text: Text::Utf8 }
}

fn random_element(choices: &mut Choices, rank: usize) -> ElementType {
    use ByteOrder::{Big, Little};
    let var_string = || ElementType::VarString { text: Text::Utf8 };
    let f32_big = ElementType::Float { bytes: 4, order: Big };
    let inner = || ElementType::Compound {
        bytes: 6,
        members: vec![member("p", 1, integer(1, false, Little)), member("q", 3, integer(2, false, Big))],
    };
    let complex = ElementType::Complex { part: Box::new(f32_big.clone()) };
    match choices.below(if rank <= 2 { 28 } else { 22 }) {
        0 => integer(1, false, Little),
        1 => integer(2, true, Little),
        2 => integer(2, false, Big),
        3 => f32_big,
        4 => ElementType::Float { bytes: 8, order: Little },
        5 => integer(8, true, Little),
        6 => ElementType::Bool,
        7 => named(),
        8 => string(3, StringPadding::NullTerminated),
        9 => string(3, StringPadding::NullPadded),
        10 => string(4, StringPadding::SpacePadded),
        11 => ElementType::Compound {
            bytes: 15,
            members: vec![
                member("a", 1, integer(2, false, Little)),
                member("b", 4, ElementType::Float { bytes: 8, order: Big }),
                member("c", 12, string(2, StringPadding::NullPadded)),
            ],
        },
        12 => complex,
        13 => ElementType::Array { dims: vec![2, 3], item: Box::new(integer(2, true, Big)) },
        14 => ElementType::Opaque { bytes: 3, tag: "tag".into() },
        15 => ElementType::Bitfield { bytes: 2, order: Big },
        16 => var_string(),
        17 => ElementType::VarLen { item: Box::new(integer(2, true, Big)) },
        18 => ElementType::Compound {
            bytes: 80,
            members: vec![
                member("s", 0, var_string()),
                member("x", 16, integer(4, true, Big)),
                member("v", 20, ElementType::VarLen { item: Box::new(var_string()) }),
                member("in", 40, inner()),
                member("r", 60, ElementType::Reference { region: false }),
                member("e", 79, named()),
            ],
        },
        19 => ElementType::Array { dims: vec![2], item: Box::new(var_string()) },
        20 => ElementType::Compound {
            bytes: 30,
            members: vec![
                member("in", 0, inner()),
                member("z", 7, ElementType::Array { dims: vec![2], item: Box::new(complex) }),
                member("t", 23, ElementType::Bool),
                member("e", 24, named()),
            ],
        },
        21 => ElementType::VarLen { item: Box::new(inner()) },
        // So large that gaps between elements of a contiguous array are not read.
        _ => ElementType::Opaque { bytes: 900, tag: String::new() },
    }
}

/// A value that depends on `seed` alone, in the form of a decoded block: packed where the type has no fixed size.
fn value(element: &ElementType, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let packed = element.fixed_bytes().is_none();
    write_value(element, &mut (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1), packed, &mut bytes);
    bytes
}

fn next(state: &mut u64) -> u64 {
    // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 8
}

fn write_value(element: &ElementType, state: &mut u64, packed: bool, out: &mut Vec<u8>) {
    let start = out.len();
    let text = |state: &mut u64, most: u64| -> Vec<u8> {
        let len = next(state) % (most + 1);
        (0..len).map(|_| b'a' + (next(state) % 26) as u8).collect()
    };
    match element {
        ElementType::Bool => out.push((next(state) % 2) as u8),
        ElementType::Enum { .. } => out.push((next(state) % 5) as u8 ^ 0xFE),
        ElementType::FixedString { bytes, padding, .. } => {
            out.extend(text(state, u64::from(*bytes)));
            let pad = if *padding == StringPadding::SpacePadded { b' ' } else { 0 };
            out.resize(start + *bytes as usize, pad);
        }
        ElementType::VarString { .. } => {
            let text = text(state, 5);
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text);
        }
        ElementType::Reference { .. } if next(state).is_multiple_of(2) => out.extend(u32::MAX.to_le_bytes()),
        ElementType::Reference { .. } => out.extend(*b"\x02\0\0\0/a"),
        ElementType::VarLen { item } => {
            let items = next(state) % 4;
            out.extend((items as u32).to_le_bytes());
            (0..items).for_each(|_| write_value(item, state, packed, out));
        }
        ElementType::Compound { bytes, members } => {
            for member in members {
                if !packed {
                    out.resize(start + member.offset as usize, 0xEE);
                }
                write_value(&member.element, state, packed, out);
            }
            if !packed {
                out.resize(start + *bytes as usize, 0xEE);
            }
        }
        ElementType::Array { dims, item } => {
            (0..dims.iter().product()).for_each(|_| write_value(item, state, packed, out));
        }
        other => {
            let bytes = other.fixed_bytes().unwrap();
            out.extend((0..bytes).map(|_| next(state) as u8));
        }
    }
}

/// The canonical form of the value at the front of `bytes`, which is moved past it.
fn canonical(element: &ElementType, packed: bool, bytes: &mut &[u8], out: &mut Vec<u8>) {
    let mut take = |count: usize| {
        let (taken, left) = bytes.split_at(count);
        *bytes = left;
        taken.to_vec()
    };
    let length = |bytes: Vec<u8>| u32::from_le_bytes(bytes.try_into().unwrap());
    match element {
        ElementType::Integer { bytes: size, order, .. }
        | ElementType::Float { bytes: size, order }
        | ElementType::Bitfield { bytes: size, order } => {
            let mut number = take(*size as usize);
            if *order == ByteOrder::Big {
                number.reverse();
            }
            out.extend(number);
        }
        ElementType::FixedString { bytes: size, .. } => {
            // The texts of the store are letters: whatever else there is, is padding.
            let text: Vec<u8> = take(*size as usize).into_iter().filter(u8::is_ascii_alphabetic).collect();
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text);
        }
        ElementType::VarString { .. } | ElementType::Reference { .. } => {
            let count = length(take(4));
            out.extend(count.to_le_bytes());
            out.extend(if count == u32::MAX { Vec::new() } else { take(count as usize) });
        }
        ElementType::VarLen { item } => {
            let count = length(take(4));
            out.extend(count.to_le_bytes());
            (0..count).for_each(|_| canonical(item, packed, bytes, out));
        }
        ElementType::Compound { bytes: size, members } => {
            let element = if packed { None } else { Some(take(*size as usize)) };
            for member in members {
                match &element {
                    Some(element) => {
                        canonical(&member.element, packed, &mut &element[member.offset as usize..], out);
                    }
                    None => canonical(&member.element, packed, bytes, out),
                }
            }
        }
        ElementType::Array { dims, item } => {
            (0..dims.iter().product()).for_each(|_| canonical(item, packed, bytes, out));
        }
        ElementType::Complex { part } => (0..2).for_each(|_| canonical(part, packed, bytes, out)),
        ElementType::Bool | ElementType::Enum { .. } => out.extend(take(1)),
        other => out.extend(take(other.fixed_bytes().unwrap() as usize)),
    }
}

/// The canonical form of one value of an Arrow array.
fn canonical_arrow(array: &dyn Array, at: usize, out: &mut Vec<u8>) {
    let mut sized = |bytes: &[u8]| {
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match array.data_type() {
        DataType::Boolean => out.push(u8::from(array.as_boolean().value(at))),
        DataType::Utf8 if array.is_null(at) => out.extend(u32::MAX.to_le_bytes()),
        DataType::Utf8 => sized(array.as_string::<i32>().value(at).as_bytes()),
        DataType::Binary => sized(array.as_binary::<i32>().value(at)),
        DataType::FixedSizeBinary(_) => out.extend_from_slice(array.as_fixed_size_binary().value(at)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_dictionary::<Int32Type>();
            let name = dictionary.values().as_string::<i32>().value(dictionary.keys().value(at) as usize);
            let ElementType::Enum { members, .. } = named() else { unreachable!() };
            let member = members.iter().find(|(member, _)| member == name).map(|(_, value)| *value);
            out.push(member.unwrap_or_else(|| name.parse().unwrap()) as u8);
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(at);
            out.extend((items.len() as u32).to_le_bytes());
            (0..items.len()).for_each(|item| canonical_arrow(&items, item, out));
        }
        DataType::FixedSizeList(..) => {
            let items = array.as_fixed_size_list().value(at);
            (0..items.len()).for_each(|item| canonical_arrow(&items, item, out));
        }
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|member| canonical_arrow(member, at, out)),
        number => {
            let width = number.primitive_width().unwrap();
            let data = array.to_data();
            let start = (data.offset() + at) * width;
            out.extend_from_slice(&data.buffers()[0][start..start + width]);
        }
    }
}

/// The cells of a read, by column and row of the result.
pub fn canonical_cells(plan: &Plan, batches: &[RecordBatch]) -> Vec<Vec<Vec<u8>>> {
    let is_index = |field: &&std::sync::Arc<arrow::datatypes::Field>| field.name().starts_with("dim_");
    let kept = plan.schema().fields().iter().take_while(is_index).count();
    let items = plan.shape().get(1..).map_or(1, |sizes| sizes.iter().product::<u64>()) as usize;
    let columns = match plan.layout() {
        Layout::Columns => 1,
        Layout::Tidy => plan.schema().fields().len() - kept,
        Layout::Auto | Layout::Tensor => plan.schema().fields().len(),
    };
    if items == 0 {
        // Rows without values: in the tidy layout there is no record to see them in.
        return vec![vec![Vec::new(); plan.rows() as usize]; columns];
    }
    let mut cells = vec![Vec::new(); columns];
    for batch in batches {
        let rows = match plan.layout() {
            Layout::Tidy => batch.num_rows() / items,
            Layout::Auto | Layout::Tensor | Layout::Columns => batch.num_rows(),
        };
        for row in 0..rows {
            for (column, cells) in cells.iter_mut().enumerate() {
                let mut cell = Vec::new();
                match plan.layout() {
                    Layout::Columns => batch.columns().iter().for_each(|array| canonical_arrow(array, row, &mut cell)),
                    Layout::Tidy => (0..items).for_each(|item| {
                        canonical_arrow(batch.column(kept + column), row * items + item, &mut cell);
                    }),
                    Layout::Auto | Layout::Tensor => canonical_arrow(batch.column(column), row, &mut cell),
                }
                cells.push(cell);
            }
        }
    }
    cells
}

/// In the tidy layout, the leading columns are the indices of each value.
pub fn check_index_columns(plan: &Plan, batches: &[RecordBatch], expected: &Expected) {
    if plan.layout() != Layout::Tidy {
        return;
    }
    let mut wanted: Vec<Vec<i64>> = vec![Vec::new(); expected.axes.len()];
    match &expected.points {
        Some(points) => points.iter().for_each(|point| {
            wanted.iter_mut().zip(point).for_each(|(wanted, index)| wanted.push(*index as i64));
        }),
        None => each_index(&expected.shape, |place| {
            for (position, (_, indices)) in expected.axes.iter().enumerate() {
                wanted[position].push(indices[place[position] as usize] as i64);
            }
        }),
    }
    for (position, (axis, _)) in expected.axes.iter().enumerate() {
        assert_eq!(plan.schema().field(position).name(), &format!("dim_{axis}"));
        let found =
            batches.iter().flat_map(|batch| batch.column(position).as_primitive::<Int64Type>().values().to_vec());
        assert_eq!(found.collect::<Vec<_>>(), wanted[position], "indices of axis {axis}");
    }
}

/// What the selection means, index by index.
pub fn expected_cells(store: &Store, selection: &Selection, shape: &[u64]) -> Expected {
    let element = store.element();
    let packed = element.fixed_bytes().is_none();
    let (members, fields) = match element {
        ElementType::Compound { members, .. } => (members.as_slice(), selection.fields()),
        _ => (&[][..], &[][..]),
    };
    let columns: Vec<Option<&Member>> = match (members, fields) {
        ([], _) => vec![None],
        (members, []) => members.iter().map(Some).collect(),
        (members, fields) => fields.iter().map(|name| members.iter().find(|member| member.name == *name)).collect(),
    };
    let append = |cells: &mut Vec<Vec<Vec<u8>>>, row: usize, index: &[u64]| {
        let bytes = store.element_at(index);
        for (column, member) in columns.iter().enumerate() {
            let out = &mut cells[column][row];
            let Some(member) = member else {
                canonical(element, packed, &mut bytes.as_slice(), out);
                continue;
            };
            let mut rest = bytes.as_slice();
            if packed {
                let before = members.iter().take_while(|other| other.name != member.name);
                before.for_each(|other| canonical(&other.element, true, &mut rest, &mut Vec::new()));
            } else {
                rest = &rest[member.offset as usize..];
            }
            canonical(&member.element, packed, &mut rest, out);
        }
    };
    if let Some(points) = picked_points(selection.part(), shape) {
        let mut cells = vec![vec![Vec::new(); points.len()]; columns.len()];
        points.iter().enumerate().for_each(|(row, point)| append(&mut cells, row, point));
        let axes = (0..shape.len()).map(|axis| (axis, Vec::new())).collect();
        return Expected { shape: vec![points.len() as u64], cells, axes, points: Some(points) };
    }
    let mut items: Vec<Item> = selection.items().to_vec();
    let missing = shape.len() - items.iter().filter(|item| **item != Item::Ellipsis).count();
    let whole = std::iter::repeat_n(Item::ALL, missing);
    match items.iter().position(|item| *item == Item::Ellipsis) {
        Some(at) => drop(items.splice(at..=at, whole)),
        None => items.extend(whole),
    }
    let indices: Vec<Vec<u64>> = items.iter().zip(shape).map(|(item, size)| picked(item, *size as i64)).collect();
    let kept: Vec<usize> = (0..items.len()).filter(|axis| !matches!(items[*axis], Item::Index(_))).collect();
    let sizes: Vec<u64> = indices.iter().map(|indices| indices.len() as u64).collect();
    let result_shape: Vec<u64> = kept.iter().map(|axis| sizes[*axis]).collect();
    let rows = result_shape.first().copied().unwrap_or(1) as usize;
    let mut cells = vec![vec![Vec::new(); rows]; columns.len()];
    each_index(&sizes, |place| {
        let index: Vec<u64> = place.iter().zip(&indices).map(|(place, indices)| indices[*place as usize]).collect();
        append(&mut cells, kept.first().map_or(0, |axis| place[*axis] as usize), &index);
    });
    let axes = kept.iter().map(|axis| (*axis, indices[*axis].clone())).collect();
    Expected { shape: result_shape, cells, axes, points: None }
}

/// The indices of single elements, in the order of the result.
fn picked_points(part: &Part, shape: &[u64]) -> Option<Vec<Vec<u64>>> {
    let from_front = |index: &i64, size: &u64| if *index < 0 { *index + *size as i64 } else { *index } as u64;
    match part {
        Part::Axes(_) => None,
        Part::Points(points) => {
            let point = |point: &[i64]| point.iter().zip(shape).map(|(index, size)| from_front(index, size)).collect();
            Some(points.iter().map(point).collect())
        }
        // A mask has no more to tell than its text.
        Part::Mask(mask) => {
            let text = Selection::parse(&mask.to_string()).unwrap();
            picked_points(text.part(), shape)
        }
    }
}

/// Indices of one axis, found by walking as a person would.
fn picked(item: &Item, size: i64) -> Vec<u64> {
    let from_front = |index: i64| (if index < 0 { index + size } else { index }) as u64;
    match item {
        Item::Index(index) => vec![from_front(*index)],
        Item::List(list) => list.iter().map(|index| from_front(*index)).collect(),
        Item::Mask(mask) => (0..size as u64).filter(|index| mask[*index as usize]).collect(),
        Item::Runs(runs) => runs.ranges().flatten().collect(),
        Item::Ellipsis => unreachable!("ellipses are written out"),
        Item::Slice { start, stop, step } => {
            let step = step.unwrap_or(1);
            let bound = |bound: i64| if bound < 0 { bound + size } else { bound };
            let mut at = match start {
                Some(start) if step > 0 => bound(*start).max(0),
                Some(start) => bound(*start).min(size - 1),
                None if step > 0 => 0,
                None => size - 1,
            };
            let inside = |at: i64| match stop {
                Some(stop) if step > 0 => at < bound(*stop).min(size),
                Some(stop) => at > bound(*stop).max(-1),
                None => (0..size).contains(&at),
            };
            let mut indices = Vec::new();
            while inside(at) {
                indices.push(at as u64);
                at += step;
            }
            indices
        }
    }
}

/// A selection that fits the shape, and fields that the element has.
pub fn selection(choices: &mut Choices, shape: &[u64], element: &ElementType) -> Selection {
    let mut items: Vec<Item> = shape.iter().map(|size| random_item(choices, *size as usize)).collect();
    if choices.one_in(3) {
        let start = choices.below(items.len() + 1);
        let end = start + choices.below(items.len() - start + 1);
        items.splice(start..end, [Item::Ellipsis]);
    } else {
        items.truncate(items.len() - choices.below(items.len() + 1));
    }
    let mut fields = Vec::new();
    let elements = shape.iter().product::<u64>() as usize;
    let part = match choices.below(6) {
        4 if elements > 0 && !shape.is_empty() => {
            let sizes = shape.repeat(choices.below(30));
            let coordinates = sizes.iter().map(|size| choices.below(2 * *size as usize) as i64 - *size as i64);
            Part::Points(Points::new(shape.len(), coordinates.collect()).unwrap())
        }
        5 if !shape.is_empty() => {
            let first = choices.below(elements + 1);
            let length = choices.below(elements - first + 1).min(99);
            let bits = (0..length.div_ceil(8)).map(|_| choices.below(256) as u8).collect();
            Part::Mask(ElementMask::new(shape.to_vec(), first as u64, length as u64, bits).unwrap())
        }
        _ => Part::Axes(items),
    };
    if let (ElementType::Compound { members, .. }, true) = (element, choices.one_in(2)) {
        fields = members.iter().filter(|_| choices.one_in(2)).map(|member| member.name.clone()).collect();
        if choices.one_in(2) {
            fields.reverse();
        }
    }
    Selection::of(part, fields).unwrap()
}

fn random_item(choices: &mut Choices, size: usize) -> Item {
    let signed = |choices: &mut Choices| choices.below(2 * size + 5) as i64 - size as i64 - 2;
    let bound = |choices: &mut Choices| if choices.one_in(2) { Some(signed(choices)) } else { None };
    match choices.below(8) {
        0 | 1 => {
            let step = choices.of(&[None, Some(1), Some(2), Some(3), Some(7), Some(-1), Some(-2), Some(-3), Some(-8)]);
            Item::Slice { start: bound(choices), stop: bound(choices), step }
        }
        2 if size > 0 => Item::Index(choices.below(2 * size) as i64 - size as i64),
        3 if size > 0 => {
            let count = choices.below(12);
            Item::List((0..count).map(|_| choices.below(2 * size) as i64 - size as i64).collect())
        }
        4 if size > 0 => Item::Mask((0..size).map(|_| choices.one_in(2)).collect()),
        5 => Item::Slice { start: None, stop: None, step: Some(-1) },
        6 if size > 0 => {
            let run = |choices: &mut Choices| {
                let start = choices.below(size);
                start as u64..(start + choices.below(size - start + 1)) as u64
            };
            let runs = (0..choices.below(5)).map(|_| run(choices));
            Item::Runs(Arc::new(Runs::new(runs.collect::<Vec<_>>())))
        }
        _ => Item::ALL,
    }
}

/// Options under which this result can be shown, with batches small enough that there are several.
pub fn options(choices: &mut Choices, rank: usize, element: &ElementType) -> PlanOptions {
    let columns = rank <= 2 && !matches!(element, ElementType::Compound { .. });
    let layouts = [Layout::Auto, Layout::Tensor, Layout::Tidy, Layout::Columns];
    PlanOptions {
        layout: choices.of(&layouts[..if columns { 4 } else { 3 }]),
        strings: choices.of(&[Strings::AsIndexed, Strings::Binary]),
        batch_bytes: choices.of(&[1 << 20, 1, 16, 64, 300, 4000, 1 << 20]),
        batch_rows_min_columns: choices.of(&[1, 3]),
        batch_blocks_bytes_max: choices.of(&[64 << 20, 1, 64, 500, 20_000, 64 << 20]),
        ..PlanOptions::default()
    }
}
