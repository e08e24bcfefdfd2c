//! What a result looks like in Arrow: schema, metadata, strings, compounds, enums, packed values. Cases written out.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int16Type, Int32Type, UInt8Type, UInt16Type};
use arrow_schema::extension::FixedShapeTensor;
use bytes::Bytes;
use h5flight_array::batch::Decoded;
use h5flight_array::index::ChunkIndex;
use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Member, Space, Storage, StringPadding, Text};
use h5flight_array::plan::{Block, ExtentView, Layout, Plan, PlanOptions, Strings};
use h5flight_array::selection::Selection;
use h5flight_array::{Reason, Result};

fn integer(bytes: u32, signed: bool, order: ByteOrder) -> ElementType {
    ElementType::Integer { bytes, signed, order }
}

fn u16_be() -> ElementType {
    integer(2, false, ByteOrder::Big)
}

fn meta(shape: &[u64], element: ElementType) -> ArrayMeta {
    ArrayMeta {
        space: Space::Simple { shape: shape.to_vec() },
        max_shape: Vec::new(),
        element,
        converted: false,
        type_note: String::new(),
        storage: Storage::Compact,
        filters: Vec::new(),
        fill: None,
    }
}

fn plan(meta: &ArrayMeta, text: &str, options: &PlanOptions) -> Plan {
    let rows = meta.shape().first().copied().unwrap_or(1);
    let extents = [ExtentView { first_row: 0, array_row: 0, rows, meta, inline: true, sources: &[] }];
    let selected = Selection::parse(text).unwrap().resolve(meta.shape()).unwrap();
    Plan::new(&extents, &selected, options).unwrap()
}

fn block(plan: &Plan) -> Block {
    plan.block(plan.batch(0).blocks()[0], &ChunkIndex::default()).unwrap()
}

/// Reads a small array that is one block.
fn try_read(meta: &ArrayMeta, bytes: &[u8], text: &str, options: &PlanOptions) -> Result<RecordBatch> {
    let plan = plan(meta, text, options);
    let decoded = Decoded::new(Bytes::copy_from_slice(bytes), &block(&plan), meta)?;
    assert_eq!(plan.batches(), 1);
    plan.assemble(&plan.batch(0), &[Arc::new(decoded)])
}

fn read(meta: &ArrayMeta, bytes: &[u8], layout: Layout) -> RecordBatch {
    try_read(meta, bytes, "", &PlanOptions { layout, ..PlanOptions::default() }).unwrap()
}

fn strings(batch: &RecordBatch) -> Vec<String> {
    batch.column(0).as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

#[test]
fn a_row_of_rank_three_is_a_tensor_that_arrow_understands() {
    let batch = read(&meta(&[2, 2, 2], u16_be()), &[0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8], Layout::Auto);
    let schema = batch.schema();
    let field = schema.field(0);
    let tensor = field.try_extension_type::<FixedShapeTensor>().unwrap();
    assert_eq!((field.name().as_str(), tensor.list_size(), tensor.dimensions()), ("value", 4, 2));
    assert!(
        matches!(field.data_type(), DataType::FixedSizeList(item, 4) if item.name() == "item" && !item.is_nullable())
    );
    let values = batch.column(0).as_fixed_size_list().values().as_primitive::<UInt16Type>().values().to_vec();
    assert_eq!(values, [1, 2, 3, 4, 5, 6, 7, 8]);
    let metadata = |key: &str| schema.metadata()[&format!("h5flight.{key}")].clone();
    assert_eq!(metadata("shape"), "[2,2,2]");
    assert_eq!(metadata("dtype"), ">u2");
    assert_eq!(metadata("type"), r#"{"kind":"integer","bytes":2,"signed":false,"order":"big"}"#);
    assert_eq!(
        (metadata("layout"), metadata("rows_axis"), metadata("selection")),
        ("tensor".into(), "0".into(), "".into())
    );
}

#[test]
fn columns_are_named_by_the_indices_of_the_array() {
    let table = meta(&[2, 4], integer(1, false, ByteOrder::Little));
    let options = PlanOptions::default();
    let batch = try_read(&table, &[0, 1, 2, 3, 10, 11, 12, 13], ":, [3,1]", &options).unwrap();
    let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["3", "1"]);
    assert_eq!(batch.column(0).as_primitive::<UInt8Type>().values(), &[3, 13]);
    assert_eq!(batch.column(1).as_primitive::<UInt8Type>().values(), &[1, 11]);
}

#[test]
fn a_row_selected_by_its_index_is_one_column_and_a_single_value_one_row() {
    let table = meta(&[2, 4], integer(1, false, ByteOrder::Little));
    let bytes = [0, 1, 2, 3, 10, 11, 12, 13];
    let row = try_read(&table, &bytes, "1, ::-1", &PlanOptions::default()).unwrap();
    assert_eq!(row.column(0).as_primitive::<UInt8Type>().values(), &[13, 12, 11, 10]);
    let value = try_read(&table, &bytes, "1, 2", &PlanOptions::default()).unwrap();
    assert_eq!((value.num_rows(), value.column(0).as_primitive::<UInt8Type>().values().to_vec()), (1, vec![12]));
    assert_eq!(value.schema().metadata()["h5flight.shape"], "[]");
}

#[test]
fn an_empty_result_has_a_schema_and_no_batch() {
    let table = meta(&[2, 4], u16_be());
    for text in ["0:0", ":, 0:0", "[]"] {
        let options = PlanOptions { layout: Layout::Columns, ..PlanOptions::default() };
        let plan = plan(&table, text, &options);
        let batches: Vec<_> = (0..plan.batches()).map(|at| plan.assemble(&plan.batch(at), &[]).unwrap()).collect();
        assert_eq!(batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), plan.rows(), "{text}");
        assert_eq!(plan.bytes(), Some(0));
    }
}

