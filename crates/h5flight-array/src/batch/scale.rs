//! Stored numbers become values in a unit: value * conversion (* factor of the channel) + offset, in float64.
//!
//! A batch is scaled after it was assembled, so that every layout and every source of blocks is the same here.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, SchemaRef, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::convert::internal;
use crate::error::{Error, Reason, Result};
use crate::meta::{ByteOrder, ElementType};
use crate::plan::{Layout, Plan};

/// What scaled values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaled {
    /// Computed in float64, then rounded.
    Float32,
    /// As computed.
    Float64,
}

/// Factors beside the conversion of all values.
#[derive(Clone, Debug, PartialEq)]
pub enum Factors {
    /// None, or the same for all values.
    One(f64),
    /// By row of the result.
    Rows(Vec<f64>),
    /// By position on the second axis of the result.
    Columns(Vec<f64>),
}

/// How the numbers of a plan are scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Delivered type.
    pub to: Scaled,
    /// Unit of a stored 1.
    pub conversion: f64,
    /// Added last.
    pub offset: f64,
    /// Of channels.
    pub factors: Factors,
}

impl Scaling {
    /// Whether elements of this type can be scaled.
    pub const fn is_number(element: &ElementType) -> bool {
        matches!(element, ElementType::Integer { .. } | ElementType::Float { .. })
    }

    /// Bytes of a value.
    pub const fn value_bytes(&self) -> u64 {
        match self.to {
            Scaled::Float32 => 4,
            Scaled::Float64 => 8,
        }
    }

    /// The schema of the plan's batches once they are scaled.
    pub fn schema(&self, plan: &Plan) -> SchemaRef {
        let schema = plan.schema();
        let first = plan.output.index_axes.len();
        let field = |(at, field): (usize, &FieldRef)| match at < first {
            true => FieldRef::clone(field),
            false => Arc::new(field.as_ref().clone().with_data_type(self.data_type(field.data_type()))),
        };
        let fields: Vec<FieldRef> = schema.fields().iter().enumerate().map(field).collect();
        let mut metadata: HashMap<String, String> = schema.metadata().clone();
        let element = ElementType::Float { bytes: self.value_bytes() as u32, order: ByteOrder::Little };
        metadata.insert("h5flight.dtype".into(), super::numpy_type(&element));
        metadata.insert("h5flight.type".into(), serde_json::to_string(&element).expect("a type is JSON"));
        metadata.insert("h5flight.scaled".into(), "true".into());
        Arc::new(Schema::new_with_metadata(fields, metadata))
    }

    fn number_type(&self) -> DataType {
        match self.to {
            Scaled::Float32 => DataType::Float32,
            Scaled::Float64 => DataType::Float64,
        }
    }

    fn data_type(&self, stored: &DataType) -> DataType {
        match stored {
            DataType::FixedSizeList(item, size) => {
                let item = Field::clone(item).with_data_type(self.number_type());
                DataType::FixedSizeList(Arc::new(item), *size)
            }
            _ => self.number_type(),
        }
    }

    /// Scales a batch of the plan that begins at row `first_row` of the result.
    ///
    /// # Errors
    /// `bad_request` for values that are no numbers.
    pub fn apply(&self, plan: &Plan, batch: &RecordBatch, first_row: u64) -> Result<RecordBatch> {
        let first = plan.output.index_axes.len();
        let items = plan.items.max(1);
        let inner = plan.shape().get(2..).map_or(1, |sizes| sizes.iter().product::<u64>()).max(1);
        let by_column = plan.layout() == Layout::Columns;
        let scaled = batch.columns().iter().enumerate().map(|(at, column)| {
            if at < first {
                return Ok(ArrayRef::clone(column));
            }
            // Of a value: its row of the result, and its place within the row.
            let place = |value: usize| match by_column {
                true => (first_row + value as u64, (at - first) as u64),
                false => (first_row + value as u64 / items, value as u64 % items),
            };
            let factor = |value: usize| {
                let (row, item) = place(value);
                match &self.factors {
                    Factors::One(factor) => *factor,
                    Factors::Rows(factors) => factors.get(row as usize).copied().unwrap_or(f64::NAN),
                    Factors::Columns(factors) => factors.get((item / inner) as usize).copied().unwrap_or(f64::NAN),
                }
            };
            self.column(column, factor)
        });
        let columns = scaled.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema(plan), columns, &options).map_err(internal)
    }

    fn column(&self, column: &ArrayRef, factor: impl Fn(usize) -> f64) -> Result<ArrayRef> {
        let Some(list) = column.as_fixed_size_list_opt() else { return self.numbers(column, factor) };
        let DataType::FixedSizeList(item, size) = self.data_type(list.data_type()) else {
            return Err(Error::new(Reason::Internal, "a list is no list"));
        };
        let values = self.numbers(list.values(), factor)?;
        let scaled = FixedSizeListArray::try_new_with_length(item, size, values, None, list.len());
        Ok(Arc::new(scaled.map_err(internal)?))
    }

    fn numbers(&self, values: &ArrayRef, factor: impl Fn(usize) -> f64) -> Result<ArrayRef> {
        let scale = |at: usize, value: f64| value * self.conversion * factor(at) + self.offset;
        macro_rules! scaled {
            ($stored:ty, $to_f64:expr) => {{
                let stored = values.as_primitive::<$stored>().values().iter().enumerate();
                let scaled = stored.map(|(at, value)| scale(at, $to_f64(*value)));
                match self.to {
                    Scaled::Float64 => Arc::new(PrimitiveArray::<Float64Type>::from_iter_values(scaled)) as ArrayRef,
                    Scaled::Float32 => {
                        Arc::new(PrimitiveArray::<Float32Type>::from_iter_values(scaled.map(|value| value as f32)))
                    }
                }
            }};
        }
        Ok(match values.data_type() {
            DataType::Int8 => scaled!(Int8Type, f64::from),
            DataType::Int16 => scaled!(Int16Type, f64::from),
            DataType::Int32 => scaled!(Int32Type, f64::from),
            DataType::Int64 => scaled!(Int64Type, |value: i64| value as f64),
            DataType::UInt8 => scaled!(UInt8Type, f64::from),
            DataType::UInt16 => scaled!(UInt16Type, f64::from),
            DataType::UInt32 => scaled!(UInt32Type, f64::from),
            DataType::UInt64 => scaled!(UInt64Type, |value: u64| value as f64),
            DataType::Float16 => scaled!(Float16Type, f64::from),
            DataType::Float32 => scaled!(Float32Type, f64::from),
            DataType::Float64 => scaled!(Float64Type, |value: f64| value),
            other => return Err(Error::new(Reason::BadRequest, format!("values of type {other} have no unit"))),
        })
    }
}
