//! Does an object have all that is wanted of it?

use serde_json::Value;

/// Whether `live` has everything of `wanted`; what others added does not matter.
pub fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|held| covers(held, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(a, b)| covers(a, b))
        }
        (live, wanted) => live == wanted,
    }
}
