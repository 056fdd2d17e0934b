//! What the change of a status is worth telling as an Event: once for each change, in Kratix's words.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_api::conditions::{self, kind};
use serde_json::Value;

use crate::promise::status::{REQUIREMENT_INSTALLED, REQUIREMENT_NOT_AVAILABLE};

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whether it needs a person.
    pub is_warning: bool,
    /// Its reason.
    pub reason: String,
    /// The sentence.
    pub note: String,
}

/// What is new of the Works of a request or a Promise.
pub fn of_works(old: &Value, new: &Value) -> Vec<News> {
    let told = turned(old, new, kind::WORKS_SUCCEEDED).and_then(|now| match now.status.as_str() {
        "True" => Some(normal(&now.reason, &now.message)),
        "False" => Some(warning(&now.reason, &now.message)),
        _ => None,
    });
    told.into_iter().collect()
}

/// What is new of a Promise.
pub fn of_promise(old: &Value, new: &Value) -> Vec<News> {
    let mut news = of_requirements(old, new);
    let done = |kind: &str| turned(old, new, kind).filter(|now| now.status == "True").is_some();
    if done(kind::CONFIGURE_WORKFLOW_COMPLETED) {
        news.push(normal("ConfigureWorkflowCompleted", "All workflows completed"));
    }
    news.extend(of_works(old, new));
    if done(kind::RECONCILED) {
        news.push(normal("ReconcileSucceeded", "Successfully reconciled"));
    }
    news.extend(of_availability(old, new));
    let (seen, now) = (&old["observedGeneration"], &new["observedGeneration"]);
    if !seen.is_null() && seen != now && !new["kind"].is_null() {
        news.push(normal("ReconcilingResources", "Reconciling all resource requests"));
    }
    news
}

fn of_requirements(old: &Value, new: &Value) -> Vec<News> {
    let mut news = Vec::new();
    let before = old["requiredPromises"].as_array().cloned().unwrap_or_default();
    let is_new = |required: &&Value| !before.contains(required);
    for required in new["requiredPromises"].as_array().into_iter().flatten().filter(is_new) {
        let name = required["name"].as_str().unwrap_or_default();
        match required["state"].as_str().unwrap_or_default() {
            REQUIREMENT_INSTALLED => {}
            REQUIREMENT_NOT_AVAILABLE => {
                let note = format!("Required Promise {name} not available");
                news.push(normal("RequirementsNotAvailable", &note));
            }
            _ => {
                let note = format!("Required Promise {name} not installed or unknown state");
                news.push(normal("RequirementsNotInstalled", &note));
            }
        }
    }
    let fulfilled = turned(old, new, kind::REQUIREMENTS_FULFILLED);
    if fulfilled.is_some_and(|now| now.status == "True") {
        news.push(normal("RequirementsFulfilled", "All required promises are available"));
    }
    news
}

/// A Promise that was never available has not ceased to be.
fn of_availability(old: &Value, new: &Value) -> Option<News> {
    let is_true = |status: &Value, kind| conditions::is_true(&held(status), kind);
    match (is_true(old, kind::AVAILABLE), is_true(new, kind::AVAILABLE)) {
        (false, true) => Some(normal("Available", "Promise is available")),
        (true, false) => {
            let conditions = held(new);
            let why = |kind| conditions::find(&conditions, kind).filter(|it| it.status == "False");
            let cause = match why(kind::REQUIREMENTS_FULFILLED) {
                Some(_) => "Requirements have changed",
                None => why(kind::CONFIGURE_WORKFLOW_COMPLETED)
                    .or_else(|| why(kind::AVAILABLE))
                    .map_or("", |condition| condition.message.as_str()),
            };
            Some(warning("Unavailable", &format!("Promise no longer available: {cause}")))
        }
        _ => None,
    }
}

/// A condition that says something else than before.
fn turned(old: &Value, new: &Value, kind: &str) -> Option<Condition> {
    let (old, new) = (held(old), held(new));
    let now = conditions::find(&new, kind)?;
    let same = |then: &Condition| (&then.status, &then.reason) == (&now.status, &now.reason);
    (!conditions::find(&old, kind).is_some_and(same)).then(|| now.clone())
}

