//! Where does a Work go? Its groups, the destinations and its present placements in; what to create,
//! change and delete out, with a reason for every destination that was passed over.
//!
//! Dependencies go to all matching destinations, a request's group to one. A placement stays where it
//! is: while its destination matches, and also when it no longer does (it is marked misplaced then,
//! and the mark goes when the labels come back). Whoever wants it elsewhere deletes the placement;
//! it is placed anew only when its old destination has said that nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::{ObjectMeta, Resource};
use muster_api::{
    Work, WorkPlacement, WorkPlacementSpec, WorkloadGroup,
    labels::{self, finalizer},
};
use muster_core::{Selector, Waiting, name::NAME_LEN_MAX};

use crate::{
    assign::REQUEST_KIND,
    site::{Link, Site, Sites},
};

#[cfg(test)]
mod tests;

/// Longest value of a label in Kubernetes.
const LABEL_VALUE_LEN_MAX: usize = 63;
/// How many digits of a group's id end a placement's name, as in Kratix.
const ID_LEN: usize = 5;

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
    /// Every other destination, and why not.
    pub passed_over: BTreeMap<String, WhyNot>,
    /// Why it is not placed (yet).
    pub waiting: Option<Waiting>,
}

/// Why a destination was not chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyNot {
    /// It is being removed.
    Leaving,
    /// A label does not fit; in words.
    Mismatch(String),
    /// The selector is empty, and the destination wants to be named by a label.
    Strict,
    /// A request goes to one destination, and another one holds it.
    Held {
        /// The other.
        by: String,
    },
    /// A request goes to one destination, and another one is connected.
    Offline,
    /// A request goes to one destination, and another one's state store takes files.
    NotReady,
    /// A request goes to one destination, and another one holds fewer placements.
    Busier {
        /// How many placements it holds.
        load: usize,
    },
    /// A request goes to one destination, and of equals the first by name was taken.
    LaterName,
    /// What was there is still being removed.
    Removing,
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

/// What the destinations of a group must be: its selectors merged. On one key the Promise's wins over
/// its pipelines', that over the request's; within one source the first wins (as in Kratix).
/// Expressions all hold.
pub fn effective_selector(group: &WorkloadGroup) -> Selector {
    let rank = |source: Option<&str>| match source {
        Some("promise") => 0,
        Some("promise-workflow") => 1,
        _ => 2,
    };
    let mut selectors: Vec<_> = group.destination_selectors.iter().collect();
    selectors.sort_by_key(|selector| rank(selector.source.as_deref()));
    let mut merged = Selector::default();
    for selector in selectors.into_iter().map(Selector::from) {
        for (key, value) in selector.match_labels {
            merged.match_labels.entry(key).or_insert(value);
        }
        for expression in selector.match_expressions {
            if !merged.match_expressions.contains(&expression) {
                merged.match_expressions.push(expression);
            }
        }
    }
    merged
}

/// The name of the placement of a group on a destination: `<work>.<destination>-<id5>`.
pub fn placement_name(work: &Work, group: &WorkloadGroup, destination: &str) -> String {
    let start = |id: &str| id.chars().take(ID_LEN).collect::<String>();
    let groups = &work.spec.workload_groups;
    let alone = groups.iter().filter(|g| start(&g.id) == start(&group.id)).count() <= 1;
    let id = if alone { start(&group.id) } else { group.id.clone() };
    let name = format!("{}.{destination}-{id}", work.metadata.name.as_deref().unwrap_or_default());
    if name.len() <= NAME_LEN_MAX {
        return name;
    }
    let hash = muster_core::Digest::of(name.as_bytes()).short();
    let cut = name.get(..NAME_LEN_MAX - hash.len() - 1).unwrap_or_default();
    format!("{}-{hash}", cut.trim_end_matches(['.', '-']))
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

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("it is being removed"),
            Self::Mismatch(words) => f.write_str(words),
            Self::Strict => f.write_str("no label asks for it, and it has strictMatchLabels"),
            Self::Held { by } => write!(f, "matches, but {by} holds it already, and it stays"),
            Self::Offline => f.write_str("matches, but its agent is not connected"),
            Self::NotReady => f.write_str("matches, but its state store is not ready"),
            Self::Busier { load } => write!(f, "matches, but holds more ({load} placements)"),
            Self::LaterName => f.write_str("matches, but one is enough, and names decide"),
            Self::Removing => f.write_str("what was there is still being removed"),
        }
    }
}

/// One group's placing.
struct Placing<'a, 'p> {
    work: &'a Work,
    group: &'a WorkloadGroup,
    sites: &'a Sites,
    own: Vec<&'a WorkPlacement>,
    plan: &'p mut Schedule,
}

