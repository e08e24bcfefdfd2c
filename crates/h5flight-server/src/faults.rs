//! Places where tests let things go wrong: built in by the feature `failpoints` only, which releases do not have.
//!
//! `FAILPOINTS=file::read=delay(50)` in the environment makes a server's disk slow; `return(kill)` ends the process as
//! `kill -9` does, `return(disk_full)` answers what a full disk answers. The crate `fail` has the rest of the grammar:
//! chances, counts, sequences.

use crate::error::Result;

/// Passes the place `name`, where a test may have put a fault.
///
/// # Errors
/// What the fault says; nothing in a build without the feature.
#[cfg(feature = "failpoints")]
pub fn pass(name: &str) -> Result<()> {
    use h5flight_array::Reason;

    use crate::error::Error;

    fail::fail_point!(name, |fault| match fault.as_deref() {
        // No destructor runs and nothing is flushed.
        Some("kill") => std::process::abort(),
        Some("disk_full") => Err(Error::new(Reason::DiskFull, format!("a fault at {name}: the disk is full"))),
        _ => Err(Error::new(Reason::Internal, format!("a fault at {name}"))),
    });
    Ok(())
}

/// Passes a place: nothing happens.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_: &str) -> Result<()> {
    Ok(())
}
