//! Translation at the doors: protobuf, JSON and Arrow messages to and from the words of the inside.
//!
//! No decisions and no I/O live here. Numbers and names from the wire are checked here, so that the inside never sees one
//! that means nothing.

pub mod history;
pub mod put;

use arrow::ipc::CompressionType;
use chrono::DateTime;
use h5flight_array::Reason;
use h5flight_array::batch::numpy_type;
use h5flight_array::batch::scale::Scaled;
use h5flight_array::expression::Expression;
use h5flight_array::inspect::{LinkKind, ObjectKind};
use h5flight_array::meta::{ArrayMeta, Filter, Space, Storage};
use h5flight_array::plan::{Layout, Strings};
use h5flight_array::selection::{ElementMask, Item, Part, Points, Selection};
use h5flight_array::series::Edge;
use h5flight_catalog::model::{
    AnimalSummary, ChildKind, DatasetPath, DatasetSummary, Description, Dimension, ExperimentSummary, Fingerprint,
    Page, Principal, Published, VersionSelector,
};
use h5flight_proto::v1::{self, axis_selection, get_data_request, selection as selection_parts, version_selector};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::Located;
use crate::publish::garbage::{Collection, GarbageKind};
use crate::publish::names::{LeftOut, NAME_BYTES_MAX, Naming, PATH_BYTES_MAX};
use crate::publish::{Made, UploadHeader, Uploaded, Wishes};
use crate::read::ReadRequest;
use crate::series::{Around, Channels, EVENTS_MAX, EventColumn, Events, Wish};
use crate::tables::{EventLists, TableRequest};
use crate::verify;

/// Longest text of a selection, in bytes.
const SELECTION_BYTES_MAX: usize = 16 << 20;
/// Bounds of the batch size that a client may wish, in bytes.
const BATCH_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;
/// Columns that a request for a table may name.
const TABLE_COLUMNS_MAX: usize = 4_096;
/// Longest mask, in flags: each takes up to nine bytes while a request is planned.
const MASK_FLAGS_MAX: u64 = 16 << 20;

fn bad_request(message: impl Into<String>) -> Error {
    Error::new(Reason::BadRequest, message)
}

/// Checks a request and brings it into the words of the inside.
///
/// # Errors
/// `bad_request`, `bad_selection`.
pub fn read_request(request: &v1::GetDataRequest) -> Result<ReadRequest> {
    let path = dataset_path(&request.animal, &request.experiment, &request.dataset)?;
    let selection = match &request.part {
        None => Selection::default(),
        Some(get_data_request::Part::Selection(text)) if text.len() > SELECTION_BYTES_MAX => {
            let message = format!("the selection's text has {} bytes, the most is {SELECTION_BYTES_MAX}", text.len());
            return Err(Error::new(Reason::BadSelection, message));
        }
        Some(get_data_request::Part::Selection(text)) => Selection::parse(text)?,
        Some(get_data_request::Part::Parts(parts)) => selection(parts)?,
    };
    let layout = match v1::Layout::try_from(request.layout) {
        Ok(v1::Layout::Auto) => Layout::Auto,
        Ok(v1::Layout::Tensor) => Layout::Tensor,
        Ok(v1::Layout::Columns) => Layout::Columns,
        Ok(v1::Layout::Tidy) => Layout::Tidy,
        Err(_) => return Err(bad_request(format!("layout {} does not exist", request.layout))),
    };
    let strings = match v1::StringForm::try_from(request.strings) {
        Ok(v1::StringForm::Auto) => Strings::AsIndexed,
        Ok(v1::StringForm::Binary) => Strings::Binary,
        Ok(v1::StringForm::Fixed) => Strings::Fixed,
        Err(_) => return Err(bad_request(format!("string form {} does not exist", request.strings))),
    };
    let rows = row_range(request.rows.as_ref())?;
    let version = match (&request.at, request.version) {
        (at, 0) => version_selector(at.as_ref())?,
        (None, number) => VersionSelector::Number(number),
        (Some(_), number) => return Err(bad_request(format!("version {number} and another one are named"))),
    };
    let batch_bytes = batch_bytes(request.batch_bytes);
    let compression = compression(request.compression)?;
    let wish = wish(request)?;
    Ok(ReadRequest { path, version, selection, layout, strings, rows, batch_bytes, compression, wish })
}

