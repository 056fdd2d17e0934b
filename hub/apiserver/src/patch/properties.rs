//! Patches made from two objects turn the one into the other.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{json, merge, strategic};
use crate::schema::{Node, Schema};

/// Any JSON of small shape.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("JSON has no others", |n| {
            serde_json::Number::from_f64(n).map(Value::Number)
        }),
        "[a~/ü\"\\\\]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc~/]{0,2}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// As [`value`], but what a merge patch can make: it cannot set null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

fn merge_difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let mut patch: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in new.iter().filter(|(name, value)| old.get(*name) != Some(value)) {
        let change = match old.get(name) {
            Some(old) => merge_difference(old, value),
            None => value.clone(),
        };
        patch.insert(name.clone(), change);
    }
    Value::Object(patch)
}

/// A pod's parts that strategic merge treats in different ways.
fn pod() -> impl Strategy<Value = Value> {
    let image = || prop::sample::select(vec!["i", "j"]);
    let variable = |(name, value)| json!({"name": name, "value": value});
    let env = prop::collection::btree_map("[EFG]", "[uvw]", 0..3);
    let env = env.prop_map(move |env| env.into_iter().map(variable).collect::<Vec<_>>());
    let container =
        |(name, (image, env))| json!({"name": name, "image": image, "env": Value::Array(env)});
    let containers = prop::collection::btree_map("[abcd]", (image(), env.prop_shuffle()), 0..4);
    let containers =
        containers.prop_map(move |map| map.into_iter().map(container).collect::<Vec<_>>());
    let containers = containers.prop_shuffle();
    let text = prop::collection::btree_map("[kl]", "[vw]", 0..3);
    let finalizers = prop::collection::btree_set("[fgh]", 0..3);
    let finalizers = finalizers.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle();
    let tolerations = prop::collection::vec("[tu]".prop_map(|key| json!({"key": key})), 0..3);
    (containers, text, finalizers, tolerations, prop::option::of(image())).prop_map(
        |(containers, labels, finalizers, tolerations, node)| {
            let mut pod = json!({
                "metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers, "tolerations": tolerations},
            });
            if let Some(node) = node {
                pod["spec"]["nodeName"] = node.into();
            }
            pod
        },
    )
}

/// What `kubectl apply` of a client would send.
fn strategic_difference(node: Option<&Node>, old: &Value, new: &Value) -> Value {
    let (old, new) = (old.as_object().unwrap(), new.as_object().unwrap());
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let mut patch: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in new.iter().filter(|(name, value)| old.get(*name) != Some(value)) {
        let node = node.and_then(|node| node.field(name));
        match (old.get(name), value) {
            (Some(old @ Value::Object(_)), Value::Object(_)) => {
                patch.insert(name.clone(), strategic_difference(node, old, value));
            }
            (Some(Value::Array(old)), Value::Array(new)) if node.is_some_and(|n| n.patch.merge) => {
                list_difference(node.unwrap(), name, (old, new), &mut patch);
            }
            (_, value) => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

fn list_difference(
    node: &Node,
    name: &str,
    (old, new): (&[Value], &[Value]),
    patch: &mut Map<String, Value>,
) {
    let order = match &node.merge_key {
        Some(key) => new.iter().map(|item| json!({key: item[key]})).collect(),
        None => new.to_vec(),
    };
    patch.insert(format!("$setElementOrder/{name}"), order.into());
    let Some(key) = &node.merge_key else {
        let gone = old.iter().filter(|item| !new.contains(item)).cloned().collect();
        patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone);
        let added: Vec<Value> = new.iter().filter(|item| !old.contains(item)).cloned().collect();
        patch.insert(name.to_owned(), added.into());
        return;
    };
    let of = |list: &[Value], item: &Value| list.iter().find(|o| o[key] == item[key]).cloned();
    let mut items: Vec<Value> = old
        .iter()
        .filter(|item| of(new, item).is_none())
        .map(|item| json!({key: item[key], "$patch": "delete"}))
        .collect();
    items.extend(new.iter().filter(|item| !old.contains(item)).map(|item| match of(old, item) {
        Some(old) => {
            let mut change = strategic_difference(node.item(), &old, item);
            change[key] = item[key].clone();
            change
        }
        None => item.clone(),
    }));
    patch.insert(name.to_owned(), items.into());
}

proptest! {
    #[test]
    fn a_merge_patch_makes_the_one_the_other(old in value(), new in value()) {
        let (old, new) = (without_nulls(json!({"x": old})), without_nulls(json!({"x": new})));
        let mut object = old.clone();
        merge(&mut object, &merge_difference(&old, &new)).unwrap();
        prop_assert_eq!(object, new);
    }

    #[test]
    fn a_merge_patch_settles_at_once(object in value(), patch in value()) {
        let (mut once, patch) = (json!({"x": object}), json!({"x": patch}));
        merge(&mut once, &patch).unwrap();
        let mut twice = once.clone();
        merge(&mut twice, &patch).unwrap();
        prop_assert_eq!(&once, &twice);
        merge(&mut twice, &json!({})).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn a_json_patch_makes_the_one_the_other(old in value(), new in value()) {
        let patch = serde_json::to_value(json_patch::diff(&old, &new)).unwrap();
        let mut object = old;
        json(&mut object, &patch).unwrap();
        prop_assert_eq!(object, new);
    }

    #[test]
    fn a_strategic_patch_makes_the_one_the_other(old in pod(), new in pod()) {
        let schema = Schema::builtin("", "v1", "Pod").unwrap();
        let patch = strategic_difference(Some(schema.root()), &old, &new);
        let mut object = old;
        strategic(&schema, &mut object, &patch).unwrap();
        prop_assert_eq!(object, new, "{}", patch);
    }
}
