//! What of a new Job's pods can never run: a name twice, a mount of nothing, a volume of no kind
//! (`pkg/apis/core/validation/validation.go`, as far as people get it wrong).
//!
//! Pods themselves are not looked at: here only the runner makes them, from Jobs.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    field::FieldError,
    names::{self, NameRule},
};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const QUANTITY: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
/// A quantity's suffixes, and what each multiplies by.
const SUFFIXES: [(&str, f64); 16] = [
    ("", 1.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];

/// What is wrong with the pods that a Job would make.
pub(super) fn validate(spec: &Value, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes = volumes(spec, at, &mut errors);
    let mut taken = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, list) {
            let at = format!("{at}.{list}[{index}]");
            name(container, &at, &mut taken, &mut errors);
            errors.extend(validate_container(container, &at, &volumes));
        }
    }
    let account = spec["serviceAccountName"].as_str().unwrap_or_default();
    if !account.is_empty() {
        let field = format!("{at}.serviceAccountName");
        errors.extend(names::check(NameRule::Subdomain, &field, account));
    }
    errors
}

/// The names of the volumes.
fn volumes<'s>(spec: &'s Value, at: &str, errors: &mut Vec<FieldError>) -> BTreeSet<&'s str> {
    let mut taken = BTreeSet::new();
    for (index, volume) in items(spec, "volumes") {
        let at = format!("{at}.volumes[{index}]");
        name(volume, &at, &mut taken, errors);
        let sources: Vec<_> = fields(volume).filter(|(key, _)| *key != "name").collect();
        match sources.as_slice() {
            [] => errors.push(FieldError::required(at, "must specify a volume type")),
            [(kind, source)] => errors.extend(validate_source(kind, source, &at)),
            [_, more @ ..] => {
                let detail = "may not specify more than 1 volume type";
                let error =
                    |(kind, _): &(&str, _)| FieldError::forbidden(format!("{at}.{kind}"), detail);
                errors.extend(more.iter().map(error));
            }
        }
    }
    taken
}

/// What a volume is made from has a name, if it is an object.
fn validate_source(kind: &str, source: &Value, at: &str) -> Option<FieldError> {
    let field = match kind {
        "secret" => "secretName",
        "configMap" => "name",
        "persistentVolumeClaim" => "claimName",
        "hostPath" => "path",
        _ => return None,
    };
    is_empty(&source[field]).then(|| FieldError::required(format!("{at}.{kind}.{field}"), ""))
}

/// A name that is there, is one, and is nobody else's.
fn name<'v>(
    object: &'v Value,
    at: &str,
    taken: &mut BTreeSet<&'v str>,
    errors: &mut Vec<FieldError>,
) {
    let (field, name) = (format!("{at}.name"), object["name"].as_str().unwrap_or_default());
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
        return;
    }
    errors.extend(names::check(NameRule::Label, &field, name));
    if !taken.insert(name) {
        errors.push(FieldError::duplicate(field, &object["name"]));
    }
}

fn validate_container(container: &Value, at: &str, volumes: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_empty(&container["image"]) {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    }
    let policy = &container["imagePullPolicy"];
    if !is_empty(policy) && !PULL_POLICIES.map(Value::from).contains(policy) {
        let field = format!("{at}.imagePullPolicy");
        errors.push(FieldError::not_supported(field, policy, &PULL_POLICIES));
    }
    for (index, variable) in items(container, "env") {
        let at = format!("{at}.env[{index}]");
        if is_empty(&variable["name"]) {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        }
        if !variable["valueFrom"].is_null() && !is_empty(&variable["value"]) {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(format!("{at}.valueFrom"), &"".into(), detail));
        }
    }
    let mut paths = BTreeSet::new();
    for (index, mount) in items(container, "volumeMounts") {
        let at = format!("{at}.volumeMounts[{index}]");
        let volume = mount["name"].as_str().unwrap_or_default();
        if volume.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !volumes.contains(volume) {
            errors.push(FieldError::not_found(format!("{at}.name"), &mount["name"]));
        }
        let (field, path) = (format!("{at}.mountPath"), &mount["mountPath"]);
        if is_empty(path) {
            errors.push(FieldError::required(field, ""));
        } else if !paths.insert(path.as_str()) {
            errors.push(FieldError::invalid(field, path, "must be unique"));
        }
    }
    errors.extend(validate_resources(&container["resources"], &format!("{at}.resources")));
    errors
}

