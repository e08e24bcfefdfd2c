//! Which stored ranges of one file lie in each other. Pure.
//!
//! No writer puts two things into the same bytes, but a tool may let two arrays share what is equal: the same range twice
//! is no overlap, a range that begins or ends within another one is.

use crate::plan::ByteRange;

/// Bytes of a file, and whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Which bytes.
    pub range: ByteRange,
    /// Which array, in the caller's count.
    pub array: usize,
    /// Number of the chunk; `None` is the whole array.
    pub chunk: Option<u64>,
}

impl Owned {
    fn end(&self) -> u64 {
        self.range.offset.saturating_add(self.range.bytes)
    }
}

/// Pairs that overlap, the first `most` of them: each range with the one before it that reaches the farthest. Sorts
/// `ranges` by address.
pub fn overlaps(ranges: &mut [Owned], most: usize) -> Vec<(Owned, Owned)> {
    ranges.sort_unstable_by_key(|owned| (owned.range.offset, owned.range.bytes));
    let mut found = Vec::new();
    let mut farthest: Option<Owned> = None;
    for owned in ranges.iter().copied().filter(|owned| owned.range.bytes > 0) {
        let Some(before) = farthest else {
            farthest = Some(owned);
            continue;
        };
        if owned.range.offset < before.end() && owned.range != before.range {
            if found.len() == most {
                break;
            }
            found.push((before, owned));
        }
        if owned.end() > before.end() {
            farthest = Some(owned);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(offset: u64, bytes: u64, array: usize) -> Owned {
        Owned { range: ByteRange { offset, bytes }, array, chunk: None }
    }

    #[test]
    fn shared_ranges_are_legal_and_crossing_ones_are_not() {
        let arrays = |ranges: &[(u64, u64)]| {
            let mut all: Vec<_> = ranges.iter().enumerate().map(|(at, (o, b))| owned(*o, *b, at)).collect();
            overlaps(&mut all, usize::MAX).iter().map(|(a, b)| (a.array, b.array)).collect::<Vec<_>>()
        };
        assert_eq!(arrays(&[(0, 10), (10, 10), (20, 0), (5, 0)]), []);
        assert_eq!(arrays(&[(0, 10), (30, 5), (0, 10)]), []);
        assert_eq!(arrays(&[(0, 10), (9, 10)]), [(0, 1)]);
        assert_eq!(arrays(&[(0, 100), (10, 5), (20, 5), (99, 2), (100, 1)]), [(0, 1), (0, 2), (0, 3), (3, 4)]);
        assert_eq!(arrays(&[(u64::MAX - 1, 5), (3, u64::MAX)]), [(1, 0)]);
    }

    proptest! {
        #[test]
        fn an_overlap_is_found_wherever_comparing_all_pairs_finds_one(
            ranges in prop::collection::vec((0u64..60, 0u64..12), 0..12),
        ) {
            let mut all: Vec<_> = ranges.iter().enumerate().map(|(at, (o, b))| owned(*o, *b, at)).collect();
            let crossing = |a: &Owned, b: &Owned| {
                a.range != b.range && a.range.bytes > 0 && b.range.bytes > 0
                    && a.range.offset < b.end() && b.range.offset < a.end()
            };
            let any = all.iter().enumerate().any(|(at, a)| all[at + 1..].iter().any(|b| crossing(a, b)));
            let found = overlaps(&mut all, usize::MAX);
            prop_assert_eq!(any, !found.is_empty());
            for (a, b) in &found {
                prop_assert!(crossing(a, b), "{:?} {:?}", a, b);
            }
        }
    }
}
