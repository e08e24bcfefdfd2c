//! The worker as a process: closed in, it reads its one file and can do nothing else.
//!
//! Without a test harness, because this program is also the child: `worker` is what the server starts, `probe FILE`
//! applies the sandbox for descriptor 3 and says what it can still do with another file.

use std::error::Error;
use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use h5flight_array::inspect::{FILE_FD, Frame, Message, NewDataset, Request, WriteStep};
use h5flight_array::meta::{ByteOrder, ElementType};
use h5flight_hdf5::sandbox::{self, Purpose};

type Outcome = Result<(), Box<dyn Error>>;

type Test = (&'static str, fn() -> Outcome);

const TESTS: [Test; 7] = [
    ("a_worker_inspects_its_file_inside_the_sandbox", a_worker_inspects_its_file_inside_the_sandbox),
    ("a_worker_can_open_no_other_file", a_worker_can_open_no_other_file),
    ("a_worker_without_memory_ends_and_nothing_else_does", a_worker_without_memory_ends_and_nothing_else_does),
    ("a_request_that_is_not_understood_is_answered", a_request_that_is_not_understood_is_answered),
    ("a_worker_that_writes_can_open_no_other_file", a_worker_that_writes_can_open_no_other_file),
    ("a_worker_writes_its_file_inside_the_sandbox", a_worker_writes_its_file_inside_the_sandbox),
    ("a_file_whose_chunks_break_off_is_not_answered_as_done", a_file_whose_chunks_break_off_is_not_answered_as_done),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["worker"] => h5flight_hdf5::run_worker(),
        ["probe", other] => probe(Purpose::Reads, Path::new(other)),
        ["probe-writing", other] => probe(Purpose::Writes { file_bytes_max: 1 << 20 }, Path::new(other)),
        arguments => run(arguments),
    }
}

/// As much of the harness's command line as test runners use.
fn run(arguments: &[&str]) -> ExitCode {
    if arguments.contains(&"--list") {
        if !arguments.contains(&"--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut failed = false;
    for (name, test) in TESTS.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))) {
        match test() {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                failed = true;
                println!("test {name} ... FAILED: {error}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn a_worker_inspects_its_file_inside_the_sandbox() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("small.h5");
    let file = hdf5::File::create(&path)?;
    file.new_dataset_builder().with_data(&[1i32, 2, 3]).chunk(2).deflate(3).create("numbers")?;
    file.close()?;
    let frames = ask(&path, &inspect(&path)?)?;
    let paths: Vec<_> = frames.iter().filter_map(|frame| object_path(&frame.message)).collect();
    if paths != ["/", "/numbers"] || !matches!(frames.last().map(|f| &f.message), Some(Message::Done)) {
        return Err(format!("answered {frames:?}").into());
    }
    Ok(())
}

fn a_worker_can_open_no_other_file() -> Outcome {
    closed_in("probe")
}

fn a_worker_that_writes_can_open_no_other_file() -> Outcome {
    closed_in("probe-writing")
}

fn closed_in(how: &str) -> Outcome {
    let folder = tempfile::tempdir()?;
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    std::fs::write(&own, "own")?;
    std::fs::write(&other, "other")?;
    let output = child(&own, &[how.as_ref(), other.as_os_str()]).output()?;
    let said = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> = said.lines().collect();
    match sandbox::landlock_supported() {
        Some(abi) => {
            let expected = [
                &*format!("landlock {abi}"),
                "own reopened",
                "other refused",
                "folder refused",
                "new file refused",
                "listening refused",
                "program refused",
                "socket refused",
                "process refused",
                "thread refused",
                "own not reopened",
            ];
            if lines != expected {
                return Err(format!("with Landlock ABI {abi} the child said {lines:?}").into());
            }
        }
        None => {
            println!("!!! THIS KERNEL HAS NO LANDLOCK: that other files cannot be opened was NOT checked");
            let without_landlock = ["listening refused", "program refused", "own not reopened"];
            if lines.first() != Some(&"landlock none") || without_landlock.iter().any(|line| !lines.contains(line)) {
                return Err(format!("without Landlock the child said {lines:?}").into());
            }
        }
    }
    Ok(())
}

fn a_worker_without_memory_ends_and_nothing_else_does() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("small.h5");
    hdf5::File::create(&path)?.close()?;
    let Request::Inspect { limits, inline, file_bytes, .. } = inspect(&path)? else {
        return Err("no inspection".into());
    };
    let request = Request::Inspect { limits, inline, file_bytes, memory_bytes_max: 1 << 20 };
    let frames = ask(&path, &request)?;
    match frames.last().map(|frame| &frame.message) {
        None | Some(Message::Failed { .. }) => Ok(()),
        Some(last) => Err(format!("with 1 MiB of memory the worker ended with {last:?}").into()),
    }
}

fn a_request_that_is_not_understood_is_answered() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("any");
    std::fs::write(&path, "any")?;
    let frames = frames(&path, b"\x0e\0\0\0{\"do\":\"dance\"}")?;
    match frames.as_slice() {
        [Frame { message: Message::Failed { .. }, .. }] => Ok(()),
        other => Err(format!("answered {other:?}").into()),
    }
}

