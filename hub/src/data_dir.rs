//! The data directory: where it is, and that one hub at a time uses it.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// The admin's kubeconfig within the data directory; mode 0600.
pub(crate) const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";

/// Held for as long as the hub runs.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: fs::File,
}

/// `/var/lib/muster` for root, else the XDG state directory.
pub(crate) fn default_path() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/muster"));
    }
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(env::home_dir()?.join(".local/state")))?;
    Some(state.join("muster"))
}

impl DataDir {
    /// Makes the directory (mode 0700) where it is absent, and locks it.
    pub(crate) fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let path = path
            .or_else(default_path)
            .context("there is no home directory: name a data directory with --data-dir")?;
        let shown = path.display().to_string();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the data directory {shown}"))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot resolve the data directory {shown}"))?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write to the data directory {shown}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another hub is using the data directory {shown}: stop it, or name another \
                 directory with --data-dir"
            ),
            Err(fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock the data directory {shown}"))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
