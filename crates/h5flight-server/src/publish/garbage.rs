//! What nobody needs any more in the data folder: managed files that no row names, uploads that nobody went on with,
//! temporary files of a server that was killed.
//!
//! A file is removed only when it is older than the grace period, when nobody has it locked, and when the catalogue,
//! asked while the file is locked, has no row for it ([`super::held`] says why that is enough). The age is the later of
//! mtime and ctime: a move to an address counts as new. A data folder that belongs to another catalogue is left alone:
//! there every file would look like garbage.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use h5flight_array::Reason;
use h5flight_catalog::model::{FilePlace, Page};

use super::put::compact::drop_unused;
use super::{held, partial};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::files::disk_error;
use crate::service::Service;

/// How often a server looks for garbage by itself.
pub const INTERVAL: Duration = Duration::from_secs(3600);
/// Pieces that a report names; the rest is counted.
const NAMED_MAX: usize = 10_000;
/// A temporary file is not locked while a mark is written: it lives for milliseconds.
const TEMPORARY_AGE_MIN: Duration = Duration::from_secs(3600);
/// Holds which catalogue the data folder belongs to.
const OWNER: &str = "catalog.id";

/// What a piece of garbage was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GarbageKind {
    /// A managed file that no row names.
    File,
    /// An upload that nobody went on with.
    Upload,
    /// A temporary file.
    Temporary,
}

/// One piece of garbage.
#[derive(Clone, Debug)]
pub struct Garbage {
    /// What it was.
    pub kind: GarbageKind,
    /// For people: the content address of a file, the name that was announced of an upload.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// For how long nobody had touched it.
    pub age: Duration,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// The first of them.
    pub named: Vec<Garbage>,
    /// How many there were.
    pub count: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
}

/// Whether garbage is removed or only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// Removed.
    Remove,
    /// Told.
    Tell,
}

/// Something that may be garbage.
struct Suspect {
    path: PathBuf,
    bytes: u64,
    age: Duration,
}

/// Looks through the data folder once; one at a time in a server.
///
/// # Errors
/// `busy` when it is being done; `io`, and `garbage_refused` when the folder belongs to another catalogue;
/// `catalog_unavailable`.
pub async fn collect(service: &Arc<Service>, how: Collect) -> Result<Collection> {
    let patience = Duration::from_millis(service.config.admission_timeout_ms);
    let Ok(_alone) = tokio::time::timeout(patience, service.collecting.lock()).await else {
        return Err(Error::new(Reason::Busy, "garbage is being collected already"));
    };
    let mut collection = Collection::default();
    if how == Collect::Remove {
        drop_unused(service).await?;
    }
    files(service, how, &mut collection).await?;
    let (folder, expiry) = (service.uploads.folder().to_owned(), hours(service.config.upload_expiry_hours));
    for garbage in run(service, move || uploads(&folder, expiry, how)).await? {
        collection.add(garbage);
    }
    Ok(collection)
}

impl Collection {
    fn add(&mut self, garbage: Garbage) {
        self.count += 1;
        self.bytes += garbage.bytes;
        if self.named.len() < NAMED_MAX {
            self.named.push(garbage);
        }
    }
}

/// Managed files: those on the disk that are old enough, without those that the catalogue lists, one by one.
async fn files(service: &Arc<Service>, how: Collect, collection: &mut Collection) -> Result<()> {
    let (folder, grace) = (service.files.managed_folder().to_owned(), hours(service.config.garbage_grace_hours));
    let mut suspects = run(service, move || managed(&folder, grace)).await?;
    let (found, mut newest) = (suspects.len(), 0);
    let mut page = Page { size: 1000, token: String::new() };
    loop {
        let listed = service.catalog.list_files(&page).await?;
        for file in listed.items {
            newest = newest.max(file.id);
            if let FilePlace::Managed { content } = file.place
                && let Ok(content) = blake3::Hash::from_hex(&content)
            {
                suspects.remove(&content);
            }
        }
        page.token = listed.next;
        if page.token.is_empty() {
            break;
        }
    }
    own(service, Known { newest, any: suspects.len() < found || found == 0 }, how).await?;
    for (content, suspect) in suspects {
        let name = content.to_hex().to_string();
        let Suspect { path, bytes, age } = suspect;
        let locked = path.clone();
        let Some(lock) = run(service, move || held::condemn(&locked)).await? else { continue };
        // Since the list was read it may have been published. From here on it cannot be.
        if service.catalog.find_file(&FilePlace::Managed { content: name.clone() }).await?.is_some() {
            continue;
        }
        if how == Collect::Remove {
            run(service, move || std::fs::remove_file(&path).map_err(|error| disk_error("removing garbage", error)))
                .await?;
        }
        drop(lock);
        collection.add(Garbage { kind: GarbageKind::File, name, bytes, age });
    }
    Ok(())
}

/// What the catalogue knows of the folder.
#[derive(Clone, Copy)]
struct Known {
    /// The id of its newest file. Ids only grow.
    newest: i64,
    /// Whether it knows some of what is there, or nothing is there.
    any: bool,
}