/// What is asked in the words of a series.
fn wish(request: &v1::GetDataRequest) -> Result<Wish> {
    let time = request.time.map(|v1::TimeRange { start_s, stop_s }| (start_s, stop_s));
    if let Some((start_s, stop_s)) = time
        && [start_s, stop_s].into_iter().flatten().any(f64::is_nan)
    {
        return Err(bad_request("a time range from or to NaN"));
    }
    let scaled = match v1::Units::try_from(request.units) {
        Ok(v1::Units::Stored) => None,
        Ok(v1::Units::Float32) => Some(Scaled::Float32),
        Ok(v1::Units::Float64) => Some(Scaled::Float64),
        Err(_) => return Err(bad_request(format!("units {} do not exist", request.units))),
    };
    let channels = match &request.channels {
        None => None,
        Some(v1::Channels { ids, r#where }) => match (ids.as_slice(), filter(r#where)?) {
            (ids, None) => Some(Channels::Ids(ids.to_vec())),
            ([], Some(filter)) => Some(Channels::Where(filter)),
            (_, Some(_)) => return Err(bad_request("channels by ids and by a condition")),
        },
    };
    let windows = request.windows.as_ref().map(|windows| around(windows, request.at.as_ref())).transpose()?;
    if windows.is_some() && time.is_some() {
        return Err(bad_request("rows by time and by windows"));
    }
    Ok(Wish { time, windows, channels, scaled })
}

/// Windows around events.
fn around(windows: &v1::Windows, at: Option<&v1::VersionSelector>) -> Result<Around> {
    let bounds_s = (windows.start_s, windows.stop_s);
    if !(bounds_s.0.is_finite() && bounds_s.1.is_finite() && bounds_s.0 < bounds_s.1) {
        return Err(bad_request(format!("windows from {} to {} s", bounds_s.0, bounds_s.1)));
    }
    let edge = match v1::WindowEdge::try_from(windows.edge) {
        Ok(v1::WindowEdge::Drop) => Edge::Drop,
        Ok(v1::WindowEdge::Clip) => Edge::Clip,
        Err(_) => return Err(bad_request(format!("window edge {} does not exist", windows.edge))),
    };
    let times = &windows.events_s;
    if times.len() > EVENTS_MAX || times.iter().any(|time_s| !time_s.is_finite()) {
        return Err(bad_request(format!("{} events; at most {EVENTS_MAX}, all of them numbers", times.len())));
    }
    let events = match &windows.events {
        None => Events::Times(times.clone()),
        Some(_) if !times.is_empty() => return Err(bad_request("events by their times and by a column")),
        Some(v1::EventColumn { table, column, .. }) if table.is_empty() || column.is_empty() => {
            return Err(bad_request("events need a table and a column"));
        }
        Some(events) => {
            let as_of = at.filter(|at| matches!(at.kind, Some(version_selector::Kind::AsOfUs(_))));
            Events::Column(EventColumn {
                table: events.table.trim_matches('/').to_owned(),
                column: events.column.clone(),
                filter: filter(&events.r#where)?,
                version: version_selector(events.at.as_ref().or(as_of))?,
            })
        }
    };
    Ok(Around { events, bounds_s, edge })
}

/// Says at what time events are taken from their table: whoever reads by a ticket reads what it was made for.
pub fn pin_events(windows: Option<&mut v1::Windows>, at: Option<&v1::VersionSelector>) {
    let as_of = at.filter(|at| matches!(at.kind, Some(version_selector::Kind::AsOfUs(_))));
    if let Some(events) = windows.and_then(|windows| windows.events.as_mut()) {
        let now = version_selector::Kind::AsOfUs(chrono::Utc::now().timestamp_micros());
        let at = || as_of.cloned().unwrap_or(v1::VersionSelector { kind: Some(now) });
        events.at.get_or_insert_with(at);
    }
}

/// A condition on rows of a table; no text is none.
fn filter(text: &str) -> Result<Option<Expression>> {
    match text.trim() {
        "" => Ok(None),
        text => Ok(Some(Expression::filter(text)?)),
    }
}

/// The same of a request for a table.
///
/// # Errors
/// `bad_request`, `bad_expression`.
pub fn table_request(request: &v1::GetTableRequest) -> Result<TableRequest> {
    let names = |names: &[String]| match names.iter().find(|name| name.len() > PATH_BYTES_MAX) {
        Some(long) => Err(bad_request(format!("a column's name of {} bytes", long.len()))),
        None if names.len() > TABLE_COLUMNS_MAX => Err(bad_request(format!("{} columns are named", names.len()))),
        None => Ok(names.to_vec()),
    };
    Ok(TableRequest {
        path: dataset_path(&request.animal, &request.experiment, &request.table)?,
        columns: names(&request.columns)?,
        filter: filter(&request.r#where)?,
        rows: row_range(request.rows.as_ref())?,
        version: version_selector(request.at.as_ref())?,
        expand: names(&request.expand)?,
        batch_bytes: batch_bytes(request.batch_bytes),
        compression: compression(request.compression)?,
        event_lists: request.event_lists.as_ref().map(|lists| event_lists(lists, request.at.as_ref())).transpose()?,
    })
}

fn event_lists(lists: &v1::EventLists, at: Option<&v1::VersionSelector>) -> Result<EventLists> {
    match (&lists.windows, lists.column.as_str()) {
        (None, _) | (_, "") => Err(bad_request("lists around events need a column and windows")),
        (Some(windows), column) => Ok(EventLists { column: column.to_owned(), around: around(windows, at)? }),
    }
}

fn row_range(rows: Option<&v1::RowRange>) -> Result<Option<std::ops::Range<u64>>> {
    match rows {
        None => Ok(None),
        Some(v1::RowRange { start, stop }) if start <= stop => Ok(Some(*start..*stop)),
        Some(v1::RowRange { start, stop }) => Err(bad_request(format!("rows {start} to {stop}"))),
    }
}

fn batch_bytes(wished: u64) -> Option<u64> {
    (wished > 0).then(|| wished.clamp(*BATCH_BYTES.start(), *BATCH_BYTES.end()))
}

fn compression(compression: i32) -> Result<Option<CompressionType>> {
    match v1::Compression::try_from(compression) {
        Ok(v1::Compression::None) => Ok(None),
        Ok(v1::Compression::Lz4) => Ok(Some(CompressionType::LZ4_FRAME)),
        Ok(v1::Compression::Zstd) => Ok(Some(CompressionType::ZSTD)),
        Err(_) => Err(bad_request(format!("compression {compression} does not exist"))),
    }
}

/// Which version is meant; the current one where nothing is said.
///
/// # Errors
/// `bad_request` for a time that no calendar has, or a tag that is none.
pub fn version_selector(selector: Option<&v1::VersionSelector>) -> Result<VersionSelector> {
    Ok(match selector.and_then(|selector| selector.kind.as_ref()) {
        None | Some(version_selector::Kind::Version(0)) => VersionSelector::Current,
        Some(version_selector::Kind::Version(number)) => VersionSelector::Number(*number),
        Some(version_selector::Kind::AsOfUs(micros)) => match DateTime::from_timestamp_micros(*micros) {
            Some(at) => VersionSelector::AsOf(at),
            None => return Err(bad_request(format!("{micros} microseconds since 1970 are no time"))),
        },
        Some(version_selector::Kind::Tag(tag)) if tag.is_empty() || tag.len() > NAME_BYTES_MAX => {
            return Err(bad_request(format!("a tag of {} bytes", tag.len())));
        }
        Some(version_selector::Kind::Tag(tag)) => VersionSelector::Tag(tag.clone()),
    })
}

/// A dataset's name of three parts; slashes around the dataset are ignored.
///
/// # Errors
/// `bad_request` naming the part.
pub fn dataset_path(animal: &str, experiment: &str, dataset: &str) -> Result<DatasetPath> {
    for (level, name) in [("animal", animal), ("experiment", experiment)] {
        if name.is_empty() {
            return Err(bad_request(format!("no {level} is named")));
        }
    }
    let dataset = dataset.trim_matches('/');
    if dataset.is_empty() {
        return Err(bad_request("no dataset is named"));
    }
    object_path(animal, experiment, dataset)
}

/// The same where the dataset may be empty: the root group.
///
/// # Errors
/// `bad_request` naming the part.
pub fn object_path(animal: &str, experiment: &str, dataset: &str) -> Result<DatasetPath> {
    let naming = naming(animal, experiment)?;
    let dataset = dataset.trim_matches('/');
    if dataset.len() > PATH_BYTES_MAX {
        return Err(bad_request(format!(
            "the dataset's name has {} bytes, the most is {PATH_BYTES_MAX}",
            dataset.len()
        )));
    }
    Ok(DatasetPath { animal: naming.animal, experiment: naming.experiment, dataset: dataset.to_owned() })
}

/// Animal and experiment, each possibly empty.
///
/// # Errors
/// `bad_request` for names that are too long or have control characters.
pub fn naming(animal: &str, experiment: &str) -> Result<Naming> {
    for (level, name) in [("animal", animal), ("experiment", experiment)] {
        if name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            return Err(bad_request(format!(
                "the {level}'s name is longer than {NAME_BYTES_MAX} bytes or unprintable"
            )));
        }
    }
    Ok(Naming { animal: animal.to_owned(), experiment: experiment.to_owned() })
}

/// Part of a list.
pub fn page(page: Option<v1::PageRequest>) -> Page {
    let v1::PageRequest { size, token } = page.unwrap_or_default();
    Page { size, token }
}

fn selection(parts: &v1::Selection) -> Result<Selection> {
    let part = match &parts.elements {
        None => Part::Axes(parts.axes.iter().enumerate().map(axis_item).collect::<Result<_>>()?),
        Some(_) if !parts.axes.is_empty() => {
            let message = format!("a selection of {} axes and of single elements: only one of both", parts.axes.len());
            return Err(Error::new(Reason::BadSelection, message));
        }
        Some(selection_parts::Elements::Points(v1::Points { rank, coordinates })) => {
            Part::Points(Points::new(*rank as usize, coordinates.clone())?)
        }
        Some(selection_parts::Elements::Mask(mask)) => Part::Mask(element_mask(mask)?),
    };
    Ok(Selection::of(part, parts.fields.clone())?)
}

fn element_mask(mask: &v1::ElementMask) -> Result<ElementMask> {
    let v1::ElementMask { shape, bits, length, first, skips } = mask;
    if skips.is_empty() {
        return Ok(ElementMask::new(shape.clone(), *first, *length, bits.to_vec())?);
    }
    if bits.is_empty() && *length == 0 {
        return Ok(ElementMask::sparse(shape.clone(), *first, skips)?);
    }
    let message = format!("a mask of {length} flags and {} skips: only one of both", skips.len());
    Err(Error::new(Reason::BadSelection, message))
}

fn axis_item((position, axis): (usize, &v1::AxisSelection)) -> Result<Item> {
    Ok(match &axis.kind {
        None => {
            let message = format!("item {position} of the selection says nothing");
            return Err(Error::new(Reason::BadSelection, message));
        }
        Some(axis_selection::Kind::Index(index)) => Item::Index(*index),
        Some(axis_selection::Kind::Slice(v1::Slice { start, stop, step })) => {
            Item::Slice { start: *start, stop: *stop, step: *step }
        }
        Some(axis_selection::Kind::List(list)) => Item::List(list.indices.clone()),
        Some(axis_selection::Kind::Mask(mask)) => Item::Mask(flags(mask)?),
        Some(axis_selection::Kind::Ellipsis(_)) => Item::Ellipsis,
    })
}

fn flags(mask: &v1::Mask) -> Result<Vec<bool>> {
    if mask.length > MASK_FLAGS_MAX || mask.length.div_ceil(8) != mask.bits.len() as u64 {
        let message = format!("a mask of {} flags has {} bytes", mask.length, mask.bits.len());
        return Err(Error::new(Reason::BadSelection, message));
    }
    Ok((0..mask.length as usize).map(|at| mask.bits[at / 8] >> (at % 8) & 1 == 1).collect())
}

/// Words for a filter: numpy users know them by these.
pub fn filter_name(filter: &Filter) -> String {
    match filter.id {
        1 => "deflate".into(),
        2 => "shuffle".into(),
        3 => "fletcher32".into(),
        4 => "szip".into(),
        5 => "nbit".into(),
        6 => "scaleoffset".into(),
        32000 => "lzf".into(),
        id if filter.name.is_empty() => format!("filter {id}"),
        id => format!("filter {id} ({})", filter.name),
    }
}

/// An animal on the wire.
pub fn animal(found: AnimalSummary) -> v1::Animal {
    v1::Animal { animal: found.animal, species: found.species, experiments: found.experiments }
}

/// An experiment on the wire.
pub fn experiment(found: ExperimentSummary) -> v1::Experiment {
    let ExperimentSummary { animal, experiment, facts, datasets } = found;
    v1::Experiment {
        animal,
        experiment,
        datasets,
        start_time: facts.start_time.unwrap_or_default(),
        identifier: facts.identifier.unwrap_or_default(),
        nwb_version: facts.nwb_version.unwrap_or_default(),
        session_id: facts.session_id.unwrap_or_default(),
        species: facts.species.unwrap_or_default(),
        details_json: Value::Object(facts.details).to_string(),
    }
}

/// A dataset on the wire.
pub fn dataset(found: DatasetSummary) -> v1::Dataset {
    let DatasetSummary { path, version, meta, chunks: stored_chunks, stored_bytes, problem } = found;
    let (problem_reason, problem) = problem.unwrap_or_default();
    let chunks = match &meta.storage {
        Storage::Chunked { chunk_shape } => chunk_shape.clone(),
        Storage::Compact | Storage::Contiguous { .. } | Storage::Virtual { .. } | Storage::External => Vec::new(),
    };
    let max_shape = meta.max_shape.iter().map(|size| size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)));
    v1::Dataset {
        animal: path.animal,
        experiment: path.experiment,
        dataset: path.dataset,
        version,
        shape: meta.shape().to_vec(),
        dtype: dtype(&meta),
        chunks,
        filters: meta.filters.iter().map(filter_name).collect(),
        stored_bytes,
        decoded_bytes: decoded_bytes(&meta).unwrap_or(0),
        problem_reason,
        problem,
        max_shape: max_shape.collect(),
        stored_chunks,
        is_null: meta.space == Space::Null,
    }
}

