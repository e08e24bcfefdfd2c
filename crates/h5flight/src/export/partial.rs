//! A file that appears when it is complete, or not at all.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A hidden file beside the one that it will be. Dropping it removes it.
pub struct PartialFile {
    path: PathBuf,
    hidden: PathBuf,
    file: File,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Hidden,
    Named,
}

impl PartialFile {
    /// Makes the hidden file; its name has the number of this process, so two exports never share one.
    ///
    /// # Errors
    /// `io`, naming the file that was asked for.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().ok_or_else(|| Failure::usage(format!("{}: not a file name", path.display())))?;
        if path.is_dir() {
            return Err(Failure::local("io", format!("{}: is a folder", path.display())));
        }
        let hidden = path.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&hidden);
        let file = file.map_err(|error| Failure::file(path, &error))?;
        Ok(Self { path: path.to_owned(), hidden, file, state: State::Hidden })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle of the open file, for a writer.
    ///
    /// # Errors
    /// `io`.
    pub fn handle(&self) -> Result<File, Failure> {
        self.file.try_clone().map_err(|error| Failure::file(&self.path, &error))
    }

    /// Makes the content durable, then gives the file its name. Returns its size in bytes.
    ///
    /// # Errors
    /// `io`.
    pub fn commit(mut self) -> Result<u64, Failure> {
        let named = self
            .file
            .sync_all()
            .and_then(|()| self.file.metadata())
            .and_then(|facts| std::fs::rename(&self.hidden, &self.path).map(|()| facts.len()));
        let bytes = named.map_err(|error| Failure::file(&self.path, &error))?;
        self.state = State::Named;
        Ok(bytes)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.state == State::Hidden {
            // Nobody is left to tell when it cannot be removed; its name says what it is.
            let _ = std::fs::remove_file(&self.hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_file_has_its_name_only_after_commit_and_leaves_nothing_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, "old").unwrap();
        let dropped = PartialFile::create(&path).unwrap();
        dropped.handle().unwrap().write_all(b"new").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let whole = PartialFile::create(&path).unwrap();
        whole.handle().unwrap().write_all(b"newer").unwrap();
        assert_eq!(whole.commit().unwrap(), 5);
        assert_eq!(std::fs::read(&path).unwrap(), b"newer");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
