//! Works → the request or Promise above them: is it done, where, is it healthy, and if not, why?

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_api::{
    Work, WorkPlacement,
    conditions::{Truth, Verdict, kind},
    work::PlacementsSummary,
};
use muster_core::{Health, Waiting};
use serde_json::{Value, json};

use super::{
    placement::healthy_verdict,
    silence::speaks,
    standing::{OFFLINE_AFTER, Standing, State, WORST_MAX, summary},
    work::{health_words, pinned, waiting, why_not_applied, why_unplaced},
};
use crate::{
    schedule::{Wanted, owns, unplaced},
    site::Sites,
};

/// Most bytes of merged outputs in a request's status, as JSON.
const OUTPUTS_LEN_MAX: usize = 64 << 10;

/// Whose Works they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A Promise's dependencies.
    Promise,
    /// A request's.
    Request,
}

/// All that the verdicts depend on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Whose Works they are.
    pub owner: Owner,
    /// All of its Works.
    pub works: &'a [Work],
    /// All of their placements, those in deletion included.
    pub placements: &'a [WorkPlacement],
    /// All destinations.
    pub sites: &'a Sites,
    /// The present time.
    pub now: Timestamp,
}

/// What the Works come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollup {
    /// The condition `WorksSucceeded`.
    pub works_succeeded: Verdict,
    /// The condition `Reconciled`, given that the workflow is complete for this generation.
    pub reconciled: Verdict,
    /// The condition `Healthy`; `None` before anything is applied.
    pub healthy: Option<Verdict>,
    /// Whether every group has a destination.
    pub scheduled: bool,
    /// `status.placements`.
    pub placements: PlacementsSummary,
    /// `status.healthStatus` in Kratix's form; null before anything is applied.
    pub health_status: Value,
    /// `status.outputs`; of requests only.
    pub outputs: BTreeMap<String, Value>,
    /// Whether nothing is undone but what will be heard of soon.
    pub heard_soon: bool,
    /// When a verdict may change though nothing else does: an offline destination's deadline.
    pub wake_at: Option<Timestamp>,
}

/// Rolls Works up.
pub fn works(view: View<'_>) -> Rollup {
    let standings: Vec<_> = view.placements.iter().map(|p| Standing::of(p, view.sites)).collect();
    let scheduled = view.works.iter().all(|work| unplaced(work, own(work, view)).is_empty());
    let reconciled = reconciled(view, &standings);
    let judged: Vec<_> = standings.iter().filter(|s| s.applied && !s.leaving()).collect();
    let worst = judged.iter().max_by_key(|s| s.health);
    let (outputs, left_out) = match view.owner {
        Owner::Request => outputs(&standings),
        Owner::Promise => Default::default(),
    };
    let reconciled = with_note(reconciled, &left_out);
    let deadlines = standings.iter().filter_map(|s| s.offline).map(|since| since + OFFLINE_AFTER);
    Rollup {
        works_succeeded: works_succeeded(view, &standings, &reconciled),
        healthy: worst.map(|worst| healthy_verdict(worst.health, &health_words(worst))),
        scheduled,
        placements: summary(&standings),
        health_status: health_status(&judged),
        outputs,
        heard_soon: heard_soon(view, &standings),
        wake_at: deadlines.filter(|deadline| *deadline > view.now).min(),
        reconciled,
    }
}

/// What a deletion waits for: the removal of `placements`; those whose agent is offline first.
pub fn removal(placements: &[WorkPlacement], sites: &Sites) -> Option<Waiting> {
    let standings = placements.iter().map(|p| Standing::of(p, sites));
    let first = standings.max_by_key(|s| s.offline.is_some())?;
    let destination = first.destination().to_owned();
    Some(if first.offline.is_some() { waiting(&first) } else { Waiting::Removing { destination } })
}

fn heard_soon(view: View<'_>, standings: &[Standing<'_>]) -> bool {
    let unplaced: Vec<_> =
        view.works.iter().filter(|work| !unplaced(work, own(work, view)).is_empty()).collect();
    let on_its_way = |s: &&Standing<'_>| matches!(s.state, State::Pending | State::Applying);
    let mut undone = standings.iter().filter(on_its_way).peekable();
    // A Work of which nothing is said has not been placed yet; that it cannot be would be said.
    (undone.peek().is_some() || !unplaced.is_empty())
        && unplaced.iter().all(|work| work.status.is_none())
        && undone.all(|s| speaks(view.sites.get(s.destination())))
}

