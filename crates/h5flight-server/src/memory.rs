//! Memory for reads under way: one budget, given out in units, waited for with a bound.
//!
//! Who needs memory reserves it before it allocates; what turns out to be larger than anybody could know ([`Growth`]:
//! values of no fixed size) reserves the rest before it arrives. Permits are given back when the bytes are let go.

use std::sync::Arc;
use std::time::Duration;

use h5flight_array::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::service::Service;

/// Granularity of the memory budget: one permit of [`Service::read_memory`], in bytes.
pub const MEMORY_UNIT_BYTES: u64 = 4096;

/// Memory that all reads under way may take together, in bytes.
pub(crate) fn read_memory_bytes(service: &Service) -> u64 {
    u64::from(service.read_memory_units) * MEMORY_UNIT_BYTES
}

/// Memory that all puts under way may take together, in bytes: an eighth of all.
pub(crate) fn put_memory_bytes(service: &Service) -> u64 {
    (service.config.memory_bytes / 8).max(MEMORY_UNIT_BYTES)
}

/// Units of that for `bytes`, at most all there are.
pub(crate) fn put_units(service: &Service, bytes: u64) -> u32 {
    let units = bytes.min(put_memory_bytes(service)) / MEMORY_UNIT_BYTES;
    u32::try_from(units).unwrap_or(u32::MAX).max(1)
}

/// Waits for memory.
///
/// # Errors
/// `busy` where there is none for too long.
pub(crate) async fn reserve(service: &Service, memory: &Arc<Semaphore>, units: u32) -> Result<OwnedSemaphorePermit> {
    let waiting = Arc::clone(memory).acquire_many_owned(units);
    let timeout = Duration::from_millis(service.config.admission_timeout_ms);
    match tokio::time::timeout(timeout, waiting).await {
        Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
        Err(_) => {
            let message = format!("no memory for another call within {} ms; try again", timeout.as_millis());
            Err(Error::new(Reason::Busy, message))
        }
    }
}

/// Units of the memory budget for `bytes`, at most all there are: a read that needs more runs alone.
pub(crate) fn units(service: &Service, bytes: u64) -> u32 {
    let units = bytes.div_ceil(MEMORY_UNIT_BYTES).max(1);
    u32::try_from(units).unwrap_or(u32::MAX).min(service.read_memory_units)
}

/// Memory of a group of blocks whose size shows only when they come.
pub struct Growth {
    service: Arc<Service>,
    /// What is left of the reservation.
    left_bytes: u64,
    taken: Option<OwnedSemaphorePermit>,
}

impl Growth {
    /// For a group that has `reserved_bytes` reserved.
    pub(crate) fn new(service: &Arc<Service>, reserved_bytes: u64) -> Self {
        Self { service: Arc::clone(service), left_bytes: reserved_bytes, taken: None }
    }

    /// Waits for memory where the reservation does not cover `bytes` more.
    ///
    /// # Errors
    /// `result_too_large` for more than there ever is, `busy`.
    pub(crate) async fn admit(&mut self, bytes: u64) -> Result<()> {
        let more = bytes.saturating_sub(self.left_bytes);
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        if more == 0 {
            return Ok(());
        }
        let taken = self.taken.as_ref().map_or(0, |taken| taken.num_permits() as u64) * MEMORY_UNIT_BYTES;
        let bytes_max = read_memory_bytes(&self.service);
        if taken + more > bytes_max {
            let needed = taken + more;
            let message =
                format!("values of {needed} bytes, reads have {bytes_max} (three sixteenths of memory_bytes)");
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
        let permit = reserve(&self.service, &self.service.read_memory, units(&self.service, more)).await?;
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        Ok(())
    }

    /// What was taken beyond the reservation, to be held as long as the bytes are.
    pub(crate) fn into_taken(self) -> Option<OwnedSemaphorePermit> {
        self.taken
    }
}
