//! Compiles OpenAPI v3 schemas, of CRDs and of the built-in kinds, into [`Node`]s.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{
    Bounds, Checks, Limit, Link, ListKind, Node, PatchStrategy, Shape, builtin, format::Format,
    rules::Rules,
};
use crate::field::{self, FieldError};

/// A pattern may have so many bytes, and take so much memory when compiled; the longest that
/// Kubernetes' own kinds use has less than a tenth of either.
const PATTERN_BYTES_MAX: usize = 16 * 1024;
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of a schema that is compiled; far beyond any real API, well within the stack.
pub(super) const MAX_DEPTH: usize = 64;

/// Finds the index of a built-in definition by its name.
type Resolve<'a> = dyn Fn(&str) -> Option<usize> + 'a;

/// The root of a custom resource: the CRD's schema with `apiVersion`, `kind` and `metadata`.
pub(super) fn custom_root(schema: &Value, path: &str) -> Result<Node, Vec<FieldError>> {
    let mut compiler = Compiler { errors: Vec::new(), builtin: None };
    let mut root = compiler.node(schema, path, 0);
    if !compiler.errors.is_empty() {
        return Err(compiler.errors);
    }
    add_resource_fields(&mut root);
    Ok(root)
}

/// A built-in definition; `resolve` finds the index of a definition by its name.
pub(super) fn definition(schema: &Value, resolve: &Resolve) -> Node {
    // Kubernetes' own schemas have no patterns, the only thing that can fail to compile.
    Compiler { errors: Vec::new(), builtin: Some(resolve) }.node(schema, "", 0)
}

struct Compiler<'a> {
    errors: Vec<FieldError>,
    /// Set for built-in schemas.
    builtin: Option<&'a Resolve<'a>>,
}

