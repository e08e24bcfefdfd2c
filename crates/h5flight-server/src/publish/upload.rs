//! An upload: bytes arrive in a partial file beside their destination, hashed on the way, and become visible in the end.
//!
//! The order is what makes it safe: bytes, fsync, inspection, move to the content address, fsync of the folders, one SQL
//! transaction, acknowledgement. A crash before the transaction leaves a file that nobody names, or a partial one that
//! its client goes on with. What counts as durable was flushed first and is in the mark ([`super::partial`]); the bytes
//! at an address are locked until the row that names them is committed ([`super::held`]).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use h5flight_array::Reason;
use h5flight_array::file::StoredFile;
use h5flight_catalog::model::{FilePlace, Fingerprint, Published};

use super::header::UploadHeader;
use super::held::{Adopted, Held, adopt};
use super::names::{LeftOut, Naming};
use super::partial::{self, Mark, Partial};
use super::receiving::Receiving;
use super::running::Slot;
use super::{Made, checksums};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::files;
use crate::service::Service;
use crate::worker::Inspection;

/// Tells uploads apart that nobody can come back for.
static NAMELESS: AtomicU64 = AtomicU64::new(0);
/// Bytes of a managed file that are read back in one task.
const HASHED_BYTES: u64 = 8 << 20;
/// How often a file is asked for that somebody else has locked.
const CONTENDED_WAIT: Duration = Duration::from_millis(50);

/// What an upload made.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// blake3, lowercase hex.
    pub content: String,
    /// What is visible, and what is not.
    pub made: Made,
}

/// How an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadStatus {
    /// Nothing is here.
    None,
    /// It broke off after so many durable bytes.
    Partial(u64),
    /// A stream is under way, with so many durable bytes by now.
    Running(u64),
    /// All bytes are here.
    Complete,
}

/// Takes one upload from its header to its publication. `durable` is told how many bytes are durable, now and then.
///
/// # Errors
/// `bad_request`, `upload_too_large`, `upload_in_progress`, `upload_offset`; `upload_mismatch` and those of inspecting,
/// and then nothing is left behind; `disk_full`, `io` and those of `data`, and then it can go on; those of publishing,
/// and then the bytes stay at their address, where a repeated upload finds them.
pub async fn upload(
    service: &Arc<Service>,
    header: UploadHeader,
    data: impl Stream<Item = Result<Bytes>> + Unpin,
    durable: impl Fn(u64),
) -> Result<Uploaded> {
    header.check(service.config.upload_bytes_max)?;
    if let Some(published) = earlier(service, &header).await? {
        let content = published.content.clone().unwrap_or_default();
        return Ok(Uploaded { content, made: Made { published, left_out: LeftOut::default() } });
    }
    let id = header.id();
    let name = id.clone().unwrap_or_else(|| format!("nameless-{:032x}", NAMELESS.fetch_add(1, Ordering::Relaxed)));
    let slot = service.uploads.enter(&name).await?;
    if let Some(held) = stored(service, &header).await? {
        return publish_stored(service, &header, held).await;
    }
    reserve(service, &header, &slot, name).await?;
    let partial = begin(service, &header, id).await?;
    let mut receiving = Receiving::new(service, header, slot, partial);
    match receiving.receive(data, durable).await {
        Ok(()) => receiving.finish().await,
        Err(error) => Err(receiving.give_up(error).await),
    }
}

/// How far an upload is; of its header the size, the blake3, the key and the principal count.
///
/// # Errors
/// `upload_mismatch` for a key that was used for another file; `catalog_unavailable`, `io`.
pub async fn upload_status(service: &Arc<Service>, header: &UploadHeader) -> Result<UploadStatus> {
    if earlier(service, header).await?.is_some() {
        return Ok(UploadStatus::Complete);
    }
    let Some(id) = header.id() else { return Ok(UploadStatus::None) };
    if let Some(bytes) = service.uploads.running(&id) {
        return Ok(UploadStatus::Running(bytes));
    }
    if stored(service, header).await?.is_some() {
        return Ok(UploadStatus::Complete);
    }
    let folder = service.uploads.folder().to_owned();
    let look = move || partial::durable_bytes(&folder, &id);
    Ok(match service.blocking.run(Lane::Deliver, look).await? {
        0 => UploadStatus::None,
        bytes => UploadStatus::Partial(bytes),
    })
}

/// What the key of an upload made before, where the content and the names are the same; without a hash the bytes have to
/// come before anybody can tell.
async fn earlier(service: &Service, header: &UploadHeader) -> Result<Option<Published>> {
    if header.key.is_empty() || header.blake3.is_empty() {
        return Ok(None);
    }
    let Some(published) = service.catalog.find_ingest(&header.key).await? else { return Ok(None) };
    let content = published.content.clone().unwrap_or_default();
    if header.blake3 != content {
        let message = format!("the idempotency key {:?} was used for another file", header.key);
        return Err(Error::new(Reason::UploadMismatch, message));
    }
    let file = service.catalog.find_file(&FilePlace::Managed { content }).await?;
    let in_use = file.is_some_and(|file| file.quarantined.is_none());
    let Naming { animal, experiment } = &header.wishes.naming;
    let named = |wished: &str, name: &str| wished.is_empty() || wished == name;
    let same_names = published.experiments.iter().all(|(a, e)| named(animal, a) && named(experiment, e));
    // Else the publication decides, with all that it knows.
    Ok((in_use && same_names).then_some(published))
}

