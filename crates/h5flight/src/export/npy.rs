//! numpy's file format, version 1.0: magic, header (a Python dict as text), values in C order.
//!
//! Source: numpy.lib.format. Only numbers and booleans have a form in it that every reader opens without pickle.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::failure::Failure;

/// The header ends at a multiple of this, so that the values can be mapped into memory.
const ALIGNMENT: usize = 64;
/// Magic, version 1.0.
const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// A .npy file under way.
pub struct NpyWriter<Out> {
    out: Out,
    /// Bytes of values that the header promises and that have not come yet.
    bytes_due: u64,
}

impl<Out: Write> NpyWriter<Out> {
    /// Writes the header.
    ///
    /// # Errors
    /// `bad_layout` where the result is not one column of numbers; `io`.
    pub fn begin(mut out: Out, schema: &SchemaRef, shape: &[u64]) -> Result<Self, Failure> {
        let [only] = schema.fields().as_ref() else {
            let names: Vec<&str> = schema.fields().iter().take(5).map(|field| field.name().as_str()).collect();
            return Err(refusal(&format!(
                "a .npy file holds one array, but the result has the columns {}; choose one with a selection such as \"'{}'\"",
                names.join(", "),
                names.first().unwrap_or(&"field"),
            )));
        };
        let (descr, item_bytes) = descr(only).ok_or_else(|| {
            refusal(&format!("a .npy file holds numbers, not {}; choose .arrow or .parquet", kind(only.data_type())))
        })?;
        let shape = array_shape(only, shape);
        let bytes_due = shape.iter().try_fold(item_bytes, |product, size| product.checked_mul(*size));
        let bytes_due = bytes_due.ok_or_else(|| refusal(&format!("shape {shape:?} has more than 2^64 bytes")))?;
        out.write_all(&header(&descr, &shape)).map_err(|error| io(&error))?;
        Ok(Self { out, bytes_due })
    }

    /// Appends the values of one batch.
    ///
    /// # Errors
    /// `broken_stream` where more comes than the header promises; `bad_layout` for missing values; `io`.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        for column in batch.columns() {
            let values = leaf_values(column);
            if values.null_count() > 0 {
                return Err(refusal(
                    "the result has missing values, which a .npy file cannot hold; choose .arrow or .parquet",
                ));
            }
            if let DataType::Boolean = values.data_type() {
                // Arrow packs eight into a byte, numpy has a byte for each.
                let bytes: Vec<u8> = values.as_boolean().values().iter().map(u8::from).collect();
                self.put(&bytes)?;
                continue;
            }
            let (data, width) = (values.to_data(), values.data_type().primitive_width());
            let (Some(width), [buffer]) = (width, data.buffers()) else {
                return Err(broken(&format!("values of type {} came", values.data_type())));
            };
            let from = data.offset() * width;
            self.put(&buffer.as_slice()[from..from + data.len() * width])?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes_due = self.bytes_due.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let over = bytes.len() as u64 - self.bytes_due;
            broken(&format!("{over} bytes more came than the shape says"))
        })?;
        self.out.write_all(bytes).map_err(|error| io(&error))
    }

    /// Gives the writer back.
    ///
    /// # Errors
    /// `broken_stream` where less came than the header promises.
    pub fn finish(self) -> Result<Out, Failure> {
        match self.bytes_due {
            0 => Ok(self.out),
            missing => Err(broken(&format!("{missing} bytes fewer came than the shape says"))),
        }
    }
}

fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let shape = crate::quantity::show_shape(shape);
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, two bytes of length, text, line feed.
    let unpadded = MAGIC.len() + 2 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a shape of at most 32 axes takes less than 1,000 characters");
    [MAGIC.as_slice(), &length.to_le_bytes(), text.as_bytes()].concat()
}

/// What lists of fixed size are made of in the end.
fn leaf_type(kind: &DataType) -> &DataType {
    match kind {
        DataType::FixedSizeList(item, _) => leaf_type(item.data_type()),
        leaf => leaf,
    }
}

fn leaf_values(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::FixedSizeList(_, size) => {
            let list = column.as_fixed_size_list();
            // In range: the list's own invariant. A list of size 0 has no values at all.
            let values = match usize::try_from(*size).unwrap_or(0) * list.len() {
                0 => list.values().slice(0, 0),
                length => list.values().slice(usize::try_from(list.value_offset(0)).unwrap_or(0), length),
            };
            leaf_values(&values)
        }
        _ => column.clone(),
    }
}

/// The shape of the array: rows, then the shape of one row as the field tells it. Elements that are arrays themselves
/// add their axes there; the two parts of a complex number are an axis for Arrow and none for numpy.
fn array_shape(field: &Field, shape: &[u64]) -> Vec<u64> {
    let row = field.metadata().get("h5flight.shape").and_then(|text| serde_json::from_str::<Vec<u64>>(text).ok());
    let Some(mut row) = row else { return shape.to_vec() };
    if is(field, "h5flight.complex") {
        row.pop();
    }
    shape.first().copied().into_iter().chain(row).collect()
}

