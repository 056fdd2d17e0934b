//! Pods: the defaults that Kubernetes fills in (`pkg/apis/core/v1/defaults.go`), and what of a
//! pod may change.

use serde_json::{Map, Value, json};

use super::unchanged;
use crate::field::FieldError;

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
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(default_container);
    }
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

/// Of a pod's spec only images, deadline and tolerations may change, and the node once.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let containers = object["spec"]["containers"].as_array();
    if containers.is_none_or(Vec::is_empty) {
        return vec![FieldError::required("spec.containers", "")];
    }
    let Some(old) = old else { return Vec::new() };
    let strip = |object: &Value| {
        let mut spec = object["spec"].as_object().cloned().unwrap_or_default();
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            spec.remove(field);
        }
        if old["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
            spec.remove("nodeName");
        }
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
            {
                container.as_object_mut().map(|fields: &mut Map<_, _>| fields.remove("image"));
            }
        }
        Value::Object(spec)
    };
    match unchanged("spec", &strip(object), &strip(old)) {
        None => Vec::new(),
        Some(_) => vec![FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
             additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to \
             be set to 1 if it was previously negative)",
        )],
    }
}