#[test]
fn padding_is_cut_as_the_type_says() {
    for (padding, bytes, expected) in [
        (StringPadding::NullTerminated, b"ab\0dabcd", ["ab", "abcd"]),
        (StringPadding::NullPadded, b"a\0b\0\0\0\0\0", ["a\0b", ""]),
        (StringPadding::SpacePadded, b" a      ", [" a", ""]),
    ] {
        let text = ElementType::FixedString { bytes: 4, padding, text: Text::Utf8 };
        assert_eq!(strings(&read(&meta(&[2], text), bytes, Layout::Auto)), expected, "{padding:?}");
    }
}

#[test]
fn fixed_strings_and_packed_records_come_as_numpy_keeps_them() {
    let fixed = PlanOptions { strings: Strings::Fixed, ..PlanOptions::default() };
    for (padding, bytes, expected) in [
        (StringPadding::NullTerminated, b"ab\0dabcd", b"ab\0\0abcd"),
        (StringPadding::NullPadded, b"a\0b\0\xff\0\0\0", b"a\0b\0\xff\0\0\0"),
        (StringPadding::SpacePadded, b" a      ", b" a\0\0\0\0\0\0"),
    ] {
        let text = ElementType::FixedString { bytes: 4, padding, text: Text::Utf8 };
        let batch = try_read(&meta(&[2], text), bytes, "", &fixed).unwrap();
        let found = batch.column(0).as_fixed_size_binary();
        assert_eq!([found.value(0), found.value(1)].concat(), expected, "{padding:?}");
    }
    let member = |name: &str, offset, element| Member { name: name.into(), offset, element };
    let name = ElementType::FixedString { bytes: 2, padding: StringPadding::NullPadded, text: Text::Utf8 };
    for (order, gap, is_one) in
        [(ByteOrder::Little, 0, true), (ByteOrder::Big, 0, false), (ByteOrder::Little, 1, false)]
    {
        let members = vec![member("n", 0, integer(2, true, order)), member("s", 2 + gap, name.clone())];
        let compound = meta(&[3], ElementType::Compound { bytes: 4 + gap, members });
        let width = 4 + gap as usize;
        let bytes: Vec<u8> = (0..3 * width as u8).collect();
        let batch = try_read(&compound, &bytes, "1:", &fixed).unwrap();
        assert_eq!(batch.num_columns(), if is_one { 1 } else { 2 }, "{order:?}, gap {gap}");
        assert_eq!(batch.schema().field(0).metadata().contains_key("h5flight.record"), is_one);
        if is_one {
            let found = batch.column(0).as_fixed_size_binary();
            assert_eq!([found.value(0), found.value(1)].concat(), bytes[width..]);
        }
        let one_member = try_read(&compound, &bytes, "'s'", &fixed).unwrap();
        assert_eq!(one_member.column(0).as_fixed_size_binary().value(0), &bytes[2 + gap as usize..width]);
    }
}

