//! Whether a configuration is of its schema at all, in the words of structured-merge-diff: an
//! apply takes no unknown field and no value of another type.

use serde_json::Value;

use crate::{
    field::{go_plain, go_syntax},
    schema::{Node, Shape},
};

/// What is wrong, as one text; several errors are listed.
pub(super) fn check(node: &Node, value: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    visit(Some(node), value, "", &mut errors);
    errors.sort();
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn visit(node: Option<&Node>, value: &Value, path: &str, errors: &mut Vec<String>) {
    let Some(node) = node else { return };
    if value.is_null() {
        return;
    }
    if let Some(wrong) = wrong_type(node, value) {
        errors.push(if path.is_empty() { wrong } else { format!("{path}: {wrong}") });
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                match node.field(name) {
                    Some(field) => visit(Some(field), value, &path, errors),
                    None if node.preserve || node.is_untyped() => {}
                    None => errors.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                visit(node.item(), item, &format!("{path}[{at}]"), errors);
            }
        }
        _ => {}
    }
}

fn wrong_type(node: &Node, value: &Value) -> Option<String> {
    // How Go prints the reader's own type around a value.
    let plain = || format!("&{{{}}}", go_plain(value));
    let typed = || format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value));
    match (node.shape, value) {
        (Shape::String, Value::String(_))
        | (Shape::Boolean, Value::Bool(_))
        | (Shape::Integer | Shape::Number, Value::Number(_))
        | (Shape::Array, Value::Array(_))
        | (Shape::Object, Value::Object(_))
        | (Shape::Any | Shape::IntOrString | Shape::Quantity, _) => None,
        (Shape::String, _) => Some(format!("expected string, got {}", typed())),
        (Shape::Boolean, _) => Some(format!("expected boolean, got {}", typed())),
        (Shape::Array, _) => Some(format!("expected list, got {}", plain())),
        (Shape::Object, _) => Some(format!("expected map, got {}", plain())),
        (Shape::Integer | Shape::Number, value) => {
            let kind = match value {
                Value::Bool(_) => "bool",
                Value::String(_) => "string",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            Some(format!("expected numeric (int or float), got {kind}"))
        }
    }
}
