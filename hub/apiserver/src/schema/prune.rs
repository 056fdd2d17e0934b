//! Drops what a schema does not know.

use serde_json::Value;

use super::Node;
use crate::field;

/// See [`super::Schema::prune`].
pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { unknown: Vec::new() };
    pruner.value(Some(root), object, "");
    pruner.unknown.sort();
    pruner.unknown
}

/// Most unknown fields that are told: a body of some megabytes may have a million of them.
const UNKNOWN_MAX: usize = 1000;

struct Pruner {
    unknown: Vec<String>,
}

impl Pruner {
    fn value(&mut self, node: Option<&Node>, value: &mut Value, path: &str) {
        match value {
            Value::Object(_) if node.is_some_and(|n| n.preserve) => self.kept(node, value, path),
            Value::Array(_) if node.is_some_and(|n| n.preserve) => self.kept(node, value, path),
            Value::Object(map) => {
                let is_struct = node.is_some_and(|node| node.is_struct);
                map.retain(|name, value| {
                    let field = node.and_then(|node| node.field(name));
                    if field.is_none() {
                        if self.unknown.len() < UNKNOWN_MAX {
                            self.unknown.push(field::child(path, name));
                        }
                        return false;
                    }
                    if is_struct && value.is_null() {
                        return false;
                    }
                    self.value(field, value, &field::child(path, name));
                    true
                });
            }
            Value::Array(items) => {
                let node = node.and_then(Node::item);
                for (at, item) in items.iter_mut().enumerate() {
                    self.value(node, item, &field::index(path, at));
                }
            }
            _ => {}
        }
    }

    /// Inside `x-kubernetes-preserve-unknown-fields`: only declared fields are looked into.
    fn kept(&mut self, node: Option<&Node>, value: &mut Value, path: &str) {
        let Some(node) = node else { return };
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    if let Some(field) = node.field(name) {
                        self.value(Some(field), value, &field::child(path, name));
                    }
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.kept(node.item(), item, &field::index(path, at));
                }
            }
            _ => {}
        }
    }
}
