//! Patches as clients send them, case by case.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Schema;

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn patched(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let mut object = object.clone();
    let schema = Schema::builtin("", "v1", "Pod").unwrap();
    strategic(&schema, &mut object, patch)?;
    Ok(object)
}

#[test]
fn lists_with_a_merge_key_are_merged_by_it() {
    let old = pod(
        json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "E", "value": "v"}]}, {"name": "b"}]}),
    );
    let cases = [
        (
            json!([{"name": "a", "image": "2"}]),
            json!([{"name": "a", "image": "2", "env": [{"name": "E", "value": "v"}]}, {"name": "b"}]),
        ),
        (
            json!([{"name": "c", "x": null}]),
            json!([{"name": "a", "image": "1", "env": [{"name": "E", "value": "v"}]}, {"name": "b"}, {"name": "c"}]),
        ),
        (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b"}])),
        (json!([{"$patch": "replace"}, {"name": "z"}]), json!([{"name": "z"}])),
        (
            json!([{"name": "a", "$patch": "merge", "env": [{"name": "F", "value": "w"}]}]),
            json!([{"name": "a", "image": "1", "env": [{"name": "E", "value": "v"}, {"name": "F", "value": "w"}]}, {"name": "b"}]),
        ),
        (
            json!([{"name": "a", "env": [{"name": "E", "$patch": "delete"}], "image": null}]),
            json!([{"name": "a", "env": []}, {"name": "b"}]),
        ),
    ];
    for (containers, expected) in cases {
        let patch = json!({"spec": {"containers": containers}});
        assert_eq!(patched(&old, &patch).unwrap()["spec"]["containers"], expected, "{patch}");
    }
}

#[test]
fn order_is_that_of_the_patch_and_others_keep_their_place() {
    let old = pod(json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}));
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
        "containers": [{"name": "new"}]}});
    let names: Vec<Value> = patched(&old, &patch).unwrap()["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["server", "b", "new", "a"]);
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}});
    let names: Vec<Value> = patched(&old, &patch).unwrap()["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["server", "b", "a"]);
}

#[test]
fn maps_scalars_and_plain_lists() {
    let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]},
        "spec": {"nodeSelector": {"a": "b"}, "volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "args": ["1", "2"]}]}});
    let cases = [
        (
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
            "/metadata/labels",
            json!({"b": "2", "c": "3"}),
        ),
        (
            json!({"metadata": {"finalizers": ["y", "z"]}}),
            "/metadata/finalizers",
            json!(["x", "y", "z"]),
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}),
            "/metadata/finalizers",
            json!(["y"]),
        ),
        (
            json!({"metadata": {"labels": {"$patch": "replace", "z": "9"}}}),
            "/metadata/labels",
            json!({"z": "9"}),
        ),
        (json!({"metadata": {"labels": {"$patch": "delete"}}}), "/metadata/labels", json!({})),
        (
            json!({"spec": {"containers": [{"name": "c", "args": ["3"]}]}}),
            "/spec/containers/0/args",
            json!(["3"]),
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}}),
            "/spec/volumes/0",
            json!({"name": "v", "secret": {"secretName": "s"}}),
        ),
        (json!({"spec": {"nodeSelector": null}}), "/spec/nodeSelector", json!(null)),
    ];
    for (patch, pointer, expected) in cases {
        let new = patched(&old, &patch).unwrap();
        assert_eq!(new.pointer(pointer).cloned().unwrap_or_default(), expected, "{patch}");
    }
}

#[test]
fn bad_strategic_patches_are_refused() {
    let old = pod(json!({"containers": [{"name": "a"}]}));
    for patch in [
        json!([]),
        json!({"$patch": "burn"}),
        json!({"spec": {"containers": [{"image": "x"}]}}),
        json!({"spec": {"containers": ["x"]}}),
        json!({"spec": {"$retainKeys": "x"}}),
        json!({"spec": {"$setElementOrder/containers": "x"}}),
    ] {
        assert!(matches!(patched(&old, &patch), Err(PatchError::Senseless(_))), "{patch}");
    }
}

#[test]
fn json_patches_are_all_or_nothing() {
    let mut object = json!({"a": 1});
    json(
        &mut object,
        &json!([{"op": "add", "path": "/b", "value": 2}, {"op": "remove", "path": "/a"}]),
    )
    .unwrap();
    assert_eq!(object, json!({"b": 2}));
    let error = json(
        &mut object,
        &json!([{"op": "add", "path": "/c", "value": 2}, {"op": "test", "path": "/b", "value": 3}]),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "the server rejected our request due to an error in our request");
    assert_eq!(object, json!({"b": 2}));
    assert!(matches!(json(&mut object, &json!({"op": "add"})), Err(PatchError::Malformed(_))));
}

#[test]
fn json_patches_have_limits() {
    let mut object = json!({"a": "x".repeat(1024)});
    let many: Vec<Value> =
        (0..10_001).map(|_| json!({"op": "test", "path": "/a", "value": 1})).collect();
    assert!(matches!(json(&mut object, &many.into()), Err(PatchError::TooLarge(_))));
    // Each copy into the deepest place doubles the depth: to read or drop the last would end the
    // thread, for want of stack.
    let mut nested = json!({"a": {"a": {}}});
    let place = |levels: usize| "/a".repeat(levels + 1);
    let deeper: Vec<Value> =
        (1..16).map(|n| json!({"op": "copy", "from": "/a", "path": place(1 << n)})).collect();
    assert!(matches!(json(&mut nested, &deeper.into()), Err(PatchError::TooLarge(_))));
    let mut list = json!(vec![0; 100_000]);
    let shifts: Vec<Value> =
        (0..1000).map(|_| json!({"op": "add", "path": "/0", "value": 1})).collect();
    assert!(matches!(json(&mut list, &shifts.into()), Err(PatchError::TooLarge(_))));
    // Each copy of the whole doubles it.
    let bomb: Vec<Value> =
        (0..20).map(|n| json!({"op": "copy", "from": "", "path": format!("/k{n}")})).collect();
    assert!(matches!(json(&mut object, &bomb.into()), Err(PatchError::TooLarge(_))));
}

#[test]
fn merge_patch_follows_the_rfc() {
    let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1]});
    merge(&mut object, &json!({"a": {"b": null, "d": {"e": null}}, "l": [2]})).unwrap();
    assert_eq!(object, json!({"a": {"c": 2, "d": {}}, "l": [2]}));
}

proptest! {
    #[test]
    fn strategic_never_panics(text in "\\{\"spec\":\\{(\"(containers|volumes|\\$setElementOrder/containers|\\$retainKeys)\":\\[(\\{\"(name|\\$patch)\":(\"a\"|\"delete\"|null|1)\\})?\\],?)?\\}\\}") {
        if let Ok(patch) = serde_json::from_str::<Value>(&text) {
            let _ = patched(&pod(json!({"containers": [{"name": "a"}]})), &patch);
        }
    }
}
