//! Walks over objects by schema: which fields there are, which differ, merging and removing.
//!
//! What a field is, is decided as in structured-merge-diff: objects are taken apart unless the
//! schema calls them atomic, lists only if their items have an identity.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{Element, Set};
use crate::{
    field,
    schema::{ListKind, Node, Shape},
};

/// How a value is taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One value.
    Leaf,
    /// Fields of its own.
    Map,
    /// Items with an identity.
    List,
}

fn form(node: Option<&Node>, value: &Value) -> Form {
    let atomic_map = |node: &Node| {
        // In a built-in kind, an object of unknown structure is one value.
        node.atomic_map || (node.is_struct && node.is_untyped())
    };
    match value {
        Value::Object(_) if !node.is_some_and(atomic_map) => Form::Map,
        Value::Array(_) if node.is_some_and(|n| n.list != ListKind::Atomic) => Form::List,
        _ => Form::Leaf,
    }
}

/// The form that both sides have, if they can be compared part by part. Two empty sides are a
/// leaf, so that empty and absent stay different.
fn shared_form(node: Option<&Node>, a: Option<&Value>, b: Option<&Value>) -> Form {
    let forms: Vec<Form> = [a, b].into_iter().flatten().map(|value| form(node, value)).collect();
    let all_empty = [a, b].into_iter().flatten().all(is_empty);
    match forms.as_slice() {
        _ if all_empty => Form::Leaf,
        [one] => *one,
        [one, two] if one == two => *one,
        _ => Form::Leaf,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

/// The identity of an item of a list. A missing key counts as its default, else as null.
fn element(node: Option<&Node>, item: &Value) -> Element {
    let Some(ListKind::Map(keys)) = node.map(|node| &node.list) else {
        return Element::value(item);
    };
    let item_node = node.and_then(Node::item);
    let key = |key: &'_ String| -> Option<Value> {
        let default = || item_node?.field(key)?.default.clone();
        item.get(key).cloned().or_else(default)
    };
    let values: BTreeMap<&str, Value> =
        keys.iter().map(|k| (k.as_str(), key(k).unwrap_or_default())).collect();
    Element::keys(&values.iter().map(|(k, v)| (*k, v)).collect())
}

/// Mistakes in an applied configuration that make ownership undecidable: items without their
/// keys, items twice.
pub(super) fn check(node: Option<&Node>, value: &Value, path: &str) -> Result<(), String> {
    match (form(node, value), value) {
        (Form::Map, Value::Object(map)) => map.iter().try_for_each(|(name, value)| {
            check(node.and_then(|n| n.field(name)), value, &field::extended(path, [".", name, ""]))
        }),
        (Form::List, Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (at, item) in items.iter().enumerate() {
                missing_key(node, item).map_or(Ok(()), |key| {
                    Err(format!(
                        "{path}: element {at}: associative list with keys has an element that \
                         omits key field \"{key}\" (and doesn't have default value)"
                    ))
                })?;
                let element = element(node, item);
                let shown = element.shown();
                if !seen.insert(element) {
                    return Err(format!("{path}: duplicate entries for key {shown}"));
                }
                check(node.and_then(Node::item), item, &field::extended(path, [&shown, "", ""]))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn missing_key<'a>(node: Option<&'a Node>, item: &Value) -> Option<&'a str> {
    let node = node?;
    let ListKind::Map(keys) = &node.list else { return None };
    let has_default = |key: &String| {
        node.item().and_then(|item| item.field(key)).is_some_and(|field| field.default.is_some())
    };
    let missing = |key: &&String| item.get(key.as_str()).is_none() && !has_default(key);
    keys.iter().find(missing).map(String::as_str)
}

/// The fields that a configuration states.
pub(super) fn fields(node: Option<&Node>, value: &Value) -> Set {
    let mut set = Set::default();
    match (form(node, value), value) {
        (Form::Map, Value::Object(map)) => {
            for (name, value) in map {
                let field = node.and_then(|n| n.field(name));
                let mut child = fields(field, value);
                let declared = node.is_some_and(|node| node.properties.contains_key(name));
                let empty_map = value.as_object().is_some_and(Map::is_empty);
                child.member |= empty_map || !declared;
                set.put(Element::field(name), child);
            }
        }
        (Form::List, _) => {
            for (element, same) in self::items(node, Some(value)) {
                let mut child = match same.as_slice() {
                    [item] => fields(node.and_then(Node::item), item),
                    // Which of them would be meant?
                    _ => Set::default(),
                };
                child.member = true;
                set.put(element, child);
            }
        }
        _ => set.member = true,
    }
    set
}

/// How one object differs from another.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) changed: Set,
    pub(super) removed: Set,
}

/// Compares `new` with `old`.
pub(super) fn compare(node: Option<&Node>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut out = Difference::default();
    if old == new {
        return out;
    }
    let below = |out: &mut Difference, element: Element, child: Difference| {
        out.changed.put(element.clone(), child.changed);
        out.removed.put(element, child.removed);
    };
    match shared_form(node, old, new) {
        Form::Map => {
            let none = Map::new();
            let old_map = old.and_then(Value::as_object).unwrap_or(&none);
            let new_map = new.and_then(Value::as_object).unwrap_or(&none);
            let names: BTreeSet<&String> = old_map.keys().chain(new_map.keys()).collect();
            let empty = Value::Object(Map::new());
            let is_struct =
                |name: &str| node.is_some_and(|node| node.embedded_structs.contains(name));
            for name in names {
                let field = node.and_then(|n| n.field(name));
                let was = old.filter(|_| is_struct(name)).map(|_| &empty);
                let is = new.filter(|_| is_struct(name)).map(|_| &empty);
                let child = compare(field, old_map.get(name).or(was), new_map.get(name).or(is));
                below(&mut out, Element::field(name), child);
            }
        }
        Form::List => {
            let (old_items, new_items) = (items(node, old), items(node, new));
            let elements: BTreeSet<&Element> = old_items.keys().chain(new_items.keys()).collect();
            for element in elements {
                let child = compare_item(node, old_items.get(element), new_items.get(element));
                below(&mut out, element.clone(), child);
            }
        }
        Form::Leaf if new.is_some() => {
            out.changed.member = true;
            return out;
        }
        Form::Leaf => {
            out.removed.member = true;
            return out;
        }
    }
    out.changed.member |= old.is_none();
    out.removed.member |= new.is_none();
    out
}

type Items<'a> = BTreeMap<Element, Vec<&'a Value>>;

fn slice<'a, 'v>(items: Option<&'a Vec<&'v Value>>) -> &'a [&'v Value] {
    items.map(Vec::as_slice).unwrap_or_default()
}

fn items<'a>(node: Option<&Node>, list: Option<&'a Value>) -> Items<'a> {
    let mut found = Items::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        found.entry(element(node, item)).or_default().push(item);
    }
    found
}

