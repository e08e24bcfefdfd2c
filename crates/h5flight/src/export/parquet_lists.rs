//! Lists of fixed size as plain lists: readers of Parquet files other than Arrow's own know no others.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

/// The schema of the file. Metadata stays, but for extension types whose storage is no longer theirs.
pub fn schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The batch in the form of [`schema`].
///
/// # Errors
/// Those of the cast: more than 2^31 values in the lists of one batch.
pub fn batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        })
        .collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn field(field: &FieldRef) -> FieldRef {
    let kind = data_type(field.data_type());
    if kind == *field.data_type() {
        return Arc::clone(field);
    }
    let mut metadata = field.metadata().clone();
    metadata.retain(|key, _| !key.starts_with("ARROW:extension:"));
    Arc::new(Field::new(field.name(), kind, field.is_nullable()).with_metadata(metadata))
}

fn data_type(kind: &DataType) -> DataType {
    match kind {
        DataType::FixedSizeList(item, _) | DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::Struct(members) => DataType::Struct(members.iter().map(field).collect()),
        other => other.clone(),
    }
}
