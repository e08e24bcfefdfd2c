//! `h5flight backup create`: the catalogue first, then the files that it names, the manifest last.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::Utc;
use h5flight_array::file;
use h5flight_catalog::model::{DumpedFile, FilePlace, Fingerprint};
use h5flight_server::config::Config;
use indicatif::ProgressBar;
use serde_json::json;

use super::copy::{Hashed, copy, read_dump};
use super::manifest::{Catalogue, Content, Manifest, Registered};
use super::place::{Place, catalogue_name, content_name};
use crate::command::progress::bytes_bar;
use crate::command::token::{Missing, open_catalog};
use crate::failure::{Failure, with_causes};
use crate::output::{Form, json as print_json, line, note};
use crate::quantity::{show_bytes, show_number_of};
use crate::settings::{StorageFlags, process_environment};

/// Of zstd: more makes a dump hardly smaller.
const DUMP_LEVEL: i32 = 3;

/// How often the catalogue is asked, where files go that it named.
const DUMPS_MAX: u32 = 3;
/// The reason of a file that is not there.
const GONE: &str = "file_not_found";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the backups; made where it is missing
    dest: String,
    /// Copy registered files too, as far as they are what was indexed
    #[arg(long)]
    copy_registered: bool,
    #[command(flatten)]
    storage: StorageFlags,
}

/// What was done.
#[derive(Default)]
struct Tally {
    copied: u64,
    copied_bytes: u64,
    kept: u64,
}

/// Makes a backup.
pub async fn run(args: &Args, form: Form) -> Result<(), Failure> {
    let config = args.storage.load(&process_environment)?.config;
    let (place, _lock) = Place::make(&args.dest)?;
    let name = Utc::now().format("%Y%m%dT%H%M%S%6fZ").to_string();
    let mut tally = Tally::default();
    let (catalogue, files) = keep_uploaded(&config, &place, (&name, form), &mut tally).await?;
    let (managed, registered) = (managed(&files), registered(&files));
    let registered = match args.copy_registered {
        true => {
            let announced = registered.iter().map(|file| file.bytes).sum();
            keep_registered(&config, &place, registered, &bytes_bar(form, "copying", announced), &mut tally).await?
        }
        false => registered,
    };
    let manifest = Manifest::new(name, catalogue, managed, registered);
    manifest.write(&place)?;
    show(&manifest, &tally, form)
}

