//! WorkPlacements → Work: what its status shall say.

use std::collections::BTreeSet;

use jiff::Timestamp;
use muster_api::{
    Work, WorkPlacement, WorkStatus,
    conditions::{self, Truth, Verdict, kind},
    work::WorkloadGroup,
};
use muster_core::{Health, Waiting};

use super::{
    placement::healthy_verdict,
    standing::{Standing, State, summary},
};
use crate::{
    schedule::{effective_selector, why_not},
    site::Sites,
};

/// The status of a Work whose placements are `placements` (all of its own).
pub fn work(
    work: &Work,
    placements: &[&WorkPlacement],
    sites: &Sites,
    now: Timestamp,
) -> WorkStatus {
    let standings: Vec<_> = placements.iter().map(|p| Standing::of(p, sites)).collect();
    let live: Vec<_> = standings.iter().filter(|s| !s.leaving()).collect();
    let unplaced = unplaced(work, placements.iter().copied());
    let nowhere = unplaced.first().map(|group| why_unplaced(group, &standings, sites));
    let done = |s: &&&Standing<'_>| s.applied && pinned(work, s.placement);
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut status = work.status.clone().unwrap_or_default();
    status.work_placements = count(placements.len());
    status.work_placements_created = count(live.len());
    status.work_placements_applied = count(live.iter().filter(done).count());
    status.observed_generation = work.metadata.generation;
    let applied = applied(work, &live, nowhere.as_ref());
    let scheduled = scheduled(&unplaced, nowhere.as_ref(), &live);
    let mut verdicts = vec![scheduled, ready(&unplaced, &live, &applied)];
    verdicts.push(applied);
    verdicts.extend(healthy(&live));
    for verdict in &verdicts {
        conditions::set(&mut status.conditions, verdict, work.metadata.generation, now);
    }
    status.placements = Some(summary(&standings));
    status
}

/// The groups of a Work that no live placement holds; `placements` are all of its own.
pub(crate) fn unplaced<'a, 'p>(
    work: &'a Work,
    placements: impl IntoIterator<Item = &'p WorkPlacement>,
) -> Vec<&'a WorkloadGroup> {
    let live = placements.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    let held: BTreeSet<_> = live.map(|p| p.spec.id.as_str()).collect();
    work.spec.workload_groups.iter().filter(|g| !held.contains(g.id.as_str())).collect()
}

/// Whether a placement is pinned to what its group holds now.
pub(crate) fn pinned(work: &Work, placement: &WorkPlacement) -> bool {
    let group = work.spec.workload_groups.iter().find(|group| group.id == placement.spec.id);
    group.is_some_and(|group| group.digest == placement.spec.digest)
}

