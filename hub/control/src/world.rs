//! What is observed of Works, WorkPlacements, Destinations and Agents: one index, kept by watches.
//!
//! Decisions about a Work are made under the index's lock, and what they are about to create is in it
//! from then on (*expected*), so that two Works never overload one destination unseen and a Work is
//! never placed twice because a watch is late.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use muster_api::{
    Agent, BucketStateStore, Destination, GitStateStore, Work, WorkPlacement, WorkStatus,
    destination::{StateStoreKind, StateStoreRef},
};
use muster_plan::{
    rollup,
    schedule::{Schedule, concerns, schedule},
    site::{Site, Sites},
};
use tokio::sync::watch;

use crate::{
    owner::Owner,
    shelf::{Changed, ObjectKey, Shelf},
};

/// One event of one of the watches.
#[derive(Debug)]
pub(crate) enum Seen {
    Work(Event<Work>),
    Placement(Event<WorkPlacement>),
    Destination(Event<Destination>),
    Agent(Event<Agent>),
    GitStore(Event<GitStateStore>),
    BucketStore(Event<BucketStateStore>),
}

/// What to look at again after events; sets, because many events name the same objects.
#[derive(Debug, Default)]
pub(crate) struct Affected {
    /// Works whose placing may change.
    pub schedule: BTreeSet<ObjectKey>,
    /// Works whose status may change.
    pub works: BTreeSet<ObjectKey>,
    /// Placements whose status may change.
    pub placements: BTreeSet<ObjectKey>,
    /// Promises and requests whose standing may change.
    pub owners: BTreeSet<Owner>,
    /// Agents, or destinations of that name, to look at.
    pub agents: BTreeSet<String>,
    /// Placements as they are now, or gone: for the assignments.
    pub orders: Vec<Changed<WorkPlacement>>,
    /// Destinations whose state store is to be looked at, with all that is on them.
    pub destinations: BTreeSet<String>,
    /// State stores that were changed.
    pub stores: BTreeSet<(StateStoreKind, String)>,
    /// Agents that are gone or revoked: their sessions end.
    pub ended: BTreeSet<String>,
    /// Whether some content may have lost its last name.
    pub released: bool,
}

