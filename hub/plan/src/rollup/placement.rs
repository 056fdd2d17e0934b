//! Report → WorkPlacement: what its status shall say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_api::{
    WorkPlacement, WorkPlacementStatus,
    conditions::{self, Truth, Verdict, kind},
};
use muster_core::{
    Health, Phase, PlacementReport, Waiting,
    report::{OUTPUTS_LEN_MAX, UNAPPLIED_FILES_MAX, bounded_message},
};

use crate::schedule::is_misplaced;

/// The status of a placement after its destination's last report (`None`: nothing new was said, but
/// the placement itself may have changed).
pub fn placement(
    placement: &WorkPlacement,
    report: Option<&PlacementReport>,
    now: Timestamp,
) -> WorkPlacementStatus {
    let mut status = placement.status.clone().unwrap_or_default();
    let applied = match report {
        Some(report) => heard(placement, &mut status, report),
        None => unheard(placement, &mut status),
    };
    let ready = ready(placement, &status, &applied);
    let mut verdicts = vec![scheduled(placement), applied, ready];
    verdicts.extend(healthy(&status));
    for verdict in &verdicts {
        conditions::set(&mut status.conditions, verdict, placement.metadata.generation, now);
    }
    status
}

/// The condition `Healthy` of a verdict; its reason is the verdict's word.
pub(crate) fn healthy_verdict(health: Health, message: &str) -> Verdict {
    let truth = match health {
        Health::Healthy => Truth::True,
        Health::Degraded => Truth::False,
        Health::Unknown | Health::Progressing => Truth::Unknown,
    };
    let message = if message.is_empty() { health.as_str() } else { message };
    Verdict::new(kind::HEALTHY, truth, health.as_str(), message)
}

/// Takes a report in, and says what it means for `Applied`.
fn heard(
    placement: &WorkPlacement,
    status: &mut WorkPlacementStatus,
    report: &PlacementReport,
) -> Verdict {
    let current = report.desired.to_string() == placement.spec.digest;
    status.applied_digest = report.applied.map(|digest| digest.to_string());
    status.health = status.applied_digest.as_ref().map(|_| report.health.as_str().to_owned());
    status.health_message = Some(bounded_message(&report.health_message)).filter(|m| !m.is_empty());
    status.outputs = bounded_outputs(&report.outputs);
    status.unapplied_files = report.unapplied_files.clone();
    status.unapplied_files.truncate(UNAPPLIED_FILES_MAX);
    if placement.metadata.deletion_timestamp.is_some() {
        return removing(placement, status, Some(report));
    }
    if !current || matches!(report.phase, Phase::Removing | Phase::Removed) {
        return pending(placement, status);
    }
    status.phase = Some(report.phase.as_str().to_owned());
    let truth = if report.phase == Phase::Applied { Truth::True } else { Truth::False };
    let reason = if report.reason.is_empty() { report.phase.as_str() } else { &report.reason };
    Verdict::new(kind::APPLIED, truth, reason, bounded_message(&report.message))
}

/// Judges what was said earlier by the placement as it is now.
fn unheard(placement: &WorkPlacement, status: &mut WorkPlacementStatus) -> Verdict {
    if placement.metadata.deletion_timestamp.is_some() {
        return removing(placement, status, None);
    }
    let said = conditions::find(&status.conditions, kind::APPLIED);
    let of_now = said.filter(|c| c.observed_generation == placement.metadata.generation);
    let at_digest = status.applied_digest.as_deref() == Some(placement.spec.digest.as_str());
    match of_now.or(said.filter(|c| at_digest && c.status == "True")) {
        Some(said) => {
            let truth = if said.status == "True" { Truth::True } else { Truth::False };
            Verdict::new(kind::APPLIED, truth, said.reason.clone(), said.message.clone())
        }
        None => pending(placement, status),
    }
}

fn pending(placement: &WorkPlacement, status: &mut WorkPlacementStatus) -> Verdict {
    status.phase = Some(Phase::Pending.as_str().to_owned());
    let destination = placement.spec.target_destination_name.clone();
    let waiting = Waiting::NotYetApplied { destination };
    Verdict::new(kind::APPLIED, Truth::False, waiting.reason(), waiting.message())
}

fn removing(
    placement: &WorkPlacement,
    status: &mut WorkPlacementStatus,
    report: Option<&PlacementReport>,
) -> Verdict {
    status.phase = Some(Phase::Removing.as_str().to_owned());
    let said = report.filter(|r| r.phase == Phase::Removing && r.reason != r.phase.as_str());
    if let Some(said) = said {
        let message = bounded_message(&said.message);
        return Verdict::new(kind::APPLIED, Truth::False, said.reason.as_str(), message);
    }
    let destination = placement.spec.target_destination_name.clone();
    let waiting = Waiting::Removing { destination };
    Verdict::new(kind::APPLIED, Truth::False, waiting.reason(), waiting.message())
}

pub(crate) fn scheduled(placement: &WorkPlacement) -> Verdict {
    let kind = kind::SCHEDULE_SUCCEEDED;
    if is_misplaced(placement) {
        let message = "Target destination no longer matches destinationSelectors";
        return Verdict::new(kind, Truth::False, "DestinationSelectorMismatch", message);
    }
    let message = "Scheduled to correct Destination";
    Verdict::new(kind, Truth::True, "ScheduledToDestination", message)
}

pub(crate) fn ready(
    placement: &WorkPlacement,
    status: &WorkPlacementStatus,
    applied: &Verdict,
) -> Verdict {
    let not = |reason: &str, message: String| {
        Verdict::new(kind::READY, Truth::False, reason, bounded_message(&message))
    };
    let phase = status.phase.as_deref().unwrap_or_default();
    if phase == Phase::Removing.as_str() {
        return not("Removing", "Removing".to_owned());
    }
    if is_misplaced(placement) {
        return not("Misplaced", "Misplaced".to_owned());
    }
    if applied.truth == Truth::True {
        let reason = "WorkloadsWrittenToTargetDestination";
        return Verdict::new(kind::READY, Truth::True, reason, "Ready");
    }
    if phase == Phase::Failed.as_str() || phase == Phase::Refused.as_str() {
        return not(&applied.reason, format!("Failing: {}", applied.message));
    }
    not("ScheduledToDestination", "Pending".to_owned())
}

fn healthy(status: &WorkPlacementStatus) -> Option<Verdict> {
    let health = parse_health(status.health.as_deref()?);
    Some(healthy_verdict(health, status.health_message.as_deref().unwrap_or_default()))
}

pub(crate) fn parse_health(word: &str) -> Health {
    let all = [Health::Healthy, Health::Progressing, Health::Degraded];
    all.into_iter().find(|health| health.as_str() == word).unwrap_or_default()
}

/// An agent keeps to the limit by itself; the hub does not rely on it.
fn bounded_outputs(
    outputs: &BTreeMap<String, serde_json::Value>,
) -> BTreeMap<String, serde_json::Value> {
    let mut room = OUTPUTS_LEN_MAX;
    let mut kept = BTreeMap::new();
    for (key, value) in outputs {
        let size = key.len() + value.to_string().len();
        if size > room {
            let note = "left out: the outputs are larger than 16 KiB together";
            kept.insert(key.clone(), serde_json::Value::from(note));
            continue;
        }
        room -= size;
        kept.insert(key.clone(), value.clone());
    }
    kept
}
