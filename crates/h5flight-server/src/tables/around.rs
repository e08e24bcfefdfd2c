//! Times near events: what a raster and a histogram are made of. Rows of a table times events, each with the part of a list
//! that lies around the event, counted from it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, LargeListArray, OffsetSizeTrait, RecordBatch, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema, SchemaRef};
use h5flight_array::Reason;

use super::column;
use crate::error::{Error, Result};

/// Bytes of a row of the result beside what the table has, about.
const ROW_BYTES: usize = 64;

/// How rows become rows around events.
#[derive(Clone)]
pub(super) struct Around {
    /// Each event's number, and when it is.
    pub(super) events: Arc<[(u64, f64)]>,
    /// Start and end, in seconds from the event.
    pub(super) bounds_s: (f64, f64),
    /// The column of lists.
    column: usize,
    /// What is delivered.
    pub(super) schema: SchemaRef,
}

impl Around {
    /// For the rows of a table.
    ///
    /// # Errors
    /// `bad_request` where the column has no lists of numbers, or another one has lists.
    pub(super) fn new(table: &Schema, name: &str, events: Vec<(u64, f64)>, bounds_s: (f64, f64)) -> Result<Self> {
        let refuse = |message: String| Err(Error::new(Reason::BadRequest, message));
        let Some((column, _)) = table.fields().find(name) else {
            return refuse(format!("the lists of {name:?} are not among the columns that are asked for"));
        };
        let mut fields: Vec<FieldRef> = Vec::new();
        for (at, field) in table.fields().iter().enumerate() {
            match (field.data_type(), at == column) {
                (DataType::List(item) | DataType::LargeList(item), true) if item.data_type().is_numeric() => {}
                (other, true) => return refuse(format!("column {name:?} is {other}, no list of numbers in each row")),
                (DataType::List(_) | DataType::LargeList(_), false) => {
                    return refuse(format!("column {:?} has lists as well: ask for it alone", field.name()));
                }
                (_, false) => fields.push(Arc::clone(field)),
            }
        }
        let item = Arc::new(Field::new("item", DataType::Float64, false));
        fields.push(Arc::new(Field::new("event", DataType::UInt64, false)));
        fields.push(Arc::new(Field::new("event_s", DataType::Float64, false)));
        fields.push(Arc::new(Field::new(name, DataType::LargeList(item), false)));
        let names: std::collections::HashSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        if names.len() < fields.len() {
            return refuse("a column of the table has the name event or event_s: ask for others".into());
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, table.metadata().clone()));
        Ok(Self { events: events.into(), bounds_s, column, schema })
    }

    /// Rows of the result that a batch of the table becomes.
    pub(super) fn rows(&self, batch: &RecordBatch) -> usize {
        batch.num_rows() * self.events.len()
    }

    /// Rows of the result from `first` on, as many as are about `batch_bytes`; gives what is behind them.
    ///
    /// # Errors
    /// `internal`.
    pub(super) fn part(&self, batch: &RecordBatch, first: usize, batch_bytes: u64) -> Result<(RecordBatch, usize)> {
        let lists = batch.column(self.column);
        let row_bytes = self.row_bytes(batch);
        let (mut rows, mut events, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let (mut values, mut offsets) = (Vec::new(), vec![0i64]);
        let mut held: Option<(usize, Vec<f64>)> = None;
        let mut next = first;
        while next < self.rows(batch) {
            let (row, at) = (next / self.events.len(), next % self.events.len());
            if held.as_ref().is_none_or(|(held, _)| *held != row) {
                held = Some((row, ascending(lists, row)?));
            }
            let list = held.as_ref().map_or(&[][..], |(_, list)| list.as_slice());
            let (number, event_s) = self.events[at];
            let near = self.near(list, event_s);
            let bytes = values.len() * 8 + rows.len() * row_bytes + near.len() * 8;
            if next > first && bytes as u64 > batch_bytes {
                break;
            }
            values.extend(list[near].iter().map(|value| value - event_s));
            offsets.push(values.len() as i64);
            rows.push(row as u32);
            events.push(number);
            times.push(event_s);
            next += 1;
        }
        let rows = UInt32Array::from(rows);
        let failed = |error| column::internal("putting rows around events together", error);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (at, column) in batch.columns().iter().enumerate() {
            if at != self.column {
                columns.push(compute::take(column, &rows, None).map_err(failed)?);
            }
        }
        let item = Arc::new(Field::new("item", DataType::Float64, false));
        let values = Arc::new(Float64Array::from(values));
        let lists = LargeListArray::try_new(item, OffsetBuffer::new(offsets.into()), values, None).map_err(failed)?;
        columns.push(Arc::new(UInt64Array::from(events)));
        columns.push(Arc::new(Float64Array::from(times)));
        columns.push(Arc::new(lists));
        let part = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)?;
        Ok((part, next))
    }

    /// Bytes of a row of the result without its list: what is told of a row of the table is told again for each event.
    fn row_bytes(&self, batch: &RecordBatch) -> usize {
        let others = batch.columns().iter().enumerate().filter(|(at, _)| *at != self.column);
        let bytes: usize = others.map(|(_, column)| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        ROW_BYTES + bytes.div_ceil(batch.num_rows().max(1))
    }

    /// Where the values around an event are, of ascending ones. What is no number is around no event.
    fn near(&self, values: &[f64], event_s: f64) -> Range<usize> {
        let first = values.partition_point(|value| *value < event_s + self.bounds_s.0);
        let end = values.partition_point(|value| *value < event_s + self.bounds_s.1);
        first..end.max(first)
    }
}

