//! Secrets: plain text is encoded, and a type says which keys there must be
//! (`pkg/apis/core/validation`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::field::FieldError;

/// Keys that a Secret of a type must have: all of them, or of the basic one either.
const KEYS: [(&str, &[&str]); 4] = [
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
];
const BASIC: (&str, [&str; 2]) = ("kubernetes.io/basic-auth", ["username", "password"]);

pub(super) fn default(secret: &mut Value) {
    if secret["type"].as_str().unwrap_or_default().is_empty() {
        secret["type"] = "Opaque".into();
    }
    let Some(Value::Object(plain)) =
        secret.as_object_mut().and_then(|fields| fields.remove("stringData"))
    else {
        return;
    };
    for (key, value) in plain {
        secret["data"][key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}

pub(super) fn validate(secret: &Value) -> Vec<FieldError> {
    let kind = secret["type"].as_str().unwrap_or_default();
    let lacks = |key: &&str| secret["data"].get(*key).is_none_or(Value::is_null);
    let (basic, either) = BASIC;
    let missing: Vec<&str> = match KEYS.iter().find(|(of, _)| *of == kind) {
        Some((_, keys)) => keys.iter().copied().filter(|key| lacks(key)).collect(),
        None if kind == basic && either.iter().all(lacks) => either.to_vec(),
        None => Vec::new(),
    };
    missing.iter().map(|key| FieldError::required(format!("data[{key}]"), "")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_type_asks_for_its_keys() {
        let missing = |kind: &str, data: Value| {
            let errors = validate(&json!({"type": kind, "data": data}));
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(missing("Opaque", json!(null)), [""; 0]);
        assert_eq!(missing("kubernetes.io/tls", json!({"tls.crt": ""})), ["data[tls.key]"]);
        assert_eq!(missing("kubernetes.io/basic-auth", json!({"username": ""})), [""; 0]);
        let both = ["data[username]", "data[password]"];
        assert_eq!(missing("kubernetes.io/basic-auth", json!({"token": ""})), both);
        assert_eq!(missing("kubernetes.io/ssh-auth", json!({})), ["data[ssh-privatekey]"]);
    }
}
