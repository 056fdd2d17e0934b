//! Secrets at rest: never in the file in plain once there is a key, and never lost.

use std::{fs, os::unix::fs::PermissionsExt as _};

use redb::ReadableTable as _;

use super::*;
use crate::store::disk::LOG;

const PLAIN: &[u8] = b"the-plain-text-of-a-secret";

fn secret_key(name: &str) -> Key {
    Key { kind: "secrets".into(), namespace: "n".to_owned(), name: name.to_owned() }
}

fn secret(name: &str) -> Change {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "uid": name},
        "stringData": {"password": String::from_utf8_lossy(PLAIN)},
    });
    let action = Action::Put(draft(&object).unwrap());
    Change { key: secret_key(name), expect: None, guards: Vec::new(), action }
}

fn number(byte: u8) -> EncryptionKey {
    EncryptionKey::new(&[byte; 32]).unwrap()
}

fn with(keys: &[u8], off: bool) -> Settings {
    let sealing = Sealing::new(keys.iter().map(|byte| number(*byte)).collect(), off);
    Settings { sealing, ..settings() }
}

fn holds_plain(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes.windows(PLAIN.len()).any(|window| window == PLAIN)
}

async fn reads_both(path: &Path, settings: Settings) {
    let store = Store::open(path, settings).unwrap();
    for name in ["old", "new"] {
        let value = store.get(&secret_key(name)).unwrap().value();
        assert_eq!(value["stringData"]["password"], String::from_utf8_lossy(PLAIN).as_ref());
    }
    store.close().await;
}

#[tokio::test]
async fn turned_on_changed_and_off_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let store = open(&path);
    let old = store.commit(secret("gone")).await.unwrap();
    let gone =
        Change { action: Action::Remove(None), expect: Some(old.revision), ..secret("gone") };
    store.commit(gone).await.unwrap();
    store.commit(secret("old")).await.unwrap();
    store.close().await;
    assert!(holds_plain(&path), "without a key it is as it is");

    let store = Store::open(&path, with(&[1], false)).unwrap();
    store.commit(secret("new")).await.unwrap();
    assert!(!holds_plain(&path), "while it is open");
    store.close().await;
    assert!(!holds_plain(&path), "neither the Secrets nor their history");
    reads_both(&path, with(&[1], false)).await;

    for (keys, missing) in [(&[][..], number(1)), (&[2], number(1))] {
        let error = Store::open(&path, with(keys, false)).err().unwrap().to_string();
        assert!(error.contains(&missing.id().to_string()), "{error}");
    }
    reads_both(&path, with(&[2, 1], false)).await;
    assert!(Store::open(&path, with(&[1], false)).is_err(), "the new key has taken over");
    reads_both(&path, with(&[2], false)).await;
    assert!(!holds_plain(&path));

    reads_both(&path, with(&[2], true)).await;
    assert!(holds_plain(&path));
    reads_both(&path, settings()).await;
}

#[tokio::test]
async fn a_sealed_row_opens_in_its_own_place_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let store = Store::open(&path, with(&[1], false)).unwrap();
    store.commit(secret("a")).await.unwrap();
    store.commit(secret("b")).await.unwrap();
    store.close().await;
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut log = write.open_table(LOG).unwrap();
        let row = |revision: u64| log.get(revision).unwrap().unwrap().value().to_vec();
        let (a, mut b) = (row(1), row(2));
        assert_eq!(a.len(), b.len());
        // The content of `a` under the name of `b`: after flags, position and three names.
        let content = 1 + 4 + (2 + "secrets".len()) + (2 + "n".len()) + (2 + "a".len());
        b[content..].copy_from_slice(&a[content..]);
        log.insert(2, b.as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let error = Store::open(&path, with(&[1], false)).err().unwrap().to_string();
    assert!(error.contains("row 2") && error.contains("damaged"), "{error}");
}

#[test]
fn a_key_file_is_its_owners_alone_and_holds_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let write = |content: &[u8], mode| {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = || EncryptionKey::read(&path).unwrap_err().to_string();
    assert!(refused().contains("cannot read the key file"), "{}", refused());
    write(&[7; 32], 0o640);
    assert!(refused().contains("0640") && refused().contains("chmod 600"), "{}", refused());
    for short in [&b"too short"[..], &[7; 31], b"", &[b'A'; 500]] {
        write(short, 0o600);
        assert!(refused().contains("holds no key"), "{}", refused());
    }
    write(&[7; 32], 0o600);
    let raw = EncryptionKey::read(&path).unwrap();
    write(b"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", 0o400);
    assert_eq!(EncryptionKey::read(&path).unwrap().id(), raw.id());
    assert!(!format!("{raw:?}").contains("7, 7"), "a key is never shown");
}