/// Makes sure that the folder is this catalogue's, and that the catalogue is not older than the folder: one that was set
/// back does not know what came since. A folder without an owner becomes ours when the catalogue knows any of it.
async fn own(service: &Arc<Service>, known: Known, how: Collect) -> Result<()> {
    let secret = service.catalog.secret(h5flight_catalog::OWNER_SECRET).await?;
    let id = blake3::hash(&secret).to_hex().to_string();
    let path = service.config.data_dir.join(OWNER);
    let refused = |why: &str| {
        let message = format!("the data folder {why}: no file of it is removed; remove {OWNER} in it if that is wrong");
        Err(Error::new(Reason::GarbageRefused, message))
    };
    let read = path.clone();
    let told = run(service, move || Ok(std::fs::read_to_string(read).ok())).await?;
    let mut lines = told.as_deref().unwrap_or_default().lines();
    let (owner, newest) = (lines.next(), lines.next().and_then(|line| line.parse::<i64>().ok()).unwrap_or(0));
    match owner {
        Some(owner) if owner.trim() != id => return refused("belongs to another catalogue"),
        Some(_) if newest > known.newest => return refused("has files that are newer than this catalogue"),
        Some(_) if newest == known.newest => return Ok(()),
        None if !known.any => return refused("has files, none of which this catalogue knows"),
        Some(_) | None => {}
    }
    if how == Collect::Tell {
        return Ok(());
    }
    let folder = service.config.data_dir.clone();
    let write = move || {
        let refused = |error| disk_error("marking the data folder", error);
        let mut new = tempfile::NamedTempFile::new_in(folder).map_err(refused)?;
        writeln!(new, "{id}\n{}", known.newest).and_then(|()| new.as_file().sync_all()).map_err(refused)?;
        new.persist(path).map(drop).map_err(|error| refused(error.error))
    };
    run(service, write).await
}

/// The managed files that nobody touched for this long, by content.
fn managed(folder: &Path, grace: Duration) -> Result<HashMap<blake3::Hash, Suspect>> {
    let mut found = HashMap::new();
    for inner in entries(folder)? {
        if !inner.is_dir() {
            continue;
        }
        for path in entries(&inner)? {
            let content = path.file_stem().and_then(|stem| stem.to_str()).map(blake3::Hash::from_hex);
            if let (Some(Ok(content)), Some("h5"), Some(suspect)) = (content, extension(&path), old(&path, grace)) {
                found.insert(content, suspect);
            }
        }
    }
    Ok(found)
}

/// Removes, or tells, what is left of uploads.
fn uploads(folder: &Path, expiry: Duration, how: Collect) -> Result<Vec<Garbage>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let garbage = match extension(&path) {
            Some(partial::PART) => upload(&path, expiry, how)?,
            // A mark without its part: from a removal that was cut off.
            Some(partial::MARK) if !path.with_extension(partial::PART).exists() => upload(&path, expiry, how)?,
            Some("tmp") => temporary(&path, expiry.max(TEMPORARY_AGE_MIN), how)?,
            _ => None,
        };
        found.extend(garbage);
    }
    Ok(found)
}

fn upload(path: &Path, expiry: Duration, how: Collect) -> Result<Option<Garbage>> {
    let Some(Suspect { bytes, age, .. }) = old(path, expiry) else { return Ok(None) };
    let part = path.with_extension(partial::PART);
    let _lock = match how {
        // Made where it is missing: whoever begins this upload now waits for the lock of its part.
        Collect::Remove => match partial::lock(&part) {
            Ok(lock) => Some(lock),
            Err(error) if error.reason() == Reason::UploadInProgress => return Ok(None),
            Err(error) => return Err(error),
        },
        Collect::Tell => match held::condemn(&part)? {
            None if part.exists() => return Ok(None),
            lock => lock,
        },
    };
    let folder = path.parent().expect("an upload lies in a folder");
    let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let name = partial::read_mark(folder, id).map_or_else(|| id.to_owned(), |mark| mark.file_name);
    if how == Collect::Remove {
        partial::remove(&part);
    }
    Ok(Some(Garbage { kind: GarbageKind::Upload, name, bytes, age }))
}

fn temporary(path: &Path, age_min: Duration, how: Collect) -> Result<Option<Garbage>> {
    let Some(Suspect { bytes, age, .. }) = old(path, age_min) else { return Ok(None) };
    let Some(_lock) = held::condemn(path)? else { return Ok(None) };
    if how == Collect::Remove {
        std::fs::remove_file(path).map_err(|error| disk_error("removing garbage", error))?;
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    Ok(Some(Garbage { kind: GarbageKind::Temporary, name, bytes, age }))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let refused = |error| disk_error("looking for garbage", error);
    let listed = std::fs::read_dir(folder).map_err(refused)?;
    listed.map(|entry| entry.map(|entry| entry.path()).map_err(refused)).collect()
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|extension| extension.to_str())
}

/// The regular file at this path, if nobody touched it for this long. What vanished meanwhile is not there.
fn old(path: &Path, age_min: Duration) -> Option<Suspect> {
    let found = path.symlink_metadata().ok().filter(Metadata::is_file)?;
    let age = touched(&found).elapsed().unwrap_or_default();
    (age >= age_min).then(|| Suspect { path: path.to_owned(), bytes: found.len(), age })
}

fn touched(found: &Metadata) -> SystemTime {
    use std::os::unix::fs::MetadataExt;
    let changed = Duration::new(u64::try_from(found.ctime()).unwrap_or(0), 0);
    let changed = SystemTime::UNIX_EPOCH + changed;
    found.modified().map_or(changed, |modified| modified.max(changed))
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours.saturating_mul(3600))
}

async fn run<T: Send + 'static>(service: &Service, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    service.blocking.run(Lane::Decode(&Share::default(), 0), work).await
}
