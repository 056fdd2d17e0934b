//! Fills in the defaults of a schema.

use serde_json::Value;

use super::Node;

/// See [`super::Schema::default`].
pub(super) fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let undefaultable =
                    node.field(name).is_some_and(|f| !f.nullable && f.default.is_none());
                !(value.is_null() && undefaultable && !node.is_untyped())
            });
            for (name, link) in &node.properties {
                let field = link.node();
                let Some(default) = &field.default else { continue };
                let missing = match map.get(name) {
                    None => true,
                    Some(value) => value.is_null() && !field.nullable,
                };
                if missing {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map {
                if let Some(field) = node.field(name) {
                    replace_null(field, value);
                    fill(field, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(node) = node.item() else { return };
            for item in items {
                replace_null(node, item);
                fill(node, item);
            }
        }
        _ => {}
    }
}

fn replace_null(node: &Node, value: &mut Value) {
    if let (Value::Null, false, Some(default)) = (&*value, node.nullable, &node.default) {
        *value = default.clone();
    }
}