/// Items that occur more than once are compared as one value.
fn compare_item(
    node: Option<&Node>,
    old: Option<&Vec<&Value>>,
    new: Option<&Vec<&Value>>,
) -> Difference {
    if let ([] | [_], [] | [_]) = (slice(old), slice(new)) {
        let (old, new) = (slice(old).first().copied(), slice(new).first().copied());
        return compare(node.and_then(Node::item), old, new);
    }
    let mut out = Difference::default();
    out.changed.member = new.is_some() && old != new;
    out.removed.member = new.is_none();
    out
}

/// `live` with `applied` merged into it.
pub(super) fn merge(node: Option<&Node>, live: Option<&Value>, applied: &Value) -> Value {
    let Some(live) = live else { return applied.clone() };
    match (form(node, live), form(node, applied), live, applied) {
        (Form::Map, Form::Map, Value::Object(old), Value::Object(new)) => {
            let mut out = old.clone();
            for (name, value) in new {
                let field = node.and_then(|n| n.field(name));
                let merged = merge(field, old.get(name), value);
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Form::List, Form::List, Value::Array(old), Value::Array(new)) => {
            Value::Array(merge_lists(node, old, new))
        }
        // Nothing said about a structure leaves it as it is.
        (Form::Map | Form::List, Form::Leaf, live, Value::Null)
            if node.is_some_and(|n| matches!(n.shape, Shape::Object | Shape::Array)) =>
        {
            live.clone()
        }
        _ => applied.clone(),
    }
}

/// Items keep the order of the applied list; live items of others stay where they were among
/// those that both have.
fn merge_lists(node: Option<&Node>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let key = |item: &Value| element(node, item);
    let live_keys: Vec<Element> = live.iter().map(key).collect();
    let applied_keys: Vec<Element> = applied.iter().map(key).collect();
    let is_applied: BTreeSet<&Element> = applied_keys.iter().collect();
    let mut lives: BTreeMap<&Element, Vec<&Value>> = BTreeMap::new();
    for (key, item) in live_keys.iter().zip(live) {
        lives.entry(key).or_default().push(item);
    }
    // The next item of the applied list that is also live; live items before it come first.
    let mut next_shared = vec![None; applied.len()];
    let mut next = None;
    for (place, key) in next_shared.iter_mut().zip(&applied_keys).rev() {
        next = if lives.contains_key(key) { Some(key) } else { next };
        *place = next;
    }
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let mut merged = BTreeSet::new();
    let (mut left, mut right) = (0, 0);
    let merge_right = |right: usize, out: &mut Vec<Value>, merged: &mut BTreeSet<Element>| {
        let key = &applied_keys[right];
        let old = match slice(lives.get(key)) {
            [one] => Some(*one),
            _ => None,
        };
        out.push(merge(node.and_then(Node::item), old, &applied[right]));
        merged.insert(key.clone());
    };
    while left < live.len() || right < applied.len() {
        if left < live.len() {
            let key = &live_keys[left];
            if !is_applied.contains(key) {
                out.push(live[left].clone());
                left += 1;
                continue;
            }
            let is_next = next_shared.get(right) == Some(&Some(key));
            if merged.contains(key) || !is_next {
                left += 1;
                continue;
            }
            // Applied items up to the shared one, then the shared one itself.
            while applied_keys[right] != *key {
                merge_right(right, &mut out, &mut merged);
                right += 1;
            }
            merge_right(right, &mut out, &mut merged);
            right += 1;
            left += 1;
            continue;
        }
        merge_right(right, &mut out, &mut merged);
        right += 1;
    }
    out
}

/// `value` without the members of `set`. A structure that loses all it had stays, empty: it
/// goes only as a member itself. An item that stays keeps its keys, or it would be another.
pub(super) fn remove(node: Option<&Node>, value: &Value, set: &Set) -> Value {
    match (form(node, value), value) {
        (Form::Map, Value::Object(map)) => {
            let keep = |(name, value): (&String, &Value)| {
                let field = node.and_then(|n| n.field(name));
                let kept = remove_child(field, value, set.child(&Element::field(name)))?;
                Some((name.clone(), kept))
            };
            Value::Object(map.iter().filter_map(keep).collect())
        }
        (Form::List, Value::Array(items)) => {
            let item_node = node.and_then(Node::item);
            let keep = |item: &Value| match set.child(&element(node, item)) {
                Some(below) if !below.member => {
                    let below = below.clone().without(&keys_of(node));
                    Some(remove(item_node, item, &below))
                }
                below => remove_child(item_node, item, below),
            };
            Value::Array(items.iter().filter_map(keep).collect())
        }
        _ => value.clone(),
    }
}

/// The fields that tell items of the list apart, as paths.
fn keys_of(node: Option<&Node>) -> Vec<[&str; 1]> {
    match node.map(|node| &node.list) {
        Some(ListKind::Map(keys)) => keys.iter().map(|key| [key.as_str()]).collect(),
        _ => Vec::new(),
    }
}

fn remove_child(node: Option<&Node>, value: &Value, set: Option<&Set>) -> Option<Value> {
    match set {
        None => Some(value.clone()),
        Some(set) if set.member => None,
        Some(set) => Some(remove(node, value, set)),
    }
}
