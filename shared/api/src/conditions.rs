//! The vocabulary of conditions, and how one is set.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Types of conditions. Kratix's keep their names.
pub mod kind {
    /// A Promise's requirements are installed.
    pub const REQUIREMENTS_FULFILLED: &str = "RequirementsFulfilled";
    /// The configure pipelines have ended.
    pub const CONFIGURE_WORKFLOW_COMPLETED: &str = "ConfigureWorkflowCompleted";
    /// The delete pipeline has ended.
    pub const DELETE_WORKFLOW_COMPLETED: &str = "DeleteWorkflowCompleted";
    /// Every Work is placed and applied.
    pub const WORKS_SUCCEEDED: &str = "WorksSucceeded";
    /// A Promise can fulfil requests.
    pub const AVAILABLE: &str = "Available";
    /// The workflow is complete and every placement is applied at its pinned digest.
    pub const RECONCILED: &str = "Reconciled";
    /// A request's Promise can fulfil it.
    pub const PROMISE_AVAILABLE: &str = "PromiseAvailable";
    /// Ready, of Works, WorkPlacements, Destinations.
    pub const READY: &str = "Ready";
    /// Every group of a Work has a destination.
    pub const SCHEDULE_SUCCEEDED: &str = "ScheduleSucceeded";
    /// A state store holds the files.
    pub const WRITE_SUCCEEDED: &str = "WriteSucceeded";
    /// An agent applied the files.
    pub const APPLIED: &str = "Applied";
    /// What runs is healthy. Never changes `Reconciled`.
    pub const HEALTHY: &str = "Healthy";
    /// An Agent that is being deleted is gone; its message says what it waits for.
    pub const REMOVED: &str = "Removed";
    /// An agent is connected.
    pub const CONNECTED: &str = "Connected";
}

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can say.
    Unknown,
}

impl Truth {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a condition shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's type.
    pub kind: &'static str,
    /// Whether it holds.
    pub truth: Truth,
    /// One CamelCase word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

impl Verdict {
    /// A verdict on the condition `kind`.
    pub fn new(
        kind: &'static str,
        truth: Truth,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, truth, reason: reason.into(), message: message.into() }
    }
}

/// Sets a condition in place; its transition time moves only when its status changes.
/// Says whether anything changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    verdict: &Verdict,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let fresh = |since| Condition {
        type_: verdict.kind.to_owned(),
        status: verdict.truth.as_str().to_owned(),
        reason: verdict.reason.clone(),
        message: verdict.message.clone(),
        observed_generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == verdict.kind) {
        None => {
            conditions.push(fresh(Time(now)));
            true
        }
        Some(condition) => {
            let same = condition.status == verdict.truth.as_str();
            let since = if same { condition.last_transition_time.clone() } else { Time(now) };
            let next = fresh(since);
            let changed = *condition != next;
            *condition = next;
            changed
        }
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of a type is `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}
