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
    schedule::{Wanted, is_request, unplaced},
    site::Sites,
};

/// Kratix's reasons, which are also those of events.
const SCHEDULED: &str = "AllWorkplacementsScheduled";
const UNSCHEDULED: &str = "UnscheduledWorkloads";
const FAILED_TO_SCHEDULE: &str = "FailedToScheduleWorkloads";
const MISMATCH: &str = "DestinationSelectorMismatch";
const FAILING: &str = "WorkplacementsFailing";

/// The status of a Work whose placements are `placements` (all of its own); `failure` says why they
/// could not be made. None for a new Work that is about to have some: it would be written twice.
pub fn work(
    work: &Work,
    placements: &[&WorkPlacement],
    sites: &Sites,
    failure: Option<&str>,
    now: Timestamp,
) -> Option<WorkStatus> {
    let standings: Vec<_> = placements.iter().map(|p| Standing::of(p, sites)).collect();
    let live: Vec<_> = standings.iter().filter(|s| !s.leaving()).collect();
    let unplaced = unplaced(work, placements.iter().copied());
    let nowhere = unplaced.first().map(|group| why_unplaced(work, group, &standings, sites));
    let soon = nowhere == Some(Waiting::NotYetPlaced);
    if soon && failure.is_none() && work.status.is_none() {
        return None;
    }
    let done = |s: &&&Standing<'_>| s.applied && pinned(work, s.placement);
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut status = work.status.clone().unwrap_or_default();
    // Kratix counts groups here, not placements; those are counted in `placements`.
    let groups = work.spec.workload_groups.len();
    status.work_placements = count(groups);
    status.work_placements_applied = count(live.iter().filter(done).count());
    status.observed_generation = work.metadata.generation;
    let applied = applied(work, &live, nowhere.as_ref(), failure);
    let mut verdicts = Vec::new();
    // What is being removed keeps what was said of its scheduling.
    if work.metadata.deletion_timestamp.is_none() {
        status.work_placements_created = count(groups - unplaced.len());
        let scheduled = scheduled(&unplaced, &live, failure);
        let ready = ready(&scheduled, &live, &applied);
        verdicts.extend([scheduled, ready]);
    }
    verdicts.push(applied);
    verdicts.extend(healthy(&live));
    for verdict in &verdicts {
        conditions::set(&mut status.conditions, verdict, work.metadata.generation, now);
    }
    status.placements = Some(summary(&standings));
    Some(status)
}

/// What a change of a Work's status tells people, in Kratix's words: whether it is good news, a
/// reason, a note.
pub fn work_events(work: &Work, new: &WorkStatus) -> Vec<(bool, &'static str, String)> {
    let old = work.status.as_ref().map(|status| status.conditions.as_slice());
    let news = |kind| {
        let said = conditions::find(old.unwrap_or_default(), kind);
        let says = conditions::find(&new.conditions, kind)?;
        let same =
            said.is_some_and(|said| (&said.reason, &said.message) == (&says.reason, &says.message));
        (!same).then_some(says)
    };
    let mut told = Vec::new();
    if let Some(scheduled) = news(kind::SCHEDULE_SUCCEEDED) {
        let message = scheduled.message.clone();
        match scheduled.reason.as_str() {
            SCHEDULED => told.push((true, SCHEDULED, message)),
            MISMATCH => told.push((false, MISMATCH, message)),
            FAILED_TO_SCHEDULE => told.push((false, FAILED_TO_SCHEDULE, message)),
            _ => told.extend(waits_for_destination(work, &message)),
        }
    }
    let failing = news(kind::READY).filter(|ready| ready.reason == FAILING);
    if failing.is_some() {
        let cause = conditions::find(&new.conditions, kind::APPLIED);
        told.push((false, FAILING, cause.map(|c| c.message.clone()).unwrap_or_default()));
    }
    told
}

