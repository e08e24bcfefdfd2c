//! The worker's loop, which runs once: request in, frames out.

use std::io::{BufWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use h5flight_array::inspect::{FILE_FD, Frame, Message, Request};
use h5flight_array::{Error, Reason, Result};

use crate::inspection::{Inspection, inspect};
use crate::open::{OpenFile, open, refuse_if_locked_by_a_writer};
use crate::read::read;
use crate::sandbox;
use crate::write::NewFile;

/// Answers are mostly small frames.
const ANSWER_BUFFER_BYTES: usize = 256 << 10;

/// Does what the request on standard input asks with the file on [`FILE_FD`], in the sandbox, and answers on standard
/// output. Ends with [`Message::Done`] or [`Message::Failed`] whatever the file does, short of killing the process.
///
/// For a process that does nothing else: the sandbox cannot be left again.
pub fn run_worker() -> ExitCode {
    let mut out = BufWriter::with_capacity(ANSWER_BUFFER_BYTES, std::io::stdout().lock());
    let mut input = std::io::stdin().lock();
    let answered = Request::read_from(&mut input).and_then(|request| {
        // SAFETY: the server passes the file as this descriptor, and nothing in this process closes it.
        let file = unsafe { BorrowedFd::borrow_raw(FILE_FD) };
        let purpose = match &request {
            Request::Inspect { .. } | Request::Read { .. } => sandbox::Purpose::Reads,
            Request::Write { file_bytes_max, .. } => sandbox::Purpose::Writes { file_bytes_max: *file_bytes_max },
        };
        let sandbox = sandbox::apply(file, purpose, request.memory_bytes_max())?;
        Ok((request, file, sandbox))
    });
    let written = match answered {
        Ok((request, file, sandbox)) => {
            let mut worker = Worker { file, opened: &|| sandbox.opened(), input: &mut input };
            worker.answer(&request, &mut out)
        }
        Err(error) => end(&mut out, Err(error)),
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Answers a request about an open file, all frames including the last one; `input` has what follows the request. Does
/// not apply the sandbox.
///
/// # Errors
/// Those of the writer. What is wrong with the file is in the last frame.
pub fn answer(
    request: &Request,
    file: BorrowedFd<'_>,
    input: &mut impl Read,
    out: &mut impl Write,
) -> std::io::Result<()> {
    Worker { file, opened: &|| Ok(()), input }.answer(request, out)
}

/// One file, what is to be done between opening it and looking into it, and what follows the request.
struct Worker<'a, R> {
    file: BorrowedFd<'a>,
    opened: &'a dyn Fn() -> Result<()>,
    input: &'a mut R,
}

impl<R: Read> Worker<'_, R> {
    fn answer(&mut self, request: &Request, out: &mut impl Write) -> std::io::Result<()> {
        // A bound of a standard type that a file can break would panic: that is the file's fault, and is told as such.
        let result = catch_unwind(AssertUnwindSafe(|| hdf5::sync::sync(|| self.work(request, out))));
        let result = result.unwrap_or_else(|_| {
            Err(Error::new(Reason::MalformedFile, "the file led to a state that should not exist"))
        });
        end(out, result)
    }

    fn work(&mut self, request: &Request, out: &mut impl Write) -> Result<()> {
        match request {
            Request::Inspect { limits, inline, file_bytes, .. } => {
                refuse_if_locked_by_a_writer(self.file)?;
                let file = self.open()?;
                inspect(&file, &Inspection { limits, inline: *inline, file_bytes: *file_bytes }, out)
            }
            Request::Read { path, meta, blocks, .. } => read(&self.open()?, path, meta, blocks, out),
            Request::Write { dataset, .. } => {
                let file = NewFile::create(self.file, dataset)?;
                (self.opened)()?;
                file.fill(&mut *self.input)
            }
        }
    }

    fn open(&self) -> Result<OpenFile> {
        let file = open(self.file)?;
        (self.opened)()?;
        Ok(file)
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