/// Why a group without a live placement has none; `standings` are of its Work.
pub(crate) fn why_unplaced(
    group: &WorkloadGroup,
    standings: &[Standing<'_>],
    sites: &Sites,
) -> Waiting {
    let last = standings.iter().find(|s| s.leaving() && s.placement.spec.id == group.id);
    if let Some(last) = last {
        return waiting(last);
    }
    let selector = effective_selector(group);
    if sites.values().any(|site| why_not(site, &selector).is_none()) {
        return Waiting::NotYetPlaced;
    }
    Waiting::NoMatchingDestination { selector: selector.to_string() }
}

fn scheduled(
    unplaced: &[&WorkloadGroup],
    nowhere: Option<&Waiting>,
    live: &[&Standing<'_>],
) -> Verdict {
    let kind = kind::SCHEDULE_SUCCEEDED;
    if let Some(nowhere) = nowhere {
        let ids: Vec<_> = unplaced.iter().map(|group| group.id.as_str()).collect();
        let message = format!(
            "No matching destination found for workloadGroups: [{}]: {}",
            ids.join(" "),
            nowhere.message()
        );
        return Verdict::new(kind, Truth::False, "UnscheduledWorkloads", message);
    }
    let misplaced: Vec<_> = live.iter().filter(|s| s.misplaced).map(|s| s.destination()).collect();
    if !misplaced.is_empty() {
        let message = format!(
            "Target destination no longer matches destinationSelectors: {}",
            misplaced.join(", ")
        );
        return Verdict::new(kind, Truth::False, "DestinationSelectorMismatch", message);
    }
    let message = "All workplacements scheduled successfully";
    Verdict::new(kind, Truth::True, "AllWorkplacementsScheduled", message)
}

fn ready(unplaced: &[&WorkloadGroup], live: &[&Standing<'_>], applied: &Verdict) -> Verdict {
    let not = |reason, message| Verdict::new(kind::READY, Truth::False, reason, message);
    if !unplaced.is_empty() {
        return not("UnscheduledWorkloads", "Pending");
    }
    if live.iter().any(|s| s.misplaced) {
        return not("Misplaced", "Misplaced");
    }
    if live.iter().any(|s| matches!(s.state, State::Failed | State::Refused)) {
        return not("WorkplacementsFailing", "Failing");
    }
    if applied.truth == Truth::True {
        return Verdict::new(kind::READY, Truth::True, "AllWorkplacementsScheduled", "Ready");
    }
    not("WorkplacementsPending", "Pending")
}

fn applied(work: &Work, live: &[&Standing<'_>], nowhere: Option<&Waiting>) -> Verdict {
    let not =
        |reason: &str, message: String| Verdict::new(kind::APPLIED, Truth::False, reason, message);
    if let Some(nowhere) = nowhere {
        return not(nowhere.reason(), nowhere.message());
    }
    let undone = live.iter().filter(|s| !(s.applied && pinned(work, s.placement)));
    let Some(worst) = undone.clone().max_by_key(|s| s.state) else {
        return Verdict::new(kind::APPLIED, Truth::True, "Applied", "applied on every destination");
    };
    let waiting = why_not_applied(worst);
    match undone.count() {
        1 => not(&waiting.0, waiting.1),
        n => not(&waiting.0, format!("{} (and {} more)", waiting.1, n - 1)),
    }
}

/// The reason and sentence of a placement that is not applied at its digest.
pub(crate) fn why_not_applied(standing: &Standing<'_>) -> (String, String) {
    let destination = standing.destination().to_owned();
    if let State::Failed | State::Refused = standing.state {
        return (standing.reason.clone(), format!("{destination}: {}", standing.message));
    }
    let waiting = waiting(standing);
    (waiting.reason().to_owned(), waiting.message())
}

/// Why a placement is not done, when nothing failed.
pub(crate) fn waiting(standing: &Standing<'_>) -> Waiting {
    let destination = standing.destination().to_owned();
    match standing.offline {
        Some(since) => Waiting::AgentOffline { destination, since: Some(since.to_string()) },
        None if standing.leaving() => Waiting::Removing { destination },
        None if standing.stored => Waiting::NotYetWritten { destination },
        None => Waiting::NotYetApplied { destination },
    }
}

fn healthy(live: &[&Standing<'_>]) -> Option<Verdict> {
    let worst = live.iter().filter(|s| s.applied).max_by_key(|s| s.health)?;
    Some(healthy_verdict(worst.health, &health_words(worst)))
}

/// The sentence of a health verdict, naming where.
pub(crate) fn health_words(standing: &Standing<'_>) -> String {
    let said = standing.placement.status.as_ref().and_then(|s| s.health_message.as_deref());
    match (said, standing.health) {
        (Some(said), _) => format!("{}: {said}", standing.destination()),
        (None, Health::Unknown) if standing.stored => {
            format!("{}: what reads its state store tells nothing here", standing.destination())
        }
        (None, Health::Unknown) => {
            format!("{}: nothing there says whether it works", standing.destination())
        }
        (None, health) => format!("{}: {health}", standing.destination()),
    }
}
