//! Strategic merge patch: a merge patch that knows which lists have an identity.
//!
//! Lists with a merge key are merged item by item, lists of scalars with the strategy `merge`
//! are united, all others are replaced. Directives: `$patch: delete|replace|merge`,
//! `$retainKeys`, `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::PatchError;
use crate::{
    field::go_plain,
    schema::{Node, Schema},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` by the merge keys of the schema. On error the object is as it was.
pub(crate) fn strategic(
    schema: &Schema,
    object: &mut Value,
    patch: &Value,
) -> Result<(), PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (&*object, patch) else {
        return Err(malformed("a strategic merge patch must be an object"));
    };
    let merged = merge_map(Some(schema.root()), original.clone(), patch)?;
    *object = Value::Object(merged);
    Ok(())
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Senseless(text.into())
}

fn merge_map(
    node: Option<&Node>,
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match directive(patch)? {
        Some(Directive::Delete) => return Ok(Map::new()),
        Some(Directive::Replace) => {
            let mut replaced = patch.clone();
            replaced.shift_remove(PATCH);
            return Ok(replaced);
        }
        Some(Directive::Merge) | None => {}
    }
    if let Some(retain) = patch.get(RETAIN_KEYS) {
        let Value::Array(retain) = retain else {
            return Err(malformed(format!("{RETAIN_KEYS} must be a list of keys")));
        };
        original.retain(|name, _| retain.iter().any(|key| key == name));
    }
    for (name, list) in directives(patch, DELETE_VALUES)? {
        if let Some(Value::Array(items)) = original.get_mut(name) {
            let gone: HashSet<String> = list.iter().map(identity).collect();
            items.retain(|item| !gone.contains(&identity(item)));
        }
    }
    let orders = directives(patch, SET_ORDER)?;
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let order = orders.iter().find(|(list, _)| list == name).map(|(_, order)| *order);
        let child = node.and_then(|node| node.field(name));
        match (original.get_mut(name), value) {
            (_, Value::Null) => {
                original.shift_remove(name);
            }
            (Some(Value::Object(old)), Value::Object(new)) => {
                let merged = merge_map(child, std::mem::take(old), new)?;
                original.insert(name.clone(), Value::Object(merged));
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let merged = merge_list(child, std::mem::take(old), new, order)?;
                original.insert(name.clone(), Value::Array(merged));
            }
            (_, value) => {
                original.insert(name.clone(), without_directives(value));
            }
        }
    }
    // An order without a change to the list itself.
    for (name, order) in orders.iter().filter(|(name, _)| !patch.contains_key(*name)) {
        let child = node.and_then(|node| node.field(name));
        if let Some(Value::Array(items)) = original.get_mut(*name) {
            let old = std::mem::take(items);
            *items = in_order(child, old.clone(), &old, order);
        }
    }
    Ok(original)
}

enum Directive {
    Delete,
    Replace,
    Merge,
}

fn directive(patch: &Map<String, Value>) -> Result<Option<Directive>, PatchError> {
    match patch.get(PATCH) {
        None => Ok(None),
        Some(Value::String(kind)) => match kind.as_str() {
            "delete" => Ok(Some(Directive::Delete)),
            "replace" => Ok(Some(Directive::Replace)),
            "merge" => Ok(Some(Directive::Merge)),
            other => Err(malformed(format!(
                "unknown patch type: {other} in map: {}",
                go_plain(&Value::Object(patch.clone()))
            ))),
        },
        Some(other) => Err(malformed(format!("{PATCH} must be a string, not {other}"))),
    }
}

/// The lists that directives with this prefix give, by the field they are for.
fn directives<'a>(
    patch: &'a Map<String, Value>,
    prefix: &str,
) -> Result<Vec<(&'a str, &'a [Value])>, PatchError> {
    let mut found = Vec::new();
    for (key, value) in patch {
        let Some(name) = key.strip_prefix(prefix) else { continue };
        match value {
            Value::Array(items) => found.push((name, items.as_slice())),
            _ => return Err(malformed(format!("{key} must be a list"))),
        }
    }
    Ok(found)
}

fn merge_list(
    node: Option<&Node>,
    original: Vec<Value>,
    patch: &[Value],
    order: Option<&[Value]>,
) -> Result<Vec<Value>, PatchError> {
    let Some(node) = node.filter(|node| node.patch.merge) else {
        return Ok(patch.iter().map(without_directives).collect());
    };
    let server = original.clone();
    let merged = match &node.merge_key {
        Some(key) => merge_items(node, key, original, patch)?,
        None => {
            let mut there: HashSet<String> = original.iter().map(identity).collect();
            let new = patch.iter().filter(|value| there.insert(identity(value))).cloned();
            let merged = original.iter().cloned().chain(new).collect();
            in_order(Some(node), merged, &server, order.unwrap_or(patch))
        }
    };
    Ok(match order {
        Some(order) => in_order(Some(node), merged, &server, order),
        None => merged,
    })
}

fn merge_items(
    node: &Node,
    key: &str,
    original: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let mut items = Vec::with_capacity(patch.len());
    for item in patch {
        let Value::Object(item) = item else {
            return Err(malformed(format!("items of a list with merge key {key} must be objects")));
        };
        items.push((directive(item)?, item));
    }
    // One item that says so makes the patch the whole list.
    if items.iter().any(|(directive, _)| matches!(directive, Some(Directive::Replace))) {
        let kept = items.iter().filter(|(directive, _)| directive.is_none());
        return Ok(kept
            .map(|(_, item)| without_directives(&Value::Object((*item).clone())))
            .collect());
    }
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, item) in original.iter().enumerate() {
        if let Some(value) = item.get(key) {
            places.entry(identity(value)).or_default().push(at);
        }
    }
    // What is deleted leaves its place empty, so that the others keep theirs.
    let mut merged: Vec<Option<Value>> = original.into_iter().map(Some).collect();
    for (directive, item) in items {
        let Some(value) = item.get(key) else {
            return Err(malformed(format!(
                "map: {} does not contain declared merge key: {key}",
                go_plain(&Value::Object(item.clone()))
            )));
        };
        let same = places.entry(identity(value)).or_default();
        if matches!(directive, Some(Directive::Delete)) {
            same.drain(..).for_each(|at| merged[at] = None);
            continue;
        }
        match same.first().and_then(|at| merged[*at].as_mut()) {
            Some(Value::Object(old)) => *old = merge_map(node.item(), std::mem::take(old), item)?,
            _ => {
                same.push(merged.len());
                merged.push(Some(without_directives(&Value::Object(item.clone()))));
            }
        }
    }
    Ok(merged.into_iter().flatten().collect())
}

/// A text that equal values share, to look them up by.
fn identity(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    value.to_string()
}

/// Puts the items that the order names into it; the others keep their place among the items of
/// the server.
fn in_order(
    node: Option<&Node>,
    merged: Vec<Value>,
    server: &[Value],
    order: &[Value],
) -> Vec<Value> {
    let key = node.and_then(|node| node.merge_key.as_deref());
    let id = |item: &Value| match key {
        Some(key) => identity(item.get(key).unwrap_or(&Value::Null)),
        None => identity(item),
    };
    let places = |list: &[Value]| {
        // The first of several is the one that counts.
        let places = list.iter().enumerate().rev().map(|(at, item)| (id(item), at));
        places.collect::<HashMap<String, usize>>()
    };
    let (ordered, served) = (places(order), places(server));
    /// An item with its place in the order, and among those of the server.
    type Placed = (Option<usize>, Option<usize>, Value);
    let placed = merged.into_iter().map(|item| {
        let id = id(&item);
        (ordered.get(&id).copied(), served.get(&id).copied(), item)
    });
    let (mut named, mut others): (Vec<Placed>, Vec<Placed>) =
        placed.partition(|(ordered, ..)| ordered.is_some());
    named.sort_by_key(|(ordered, ..)| *ordered);
    others.sort_by_key(|(_, served, _)| served.unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let take_named = match (named.peek(), others.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, Some(a), _)), Some((_, Some(b), _))) => a < b,
            // What only the patch knows comes first.
            _ => true,
        };
        let next = if take_named { named.next() } else { others.next() };
        out.extend(next.map(|(_, _, item)| item));
    }
}

/// A value that is new to the object: directives and nulls have nothing to act on.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let keep = |(name, value): &(&String, &Value)| !is_directive(name) && !value.is_null();
            let kept = map.iter().filter(keep);
            Value::Object(kept.map(|(k, v)| (k.clone(), without_directives(v))).collect())
        }
        Value::Array(items) => {
            let is_deletion = |item: &Value| item.get(PATCH).is_some_and(|p| p == "delete");
            let kept = items.iter().filter(|item| !is_deletion(item));
            Value::Array(kept.map(without_directives).collect())
        }
        other => other.clone(),
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH
        || name == RETAIN_KEYS
        || name.starts_with(SET_ORDER)
        || name.starts_with(DELETE_VALUES)
}