/// The catalogue, and a copy of each upload that it names.
///
/// What compaction put out of use may be removed while others are copied: then the catalogue is asked again, which does
/// not name it any more.
async fn keep_uploaded(
    config: &Config,
    place: &Place,
    (name, form): (&str, Form),
    tally: &mut Tally,
) -> Result<(Catalogue, Vec<DumpedFile>), Failure> {
    let mut dumps_left = DUMPS_MAX;
    loop {
        dumps_left -= 1;
        let catalogue = dump(config, place, name).await?;
        #[cfg(feature = "failpoints")]
        fail::fail_point!("backup::dumped");
        let files = h5flight_catalog::files_of_dump(&mut read_dump(place, name)?)?;
        let managed = managed(&files);
        let announced = managed.iter().map(|content| content.bytes).sum();
        match keep_managed(config, place, &managed, &bytes_bar(form, "copying", announced), tally).await {
            Ok(()) => {
                tally.kept = (managed.len() as u64).saturating_sub(tally.copied);
                return Ok((catalogue, files));
            }
            Err(failure) if dumps_left > 0 && failure.reason() == Some(GONE) => {
                note("a file is gone since the catalogue was asked; asking it again");
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn dump(config: &Config, place: &Place, name: &str) -> Result<Catalogue, Failure> {
    let catalog = open_catalog(config, Missing::Refuse).await?;
    let mut pending = place.begin(&catalogue_name(name))?;
    let failed = |error: std::io::Error| Failure::local("io", format!("{}: {error}", catalogue_name(name)));
    let mut hashed = Hashed::new(std::io::BufWriter::new(pending.file.as_file_mut()));
    let mut encoder = zstd::stream::write::Encoder::new(&mut hashed, DUMP_LEVEL).map_err(failed)?;
    catalog.dump(&mut encoder).await?;
    encoder.finish().map_err(failed)?;
    std::io::Write::flush(&mut hashed).map_err(failed)?;
    let Content { blake3, bytes } = hashed.content();
    drop(hashed);
    pending.keep()?;
    Ok(Catalogue { backend: catalog.backend().to_owned(), bytes, blake3 })
}

/// Each uploaded content once.
fn managed(files: &[DumpedFile]) -> Vec<Content> {
    let contents = files.iter().filter_map(|file| match &file.place {
        FilePlace::Managed { content } => Some((content, file.fingerprint.bytes)),
        FilePlace::Registered { .. } => None,
    });
    let contents: BTreeMap<_, _> = contents.collect();
    contents.into_iter().map(|(blake3, bytes)| Content { blake3: blake3.clone(), bytes }).collect()
}

/// The newest state of each registered file.
fn registered(files: &[DumpedFile]) -> Vec<Registered> {
    let mut newest: BTreeMap<(&str, &str), &DumpedFile> = BTreeMap::new();
    for file in files {
        let FilePlace::Registered { root, path } = &file.place else { continue };
        let known = newest.entry((root, path)).or_insert(file);
        if known.generation < file.generation {
            *known = file;
        }
    }
    let entry = |((root, path), file): ((&str, &str), &DumpedFile)| {
        let Fingerprint { device, inode, bytes, modified_ns } = file.fingerprint;
        let (root, path) = (root.to_owned(), path.to_owned());
        Registered { root, path, device, inode, bytes, modified_ns, copy: None, problem: None }
    };
    newest.into_iter().map(entry).collect()
}

/// Copies what is not there yet. All that can be copied is, then the first that could not is the failure: there is no
/// backup with a hole.
async fn keep_managed(
    config: &Config,
    place: &Place,
    managed: &[Content],
    bar: &ProgressBar,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for content in managed {
        let name = content_name(&content.blake3)?;
        if place.bytes_of(&name)? == Some(content.bytes) {
            bar.inc(content.bytes);
            continue;
        }
        match keep_file(&config.data_dir.join(&name), content, place, bar).await {
            Ok(()) => tally.add(content),
            Err(failure) => failures.push(failure),
        }
    }
    let count = failures.len();
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) if count == 1 => Err(first),
        Some(first) => {
            note(&format!("{} could not be copied; the first:", show_number_of(count as u64, "file")));
            Err(first)
        }
    }
}

async fn keep_file(path: &Path, expected: &Content, place: &Place, bar: &ProgressBar) -> Result<(), Failure> {
    let mut from = match File::open(path) {
        Ok(from) => from,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("{} is named by the catalogue but is not there; no backup was made", path.display());
            return Err(Failure::local(GONE, message));
        }
        Err(error) => return Err(Failure::file(path, &error)),
    };
    let mut pending = place.begin(&content_name(&expected.blake3)?)?;
    let found = copy(&mut from, pending.file.as_file_mut(), bar).await.map_err(|error| Failure::file(path, &error))?;
    if found != *expected {
        let message = format!(
            "{} is damaged: {} bytes with blake3 {} instead of {} bytes; no backup was made",
            path.display(),
            found.bytes,
            found.blake3,
            expected.bytes
        );
        return Err(Failure::local("damaged", message));
    }
    pending.keep()
}

/// Copies registered files; one that changed or is away is noted in its entry, for its owner may change it any time.
async fn keep_registered(
    config: &Config,
    place: &Place,
    mut registered: Vec<Registered>,
    bar: &ProgressBar,
    tally: &mut Tally,
) -> Result<Vec<Registered>, Failure> {
    for entry in &mut registered {
        match copy_registered(config, place, entry, bar).await? {
            Ok((content, Copied::Now)) => {
                tally.add(&content);
                entry.copy = Some(content);
            }
            Ok((content, Copied::Before)) => {
                tally.kept += 1;
                entry.copy = Some(content);
            }
            Err(problem) => {
                note(&format!("{}:{} is not in the backup: {problem}", entry.root, entry.path));
                entry.problem = Some(problem);
            }
        }
    }
    Ok(registered)
}

enum Copied {
    Now,
    Before,
}

/// The outer error ends the backup, the inner one concerns this file only.
async fn copy_registered(
    config: &Config,
    place: &Place,
    entry: &Registered,
    bar: &ProgressBar,
) -> Result<Result<(Content, Copied), String>, Failure> {
    let Some(root) = config.roots.iter().find(|root| root.name == entry.root) else {
        return Ok(Err(format!("the root {:?} is not configured; name it with --root", entry.root)));
    };
    let opened = file::open_root(&root.path).and_then(|folder| file::open_beneath(&folder, Path::new(&entry.path)));
    let mut from = match opened {
        Ok(from) => from,
        Err(error) => return Ok(Err(with_causes(&error))),
    };
    let is_unchanged = |from: &File| from.metadata().map(|facts| fits(&facts, entry));
    bar.inc_length(entry.bytes);
    let path = root.path.join(&entry.path);
    let failed = |error: std::io::Error| Failure::file(&path, &error);
    if !is_unchanged(&from).map_err(failed)? {
        return Ok(Err("it has changed since it was indexed".to_owned()));
    }
    // Its name in the backup is known when it was read: it is written first.
    let mut pending = place.begin("files/registered")?;
    let content = match copy(&mut from, pending.file.as_file_mut(), bar).await {
        Ok(content) => content,
        Err(error) => return Err(failed(error)),
    };
    if !is_unchanged(&from).map_err(failed)? {
        return Ok(Err("it changed while it was copied".to_owned()));
    }
    let name = content_name(&content.blake3)?;
    if place.bytes_of(&name)? == Some(content.bytes) {
        return Ok(Ok((content, Copied::Before)));
    }
    pending.keep_as(place, &name)?;
    Ok(Ok((content, Copied::Now)))
}

fn fits(facts: &Metadata, entry: &Registered) -> bool {
    let modified_ns = facts.mtime().saturating_mul(1_000_000_000).saturating_add(facts.mtime_nsec());
    (facts.dev(), facts.ino(), facts.len(), modified_ns) == (entry.device, entry.inode, entry.bytes, entry.modified_ns)
}

impl Tally {
    fn add(&mut self, content: &Content) {
        self.copied += 1;
        self.copied_bytes += content.bytes;
    }
}

fn show(manifest: &Manifest, tally: &Tally, form: Form) -> Result<(), Failure> {
    if form == Form::Json {
        return print_json(&json!({
            "name": manifest.name, "created_at": manifest.created_at, "catalogue": manifest.catalogue.backend,
            "bytes": manifest.bytes(), "files": manifest.managed.len(), "copied_files": tally.copied,
            "copied_bytes": tally.copied_bytes, "kept_files": tally.kept, "registered": manifest.registered.len(),
            "registered_copied": manifest.copies(),
        }));
    }
    let copied = format!("{} copied ({})", show_number_of(tally.copied, "file"), show_bytes(tally.copied_bytes));
    let catalogue = show_bytes(manifest.catalogue.bytes);
    line(&format!("backup {}: {copied}, {} kept, catalogue {catalogue}", manifest.name, tally.kept))
}
