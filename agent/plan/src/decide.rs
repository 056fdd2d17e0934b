//! What is the next step for one placement?
//!
//! Reads everything, changes nothing. All waiting of one placement for another is decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_core::{Claim, Contents, Digest, Failure, Intent, Lane, Order, PlacementKey};

use crate::{
    Pace,
    library::{Known, Library},
    slot::{Note, Slot},
};

/// All that a decision may look at.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) slots: &'a BTreeMap<PlacementKey, Slot>,
    pub(crate) promises: &'a Promises,
    /// Who holds what.
    pub(crate) owners: &'a BTreeMap<Claim, BTreeSet<PlacementKey>>,
    pub(crate) library: &'a Library,
    /// Actions in flight by lane.
    pub(crate) running: &'a BTreeMap<Lane, usize>,
    pub(crate) pace: &'a Pace,
    pub(crate) now: Duration,
}

/// The placements of each lane, by Promise. Lanes apart, because the few dependencies of a Promise are
/// looked at for each of its many requests.
pub(crate) type Promises = BTreeMap<Lane, BTreeMap<String, BTreeSet<PlacementKey>>>;

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before `until`, if ever; `note` says what it waits for.
    Wait {
        note: Option<Note>,
        until: Option<Duration>,
    },
    Fetch(Digest),
    Apply {
        base: Vec<Digest>,
        contents: Contents,
    },
    Remove,
    Check,
    Cancel,
    /// It cannot be applied, for a reason that no applier has to find.
    Fail {
        failure: Failure,
        until: Option<Duration>,
    },
}

/// The step for the placement `key`, whose slot is `slot`.
pub(crate) fn decide(key: &PlacementKey, slot: &Slot, view: &View<'_>) -> Step {
    if let Some(doing) = &slot.doing {
        let cancel = slot.doing_is_stale() && !doing.cancelled;
        return if cancel { Step::Cancel } else { Step::Wait { note: None, until: None } };
    }
    match &slot.order {
        None if slot.holds() => check_or_wait(slot, view, None),
        None => Step::Wait { note: None, until: None },
        Some(order) if order.intent == Intent::Absent => absent(slot, order, view),
        Some(order) => present(key, slot, order, view),
    }
}

fn absent(slot: &Slot, order: &Order, view: &View<'_>) -> Step {
    if slot.removed {
        return Step::Wait { note: None, until: None };
    }
    if view.now < slot.retry.at() {
        return Step::Wait { note: slot.note.clone(), until: Some(slot.retry.at()) };
    }
    if order.lane == Lane::Platform {
        let going = |other: &&PlacementKey| {
            view.slots
                .get(other)
                .is_some_and(|other| other.intent() == Some(Intent::Absent) && !other.removed)
        };
        if let Some(request) = view.siblings(slot, Lane::App).find(going) {
            return wait("WaitingForRequests", format!("{request} is removed first"));
        }
    }
    if view.lane_is_full(order.lane) { queued() } else { Step::Remove }
}

fn present(key: &PlacementKey, slot: &Slot, order: &Order, view: &View<'_>) -> Step {
    let known = view.library.look_up(&order.digest, view.now);
    let base = base(slot, order, known, view);
    if slot.held.applied == Some(order.digest) && !slot.drifted() {
        match &base {
            Err(Lacks::Wanted(digest)) => return Step::Fetch(*digest),
            Err(Lacks::Pending) => return check_or_wait(slot, view, None),
            Ok(base) if *base == slot.held.base => return check_or_wait(slot, view, None),
            Ok(_) => {}
        }
    }
    if slot.failure.as_ref().is_some_and(|failure| failure.refused)
        && base.as_ref().map_or(true, |base| *base == slot.failed_base)
    {
        return check_or_wait(slot, view, None);
    }
    if view.now < slot.retry.at() {
        return check_or_wait(slot, view, Some(slot.retry.at()));
    }
    let contents = match known {
        Known::Wanted => return Step::Fetch(order.digest),
        Known::Fetching => {
            let digest = order.digest.short();
            return wait("FetchingContent", format!("content {digest} is being fetched"));
        }
        Known::Failed(failure, until) => return Step::Fail { failure: failure.clone(), until },
        Known::Ready(contents) => contents,
    };
    let base = match base {
        Ok(base) => base,
        Err(Lacks::Wanted(digest)) => return Step::Fetch(digest),
        Err(Lacks::Pending) => {
            return wait("FetchingContent", "the content of its dependencies is being fetched");
        }
    };
    match obstacle(key, slot, order, contents, view) {
        Some(step) => step,
        None => Step::Apply { base, contents: contents.clone() },
    }
}

