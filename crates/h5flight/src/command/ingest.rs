//! `h5flight ingest`: files are uploaded, some at a time; the server keeps them by their content. What breaks off goes on
//! by itself, and what is interrupted goes on when the same command is given again.

use std::io::Read;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use h5flight_proto::client::{Client, ClientError, Retry, UploadEvent};
use h5flight_proto::v1::{IngestHeader, IngestResponse};
use serde_json::json;

use super::progress::Bars;
use super::register::{noted, publication_json, publication_text};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, JsonArray, clean, line, note};
use crate::quantity::show_bytes;

/// Bytes that are hashed at a time; between two pieces Ctrl-C is noticed.
const HASH_BYTES: usize = 1 << 20;
/// Characters of a content address that are shown to people: enough to tell files apart.
const CONTENT_SHOWN: usize = 12;
/// Uploads at the same time at most: one alone fills most links, some hide that the server indexes what came.
const PARALLEL_MAX: u64 = 16;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Animal; without it the file decides
    #[arg(long)]
    pub animal: Option<String>,
    /// Experiment; without it the file decides
    #[arg(long)]
    pub experiment: Option<String>,
    /// Replace datasets that are served from another file
    #[arg(long)]
    pub replace: bool,
    /// Idempotency key: repeating the upload with it gives the first answer again; one file only
    #[arg(long)]
    pub key: Option<String>,
    /// Files that are uploaded at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=PARALLEL_MAX))]
    pub parallel: u64,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Uploads the files, and shows the answers in their order.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    if args.key.is_some() && args.files.len() > 1 {
        return Err(Failure::usage(format!("--key names one upload, but {} files are given", args.files.len())));
    }
    let files = args.files.iter().map(|path| LocalFile::look_at(path)).collect::<Result<Vec<_>, _>>()?;
    let parallel = usize::try_from(args.parallel).expect("the number was checked");
    let done = with_client(&args.connection, globals, async |client| {
        let bars = Bars::new(globals.form);
        let uploads = files.iter().map(|file| upload(&client, args, file, &bars));
        let mut answers = futures::stream::iter(uploads).buffered(parallel).zip(futures::stream::iter(&files));
        let mut array = JsonArray::default();
        let mut refused = 0u64;
        while let Some((answer, file)) = answers.next().await {
            match answer {
                Ok(answer) => bars.aside(|| show(globals.form, &mut array, file, &answer))?,
                // One file that is refused does not keep the others from being uploaded.
                Err(ClientError::Refused(status)) if files.len() > 1 && concerns_file_only(&status) => {
                    refused += 1;
                    bars.aside(|| show_refusal(globals.form, &mut array, file, *status))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if globals.form == Form::Json {
            array.finish()?;
        }
        if refused > 0 { Err(Failure::Reported) } else { Ok(()) }
    });
    if matches!(done, Err(Failure::Interrupted)) && globals.form == Form::People {
        note("what was uploaded is kept by the server: give the same command again to go on");
    }
    done
}

/// A file of this machine that can be uploaded.
struct LocalFile {
    path: PathBuf,
    name: String,
    bytes: u64,
}

impl LocalFile {
    /// Refuses what is no regular, readable file before anything is sent.
    fn look_at(path: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::file(path, &error);
        let facts = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(failed)?;
        if !facts.is_file() {
            return Err(Failure::local("not_a_regular_file", format!("{}: not a regular file", path.display())));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Failure::usage(format!("{}: its name is not UTF-8", path.display())))?.to_owned();
        Ok(Self { path: path.to_owned(), name, bytes: facts.len() })
    }
}

fn concerns_file_only(status: &tonic::Status) -> bool {
    use tonic::Code;
    let known = h5flight_proto::reason::reason_of(status);
    let per_file = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::DataLoss
            | Code::Unimplemented
            | Code::ResourceExhausted
    );
    per_file && known.is_some_and(|reason| reason != "disk_full" && reason != "busy")
}

async fn upload(client: &Client, args: &Args, file: &LocalFile, bars: &Bars) -> Result<IngestResponse, ClientError> {
    let hash = hash(file, bars).await?;
    let header = IngestHeader {
        file_name: file.name.clone(),
        file_bytes: file.bytes,
        blake3: hash.to_hex().to_string(),
        idempotency_key: args.key.clone().unwrap_or_default(),
        animal: args.animal.clone().unwrap_or_default(),
        experiment: args.experiment.clone().unwrap_or_default(),
        replace: args.replace,
        expected: Vec::new(),
        offset: 0,
    };
    let bar = bars.bytes(&format!("{} uploading", file.name), file.bytes);
    let (moving, beside, name, bytes) = (bar.clone(), bars.clone(), file.name.clone(), file.bytes);
    let events = move |event| match event {
        UploadEvent::Sent(sent) => {
            moving.set_position(sent);
            let doing = if sent == bytes { "being indexed" } else { "uploading" };
            moving.set_message(clean(&format!("{name} {doing}")));
        }
        UploadEvent::Waiting { why, wait } => {
            beside.note(&format!("{name}: {why}; going on in {:.1} s", wait.as_secs_f64()));
            moving.set_message(clean(&format!("{name} waiting")));
        }
    };
    let answer = client.upload(&file.path, header, Retry::default(), events).await;
    bar.finish_and_clear();
    answer
}

/// blake3 of the file, so that the server can tell a damaged upload from a whole one.
async fn hash(file: &LocalFile, bars: &Bars) -> Result<blake3::Hash, ClientError> {
    let failed = |source| ClientError::File { path: file.path.display().to_string(), source };
    let bar = bars.bytes(&format!("{} hashing", file.name), file.bytes);
    let mut input = std::fs::File::open(&file.path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => hasher.update(&buffer[..bytes]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        bar.set_position(hasher.count());
        tokio::task::yield_now().await;
    }
    bar.finish_and_clear();
    Ok(hasher.finalize())
}

fn show(form: Form, array: &mut JsonArray, file: &LocalFile, answer: &IngestResponse) -> Result<(), Failure> {
    let publication = answer.publication.clone().unwrap_or_default();
    match form {
        Form::Json => array.push(&json!({
            "file": file.path.display().to_string(),
            "bytes": file.bytes,
            "content": answer.content,
            "publication": publication_json(&publication),
            "error": null,
            "note": Some(answer.message.as_str()).filter(|note| !note.is_empty()),
        })),
        Form::People => {
            let content: String = answer.content.chars().take(CONTENT_SHOWN).collect();
            let said = publication_text(&publication);
            let left_out = noted(&answer.message);
            line(&clean(&format!("{}  {said}  {}  content {content}{left_out}", file.name, show_bytes(file.bytes))))
        }
    }
}

fn show_refusal(form: Form, array: &mut JsonArray, file: &LocalFile, status: tonic::Status) -> Result<(), Failure> {
    let Failure::Failed { reason, message, .. } = Failure::from(status) else { return Err(Failure::Reported) };
    match form {
        Form::Json => array.push(&json!({
            "file": file.path.display().to_string(),
            "bytes": file.bytes,
            "publication": null,
            "error": {"reason": reason, "message": message},
        })),
        Form::People => line(&clean(&format!("{}  refused ({reason}): {message}", file.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_readable_file_is_refused_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let text = |path: &Path| LocalFile::look_at(path).err().unwrap().text(Form::People).unwrap();
        assert!(text(folder.path()).ends_with("not a regular file"));
        assert!(text(&folder.path().join("none.h5")).ends_with("none.h5: No such file or directory (os error 2)"));
    }

    #[tokio::test]
    async fn the_hash_is_that_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let content = vec![7u8; HASH_BYTES * 2 + 5];
        std::fs::write(&path, &content).unwrap();
        let file = LocalFile::look_at(&path).unwrap();
        assert_eq!(hash(&file, &Bars::new(Form::Json)).await.unwrap(), blake3::hash(&content));
    }
}
