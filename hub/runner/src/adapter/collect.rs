//! Reads what a pipeline left behind without trusting any of it: no link is followed, nothing but
//! directories and plain files is opened, and all is counted before it is held.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use muster_core::{
    FileSet,
    content::{FileError, OUTPUT_BYTES_MAX},
};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat},
    io::Errno,
};

use super::AdapterError;

/// How deep directories may be nested: each level is an open directory while it is read.
const DEPTH_MAX: usize = 64;

/// Adds every file below `root`, as `prefix/<path>`, and returns the directories directly below it that
/// hold none. A `root` that is not there is empty.
pub(super) fn tree(
    root: &Path,
    prefix: &str,
    files: &mut FileSet,
) -> Result<Vec<String>, AdapterError> {
    let dir = match open_dir(CWD, root) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(read_error(&root.display().to_string(), error.into())),
    };
    descend(&dir, prefix, files, 0)?;
    let mut directories = directories(&dir, prefix)?;
    directories.retain(|name| {
        let below = format!("{prefix}/{name}/");
        !files.iter().any(|(path, _)| path.starts_with(&below))
    });
    Ok(directories)
}

/// The names of the directories directly below one.
fn directories(dir: &OwnedFd, at: &str) -> Result<Vec<String>, AdapterError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(|error| read_error(at, error.into()))? {
        let entry = entry.map_err(|error| read_error(at, error.into()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." && open_dir(dir, name.as_str()).is_ok() {
            names.push(name);
        }
    }
    Ok(names)
}

/// One file directly below `root`, if it is there.
pub(super) fn file(root: &Path, name: &str) -> Result<Option<Vec<u8>>, AdapterError> {
    let dir = match open_dir(CWD, root) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(read_error(&root.display().to_string(), error.into())),
    };
    read(&dir, name, name, 0)
}

fn open_dir(parent: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, path, flags, Mode::empty())
}

fn read_error(path: &str, source: io::Error) -> AdapterError {
    AdapterError::File { action: "read", path: path.into(), source }
}

fn descend(dir: &OwnedFd, at: &str, files: &mut FileSet, depth: usize) -> Result<(), AdapterError> {
    let refuse =
        |path: &str, cause: String| Err(AdapterError::Refused { path: path.to_owned(), cause });
    if depth > DEPTH_MAX {
        return refuse(at, format!("directories are nested deeper than {DEPTH_MAX}"));
    }
    let entries = Dir::read_from(dir).map_err(|error| read_error(at, error.into()))?;
    for entry in entries {
        let entry = entry.map_err(|error| read_error(at, error.into()))?;
        let Ok(name) = entry.file_name().to_str() else {
            let path = format!("{at}/{}", entry.file_name().to_string_lossy());
            return refuse(&path, "the file's name is not UTF-8; rename it".to_owned());
        };
        if name == "." || name == ".." {
            continue;
        }
        let path = format!("{at}/{name}");
        match open_dir(dir, name) {
            Ok(below) => descend(&below, &path, files, depth + 1)?,
            // Not a directory, or a link: the next step finds out which.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                if let Some(bytes) = read(dir, name, &path, files.size())? {
                    files.insert(&path, bytes)?;
                }
            }
            Err(error) => return Err(read_error(&path, error.into())),
        }
    }
    Ok(())
}

/// Reads a plain file; `taken` bytes of the whole output are spoken for.
fn read(
    dir: &OwnedFd,
    name: &str,
    path: &str,
    taken: usize,
) -> Result<Option<Vec<u8>>, AdapterError> {
    let refuse =
        |cause: &str| Err(AdapterError::Refused { path: path.to_owned(), cause: cause.to_owned() });
    // Non-blocking: opening a named pipe must not wait for somebody to write to it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => {
            return refuse("is a symbolic link, which is never followed; write the file itself");
        }
        Err(Errno::NXIO) => return refuse("is a socket or pipe, not a file"),
        Err(error) => return Err(read_error(path, error.into())),
    };
    let stat = fstat(&file).map_err(|error| read_error(path, error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse("is a device, socket or pipe, not a file");
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    let room = OUTPUT_BYTES_MAX.saturating_sub(taken);
    if size > room {
        return Err(FileError::TooLarge { path: path.to_owned(), size }.into());
    }
    let mut bytes = Vec::with_capacity(size);
    // One byte more than the room: a file that is growing is refused by the set.
    File::from(file)
        .take(room as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| read_error(path, error))?;
    Ok(Some(bytes))
}
