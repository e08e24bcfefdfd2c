//! What a dataset is to a laboratory: samples along a clock, in a unit, by channels. Found from its neighbours.
//!
//! NWB keeps beside `data` either `starting_time` (a scalar with the attribute `rate`) or `timestamps`, and the electrodes
//! or regions of the channels. What is beside a version is what was there when it was published. Files without these
//! lose nothing: only a request that needs a clock is refused.

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::batch::scale::{Factors, Scaled, Scaling};
use h5flight_array::selection::{AxisSelection, Item, Part, Resolved, Selection};
use h5flight_catalog::model::{DatasetPath, ResolvedVersion, VersionSelector};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::read::{NUMBERS_MAX, ReadRequest, numbers};
use crate::service::Service;

/// Ids of channels that are told in the schema at most.
const IDS_TOLD_MAX: usize = 4096;

/// What is asked in the words of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Rows, in seconds: the start, and the end that is not part of it.
    pub time: Option<(Option<f64>, Option<f64>)>,
    /// Ids of channels.
    pub channels: Option<Vec<i64>>,
    /// The type of values in the unit.
    pub scaled: Option<Scaled>,
}

impl Wish {
    /// Whether nothing is asked that needs a series.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A wish in the words of a plan.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// Which part.
    pub selection: Selection,
    /// How values are scaled; its factors are those of all channels until they are [`Granted::scaling`].
    scale: Option<(Scaled, f64, f64, Option<Vec<f64>>)>,
    clock: Option<(f64, f64)>,
    ids: Option<Vec<i64>>,
    unit: Option<Value>,
}

/// Finds what a wish means for a version.
///
/// # Errors
/// `bad_selection` where the dataset has no clock or no such channel; `bad_request` for values that have no unit.
pub async fn grant(service: &Arc<Service>, version: &Arc<ResolvedVersion>, request: &ReadRequest) -> Result<Granted> {
    let mut granted = Granted { selection: request.selection.clone(), ..Granted::default() };
    if request.wish.is_empty() {
        return Ok(granted);
    }
    let wish = &request.wish;
    let Some(extent) = version.extents.first() else { return Ok(granted) };
    let mut shape = extent.array.meta.shape().to_vec();
    if let Some(rows) = shape.first_mut() {
        *rows = version.extents.iter().map(|extent| extent.rows).sum();
    }
    let beside = Beside { service, version };
    granted.clock = beside.clock().await?;
    granted.ids = beside.ids(&shape).await?;
    granted.unit = version.attributes.get("unit").cloned();
    if let Some(time) = wish.time {
        let Some((start_s, hz)) = granted.clock else {
            return Err(refuse(format!(
                "{} has no starting time with a rate beside it, so no rows by time",
                version.path
            )));
        };
        let rows = shape.first().copied().unwrap_or(0);
        let (first, end) = rows_between(time, start_s, hz, rows);
        let slice = Item::Slice { start: Some(first as i64), stop: Some(end as i64), step: None };
        granted.selection = with_item(&granted.selection, 0, slice, shape.len())?;
    }
    if let Some(wanted) = &wish.channels {
        let Some(ids) = &granted.ids else {
            return Err(refuse(format!("{} of shape {shape:?} has no channels", version.path)));
        };
        let find = |id: &i64| {
            let found = ids.iter().position(|known| known == id);
            found
                .map(|at| at as i64)
                .ok_or_else(|| refuse(format!("no channel {id} among {} of {}", ids.len(), version.path)))
        };
        let list = wanted.iter().map(find).collect::<Result<Vec<_>>>()?;
        granted.selection = with_item(&granted.selection, 1, Item::List(list), shape.len())?;
    }
    if let Some(to) = wish.scaled {
        if !Scaling::is_number(&extent.array.meta.element) {
            return Err(Error::new(Reason::BadRequest, format!("{} has no numbers, so no unit", version.path)));
        }
        let factors = beside.factors(&shape).await?;
        let attribute = |name: &str, otherwise| number(&version.attributes, name).unwrap_or(otherwise);
        granted.scale = Some((to, attribute("conversion", 1.0), attribute("offset", 0.0), factors));
    }
    Ok(granted)
}

impl Granted {
    /// The part of delivered bytes that stored ones are: bounds of delivered bytes are this much tighter for a plan.
    pub fn stored_bytes(&self, delivered_bytes: u64, element_bytes: u64) -> u64 {
        let value_bytes = match self.scale {
            None => return delivered_bytes,
            Some((Scaled::Float32, ..)) => 4,
            Some((Scaled::Float64, ..)) => 8,
        };
        let stored = u128::from(delivered_bytes) * u128::from(element_bytes) / value_bytes;
        u64::try_from(stored).unwrap_or(u64::MAX).max(1)
    }

