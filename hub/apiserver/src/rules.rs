//! What the built-in kinds demand beyond their schemas: defaults, checks, and rights.

mod cron_job;
mod job;
mod pod;
mod secret;
mod template;

use serde_json::{Value, json};

use crate::{
    field::FieldError,
    rbac,
    registry::{Rules, definition},
    status::Status,
    verbs::Call,
};

/// Fills in what may be left out. What is filled in here belongs to who left it out, as in
/// Kubernetes: an applier that no longer states a field gets the default again.
pub(crate) fn default(call: &Call, object: &mut Value) {
    match call.resource.rules {
        Rules::Namespace => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        Rules::Secret => secret::default(object),
        Rules::Pod => pod::default_spec(&mut object["spec"]),
        Rules::Job => job::default(object),
        Rules::CronJob => cron_job::default(object),
        Rules::Binding => default_subject_groups(object),
        Rules::Definition => definition::default(object),
        _ => {}
    }
}

/// Writes what the server itself adds, which belongs to nobody; `old` is absent on create.
pub(crate) fn generate(call: &Call, object: &mut Value, old: Option<&Value>, now: &str) {
    match call.resource.rules {
        Rules::Namespace if old.is_none() => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        Rules::Pod if old.is_none() => {
            object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
        }
        Rules::Job if old.is_none() => job::tie_pods(object),
        Rules::Definition => definition::establish(object, &call.server.store.read(), now),
        _ => {}
    }
    // A status of nothing yet is still one, as Go writes it.
    let built_in = call.resource.has_status && !call.resource.is_custom();
    if old.is_none() && built_in && object.get("status").is_none_or(Value::is_null) {
        object["status"] = json!({});
    }
}

/// Checks what the schema cannot say.
pub(crate) fn validate(call: &Call, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    // Definitions are held by a finalizer that says no domain path.
    let mut errors = match call.resource.is_custom() || call.resource.rules == Rules::Definition {
        true => Vec::new(),
        false => validate_finalizers(object),
    };
    errors.extend(validate_kind(call, object, old));
    errors
}

fn validate_kind(call: &Call, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match call.resource.rules {
        Rules::ConfigMap => {
            let mut errors = validate_immutable(object, old, &["data", "binaryData"]);
            errors.extend(validate_keys(object, &["data", "binaryData"]));
            errors
        }
        Rules::Secret => {
            let mut errors = secret::validate(object);
            errors.extend(validate_immutable(object, old, &["data"]));
            errors.extend(validate_keys(object, &["data"]));
            errors.extend(old.and_then(|old| unchanged("type", &object["type"], &old["type"])));
            errors
        }
        Rules::Binding => {
            let changed = old.filter(|old| old["roleRef"] != object["roleRef"]);
            let error =
                |_| FieldError::invalid("roleRef", &object["roleRef"], "cannot change roleRef");
            changed.map(error).into_iter().collect()
        }
        Rules::Pod => {
            let subresource = call.target.subresource.as_deref().unwrap_or_default();
            pod::validate(object, old, subresource)
        }
        Rules::Job => job::validate(object, old),
        Rules::CronJob => cron_job::validate(object),
        Rules::Event if call.resource.group == "events.k8s.io" => validate_event_type(object),
        Rules::Definition => definition::validate(object, old),
        _ => Vec::new(),
    }
}

/// Nobody may hand out rights that he does not have (RBAC escalation, `bind`).
pub(crate) fn authorize(call: &Call, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    match call.resource.rules {
        Rules::Role => rbac::may_grant(call, object, old),
        Rules::Binding => rbac::may_bind(call, object, old),
        _ => Ok(()),
    }
}

fn default_subject_groups(object: &mut Value) {
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        if ["User", "Group"].map(Value::from).contains(&subject["kind"])
            && subject["apiGroup"].as_str().unwrap_or_default().is_empty()
        {
            subject["apiGroup"] = "rbac.authorization.k8s.io".into();
        }
    }
}

fn validate_event_type(event: &Value) -> Vec<FieldError> {
    match event["type"].as_str().unwrap_or_default() {
        "Normal" | "Warning" => Vec::new(),
        other => {
            let detail = format!("has invalid value: {other}");
            vec![FieldError::invalid("type", &"".into(), &detail)]
        }
    }
}

/// Finalizers of built-in kinds are Kubernetes' own, or say whose they are.
fn validate_finalizers(object: &Value) -> Vec<FieldError> {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let detail = "name is neither a standard finalizer name nor is it fully qualified";
    let list = object["metadata"]["finalizers"].as_array().into_iter().flatten().enumerate();
    let plain = list.filter(|(_, finalizer)| {
        finalizer.as_str().is_some_and(|text| !text.contains('/') && !STANDARD.contains(&text))
    });
    let error = |(at, finalizer): (usize, &Value)| {
        FieldError::invalid(format!("metadata.finalizers[{at}]"), finalizer, detail)
    };
    plain.map(error).collect()
}

/// Keys of data become names of files.
fn validate_keys(object: &Value, fields: &[&str]) -> Vec<FieldError> {
    let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
                  (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                  '[-._a-zA-Z0-9]+')";
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut errors = Vec::new();
    for field in fields {
        for key in object[*field].as_object().into_iter().flatten().map(|(key, _)| key) {
            if key.is_empty() || !key.chars().all(fits) {
                let path = crate::field::key(field, key);
                errors.push(FieldError::invalid(path, &key.as_str().into(), detail));
            }
        }
    }
    errors
}

fn validate_immutable(object: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<FieldError> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return Vec::new() };
    let detail = "field is immutable when `immutable` is set";
    let mut errors = Vec::new();
    if object["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    let changed = fields.iter().filter(|&&field| object[field] != old[field]);
    errors.extend(changed.map(|&field| FieldError::forbidden(field, detail)));
    errors
}

pub(crate) fn unchanged(field: &str, new: &Value, old: &Value) -> Option<FieldError> {
    (new != old).then(|| FieldError::invalid(field, new, "field is immutable"))
}
