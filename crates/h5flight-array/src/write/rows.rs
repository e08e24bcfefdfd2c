//! Values of batches become the bytes of rows.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, LargeStringArray, RecordBatch, StringArray,
};
use arrow::datatypes::DataType;

use super::form::{Column, Leaf, RowForm, mismatch};
use crate::error::Result;

/// Where the values of one column of one struct go: every `stride` bytes, from `offset` on.
#[derive(Clone, Copy)]
struct Place {
    stride: usize,
    offset: usize,
}

impl RowForm {
    /// Checks that a batch holds no null, where one could hide.
    ///
    /// # Errors
    /// `put_mismatch` naming the column.
    pub fn check(&self, batch: &RecordBatch) -> Result<()> {
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        columns.into_iter().try_for_each(|(field, array)| refuse_nulls(field.name(), array.as_ref()))
    }

    /// Appends the bytes of these rows of a checked batch.
    ///
    /// # Errors
    /// `put_mismatch` for a text that is longer than its field.
    pub(super) fn append(&self, batch: &RecordBatch, from: usize, rows: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + rows * self.row_bytes, 0);
        for (column, array) in self.columns.iter().zip(batch.columns()) {
            let place = Place { stride: self.row_bytes, offset: column.offset };
            column.place(&array.slice(from, rows), place, &mut out[start..])?;
        }
        Ok(())
    }
}

impl Column {
    /// Writes the values of all rows of `array` to their places.
    fn place(&self, array: &ArrayRef, place: Place, out: &mut [u8]) -> Result<()> {
        let mut values = ArrayRef::clone(array);
        while let Some(list) = values.as_any().downcast_ref::<FixedSizeListArray>() {
            values = ArrayRef::clone(list.values());
        }
        match &self.leaf {
            Leaf::Plain => {
                self.copy(plain_bytes(&values), place, out);
                Ok(())
            }
            Leaf::Bools => {
                let bytes: Vec<u8> = plain_bytes(&values).iter().map(|byte| u8::from(*byte != 0)).collect();
                self.copy(&bytes, place, out);
                Ok(())
            }
            Leaf::Bits => {
                let bits: &BooleanArray = values.as_boolean();
                let bytes: Vec<u8> = bits.values().iter().map(u8::from).collect();
                self.copy(&bytes, place, out);
                Ok(())
            }
            Leaf::Text => {
                let mut bytes = vec![0; values.len() * self.item_bytes];
                match values.data_type() {
                    DataType::LargeUtf8 => self.texts(values.as_string::<i64>() as &LargeStringArray, &mut bytes)?,
                    _ => self.texts(values.as_string::<i32>() as &StringArray, &mut bytes)?,
                }
                self.copy(&bytes, place, out);
                Ok(())
            }
            Leaf::Members(members) => self.members(members, &values, place, out),
        }
    }

    /// Structs: of one a row its members go to their places at once, of several by way of a buffer.
    fn members(&self, members: &[Self], values: &ArrayRef, place: Place, out: &mut [u8]) -> Result<()> {
        let structs = values.as_struct();
        if self.items == 1 {
            return members.iter().zip(structs.columns()).try_for_each(|(member, array)| {
                member.place(array, Place { offset: place.offset + member.offset, ..place }, out)
            });
        }
        let mut bytes = vec![0; structs.len() * self.item_bytes];
        for (member, array) in members.iter().zip(structs.columns()) {
            member.place(array, Place { stride: self.item_bytes, offset: member.offset }, &mut bytes)?;
        }
        self.copy(&bytes, place, out);
        Ok(())
    }

    fn texts<O: arrow::array::OffsetSizeTrait>(
        &self,
        texts: &arrow::array::GenericStringArray<O>,
        out: &mut [u8],
    ) -> Result<()> {
        for (at, field) in out.chunks_exact_mut(self.item_bytes).enumerate() {
            let text = texts.value(at).as_bytes();
            let Some(target) = field.get_mut(..text.len()) else {
                let (name, bytes) = (&self.name, self.item_bytes);
                let message = format!("column {name:?} has a text of {} bytes, h5flight.bytes is {bytes}", text.len());
                return Err(mismatch(message));
            };
            target.copy_from_slice(text);
        }
        Ok(())
    }

    /// Copies the values of each row, which lie one behind the other.
    fn copy(&self, bytes: &[u8], Place { stride, offset }: Place, out: &mut [u8]) {
        let width = self.items * self.item_bytes;
        if width == stride {
            out.copy_from_slice(bytes);
            return;
        }
        for (row, value) in out.chunks_exact_mut(stride).zip(bytes.chunks_exact(width)) {
            row[offset..offset + width].copy_from_slice(value);
        }
    }
}

/// The bytes of values of one size.
fn plain_bytes(values: &ArrayRef) -> &[u8] {
    let width = match values.data_type() {
        DataType::FixedSizeBinary(bytes) => usize::try_from(*bytes).unwrap_or(0),
        other => other.primitive_width().unwrap_or(1),
    };
    // The one buffer of such an array; what a slice leaves out is cut off here.
    match values.as_any().downcast_ref::<arrow::array::FixedSizeBinaryArray>() {
        Some(binary) => &binary.value_data()[..binary.len() * width],
        None => arrow::downcast_primitive_array!(
            values => &values.values().inner().as_slice()[..values.len() * width],
            _ => &[]
        ),
    }
}

fn refuse_nulls(name: &str, array: &dyn Array) -> Result<()> {
    let nulls = array.null_count();
    if nulls > 0 {
        let rows = array.len();
        return Err(mismatch(format!("column {name:?} has {nulls} nulls in {rows} values, and HDF5 has none")));
    }
    if let Some(list) = array.as_any().downcast_ref::<FixedSizeListArray>() {
        return refuse_nulls(name, list.values().as_ref());
    }
    if let Some(members) = array.as_struct_opt() {
        return members.columns().iter().try_for_each(|member| refuse_nulls(name, member.as_ref()));
    }
    Ok(())
}
