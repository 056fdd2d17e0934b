//! Finds values that Kubernetes' own types cannot hold, such as a text where a struct belongs.
//!
//! Kubernetes fails to decode such a body, so that nothing after that ever sees one; here it is
//! what lets defaults and rules of built-in kinds trust the types of the fields that they touch.

use serde_json::Value;

use super::{Node, validate};
use crate::field;

/// A value of another type than its field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistyped {
    /// Path of the field, such as `spec.replicas`.
    pub(crate) field: String,
    pub(crate) wanted: &'static str,
    pub(crate) actual: &'static str,
}

/// See [`super::Schema::mistyped`].
pub(super) fn mistyped(node: &Node, value: &Value, path: &str) -> Option<Mistyped> {
    if let Some((wanted, actual)) = validate::wrong_type(node, value).filter(|_| node.is_struct) {
        return Some(Mistyped { field: path.to_owned(), wanted, actual });
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(name, value)| {
            mistyped(node.field(name)?, value, &field::child(path, name))
        }),
        Value::Array(items) => {
            let node = node.item()?;
            let mut items = items.iter().enumerate();
            items.find_map(|(at, item)| mistyped(node, item, &field::index(path, at)))
        }
        _ => None,
    }
}
