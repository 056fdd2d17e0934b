//! The rules for schemas in CRDs: structural schemas and the use of Kubernetes' extensions.
//!
//! Rules and texts follow `apiextensions-apiserver` (`pkg/apiserver/schema/validation.go` and
//! `pkg/apis/apiextensions/validation`).

mod junctors;

use serde_json::{Map, Value, json};

use super::parse::MAX_DEPTH;
use crate::field::{self, FieldError};

/// All that is wrong with a CRD's schema at `path`, sorted by text.
pub(super) fn check(schema: &Value, path: &str) -> Result<(), Vec<FieldError>> {
    let mut checker = Checker { errors: Vec::new() };
    checker.structural(schema, path, Place::Root, 0);
    let mut errors = checker.errors;
    errors.sort_by_key(ToString::to_string);
    errors.dedup();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

struct Checker {
    errors: Vec<FieldError>,
}

impl Checker {
    /// A schema that gives structure.
    fn structural(&mut self, schema: &Value, path: &str, place: Place, depth: usize) {
        let Some(map) = self.object(schema, path, depth) else { return };
        self.keywords(map, path);
        self.kind(map, path, place);
        self.extensions(map, path);
        self.rules(map, path);
        self.nested(map, path, place, depth);
        self.junctors(map, path, true, depth);
        self.declarations(map, path);
    }

    fn object<'a>(
        &mut self,
        schema: &'a Value,
        path: &str,
        depth: usize,
    ) -> Option<&'a Map<String, Value>> {
        if depth > MAX_DEPTH {
            let detail = format!("schema is nested deeper than {MAX_DEPTH} levels");
            self.errors.push(FieldError::forbidden(path, &detail));
            return None;
        }
        let map = schema.as_object();
        if map.is_none() {
            self.errors.push(FieldError::invalid(path, schema, "must be a schema object"));
        }
        map
    }

    /// Keywords that no CRD may use.
    fn keywords(&mut self, map: &Map<String, Value>, path: &str) {
        for key in
            ["id", "$ref", "patternProperties", "definitions", "dependencies", "additionalItems"]
        {
            if map.get(key).is_some_and(|v| !is_zero(v)) {
                self.forbid(path, key, &format!("{key} is not supported"));
            }
        }
        if is_true(map, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes \
                          quadratic";
            self.forbid(path, "uniqueItems", detail);
        }
        match text(map, "type") {
            Some("null") => {
                let detail = "type cannot be set to null, use nullable as an alternative";
                self.forbid(path, "type", detail);
            }
            Some(other) if !TYPES.contains(&other) => {
                let path = field::child(path, "type");
                self.errors.push(FieldError::not_supported(path, &other.into(), &TYPES));
            }
            _ => {}
        }
        if map.get("items").is_some_and(Value::is_array) {
            self.forbid(path, "items", "items must be a schema object and not an array");
        }
        if map.get("properties").is_some_and(|p| !is_zero(p))
            && map.get("additionalProperties").is_some_and(|a| *a != Value::Bool(true))
        {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.forbid(path, "additionalProperties", detail);
        }
        if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            self.invalid(
                path,
                "x-kubernetes-preserve-unknown-fields",
                &json!(false),
                "must be true or undefined",
            );
        }
    }

    /// The type: present, and fitting to where the schema is.
    fn kind(&mut self, map: &Map<String, Value>, path: &str, place: Place) {
        let kind = text(map, "type").unwrap_or_default();
        let int_or_string = is_true(map, "x-kubernetes-int-or-string");
        let preserve = is_true(map, "x-kubernetes-preserve-unknown-fields");
        let embedded = is_true(map, "x-kubernetes-embedded-resource");
        if embedded && kind != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            self.wrong_type(path, kind, detail);
        } else if kind.is_empty() && !int_or_string && !preserve {
            let detail = match place {
                Place::Root => "must not be empty at the root",
                Place::Item => "must not be empty for specified array items",
                Place::Field => "must not be empty for specified object fields",
            };
            self.require(path, "type", detail);
        }
        if place == Place::Root {
            if !kind.is_empty() && kind != "object" {
                self.invalid(path, "type", &kind.into(), "must be object at the root");
            }
            if is_true(map, "nullable") {
                self.forbid(path, "nullable", "nullable cannot be true at the root");
            }
            if map.contains_key("additionalProperties") {
                self.forbid(path, "additionalProperties", "must not be used at the root");
            }
        }
        if kind == "array" && map.get("items").is_none_or(Value::is_null) {
            self.require(path, "items", "must be specified");
        }
        if embedded && map.contains_key("additionalProperties") {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            self.forbid(path, "additionalProperties", detail);
        }
        if embedded && !preserve && map.get("properties").is_none_or(is_zero) {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                          x-kubernetes-preserve-unknown-fields";
            self.require(path, "properties", detail);
        }
        for other in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if int_or_string && is_true(map, other) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                self.invalid(path, other, &json!(true), detail);
            }
        }
    }

    fn extensions(&mut self, map: &Map<String, Value>, path: &str) {
        let kind = text(map, "type").unwrap_or_default();
        if let Some(map_type) = text(map, "x-kubernetes-map-type") {
            if kind != "object" {
                self.wrong_type(path, kind, "must be object if x-kubernetes-map-type is specified");
            }
            self.one_of(path, "x-kubernetes-map-type", map_type, &["atomic", "granular"]);
        }
        let list_type = text(map, "x-kubernetes-list-type");
        if let Some(list_type) = list_type {
            if kind != "array" {
                self.wrong_type(path, kind, "must be array if x-kubernetes-list-type is specified");
            }
            self.one_of(path, "x-kubernetes-list-type", list_type, &["atomic", "set", "map"]);
        }
        let keys = map.get("x-kubernetes-list-map-keys").filter(|keys| !is_zero(keys));
        match (keys, list_type) {
            (Some(_), None) => {
                let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
                self.require(path, "x-kubernetes-list-type", detail);
            }
            (Some(_), Some(other)) if other != "map" => {
                let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
                self.invalid(path, "x-kubernetes-list-type", &other.into(), detail);
            }
            (None, Some("map")) => {
                let detail = "must not be empty if x-kubernetes-list-type is map";
                self.require(path, "x-kubernetes-list-map-keys", detail);
            }
            (Some(keys), Some("map")) => self.list_map(map, keys, path),
            _ => {}
        }
        if list_type == Some("set") {
            self.list_set(map, path);
        }
    }

    fn list_map(&mut self, map: &Map<String, Value>, keys: &Value, path: &str) {
        let Some(items) = map.get("items").and_then(Value::as_object) else { return };
        let items_path = field::child(path, "items");
        let kind = text(items, "type").unwrap_or_default();
        if kind != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            return self.invalid(&items_path, "type", &kind.into(), detail);
        }
        let names: Vec<&str> =
            keys.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let required: Vec<&Value> =
            items.get("required").and_then(Value::as_array).into_iter().flatten().collect();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                let detail = "must not contain duplicate entries";
                self.invalid(path, "x-kubernetes-list-map-keys", keys, detail);
            }
            let Some(property) = items.get("properties").and_then(|p| p.get(*name)) else {
                let detail = "entries must all be names of item properties";
                self.invalid(path, "x-kubernetes-list-map-keys", keys, detail);
                continue;
            };
            let property_path = field::key(&field::child(&items_path, "properties"), name);
            if matches!(property.get("type").and_then(Value::as_str), Some("array" | "object")) {
                let detail =
                    "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid(&property_path, "type", &kind.into(), detail);
            }
            let is_required = required.iter().any(|r| r.as_str() == Some(name));
            if !is_required && property.get("default").is_none() {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a \
                              default or be a required property";
                self.require(&property_path, "default", detail);
            }
        }
    }

    fn list_set(&mut self, map: &Map<String, Value>, path: &str) {
        let Some(items) = map.get("items").and_then(Value::as_object) else { return };
        let (key, atomic) = match text(items, "type") {
            Some("array") => {
                let list = text(items, "x-kubernetes-list-type");
                ("x-kubernetes-list-type", list.is_none_or(|l| l == "atomic"))
            }
            Some("object") => {
                let map = text(items, "x-kubernetes-map-type");
                ("x-kubernetes-map-type", map == Some("atomic"))
            }
            _ => return,
        };
        if !atomic {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let value = items.get(key).cloned().unwrap_or_default();
            self.invalid(&field::child(path, "items"), key, &value, detail);
        }
    }

    fn rules(&mut self, map: &Map<String, Value>, path: &str) {
        let rules = map.get("x-kubernetes-validations").and_then(Value::as_array);
        for (at, rule) in rules.into_iter().flatten().enumerate() {
            let path = field::index(&field::child(path, "x-kubernetes-validations"), at);
            let get = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
            let (source, message) = (get("rule").trim(), get("message"));
            if source.is_empty() {
                self.require(&path, "rule", "rule is not specified");
            } else if !message.is_empty() && message.trim().is_empty() {
                self.invalid(
                    &path,
                    "message",
                    &message.into(),
                    "message must be non-empty if specified",
                );
            } else if message.trim().contains('\n') {
                self.invalid(
                    &path,
                    "message",
                    &message.into(),
                    "message must not contain line breaks",
                );
            } else if source.contains('\n') && message.trim().is_empty() {
                self.require(
                    &path,
                    "message",
                    "message must be specified if rule contains line breaks",
                );
            }
            if let Some(reason) = rule.get("reason").and_then(Value::as_str) {
                self.one_of(&path, "reason", reason, &REASONS);
            }
        }
    }

    fn nested(&mut self, map: &Map<String, Value>, path: &str, place: Place, depth: usize) {
        let resource = place == Place::Root || is_true(map, "x-kubernetes-embedded-resource");
        if let Some(Value::Object(properties)) = map.get("properties") {
            for (name, schema) in properties {
                let path = field::key(&field::child(path, "properties"), name);
                self.structural(schema, &path, Place::Field, depth + 1);
                if resource {
                    self.resource_field(name, schema, &path, place);
                }
            }
        }
        if let Some(items @ Value::Object(_)) = map.get("items") {
            self.structural(items, &field::child(path, "items"), Place::Item, depth + 1);
        }
        if let Some(schema @ Value::Object(_)) = map.get("additionalProperties") {
            let path = field::child(path, "additionalProperties");
            self.structural(schema, &path, Place::Field, depth + 1);
        }
    }

    fn resource_field(&mut self, name: &str, schema: &Value, path: &str, place: Place) {
        let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        let wanted = match name {
            "apiVersion" | "kind" => "string",
            "metadata" => "object",
            _ => return,
        };
        if kind != wanted {
            self.invalid(path, "type", &kind.into(), &format!("must be {wanted}"));
        }
        if place != Place::Root {
            return;
        }
        if schema.get("default").is_some() {
            self.forbid(path, "default", &format!("in top-level {name}"));
        }
        let names_only = |map: &Map<String, Value>| {
            map.iter().all(|(key, value)| match (key.as_str(), value) {
                ("type", _) => true,
                ("properties", Value::Object(p)) => {
                    p.keys().all(|name| matches!(name.as_str(), "name" | "generateName"))
                }
                _ => false,
            })
        };
        if name == "metadata" && !schema.as_object().is_some_and(names_only) {
            let detail = "must not specify anything other than name and generateName, but \
                          metadata is implicitly specified";
            self.errors.push(FieldError::forbidden(path, detail));
        }
    }

    fn require(&mut self, path: &str, key: &str, detail: &str) {
        self.errors.push(FieldError::required(field::child(path, key), detail));
    }

    fn forbid(&mut self, path: &str, key: &str, detail: &str) {
        self.errors.push(FieldError::forbidden(field::child(path, key), detail));
    }

    fn invalid(&mut self, path: &str, key: &str, value: &Value, detail: &str) {
        self.errors.push(FieldError::invalid(field::child(path, key), value, detail));
    }

    fn wrong_type(&mut self, path: &str, kind: &str, detail: &str) {
        match kind.is_empty() {
            true => self.require(path, "type", detail),
            false => self.invalid(path, "type", &kind.into(), detail),
        }
    }

    fn one_of(&mut self, path: &str, key: &str, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            let path = field::child(path, key);
            self.errors.push(FieldError::not_supported(path, &value.into(), supported));
        }
    }
}

/// What Go cannot tell from absence.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn is_true(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key) == Some(&Value::Bool(true))
}
