//! Reading backups: is one whole, and a data directory made of it.

use std::{
    fs::{self, File},
    io::{self, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Component, Path, PathBuf},
};

use super::{
    BackupError, BackupSummary,
    file::{DecodeError, Decoder, FORMAT, Record},
};
use crate::store::Restored;

/// Reads a backup through: it is whole, and was written by a program that this one knows.
pub fn check(path: &Path) -> Result<BackupSummary, BackupError> {
    let failed = decoding(path);
    let mut decoder = open(path)?;
    loop {
        if let Record::End { revision, rows } = decoder.next().map_err(&failed)? {
            let about = fs::metadata(path);
            let about = about.map_err(|cause| BackupError::Read { path: path.into(), cause })?;
            return Ok(BackupSummary { revision, rows, bytes: about.len() });
        }
    }
}

/// Makes what a backup holds below `root`, readable by its owner alone; everything is on disk
/// afterwards. The backup is checked as a whole first. What was there must not be in use.
pub fn restore(path: &Path, root: &Path) -> Result<BackupSummary, BackupError> {
    let summary = check(path)?;
    let failed = decoding(path);
    let mut decoder = open(path)?;
    let mut database: Option<Restored> = None;
    loop {
        match decoder.next().map_err(&failed)? {
            Record::File { path: name, bytes } => {
                write(&place(path, root, &name)?, &bytes)?;
            }
            Record::Database { path: name } => {
                database = Some(Restored::create(&place(path, root, &name)?)?);
            }
            Record::Row { revision, row } => match &mut database {
                Some(database) => database.insert(revision, row)?,
                None => return Err(failed(DecodeError::Damaged("a row has no database"))),
            },
            Record::End { revision, .. } => {
                return match database {
                    Some(database) => Ok(database.finish(revision).map(|()| summary)?),
                    None => Err(failed(DecodeError::Damaged("it has no database"))),
                };
            }
        }
    }
}

fn open(path: &Path) -> Result<Decoder<BufReader<File>>, BackupError> {
    let file = File::open(path).map_err(|cause| BackupError::Read { path: path.into(), cause })?;
    Decoder::begin(BufReader::new(file)).map_err(decoding(path))
}

fn decoding(path: &Path) -> impl Fn(DecodeError) -> BackupError {
    move |error| {
        let path = path.to_owned();
        match error {
            DecodeError::Read(cause) => BackupError::Read { path, cause },
            DecodeError::Foreign => BackupError::Foreign { path },
            DecodeError::Newer(found) => BackupError::Newer { path, found, known: FORMAT },
            DecodeError::Damaged(what) => BackupError::Damaged { path, what: what.to_owned() },
        }
    }
}

/// Where a file of a backup goes; its directory is made. Names lead nowhere but downwards.
fn place(backup: &Path, root: &Path, name: &str) -> Result<PathBuf, BackupError> {
    let relative = Path::new(name);
    let downwards = |part| matches!(part, Component::Normal(_));
    if name.is_empty() || !relative.components().all(downwards) {
        let what = format!("it holds a file named {name:?}");
        return Err(BackupError::Damaged { path: backup.to_owned(), what });
    }
    let path = root.join(relative);
    let dir = path.parent().unwrap_or(root);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|cause| BackupError::Write { path: dir.to_owned(), cause })?;
    Ok(path)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let write = || -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|cause| BackupError::Write { path: path.to_owned(), cause })
}