impl<'a> Placing<'a, '_> {
    /// Plans the group; returns the destinations of what is created.
    fn place(&mut self, load: &dyn Fn(&str) -> usize) -> Vec<&'a str> {
        let selector = effective_selector(self.group);
        let mut outcome = GroupSchedule {
            id: self.group.id.clone(),
            directory: self.group.directory.clone(),
            chosen: BTreeSet::new(),
            misplaced: BTreeSet::new(),
            passed_over: BTreeMap::new(),
            waiting: None,
            selector,
        };
        let mut fit = Vec::new();
        for site in self.sites.values() {
            match why_not(site, &outcome.selector) {
                None => fit.push(site),
                Some(why) => drop(outcome.passed_over.insert(site.name.clone(), why)),
            }
        }
        self.keep(&fit, &mut outcome);
        let fresh = if is_request(self.work) {
            self.one(fit, load, &mut outcome)
        } else {
            self.all(fit, &mut outcome)
        };
        for site in &fresh {
            outcome.chosen.insert(site.name.clone());
            self.plan.create.push(new_placement(self.work, self.group, site));
        }
        if outcome.chosen.is_empty() && outcome.waiting.is_none() {
            let selector = outcome.selector.to_string();
            outcome.waiting = Some(Waiting::NoMatchingDestination { selector });
        }
        self.plan.groups.push(outcome);
        fresh.iter().map(|site| site.name.as_str()).collect()
    }

    /// Keeps what is placed already: up to date, and marked where its labels no longer match.
    fn keep(&mut self, fit: &[&Site], outcome: &mut GroupSchedule) {
        self.own.sort_by_key(|placement| &placement.metadata.name);
        for placement in self.own.iter().filter(|p| !leaving(p)) {
            let target = &placement.spec.target_destination_name;
            let known = self.sites.contains_key(target);
            let second = is_request(self.work) && !outcome.chosen.is_empty();
            if !known || second {
                self.plan.delete.push(name_of(placement));
                continue;
            }
            let misplaced = !fit.iter().any(|site| site.name == *target);
            let mut spec = spec_of(self.work, self.group, target);
            if same_files(&spec, &placement.spec) {
                spec.generation = placement.spec.generation;
            }
            if spec != placement.spec || misplaced != is_misplaced(placement) {
                self.plan.update.push(Update { name: name_of(placement), spec, misplaced });
            }
            outcome.passed_over.remove(target);
            outcome.chosen.insert(target.clone());
            if misplaced {
                outcome.misplaced.insert(target.clone());
            }
        }
    }

    /// Dependencies: every destination that fits and does not hold the group.
    fn all(&self, fit: Vec<&'a Site>, outcome: &mut GroupSchedule) -> Vec<&'a Site> {
        let mut fresh = Vec::new();
        for site in fit {
            if outcome.chosen.contains(&site.name) {
                continue;
            }
            if self.own.iter().any(|p| p.spec.target_destination_name == site.name) {
                outcome.passed_over.insert(site.name.clone(), WhyNot::Removing);
                let destination = site.name.clone();
                outcome.waiting.get_or_insert(Waiting::Removing { destination });
            } else {
                fresh.push(site);
            }
        }
        fresh
    }

    /// Requests: the one that holds it; else, once nothing of it is left anywhere, the best.
    fn one(
        &self,
        fit: Vec<&'a Site>,
        load: &dyn Fn(&str) -> usize,
        outcome: &mut GroupSchedule,
    ) -> Vec<&'a Site> {
        if let Some(holder) = outcome.chosen.first().cloned() {
            for site in fit.iter().filter(|site| site.name != holder) {
                outcome.passed_over.insert(site.name.clone(), WhyNot::Held { by: holder.clone() });
            }
            return Vec::new();
        }
        if let Some(last) = self.own.iter().find(|placement| leaving(placement)) {
            let destination = last.spec.target_destination_name.clone();
            for site in fit {
                outcome.passed_over.insert(site.name.clone(), WhyNot::Removing);
            }
            outcome.waiting = Some(Waiting::Removing { destination });
            return Vec::new();
        }
        let load = |site: &Site| load(&site.name);
        let key = |site: &Site| (site.link != Link::Connected, load(site), site.name.clone());
        let Some(best) = fit.iter().copied().min_by_key(|site| key(site)) else {
            return Vec::new();
        };
        for site in fit.into_iter().filter(|site| site.name != best.name) {
            let why = match (key(site).0 != key(best).0, load(site) > load(best)) {
                (true, _) if site.state_store => WhyNot::NotReady,
                (true, _) => WhyNot::Offline,
                (false, true) => WhyNot::Busier { load: load(site) },
                (false, false) => WhyNot::LaterName,
            };
            outcome.passed_over.insert(site.name.clone(), why);
        }
        vec![best]
    }
}