/// numpy's name of the elements, or what the file calls them.
pub fn dtype(meta: &ArrayMeta) -> String {
    if meta.type_note.is_empty() { numpy_type(&meta.element) } else { meta.type_note.clone() }
}

fn decoded_bytes(meta: &ArrayMeta) -> Option<u64> {
    meta.elements().ok()?.checked_mul(meta.element.fixed_bytes()?)
}

/// "group", "dataset", "named_type".
pub const fn kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Group => "group",
        ObjectKind::Dataset => "dataset",
        ObjectKind::NamedType => "named_type",
    }
}

/// The same for what a name in a group is, with the reason why it cannot be had.
const fn child_kind(of: ChildKind) -> (&'static str, &'static str) {
    match of {
        ChildKind::Object(of) => (kind(of), ""),
        ChildKind::Link(LinkKind::Hard | LinkKind::Soft) => ("soft_link", Reason::DatasetNotFound.as_str()),
        ChildKind::Link(LinkKind::External) => ("external_link", Reason::ExternalLinkRefused.as_str()),
        ChildKind::Link(LinkKind::User) => ("user_link", Reason::ExternalLinkRefused.as_str()),
    }
}

/// A description on the wire.
pub fn description(found: Description) -> v1::DescribeResponse {
    let child = |(name, of): (String, ChildKind)| {
        let (kind, problem_reason) = child_kind(of);
        v1::Child { name, kind: kind.into(), problem_reason: problem_reason.into() }
    };
    let shape = found.dataset.as_ref().map(|dataset| dataset.meta.shape().to_vec()).unwrap_or_default();
    v1::DescribeResponse {
        path: found.path.dataset,
        kind: kind(found.kind).into(),
        attributes_json: Value::Object(found.attributes).to_string(),
        attribute_types_json: Value::Object(found.attribute_types).to_string(),
        dataset: found.dataset.map(dataset),
        dims: dimensions(&shape, found.dimensions),
        children: found.children.into_iter().map(child).collect(),
        aliases: found.aliases,
    }
}

