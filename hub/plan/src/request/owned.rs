//! Whose is a part of a status: the hub's, or the pipelines'?

use muster_api::conditions::kind;
use serde_json::{Map, Value};

use super::object;
use crate::workflow::Scope;

/// What of a request's status is the hub's.
const HUB_KEYS: [&str; 12] = [
    "children",
    "kratix",
    "placements",
    "healthStatus",
    "outputs",
    "observedGeneration",
    "workflows",
    "workflowsSucceeded",
    "workflowsFailed",
    "lastSuccessfulConfigureWorkflowTime",
    "promiseVersion",
    "resourceBindingVersion",
];
/// The one key of a Promise's status that is not the hub's.
const PROMISE_KEY: &str = "message";
/// The conditions that are the hub's.
const HUB_CONDITIONS: [&str; 8] = [
    kind::CONFIGURE_WORKFLOW_COMPLETED,
    kind::DELETE_WORKFLOW_COMPLETED,
    kind::WORKS_SUCCEEDED,
    kind::RECONCILED,
    kind::PROMISE_AVAILABLE,
    kind::REQUIREMENTS_FULFILLED,
    kind::HEALTHY,
    kind::AVAILABLE,
];

/// Merges what a pipeline hands over into a status: whole top keys, conditions by type. Refuses,
/// by name, what is the hub's.
pub fn merge(status: &Value, handed: &Map<String, Value>) -> Result<Value, String> {
    let mut next = object(status);
    for (key, value) in handed {
        if HUB_KEYS.contains(&key.as_str()) {
            return Err(format!("the key {key:?} is the hub's: use another"));
        }
        if key != "conditions" {
            next[key] = value.clone();
            continue;
        }
        let Value::Array(handed) = value else {
            return Err("conditions must be a list".to_owned());
        };
        let mut merged = next["conditions"].as_array().cloned().unwrap_or_default();
        for condition in handed {
            let kind = condition["type"].as_str().unwrap_or_default();
            if kind.is_empty() || HUB_CONDITIONS.contains(&kind) {
                return Err(format!("the condition {kind:?} is the hub's: use another type"));
            }
            match merged.iter_mut().find(|held| held["type"] == kind) {
                Some(held) => *held = condition.clone(),
                None => merged.push(condition.clone()),
            }
        }
        next["conditions"] = Value::Array(merged);
    }
    Ok(next)
}

/// What of the hub's part of a status differs, if anything does: `status.KEY`, or a condition.
pub fn touched(scope: Scope, old: &Value, new: &Value) -> Option<String> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let is_hubs = |key: &str| match scope {
        Scope::Promise => key != PROMISE_KEY,
        Scope::Resource => HUB_KEYS.contains(&key),
    };
    let keys = old.keys().chain(new.keys()).filter(|key| *key != "conditions" && is_hubs(key));
    if let Some(key) = keys.into_iter().find(|key| old.get(*key) != new.get(*key)) {
        return Some(format!("status.{key}"));
    }
    let of = |status: &Map<String, Value>, kind: &str| -> Vec<Value> {
        let all = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
        all.filter(|condition| condition["type"] == kind).cloned().collect()
    };
    let kind = HUB_CONDITIONS.into_iter().find(|kind| of(old, kind) != of(new, kind))?;
    Some(format!("the condition {kind} in status.conditions"))
}
