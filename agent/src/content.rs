//! Content on the agent's disk, by digest: fetched once, shared by placements, verified when read.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use muster_appliers::ContentStore;
use muster_core::{Digest, FileSet};
use muster_daemon::durable;
use tracing::warn;

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct ContentDir(PathBuf);

impl ContentDir {
    /// The cache below a state directory.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, durable::DurableError> {
        let path = state_dir.join("content");
        durable::private_dir(&path)?;
        Ok(Self(path))
    }

    /// Keeps canonical bytes whose digest the caller has verified.
    pub(crate) fn keep(
        &self,
        digest: &Digest,
        canonical: &[u8],
    ) -> Result<(), durable::DurableError> {
        durable::write(&self.path(digest), canonical)
    }

    /// Removes all content but this.
    pub(crate) fn retain(&self, wanted: &BTreeSet<Digest>) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // Names that are no digests are files being written.
            let digest = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            if digest.is_some_and(|digest| !wanted.contains(&digest)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.to_string())
    }
}

impl ContentStore for ContentDir {
    fn load(&self, digest: &Digest) -> Option<FileSet> {
        let bytes = fs::read(self.path(digest)).ok()?;
        if Digest::of(&bytes) != *digest {
            warn!(%digest, "Content on disk is damaged: it is fetched again");
            let _ = fs::remove_file(self.path(digest));
            return None;
        }
        FileSet::decode(&bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> FileSet {
        let mut files = FileSet::new();
        files.insert("a", text.as_bytes().to_vec()).unwrap();
        files
    }

    #[test]
    fn damaged_content_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentDir::open(dir.path()).unwrap();
        let (set, digest) = (files("1"), files("1").digest());
        assert!(content.load(&digest).is_none());
        content.keep(&digest, &set.encode()).unwrap();
        assert_eq!(content.load(&digest), Some(set));
        fs::write(content.path(&digest), b"rot").unwrap();
        assert!(content.load(&digest).is_none());
        assert!(!content.path(&digest).exists());
    }

    #[test]
    fn only_wanted_content_is_retained() {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentDir::open(dir.path()).unwrap();
        let (one, two) = (files("1"), files("2"));
        content.keep(&one.digest(), &one.encode()).unwrap();
        content.keep(&two.digest(), &two.encode()).unwrap();
        content.retain(&BTreeSet::from([one.digest()])).unwrap();
        assert!(content.load(&one.digest()).is_some() && content.load(&two.digest()).is_none());
    }
}
