//! The allocator, and memory that is made present before it is needed.
//!
//! Batches and chunks are buffers of megabytes that come and go: the system's allocator maps and unmaps each of them,
//! page fault by page fault, which costs more than copying them. mimalloc keeps them. What it got from the operating
//! system for the first time is still expensive, above all on virtual machines, whose memory the host hands out when it
//! is touched: there it was more than half of a cold read's time. So a server touches its memory once, early, and gives
//! none of it back.
//!
//! Debug builds have the system's allocator: with `MALLOC_PERTURB_` glibc fills what it hands out, and the conformance
//! test sees whether any of that is ever delivered.

/// Makes `bytes` of memory present, or as much as three seconds allow; nothing where the machine has less than
/// twice as much to spare. Memory that the process has is no longer given back from now on.
pub fn touch(bytes: u64) {
    #[cfg(not(debug_assertions))]
    release::touch(bytes);
    #[cfg(debug_assertions)]
    let _ = bytes;
}

#[cfg(not(debug_assertions))]
mod release {
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    #[global_allocator]
    static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

    /// `mi_option_purge_delay` of mimalloc 3: -1 keeps all memory.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    /// How much later a server may start for it. A gigabyte takes a tenth of a second on a machine of one's own, and one
    /// to two seconds on a virtual machine whose host is slow.
    const TOUCH_TIME_MAX: Duration = Duration::from_secs(3);
    const THREADS_MAX: usize = 4;
    /// Memory that is asked for at once: a little less than what mimalloc keeps account of as a whole (32 MiB), so that no
    /// holes are left between them.
    const PIECE_BYTES: u64 = (32 << 20) - (128 << 10);
    /// Memory that a thread touches before it looks at the clock.
    const STEP_BYTES: usize = 8 << 20;
    /// The smallest page.
    const PAGE_BYTES: usize = 4 << 10;

    pub(super) fn touch(bytes: u64) {
        if super::available_bytes().is_none_or(|available| available / 2 < bytes) {
            return;
        }
        // SAFETY: an option's number and value; the call changes nothing else.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
        let sizes = (0..bytes).step_by(PIECE_BYTES as usize).map(|start| PIECE_BYTES.min(bytes - start) as usize);
        // All pieces are there before the first one is let go: otherwise they would be one.
        let mut pieces: Vec<Vec<u8>> = sizes.map(|size| vec![0; size]).collect();
        let steps = Mutex::new(pieces.iter_mut().flat_map(|piece| piece.chunks_mut(STEP_BYTES)));
        let next = || steps.lock().unwrap_or_else(PoisonError::into_inner).next();
        let began = Instant::now();
        let touch = || {
            while let Some(step) = next().filter(|_| began.elapsed() < TOUCH_TIME_MAX) {
                step.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
                std::hint::black_box(step);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX);
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(touch))));
    }
}

/// Memory that this process may still get: what the machine has to spare, or what is left of its control group's.
#[cfg_attr(debug_assertions, expect(dead_code, reason = "only the release build touches memory"))]
fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    let number =
        |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    // A group without a limit says "max", which is no number.
    let group = number("memory.max").map(|most| most.saturating_sub(number("memory.current").unwrap_or(0)));
    Some(machine.min(group.unwrap_or(u64::MAX)))
}
