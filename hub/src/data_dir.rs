//! The hub's data directory: where it is, and what of it others must know.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use muster_apiserver::BackupPlan;
use muster_daemon::{HeldDir, default_state_dir};

/// The admin's kubeconfig within the data directory; mode 0600.
pub(crate) const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";

/// The API's own directory within it.
pub(crate) const API: &str = "api";

/// Where the API hands backups out.
pub(crate) const BACKUP_PATH: &str = "/muster/v1/backup";

/// What the agents know the hub by.
const AGENTS_AUTHORITY: [&str; 2] = ["agents-ca/ca.key", "agents-ca/ca.crt"];

/// What of it is in a backup: the API with all objects, and the agents' authority. Logs are not,
/// and the rest is made anew at each start.
pub(crate) fn backup_plan(root: &Path) -> BackupPlan {
    BackupPlan {
        path: BACKUP_PATH.to_owned(),
        root: root.to_owned(),
        api_dir: API.into(),
        files: AGENTS_AUTHORITY.map(PathBuf::from).into(),
    }
}

/// Where it is when no flag says so.
pub(crate) fn default_path() -> Option<PathBuf> {
    default_state_dir("muster")
}

/// The one that was named, or else the default.
pub(crate) fn chosen(path: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    path.or_else(default_path)
        .context("there is no home directory: name a data directory with --data-dir")
}

/// Makes the data directory where it is absent, and holds it.
pub(crate) fn open(path: Option<PathBuf>) -> anyhow::Result<HeldDir> {
    let path = chosen(path)?;
    HeldDir::open(&path).context("the data directory (--data-dir)")
}
