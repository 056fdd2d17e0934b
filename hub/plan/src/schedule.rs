//! Where does a Work go? Its groups, the destinations and its present placements in; what to create,
//! change and delete out, with a reason for every destination that was passed over.
//!
//! Dependencies go to all matching destinations, a request's group to one: a ready one, the least
//! loaded of these, the first by name of those. A placement stays where it is: while its destination
//! matches, and also when it no longer does (it is marked misplaced then, and the mark goes when the
//! labels come back).
//!
//! It moves when somebody asks, by an annotation on it or on its destination: then it is placed anew
//! beside the old placement, which is deleted when the new one's destination holds the files. Whoever
//! deletes a placement has it placed anew, too, but only when its old destination has said that
//! nothing is left.

mod group;
mod placement;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    Work, WorkPlacement, WorkPlacementSpec, WorkloadGroup,
    conditions::{self, kind},
    labels,
};
use muster_core::{Selector, Waiting};

use crate::site::{Sites, is_true};
use group::Placing;
pub use placement::placement_name;
pub(crate) use wanted::counted;
pub use wanted::{Wanted, WhyNot};

#[cfg(test)]
mod tests;

/// What to do about the placements of one Work.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    /// Placements to make.
    pub create: Vec<WorkPlacement>,
    /// Placements to change in place.
    pub update: Vec<Update>,
    /// Names of placements to delete, in the Work's namespace.
    pub delete: Vec<String>,
    /// Each group's outcome, in the Work's order.
    pub groups: Vec<GroupSchedule>,
}

/// A change of a placement that stays where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Its name.
    pub name: String,
    /// What it shall say.
    pub spec: WorkPlacementSpec,
    /// Whether it carries the label [`labels::MISPLACED`].
    pub misplaced: bool,
    /// Whether it did not carry it before.
    pub marks: bool,
}

/// Where one group goes.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSchedule {
    /// Its id.
    pub id: String,
    /// Its directory.
    pub directory: String,
    /// What its destinations must be.
    pub selector: Selector,
    /// Destinations that hold it or shall.
    pub chosen: BTreeSet<String>,
    /// Those of them whose labels no longer match.
    pub misplaced: BTreeSet<String>,
    /// Those of them that it shall leave.
    pub moving: BTreeSet<String>,
    /// Every other destination, and why not.
    pub passed_over: BTreeMap<String, WhyNot>,
    /// Why it is not placed (yet).
    pub waiting: Option<Waiting>,
}

/// Decides for one Work. `placements` are all of its own; `load` says how many placements of any Work
/// a destination holds.
pub fn schedule(
    work: &Work,
    sites: &Sites,
    load: &dyn Fn(&str) -> usize,
    placements: &[&WorkPlacement],
) -> Schedule {
    let mut plan = Schedule::default();
    if work.metadata.deletion_timestamp.is_some() {
        plan.delete = placements.iter().filter(|p| !leaving(p)).map(|p| name_of(p)).collect();
        return plan;
    }
    let mut placed = Vec::new();
    for group in &work.spec.workload_groups {
        let own = placements.iter().copied().filter(|p| p.spec.id == group.id).collect();
        let mut placing = Placing { work, group, sites, own, plan: &mut plan };
        let more = |name: &str| placed.iter().filter(|placed| **placed == name).count();
        let fresh = placing.place(&|name| load(name) + more(name));
        placed.extend(fresh);
    }
    let groups: BTreeSet<_> = work.spec.workload_groups.iter().map(|g| g.id.as_str()).collect();
    let orphans = placements.iter().filter(|p| !groups.contains(p.spec.id.as_str()));
    plan.delete.extend(orphans.filter(|p| !leaving(p)).map(|p| name_of(p)));
    plan
}

/// What each group of a Work wants.
pub fn wants(work: &Work) -> impl Iterator<Item = Wanted> {
    work.spec.workload_groups.iter().map(|group| Wanted::of(work, group))
}

/// Whether a Work is a request's: its groups go to one destination each.
pub fn is_request(work: &Work) -> bool {
    work.spec.resource_name.is_some()
}

/// Whether a placement is one of this Work's.
pub fn owns(work: &Work, placement: &WorkPlacement) -> bool {
    let owners = placement.metadata.owner_references.as_deref().unwrap_or_default();
    work.metadata.namespace == placement.metadata.namespace
        && owners.iter().any(|owner| Some(&owner.uid) == work.metadata.uid.as_ref())
}

/// The groups of a Work that no live placement holds; `placements` are all of its own.
pub fn unplaced<'a, 'p>(
    work: &'a Work,
    placements: impl IntoIterator<Item = &'p WorkPlacement>,
) -> Vec<&'a WorkloadGroup> {
    let held: BTreeSet<_> =
        placements.into_iter().filter(|p| !leaving(p)).map(|p| p.spec.id.as_str()).collect();
    work.spec.workload_groups.iter().filter(|g| !held.contains(g.id.as_str())).collect()
}

/// Whether a placement's destination holds the files that it is pinned to.
pub fn holds(placement: &WorkPlacement) -> bool {
    placement.status.as_ref().is_some_and(|status| {
        status.applied_digest.as_deref() == Some(placement.spec.digest.as_str())
            && conditions::is_true(&status.conditions, kind::APPLIED)
    })
}

/// Whether somebody annotated a placement so that it moves.
pub fn is_asked_to_move(placement: &WorkPlacement) -> bool {
    is_true(placement.metadata.annotations.as_ref(), labels::MOVE)
}

/// Whether a placement carries the mark of one whose destination no longer matches.
pub fn is_misplaced(placement: &WorkPlacement) -> bool {
    let labels = placement.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(labels::MISPLACED))
}

/// Whether a placement shall leave its destination. Of dependencies only those can that are
/// `misplaced`: they belong on every destination that matches.
pub fn asks_to_move(placement: &WorkPlacement, sites: &Sites, misplaced: bool) -> bool {
    let asked = is_asked_to_move(placement);
    if placement.spec.resource_name.is_none() {
        return asked && misplaced;
    }
    asked || sites.get(&placement.spec.target_destination_name).is_some_and(|site| site.draining)
}

fn leaving(placement: &WorkPlacement) -> bool {
    placement.metadata.deletion_timestamp.is_some()
}

fn name_of(placement: &WorkPlacement) -> String {
    placement.metadata.name.clone().unwrap_or_default()
}
