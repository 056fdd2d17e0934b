//! What the store promises: one order, nothing lost, history within its bounds.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    disk::Disk,
    table::{Event, Keep},
    *,
};

mod broken;
mod history;
mod keeping;
mod sealed;

const QUOTA: u64 = 1 << 30;

fn settings() -> Settings {
    Settings { quota_bytes: QUOTA, sealing: Sealing::default() }
}

fn open(path: &Path) -> Store {
    Store::open(path, settings()).unwrap()
}

fn key(name: &str) -> Key {
    Key { kind: "things".into(), namespace: "n".to_owned(), name: name.to_owned() }
}

fn thing(name: &str, value: i64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Thing",
        "metadata": {"name": name, "uid": name, "resourceVersion": "stale"}, "value": value,
    })
}

fn put(name: &str, value: i64, expect: Option<u64>) -> Change {
    let action = Action::Put(draft(&thing(name, value)).unwrap());
    Change { key: key(name), expect, guards: Vec::new(), action }
}

fn remove(name: &str, expect: u64) -> Change {
    let action = Action::Remove(None);
    Change { key: key(name), expect: Some(expect), guards: Vec::new(), action }
}

fn values(state: &State) -> Vec<(String, i64)> {
    let value =
        |object: &Arc<Object>| (object.key.name.clone(), object.value()["value"].as_i64().unwrap());
    state.list("things", Some("n"), None).map(value).collect()
}

#[tokio::test]
async fn a_stored_object_carries_its_own_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("db"));
    for name in ["a", "b", "c"] {
        let object = store.commit(put(name, 1, None)).await.unwrap();
        let version = object.value()["metadata"]["resourceVersion"].clone();
        assert_eq!(version, object.revision.to_string());
        assert_eq!(object.at_revision(12345).value()["metadata"]["resourceVersion"], "12345");
    }
}

#[tokio::test]
async fn refuses_a_change_that_has_not_seen_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("db"));
    let first = store.commit(put("a", 1, None)).await.unwrap().revision;
    assert!(matches!(store.commit(put("a", 2, None)).await, Err(Refusal::Exists)));
    let second = store.commit(put("a", 2, Some(first))).await.unwrap().revision;
    assert!(matches!(store.commit(put("a", 3, Some(first))).await, Err(Refusal::Modified)));
    store.commit(remove("a", second)).await.unwrap();
    assert!(matches!(store.commit(put("a", 3, Some(second))).await, Err(Refusal::Gone)));
    let mut guarded = put("b", 1, None);
    guarded.guards.push(key("a"));
    assert!(matches!(store.commit(guarded).await, Err(Refusal::Guard(_))));
}

#[tokio::test]
async fn of_many_who_have_seen_the_same_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&dir.path().join("db")));
    let seen = store.commit(put("a", 0, None)).await.unwrap().revision;
    let attempts = (1..=50).map(|value| {
        let store = store.clone();
        async move { store.commit(put("a", value, Some(seen))).await.is_ok() }
    });
    let outcomes = futures::future::join_all(attempts).await;
    assert_eq!(outcomes.into_iter().filter(|&won| won).count(), 1);
}

#[tokio::test]
async fn tells_observers_every_event_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("db"));
    let told: Arc<Mutex<Vec<u64>>> = Arc::default();
    let noted = told.clone();
    let note = move |event: &Event| noted.lock().unwrap().push(event.object.revision);
    store.observe(Box::new(note));
    let names: Vec<String> = (0..100).map(|count| format!("t{count}")).collect();
    futures::future::join_all(names.iter().map(|name| store.commit(put(name, 1, None)))).await;
    assert_eq!(*told.lock().unwrap(), (1..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn knows_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("db"));
    let a = store.commit(put("a", 1, None)).await.unwrap().revision;
    let then = store.commit(put("b", 1, None)).await.unwrap().revision;
    let a = store.commit(put("a", 2, Some(a))).await.unwrap().revision;
    store.commit(remove("b", then)).await.unwrap();
    store.commit(put("a", 3, Some(a))).await.unwrap();
    store.commit(put("c", 1, None)).await.unwrap();
    let before = store.read().before("things", then).unwrap();
    let known: Vec<(String, Option<i64>)> = before
        .into_iter()
        .map(|((_, name), object)| (name, object.map(|o| o.value()["value"].as_i64().unwrap())))
        .collect();
    let expected = [("a", Some(1)), ("b", Some(1)), ("c", None)];
    assert_eq!(known, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[tokio::test]
async fn compaction_forgets_history_and_keeps_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let store = open(&path);
    let mut seen = store.commit(put("a", 0, None)).await.unwrap().revision;
    for value in 1..600 {
        seen = store.commit(put("a", value, Some(seen))).await.unwrap().revision;
    }
    store.commit(put("b", 7, None)).await.unwrap();
    store.close().await;
    assert!(matches!(store.commit(put("c", 1, None)).await, Err(Refusal::Disk(_))));
    let (mut disk, state) = Disk::open(&path, Sealing::default()).unwrap();
    let trimmed = state.trim(Instant::now() + Duration::from_secs(3600), Keep::Usual);
    assert!(trimmed.rows.len() > 300, "only {} rows go", trimmed.rows.len());
    disk.commit(&[], &trimmed).unwrap();
    drop(disk);
    let (_, again) = Disk::open(&path, Sealing::default()).unwrap();
    let expected = [("a".to_owned(), 599), ("b".to_owned(), 7)];
    assert_eq!(values(&again), expected);
    assert_eq!(again.revision, state.revision);
    assert!(again.events_after("things", 1, 10).is_err(), "what was forgotten is expired");
    let recent = again.events_after("things", seen - 1, 10).unwrap();
    assert_eq!(recent.len(), 2);
    assert_eq!(recent[0].prev.as_ref().unwrap().value()["value"], 598);
}

#[test]
fn a_file_that_is_no_database_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    std::fs::write(&path, b"not a database, but something else entirely").unwrap();
    let error = Disk::open(&path, Sealing::default()).err().unwrap().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}