/// One entry for each axis, also where the file says nothing.
fn dimensions(shape: &[u64], known: Vec<Dimension>) -> Vec<v1::Dimension> {
    let known = known.into_iter().chain(std::iter::repeat_with(Dimension::default));
    let dimension = |(size, Dimension { label, scales, coordinate }): (&u64, Dimension)| v1::Dimension {
        label,
        scales,
        size: *size,
        coordinate: coordinate.unwrap_or_default(),
    };
    shape.iter().zip(known).map(dimension).collect()
}

/// A publication on the wire.
pub fn publication(published: Published, left_out: LeftOut) -> v1::Publication {
    let name = |(animal, experiment)| v1::ExperimentName { animal, experiment };
    v1::Publication {
        experiments: published.experiments.into_iter().map(name).collect(),
        datasets: published.datasets,
        chunks: published.chunks,
        already: published.already,
        left_out: left_out.count(),
    }
}

/// What a client announces of an upload.
///
/// # Errors
/// `bad_request`.
pub fn upload_header(header: v1::IngestHeader, principal: &Principal) -> Result<UploadHeader> {
    let naming = naming(&header.animal, &header.experiment)?;
    let expected = header.expected.iter().map(history::expected).collect::<Result<_>>()?;
    Ok(UploadHeader {
        file_name: header.file_name,
        file_bytes: header.file_bytes,
        blake3: header.blake3,
        key: header.idempotency_key,
        offset: header.offset,
        wishes: Wishes { expected, ..Wishes::new(naming, header.replace, principal) },
    })
}

