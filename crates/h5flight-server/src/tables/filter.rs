//! Which rows a filter leaves: only the columns that it names are read.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, new_empty_array};
use h5flight_array::Reason;
use h5flight_array::expression::Expression;

use super::column::Reader;
use super::layout::{Table, filtered};
use crate::blocking::Lane;
use crate::error::{Error, Result};

/// Whether a filter can be asked of a table: its names, and the types of what they are compared with.
///
/// # Errors
/// `bad_expression`.
pub(super) fn check(filter: &Expression, table: &Table) -> Result<()> {
    let mut empty: HashMap<&str, ArrayRef> = HashMap::new();
    for name in filter.names() {
        empty.insert(name, new_empty_array(filtered(table, name)?.field.data_type()));
    }
    filter.evaluate(&|name| of(&empty, name)).map(|_| ()).map_err(Error::from)
}

/// Rows of a block for which the filter is true, ascending.
///
/// # Errors
/// What reading its columns finds.
pub(super) async fn selected(
    reader: &Reader,
    table: &Table,
    filter: &Expression,
    block: Range<u64>,
) -> Result<Vec<u64>> {
    let mut columns: HashMap<String, ArrayRef> = HashMap::new();
    for name in filter.names() {
        let column = filtered(table, name)?;
        columns.insert(name.to_owned(), reader.plain(column, block.clone()).await?);
    }
    let filter = filter.clone();
    let evaluate = move || {
        let columns: HashMap<&str, ArrayRef> =
            columns.iter().map(|(name, column)| (name.as_str(), ArrayRef::clone(column))).collect();
        let answers = filter.evaluate(&|name| of(&columns, name))?;
        let rows = block.zip(0..answers.len());
        Ok::<_, Error>(rows.filter(|(_, at)| answers.is_valid(*at) && answers.value(*at)).map(|(row, _)| row).collect())
    };
    reader.service.blocking.run(Lane::Deliver, evaluate).await
}

fn of(columns: &HashMap<&str, ArrayRef>, name: &str) -> h5flight_array::Result<ArrayRef> {
    let missing = || h5flight_array::Error::new(Reason::Internal, "a column of a filter was not read");
    columns.get(name).cloned().ok_or_else(missing)
}
