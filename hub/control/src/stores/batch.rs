//! What waits for one store → one batch: which entries, for whom, and who is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{FutureExt, StreamExt, stream};
use kube::Resource;
use muster_api::{
    Destination, WorkPlacement,
    destination::{Cleanup, FilepathMode},
    labels,
};
use muster_core::FileSet;
use muster_plan::store::{Lack, overlaps};
use muster_stores::{
    Change, Entry, Mode, Placed, Root,
    claims::{self, Collision},
    content::unfit,
    layout::AGGREGATED,
};

use super::{Dirty, Shared, StoreKey, open};
use crate::{agents::is_abandoned, content::ContentError, queue::chain, shelf::ObjectKey};

/// Most placements of one batch: a commit that people can still read.
const PLACEMENTS_MAX: usize = 1000;
/// Most bytes of one batch, beyond one unit: they are in memory until they are written.
const BYTES_MAX: usize = 64 << 20;
/// How many file sets are read at once.
const READS_AT_ONCE: usize = 16;

/// A store's Destinations, as they are at one moment.
pub(super) struct Sites(BTreeMap<String, SiteOf>);

/// One Destination of a store.
pub(super) struct SiteOf {
    pub destination: Arc<Destination>,
    /// Its part of the store, or why it has none.
    pub root: Result<Root, Lack>,
}

/// Entries that are written or not written together.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub entries: Vec<Entry>,
    pub subjects: Vec<Subject>,
}

/// Who waits for a unit.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A placement's files are to be there.
    Present { key: ObjectKey, destination: String, digest: String },
    /// They are to be gone.
    Absent { key: ObjectKey, destination: String },
    /// A Destination's test documents are to be there, or gone because nobody wants them.
    Documents { destination: String },
    /// A Destination that is being removed shall leave nothing behind.
    Last { destination: String },
}

/// A placement that is not written.
pub(super) struct Refused {
    pub key: ObjectKey,
    pub destination: String,
    pub lack: Lack,
    /// Whether only a change helps.
    pub for_good: bool,
}

/// What came of gathering.
#[derive(Default)]
pub(super) struct Batch {
    pub units: Vec<Unit>,
    pub refused: Vec<Refused>,
    /// Placements of which the store never held anything: they may go.
    pub free: Vec<(ObjectKey, String)>,
    /// Destinations that wait until nothing is on them.
    pub leaving: Vec<Arc<Destination>>,
    /// What did not fit.
    pub rest: Dirty,
}

impl Sites {
    /// Looks at the Destinations of a store, and of all others in the same place.
    pub(super) fn look(shared: &Shared, key: &StoreKey) -> Self {
        let world = &shared.config.world;
        let Some(store) = world.store(key.0, &key.1) else { return Self::homeless(shared, key) };
        let place = open::place(&store);
        let (mut own, mut placed) = (BTreeMap::new(), Vec::new());
        let all = world.stored_destinations();
        for destination in &all {
            let Some(reference) = &destination.spec.state_store_ref else { continue };
            let Some(theirs) = world.store(reference.kind, &reference.name) else { continue };
            if open::place(&theirs) != place {
                continue;
            }
            let root = root(destination, open::prefix(&theirs));
            if let Ok(root) = &root {
                placed.push((&**destination, root.directory().to_owned()));
            }
            if (reference.kind, &reference.name) == (key.0, &key.1) {
                let name = destination.metadata.name.clone().unwrap_or_default();
                own.insert(name, SiteOf { destination: destination.clone(), root });
            }
        }
        for (name, overlap) in overlaps(placed) {
            if let Some(site) = own.get_mut(&name) {
                site.root = Err(overlap.lack());
            }
        }
        Self(own)
    }

