//! One object in several versions: how it is stored, and how a version serves it.
//!
//! Custom kinds convert as `conversion: None` says: `apiVersion` alone changes. Events are stored
//! in the core group's form, and `events.k8s.io` shows them under its own names of the fields.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    registry::{Resource, Rules},
    status::Status,
    store::Object,
};

/// Stored name and `events.k8s.io` name of the fields that differ.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An object's JSON as this resource serves it; mostly the stored bytes themselves.
pub(crate) fn served_bytes(resource: &Resource, object: &Object) -> Bytes {
    match resource.reads_as_stored(object) {
        true => object.bytes.clone(),
        false => served(resource, object).to_string().into(),
    }
}

/// An object as this resource serves it.
pub(crate) fn served(resource: &Resource, object: &Object) -> Value {
    let mut value = object.value();
    if !resource.reads_as_stored(object) {
        value["apiVersion"] = resource.api_version().into();
        if resource.rules == Rules::Event && resource.group == "events.k8s.io" {
            rename(&mut value, |(stored, served)| (stored, served));
        }
        if resource.is_custom() {
            resource.schema.default(&mut value);
        }
    }
    value
}

/// An object in the form in which it is stored: `apiVersion`, `kind`, `metadata` come first, in the
/// order in which a real server writes them.
pub(super) fn stored(resource: &Resource, mut value: Value) -> Value {
    if resource.rules == Rules::Event && resource.group == "events.k8s.io" {
        rename(&mut value, |(stored, served)| (served, stored));
    }
    let Value::Object(mut fields) = value else { return value };
    let mut ordered = Map::new();
    let version = ("apiVersion".to_owned(), resource.stored_as.clone().into());
    let kind = ("kind".to_owned(), resource.kind.clone().into());
    ordered.extend(match resource.is_custom() {
        true => [version, kind],
        false => [kind, version],
    });
    if let Some(metadata) = fields.remove("metadata") {
        ordered.insert("metadata".to_owned(), metadata);
    }
    for (name, field) in fields {
        ordered.entry(name).or_insert(field);
    }
    Value::Object(ordered)
}

/// An applied configuration says what it is: the kind of the address.
pub(super) fn check_applied_type(value: &Value) -> Result<(), Status> {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() || version.is_empty() {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        return Err(Status::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
        )));
    }
    match value.is_object() {
        true => Ok(()),
        false => Err(Status::bad_request("the body is not an object")),
    }
}

/// How much of a body is shown in an error that is about the whole of it.
const SHOWN_BYTES: usize = 30;

/// A custom object says what it is; the built-in kinds may leave that to the address.
pub(super) fn check_says_kind(
    resource: &Resource,
    value: &Value,
    body: &[u8],
) -> Result<(), Status> {
    let says = |field: &str| value[field].as_str().is_some_and(|text| !text.is_empty());
    if !resource.is_custom() || !value.is_object() || (says("kind") && says("apiVersion")) {
        return Ok(());
    }
    let missing = if says("kind") { "apiVersion" } else { "Kind" };
    let whole = String::from_utf8_lossy(body);
    let shown = match body.len() > SHOWN_BYTES {
        true => format!("{} ...", String::from_utf8_lossy(&body[..SHOWN_BYTES])),
        false => whole.clone().into_owned(),
    };
    Err(Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): Object '{missing}' is missing \
         in '{whole}' ({shown})",
        resource.kind
    )))
}

/// Kind and version must be those of the address; what is left out is filled in.
pub(super) fn check_type(resource: &Resource, value: &mut Value) -> Result<(), Status> {
    let Some(fields) = value.as_object_mut() else {
        return Err(Status::bad_request("the body is not an object"));
    };
    let expected = resource.api_version();
    match fields.get("apiVersion").and_then(Value::as_str) {
        None | Some("") => {
            fields.insert("apiVersion".to_owned(), expected.into());
        }
        Some(version) if version != expected => {
            return Err(Status::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version \
                 ({expected})"
            )));
        }
        Some(_) => {}
    }
    match fields.get("kind").and_then(Value::as_str) {
        None | Some("") => {
            fields.insert("kind".to_owned(), resource.kind.clone().into());
        }
        Some(kind) if kind != resource.kind => {
            return Err(Status::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {}: kind: must be {}",
                resource.version, resource.kind, resource.kind
            )));
        }
        Some(_) => {}
    }
    let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    match metadata.is_object() {
        true => Ok(()),
        false => Err(Status::bad_request("metadata must be an object")),
    }
}

fn rename<'n>(value: &mut Value, direction: impl Fn((&'n str, &'n str)) -> (&'n str, &'n str)) {
    let Some(fields) = value.as_object_mut() else { return };
    for (from, to) in EVENT_FIELDS.map(direction) {
        if let Some(field) = fields.remove(from) {
            fields.insert(to.to_owned(), field);
        }
    }
}