impl Compiler<'_> {
    fn node(&mut self, schema: &Value, path: &str, depth: usize) -> Node {
        if depth > MAX_DEPTH {
            self.errors.push(too_deep(path));
            return Node::default();
        }
        let mut node = Node {
            shape: shape(schema),
            is_struct: self.builtin.is_some(),
            nullable: self.builtin.is_some() || flag(schema, "nullable"),
            preserve: flag(schema, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(schema, "x-kubernetes-embedded-resource"),
            list: list_kind(schema),
            atomic_map: text(schema, "x-kubernetes-map-type") == Some("atomic"),
            default: self.default(schema),
            patch: patch_strategy(schema),
            merge_key: text(schema, "x-kubernetes-patch-merge-key").map(str::to_owned),
            ..Node::default()
        };
        self.children(schema, path, depth, &mut node);
        let checks = self.checks(schema, path, depth, &node);
        node.checks = checks.map(Box::new);
        if node.embedded {
            add_resource_fields(&mut node);
        }
        let untyped_object =
            node.shape == Shape::Object && node.properties.is_empty() && node.additional.is_none();
        node.preserve |= self.builtin.is_some() && (untyped_object || node.shape == Shape::Any);
        node
    }

    fn children(&mut self, schema: &Value, path: &str, depth: usize, node: &mut Node) {
        if let Some(Value::Object(properties)) = schema.get("properties") {
            let path = field::child(path, "properties");
            for (name, schema) in properties {
                let link = self.link(schema, &field::key(&path, name), depth);
                node.properties.insert(name.clone(), link);
                // The published schemas give such a field an empty default.
                let is_struct = schema.get("default").and_then(Value::as_object);
                if self.builtin.is_some() && is_struct.is_some_and(serde_json::Map::is_empty) {
                    node.embedded_structs.insert(name.clone());
                }
            }
        }
        if let Some(items) = schema.get("items") {
            node.items = Some(self.link(items, &field::child(path, "items"), depth));
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => node.additional = Some(Link::Own(Box::new(anything()))),
            Some(schema @ Value::Object(_)) => {
                let path = field::child(path, "additionalProperties");
                node.additional = Some(self.link(schema, &path, depth));
            }
            _ => {}
        }
    }

    /// A child; `allOf` of one reference, as OpenAPI writes a reference with a description, is
    /// that reference.
    fn link(&mut self, schema: &Value, path: &str, depth: usize) -> Link {
        if let Some(resolve) = self.builtin {
            let target = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref"));
            let name = target.and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
            if let Some(index) = name.and_then(resolve) {
                return Link::Shared(index);
            }
        }
        Link::Own(Box::new(self.node(schema, path, depth + 1)))
    }

    fn default(&self, schema: &Value) -> Option<Value> {
        let default = schema.get("default").filter(|d| !d.is_null())?;
        // Kubernetes' own file gives zero values as defaults: what a Go struct has anyway.
        let zero = match default {
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Bool(set) => !set,
            Value::Array(_) | Value::Null => false,
        };
        (self.builtin.is_none() || !zero).then(|| default.clone())
    }

    fn checks(&mut self, schema: &Value, path: &str, depth: usize, node: &Node) -> Option<Checks> {
        let required = strings(schema, "required");
        let nested = |key: &str| schema.get(key).and_then(Value::as_array).is_some();
        let plain = [
            "enum",
            "format",
            "pattern",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "uniqueItems",
            "minimum",
            "maximum",
            "multipleOf",
            "not",
            "x-kubernetes-validations",
        ];
        let below = node
            .properties
            .values()
            .chain(&node.additional)
            .chain(&node.items)
            // Built-in kinds have no rules.
            .any(|link| matches!(link, Link::Own(node) if node.has_rules()));
        let any = !required.is_empty()
            || below
            || plain.iter().any(|key| schema.get(*key).is_some())
            || ["allOf", "anyOf", "oneOf"].into_iter().any(nested);
        if !any {
            return None;
        }
        let rules = self.rules(schema, path, node.shape);
        Some(Checks {
            required: self.required(required, node),
            enumeration: schema.get("enum").and_then(Value::as_array).cloned(),
            format: text(schema, "format").and_then(Format::named),
            pattern: self.pattern(schema, path),
            length: bounds(schema, "minLength", "maxLength"),
            items: bounds(schema, "minItems", "maxItems"),
            fields: bounds(schema, "minProperties", "maxProperties"),
            unique_items: flag(schema, "uniqueItems"),
            minimum: limit(schema, "minimum", "exclusiveMinimum"),
            maximum: limit(schema, "maximum", "exclusiveMaximum"),
            multiple_of: schema.get("multipleOf").and_then(Value::as_f64),
            all_of: self.several(schema, "allOf", path, depth),
            any_of: self.several(schema, "anyOf", path, depth),
            one_of: match node.shape {
                // Their `oneOf` says what the shape says already.
                Shape::IntOrString | Shape::Quantity if self.builtin.is_some() => Vec::new(),
                _ => self.several(schema, "oneOf", path, depth),
            },
            not: schema
                .get("not")
                .map(|not| Box::new(self.node(not, &field::child(path, "not"), depth + 1))),
            has_rules: below || rules.is_some(),
            rules,
        })
    }

    /// Required fields. A Go struct cannot tell an empty list or map from an absent one, so that
    /// built-in kinds require only those lists whose items have an identity, such as containers.
    fn required(&self, required: Vec<String>, node: &Node) -> Vec<String> {
        if self.builtin.is_none() {
            return required;
        }
        let optional = |name: &String| match node.properties.get(name) {
            Some(Link::Own(field)) => {
                (field.shape == Shape::Array && field.merge_key.is_none())
                    || (field.shape == Shape::Object && field.additional.is_some())
            }
            Some(Link::Shared(_)) | None => false,
        };
        required.into_iter().filter(|name| !optional(name)).collect()
    }

    fn several(&mut self, schema: &Value, key: &str, path: &str, depth: usize) -> Vec<Node> {
        let Some(schemas) = schema.get(key).and_then(Value::as_array) else {
            return Vec::new();
        };
        let path = field::child(path, key);
        let nested = schemas.iter().enumerate();
        nested.map(|(at, s)| self.node(s, &field::index(&path, at), depth + 1)).collect()
    }

    fn pattern(&mut self, schema: &Value, path: &str) -> Option<Regex> {
        let pattern = text(schema, "pattern").filter(|p| !p.is_empty())?;
        if pattern.len() > PATTERN_BYTES_MAX {
            let path = field::child(path, "pattern");
            let error = FieldError::too_long(path, PATTERN_BYTES_MAX as u64);
            self.errors.push(error);
            return None;
        }
        match RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build() {
            Ok(regex) => Some(regex),
            Err(error) => {
                let detail =
                    format!("must be a valid regular expression, but isn't: {}", one_line(&error));
                let path = field::child(path, "pattern");
                self.errors.push(FieldError::invalid(path, &pattern.into(), &detail));
                None
            }
        }
    }

    fn rules(&mut self, schema: &Value, path: &str, shape: Shape) -> Option<Arc<Rules>> {
        schema
            .get("x-kubernetes-validations")
            .filter(|r| r.as_array().is_some_and(|r| !r.is_empty()))?;
        match Rules::compile(schema, shape) {
            Ok(rules) => Some(Arc::new(rules)),
            Err(errors) => {
                let path = field::child(path, "x-kubernetes-validations");
                self.errors.extend(errors.into_iter().map(|e| e.at(&path)));
                None
            }
        }
    }
}

