//! A request: what runs for it, and what does its status say?
//!
//! Its status has one writer; a pipeline's own part of it comes through [`merge`], which keeps what
//! is the hub's.

pub mod binding;
pub mod health;
mod owned;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_api::{
    conditions::{self, Truth, Verdict, kind},
    work::PlacementsSummary,
};
use muster_core::Waiting;
use serde_json::{Map, Value, json};

use crate::{
    children::{self, Family},
    names,
    options::Options,
    promise::RequestApi,
    rollup::Rollup,
    workflow::{
        Action, Scope, Subject,
        engine::{IMAGE_NOT_RUNNABLE, Progress, Step, phase},
        record, rerun,
    },
};
pub use owned::{merge, touched};

/// The message while pipelines run.
pub const MESSAGE_PENDING: &str = "Pending";
/// How the message begins while a pipeline is tried again.
const MESSAGE_FAILING: &str = "Pending: ";
/// The message when one failed for good; the conditions say why.
const MESSAGE_FAILED: &str = "Failed";
/// The reason of `Reconciled` while a pipeline waits.
const WORKFLOW_SUSPENDED: &str = "WorkflowSuspended";
/// The message of a request whose pipelines say nothing.
const MESSAGE_DONE: &str = "Resource requested";

/// A moment as Kubernetes writes it: RFC 3339, to the second.
pub fn seconds(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The object that a request's workflow runs for.
pub fn subject(
    promise: &str,
    api: &RequestApi,
    (namespace, name, uid): (&str, &str, &str),
    pipeline_namespace: Option<&str>,
) -> Subject {
    Subject {
        promise: promise.to_owned(),
        scope: Scope::Resource,
        group: api.group.clone(),
        version: api.version.clone(),
        kind: api.kind.clone(),
        plural: api.plural.clone(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        uid: uid.to_owned(),
        job_namespace: pipeline_namespace.unwrap_or(namespace).to_owned(),
    }
}

/// The hash of all inputs of a request's pipelines. `asked` changes when someone asks that all
/// requests of the Promise run again.
pub fn hash(promise_hash: &str, asked: Option<&str>, generation: i64, spec: &Value) -> String {
    let (generation, spec) = (generation.to_string(), spec.to_string());
    let inputs = [promise_hash, &generation, &spec];
    names::fingerprint(&inputs.into_iter().chain(asked).collect::<Vec<_>>())
}

/// The state of a revision whose pipelines are those of the run of which status speaks
/// ([`crate::promise::revision::mark`]).
pub fn followed(status: &Value) -> Option<&str> {
    status.pointer("/kratix/workflows/revision").and_then(Value::as_str)
}

/// Why nothing runs for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle<'a> {
    /// Someone paused it, or its Promise.
    Paused,
    /// Its Promise cannot fulfil it, for this reason.
    PromiseUnavailable(&'a str),
}

/// A change to the status of a request or Promise, made step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    status: Value,
    conditions: Vec<Condition>,
    generation: i64,
    now: Timestamp,
}

impl Draft {
    /// Begins with the present status of an object of this generation.
    pub fn new(status: &Value, generation: i64, now: Timestamp) -> Self {
        let conditions = status.get("conditions").cloned().unwrap_or_default();
        let conditions = serde_json::from_value(conditions).unwrap_or_default();
        Self { status: object(status), conditions, generation, now }
    }

    /// The finished status.
    pub fn finish(mut self) -> Value {
        if !self.conditions.is_empty() {
            self.status["conditions"] = json!(self.conditions);
        }
        self.status
    }

    /// Sets one of the hub's own keys; null removes it.
    pub fn set(&mut self, key: &str, value: Value) {
        match (&value, self.status.as_object_mut()) {
            (Value::Null, Some(status)) => {
                status.remove(key);
            }
            _ => self.status[key] = value,
        }
    }

    /// Sets a condition.
    pub fn judge(&mut self, verdict: &Verdict) {
        conditions::set(&mut self.conditions, verdict, Some(self.generation), self.now);
    }

    /// Takes a condition away.
    pub fn forget(&mut self, kind: &str) {
        self.conditions.retain(|condition| condition.type_ != kind);
    }

    /// Sets a condition only where it is already there.
    pub fn judge_again(&mut self, verdict: &Verdict) {
        if conditions::find(&self.conditions, verdict.kind).is_some() {
            self.judge(verdict);
        }
    }

    /// The present text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.status[key].as_str()
    }

    /// When everything runs again by itself, if nothing comes between.
    pub fn due_at(&self, interval: Duration, options: &Options) -> Option<Timestamp> {
        rerun::due_at(&self.clone().finish(), interval, options)
    }

    /// Says where the configure workflow stands: phases, counters, message and condition, and of
    /// `Reconciled` what follows while the workflow is not complete.
    pub fn workflow(&mut self, progress: &Progress, names: &[&str]) {
        if self.is_new_run(progress) || self.is_suspended() {
            self.set("message", json!(MESSAGE_PENDING));
        }
        let count = |phase: &str| progress.pipelines.iter().filter(|p| p.phase == phase).count();
        self.set("workflows", json!(names.len()));
        self.set("workflowsSucceeded", json!(count(phase::SUCCEEDED)));
        self.set("workflowsFailed", json!(count(phase::FAILED)));
        record::write(&mut self.status, Action::Configure, &progress.pipelines);
        let completed = completed(progress, names);
        self.judge(&completed);
        if completed.truth == Truth::True {
            let since = conditions::find(&self.conditions, kind::CONFIGURE_WORKFLOW_COMPLETED)
                .map_or(self.now, |condition| condition.last_transition_time.0);
            let since = json!(seconds(since));
            self.status["kratix"]["workflows"]["lastSuccessfulConfigureWorkflowTime"] =
                since.clone();
            self.set("lastSuccessfulConfigureWorkflowTime", since);
            self.set("observedGeneration", json!(self.generation));
            return;
        }
        let reconciled = |truth, reason: &str, message: &str| {
            Verdict::new(kind::RECONCILED, truth, reason, message)
        };
        match &progress.step {
            Step::Failed { .. } => {
                self.judge(&reconciled(Truth::False, &completed.reason, &completed.message));
                self.set("message", json!(MESSAGE_FAILED));
            }
            Step::Suspended { index, .. } => {
                let said = said(progress, *index, names);
                self.set("message", json!(said));
                self.judge(&reconciled(Truth::Unknown, WORKFLOW_SUSPENDED, "Suspended"));
            }
            _ => {
                match &progress.step {
                    Step::Held { waiting, .. } => self.judge(&children::unreconciled(waiting)),
                    _ => self.judge(&reconciled(Truth::Unknown, "WorkflowPending", "Pending")),
                }
                match failing(progress, names) {
                    Some(failing) => {
                        let message = format!("{MESSAGE_FAILING}{}", failing.message());
                        self.set("message", json!(message));
                    }
                    // What a pipeline of this run said stays.
                    None if self.text("message").is_none_or(is_hubs_message) => {
                        self.set("message", json!(MESSAGE_PENDING));
                    }
                    None => {}
                }
            }
        }
    }

    /// Says that a Promise has no pipelines of its own; like Kratix, by saying nothing of them.
    pub fn no_workflow(&mut self) {
        for counter in ["workflows", "workflowsSucceeded", "workflowsFailed"] {
            self.set(counter, json!(0));
        }
        for gone in ["message", "lastSuccessfulConfigureWorkflowTime"] {
            self.set(gone, Value::Null);
        }
        self.status["kratix"]["workflows"] = json!({});
        self.forget(kind::CONFIGURE_WORKFLOW_COMPLETED);
        self.set("observedGeneration", json!(self.generation));
    }

    /// Whether status speaks of no pipeline of this run yet.
    fn is_new_run(&self, progress: &Progress) -> bool {
        let Some(hash) = progress.pipelines.iter().find_map(|entry| entry.hash.as_ref()) else {
            return false;
        };
        let recorded = record::read(&self.status, Action::Configure);
        !recorded.iter().any(|entry| entry.hash.as_ref() == Some(hash))
    }

    fn is_suspended(&self) -> bool {
        let reconciled = conditions::find(&self.conditions, kind::RECONCILED);
        reconciled.is_some_and(|condition| condition.reason == WORKFLOW_SUSPENDED)
    }

    /// Records of which state of a revision the run is.
    pub fn follow(&mut self, mark: &str) {
        self.status["kratix"]["workflows"]["revision"] = json!(mark);
    }

    /// Says what it waits for, with nothing begun.
    pub fn wait(&mut self, truth: Truth, waiting: &Waiting) {
        let (reason, message) = (waiting.reason(), waiting.message());
        self.judge(&Verdict::new(kind::RECONCILED, truth, reason, message));
    }

    /// The message of a condition.
    pub fn said(&self, kind: &str) -> String {
        conditions::find(&self.conditions, kind).map_or(String::new(), |c| c.message.clone())
    }

    /// Says that the pipelines of an action run again, from the first.
    pub fn restarted(&mut self, action: Action) {
        record::restart(&mut self.status, action);
        if action == Action::Delete {
            return;
        }
        self.set("message", json!(MESSAGE_PENDING));
        self.set("workflowsSucceeded", json!(0));
        self.set("workflowsFailed", json!(0));
        let verdict =
            |kind, truth, reason: &str, message: &str| Verdict::new(kind, truth, reason, message);
        self.judge(&verdict(kind::RECONCILED, Truth::Unknown, "WorkflowPending", "Pending"));
        self.judge(&verdict(
            kind::CONFIGURE_WORKFLOW_COMPLETED,
            Truth::False,
            "PipelinesInProgress",
            "Pipelines are still in progress",
        ));
    }

    /// Says what the Works of a completed workflow come to.
    pub fn works(&mut self, rollup: &Rollup) {
        self.judge(&rollup.works_succeeded);
        self.judge(&rollup.reconciled);
    }

    /// Records the object's children, before any of them is made.
    pub fn children(&mut self, family: &Family) {
        self.set("children", family.record());
    }

    /// Says where things are and how they do, complete or not.
    pub fn standing(&mut self, rollup: &Rollup) {
        match &rollup.healthy {
            Some(healthy) => self.judge(healthy),
            None => self.forget(kind::HEALTHY),
        }
        self.set("placements", json!(rollup.placements));
        self.set("healthStatus", rollup.health_status.clone());
        let outputs = (!rollup.outputs.is_empty()).then_some(&rollup.outputs);
        self.set("outputs", json!(outputs));
    }

    /// Replaces the message of running pipelines, unless a pipeline set one of its own.
    pub fn settle_message(&mut self, done: Option<&str>) {
        if self.text("message").is_none_or(is_hubs_message) {
            self.set("message", json!(done.unwrap_or(MESSAGE_DONE)));
        }
    }

    /// Says why nothing runs.
    pub fn idle(&mut self, idle: Idle<'_>) {
        match idle {
            Idle::Paused => {
                rerun::pause(&mut self.status);
                let reason = "PausedReconciliation";
                self.judge(&Verdict::new(kind::RECONCILED, Truth::Unknown, reason, "Paused"));
            }
            Idle::PromiseUnavailable(promise) => {
                let waiting = Waiting::PromiseUnavailable { promise: promise.to_owned() };
                let (reason, message) = (waiting.reason(), waiting.message());
                self.judge(&Verdict::new(
                    kind::PROMISE_AVAILABLE,
                    Truth::False,
                    "PromiseRequirementsNotInstalled",
                    message.clone(),
                ));
                self.judge(&Verdict::new(kind::RECONCILED, Truth::Unknown, reason, message));
                if self.text("message").is_none() {
                    self.set("message", json!(MESSAGE_PENDING));
                }
            }
        }
    }

    /// Says where the delete workflow stands; its pipelines take the place of the others.
    pub fn deleting(&mut self, progress: &Progress, names: &[&str]) {
        record::write(&mut self.status, Action::Delete, &progress.pipelines);
        let verdict = |truth, reason: &str, message: String| {
            Verdict::new(kind::DELETE_WORKFLOW_COMPLETED, truth, reason, message)
        };
        match &progress.step {
            Step::Complete => self.judge(&verdict(
                Truth::True,
                "PipelinesExecutedSuccessfully",
                "Pipelines completed".to_owned(),
            )),
            Step::Failed { index, message, .. } => {
                let text = format!("The Delete Pipeline has failed: {}: {message}", names[*index]);
                self.judge(&verdict(Truth::False, "DeleteWorkflowFailed", text.clone()));
                let reason = "DeleteWorkflowFailed";
                self.judge(&Verdict::new(kind::RECONCILED, Truth::False, reason, text));
                self.set("message", json!(MESSAGE_FAILED));
            }
            Step::Suspended { index, .. } => {
                let text = "The delete workflow is suspended".to_owned();
                self.judge(&verdict(Truth::False, "DeleteWorkflowSuspended", text));
                let waiting = Waiting::PipelineSuspended { pipeline: names[*index].to_owned() };
                self.removing(&waiting, None);
                self.set("message", json!(said(progress, *index, names)));
            }
            Step::Start { index, .. }
            | Step::Running { index }
            | Step::Held { index, .. }
            | Step::Refused { index, .. } => {
                let running = || Waiting::PipelineRunning { pipeline: names[*index].to_owned() };
                let waiting = failing(progress, names).unwrap_or_else(running);
                self.forget(kind::DELETE_WORKFLOW_COMPLETED);
                self.removing(&waiting, None);
            }
            Step::Await { .. } => {}
        }
    }

    /// Says what a deletion waits for.
    pub fn removing(&mut self, waiting: &Waiting, placements: Option<&PlacementsSummary>) {
        let (reason, message) = (waiting.reason(), waiting.message());
        self.judge(&Verdict::new(kind::RECONCILED, Truth::Unknown, reason, message.clone()));
        self.set("message", json!(message));
        if let Some(placements) = placements {
            self.set("placements", json!(placements));
        }
    }
}