    /// How the values of a selection are scaled.
    ///
    /// # Errors
    /// `bad_selection` for single elements of a series whose channels have factors of their own.
    pub fn scaling(&self, selected: &Resolved) -> Result<Option<Scaling>> {
        let Some((to, conversion, offset, channels)) = &self.scale else { return Ok(None) };
        let factors = match (channels, selected.axes()) {
            (None, _) => Factors::One(1.0),
            (Some(channels), [rows, axis, ..]) => {
                let picked: Vec<f64> = positions(axis).map(|at| channels[at as usize]).collect();
                match (rows, axis) {
                    (_, AxisSelection::Index(at)) => Factors::One(channels[*at as usize]),
                    (AxisSelection::Index(_), _) => Factors::Rows(picked),
                    _ => Factors::Columns(picked),
                }
            }
            (Some(_), _) => {
                return Err(refuse("single elements of channels with factors of their own have no unit here".into()));
            }
        };
        Ok(Some(Scaling { to: *to, conversion: *conversion, offset: *offset, factors }))
    }

    /// What a client needs to make axes without being sent them.
    pub fn metadata(&self, selected: &Resolved) -> Vec<(String, String)> {
        let mut told = Vec::new();
        if let (Some((start_s, hz)), Some(rows)) = (self.clock, selected.axes().first()) {
            let (first_row, step) = match rows {
                AxisSelection::Range { start, step, .. } => (Some(*start), Some(*step)),
                AxisSelection::Index(at) => (Some(*at), Some(1)),
                AxisSelection::List(_) => (None, None),
            };
            let time = json!({ "start_s": start_s, "hz": hz, "first_row": first_row, "step": step });
            told.push(("h5flight.time".to_owned(), time.to_string()));
        }
        if let (Some(ids), Some(axis)) = (&self.ids, selected.axes().get(1)) {
            let picked: Vec<i64> = positions(axis).take(IDS_TOLD_MAX + 1).map(|at| ids[at as usize]).collect();
            if picked.len() <= IDS_TOLD_MAX {
                told.push(("h5flight.channels".to_owned(), json!(picked).to_string()));
            }
        }
        if let Some(unit) = &self.unit {
            told.push(("h5flight.unit".to_owned(), unit.to_string()));
        }
        told
    }
}

/// The indices that an axis is read at.
fn positions(axis: &AxisSelection) -> Box<dyn Iterator<Item = u64> + '_> {
    match axis {
        AxisSelection::Index(at) => Box::new(std::iter::once(*at)),
        AxisSelection::Range { start, step, count } => {
            Box::new((0..*count).map(move |place| start.wrapping_add_signed(step.wrapping_mul(place as i64))))
        }
        AxisSelection::List(list) => Box::new(list.iter().copied()),
    }
}

/// What lies beside a version in its group.
struct Beside<'a> {
    service: &'a Arc<Service>,
    version: &'a Arc<ResolvedVersion>,
}

impl Beside<'_> {
    /// The dataset at a path, as it was when the version was published; `None` where there is none.
    async fn at(&self, dataset: String) -> Result<Option<Arc<ResolvedVersion>>> {
        let path = DatasetPath { dataset, ..self.version.path.clone() };
        let asked = VersionSelector::AsOf(self.version.created_at);
        match self.service.versions.resolve(&path, asked).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.reason(), Reason::DatasetNotFound | Reason::VersionNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn sibling(&self, name: &str) -> Result<Option<Arc<ResolvedVersion>>> {
        match self.version.path.dataset.rsplit_once('/') {
            Some((group, "data")) => self.at(format!("{group}/{name}")).await,
            _ => Ok(None),
        }
    }

    async fn clock(&self) -> Result<Option<(f64, f64)>> {
        let Some(start) = self.sibling("starting_time").await? else { return Ok(None) };
        let Some(hz) = number(&start.attributes, "rate").filter(|hz| hz.is_finite() && *hz > 0.0) else {
            return Ok(None);
        };
        let found = numbers(self.service, start).await?;
        Ok(found.first().filter(|start_s| start_s.is_finite()).map(|start_s| (*start_s, hz)))
    }

    /// Ids along axis 1.
    async fn ids(&self, shape: &[u64]) -> Result<Option<Vec<i64>>> {
        let Some(count) = shape.get(1).filter(|count| **count <= NUMBERS_MAX) else { return Ok(None) };
        for name in ["electrodes", "rois"] {
            let Some(region) = self.sibling(name).await? else { continue };
            let table = region.attributes.get("table").and_then(|table| table.get("ref")).and_then(Value::as_str);
            let table = table.map(|path| format!("{}/id", path.trim_matches('/')));
            let rows = numbers(self.service, region).await?;
            if rows.len() as u64 != *count {
                continue;
            }
            let known = match table {
                Some(table) => self.at(table).await?,
                None => None,
            };
            let known = match known {
                Some(known) => numbers(self.service, known).await?,
                None => Vec::new(),
            };
            // Without a table the rows are all that is known of the channels.
            return Ok(Some(rows.iter().map(|row| known.get(*row as usize).copied().unwrap_or(*row) as i64).collect()));
        }
        Ok((shape.len() == 2).then(|| (0..*count as i64).collect()))
    }

    async fn factors(&self, shape: &[u64]) -> Result<Option<Vec<f64>>> {
        let Some(found) = self.sibling("channel_conversion").await? else { return Ok(None) };
        let factors = numbers(self.service, found).await?;
        match shape.get(1) {
            Some(count) if *count == factors.len() as u64 => Ok(Some(factors)),
            _ => Err(refuse(format!(
                "{} has {} factors for channels in shape {shape:?}",
                self.version.path,
                factors.len()
            ))),
        }
    }
}

