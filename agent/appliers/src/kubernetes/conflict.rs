//! Whose field is it? Tells another manager's field from one of ours that somebody edited.
//!
//! A field that this placement has applied before and that an *edit* (kubectl edit, scale, a
//! controller's update) has taken is drift: it is taken back. A field that another *applier* owns, or
//! that this placement never applied, is a conflict: it is left and named.

use kube::core::Status;
use serde_json::Value;

/// Whether every conflict is an edit of a field that `previous` had applied.
pub(super) fn is_drift(status: &Status, previous: Option<&Value>) -> bool {
    let Some(previous) = previous else { return false };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice());
    let causes = causes.unwrap_or_default();
    // The API names the version that an update used, and none for an apply (managedfields'
    // conflict message: `conflict with "kubectl-edit" using apps/v1`).
    let edited =
        |message: &str| message.contains("\" using ") || message.contains("with subresource");
    !causes.is_empty()
        && causes.iter().all(|cause| {
            cause.reason == "FieldManagerConflict"
                && edited(&cause.message)
                && holds(previous, &cause.field)
        })
}

/// Whether a manifest holds the field at a path such as `.spec.containers[name="web"].image`.
fn holds(value: &Value, path: &str) -> bool {
    if path.is_empty() {
        return true;
    }
    if let Some(rest) = path.strip_prefix('.') {
        // Keys may hold dots themselves, so the keys that there are decide where one ends.
        let Some(fields) = value.as_object() else { return false };
        return fields.iter().any(|(key, value)| {
            rest.strip_prefix(key.as_str()).is_some_and(|rest| {
                (rest.is_empty() || rest.starts_with(['.', '['])) && holds(value, rest)
            })
        });
    }
    let Some((selector, rest)) = path.strip_prefix('[').and_then(|rest| rest.split_once(']'))
    else {
        return false;
    };
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Ok(index) = selector.parse::<usize>() {
        return items.get(index).is_some_and(|item| holds(item, rest));
    }
    items.iter().any(|item| selects(selector, item) && holds(item, rest))
}

/// `name="web"`, `containerPort=80,protocol="TCP"`, or `="item"` for a set.
fn selects(selector: &str, item: &Value) -> bool {
    selector.split(',').all(|pair| {
        let Some((key, wanted)) = pair.split_once('=') else { return false };
        let Ok(wanted) = serde_json::from_str::<Value>(wanted) else { return false };
        // A key field that the manifest leaves out has its default: not known here, so not refused.
        if key.is_empty() { *item == wanted } else { item.get(key).is_none_or(|v| *v == wanted) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conflict(field: &str, message: &str) -> Status {
        serde_json::from_value(json!({
            "code": 409,
            "details": {"causes": [
                {"reason": "FieldManagerConflict", "field": field, "message": message}
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn an_edit_of_an_applied_field_is_drift_and_nothing_else_is() {
        let previous = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"replicas": 3, "containers": [{"name": "web", "image": "a"}]},
        });
        let edit = "conflict with \"kubectl-edit\" using apps/v1";
        for field in [
            ".spec.replicas",
            ".metadata.labels.app.kubernetes.io/name",
            ".spec.containers[name=\"web\"].image",
        ] {
            assert!(is_drift(&conflict(field, edit), Some(&previous)), "{field}");
        }
        for field in [".spec.paused", ".spec.containers[name=\"other\"].image", ".spec.replica"] {
            assert!(!is_drift(&conflict(field, edit), Some(&previous)), "{field}");
        }
        let applier = conflict(".spec.replicas", "conflict with \"flux\"");
        assert!(!is_drift(&applier, Some(&previous)));
        assert!(!is_drift(&conflict(".spec.replicas", edit), None));
    }
}
