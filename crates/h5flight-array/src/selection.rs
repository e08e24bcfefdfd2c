//! Which part of an array is asked for, in numpy's words.
//!
//! What lives here: the [`Selection`] as a client wrote it, its text form ([`Selection::parse`] and `Display`), and the
//! [`Resolved`] selection, which exists only when it was checked against a shape. Nothing here knows of chunks, element
//! types or files.
//!
//! A selection is either one item for each axis, or single elements ([`Points`], [`ElementMask`]).
//!
//! Several lists select the outer product of their axes ("orthogonal" indexing: `[0,1], [2,3]` is a 2 x 2 result), as
//! h5py, zarr's `oindex` and `numpy.ix_` do; numpy's pairing of lists is not offered.
//!
//! ```
//! use h5flight_array::selection::Selection;
//!
//! let selection = Selection::parse("0:100, 5, ::-2")?;
//! assert_eq!(selection.resolve(&[1000, 8, 7])?.shape(), [100, 4]);
//! assert_eq!(selection.to_string(), "0:100, 5, ::-2");
//! # Ok::<(), h5flight_array::Error>(())
//! ```

mod parse;
pub(crate) mod points;
mod runs;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Reason, Result};
use crate::meta::{RANK_MAX, product};
use crate::plan::axis::Pick;

pub use self::points::{ElementMask, POINTS_MAX, Points};
pub use self::runs::Runs;

/// List entries up to which a resolved selection keeps its text: it travels in the schema of every result.
const TEXT_ENTRIES_MAX: usize = 1024;

/// What is asked of one axis, before the axis' length is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// One index, negative ones count from the end; drops the axis.
    Index(i64),
    /// `start:stop:step` with numpy's clipping.
    Slice {
        /// First index; the near end when absent.
        start: Option<i64>,
        /// First index that is not part of it; the far end when absent.
        stop: Option<i64>,
        /// Distance from one index to the next, not 0; 1 when absent.
        step: Option<i64>,
    },
    /// These indices in this order, duplicates allowed.
    List(Vec<i64>),
    /// The indices at which it is true; as long as the axis.
    Mask(Vec<bool>),
    /// Ranges after each other, within the axis. No text is read as it.
    Runs(Arc<Runs>),
    /// All axes for which there is no other item.
    Ellipsis,
}

impl Item {
    /// The whole axis.
    pub const ALL: Self = Self::Slice { start: None, stop: None, step: None };
}

/// Part of an array of any shape. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    part: Part,
    fields: Vec<String>,
}

/// Which elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Items by axis; missing ones are whole axes.
    Axes(Vec<Item>),
    /// These elements, in this order.
    Points(Points),
    /// The elements at which it is true, in C order.
    Mask(ElementMask),
}

impl Default for Part {
    fn default() -> Self {
        Self::Axes(Vec::new())
    }
}

impl Selection {
    /// From its parts: items by axis (missing ones are whole axes), and members of a compound (none = all of them).
    /// An empty mask is the empty list.
    ///
    /// # Errors
    /// `bad_selection`: a step of 0, two ellipses, more items than an array can have axes, a field named twice.
    pub fn new(items: Vec<Item>, fields: Vec<String>) -> Result<Self> {
        Self::of(Part::Axes(items), fields)
    }

