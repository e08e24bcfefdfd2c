//! The worker processes: libhdf5 behind a wall.
//!
//! One child process per task, with one file, one request and a deadline; at most `workers_max` at once. The child is
//! this program's hidden `worker` command: it sandboxes itself and talks [`h5flight_array::inspect`]. Whatever it does
//! (crash, hang, lie), the answer here is a clean error: a file can kill a worker and nothing else.
//!
//! Dropping a future kills its worker.

mod writing;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use h5flight_array::index::ChunkRun;
use h5flight_array::inspect::{
    self, FILE_FD, FileFacts, Frame, HEAD_BYTES, Hyperslab, InspectLimits, Link, Message, Object, Request,
};
use h5flight_array::meta::ArrayMeta;
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::model::ArrayRecord;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use writing::Writer;

use self::writing::WRITERS_MAX;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::memory::Growth;
use crate::metrics;

/// What one object, link or run takes in memory beside its text and data, in bytes.
const REPORT_ENTRY_BYTES: u64 = 512;
/// Bytes in memory of a byte of JSON, attributes above all. Measured: 1.8 kB for a dataset told in 450 bytes.
const REPORT_TEXT_FACTOR: u64 = 3;
/// Reads of one array that may fail for the file's fault before it is not tried any more for a while: each attempt is a
/// process that a client can make the server start.
const FAILURES_MAX: u32 = 3;
/// How long that while is. A failure for lack of memory or time may pass.
const FAILURES_TTL: Duration = Duration::from_secs(600);
/// Arrays whose failures are kept, in about 1 MiB.
const FAILURES_ARRAYS_MAX: u64 = 4_096;
/// The one variable that a worker inherits: glibc fills fresh and freed memory with a byte made of it. It can only show
/// mistakes, and a server in which they are looked for must have its workers looked at too.
const PERTURB_VARIABLE: &str = "MALLOC_PERTURB_";
/// How long a killed worker may take to end before nobody waits for it any more.
const REAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts workers.
pub struct Workers {
    program: PathBuf,
    permits: Arc<Semaphore>,
    writers: Arc<Semaphore>,
    write_bytes_max: u64,
    limits: InspectLimits,
    memory_bytes_max: u64,
    report_bytes_max: u64,
    inspect_timeout: Duration,
    read_timeout: Duration,
    admission_timeout: Duration,
    /// By identity of the array: how often reading it failed, and how at last.
    failures: moka::sync::Cache<[u8; 16], (u32, String)>,
}

/// Hyperslabs that a worker is asked for.
#[derive(Debug)]
pub struct WorkerRead<'a> {
    /// Of which array.
    pub array: &'a ArrayRecord,
    /// Inside the array.
    pub blocks: Vec<Hyperslab>,
}

/// Sizes of a frame, known before anything is allocated for it.
#[derive(Clone, Copy, Debug)]
pub struct FrameBytes {
    /// Of its JSON.
    pub message: u64,
    /// Of its data.
    pub data: u64,
}

/// The other side of a conversation with a worker.
trait Listener {
    /// Whether a frame of this size may come; may wait for memory.
    fn admit(&mut self, bytes: FrameBytes) -> impl Future<Output = Result<()>> + Send;
    /// Takes a frame before [`Message::Done`].
    fn take(&mut self, frame: Frame) -> Result<(), ArrayError>;
}

/// All that an inspection found.
#[derive(Debug, Default)]
pub struct Inspection {
    /// About the file.
    pub facts: FileFacts,
    /// Objects at their canonical paths.
    pub objects: Vec<Inspected>,
    /// Other names.
    pub links: Vec<Link>,
}

/// One object with what belongs to it.
#[derive(Debug)]
pub struct Inspected {
    /// The object.
    pub object: Object,
    /// Its chunks.
    pub runs: Vec<ChunkRun>,
    /// Checksums of their stored bytes, of all or of none; no worker tells them.
    pub checksums: Vec<u64>,
    /// Its values, where they are few.
    pub inline: Option<Bytes>,
}