/// The announced content, where it is here already.
async fn stored(service: &Service, header: &UploadHeader) -> Result<Option<Held>> {
    if header.blake3.is_empty() {
        return Ok(None);
    }
    let waiting = Instant::now();
    loop {
        let (files, content, bytes) = (Arc::clone(&service.files), header.blake3.clone(), header.file_bytes);
        let look = move || adopt(&files.managed_path(&content)?, bytes);
        match service.blocking.run(Lane::Deliver, look).await? {
            Adopted::Held(held) => {
                return Ok(is_whole(service, &held, header.file_bytes, &header.blake3).await?.then_some(held));
            }
            Adopted::Missing | Adopted::Damaged(_) => return Ok(None),
            Adopted::Contended => contended(service, waiting).await?,
        }
    }
}

/// Whether a managed file still has the bytes of its address: what lies on a disk may rot, and a new upload of it is the
/// way to have it whole again.
pub(super) async fn is_whole(service: &Service, held: &Held, file_bytes: u64, content: &str) -> Result<bool> {
    let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
    while at < file_bytes {
        let (file, bytes) = (held.file(), (file_bytes - at).min(HASHED_BYTES));
        let mut hashed = hasher;
        let piece = move || {
            let mut read = vec![0; bytes as usize];
            let done = file.read_exact_at(&mut read, at);
            done.map_err(|error| files::disk_error("reading a managed file", error))?;
            hashed.update(&read);
            Ok(hashed)
        };
        hasher = run(service, piece).await?;
        at += bytes;
    }
    Ok(hasher.finalize().to_hex().as_str() == content)
}

/// Waits a little for another publication of the same content.
pub(super) async fn contended(service: &Service, waiting: Instant) -> Result<()> {
    if waiting.elapsed() > Duration::from_millis(service.config.admission_timeout_ms) {
        return Err(Error::new(Reason::UploadInProgress, "the same content is published by another upload"));
    }
    tokio::time::sleep(CONTENDED_WAIT).await;
    Ok(())
}

/// Makes sure that the disk, and the quota, have room for all that is to come, from this upload and those under way.
async fn reserve(service: &Service, header: &UploadHeader, slot: &Slot, name: String) -> Result<()> {
    let needed = header.file_bytes.saturating_sub(header.offset);
    let folder = service.uploads.folder().to_owned();
    let look = move || Ok::<_, Error>((partial::other_bytes(&folder, &name)?, files::free_bytes(&folder)?));
    let (unfinished, free) = service.blocking.run(Lane::Deliver, look).await?;
    let quota = match service.config.upload_quota_bytes {
        0 => u64::MAX,
        quota => quota.saturating_sub(unfinished),
    };
    let (room, what) = match quota < free {
        true => (quota, "are left of the quota for unfinished uploads"),
        false => (free, "are free on the disk of the server"),
    };
    slot.reserve(needed, room).map_err(|promised| {
        let name = &header.file_name;
        let message = format!(
            "{name} needs {needed} bytes, but {room} bytes {what}, {promised} of them promised to uploads under way"
        );
        Error::new(Reason::DiskFull, message)
    })
}

async fn publish_stored(service: &Arc<Service>, header: &UploadHeader, held: Held) -> Result<Uploaded> {
    let (files, content) = (Arc::clone(&service.files), header.blake3.clone());
    let path = service.blocking.run(Lane::Deliver, move || files.managed_path(&content)).await?;
    let inspected = inspect(service, path).await?;
    publish(service, header, header.blake3.clone(), inspected, held).await
}

/// Opens the partial file and hashes what it has.
async fn begin(service: &Service, header: &UploadHeader, id: Option<String>) -> Result<Box<Partial>> {
    let folder = service.uploads.folder().to_owned();
    let told = Mark { durable_bytes: 0, file_bytes: header.file_bytes, file_name: header.file_name.clone() };
    let offset = header.offset;
    let open = move || match id {
        Some(id) => Partial::open(&folder, &id, told, offset).map(Box::new),
        None => Partial::nameless(&folder).map(Box::new),
    };
    let mut partial = run(service, open).await?;
    let mut more = offset > 0;
    while more {
        let piece = move || partial.rehash().map(|more| (partial, more));
        (partial, more) = run(service, piece).await?;
    }
    Ok(partial)
}

pub(super) async fn run<T: Send + 'static>(
    service: &Service,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    service.blocking.run(Lane::Decode(&Share::default(), 0), work).await
}

/// A file that a worker looked into.
pub(super) struct Inspected {
    pub(super) fingerprint: Fingerprint,
    pub(super) inspection: Inspection,
}

pub(super) async fn inspect(service: &Arc<Service>, path: PathBuf) -> Result<Inspected> {
    let open = move || {
        // Read-only: the worker gets this descriptor.
        let opened = File::open(path).map_err(|error| files::disk_error("reading an upload back", error))?;
        let opened = Arc::new(StoredFile::new(opened)?);
        let fingerprint = files::fingerprint(&opened)?;
        Ok((opened, fingerprint))
    };
    let (opened, fingerprint) = run(service, open).await?;
    let mut inspection = super::inspect(service, &opened, fingerprint).await?;
    checksums::take(service, &opened, &mut inspection.objects).await?;
    Ok(Inspected { fingerprint, inspection })
}

/// Publishes a managed file. It is held until the row that names it is committed.
pub(super) async fn publish(
    service: &Arc<Service>,
    header: &UploadHeader,
    content: String,
    Inspected { fingerprint, inspection }: Inspected,
    held: Held,
) -> Result<Uploaded> {
    let place = FilePlace::Managed { content: content.clone() };
    let UploadHeader { file_name, key, wishes, .. } = header;
    let (mut publication, left_out) = super::publication(place, fingerprint, file_name.clone(), inspection, wishes);
    publication.ingest_key = (!key.is_empty()).then(|| key.clone());
    let published = super::publish(service, publication).await?;
    drop(held);
    Ok(Uploaded { content, made: Made { published, left_out } })
}