/// The index.
#[derive(Debug)]
pub(crate) struct World {
    inner: Mutex<Inner>,
    loaded: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    works: Shelf<Work>,
    placements: Shelf<WorkPlacement>,
    destinations: Shelf<Destination>,
    agents: Shelf<Agent>,
    git_stores: Shelf<GitStateStore>,
    bucket_stores: Shelf<BucketStateStore>,
    sites: Arc<Sites>,
    by_work: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    works_of: HashMap<Owner, BTreeSet<ObjectKey>>,
    placements_of: HashMap<Owner, BTreeSet<ObjectKey>>,
    by_destination: HashMap<String, BTreeSet<ObjectKey>>,
    /// Placements about to be created, until a watch shows them.
    expected: HashMap<ObjectKey, WorkPlacement>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), loaded: watch::Sender::new(false) }
    }

    /// Takes an event in; says what it affects.
    pub(crate) fn take(&self, seen: Seen, affected: &mut Affected) {
        let mut inner = self.lock();
        match seen {
            Seen::Work(event) => inner.take_works(event, affected),
            Seen::Placement(event) => inner.take_placements(event, affected),
            Seen::Destination(event) => inner.take_destinations(event, affected),
            Seen::Agent(event) => inner.take_agents(event, affected),
            Seen::GitStore(event) => {
                let changed = inner.git_stores.take(event);
                let kind = StateStoreKind::GitStateStore;
                affected.stores.extend(changed.into_iter().map(|it| (kind, it.key.name)));
            }
            Seen::BucketStore(event) => {
                let changed = inner.bucket_stores.take(event);
                let kind = StateStoreKind::BucketStateStore;
                affected.stores.extend(changed.into_iter().map(|it| (kind, it.key.name)));
            }
        }
        let loaded = inner.works.loaded()
            && inner.placements.loaded()
            && inner.destinations.loaded()
            && inner.agents.loaded()
            && inner.git_stores.loaded()
            && inner.bucket_stores.loaded();
        drop(inner);
        if loaded && !*self.loaded.borrow() {
            self.loaded.send_replace(true);
        }
    }

    /// Takes in a Work that was just written, before the watch shows it.
    pub(crate) fn saw(&self, work: Work, affected: &mut Affected) {
        let mut inner = self.lock();
        if let Some(changed) = inner.works.saw(work) {
            inner.work_changed(changed, affected);
        }
    }

    /// Waits until the first lists are complete: before, nothing may be decided.
    pub(crate) async fn loaded(&self) {
        let mut loaded = self.loaded.subscribe();
        // It cannot close: the sender lives as long as `self`.
        let _closed = loaded.wait_for(|loaded| *loaded).await.is_err();
    }

    /// Decides where a Work goes, and expects what is to be created. `None`: there is no such Work.
    pub(crate) fn plan(&self, key: &ObjectKey) -> Option<(Arc<Work>, Schedule)> {
        let mut inner = self.lock();
        let work = inner.works.get(key)?.clone();
        let inner = &mut *inner;
        let own = inner.placements_of(key);
        let load = |name: &str| inner.load(name);
        let plan = schedule(&work, &inner.sites, &load, &own);
        for placement in &plan.create {
            inner.expected.insert(ObjectKey::of(placement), placement.clone());
        }
        Some((work, plan))
    }

    /// A placement that was expected was not created.
    pub(crate) fn unexpect(&self, key: &ObjectKey) {
        self.lock().expected.remove(key);
    }

    /// The status of a Work by its placements.
    pub(crate) fn work_status(&self, key: &ObjectKey, work: &Work, now: Timestamp) -> WorkStatus {
        let inner = self.lock();
        rollup::work(work, &inner.placements_of(key), &inner.sites, now)
    }

    /// How many placements a Work has.
    pub(crate) fn placements_len(&self, work: &ObjectKey) -> usize {
        self.lock().by_work.get(work).map_or(0, BTreeSet::len)
    }

    /// The Works with these labels, which name their owner.
    pub(crate) fn works_with(&self, found: &BTreeMap<String, String>) -> Vec<Work> {
        let inner = self.lock();
        let keys = Owner::by(found).and_then(|owner| inner.works_of.get(&owner));
        let works = keys.into_iter().flatten().filter_map(|key| inner.works.get(key));
        works.filter(|work| is_labelled(&work.metadata, found)).map(|it| Work::clone(it)).collect()
    }

    /// The placements of a Promise's own Works, or of a request's.
    pub(crate) fn placements_of(&self, owner: &Owner) -> Vec<WorkPlacement> {
        let inner = self.lock();
        let keys = inner.placements_of.get(owner).into_iter().flatten();
        let placements = keys.filter_map(|key| inner.placements.get(key));
        placements.map(|placement| WorkPlacement::clone(placement)).collect()
    }

    /// All destinations.
    pub(crate) fn sites(&self) -> Arc<Sites> {
        self.lock().sites.clone()
    }

    /// A destination.
    pub(crate) fn site(&self, name: &str) -> Option<Site> {
        self.lock().sites.get(name).cloned()
    }

    /// The state store of a destination, if one feeds it.
    pub(crate) fn store_of(&self, destination: &str) -> Option<StateStoreRef> {
        let inner = self.lock();
        inner.destinations.get(&ObjectKey::new("", destination))?.spec.state_store_ref.clone()
    }

    /// A state store.
    pub(crate) fn store(&self, kind: StateStoreKind, name: &str) -> Option<Store> {
        let inner = self.lock();
        let key = ObjectKey::new("", name);
        match kind {
            StateStoreKind::GitStateStore => inner.git_stores.get(&key).cloned().map(Store::Git),
            StateStoreKind::BucketStateStore => {
                inner.bucket_stores.get(&key).cloned().map(Store::Bucket)
            }
        }
    }

    /// All destinations that state stores feed.
    pub(crate) fn stored_destinations(&self) -> Vec<Arc<Destination>> {
        let inner = self.lock();
        let all = inner.destinations.iter().map(|(_, destination)| destination);
        all.filter(|found| found.spec.state_store_ref.is_some()).cloned().collect()
    }

    /// The placements on a destination.
    pub(crate) fn placements_on(&self, destination: &str) -> Vec<Arc<WorkPlacement>> {
        let inner = self.lock();
        let keys = inner.by_destination.get(destination).into_iter().flatten();
        keys.filter_map(|key| inner.placements.get(key)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A state store of either kind.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Git(Arc<GitStateStore>),
    Bucket(Arc<BucketStateStore>),
}

/// The Work that owns a placement.
pub(crate) fn work_of(placement: &WorkPlacement) -> Option<ObjectKey> {
    let owners = placement.metadata.owner_references.as_deref()?;
    let owner =
        owners.iter().find(|owner| owner.kind == "Work" && owner.controller == Some(true))?;
    Some(ObjectKey::new(placement.metadata.namespace.as_deref()?, &owner.name))
}

impl Inner {
    fn take_works(&mut self, event: Event<Work>, affected: &mut Affected) {
        for changed in self.works.take(event) {
            self.work_changed(changed, affected);
        }
    }

    fn work_changed(&mut self, changed: Changed<Work>, affected: &mut Affected) {
        let spec = |work: &Option<Arc<Work>>| {
            work.as_ref().map(|w| (w.spec.clone(), w.metadata.deletion_timestamp.clone()))
        };
        let differs = spec(&changed.old) != spec(&changed.new);
        for (side, present) in [(&changed.old, false), (&changed.new, true)] {
            let Some(owner) = side.as_ref().and_then(|work| Owner::of(&work.metadata)) else {
                continue;
            };
            set(&mut self.works_of, owner.clone(), &changed.key, present);
            if differs {
                affected.owners.insert(owner);
            }
        }
        if differs {
            affected.schedule.insert(changed.key.clone());
            affected.released |= changed.old.is_some();
        }
        affected.works.insert(changed.key);
    }

    fn take_placements(&mut self, event: Event<WorkPlacement>, affected: &mut Affected) {
        for changed in self.placements.take(event) {
            self.expected.remove(&changed.key);
            self.index(&changed, affected);
            if changed.new.is_some() {
                affected.placements.insert(changed.key.clone());
            }
            if differs(&changed) {
                affected.released |= changed.old.is_some();
                affected.orders.push(changed);
            }
        }
    }

    fn index(&mut self, changed: &Changed<WorkPlacement>, affected: &mut Affected) {
        let moved = differs(changed);
        for (side, present) in [(&changed.old, false), (&changed.new, true)] {
            let Some(placement) = side else { continue };
            let destination = placement.spec.target_destination_name.clone();
            set(&mut self.by_destination, destination.clone(), &changed.key, present);
            if let Some(owner) = Owner::of(&placement.metadata) {
                set(&mut self.placements_of, owner.clone(), &changed.key, present);
                affected.owners.insert(owner);
            }
            if self.sites.get(&destination).is_some_and(|site| site.leaving) && moved {
                affected.agents.insert(destination);
            }
            let Some(work) = work_of(placement) else { continue };
            set(&mut self.by_work, work.clone(), &changed.key, present);
            if moved {
                affected.schedule.insert(work.clone());
            }
            affected.works.insert(work);
        }
    }

    fn take_destinations(&mut self, event: Event<Destination>, affected: &mut Affected) {
        for changed in self.destinations.take(event) {
            let name = changed.key.name.clone();
            affected.agents.insert(name.clone());
            let spec = |side: &Option<Arc<Destination>>| {
                side.as_ref().map(|d| (d.spec.clone(), d.metadata.deletion_timestamp.clone()))
            };
            for side in [&changed.old, &changed.new].into_iter().flatten() {
                let store = side.spec.state_store_ref.as_ref();
                if let Some(store) = store.filter(|_| spec(&changed.old) != spec(&changed.new)) {
                    affected.destinations.insert(name.clone());
                    affected.stores.insert((store.kind, store.name.clone()));
                }
            }
            let old = self.sites.get(&name).cloned();
            let new = changed.new.as_deref().map(Site::of);
            if old == new {
                continue;
            }
            let works = self.works.iter();
            let concerned = works.filter(|(_, work)| concerns(work, old.as_ref(), new.as_ref()));
            for (key, work) in concerned {
                affected.schedule.insert(key.clone());
                affected.owners.extend(Owner::of(&work.metadata));
            }
            let sites = Arc::make_mut(&mut self.sites);
            match new {
                Some(site) => sites.insert(name.clone(), site),
                None => sites.remove(&name),
            };
            let held = self.by_destination.get(&name).into_iter().flatten();
            let held: Vec<_> = held.filter_map(|key| self.placements.get(key)).collect();
            affected.owners.extend(held.iter().filter_map(|held| Owner::of(&held.metadata)));
            affected.works.extend(held.into_iter().filter_map(|placement| work_of(placement)));
        }
    }

    fn take_agents(&mut self, event: Event<Agent>, affected: &mut Affected) {
        for changed in self.agents.take(event) {
            if changed.new.as_ref().is_none_or(|agent| agent.spec.revoked) {
                affected.ended.insert(changed.key.name.clone());
            }
            affected.agents.insert(changed.key.name);
        }
    }

    fn placements_of(&self, work: &ObjectKey) -> Vec<&WorkPlacement> {
        let seen = self.by_work.get(work).into_iter().flatten();
        let seen = seen.filter_map(|key| self.placements.get(key)).map(Arc::as_ref);
        let expected = self.expected.values().filter(|p| work_of(p).as_ref() == Some(work));
        seen.chain(expected).collect()
    }

    fn load(&self, destination: &str) -> usize {
        let expected = self.expected.values();
        let expected = expected.filter(|p| p.spec.target_destination_name == destination).count();
        self.by_destination.get(destination).map_or(0, BTreeSet::len) + expected
    }
}

/// Whether anything but the status changed.
fn differs(changed: &Changed<WorkPlacement>) -> bool {
    let own = |placement: &Option<Arc<WorkPlacement>>| {
        placement.as_ref().map(|p| {
            let meta = &p.metadata;
            (p.spec.clone(), meta.labels.clone(), meta.uid.clone(), meta.deletion_timestamp.clone())
        })
    };
    own(&changed.old) != own(&changed.new)
}

fn is_labelled(metadata: &ObjectMeta, found: &BTreeMap<String, String>) -> bool {
    let held = metadata.labels.as_ref();
    found.iter().all(|(key, value)| held.and_then(|held| held.get(key)) == Some(value))
}

fn set<K: std::hash::Hash + Eq>(
    index: &mut HashMap<K, BTreeSet<ObjectKey>>,
    key: K,
    member: &ObjectKey,
    present: bool,
) {
    if present {
        index.entry(key).or_default().insert(member.clone());
    } else if let Some(members) = index.get_mut(&key) {
        members.remove(member);
        if members.is_empty() {
            index.remove(&key);
        }
    }
}
