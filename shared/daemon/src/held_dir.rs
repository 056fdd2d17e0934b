//! A directory that one process at a time holds, and how a process's own place is found.

use std::{
    env, fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::durable::{self, DurableError};

/// A private directory (mode 0700), locked for as long as this lives.
#[derive(Debug)]
pub struct HeldDir {
    path: PathBuf,
    _lock: fs::File,
}

/// Why a directory cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum HeldDirError {
    /// It cannot be made.
    #[error(transparent)]
    Make(#[from] DurableError),
    /// It cannot be written to.
    #[error("cannot write to {path}: {cause}", path = path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process holds it.
    #[error(
        "another process is using {path}: stop it, or name another directory",
        path = path.display()
    )]
    Held {
        /// The directory.
        path: PathBuf,
    },
}

/// Where a program keeps its state when no flag says so: `/var/lib/NAME` for root, else NAME in the
/// XDG state directory; `None` for a user without a home.
pub fn default_state_dir(name: &str) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(Path::new("/var/lib").join(name));
    }
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(env::home_dir()?.join(".local/state")))?;
    Some(state.join(name))
}

impl HeldDir {
    /// Makes the directory where it is absent, and locks it.
    pub fn open(path: &Path) -> Result<Self, HeldDirError> {
        durable::private_dir(path)?;
        let write = |cause| HeldDirError::Write { path: path.to_owned(), cause };
        let path = path.canonicalize().map_err(write)?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(write)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(HeldDirError::Held { path }),
            Err(fs::TryLockError::Error(cause)) => Err(write(cause)),
        }
    }

    /// Where it is; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let held = HeldDir::open(dir.path()).unwrap();
        let refused = HeldDir::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
        drop(held);
        HeldDir::open(dir.path()).unwrap();
    }
}
