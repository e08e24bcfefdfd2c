//! From a place in the catalogue to an open file, and back.
//!
//! A name that a client or a file gives is never joined to a path and opened: registered files are opened beneath the
//! descriptor of their root, managed files by their content address below the data folder. Every function here that
//! touches the file system blocks and is called through [`crate::blocking`].

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use h5flight_array::file::{self, StoredFile};
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::model::{FilePlace, FileRecord, Fingerprint};

use crate::config::Root;
use crate::error::{Error, Result};

/// Files that one registration of a folder may name.
const FOLDER_FILES_MAX: usize = 100_000;
/// Folders inside folders that a registration follows.
const FOLDER_DEPTH_MAX: usize = 64;
/// Where an HDF5 signature may stand: at 0 and, behind a user block, at powers of two from 512 bytes on; here to 1 TiB.
const SIGNATURE_OFFSETS: [u64; 33] = {
    let mut offsets = [0; 33];
    let mut at = 1;
    while at < offsets.len() {
        offsets[at] = 256 << at;
        at += 1;
    }
    offsets
};
const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

/// The roots and the data folder, opened once.
pub struct Files {
    roots: BTreeMap<String, OpenRoot>,
    managed: OwnedFd,
    managed_path: PathBuf,
}

struct OpenRoot {
    folder: OwnedFd,
    path: PathBuf,
}

/// A place below a root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// Name of the root.
    pub root: String,
    /// Path relative to it, without `.` and `..`; empty is the root itself.
    pub relative: String,
}

impl std::fmt::Display for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.root, self.relative)
    }
}

impl Files {
    /// Opens all roots and the folder of managed files, which is made when missing.
    ///
    /// # Errors
    /// With a sentence for the operator, naming the folder: this is the start of the server.
    pub fn open(roots: &[Root], data_dir: &Path) -> Result<Self> {
        let managed_path = data_dir.join("files");
        let refused = |what: &str, path: &Path, error: std::io::Error| {
            Error::new(Reason::Io, format!("{what} {} cannot be used: {error}", path.display()))
        };
        for folder in [&managed_path, &data_dir.join("uploads")] {
            std::fs::create_dir_all(folder).map_err(|error| refused("the data folder", folder, error))?;
        }
        let mut opened = BTreeMap::new();
        for Root { name, path } in roots {
            let path = path.canonicalize().map_err(|error| refused("the root", path, error))?;
            let folder = file::open_root(&path)?;
            if opened.insert(name.clone(), OpenRoot { folder, path }).is_some() {
                return Err(Error::new(Reason::BadRequest, format!("two roots are named {name:?}")));
            }
        }
        Ok(Self { roots: opened, managed: file::open_root(&managed_path)?, managed_path })
    }

    /// Names of the roots.
    pub fn root_names(&self) -> Vec<String> {
        self.roots.keys().cloned().collect()
    }

    /// Which root an absolute path or `root:relative` lies below. Pure text: nothing is opened.
    ///
    /// # Errors
    /// `outside_roots`; the message names the roots, not their paths.
    pub fn locate(&self, text: &str) -> Result<Located> {
        let outside = || {
            let names = self.root_names().join(", ");
            let known = if names.is_empty() { "there are none".to_owned() } else { format!("they are: {names}") };
            Error::new(Reason::OutsideRoots, format!("{text:?} lies below no root of this server ({known})"))
        };
        if let Some((name, relative)) = text.split_once(':')
            && self.roots.contains_key(name)
        {
            let relative = plain_relative(Path::new(relative)).ok_or_else(outside)?;
            return Ok(Located { root: name.to_owned(), relative });
        }
        // The longest root wins, so that a root inside another one is found.
        let below = |root: &OpenRoot| Path::new(text).strip_prefix(&root.path).ok().and_then(plain_relative);
        let found = self.roots.iter().filter_map(|(name, root)| Some((name, root, below(root)?)));
        let (name, _, relative) = found.max_by_key(|(_, root, _)| root.path.as_os_str().len()).ok_or_else(outside)?;
        Ok(Located { root: name.clone(), relative })
    }

