//! The hub's data directory: where it is, and what of it others must know.

use std::path::PathBuf;

use anyhow::Context as _;
use muster_daemon::{HeldDir, default_state_dir};

/// The admin's kubeconfig within the data directory; mode 0600.
pub(crate) const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";

/// Where it is when no flag says so.
pub(crate) fn default_path() -> Option<PathBuf> {
    default_state_dir("muster")
}

/// Makes the data directory where it is absent, and holds it.
pub(crate) fn open(path: Option<PathBuf>) -> anyhow::Result<HeldDir> {
    let path = path
        .or_else(default_path)
        .context("there is no home directory: name a data directory with --data-dir")?;
    HeldDir::open(&path).context("the data directory (--data-dir)")
}