/// Kratix tells it of each group, and once more of all of a request's.
fn waits_for_destination(
    work: &Work,
    message: &str,
) -> impl Iterator<Item = (bool, &'static str, String)> {
    let ids = message.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
    let ids = ids.unwrap_or_default().to_owned();
    let each: Vec<_> = ids
        .split(' ')
        .map(|id| {
            let note = format!("waiting for a destination with labels for workloadGroup: {id}");
            (true, "NoMatchingDestination", note)
        })
        .collect();
    let note = format!("waiting for destination for workload group: [{ids}]");
    let all = is_request(work).then_some((true, "WaitingDestination", note));
    each.into_iter().chain(all)
}

/// Whether a placement is pinned to what its group holds now.
pub(crate) fn pinned(work: &Work, placement: &WorkPlacement) -> bool {
    let group = work.spec.workload_groups.iter().find(|group| group.id == placement.spec.id);
    group.is_some_and(|group| group.digest == placement.spec.digest)
}

/// Why a group without a live placement has none; `standings` are of its Work.
pub(crate) fn why_unplaced(
    work: &Work,
    group: &WorkloadGroup,
    standings: &[Standing<'_>],
    sites: &Sites,
) -> Waiting {
    let last = standings.iter().find(|s| s.leaving() && s.placement.spec.id == group.id);
    match last {
        Some(last) => waiting(last),
        None => Wanted::of(work, group).nowhere(work, sites),
    }
}

/// In Kratix's words; why, and what to do, is said by `Applied`.
fn scheduled(
    unplaced: &[&WorkloadGroup],
    live: &[&Standing<'_>],
    failure: Option<&str>,
) -> Verdict {
    let kind = kind::SCHEDULE_SUCCEEDED;
    let ids: Vec<_> = unplaced.iter().map(|group| group.id.as_str()).collect();
    let ids = ids.join(" ");
    if failure.is_some() {
        let message = format!("Failed to schedule or update for workloadGroups: [{ids}]");
        return Verdict::new(kind, Truth::False, FAILED_TO_SCHEDULE, message);
    }
    if !unplaced.is_empty() {
        let message = format!("No matching destination found for workloadGroups: [{ids}]");
        return Verdict::new(kind, Truth::False, UNSCHEDULED, message);
    }
    let misplaced = live.iter().filter(|s| s.misplaced).map(|s| s.placement.spec.id.as_str());
    let misplaced: BTreeSet<_> = misplaced.collect();
    if !misplaced.is_empty() {
        let ids: Vec<_> = misplaced.into_iter().collect();
        let message = format!(
            "Target destination no longer matches destinationSelectors for workloadGroups: [{}]",
            ids.join(" ")
        );
        return Verdict::new(kind, Truth::False, MISMATCH, message);
    }
    let message = "All workplacements scheduled successfully";
    Verdict::new(kind, Truth::True, SCHEDULED, message)
}

fn ready(scheduled: &Verdict, live: &[&Standing<'_>], applied: &Verdict) -> Verdict {
    let not =
        |reason: &str, message: &str| Verdict::new(kind::READY, Truth::False, reason, message);
    if let FAILED_TO_SCHEDULE | UNSCHEDULED = scheduled.reason.as_str() {
        return not(&scheduled.reason, "Pending");
    }
    if live.iter().any(|s| s.misplaced) {
        return not("Misplaced", "Misplaced");
    }
    if live.iter().any(|s| matches!(s.state, State::Failed | State::Refused)) {
        return not(FAILING, "Failing");
    }
    if applied.truth == Truth::True {
        return Verdict::new(kind::READY, Truth::True, SCHEDULED, "Ready");
    }
    not("WorkplacementsPending", "Pending")
}

fn applied(
    work: &Work,
    live: &[&Standing<'_>],
    nowhere: Option<&Waiting>,
    failure: Option<&str>,
) -> Verdict {
    let not =
        |reason: &str, message: String| Verdict::new(kind::APPLIED, Truth::False, reason, message);
    if let Some(failure) = failure {
        return not(FAILED_TO_SCHEDULE, failure.to_owned());
    }
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