    /// The Destinations of a store that does not exist.
    fn homeless(shared: &Shared, key: &StoreKey) -> Self {
        let all = shared.config.world.stored_destinations().into_iter();
        let own = all.filter(|destination| {
            let reference = destination.spec.state_store_ref.as_ref();
            reference.is_some_and(|r| (r.kind, &r.name) == (key.0, &key.1))
        });
        let site = |destination: Arc<Destination>| {
            let name = destination.metadata.name.clone().unwrap_or_default();
            let root = root(&destination, "");
            (name, SiteOf { destination, root })
        };
        Self(own.map(site).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &SiteOf)> {
        self.0.iter().map(|(name, site)| (name.as_str(), site))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Destinations whose directory holds one of these paths.
    pub(super) fn touched(&self, paths: &[String]) -> BTreeSet<String> {
        let touched = self.0.iter().filter(|(_, site)| {
            let Ok(root) = &site.root else { return false };
            paths.iter().any(|path| muster_core::directory::is_below(path, root.directory()))
        });
        touched.map(|(name, _)| name.clone()).collect()
    }
}

fn root(destination: &Destination, prefix: &str) -> Result<Root, Lack> {
    let filepath = &destination.spec.filepath;
    let mode = match filepath.mode {
        FilepathMode::NestedByMetadata => Mode::Nested,
        FilepathMode::AggregatedYaml => {
            let file = filepath.filename.as_deref().filter(|file| !file.is_empty());
            Mode::Aggregated(file.unwrap_or(AGGREGATED).to_owned())
        }
        FilepathMode::None => Mode::Flat,
    };
    let path = destination.spec.path.as_deref().unwrap_or_default();
    Root::new(prefix, path, mode)
        .map_err(|error| Lack { reason: "InvalidPath".to_owned(), message: error.to_string() })
}

/// Gathers what is dirty, as much as fits.
pub(super) async fn gather(shared: &Shared, sites: &Sites, mut dirty: Dirty) -> Batch {
    let world = &shared.config.world;
    let mut batch = Batch::default();
    if dirty.all {
        for (name, _) in sites.iter() {
            dirty.destinations.insert(name.to_owned());
            dirty.placements.extend(world.placements_on(name).iter().map(|p| ObjectKey::of(&**p)));
        }
    }
    for (name, site) in sites.iter() {
        let changed = dirty.destinations.contains(name);
        let leaving = site.destination.metadata.deletion_timestamp.is_some();
        if changed || (leaving && dirty.freed.contains(name)) {
            batch.destination(shared, name, site);
        }
        let all = world.placements_on(name);
        let is_dirty = |p: &Arc<WorkPlacement>| dirty.placements.contains(&ObjectKey::of(&**p));
        let aggregated =
            matches!(&site.root, Ok(root) if matches!(root.mode(), Mode::Aggregated(_)));
        if aggregated && (changed || dirty.freed.contains(name) || all.iter().any(is_dirty)) {
            batch.aggregate(shared, name, site, &all).await;
        } else if all.iter().any(is_dirty) {
            let mine: Vec<_> = all.iter().filter(|p| is_dirty(p)).cloned().collect();
            batch.placements(shared, name, site, &all, mine).await;
        }
    }
    batch
}

impl Batch {
    fn is_full(&self) -> bool {
        let size = self.units.iter().flat_map(|unit| &unit.entries).map(|e| e.change.size());
        self.units.len() >= PLACEMENTS_MAX || size.sum::<usize>() >= BYTES_MAX
    }

    /// A Destination's test documents.
    fn destination(&mut self, shared: &Shared, name: &str, site: &SiteOf) {
        let destination = name.to_owned();
        let leaving = site.destination.metadata.deletion_timestamp.is_some();
        let Ok(root) = &site.root else {
            if leaving {
                self.leaving.push(site.destination.clone());
            }
            if leaving && shared.config.world.placements_on(name).is_empty() {
                let subjects = vec![Subject::Last { destination }];
                self.units.push(Unit { entries: Vec::new(), subjects });
            }
            return;
        };
        if !leaving {
            let entries = root.canaries(site.destination.spec.init_workloads.enabled).into();
            self.units.push(Unit { entries, subjects: vec![Subject::Documents { destination }] });
        } else if site.destination.spec.cleanup == Cleanup::All {
            self.leaving.push(site.destination.clone());
            if shared.config.world.placements_on(name).is_empty() {
                let entries = root.canaries(false).into();
                self.units.push(Unit { entries, subjects: vec![Subject::Last { destination }] });
            }
        }
    }

    /// The placements of a Destination that has a place for each.
    async fn placements(
        &mut self,
        shared: &Shared,
        name: &str,
        site: &SiteOf,
        all: &[Arc<WorkPlacement>],
        mut mine: Vec<Arc<WorkPlacement>>,
    ) {
        let given_up = is_abandoned(&*site.destination);
        let root = match &site.root {
            Ok(root) => root,
            Err(lack) => return mine.iter().for_each(|p| self.without_root(p, name, lack)),
        };
        let order = in_order(all);
        let placed: Vec<_> = order.iter().map(|p| placed(p)).collect();
        let collisions = by_key(&order, claims::collisions(root, &placed));
        while !mine.is_empty() {
            if self.is_full() {
                return self.rest.placements.extend(mine.iter().map(|p| ObjectKey::of(&**p)));
            }
            let some: Vec<_> = mine.drain(..mine.len().min(4 * READS_AT_ONCE)).collect();
            let files = read(shared, &some).await;
            for (placement, files) in some.iter().zip(files) {
                let key = ObjectKey::of(&**placement);
                let collision = collisions.get(&key);
                if is_leaving(placement) {
                    self.absent(root, placement, name, collision.is_some(), given_up);
                    continue;
                }
                match collision.map(lack_of).map_or(files, Err) {
                    Ok(files) => self.present(root, placement, name, &files),
                    Err(lack) => self.refuse(key, name, lack),
                }
            }
        }
    }

    fn present(&mut self, root: &Root, placement: &WorkPlacement, name: &str, files: &FileSet) {
        let key = ObjectKey::of(placement);
        if let Some(unfit) = unfit(files, root.mode()) {
            let lack = Lack { reason: unfit.reason.to_owned(), message: unfit.message };
            return self.refuse(key, name, lack);
        }
        let change = root.change(&placed(placement), Some(files));
        let entries = change.map(|change| entry(placement, change)).into_iter().collect();
        let digest = placement.spec.digest.clone();
        let subject = Subject::Present { key, destination: name.to_owned(), digest };
        self.units.push(Unit { entries, subjects: vec![subject] });
    }

    /// A placement that goes. What is refused a place may hold older files, but not the others'.
    fn absent(
        &mut self,
        root: &Root,
        placement: &WorkPlacement,
        name: &str,
        refused: bool,
        given_up: bool,
    ) {
        let key = ObjectKey::of(placement);
        if given_up || is_abandoned(placement) || (refused && !was_written(placement)) {
            return self.free.push((key, name.to_owned()));
        }
        let mut placed = placed(placement);
        if refused {
            placed.paths.clear();
        }
        let change = root.change(&placed, None);
        let entries = change.map(|change| entry(placement, change)).into_iter().collect();
        let subject = Subject::Absent { key, destination: name.to_owned() };
        self.units.push(Unit { entries, subjects: vec![subject] });
    }

    /// The one file of a Destination, of all that is on it.
    async fn aggregate(
        &mut self,
        shared: &Shared,
        name: &str,
        site: &SiteOf,
        all: &[Arc<WorkPlacement>],
    ) {
        let Ok(root) = &site.root else { return };
        let mut live: Vec<_> = all.iter().filter(|p| !is_leaving(p)).cloned().collect();
        live.sort_by_key(|p| (p.metadata.name.clone(), p.metadata.namespace.clone()));
        let mut unit = Unit::default();
        let mut joined = Vec::new();
        for (placement, files) in live.iter().zip(read(shared, &live).await) {
            let key = ObjectKey::of(&**placement);
            let fit = files.and_then(|files| match unfit(&files, root.mode()) {
                Some(unfit) => {
                    Err(Lack { reason: unfit.reason.to_owned(), message: unfit.message })
                }
                None => Ok(files),
            });
            match fit {
                Ok(files) => {
                    joined.push(files);
                    let digest = placement.spec.digest.clone();
                    let destination = name.to_owned();
                    unit.subjects.push(Subject::Present { key, destination, digest });
                }
                Err(lack) => self.refuse(key, name, lack),
            }
        }
        for placement in all.iter().filter(|p| is_leaving(p)) {
            let key = ObjectKey::of(&**placement);
            unit.subjects.push(Subject::Absent { key, destination: name.to_owned() });
        }
        let owner = format!("destination {name}");
        let change = root.aggregate(&joined);
        unit.entries.extend(change.map(|change| Entry { owner, change }));
        self.units.push(unit);
    }

    fn without_root(&mut self, placement: &WorkPlacement, name: &str, lack: &Lack) {
        let key = ObjectKey::of(placement);
        if is_leaving(placement) {
            return self.free.push((key, name.to_owned()));
        }
        self.refuse(key, name, lack.clone());
    }

    fn refuse(&mut self, key: ObjectKey, destination: &str, lack: Lack) {
        let for_good = lack.reason != UNREADABLE;
        let destination = destination.to_owned();
        self.refused.push(Refused { key, destination, lack, for_good });
    }
}

/// The reason when the hub's own API does not give the files.
const UNREADABLE: &str = "ContentUnavailable";

/// The files of placements, in their order; of those that leave, none are needed.
async fn read(shared: &Shared, placements: &[Arc<WorkPlacement>]) -> Vec<Result<FileSet, Lack>> {
    // A Promise's dependencies are the same files on all of its destinations.
    let one_each: BTreeMap<_, _> =
        placements.iter().map(|p| ((p.spec.digest.as_str(), is_leaving(p)), p)).collect();
    let reads = one_each
        .into_iter()
        .map(|(key, one)| read_one(shared, one).map(move |files| (key, files)).boxed());
    let reads: Vec<_> = reads.collect();
    let read: BTreeMap<_, _> = stream::iter(reads).buffered(READS_AT_ONCE).collect().await;
    let of = |p: &Arc<WorkPlacement>| read.get(&(p.spec.digest.as_str(), is_leaving(p))).cloned();
    placements.iter().map(|placement| of(placement).unwrap_or_else(|| Ok(FileSet::new()))).collect()
}

async fn read_one(shared: &Shared, placement: &WorkPlacement) -> Result<FileSet, Lack> {
    if is_leaving(placement) {
        return Ok(FileSet::new());
    }
    let lack = |cause: String| Lack { reason: UNREADABLE.to_owned(), message: cause };
    let digest = placement.spec.digest.parse();
    let digest = digest.map_err(|error| lack(format!("spec.digest: {error}")))?;
    let found = shared.config.content.get(digest).await;
    found.map_err(|error: ContentError| lack(chain(&error)))
}

/// Who comes first where two want one path: who has it, then who is older.
fn in_order(all: &[Arc<WorkPlacement>]) -> Vec<Arc<WorkPlacement>> {
    let mut order = all.to_vec();
    order.sort_by_key(|placement| {
        let meta = placement.meta();
        let applied = placement.status.as_ref().and_then(|s| s.applied_digest.as_ref());
        let has_it = applied == Some(&placement.spec.digest);
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        (!has_it, created, ObjectKey::of(&**placement))
    });
    order
}

fn by_key(
    order: &[Arc<WorkPlacement>],
    collisions: BTreeMap<usize, Collision>,
) -> BTreeMap<ObjectKey, Collision> {
    let named = collisions
        .into_iter()
        .filter_map(|(index, collision)| Some((ObjectKey::of(&**order.get(index)?), collision)));
    named.collect()
}

fn lack_of(collision: &Collision) -> Lack {
    Lack { reason: "PathCollision".to_owned(), message: collision.message() }
}

fn placed(placement: &WorkPlacement) -> Placed<'_> {
    let meta = placement.meta();
    let label = |key: &str| meta.labels.as_ref().and_then(|all| all.get(key));
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let requested = placement.spec.resource_namespace.as_deref().unwrap_or(namespace);
    Placed {
        namespace,
        name: meta.name.as_deref().unwrap_or_default(),
        promise: &placement.spec.promise_name,
        resource: placement.spec.resource_name.as_deref().map(|name| (requested, name)),
        pipeline: label(labels::PIPELINE_NAME).map_or("", String::as_str),
        id: &placement.spec.id,
        paths: placement.spec.workloads.iter().map(|file| file.filepath.as_str()).collect(),
    }
}

fn entry(placement: &WorkPlacement, change: Change) -> Entry {
    Entry { owner: placement.metadata.name.clone().unwrap_or_default(), change }
}

fn is_leaving(placement: &WorkPlacement) -> bool {
    placement.metadata.deletion_timestamp.is_some()
}

fn was_written(placement: &WorkPlacement) -> bool {
    placement.status.as_ref().is_some_and(|status| status.version_id.is_some())
}
