//! The database leaving and coming back: rows of one moment for a backup, and a database made of
//! the rows of a backup.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    copy::Target,
    disk::{self, DiskError, LOG, Snapshot},
    row,
};

/// A restored database goes on from a revision that is so far ahead that none given out since the
/// backup reaches it: a client that still knows one of those is told that it is expired, and lists
/// anew, instead of taking another history for its own (as `etcdutl snapshot restore
/// --bump-revision` advises).
const REVISION_STEP: u64 = 1_000_000_000;

impl Snapshot {
    /// The newest revision.
    pub(crate) fn revision(&self) -> Result<u64, DiskError> {
        disk::newest(&self.read)
    }

    /// Hands out each row, in order, until one is not taken. Whether all were.
    pub(crate) fn each_row(
        &self,
        mut take: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<bool, DiskError> {
        for entry in self.read.open_table(LOG)?.range(0..)? {
            let (revision, row) = entry?;
            if !take(revision.value(), row.value()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A database in the making, from the rows of a backup.
pub(crate) struct Restored {
    target: Target,
    kinds: BTreeSet<Arc<str>>,
}

impl Restored {
    pub(crate) fn create(path: &Path) -> Result<Restored, DiskError> {
        Ok(Restored { target: Target::create(path)?, kinds: BTreeSet::new() })
    }

    pub(crate) fn insert(&mut self, revision: u64, row: Vec<u8>) -> Result<(), DiskError> {
        self.kinds.insert(row::kind_of(&row).ok_or(DiskError::Damaged(revision))?);
        self.target.insert(revision, row)
    }

    /// Everything is on disk afterwards. `revision`: the newest one of the backup.
    pub(crate) fn finish(self, revision: u64) -> Result<(), DiskError> {
        let next = revision + REVISION_STEP;
        let floors = self.kinds.iter().map(|kind| (&**kind, next));
        self.target.finish(floors, next).map(drop)
    }
}
