//! Single elements: by their coordinates, or by a flag for each element.
//!
//! Both resolve to the same thing: positions of elements in C order, eight bytes each whatever the rank.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Reason, Result};
use crate::meta::{RANK_MAX, product};

/// Points of one selection, and flags of one mask: a resolved selection of so many takes 32 MiB, and planning it a few
/// times that.
pub const POINTS_MAX: usize = 1 << 22;

/// Elements named one by one, by all their coordinates. The result has one axis: the points, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points {
    rank: usize,
    /// Point after point.
    coordinates: Vec<i64>,
}

impl Points {
    /// From `rank` coordinates for each point, point after point; negative ones count from the end of their axis. No
    /// points fit an array of any rank.
    ///
    /// # Errors
    /// `bad_selection` where the coordinates are no whole number of points, or more than [`POINTS_MAX`].
    pub fn new(rank: usize, coordinates: Vec<i64>) -> Result<Self> {
        let count = coordinates.len();
        if rank > RANK_MAX {
            return refuse(format!("points of {rank} coordinates, an array has at most {RANK_MAX} axes"));
        }
        if count > 0 && (rank == 0 || !count.is_multiple_of(rank)) {
            return refuse(format!("{count} coordinates are no whole number of points of rank {rank}"));
        }
        if count / rank.max(1) > POINTS_MAX {
            return refuse(format!("{} points, the most in one selection is {POINTS_MAX}", count / rank));
        }
        Ok(Self { rank: if count == 0 { 0 } else { rank }, coordinates })
    }

    /// How many points.
    pub fn len(&self) -> usize {
        self.coordinates.len() / self.rank.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.coordinates.is_empty()
    }

    /// The coordinates of each point.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, i64> {
        self.coordinates.chunks_exact(self.rank.max(1))
    }

    pub(super) fn resolve(&self, shape: &[u64]) -> Result<Arc<[u64]>> {
        if self.is_empty() {
            return Ok(Arc::default());
        }
        if self.rank != shape.len() {
            return refuse(format!("points of {} coordinates for an array of rank {}", self.rank, shape.len()));
        }
        elements_of(shape)?;
        let position = |(number, point): (usize, &[i64])| {
            point.iter().zip(shape).enumerate().try_fold(0, |position, (axis, (index, size))| {
                let found = super::inside(*index, *size).ok_or_else(|| {
                    let message =
                        format!("point {number}: index {index} is out of bounds for axis {axis} of size {size}");
                    Error::new(Reason::OutOfBounds, message)
                })?;
                Ok(position * size + found)
            })
        };
        self.iter().enumerate().map(position).collect()
    }
}

impl<'a> IntoIterator for &'a Points {
    type Item = &'a [i64];
    type IntoIter = std::slice::ChunksExact<'a, i64>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_points(f, self.iter().map(<[i64]>::to_vec))
    }
}

/// The elements at which a flag is true, in C order. A mask may be a window of one that is too long for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementMask {
    shape: Vec<u64>,
    flags: Flags,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Flags {
    /// Of the elements from `first` on: eight flags to a byte, least significant bit first; the bits behind the last
    /// flag are 0.
    Bits { first: u64, bits: Vec<u8> },
    /// Positions of those that are true, ascending.
    Set(Arc<[u64]>),
}

impl ElementMask {
    /// `length` flags, eight to a byte of `bits` from the least significant bit on, for the elements of an array of
    /// this shape in C order, from element `first` on. Elements without a flag are not selected.
    ///
    /// # Errors
    /// `bad_selection` where the numbers do not fit each other, or with more than [`POINTS_MAX`] flags.
    pub fn new(shape: Vec<u64>, first: u64, length: u64, mut bits: Vec<u8>) -> Result<Self> {
        let elements = masked_elements(&shape)?;
        if length > POINTS_MAX as u64 {
            return refuse(format!("a mask of {length} flags, the most in one selection is {POINTS_MAX}"));
        }
        if length.div_ceil(8) != bits.len() as u64 {
            return refuse(format!("a mask of {length} flags has {} bytes", bits.len()));
        }
        if first.checked_add(length).is_none_or(|end| end > elements) {
            return refuse(format!("a mask of {length} flags from element {first} on for shape {shape:?}"));
        }
        if let (Some(last), used @ 1..) = (bits.last_mut(), length % 8) {
            *last &= (1 << used) - 1;
        }
        Ok(Self { shape, flags: Flags::Bits { first, bits } })
    }