/// The worst first: nowhere to go, misplaced, failed, lost, not there yet, not yet gone.
fn reconciled(view: View<'_>, standings: &[Standing<'_>]) -> Verdict {
    let verdict = |truth, reason: &str, message: String| {
        Verdict::new(kind::RECONCILED, truth, reason, message)
    };
    let mut undone = Vec::new();
    for work in view.works {
        if let Some(group) = unplaced(work, own(work, view)).first() {
            let own: Vec<_> = own(work, view).map(|p| Standing::of(p, view.sites)).collect();
            let waiting = why_unplaced(work, group, &own, view.sites);
            return verdict(Truth::Unknown, waiting.reason(), waiting.message());
        }
        let own = standings.iter().filter(|s| owns(work, s.placement) && !s.leaving());
        undone.extend(own.filter(|s| !(s.applied && pinned(work, s.placement))));
    }
    let live = standings.iter().filter(|s| !s.leaving());
    if let Some(first) = live.clone().find(|s| s.misplaced && !s.moving) {
        let meta = &first.placement.metadata;
        let message = format!(
            "destination {} no longer matches: label it, or move what is there with: muster \
             placements move {} -n {}",
            first.destination(),
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default()
        );
        return verdict(Truth::False, "WorksMisplaced", message);
    }
    let failed = |s: &&Standing<'_>| matches!(s.state, State::Failed | State::Refused);
    if let Some(worst) = undone.iter().copied().filter(failed).max_by_key(|s| s.state) {
        let (reason, message) = why_not_applied(worst);
        return verdict(Truth::False, &reason, and_more(message, undone.len()));
    }
    let lost: Vec<_> = standings.iter().filter(|s| s.lost(view.now)).collect();
    if let Some(first) = lost.first() {
        let message = and_more(waiting(first).message(), lost.len());
        let message = format!("{} of {}: {message}", lost.len(), standings.len());
        return verdict(Truth::Unknown, "DestinationsOffline", message);
    }
    if let Some(waiting) = live.clone().find_map(|s| moving(view, s, standings)) {
        return verdict(Truth::Unknown, waiting.reason(), waiting.message());
    }
    let leaving = || standings.iter().filter(|s| s.leaving());
    if let Some(worst) = undone.iter().copied().chain(leaving()).max_by_key(|s| s.state) {
        let (reason, message) = why_not_applied(worst);
        return verdict(
            Truth::Unknown,
            &reason,
            and_more(message, undone.len() + leaving().count()),
        );
    }
    verdict(Truth::True, "Reconciled", "Reconciled".to_owned())
}

/// What a placement that shall leave its destination waits for.
fn moving(view: View<'_>, old: &Standing<'_>, standings: &[Standing<'_>]) -> Option<Waiting> {
    let spec = &old.placement.spec;
    let work = view.works.iter().find(|work| owns(work, old.placement)).filter(|_| old.moving)?;
    let group = work.spec.workload_groups.iter().find(|group| group.id == spec.id)?;
    let new = standings.iter().find(|s| {
        owns(work, s.placement) && s.placement.spec.id == group.id && !s.leaving() && !s.moving
    });
    let from = old.destination().to_owned();
    Some(match new {
        Some(new) => Waiting::Moving {
            from,
            to: new.destination().to_owned(),
            cause: why_not_applied(new).1,
        },
        None => Waiting::NowhereToMove {
            destination: from,
            selector: Wanted::of(work, group).selector.to_string(),
        },
    })
}

/// Kratix's words, by the stricter measure.
fn works_succeeded(view: View<'_>, standings: &[Standing<'_>], reconciled: &Verdict) -> Verdict {
    let kind = kind::WORKS_SUCCEEDED;
    let whose = match view.owner {
        Owner::Promise => "promise",
        Owner::Request => "resource",
    };
    let some = |are: &str, test: &dyn Fn(&Work) -> bool| {
        let named = view.works.iter().filter(|work| test(work));
        let names: Vec<_> = named.filter_map(|work| work.metadata.name.as_deref()).collect();
        format!("Some works associated with this {whose} are {are}: [{}]", names.join(" "))
    };
    let placed = |work: &Work, test: &dyn Fn(&Standing<'_>) -> bool| {
        standings.iter().any(|s| owns(work, s.placement) && test(s))
    };
    match reconciled.truth {
        Truth::True => {
            let message = format!("All works associated with this {whose} are ready");
            Verdict::new(kind, Truth::True, "WorksSucceeded", message)
        }
        Truth::Unknown => {
            let message = some("not ready", &|work| {
                let undone = |s: &Standing<'_>| s.offline.is_some() || !is_done(work, s);
                !unplaced(work, own(work, view)).is_empty() || placed(work, &undone)
            });
            Verdict::new(kind, Truth::Unknown, "WorksPending", message)
        }
        Truth::False if reconciled.reason == "WorksMisplaced" => {
            let message = some("misplaced", &|work| placed(work, &|s| s.misplaced));
            Verdict::new(kind, Truth::False, "WorksMisplaced", message)
        }
        Truth::False => {
            let message = reconciled.message.clone();
            Verdict::new(kind, Truth::False, "WorksFailing", message)
        }
    }
}