/// The condition `ConfigureWorkflowCompleted`, in Kratix's words; what is not Kratix's comes after.
fn completed(progress: &Progress, names: &[&str]) -> Verdict {
    let verdict = |truth, reason: &str, message: String| {
        Verdict::new(kind::CONFIGURE_WORKFLOW_COMPLETED, truth, reason, message)
    };
    match &progress.step {
        Step::Complete => {
            verdict(Truth::True, "PipelinesExecutedSuccessfully", "Pipelines completed".to_owned())
        }
        Step::Failed { index, reason, message } if reason == IMAGE_NOT_RUNNABLE => {
            let (pipeline, cause) = (names[*index].to_owned(), message.clone());
            let waiting = Waiting::ImageNotRunnable { pipeline, cause };
            verdict(Truth::False, waiting.reason(), waiting.message())
        }
        Step::Failed { index, message, .. } => {
            let mut text = format!("A Configure Pipeline has failed: {}", names[*index]);
            if !message.is_empty() {
                text.push_str(": ");
                text.push_str(message);
            }
            verdict(Truth::False, "ConfigureWorkflowFailed", text)
        }
        Step::Start { .. }
        | Step::Running { .. }
        | Step::Await { .. }
        | Step::Held { .. }
        | Step::Refused { .. }
        | Step::Suspended { .. } => {
            let mut text = "Pipelines are still in progress".to_owned();
            if let Some(failing) = failing(progress, names) {
                text.push_str(": ");
                text.push_str(&failing.message());
            }
            verdict(Truth::False, "PipelinesInProgress", text)
        }
    }
}

