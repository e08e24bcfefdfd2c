//! Points: a list of single elements is an index list over an array of one axis.
//!
//! That axis has the array's elements block by block. The *place* of an element on it is the number of its block times
//! the elements of a whole block, plus its position within the block; in an array whose blocks are byte ranges of the
//! file it is the position in C order. So a block's elements are neighbours, and everything that is said of rows, rows
//! of blocks and lists of rows holds for points, places and blocks. Extents follow one another on the axis.

use std::sync::Arc;

use super::extent::{Blocks, ExtentPlan, Grid, Rows, Wanted};
use super::mapping::VirtualSource;
use super::{ExtentView, PlanOptions};
use crate::error::{Error, Reason, Result};
use crate::selection::points::coordinates_of;

/// The points themselves, for their coordinates.
#[derive(Debug)]
pub(crate) struct PointIndex {
    /// Positions in C order of the version.
    pub(crate) positions: Arc<[u64]>,
    pub(crate) shape: Vec<u64>,
}

impl PointIndex {
    /// The coordinate of a point along an axis.
    pub(crate) fn coordinate(&self, point: u64, axis: usize) -> u64 {
        let inner: u64 = self.shape[axis + 1..].iter().product();
        self.positions[point as usize] / inner % self.shape[axis]
    }
}

/// Plans the extents that hold points, and gives the place of each point. Extents have places for rows.
///
/// # Errors
/// Those of [`ExtentPlan::new`]; `result_too_large` for an array of more than 2^64 places.
pub(crate) fn touched_extents(
    extents: &[ExtentView<'_>],
    index: &PointIndex,
    options: &PlanOptions,
    prepared: Option<&VirtualSource>,
) -> Result<(Vec<ExtentPlan>, Arc<[u64]>)> {
    let row_elements: u64 = index.shape.iter().skip(1).product();
    let extent_of = |position: &u64| {
        let row = position / row_elements;
        extents.partition_point(|extent| extent.first_row <= row) - 1
    };
    let mut touched = vec![false; extents.len()];
    index.positions.iter().for_each(|position| touched[extent_of(position)] = true);
    let wanted = Wanted { picks: &[], rows: Rows::Points, options, prepared };
    let (mut planned, mut planned_at, mut places) = (Vec::<ExtentPlan>::new(), vec![0; extents.len()], 0);
    for number in (0..extents.len()).filter(|number| touched[*number]) {
        let extent = ExtentPlan::new(number, &extents[number], &wanted, planned.last())?;
        let rows = places_of(&extent).and_then(|rows| Some((rows, rows.checked_add(places)?)));
        let Some((rows, end)) = rows else {
            let shape = extent.meta.shape();
            let message = format!("points of an array of shape {shape:?} whose chunks have more than 2^64 elements");
            return Err(Error::new(Reason::ResultTooLarge, message));
        };
        planned_at[number] = planned.len();
        planned.push(ExtentPlan { first_row: places, array_row: 0, rows, ..extent });
        places = end;
    }
    let mut scratch = Scratch::default();
    let place = |position: &u64| {
        let number = extent_of(position);
        let (view, extent) = (&extents[number], &planned[planned_at[number]]);
        let own = position - (view.first_row * row_elements) + view.array_row * row_elements;
        extent.first_row
            + match &extent.blocks {
                Blocks::Raw(_) => own,
                Blocks::Grid(grid) => grid_place(grid, own, extent.meta.shape(), &mut scratch),
            }
    };
    let places = index.positions.iter().map(place).collect();
    Ok((planned, places))
}

/// Places of an array: of whole blocks, also where they are cut at its edge.
fn places_of(extent: &ExtentPlan) -> Option<u64> {
    match &extent.blocks {
        Blocks::Raw(_) => extent.meta.elements().ok(),
        Blocks::Grid(grid) => grid.blocks()?.checked_mul(grid.row_block),
    }
}

/// Buffers that the places of many points are found with.
#[derive(Default)]
struct Scratch {
    index: Vec<u64>,
    coordinates: Vec<u64>,
    block_shape: Vec<u64>,
}

/// The place of the element at a position of its own array.
fn grid_place(grid: &Grid, position: u64, shape: &[u64], scratch: &mut Scratch) -> u64 {
    let Scratch { index, coordinates, block_shape } = scratch;
    coordinates_of(position, shape, index);
    coordinates.clear();
    coordinates.extend(index.iter().zip(&grid.block_shape).map(|(index, block)| index / block));
    grid.block_shape_at(coordinates, shape, block_shape);
    let within = index.iter().zip(&grid.block_shape).map(|(index, block)| index % block);
    let within = within.zip(&*block_shape).fold(0, |place, (index, size)| place * size + index);
    grid.number(coordinates) * grid.row_block + within
}
