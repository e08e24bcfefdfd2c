//! Many small ranges become few runs. Pure: no file is touched.

use crate::plan::ByteRange;

/// When two ranges are read by one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoalesceOptions {
    /// The most bytes between two ranges that are read and thrown away to save a call.
    pub gap_bytes_max: u64,
    /// The most bytes of a run. A single larger range is a run of its own.
    pub run_bytes_max: u64,
}

impl Default for CoalesceOptions {
    /// Gaps of up to a page: a call takes about 0.7 us, in which the page cache delivers some 3 KB. Cold, the kernel's
    /// read-ahead (128 KiB) fetches wider gaps of itself. Runs of up to 8 MiB: larger ones are no faster, and a chunk
    /// can be decoded only when its run is there.
    fn default() -> Self {
        Self { gap_bytes_max: 4 << 10, run_bytes_max: 8 << 20 }
    }
}

/// Bytes to be read by one call, and whom they serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address of the first byte.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The ranges in it, by ascending address.
    pub parts: Vec<Part>,
}

/// Where one of the ranges lies in a [`Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its position among the ranges that were asked for.
    pub range: usize,
    /// Where it starts, counted from the start of the run.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Sorts ranges by address and merges neighbours. Ranges may touch, overlap and repeat; empty ones are in no run.
/// A range that would end beyond 2^64 ends there.
pub fn coalesce(ranges: &[ByteRange], options: CoalesceOptions) -> Vec<Run> {
    let mut order: Vec<usize> = (0..ranges.len()).filter(|at| ranges[*at].bytes > 0).collect();
    order.sort_unstable_by_key(|at| (ranges[*at].offset, *at));
    let mut runs: Vec<Run> = Vec::new();
    for range in order {
        let ByteRange { offset, bytes } = ranges[range];
        let bytes = bytes.min(u64::MAX - offset);
        match runs.last_mut() {
            Some(run) if joins(run, offset, bytes, options) => {
                let start = offset - run.offset;
                run.bytes = run.bytes.max(start + bytes);
                run.parts.push(Part { range, start, bytes });
            }
            _ => runs.push(Run { offset, bytes, parts: vec![Part { range, start: 0, bytes }] }),
        }
    }
    runs
}

/// Whether a range that starts no earlier than `run` is read with it.
fn joins(run: &Run, offset: u64, bytes: u64, options: CoalesceOptions) -> bool {
    let start = offset - run.offset;
    let end = start + bytes;
    end <= run.bytes || (start <= run.bytes.saturating_add(options.gap_bytes_max) && end <= options.run_bytes_max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_range_is_served_once_by_bounded_runs_that_could_not_be_fewer(
            ranges in prop::collection::vec((0u64..5000, 0u64..200), 0..60),
            gap_bytes_max in 0u64..100,
            run_bytes_max in 0u64..1000,
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(offset, bytes)| ByteRange { offset, bytes }).collect();
            let runs = coalesce(&ranges, CoalesceOptions { gap_bytes_max, run_bytes_max });
            let mut served = vec![0; ranges.len()];
            for run in &runs {
                let mut covered = 0;
                for part in &run.parts {
                    served[part.range] += 1;
                    let asked = ranges[part.range];
                    prop_assert_eq!((run.offset + part.start, part.bytes), (asked.offset, asked.bytes));
                    prop_assert!(part.start <= covered + gap_bytes_max, "a gap larger than allowed");
                    covered = covered.max(part.start + part.bytes);
                }
                prop_assert_eq!(run.parts[0].start, 0);
                prop_assert_eq!(covered, run.bytes, "a run ends with its last range");
                prop_assert!(run.bytes <= run_bytes_max || run.bytes == run.parts[0].bytes, "a run larger than allowed");
            }
            for (range, times) in ranges.iter().zip(served) {
                prop_assert_eq!(times, i32::from(range.bytes > 0));
            }
            for pair in runs.windows(2) {
                let next = pair[1].parts[0];
                let (gap_start, merged) = (pair[0].offset + pair[0].bytes, pair[1].offset + next.bytes - pair[0].offset);
                prop_assert!(pair[1].offset >= pair[0].offset);
                prop_assert!(pair[1].offset > gap_start + gap_bytes_max || merged > run_bytes_max, "two runs for one");
            }
        }
    }

    #[test]
    fn ranges_at_the_end_of_all_addresses_do_not_overflow() {
        let far = ByteRange { offset: u64::MAX - 10, bytes: 100 };
        let options = CoalesceOptions { gap_bytes_max: u64::MAX, run_bytes_max: u64::MAX };
        let runs = coalesce(&[far, ByteRange { offset: 0, bytes: 1 }, far], options);
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].bytes, runs[0].parts.len()), (u64::MAX, 3));
    }
}
