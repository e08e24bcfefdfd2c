//! Rows against what their values are, chunks against their rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Int16Array, Int64Array,
    RecordBatch, StringArray, StructArray, TimestampMillisecondArray, UInt8Array, UInt16Array,
};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use proptest::prelude::*;

use super::*;
use crate::error::Reason;
use crate::meta::{ByteOrder, ElementType};

fn field(name: &str, array: &dyn Array, metadata: &[(&str, &str)]) -> Field {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Field::new(name, array.data_type().clone(), true).with_metadata(metadata)
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn lists(item: ArrayRef, size: i32) -> ArrayRef {
    let field = Arc::new(Field::new("item", item.data_type().clone(), true));
    Arc::new(FixedSizeListArray::new(field, size, item, None))
}

/// The slabs that a batch fills.
fn take_all(slabs: &mut Slabs, batch: &RecordBatch) -> Result<Vec<Slab>, crate::Error> {
    let (mut done, mut all) = (0, Vec::new());
    while done < batch.num_rows() {
        let (next, full) = slabs.take(batch, done)?;
        assert!(next > done);
        done = next;
        all.extend(full);
    }
    Ok(all)
}

#[test]
fn short_texts_in_long_fields_fill_one_slab_at_a_time() {
    let array: ArrayRef = Arc::new(StringArray::from(vec![""; 100_000]));
    let batch = batch(vec![(field("value", &*array, &[("h5flight.bytes", "1048576")]), array)]);
    // All of it are 100 GB.
    let mut slabs = Slabs::new(RowForm::of(batch.schema_ref()).unwrap(), 4);
    let (next, full) = slabs.take(&batch, 0).unwrap();
    assert_eq!((next, full.map(|slab| slab.bytes.len())), (4, Some(4 << 20)));
    let (next, full) = slabs.take(&batch, 99_998).unwrap();
    assert_eq!((next, full.is_none(), slabs.rows()), (100_000, true, 6));
}

/// The bytes of all rows of a batch.
fn rows(batch: &RecordBatch) -> Result<(RowForm, Vec<u8>), crate::Error> {
    let form = RowForm::of(batch.schema_ref())?;
    let mut slabs = Slabs::new(form.clone(), batch.num_rows() as u64);
    let full = take_all(&mut slabs, batch)?;
    assert_eq!(full.len(), 1);
    Ok((form, full[0].bytes.to_vec()))
}

#[test]
fn values_become_the_bytes_that_hdf5_has() {
    let check = |array: ArrayRef, metadata: &[(&str, &str)], numpy: &str, shape: &[u64], bytes: &[u8]| {
        let (form, found) = rows(&batch(vec![(field("value", &*array, metadata), array)])).unwrap();
        assert_eq!(crate::batch::numpy_type(&form.element), numpy);
        assert_eq!((form.row_shape.as_slice(), found.as_slice()), (shape, bytes), "{numpy}");
        form
    };
    check(Arc::new(Int16Array::from(vec![1, -2])), &[], "<i2", &[], &[1, 0, 254, 255]);
    check(Arc::new(Int16Array::from(vec![9, 1, -2]).slice(1, 2)), &[], "<i2", &[], &[1, 0, 254, 255]);
    check(Arc::new(BooleanArray::from(vec![true, false, true])), &[], "|b1", &[], &[1, 0, 1]);
    let bytes = || Arc::new(UInt8Array::from(vec![1, 0, 7, 1])) as ArrayRef;
    check(lists(bytes(), 2), &[("h5flight.bool", "true")], "|b1", &[2], &[1, 0, 1, 1]);
    check(lists(bytes(), 4), &[("h5flight.shape", "[2,2]")], "|u1", &[2, 2], &[1, 0, 7, 1]);
    check(lists(lists(bytes(), 2), 2), &[], "|u1", &[2, 2], &[1, 0, 7, 1]);
    check(lists(bytes(), 2).slice(1, 1), &[], "|u1", &[2], &[7, 1]);
    let tensor =
        [("ARROW:extension:name", "arrow.fixed_shape_tensor"), ("ARROW:extension:metadata", "{\"shape\":[1,4]}")];
    check(lists(bytes(), 4), &tensor, "|u1", &[1, 4], &[1, 0, 7, 1]);
    check(bytes(), &[("h5flight.enum", "[[\"off\",0],[\"on\",1]]")], "|u1", &[], &[1, 0, 7, 1]);
    let pairs = lists(Arc::new(Float32Array::from(vec![1.0, 2.0])), 2);
    let form = check(pairs, &[("h5flight.complex", "true")], "<c8", &[], &[0, 0, 128, 63, 0, 0, 0, 64]);
    assert!(matches!(form.element, ElementType::Complex { .. }));
    let binary = || Arc::new(FixedSizeBinaryArray::try_from_iter([*b"ab", *b"c\0"].iter()).unwrap()) as ArrayRef;
    check(binary(), &[("h5flight.text", "fixed")], "|S2", &[], b"abc\0");
    check(binary(), &[("h5flight.tag", "x")], "|V2", &[], b"abc\0");
    check(binary().slice(1, 1), &[], "|V2", &[], b"c\0");
    check(
        Arc::new(StringArray::from(vec!["\u{e9}", ""])),
        &[("h5flight.bytes", "3")],
        "|S3",
        &[],
        &[0xc3, 0xa9, 0, 0, 0, 0],
    );
    let times = Arc::new(TimestampMillisecondArray::from(vec![5]));
    let form = check(times, &[], "<i8", &[], &[5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(form.attributes["unit"], "milliseconds since 1970-01-01T00:00:00Z");
}

#[test]
fn columns_become_the_members_of_a_compound() {
    let numbers: ArrayRef = Arc::new(Int16Array::from(vec![1, 2]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![false, true]));
    let inner = Fields::from(vec![Field::new("x", DataType::UInt16, false)]);
    let structs = StructArray::new(inner, vec![Arc::new(UInt16Array::from(vec![3, 4, 5, 6]))], None);
    let structs = lists(Arc::new(structs), 2);
    let columns = vec![
        (field("a", &*numbers, &[]), numbers),
        (field("b", &*flags, &[]), flags),
        (field("c", &*structs, &[]), structs),
    ];
    let (form, bytes) = rows(&batch(columns)).unwrap();
    let numpy = "[('a', '<i2'), ('b', '|b1'), ('c', [('x', '<u2')], (2,))]";
    assert_eq!(crate::batch::numpy_type(&form.element), numpy);
    assert_eq!(bytes, [1, 0, 0, 3, 0, 4, 0, 2, 0, 1, 5, 0, 6, 0]);
}

#[test]
fn a_record_is_written_with_the_members_that_its_schema_tells() {
    let order = ByteOrder::Little;
    let member = |name: &str, offset| crate::meta::Member {
        name: name.into(),
        offset,
        element: ElementType::Integer { bytes: 1, signed: false, order },
    };
    let element = ElementType::Compound { bytes: 2, members: vec![member("a", 0), member("b", 1)] };
    let array: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8, 2], [3, 4]].iter()).unwrap());
    let field = field("value", &*array, &[("h5flight.record", "x")]);
    let told = HashMap::from([("h5flight.type".to_owned(), serde_json::to_string(&element).unwrap())]);
    let schema = Arc::new(Schema::new_with_metadata(vec![field.clone()], told));
    let batch = RecordBatch::try_new(schema, vec![Arc::clone(&array)]).unwrap();
    let (form, bytes) = rows(&batch).unwrap();
    assert_eq!((form.element, bytes.as_slice()), (element, &[1, 2, 3, 4][..]));
    assert_eq!(RowForm::of(&Schema::new(vec![field])).unwrap_err().reason, Reason::PutMismatch);
}

