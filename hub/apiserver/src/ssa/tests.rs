//! Server-side apply: who owns which field after each write.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn schema() -> Schema {
    Schema::from_crd(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"}, "b": {"type": "integer"},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "plain": {"type": "array", "items": {"type": "integer"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "x": {"type": "integer"}, "y": {"type": "integer"}}}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "proto"],
                "items": {"type": "object", "required": ["port"], "properties": {
                    "port": {"type": "integer"}, "proto": {"type": "string", "default": "TCP"}, "x": {"type": "integer"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
        }}, "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}}),
        "schema",
    )
    .unwrap_or_else(|_| panic!("the schema of the tests is structural"))
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "lab/v1", subresource: "", now: "2026-01-01T00:00:00Z" }
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "lab/v1", "kind": "W", "metadata": {"name": "w"}, "spec": spec})
}

fn applied(live: Option<&Value>, manager: &str, spec: Value) -> Result<Value, ApplyError> {
    apply(&schema(), live, &object(spec), &writer(manager), false)
}

fn forced(live: Option<&Value>, manager: &str, spec: Value) -> Value {
    apply(&schema(), live, &object(spec), &writer(manager), true).unwrap()
}

fn updated(live: Option<&Value>, manager: &str, spec: Value) -> Value {
    let mut new = object(spec);
    if let Some(fields) = live.and_then(|l| l["metadata"].get("managedFields")) {
        new["metadata"]["managedFields"] = fields.clone();
    }
    track_update(&schema(), live, &mut new, &writer(manager));
    new
}

/// The fields of a manager in an object.
fn owned(object: &Value, manager: &str, operation: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let found = entries.iter().find(|e| e["manager"] == manager && e["operation"] == operation);
    found.map(|e| e["fieldsV1"].clone()).unwrap_or_default()
}

#[test]
fn apply_owns_what_it_states_and_update_what_it_changes() {
    let one = applied(None, "m1", json!({"a": 1, "list": [{"name": "x", "x": 1}], "set": ["p"]}))
        .unwrap();
    assert_eq!(
        owned(&one, "m1", "Apply"),
        json!({"f:spec": {"f:a": {},
            "f:list": {"k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:x": {}}},
            "f:set": {"v:\"p\"": {}}}})
    );
    let two = updated(None, "me", json!({"a": 1, "b": 2}));
    assert_eq!(owned(&two, "me", "Update"), json!({"f:spec": {".": {}, "f:a": {}, "f:b": {}}}));
    let entry = &two["metadata"]["managedFields"][0];
    assert_eq!(entry["apiVersion"], "lab/v1");
    assert_eq!(entry["fieldsType"], "FieldsV1");
}

#[test]
fn a_conflict_names_the_manager_and_the_field() {
    let live = applied(None, "m1", json!({"a": 1, "b": 1})).unwrap();
    let error = applied(Some(&live), "m2", json!({"a": 2})).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"m1\": .spec.a");
    let error = applied(Some(&live), "m2", json!({"a": 2, "b": 3})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"m1\":\n- .spec.a\n- .spec.b"
    );
    let live = updated(None, "kubectl", json!({"list": [{"name": "x", "x": 1}]}));
    let error = applied(Some(&live), "m2", json!({"list": [{"name": "x", "x": 2}]})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl\" using lab/v1: .spec.list[name=\"x\"].x"
    );
}

#[test]
fn force_takes_the_field_and_same_values_are_shared() {
    let live = applied(None, "m1", json!({"a": 1, "b": 1})).unwrap();
    let shared = applied(Some(&live), "m2", json!({"a": 1})).unwrap();
    assert_eq!(owned(&shared, "m1", "Apply"), json!({"f:spec": {"f:a": {}, "f:b": {}}}));
    assert_eq!(owned(&shared, "m2", "Apply"), json!({"f:spec": {"f:a": {}}}));
    let taken = forced(Some(&live), "m2", json!({"a": 2}));
    assert_eq!(taken["spec"], json!({"a": 2, "b": 1}));
    assert_eq!(owned(&taken, "m1", "Apply"), json!({"f:spec": {"f:b": {}}}));
}