    /// Opens a place. Blocks.
    ///
    /// # Errors
    /// `outside_roots`, `file_not_found`, `not_a_regular_file`, `io`.
    pub fn open_place(&self, place: &FilePlace) -> Result<StoredFile> {
        let file = match place {
            FilePlace::Registered { root, path } => {
                let root = self.roots.get(root).ok_or_else(|| {
                    Error::new(Reason::FileNotFound, format!("the root {root:?} is not configured on this server"))
                })?;
                file::open_beneath(&root.folder, Path::new(path))?
            }
            FilePlace::Managed { content } => file::open_beneath(&self.managed, &managed_name(content)?)?,
        };
        Ok(StoredFile::new(file)?)
    }

    /// Opens a file of the catalogue and checks that it is the one that was indexed. Blocks.
    ///
    /// # Errors
    /// Those of [`Files::open_place`] and `file_changed`.
    pub fn open_unchanged(&self, record: &FileRecord) -> Result<StoredFile> {
        let file = self.open_place(&record.place)?;
        check_unchanged(&file, record)?;
        Ok(file)
    }

    /// The folder of managed files.
    pub fn managed_folder(&self) -> &Path {
        &self.managed_path
    }

    /// Where the managed file of this content is to lie, with its folder made. Blocks.
    ///
    /// # Errors
    /// `io` or `disk_full`.
    pub fn managed_path(&self, content: &str) -> Result<PathBuf> {
        let path = self.managed_path.join(managed_name(content)?);
        let folder = path.parent().expect("a managed name has a folder");
        std::fs::create_dir_all(folder).map_err(|error| disk_error("making a folder for an upload", error))?;
        Ok(path)
    }

    /// The HDF5 files at or below a place, sorted, as places. A regular file is returned whatever it is; in folders only
    /// files with an HDF5 signature count, and symbolic links are not followed. Blocks.
    ///
    /// # Errors
    /// `file_not_found`, `file_too_complex`, `io`.
    pub fn list_hdf5(&self, at: &Located) -> Result<Vec<Located>> {
        let root = self.root(at);
        let mut found = Vec::new();
        self.walk(at, &mut |relative, whole| {
            if whole == Named::Itself || has_signature(&root.folder, Path::new(&relative)) {
                found.push(Located { root: at.root.clone(), relative });
            }
        })?;
        found.sort();
        Ok(found)
    }

