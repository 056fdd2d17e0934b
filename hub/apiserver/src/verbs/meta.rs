//! The metadata of every object: what the server sets, what a client may change, what is refused.

use serde_json::{Map, Value, json};

use crate::{
    field::FieldError,
    registry::{Generation, Resource, Rules},
    selector::{check_label_key, check_label_value},
    store::Key,
};

/// All annotations of an object together (apimachinery `TotalAnnotationSizeLimitB`).
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Fields of metadata that only the server sets.
const SERVER_FIELDS: [&str; 4] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Sets what the server decides about a new object.
pub(super) fn begin(resource: &Resource, object: &mut Value, key: &Key, now: &str) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for field in ["resourceVersion", "generation", "selfLink"].iter().chain(&SERVER_FIELDS) {
        metadata.remove(*field);
    }
    metadata.insert("name".to_owned(), key.name.clone().into());
    if !key.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), key.namespace.clone().into());
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), now.into());
    if resource.generation == Generation::OnChange {
        metadata.insert("generation".to_owned(), 1.into());
    }
    drop_empty(metadata);
}

/// Carries what a client cannot change from the old object into the new one.
pub(super) fn carry(old: &Value, new: &mut Value) {
    let (Some(before), Some(metadata)) =
        (old["metadata"].as_object(), new["metadata"].as_object_mut())
    else {
        return;
    };
    let fixed = ["resourceVersion", "generation", "name", "namespace"];
    for field in fixed.iter().chain(&SERVER_FIELDS) {
        match before.get(*field) {
            Some(value) => metadata.insert((*field).to_owned(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    if let Some(prefix) = before.get("generateName") {
        metadata.entry("generateName").or_insert_with(|| prefix.clone());
    }
    metadata.remove("selfLink");
    drop_empty(metadata);
}

fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
}

/// Counts `metadata.generation` on if the object asks for something else than before.
pub(super) fn count_generation(resource: &Resource, old: &Value, new: &mut Value) {
    if resource.generation == Generation::Never || !asks_otherwise(resource, old, new) {
        return;
    }
    bump_generation(new);
}

pub(super) fn bump_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    object["metadata"]["generation"] = (generation + 1).into();
}

fn asks_otherwise(resource: &Resource, old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let counts = |name: &str| {
        let apart = name == "status" && resource.has_status;
        !apart && !["metadata", "apiVersion", "kind"].contains(&name)
    };
    let fields = |object: &Map<String, Value>| {
        object.keys().filter(|name| counts(name)).cloned().collect::<Vec<_>>()
    };
    let mut names = fields(old);
    names.extend(fields(new));
    names.iter().any(|name| old.get(name) != new.get(name))
}

/// The object is the same but for bookkeeping: such a write is none.
pub(super) fn same(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let fields_equal = old.len() == new.len()
        && old.iter().all(|(name, value)| name == "metadata" || new.get(name) == Some(value));
    fields_equal && same_metadata(&old["metadata"], &new["metadata"])
}

fn same_metadata(old: &Value, new: &Value) -> bool {
    let strip = |metadata: &Value| {
        let mut metadata = metadata.clone();
        for entry in metadata["managedFields"].as_array_mut().into_iter().flatten() {
            entry["time"] = Value::Null;
        }
        if let Some(fields) = metadata.as_object_mut() {
            fields.remove("resourceVersion");
            drop_empty(fields);
        }
        metadata
    };
    strip(old) == strip(new)
}

/// Checks labels, annotations, finalizers and owners.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let metadata = &object["metadata"];
    let mut errors = Vec::new();
    let mut check = |field: &str, value: &str, wrong: Vec<String>| {
        errors.extend(wrong.iter().map(|why| FieldError::invalid(field, &value.into(), why)));
    };
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        check("metadata.labels", key, check_label_key(key));
        let value = value.as_str().unwrap_or_default();
        check("metadata.labels", value, check_label_value(value));
    }
    let mut annotation_bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        check("metadata.annotations", key, check_label_key(&key.to_lowercase()));
        annotation_bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    for finalizer in texts(&metadata["finalizers"]) {
        check("metadata.finalizers", finalizer, check_label_key(finalizer));
    }
    if annotation_bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATION_BYTES_MAX as u64));
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let path = format!("metadata.ownerReferences.{field}");
                let called = if field == "apiVersion" { "version" } else { field };
                let detail = format!("{called} must not be empty");
                errors.push(FieldError::invalid(path, &"".into(), &detail));
            }
        }
    }
    errors
}

/// What is on its way out takes no new finalizers.
pub(super) fn validate_finalizers(old: &Value, new: &Value) -> Vec<FieldError> {
    if old["metadata"]["deletionTimestamp"].is_null() {
        return Vec::new();
    }
    let before: Vec<&str> = texts(&old["metadata"]["finalizers"]).collect();
    let added: Vec<String> = texts(&new["metadata"]["finalizers"])
        .filter(|finalizer| !before.contains(finalizer))
        .map(|finalizer| format!("{finalizer:?}"))
        .collect();
    if added.is_empty() {
        return Vec::new();
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers \
         []string{{{}}}",
        added.join(", ")
    );
    vec![FieldError::forbidden("metadata.finalizers", &detail)]
}

/// It is being deleted and nothing holds it any longer.
pub(super) fn may_go(resource: &Resource, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let held = texts(&metadata["finalizers"]).next().is_some()
        || (resource.rules == Rules::Namespace
            && texts(&object["spec"]["finalizers"]).next().is_some());
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    !metadata["deletionTimestamp"].is_null() && !held && grace == 0
}

/// Marks an object as being deleted.
pub(super) fn mark_deleting(resource: &Resource, object: &mut Value, now: &str, grace: i64) {
    object["metadata"]["deletionTimestamp"] = now.into();
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    if resource.generation == Generation::OnChange {
        bump_generation(object);
    }
}

pub(super) fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
