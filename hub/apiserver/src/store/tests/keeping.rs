//! The file and its bounds: formats, compaction, quota, and rows that nobody needs.

use std::{fs, io::Read as _, os::unix::fs::MetadataExt as _};

use super::*;
use crate::store::disk::{FACTS, LOG};

/// Made by the program that wrote format 1: four changes of `a`, `b` created and removed, and a
/// Secret.
const FORMAT_1: &[u8] = include_bytes!("format-1.redb.gz");

fn old_database() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(FORMAT_1).read_to_end(&mut bytes).unwrap();
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn fact(path: &Path, name: &str) -> u64 {
    use redb::ReadableDatabase as _;
    let database = redb::Database::open(path).unwrap();
    let read = database.begin_read().unwrap();
    read.open_table(FACTS).unwrap().get(name).unwrap().unwrap().value()
}

fn set_fact(path: &Path, name: &str, value: u64) {
    let database = redb::Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(FACTS).unwrap().insert(name, value).unwrap();
    write.commit().unwrap();
}

fn rows(path: &Path) -> u64 {
    use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
    let database = redb::Database::open(path).unwrap();
    database.begin_read().unwrap().open_table(LOG).unwrap().len().unwrap()
}

fn padded(name: &str, bytes: usize, expect: Option<u64>) -> Change {
    let mut value = thing(name, 1);
    value["padding"] = "x".repeat(bytes).into();
    let action = Action::Put(draft(&value).unwrap());
    Change { key: key(name), expect, guards: Vec::new(), action }
}

#[tokio::test]
async fn an_older_database_is_migrated_with_all_that_is_in_it() {
    let (_dir, path) = old_database();
    assert_eq!(fact(&path, "format"), 1);
    let store = open(&path);
    assert_eq!(values(&store.read()), [("a".to_owned(), 3)]);
    assert_eq!(store.read().list("secrets", None, None).count(), 1);
    let revision = store.read().revision;
    assert_eq!(revision, 7);
    assert_eq!(store.read().events_after("things", 0, 10).unwrap().len(), 6);
    store.commit(put("c", 1, None)).await.unwrap();
    store.close().await;
    assert_eq!(fact(&path, "format"), disk::FORMAT);
    assert_eq!(values(&open(&path).read()).len(), 2);
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let (_dir, path) = old_database();
    set_fact(&path, "format", 99);
    let error = Disk::open(&path, Sealing::default()).err().unwrap().to_string();
    for part in [path.to_str().unwrap(), "format 99", "newer program"] {
        assert!(error.contains(part), "{error}");
    }
    set_fact(&path, "format", 1);
    assert_eq!(values(&open(&path).read()), [("a".to_owned(), 3)]);
}

/// Adds that many objects of 200 KiB with one commit.
fn fill(disk: &mut Disk, state: &mut State, count: usize) {
    let first = state.revision + 1;
    let event = |revision: u64| {
        let mut value = thing("", 1);
        value["padding"] = "x".repeat(200_000).into();
        let name = format!("t{revision}");
        let object = Object::new(EventKind::Added, key(&name), revision, draft(&value).unwrap());
        Arc::new(Event::new(EventKind::Added, Arc::new(object), None))
    };
    let events: Vec<_> = (first..first + count as u64).map(event).collect();
    disk.commit(&events, &Default::default()).unwrap();
    events.into_iter().for_each(|event| state.publish(event));
}

fn empty(disk: &mut Disk, state: &mut State) {
    let objects: Vec<_> = state.list("things", None, None).cloned().collect();
    let gone = objects.into_iter().zip(state.revision + 1..).map(|(object, revision)| {
        let last = Arc::new(object.at_revision(revision));
        Arc::new(Event::new(EventKind::Deleted, last, Some(object)))
    });
    let gone: Vec<_> = gone.collect();
    disk.commit(&gone, &Default::default()).unwrap();
    gone.into_iter().for_each(|event| state.publish(event));
    let trimmed = state.trim(Instant::now(), Keep::Least);
    disk.commit(&[], &trimmed).unwrap();
    state.forget(&trimmed);
}

