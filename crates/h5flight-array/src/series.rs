//! Rows that have a time: the arithmetic of a [`Clock`] with a rate, and of [`Windows`] around events.
//!
//! All of it is pure. What never lives here: NWB's names, and where a file keeps these facts.

use std::ops::Range;

use crate::error::{Error, Reason, Result};
use crate::selection::Runs;

/// Rows are counted up to here: each number below it is exact in float64.
const ROW_MAX: i64 = 1 << 53;

/// When the rows of a series with a constant rate are: row i is at `start_s + i / hz`, computed in float64.
///
/// A division and a sum that are rounded never decrease as i grows, so that every question about an edge is answered by
/// bisection with the same two operations: what numpy says of `start + numpy.arange(n) / rate` is what is said here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// When row 0 is, in seconds; finite.
    pub start_s: f64,
    /// Rows a second; finite, above 0.
    pub hz: f64,
}

impl Clock {
    /// When `row` is, in seconds. Rows before the first have negative numbers.
    pub fn time_s(&self, row: i64) -> f64 {
        self.start_s + row as f64 / self.hz
    }

    /// The first row at or after `time_s`, counted on before row 0 and after the last.
    /// A time that is not a number is after all rows.
    pub fn first_at_or_after(&self, time_s: f64) -> i64 {
        let (mut low, mut high) = (-ROW_MAX, ROW_MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time_s(middle) >= time_s { high = middle } else { low = middle + 1 }
        }
        low
    }
}

/// Which windows are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// Those that are there as a whole.
    #[default]
    Drop,
    /// All; of one that reaches over an end, or a gap, the rows that there are.
    Clip,
}

/// The rows of one window; of an array the first may be negative, and the last behind its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub first: i64,
    /// Rows from there on that belong to it: fewer than the others have where time has a gap.
    pub rows: u64,
    /// Whether no gap is in it.
    pub is_even: bool,
}

/// Windows of one length around events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    windows: Vec<Window>,
    rows: u64,
}

impl Windows {
    /// Rows of a window from `start_s` to `stop_s` around its event, at a rate: `round((stop - start) * hz)`, whatever
    /// the event. No window is a row longer than another because its event lies between two samples.
    ///
    /// # Errors
    /// `bad_selection`: bounds that give no row, or too many to count.
    pub fn rows_at((start_s, stop_s): (f64, f64), hz: f64) -> Result<u64> {
        let rows = ((stop_s - start_s) * hz).round();
        if !(rows >= 1.0 && rows < ROW_MAX as f64) {
            let message = format!("a window from {start_s} to {stop_s} s has {rows} rows at {hz} Hz");
            return Err(Error::new(Reason::BadSelection, message));
        }
        Ok(rows as u64)
    }

    /// Windows that have `rows` rows where they are whole.
    pub fn new(windows: Vec<Window>, rows: u64) -> Self {
        Self { windows, rows }
    }

    /// Rows of a whole window.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// First row of a window; of an array it may be negative.
    pub fn first(&self, place: usize) -> i64 {
        self.windows[place].first
    }

    /// The rows of a window that an array of `total` rows has: empty where it has none.
    pub fn present(&self, place: usize, total: u64) -> Range<u64> {
        let within = |row: i64| u64::try_from(row).unwrap_or(0).min(total);
        let Window { first, rows, .. } = self.windows[place];
        within(first)..within(first.saturating_add_unsigned(rows))
    }

    /// The places of the windows that are read of an array of `total` rows, ascending.
    pub fn kept(&self, total: u64, edge: Edge) -> Vec<usize> {
        let is_whole = |place: &usize| {
            let present = self.present(*place, total);
            self.windows[*place].is_even && present.end - present.start == self.rows
        };
        (0..self.windows.len()).filter(|place| edge == Edge::Clip || is_whole(place)).collect()
    }

    /// The rows of these windows, one after the other.
    pub fn runs(&self, kept: &[usize], total: u64) -> Runs {
        Runs::new(kept.iter().map(|place| self.present(*place, total)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_row_is_the_one_that_a_column_of_times_has(
            start_s in -1e6..1e6_f64,
            hz in prop_oneof![Just(30.0), Just(30_000.0), Just(1.0 / 3.0), Just(29.97), 1e-3..1e5_f64],
            row in -5..300_i64,
            nudge in -1..=1_i8,
        ) {
            let clock = Clock { start_s, hz };
            let time_s = match nudge {
                -1 => clock.time_s(row).next_down(),
                1 => clock.time_s(row).next_up(),
                _ => clock.time_s(row),
            };
            let found = clock.first_at_or_after(time_s);
            prop_assert!(clock.time_s(found) >= time_s);
            prop_assert!(clock.time_s(found - 1) < time_s);
        }

        #[test]
        fn windows_are_whole_or_what_the_array_has(
            firsts in proptest::collection::vec(-30..130_i64, 0..20),
            rows in 1..25_u64,
        ) {
            let whole = |first: &i64| Window { first: *first, rows, is_even: true };
            let windows = Windows::new(firsts.iter().map(whole).collect(), rows);
            let total = 100;
            for edge in [Edge::Drop, Edge::Clip] {
                let kept = windows.kept(total, edge);
                let mut wanted = Vec::new();
                for (place, first) in firsts.iter().enumerate() {
                    let all: Vec<i64> = (*first..*first + rows as i64).collect();
                    let inside: Vec<u64> =
                        all.iter().filter(|row| (0..100).contains(*row)).map(|row| *row as u64).collect();
                    let keeps = edge == Edge::Clip || inside.len() == all.len();
                    prop_assert_eq!(kept.contains(&place), keeps);
                    if keeps {
                        wanted.extend(inside);
                    }
                }
                prop_assert_eq!(windows.runs(&kept, total).ranges().flatten().collect::<Vec<_>>(), wanted);
            }
        }
    }

    #[test]
    fn a_window_over_a_gap_is_whole_for_nobody() {
        let window = |rows, is_even| Window { first: 4, rows, is_even };
        let windows = Windows::new(vec![window(3, true), window(2, false), window(3, false)], 3);
        assert_eq!(windows.kept(10, Edge::Drop), [0]);
        assert_eq!(windows.runs(&windows.kept(10, Edge::Clip), 10).count(), 8);
    }

    #[test]
    fn bounds_that_mean_nothing_are_refused() {
        for bounds in [(0.0, 0.0), (1.0, 0.0), (0.0, f64::NAN), (0.0, f64::INFINITY)] {
            assert!(Windows::rows_at(bounds, 10.0).is_err(), "{bounds:?}");
        }
        assert_eq!(Windows::rows_at((-0.5, 1.0), 29.97).unwrap(), 45);
    }
}
