//! When a file is due: pure, no clock and no server.
//!
//! A file is registered once it has stayed as it is for a while. One that is still written to, or that the server has no
//! time for, comes again after a pause that doubles; one that is refused for good only when it changes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use h5flight_proto::v1::ChangedFile;

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Reasons that pass by themselves, whether the file changes or not.
const PASSING: [&str; 7] =
    ["open_for_writing", "file_changed", "busy", "conflict", "disk_full", "io", "catalog_unavailable"];

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It is registered.
    Registered,
    /// It was refused with this stable reason.
    Refused(&'a str),
    /// It is not there any more.
    Gone,
}

/// Whether a report is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It is news.
    Report,
    /// It waits, for a reason that was not told yet.
    Waits,
    /// It was told before.
    Nothing,
}

/// Files that the catalogue does not know as they are.
#[derive(Debug)]
pub struct Pending {
    settle: Duration,
    files: HashMap<String, File>,
}

/// What tells that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i64,
}

#[derive(Debug)]
struct File {
    mark: Mark,
    standing: Standing,
    /// The reason for which it waits, once that was told.
    told: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// As it is since then.
    Settling(Instant),
    /// To be tried again then; the pause was so long.
    Waiting(Instant, Duration),
    /// Nothing is to be done until it changes.
    Done,
}

impl Pending {
    /// Files settle for this long.
    pub fn new(settle: Duration) -> Self {
        Self { settle, files: HashMap::new() }
    }

    /// Takes a list of all that the catalogue does not know, and gives the paths that are due, in its order. What is not
    /// listed any more is forgotten.
    pub fn look(&mut self, listed: &[ChangedFile], now: Instant) -> Vec<String> {
        let there: HashSet<&str> = listed.iter().map(|file| file.path.as_str()).collect();
        self.files.retain(|path, _| there.contains(path.as_str()));
        let mut due = Vec::new();
        for ChangedFile { path, device, inode, bytes, modified_ns } in listed {
            let mark = Mark { device: *device, inode: *inode, bytes: *bytes, modified_ns: *modified_ns };
            let standing = Standing::Settling(now);
            let file = self.files.entry(path.clone()).or_insert_with(|| File { mark, standing, told: String::new() });
            if file.mark != mark {
                (file.mark, file.standing) = (mark, standing);
            }
            let is_due = match file.standing {
                Standing::Settling(since) => now.saturating_duration_since(since) >= self.settle,
                Standing::Waiting(until, _) => now >= until,
                Standing::Done => false,
            };
            if is_due {
                due.push(path.clone());
            }
        }
        due
    }

    /// Takes what became of an attempt, and says whether people are told.
    pub fn tried(&mut self, path: &str, outcome: Outcome<'_>, now: Instant) -> Tell {
        let Some(file) = self.files.get_mut(path) else { return Tell::Report };
        let reason = match outcome {
            Outcome::Gone => {
                self.files.remove(path);
                return Tell::Nothing;
            }
            Outcome::Registered => {
                (file.standing, file.told) = (Standing::Done, String::new());
                return Tell::Report;
            }
            Outcome::Refused(reason) if !PASSING.contains(&reason) => {
                (file.standing, file.told) = (Standing::Done, String::new());
                return Tell::Report;
            }
            Outcome::Refused(reason) => reason,
        };
        let pause = match file.standing {
            Standing::Waiting(_, before) => (2 * before).min(PAUSE_MAX),
            Standing::Settling(_) | Standing::Done => self.settle.clamp(Duration::from_millis(100), PAUSE_MAX),
        };
        file.standing = Standing::Waiting(now + pause, pause);
        if file.told == reason {
            return Tell::Nothing;
        }
        file.told = reason.to_owned();
        Tell::Waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64, modified_ns: i64) -> ChangedFile {
        ChangedFile { path: path.into(), device: 1, inode: 2, bytes, modified_ns }
    }

    /// Seconds from a beginning.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Instant {
            self.0 + Duration::from_secs(seconds)
        }
    }

    fn started() -> (Pending, Clock) {
        (Pending::new(Duration::from_secs(5)), Clock(Instant::now()))
    }

    #[test]
    fn a_file_is_due_when_it_has_stayed_as_it_is() {
        let (mut pending, clock) = started();
        assert!(pending.look(&[file("a", 1, 1)], clock.at(0)).is_empty());
        assert!(pending.look(&[file("a", 1, 1)], clock.at(4)).is_empty());
        // It grows, then its time changes: it settles anew.
        assert!(pending.look(&[file("a", 2, 1)], clock.at(5)).is_empty());
        assert!(pending.look(&[file("a", 2, 2)], clock.at(9)).is_empty());
        assert!(pending.look(&[file("a", 2, 2), file("b", 1, 1)], clock.at(13)).is_empty());
        assert_eq!(pending.look(&[file("a", 2, 2), file("b", 1, 1)], clock.at(14)), ["a"]);
        assert_eq!(pending.look(&[file("a", 2, 2), file("b", 1, 1)], clock.at(18)), ["a", "b"]);
        assert_eq!(pending.tried("a", Outcome::Registered, clock.at(18)), Tell::Report);
        assert_eq!(pending.look(&[file("a", 2, 2), file("b", 1, 1)], clock.at(90)), ["b"]);
        // Away and back again is new.
        assert_eq!(pending.look(&[file("b", 1, 1)], clock.at(91)), ["b"]);
        assert_eq!(pending.look(&[file("a", 2, 2)], clock.at(92)), Vec::<String>::new());
        assert_eq!(pending.look(&[file("a", 2, 2)], clock.at(97)), ["a"]);
    }

    #[test]
    fn a_file_that_is_refused_for_good_is_told_once_and_tried_again_when_it_changes() {
        let (mut pending, clock) = started();
        pending.look(&[file("a", 1, 1)], clock.at(0));
        assert_eq!(pending.look(&[file("a", 1, 1)], clock.at(5)), ["a"]);
        assert_eq!(pending.tried("a", Outcome::Refused("malformed_file"), clock.at(5)), Tell::Report);
        assert!(pending.look(&[file("a", 1, 1)], clock.at(500)).is_empty());
        assert!(pending.look(&[file("a", 1, 9)], clock.at(501)).is_empty());
        assert_eq!(pending.look(&[file("a", 1, 9)], clock.at(506)), ["a"]);
        assert_eq!(pending.tried("a", Outcome::Refused("malformed_file"), clock.at(506)), Tell::Report);
    }

    #[test]
    fn a_file_that_is_written_to_waits_ever_longer_and_says_so_once() {
        let (mut pending, clock) = started();
        let listed = [file("a", 1, 1)];
        pending.look(&listed, clock.at(0));
        let mut now = 5;
        let mut tries = Vec::new();
        while now < 400 {
            if !pending.look(&listed, clock.at(now)).is_empty() {
                let tell = pending.tried("a", Outcome::Refused("open_for_writing"), clock.at(now));
                assert_eq!(tell, if tries.is_empty() { Tell::Waits } else { Tell::Nothing });
                tries.push(now);
            }
            now += 1;
        }
        assert_eq!(tries, [5, 10, 20, 40, 80, 140, 200, 260, 320, 380]);
        assert_eq!(pending.tried("a", Outcome::Refused("busy"), clock.at(now)), Tell::Waits);
        assert_eq!(pending.tried("a", Outcome::Gone, clock.at(now)), Tell::Nothing);
        assert!(pending.look(&listed, clock.at(now)).is_empty(), "it is new again");
    }
}
