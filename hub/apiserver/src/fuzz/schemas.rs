//! Schemas, and objects that they are to look at.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde_json::{Value, json};

use super::{assert_readable, documents};
use crate::schema::Schema;

/// Schemas by the name with which inputs choose one.
pub(super) static SCHEMAS: LazyLock<BTreeMap<&str, Arc<Schema>>> = LazyLock::new(|| {
    let builtin = [
        ("", "ConfigMap"),
        ("", "Pod"),
        ("", "Secret"),
        ("", "Service"),
        ("", "ServiceAccount"),
        ("", "Namespace"),
        ("", "Event"),
        ("batch", "Job"),
        ("batch", "CronJob"),
        ("coordination.k8s.io", "Lease"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ];
    let mut schemas: BTreeMap<&str, Arc<Schema>> = builtin
        .into_iter()
        .filter_map(|(group, kind)| Some((kind, Schema::builtin(group, "v1", kind)?)))
        .collect();
    let widget = Schema::from_crd(&widget(), "").expect("the schema below is structural");
    schemas.insert("Widget", Arc::new(widget));
    schemas
});

/// A custom kind with every form of list and map.
pub(super) fn widget() -> Value {
    let item = json!({"type": "object", "required": ["k"], "properties": {
        "k": {"type": "string"}, "d": {"type": "integer", "default": 1}, "v": {"type": "integer"},
    }});
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer", "minimum": 1, "default": 3},
        "s": {"type": "string", "maxLength": 8, "nullable": true},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "port": {"x-kubernetes-int-or-string": true},
        "free": {"type": "object", "additionalProperties": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic",
            "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k", "d"], "items": item},
    }}}})
}

/// A built-in kind and an object of it.
pub(super) fn builtin(input: &[u8]) {
    let Some([kind, object]) = documents(input) else { return };
    if let Some(schema) = SCHEMAS.get(kind.as_str().unwrap_or_default()) {
        settle(schema, object, None);
    }
}

/// A CRD's schema, an object, and what it was before.
pub(super) fn custom(input: &[u8]) {
    let Some([schema, object, old]) = documents(input) else { return };
    if let Ok(schema) = Schema::from_crd(&schema, "") {
        settle(&schema, object, Some(old));
    }
}

/// A text that is to be of every format.
pub(super) fn formats(input: &[u8]) {
    static FORMATS: LazyLock<Schema> = LazyLock::new(|| {
        let names = [
            "bsonobjectid",
            "uri",
            "email",
            "hostname",
            "ipv4",
            "ipv6",
            "cidr",
            "mac",
            "uuid",
            "uuid3",
            "uuid4",
            "uuid5",
            "isbn",
            "isbn10",
            "isbn13",
            "creditcard",
            "ssn",
            "hexcolor",
            "rgbcolor",
            "byte",
            "password",
            "date",
            "duration",
            "datetime",
        ];
        let format = |name: &str| (name.to_owned(), json!({"type": "string", "format": name}));
        let properties: Value = names.into_iter().map(format).collect();
        let schema = json!({"type": "object", "properties": properties});
        Schema::from_crd(&schema, "").expect("all are known")
    });
    let Ok(text) = std::str::from_utf8(input) else { return };
    let fields = FORMATS.root().properties.keys();
    let object: Value = fields.map(|name| (name.clone(), Value::from(text))).collect();
    let wrong = FORMATS.validate(&object, None);
    assert!(wrong.iter().all(|error| error.field != "password"), "any text is a password");
}

/// Pruning and defaulting settle at once, and what has not changed is not blamed.
fn settle(schema: &Schema, object: Value, old: Option<Value>) {
    let mut once = object;
    if !once.is_object() {
        return;
    }
    schema.prune(&mut once);
    schema.default(&mut once);
    assert_readable(&once);
    let mut twice = once.clone();
    let unknown = schema.prune(&mut twice);
    assert!(unknown.is_empty(), "pruned twice: {unknown:?}");
    schema.default(&mut twice);
    assert_eq!(twice, once);
    assert_eq!(schema.validate(&once, Some(&once)), []);
    schema.validate(&once, old.as_ref());
}