#[test]
fn fields_no_longer_applied_are_removed_unless_owned() {
    let live = applied(None, "m1", json!({"a": 1, "b": 1, "map": {"k": "v", "l": "w"}})).unwrap();
    let gone = applied(Some(&live), "m1", json!({"a": 1, "map": {"k": "v"}})).unwrap();
    assert_eq!(gone["spec"], json!({"a": 1, "map": {"k": "v"}}));
    let shared = applied(Some(&live), "m2", json!({"b": 1, "map": {"l": "w"}})).unwrap();
    let kept = applied(Some(&shared), "m1", json!({"a": 1})).unwrap();
    assert_eq!(kept["spec"], json!({"a": 1, "b": 1, "map": {"l": "w"}}));
    let empty = applied(Some(&live), "m1", json!({})).unwrap();
    assert_eq!(empty["spec"], json!({}));
}

#[test]
fn items_of_others_survive_in_keyed_lists_and_sets() {
    let live = applied(
        None,
        "m1",
        json!({"list": [{"name": "x", "x": 1}, {"name": "y"}], "set": ["a", "b"]}),
    )
    .unwrap();
    let both = applied(
        Some(&live),
        "m2",
        json!({"list": [{"name": "z"}, {"name": "x", "y": 2}], "set": ["c"]}),
    )
    .unwrap();
    assert_eq!(
        both["spec"]["list"],
        json!([{"name": "z"}, {"name": "x", "x": 1, "y": 2}, {"name": "y"}])
    );
    assert_eq!(both["spec"]["set"], json!(["a", "b", "c"]));
    // m1 lets go of x: the item stays for m2, without what was only m1's.
    let left = applied(Some(&both), "m1", json!({"list": [{"name": "y"}], "set": ["b"]})).unwrap();
    assert_eq!(left["spec"]["list"], json!([{"name": "z"}, {"name": "x", "y": 2}, {"name": "y"}]));
    assert_eq!(left["spec"]["set"], json!(["b", "c"]));
}

#[test]
fn defaulted_keys_identify_items() {
    let live =
        applied(None, "m1", json!({"ports": [{"port": 1, "proto": "TCP", "x": 1}]})).unwrap();
    let same = applied(Some(&live), "m2", json!({"ports": [{"port": 1, "x": 1}]})).unwrap();
    assert_eq!(same["spec"]["ports"], json!([{"port": 1, "proto": "TCP", "x": 1}]));
    let keys = json!("k:{\"port\":1,\"proto\":\"TCP\"}");
    assert!(owned(&same, "m2", "Apply")["f:spec"]["f:ports"].get(keys.as_str().unwrap()).is_some());
}

#[test]
fn atomic_values_are_owned_as_a_whole() {
    let live = applied(None, "m1", json!({"atom": {"k": "v"}, "plain": [1]})).unwrap();
    assert_eq!(owned(&live, "m1", "Apply"), json!({"f:spec": {"f:atom": {}, "f:plain": {}}}));
    assert!(matches!(
        applied(Some(&live), "m2", json!({"atom": {"l": "w"}})),
        Err(ApplyError::Conflicts(_))
    ));
    assert_eq!(forced(Some(&live), "m2", json!({"plain": [2]}))["spec"]["plain"], json!([2]));
}

#[test]
fn ambiguous_configurations_are_refused() {
    for spec in [
        json!({"list": [{"x": 1}]}),
        json!({"list": [{"name": "a"}, {"name": "a"}]}),
        json!({"set": ["a", "a"]}),
    ] {
        assert!(matches!(applied(None, "m1", spec), Err(ApplyError::Invalid(_))));
    }
    let error = applied(None, "m1", json!({"list": [{"x": 1}]})).unwrap_err().to_string();
    assert!(error.contains(".spec.list: element 0: associative list with keys has an element that omits key field \"name\""), "{error}");
}

#[test]
fn updates_move_ownership_and_forget_what_is_removed() {
    let live = applied(None, "m1", json!({"a": 1, "b": 1})).unwrap();
    let new = updated(Some(&live), "edit", json!({"a": 2}));
    assert_eq!(owned(&new, "m1", "Apply"), Value::Null);
    assert_eq!(owned(&new, "edit", "Update"), json!({"f:spec": {"f:a": {}}}));
    let same = updated(Some(&new), "other", json!({"a": 2}));
    assert_eq!(same["metadata"], new["metadata"]);
}

#[test]
fn subresources_are_managers_of_their_own() {
    let live = applied(None, "m1", json!({"a": 1})).unwrap();
    let mut new = live.clone();
    new["status"] = json!({"phase": "ok"});
    let status = Writer { subresource: "status", ..writer("m1") };
    track_update(&schema(), Some(&live), &mut new, &status);
    let entry = &new["metadata"]["managedFields"][1];
    assert_eq!(entry["subresource"], "status");
    assert_eq!(entry["fieldsV1"], json!({"f:status": {".": {}, "f:phase": {}}}));
    assert_eq!(owned(&new, "m1", "Apply"), json!({"f:spec": {"f:a": {}}}));
}