impl Workers {
    /// Workers are the program at `program` with the argument `worker`.
    pub fn new(program: PathBuf, config: &Config) -> Self {
        Self {
            program,
            permits: Arc::new(Semaphore::new(config.workers_max.max(1))),
            writers: Arc::new(Semaphore::new(WRITERS_MAX)),
            write_bytes_max: config.upload_bytes_max,
            limits: config.inspect_limits.clone(),
            memory_bytes_max: config.worker_memory_bytes,
            report_bytes_max: config.inspect_report_bytes_max,
            inspect_timeout: Duration::from_millis(config.inspect_timeout_ms),
            read_timeout: Duration::from_millis(config.worker_read_timeout_ms),
            admission_timeout: Duration::from_millis(config.admission_timeout_ms),
            failures: moka::sync::Cache::builder().max_capacity(FAILURES_ARRAYS_MAX).time_to_live(FAILURES_TTL).build(),
        }
    }

    /// Everything about a file of `file_bytes`.
    ///
    /// Small data that needs libhdf5 is read along. Should that kill the worker, a second one leaves it out, in what is left
    /// of the time: one bad dataset must not hide the others.
    ///
    /// # Errors
    /// `malformed_file`, `not_hdf5`, `truncated`, `file_too_complex`, ...: the file as a whole is refused. `busy`.
    pub async fn inspect(&self, file: &OwnedFd, file_bytes: u64) -> Result<Inspection> {
        let request = |inline| Request::Inspect {
            limits: self.limits.clone(),
            inline,
            file_bytes,
            memory_bytes_max: self.memory_bytes_max,
        };
        // A file that takes too long as a whole may be large and healthy.
        let mut clock = Clock::new(self.inspect_timeout, Reason::FileTooComplex, "inspect_timeout_ms");
        let report = || Report { found: Inspection::default(), bytes: 0, bytes_max: self.report_bytes_max };
        let mut first = report();
        match self.converse(file, &request(true), &mut clock, &mut first).await {
            Err(error) if error.reason() == Reason::MalformedFile => {}
            other => return other.map(|()| first.found),
        }
        // The names that the file gives itself came before what killed the worker, and decide where the file belongs.
        let nwb = first.found.facts.nwb;
        let mut second = report();
        self.converse(file, &request(false), &mut clock, &mut second).await?;
        second.found.facts.nwb = second.found.facts.nwb.or(nwb);
        Ok(second.found)
    }

    /// Hyperslabs of one array, each as one decoded block, in the order asked for. A block that is larger than what was
    /// reserved waits in the worker until `memory` has room for it.
    ///
    /// # Errors
    /// What libhdf5 finds wrong, or `malformed_file` when it dies of it; `busy` or `result_too_large` without memory.
    pub async fn read(&self, file: &OwnedFd, read: WorkerRead<'_>, memory: &mut Growth) -> Result<Vec<Bytes>> {
        let array = read.array;
        self.refuse_hopeless(array)?;
        self.try_read(file, read, memory).await.inspect_err(|error| self.count_failure(array, error))
    }

    /// The same for one who looks for damage: what failed before is tried again, and what fails now is not remembered.
    ///
    /// # Errors
    /// As [`Workers::read`].
    pub async fn try_read(&self, file: &OwnedFd, read: WorkerRead<'_>, memory: &mut Growth) -> Result<Vec<Bytes>> {
        let WorkerRead { array, blocks } = read;
        let mut answer = Blocks { found: vec![None; blocks.len()], memory };
        let request = Request::Read {
            path: array.hdf5_path.clone(),
            meta: Box::new(array.meta.clone()),
            blocks,
            memory_bytes_max: self.memory_bytes_max,
        };
        // One read is small, whatever the file is: what takes longer is the file's fault.
        let mut clock = Clock::new(self.read_timeout, Reason::MalformedFile, "worker_read_timeout_ms");
        self.converse(file, &request, &mut clock, &mut answer).await?;
        let all: Option<Vec<_>> = answer.found.into_iter().collect();
        all.ok_or_else(|| Error::new(Reason::MalformedFile, "the worker left out a part of the answer"))
    }

