//! The first rows of a slice as a table, and what the slice is.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use h5flight_proto::client::Client;
use h5flight_proto::v1::{GetDataRequest, RowRange};
use serde_json::{Value, json};

use super::{DTYPE_CHARACTERS, Slice, stats_json};
use crate::failure::Failure;
use crate::output::{Form, clean, json as print_json, line, shorten};
use crate::quantity::{show_bytes, show_number_of, show_shape};
use crate::table::{Align, Table};

/// Rows that are shown.
const ROWS_SHOWN: u64 = 20;
/// Bytes that are read for showing them, as long as one row is not larger.
const BYTES_READ: u64 = 16 << 20;
/// Characters of one cell.
const CELL_CHARACTERS: usize = 72;
/// Values of a list that are shown from its beginning and from its end.
const LIST_EDGE: usize = 3;
/// Width of a terminal that does not tell.
const TERMINAL_COLUMNS: usize = 120;

/// Reads as many rows as are shown and shows them.
pub async fn show(client: &Client, slice: &Slice, form: Form) -> Result<(), Failure> {
    let rows = rows_to_read(slice);
    let request = match rows == slice.rows() {
        true => slice.request.clone(),
        false => GetDataRequest { rows: Some(RowRange { start: 0, stop: rows }), ..slice.request.clone() },
    };
    let mut stream = client.get_data(request).await?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.batches.try_next().await? {
        batches.push(batch);
    }
    let stats = stats_json(stream.stats_json());
    match form {
        Form::Json => print_json(&slice_json(slice, &stats)),
        Form::People => {
            let mut lines = table_lines(slice, &batches)?;
            lines.push(summary(slice));
            lines.extend(stats_line(&stats));
            line(&lines.join("\n"))
        }
    }
}

fn rows_to_read(slice: &Slice) -> u64 {
    let rows = slice.rows();
    let row_bytes = slice.bytes.unwrap_or(0) / rows.max(1);
    let affordable = BYTES_READ.checked_div(row_bytes).unwrap_or(ROWS_SHOWN).max(1);
    rows.min(ROWS_SHOWN).min(affordable)
}

fn slice_json(slice: &Slice, stats: &Value) -> Value {
    let columns: Vec<Value> = slice
        .schema
        .fields()
        .iter()
        .map(|field| json!({"name": field.name(), "type": field.data_type().to_string()}))
        .collect();
    let metadata: serde_json::Map<String, Value> = slice
        .schema
        .metadata()
        .keys()
        .filter_map(|key| Some((key.clone(), super::metadata_json(&slice.schema, key)?)))
        .collect();
    json!({
        "shape": slice.shape, "dtype": slice.dtype(), "rows": slice.rows(), "bytes": slice.bytes,
        "columns": columns, "metadata": metadata, "stats": stats,
    })
}

fn summary(slice: &Slice) -> String {
    let size = slice.bytes.map(|bytes| format!(", {}", show_bytes(bytes))).unwrap_or_default();
    let dtype = shorten(&slice.dtype(), DTYPE_CHARACTERS);
    clean(&format!("shape {}, dtype {dtype}{size}", show_shape(&slice.shape)))
}

/// The statistics as words: what was sent and where its blocks came from.
fn stats_line(stats: &Value) -> Option<String> {
    let count = |key: &str| stats.get(key).and_then(Value::as_u64);
    let (rows, bytes) = (count("rows")?, count("bytes")?);
    let mut text = format!("read {}, {}", show_number_of(rows, "row"), show_bytes(bytes));
    let blocks = stats.get("blocks").and_then(Value::as_object).into_iter().flatten();
    let tiers: Vec<String> = blocks
        .filter_map(|(tier, blocks)| blocks.as_u64().filter(|blocks| *blocks > 0).map(|blocks| (tier, blocks)))
        .map(|(tier, blocks)| format!("{} from {tier}", show_number_of(blocks, "block")))
        .collect();
    if !tiers.is_empty() {
        text.push_str(&format!("; {}", tiers.join(", ")));
    }
    Some(clean(&text))
}

