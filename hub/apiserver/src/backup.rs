//! Backups: everything that a server needs to go on elsewhere, in one file, and back from it.
//!
//! A backup holds the keys and certificates that the server made, files that its embedder adds,
//! and the rows of the database at one moment; Secrets that are encrypted at rest stay so. It is
//! streamed while the server goes on. [`check`] reads one through, and [`restore`] makes a data
//! directory of it.

mod door;
mod file;
mod restored;

use std::{io, path::PathBuf};

pub(crate) use door::{Door, answer};
pub use restored::{check, restore};

use crate::store::DiskError;

/// Where backups are handed out, and what they hold besides the API's own.
#[derive(Debug, Clone)]
pub struct BackupPlan {
    /// The path, for `get` on which RBAC must allow a user (`nonResourceURLs`).
    pub path: String,
    /// The directory to which all names in the backup are relative.
    pub root: PathBuf,
    /// The API's data directory within it.
    pub api_dir: PathBuf,
    /// Further files within it.
    pub files: Vec<PathBuf>,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSummary {
    /// Its newest revision.
    pub revision: u64,
    /// The rows of the database: objects and their recent history.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// A backup cannot be read, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is something else.
    #[error("{path} is no backup of a Muster hub")]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// A newer program made it.
    #[error(
        "the backup {path} has format {found}, and this program knows {known}: restore it with the \
         newer program that made it"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// What is known here.
        known: u32,
    },
    /// It is not what was written.
    #[error("the backup {path} is damaged ({what}): use another one")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The database cannot be made.
    #[error("cannot make the database of the backup: {0}")]
    Database(String),
}

impl From<DiskError> for BackupError {
    fn from(error: DiskError) -> BackupError {
        BackupError::Database(error.to_string())
    }
}
