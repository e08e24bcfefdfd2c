//! What NWB keeps beside the values of a series: its clock, its channels, their factors.

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::expression::Expression;
use h5flight_array::series::Clock;
use h5flight_catalog::model::{DatasetPath, ResolvedVersion, VersionSelector};
use serde_json::{Map, Value};

use super::refuse;
use super::time::{Stamps, Time};
use crate::error::Result;
use crate::read::{NUMBERS_MAX, numbers};
use crate::service::Service;
use crate::tables::{self, TableRequest};

/// The last row that a float tells from its neighbours: 2^53.
const ROW_MAX: f64 = 9_007_199_254_740_992.0;

/// What lies beside a version in its group.
pub(super) struct Beside<'a> {
    pub(super) service: &'a Arc<Service>,
    pub(super) version: &'a Arc<ResolvedVersion>,
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

    /// When rows are, by a rate or by timestamps; `None` where nothing tells.
    ///
    /// # Errors
    /// `bad_selection` for as many timestamps as the array has not rows.
    pub(super) async fn time(&self, rows: u64) -> Result<Option<Time>> {
        if let Some(clock) = self.clock().await? {
            return Ok(Some(Time::Even(clock)));
        }
        let Some(stamps) = self.sibling("timestamps").await? else { return Ok(None) };
        Stamps::new(self.service, stamps, rows).map(|stamps| Some(Time::Stamped(stamps)))
    }

    async fn clock(&self) -> Result<Option<Clock>> {
        let Some(start) = self.sibling("starting_time").await? else { return Ok(None) };
        let Some(hz) = number(&start.attributes, "rate").filter(|hz| hz.is_finite() && *hz > 0.0) else {
            return Ok(None);
        };
        let found = numbers(self.service, start).await?;
        Ok(found.first().filter(|start_s| start_s.is_finite()).map(|start_s| Clock { start_s: *start_s, hz }))
    }

    /// The rows of a table that the channels are, and the table: `electrodes` or `rois`. What names no rows, such as -1
    /// for a channel that has none, is not one.
    async fn region(&self, shape: &[u64]) -> Result<Option<(Vec<u64>, Option<String>)>> {
        let Some(count) = shape.get(1).filter(|count| **count <= NUMBERS_MAX) else { return Ok(None) };
        for name in ["electrodes", "rois"] {
            let Some(region) = self.sibling(name).await? else { continue };
            let table = region.attributes.get("table").and_then(|table| table.get("ref")).and_then(Value::as_str);
            let table = table.map(|path| path.trim_matches('/').to_owned());
            let rows = numbers(self.service, region).await?;
            let is_row = |row: &f64| (0.0..=ROW_MAX).contains(row) && row.fract() == 0.0;
            if rows.len() as u64 == *count && rows.iter().all(is_row) {
                return Ok(Some((rows.into_iter().map(|row| row as u64).collect(), table)));
            }
        }
        Ok(None)
    }

    /// Ids along axis 1.
    pub(super) async fn ids(&self, shape: &[u64]) -> Result<Option<Vec<i64>>> {
        let Some(count) = shape.get(1).filter(|count| **count <= NUMBERS_MAX) else { return Ok(None) };
        let Some((rows, table)) = self.region(shape).await? else {
            return Ok((shape.len() == 2).then(|| (0..*count as i64).collect()));
        };
        let known = match table {
            Some(table) => self.at(format!("{table}/id")).await?,
            None => None,
        };
        let known = match known {
            Some(known) => numbers(self.service, known).await?,
            None => Vec::new(),
        };
        // Without a table the rows are all that is known of the channels.
        let id = |row: &u64| known.get(*row as usize).map_or(*row as i64, |id| *id as i64);
        Ok(Some(rows.iter().map(id).collect()))
    }

    /// Positions on axis 1 of the channels whose row of their table a filter is true for, ascending.
    ///
    /// # Errors
    /// `bad_selection` where the channels have no table; those of the filter.
    pub(super) async fn channels(&self, shape: &[u64], filter: &Expression) -> Result<Vec<i64>> {
        let Some((rows, Some(table))) = self.region(shape).await? else {
            return Err(refuse(format!("the channels of {} are no rows of a table", self.version.path)));
        };
        let path = DatasetPath { dataset: table, ..self.version.path.clone() };
        let version = VersionSelector::AsOf(self.version.created_at);
        let request = TableRequest { filter: Some(filter.clone()), ..TableRequest::all(path, version) };
        let matching = tables::matching(self.service, &request, NUMBERS_MAX as usize).await?;
        let is_asked = |row: &u64| matching.binary_search(row).is_ok();
        Ok((0..).zip(&rows).filter(|(_, row)| is_asked(row)).map(|(at, _)| at).collect())
    }

    /// Factors of the channels.
    pub(super) async fn factors(&self, shape: &[u64]) -> Result<Option<Vec<f64>>> {
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
pub(super) fn number(attributes: &Map<String, Value>, name: &str) -> Option<f64> {
    match attributes.get(name)? {
        Value::Array(items) if items.len() == 1 => items[0].as_f64(),
        other => other.as_f64(),
    }
}