    /// The same for any part.
    ///
    /// # Errors
    /// As [`Selection::new`].
    pub fn of(mut part: Part, fields: Vec<String>) -> Result<Self> {
        if let Part::Axes(items) = &mut part {
            check_items(items)?;
        }
        let mut sorted: Vec<&String> = fields.iter().collect();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                let message = format!("field {:?} is selected twice", pair[0]);
                Err(Error::new(Reason::BadSelection, message))
            }
            None => Ok(Self { part, fields }),
        }
    }

    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Reads the text form: what numpy takes between the brackets, `0:100, 5, ::2`, `..., [1,5,7]`, `-1`,
    /// `[True,False]`; single elements as `points[[0,1],[5,2]]`; members of a compound as quoted names, `"t", 0:10`. The
    /// empty text and `()` are everything.
    ///
    /// # Errors
    /// `bad_selection`, naming the position (in characters, from 1) and what was expected there.
    pub fn parse(text: &str) -> Result<Self> {
        parse::parse(text)
    }

    /// Which elements.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// The items by axis; none where single elements are selected.
    pub fn items(&self) -> &[Item] {
        match &self.part {
            Part::Axes(items) => items,
            Part::Points(_) | Part::Mask(_) => &[],
        }
    }

    /// Selected members of a compound; none means all.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Checks the selection against a shape. Linear in the length of its lists.
    ///
    /// # Errors
    /// `bad_selection` where it does not fit the rank or a mask the length, `out_of_bounds` naming index, axis, size.
    pub fn resolve(&self, shape: &[u64]) -> Result<Resolved> {
        let (picked, entries) = match &self.part {
            Part::Axes(items) => (Picked::Axes(axes(items, shape)?), items.iter().map(Item::entries).sum()),
            Part::Points(points) => elements(points.resolve(shape)?, shape),
            Part::Mask(mask) => elements(mask.resolve(shape)?, shape),
        };
        let text = (entries <= TEXT_ENTRIES_MAX).then(|| self.to_string().into());
        Ok(Resolved { picked, fields: self.fields.clone(), source_shape: shape.to_vec(), text })
    }
}

fn check_items(items: &mut [Item]) -> Result<()> {
    let refuse = |message: String| Err(Error::new(Reason::BadSelection, message));
    for (position, item) in items.iter_mut().enumerate() {
        match item {
            Item::Slice { step: Some(0), .. } => return refuse(format!("item {position} is a slice with step 0")),
            Item::Mask(mask) if mask.is_empty() => *item = Item::List(Vec::new()),
            Item::Index(_) | Item::Slice { .. } | Item::List(_) | Item::Mask(_) | Item::Runs(_) | Item::Ellipsis => {}
        }
    }
    let ellipses = items.iter().filter(|item| **item == Item::Ellipsis).count();
    if ellipses > 1 {
        return refuse(format!("{ellipses} ellipses ('...'), the most is one"));
    }
    match items.len() - ellipses {
        0..=RANK_MAX => Ok(()),
        given => refuse(format!("{given} indices, an array has at most {RANK_MAX} axes")),
    }
}

fn axes(items: &[Item], shape: &[u64]) -> Result<Vec<AxisSelection>> {
    let given = items.iter().filter(|item| **item != Item::Ellipsis).count();
    let Some(whole) = shape.len().checked_sub(given) else {
        let message = format!("{given} indices for an array of rank {}", shape.len());
        return Err(Error::new(Reason::BadSelection, message));
    };
    let mut axes = Vec::with_capacity(shape.len());
    for item in items {
        let axis = axes.len();
        if *item == Item::Ellipsis {
            axes.extend(shape[axis..axis + whole].iter().map(|size| AxisSelection::all(*size)));
        } else {
            axes.push(AxisSelection::resolve(item, axis, shape[axis])?);
        }
    }
    axes.extend(shape[axes.len()..].iter().map(|size| AxisSelection::all(*size)));
    Ok(axes)
}

/// Single elements, and how many entries their text has.
fn elements(positions: Arc<[u64]>, shape: &[u64]) -> (Picked, usize) {
    let entries = positions.len().saturating_mul(shape.len());
    (Picked::Elements(positions), entries)
}

impl Item {
    fn entries(&self) -> usize {
        match self {
            Self::Index(_) | Self::Slice { .. } | Self::Ellipsis => 1,
            Self::List(list) => list.len(),
            Self::Mask(mask) => mask.len(),
            // They have no text that could be read again.
            Self::Runs(_) => TEXT_ENTRIES_MAX + 1,
        }
    }
}

