//! The bytes of an upload that is not finished: `uploads/ID.part`, and beside it `ID.json`, the mark, which says how many
//! of them are durable.
//!
//! Whoever writes or removes an upload holds the exclusive lock (flock) on its part, whoever publishes it the shared one:
//! locks work between processes and end with them. What lies behind the mark is not trusted: after a loss of power a file may have its length
//! without its bytes. Everything here blocks and is called through [`crate::blocking`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use h5flight_array::Reason;
use serde::{Deserialize, Serialize};

use super::held::{self, Held, Kept, There};
use crate::error::{Error, Result};
use crate::faults;
use crate::files::disk_error;

/// Bytes that are read back at a time when an upload goes on.
const REHASH_BYTES: u64 = 8 << 20;
/// Ending of the bytes.
pub const PART: &str = "part";
/// Ending of the mark.
pub const MARK: &str = "json";

/// What survives a crash, beside the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Bytes from the start that are on the disk.
    pub durable_bytes: u64,
    /// Size of the whole file in bytes, as announced.
    pub file_bytes: u64,
    /// Name for people.
    pub file_name: String,
}

/// An upload's bytes on disk, locked, with the hash of them.
pub struct Partial {
    file: File,
    path: PathBuf,
    /// `None`: nobody can come back for it.
    mark: Option<Mark>,
    hasher: blake3::Hasher,
    written_bytes: u64,
}

/// How much of an upload is durable; 0 where there is nothing.
///
/// # Errors
/// `io`.
pub fn durable_bytes(folder: &Path, id: &str) -> Result<u64> {
    let part = match folder.join(id).with_extension(PART).metadata() {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(disk_error("looking for an upload", error)),
    };
    Ok(read_mark(folder, id).map_or(0, |mark| mark.durable_bytes.min(part)))
}

/// The mark of an upload; `None` where there is none that can be read: then nothing of it counts as durable.
pub fn read_mark(folder: &Path, id: &str) -> Option<Mark> {
    let text = std::fs::read(folder.join(id).with_extension(MARK)).ok()?;
    serde_json::from_slice(&text).ok()
}

impl Partial {
    /// Opens, or makes, the upload `id` to go on at `offset`; what is behind that is forgotten. The hash of what is
    /// before it has to be made by [`Partial::rehash`].
    ///
    /// # Errors
    /// `upload_in_progress` when somebody else writes it, `upload_offset`, `disk_full`, `io`.
    pub fn open(folder: &Path, id: &str, told: Mark, offset: u64) -> Result<Self> {
        let path = folder.join(id).with_extension(PART);
        let file = lock(&path)?;
        let durable = durable_bytes(folder, id)?;
        let mut partial = Self { file, path, mark: Some(told), hasher: blake3::Hasher::new(), written_bytes: offset };
        if offset > durable {
            if durable == 0 {
                partial.remove();
            }
            let message = format!("the upload was to go on at byte {offset}, but only {durable} bytes of it are here");
            return Err(Error::new(Reason::UploadOffset, message));
        }
        if offset < durable {
            partial.write_mark(offset)?;
        }
        let cut = partial.file.set_len(offset).and_then(|()| partial.file.seek(SeekFrom::Start(offset)));
        cut.map_err(|error| disk_error("going on with an upload", error))?;
        partial.mark_mut().durable_bytes = offset;
        Ok(partial)
    }

    /// Makes one that nobody can come back for: neither its content nor a key was told.
    ///
    /// # Errors
    /// `disk_full`, `io`.
    pub fn nameless(folder: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("upload-").suffix(".tmp").tempfile_in(folder);
        let (file, path) = made.map_err(|error| disk_error("beginning an upload", error))?.into_parts();
        file.try_lock().map_err(|error| lock_error(error.into()))?;
        let path = path.keep().map_err(|error| disk_error("beginning an upload", error.error))?;
        Ok(Self { file, path, mark: None, hasher: blake3::Hasher::new(), written_bytes: 0 })
    }

    /// The file, for one who writes it in our stead.
    ///
    /// # Errors
    /// `io`.
    pub fn descriptor(&self) -> Result<std::os::fd::OwnedFd> {
        let file = self.file.try_clone().map_err(|error| disk_error("beginning a put", error))?;
        Ok(file.into())
    }

