//! Values in the file's form become Arrow arrays. The Arrow type, made in [`super::schema`], says which form is wanted.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, FieldRef, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;

use super::gather::{Nest, Target};
use crate::error::{Error, Reason, Result};
use crate::meta::{ByteOrder, ElementType, StringPadding};
use crate::plan::axis::Piece;

/// Names the values in errors.
#[derive(Clone, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) column: &'a str,
    /// Result rows of the batch.
    pub(crate) rows: Range<u64>,
    /// Values of one row; `None` where that differs from row to row.
    pub(crate) per_row: Option<u64>,
}

/// Values in the file's form, an even distance apart.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) bytes: Buffer,
    pub(crate) offset: usize,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl View {
    /// The values side by side; copied only where they are not.
    fn dense(&self, width: usize) -> Buffer {
        if self.count == 0 {
            return Buffer::default();
        }
        if self.stride == width {
            return self.bytes.slice_with_length(self.offset, self.count * width);
        }
        let mut nest = Nest::default();
        nest.start(self.offset, width);
        nest.push(&Piece { source: 0, step: 1, target: 0, count: self.count as u64 }, self.stride, width);
        let mut target = Target::new(self.count * width);
        target.copy(&nest, &self.bytes);
        target.finish()
    }

    fn value(&self, at: usize, width: usize) -> &[u8] {
        let start = self.offset + at * self.stride;
        &self.bytes[start..start + width]
    }

    fn values(&self, width: usize) -> impl Iterator<Item = &[u8]> {
        (0..self.count).map(move |at| self.value(at, width))
    }

    /// Each value as `parts` values of `width` bytes, side by side.
    fn flattened(&self, parts: usize, width: usize) -> Self {
        Self { bytes: self.dense(parts * width), offset: 0, stride: width, count: self.count * parts }
    }
}

/// The values as an array of this type.
pub(crate) fn array(element: &ElementType, view: &View, data_type: &DataType, origin: &Origin<'_>) -> Result<ArrayRef> {
    let width = element.fixed_bytes().ok_or_else(|| mismatch(element, data_type))? as usize;
    match element {
        ElementType::Integer { order, .. } | ElementType::Float { order, .. } => {
            number(swapped(view.dense(width), width, *order), width, data_type)
        }
        ElementType::Bool if *data_type == DataType::Boolean => {
            let bits = BooleanBuffer::collect_bool(view.count, |at| view.value(at, 1)[0] != 0);
            Ok(Arc::new(BooleanArray::new(bits, None)))
        }
        ElementType::Bool => number(view.dense(1), 1, data_type),
        ElementType::Enum { base, members } => match data_type {
            DataType::Dictionary(..) => dictionary(base, members, view),
            _ => array(base, view, data_type, origin),
        },
        ElementType::FixedString { padding, .. } if matches!(data_type, DataType::FixedSizeBinary(_)) => {
            if *padding == StringPadding::NullPadded {
                return binary(view.dense(width), data_type);
            }
            let mut fields = vec![0; view.count * width];
            for (field, value) in fields.chunks_exact_mut(width).zip(view.values(width)) {
                let value = padding.cut(value);
                field[..value.len()].copy_from_slice(value);
            }
            binary(Buffer::from_vec(fields), data_type)
        }
        ElementType::FixedString { padding, .. } => {
            let values = view.values(width).map(|value| padding.cut(value));
            let (mut offsets, mut bytes) = (Vec::with_capacity(view.count + 1), Vec::with_capacity(view.count * width));
            offsets.push(0);
            for value in values {
                bytes.extend_from_slice(value);
                offsets.push(offset(bytes.len(), origin)?);
            }
            text(offsets, bytes, data_type, origin)
        }
        ElementType::Opaque { .. } => binary(view.dense(width), data_type),
        ElementType::Bitfield { order, .. } => binary(swapped(view.dense(width), width, *order), data_type),
        ElementType::Complex { part } => {
            list_of(&view.flattened(2, width / 2), part, data_type, &Origin { per_row: None, ..origin.clone() })
        }
        ElementType::Array { item, .. } => {
            let item_bytes = item.fixed_bytes().unwrap_or(1).max(1) as usize;
            let parts = width / item_bytes;
            let per_row = origin.per_row.and_then(|values| values.checked_mul(parts as u64));
            list_of(&view.flattened(parts, item_bytes), item, data_type, &Origin { per_row, ..origin.clone() })
        }
        ElementType::Compound { .. } if matches!(data_type, DataType::FixedSizeBinary(_)) => {
            binary(view.dense(width), data_type)
        }
        ElementType::Compound { members, .. } => {
            let DataType::Struct(fields) = data_type else { return Err(mismatch(element, data_type)) };
            let member_arrays = members.iter().zip(fields).map(|(member, field)| {
                let view = View { offset: view.offset + member.offset as usize, ..view.clone() };
                array(&member.element, &view, field.data_type(), origin)
            });
            let arrays = member_arrays.collect::<Result<Vec<_>>>()?;
            let made = StructArray::try_new_with_length(fields.clone(), arrays, None, view.count);
            made.map(|array| Arc::new(array) as ArrayRef).map_err(internal)
        }
        ElementType::VarString { .. }
        | ElementType::VarLen { .. }
        | ElementType::Reference { .. }
        | ElementType::Unsupported { .. } => Err(mismatch(element, data_type)),
    }
}

