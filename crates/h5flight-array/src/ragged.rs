//! Rows of different lengths, as tables of NWB store them: one after the other, and beside them where each ends.
//!
//! The ends with the end of the row before in front are the offsets of an Arrow list: no value is moved. What comes out
//! of a file is checked here: ends ascend and lie inside the values.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray, ListArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef, UInt64Type};

use crate::error::{Error, Reason, Result};

/// Values from which on lists have 64-bit offsets: a client that puts all batches together must be able to.
pub const LARGE_VALUES_MIN: u64 = i32::MAX as u64;

/// Where some consecutive rows lie among the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// One more than rows; ascending.
    bounds: Vec<u64>,
}

impl Bounds {
    /// From the ends of the rows and, unless they begin with the first row of all, of the row before. `values` is how many
    /// there are.
    ///
    /// # Errors
    /// `malformed_table`, naming `index`, for ends that do not ascend, pass the end or are no numbers.
    pub fn of_ends(index: &str, ends: &ArrayRef, first_row: u64, values: u64) -> Result<Self> {
        let refuse = |why: String| Err(Error::new(Reason::MalformedTable, format!("the index {index:?} {why}")));
        if !ends.data_type().is_integer() {
            return refuse(format!("has values of the type {}, expected whole numbers", ends.data_type()));
        }
        let Ok(numbers) = compute::cast(ends, &DataType::UInt64) else {
            return refuse("cannot be read as whole numbers".to_owned());
        };
        let numbers = numbers.as_primitive::<UInt64Type>();
        // A negative number has become a null.
        if numbers.null_count() > 0 {
            return refuse("has a negative entry".to_owned());
        }
        let mut bounds = Vec::with_capacity(numbers.len() + 1);
        if first_row == 0 {
            bounds.push(0);
        }
        bounds.extend_from_slice(numbers.values());
        let first_shown = first_row.saturating_sub(1);
        for (at, pair) in bounds.windows(2).enumerate() {
            if pair[1] < pair[0] {
                return refuse(format!("goes back from {} to {} at row {}", pair[0], pair[1], first_row + at as u64));
            }
        }
        match bounds.last() {
            Some(last) if *last > values => {
                let row = first_shown + bounds.partition_point(|bound| *bound <= values) as u64;
                refuse(format!("says that a row near {row} ends at {last} of {values} values"))
            }
            _ => Ok(Self { bounds }),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// How many values these rows have.
    pub fn values_of(&self, rows: Range<usize>) -> u64 {
        let range = self.range(rows);
        range.end - range.start
    }

    /// Where these rows lie among the values.
    pub fn range(&self, rows: Range<usize>) -> Range<u64> {
        match (self.bounds.get(rows.start), self.bounds.get(rows.end)) {
            (Some(start), Some(end)) => *start..*end,
            _ => 0..0,
        }
    }

    /// The list of these rows: `values` are those of [`Self::range`], `field` is the list's own.
    ///
    /// # Errors
    /// `internal` when these are other values.
    pub fn list(&self, rows: Range<usize>, field: &FieldRef, values: ArrayRef) -> Result<ArrayRef> {
        let range = self.range(rows.clone());
        let of_rows = self.bounds.get(rows.start..=rows.end).unwrap_or(&[0]);
        let offsets = of_rows.iter().map(|bound| bound - range.start);
        let fault = |error: arrow::error::ArrowError| Error::new(Reason::Internal, "a list").with_source(error);
        match field.data_type() {
            DataType::LargeList(item) => {
                let offsets: ScalarBuffer<i64> = offsets.map(|offset| offset as i64).collect();
                let list = LargeListArray::try_new(Arc::clone(item), OffsetBuffer::new(offsets), values, None);
                Ok(Arc::new(list.map_err(fault)?))
            }
            DataType::List(item) if range.end - range.start <= LARGE_VALUES_MIN => {
                let offsets: ScalarBuffer<i32> = offsets.map(|offset| offset as i32).collect();
                let list = ListArray::try_new(Arc::clone(item), OffsetBuffer::new(offsets), values, None);
                Ok(Arc::new(list.map_err(fault)?))
            }
            other => Err(Error::new(Reason::Internal, format!("a list of the type {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int8Array, UInt8Array};
    use arrow::datatypes::Field;

    use super::*;

    fn ends(values: &[u8]) -> ArrayRef {
        Arc::new(UInt8Array::from(values.to_vec()))
    }

    #[test]
    fn ends_become_offsets_from_any_row_on() {
        let item = Arc::new(Field::new("item", DataType::Float64, false));
        let field: FieldRef = Arc::new(Field::new("x", DataType::List(item), false));
        let all = Bounds::of_ends("x_index", &ends(&[2, 2, 5]), 0, 5).unwrap();
        assert_eq!((all.rows(), all.range(0..3), all.range(1..2), all.values_of(2..3)), (3, 0..5, 2..2, 3));
        let values: ArrayRef = Arc::new(Float64Array::from(vec![3., 4., 5.]));
        let list = all.list(1..3, &field, Arc::clone(&values)).unwrap();
        assert_eq!(list.as_list::<i32>().value_offsets(), [0, 0, 3]);
        let later = Bounds::of_ends("x_index", &ends(&[2, 2, 5]), 7, 5).unwrap();
        assert_eq!((later.rows(), later.range(0..2)), (2, 2..5));
        let empty = Bounds::of_ends("x_index", &ends(&[]), 0, 0).unwrap();
        assert_eq!((empty.rows(), empty.range(0..0)), (0, 0..0));
    }

    #[test]
    fn ends_that_go_back_or_beyond_are_refused() {
        let negative: ArrayRef = Arc::new(Int8Array::from(vec![-1, 3]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.]));
        for (ends, told) in [
            (ends(&[3, 2]), "goes back from 3 to 2 at row 1"),
            (ends(&[3, 6]), "ends at 6 of 5 values"),
            (negative, "has a negative entry"),
            (floats, "expected whole numbers"),
        ] {
            let error = Bounds::of_ends("x_index", &ends, 0, 5).unwrap_err();
            assert_eq!(error.reason, Reason::MalformedTable);
            assert!(error.message.contains(told), "{error}");
        }
    }
}
