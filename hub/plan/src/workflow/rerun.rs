//! When does a workflow run again although its inputs are the same: asked for by a label, released
//! from a pause, or because its interval has passed?

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use muster_api::{
    conditions::{self, kind},
    labels,
};
use serde_json::{Value, json};

use super::{
    Action, Workflows,
    engine::{Step, phase},
    read, record,
};
use crate::options::Options;

/// After this long, what the API has refused is tried again: a person who has mended the cause should
/// not have to wait for long, and each try is only a few calls.
const REFUSED_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// The labels that ask for a run, and go when it begins.
pub const ONE_SHOT: [&str; 2] = [labels::MANUAL_RECONCILIATION, labels::RUN_FROM_START];

/// How often everything runs again: what is written on the object goes before the Promise's field,
/// and that before the platform's options. An annotation that is no interval is as none.
pub fn interval(annotated: Option<&str>, workflows: &Workflows, options: &Options) -> Duration {
    let annotated = annotated.and_then(|text| read::interval(text).ok());
    annotated.or(workflows.interval).unwrap_or(options.interval)
}

/// The interval that is written on an object.
pub fn annotated(metadata: &ObjectMeta) -> Option<&str> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(labels::RECONCILIATION_INTERVAL).map(String::as_str)
}

/// Whether a label asks for a run.
pub fn is_asked(metadata: &ObjectMeta) -> bool {
    let none = BTreeMap::new();
    let held = metadata.labels.as_ref().unwrap_or(&none);
    ONE_SHOT.iter().any(|label| held.get(*label).is_some_and(|value| value == "true"))
}

/// Whether everything is to run again now: someone asks, a pause is over, or the interval has passed.
pub fn must_restart(
    metadata: &ObjectMeta,
    status: &Value,
    due: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    is_asked(metadata) || was_paused(status) || due.is_some_and(|due| due <= now)
}

/// When to look again though nothing changes: the earliest of what is waited for.
pub fn look_again_at(
    step: &Step,
    (wake, due): (Option<Timestamp>, Option<Timestamp>),
    now: Timestamp,
) -> Option<Timestamp> {
    let own = match step {
        Step::Suspended { until, .. } => *until,
        Step::Refused { .. } => now.checked_add(REFUSED_AGAIN).ok(),
        // It was stopped, by us: nobody tells us so.
        Step::Await { is_refused: true, .. } => Some(now),
        _ => None,
    };
    [own, wake, due].into_iter().flatten().min()
}

/// Notes that nothing runs because someone paused it, until it begins again.
pub fn pause(status: &mut Value) {
    status["kratix"]["workflows"]["paused"] = json!(true);
}

/// Whether the object was paused when it was last looked at.
pub fn was_paused(status: &Value) -> bool {
    status.pointer("/kratix/workflows/paused") == Some(&json!(true))
}

/// When the interval passes: counted from the end of the configure workflow, well or not. `None`
/// while it runs or waits for a person, and after a failure where the operator wants no repetition.
pub fn due_at(status: &Value, interval: Duration, options: &Options) -> Option<Timestamp> {
    let interval = SignedDuration::try_from(interval).ok()?;
    ended_at(status, options)?.checked_add(interval).ok()
}

fn ended_at(status: &Value, options: &Options) -> Option<Timestamp> {
    let all = status.get("conditions").cloned().unwrap_or_default();
    let all: Vec<Condition> = serde_json::from_value(all).unwrap_or_default();
    let completed = conditions::find(&all, kind::CONFIGURE_WORKFLOW_COMPLETED)?;
    if completed.status == "True" {
        return Some(completed.last_transition_time.0);
    }
    // The condition was False before the failure, too: the pipeline knows when it failed.
    let entries = record::read(status, Action::Configure);
    let failed = entries.iter().find(|entry| entry.phase == phase::FAILED)?;
    let at = failed.last_transition_time.as_deref()?.parse().ok()?;
    options.reconcile_after_failure.then_some(at)
}

#[cfg(test)]
mod tests;