/// The pipeline whose turn it is, if it cannot begin, or if an earlier try of it failed.
fn failing(progress: &Progress, names: &[&str]) -> Option<Waiting> {
    match &progress.step {
        Step::Refused { index, cause } => {
            let (pipeline, cause) = (names[*index].to_owned(), cause.clone());
            Some(Waiting::PipelineRefused { pipeline, cause })
        }
        Step::Held { waiting, .. } => Some(waiting.clone()),
        Step::Running { index } => {
            let entry = progress.pipelines.get(*index)?;
            let cause = entry.message.clone().filter(|_| entry.phase == phase::RUNNING)?;
            Some(Waiting::PipelineFailing { pipeline: names[*index].to_owned(), cause })
        }
        _ => None,
    }
}

/// What a pipeline that waits says, or else that it waits.
fn said(progress: &Progress, index: usize, names: &[&str]) -> String {
    let waiting = || Waiting::PipelineSuspended { pipeline: names[index].to_owned() }.message();
    progress.pipelines[index].message.clone().unwrap_or_else(waiting)
}

/// Whether a message is one that the hub sets while pipelines run.
fn is_hubs_message(text: &str) -> bool {
    matches!(text, "" | MESSAGE_PENDING | MESSAGE_FAILED) || text.starts_with(MESSAGE_FAILING)
}

/// The patch that turns one status into another: a JSON merge patch of the top keys that differ;
/// `None` when nothing does.
pub fn patch(old: &Value, new: &Value) -> Option<Map<String, Value>> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let keys: BTreeMap<&String, ()> = old.keys().chain(new.keys()).map(|key| (key, ())).collect();
    let mut patch = Map::new();
    for key in keys.into_keys() {
        let (before, after) = (old.get(key), new.get(key));
        if before == after {
            continue;
        }
        patch.insert(key.clone(), difference(before, after));
    }
    (!patch.is_empty()).then_some(patch)
}

/// The merge patch of one value: nulls for what is gone.
fn difference(before: Option<&Value>, after: Option<&Value>) -> Value {
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let mut patch = Map::new();
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value))
            {
                patch.insert(key.clone(), difference(before.get(key), Some(value)));
            }
            Value::Object(patch)
        }
        (_, after) => after.cloned().unwrap_or_default(),
    }
}

fn object(status: &Value) -> Value {
    if status.is_object() { status.clone() } else { json!({}) }
}

#[cfg(test)]
mod tests;