/// Whether a change of a destination may change where a Work goes.
pub fn concerns(work: &Work, old: Option<&Site>, new: Option<&Site>) -> bool {
    let fits = |site: Option<&Site>, selector: &Selector| {
        site.is_some_and(|site| why_not(site, selector).is_none())
    };
    let selectors = || work.spec.workload_groups.iter().map(effective_selector);
    // A placement on a destination that is gone has nobody to report.
    new.is_none() || selectors().any(|selector| fits(old, &selector) != fits(new, &selector))
}

/// Why a destination cannot hold what has this selector.
pub(crate) fn why_not(site: &Site, selector: &Selector) -> Option<WhyNot> {
    if site.leaving {
        return Some(WhyNot::Leaving);
    }
    if selector.is_empty() && site.strict && !site.labels.is_empty() {
        return Some(WhyNot::Strict);
    }
    selector.mismatch(&site.labels).map(WhyNot::Mismatch)
}

fn new_placement(work: &Work, group: &WorkloadGroup, site: &Site) -> WorkPlacement {
    let destination = site.name.as_str();
    let mut finalizers = vec![finalizer::PLACEMENT_CLEANUP.to_owned()];
    if site.state_store && site.lists {
        finalizers.push(finalizer::PLACEMENT_LIST_CLEANUP.to_owned());
    }
    let mut placement = WorkPlacement::new(
        &placement_name(work, group, destination),
        spec_of(work, group, destination),
    );
    placement.metadata = ObjectMeta {
        namespace: work.metadata.namespace.clone(),
        labels: Some(labels_of(work, group, destination)),
        annotations: annotation_of(work),
        finalizers: Some(finalizers),
        owner_references: Some(vec![OwnerReference {
            api_version: Work::api_version(&()).into_owned(),
            kind: Work::kind(&()).into_owned(),
            name: work.metadata.name.clone().unwrap_or_default(),
            uid: work.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..placement.metadata
    };
    placement
}

fn labels_of(work: &Work, group: &WorkloadGroup, to: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let from = work.metadata.labels.as_ref();
    for key in [
        labels::PROMISE_NAME,
        labels::RESOURCE_NAME,
        labels::RESOURCE_NAMESPACE,
        labels::PIPELINE_NAME,
        labels::WORK_TYPE,
    ] {
        if let Some(value) = from.and_then(|labels| labels.get(key)) {
            all.insert(key.to_owned(), value.clone());
        }
    }
    let own = [
        (labels::WORK, work.metadata.name.as_deref().unwrap_or_default()),
        (labels::WORKLOAD_GROUP_ID, &group.id),
        (labels::TARGET_DESTINATION, to),
    ];
    all.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    all.retain(|_, value| value.len() <= LABEL_VALUE_LEN_MAX);
    all
}

fn annotation_of(work: &Work) -> Option<BTreeMap<String, String>> {
    let kind = work.metadata.annotations.as_ref()?.get(REQUEST_KIND)?;
    Some(BTreeMap::from([(REQUEST_KIND.to_owned(), kind.clone())]))
}

fn spec_of(work: &Work, group: &WorkloadGroup, destination: &str) -> WorkPlacementSpec {
    let from = work.metadata.labels.as_ref();
    let label = |key: &str| from.and_then(|labels| labels.get(key)).cloned();
    let resource_namespace =
        || label(labels::RESOURCE_NAMESPACE).or_else(|| work.metadata.namespace.clone());
    WorkPlacementSpec {
        target_destination_name: destination.to_owned(),
        digest: group.digest.clone(),
        workloads: group.workloads.clone(),
        promise_name: work.spec.promise_name.clone(),
        resource_name: work.spec.resource_name.clone(),
        resource_namespace: if is_request(work) { resource_namespace() } else { None },
        id: group.id.clone(),
        generation: work.metadata.generation.unwrap_or_default(),
    }
}

/// The generation alone is no reason to write: it says of which Work these files came first.
fn same_files(new: &WorkPlacementSpec, old: &WorkPlacementSpec) -> bool {
    WorkPlacementSpec { generation: old.generation, ..new.clone() } == *old
}

fn is_misplaced(placement: &WorkPlacement) -> bool {
    let labels = placement.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(labels::MISPLACED))
}

fn leaving(placement: &WorkPlacement) -> bool {
    placement.metadata.deletion_timestamp.is_some()
}

fn name_of(placement: &WorkPlacement) -> String {
    placement.metadata.name.clone().unwrap_or_default()
}
