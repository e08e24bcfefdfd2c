//! Which system calls a worker may still make: those that reading one file, allocating and answering take.
//!
//! Two filters, one on top of the other. The first one is in force before libhdf5 sees a byte: no process, no socket,
//! no signal to others, nothing written by name. The second one takes away opening as well, once the file is open. A
//! call that is not allowed fails with `EPERM`; libraries then go without, and what they need is in the list. Who makes a
//! file opens it for writing, before it has seen a byte that could mislead it.

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::Purpose;

/// Calls without which no program of this kind works, whatever their arguments.
const ALLOWED: &[i64] = &[
    // The file, the pipes.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_flock,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // The process itself.
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_uname,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // x86-64 keeps the older forms of some calls.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];

/// What writing takes besides.
const WRITING: &[i64] = &[libc::SYS_pwrite64, libc::SYS_ftruncate];

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has yet to open its file.
    Opening,
    /// It opens nothing any more.
    Opened,
}

/// Puts the filter of a phase on the calling thread, for good. `false` where there is none for this processor or the
/// kernel has no filters.
pub(super) fn restrict(phase: Phase, purpose: Purpose) -> Result<bool, seccompiler::BackendError> {
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules(phase, purpose)?, denied, SeccompAction::Allow, architecture)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program).is_ok())
}

fn rules(phase: Phase, purpose: Purpose) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Its death by a signal of its own, as abort() has it.
    let itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![itself])?]);
    let writes = purpose != Purpose::Reads;
    if writes {
        rules.extend(WRITING.iter().map(|call| (*call, Vec::new())));
    }
    if phase == Phase::Opening {
        // The flags are argument 2 of openat and 1 of open; its forms that write have a bit of O_ACCMODE set.
        let opening = |flags_at| if writes { Ok(Vec::new()) } else { for_reading(flags_at).map(|rule| vec![rule]) };
        rules.insert(libc::SYS_openat, opening(2)?);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_open, opening(1)?);
        // The next filter: one can only be added to those that are in force, never taken away.
        rules.insert(libc::SYS_seccomp, Vec::new());
        let privileges = libc::PR_SET_NO_NEW_PRIVS as u64;
        let privileges = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, privileges)?;
        rules.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![privileges])?]);
    }
    Ok(rules)
}

fn for_reading(flags_at: u8) -> Result<SeccompRule, seccompiler::BackendError> {
    let written = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    let read_only = SeccompCmpOp::MaskedEq(written);
    SeccompRule::new(vec![SeccompCondition::new(flags_at, SeccompCmpArgLen::Dword, read_only, 0)?])
}
