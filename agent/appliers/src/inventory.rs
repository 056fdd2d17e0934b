//! What may be on this destination, on the agent's own disk: written before anything is applied, so
//! that a crash leaves nothing behind unknown, and kept until it is removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use muster_core::{Digest, Held, PlacementKey};
use serde::{Deserialize, Serialize};

use crate::disk;

/// The inventory of one agent.
#[derive(Debug)]
pub(crate) struct Inventory {
    dir: PathBuf,
    records: Mutex<BTreeMap<PlacementKey, Record>>,
}

/// What may be there of one placement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the plan knows of it.
    pub(crate) held: Held,
    /// The appliers that may have something to remove.
    pub(crate) appliers: BTreeSet<String>,
    /// The digest last applied completely, whatever has been begun since.
    pub(crate) completed: Option<Digest>,
    /// The digest last begun; its files say what should be there.
    pub(crate) begun: Option<Digest>,
    /// The order's options, for commands that run without an order.
    pub(crate) options: BTreeMap<String, String>,
}

/// A record on disk, which names its placement itself: file names are only for people.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    placement: PlacementKey,
    #[serde(flatten)]
    record: Record,
}

impl Inventory {
    /// Reads the inventory in `dir`, which is made if it does not exist.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        disk::private_dir(dir)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let stored: Stored = serde_json::from_slice(&fs::read(&path)?).map_err(|error| {
                let path = path.display();
                io::Error::other(format!("{path} is not a record of the inventory: {error}"))
            })?;
            records.insert(stored.placement, stored.record);
        }
        Ok(Self { dir: dir.to_owned(), records: Mutex::new(records) })
    }

    /// All records.
    pub(crate) fn all(&self) -> BTreeMap<PlacementKey, Record> {
        self.lock().clone()
    }

    /// The record of one placement.
    pub(crate) fn get(&self, key: &PlacementKey) -> Option<Record> {
        self.lock().get(key).cloned()
    }

    /// Writes a record through to the disk.
    pub(crate) fn put(&self, key: &PlacementKey, record: &Record) -> io::Result<()> {
        if self.lock().get(key) == Some(record) {
            return Ok(());
        }
        let stored = Stored { placement: key.clone(), record: record.clone() };
        disk::write(&self.path(key), &serde_json::to_vec(&stored)?)?;
        self.lock().insert(key.clone(), record.clone());
        Ok(())
    }

    /// Forgets a placement of which nothing is left.
    pub(crate) fn forget(&self, key: &PlacementKey) -> io::Result<()> {
        disk::remove(&self.path(key))?;
        self.lock().remove(key);
        Ok(())
    }

    fn path(&self, key: &PlacementKey) -> PathBuf {
        self.dir.join(disk::name(key)).with_added_extension("json")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PlacementKey, Record>> {
        // A panic while the map was held left it whole: every change is one insertion or removal.
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reopened_inventory_knows_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let key = PlacementKey::new("default", "web").unwrap();
        let held = Held { applied: Some(Digest::of(b"a")), ..Held::default() };
        let record =
            Record { held, appliers: BTreeSet::from(["shell".into()]), ..Record::default() };
        Inventory::open(dir.path()).unwrap().put(&key, &record).unwrap();
        let inventory = Inventory::open(dir.path()).unwrap();
        assert_eq!(inventory.get(&key), Some(record));
        inventory.forget(&key).unwrap();
        assert!(Inventory::open(dir.path()).unwrap().all().is_empty());
    }

    #[test]
    fn a_broken_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.json"), "{").unwrap();
        let error = Inventory::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("x.json"), "{error}");
    }
}