#[test]
fn what_has_no_form_is_refused_by_name() {
    let check = |array: ArrayRef, metadata: &[(&str, &str)], word: &str| {
        let batch = batch(vec![(field("value", &*array, metadata), array)]);
        let error = rows(&batch).map(|(form, _)| form.element).unwrap_err();
        assert_eq!(error.reason, Reason::PutMismatch, "{error}");
        assert!(error.message.contains("\"value\"") && error.message.contains(word), "{error}");
    };
    check(Arc::new(Int64Array::from(vec![Some(1), None])), &[], "nulls");
    check(lists(Arc::new(Int64Array::from(vec![Some(1), None])), 2), &[], "nulls");
    check(Arc::new(StringArray::from(vec!["a"])), &[], "h5flight.bytes");
    check(Arc::new(StringArray::from(vec!["abc"])), &[("h5flight.bytes", "2")], "h5flight.bytes is 2");
    check(Arc::new(arrow::array::BinaryArray::from(vec![&b"a"[..]])), &[], "Binary");
    check(Arc::new(arrow::array::Date32Array::from(vec![1])), &[], "Date32");
    let bytes = || lists(Arc::new(UInt8Array::from(vec![1, 2])), 2);
    check(bytes(), &[("h5flight.shape", "[3]")], "[3]");
    check(bytes(), &[("h5flight.complex", "true")], "complex");
    check(bytes(), &[("h5flight.enum", "[[\"a\",256]]")], "enum");
    let permuted = [
        ("ARROW:extension:name", "arrow.fixed_shape_tensor"),
        ("ARROW:extension:metadata", "{\"shape\":[1,2],\"permutation\":[1,0]}"),
    ];
    check(bytes(), &permuted, "permuted");
}

