//! Positioned reads of stored bytes: the only module of this crate that touches a file.
//!
//! A file is opened beneath a configured root without following a link ([`open_beneath`]), wrapped with the fingerprint
//! it had at that moment ([`StoredFile`]), and read by ranges that are sorted and merged into few runs ([`coalesce`]).
//! No cursor is moved, so threads share a [`StoredFile`] freely. What never happens here: decoding, writing, and
//! asking libhdf5 for anything.
//!
//! Invariants: no range is read outside the size the file had when it was opened; every byte returned was read; an
//! error of the operating system never becomes a short or zero-filled result.

mod coalesce;
#[cfg(test)]
mod faults;
mod open;

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use bytes::{Bytes, BytesMut};
#[cfg(not(test))]
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
#[cfg(not(test))]
use rustix::io::pread;

use crate::error::{Error, Reason, Result};

pub use crate::plan::ByteRange;
pub use coalesce::{CoalesceOptions, Part, Run, coalesce};
pub use open::{open_beneath, open_root};

/// The largest single range: four times the largest block that is decoded, so that a larger one is a mistake.
pub const RANGE_BYTES_MAX: u64 = 1 << 30;
/// Interrupted reads of one run that are tried again. Reads of regular files are hardly ever interrupted at all.
const INTERRUPTS_MAX: u64 = 128;

/// What identifies the bytes of a file: it is another file, or was written to, when any of these differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of last modification, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// How much was asked of the operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// System calls.
    pub preads: u64,
    /// Bytes they returned, gaps between ranges included.
    pub bytes: u64,
}

/// The result of [`StoredFile::read_ranges`].
#[derive(Clone, Debug)]
pub struct RangesRead {
    /// The bytes of each range, in the order asked for. Ranges of one run share its buffer, without a copy: whoever
    /// keeps one of them for long keeps the whole run in memory, and should copy it instead.
    pub ranges: Vec<Bytes>,
    /// What it took.
    pub counts: ReadCounts,
}

/// A regular file that is read by offset.
#[derive(Debug)]
pub struct StoredFile {
    file: File,
    fingerprint: Fingerprint,
}

impl StoredFile {
    /// Takes an open file and notes its fingerprint.
    ///
    /// # Errors
    /// `not_a_regular_file`, `io`.
    pub fn new(file: File) -> Result<Self> {
        let fingerprint = fingerprint_of(&file)?;
        Ok(Self { file, fingerprint })
    }

    /// The fingerprint at the time of [`StoredFile::new`]. Reads stay within its size.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The fingerprint now. Asked before and after a read, it tells whether the bytes may be torn.
    ///
    /// # Errors
    /// `io`.
    pub fn fingerprint_now(&self) -> Result<Fingerprint> {
        fingerprint_of(&self.file)
    }

    /// Refuses a file that was written to since `expected` was taken.
    ///
    /// # Errors
    /// `file_changed`, `io`.
    pub fn check_unchanged(&self, expected: Fingerprint) -> Result<()> {
        if self.fingerprint_now()? == expected {
            return Ok(());
        }
        Err(Error::new(Reason::FileChanged, "the file has changed since it was indexed"))
    }

    /// The file itself, to hand to a worker.
    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `truncated` where the file ends before them, `io`.
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<ReadCounts> {
        self.check_range(ByteRange { offset, bytes: out.len() as u64 })?;
        complete(offset, out.len(), |done| self.pread(&mut out[done..], offset + done as u64))
    }

    /// Reads ranges in as few calls as [`CoalesceOptions::default`] says.
    ///
    /// # Errors
    /// `truncated` where the file ends before one of them, `chunk_too_large` where one is beyond [`RANGE_BYTES_MAX`],
    /// `io`. Nothing is allocated before all ranges are known to lie inside the file.
    pub fn read_ranges(&self, ranges: &[ByteRange]) -> Result<RangesRead> {
        self.read_ranges_with(ranges, CoalesceOptions::default())
    }

