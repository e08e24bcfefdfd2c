//! Windows around events: when the events are, and which rows of a series lie around them.

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::meta::Storage;
use h5flight_array::selection::Runs;
use h5flight_array::series::{Edge, Window, Windows};
use h5flight_catalog::model::{DatasetPath, ResolvedVersion, VersionSelector};
use serde_json::json;

use super::refuse;
use super::time::Time;
use crate::error::{Error, Result};
use crate::service::Service;
use crate::tables::{self, TableRequest};

/// Events of one request at most: what the schema tells of them stays below the 4 MiB that clients take as a message.
pub(crate) const EVENTS_MAX: usize = 65_536;
/// Rows of chunks that all windows of a request pass at most: each is looked at before the first row is sent.
const PASSED_MAX: u64 = 4 << 20;
/// What counts as a row of chunks of an array without chunks, in bytes: a batch.
const PIECE_BYTES: u64 = 2 << 20;
/// Rows that a window of timestamps may have more or fewer than its rate says, before it counts as one over a gap: one
/// because samples lie beside its edges, and this part because clocks are not even.
const UNEVEN_PART: f64 = 0.01;

/// What is asked: windows around events.
#[derive(Clone, Debug, PartialEq)]
pub struct Around {
    /// When.
    pub events: Events,
    /// Start and end of a window, in seconds from its event.
    pub bounds_s: (f64, f64),
    /// Which windows.
    pub edge: Edge,
}

/// Events in seconds of the series' clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Events {
    /// These.
    Times(Vec<f64>),
    /// A column of a table of the experiment.
    Column(EventColumn),
}

/// Events that a table has.
#[derive(Clone, Debug, PartialEq)]
pub struct EventColumn {
    /// Path of the table.
    pub table: String,
    /// Column of numbers.
    pub column: String,
    /// Which rows.
    pub filter: Option<h5flight_array::expression::Expression>,
    /// Version of the table.
    pub version: VersionSelector,
}

/// The rows of the windows that are read, and what the schema tells of them.
///
/// # Errors
/// `bad_selection` for windows without rows, `result_too_large` for more than [`EVENTS_MAX`] or [`PASSED_MAX`]; those of the table.
pub(super) async fn find(
    service: &Arc<Service>,
    version: &ResolvedVersion,
    around: &Around,
    time: &mut Time,
    total: u64,
) -> Result<(Runs, String)> {
    let events = events(service, &version.path, &around.events).await?;
    let (start_s, stop_s) = around.bounds_s;
    let hz = time.hz().await?;
    let rows = Windows::rows_at(around.bounds_s, hz)?;
    let mut windows = vec![Window { first: 0, rows, is_even: true }; events.len()];
    // In the order of time a chunk of timestamps is read once.
    let mut by_time: Vec<usize> = (0..events.len()).collect();
    by_time.sort_unstable_by(|a, b| events[*a].1.total_cmp(&events[*b].1));
    for place in by_time {
        let event_s = events[place].1;
        let first = time.first_at_or_after(event_s + start_s).await?;
        windows[place].first = first;
        if let Time::Stamped(_) = time {
            let found = time.first_at_or_after(event_s + stop_s).await?.saturating_sub(first).max(0) as u64;
            let differs = found.abs_diff(rows) as f64;
            if differs > 1.0 + rows as f64 * UNEVEN_PART {
                windows[place] = Window { first, rows: found.min(rows), is_even: false };
            }
        }
    }
    let windows = Windows::new(windows, rows);
    let kept = windows.kept(total, around.edge);
    let runs = windows.runs(&kept, total);
    refuse_many(&runs, version)?;
    let present = |place: &usize| {
        let present = windows.present(*place, total);
        present.end - present.start
    };
    let told = json!({
        "rows": rows,
        "hz": hz,
        "start_s": start_s,
        "event": kept.iter().map(|place| events[*place].0).collect::<Vec<_>>(),
        "time_s": kept.iter().map(|place| events[*place].1).collect::<Vec<_>>(),
        "first_row": kept.iter().map(|place| windows.first(*place)).collect::<Vec<_>>(),
        "present": kept.iter().map(present).collect::<Vec<_>>(),
    });
    Ok((runs, told.to_string()))
}

/// Refuses windows that pass more rows of chunks than are planned for one answer.
fn refuse_many(runs: &Runs, version: &ResolvedVersion) -> Result<()> {
    let unit = version.extents.iter().map(|extent| match &extent.array.meta.storage {
        Storage::Chunked { chunk_shape } => chunk_shape.first().copied().unwrap_or(1).min(extent.rows),
        _ => {
            let items = extent.array.meta.shape().iter().skip(1).fold(1u64, |all, size| all.saturating_mul(*size));
            let row_bytes = items.saturating_mul(extent.array.meta.element.fixed_bytes().unwrap_or(1));
            PIECE_BYTES / row_bytes.max(1)
        }
    });
    let unit = unit.min().unwrap_or(1).max(1);
    let passed = runs.ranges().map(|range| (range.end - range.start) / unit + 2).fold(0, u64::saturating_add);
    if passed <= PASSED_MAX {
        return Ok(());
    }
    let message = format!(
        "the windows pass {passed} rows of chunks, one answer at most {PASSED_MAX}: ask for fewer or shorter ones at a time"
    );
    Err(Error::new(Reason::ResultTooLarge, message))
}

/// Each event's number, and when it is. A table is one of the experiment of `beside`.
///
/// # Errors
/// Those of the table; `bad_selection` for an event at no time.
pub(crate) async fn events(service: &Arc<Service>, beside: &DatasetPath, events: &Events) -> Result<Vec<(u64, f64)>> {
    let EventColumn { table, column, filter, version } = match events {
        Events::Times(times) => return Ok((0..).zip(times.iter().copied()).collect()),
        Events::Column(column) => column,
    };
    let path = DatasetPath { dataset: table.clone(), ..beside.clone() };
    let request = TableRequest {
        columns: vec![column.clone()],
        filter: filter.clone(),
        ..TableRequest::all(path, version.clone())
    };
    let found = tables::numbers(service, &request, EVENTS_MAX).await?;
    match found.iter().find(|(_, time_s)| !time_s.is_finite()) {
        Some((row, time_s)) => Err(refuse(format!("row {row} of {} is at {time_s} s", request.path))),
        None => Ok(found),
    }
}
