//! The folder that backups are kept in. Everything goes through names such as `files/ab/abcd.h5`, so that another kind
//! of store can take the folder's place.
//!
//! ```text
//! h5flight-backups.txt       says what this is; locked while a backup is made
//! backups/NAME.json          manifests: what has none is no backup
//! catalogues/NAME.dump.zst   the catalogue of each
//! files/ab/abcd....h5        files by their content, shared by all backups
//! unfinished/                what is being written
//! ```
//!
//! Folders and files are their owner's alone: the catalogue holds hashes of tokens.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

const MARK: &str = "h5flight-backups.txt";
const MARK_TEXT: &str =
    "Backups made by `h5flight backup create`. `h5flight backup list` and `verify` read this folder.\n";
const UNFINISHED: &str = "unfinished";

/// A folder with backups.
pub struct Place {
    folder: PathBuf,
}

/// Held while a backup is made: nobody else makes one or tidies up.
pub struct Lock(#[expect(dead_code, reason = "held for the lock on it")] File);

/// A file on its way: visible under its name after `keep`, removed when dropped before.
pub struct Pending {
    pub file: NamedTempFile,
    target: PathBuf,
}

impl Place {
    /// A folder that has backups.
    pub fn open(text: &str) -> Result<Self, Failure> {
        let place = Self { folder: folder(text)? };
        match place.folder.join(MARK).exists() {
            true => Ok(place),
            false => Err(Failure::local("not_found", format!("{} is no folder with backups", place.folder.display()))),
        }
    }

    /// The same, made where there is nothing; locked, and tidied up after those that were cut off.
    pub fn make(text: &str) -> Result<(Self, Lock), Failure> {
        let place = Self { folder: folder(text)? };
        make_folder(&place.folder)?;
        let mark = place.folder.join(MARK);
        if !mark.exists() && !is_empty(&place.folder)? {
            let message = format!("{} is neither empty nor a folder with backups", place.folder.display());
            return Err(Failure::local("not_empty", message));
        }
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&mark);
        let mut lock = opened.map_err(|error| Failure::file(&mark, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another backup into {} is being made", place.folder.display());
                return Err(Failure::local("busy", message));
            }
            Err(TryLockError::Error(error)) => return Err(Failure::file(&mark, &error)),
        }
        if lock.metadata().is_ok_and(|facts| facts.len() == 0) {
            lock.write_all(MARK_TEXT.as_bytes()).map_err(|error| Failure::file(&mark, &error))?;
        }
        place.tidy_up()?;
        Ok((place, Lock(lock)))
    }

    /// Names of all backups, oldest first.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let mut names = stems(&self.folder.join("backups"), ".json")?;
        names.sort();
        Ok(names)
    }

    /// The backup that is meant: the one named, or the newest.
    pub fn find(&self, wanted: Option<&str>) -> Result<String, Failure> {
        let names = self.names()?;
        let Some(newest) = names.last() else {
            return Err(Failure::local("not_found", format!("no backups in {}", self.folder.display())));
        };
        match wanted {
            None => Ok(newest.clone()),
            Some(wanted) if names.iter().any(|name| name == wanted) => Ok(wanted.to_owned()),
            Some(wanted) => Err(Failure::local("not_found", format!("no backup {wanted:?}; the newest is {newest}"))),
        }
    }

    /// Size of an object; `None` where there is none.
    pub fn bytes_of(&self, name: &str) -> Result<Option<u64>, Failure> {
        let path = self.folder.join(name);
        match path.metadata() {
            Ok(facts) => Ok(Some(facts.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file(&path, &error)),
        }
    }

    /// Opens an object.
    pub fn read(&self, name: &str) -> Result<File, Failure> {
        let path = self.folder.join(name);
        File::open(&path).map_err(|error| Failure::file(&path, &error))
    }

    /// Begins an object.
    pub fn begin(&self, name: &str) -> Result<Pending, Failure> {
        begin(&self.folder.join(UNFINISHED), self.folder.join(name))
    }

    /// Removes what a backup that was cut off left: unfinished files, and catalogues that no manifest names. The files
    /// that it copied stay, the next backup needs them.
    fn tidy_up(&self) -> Result<(), Failure> {
        let names = self.names()?;
        let unfinished = self.folder.join(UNFINISHED);
        let mut left: Vec<PathBuf> = stems(&unfinished, "")?.iter().map(|name| unfinished.join(name)).collect();
        for name in stems(&self.folder.join("catalogues"), ".dump.zst")? {
            if !names.contains(&name) {
                left.push(self.folder.join(catalogue_name(&name)));
            }
        }
        left.iter().try_for_each(|path| std::fs::remove_file(path).map_err(|error| Failure::file(path, &error)))
    }
}