/// Gives an object that is a resource its `apiVersion`, `kind` and `metadata`.
fn add_resource_fields(node: &mut Node) {
    let mut metadata = builtin::object_meta();
    // A CRD may restrict the name; nothing else of metadata.
    if let Some(Link::Own(declared)) = node.properties.remove("metadata") {
        for (name, declared) in declared.properties {
            if matches!(name.as_str(), "name" | "generateName") {
                metadata.properties.insert(name, declared);
            }
        }
    }
    node.properties.insert("metadata".to_owned(), Link::Own(Box::new(metadata)));
    for name in ["apiVersion", "kind"] {
        let string = || Link::Own(Box::new(Node { shape: Shape::String, ..Node::default() }));
        node.properties.entry(name.to_owned()).or_insert_with(string);
    }
}

fn anything() -> Node {
    Node { preserve: true, nullable: true, ..Node::default() }
}

fn too_deep(path: &str) -> FieldError {
    FieldError::forbidden(path, &format!("schema is nested deeper than {MAX_DEPTH} levels"))
}

fn one_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim().to_owned()
}

fn shape(schema: &Value) -> Shape {
    let int_or_string = flag(schema, "x-kubernetes-int-or-string")
        || text(schema, "format") == Some("int-or-string");
    match text(schema, "type") {
        _ if int_or_string => Shape::IntOrString,
        Some("object") => Shape::Object,
        Some("array") => Shape::Array,
        Some("string") => Shape::String,
        Some("integer") => Shape::Integer,
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Boolean,
        _ if is_quantity(schema) => Shape::Quantity,
        _ => Shape::Any,
    }
}

/// The built-in `Quantity` is the only definition of this form.
fn is_quantity(schema: &Value) -> bool {
    let types: Vec<&str> = schema
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|s| text(s, "type"))
        .collect();
    types == ["string", "number"]
}

fn list_kind(schema: &Value) -> ListKind {
    match text(schema, "x-kubernetes-list-type") {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(strings(schema, "x-kubernetes-list-map-keys")),
        _ => ListKind::Atomic,
    }
}

fn patch_strategy(schema: &Value) -> PatchStrategy {
    let strategy = text(schema, "x-kubernetes-patch-strategy").unwrap_or_default();
    PatchStrategy {
        merge: strategy.split(',').any(|s| s == "merge"),
        retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
    }
}

fn bounds(schema: &Value, min: &str, max: &str) -> Bounds {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    Bounds { min: bound(min), max: bound(max) }
}

fn limit(schema: &Value, value: &str, exclusive: &str) -> Option<Limit> {
    let value = schema.get(value).and_then(Value::as_f64)?;
    Some(Limit { value, exclusive: flag(schema, exclusive) })
}

fn text<'a>(schema: &'a Value, key: &str) -> Option<&'a str> {
    schema.get(key).and_then(Value::as_str)
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn strings(schema: &Value, key: &str) -> Vec<String> {
    let list = schema.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
