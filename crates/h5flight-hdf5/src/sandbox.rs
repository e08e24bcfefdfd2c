//! What the worker may still do once it looks at a file: read that file (or, for a put, write it), use bounded memory and
//! time, and answer.
//!
//! Landlock (Linux 5.13) takes away every other file and, where the kernel can, network and signals; a filter of system
//! calls takes away processes, sockets and writing, and once the file is open, opening ([`SandboxReport::opened`]); resource limits
//! hold everywhere. All of it lasts until the process ends.

mod calls;

use std::os::fd::BorrowedFd;

use h5flight_array::{Error, Reason, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

/// The newest kernel interface whose rights are taken away; an older kernel takes those that it knows.
const LANDLOCK_ABI: ABI = ABI::V7;
/// Processor seconds. Beyond any deadline of the server, which ends a worker sooner; for a worker that was forgotten.
const CPU_SECONDS_MAX: u64 = 600;
/// The same for one that writes: the largest file in a second for 16 MB, which copying never takes.
const WRITE_CPU_SECONDS_MAX: u64 = 86_400;
/// Descriptors: three pipes, the file, the file again by libhdf5, and what Landlock needs in between.
const DESCRIPTORS_MAX: u64 = 16;

/// What the worker has its file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To look into it.
    Reads,
    /// To make it anew, up to a size.
    Writes {
        /// Bytes of the file at most.
        file_bytes_max: u64,
    },
}

/// What holds from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxReport {
    /// The kernel interface that is enforced; `None` where the kernel has no Landlock.
    pub landlock_abi: Option<i32>,
    /// Whether system calls are filtered.
    pub calls_filtered: bool,
    /// What the file is for.
    pub purpose: Purpose,
}

/// Closes this process in, for good. Applies to the calling thread and what it starts: call it before any thread is.
///
/// The signal for the parent's death is sent when the *thread* that started this process ends: start workers from a
/// thread that outlives them.
///
/// # Errors
/// `internal` where the kernel refuses something it should know. That the kernel has no Landlock is no error, see
/// [`SandboxReport`].
pub fn apply(file: BorrowedFd<'_>, purpose: Purpose, memory_bytes_max: u64) -> Result<SandboxReport> {
    let (file_bytes_max, cpu_seconds_max) = match purpose {
        Purpose::Reads => (0, CPU_SECONDS_MAX),
        Purpose::Writes { file_bytes_max } => (file_bytes_max, WRITE_CPU_SECONDS_MAX),
    };
    let limits = [
        (Resource::As, memory_bytes_max),
        (Resource::Core, 0),
        (Resource::Cpu, cpu_seconds_max),
        (Resource::Fsize, file_bytes_max),
        (Resource::Nofile, DESCRIPTORS_MAX),
        (Resource::Nproc, 0),
    ];
    for (resource, maximum) in limits {
        let limit = Rlimit { current: Some(maximum), maximum: Some(maximum) };
        setrlimit(resource, limit).map_err(|error| refused("a resource limit").with_source(error))?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| refused("the parent's death signal").with_source(error))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| refused("no_new_privs").with_source(error))?;
    let landlock_abi = restrict(Some((file, purpose))).map_err(|error| refused("Landlock").with_source(error))?;
    // Last: what comes before takes calls that are not allowed any more.
    let calls_filtered =
        calls::restrict(calls::Phase::Opening, purpose).map_err(|error| refused("a filter").with_source(error))?;
    Ok(SandboxReport { landlock_abi, calls_filtered, purpose })
}

impl SandboxReport {
    /// Takes away the opening of files, where system calls are filtered: the one file is open, and there is no other.
    ///
    /// # Errors
    /// `internal`, as [`apply`].
    pub fn opened(self) -> Result<()> {
        if !self.calls_filtered {
            return Ok(());
        }
        match calls::restrict(calls::Phase::Opened, self.purpose) {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused("a second filter")),
            Err(error) => Err(refused("a second filter").with_source(error)),
        }
    }
}

/// What confines a worker on this machine, in words. Does not touch libhdf5.
pub fn in_words() -> String {
    // The answer is only available to who is restricted, so a thread restricts itself and ends.
    let filtered = std::thread::spawn(|| calls::restrict(calls::Phase::Opening, Purpose::Reads).unwrap_or(false));
    let filtered = filtered.join().unwrap_or(false);
    let landlock = landlock_supported().map(|version| format!("landlock {version}"));
    let parts: Vec<String> = landlock.into_iter().chain(filtered.then(|| "seccomp".to_owned())).collect();
    if parts.is_empty() { "rlimits only".to_owned() } else { parts.join(", ") }
}

/// Version of the kernel's Landlock, `None` where it has none or it is turned off. Does not touch libhdf5.
///
/// The kernel's answer is only available to who is restricted, so a thread restricts itself and ends.
pub fn landlock_supported() -> Option<i32> {
    std::thread::spawn(|| restrict(None).ok().flatten()).join().ok().flatten()
}

fn restrict(file: Option<(BorrowedFd<'_>, Purpose)>) -> Result<Option<i32>, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        .scope(Scope::from_all(LANDLOCK_ABI))?
        .create()?;
    if let Some((file, purpose)) = file {
        let rights = match purpose {
            Purpose::Reads => AccessFs::ReadFile.into(),
            Purpose::Writes { .. } => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate,
        };
        ruleset = ruleset.add_rule(PathBeneath::new(file, rights))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) | (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => None,
        (_, LandlockStatus::Available { effective_abi, kernel_abi }) => {
            Some(kernel_abi.unwrap_or(effective_abi as i32))
        }
    })
}

fn refused(what: &str) -> Error {
    Error::new(Reason::Internal, format!("the worker's sandbox: the kernel refuses {what}"))
}
