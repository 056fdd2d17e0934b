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
    schedule::{
        Schedule, Wanted, asks_to_move, holds, is_asked_to_move, is_misplaced, is_request,
        schedule, unplaced, wants,
    },
    site::{Link, Site, Sites},
};
use tokio::sync::watch;

use crate::{
    owner::Owner,
    places::Claims,
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
    claims: Arc<Claims>,
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
    /// Works by what a group of theirs wants: far fewer wants than Works.
    by_want: HashMap<Wanted, BTreeSet<ObjectKey>>,
    /// Placements that are asked to move.
    asked: BTreeSet<ObjectKey>,
    /// Why the placements of a Work could not be made.
    failures: HashMap<ObjectKey, String>,
    /// Placements about to be created, until a watch shows them.
    expected: HashMap<ObjectKey, WorkPlacement>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), claims: Arc::default(), loaded: watch::Sender::new(false) }
    }

    /// Which directories of state stores are taken.
    pub(crate) fn claims(&self) -> Arc<Claims> {
        self.claims.clone()
    }

    /// Takes an event in; says what it affects.
    pub(crate) fn take(&self, seen: Seen, affected: &mut Affected) {
        let mut inner = self.lock();
        match seen {
            Seen::Work(event) => inner.take_works(event, affected),
            Seen::Placement(event) => inner.take_placements(event, affected),
            Seen::Destination(event) => {
                inner.take_destinations(event, &self.claims, affected);
                if inner.destinations.loaded() {
                    self.claims.complete();
                }
            }
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

    /// Notes whether the placements of a Work could be made; says whether that is news.
    pub(crate) fn note_failure(&self, key: &ObjectKey, failure: Option<String>) -> bool {
        let mut inner = self.lock();
        let before = match &failure {
            Some(cause) => inner.failures.insert(key.clone(), cause.clone()),
            None => inner.failures.remove(key),
        };
        before != failure
    }

    /// The status of a Work by its placements; none while they will soon say more.
    pub(crate) fn work_status(
        &self,
        key: &ObjectKey,
        work: &Work,
        now: Timestamp,
    ) -> Option<WorkStatus> {
        let inner = self.lock();
        let placements = inner.placements_of(key);
        let failure = inner.failures.get(key).map(String::as_str);
        if failure.is_none() && rollup::work_heard_soon(work, &placements, &inner.sites) {
            return None;
        }
        rollup::work(work, &placements, &inner.sites, failure, now)
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

    /// The placements of a Promise's own Works, or of a request's; those about to be created, too.
    pub(crate) fn placements_of(&self, owner: &Owner) -> Vec<WorkPlacement> {
        let inner = self.lock();
        let keys = inner.placements_of.get(owner).into_iter().flatten();
        let seen = keys.filter_map(|key| inner.placements.get(key)).map(Arc::as_ref);
        let expected = inner.expected.values();
        let expected = expected.filter(|it| Owner::of(&it.metadata).as_ref() == Some(owner));
        seen.chain(expected).cloned().collect()
    }

    /// A placement.
    pub(crate) fn placement(&self, key: &ObjectKey) -> Option<Arc<WorkPlacement>> {
        self.lock().placements.get(key).cloned()
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
            for (side, present) in [(&changed.old, false), (&changed.new, true)] {
                for want in side.iter().flat_map(|work| wants(work)) {
                    set(&mut self.by_want, want, &changed.key, present);
                }
            }
        }
        if changed.new.is_none() {
            self.failures.remove(&changed.key);
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
        let asks =
            |side: &Option<Arc<WorkPlacement>>| side.as_deref().is_some_and(is_asked_to_move);
        let held = |side: &Option<Arc<WorkPlacement>>| side.as_deref().is_some_and(holds);
        let asked = asks(&changed.old) != asks(&changed.new);
        if asks(&changed.new) {
            self.asked.insert(changed.key.clone());
        } else {
            self.asked.remove(&changed.key);
        }
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
            let arrived = held(&changed.old) != held(&changed.new) && self.moves(&work);
            if moved || asked || arrived {
                affected.schedule.insert(work.clone());
            }
            affected.works.insert(work);
        }
    }

    fn take_destinations(
        &mut self,
        event: Event<Destination>,
        claims: &Claims,
        affected: &mut Affected,
    ) {
        for changed in self.destinations.take(event) {
            let name = changed.key.name.clone();
            claims.saw(&name, changed.new.as_deref());
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
            let sites = Arc::make_mut(&mut self.sites);
            match &new {
                Some(site) => sites.insert(name.clone(), site.clone()),
                None => sites.remove(&name),
            };
            for key in self.concerned(&name, old.as_ref(), new.as_ref()) {
                let work = self.works.get(&key);
                affected.owners.extend(work.and_then(|work| Owner::of(&work.metadata)));
                affected.schedule.insert(key);
            }
            let held = self.by_destination.get(&name).into_iter().flatten();
            let held: Vec<_> = held.filter_map(|key| self.placements.get(key)).collect();
            affected.owners.extend(held.iter().filter_map(|held| Owner::of(&held.metadata)));
            affected.works.extend(held.into_iter().filter_map(|placement| work_of(placement)));
        }
    }

    /// The Works whose placing a change of one destination may change: what is on it, what looks for
    /// a place, and dependencies that match it or did; no request that has its place elsewhere.
    fn concerned(&self, name: &str, old: Option<&Site>, new: Option<&Site>) -> BTreeSet<ObjectKey> {
        let still = |site: Option<&Site>| site.map(|s| Site { link: Link::Connected, ..s.clone() });
        let link_alone = still(old) == still(new);
        let mut works = BTreeSet::new();
        if !link_alone {
            works.extend(self.works_on(name));
            let drains = |site: Option<&Site>| site.is_some_and(|site| site.draining);
            for (want, members) in &self.by_want {
                let fits = (want.fits(old), want.fits(new));
                if fits.0 != fits.1 || (fits.1 && drains(old) != drains(new)) {
                    works.extend(members.iter().filter(|key| self.seeks(key)).cloned());
                }
            }
        }
        let welcomes = new.is_some_and(|site| site.link == Link::Connected && !site.draining);
        if welcomes && !(link_alone && old.is_some_and(|old| old.link == Link::Connected)) {
            let asked = self.asked.iter().filter_map(|key| self.placements.get(key));
            works.extend(asked.filter_map(|placement| work_of(placement)));
            let drained = self.sites.values().filter(|site| site.draining);
            works.extend(drained.flat_map(|site| self.works_on(&site.name)));
        }
        works
    }

    fn works_on(&self, destination: &str) -> impl Iterator<Item = ObjectKey> {
        let held = self.by_destination.get(destination).into_iter().flatten();
        held.filter_map(|key| self.placements.get(key)).filter_map(|placement| work_of(placement))
    }

    /// Whether a Work takes destinations that it does not have yet.
    fn seeks(&self, key: &ObjectKey) -> bool {
        let Some(work) = self.works.get(key) else { return false };
        !is_request(work) || !unplaced(work, self.placements_of(key)).is_empty()
    }

    /// Whether a placement of a Work shall leave its destination.
    fn moves(&self, work: &ObjectKey) -> bool {
        let own = self.placements_of(work);
        own.into_iter().any(|p| asks_to_move(p, &self.sites, is_misplaced(p)))
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