#[test]
fn chunks_that_nobody_asked_for_are_about_a_mebibyte() {
    type Case = (&'static [u64], u64, Option<u64>, &'static [u64]);
    let cases: [Case; 7] = [
        (&[], 2, None, &[524_288]),
        (&[], 2, Some(10), &[10]),
        (&[], 2, Some(0), &[1]),
        (&[384], 2, None, &[1365, 384]),
        (&[2048, 2048], 2, None, &[1, 256, 2048]),
        (&[3_000_000], 1, None, &[1, 1_048_576]),
        (&[2], 5 << 20, None, &[1, 1]),
    ];
    for (row_shape, element_bytes, rows, expected) in cases {
        assert_eq!(default_chunk_shape(row_shape, element_bytes, rows), expected);
    }
}

#[test]
fn chunk_shapes_that_do_not_fit_the_rows_are_refused() {
    let tensor = lists(Arc::new(UInt8Array::from(vec![0; 12])), 12);
    let column = field("value", &*tensor, &[("h5flight.shape", "[3,4]")]);
    let form = RowForm::of(&Schema::new(vec![column])).unwrap();
    let reason = |shape: &[u64]| Grid::new(&form, shape, 100).err().map(|error| error.reason);
    assert_eq!(reason(&[5, 3, 4]), None);
    for shape in [&[5, 3][..], &[5, 3, 4, 1], &[0, 3, 4], &[5, 4, 4]] {
        assert_eq!(reason(shape), Some(Reason::BadRequest), "{shape:?}");
    }
    for shape in [[9, 3, 4], [u64::MAX, 3, 4]] {
        assert_eq!(reason(&shape), Some(Reason::ChunkTooLarge));
    }
}

proptest! {
    /// Each element is its own number: where it lies in the chunks is found by the definition.
    #[test]
    fn chunks_hold_the_rows_and_are_filled_up(
        row_shape in prop::collection::vec(1u64..6, 0..4),
        chunk_rows in 1u64..5,
        cuts in prop::collection::vec(any::<u64>(), 3),
        batches in prop::collection::vec(0usize..7, 0..5),
    ) {
        let row_items: u64 = row_shape.iter().product();
        let chunk_shape: Vec<u64> = std::iter::once(chunk_rows)
            .chain(row_shape.iter().zip(&cuts).map(|(size, cut)| 1 + cut % size))
            .collect();
        let column = |items: Vec<u16>| {
            let array: ArrayRef = Arc::new(UInt16Array::from(items));
            let array = if row_shape.is_empty() { array } else { lists(array, row_items as i32) };
            let shape = format!("{row_shape:?}");
            let metadata: &[(&str, &str)] = if row_shape.is_empty() { &[] } else { &[("h5flight.shape", &shape)] };
            batch(vec![(field("value", &*array, metadata), array)])
        };
        let form = RowForm::of(column(Vec::new()).schema_ref()).unwrap();
        let grid = Grid::new(&form, &chunk_shape, 1 << 20).unwrap();
        let mut slabs = Slabs::new(form, chunk_rows);
        let (mut next, mut found) = (1u16, Vec::new());
        for rows in &batches {
            let items: Vec<u16> = (next..).take(rows * row_items as usize).collect();
            next += items.len() as u16;
            found.extend(take_all(&mut slabs, &column(items)).unwrap());
        }
        let rows = slabs.rows();
        found.extend(slabs.finish(chunk_rows));
        prop_assert_eq!(rows, batches.iter().sum::<usize>() as u64);
        prop_assert_eq!(found.iter().map(|slab| slab.rows).sum::<u64>(), rows);
        let shape: Vec<u64> = std::iter::once(rows).chain(row_shape.iter().copied()).collect();
        let mut seen = 0;
        for slab in &found {
            for number in 0..grid.slab_chunks() {
                let (origin, bytes) = grid.chunk(slab, number);
                for (at, value) in bytes.chunks_exact(2).enumerate() {
                    let mut rest = at as u64;
                    let mut index = origin.clone();
                    for axis in (0..index.len()).rev() {
                        index[axis] += rest % chunk_shape[axis];
                        rest /= chunk_shape[axis];
                    }
                    let inside = index.iter().zip(&shape).all(|(at, size)| at < size);
                    let flat = index.iter().zip(&shape).fold(0, |flat, (at, size)| flat * size + at);
                    let expected = if inside { flat as u16 + 1 } else { 0 };
                    prop_assert_eq!(u16::from_le_bytes([value[0], value[1]]), expected, "{:?} {:?}", origin, index);
                    seen += u64::from(inside);
                }
            }
        }
        prop_assert_eq!(seen, rows * row_items);
    }
}
