//! Where a workflow's progress is kept: in the status of its object, so that neither a restart of the
//! hub nor the removal of Jobs makes anything run again.
//!
//! Kratix has two layouts, and both are written. `status.kratix.workflows.ACTION.pipelines` keeps each
//! action apart, with the hash of the inputs that an entry speaks of; the hub reads this one.
//! `status.kratix.workflows.pipelines` has those of the action that runs: a delete pipeline takes
//! the place of the others.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_api::promise::PipelineStatus;
use serde_json::{Value, json};

use super::{
    Action,
    engine::{Run, phase},
};
use crate::{request::seconds, work::Control};

/// The longest wait before a pipeline is tried again, where waits grow: who repaired what it waits
/// for should not have to wait for much longer than that. A longer `retryAfter` is kept as it is.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Who speaks: a Job of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Its pipeline.
    pub pipeline: String,
    /// Configure or delete.
    pub action: Action,
    /// The hash of the inputs that it runs for.
    pub hash: String,
    /// Which Job of its pipeline in this run, from 1.
    pub tries: i64,
}

/// The run that status speaks of, for the present hash.
pub fn run(status: &Value, hash: &str) -> Run {
    let number = status.pointer("/kratix/workflows/run").and_then(Value::as_i64).unwrap_or(0);
    Run { hash: hash.to_owned(), number }
}

/// What status records of the pipelines of an action.
pub fn read(status: &Value, action: Action) -> Vec<PipelineStatus> {
    let workflows = &status["kratix"]["workflows"];
    let own = workflows[action.as_str()].get("pipelines");
    // Earlier hubs had only the list that the actions share, with hashes.
    let shared = (action == Action::Configure).then(|| workflows.get("pipelines")).flatten();
    let entries = own.or(shared).cloned().unwrap_or_default();
    serde_json::from_value(entries).unwrap_or_default()
}

/// Records the pipelines of an action, in both layouts.
pub fn write(status: &mut Value, action: Action, pipelines: &[PipelineStatus]) {
    let workflows = &mut status["kratix"]["workflows"];
    workflows[action.as_str()]["pipelines"] = json!(pipelines);
    let plain =
        pipelines.iter().map(|entry| PipelineStatus { hash: None, tries: None, ..entry.clone() });
    workflows["pipelines"] = json!(plain.collect::<Vec<_>>());
    if pipelines.iter().all(|entry| entry.phase != phase::SUSPENDED) {
        forget(workflows, "suspendedGeneration");
        forget(&mut workflows[action.as_str()], "suspendedGeneration");
    }
}

/// Begins another run of the same inputs: nothing has run yet.
pub fn restart(status: &mut Value, action: Action) {
    let fresh = |entry: PipelineStatus| PipelineStatus {
        name: entry.name,
        phase: phase::PENDING.to_owned(),
        last_transition_time: entry.last_transition_time,
        ..PipelineStatus::default()
    };
    let pipelines: Vec<_> = read(status, action).into_iter().map(fresh).collect();
    let number = run(status, "").number;
    write(status, action, &pipelines);
    let workflows = &mut status["kratix"]["workflows"];
    workflows["run"] = json!(number + 1);
    forget(workflows, "paused");
}

/// A Job asked to wait. `Err` says why it may not: its attempts are used up. Asking twice is asking
/// once.
pub fn wait(
    status: &mut Value,
    speaker: &Speaker,
    asked: &Control,
    generation: Option<i64>,
    now: Timestamp,
) -> Result<(), String> {
    let mut entries = read(status, speaker.action);
    let entry = entry_of(&mut entries, speaker);
    if entry.phase == phase::SUSPENDED && entry.tries == Some(speaker.tries) {
        return Ok(());
    }
    if let Some(first) = asked.retry_after {
        let attempts = entry.attempts.unwrap_or(0) + 1;
        if asked.attempts_max.is_some_and(|max| attempts >= max) {
            return Err(used_up(attempts, &asked.message));
        }
        let wait = if asked.attempts_max.is_some() { grown(first, attempts) } else { first };
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        entry.next_retry_at = Some(seconds(now.saturating_add(wait).unwrap_or(Timestamp::MAX)));
        entry.attempts = Some(attempts);
    }
    entry.message = (!asked.message.is_empty()).then(|| asked.message.clone());
    enter(entry, phase::SUSPENDED, now);
    write(status, speaker.action, &entries);
    let workflows = &mut status["kratix"]["workflows"];
    workflows["suspendedGeneration"] = json!(generation);
    workflows[speaker.action.as_str()]["suspendedGeneration"] = json!(generation);
    Ok(())
}

/// The result of a Job cannot be used.
pub fn refuse(status: &mut Value, speaker: &Speaker, cause: &str, now: Timestamp) {
    let mut entries = read(status, speaker.action);
    let entry = entry_of(&mut entries, speaker);
    entry.message = Some(cause.to_owned());
    enter(entry, phase::FAILED, now);
    write(status, speaker.action, &entries);
}

/// The wait after this many attempts, if waits double.
fn grown(first: Duration, attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(u32::MAX);
    let wait = first.saturating_mul(2_u32.saturating_pow(doublings));
    wait.min(RETRY_WAIT_MAX.max(first))
}

fn used_up(attempts: i64, said: &str) -> String {
    let mut text = format!(
        "it asked to be tried again, but its attempts are used up (maxAttempts: {attempts})"
    );
    if !said.is_empty() {
        text.push_str(": ");
        text.push_str(said);
    }
    text
}

/// What is recorded of the speaker's pipeline in the run that it is for; made where it is missing.
fn entry_of<'a>(entries: &'a mut Vec<PipelineStatus>, speaker: &Speaker) -> &'a mut PipelineStatus {
    let found = entries.iter().position(|entry| entry.name == speaker.pipeline);
    let index = found.unwrap_or_else(|| {
        entries.push(PipelineStatus::default());
        entries.len() - 1
    });
    let entry = &mut entries[index];
    if entry.hash.as_ref() != Some(&speaker.hash) {
        *entry = PipelineStatus {
            name: speaker.pipeline.clone(),
            hash: Some(speaker.hash.clone()),
            ..PipelineStatus::default()
        };
    }
    let of_this_job = entry.tries == Some(speaker.tries);
    if !of_this_job {
        entry.phase = phase::RUNNING.to_owned();
        entry.tries = Some(speaker.tries);
    }
    entry
}

fn forget(object: &mut Value, key: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(key);
    }
}

fn enter(entry: &mut PipelineStatus, phase: &str, now: Timestamp) {
    entry.phase = phase.to_owned();
    entry.last_transition_time = Some(seconds(now));
}

#[cfg(test)]
mod tests;