    /// The HDF5 files at or below a place, sorted, that are not in `known` as they are. Blocks.
    ///
    /// # Errors
    /// As [`Files::list_hdf5`].
    pub fn list_changed(
        &self,
        at: &Located,
        known: &HashMap<String, Fingerprint>,
    ) -> Result<Vec<(Located, Fingerprint)>> {
        let root = self.root(at);
        let mut found = Vec::new();
        self.walk(at, &mut |relative, _| {
            // What vanishes while it is looked at is not there.
            let Ok(facts) = root.path.join(&relative).symlink_metadata() else { return };
            let modified_ns = facts.mtime().saturating_mul(1_000_000_000).saturating_add(facts.mtime_nsec());
            let now = Fingerprint { device: facts.dev(), inode: facts.ino(), bytes: facts.size(), modified_ns };
            // Only what is not known is opened.
            if known.get(&relative) != Some(&now) && has_signature(&root.folder, Path::new(&relative)) {
                found.push((Located { root: at.root.clone(), relative }, now));
            }
        })?;
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    fn root(&self, at: &Located) -> &OpenRoot {
        self.roots.get(&at.root).expect("located places name a root that exists")
    }

    /// Gives the relative path of each regular file at or below a place to `visit`. Blocks.
    fn walk(&self, at: &Located, visit: &mut dyn FnMut(String, Named)) -> Result<()> {
        let root = self.root(at);
        let start = root.path.join(&at.relative);
        let not_found = |error: std::io::Error| {
            Error::from(ArrayError::new(Reason::FileNotFound, format!("no file {at}")).with_source(error))
        };
        if !start.symlink_metadata().map_err(not_found)?.is_dir() {
            visit(at.relative.clone(), Named::Itself);
            return Ok(());
        }
        let mut files = 0;
        let mut folders = vec![(PathBuf::from(&at.relative), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in std::fs::read_dir(root.path.join(&folder)).map_err(not_found)? {
                let entry = entry.map_err(not_found)?;
                let (relative, kind) = (folder.join(entry.file_name()), entry.file_type().map_err(not_found)?);
                if kind.is_dir() && depth < FOLDER_DEPTH_MAX {
                    folders.push((relative, depth + 1));
                } else if kind.is_file()
                    && let Some(relative) = relative.to_str()
                {
                    files += 1;
                    visit(relative.to_owned(), Named::ByFolder);
                }
            }
            if files + folders.len() > FOLDER_FILES_MAX {
                let message = format!("the folder {at} has more than {FOLDER_FILES_MAX} files; register its parts");
                return Err(Error::new(Reason::FileTooComplex, message));
            }
        }
        Ok(())
    }
}

/// How a file was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// By its own name.
    Itself,
    /// By that of a folder it is in.
    ByFolder,
}

/// Managed files that are younger may be on their way to a catalogue.
const UNNAMED_AGE_MIN: std::time::Duration = std::time::Duration::from_secs(3600);

/// A file below the folder of managed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedEntry {
    /// Its path below that folder.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Its content address, where it lies at one.
    pub content: Option<String>,
}

