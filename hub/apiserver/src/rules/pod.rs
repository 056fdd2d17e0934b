//! Pods: the defaults that Kubernetes fills in (`pkg/apis/core/v1/defaults.go`), and what of a
//! pod may change.

use serde_json::{Value, json};

use super::unchanged;
use crate::field::FieldError;

/// The lists of containers that run from the start.
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// Fills in the defaults of a pod's spec.
pub(super) fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "restartPolicy", || "Always".into());
    set(spec, "terminationGracePeriodSeconds", || 30.into());
    set(spec, "dnsPolicy", || "ClusterFirst".into());
    set(spec, "schedulerName", || "default-scheduler".into());
    set(spec, "securityContext", || json!({}));
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        set(spec, "serviceAccount", || account);
    }
    for list in CONTAINERS {
        items(spec, list).for_each(default_container);
    }
    items(spec, "ephemeralContainers").for_each(default_container);
    items(spec, "volumes").for_each(default_volume);
}

fn default_container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let floating = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    let policy = if floating { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", || policy.into());
    set(container, "resources", || json!({}));
    set(container, "terminationMessagePath", || "/dev/termination-log".into());
    set(container, "terminationMessagePolicy", || "File".into());
    for variable in items(container, "env") {
        if let Some(Value::Object(field)) = variable.pointer_mut("/valueFrom/fieldRef") {
            field.entry("apiVersion").or_insert_with(|| "v1".into());
        }
    }
}

fn default_volume(volume: &mut Value) {
    for kind in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(Value::Object(source)) = volume.get_mut(kind) {
            source.entry("defaultMode").or_insert_with(|| 0o644.into());
        }
    }
    let Some(sources) = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut)
    else {
        return;
    };
    for source in sources {
        if let Some(Value::Object(token)) = source.get_mut("serviceAccountToken") {
            token.entry("expirationSeconds").or_insert_with(|| 3600.into());
        }
    }
}

/// The items of a list, if there is one.
fn items<'v>(object: &'v mut Value, list: &str) -> impl Iterator<Item = &'v mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn set(object: &mut Value, field: &str, value: impl FnOnce() -> Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let empty = |value: &Value| value.is_null() || value == "";
    if fields.get(field).is_none_or(empty) {
        fields.insert(field.to_owned(), value());
    }
}

/// Of a pod's spec only images, deadline and tolerations may change, and the node once; by their own
/// addresses, ephemeral containers may be added and resources changed.
pub(super) fn validate(object: &Value, old: Option<&Value>, subresource: &str) -> Vec<FieldError> {
    let containers = object["spec"]["containers"].as_array();
    if containers.is_none_or(Vec::is_empty) {
        return vec![FieldError::required("spec.containers", "")];
    }
    let Some(old) = old else { return Vec::new() };
    if unchanged("spec", &fixed(object, old, subresource), &fixed(old, old, subresource)).is_some()
    {
        return vec![FieldError::forbidden("spec", refusal(subresource))];
    }
    kept_ephemeral(object, old)
}

fn refusal(subresource: &str) -> &'static str {
    match subresource {
        "resize" => "only cpu and memory resources are mutable",
        _ => {
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
             additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to \
             be set to 1 if it was previously negative)"
        }
    }
}

/// The spec without what may change.
fn fixed(object: &Value, old: &Value, subresource: &str) -> Value {
    let mut spec = object["spec"].as_object().cloned().unwrap_or_default();
    let (fields, of_containers): (&[&str], _) = match subresource {
        "ephemeralcontainers" => (&["ephemeralContainers"], None),
        "resize" => (&[], Some("resources")),
        _ => {
            let fields = &["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"];
            (fields, Some("image"))
        }
    };
    for field in fields {
        spec.remove(*field);
    }
    if old["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        spec.remove("nodeName");
    }
    let mut spec = Value::Object(spec);
    for list in CONTAINERS {
        for container in items(&mut spec, list) {
            if let (Some(fields), Some(field)) = (container.as_object_mut(), of_containers) {
                fields.remove(field);
            }
        }
    }
    spec
}

/// An ephemeral container, once there, stays as it is.
fn kept_ephemeral(object: &Value, old: &Value) -> Vec<FieldError> {
    let now = object["spec"]["ephemeralContainers"].as_array();
    let mut errors = Vec::new();
    for before in old["spec"]["ephemeralContainers"].as_array().into_iter().flatten() {
        let same_name = |container: &&Value| container["name"] == before["name"];
        let what = match now.into_iter().flatten().find(same_name) {
            None => "removed",
            Some(now) if now != before => "changed",
            Some(_) => continue,
        };
        let name = before["name"].as_str().unwrap_or_default();
        let detail = format!("existing ephemeral containers {name:?} may not be {what}\n");
        errors.push(FieldError::forbidden("spec.ephemeralContainers", &detail));
    }
    errors
}