/// What another placement has to do or give up first.
fn obstacle(
    key: &PlacementKey,
    slot: &Slot,
    order: &Order,
    contents: &Contents,
    view: &View<'_>,
) -> Option<Step> {
    for claim in &contents.claims {
        let owners = view.owners.get(claim);
        if let Some(owner) = owners.into_iter().flatten().find(|owner| *owner != key) {
            return Some(wait(
                CONFLICT,
                format!(
                    "{claim} is held by placement {owner}, which had it first: \
                     take it out of one of the two"
                ),
            ));
        }
    }
    if order.lane == Lane::App {
        let first = |other: &&PlacementKey| view.slots.get(other).is_some_and(Slot::comes_first);
        if let Some(dependency) = view.siblings(slot, Lane::Platform).find(first) {
            let message = format!("dependency {dependency} is applied first");
            return Some(wait("WaitingForDependencies", message));
        }
    }
    view.lane_is_full(order.lane).then(queued)
}

/// The reason of a placement that lacks what another one holds.
pub(crate) const CONFLICT: &str = "Conflict";

enum Lacks {
    Wanted(Digest),
    Pending,
}

/// The content of the Promise's dependencies that is part of this placement's Terraform root.
fn base(
    slot: &Slot,
    order: &Order,
    known: Known<'_>,
    view: &View<'_>,
) -> Result<Vec<Digest>, Lacks> {
    if order.lane != Lane::App {
        return Ok(Vec::new());
    }
    let dependencies: Vec<Digest> = view
        .siblings(slot, Lane::Platform)
        .filter_map(|key| view.slots.get(key)?.order.as_ref())
        .filter(|order| order.intent == Intent::Present)
        .map(|order| order.digest)
        .collect();
    if dependencies.is_empty() || !is_terraform(known, order.digest)? {
        return Ok(Vec::new());
    }
    let mut base = Vec::new();
    for digest in dependencies {
        if is_terraform(view.library.look_up(&digest, view.now), digest)? {
            base.push(digest);
        }
    }
    Ok(base)
}

fn is_terraform(known: Known<'_>, digest: Digest) -> Result<bool, Lacks> {
    match known {
        Known::Ready(contents) => Ok(contents.terraform),
        Known::Wanted => Err(Lacks::Wanted(digest)),
        Known::Fetching => Err(Lacks::Pending),
        // Content that cannot be used is nobody's root; its own placement says why.
        Known::Failed(_, None) => Ok(false),
        Known::Failed(_, Some(_)) => Err(Lacks::Pending),
    }
}

/// Looks when that is due; else waits for it, or for `until` if that is earlier.
fn check_or_wait(slot: &Slot, view: &View<'_>, until: Option<Duration>) -> Step {
    if slot.held.applied.is_none() {
        return Step::Wait { note: None, until };
    }
    if view.now >= slot.check_at {
        let lane = slot.order.as_ref().map_or(Lane::App, |order| order.lane);
        return if view.lane_is_full(lane) { queued() } else { Step::Check };
    }
    let until = until.map_or(slot.check_at, |until| until.min(slot.check_at));
    Step::Wait { note: None, until: Some(until) }
}

fn queued() -> Step {
    wait("Queued", "other placements of its lane are applied first")
}

fn wait(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Wait { note: Some(Note { reason, message: message.into() }), until: None }
}

impl Slot {
    /// Whether requests wait for this one: a dependency on its way, which nothing has stopped.
    fn comes_first(&self) -> bool {
        let Some(order) = &self.order else { return false };
        let stopped =
            self.failure.is_some() || self.note.as_ref().is_some_and(|n| n.reason == CONFLICT);
        order.lane == Lane::Platform
            && order.intent == Intent::Present
            && self.held.applied != Some(order.digest)
            && !stopped
    }
}

impl<'a> View<'a> {
    /// The placements of the same Promise in a lane.
    fn siblings(
        &self,
        slot: &Slot,
        lane: Lane,
    ) -> impl Iterator<Item = &'a PlacementKey> + use<'a> {
        let lane = self.promises.get(&lane);
        slot.promise().and_then(|promise| lane?.get(promise)).into_iter().flatten()
    }

    fn lane_is_full(&self, lane: Lane) -> bool {
        self.running.get(&lane).is_some_and(|running| *running >= self.pace.lane_actions_max)
    }
}
