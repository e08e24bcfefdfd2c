//! Opening a file beneath a root: nothing in its path may be a link, and the result is a regular file.
//!
//! The kernel decides (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`), so that no
//! rename between a check and the opening can help anybody. Where it cannot (before Linux 5.6, or under a seccomp filter
//! that does not know the call), the path is walked one component at a time, each opened without following a link and
//! relative to the one before: the same promise, with more calls. Messages name no path; the source of an error does.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2};
use rustix::io::Errno;

use crate::error::{Error, Reason, Result};

/// What the last component is opened with. Non-blocking, so that a FIFO is refused instead of waited for.
const FILE_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// What a step on the way is opened with: only to be looked at and walked through.
const STEP_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Opens a root directory, once, to open files beneath it. The root itself may be reached through links.
///
/// # Errors
/// `file_not_found` where there is no such directory, `io`.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| refused(path, errno))
}

/// Opens the regular file at `relative` beneath `root` for reading, following no link on the way.
///
/// # Errors
/// `file_not_found`; `outside_roots` where the path is absolute, has `..` in it or leads over a symbolic link;
/// `not_a_regular_file`; `io`.
pub fn open_beneath(root: impl AsFd, relative: &Path) -> Result<File> {
    let root = root.as_fd();
    let names = names(relative)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(root, relative, FILE_FLAGS, Mode::empty(), resolve) {
        Ok(opened) => opened,
        // Old seccomp filters answer a call they do not know with EPERM. Walking gives no more than openat2 does.
        Err(Errno::NOSYS | Errno::PERM) => walk(root, &names).map_err(|errno| refused(relative, errno))?,
        Err(errno) => return Err(refused(relative, errno)),
    };
    only_regular(opened, relative)
}

/// The names on the way, where they are names only.
fn names(relative: &Path) -> Result<Vec<&OsStr>> {
    let outside = |what: &str| {
        let source = format!("{}", relative.display());
        Err(Error::new(Reason::OutsideRoots, format!("the path {what}")).with_source(source))
    };
    let mut names = Vec::new();
    for component in relative.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir => return outside("has `..` in it"),
            Component::RootDir | Component::Prefix(_) => return outside("is absolute"),
        }
    }
    if names.is_empty() {
        return outside("is empty");
    }
    if names.iter().any(|name| name.as_bytes().contains(&0)) {
        return outside("has a zero byte in it");
    }
    Ok(names)
}

/// Does without openat2 what [`open_beneath`] promises.
fn walk(root: impl AsFd, names: &[&OsStr]) -> rustix::io::Result<OwnedFd> {
    let (last, steps) = names.split_last().ok_or(Errno::NOENT)?;
    let mut directory = openat(root, ".", STEP_FLAGS | OFlags::DIRECTORY, Mode::empty())?;
    for step in steps {
        // Without O_DIRECTORY a link is opened as itself, and can be told from a file.
        let next = openat(&directory, *step, STEP_FLAGS, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&next)?.st_mode) {
            FileType::Directory => directory = next,
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NOTDIR),
        }
    }
    openat(&directory, *last, FILE_FLAGS | OFlags::NOFOLLOW, Mode::empty())
}

fn only_regular(opened: OwnedFd, relative: &Path) -> Result<File> {
    let status = fstat(&opened).map_err(|errno| refused(relative, errno))?;
    if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile {
        return Ok(File::from(opened));
    }
    Err(Error::new(Reason::NotARegularFile, "not a regular file").with_source(format!("{}", relative.display())))
}

