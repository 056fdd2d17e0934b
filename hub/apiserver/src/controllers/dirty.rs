//! What a controller has still to look at: each thing once, however often it was named.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

/// A set of names, bounded by the number of things there are.
pub(super) struct Dirty<K> {
    set: Mutex<BTreeSet<K>>,
    added: Notify,
}

impl<K: Ord + Send + 'static> Dirty<K> {
    pub(super) fn new() -> Arc<Dirty<K>> {
        Arc::new(Dirty { set: Mutex::new(BTreeSet::new()), added: Notify::new() })
    }

    pub(super) fn add(&self, key: K) {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.added.notify_one();
    }

    pub(super) fn add_later(self: &Arc<Self>, key: K, after: Duration) {
        let dirty = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            dirty.add(key);
        });
    }

    /// The next of them; for one taker.
    pub(super) async fn next(&self) -> K {
        loop {
            let first = self.set.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match first {
                Some(key) => return key,
                // An addition since the lock has left a permit: this returns at once then.
                None => self.added.notified().await,
            }
        }
    }
}