/// The values of one row, ascending: files should have them so, and nearly always do.
fn ascending(lists: &ArrayRef, row: usize) -> Result<Vec<f64>> {
    let values = match lists.data_type() {
        DataType::LargeList(_) => values_of::<i64>(lists, row),
        _ => values_of::<i32>(lists, row),
    };
    let values = compute::cast(&values, &DataType::Float64);
    let values = values.map_err(|error| column::internal("making numbers of a list", error))?;
    let mut values: Vec<f64> =
        values.as_primitive::<Float64Type>().values().iter().copied().filter(|value| !value.is_nan()).collect();
    if !values.is_sorted() {
        values.sort_unstable_by(f64::total_cmp);
    }
    Ok(values)
}

fn values_of<O: OffsetSizeTrait>(lists: &ArrayRef, row: usize) -> ArrayRef {
    lists.as_list::<O>().value(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_around_events_are_cut_anywhere_into_the_same_rows() {
        let lists = LargeListArray::from_iter_primitive::<Float64Type, _, _>([
            Some([Some(1.0), Some(2.0), Some(2.5), Some(9.0)].to_vec()),
            Some(vec![]),
            Some([Some(9.5), Some(f64::NAN), Some(1.5)].to_vec()),
        ]);
        let ids = UInt64Array::from(vec![7, 8, 9]);
        let fields = vec![Field::new("id", DataType::UInt64, false), Field::new("t", lists.data_type().clone(), false)];
        let table = Schema::new(fields);
        let batch = RecordBatch::try_new(Arc::new(table.clone()), vec![Arc::new(ids), Arc::new(lists)]).unwrap();
        let around = Around::new(&table, "t", vec![(0, 2.0), (5, 10.0)], (-1.0, 0.5)).unwrap();
        let mut found = Vec::new();
        for batch_bytes in [0, 70, 1 << 20] {
            let (mut first, mut rows) = (0, Vec::new());
            while first < around.rows(&batch) {
                let (part, next) = around.part(&batch, first, batch_bytes).unwrap();
                assert!(next > first);
                for row in 0..part.num_rows() {
                    let id = part.column(0).as_primitive::<arrow::datatypes::UInt64Type>().value(row);
                    let event = part.column(1).as_primitive::<arrow::datatypes::UInt64Type>().value(row);
                    let near = part.column(3).as_list::<i64>().value(row);
                    rows.push((id, event, near.as_primitive::<Float64Type>().values().to_vec()));
                }
                first = next;
            }
            found.push(rows);
        }
        let wanted = vec![
            (7, 0, vec![-1.0, 0.0]),
            (7, 5, vec![-1.0]),
            (8, 0, vec![]),
            (8, 5, vec![]),
            (9, 0, vec![-0.5]),
            (9, 5, vec![-0.5]),
        ];
        assert!(found.iter().all(|rows| *rows == wanted), "{found:?}");
        assert_eq!(Around::new(&table, "id", Vec::new(), (0.0, 1.0)).err().unwrap().reason(), Reason::BadRequest);
        assert_eq!(Around::new(&table, "none", Vec::new(), (0.0, 1.0)).err().unwrap().reason(), Reason::BadRequest);
    }
}
