//! The state directory: where it is, that one agent at a time uses it, and the assignment in it.

use std::{
    env, fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use muster_core::Assignment;
use muster_daemon::durable;

/// The assignment that was last accepted.
const ASSIGNMENT: &str = "assignment.bin";

/// A state directory that this process holds.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: fs::File,
}

/// Where the state is when no flag says so: `/var/lib/muster-agent` for root, else XDG's place.
pub(crate) fn resolve(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/muster-agent"));
    }
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(env::home_dir()?.join(".local/state")));
    let state = state.context("there is no home directory: name a directory with --state-dir")?;
    Ok(state.join("muster-agent"))
}

/// Reads the assignment in a state directory, held by somebody or not.
pub(crate) fn assignment(state_dir: &Path) -> anyhow::Result<Option<Assignment>> {
    let path = state_dir.join(ASSIGNMENT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let assignment = Assignment::decode(&bytes).with_context(|| {
        format!("{} is damaged: remove it, and the hub sends it again", path.display())
    })?;
    Ok(Some(assignment))
}

impl StateDir {
    /// Makes the directory (mode 0700) where it is absent, and locks it.
    pub(crate) fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let path = resolve(given)?;
        durable::private_dir(&path)?;
        let path = path.canonicalize()?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write to the state directory {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another agent is using the state directory {}: stop it, or name another with \
                 --state-dir",
                path.display()
            ),
            Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock the directory"),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an assignment so that it survives a crash; to be done before acting on it.
    pub(crate) fn keep(&self, assignment: &Assignment) -> Result<(), durable::DurableError> {
        durable::write(&self.path.join(ASSIGNMENT), &assignment.encode())
    }
}

#[cfg(test)]
mod tests {
    use muster_core::DestinationName;

    use super::*;

    #[test]
    fn a_second_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = StateDir::open(Some(dir.path())).unwrap();
        let refused = StateDir::open(Some(dir.path())).unwrap_err().to_string();
        assert!(refused.contains("another agent"), "{refused}");
    }

    #[test]
    fn an_assignment_is_read_as_it_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path())).unwrap();
        assert_eq!(assignment(dir.path()).unwrap(), None);
        let kept = Assignment::empty(DestinationName::parse("vm-1").unwrap());
        state.keep(&kept).unwrap();
        assert_eq!(assignment(dir.path()).unwrap(), Some(kept));
        fs::write(dir.path().join(ASSIGNMENT), b"torn").unwrap();
        let error = assignment(dir.path()).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