impl Files {
    /// The folders of managed files, sorted; the folder above them is the empty name. Blocks.
    ///
    /// # Errors
    /// `io`.
    pub fn managed_folders(&self) -> Result<Vec<String>> {
        let mut folders = vec![String::new()];
        for entry in read_dir(&self.managed_path)? {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// The files in one of these folders, sorted, except for those that were written within the last hour: uploads on
    /// their way. Blocks.
    ///
    /// # Errors
    /// `io`.
    pub fn managed_entries(&self, folder: &str) -> Result<Vec<ManagedEntry>> {
        let mut entries = Vec::new();
        for entry in read_dir(&self.managed_path.join(folder))? {
            let Ok(facts) = entry.metadata() else { continue };
            let young = facts.modified().ok().and_then(|at| at.elapsed().ok()).is_none_or(|age| age < UNNAMED_AGE_MIN);
            if facts.is_dir() || young {
                continue;
            }
            let path = Path::new(folder).join(entry.file_name());
            let content = entry.file_name().to_str().and_then(|name| name.strip_suffix(".h5")).map(str::to_owned);
            let content = content.filter(|content| managed_name(content).is_ok_and(|own| own == path));
            entries.push(ManagedEntry { path: path.to_string_lossy().into_owned(), bytes: facts.len(), content });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Whether a root is not there as a whole: not configured, not readable, or empty, as when its disk is not mounted.
    /// Blocks.
    pub fn root_is_away(&self, name: &str) -> bool {
        let listed = self.roots.get(name).and_then(|root| std::fs::read_dir(&root.path).ok());
        listed.is_none_or(|mut entries| entries.next().is_none())
    }
}

fn read_dir(folder: &Path) -> Result<Vec<std::fs::DirEntry>> {
    let listed = std::fs::read_dir(folder).and_then(Iterator::collect);
    listed.map_err(|error| disk_error("listing managed files", error))
}

/// Compares an open file with what was indexed.
///
/// # Errors
/// `file_changed`.
pub fn check_unchanged(file: &StoredFile, record: &FileRecord) -> Result<()> {
    let now = fingerprint(file)?;
    // A managed file is named by its content and immutable: a restore or a new disk changes device, inode and time.
    let same = match record.place {
        FilePlace::Registered { .. } => now == record.fingerprint,
        FilePlace::Managed { .. } => now.bytes == record.fingerprint.bytes,
    };
    if same {
        return Ok(());
    }
    let message = format!("{} has changed since it was indexed; register it again", record.source_name);
    Err(Error::new(Reason::FileChanged, message))
}

/// The fingerprint of an open file, in the catalogue's words. Blocks.
///
/// # Errors
/// `io`.
pub fn fingerprint(file: &StoredFile) -> Result<Fingerprint> {
    let file::Fingerprint { device, inode, bytes, modified_ns } = file.fingerprint_now()?;
    Ok(Fingerprint { device, inode, bytes, modified_ns })
}

/// Bytes that the file system of this folder has for us. Blocks.
///
/// # Errors
/// `io`.
pub fn free_bytes(folder: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(folder).map_err(|error| disk_error("asking for free space", error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// `disk_full` where that is what it is, else `io`.
pub fn disk_error(doing: &str, error: std::io::Error) -> Error {
    let reason = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Reason::DiskFull,
        _ => Reason::Io,
    };
    let message = match reason {
        Reason::DiskFull => format!("{doing}: the disk of the server is full"),
        _ => format!("{doing}: the file system of the server refuses"),
    };
    ArrayError::new(reason, message).with_source(error).into()
}

/// `ab/abcdef....h5` for the content address `abcdef...`.
fn managed_name(content: &str) -> Result<PathBuf> {
    let plain = content.len() == 64 && content.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !plain {
        return Err(Error::new(Reason::Internal, format!("{content:?} is not a content address")));
    }
    Ok(Path::new(&content[..2]).join(format!("{content}.h5")))
}

/// The path without `.`; `None` if it is absolute, has `..` or is not UTF-8.
fn plain_relative(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    Some(parts.join("/"))
}

fn has_signature(root: &OwnedFd, relative: &Path) -> bool {
    let Ok(file) = file::open_beneath(root, relative).and_then(StoredFile::new) else { return false };
    let mut found = [0; 8];
    SIGNATURE_OFFSETS.iter().any(|at| file.read_exact_at(*at, &mut found).is_ok() && found == SIGNATURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Files {
        let roots = ["lab", "lab/inner"].map(|name| Root { name: name.replace('/', "-"), path: folder.join(name) });
        for root in &roots {
            std::fs::create_dir_all(&root.path).unwrap();
        }
        Files::open(&roots, &folder.join("data")).unwrap()
    }

    #[test]
    fn paths_are_located_below_the_innermost_root_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let base = folder.path().canonicalize().unwrap();
        let locate = |text: &str| files.locate(text).map(|at| at.to_string()).map_err(|error| error.reason());
        assert_eq!(locate(&format!("{}/lab/a/b.h5", base.display())), Ok("lab:a/b.h5".into()));
        assert_eq!(locate(&format!("{}/lab/inner/b.h5", base.display())), Ok("lab-inner:b.h5".into()));
        assert_eq!(locate("lab:./x/y.nwb"), Ok("lab:x/y.nwb".into()));
        for bad in ["/etc/passwd", "lab:../x", "lab:/etc/passwd", "other:x", "x.h5", ""] {
            assert_eq!(locate(bad), Err(Reason::OutsideRoots), "{bad}");
        }
        assert_eq!(locate(&format!("{}/lab/../secret.h5", base.display())), Err(Reason::OutsideRoots));
    }

    #[test]
    fn a_folder_lists_only_files_with_a_signature() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let lab = folder.path().join("lab");
        std::fs::create_dir_all(lab.join("deep/er")).unwrap();
        std::fs::write(lab.join("deep/er/one.dat"), SIGNATURE).unwrap();
        std::fs::write(lab.join("two.mat"), [[0; 512].as_slice(), &SIGNATURE].concat()).unwrap();
        std::fs::write(lab.join("notes.h5"), "not one").unwrap();
        std::os::unix::fs::symlink(lab.join("two.mat"), lab.join("link.h5")).unwrap();
        let found = files.list_hdf5(&Located { root: "lab".into(), relative: String::new() }).unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["lab:deep/er/one.dat", "lab:two.mat"]);
    }
}