fn validate_resources(resources: &Value, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["limits", "requests"] {
        for (resource, value) in fields(&resources[list]) {
            let field = crate::field::key(&format!("{at}.{list}"), resource);
            match quantity(value) {
                None => errors.push(FieldError::invalid(field, value, QUANTITY)),
                Some(amount) if amount < 0.0 => {
                    let detail = "must be greater than or equal to 0";
                    errors.push(FieldError::invalid(field, value, detail));
                }
                Some(amount) => {
                    let limit = &resources["limits"][resource];
                    let over = quantity(limit).is_some_and(|limit| amount > limit);
                    if list == "requests" && over {
                        let limit = limit.as_str().map_or(limit.to_string(), str::to_owned);
                        let detail =
                            format!("must be less than or equal to {resource} limit of {limit}");
                        let field = format!("{at}.requests");
                        errors.push(FieldError::invalid(field, value, &detail));
                    }
                }
            }
        }
    }
    errors
}

/// A Kubernetes quantity as a number; `None` if it is none.
fn quantity(value: &Value) -> Option<f64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Ok(number) = text.parse::<f64>() {
        // Rust also reads "inf" and "nan".
        return text.starts_with(|c: char| "+-.0123456789".contains(c)).then_some(number);
    }
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, suffix) = text.split_at(end);
    let (_, factor) = SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
    number.parse::<f64>().ok().map(|number| number * factor)
}

fn items<'v>(object: &'v Value, list: &str) -> impl Iterator<Item = (usize, &'v Value)> {
    object[list].as_array().into_iter().flatten().enumerate()
}

/// The fields of an object that say anything.
fn fields(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = object.as_object().into_iter().flat_map(Map::iter);
    all.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
}

fn is_empty(value: &Value) -> bool {
    value.as_str().unwrap_or_default().is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> Value {
        json!({
            "containers": [{ "name": "last", "image": "box", "volumeMounts": [
                { "name": "data", "mountPath": "/data" },
            ] }],
            "initContainers": [{
                "name": "first", "image": "box", "env": [{ "name": "A", "value": "b" }],
                "resources": { "limits": { "cpu": "200m", "memory": "1Gi" },
                               "requests": { "cpu": 0.1, "memory": "128Mi" } },
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "serviceAccountName": "worker",
        })
    }

    #[test]
    fn what_can_never_run_is_told_as_kubernetes_does() {
        assert_eq!(validate(&spec(), "spec"), []);
        let first = "/initContainers/0";
        for (pointer, value, told) in [
            ("/serviceAccountName", json!("Not_OK"), "spec.serviceAccountName: Invalid value"),
            ("/initContainers/0/name", json!("last"), "[0].name: Duplicate value: \"last\""),
            ("/initContainers/0/name", json!(""), "spec.initContainers[0].name: Required value"),
            ("/initContainers/0/image", json!(""), "spec.initContainers[0].image: Required value"),
            (
                "/initContainers/0/imagePullPolicy",
                json!("Once"),
                "supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (
                "/containers/0/volumeMounts/0/name",
                json!("none"),
                "spec.containers[0].volumeMounts[0].name: Not found: \"none\"",
            ),
            ("/volumes/0", json!({"name": "data"}), "volumes[0]: Required value: must specify a"),
            (
                "/volumes/0",
                json!({"name": "data", "emptyDir": {}, "secret": {"secretName": "x"}}),
                "volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/volumes/0",
                json!({"name": "data", "secret": {}}),
                "volumes[0].secret.secretName: Required value",
            ),
            (
                "/initContainers/0/resources/requests/cpu",
                json!("1"),
                "resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit \
                 of 200m",
            ),
            ("/initContainers/0/resources/limits/cpu", json!("much"), "quantities must match"),
            ("/initContainers/0/env/0/name", json!(""), "initContainers[0].env[0].name: Required"),
        ] {
            let mut wrong = spec();
            if wrong.pointer(pointer).is_none() {
                let key = pointer.rsplit('/').next().unwrap();
                wrong.pointer_mut(first).unwrap()[key] = value;
            } else {
                *wrong.pointer_mut(pointer).unwrap() = value;
            }
            let errors = validate(&wrong, "spec");
            let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|error| error.contains(told)), "{told:?} is not in {all:?}");
        }
    }
}
