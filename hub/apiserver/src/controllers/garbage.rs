//! The garbage collector: what is owned goes when its owners have gone
//! (after `pkg/controller/garbagecollector`).
//!
//! - background: the owner goes at once, what it owned follows;
//! - foreground: the owner waits, held by a finalizer, until what blocks it is gone;
//! - orphan: what it owned is disowned first.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Dirty, delete, edit, release, run};
use crate::{
    server::Inner,
    status::Status,
    store::{Event, EventKind, Key, Object},
    verbs::{FOREGROUND, ORPHAN, Part, Propagation},
};

/// Who owns whom, by uid; kept in step with the store by the writer.
#[derive(Default)]
struct Graph {
    /// The objects themselves, which the store has in any case: copies of their keys would cost more.
    living: HashMap<String, Arc<Object>>,
    owned: HashMap<String, BTreeSet<Key>>,
}

struct Collector {
    graph: Mutex<Graph>,
    dirty: Arc<Dirty<Key>>,
}

pub(super) fn start(server: &Arc<Inner>) {
    let collector = Arc::new(Collector { graph: Mutex::default(), dirty: Dirty::new() });
    let observer = collector.clone();
    // Taken in one step with the state, so that no event is missed or applied out of order.
    server.store.observe_from(|state| {
        for object in state.kinds().flat_map(|kind| state.list(kind, None, None)) {
            collector.graph().insert(object);
            if !object.meta.owner_references.is_empty() || held(object) {
                collector.dirty.add(object.key.clone());
            }
        }
        Box::new(move |event| observer.follow(event))
    });
    let dirty = collector.dirty.clone();
    run(server, "garbage collector", dirty, move |server, key| {
        let collector = collector.clone();
        async move { collector.look(&server, &key).await }
    });
}

impl Graph {
    fn insert(&mut self, object: &Arc<Object>) {
        self.living.insert(object.meta.uid.clone(), object.clone());
        for owner in &object.meta.owner_references {
            self.owned.entry(owner.uid.clone()).or_default().insert(object.key.clone());
        }
    }

    fn disown(&mut self, object: &Object) {
        for owner in &object.meta.owner_references {
            if let Some(owned) = self.owned.get_mut(&owner.uid) {
                owned.remove(&object.key);
                if owned.is_empty() {
                    self.owned.remove(&owner.uid);
                }
            }
        }
    }
}

impl Collector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the graph, and notes what must be looked at.
    fn follow(&self, event: &Event) {
        let object = &event.object;
        let mut graph = self.graph();
        if let Some(prev) = &event.prev {
            graph.disown(prev);
        }
        let owners = &object.meta.owner_references;
        if event.kind == EventKind::Deleted {
            graph.living.remove(&object.meta.uid);
            for key in graph.owned.get(&object.meta.uid).into_iter().flatten() {
                self.dirty.add(key.clone());
            }
        } else {
            graph.insert(object);
            let prev = event.prev.as_ref();
            let owners_changed = prev.is_none_or(|prev| prev.meta.owner_references != *owners);
            if (!owners.is_empty() && owners_changed) || held(object) {
                self.dirty.add(object.key.clone());
            }
            if !owners_changed {
                return;
            }
        }
        // An owner may be waiting for this one.
        let before = event.prev.iter().flat_map(|prev| &prev.meta.owner_references);
        for owner in owners.iter().chain(before) {
            if let Some(owner) = graph.living.get(&owner.uid) {
                self.dirty.add(owner.key.clone());
            }
        }
    }

    async fn look(&self, server: &Arc<Inner>, key: &Key) -> Result<(), Status> {
        let Some(object) = server.store.get(key) else { return Ok(()) };
        if object.meta.deleting() && has(&object, ORPHAN) {
            return self.orphan(server, &object).await;
        }
        if object.meta.deleting() && has(&object, FOREGROUND) {
            return self.finish_foreground(server, &object).await;
        }
        match object.meta.owner_references.is_empty() || object.meta.deleting() {
            true => Ok(()),
            false => self.judge_owned(server, object).await,
        }
    }

    /// What is owned stays while one of its owners does.
    async fn judge_owned(&self, server: &Arc<Inner>, object: Arc<Object>) -> Result<(), Status> {
        let (mut staying, mut waiting, mut gone) = (0, Vec::new(), Vec::new());
        for owner in &object.meta.owner_references {
            let key = self.graph().living.get(&owner.uid).map(|owner| owner.key.clone());
            let near =
                key.filter(|key| key.namespace.is_empty() || key.namespace == object.key.namespace);
            match near.and_then(|key| server.store.get(&key)) {
                Some(found) if found.meta.deleting() && has(&found, FOREGROUND) => {
                    waiting.push(owner.uid.clone());
                }
                Some(found) if found.meta.uid == owner.uid => staying += 1,
                _ => gone.push(owner.uid.clone()),
            }
        }
        if staying > 0 {
            if gone.is_empty() && waiting.is_empty() {
                return Ok(());
            }
            gone.extend(waiting);
            return disown(server, &object, &gone).await;
        }
        let propagation = match waiting.is_empty() || self.owned_by(&object).is_empty() {
            true => Propagation::Background,
            false => Propagation::Foreground,
        };
        delete(server, object, Some(propagation)).await
    }

    async fn finish_foreground(
        &self,
        server: &Arc<Inner>,
        object: &Arc<Object>,
    ) -> Result<(), Status> {
        for key in self.owned_by(object) {
            match server.store.get(&key) {
                Some(owned) if !owned.meta.deleting() => self.judge_owned(server, owned).await?,
                _ => {}
            }
        }
        let blocks = |key: &Key| {
            server.store.get(key).is_some_and(|owned| {
                let mut owners = owned.meta.owner_references.iter();
                owners.any(|owner| owner.uid == object.meta.uid && owner.block_owner_deletion)
            })
        };
        match self.owned_by(object).iter().any(blocks) {
            // The end of each of them leads back here.
            true => Ok(()),
            false => release(server, object, FOREGROUND).await,
        }
    }

    async fn orphan(&self, server: &Arc<Inner>, object: &Arc<Object>) -> Result<(), Status> {
        for key in self.owned_by(object) {
            if let Some(owned) = server.store.get(&key) {
                disown(server, &owned, std::slice::from_ref(&object.meta.uid)).await?;
            }
        }
        release(server, object, ORPHAN).await
    }

    fn owned_by(&self, object: &Object) -> BTreeSet<Key> {
        self.graph().owned.get(&object.meta.uid).cloned().unwrap_or_default()
    }
}

/// Its deletion waits for the collector.
fn held(object: &Object) -> bool {
    object.meta.deleting() && (has(object, FOREGROUND) || has(object, ORPHAN))
}

fn has(object: &Object, finalizer: &str) -> bool {
    object.meta.finalizers.iter().any(|own| own == finalizer)
}

async fn disown(server: &Arc<Inner>, object: &Object, owners: &[String]) -> Result<(), Status> {
    edit(server, object, Part::Main, |value| {
        if let Some(references) = value["metadata"]["ownerReferences"].as_array_mut() {
            references.retain(|own| !owners.iter().any(|uid| own["uid"] == uid.as_str()));
        }
    })
    .await
}