/// Head, rows, and how many more there are.
fn table_lines(slice: &Slice, batches: &[RecordBatch]) -> Result<Vec<String>, Failure> {
    let columns = slice.schema.fields().len();
    let width = terminal_columns();
    // A column takes at least three characters with its gap: more than that many need not even be formatted.
    let kept = first_and_last(columns, (width / 3).max(2));
    let names = kept.iter().map(|column| shorten(slice.schema.field(*column).name(), CELL_CHARACTERS)).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (batch, at) in batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |at| (batch, at))) {
        if rows.len() as u64 == ROWS_SHOWN {
            break;
        }
        rows.push(kept.iter().map(|column| cell(batch.column(*column), at)).collect::<Result<_, _>>()?);
    }
    let shown = rows.len() as u64;
    let mut lines = Grid { names, rows, columns_left_out: columns - kept.len() }.lines(width);
    let more = slice.arrow_rows().saturating_sub(shown);
    if more > 0 && shown > 0 {
        lines.push(format!("… {} more", show_number_of(more, "row")));
    }
    Ok(lines)
}

/// Positions of at most `columns_max` columns: all, or the first ones and the last.
fn first_and_last(columns: usize, columns_max: usize) -> Vec<usize> {
    match columns <= columns_max {
        true => (0..columns).collect(),
        false => (0..columns_max - 1).chain([columns - 1]).collect(),
    }
}

/// Formatted cells. Where columns were left out, they were between the last two.
struct Grid {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
    columns_left_out: usize,
}