fn a_worker_writes_its_file_inside_the_sandbox() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("new.h5");
    std::fs::write(&path, "what was there is forgotten")?;
    let chunk = |row: u64, rows: u64, values: [i32; 2]| {
        let data = values.map(i32::to_le_bytes).concat();
        [WriteStep::Chunk { origin: vec![row], mask: 0, rows }.head(8), data].concat()
    };
    let steps = [chunk(0, 2, [1, 2]), chunk(2, 3, [3, 0]), WriteStep::Finish.head(0)].concat();
    let frames = frames(&path, &[new_file("/a/b c/data").to_wire(), steps].concat())?;
    if !matches!(frames.as_slice(), [Frame { message: Message::Done, .. }]) {
        return Err(format!("answered {frames:?}").into());
    }
    let file = hdf5::File::open(&path)?;
    let dataset = file.dataset("a/b c/data")?;
    let (values, unit) = (dataset.read_raw::<i32>()?, dataset.attr("rate")?.read_scalar::<f64>()?);
    if (values.as_slice(), unit, dataset.chunk()) != (&[1, 2, 3], 2.5, Some(vec![2])) {
        return Err(format!("{values:?}, {unit}").into());
    }
    Ok(())
}

fn a_file_whose_chunks_break_off_is_not_answered_as_done() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("new.h5");
    std::fs::write(&path, "")?;
    let step = WriteStep::Chunk { origin: vec![0], mask: 0, rows: 2 }.head(8);
    let frames = frames(&path, &[new_file("/data").to_wire(), step].concat())?;
    match frames.as_slice() {
        [Frame { message: Message::Failed { .. }, .. }] => Ok(()),
        other => Err(format!("answered {other:?}").into()),
    }
}

fn new_file(path: &str) -> Request {
    let dataset = NewDataset {
        path: path.into(),
        element: ElementType::Integer { bytes: 4, signed: true, order: ByteOrder::Little },
        row_shape: Vec::new(),
        chunk_shape: vec![2],
        filters: Vec::new(),
        attributes: [("rate".to_owned(), 2.5.into())].into_iter().collect(),
    };
    Request::Write { dataset: Box::new(dataset), file_bytes_max: 1 << 20, memory_bytes_max: 1 << 30 }
}

fn inspect(path: &Path) -> Result<Request, Box<dyn Error>> {
    Ok(Request::Inspect {
        limits: Default::default(),
        inline: true,
        file_bytes: std::fs::metadata(path)?.len(),
        memory_bytes_max: 1 << 30,
    })
}

fn object_path(message: &Message) -> Option<&str> {
    match message {
        Message::Object(object) => Some(&object.path),
        _ => None,
    }
}

fn ask(file: &Path, request: &Request) -> Result<Vec<Frame>, Box<dyn Error>> {
    frames(file, &request.to_wire())
}

fn frames(file: &Path, request: &[u8]) -> Result<Vec<Frame>, Box<dyn Error>> {
    let mut child =
        child(file, &["worker".as_ref()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    // A worker that ended before it read its request is seen by what it did not answer.
    let _ = child.stdin.take().ok_or("no standard input")?.write_all(request);
    let output = child.wait_with_output()?;
    let mut rest = output.stdout.as_slice();
    let mut frames = Vec::new();
    while let Some(frame) = Frame::read_from(&mut rest)? {
        frames.push(frame);
    }
    Ok(frames)
}

/// This program with the file as descriptor 3: the shell does what the server does between fork and exec.
fn child(file: &Path, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = "file=$1; program=$2; shift 2; exec 3<>\"$file\" \"$program\" \"$@\"";
    let program = std::env::current_exe().expect("a running program has a path");
    command.args(["-c", script, "sh"]).arg(file).arg(program).args(arguments).env_clear();
    command
}

fn probe(purpose: Purpose, other: &Path) -> ExitCode {
    // SAFETY: `child` passes an open file as this descriptor.
    let file = unsafe { BorrowedFd::borrow_raw(FILE_FD) };
    let report = sandbox::apply(file, purpose, 1 << 30).expect("the sandbox applies");
    let said = |works: bool, can: &str, cannot: &str| println!("{}", if works { can } else { cannot });
    println!("landlock {}", report.landlock_abi.map_or("none".into(), |abi| abi.to_string()));
    said(std::fs::read(format!("/proc/self/fd/{FILE_FD}")).is_ok(), "own reopened", "own refused");
    said(std::fs::read(other).is_ok(), "other opened", "other refused");
    said(std::fs::read_dir(other.parent().expect("a file has a folder")).is_ok(), "folder listed", "folder refused");
    said(std::fs::write(other.with_extension("new"), "").is_ok(), "new file written", "new file refused");
    said(TcpListener::bind("127.0.0.1:0").is_ok(), "listening allowed", "listening refused");
    said(Command::new("/bin/true").status().is_ok(), "program started", "program refused");
    said(UnixStream::pair().is_ok(), "socket made", "socket refused");
    // SAFETY: where a child is made all the same, it does nothing but end.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        std::process::exit(0);
    }
    said(forked > 0, "process made", "process refused");
    said(std::thread::Builder::new().spawn(|| ()).is_ok(), "thread made", "thread refused");
    report.opened().expect("the second filter applies");
    said(std::fs::read(format!("/proc/self/fd/{FILE_FD}")).is_ok(), "own reopened again", "own not reopened");
    ExitCode::SUCCESS
}
