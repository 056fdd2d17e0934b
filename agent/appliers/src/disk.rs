//! Files that survive a crash and that nobody else may read.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use muster_core::{Digest, PlacementKey};

/// The name of a placement's file or directory: readable, at most 255 bytes, never shared by two.
pub(crate) fn name(key: &PlacementKey) -> String {
    let readable: String =
        format!("{}.{}", key.namespace(), key.name()).chars().take(200).collect();
    format!("{readable}-{}", Digest::of(key.to_string().as_bytes()).short())
}

/// Makes a directory and its parents, 0700.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces a file by `bytes` (0600): after a crash it is the old one or the new one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&new, path)?;
    sync_parent(path)
}

/// Removes a file, if it is there, and lets nothing but a broken disk bring it back.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    remove_dir_entry(path)?;
    sync_parent(path)
}

/// Removes a file, if it is there.
pub(crate) fn remove_dir_entry(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a directory and all in it, if it is there.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Replaces the directory `dir` by one that holds exactly `files`. What begins with `#!` may be
/// executed. After a crash midway the directory may be missing; the caller's record says so by being
/// unfinished.
pub(crate) fn replace_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let new = dir.with_added_extension("new");
    remove_dir(&new)?;
    private_dir(&new)?;
    write_files(&new, files)?;
    remove_dir(dir)?;
    fs::rename(&new, dir)
}

/// Writes files below a directory, with the directories that they need.
pub(crate) fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for (path, bytes) in files {
        let path: PathBuf = dir.join(path);
        if let Some(parent) = path.parent() {
            private_dir(parent)?;
        }
        let mode = if bytes.starts_with(b"#!") { 0o700 } else { 0o600 };
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
