//! What the built-in kinds demand beyond their schemas: defaults, checks, and rights.

mod job;
mod pod;

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
        Rules::Secret => default_secret(object),
        Rules::Pod => pod::default_spec(&mut object["spec"]),
        Rules::Job => job::default(object),
        Rules::CronJob => {
            pod::default_spec(&mut object["spec"]["jobTemplate"]["spec"]["template"]["spec"]);
        }
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
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        Rules::Pod if old.is_none() => {
            object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
        }
        Rules::Job if old.is_none() => job::tie_pods(object),
        Rules::Definition => generate_definition(call, object, old, now),
        _ => {}
    }
}

/// Checks what the schema cannot say.
pub(crate) fn validate(call: &Call, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match call.resource.rules {
        Rules::ConfigMap => validate_immutable(object, old, &["data", "binaryData"]),
        Rules::Secret => {
            let mut errors = validate_immutable(object, old, &["data"]);
            errors.extend(old.and_then(|old| unchanged("type", &object["type"], &old["type"])));
            errors
        }
        Rules::Binding => {
            let role = |old: &Value| unchanged("roleRef", &object["roleRef"], &old["roleRef"]);
            old.and_then(role).into_iter().collect()
        }
        Rules::Pod => pod::validate(object, old),
        Rules::Job => job::validate(object, old),
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

fn default_secret(object: &mut Value) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    if object["type"].as_str().unwrap_or_default().is_empty() {
        object["type"] = "Opaque".into();
    }
    let Some(Value::Object(plain)) =
        object.as_object_mut().and_then(|fields| fields.remove("stringData"))
    else {
        return;
    };
    for (key, value) in plain {
        object["data"][key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
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

fn generate_definition(call: &Call, object: &mut Value, old: Option<&Value>, now: &str) {
    if old.is_none() {
        object["metadata"]["finalizers"] = match object["metadata"]["finalizers"].as_array() {
            Some(own) if !own.contains(&definition::CLEANUP.into()) => {
                let mut own = own.clone();
                own.push(definition::CLEANUP.into());
                own.into()
            }
            Some(own) => own.clone().into(),
            None => json!([definition::CLEANUP]),
        };
    }
    definition::establish(object, &call.server.store.read(), now);
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
