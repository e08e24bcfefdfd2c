//! What a dataset is to a laboratory: samples along a clock, in a unit, by channels. Found from its neighbours.
//!
//! NWB keeps beside `data` either `starting_time` (a scalar with the attribute `rate`) or `timestamps`, and the electrodes
//! or regions of the channels. What is beside a version is what was there when it was published. Files without these
//! lose nothing: only a request that needs a clock is refused.

mod beside;
mod time;
mod windows;

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::batch::scale::{Factors, Scaled, Scaling};
use h5flight_array::expression::Expression;
use h5flight_array::selection::{AxisSelection, Item, Part, Resolved, Selection};
use h5flight_catalog::model::ResolvedVersion;
use serde_json::{Value, json};

use self::beside::{Beside, number};
pub use self::windows::{Around, EventColumn, Events};
pub(crate) use self::windows::{EVENTS_MAX, events};
use crate::error::{Error, Result};
use crate::read::ReadRequest;
use crate::service::Service;

/// Ids of channels that are told in the schema at most.
const IDS_TOLD_MAX: usize = 4096;

/// What is asked in the words of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Rows, in seconds: the start, and the end that is not part of it.
    pub time: Option<(Option<f64>, Option<f64>)>,
    /// Rows, by windows around events.
    pub windows: Option<Around>,
    /// Which channels.
    pub channels: Option<Channels>,
    /// The type of values in the unit.
    pub scaled: Option<Scaled>,
}

/// Which channels.
#[derive(Clone, Debug, PartialEq)]
pub enum Channels {
    /// Those with these ids, in this order.
    Ids(Vec<i64>),
    /// Those whose row of their table it is true for.
    Where(Expression),
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
    /// How the axis of rows is told.
    time: Option<Value>,
    /// The windows, as they are told.
    windows: Option<String>,
    ids: Option<Vec<i64>>,
    unit: Option<Value>,
}

/// Finds what a wish means for a version.
///
/// # Errors
/// `bad_selection` where the dataset has no clock, no such channel, or its timestamps decrease; `bad_request` for values that have no unit.
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
    let rows = shape.first().copied().unwrap_or(0);
    let mut time = match (wish.time, &wish.windows) {
        // Whoever asks for rows by number is told of a clock, and not refused for its faults.
        (None, None) => beside.time(rows).await.ok().flatten(),
        _ => beside.time(rows).await?,
    };
    granted.time = time.as_ref().map(|time| time.told());
    granted.ids = beside.ids(&shape).await?;
    granted.unit = version.attributes.get("unit").cloned();
    let no_clock = || refuse(format!("{} has no starting time with a rate and no timestamps beside it", version.path));
    if let Some(asked) = wish.time {
        let (first, end) = time.as_mut().ok_or_else(no_clock)?.rows(asked, rows).await?;
        let slice = Item::Slice { start: Some(first as i64), stop: Some(end as i64), step: None };
        granted.selection = with_item(&granted.selection, 0, slice, shape.len())?;
    }
    if let Some(around) = &wish.windows {
        let time = time.as_mut().ok_or_else(no_clock)?;
        let (runs, told) = windows::find(service, version, around, time, rows).await?;
        granted.selection = with_item(&granted.selection, 0, Item::Runs(Arc::new(runs)), shape.len())?;
        granted.windows = Some(told);
    }
    if let Some(wanted) = &wish.channels {
        let list = match wanted {
            Channels::Where(filter) => beside.channels(&shape, filter).await?,
            Channels::Ids(wanted) => {
                let Some(ids) = &granted.ids else {
                    return Err(refuse(format!("{} of shape {shape:?} has no channels", version.path)));
                };
                positions_of(wanted, ids, version)?
            }
        };
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

/// Where channels are, by their ids.
fn positions_of(wanted: &[i64], ids: &[i64], version: &ResolvedVersion) -> Result<Vec<i64>> {
    let mut known: std::collections::HashMap<i64, i64> = std::collections::HashMap::new();
    for (at, id) in (0..).zip(ids) {
        known.entry(*id).or_insert(at);
    }
    let missing = |id: &i64| refuse(format!("no channel {id} among {} of {}", ids.len(), version.path));
    wanted.iter().map(|id| known.get(id).copied().ok_or_else(|| missing(id))).collect()
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
        if let (Some(time), Some(rows)) = (&self.time, selected.axes().first()) {
            let (first_row, step) = match rows {
                AxisSelection::Range { start, step, .. } => (Some(*start), Some(*step)),
                AxisSelection::Index(at) => (Some(*at), Some(1)),
                AxisSelection::List(_) | AxisSelection::Runs(_) => (None, None),
            };
            let mut time = time.clone();
            time["first_row"] = json!(first_row);
            time["step"] = json!(step);
            told.push(("h5flight.time".to_owned(), time.to_string()));
        }
        if let Some(windows) = &self.windows {
            told.push(("h5flight.windows".to_owned(), windows.clone()));
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
        AxisSelection::Runs(runs) => Box::new(runs.ranges().flatten()),
    }
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
    fn time_takes_the_place_of_a_whole_axis_only() {
        let with = |text: &str, axis| with_item(&Selection::parse(text).unwrap(), axis, Item::Index(3), 3);
        assert_eq!(with("", 0).unwrap().to_string(), "3, :, :");
        assert_eq!(with("..., 1", 1).unwrap().to_string(), ":, 3, 1");
        for (text, axis) in [("0:5", 0), (":, 2", 1), ("points[[0,1,2]]", 0), ("", 3)] {
            assert_eq!(with(text, axis).unwrap_err().reason(), Reason::BadSelection, "{text}");
        }
    }
}
