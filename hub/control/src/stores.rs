//! Placements → state stores: what waits for one store is written together, each store by a task of
//! its own, so that a slow one delays no other.
//!
//! This writes the status of state stores and of the Destinations that they feed; what becomes of
//! placements is told to the one writer of their status.

mod batch;
mod desk;
mod keep;
mod open;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::Client;
use muster_api::destination::StateStoreKind;
use muster_daemon::Clock;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    content::ContentStore,
    events::Events,
    options::Chosen,
    shelf::ObjectKey,
    status::Reports,
    world::{Affected, World},
};

/// A state store's kind and name.
type StoreKey = (StateStoreKind, String);

/// What the writers of state stores need.
pub(crate) struct StoresConfig {
    pub client: Client,
    pub world: Arc<World>,
    pub content: ContentStore,
    pub reports: Reports,
    /// Where copies of Git branches are.
    pub dir: PathBuf,
    pub clock: Clock,
    pub options: Chosen,
}

/// The writers of all state stores; clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Stores(Arc<Shared>);

/// What all desks share.
struct Shared {
    config: StoresConfig,
    store_events: Events,
    destination_events: Events,
    desks: Mutex<HashMap<StoreKey, Arc<Desk>>>,
    /// There is a desk that nobody sits at yet.
    opened: Notify,
}

/// Where what concerns one store is put down.
#[derive(Debug)]
struct Desk {
    key: StoreKey,
    dirty: Mutex<Dirty>,
    wake: Notify,
    /// Whether its task has been started.
    taken: Mutex<bool>,
}

/// What is to be looked at; sets, so that they are bounded by what exists.
#[derive(Debug, Default)]
struct Dirty {
    /// Everything of this store.
    all: bool,
    placements: BTreeSet<ObjectKey>,
    destinations: BTreeSet<String>,
    /// Destinations from which a placement has gone: what it held is free.
    freed: BTreeSet<String>,
}

impl Stores {
    pub(crate) fn new(config: StoresConfig) -> Self {
        let events = |controller| Events::new(config.client.clone(), controller);
        Self(Arc::new(Shared {
            store_events: events("StateStoreController"),
            destination_events: events("DestinationController"),
            desks: Mutex::default(),
            opened: Notify::new(),
            config,
        }))
    }

    /// Passes on what events affect.
    pub(crate) fn look_at(&self, affected: &Affected) {
        let world = &self.0.config.world;
        for changed in &affected.orders {
            for placement in [&changed.old, &changed.new].into_iter().flatten() {
                let destination = &placement.spec.target_destination_name;
                let Some(store) = world.store_of(destination) else { continue };
                self.0.change((store.kind, store.name), |dirty| {
                    dirty.placements.insert(changed.key.clone());
                    if changed.new.is_none() {
                        dirty.freed.insert(destination.clone());
                    }
                });
            }
        }
        for name in &affected.destinations {
            let Some(store) = world.store_of(name) else { continue };
            self.0.change((store.kind, store.name), |dirty| {
                dirty.destinations.insert(name.clone());
                let held = world.placements_on(name);
                dirty.placements.extend(held.iter().map(|found| ObjectKey::of(&**found)));
            });
        }
        for key in &affected.stores {
            self.0.change(key.clone(), |_| {});
        }
    }

    /// Runs until `shutdown`; what is being written then is given up, and looked at by the next life.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        // What an earlier life left there holds secrets.
        clear(&self.0.config.dir);
        let mut tasks = JoinSet::new();
        loop {
            for desk in self.0.untaken() {
                let worker = desk::Worker::new(desk, self.0.clone());
                let until = shutdown.clone();
                tasks.spawn(async move {
                    let _stopped = until.run_until_cancelled(worker.run()).await;
                });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.0.opened.notified() => {}
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the writer of a state store ended unexpectedly");
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    fn change(&self, key: StoreKey, change: impl FnOnce(&mut Dirty)) {
        let mut desks = lock(&self.desks);
        let desk = desks.entry(key.clone()).or_insert_with(|| {
            self.opened.notify_one();
            Arc::new(Desk {
                key,
                dirty: Mutex::default(),
                wake: Notify::new(),
                taken: Mutex::new(false),
            })
        });
        change(&mut lock(&desk.dirty));
        desk.wake.notify_one();
    }

    /// Desks without a task; they are taken from now on.
    fn untaken(&self) -> Vec<Arc<Desk>> {
        let desks = lock(&self.desks);
        let untaken =
            desks.values().filter(|desk| !std::mem::replace(&mut *lock(&desk.taken), true));
        untaken.cloned().collect()
    }

    /// Ends a desk of a store that is gone, unless something was put on it meanwhile.
    fn close(&self, desk: &Desk) -> bool {
        let mut desks = lock(&self.desks);
        if !lock(&desk.dirty).is_empty() {
            return false;
        }
        desks.remove(&desk.key);
        true
    }
}

impl Dirty {
    fn is_empty(&self) -> bool {
        !self.all
            && self.placements.is_empty()
            && self.destinations.is_empty()
            && self.freed.is_empty()
    }

    /// Puts back what could not be done, beside what came meanwhile.
    fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.placements.extend(other.placements);
        self.destinations.extend(other.destinations);
        self.freed.extend(other.freed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clear(dir: &std::path::Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "old copies of state stores cannot be removed");
        }
        _ => {}
    }
}
