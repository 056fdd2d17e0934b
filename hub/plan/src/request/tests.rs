//! Status: what a pipeline may write, and which patch follows.

use super::*;

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