impl Pending {
    /// The same under a name that is known only now.
    pub fn keep_as(mut self, place: &Place, name: &str) -> Result<(), Failure> {
        self.target = place.folder.join(name);
        make_folder(self.target.parent().unwrap_or(&place.folder))?;
        self.keep()
    }

    /// Makes the file durable and visible.
    pub fn keep(mut self) -> Result<(), Failure> {
        let target = self.target;
        let failed = |error: std::io::Error| Failure::file(&target, &error);
        self.file.flush().map_err(failed)?;
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.persist(&target).map_err(|error| failed(error.error))?;
        // The folder of the file, and the one above it: the folder itself may be new.
        target.ancestors().skip(1).take(2).try_for_each(sync_folder)
    }
}

/// Begins a file that is written in `folder` and kept at `target`, on the same file system.
pub fn begin(folder: &Path, target: PathBuf) -> Result<Pending, Failure> {
    make_folder(folder)?;
    make_folder(target.parent().unwrap_or(folder))?;
    // Made with mode 0600.
    let file = NamedTempFile::new_in(folder).map_err(|error| Failure::file(folder, &error))?;
    Ok(Pending { file, target })
}

/// Makes a folder's entries durable.
pub fn sync_folder(folder: &Path) -> Result<(), Failure> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Failure::file(folder, &error))
}

/// Makes a folder, and those above it, where they are missing.
pub fn make_folder(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::file(path, &error))
}

/// Whether a folder has no entries.
pub fn is_empty(folder: &Path) -> Result<bool, Failure> {
    let mut entries = std::fs::read_dir(folder).map_err(|error| Failure::file(folder, &error))?;
    Ok(entries.next().is_none())
}

/// Where a manifest is.
pub fn manifest_name(name: &str) -> String {
    format!("backups/{name}.json")
}

/// Where a catalogue is.
pub fn catalogue_name(name: &str) -> String {
    format!("catalogues/{name}.dump.zst")
}

/// Where a file with this content is: `files/ab/abcd....h5`, here and in a data folder.
pub fn content_name(content: &str) -> Result<String, Failure> {
    let plain =
        content.len() == 64 && content.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match plain {
        true => Ok(format!("files/{}/{content}.h5", &content[..2])),
        false => Err(Failure::local("damaged", format!("{content:?} is not a content address"))),
    }
}

fn folder(text: &str) -> Result<PathBuf, Failure> {
    match text.split_once("://") {
        Some((scheme, _)) => Err(Failure::usage(format!("backups are kept in a folder; {scheme}:// is none"))),
        None if text.is_empty() => Err(Failure::usage("DEST is empty; name the folder for the backups")),
        None => Ok(PathBuf::from(text)),
    }
}

/// Names in a folder without their ending; none where there is no folder.
fn stems(folder: &Path, ending: &str) -> Result<Vec<String>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::file(folder, &error)),
    };
    let mut stems = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| Failure::file(folder, &error))?.file_name();
        stems.extend(name.to_str().and_then(|name| name.strip_suffix(ending)).map(str::to_owned));
    }
    Ok(stems)
}