/// What an upload made.
pub fn uploaded(uploaded: Uploaded) -> v1::IngestResponse {
    let Made { published, left_out } = uploaded.made;
    let publication = Some(publication(published, left_out));
    v1::IngestResponse { content: uploaded.content, publication, message: left_out.to_string() }
}

/// Garbage that was found.
pub fn collection(found: Collection) -> v1::CollectGarbageResponse {
    let garbage = found.named.into_iter().map(|piece| v1::Garbage {
        kind: match piece.kind {
            GarbageKind::File => "file",
            GarbageKind::Upload => "upload",
            GarbageKind::Temporary => "temporary",
        }
        .into(),
        name: piece.name,
        bytes: piece.bytes,
        age_s: piece.age.as_secs(),
    });
    v1::CollectGarbageResponse { garbage: garbage.collect(), count: found.count, bytes: found.bytes }
}

/// A file that is not registered as it is.
pub fn changed_file((at, fingerprint): (Located, Fingerprint)) -> v1::ChangedFile {
    let Fingerprint { device, inode, bytes, modified_ns } = fingerprint;
    v1::ChangedFile { path: at.to_string(), device, inode, bytes, modified_ns }
}

/// What is to be verified.
///
/// # Errors
/// `bad_request` for names that are none.
pub fn verify_request(request: v1::VerifyRequest, principal: Principal) -> Result<verify::Asked> {
    let Naming { animal, experiment } = naming(&request.animal, &request.experiment)?;
    let depth = if request.deep { verify::Depth::Contents } else { verify::Depth::Places };
    let remedy = if request.repair { verify::Remedy::Repair } else { verify::Remedy::Report };
    Ok(verify::Asked { animal, experiment, depth, remedy, principal })
}

