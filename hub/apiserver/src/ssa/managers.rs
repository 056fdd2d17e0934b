//! `metadata.managedFields`: one entry for each manager, operation and subresource.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Conflict, Writer, set::Set};
use crate::field;

/// Most managers with operation Update; beyond that the oldest are merged into one, so that
/// clients with ever new names cannot swell an object (the limit of kube-apiserver).
const MAX_UPDATERS: usize = 10;

/// Name of the entry that the oldest are merged into.
const ANCIENT: &str = "ancient-changes";

/// Who: what makes two entries the same manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Version that an updater wrote; empty for appliers, who own across versions.
    api_version: String,
    subresource: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) set: Set,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
}

/// All managers of an object.
pub(super) type Managers = BTreeMap<Manager, Owned>;

impl Manager {
    /// The manager that `writer` is when it does `operation`.
    pub(super) fn of(writer: &Writer<'_>, operation: Operation) -> Self {
        Self {
            name: writer.manager.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => writer.api_version.to_owned(),
            },
            subresource: writer.subresource.to_owned(),
        }
    }

    /// `"m1"`, `"kubectl" using v1`.
    fn shown(&self, owned: &Owned) -> String {
        let mut text = field::quote(&self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", field::quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", owned.api_version));
        }
        text
    }
}

/// The managers of an object; entries that make no sense (no version, unknown form) are dropped.
pub(super) fn read(object: &Value) -> Managers {
    let entries = object.get("metadata").and_then(|m| m.get("managedFields"));
    entries.and_then(Value::as_array).into_iter().flatten().filter_map(entry).collect()
}

/// Whether the object asks for its managed fields to be forgotten, by a single empty entry.
pub(super) fn is_reset(object: &Value) -> bool {
    let entries = object.get("metadata").and_then(|m| m.get("managedFields"));
    entries == Some(&json!([{}])) || entries == Some(&json!([]))
}

fn entry(entry: &Value) -> Option<(Manager, Owned)> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match entry.get("operation")?.as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() || text("fieldsType") != "FieldsV1" {
        return None;
    }
    let set = Set::read(entry.get("fieldsV1")?)?;
    let manager = Manager {
        name: text("manager"),
        operation,
        api_version: match operation {
            Operation::Apply => String::new(),
            Operation::Update => api_version.clone(),
        },
        subresource: text("subresource"),
    };
    let time = Some(text("time")).filter(|time| !time.is_empty());
    Some((manager, Owned { set, api_version, time }))
}

/// Writes the managers into the object: appliers first, then by time and name.
pub(super) fn write(object: &mut Value, managers: &Managers) {
    let mut sorted: Vec<(&Manager, &Owned)> = managers.iter().collect();
    sorted.sort_by(|(a, x), (b, y)| {
        (a.operation, &x.time, &a.name, a).cmp(&(b.operation, &y.time, &b.name, b))
    });
    let entries: Vec<Value> = sorted
        .into_iter()
        .map(|(manager, owned)| {
            let mut entry = Map::new();
            entry.insert("manager".to_owned(), manager.name.as_str().into());
            let operation = match manager.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            };
            entry.insert("operation".to_owned(), operation.into());
            entry.insert("apiVersion".to_owned(), owned.api_version.as_str().into());
            if let Some(time) = &owned.time {
                entry.insert("time".to_owned(), time.as_str().into());
            }
            entry.insert("fieldsType".to_owned(), "FieldsV1".into());
            entry.insert("fieldsV1".to_owned(), owned.set.write());
            if !manager.subresource.is_empty() {
                entry.insert("subresource".to_owned(), manager.subresource.as_str().into());
            }
            Value::Object(entry)
        })
        .collect();
    clear(object);
    if entries.is_empty() {
        return;
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("managedFields".to_owned(), entries.into());
    }
}

/// Removes `metadata.managedFields`.
pub(super) fn clear(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
}

/// Fields that nobody owns: the server sets them, or they say which object is meant.
pub(super) fn without_identity(set: Set) -> Set {
    let paths: [&[&str]; 12] = [
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ];
    set.without(&paths)
}

/// The conflicts with managers that own some of these fields, by manager.
pub(super) fn conflicts(owned: &[(&Manager, &Owned, Set)]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for (manager, owned, set) in owned {
        let message = format!("conflict with {}", manager.shown(owned));
        for field in set.paths() {
            conflicts.push(Conflict { message: message.clone(), field });
        }
    }
    // Stable: the fields of a manager stay in the order of their set.
    conflicts.sort_by(|a, b| a.message.cmp(&b.message));
    conflicts
}

/// Merges the oldest updaters while there are more than allowed.
pub(super) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<(Option<String>, Manager)> = managers
        .iter()
        .filter(|(manager, _)| {
            manager.operation == Operation::Update && manager.subresource.is_empty()
        })
        .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
        .collect();
    updaters.sort();
    let mut over = updaters.len().saturating_sub(MAX_UPDATERS);
    if over == 0 {
        return;
    }
    // One entry is added for each version that entries are merged of.
    over += 1;
    for (_, manager) in updaters.into_iter().take(over) {
        let Some(owned) = managers.remove(&manager) else { continue };
        let ancient = Manager { name: ANCIENT.to_owned(), ..manager };
        match managers.get_mut(&ancient) {
            Some(place) => {
                place.set = place.set.union(&owned.set);
                place.time = place.time.take().max(owned.time);
            }
            None => {
                managers.insert(ancient, owned);
            }
        }
    }
}
