//! What `kubectl apply` keeps in an annotation, and how its server-side apply goes on from there.
//!
//! Who applied from the client owns the fields as an updater. The first server-side apply by
//! kubectl may take those without force, and keeps the annotation true, so that the way back stays
//! open.

use serde_json::Value;

use super::walk;
use crate::schema::Node;

/// Only this manager goes on from the annotation.
const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The fields that were applied from the client and have not changed since, as conflicts name
/// them; none for other managers.
pub(super) fn unchanged_fields(node: Option<&Node>, live: &Value, manager: &str) -> Vec<String> {
    let last = annotation(live).filter(|_| manager == MANAGER);
    let Some(last) = last.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Vec::new();
    };
    if last["apiVersion"] != live["apiVersion"] {
        return Vec::new();
    }
    let since = walk::compare(node, Some(&last), Some(live));
    let fields = walk::fields(node, &last);
    fields.difference(&since.changed).difference(&since.removed).paths()
}

/// Writes what was applied into the annotation, if the object has it.
pub(super) fn keep_annotation(new: &mut Value, applied: &Value, manager: &str) {
    if manager != MANAGER || annotation(new).is_none_or(str::is_empty) {
        return;
    }
    let mut last = applied.clone();
    super::managers::clear(&mut last);
    if let Some(annotations) = last["metadata"]["annotations"].as_object_mut() {
        annotations.remove(ANNOTATION);
    }
    if last["metadata"]["annotations"].as_object().is_none_or(serde_json::Map::is_empty)
        && let Some(metadata) = last["metadata"].as_object_mut()
    {
        metadata.remove("annotations");
    }
    last.sort_all_objects();
    new["metadata"]["annotations"][ANNOTATION] = format!("{last}\n").into();
}

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()
}
