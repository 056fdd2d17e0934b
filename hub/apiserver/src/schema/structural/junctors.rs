//! The rules inside `allOf`, `anyOf`, `oneOf` and `not`: they restrict values and give no structure.

use serde_json::{Map, Value, json};

use super::{Checker, is_true, is_zero};
use crate::field::{self, FieldError};

/// Where a field must be declared, and where a junctor speaks of it.
#[derive(Clone, Copy)]
struct Paths<'a> {
    outer: &'a str,
    inner: &'a str,
}

impl Checker {
    /// `allOf`, `anyOf`, `oneOf` and `not`, which may only restrict values.
    pub(super) fn junctors(
        &mut self,
        map: &Map<String, Value>,
        path: &str,
        may_skip: bool,
        depth: usize,
    ) {
        for key in ["allOf", "anyOf", "oneOf"] {
            let branches = map.get(key).and_then(Value::as_array);
            for (at, branch) in branches.into_iter().flatten().enumerate() {
                let int_or_string = is_true(map, "x-kubernetes-int-or-string") && may_skip;
                if int_or_string && key == "anyOf" && is_int_or_string(map.get(key)) {
                    continue;
                }
                let first = int_or_string && key == "allOf" && at == 0;
                if first && is_int_or_string(branch.get("anyOf")) {
                    continue;
                }
                self.restriction(branch, &field::index(&field::child(path, key), at), depth + 1);
            }
        }
        if let Some(not) = map.get("not") {
            self.restriction(not, &field::child(path, "not"), depth + 1);
        }
    }

    /// A schema inside a junctor.
    fn restriction(&mut self, schema: &Value, path: &str, depth: usize) {
        let Some(map) = self.object(schema, path, depth) else { return };
        const FORBIDDEN: [(&str, &str); 12] = [
            ("type", "must be empty to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("default", "must be undefined to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("nullable", "must be false to be structural"),
            ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
            ("x-kubernetes-embedded-resource", "must be false to be structural"),
            ("x-kubernetes-int-or-string", "must be false to be structural"),
            ("x-kubernetes-list-map-keys", "must be empty to be structural"),
            ("x-kubernetes-list-type", "must be undefined to be structural"),
            ("x-kubernetes-map-type", "must be undefined to be structural"),
        ];
        for (key, detail) in FORBIDDEN {
            if map.get(key).is_some_and(|value| !is_zero(value)) {
                self.forbid(path, key, detail);
            }
        }
        if map.get("x-kubernetes-validations").is_some_and(|rules| !is_zero(rules)) {
            self.forbid(path, "x-kubernetes-validations", "must be empty to be structural");
        }
        self.junctors(map, path, false, depth);
        if let Some(Value::Object(properties)) = map.get("properties") {
            for (name, schema) in properties {
                let path = field::key(&field::child(path, "properties"), name);
                if name == "metadata" {
                    let detail = "must not be specified in a nested context";
                    self.errors.push(FieldError::forbidden(&path, detail));
                }
                self.restriction(schema, &path, depth + 1);
            }
        }
        if let Some(items @ Value::Object(_)) = map.get("items") {
            self.restriction(items, &field::child(path, "items"), depth + 1);
        }
    }

    /// Every field that a junctor speaks of is declared outside of it too.
    pub(super) fn declarations(&mut self, map: &Map<String, Value>, path: &str) {
        self.complete(map, map, Paths { outer: path, inner: path });
    }

    /// Every field that a junctor at `inner_path` speaks of is declared in `outer` too.
    fn complete(&mut self, outer: &Map<String, Value>, inner: &Map<String, Value>, paths: Paths) {
        for key in ["allOf", "anyOf", "oneOf"] {
            let branches = inner.get(key).and_then(Value::as_array);
            for (at, branch) in branches.into_iter().flatten().enumerate() {
                let inner = field::index(&field::child(paths.inner, key), at);
                self.declared(Some(outer), branch, Paths { inner: &inner, ..paths });
            }
        }
        if let Some(not) = inner.get("not") {
            let inner = field::child(paths.inner, "not");
            self.declared(Some(outer), not, Paths { inner: &inner, ..paths });
        }
    }

    fn declared(&mut self, outer: Option<&Map<String, Value>>, inner: &Value, paths: Paths) {
        let Some(inner) = inner.as_object() else { return };
        let Some(outer) = outer else {
            let detail = format!("because it is defined in {}", paths.inner);
            return self.errors.push(FieldError::required(paths.outer, &detail));
        };
        self.complete(outer, inner, paths);
        let mut below = |outer: Option<&Value>, value: &Value, suffix: &str| {
            let paths = (field::child(paths.outer, suffix), field::child(paths.inner, suffix));
            let paths = Paths { outer: &paths.0, inner: &paths.1 };
            self.declared(outer.and_then(Value::as_object), value, paths);
        };
        if let Some(items) = inner.get("items") {
            below(outer.get("items"), items, "items");
        }
        let properties = inner.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let declared = outer.get("properties").and_then(|p| p.get(name));
            below(declared, property, &field::key("properties", name));
        }
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, the one place where a junctor may give types.
fn is_int_or_string(any_of: Option<&Value>) -> bool {
    any_of == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}