#[test]
fn a_string_that_is_not_utf8_names_its_row_and_binary_delivers_it() {
    let element = |text| ElementType::FixedString { bytes: 2, padding: StringPadding::NullPadded, text };
    let bytes = b"ab\xc3\xa4x\xff";
    let error = try_read(&meta(&[3], element(Text::Utf8)), bytes, "", &PlanOptions::default()).unwrap_err();
    assert_eq!(error.reason, Reason::NotUtf8);
    assert_eq!(error.message, "column \"value\", row 2: a string is not UTF-8; ask for strings as binary");
    // Half a character in each of two values is not text, although the bytes together are.
    let halves = try_read(&meta(&[2], element(Text::Utf8)), b"a\xc3\xa4b", "", &PlanOptions::default());
    assert_eq!(halves.unwrap_err().reason, Reason::NotUtf8);
    let binary = PlanOptions { strings: Strings::Binary, ..PlanOptions::default() };
    for (element, options) in [(element(Text::Utf8), binary), (element(Text::Binary), PlanOptions::default())] {
        let batch = try_read(&meta(&[3], element), bytes, "", &options).unwrap();
        assert_eq!(batch.column(0).as_binary::<i32>().value(2), b"x\xff");
        assert_eq!(batch.schema().field(0).metadata()["h5flight.text"], "binary");
    }
}

#[test]
fn values_without_a_name_join_the_dictionary_of_an_enum() {
    let members = vec![("off".to_owned(), 0), ("on".to_owned(), 1), ("also on".to_owned(), 1)];
    let element = ElementType::Enum { base: Box::new(integer(1, true, ByteOrder::Little)), members };
    let batch = read(&meta(&[4], element.clone()), &[1, 0, 0xF9, 1], Layout::Auto);
    let column = batch.column(0).as_dictionary::<Int32Type>();
    let names: Vec<_> = column.values().as_string::<i32>().iter().flatten().collect();
    assert_eq!(names, ["off", "on", "also on", "-7"]);
    assert_eq!(column.keys().values(), &[1, 0, 3, 1]);
    assert_eq!(batch.schema().field(0).metadata()["h5flight.enum"], r#"[["off",0],["on",1],["also on",1]]"#);
    let tensor = read(&meta(&[2, 2], element), &[1, 0, 0xF9, 1], Layout::Auto);
    assert!(tensor.schema().field(0).try_extension_type::<FixedShapeTensor>().is_ok());
    assert!(tensor.schema().field(0).metadata().contains_key("h5flight.enum"));
}

#[test]
fn booleans_are_bits_in_columns_and_bytes_in_tensors() {
    let column = read(&meta(&[3], ElementType::Bool), &[0, 1, 2], Layout::Auto);
    assert_eq!(column.column(0).as_boolean().iter().map(Option::unwrap).collect::<Vec<_>>(), [false, true, true]);
    let tensor = read(&meta(&[1, 1, 3], ElementType::Bool), &[0, 1, 1], Layout::Auto);
    assert_eq!(tensor.column(0).as_fixed_size_list().values().as_primitive::<UInt8Type>().values(), &[0, 1, 1]);
    assert_eq!(tensor.schema().field(0).metadata()["h5flight.bool"], "true");
}

fn compound() -> ElementType {
    let member = |name: &str, offset, element| Member { name: name.into(), offset, element };
    let position = ElementType::Compound {
        bytes: 16,
        members: vec![
            member("x", 0, ElementType::Float { bytes: 8, order: ByteOrder::Little }),
            member("y", 8, ElementType::Float { bytes: 8, order: ByteOrder::Big }),
        ],
    };
    let pair = ElementType::Array { dims: vec![2], item: Box::new(u16_be()) };
    ElementType::Compound { bytes: 24, members: vec![member("at", 1, position), member("pair", 18, pair)] }
}

fn compound_bytes(x: f64, y: f64, pair: [u16; 2]) -> Vec<u8> {
    let [p, q] = pair.map(u16::to_be_bytes);
    [&[0xEE][..], &x.to_le_bytes(), &y.to_be_bytes(), &[0xEE], &p, &q, &[0xEE, 0xEE]].concat()
}

#[test]
fn members_of_a_compound_are_columns_and_nested_ones_structs() {
    let bytes = [compound_bytes(1.0, 2.0, [3, 4]), compound_bytes(5.0, 6.0, [7, 8])].concat();
    let batch = read(&meta(&[2], compound()), &bytes, Layout::Auto);
    let at = batch.column_by_name("at").unwrap().as_struct();
    assert_eq!(at.column_by_name("x").unwrap().as_primitive::<Float64Type>().values(), &[1.0, 5.0]);
    assert_eq!(at.column_by_name("y").unwrap().as_primitive::<Float64Type>().values(), &[2.0, 6.0]);
    let pair = batch.column_by_name("pair").unwrap().as_fixed_size_list();
    assert_eq!(pair.values().as_primitive::<UInt16Type>().values(), &[3, 4, 7, 8]);
    assert_eq!(batch.schema().field(1).metadata()["h5flight.shape"], "[2]");
    assert_eq!(
        batch.schema().metadata()["h5flight.dtype"],
        "[('at', [('x', '<f8'), ('y', '>f8')]), ('pair', '>u2', (2,))]"
    );

    let selected = try_read(&meta(&[2], compound()), &bytes, "\"pair\", 1", &PlanOptions::default()).unwrap();
    assert_eq!((selected.num_columns(), selected.num_rows()), (1, 1));
    assert_eq!(selected.schema().field(0).name(), "pair");
}

fn packed(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u32).to_le_bytes(), value.as_bytes()].concat()
}

