//! Strict reading: a field that was written and that nobody knows is found by its path.
//!
//! What was understood is written again and laid beside what was written; so nothing has to list the
//! fields of Kubernetes' types.

use serde_json::Value;

/// The path (such as `.spec.volumes[0].emtpyDir`) of the first field that was written and not
/// understood. One that says nothing may be missing.
pub(crate) fn field(written: &Value, understood: &Value) -> Option<String> {
    below(written, understood, "")
}

fn below(written: &Value, understood: &Value, at: &str) -> Option<String> {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            written.iter().filter(|(_, value)| !says_nothing(value)).find_map(|(key, value)| {
                let path = format!("{at}.{key}");
                match understood.get(key) {
                    None => Some(path),
                    Some(understood) => below(value, understood, &path),
                }
            })
        }
        (Value::Array(written), Value::Array(understood)) => {
            let mut both = written.iter().zip(understood).enumerate();
            both.find_map(|(index, (written, understood))| {
                below(written, understood, &format!("{at}[{index}]"))
            })
        }
        _ => None,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
