//! Ranges of one axis after each other: what windows around events are.

use std::ops::Range;

/// Ranges of indices in the order of the result; they may overlap and go back. None of them is empty.
///
/// It takes 16 bytes a range, however long they are, where a list would take 8 bytes an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// First index of each.
    starts: Vec<u64>,
    /// The place in the result behind each.
    ends: Vec<u64>,
}

impl Runs {
    /// These ranges; empty ones are left out.
    pub fn new(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let (mut runs, mut end) = (Self::default(), 0u64);
        for range in ranges {
            if range.is_empty() {
                continue;
            }
            end = end.saturating_add(range.end - range.start);
            runs.starts.push(range.start);
            runs.ends.push(end);
        }
        runs
    }

    /// Indices of all ranges.
    pub fn count(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The ranges.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let firsts = std::iter::once(0).chain(self.ends.iter().copied());
        self.starts.iter().zip(firsts.zip(&self.ends)).map(|(start, (first, end))| *start..*start + (end - first))
    }

    /// The index at a place of the result, and how many follow it in its range, itself counted.
    pub(crate) fn from(&self, place: u64) -> (u64, u64) {
        let at = self.ends.partition_point(|end| *end <= place);
        let first = if at == 0 { 0 } else { self.ends[at - 1] };
        (self.starts[at] + (place - first), self.ends[at] - place)
    }

    /// Smallest and largest index; `None` of no ranges.
    pub(crate) fn bounds(&self) -> Option<(u64, u64)> {
        Some((*self.starts.iter().min()?, self.ranges().map(|range| range.end - 1).max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lead_into_ranges_that_overlap_and_go_back() {
        let runs = Runs::new([5..8, 3..3, 6..7, 0..2]);
        assert_eq!(runs.ranges().collect::<Vec<_>>(), [5..8, 6..7, 0..2]);
        assert_eq!((runs.count(), runs.bounds()), (6, Some((0, 7))));
        let seen: Vec<_> = (0..6).map(|place| runs.from(place)).collect();
        assert_eq!(seen, [(5, 3), (6, 2), (7, 1), (6, 1), (0, 2), (1, 1)]);
        assert_eq!((Runs::new([]).count(), Runs::new([]).bounds()), (0, None));
    }
}
