//! `h5flight get`: a slice, shown or written to a file.

mod preview;

use std::path::PathBuf;

use arrow::datatypes::{Schema, SchemaRef};
use futures::TryStreamExt;
use h5flight_array::meta::product;
use h5flight_proto::client::Client;
use h5flight_proto::v1::version_selector::Kind;
use h5flight_proto::v1::{
    Channels, Compression, GetDataRequest, Layout, TimeRange, Units, VersionSelector, get_data_request,
};
use serde_json::{Value, json};

use super::history::parse_time;
use super::progress::rows_bar;
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::export::{Export, Format};
use crate::failure::Failure;
use crate::output::{Form, json as print_json, note, shorten};
use crate::quantity::{show_bytes, show_shape};

/// Characters of an element type that are shown: that of a compound can fill pages.
const DTYPE_CHARACTERS: usize = 80;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Animal
    pub animal: String,
    /// Experiment
    pub experiment: String,
    /// Dataset
    pub dataset: String,
    /// Which part, as numpy writes it: "0:100, 5, ::2", "..., [1, 5, 7]", "'field', 0:10"; without it all
    #[arg(allow_hyphen_values = true)]
    pub selection: Option<String>,
    /// How values are laid out in columns
    #[arg(long, value_enum, default_value_t = LayoutName::Auto)]
    pub layout: LayoutName,
    /// Version of the dataset, counted from 1; 0 is the current one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub version: u64,
    /// The version that was current at a time, such as 2026-05-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "version")]
    pub as_of: Option<i64>,
    /// The version with a tag
    #[arg(long, value_name = "NAME", conflicts_with_all = ["version", "as_of"])]
    pub tag: Option<String>,
    /// Write the whole slice to a file: .arrow, .parquet, .csv or .npy; without it the first rows are shown
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How what is sent is compressed: it pays on networks slower than about 300 Mbit/s
    #[arg(long, value_enum, default_value_t = CompressionName::None)]
    pub compression: CompressionName,
    /// Rows by the clock of the series, in seconds: "15:16", "15:", ":16"; the end is not part of it
    #[arg(long, value_name = "START:STOP", value_parser = parse_seconds, allow_hyphen_values = true)]
    pub time: Option<TimeRange>,
    /// Channels by the ids of their electrodes or regions: "3,5"
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub channels: Option<Vec<i64>>,
    /// Channels whose row of the electrodes' (or regions') table it is true for: "location = 'CA1'"
    #[arg(long, value_name = "CONDITION", conflicts_with = "channels")]
    pub channels_where: Option<String>,
    /// Values in the unit of the series, as float64, instead of as they are stored
    #[arg(long)]
    pub units: bool,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Compressions by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompressionName {
    /// Not at all
    None,
    /// LZ4 frames
    Lz4,
    /// Zstandard
    Zstd,
}

impl CompressionName {
    const fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd,
        }
    }
}

/// Layouts by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LayoutName {
    /// What fits the shape
    Auto,
    /// One column, a row is a tensor of the remaining axes
    Tensor,
    /// One column per index of axis 1
    Columns,
    /// Index columns and the value
    Tidy,
}

impl LayoutName {
    const fn layout(self) -> Layout {
        match self {
            Self::Auto => Layout::Auto,
            Self::Tensor => Layout::Tensor,
            Self::Columns => Layout::Columns,
            Self::Tidy => Layout::Tidy,
        }
    }
}

/// Shows the first rows or writes a file.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    let request = args.request()?;
    let Some(path) = &args.output else {
        return with_client(&args.connection, globals, async |client| {
            let slice = Slice::describe(&client, request).await?;
            preview::show(&client, &slice, globals.form).await
        });
    };
    let format = Format::of(path)?;
    let layout = format.layout(args.layout.layout())?;
    let request = GetDataRequest { layout: layout.into(), ..request };
    with_client(&args.connection, globals, async |client| {
        // Made before anything is asked for: a folder that is not writable is told at once.
        let export = Export::create(format, path)?;
        let mut slice = Slice::describe(&client, request).await?;
        if format == Format::Csv && args.layout == LayoutName::Auto && slice.has_lists() {
            let request = GetDataRequest { layout: Layout::Tidy.into(), ..slice.request };
            slice = Slice::describe(&client, request).await?;
        }
        write(&client, &slice, export, globals.form).await
    })
}

impl Args {
    fn request(&self) -> Result<GetDataRequest, Failure> {
        // A selection may begin with a minus, so a mistyped option looks like one. No selection begins with two.
        if let Some(text) = self.selection.as_deref().filter(|text| text.starts_with("--")) {
            return Err(Failure::usage(format!(
                "unexpected argument {text:?}; `h5flight get --help` shows the options"
            )));
        }
        Ok(GetDataRequest {
            animal: self.animal.clone(),
            experiment: self.experiment.clone(),
            dataset: self.dataset.clone(),
            part: self.selection.clone().map(get_data_request::Part::Selection),
            layout: self.layout.layout().into(),
            version: self.version,
            compression: self.compression.compression().into(),
            at: self.at(),
            time: self.time,
            channels: self.channels(),
            units: if self.units { Units::Float64 } else { Units::Stored }.into(),
            ..GetDataRequest::default()
        })
    }
}

