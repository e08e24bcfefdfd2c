//! Opening the one file: what it is before libhdf5 sees it, and with which settings libhdf5 does.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5f::{H5F_ACC_RDONLY, H5Fopen};
use hdf5_sys::h5p::{H5P_CLS_FILE_ACCESS, H5Pcreate, H5Pset_cache, H5Pset_file_locking};
use hdf5_sys::h5pl::H5PLset_loading_state;
use rustix::fs::FlockOperation;

use crate::filter;
use crate::handle::{Handle, checked, library_error};

/// The first bytes of a superblock.
const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
/// The smallest file that can hold a superblock.
const SUPERBLOCK_BYTES_MIN: u64 = 44;
/// The chunk cache of each dataset: one chunk of the largest size that is served, so that none is decoded twice.
const CHUNK_CACHE_BYTES: usize = 64 << 20;
/// Slots of the chunk cache: libhdf5's own default.
const CHUNK_CACHE_SLOTS: usize = 8191;

/// The file, open in libhdf5.
pub(crate) struct OpenFile {
    /// For calls that need a file.
    pub(crate) handle: Handle,
    /// The path under which libhdf5 knows it.
    pub(crate) name: String,
    /// Where the superblock is: the bytes before it are the user block, and libhdf5's addresses count from here.
    pub(crate) base: u64,
    /// Version of the superblock.
    pub(crate) superblock: u32,
}

/// Opens the file of a descriptor, again, by way of `/proc`: libhdf5 has no call that takes a descriptor. The sandbox
/// allows exactly this file.
pub(crate) fn open(file: BorrowedFd<'_>) -> Result<OpenFile> {
    let found = find_superblock(file)?;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let access = access_settings()?;
    let path = CString::new(name.clone()).expect("a number contains no NUL");
    // SAFETY: the path is NUL-terminated and the property list is alive.
    let id = unsafe { H5Fopen(path.as_ptr(), H5F_ACC_RDONLY, access.id()) };
    if id < 0 {
        return Err(refused(library_error("libhdf5 cannot open the file")));
    }
    Ok(OpenFile { handle: Handle::new(id, "open")?, name, base: found.base, superblock: found.version })
}

/// The lock that HDF5 takes when it writes. It is only looked at: holding one would keep a rig from opening its file.
pub(crate) fn refuse_if_locked_by_a_writer(file: BorrowedFd<'_>) -> Result<()> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            // Failing to unlock changes nothing: the lock ends with the descriptor.
            let _ = rustix::fs::flock(file, FlockOperation::NonBlockingUnlock);
            Ok(())
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
            Reason::OpenForWriting,
            "another process has the file open for writing; retry when it is closed",
        )),
        // Network file systems without locks: nothing can be said.
        Err(_) => Ok(()),
    }
}

struct Superblock {
    base: u64,
    version: u32,
}

/// Looks where libhdf5 will: at 0, 512, 1024, 2048, ...
fn find_superblock(file: BorrowedFd<'_>) -> Result<Superblock> {
    let io = |error: rustix::io::Errno| Error::new(Reason::Io, "the file cannot be read").with_source(error);
    let file_bytes = u64::try_from(rustix::fs::fstat(file).map_err(io)?.st_size).unwrap_or(0);
    if file_bytes == 0 {
        return Err(Error::new(Reason::NotHdf5, "the file is empty"));
    }
    let mut base = 0u64;
    while base < file_bytes {
        let mut head = [0u8; 12];
        let filled = read_at(file, &mut head, base).map_err(io)?;
        if filled >= SIGNATURE.len() && head.starts_with(&SIGNATURE) {
            if file_bytes - base < SUPERBLOCK_BYTES_MIN {
                return Err(Error::new(
                    Reason::Truncated,
                    format!("the file ends within its superblock, after {file_bytes} bytes"),
                ));
            }
            refuse_if_marked_as_written(&head)?;
            return Ok(Superblock { base, version: u32::from(head[8]) });
        }
        base = if base == 0 { 512 } else { base.saturating_mul(2) };
    }
    Err(Error::new(Reason::NotHdf5, format!("no HDF5 signature in the {file_bytes} bytes of the file")))
}

/// Superblock version 3 says whether a writer has the file open, or died while it had.
fn refuse_if_marked_as_written(head: &[u8; 12]) -> Result<()> {
    let (version, flags) = (head[8], head[11]);
    if version != 3 || flags & 0b101 == 0 {
        return Ok(());
    }
    let by = if flags & 0b100 != 0 { "SWMR writing" } else { "writing" };
    let hint = "if no program has it open, the last one did not close it: run `h5clear -s FILE`";
    Err(Error::new(Reason::OpenForWriting, format!("the file is marked as open for {by}; {hint}")))
}

fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// With which settings libhdf5 opens, and makes, a file.
pub(crate) fn access_settings() -> Result<Handle> {
    filter::register()?;
    let mut no_plugins = 0;
    // SAFETY: the flag is read during the call.
    checked(unsafe { H5PLset_loading_state(&raw mut no_plugins) }, "plugins cannot be turned off")?;
    // SAFETY: the class is one of libhdf5's own, which is initialised.
    let access = Handle::new(unsafe { H5Pcreate(*H5P_CLS_FILE_ACCESS) }, "property list")?;
    // SAFETY: the list is alive. Locking is off: `refuse_if_locked_by_a_writer` has looked.
    checked(unsafe { H5Pset_file_locking(access.id(), 0, 1) }, "locking cannot be turned off")?;
    // SAFETY: the list is alive. The preemption weight 1 evicts chunks that were read whole first.
    let status = unsafe { H5Pset_cache(access.id(), 0, CHUNK_CACHE_SLOTS, CHUNK_CACHE_BYTES, 1.0) };
    checked(status, "the chunk cache cannot be set")?;
    Ok(access)
}

/// What a failure to open means. The signature was there, so it is never `not_hdf5`; and what the system refused is
/// not the file's fault, which `malformed_file` would say for good.
fn refused(error: Error) -> Error {
    let chain = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    let (reason, message) = if chain.contains("H5FD_sb_load") {
        let message = "the file is one part of several (family, split or multi driver), which is not served";
        (Reason::UnsupportedLayout, message)
    } else if chain.contains("real path") || chain.contains("unable to stat file") {
        (Reason::FileChanged, "the file was moved or deleted while it was being opened")
    } else if chain.contains("unable to open file: name") {
        (Reason::Io, "the worker cannot open the file again by way of /proc/self/fd")
    } else {
        return error;
    };
    Error { reason, message: message.into(), source: error.source }
}
