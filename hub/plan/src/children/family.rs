//! How the children of one object stand, together: what does it wait for, and how healthy is it?

use jiff::{SignedDuration, Timestamp};
use muster_api::conditions::{Truth, Verdict, kind};
use muster_core::{Health, Waiting};
use serde_json::{Value, json};

use super::{Child, Phase, rank, recorded};
use crate::rollup::{Rollup, healthy_verdict};

/// All children of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Family {
    /// In the order of its pipelines.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Who, and how it stands.
    pub child: Child,
    /// Its health, once anything of it is applied.
    pub health: Option<(Health, String)>,
}

/// When to look again at a child that cannot be made: what stands in its way is not its parent's, and
/// wakes nobody when it goes.
const ABSENT_AGAIN: SignedDuration = SignedDuration::from_secs(10);

impl Member {
    /// Whether its changes wake its parent.
    fn is_there(&self) -> bool {
        !matches!(self.child.phase, Phase::Pending | Phase::Refused)
    }

    /// One that was not looked at, or is not there.
    pub fn absent(child: Child, phase: Phase, message: impl Into<String>) -> Self {
        Self { child: Child { phase, message: message.into(), ..child }, health: None }
    }

    /// One that is there: what its own status says of its present generation.
    pub fn seen(child: Child, live: &Value) -> Self {
        let (phase, message) = standing(live);
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        Self { child: Child { phase, message, uid, ..child }, health: health(live) }
    }
}

impl Family {
    /// What is waited for, the worst first; `None` when all of them are reconciled.
    pub fn waiting(&self) -> Option<Waiting> {
        let undone = self.members.iter().map(|member| &member.child);
        let undone = undone.filter(|child| child.phase != Phase::Ready);
        // Of several that stand alike, the first that was put out.
        undone.rev().max_by_key(|child| child.phase).map(waiting)
    }

    /// Whether one of them is not recorded yet, and so may not be made.
    pub fn is_news(&self, status: &Value) -> bool {
        let recorded = recorded(status);
        let is_known = |member: &Member| recorded.iter().any(|held| held.is_same(&member.child));
        !self.members.iter().all(is_known)
    }

    /// The children that pipelines before this one put out.
    pub fn before(&self, index: usize, pipelines: &[&str]) -> Self {
        let earlier = |member: &&Member| rank(&member.child.pipeline, pipelines) < index;
        Self { members: self.members.iter().filter(earlier).cloned().collect() }
    }

    /// What status records; null where there are none.
    pub fn record(&self) -> Value {
        let children: Vec<_> = self.members.iter().map(|member| &member.child).collect();
        if children.is_empty() { Value::Null } else { json!(children) }
    }

    /// What an object and its children come to together: done when all are, and as healthy as the
    /// worst.
    pub fn fold_into(&self, rollup: &mut Rollup, now: Timestamp) {
        let again = self.members.iter().any(|member| !member.is_there());
        let again = again.then(|| now.checked_add(ABSENT_AGAIN).ok()).flatten();
        rollup.wake_at = rollup.wake_at.into_iter().chain(again).min();
        if rollup.reconciled.truth == Truth::True
            && let Some(waiting) = self.waiting()
        {
            rollup.reconciled = unreconciled(&waiting);
        }
        let judged = self.members.iter().filter_map(|member| {
            let (health, message) = member.health.as_ref()?;
            Some((*health, format!("{}: {message}", member.child.title())))
        });
        if let Some((health, message)) = judged.rev().max_by_key(|(health, _)| *health)
            && rollup.healthy.as_ref().is_none_or(|own| health > health_of(&own.reason))
        {
            let verdict = healthy_verdict(health, &message);
            rollup.placements.health = match health {
                Health::Healthy => health.as_str().to_owned(),
                _ => format!("{health}: {message}"),
            };
            rollup.healthy = Some(verdict);
        }
        if rollup.placements.total == 0 && !self.members.is_empty() {
            rollup.placements.destination = match self.members.as_slice() {
                [only] => only.child.title(),
                all => format!("{} requests", all.len()),
            };
        }
    }
}

/// The condition `Reconciled` of who waits for a child.
pub fn unreconciled(waiting: &Waiting) -> Verdict {
    let truth = match waiting {
        Waiting::ChildFailed { .. } | Waiting::ChildRefused { .. } => Truth::False,
        _ => Truth::Unknown,
    };
    Verdict::new(kind::RECONCILED, truth, waiting.reason(), waiting.message())
}

fn waiting(child: &Child) -> Waiting {
    let (title, cause) = (child.title(), child.message.clone());
    match child.phase {
        Phase::Refused => Waiting::ChildRefused { child: title, cause },
        Phase::Failed => Waiting::ChildFailed { child: title, cause },
        Phase::Removing => Waiting::RemovingChild { child: title },
        Phase::Ready | Phase::Waiting | Phase::Pending => {
            Waiting::ChildNotReady { child: title, cause }
        }
    }
}

fn standing(live: &Value) -> (Phase, String) {
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return (Phase::Removing, "it is being removed".to_owned());
    }
    let generation = live.pointer("/metadata/generation").and_then(Value::as_i64);
    let condition = condition(live, kind::RECONCILED);
    let of_now = |condition: &&Value| {
        let observed = condition["observedGeneration"].as_i64();
        observed.is_none_or(|observed| generation.is_none_or(|now| observed >= now))
    };
    let Some(reconciled) = condition.filter(of_now) else {
        return (Phase::Waiting, "it has not been looked at yet".to_owned());
    };
    let message = reconciled["message"].as_str().unwrap_or_default().to_owned();
    match reconciled["status"].as_str() {
        Some("True") => (Phase::Ready, String::new()),
        Some("False") => (Phase::Failed, message),
        _ => (Phase::Waiting, message),
    }
}

fn health(live: &Value) -> Option<(Health, String)> {
    let healthy = condition(live, kind::HEALTHY)?;
    let message = healthy["message"].as_str().unwrap_or_default().to_owned();
    Some((health_of(healthy["reason"].as_str().unwrap_or_default()), message))
}

fn health_of(word: &str) -> Health {
    let all = [Health::Healthy, Health::Unknown, Health::Progressing, Health::Degraded];
    all.into_iter().find(|health| health.as_str() == word).unwrap_or_default()
}

fn condition<'a>(live: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = live.pointer("/status/conditions").and_then(Value::as_array)?;
    all.iter().find(|condition| condition["type"] == kind)
}