/// The canonical text: fields first, items separated by ", ". [`Selection::parse`] of it is the selection again.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for field in &self.fields {
            write!(f, "{separator}\"{}\"", field.replace('\\', "\\\\").replace('"', "\\\""))?;
            separator = ", ";
        }
        match &self.part {
            Part::Axes(items) => items.iter().try_for_each(|item| {
                write!(f, "{separator}{item}")?;
                separator = ", ";
                Ok(())
            }),
            Part::Points(points) => write!(f, "{separator}{points}"),
            Part::Mask(mask) => write!(f, "{separator}{mask}"),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |f: &mut fmt::Formatter<'_>, number: &Option<i64>| match number {
            Some(number) => write!(f, "{number}"),
            None => Ok(()),
        };
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Slice { start, stop, step } => {
                optional(f, start)?;
                f.write_str(":")?;
                optional(f, stop)?;
                match step {
                    Some(step) => write!(f, ":{step}"),
                    None => Ok(()),
                }
            }
            Self::List(list) => write_list(f, list.iter()),
            Self::Mask(mask) => write_list(f, mask.iter().map(|selected| if *selected { "True" } else { "False" })),
            Self::Runs(runs) => write_list(f, runs.ranges().map(|range| format!("{}:{}", range.start, range.end))),
            Self::Ellipsis => f.write_str("..."),
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, entries: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    f.write_str("[")?;
    for (position, entry) in entries.enumerate() {
        write!(f, "{}{entry}", if position == 0 { "" } else { "," })?;
    }
    f.write_str("]")
}

/// What is selected of one axis; every index lies inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AxisSelection {
    /// One index; the axis is not part of the result.
    Index(u64),
    /// `count` indices from `start` on, `step` apart; `0, 1, 0` when empty, step 1 when there is only one.
    Range {
        /// First index.
        start: u64,
        /// Distance to the next one, not 0.
        step: i64,
        /// How many.
        count: u64,
    },
    /// Indices in the order of the result. Lists that are ranges (`[3,4,5]`) are [`AxisSelection::Range`].
    List(Arc<[u64]>),
    /// Ranges in the order of the result.
    Runs(Arc<Runs>),
}

impl AxisSelection {
    /// The whole of an axis.
    pub fn all(size: u64) -> Self {
        Self::Range { start: 0, step: 1, count: size }
    }

    /// Indices selected, 1 for an [`AxisSelection::Index`].
    pub fn count(&self) -> u64 {
        match self {
            Self::Index(_) => 1,
            Self::Range { count, .. } => *count,
            Self::List(list) => list.len() as u64,
            Self::Runs(runs) => runs.count(),
        }
    }

    fn resolve(item: &Item, axis: usize, size: u64) -> Result<Self> {
        match item {
            Item::Index(index) => Ok(Self::Index(inside_axis(*index, axis, size)?)),
            Item::Slice { start, stop, step } => Ok(slice(*start, *stop, step.unwrap_or(1), size)),
            Item::List(list) => {
                let indices = list.iter().map(|index| inside_axis(*index, axis, size)).collect::<Result<Vec<_>>>()?;
                Ok(Self::from_list(indices))
            }
            Item::Mask(mask) if mask.len() as u64 != size => {
                let message = format!("a mask of {} values for axis {axis} of size {size}", mask.len());
                Err(Error::new(Reason::BadSelection, message))
            }
            Item::Mask(mask) => {
                let selected = mask.iter().enumerate().filter(|(_, selected)| **selected);
                Ok(Self::from_list(selected.map(|(index, _)| index as u64).collect()))
            }
            Item::Runs(runs) => match runs.bounds() {
                None => Ok(Self::all(0)),
                Some((_, high)) if high >= size => {
                    let message = format!("a range up to {high} is out of bounds for axis {axis} of size {size}");
                    Err(Error::new(Reason::OutOfBounds, message))
                }
                Some(_) => Ok(Self::Runs(Arc::clone(runs))),
            },
            Item::Ellipsis => Ok(Self::all(size)),
        }
    }

    /// A range where the list is one: ranges are planned without looking at every entry.
    pub(crate) fn from_list(list: Vec<u64>) -> Self {
        let count = list.len() as u64;
        let step = match list.as_slice() {
            [] => return Self::all(0),
            [_] => Some(1),
            [first, second, ..] => {
                i64::try_from(i128::from(*second) - i128::from(*first)).ok().filter(|step| *step != 0)
            }
        };
        match step {
            Some(step) if list.windows(2).all(|pair| pair[0].checked_add_signed(step) == Some(pair[1])) => {
                Self::Range { start: list[0], step, count }
            }
            _ => Self::List(list.into()),
        }
    }
}