    /// # Errors
    /// `malformed_file`, as the last of too many attempts said it.
    fn refuse_hopeless(&self, array: &ArrayRecord) -> Result<()> {
        match self.failures.get(&array.identity) {
            Some((failures, message)) if failures >= FAILURES_MAX => {
                let pause_s = FAILURES_TTL.as_secs();
                let message = format!("{message}; not tried again for {pause_s} s after {failures} attempts");
                Err(Error::new(Reason::MalformedFile, message))
            }
            _ => Ok(()),
        }
    }

    fn count_failure(&self, array: &ArrayRecord, error: &Error) {
        if error.reason() == Reason::MalformedFile {
            let before = self.failures.get(&array.identity).map_or(0, |(failures, _)| failures);
            self.failures.insert(array.identity, (before + 1, error.to_string()));
        }
    }

    /// Starts a worker, asks, and hands every frame before [`Message::Done`] to `listener`.
    async fn converse(
        &self,
        file: &OwnedFd,
        request: &Request,
        clock: &mut Clock,
        listener: &mut (impl Listener + Send),
    ) -> Result<()> {
        let permit = self.permit().await?;
        let started = Instant::now();
        let mut child = self.spawn(file)?;
        let input = child.stdin.take().expect("the worker's input is piped");
        let output = child.stdout.take().expect("the worker's output is piped");
        let outcome = talk((input, BufReader::new(output)), request, clock, listener).await;
        // After Done the child has nothing left to do; before it, it is of no use any more. Either way it goes.
        let _ = child.start_kill();
        let status = match tokio::time::timeout(REAP_TIMEOUT, child.wait()).await {
            Ok(status) => status,
            // A process that hangs in the kernel (a dead mount) ends when it can; its place stays taken until then.
            Err(_) => {
                tokio::spawn(async move { (child.wait().await, permit) });
                return Err(outcome.err().unwrap_or_else(|| Error::new(Reason::Io, "the worker does not end")));
            }
        };
        metrics::worker_run(outcome.is_ok(), started.elapsed());
        drop(permit);
        outcome.map_err(|error| match status {
            Ok(status) if error.reason() == Reason::MalformedFile => error.noting(&format!("worker: {status}")),
            _ => error,
        })
    }

    /// Waits for a worker's place.
    ///
    /// # Errors
    /// `busy` where there is none for too long.
    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.admission_timeout, waiting).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => {
                let waited_ms = self.admission_timeout.as_millis();
                let message = format!("all workers (workers_max) were at work for {waited_ms} ms; try again");
                Err(Error::new(Reason::Busy, message))
            }
        }
    }

    fn spawn(&self, file: &OwnedFd) -> Result<Child> {
        let failed = |error: std::io::Error| {
            Error::from(ArrayError::new(Reason::Internal, "a worker cannot be started").with_source(error))
        };
        let parent_fd = file.try_clone().map_err(failed)?;
        let mut command = std::process::Command::new(&self.program);
        command.arg("worker").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(byte) = std::env::var_os(PERTURB_VARIABLE) {
            command.env(PERTURB_VARIABLE, byte);
        }
        command
            .fd_mappings(vec![FdMapping { parent_fd, child_fd: FILE_FD }])
            .expect("one mapping cannot collide with another");
        Command::from(command).kill_on_drop(true).spawn().map_err(failed)
    }
}

/// The time that a worker has. It runs only while the worker is waited for: that the server has no memory for what was
/// found is no fault of the file.
struct Clock {
    allowed: Duration,
    left: Duration,
    /// What a file is told for which it does not suffice.
    reason: Reason,
    setting: &'static str,
}