/// A report of a verification.
pub fn verify_report(report: verify::Report) -> v1::VerifyReport {
    let verify::Report { files_done, files_total, bytes_read, subject } = report;
    let plain = v1::VerifyReport { files_done, files_total, bytes_read, file: None, stray: None };
    match subject {
        verify::Subject::Progress => plain,
        verify::Subject::Stray(verify::Stray { path, bytes }) => {
            v1::VerifyReport { stray: Some(v1::StrayFile { path, bytes }), ..plain }
        }
        verify::Subject::File(file) => v1::VerifyReport { file: Some(verified(*file)), ..plain },
    }
}

fn verified(file: verify::Verified) -> v1::VerifiedFile {
    let finding = |found: verify::Finding| v1::Finding {
        reason: found.reason.as_str().into(),
        message: found.message,
        array: found.array,
        chunk: found.chunk,
    };
    let verify::Found { findings, left_out, unchecked, chunks, bytes_read } = file.found;
    v1::VerifiedFile {
        path: verify::place_text(&file.record.place),
        source_name: file.record.source_name,
        findings: findings.into_iter().map(finding).collect(),
        findings_left_out: left_out,
        unchecked: unchecked.into_iter().map(finding).collect(),
        quarantine_reason: file.quarantine_reason,
        repaired: file.repaired.as_str().into(),
        repair_error: file.repair_error,
        chunks,
        bytes_read,
        millis: file.took.as_secs_f64() * 1e3,
    }
}

/// The messages of the action protocol: the same fields as in protobuf, as JSON.
pub mod as_json {
    use super::*;

