//! The worker processes: libhdf5 behind a wall.
//!
//! One child process per task, with one file, one request and a deadline; at most `workers_max` at once. The child is
//! this program's hidden `worker` command: it sandboxes itself and talks [`h5flight_array::inspect`]. Whatever it does
//! (crash, hang, lie), the answer here is a clean error: a file can kill a worker and nothing else.
//!
//! Dropping a future kills its worker.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use h5flight_array::index::ChunkRun;
use h5flight_array::inspect::{
    FILE_FD, FileFacts, Frame, HEAD_BYTES, Hyperslab, InspectLimits, Link, Message, Object, Request,
};
use h5flight_array::meta::ArrayMeta;
use h5flight_array::{Error as ArrayError, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics;

/// What one inspection may send in all, in bytes: 1 M objects with small attributes, or 50 M chunks.
const REPORT_BYTES_MAX: u64 = 1 << 30;

/// What one object, link or run takes in memory beside its data, in bytes.
const REPORT_ENTRY_BYTES: u64 = 512;
/// How long a killed worker may take to end before nobody waits for it any more.
const REAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts workers.
pub struct Workers {
    program: PathBuf,
    permits: Arc<Semaphore>,
    limits: InspectLimits,
    memory_bytes_max: u64,
    inspect_timeout: Duration,
    read_timeout: Duration,
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
    /// Its values, where they are few.
    pub inline: Option<Bytes>,
}

impl Workers {
    /// Workers are the program at `program` with the argument `worker`.
    pub fn new(program: PathBuf, config: &Config) -> Self {
        Self {
            program,
            permits: Arc::new(Semaphore::new(config.workers_max.max(1))),
            limits: config.inspect_limits.clone(),
            memory_bytes_max: config.worker_memory_bytes,
            inspect_timeout: Duration::from_millis(config.inspect_timeout_ms),
            read_timeout: Duration::from_millis(config.worker_read_timeout_ms),
        }
    }

    /// Everything about a file of `file_bytes`.
    ///
    /// Small data that needs libhdf5 is read along. Should that kill the worker, a second one leaves it out: one bad
    /// dataset must not hide the others.
    ///
    /// # Errors
    /// `malformed_file`, `not_hdf5`, `truncated`, `file_too_complex`, ...: the file as a whole is refused.
    pub async fn inspect(&self, file: &OwnedFd, file_bytes: u64) -> Result<Inspection> {
        match self.inspect_once(file, file_bytes, true).await {
            Err(error) if error.reason() == Reason::MalformedFile => self.inspect_once(file, file_bytes, false).await,
            other => other,
        }
    }

    async fn inspect_once(&self, file: &OwnedFd, file_bytes: u64, inline: bool) -> Result<Inspection> {
        let (limits, memory_bytes_max) = (self.limits.clone(), self.memory_bytes_max);
        let request = Request::Inspect { limits, inline, file_bytes, memory_bytes_max };
        let mut found = Inspection::default();
        let mut report_bytes = 0u64;
        self.converse(file, &request, self.inspect_timeout, |frame| {
            // An object or a link takes its text and about this much beside it.
            report_bytes += frame.data.len() as u64 + REPORT_ENTRY_BYTES;
            if report_bytes > REPORT_BYTES_MAX {
                let message = format!("the index of the file takes more than {REPORT_BYTES_MAX} bytes");
                return Err(ArrayError::new(Reason::FileTooComplex, message));
            }
            found.add(frame)
        })
        .await?;
        Ok(found)
    }

    /// Hyperslabs of one array, each as one decoded block, in the order asked for.
    ///
    /// # Errors
    /// What libhdf5 finds wrong, or `malformed_file` when it dies of it.
    pub async fn read(
        &self,
        file: &OwnedFd,
        path: &str,
        meta: &ArrayMeta,
        blocks: Vec<Hyperslab>,
    ) -> Result<Vec<Bytes>> {
        let count = blocks.len();
        let mut found: Vec<Option<Bytes>> = vec![None; count];
        let request = Request::Read {
            path: path.to_owned(),
            meta: Box::new(meta.clone()),
            blocks,
            memory_bytes_max: self.memory_bytes_max,
        };
        self.converse(file, &request, self.read_timeout, |frame| match frame.message {
            Message::Block { at } if (at as usize) < count => {
                found[at as usize] = Some(frame.data);
                Ok(())
            }
            other => Err(unexpected(&other)),
        })
        .await?;
        let all: Option<Vec<_>> = found.into_iter().collect();
        all.ok_or_else(|| Error::new(Reason::MalformedFile, "the worker left out a part of the answer"))
    }

    /// Starts a worker, asks, and hands every frame before [`Message::Done`] to `take`.
    async fn converse(
        &self,
        file: &OwnedFd,
        request: &Request,
        timeout: Duration,
        take: impl FnMut(Frame) -> Result<(), ArrayError>,
    ) -> Result<()> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let started = std::time::Instant::now();
        let mut child = self.spawn(file)?;
        let talk = talk(&mut child, request, take);
        let outcome = match tokio::time::timeout(timeout, talk).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!("libhdf5 took longer than {} ms over the file", timeout.as_millis());
                Err(ArrayError::new(Reason::MalformedFile, message))
            }
        };
        // After Done the child has nothing left to do; before it, it is of no use any more. Either way it goes.
        let _ = child.start_kill();
        let status = match tokio::time::timeout(REAP_TIMEOUT, child.wait()).await {
            Ok(status) => status,
            // A process that hangs in the kernel (a dead mount) ends when it can; its place stays taken until then.
            Err(_) => {
                tokio::spawn(async move { (child.wait().await, permit) });
                return Err(outcome
                    .err()
                    .map_or_else(|| Error::new(Reason::Io, "the worker does not end"), Into::into));
            }
        };
        metrics::worker_run(outcome.is_ok(), started.elapsed());
        drop(permit);
        outcome.map_err(|error| match status {
            Ok(status) if error.reason == Reason::MalformedFile => {
                let message = format!("{} (worker: {status})", error.message);
                ArrayError { message, ..error }.into()
            }
            _ => error.into(),
        })
    }

    fn spawn(&self, file: &OwnedFd) -> Result<Child> {
        let failed = |error: std::io::Error| {
            Error::from(ArrayError::new(Reason::Internal, "a worker cannot be started").with_source(error))
        };
        let parent_fd = file.try_clone().map_err(failed)?;
        let mut command = std::process::Command::new(&self.program);
        command.arg("worker").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
            .fd_mappings(vec![FdMapping { parent_fd, child_fd: FILE_FD }])
            .expect("one mapping cannot collide with another");
        Command::from(command).kill_on_drop(true).spawn().map_err(failed)
    }
}

