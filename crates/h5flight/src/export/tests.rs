//! What was written is read back.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Int64Array, StringArray, UInt16Array};
use arrow::datatypes::{DataType, Field, Schema, UInt16Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

/// Rows `from..to` of a tensor of shape (to, 2, 3) with the values 0, 1, 2, ...
fn tensor(from: u16, to: u16) -> RecordBatch {
    let item = Arc::new(Field::new("item", DataType::UInt16, false));
    let values = Arc::new(UInt16Array::from_iter_values(from * 6..to * 6));
    let list: ArrayRef = Arc::new(FixedSizeListArray::new(Arc::clone(&item), 6, values, None));
    let extension = ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned());
    let row = ("h5flight.shape".to_owned(), "[2,3]".to_owned());
    let field = Field::new("value", DataType::FixedSizeList(item, 6), false).with_metadata([extension, row].into());
    let metadata = [("h5flight.shape".to_owned(), "[4,2,3]".to_owned())].into();
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(vec![field], metadata)), vec![list]).unwrap()
}

fn table() -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] =
        [("dim_0", Arc::new(Int64Array::from(vec![0, 1]))), ("name", Arc::new(StringArray::from(vec!["a,b", "c"])))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Writes batches to a file of this name; the folder lives as long as the result.
fn export(name: &str, batches: &[RecordBatch], shape: &[u64]) -> (tempfile::TempDir, Result<PathBuf, Failure>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let written = (|| {
        let mut sink = Export::create(Format::of(&path)?, &path)?.begin(&batches[0].schema(), shape)?;
        batches.iter().try_for_each(|batch| sink.write(batch))?;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the name is not taken before the end");
        assert!(!path.exists());
        let bytes = sink.finish()?;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
        Ok(path)
    })();
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, usize::from(written.is_ok()), "a file that is not complete leaves nothing behind");
    (folder, written)
}

fn reason(result: Result<PathBuf, Failure>) -> (String, String) {
    match result {
        Err(Failure::Failed { reason, message, .. }) => (reason, message),
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[test]
fn an_arrow_file_holds_the_batches_as_they_came() {
    let (_folder, path) = export("a.arrow", &[tensor(0, 3), tensor(3, 4)], &[4, 2, 3]);
    let reader = arrow::ipc::reader::FileReader::try_new(File::open(path.unwrap()).unwrap(), None).unwrap();
    assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), [tensor(0, 3), tensor(3, 4)]);
}

#[test]
fn a_parquet_file_holds_tensors_as_lists_and_keeps_the_metadata() {
    let (_folder, path) = export("a.parquet", &[tensor(0, 3), tensor(3, 4)], &[4, 2, 3]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path.unwrap()).unwrap()).unwrap();
    assert_eq!(reader.schema().metadata().get("h5flight.shape").map(String::as_str), Some("[4,2,3]"));
    let batches: Vec<RecordBatch> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
    let mut values = Vec::new();
    for batch in &batches {
        assert!(!batch.schema().field(0).metadata().contains_key("ARROW:extension:name"));
        let lists = batch.column(0).as_list::<i32>();
        values.extend((0..lists.len()).flat_map(|at| lists.value(at).as_primitive::<UInt16Type>().values().to_vec()));
    }
    assert_eq!(values, (0..24).collect::<Vec<u16>>());
}

#[test]
fn a_csv_file_has_one_head_and_quotes_what_needs_it() {
    let (_folder, path) = export("a.csv", &[table(), table()], &[4]);
    assert_eq!(std::fs::read_to_string(path.unwrap()).unwrap(), "dim_0,name\n0,\"a,b\"\n1,c\n0,\"a,b\"\n1,c\n");
    let (_folder, empty) = export("a.csv", &[table().slice(0, 0)], &[0]);
    assert_eq!(std::fs::read_to_string(empty.unwrap()).unwrap(), "dim_0,name\n");
    let (_folder, tensors) = export("a.csv", &[tensor(0, 1)], &[1, 2, 3]);
    assert_eq!(reason(tensors).0, "bad_layout");
}

#[test]
fn an_npy_file_is_header_and_values() {
    let (_folder, path) =
        export("a.NPY", &[tensor(0, 3).slice(0, 2), tensor(0, 3).slice(2, 1), tensor(3, 4)], &[4, 2, 3]);
    let bytes = std::fs::read(path.unwrap()).unwrap();
    let (header, values) = bytes.split_at(128);
    assert!(String::from_utf8_lossy(header).contains("{'descr': '<u2', 'fortran_order': False, 'shape': (4, 2, 3), }"));
    assert_eq!(values, (0..24u16).flat_map(u16::to_ne_bytes).collect::<Vec<u8>>());
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true]));
    let (_folder, path) = export("b.npy", &[RecordBatch::try_from_iter([("value", flags)]).unwrap().slice(1, 2)], &[2]);
    assert!(std::fs::read(path.unwrap()).unwrap().ends_with(b"\n\x00\x01"));
}

#[test]
fn an_npy_file_with_too_few_or_too_many_values_is_never_named() {
    let (_folder, fewer) = export("a.npy", &[tensor(0, 3)], &[4, 2, 3]);
    let (word, message) = reason(fewer);
    assert_eq!(word, "broken_stream");
    assert!(message.ends_with("a.npy: 12 bytes fewer came than the shape says"), "{message}");
    let (_folder, more) = export("a.npy", &[tensor(0, 3)], &[2, 2, 3]);
    assert!(reason(more).1.ends_with("a.npy: 12 bytes more came than the shape says"));
}

#[test]
fn an_npy_file_holds_no_texts_no_compounds_and_no_missing_values() {
    let column = |array: ArrayRef| RecordBatch::try_from_iter([("value", array)]).unwrap();
    let text = column(Arc::new(StringArray::from(vec!["a"])));
    let missing = column(Arc::new(Int64Array::from(vec![Some(1), None])));
    for batch in [text, missing, table()] {
        let (_folder, refused) = export("a.npy", std::slice::from_ref(&batch), &[batch.num_rows() as u64]);
        assert_eq!(reason(refused).0, "bad_layout");
    }
}

#[test]
fn an_unknown_ending_and_a_layout_that_does_not_fit_are_wrong_usage() {
    for name in ["a", "a.txt", "a.npz", ".npy"] {
        assert!(matches!(Format::of(Path::new(name)), Err(Failure::Usage(_))), "{name}");
    }
    assert!(matches!(Format::Npy.layout(Layout::Tidy), Err(Failure::Usage(_))));
    assert!(matches!(Format::Csv.layout(Layout::Tensor), Err(Failure::Usage(_))));
    assert_eq!(Format::Npy.layout(Layout::Auto).unwrap(), Layout::Tensor);
    assert_eq!(Format::Arrow.layout(Layout::Auto).unwrap(), Layout::Auto);
}

#[test]
fn a_folder_that_does_not_exist_is_told_with_the_name_that_was_asked_for() {
    let refused = Export::create(Format::Csv, Path::new("/no/such/folder/a.csv")).err().unwrap();
    let text = refused.text(crate::output::Form::People).unwrap();
    assert_eq!(text, "error: /no/such/folder/a.csv: No such file or directory (os error 2)");
}
