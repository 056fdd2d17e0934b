//! Patches of all four forms.

use std::collections::BTreeMap;

use json_patch::PatchOperation;
use serde_json::{Map, Value, json};

use super::{assert_readable, documents, schemas::SCHEMAS};
use crate::{patch, ssa};

/// An object and a merge patch: as RFC 7386 writes it, and the same when done twice.
pub(super) fn merge(input: &[u8]) {
    let Some([object, patch]) = documents(input) else { return };
    let mut once = object.clone();
    if patch::merge(&mut once, &patch).is_err() {
        return assert!(!patch.is_object(), "{patch}");
    }
    assert_eq!(once, merged(Some(object), &patch));
    let mut twice = once.clone();
    assert!(patch::merge(&mut twice, &patch).is_ok() && twice == once);
    assert_readable(&once);
}

/// The algorithm in section 2 of the RFC.
fn merged(target: Option<Value>, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = match target {
        Some(Value::Object(target)) => target,
        _ => Map::new(),
    };
    for (name, value) in patch {
        let old = target.remove(name);
        if !value.is_null() {
            target.insert(name.clone(), merged(old, value));
        }
    }
    Value::Object(target)
}

/// An object and a JSON patch: what the library makes of it as a whole, within our limits, but that
/// to replace a field that is not there adds it; a patch that fails changes nothing.
pub(super) fn json(input: &[u8]) {
    let Some([object, patch]) = documents(input) else { return };
    let mut ours = object.clone();
    match patch::json(&mut ours, &patch) {
        Ok(()) => {
            assert_readable(&ours);
            let operations: json_patch::Patch = serde_json::from_value(patch).unwrap();
            let mut theirs = object;
            if let Err(refused) = json_patch::patch(&mut theirs, &operations) {
                let replaces = |operation: &_| matches!(operation, PatchOperation::Replace(_));
                return assert!(operations.0.iter().any(replaces), "{refused}");
            }
            assert_eq!(ours, theirs);
        }
        Err(_) => assert_eq!(ours, object),
    }
}

/// A schema's name, an object and a strategic merge patch, which does not grow.
pub(super) fn strategic(input: &[u8]) {
    let Some([kind, object, patch]) = documents(input) else { return };
    let Some(schema) = SCHEMAS.get(kind.as_str().unwrap_or_default()) else { return };
    let mut once = object.clone();
    if patch::strategic(schema, &mut once, &patch).is_err() {
        return assert_eq!(once, object);
    }
    assert_readable(&once);
    let length = |value: &Value| value.to_string().len();
    assert!(length(&once) <= length(&object) + length(&patch), "{once}");
    if patch.to_string().contains("\"$") {
        return;
    }
    // It may not be possible again, or do more: a new list is taken as it is, without a look at
    // keys that are missing or there twice. Then it has settled.
    let again = |object: &Value| {
        let mut patched = object.clone();
        patch::strategic(schema, &mut patched, &patch).is_ok().then_some(patched)
    };
    let Some(twice) = again(&once) else { return };
    if let Some(thrice) = again(&twice) {
        assert_eq!(thrice, twice);
    }
}

/// A schema's name, the live object and an applied one: what is applied is there and owned, and
/// applying it again changes nothing.
pub(super) fn apply(input: &[u8]) {
    let Some([kind, live, applied]) = documents(input) else { return };
    let Some(schema) = SCHEMAS.get(kind.as_str().unwrap_or_default()) else { return };
    if ![&live, &applied].iter().all(|object| object["metadata"].is_object()) {
        return;
    }
    let writer = ssa::Writer {
        manager: "me",
        api_version: "v1",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    };
    // Without force it may be a conflict.
    let _ = ssa::apply(schema, Some(&live), &applied, &writer, false);
    let Ok(once) = ssa::apply(schema, Some(&live), &applied, &writer, true) else { return };
    let twice = ssa::apply(schema, Some(&once), &applied, &writer, false);
    let twice = twice.expect("nobody else owns what I have just taken");
    // An object that nobody owns anything of is, as in Kubernetes, one that was never tracked.
    if once["metadata"].get("managedFields").is_some() {
        assert_eq!(sorted(&twice), sorted(&once));
    }
    let mut updated = once.clone();
    updated["metadata"]["labels"] = json!({"a": "b"});
    let other = ssa::Writer { manager: "other", ..writer };
    ssa::track_update(schema, Some(&once), &mut updated, &other);
    assert_readable(&updated);
}

/// Without the order of fields and managers, which says nothing.
fn sorted(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(Value::Array(entries)) = object["metadata"].get_mut("managedFields") {
        let by_text: BTreeMap<String, Value> =
            std::mem::take(entries).into_iter().map(|e| (e.to_string(), e)).collect();
        entries.extend(by_text.into_values());
    }
    object.sort_all_objects();
    object
}