async fn talk(
    child: &mut Child,
    request: &Request,
    mut take: impl FnMut(Frame) -> Result<(), ArrayError>,
) -> Result<(), ArrayError> {
    let died = |error: std::io::Error| {
        ArrayError::new(Reason::MalformedFile, "the worker died over the file").with_source(error)
    };
    let mut input = child.stdin.take().expect("the worker's input is piped");
    let mut output = BufReader::new(child.stdout.take().expect("the worker's output is piped"));
    let request = serde_json::to_vec(request).expect("a request is always JSON");
    input.write_all(&request).await.map_err(died)?;
    drop(input);
    loop {
        let frame = read_frame(&mut output).await?;
        match frame.message {
            Message::Done => return Ok(()),
            Message::Failed { reason, message } => return Err(ArrayError::new(reason, message)),
            _ => take(frame)?,
        }
    }
}

async fn read_frame(output: &mut BufReader<ChildStdout>) -> Result<Frame, ArrayError> {
    let died = |error: std::io::Error| {
        ArrayError::new(Reason::MalformedFile, "the worker died over the file").with_source(error)
    };
    let mut head = [0; HEAD_BYTES];
    output.read_exact(&mut head).await.map_err(died)?;
    let (message_bytes, data_bytes) = Frame::lengths(head)?;
    let mut message = vec![0; message_bytes];
    output.read_exact(&mut message).await.map_err(died)?;
    let mut data = vec![0; data_bytes];
    output.read_exact(&mut data).await.map_err(died)?;
    Frame::from_parts(&message, data.into())
}

fn unexpected(message: &Message) -> ArrayError {
    ArrayError::new(Reason::MalformedFile, format!("the worker said {message:?} where that means nothing"))
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
            object.problem.get_or_insert((error.reason, error.message));
        }
        self.objects.push(Inspected { object, runs: Vec::new(), inline: None });
        Ok(())
    }

    fn last_array(&mut self, message: &Message) -> Result<&mut Inspected, ArrayError> {
        let last = self.objects.last_mut().filter(|last| last.object.array.is_some());
        last.ok_or_else(|| unexpected(message))
    }
}