fn is(field: &Field, key: &str) -> bool {
    field.metadata().get(key).is_some_and(|value| value == "true")
}

/// numpy's name of the element and its size in bytes. Arrow's type is what the bytes are; the field's metadata tells
/// what Arrow cannot: complex numbers, booleans inside tensors.
fn descr(field: &Field) -> Option<(String, u64)> {
    let order = if cfg!(target_endian = "little") { '<' } else { '>' };
    let complex = is(field, "h5flight.complex");
    let (kind, bytes) = match leaf_type(field.data_type()) {
        DataType::Boolean => return Some(("|b1".into(), 1)),
        DataType::UInt8 if is(field, "h5flight.bool") => return Some(("|b1".into(), 1)),
        DataType::Int8 => return Some(("|i1".into(), 1)),
        DataType::UInt8 => return Some(("|u1".into(), 1)),
        DataType::Int16 => ('i', 2),
        DataType::Int32 => ('i', 4),
        DataType::Int64 => ('i', 8),
        DataType::UInt16 => ('u', 2),
        DataType::UInt32 => ('u', 4),
        DataType::UInt64 => ('u', 8),
        DataType::Float16 if !complex => ('f', 2),
        DataType::Float32 if complex => ('c', 8),
        DataType::Float64 if complex => ('c', 16),
        DataType::Float32 => ('f', 4),
        DataType::Float64 => ('f', 8),
        _ => return None,
    };
    Some((format!("{order}{kind}{bytes}"), bytes))
}

/// What a type that has no form here is called.
fn kind(of: &DataType) -> &'static str {
    match leaf_type(of) {
        DataType::Utf8 | DataType::LargeUtf8 => "strings",
        DataType::Dictionary(..) => "names of an enum",
        DataType::List(_) | DataType::LargeList(_) => "lists of different lengths",
        DataType::Struct(_) => "compounds",
        _ => "bytes",
    }
}

fn refusal(message: &str) -> Failure {
    Failure::local("bad_layout", message)
}

fn broken(message: &str) -> Failure {
    Failure::local("broken_stream", message)
}

fn io(error: &std::io::Error) -> Failure {
    Failure::local("io", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_numpy_writes() {
        let expected = b"\x93NUMPY\x01\x00v\x00{'descr': '<u2', 'fortran_order': False, 'shape': (1000, 64), }";
        let header = header("<u2", &[1_000, 64]);
        assert!(header.starts_with(expected));
        assert_eq!((header.len(), header.last()), (128, Some(&b'\n')));
        assert_eq!(super::header("<f8", &[u64::MAX; 32]).len() % ALIGNMENT, 0);
    }

    /// A field of this type with these metadata of ours.
    fn field(kind: DataType, metadata: &[(&str, &str)]) -> Field {
        let metadata = metadata.iter().map(|(key, value)| (format!("h5flight.{key}"), (*value).to_owned())).collect();
        Field::new("value", kind, false).with_metadata(metadata)
    }

    fn list(item: DataType, size: i32) -> DataType {
        DataType::new_fixed_size_list(item, size, false)
    }

    #[test]
    fn elements_have_numpys_names() {
        for (field, expected) in [
            (field(DataType::UInt16, &[]), "<u2"),
            (field(DataType::Int8, &[]), "|i1"),
            (field(DataType::Boolean, &[("bool", "true")]), "|b1"),
            (field(list(DataType::UInt8, 4), &[("bool", "true")]), "|b1"),
            (field(list(DataType::UInt8, 4), &[]), "|u1"),
            (field(DataType::Float16, &[]), "<f2"),
            (field(list(DataType::Float32, 2), &[("complex", "true")]), "<c8"),
            (field(list(DataType::Float64, 2), &[("complex", "true")]), "<c16"),
        ] {
            assert_eq!(descr(&field).unwrap().0, expected);
        }
        assert_eq!(descr(&field(DataType::Utf8, &[])), None);
    }

    #[test]
    fn the_shape_has_the_axes_of_array_elements_and_not_the_parts_of_complex_numbers() {
        let complex = ("complex", "true");
        let cases: [(Field, &[u64], &[u64]); 6] = [
            (field(DataType::UInt16, &[]), &[], &[]),
            (field(DataType::UInt16, &[]), &[9], &[9]),
            (field(list(DataType::UInt16, 6), &[("shape", "[2,3]")]), &[9, 2, 3], &[9, 2, 3]),
            (field(list(DataType::UInt16, 6), &[("shape", "[6]")]), &[9], &[9, 6]),
            (field(list(DataType::Float32, 2), &[complex]), &[9], &[9]),
            (field(list(DataType::Float32, 6), &[complex, ("shape", "[3,2]")]), &[9, 3], &[9, 3]),
        ];
        for (field, shape, expected) in cases {
            assert_eq!(array_shape(&field, shape), expected, "{field}");
        }
    }
}
