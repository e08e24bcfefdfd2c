//! Tests only: reads of a file that go wrong at the n-th call. Stands in for the two calls of `pread`, so that the
//! shipped code has neither a branch nor a trait for it.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};

use super::StoredFile;

thread_local! {
    static PLANNED: RefCell<Option<Planned>> = const { RefCell::new(None) };
}

/// What happens instead of a read, or before it.
#[derive(Clone, Copy)]
enum Fault {
    Fails(Errno),
    /// One byte comes, however many were asked for.
    OneByte,
    /// Somebody else does this to the file first.
    Before(fn(&File)),
}

struct Planned {
    fault: Fault,
    /// Calls until it happens.
    calls: u64,
    /// Calls until it happens again, 0 for never.
    again: u64,
}

/// The fault of this call, where it is its turn.
fn next() -> Option<Fault> {
    PLANNED.with_borrow_mut(|planned| {
        let plan = planned.as_mut()?;
        plan.calls = plan.calls.checked_sub(1)?;
        if plan.calls > 0 {
            return None;
        }
        plan.calls = plan.again;
        Some(plan.fault)
    })
}

impl StoredFile {
    pub(super) fn pread(&self, out: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
        match next() {
            Some(Fault::Fails(errno)) => return Err(errno),
            Some(Fault::OneByte) => return pread(&self.file, &mut out[..1], offset),
            Some(Fault::Before(change)) => change(&self.file),
            None => {}
        }
        pread(&self.file, out, offset)
    }

    pub(super) fn pread_on(&self, buffer: &mut Vec<u8>, offset: u64) -> rustix::io::Result<usize> {
        match next() {
            Some(Fault::Fails(errno)) => return Err(errno),
            Some(Fault::OneByte) => {
                let mut byte = [0];
                let count = pread(&self.file, &mut byte, offset)?;
                buffer.extend_from_slice(&byte[..count]);
                return Ok(count);
            }
            Some(Fault::Before(change)) => change(&self.file),
            None => {}
        }
        pread(&self.file, spare_capacity(buffer), offset)
    }
}

mod tests {
    use std::time::SystemTime;

    use super::super::{ByteRange, CoalesceOptions, RangesRead};
    use super::*;
    use crate::error::{Reason, Result};

    const RANGES: u64 = 60;
    const RANGE_BYTES: u64 = 50;

    fn content() -> Vec<u8> {
        (0..RANGES * 100).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn stored() -> StoredFile {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content(), 0).unwrap();
        // Long ago, so that a write shows however coarse the file system's clock is.
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        StoredFile::new(file).unwrap()
    }

    /// Reads 60 ranges by 60 runs, then one range by itself, with a fault at call `calls` and after every `again`.
    fn read(file: &StoredFile, fault: Fault, calls: u64, again: u64) -> Result<(RangesRead, Vec<u8>)> {
        PLANNED.set(Some(Planned { fault, calls, again }));
        let ranges: Vec<_> = (0..RANGES).map(|at| ByteRange { offset: at * 100, bytes: RANGE_BYTES }).collect();
        let read = file.read_ranges_with(&ranges, CoalesceOptions { gap_bytes_max: 0, run_bytes_max: 100 });
        let mut one = vec![0; 99];
        let outcome = read.and_then(|read| file.read_exact_at(1, &mut one).map(|_| (read, one)));
        PLANNED.set(None);
        outcome
    }

    /// Whole and right.
    fn check((read, one): &(RangesRead, Vec<u8>)) {
        let content = content();
        assert_eq!(read.ranges.len() as u64, RANGES);
        for (at, bytes) in read.ranges.iter().enumerate() {
            assert_eq!(bytes[..], content[at * 100..at * 100 + RANGE_BYTES as usize], "range {at}");
        }
        assert_eq!(one[..], content[1..100]);
    }

    #[test]
    fn a_read_that_fails_at_any_call_is_an_error_and_never_a_short_result() {
        let file = stored();
        for calls in 1..=RANGES + 1 {
            for errno in [Errno::IO, Errno::STALE, Errno::BADF, Errno::AGAIN] {
                let error = read(&file, Fault::Fails(errno), calls, 0).unwrap_err();
                assert_eq!(error.reason, Reason::Io, "{errno:?} at call {calls}");
            }
        }
        check(&read(&file, Fault::Fails(Errno::IO), RANGES + 2, 0).unwrap());
    }

    #[test]
    fn interrupted_and_short_reads_are_continued_wherever_they_happen() {
        let file = stored();
        for calls in 1..=RANGES + 1 {
            for again in [0, 2, 3, 7] {
                check(&read(&file, Fault::Fails(Errno::INTR), calls, again).unwrap());
                check(&read(&file, Fault::OneByte, calls, again).unwrap());
            }
        }
        let bytewise = read(&file, Fault::OneByte, 1, 1).unwrap();
        check(&bytewise);
        assert_eq!(bytewise.0.counts.preads, RANGES * RANGE_BYTES);
        assert_eq!(read(&file, Fault::Fails(Errno::INTR), 1, 1).unwrap_err().reason, Reason::Io, "not for ever");
    }

    #[test]
    fn a_file_that_shrinks_between_two_reads_is_truncated_or_was_read_before_and_has_changed() {
        for calls in 1..=RANGES + 1 {
            let file = stored();
            match read(&file, Fault::Before(|file| file.set_len(1025).unwrap()), calls, 0) {
                Err(error) => assert_eq!(error.reason, Reason::Truncated, "at call {calls}"),
                // Everything behind the new end was read already.
                Ok(read) => {
                    check(&read);
                    assert!(calls > RANGES);
                }
            }
            assert_eq!(file.check_unchanged(file.fingerprint()).unwrap_err().reason, Reason::FileChanged);
        }
    }

    #[test]
    fn a_file_that_is_written_to_between_two_reads_has_changed() {
        for calls in [1, 2, 30, RANGES + 1] {
            let file = stored();
            file.check_unchanged(file.fingerprint()).unwrap();
            drop(read(&file, Fault::Before(|file| drop(file.write_all_at(b"other", 700))), calls, 0));
            assert_eq!(file.check_unchanged(file.fingerprint()).unwrap_err().reason, Reason::FileChanged);
        }
    }
}