    /// The same where few flags are true: how many elements, from `first` on, lie before each and behind the one before.
    ///
    /// # Errors
    /// `bad_selection` where an element lies outside the shape, or with more than [`POINTS_MAX`] elements.
    pub fn sparse(shape: Vec<u64>, first: u64, skips: &[u64]) -> Result<Self> {
        let elements = masked_elements(&shape)?;
        if skips.len() > POINTS_MAX {
            return refuse(format!("a mask of {} elements, the most in one selection is {POINTS_MAX}", skips.len()));
        }
        let mut next = first;
        let position = |(number, skip): (usize, &u64)| match next.checked_add(*skip).filter(|at| *at < elements) {
            Some(position) => {
                next = position + 1;
                Ok(position)
            }
            None => refuse(format!("element {number} of a mask lies {skip} behind {next}, outside of shape {shape:?}")),
        };
        let positions = skips.iter().enumerate().map(position).collect::<Result<_>>()?;
        Ok(Self { shape, flags: Flags::Set(positions) })
    }

    pub(super) fn resolve(&self, shape: &[u64]) -> Result<Arc<[u64]>> {
        if self.shape != shape {
            return refuse(format!("a mask of shape {:?} for an array of shape {shape:?}", self.shape));
        }
        Ok(match &self.flags {
            Flags::Bits { first, bits } => set_bits(*first, bits).collect(),
            Flags::Set(positions) => Arc::clone(positions),
        })
    }
}

/// Positions of the bits that are 1.
fn set_bits(first: u64, bits: &[u8]) -> impl Iterator<Item = u64> {
    bits.iter().enumerate().flat_map(move |(byte, bits)| {
        let (first, mut left) = (first + byte as u64 * 8, *bits);
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| u64::from(left.trailing_zeros()))?;
            left &= left - 1;
            Some(first + bit)
        })
    })
}

/// Written as the points that it selects.
impl fmt::Display for ElementMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coordinates = |position| {
            let mut coordinates = Vec::new();
            coordinates_of(position, &self.shape, &mut coordinates);
            coordinates
        };
        match &self.flags {
            Flags::Bits { first, bits } => write_points(f, set_bits(*first, bits).map(coordinates)),
            Flags::Set(positions) => write_points(f, positions.iter().map(|position| coordinates(*position))),
        }
    }
}

/// `points[[0,1],[5,2]]`
fn write_points(f: &mut fmt::Formatter<'_>, points: impl Iterator<Item = Vec<impl fmt::Display>>) -> fmt::Result {
    f.write_str("points[")?;
    for (number, point) in points.enumerate() {
        f.write_str(if number == 0 { "" } else { "," })?;
        super::write_list(f, point.iter())?;
    }
    f.write_str("]")
}

/// Coordinates of the element at a position in C order.
pub(crate) fn coordinates_of(position: u64, shape: &[u64], out: &mut Vec<u64>) {
    out.clear();
    out.resize(shape.len(), 0);
    let mut left = position;
    for (coordinate, size) in out.iter_mut().zip(shape).rev() {
        *coordinate = left % size;
        left /= size;
    }
}

/// Elements of an array that a mask can be of.
fn masked_elements(shape: &[u64]) -> Result<u64> {
    match shape.len() {
        1..=RANK_MAX => elements_of(shape),
        rank => refuse(format!("a mask of rank {rank}, expected 1 to {RANK_MAX} axes")),
    }
}

/// Elements of an array whose positions have 64 bits, whichever of its axes are looked at.
fn elements_of(shape: &[u64]) -> Result<u64> {
    let longest: Vec<u64> = shape.iter().map(|size| (*size).max(1)).collect();
    match product(&longest) {
        Some(elements) => Ok(if shape.contains(&0) { 0 } else { elements }),
        None => refuse(format!("single elements of an array of shape {shape:?}, which has more than 2^64 of them")),
    }
}

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::new(Reason::BadSelection, message))
}