    /// Takes over what somebody else wrote into it: all of it is still to be hashed, by [`Partial::rehash`].
    ///
    /// # Errors
    /// `io`.
    pub fn written_by_others(&mut self) -> Result<()> {
        let found = self.file.metadata().map_err(|error| disk_error("reading a put back", error))?;
        (self.written_bytes, self.hasher) = (found.len(), blake3::Hasher::new());
        Ok(())
    }

    /// Hashes the next piece of what was there before; false when there is none left.
    ///
    /// # Errors
    /// `io`.
    pub fn rehash(&mut self) -> Result<bool> {
        let at = self.hasher.count();
        let size = REHASH_BYTES.min(self.written_bytes - at);
        let mut piece = vec![0; usize::try_from(size).expect("a piece is small")];
        let read = self.file.read_exact_at(&mut piece, at);
        read.map_err(|error| disk_error("reading an upload back", error))?;
        self.hasher.update(&piece);
        Ok(self.hasher.count() < self.written_bytes)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `disk_full`, `io`: then only [`Partial::settle`] and [`Partial::remove`] mean something.
    pub fn append(&mut self, data: &[u8]) -> Result<()> {
        faults::pass("upload::append")?;
        self.file.write_all(data).map_err(|error| disk_error("writing an upload", error))?;
        self.hasher.update(data);
        self.written_bytes += data.len() as u64;
        Ok(())
    }

    /// Makes what is written durable, then says so in the mark.
    ///
    /// # Errors
    /// `disk_full`, `io`.
    pub fn checkpoint(&mut self) -> Result<()> {
        if self.mark.as_ref().is_none_or(|mark| mark.durable_bytes == self.written_bytes) {
            return Ok(());
        }
        faults::pass("upload::flush")?;
        self.file.sync_data().map_err(|error| disk_error("making an upload durable", error))?;
        faults::pass("upload::mark")?;
        self.write_mark(self.written_bytes)
    }

    /// Makes all of it durable; from now on it is read only. The lock becomes a shared one: a file that is locked
    /// exclusively is open for writing in the eyes of libhdf5 and of those who publish the same content.
    ///
    /// # Errors
    /// `upload_in_progress` when another server was faster in between; `disk_full`, `io`.
    pub fn seal(&mut self) -> Result<()> {
        self.checkpoint()?;
        faults::pass("upload::seal")?;
        if self.mark.is_none() {
            self.file.sync_all().map_err(|error| disk_error("making an upload durable", error))?;
        }
        let taken = || Error::new(Reason::UploadInProgress, "another stream of the same upload is under way");
        match self.file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken()),
            Err(TryLockError::Error(error)) => return Err(lock_error(error)),
        }
        if held::names(&self.path, &self.file)? { Ok(()) } else { Err(taken()) }
    }

    /// Leaves it so that it can go on: all that came, where that can be made durable, else what was durable before;
    /// nothing, where that is nothing.
    pub fn settle(mut self) {
        // A piece that was written in part takes room that the mark may need.
        let _ = self.file.set_len(self.written_bytes);
        let durable = match (self.mark.is_some(), self.checkpoint()) {
            (false, _) => 0,
            (true, Ok(())) => self.written_bytes,
            (true, Err(error)) => {
                tracing::info!(error = error.chain(), "the last bytes of an upload could not be made durable");
                self.durable_bytes()
            }
        };
        match durable {
            0 => self.remove(),
            _ => drop(self.file.set_len(durable)),
        }
    }

    /// Removes it.
    pub fn remove(self) {
        remove(&self.path);
    }

    /// The bytes, sealed, become the managed file at `address`, which nobody collects while what is returned lives.
    ///
    /// # Errors
    /// `disk_full`, `io`; the partial file is left as it is.
    pub fn keep(self, address: &Path, there: There) -> Result<Kept<Self>> {
        faults::pass("upload::keep")?;
        let bytes = self.written_bytes;
        loop {
            let found = match there {
                There::Stays => held::adopt(address, bytes)?,
                There::IsReplaced => held::condemn(address)?.map_or(held::Adopted::Contended, held::Adopted::Damaged),
            };
            match found {
                held::Adopted::Held(held) => return Ok(Kept::Found(held, self)),
                held::Adopted::Contended => return Ok(Kept::Contended(self)),
                held::Adopted::Missing => {
                    let from = tempfile::TempPath::try_from_path(&self.path);
                    let from = from.map_err(|error| disk_error("keeping an upload", error))?;
                    match from.persist_noclobber(address).map_err(|refused| (refused.error, refused.path.keep())) {
                        Ok(()) => return self.kept(address),
                        Err((error, _)) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                        Err((error, _)) => return Err(disk_error("keeping an upload", error)),
                    }
                }
                // Its lock is held until the better bytes are in its place.
                held::Adopted::Damaged(_lock) => {
                    let moved = std::fs::rename(&self.path, address);
                    moved.map_err(|error| disk_error("keeping an upload", error))?;
                    return self.kept(address);
                }
            }
        }
    }

    /// The folder of the file, and the one above it, which may have a new folder.
    fn kept(self, address: &Path) -> Result<Kept<Self>> {
        faults::pass("upload::kept")?;
        for folder in address.ancestors().skip(1).take(2) {
            sync_folder(folder)?;
        }
        remove(&self.path);
        Ok(Kept::Held(Held::locked(self.file)))
    }

    /// Where the bytes are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many there are.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// How many of them could be made durable now.
    pub fn unflushed_bytes(&self) -> u64 {
        self.mark.as_ref().map_or(0, |mark| self.written_bytes - mark.durable_bytes)
    }

    /// How many of them are durable.
    pub fn durable_bytes(&self) -> u64 {
        self.mark.as_ref().map_or(0, |mark| mark.durable_bytes)
    }

    /// blake3 of them, lowercase hex.
    pub fn content(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    fn mark_mut(&mut self) -> &mut Mark {
        self.mark.as_mut().expect("only what can go on has an offset")
    }

    fn write_mark(&mut self, durable_bytes: u64) -> Result<()> {
        let refused = |error| disk_error("making an upload durable", error);
        let folder = self.path.parent().expect("an upload lies in a folder").to_owned();
        let mark = Mark { durable_bytes, ..self.mark_mut().clone() };
        let mut new = tempfile::Builder::new().prefix("mark-").suffix(".tmp").tempfile_in(&folder).map_err(refused)?;
        let text = serde_json::to_vec(&mark).expect("a mark is plain text and numbers");
        new.write_all(&text).and_then(|()| new.as_file().sync_all()).map_err(refused)?;
        new.persist(self.path.with_extension(MARK)).map_err(|error| refused(error.error))?;
        sync_folder(&folder)?;
        *self.mark_mut() = mark;
        Ok(())
    }
}