    /// Reads ranges, merged as `options` says. The result holds at most twice the bytes of the ranges: a run that is
    /// mostly gaps, as when a column is cut out of a matrix, is copied out of and freed. Until then it comes on top.
    ///
    /// # Errors
    /// As [`StoredFile::read_ranges`].
    pub fn read_ranges_with(&self, ranges: &[ByteRange], options: CoalesceOptions) -> Result<RangesRead> {
        ranges.iter().try_for_each(|range| self.check_range(*range))?;
        let mut read = RangesRead { ranges: vec![Bytes::new(); ranges.len()], counts: ReadCounts::default() };
        for run in coalesce(ranges, options) {
            let (buffer, counts) = self.read_run(&run)?;
            read.counts.preads += counts.preads;
            read.counts.bytes += counts.bytes;
            // The run was read whole, so that its numbers fit into memory.
            let part = |part: &Part| buffer.slice(part.start as usize..(part.start + part.bytes) as usize);
            let wanted_bytes: u64 = run.parts.iter().map(|part| part.bytes).sum();
            if wanted_bytes >= run.bytes / 2 {
                run.parts.iter().for_each(|at| read.ranges[at.range] = part(at));
            } else {
                let mut packed = BytesMut::with_capacity(wanted_bytes as usize);
                for at in &run.parts {
                    packed.extend_from_slice(&part(at));
                    read.ranges[at.range] = packed.split().freeze();
                }
            }
        }
        Ok(read)
    }

    fn read_run(&self, run: &Run) -> Result<(Bytes, ReadCounts)> {
        let too_large = |_| Error::new(Reason::ChunkTooLarge, format!("run of {} bytes to read", run.bytes));
        let bytes = usize::try_from(run.bytes).map_err(too_large)?;
        // Read straight into fresh memory: zeroing it first would cost as much as the read from the page cache.
        let mut buffer = Vec::with_capacity(bytes);
        let counts = complete(run.offset, bytes, |done| self.pread_on(&mut buffer, run.offset + done as u64))?;
        // An allocator may give more than asked for, and then the read does too.
        buffer.truncate(bytes);
        Ok((Bytes::from(buffer), counts))
    }

    #[cfg(not(test))]
    fn pread(&self, out: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
        pread(&self.file, out, offset)
    }

    /// Appends to what is in the buffer, as far as it has room.
    #[cfg(not(test))]
    fn pread_on(&self, buffer: &mut Vec<u8>, offset: u64) -> rustix::io::Result<usize> {
        pread(&self.file, spare_capacity(buffer), offset)
    }

    fn check_range(&self, range: ByteRange) -> Result<()> {
        let ByteRange { offset, bytes } = range;
        if bytes > RANGE_BYTES_MAX {
            let message = format!("{bytes} bytes to read at once, the most is {RANGE_BYTES_MAX}");
            return Err(Error::new(Reason::ChunkTooLarge, message));
        }
        if offset.checked_add(bytes).is_none_or(|end| end > self.fingerprint.bytes) {
            let message = format!("{bytes} bytes at {offset} of a file of {} bytes", self.fingerprint.bytes);
            return Err(Error::new(Reason::Truncated, message));
        }
        Ok(())
    }
}

fn fingerprint_of(file: &File) -> Result<Fingerprint> {
    let unreadable = |e| Error::new(Reason::Io, "the file's size and time cannot be read").with_source(e);
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Error::new(Reason::NotARegularFile, "not a regular file"));
    }
    let modified_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    Ok(Fingerprint { device: metadata.dev(), inode: metadata.ino(), bytes: metadata.size(), modified_ns })
}