/// Whether nothing is left to do about a placement.
fn is_done(work: &Work, s: &Standing<'_>) -> bool {
    s.applied && pinned(work, s.placement) && !s.leaving() && !s.moving
}

fn own<'a>(work: &'a Work, view: View<'a>) -> impl Iterator<Item = &'a WorkPlacement> {
    view.placements.iter().filter(|placement| owns(work, placement))
}

fn and_more(message: String, all: usize) -> String {
    if all > 1 { format!("{message} (and {} more)", all - 1) } else { message }
}

fn health_status(judged: &[&Standing<'_>]) -> Value {
    let Some(worst) = Health::worst(judged.iter().map(|s| s.health)) else { return Value::Null };
    let mut order: Vec<_> = judged.iter().collect();
    order
        .sort_by(|a, b| b.health.cmp(&a.health).then_with(|| a.destination().cmp(b.destination())));
    let records = order.into_iter().take(WORST_MAX).map(|s| {
        json!({
            "state": state_word(s.health),
            "lastRun": s.since.to_string(),
            "details": { "message": health_words(s), "destination": s.destination() },
            "source": {
                "name": s.placement.metadata.name.as_deref().unwrap_or_default(),
                "namespace": s.placement.metadata.namespace.as_deref().unwrap_or_default(),
            },
        })
    });
    json!({ "state": state_word(worst), "healthRecords": records.collect::<Vec<_>>() })
}

/// Kratix's words for states of health; it has none for "on its way".
fn state_word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Unknown | Health::Progressing => "unknown",
        Health::Degraded => "degraded",
    }
}

/// Merged in order of placement; of one key in several, the first keeps it, and the others are told
/// apart by their destination. Also the names of those for which there is no room.
fn outputs(standings: &[Standing<'_>]) -> (BTreeMap<String, Value>, Vec<String>) {
    let mut order: Vec<_> = standings.iter().filter(|s| !s.leaving()).collect();
    order.sort_by_key(|s| &s.placement.metadata.name);
    let (mut merged, mut left_out) = (BTreeMap::new(), Vec::new());
    let mut room = OUTPUTS_LEN_MAX;
    for standing in order {
        let Some(status) = &standing.placement.status else { continue };
        for (key, value) in &status.outputs {
            let size = key.len() + value.to_string().len();
            let same = merged.get(key).is_some_and(|held| held == value);
            if same {
                continue;
            }
            let taken = merged.contains_key(key);
            let other = format!("{}.{key}", standing.destination());
            let name = if taken { other } else { key.clone() };
            if size > room {
                left_out.push(name);
                continue;
            }
            room -= size;
            merged.insert(name, value.clone());
        }
    }
    (merged, left_out)
}

/// Says that outputs are missing, where it is said that all is done.
fn with_note(mut reconciled: Verdict, left_out: &[String]) -> Verdict {
    if let (Truth::True, Some(first)) = (reconciled.truth, left_out.first()) {
        let names = and_more(format!("output {first}"), left_out.len());
        let note = format!("; status.outputs is full ({OUTPUTS_LEN_MAX} bytes), without {names}");
        reconciled.message.push_str(&note);
    }
    reconciled
}