/// Bytes of all unfinished uploads but this one.
///
/// # Errors
/// `io`.
pub fn other_bytes(folder: &Path, id: &str) -> Result<u64> {
    let refused = |error| disk_error("looking at the uploads", error);
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        if Path::new(&entry.file_name()).file_stem().is_none_or(|stem| stem != id) {
            bytes += entry.metadata().map_or(0, |found| found.len());
        }
    }
    Ok(bytes)
}

/// Opens a part, made where it is missing, and locks it.
///
/// # Errors
/// `upload_in_progress` when somebody else has it; `disk_full`, `io`.
pub fn lock(path: &Path) -> Result<File> {
    loop {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = opened.map_err(|error| disk_error("beginning an upload", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Reason::UploadInProgress, "another stream of the same upload is under way"));
            }
            Err(TryLockError::Error(error)) => return Err(lock_error(error)),
        }
        // Between opening and locking it may have been kept or removed.
        if held::names(path, &file)? {
            return Ok(file);
        }
    }
}

/// Removes a part and its mark. The part goes last: its lock is what others wait for.
pub fn remove(path: &Path) {
    for path in [path.with_extension(MARK), path.to_owned()] {
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a part of an upload cannot be removed");
        }
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| disk_error("making an upload durable", error))
}

fn lock_error(error: std::io::Error) -> Error {
    disk_error("locking a file of the data folder", error)
}