#[test]
fn strings_sequences_and_references_come_out_of_the_packed_form() {
    let strings_meta = meta(&[3], ElementType::VarString { text: Text::Utf8 });
    let bytes = packed(&[&text("a"), &text(""), &text("\u{e4}\0b")]);
    assert_eq!(strings(&read(&strings_meta, &bytes, Layout::Auto)), ["a", "", "\u{e4}\0b"]);

    let item = Box::new(integer(2, true, ByteOrder::Big));
    let batch =
        read(&meta(&[2], ElementType::VarLen { item }), &[2, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 0], Layout::Auto);
    let lists = batch.column(0).as_list::<i32>();
    assert_eq!(lists.value(0).as_primitive::<Int16Type>().values(), &[1, -1]);
    assert_eq!(lists.value(1).len(), 0);

    let bytes = packed(&[&text("/group"), &u32::MAX.to_le_bytes()]);
    let batch = read(&meta(&[2], ElementType::Reference { region: false }), &bytes, Layout::Auto);
    let paths: Vec<_> = batch.column(0).as_string::<i32>().iter().collect();
    assert_eq!(paths, [Some("/group"), None]);
}

#[test]
fn a_packed_block_is_taken_whole_or_not_at_all() {
    let meta = meta(&[2], ElementType::VarLen { item: Box::new(ElementType::VarString { text: Text::Utf8 }) });
    let plan = plan(&meta, "", &PlanOptions::default());
    let whole = packed(&[&2u32.to_le_bytes(), &text("ab"), &text(""), &0u32.to_le_bytes()]);
    assert!(Decoded::new(Bytes::from(whole.clone()), &block(&plan), &meta).is_ok());
    let bad = |bytes: Vec<u8>| Decoded::new(Bytes::from(bytes), &block(&plan), &meta).unwrap_err().reason;
    for cut in 0..whole.len() {
        assert_eq!(bad(whole[..cut].to_vec()), Reason::ChunkSizeMismatch, "{cut} bytes");
    }
    assert_eq!(bad([&whole[..], &[0]].concat()), Reason::ChunkSizeMismatch);
    // Counts of four thousand million, also nested: an error at once, not an allocation.
    assert_eq!(bad([0xFF; 64].to_vec()), Reason::ChunkSizeMismatch);
    let fill = Decoded::fill(&block(&plan), &meta).unwrap();
    assert_eq!(fill.bytes().as_ref(), [0; 8]);
}

#[test]
fn a_block_of_another_size_is_refused() {
    let meta = meta(&[2, 2], u16_be());
    let plan = plan(&meta, "", &PlanOptions::default());
    for bytes in [0, 7, 9] {
        let error = Decoded::fixed(Bytes::from(vec![0; bytes]), &block(&plan)).unwrap_err();
        assert_eq!(error.reason, Reason::ChunkSizeMismatch);
        assert_eq!(error.message, format!("block 0 of shape [2, 2] has {bytes} of 8 bytes"));
    }
    assert_eq!(plan.assemble(&plan.batch(0), &[]).unwrap_err().reason, Reason::Internal);
}

#[test]
fn a_block_that_is_the_batch_is_not_copied() {
    let meta = meta(&[4, 1, 512], integer(8, true, ByteOrder::Little));
    let plan = plan(&meta, "", &PlanOptions::default());
    let bytes = Bytes::from(vec![7; 4 * 512 * 8]);
    let decoded = Arc::new(Decoded::fixed(bytes.clone(), &block(&plan)).unwrap());
    let batch = plan.assemble(&plan.batch(0), &[decoded]).unwrap();
    let values = batch.column(0).as_fixed_size_list().values().to_data();
    assert_eq!(values.buffers()[0].as_ptr(), bytes.as_ptr());
}
