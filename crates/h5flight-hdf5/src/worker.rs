//! The worker's loop, which runs once: request in, frames out.

use std::io::{BufWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use h5flight_array::inspect::{FILE_FD, Frame, Message, Request};
use h5flight_array::{Error, Reason, Result};

use crate::inspection::{Inspection, inspect};
use crate::open::{open, refuse_if_locked_by_a_writer};
use crate::read::read;
use crate::sandbox;

/// The longest request: a read of many small blocks.
const REQUEST_BYTES_MAX: u64 = 64 << 20;
/// Answers are mostly small frames.
const ANSWER_BUFFER_BYTES: usize = 256 << 10;

/// Does what the request on standard input asks with the file on [`FILE_FD`], in the sandbox, and answers on standard
/// output. Ends with [`Message::Done`] or [`Message::Failed`] whatever the file does, short of killing the process.
///
/// For a process that does nothing else: the sandbox cannot be left again.
pub fn run_worker() -> ExitCode {
    let mut out = BufWriter::with_capacity(ANSWER_BUFFER_BYTES, std::io::stdout().lock());
    let answered = receive().and_then(|request| {
        // SAFETY: the server passes the file as this descriptor, and nothing in this process closes it.
        let file = unsafe { BorrowedFd::borrow_raw(FILE_FD) };
        let sandbox = sandbox::apply(file, memory_bytes_max(&request))?;
        Ok((request, file, sandbox))
    });
    let written = match answered {
        Ok((request, file, sandbox)) => answer_then(&request, file, &|| sandbox.opened(), &mut out),
        Err(error) => end(&mut out, Err(error)),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Answers a request about an open file, all frames including the last one. Does not apply the sandbox.
///
/// # Errors
/// Those of the writer. What is wrong with the file is in the last frame.
pub fn answer(request: &Request, file: BorrowedFd<'_>, out: &mut impl Write) -> std::io::Result<()> {
    answer_then(request, file, &|| Ok(()), out)
}

/// [`answer`], with something to be done between opening the file and looking into it.
fn answer_then(
    request: &Request,
    file: BorrowedFd<'_>,
    opened: &dyn Fn() -> Result<()>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    // A bound of a standard type that a file can break would panic: that is the file's fault, and is told as such.
    let result = catch_unwind(AssertUnwindSafe(|| hdf5::sync::sync(|| work(request, file, opened, out))));
    let result = result
        .unwrap_or_else(|_| Err(Error::new(Reason::MalformedFile, "the file led to a state that should not exist")));
    end(out, result)
}

fn work(request: &Request, file: BorrowedFd<'_>, opened: &dyn Fn() -> Result<()>, out: &mut impl Write) -> Result<()> {
    if matches!(request, Request::Inspect { .. }) {
        refuse_if_locked_by_a_writer(file)?;
    }
    let file = open(file)?;
    opened()?;
    match request {
        Request::Inspect { limits, inline, file_bytes, .. } => {
            inspect(&file, &Inspection { limits, inline: *inline, file_bytes: *file_bytes }, out)
        }
        Request::Read { path, meta, blocks, .. } => read(&file, path, meta, blocks, out),
    }
}

fn end(out: &mut impl Write, result: Result<()>) -> std::io::Result<()> {
    let last = match result {
        Ok(()) => Message::Done,
        Err(error) => Message::Failed { reason: error.reason, message: error.message },
    };
    Frame::plain(last).write_to(out)
}

/// Writes a frame; a server that went away is `io`.
pub(crate) fn send(out: &mut impl Write, frame: &Frame) -> Result<()> {
    frame.write_to(out).map_err(|error| Error::new(Reason::Io, "the answer cannot be written").with_source(error))
}

/// Version of the libhdf5 that is linked, "2.2.0".
pub(crate) fn library_version() -> String {
    let (major, minor, release) = hdf5::library_version();
    format!("{major}.{minor}.{release}")
}

fn receive() -> Result<Request> {
    let mut json = Vec::new();
    let io = |error: std::io::Error| Error::new(Reason::Internal, "the request cannot be read").with_source(error);
    std::io::stdin().lock().take(REQUEST_BYTES_MAX + 1).read_to_end(&mut json).map_err(io)?;
    if json.len() as u64 > REQUEST_BYTES_MAX {
        return Err(Error::new(Reason::BadRequest, format!("a request of more than {REQUEST_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&json)
        .map_err(|error| Error::new(Reason::Internal, format!("the request is not understood: {error}")))
}

fn memory_bytes_max(request: &Request) -> u64 {
    match request {
        Request::Inspect { memory_bytes_max, .. } | Request::Read { memory_bytes_max, .. } => *memory_bytes_max,
    }
}