/// Values that stand in a list of fixed size; within a tensor they are its items.
fn list_of(view: &View, item: &ElementType, data_type: &DataType, origin: &Origin<'_>) -> Result<ArrayRef> {
    match data_type {
        DataType::FixedSizeList(field, size) => {
            let values = array(item, view, field.data_type(), origin)?;
            let lists = if *size == 0 { 0 } else { values.len() / *size as usize };
            fixed_size_list(field, *size, values, lists)
        }
        _ => array(item, view, data_type, origin),
    }
}

pub(crate) fn fixed_size_list(field: &FieldRef, size: i32, values: ArrayRef, count: usize) -> Result<ArrayRef> {
    let lists = FixedSizeListArray::try_new_with_length(FieldRef::clone(field), size, values, None, count);
    lists.map(|lists| Arc::new(lists) as ArrayRef).map_err(internal)
}

fn number(buffer: Buffer, width: usize, data_type: &DataType) -> Result<ArrayRef> {
    let array: ArrayRef = match data_type {
        DataType::Int8 => primitive::<Int8Type>(buffer),
        DataType::Int16 => primitive::<Int16Type>(buffer),
        DataType::Int32 => primitive::<Int32Type>(buffer),
        DataType::Int64 => primitive::<Int64Type>(buffer),
        DataType::UInt8 => primitive::<UInt8Type>(buffer),
        DataType::UInt16 => primitive::<UInt16Type>(buffer),
        DataType::UInt32 => primitive::<UInt32Type>(buffer),
        DataType::UInt64 => primitive::<UInt64Type>(buffer),
        DataType::Float16 => primitive::<Float16Type>(buffer),
        DataType::Float32 => primitive::<Float32Type>(buffer),
        DataType::Float64 => primitive::<Float64Type>(buffer),
        other => return Err(Error::new(Reason::Internal, format!("numbers of {width} bytes as {other}"))),
    };
    Ok(array)
}

fn primitive<T: ArrowPrimitiveType>(buffer: Buffer) -> ArrayRef {
    let aligned = buffer.as_ptr().align_offset(align_of::<T::Native>()) == 0;
    // Blocks that came from elsewhere lie anywhere; Arrow's arrays do not.
    let buffer = if aligned { buffer } else { Buffer::from(buffer.as_slice()) };
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(buffer), None))
}

/// Little-endian values of `width` bytes.
fn swapped(buffer: Buffer, width: usize, order: ByteOrder) -> Buffer {
    if order == ByteOrder::Little || width == 1 {
        return buffer;
    }
    let mut bytes = buffer.into_mutable().unwrap_or_else(|shared| {
        let mut copy = MutableBuffer::new(shared.len());
        copy.extend_from_slice(shared.as_slice());
        copy
    });
    let values = bytes.as_slice_mut();
    match width {
        2 => values.as_chunks_mut::<2>().0.iter_mut().for_each(|value| value.reverse()),
        4 => values.as_chunks_mut::<4>().0.iter_mut().for_each(|value| value.reverse()),
        8 => values.as_chunks_mut::<8>().0.iter_mut().for_each(|value| value.reverse()),
        _ => values.chunks_exact_mut(width).for_each(<[u8]>::reverse),
    }
    bytes.into()
}