#[test]
fn a_file_that_is_mostly_empty_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let size = || fs::metadata(&path).unwrap().len();
    let (mut disk, mut state) = Disk::open(&path, Sealing::default()).unwrap();
    for _ in 0..6 {
        fill(&mut disk, &mut state, 30);
    }
    let full = size();
    disk.tend();
    assert!(full > 36_000_000 && size() == full, "all of it is needed: {full}");
    empty(&mut disk, &mut state);
    // What a tending begins, one after it ends.
    while size() > full / 3 {
        disk.tend();
        std::thread::yield_now();
    }
    fill(&mut disk, &mut state, 1);
    drop(disk);
    let (mut disk, again) = Disk::open(&path, Sealing::default()).unwrap();
    assert_eq!(values(&again), values(&state));

    // And at the start, if there was no time for it before.
    let mut state = again;
    for _ in 0..6 {
        fill(&mut disk, &mut state, 30);
    }
    empty(&mut disk, &mut state);
    drop(disk);
    let full = size();
    drop(Disk::open(&path, Sealing::default()).unwrap());
    assert!(size() < full / 3, "{} of {full}", size());
}

#[test]
fn a_copy_takes_what_is_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (mut disk, mut state) = Disk::open(&path, Sealing::default()).unwrap();
    let mut write = |disk: &mut Disk, name: &str| {
        let draft = draft(&thing(name, 1)).unwrap();
        let object = Arc::new(Object::new(EventKind::Added, key(name), state.revision + 1, draft));
        let event = Arc::new(Event::new(EventKind::Added, object, None));
        disk.commit(std::slice::from_ref(&event), &Default::default()).unwrap();
        state.publish(event);
    };
    write(&mut disk, "before");
    let inode = fs::metadata(&path).unwrap().ino();
    disk.begin_copy().unwrap();
    for count in 0.. {
        write(&mut disk, &format!("meanwhile-{count}"));
        disk.tend();
        if fs::metadata(&path).unwrap().ino() != inode {
            break;
        }
    }
    write(&mut disk, "after");
    let expected = values(&state);
    drop(disk);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let (_, again) = Disk::open(&path, Sealing::default()).unwrap();
    assert_eq!(values(&again), expected);
    assert_eq!(again.revision, state.revision);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the copy is gone");
}

#[tokio::test]
async fn a_file_is_not_replaced_under_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let store = open(&path);
    store.commit(put("a", 1, None)).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    store.commit(put("b", 1, None)).await.unwrap();
    let mut rows = Vec::new();
    snapshot
        .each_row(|revision, _| {
            rows.push(revision);
            true
        })
        .unwrap();
    assert_eq!((rows, snapshot.revision().unwrap()), (vec![1], 1), "one moment");
}

#[test]
fn rows_that_a_lost_write_left_behind_go_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (mut disk, mut state) = Disk::open(&path, Sealing::default()).unwrap();
    let mut prev = None;
    for value in 0..400 {
        let draft = draft(&thing("a", value)).unwrap();
        let object =
            Arc::new(Object::new(EventKind::Modified, key("a"), state.revision + 1, draft));
        let event = Arc::new(Event::new(EventKind::Modified, object.clone(), prev));
        disk.commit(std::slice::from_ref(&event), &Default::default()).unwrap();
        state.publish(event);
        prev = Some(object);
    }
    let mut trimmed = state.trim(Instant::now() + Duration::from_secs(3600), Keep::Usual);
    let let_go = trimmed.rows.len() as u64;
    trimmed.rows.clear();
    disk.commit(&[], &trimmed).unwrap();
    drop(disk);
    assert_eq!(rows(&path), 400);
    drop(Disk::open(&path, Sealing::default()).unwrap());
    assert_eq!(rows(&path), 400 - let_go);
}

#[tokio::test]
async fn beyond_the_quota_nothing_is_created_and_deletions_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let quota_bytes = 100_000;
    let store = Store::open(&path, Settings { quota_bytes, ..settings() }).unwrap();
    let a = store.commit(padded("a", 40_000, None)).await.unwrap();
    let b = store.commit(padded("b", 50_000, None)).await.unwrap();
    let refused = store.commit(padded("c", 20_000, None)).await.unwrap_err();
    assert!(matches!(refused, Refusal::Quota { quota: 100_000, used } if used > 90_000));
    assert!(refused.to_string().contains("delete some"), "{refused}");
    let grown = store.commit(padded("a", 55_000, Some(a.revision))).await;
    let a = grown.expect("what exists may grow by a tenth of the quota");
    let beyond = store.commit(padded("a", 90_000, Some(a.revision))).await;
    assert!(matches!(beyond, Err(Refusal::Quota { .. })));
    let smaller = store.commit(padded("a", 50_000, Some(a.revision))).await.unwrap();
    store.commit(remove("b", b.revision)).await.unwrap();
    store.commit(padded("c", 20_000, None)).await.unwrap();
    store.close().await;
    let store = Store::open(&path, Settings { quota_bytes: 10, ..settings() }).unwrap();
    assert!(matches!(store.commit(put("d", 1, None)).await, Err(Refusal::Quota { .. })));
    store.commit(remove("a", smaller.revision)).await.unwrap();
}