    /// An animal.
    pub fn animal(animal: &v1::Animal) -> Value {
        json!({ "animal": animal.animal, "species": animal.species, "experiments": animal.experiments })
    }

    /// An experiment.
    pub fn experiment(found: &v1::Experiment) -> Value {
        let v1::Experiment { animal, experiment, datasets, start_time, identifier, nwb_version, .. } = found;
        json!({
            "animal": animal, "experiment": experiment, "datasets": datasets, "start_time": start_time,
            "identifier": identifier, "nwb_version": nwb_version, "session_id": found.session_id,
            "species": found.species, "details": parsed(&found.details_json),
        })
    }

    /// A dataset.
    pub fn dataset(found: &v1::Dataset) -> Value {
        json!({
            "animal": found.animal, "experiment": found.experiment, "dataset": found.dataset,
            "version": found.version, "shape": found.shape, "dtype": found.dtype, "chunks": found.chunks,
            "filters": found.filters, "stored_bytes": found.stored_bytes, "decoded_bytes": found.decoded_bytes,
            "problem_reason": found.problem_reason, "problem": found.problem, "max_shape": found.max_shape,
            "stored_chunks": found.stored_chunks, "is_null": found.is_null,
        })
    }

    /// What our own code wrote as JSON, which is an object here.
    fn parsed(json: &str) -> Value {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// A description; the attributes are an object here.
    pub fn description(found: &v1::DescribeResponse) -> Value {
        let (attributes, attribute_types) = (parsed(&found.attributes_json), parsed(&found.attribute_types_json));
        let child = |child: &v1::Child| json!({ "name": child.name, "kind": child.kind, "problem_reason": child.problem_reason });
        let dimension = |of: &v1::Dimension| json!({ "label": of.label, "scales": of.scales, "size": of.size, "coordinate": of.coordinate });
        json!({
            "path": found.path, "kind": found.kind, "attributes": attributes, "attribute_types": attribute_types,
            "dataset": found.dataset.as_ref().map(dataset), "aliases": found.aliases,
            "dims": found.dims.iter().map(dimension).collect::<Vec<_>>(),
            "children": found.children.iter().map(child).collect::<Vec<_>>(),
        })
    }

    /// A report of a registration.
    pub fn report(report: &v1::RegisterReport) -> Value {
        let publication = report.publication.as_ref().map(publication);
        json!({
            "path": report.path, "publication": publication, "reason": report.reason, "message": report.message,
            "millis": report.millis,
        })
    }

    fn publication(made: &v1::Publication) -> Value {
        let name = |name: &v1::ExperimentName| json!({ "animal": name.animal, "experiment": name.experiment });
        json!({
            "experiments": made.experiments.iter().map(name).collect::<Vec<_>>(), "datasets": made.datasets,
            "chunks": made.chunks, "already": made.already, "left_out": made.left_out,
        })
    }

    /// What an upload made.
    pub fn uploaded(made: &v1::IngestResponse) -> Value {
        json!({
            "content": made.content, "publication": made.publication.as_ref().map(publication), "message": made.message,
        })
    }

    /// How far an upload is.
    pub fn upload_status(found: &v1::UploadStatusResponse) -> Value {
        let state = match found.state() {
            v1::UploadState::None => "none",
            v1::UploadState::Partial => "partial",
            v1::UploadState::Running => "running",
            v1::UploadState::Complete => "complete",
        };
        json!({ "durable_bytes": found.durable_bytes, "state": state })
    }

    /// A chunk pointer.
    pub fn chunk(chunk: &v1::Chunk) -> Value {
        json!({
            "position": chunk.position, "offset": chunk.offset, "stored_bytes": chunk.stored_bytes,
            "filter_mask": chunk.filter_mask,
        })
    }

    /// The server.
    pub fn server_info(info: &v1::GetServerInfoResponse) -> Value {
        json!({
            "version": info.version, "catalog": info.catalog, "redis": info.redis, "roots": info.roots,
            "animals": info.animals, "experiments": info.experiments, "datasets": info.datasets, "files": info.files,
            "cache_bytes": info.cache_bytes, "cache_bytes_max": info.cache_bytes_max, "principal": info.principal,
            "role": info.role, "uptime_s": info.uptime_s, "sandbox": info.sandbox,
        })
    }
}

#[cfg(test)]
mod tests;