/// Calls `read`, which reads on after that many bytes, until `bytes` are there.
fn complete(offset: u64, bytes: usize, mut read: impl FnMut(usize) -> rustix::io::Result<usize>) -> Result<ReadCounts> {
    let (mut done, mut preads, mut interrupts) = (0, 0, 0);
    while done < bytes {
        preads += 1;
        match read(done) {
            Ok(0) => {
                let message = format!("the file ends at {} within {bytes} bytes at {offset}", offset + done as u64);
                return Err(Error::new(Reason::Truncated, message));
            }
            Ok(count) => done += count,
            Err(Errno::INTR) if interrupts < INTERRUPTS_MAX => interrupts += 1,
            Err(errno) => {
                let message = format!("{bytes} bytes at {offset} cannot be read");
                return Err(Error::new(Reason::Io, message).with_source(std::io::Error::from(errno)));
            }
        }
    }
    Ok(ReadCounts { preads, bytes: done as u64 })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn stored(content: &[u8]) -> StoredFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        StoredFile::new(file).unwrap()
    }

    fn range(offset: u64, bytes: u64) -> ByteRange {
        ByteRange { offset, bytes }
    }

    #[test]
    fn ranges_come_in_the_order_asked_for_from_few_reads() {
        let content: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        let file = stored(&content);
        let asked = [range(90_000, 10_000), range(10, 20), range(0, 10), range(50, 0), range(12, 5), range(90_000, 1)];
        let options = CoalesceOptions { gap_bytes_max: 100, run_bytes_max: 1 << 20 };
        let read = file.read_ranges_with(&asked, options).unwrap();
        for (range, bytes) in asked.iter().zip(&read.ranges) {
            assert_eq!(bytes[..], content[range.offset as usize..][..range.bytes as usize], "{range:?}");
        }
        assert_eq!(read.counts, ReadCounts { preads: 2, bytes: 10_030 });
        let mut out = [0; 7];
        assert_eq!(file.read_exact_at(99_993, &mut out).unwrap(), ReadCounts { preads: 1, bytes: 7 });
        assert_eq!(out, content[99_993..]);
        assert_eq!(file.read_ranges(&[]).unwrap().counts, ReadCounts::default());
    }

    #[test]
    fn ranges_that_are_a_small_part_of_their_run_do_not_keep_it() {
        let content: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        let column: Vec<_> = (0..1000).map(|row| range(row * 100, 8)).collect();
        let read = stored(&content).read_ranges(&column).unwrap();
        assert_eq!(read.counts, ReadCounts { preads: 1, bytes: 99_908 });
        for (range, bytes) in column.iter().zip(&read.ranges) {
            assert_eq!(bytes[..], content[range.offset as usize..][..8]);
        }
        // Packed: the next range lies right behind.
        assert!(read.ranges.windows(2).all(|pair| pair[0].as_ptr_range().end == pair[1].as_ptr()));
    }

    #[test]
    fn ranges_outside_the_file_are_refused_before_anything_is_read() {
        let file = stored(&[7; 640]);
        for (bad, reason) in [
            (range(0, 641), Reason::Truncated),
            (range(641, 0), Reason::Truncated),
            (range(u64::MAX, 1), Reason::Truncated),
            (range(1, u64::MAX), Reason::ChunkTooLarge),
            (range(0, RANGE_BYTES_MAX + 1), Reason::ChunkTooLarge),
        ] {
            assert_eq!(file.read_ranges(&[range(0, 1), bad]).unwrap_err().reason, reason, "{bad:?}");
        }
        assert_eq!(file.read_exact_at(639, &mut [0; 2]).unwrap_err().reason, Reason::Truncated);
    }

    #[test]
    fn a_file_cut_short_after_it_was_opened_is_truncated_and_changed() {
        let file = stored(&[7; 640]);
        let before = file.fingerprint();
        file.check_unchanged(before).unwrap();
        file.as_file().set_len(500).unwrap();
        assert_eq!(file.read_ranges(&[range(400, 240)]).unwrap_err().reason, Reason::Truncated);
        assert_eq!(file.read_exact_at(400, &mut [0; 240]).unwrap_err().reason, Reason::Truncated);
        assert_eq!(file.check_unchanged(before).unwrap_err().reason, Reason::FileChanged);
        assert_eq!(file.fingerprint_now().unwrap().bytes, 500);
    }

    #[test]
    fn a_directory_is_not_a_stored_file() {
        let directory = tempfile::tempdir().unwrap();
        let opened = File::open(directory.path()).unwrap();
        assert_eq!(StoredFile::new(opened).unwrap_err().reason, Reason::NotARegularFile);
    }

    #[test]
    fn interrupted_and_short_reads_are_continued_and_errors_are_not() {
        // Every n-th call goes wrong in some way; whatever happens, the result is whole or an error.
        for n in 1..50u64 {
            let mut calls = 0;
            let mut seen = Vec::new();
            let counts = complete(1000, 64, |done| {
                calls += 1;
                if calls % (n + 1) == n {
                    return Err(Errno::INTR);
                }
                seen.push(done);
                Ok(1.max((64 - done) / 3))
            });
            assert_eq!(counts.unwrap(), ReadCounts { preads: calls, bytes: 64 });
            assert!(seen.is_sorted());
            let mut calls = 0;
            let failed = complete(1000, 64, |_| {
                calls += 1;
                if calls == n { Err(Errno::IO) } else { Ok(1) }
            });
            assert_eq!(failed.unwrap_err().reason, Reason::Io);
        }
        assert_eq!(complete(0, 1, |_| Err(Errno::INTR)).unwrap_err().reason, Reason::Io, "not for ever");
        assert_eq!(complete(0, 9, |done| Ok(usize::from(done < 5))).unwrap_err().reason, Reason::Truncated);
    }
}