#[test]
fn managed_fields_can_be_given_reset_and_begun_anew() {
    let live = applied(None, "m1", json!({"a": 1})).unwrap();
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    track_update(&schema(), Some(&live), &mut new, &writer("x"));
    assert!(new["metadata"].get("managedFields").is_none());
    let again = updated(Some(&new), "x", json!({"a": 5}));
    assert!(again["metadata"].get("managedFields").is_none());
    let error = applied(Some(&new), "m2", json!({"a": 2})).unwrap_err().to_string();
    assert!(error.contains("conflict with \"before-first-apply\" using lab/v1"), "{error}");
    let mut nonsense = live.clone();
    nonsense["metadata"]["managedFields"] = json!([{"manager": "q", "operation": "Apply"}]);
    track_update(&schema(), Some(&live), &mut nonsense, &writer("x"));
    assert_eq!(nonsense["metadata"], live["metadata"]);
}

#[test]
fn many_updaters_are_merged() {
    let mut live = updated(None, "u0", json!({"map": {"k0": "v"}}));
    for n in 1..15 {
        let mut spec = live["spec"].clone();
        spec["map"][format!("k{n}")] = json!("v");
        live = updated(Some(&live), &format!("u{n}"), spec);
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert!(entries.len() <= 11, "{}", entries.len());
    assert!(entries.iter().any(|e| e["manager"] == "ancient-changes"));
}

#[test]
fn time_changes_only_with_a_change() {
    let live = applied(None, "m1", json!({"a": 1})).unwrap();
    let later = Writer { now: "2027-01-01T00:00:00Z", ..writer("m1") };
    let same = apply(&schema(), Some(&live), &object(json!({"a": 1})), &later, false).unwrap();
    assert_eq!(same, live);
    let new = apply(&schema(), Some(&live), &object(json!({"a": 2})), &later, false).unwrap();
    assert_eq!(new["metadata"]["managedFields"][0]["time"], "2027-01-01T00:00:00Z");
}

#[test]
fn kubectl_can_migrate_from_client_side_apply() {
    // kubectl applies as kubectl-last-applied, then drops its old Update entry by a JSON patch.
    let live = updated(None, "kubectl-client-side-apply", json!({"a": 1, "b": 1}));
    let taken = forced(Some(&live), "kubectl", json!({"a": 1}));
    assert_eq!(taken["spec"], json!({"a": 1, "b": 1}));
    let mut patched = taken.clone();
    let fields = taken["metadata"]["managedFields"].as_array().unwrap().clone();
    let kept: Vec<Value> = fields.into_iter().filter(|e| e["operation"] == "Apply").collect();
    patched["metadata"]["managedFields"] = kept.into();
    track_update(&schema(), Some(&taken), &mut patched, &writer("kubectl"));
    assert_eq!(owned(&patched, "kubectl-client-side-apply", "Update"), Value::Null);
}

#[test]
fn built_in_kinds_are_tracked_by_their_keys() {
    let schema = Schema::builtin("batch", "v1", "Job").unwrap();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "labels": {"a": "b"}, "uid": "u"},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "E", "value": "v"}]}]}}}});
    let new = apply(&schema, None, &job, &Writer { api_version: "batch/v1", ..writer("m") }, false)
        .unwrap();
    let fields = &new["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(fields["f:metadata"], json!({"f:labels": {"f:a": {}}}));
    let container = &fields["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert!(container["f:env"].get("k:{\"name\":\"E\"}").is_some(), "{fields}");
}

/// The same with lists sorted.
fn in_order(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for name in ["list", "set"] {
        if let Some(items) = spec.get_mut(name).and_then(Value::as_array_mut) {
            items.sort_by_key(ToString::to_string);
        }
    }
    spec
}

#[test]
fn fields_of_a_server_side_object_stay_through_an_update_by_its_applier() {
    // The same manager may apply and update: two entries, as in Kubernetes.
    let live = applied(None, "m", json!({"a": 1})).unwrap();
    let new = updated(Some(&live), "m", json!({"a": 1, "b": 2}));
    assert_eq!(owned(&new, "m", "Apply"), json!({"f:spec": {"f:a": {}}}));
    assert_eq!(owned(&new, "m", "Update"), json!({"f:spec": {"f:b": {}}}));
    let again = applied(Some(&new), "m", json!({"a": 1})).unwrap();
    assert_eq!(again["spec"], json!({"a": 1, "b": 2}));
}