/// The index from the front of an axis of this size, where it lies inside.
fn inside(index: i64, size: u64) -> Option<u64> {
    let found = if index < 0 { size.checked_sub(index.unsigned_abs()) } else { Some(index.unsigned_abs()) };
    found.filter(|found| *found < size)
}

fn inside_axis(index: i64, axis: usize, size: u64) -> Result<u64> {
    inside(index, size).ok_or_else(|| {
        Error::new(Reason::OutOfBounds, format!("index {index} is out of bounds for axis {axis} of size {size}"))
    })
}

/// CPython's PySlice_AdjustIndices, in 128 bits: no bound of a 64-bit axis overflows there.
fn slice(start: Option<i64>, stop: Option<i64>, step: i64, size: u64) -> AxisSelection {
    let (size, step_wide) = (i128::from(size), i128::from(step));
    // With a negative step, -1 is the place before the first index.
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let clip = |bound: i64| {
        let bound = i128::from(bound);
        (if bound < 0 { bound + size } else { bound }).clamp(low, high.max(low))
    };
    let (near, far) = if step > 0 { (low, high) } else { (high, low) };
    let (start, stop) = (start.map_or(near, clip), stop.map_or(far, clip));
    let distance = if step > 0 { stop - start } else { start - stop };
    if distance <= 0 {
        return AxisSelection::all(0);
    }
    let count = (distance - 1) / step_wide.abs() + 1;
    let (start, count) = (start as u64, count as u64);
    AxisSelection::Range { start, step: if count == 1 { 1 } else { step }, count }
}

/// Which elements, every one of them inside the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picked {
    /// By axis of the array.
    Axes(Vec<AxisSelection>),
    /// Positions of single elements in C order of the whole array, in the order of the result.
    Elements(Arc<[u64]>),
}

/// A selection that was checked against a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    picked: Picked,
    fields: Vec<String>,
    source_shape: Vec<u64>,
    text: Option<Arc<str>>,
}

impl Resolved {
    /// A selection that was made otherwise than from what a client wrote.
    ///
    /// # Errors
    /// `out_of_bounds` where it does not lie inside the shape.
    pub(crate) fn of_picked(picked: Picked, shape: &[u64]) -> Result<Self> {
        let axis_inside =
            |(axis, size): (&AxisSelection, &u64)| Pick::new(axis).bounds().is_none_or(|(_, high)| high < *size);
        let inside = match &picked {
            Picked::Axes(axes) => axes.len() == shape.len() && axes.iter().zip(shape).all(axis_inside),
            Picked::Elements(positions) => {
                let elements = product(shape).unwrap_or(u64::MAX);
                positions.iter().all(|position| *position < elements)
            }
        };
        if !inside {
            return Err(Error::new(Reason::OutOfBounds, format!("a selection that leaves the shape {shape:?}")));
        }
        Ok(Self { picked, fields: Vec::new(), source_shape: shape.to_vec(), text: None })
    }

    /// Which elements.
    pub fn picked(&self) -> &Picked {
        &self.picked
    }

    /// What is selected, by axis of the array; nothing where single elements are.
    pub fn axes(&self) -> &[AxisSelection] {
        match &self.picked {
            Picked::Axes(axes) => axes,
            Picked::Elements(_) => &[],
        }
    }

    /// Selected members of a compound; none means all.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// The shape it was checked against.
    pub fn source_shape(&self) -> &[u64] {
        &self.source_shape
    }

    /// The canonical text; `None` where lists make it too long to be passed around.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Shape of the result: axes selected by an index are dropped, single elements are one axis.
    pub fn shape(&self) -> Vec<u64> {
        match &self.picked {
            Picked::Axes(axes) => {
                let kept = axes.iter().filter(|axis| !matches!(axis, AxisSelection::Index(_)));
                kept.map(AxisSelection::count).collect()
            }
            Picked::Elements(positions) => vec![positions.len() as u64],
        }
    }
}