fn held(status: &Value) -> Vec<Condition> {
    let conditions = status.get("conditions").cloned().unwrap_or_default();
    serde_json::from_value(conditions).unwrap_or_default()
}

fn normal(reason: &str, note: &str) -> News {
    News { is_warning: false, reason: reason.to_owned(), note: note.to_owned() }
}

fn warning(reason: &str, note: &str) -> News {
    News { is_warning: true, ..normal(reason, note) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(conditions: &[(&str, &str, &str, &str)]) -> Value {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status, reason, message)| {
                json!({
                    "type": kind, "status": status, "reason": reason, "message": message,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                })
            })
            .collect();
        json!({ "conditions": conditions })
    }

    fn reasons(news: &[News]) -> Vec<&str> {
        news.iter().map(|news| news.reason.as_str()).collect()
    }

    #[test]
    fn a_promise_tells_each_turn_once() {
        let running = status(&[
            ("Available", "False", "PromiseUnavailable", "Cannot fulfil resource requests"),
            ("ConfigureWorkflowCompleted", "False", "PipelinesInProgress", "in progress"),
        ]);
        let done = status(&[
            ("Available", "True", "PromiseAvailable", "Ready to fulfil resource requests"),
            ("ConfigureWorkflowCompleted", "True", "PipelinesExecutedSuccessfully", "completed"),
            ("WorksSucceeded", "True", "WorksSucceeded", "All works are ready"),
            ("Reconciled", "True", "Reconciled", "Reconciled"),
        ]);
        assert_eq!(reasons(&of_promise(&json!(null), &running)), Vec::<&str>::new());
        assert_eq!(
            reasons(&of_promise(&running, &done)),
            ["ConfigureWorkflowCompleted", "WorksSucceeded", "ReconcileSucceeded", "Available"]
        );
        assert_eq!(of_promise(&done, &done), []);
        let (mut seen, mut changed) = (done.clone(), done);
        (seen["observedGeneration"], changed["observedGeneration"]) = (json!(1), json!(2));
        (seen["kind"], changed["kind"]) = (json!("Mug"), json!("Mug"));
        assert_eq!(reasons(&of_promise(&seen, &changed)), ["ReconcilingResources"]);
    }

    #[test]
    fn a_promise_that_is_no_longer_available_says_why() {
        let available = status(&[("Available", "True", "PromiseAvailable", "Ready")]);
        let failed = status(&[
            ("Available", "False", "PromiseUnavailable", "Cannot fulfil resource requests"),
            ("ConfigureWorkflowCompleted", "False", "ConfigureWorkflowFailed", "it broke"),
        ]);
        let told = of_promise(&available, &failed);
        assert_eq!(told, [warning("Unavailable", "Promise no longer available: it broke")]);
        let mut lacking = status(&[
            ("Available", "False", "PromiseUnavailable", "Cannot fulfil resource requests"),
            ("RequirementsFulfilled", "False", "RequirementsNotInstalled", "not fulfilled"),
        ]);
        lacking["requiredPromises"] = json!([
            { "name": "water", "state": "Requirement not installed" },
            { "name": "milk", "state": REQUIREMENT_INSTALLED },
        ]);
        let note = "Required Promise water not installed or unknown state";
        let left = "Promise no longer available: Requirements have changed";
        let told = of_promise(&available, &lacking);
        assert_eq!(told, [normal("RequirementsNotInstalled", note), warning("Unavailable", left)]);
    }

    #[test]
    fn works_that_fail_are_a_warning() {
        let failing = status(&[("WorksSucceeded", "False", "WorksFailing", "some fail")]);
        let pending = status(&[("WorksSucceeded", "Unknown", "WorksPending", "not yet")]);
        assert_eq!(of_works(&pending, &failing), [warning("WorksFailing", "some fail")]);
        assert_eq!(of_works(&failing, &pending), []);
    }
}
