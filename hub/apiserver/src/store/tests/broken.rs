//! A disk that breaks at any moment: power lost with writes torn and reordered, errors, no room.
//!
//! The disk is in memory (so that hundreds of histories take seconds) and keeps apart what has been flushed and what has only been written. After a
//! loss of power, of what was not flushed any part may be there, down to single sectors.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use proptest::prelude::*;
use redb::{Database, StorageBackend};

use super::*;
use crate::store::disk::{DiskError, Opener};

const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
struct Platter {
    flushed: Vec<u8>,
    /// As programs see it.
    written: Vec<u8>,
    /// What was written since the last flush.
    pending: Vec<(usize, Vec<u8>)>,
    /// Calls until the disk fails; afterwards each call fails.
    calls_left: Option<u64>,
    /// The error that it fails with.
    error: Option<io::ErrorKind>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct BrokenDisk(Arc<Mutex<Platter>>);

impl BrokenDisk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn fail_after(&self, calls: u64, error: io::ErrorKind) {
        let mut platter = self.platter();
        (platter.calls_left, platter.error) = (Some(calls), Some(error));
    }

    fn mend(&self) {
        self.platter().calls_left = None;
    }

    /// What is there when the power is back: `lost` chooses which sectors never arrived.
    fn after_power_loss(&self, mut lost: impl FnMut() -> bool) -> BrokenDisk {
        let platter = self.platter();
        let mut image = platter.flushed.clone();
        for (at, bytes) in &platter.pending {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                let start = at + index * SECTOR;
                if !lost() && start + sector.len() <= platter.written.len() {
                    image.resize(image.len().max(start + sector.len()), 0);
                    image[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        let platter = Platter { flushed: image.clone(), written: image, ..Platter::default() };
        BrokenDisk(Arc::new(Mutex::new(platter)))
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Arc::new(move |_| Database::builder().create_with_backend(disk.clone()))
    }

    /// A disk of the store on it, in a directory where nothing else is.
    pub(super) fn open(&self, dir: &Path) -> Result<(Disk, State), DiskError> {
        Disk::open_with(&dir.join("db"), Sealing::default(), self.opener())
    }

    fn call(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        match &mut platter.calls_left {
            Some(0) => Err(platter.error.unwrap_or(io::ErrorKind::Other).into()),
            Some(left) => {
                *left -= 1;
                Ok(platter)
            }
            None => Ok(platter),
        }
    }
}

impl StorageBackend for BrokenDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (start, platter) = (offset as usize, self.call()?);
        let bytes = platter.written.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.call()?.written.resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.call()?;
        platter.pending.clear();
        platter.flushed = platter.written.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (start, mut platter) = (offset as usize, self.call()?);
        platter.written[start..start + data.len()].copy_from_slice(data);
        platter.pending.push((start, data.to_vec()));
        Ok(())
    }
}

/// A change of one of a few objects on top of a state.
fn change(state: &State, count: u64) -> Arc<Event> {
    let name = format!("t{}", count % 5);
    let prev = state.get(&key(&name)).cloned();
    let revision = state.revision + 1;
    let (kind, object) = match &prev {
        Some(prev) if count % 7 == 3 => (EventKind::Deleted, prev.at_revision(revision)),
        _ => {
            let mut value = thing(&name, count as i64);
            value["padding"] = "x".repeat(count as usize * 37 % 9_000).into();
            let kind = if prev.is_some() { EventKind::Modified } else { EventKind::Added };
            (kind, Object::new(kind, key(&name), revision, draft(&value).unwrap()))
        }
    };
    Arc::new(Event::new(kind, Arc::new(object), prev))
}

/// Writes until the disk fails; what each answered revision was, and what the last one tried.
fn write_until_failure(
    disk: &mut Disk,
    state: &mut State,
    changes: u64,
) -> Option<(Vec<(String, i64)>, u64)> {
    for count in 0..changes {
        let event = change(state, count);
        if disk.commit(std::slice::from_ref(&event), &Default::default()).is_err() {
            let answered = (values(state), state.revision);
            state.publish(event);
            return Some(answered);
        }
        state.publish(event);
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn power_lost_at_any_moment_loses_nothing_that_was_answered(
        calls in 0_u64..1_500,
        lost in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let broken = BrokenDisk::default();
        let (mut disk, mut state) = broken.open(dir.path()).unwrap();
        broken.fail_after(calls, io::ErrorKind::Other);
        let answered = write_until_failure(&mut disk, &mut state, 200);
        let Some((before, revision)) = answered else { return Ok(()) };
        let tried = values(&state);
        let mut pattern = lost.iter().cycle();
        let image = broken.after_power_loss(|| *pattern.next().unwrap());
        drop(disk);
        let (mut disk, mut found) = image.open(dir.path()).unwrap();
        let whole = [(before, revision), (tried, revision + 1)];
        prop_assert!(
            whole.contains(&(values(&found), found.revision)),
            "neither what was answered nor that and the last: {:?}", values(&found)
        );
        // And it goes on without any repair.
        prop_assert!(write_until_failure(&mut disk, &mut found, 3).is_none());
    }
}

#[test]
fn after_an_error_the_database_is_opened_again_without_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    for calls in 0..60 {
        let broken = BrokenDisk::default();
        let (mut disk, mut state) = broken.open(dir.path()).unwrap();
        assert!(write_until_failure(&mut disk, &mut state, 10).is_none());
        broken.fail_after(calls, io::ErrorKind::Other);
        let events: Vec<_> = [change(&state, 100)].into();
        let refused = disk.commit(&events, &Default::default()).is_err();
        broken.mend();
        if !refused {
            continue;
        }
        // Other changes under the same revisions, fewer than were refused.
        let event = change(&state, 21);
        disk.commit(std::slice::from_ref(&event), &Default::default()).unwrap();
        state.publish(event);
        drop(disk);
        let (_, again) = broken.open(dir.path()).unwrap();
        assert_eq!(values(&again), values(&state), "failed after {calls} calls");
        assert_eq!(again.revision, state.revision);
    }
}

#[tokio::test]
async fn reads_go_on_while_the_disk_fails_and_writes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("db");
    let broken = BrokenDisk::default();
    let (disk, state) = broken.open(dir.path()).unwrap();
    let shared = Arc::new(Shared { state: RwLock::new(state), observers: RwLock::default() });
    let (queue, commands) = mpsc::channel(QUEUE_CHANGES);
    let writer = Writer::new(disk, Reserve::beside(&path), shared.clone(), QUOTA);
    writer::start(writer, commands).unwrap();
    let store = Store { shared, queue };
    store.commit(put("a", 1, None)).await.unwrap();
    broken.fail_after(0, io::ErrorKind::Other);
    let refused = store.commit(put("b", 1, None)).await.unwrap_err();
    assert!(matches!(refused, Refusal::Disk(_)), "{refused}");
    assert_eq!(values(&store.read()), [("a".to_owned(), 1)]);
    broken.fail_after(0, io::ErrorKind::StorageFull);
    let refused = store.commit(put("b", 1, None)).await.unwrap_err();
    let told = refused.to_string();
    assert!(
        told.contains("disk is full") && told.contains(path.parent().unwrap().to_str().unwrap())
    );
    broken.mend();
    store.commit(put("b", 2, None)).await.unwrap();
    assert_eq!(values(&store.read()).len(), 2);
    store.close().await;
    let (_, again) = broken.open(dir.path()).unwrap();
    assert_eq!(values(&again), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
}