impl Clock {
    fn new(allowed: Duration, reason: Reason, setting: &'static str) -> Self {
        Self { allowed, left: allowed, reason, setting }
    }

    /// Waits for a part of the conversation.
    ///
    /// # Errors
    /// The clock's own reason where time runs out; that the worker died.
    async fn wait<T>(&mut self, part: impl Future<Output = std::io::Result<T>>) -> Result<T> {
        let started = tokio::time::Instant::now();
        let outcome = tokio::time::timeout(self.left, part).await;
        self.left = self.left.saturating_sub(started.elapsed());
        match outcome {
            Ok(done) => Ok(done.map_err(died)?),
            Err(_) => {
                let (allowed_ms, setting) = (self.allowed.as_millis(), self.setting);
                let message = format!("libhdf5 took longer over the file than {allowed_ms} ms ({setting})");
                Err(Error::new(self.reason, message))
            }
        }
    }
}

/// Asks and listens until [`Message::Done`].
async fn talk(
    (mut input, mut output): (impl AsyncWrite + Unpin, impl AsyncRead + Unpin),
    request: &Request,
    clock: &mut Clock,
    listener: &mut impl Listener,
) -> Result<()> {
    clock.wait(input.write_all(&request.to_wire())).await?;
    drop(input);
    loop {
        let mut head = [0; HEAD_BYTES];
        clock.wait(output.read_exact(&mut head)).await?;
        let (message_bytes, data_bytes) = Frame::lengths(head)?;
        listener.admit(FrameBytes { message: message_bytes as u64, data: data_bytes as u64 }).await?;
        let mut message = vec![0; message_bytes];
        clock.wait(output.read_exact(&mut message)).await?;
        let mut data = vec![0; data_bytes];
        clock.wait(output.read_exact(&mut data)).await?;
        let frame = Frame::from_parts(&message, data.into())?;
        match frame.message {
            Message::Done => return Ok(()),
            Message::Failed { reason, message } => return Err(Error::new(reason, message)),
            _ => listener.take(frame)?,
        }
    }
}

fn died(error: std::io::Error) -> ArrayError {
    ArrayError::new(Reason::MalformedFile, "the worker died over the file").with_source(error)
}

/// Listens to an inspection.
struct Report {
    found: Inspection,
    bytes: u64,
    bytes_max: u64,
}

impl Listener for Report {
    async fn admit(&mut self, FrameBytes { message, data }: FrameBytes) -> Result<()> {
        self.bytes += REPORT_ENTRY_BYTES + message.saturating_mul(REPORT_TEXT_FACTOR) + data;
        if self.bytes <= self.bytes_max {
            return Ok(());
        }
        let message =
            format!("the index of the file takes more than {} bytes (inspect_report_bytes_max)", self.bytes_max);
        Err(Error::new(Reason::FileTooComplex, message))
    }

    fn take(&mut self, frame: Frame) -> Result<(), ArrayError> {
        self.found.add(frame)
    }
}

/// Listens to a read.
struct Blocks<'a> {
    found: Vec<Option<Bytes>>,
    memory: &'a mut Growth,
}

