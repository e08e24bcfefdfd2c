//! An upload: bytes arrive in a temporary file beside its destination, hashed on the way, and become visible in the end.
//!
//! The order is what makes it safe: bytes, fsync, inspection, rename to the content address, fsync of the folder, one
//! SQL transaction, acknowledgement. A crash before the transaction leaves a file that nobody names; a dropped
//! [`Upload`] removes its temporary file.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use h5flight_array::Reason;
use h5flight_array::file::StoredFile;
use h5flight_catalog::model::FilePlace;

use super::{Made, Wishes, checksums};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::files;
use crate::service::Service;

/// What the client announced.
#[derive(Clone, Debug, Default)]
pub struct UploadHeader {
    /// Name for people, without folders.
    pub file_name: String,
    /// Size in bytes.
    pub file_bytes: u64,
    /// blake3, lowercase hex; empty when not known.
    pub blake3: String,
    /// Idempotency key; empty when the content decides.
    pub key: String,
    /// Everything else.
    pub wishes: Wishes,
}

/// What an upload made.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// blake3, lowercase hex.
    pub content: String,
    /// What is visible, and what is not.
    pub made: Made,
}

/// An upload on its way.
pub struct Upload {
    service: Arc<Service>,
    header: UploadHeader,
    temporary: Option<Temporary>,
    received_bytes: u64,
}

/// The temporary file with the hash of what is in it; removed when dropped.
struct Temporary {
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
}

impl Upload {
    /// Checks the announcement and makes the temporary file.
    ///
    /// # Errors
    /// `bad_request` for a name with folders, `upload_too_large`, `disk_full`, `io`.
    pub async fn begin(service: &Arc<Service>, header: UploadHeader) -> Result<Self> {
        let name = &header.file_name;
        if name.is_empty() || name.len() > 255 || name.contains(['/', '\0']) {
            return Err(Error::new(Reason::BadRequest, format!("{name:?} is not a file name")));
        }
        let bytes_max = service.config.upload_bytes_max;
        if header.file_bytes > bytes_max {
            let message = format!("{name} has {} bytes, uploads are limited to {bytes_max}", header.file_bytes);
            return Err(Error::new(Reason::UploadTooLarge, message));
        }
        let folder = service.config.data_dir.join("uploads");
        let make = move || {
            let file = tempfile::Builder::new().prefix("upload-").tempfile_in(folder);
            let file = file.map_err(|error| files::disk_error("beginning an upload", error))?;
            Ok::<_, Error>(Temporary { file, hasher: blake3::Hasher::new() })
        };
        let temporary = Some(service.blocking.run(Lane::Decode(&Share::default(), 0), make).await?);
        Ok(Self { service: Arc::clone(service), header, temporary, received_bytes: 0 })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `upload_mismatch` when more come than were announced; `disk_full`, `io`.
    pub async fn take(&mut self, data: Bytes) -> Result<()> {
        self.received_bytes += data.len() as u64;
        let announced = self.header.file_bytes;
        if self.received_bytes > announced {
            let message = format!("{} bytes came of an upload of {announced}", self.received_bytes);
            return Err(Error::new(Reason::UploadMismatch, message));
        }
        let mut temporary = self.temporary.take().expect("an upload that failed is not continued");
        let write = move || {
            let written = temporary.file.write_all(&data);
            written.map_err(|error| files::disk_error("writing an upload", error))?;
            temporary.hasher.update(&data);
            Ok::<_, Error>(temporary)
        };
        self.temporary = Some(self.service.blocking.run(Lane::Decode(&Share::default(), 0), write).await?);
        Ok(())
    }

    /// Makes the upload durable and visible.
    ///
    /// # Errors
    /// `upload_mismatch`; those of inspecting, and then nothing is left behind; those of publishing, and then the bytes
    /// stay at their address, where a repeated upload finds them.
    pub async fn finish(mut self) -> Result<Uploaded> {
        let temporary = self.temporary.take().expect("an upload that failed is not continued");
        let content = temporary.hasher.finalize().to_hex().to_string();
        self.check(&content)?;
        let temporary = self.service.blocking.run(Lane::Decode(&Share::default(), 0), move || sync(temporary)).await?;
        // Read-only: the worker gets this descriptor.
        let opened = File::open(temporary.file.path());
        let opened = opened.map_err(|error| files::disk_error("reading an upload back", error))?;
        let opened = Arc::new(StoredFile::new(opened)?);
        let before = files::fingerprint(&opened)?;
        let mut inspection = super::inspect(&self.service, &opened, before).await?;
        checksums::take(&self.service, &opened, &mut inspection.objects).await?;
        let files = Arc::clone(&self.service.files);
        let address = content.clone();
        let keep = move || keep(temporary, &files.managed_path(&address)?);
        self.service.blocking.run(Lane::Decode(&Share::default(), 0), keep).await?;
        let UploadHeader { file_name, key, wishes, .. } = &self.header;
        let place = FilePlace::Managed { content: content.clone() };
        let (mut publication, left_out) = super::publication(place, before, file_name.clone(), inspection, wishes);
        publication.ingest_key = (!key.is_empty()).then(|| key.clone());
        let published = super::publish(&self.service, publication).await?;
        Ok(Uploaded { content, made: Made { published, left_out } })
    }

    fn check(&self, content: &str) -> Result<()> {
        let UploadHeader { file_bytes, blake3, .. } = &self.header;
        if self.received_bytes != *file_bytes {
            let message = format!("{} bytes came of an upload of {file_bytes}", self.received_bytes);
            return Err(Error::new(Reason::UploadMismatch, message));
        }
        if !blake3.is_empty() && blake3 != content {
            let message = format!("the upload's blake3 is {content}, announced was {blake3}");
            return Err(Error::new(Reason::UploadMismatch, message));
        }
        Ok(())
    }
}

fn sync(temporary: Temporary) -> Result<Temporary> {
    let synced = temporary.file.as_file().sync_all();
    synced.map_err(|error| files::disk_error("making an upload durable", error))?;
    Ok(temporary)
}

/// Moves the temporary file to its address. A file that is there already has the same bytes: either may stay.
fn keep(temporary: Temporary, path: &Path) -> Result<()> {
    let moved = temporary.file.persist(path);
    moved.map_err(|error| files::disk_error("keeping an upload", error.error))?;
    // The folder of the file, and the one above it: the folder itself may be new.
    for folder in path.ancestors().skip(1).take(2) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| files::disk_error("making an upload durable", error))?;
    }
    Ok(())
}