impl Grid {
    /// A table of at most `width` characters where that is possible, row numbers first.
    fn lines(mut self, width: usize) -> Vec<String> {
        const GAP: usize = 2;
        let widths: Vec<usize> = (0..self.names.len())
            .map(|at| {
                GAP + self
                    .rows
                    .iter()
                    .map(|row| row[at].chars().count())
                    .chain([self.names[at].chars().count()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let label_width = self.rows.len().saturating_sub(1).to_string().len().max("row".len());
        let mut budget = width.saturating_sub(label_width);
        if self.columns_left_out > 0 || widths.iter().sum::<usize>() > budget {
            budget = budget.saturating_sub(GAP + 1).saturating_sub(widths.last().copied().unwrap_or(0));
            let inner = &widths[..widths.len().saturating_sub(1)];
            let fitting = inner
                .iter()
                .scan(0, |sum, width| {
                    *sum += width;
                    Some(*sum)
                })
                .take_while(|sum| *sum <= budget)
                .count();
            self.leave_out(fitting.max(1), inner.len());
        }
        let columns =
            std::iter::once("row").chain(self.names.iter().map(String::as_str)).map(|name| (name, Align::Right));
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .enumerate()
            .map(|(at, row)| std::iter::once(at.to_string()).chain(row.iter().cloned()).collect())
            .collect();
        let mut lines = Table::new(columns).page(&rows);
        if self.columns_left_out > 0 {
            lines.push(format!("… {} left out", show_number_of(self.columns_left_out as u64, "column")));
        }
        lines
    }

    /// Puts an ellipsis in the place of the columns `from..to`.
    fn leave_out(&mut self, from: usize, to: usize) {
        if from > to {
            return;
        }
        self.columns_left_out += to - from;
        if self.columns_left_out == 0 {
            return;
        }
        for row in std::iter::once(&mut self.names).chain(&mut self.rows) {
            row.splice(from..to, ["…".to_owned()]);
        }
    }
}

/// Characters per line of the terminal.
fn terminal_columns() -> usize {
    let told = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    told.filter(|columns| *columns > 0).unwrap_or(TERMINAL_COLUMNS)
}

/// One value as text; of lists only the edges.
fn cell(column: &ArrayRef, at: usize) -> Result<String, Failure> {
    Ok(shorten(&clean(&value_text(column, at)?), CELL_CHARACTERS))
}

fn value_text(column: &ArrayRef, at: usize) -> Result<String, Failure> {
    if column.is_null(at) {
        return Ok("null".to_owned());
    }
    let items = match column.data_type() {
        DataType::FixedSizeList(..) => Some(column.as_fixed_size_list().value(at)),
        DataType::List(_) => Some(column.as_list::<i32>().value(at)),
        DataType::LargeList(_) => Some(column.as_list::<i64>().value(at)),
        _ => None,
    };
    if let Some(items) = items {
        return list_text(&items);
    }
    let options = FormatOptions::default();
    let failed =
        |error: arrow::error::ArrowError| Failure::local("internal", format!("a value cannot be shown: {error}"));
    let formatter = ArrayFormatter::try_new(column, &options).map_err(failed)?;
    // A struct may hold lists as long as a frame; the text is cut after it was made, which one row can afford.
    formatter.value(at).try_to_string().map_err(failed)
}

fn list_text(items: &ArrayRef) -> Result<String, Failure> {
    let shown = match items.len() {
        all if all <= 2 * LIST_EDGE + 1 => (0..all).collect::<Vec<_>>(),
        many => (0..LIST_EDGE).chain(many - LIST_EDGE..many).collect(),
    };
    let text = |at: &usize| value_text(items, *at).map(|text| short_number(&text));
    let mut texts = shown.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    if shown.len() < items.len() {
        texts.insert(LIST_EDGE, "…".to_owned());
    }
    Ok(format!("[{}]", texts.join(", ")))
}

/// A long decimal fraction with six significant digits, as numpy shows arrays; everything else as it is.
fn short_number(text: &str) -> String {
    let number = text.parse::<f64>().ok().filter(|number| text.len() > 9 && text.contains('.') && number.is_finite());
    let Some(number) = number else { return text.to_owned() };
    match number.abs() {
        size if (1e-4..1e6).contains(&size) => {
            let decimals = (5 - size.log10().floor() as i32).clamp(0, 9);
            format!("{number:.*}", decimals.unsigned_abs() as usize)
        }
        _ => format!("{number:.5e}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{FixedSizeListArray, Int32Array, UInt16Array};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn slice(batch: &RecordBatch, shape: &[u64], bytes: u64) -> Slice {
        Slice { request: GetDataRequest::default(), schema: batch.schema(), shape: shape.to_vec(), bytes: Some(bytes) }
    }

    fn grid(columns: usize) -> Grid {
        let names = (0..columns).map(|column| column.to_string()).collect();
        Grid { names, rows: vec![(0..columns).map(|column| (column * 100).to_string()).collect()], columns_left_out: 0 }
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_before_the_last() {
        assert_eq!(grid(3).lines(80), ["row  0    1    2", "  0  0  100  200"]);
        assert_eq!(grid(9).lines(24), ["row  0    1    2  …    8", "  0  0  100  200  …  800", "… 5 columns left out"]);
        assert_eq!(grid(9).lines(1), ["row  0  …    8", "  0  0  …  800", "… 7 columns left out"]);
        assert_eq!(grid(1).lines(1), ["row  0", "  0  0"]);
        assert_eq!(first_and_last(10, 4), [0, 1, 2, 9]);
    }

    #[test]
    fn a_tensor_shows_the_edges_of_its_rows_and_how_many_more_there_are() {
        let item = Arc::new(Field::new("item", DataType::UInt16, false));
        let values = Arc::new(UInt16Array::from_iter_values(0..16));
        let list = FixedSizeListArray::new(Arc::clone(&item), 8, values, None);
        let schema = Schema::new(vec![Field::new("value", DataType::FixedSizeList(item, 8), false)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(list)]).unwrap();
        let lines = table_lines(&slice(&batch, &[5, 8], 80), std::slice::from_ref(&batch)).unwrap();
        let expected = [
            "row                      value",
            "  0      [0, 1, 2, …, 5, 6, 7]",
            "  1  [8, 9, 10, …, 13, 14, 15]",
            "… 3 rows more",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn long_fractions_are_shown_with_six_digits() {
        for (text, short) in [
            ("0.7429164153801087", "0.742916"),
            ("-1234.5678901", "-1234.57"),
            ("0.00012345678", "0.000123457"),
            ("0.000012345678", "1.23457e-5"),
            ("123456789.25", "1.23457e8"),
            ("1234567890", "1234567890"),
            ("2.5", "2.5"),
            ("NaN", "NaN"),
            ("not a number.", "not a number."),
        ] {
            assert_eq!(short_number(text), short);
        }
    }

    #[test]
    fn statistics_name_the_tiers_that_gave_something() {
        let stats = json!({"rows": 20, "bytes": 2048, "blocks": {"memory": 0, "file": 3, "redis": 1}, "preads": 2});
        assert_eq!(stats_line(&stats).unwrap(), "read 20 rows, 2.0 KiB; 3 blocks from file, 1 block from redis");
        assert_eq!(stats_line(&Value::Null), None);
    }

    #[test]
    fn as_many_rows_are_read_as_are_shown_and_affordable() {
        let column = Arc::new(Int32Array::from(vec![1])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("value", column)]).unwrap();
        let read = |shape: &[u64], bytes| rows_to_read(&slice(&batch, shape, bytes));
        assert_eq!(read(&[1_000], 4_000), 20);
        assert_eq!(read(&[7], 28), 7);
        assert_eq!(read(&[], 4), 1);
        assert_eq!(read(&[0, 5], 0), 0);
        assert_eq!(read(&[100, 5_000, 1_000], 100 * 10_000_000), 1);
        assert_eq!(read(&[100, 1_000, 1_000], 100 * 2_000_000), 8);
    }
}