#[test]
fn metadata_survives_its_last_label() {
    let mut config = object(json!({"a": 1}));
    config["metadata"]["labels"] = json!({"l": "v"});
    let mut live = apply(&schema(), None, &config, &writer("m"), false).unwrap();
    live["metadata"]["uid"] = json!("u");
    live["metadata"]["finalizers"] = json!(["f"]);
    let new = applied(Some(&live), "m", json!({})).unwrap();
    assert_eq!(
        new["metadata"],
        json!({"name": "w", "uid": "u", "finalizers": ["f"],
        "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "lab/v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]})
    );
    assert_eq!(new["kind"], "W");
}

#[test]
fn free_form_fields_are_owned_one_by_one() {
    let live = applied(None, "m1", json!({"free": {"a": {"x": 1}, "l": [1, 2]}})).unwrap();
    let both = applied(Some(&live), "m2", json!({"free": {"a": {"y": 2}}})).unwrap();
    assert_eq!(both["spec"]["free"], json!({"a": {"x": 1, "y": 2}, "l": [1, 2]}));
    let error = applied(Some(&both), "m2", json!({"free": {"l": [3]}})).unwrap_err().to_string();
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"m1\": .spec.free.l");
    let left = applied(Some(&both), "m1", json!({})).unwrap();
    assert_eq!(left["spec"], json!({"free": {"a": {"y": 2}}}));
}

fn any_spec() -> impl Strategy<Value = Value> {
    let item = ("[xyz]", proptest::option::of(0..3)).prop_map(|(name, x)| match x {
        Some(x) => json!({"name": name, "x": x}),
        None => json!({"name": name}),
    });
    let list = proptest::collection::vec(item, 1..3).prop_map(|mut items| {
        let mut seen = Vec::new();
        items.retain(|i| {
            !seen.contains(&i["name"]) && {
                seen.push(i["name"].clone());
                true
            }
        });
        items
    });
    let map = proptest::collection::btree_map("[kl]", "[vw]", 0..3);
    let set = proptest::collection::btree_set("[ab]", 1..3);
    (
        proptest::option::of(0..3),
        proptest::option::of(list),
        proptest::option::of(map.clone()),
        proptest::option::of(set),
        proptest::option::of(map),
    )
        .prop_map(|(a, list, map, set, free)| {
            let mut spec = json!({});
            let mut put = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    spec[name] = value;
                }
            };
            put("a", a.map(|a| json!(a)));
            put("list", list.map(Value::from));
            put("map", map.map(|m| json!(m)));
            put("set", set.map(|s| json!(s)));
            put("free", free.map(|f| json!(f)));
            spec
        })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(first in any_spec(), second in any_spec()) {
        let live = applied(None, "m1", first).unwrap();
        let once = forced(Some(&live), "m2", second.clone());
        let twice = forced(Some(&once), "m2", second);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn no_field_of_another_manager_is_lost(mine in any_spec(), next in any_spec(), theirs in any_spec()) {
        let live = applied(None, "me", mine).unwrap();
        let live = forced(Some(&live), "them", theirs.clone());
        // Whatever I let go of, everything they state stays, unless my apply is a conflict.
        if let Ok(after) = applied(Some(&live), "me", next) {
            let again = applied(Some(&after), "them", theirs);
            prop_assert!(again.is_ok());
            // The order of a list is that of the last apply.
            prop_assert_eq!(in_order(&again.unwrap()["spec"]), in_order(&after["spec"]));
        }
    }

    #[test]
    fn what_was_applied_is_what_is_there(first in any_spec(), second in any_spec()) {
        let live = applied(None, "m", first).unwrap();
        let new = applied(Some(&live), "m", second.clone()).unwrap();
        let fresh = applied(None, "m", second).unwrap();
        prop_assert_eq!(owned(&new, "m", "Apply"), owned(&fresh, "m", "Apply"));
    }

    #[test]
    fn reading_any_managed_fields_never_panics(text in "\\{(\"[fkvi.]:?[a-z{}\\\\\"]{0,4}\":\\{\\},?){0,3}\\}") {
        if let Ok(fields) = serde_json::from_str::<Value>(&text) {
            let _ = set::Set::read(&fields).map(|set| set.paths());
        }
    }
}
