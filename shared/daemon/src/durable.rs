//! Files that are wholly old or wholly new after a crash, and directories that only their owner
//! can read.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Why a file could not be written or a directory not made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {cause}", path = path.display())]
pub struct DurableError {
    action: &'static str,
    path: PathBuf,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}

/// Makes a directory (and its parents) that only its owner can enter (mode 0700); an existing one
/// that others can enter is closed to them.
pub fn private_dir(path: &Path) -> Result<(), DurableError> {
    let fail = failing("make the private directory", path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(&fail)?;
    let mode = fs::metadata(path).map_err(&fail)?.mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(&fail)?;
    }
    Ok(())
}

/// Replaces a file's content so that a crash at any moment leaves the old or the new one whole, and
/// returning means that the new one is on the disk. Only the owner can read it (mode 0600).
///
/// Blocks: in async code, call it for small files only or on a blocking thread.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    // Different for each call, so that two writers of one file never share a half-written one.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{call}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_whole(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(cause) = written {
        let _ = fs::remove_file(&temporary);
        return Err(failing("write", path)(cause));
    }
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the entries of a directory (names made, renamed, removed) survive a crash.
pub fn sync_dir(path: &Path) -> Result<(), DurableError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failing("sync the directory", path))
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failing<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> DurableError + use<'a> {
    move |cause| DurableError { action, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        write(&file, b"old and longer").unwrap();
        write(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn closes_a_directory_that_others_could_enter() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        private_dir(&inner).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        private_dir(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn names_the_file_that_cannot_be_written() {
        let error = write(Path::new("/nowhere/at/all"), b"").unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