impl Listener for Blocks<'_> {
    async fn admit(&mut self, bytes: FrameBytes) -> Result<()> {
        self.memory.admit(bytes.message + bytes.data).await
    }

    fn take(&mut self, Frame { message, data }: Frame) -> Result<(), ArrayError> {
        match message {
            Message::Block { at } if (at as usize) < self.found.len() => {
                self.found[at as usize] = Some(data);
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(message: &Message) -> ArrayError {
    // Its content may be megabytes of whatever a worker that is not one any more makes up.
    let kind = message.kind();
    ArrayError::new(Reason::MalformedFile, format!("the worker said {kind:?} where that means nothing"))
}

impl Inspection {
    /// Takes one frame into the report; runs and inline data belong to the object before them.
    fn add(&mut self, frame: Frame) -> Result<(), ArrayError> {
        let Frame { message, data } = frame;
        match message {
            Message::File(facts) => self.facts = facts,
            Message::Object(object) => self.add_object(*object)?,
            Message::Link(link) => self.links.push(link),
            Message::Run { first_number, last_number, pointers } => {
                let run = ChunkRun { first_number, last_number, pointers, packed: data.to_vec() };
                run.unpack_into(&mut Vec::new())?;
                self.last_array(&Message::Run { first_number, last_number, pointers })?.runs.push(run);
            }
            Message::Inline => self.last_array(&Message::Inline)?.inline = Some(data),
            Message::Block { .. } | Message::Done | Message::Failed { .. } => return Err(unexpected(&message)),
        }
        Ok(())
    }

    fn add_object(&mut self, mut object: Object) -> Result<(), ArrayError> {
        if !object.path.starts_with('/') {
            return Err(ArrayError::new(Reason::MalformedFile, "the worker reported an object without a path"));
        }
        // An array that does not hold its bounds is listed with its problem; the rest of the file is served.
        if let Some(Err(error)) = object.array.as_ref().map(ArrayMeta::check) {
            object.problem.get_or_insert((error.reason, inspect::cut_text(error.message)));
        }
        self.objects.push(Inspected { object, runs: Vec::new(), checksums: Vec::new(), inline: None });
        Ok(())
    }

    fn last_array(&mut self, message: &Message) -> Result<&mut Inspected, ArrayError> {
        let last = self.objects.last_mut().filter(|last| last.object.array.is_some());
        last.ok_or_else(|| unexpected(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that comes later than any worker may take, or never.
    struct Pressure {
        wait: Duration,
        then: Option<Reason>,
    }

    impl Listener for Pressure {
        async fn admit(&mut self, _: FrameBytes) -> Result<()> {
            tokio::time::sleep(self.wait).await;
            self.then.map_or(Ok(()), |reason| Err(Error::new(reason, "no memory")))
        }

        fn take(&mut self, _: Frame) -> Result<(), ArrayError> {
            Ok(())
        }
    }

    fn request() -> Request {
        let limits = InspectLimits::default();
        Request::Inspect { limits, inline: true, file_bytes: 0, memory_bytes_max: 0 }
    }

    /// Talks to a worker that says `frames` and then hangs, with 9 s on the clock.
    async fn talked(frames: &[Frame], listener: &mut Pressure) -> Result<(), Reason> {
        let (input, _asked) = tokio::io::duplex(1 << 16);
        let (mut worker, output) = tokio::io::duplex(1 << 16);
        let mut wire = Vec::new();
        frames.iter().for_each(|frame| frame.write_to(&mut wire).unwrap());
        worker.write_all(&wire).await.unwrap();
        let mut clock = Clock::new(Duration::from_secs(9), Reason::MalformedFile, "a_setting");
        talk((input, output), &request(), &mut clock, listener).await.map_err(|error| error.reason())
    }

    // Time here is tokio's, which passes at once when nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn waiting_for_memory_is_not_the_time_of_the_worker() {
        let frames = [Frame::plain(Message::Inline), Frame::plain(Message::Done)];
        let wait = Duration::from_secs(3600);
        assert_eq!(talked(&frames, &mut Pressure { wait, then: None }).await, Ok(()));
        assert_eq!(talked(&frames, &mut Pressure { wait, then: Some(Reason::Busy) }).await, Err(Reason::Busy));
        // A worker that hangs is stopped, however long memory took.
        assert_eq!(talked(&frames[..1], &mut Pressure { wait, then: None }).await, Err(Reason::MalformedFile));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_workers_stay_at_work_the_answer_is_busy() {
        let config = Config { workers_max: 1, ..Config::default() };
        let workers = Workers::new(PathBuf::from("/nowhere"), &config);
        let taken = workers.permit().await.unwrap();
        assert_eq!(workers.permit().await.unwrap_err().reason(), Reason::Busy);
        drop(taken);
        assert!(workers.permit().await.is_ok());
    }
}