fn refused(path: &Path, errno: Errno) -> Error {
    let error = std::io::Error::from(errno);
    let (reason, message) = match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => (Reason::FileNotFound, "no such file".to_owned()),
        Errno::XDEV | Errno::LOOP => (Reason::OutsideRoots, "the path leads over a link or out of the root".to_owned()),
        // Opening a socket or a device without a driver.
        Errno::NXIO | Errno::NODEV => (Reason::NotARegularFile, "not a regular file".to_owned()),
        _ => (Reason::Io, format!("the file cannot be opened: {}", error.kind())),
    };
    Error::new(reason, message).with_source(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, mknodat, renameat_with};

    use super::*;

    /// Opens by the kernel and by walking, which must agree.
    fn open_both(root: &OwnedFd, relative: &str) -> Result<String> {
        let text = |file: Result<File>| {
            file.map(|mut file| {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            })
        };
        let relative = Path::new(relative);
        let walked = names(relative)
            .and_then(|names| only_regular(walk(root, &names).map_err(|errno| refused(relative, errno))?, relative));
        let (opened, walked) = (text(open_beneath(root, relative)), text(walked));
        match (&opened, &walked) {
            (Ok(opened), Ok(walked)) => assert_eq!(opened, walked, "{relative:?}"),
            (Err(opened), Err(walked)) => assert_eq!(opened.reason, walked.reason, "{relative:?}"),
            _ => panic!("{relative:?}: {opened:?} by the kernel, {walked:?} by walking"),
        }
        opened
    }

    #[test]
    fn only_regular_files_beneath_the_root_are_opened() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir_all(at("root/lab/day")).unwrap();
        std::fs::write(at("root/lab/day/a.h5"), "inside").unwrap();
        std::fs::write(at("outside.h5"), "outside").unwrap();
        symlink("a.h5", at("root/lab/day/link.h5")).unwrap();
        symlink("day", at("root/lab/link")).unwrap();
        symlink(at("outside.h5"), at("root/outside.h5")).unwrap();
        symlink("loop", at("root/loop")).unwrap();
        mknodat(CWD, at("root/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("root/socket")).unwrap();
        let root = open_root(&at("root")).unwrap();

        assert_eq!(open_both(&root, "lab/day/a.h5").unwrap(), "inside");
        assert_eq!(open_both(&root, "./lab//day/./a.h5").unwrap(), "inside");
        let refused = [
            ("lab/day/b.h5", Reason::FileNotFound),
            ("lab/night/a.h5", Reason::FileNotFound),
            ("lab/day/a.h5/b.h5", Reason::FileNotFound),
            ("lab/day", Reason::NotARegularFile),
            ("lab/", Reason::NotARegularFile),
            ("fifo", Reason::NotARegularFile),
            ("socket", Reason::NotARegularFile),
            ("lab/day/link.h5", Reason::OutsideRoots),
            ("lab/link/a.h5", Reason::OutsideRoots),
            ("outside.h5", Reason::OutsideRoots),
            ("loop", Reason::OutsideRoots),
            ("loop/a.h5", Reason::OutsideRoots),
            ("../outside.h5", Reason::OutsideRoots),
            ("lab/../lab/day/a.h5", Reason::OutsideRoots),
            ("..", Reason::OutsideRoots),
            (".", Reason::OutsideRoots),
            ("", Reason::OutsideRoots),
            ("/etc/hostname", Reason::OutsideRoots),
            ("lab/day/a.h5\0", Reason::OutsideRoots),
        ];
        for (relative, reason) in refused {
            let error = open_both(&root, relative).unwrap_err();
            assert_eq!(error.reason, reason, "{relative:?}");
            assert!(!error.message.contains("lab"), "{relative:?} is told: {error}");
        }
        assert_eq!(open_both(&root, &"n".repeat(300)).unwrap_err().reason, Reason::FileNotFound);
        assert_eq!(open_root(&at("nowhere")).unwrap_err().reason, Reason::FileNotFound);
        assert_eq!(open_root(&at("outside.h5")).unwrap_err().reason, Reason::FileNotFound);
    }

    /// A file, and a folder on the way to one, change places with links to the outside as fast as a thread can make
    /// them: what is opened is always the inside.
    #[test]
    fn a_link_exchanged_for_a_file_while_it_is_opened_is_never_followed() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for folder in ["root/day", "outside"] {
            std::fs::create_dir_all(at(folder)).unwrap();
            std::fs::write(at(folder).join("a.h5"), folder).unwrap();
        }
        std::fs::write(at("root/file"), "root/file").unwrap();
        symlink(at("outside"), at("root/day.link")).unwrap();
        symlink(at("outside/a.h5"), at("root/file.link")).unwrap();
        let root = open_root(&at("root")).unwrap();
        let done = AtomicBool::new(false);
        let opened = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for name in ["day", "file"] {
                        let (here, link) = (at("root").join(name), at("root").join(format!("{name}.link")));
                        renameat_with(CWD, here, CWD, link, RenameFlags::EXCHANGE).unwrap();
                    }
                }
            });
            let mut opened = 0;
            for attempt in 0..20_000 {
                let relative = Path::new(["day/a.h5", "file"][attempt % 2]);
                let file = match attempt % 4 < 2 {
                    true => open_beneath(&root, relative),
                    false => names(relative).and_then(|names| {
                        only_regular(walk(&root, &names).map_err(|errno| refused(relative, errno))?, relative)
                    }),
                };
                if let Ok(mut file) = file {
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    assert!(text.starts_with("root/"), "{relative:?} led to {text:?}");
                    opened += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
            opened
        });
        assert!(opened > 0, "the file was never there");
    }
}
