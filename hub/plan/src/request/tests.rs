//! Status: what a pipeline may write, and which patch follows.

use super::*;
use crate::workflow::Scope::{Promise, Resource};

#[test]
fn a_pipeline_may_not_write_what_is_the_hubs() {
    let status = json!({ "message": "a", "conditions": [{ "type": "Mine", "status": "False" }] });
    let hand = |value: Value| merge(&status, value.as_object().unwrap());
    assert!(hand(json!({ "placements": {} })).unwrap_err().contains("\"placements\""));
    assert!(hand(json!({ "conditions": [{ "type": "Reconciled" }] })).is_err());
    let merged = hand(json!({ "url": "x", "conditions": [{ "type": "Mine", "status": "True" }] }));
    let expected =
        json!({ "message": "a", "url": "x", "conditions": [{ "type": "Mine", "status": "True" }] });
    assert_eq!(merged.unwrap(), expected);
}

#[test]
fn the_patch_holds_what_differs_and_nothing_else() {
    let old = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "e": [1] });
    assert_eq!(patch(&old, &old), None);
    let new = json!({ "a": 1, "b": { "c": 3 }, "e": [1, 2] });
    let expected = json!({ "b": { "c": 3, "d": null }, "e": [1, 2] });
    assert_eq!(patch(&old, &new).map(Value::Object), Some(expected));
}

#[test]
fn what_is_the_hubs_is_told_apart_from_what_is_the_pipelines() {
    let old = json!({ "message": "a", "url": "x", "workflows": 1, "conditions": [
        { "type": "Reconciled", "status": "False" }, { "type": "Mine", "status": "False" },
    ] });
    let change = |pointer: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        new
    };
    assert_eq!(touched(Resource, &old, &old), None);
    assert_eq!(touched(Resource, &old, &change("/url", json!("y"))), None);
    assert_eq!(touched(Resource, &old, &change("/conditions/1/status", json!("True"))), None);
    let told = touched(Resource, &old, &change("/workflows", json!(2)));
    assert_eq!(told.as_deref(), Some("status.workflows"));
    let told = touched(Resource, &old, &change("/conditions/0/status", json!("True"))).unwrap();
    assert!(told.contains("the condition Reconciled"), "{told}");
    assert!(touched(Resource, &old, &change("/conditions", json!([]))).is_some());
    assert!(touched(Resource, &old, &Value::Null).is_some());
    // Of a Promise's status, nothing but the message is a pipeline's.
    assert_eq!(touched(Promise, &old, &change("/message", json!("b"))), None);
    assert!(touched(Promise, &old, &change("/url", json!("y"))).is_some());
}
