//! The agent's state directory: where it is, and the assignment in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use muster_core::Assignment;
use muster_daemon::{HeldDir, default_state_dir, durable};

/// The assignment that was last accepted.
const ASSIGNMENT: &str = "assignment.bin";

/// A state directory that this process holds.
#[derive(Debug)]
pub(crate) struct StateDir(HeldDir);

/// Where the state is: as a flag says, else the program's own place.
pub(crate) fn resolve(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    given
        .map(Path::to_owned)
        .or_else(|| default_state_dir("muster-agent"))
        .context("there is no home directory: name a directory with --state-dir")
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
    /// Makes the directory where it is absent, and holds it.
    pub(crate) fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let held = HeldDir::open(&resolve(given)?).context("the state directory (--state-dir)")?;
        Ok(Self(held))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes an assignment so that it survives a crash; to be done before acting on it.
    pub(crate) fn keep(&self, assignment: &Assignment) -> Result<(), durable::DurableError> {
        durable::write(&self.path().join(ASSIGNMENT), &assignment.encode())
    }
}

#[cfg(test)]
mod tests {
    use muster_core::DestinationName;

    use super::*;

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
