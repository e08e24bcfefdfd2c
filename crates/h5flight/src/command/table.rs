//! `h5flight table`: rows of a table, shown or written to a file.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use h5flight_proto::client::Client;
use h5flight_proto::v1::version_selector::Kind;
use h5flight_proto::v1::{GetTableRequest, RowRange, VersionSelector};
use serde_json::json;

use super::history::parse_time;
use super::progress::rows_bar;
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::export::{Export, Format};
use crate::failure::Failure;
use crate::output::{Form, json as print_json, note, shorten};
use crate::quantity::show_bytes;
use crate::table::{Align, Table};

/// Rows that are shown.
const ROWS_SHOWN: usize = 20;
/// Characters of a value that are shown.
const VALUE_CHARACTERS: usize = 32;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Animal
    pub animal: String,
    /// Experiment
    pub experiment: String,
    /// Group or dataset: "units", "intervals/trials"
    pub table: String,
    /// Only rows for which this is true: "start_time > 10 AND condition IN ('a', 'b')"
    #[arg(long, value_name = "EXPRESSION", default_value = "", hide_default_value = true)]
    pub r#where: String,
    /// Only these columns, in this order
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Regions that are shown as the rows of their table
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub expand: Vec<String>,
    /// The table as it was at a time, such as 2026-05-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub as_of: Option<i64>,
    /// The table as it was tagged
    #[arg(long, value_name = "NAME", conflicts_with = "as_of")]
    pub tag: Option<String>,
    /// Write all rows to a file: .arrow or .parquet, or .csv where no column is a list; without it the first are shown
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Shows the first rows or writes a file.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    let kind = args.as_of.map(Kind::AsOfUs).or_else(|| args.tag.clone().map(Kind::Tag));
    let request = GetTableRequest {
        animal: args.animal.clone(),
        experiment: args.experiment.clone(),
        table: args.table.clone(),
        columns: args.columns.clone(),
        r#where: args.r#where.clone(),
        expand: args.expand.clone(),
        at: kind.map(|kind| VersionSelector { kind: Some(kind) }),
        ..GetTableRequest::default()
    };
    let Some(path) = &args.output else {
        return with_client(&args.connection, globals, async |client| show(&client, request, globals.form).await);
    };
    let format = Format::of(path)?;
    if format == Format::Npy {
        return Err(Failure::usage("a table has several columns: .npy holds one".to_owned()));
    }
    with_client(&args.connection, globals, async |client| {
        let export = Export::create(format, path)?;
        write(&client, request, export, globals.form).await
    })
}

async fn show(client: &Client, mut request: GetTableRequest, form: Form) -> Result<(), Failure> {
    if request.r#where.is_empty() {
        // One more tells that there are more.
        request.rows = Some(RowRange { start: 0, stop: ROWS_SHOWN as u64 + 1 });
    }
    let mut stream = client.get_table(request).await?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut names = Vec::new();
    while rows.len() <= ROWS_SHOWN {
        let Some(batch) = stream.batches.try_next().await? else { break };
        names = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        rows.extend(texts(&batch)?);
    }
    let is_cut = rows.len() > ROWS_SHOWN;
    rows.truncate(ROWS_SHOWN);
    if form == Form::Json {
        let rows: Vec<_> =
            rows.iter().map(|row| names.iter().zip(row).collect::<std::collections::BTreeMap<_, _>>()).collect();
        return print_json(&json!({ "columns": names, "rows": rows, "more": is_cut }));
    }
    if rows.is_empty() {
        note("no rows");
        return Ok(());
    }
    let columns: Vec<(&str, Align)> = names.iter().map(|name| (name.as_str(), Align::Left)).collect();
    let shown = |row: &Vec<String>| row.iter().map(|text| shorten(text, VALUE_CHARACTERS)).collect();
    Table::new(columns).print(&rows.iter().map(shown).collect::<Vec<_>>())?;
    if is_cut {
        note(&format!("the first {ROWS_SHOWN} rows; -o FILE writes all"));
    }
    Ok(())
}

/// A batch row by row, at most as many rows as are shown and one.
fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Failure> {
    let fault =
        |error: arrow::error::ArrowError| Failure::local("internal", format!("a value cannot be shown: {error}"));
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(fault)?;
    let rows = 0..batch.num_rows().min(ROWS_SHOWN + 1);
    Ok(rows.map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()).collect())
}

async fn write(client: &Client, request: GetTableRequest, export: Export, form: Form) -> Result<(), Failure> {
    let path = export.path().to_owned();
    // What is described is what is read: its ticket names a time.
    let descriptor = arrow_flight::FlightDescriptor::new_cmd(h5flight_proto::pack_table_request(&request));
    let info = client.flight.clone().get_flight_info(descriptor).await?.into_inner();
    let ticket =
        info.endpoint.first().and_then(|endpoint| endpoint.ticket.as_ref()).map(|ticket| ticket.ticket.clone());
    let total = u64::try_from(info.total_records).unwrap_or(0);
    let unexpected =
        |what: String| Failure::local("internal", format!("the server's answer is not understood: {what}"));
    let request = ticket.and_then(|ticket| h5flight_proto::unpack_table_request(&ticket));
    let request = request.ok_or_else(|| unexpected("no ticket".to_owned()))?;
    let schema = info.try_decode_schema().map_err(|error| unexpected(format!("schema: {error}")))?;
    let mut sink = export.begin(&schema.into(), &[total])?;
    let mut stream = client.get_table(request).await?;
    let bar = rows_bar(form, &path.display().to_string(), total);
    let mut rows = 0;
    while let Some(batch) = stream.batches.try_next().await? {
        sink.write(&batch)?;
        rows += batch.num_rows() as u64;
        bar.set_position(rows);
    }
    bar.finish_and_clear();
    let bytes = sink.finish()?;
    if form == Form::Json {
        return print_json(&json!({ "output": path.display().to_string(), "output_bytes": bytes, "rows": rows }));
    }
    note(&format!("{}: {rows} rows, {}", path.display(), show_bytes(bytes)));
    Ok(())
}