/// A number of the attributes, which writers also keep as a list of one.
fn number(attributes: &Map<String, Value>, name: &str) -> Option<f64> {
    match attributes.get(name)? {
        Value::Array(items) if items.len() == 1 => items[0].as_f64(),
        other => other.as_f64(),
    }
}

/// The rows i of `rows` with start <= start_s + i / hz < stop, computed in float64: exactly as numpy compares them.
fn rows_between((start, stop): (Option<f64>, Option<f64>), start_s: f64, hz: f64, rows: u64) -> (u64, u64) {
    let before = |bound: f64| {
        let (mut low, mut high) = (0, rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if start_s + middle as f64 / hz < bound { low = middle + 1 } else { high = middle }
        }
        low
    };
    let first = start.map_or(0, before);
    (first, stop.map_or(rows, before).max(first))
}

/// The selection with an item in place of a whole axis.
fn with_item(selection: &Selection, axis: usize, item: Item, rank: usize) -> Result<Selection> {
    let Part::Axes(given) = selection.part() else {
        return Err(refuse("single elements cannot be combined with time or channels".into()));
    };
    let named = given.iter().filter(|item| **item != Item::Ellipsis).count();
    if named > rank || axis >= rank {
        return Err(refuse(format!("{named} indices and one for axis {axis}, for an array of rank {rank}")));
    }
    let mut items = Vec::with_capacity(rank);
    for item in given {
        match item {
            Item::Ellipsis => items.extend(std::iter::repeat_n(Item::ALL, rank - named)),
            item => items.push(item.clone()),
        }
    }
    items.resize(rank, Item::ALL);
    if items[axis] != Item::ALL {
        return Err(refuse(format!("axis {axis} is selected twice: by index, and by time or channels")));
    }
    items[axis] = item;
    Ok(Selection::new(items, selection.fields().to_vec())?)
}

fn refuse(message: String) -> Error {
    Error::new(Reason::BadSelection, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_time_are_those_that_comparing_every_time_finds() {
        for (start_s, hz) in [(0.0, 30_000.0), (1.3, 29.97), (-5.5, 0.1), (1e9, 3.0), (0.1, 10.0)] {
            let time = |row: u64| start_s + row as f64 / hz;
            for at in 0..40 {
                let edges = [time(at), time(at).next_up(), time(at).next_down()];
                for (start, stop) in edges.iter().flat_map(|start| edges.map(|edge| (*start, edge + 7.0 / hz))) {
                    let wanted: Vec<u64> = (0..50).filter(|row| start <= time(*row) && time(*row) < stop).collect();
                    let (first, end) = rows_between((Some(start), Some(stop)), start_s, hz, 50);
                    assert_eq!((first..end).collect::<Vec<_>>(), wanted, "{start_s} {hz} {start} {stop}");
                }
            }
        }
        assert_eq!(rows_between((None, None), 0.0, 1.0, 9), (0, 9));
        assert_eq!(rows_between((Some(5.0), Some(2.0)), 0.0, 1.0, 9), (5, 5));
    }

    #[test]
    fn time_takes_the_place_of_a_whole_axis_only() {
        let with = |text: &str, axis| with_item(&Selection::parse(text).unwrap(), axis, Item::Index(3), 3);
        assert_eq!(with("", 0).unwrap().to_string(), "3, :, :");
        assert_eq!(with("..., 1", 1).unwrap().to_string(), ":, 3, 1");
        for (text, axis) in [("0:5", 0), (":, 2", 1), ("points[[0,1,2]]", 0), ("", 3)] {
            assert_eq!(with(text, axis).unwrap_err().reason(), Reason::BadSelection, "{text}");
        }
    }
}