/// The member names, then the decimal text of each value that has none: such values are shown, not refused.
fn dictionary(base: &ElementType, members: &[(String, i64)], view: &View) -> Result<ArrayRef> {
    let ElementType::Integer { bytes, signed, order } = base else {
        return Err(mismatch(base, &DataType::Utf8));
    };
    let mut names: Vec<String> = members.iter().map(|(name, _)| name.clone()).collect();
    let mut keys_by_value = HashMap::with_capacity(members.len());
    for (key, (_, value)) in (0i32..).zip(members) {
        keys_by_value.entry(*value).or_insert(key);
    }
    let mut keys = Vec::with_capacity(view.count);
    let mut before: Option<(i64, i32)> = None;
    for raw in view.values(*bytes as usize) {
        let value = integer(raw, *signed, *order);
        let key = match before {
            Some((same, key)) if same == value => key,
            _ => *keys_by_value.entry(value).or_insert_with(|| {
                names.push(if *signed { value.to_string() } else { (value as u64).to_string() });
                names.len() as i32 - 1
            }),
        };
        before = Some((value, key));
        keys.push(key);
    }
    let keys = PrimitiveArray::<Int32Type>::new(keys.into(), None);
    let names = Arc::new(StringArray::from_iter_values(names));
    let made = DictionaryArray::<Int32Type>::try_new(keys, names);
    made.map(|array| Arc::new(array) as ArrayRef).map_err(internal)
}

/// An integer of up to 8 bytes; unsigned ones of 8 bytes keep their bits.
fn integer(raw: &[u8], signed: bool, order: ByteOrder) -> i64 {
    let mut wide = [0; 8];
    for (at, byte) in raw.iter().enumerate() {
        wide[if order == ByteOrder::Little { at } else { raw.len() - 1 - at }] = *byte;
    }
    let unused_bits = 64 - 8 * raw.len() as u32;
    let bits = i64::from_le_bytes(wide);
    if signed { bits << unused_bits >> unused_bits } else { bits }
}

fn binary(buffer: Buffer, data_type: &DataType) -> Result<ArrayRef> {
    let DataType::FixedSizeBinary(size) = data_type else {
        return Err(Error::new(Reason::Internal, format!("bytes as {data_type}")));
    };
    let made = FixedSizeBinaryArray::try_new(*size, buffer, None);
    made.map(|array| Arc::new(array) as ArrayRef).map_err(internal)
}

/// An offset of Arrow's 32-bit lists and strings.
pub(crate) fn offset(value: usize, origin: &Origin<'_>) -> Result<i32> {
    i32::try_from(value).map_err(|_| {
        let (column, Range { start, end }) = (origin.column, &origin.rows);
        let message = format!("column {column:?}, rows {start} to {end}: more than {} bytes or items", i32::MAX);
        Error::new(Reason::ResultTooLarge, message)
    })
}

/// Strings, checked to be UTF-8 where text was promised.
pub(crate) fn text(offsets: Vec<i32>, bytes: Vec<u8>, data_type: &DataType, origin: &Origin<'_>) -> Result<ArrayRef> {
    let boundaries = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let bytes = Buffer::from_vec(bytes);
    if *data_type == DataType::Binary {
        return BinaryArray::try_new(boundaries, bytes, None)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(internal);
    }
    StringArray::try_new(boundaries.clone(), bytes.clone(), None).map(|array| Arc::new(array) as ArrayRef).map_err(
        |error| {
            let is_text = |pair: &[i32]| std::str::from_utf8(&bytes[pair[0] as usize..pair[1] as usize]).is_ok();
            let bad = boundaries.windows(2).position(|pair| !is_text(pair)).unwrap_or(0);
            not_utf8(bad, origin).with_source(error)
        },
    )
}

pub(crate) fn not_utf8(at: usize, origin: &Origin<'_>) -> Error {
    let Origin { column, rows, per_row } = origin;
    let place = match per_row {
        Some(values) => format!("row {}", rows.start + at as u64 / (*values).max(1)),
        None => format!("rows {} to {}", rows.start, rows.end),
    };
    let message = format!("column {column:?}, {place}: a string is not UTF-8; ask for strings as binary");
    Error::new(Reason::NotUtf8, message)
}

fn mismatch(element: &ElementType, data_type: &DataType) -> Error {
    Error::new(Reason::Internal, format!("{} as {data_type}", super::schema::numpy_type(element)))
}

/// Arrow refuses what we made: our own mistake.
pub(crate) fn internal(error: ArrowError) -> Error {
    Error::new(Reason::Internal, "a batch does not fit its schema").with_source(error)
}