impl Args {
    fn channels(&self) -> Option<Channels> {
        let by_ids = self.channels.clone().map(|ids| Channels { ids, r#where: String::new() });
        by_ids.or_else(|| self.channels_where.clone().map(|r#where| Channels { ids: Vec::new(), r#where }))
    }

    /// A version that is not named by its number.
    fn at(&self) -> Option<VersionSelector> {
        let as_of = self.as_of.map(Kind::AsOfUs);
        let kind = as_of.or_else(|| self.tag.clone().map(Kind::Tag))?;
        Some(VersionSelector { kind: Some(kind) })
    }
}

/// A range of seconds.
fn parse_seconds(text: &str) -> Result<TimeRange, String> {
    let (start, stop) = text.split_once(':').ok_or_else(|| format!("{text:?} has no colon, as 15:16 has"))?;
    let bound = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{text:?} is no number of seconds")),
    };
    Ok(TimeRange { start_s: bound(start)?, stop_s: bound(stop)? })
}

/// What a request will answer, known before its data.
struct Slice {
    request: GetDataRequest,
    schema: SchemaRef,
    /// Axes of the result; empty for a scalar.
    shape: Vec<u64>,
    /// Decoded bytes; `None` where the server does not know.
    bytes: Option<u64>,
}

impl Slice {
    async fn describe(client: &Client, mut request: GetDataRequest) -> Result<Self, Failure> {
        let descriptor = arrow_flight::FlightDescriptor::new_cmd(h5flight_proto::pack_request(&request));
        let info = client.flight.clone().get_flight_info(descriptor).await?.into_inner();
        let bytes = u64::try_from(info.total_bytes).ok();
        let schema = info.try_decode_schema().map_err(|error| unexpected(&format!("schema: {error}")))?;
        let shape: Vec<u64> = metadata_json(&schema, "h5flight.shape")
            .and_then(|value| serde_json::from_value(value).ok())
            .ok_or_else(|| unexpected("schema has no h5flight.shape"))?;
        // What was described is what is read, whatever is published in between.
        if let Some(version) = metadata_json(&schema, "h5flight.version").and_then(|value| value.as_u64()) {
            (request.version, request.at) = (version, None);
        }
        Ok(Self { request, schema: schema.into(), shape, bytes })
    }

    /// Rows of the result: its first axis; a scalar is one row.
    fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Rows of all batches together: in the tidy layout each value has one.
    fn arrow_rows(&self) -> u64 {
        match self.request.layout() {
            Layout::Tidy => product(&self.shape).unwrap_or(u64::MAX),
            Layout::Auto | Layout::Tensor | Layout::Columns => self.rows(),
        }
    }

    fn has_lists(&self) -> bool {
        self.schema.fields().iter().any(|field| field.data_type().is_nested())
    }

    /// numpy's name of the elements in the file, as the server tells it.
    fn dtype(&self) -> String {
        match metadata_json(&self.schema, "h5flight.dtype") {
            Some(Value::String(name)) => name,
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

fn unexpected(what: &str) -> Failure {
    Failure::local("internal", format!("the server's answer is not understood: {what}"))
}

/// A value of the schema's metadata: JSON, or a text that stands for itself.
fn metadata_json(schema: &Schema, key: &str) -> Option<Value> {
    let text = schema.metadata().get(key)?;
    Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
}

async fn write(client: &Client, slice: &Slice, export: Export, form: Form) -> Result<(), Failure> {
    let path = export.path().to_owned();
    let mut sink = export.begin(&slice.schema, &slice.shape)?;
    let mut stream = client.get_data(slice.request.clone()).await?;
    let bar = rows_bar(form, &path.display().to_string(), slice.arrow_rows());
    let mut rows = 0;
    while let Some(batch) = stream.batches.try_next().await? {
        sink.write(&batch)?;
        rows += batch.num_rows() as u64;
        bar.set_position(rows);
    }
    bar.finish_and_clear();
    let bytes = sink.finish()?;
    let stats = stats_json(stream.stats_json());
    if form == Form::Json {
        return print_json(&json!({
            "output": path.display().to_string(), "output_bytes": bytes, "rows": rows,
            "shape": slice.shape, "dtype": slice.dtype(), "stats": stats,
        }));
    }
    let shape = show_shape(&slice.shape);
    let dtype = shorten(&slice.dtype(), DTYPE_CHARACTERS);
    note(&format!("{}: {shape} {dtype}, {}", path.display(), show_bytes(bytes)));
    Ok(())
}

/// The read's statistics, as the server counted them.
fn stats_json(text: Option<String>) -> Value {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(selection: Option<&str>) -> Args {
        Args {
            animal: "m1".into(),
            experiment: "day1".into(),
            dataset: "imaging".into(),
            selection: selection.map(str::to_owned),
            layout: LayoutName::Tidy,
            version: 2,
            as_of: None,
            time: None,
            channels: None,
            channels_where: None,
            units: false,
            tag: None,
            output: None,
            compression: CompressionName::None,
            connection: ConnectionFlags::default(),
        }
    }

    #[test]
    fn arguments_become_a_request() {
        let request = args(Some("-5:")).request().unwrap();
        assert_eq!(request.part, Some(get_data_request::Part::Selection("-5:".into())));
        assert_eq!((request.layout(), request.version), (Layout::Tidy, 2));
        assert_eq!(args(None).request().unwrap().part, None);
        let tagged = Args { version: 0, tag: Some("paper".into()), ..args(None) };
        let at = tagged.request().unwrap().at.and_then(|at| at.kind);
        assert_eq!(at, Some(Kind::Tag("paper".into())));
    }

    #[test]
    fn a_mistyped_option_is_not_taken_for_a_selection() {
        assert!(matches!(args(Some("--layuot")).request(), Err(Failure::Usage(_))));
    }
}
