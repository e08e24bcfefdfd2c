//! Managed files between their bytes and the row that names them.
//!
//! A publication finds bytes at their content address, or puts them there, and then commits a row that names them; the
//! collector removes files that no row names. Both lock the file itself (flock): the publication from before it relies
//! on the address until after its commit, the collector exclusively while it looks for a row and removes. So the
//! collector either comes after the commit, and finds the row, or before the publication, which then finds the address
//! empty. This holds between processes and between machines as far as the file system's locks do. Blocks.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::files::disk_error;

/// A managed file that nobody collects while this lives.
pub struct Held(Arc<File>);

/// What came of keeping an upload.
pub enum Kept<P> {
    /// It lies at its address.
    Held(Held),
    /// A file of its size lies there already.
    Found(Held, P),
    /// Somebody else has the file that is there; worth a repetition soon.
    Contended(P),
}

/// What becomes of a file of the same size that is at the address already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// It is told, and stays.
    Stays,
    /// It is damaged: better bytes take its place.
    IsReplaced,
}

/// What is found at a content address.
pub enum Adopted {
    /// The bytes.
    Held(Held),
    /// Nothing.
    Missing,
    /// A file that somebody else publishes or collects right now; worth a repetition soon.
    Contended,
    /// A file of another size, locked: it cannot be the bytes of this address.
    Damaged(File),
}

impl Held {
    /// Of a descriptor that has the lock.
    pub fn locked(file: File) -> Self {
        Self(Arc::new(file))
    }

    /// To read what is held.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.0)
    }
}

/// Locks the managed file of `bytes` bytes at `address`, if it is there.
///
/// # Errors
/// `io`.
pub fn adopt(address: &Path, bytes: u64) -> Result<Adopted> {
    // Locks on network file systems want a descriptor for writing; nothing is written.
    let file = match OpenOptions::new().read(true).write(true).open(address) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Adopted::Missing),
        Err(error) => return Err(disk_error("looking for the bytes of an upload", error)),
    };
    let found = file.metadata().map_err(|error| disk_error("looking for the bytes of an upload", error))?;
    let whole = found.len() == bytes;
    match if whole { file.try_lock_shared() } else { file.try_lock() } {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Adopted::Contended),
        Err(TryLockError::Error(error)) => return Err(disk_error("locking a file of the data folder", error)),
    }
    match (names(address, &file)?, whole) {
        (false, _) => Ok(Adopted::Contended),
        (true, true) => Ok(Adopted::Held(Held::locked(file))),
        (true, false) => Ok(Adopted::Damaged(file)),
    }
}

/// Locks a managed file for its removal; `None` where somebody publishes it, or it is gone.
///
/// # Errors
/// `io`.
pub fn condemn(address: &Path) -> Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).open(address) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk_error("looking for garbage", error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(names(address, &file)?.then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(disk_error("locking a file of the data folder", error)),
    }
}

/// Whether the path still leads to this open file.
///
/// # Errors
/// `io`.
pub fn names(path: &Path, file: &File) -> Result<bool> {
    let refused = |error| disk_error("looking for a file of the data folder", error);
    let opened = file.metadata().map_err(refused)?;
    match path.symlink_metadata() {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_publication_holds_is_not_collected_and_what_is_collected_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        assert!(matches!(adopt(&path, 3).unwrap(), Adopted::Missing));
        std::fs::write(&path, "abc").unwrap();
        let Adopted::Held(first) = adopt(&path, 3).unwrap() else { panic!("the file is there") };
        let Adopted::Held(second) = adopt(&path, 3).unwrap() else { panic!("publications share") };
        assert!(condemn(&path).unwrap().is_none());
        drop(first);
        assert!(condemn(&path).unwrap().is_none());
        drop(second);
        let condemned = condemn(&path).unwrap().unwrap();
        assert!(matches!(adopt(&path, 3).unwrap(), Adopted::Contended));
        std::fs::remove_file(&path).unwrap();
        drop(condemned);
        assert!(matches!(adopt(&path, 3).unwrap(), Adopted::Missing));
    }

    #[test]
    fn a_file_of_another_size_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        std::fs::write(&path, "ab").unwrap();
        let Adopted::Damaged(lock) = adopt(&path, 3).unwrap() else { panic!("two bytes are not three") };
        assert!(matches!(adopt(&path, 3).unwrap(), Adopted::Contended));
        drop(lock);
    }
}
