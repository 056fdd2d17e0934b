//! Checks an object against a schema, in the order and the words of kube-openapi.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Bounds, Checks, Limit, Link, ListKind, Node, Shape, format::Format};
use crate::field::{self, Cause, FieldError};

/// About so many errors of one object are told; a body of some megabytes may have a million.
const ERRORS_MAX: usize = 256;

/// See [`super::Schema::validate`].
pub(super) fn object(root: &Node, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = value(root, new, old, "");
    unique(root, new, old, "", &mut errors);
    if root.has_rules() {
        match errors.iter().any(is_blocking) {
            false => rules(root, new, old, "", &mut errors),
            // Kubernetes' path of nothing, as Go prints it.
            true => errors.push(FieldError::invalid(
                "<nil>",
                &Value::Null,
                "some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation",
            )),
        }
    }
    errors
}

/// Whether rules could not be evaluated sensibly beside this error.
fn is_blocking(error: &FieldError) -> bool {
    matches!(
        error.cause,
        Cause::Required
            | Cause::NotSupported
            | Cause::TooLong
            | Cause::TooMany
            | Cause::TypeInvalid
    )
}

fn value(node: &Node, new: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
    // What has not changed is not the fault of this request.
    if old == Some(new) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    errors.extend(wrong_type(node, new).map(|(wanted, actual)| {
        let detail = format!("{path} in body must be of type {wanted}: {}", field::quote(actual));
        FieldError::type_invalid(path, &actual.into(), &detail)
    }));
    let checks = node.checks.as_deref();
    if new.is_null() {
        errors.extend(checks.and_then(|checks| not_in_enum(checks, new, path)));
        return errors;
    }
    if let Some(checks) = checks {
        logic(checks, new, path, &mut errors);
        match new {
            Value::String(text) => string(checks, text, path, &mut errors),
            Value::Number(_) => number(checks, new, path, &mut errors),
            _ => {}
        }
    }
    if let Value::Array(items) = new {
        list(node, items, old, path, &mut errors);
    }
    errors.extend(checks.and_then(|checks| not_in_enum(checks, new, path)));
    if let Value::Object(_) = new {
        fields(node, new, old, path, &mut errors);
    }
    errors
}

/// The type that is wanted and the one that is there, if they differ.
pub(super) fn wrong_type(node: &Node, value: &Value) -> Option<(&'static str, &'static str)> {
    let wanted = match node.shape {
        Shape::Any => return None,
        Shape::Object => "object",
        Shape::Array => "array",
        Shape::String => "string",
        Shape::Integer => "integer",
        Shape::Number => "number",
        Shape::Boolean => "boolean",
        Shape::IntOrString => "integer,string",
        Shape::Quantity => "string,number",
    };
    if value.is_null() && node.nullable {
        return None;
    }
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if is_integer(n) && wanted.contains("integer") => "integer",
        Value::Number(n) if n.is_f64() || wanted.contains("number") => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    (!wanted.split(',').any(|w| w == actual)).then_some((wanted, actual))
}

fn is_integer(number: &serde_json::Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
}

/// `anyOf`, `oneOf`, `allOf`, `not`.
fn logic(checks: &Checks, new: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut say = |text: String| {
        errors.push(FieldError::invalid("", &Value::from(""), &text));
    };
    let name = field::quote(path);
    let tried = |nodes: &[Node]| -> Vec<Vec<FieldError>> {
        nodes.iter().map(|node| value(node, new, None, path)).collect()
    };
    let mut inner = Vec::new();
    if !checks.any_of.is_empty() {
        let results = tried(&checks.any_of);
        if results.iter().all(|errors| !errors.is_empty()) {
            say(format!("{name} must validate at least one schema (anyOf)"));
            inner.extend(fewest(results));
        }
    }
    if !checks.one_of.is_empty() {
        let results = tried(&checks.one_of);
        match results.iter().filter(|errors| errors.is_empty()).count() {
            1 => {}
            0 => {
                say(format!(
                    "{name} must validate one and only one schema (oneOf). Found none valid"
                ));
                inner.extend(fewest(results));
            }
            n => say(format!(
                "{name} must validate one and only one schema (oneOf). Found {n} valid alternatives"
            )),
        }
    }
    if !checks.all_of.is_empty() {
        let results = tried(&checks.all_of);
        let good = results.iter().filter(|errors| errors.is_empty()).count();
        if good < results.len() {
            let none = if good == 0 { ". None validated" } else { "" };
            inner.extend(results.into_iter().flatten());
            say(format!("{name} must validate all the schemas (allOf){none}"));
        }
    }
    if checks.not.as_ref().is_some_and(|not| value(not, new, None, path).is_empty()) {
        say(format!("{name} must not validate the schema (not)"));
    }
    errors.extend(inner);
}

/// The errors of the alternative that fits best.
fn fewest(results: Vec<Vec<FieldError>>) -> Vec<FieldError> {
    results.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

fn string(checks: &Checks, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let value = || Value::from(text);
    let length = text.chars().count() as u64;
    if let Some(max) = checks.length.max.filter(|max| length > *max) {
        errors.push(FieldError::too_long(path, max));
    } else if let Some(min) = checks.length.min.filter(|min| length < *min) {
        let detail = format!("{path} in body should be at least {min} chars long");
        errors.push(FieldError::invalid(path, &value(), &detail));
    } else if let Some(pattern) = checks.pattern.as_ref().filter(|p| !p.is_match(text)) {
        let detail = format!("{path} in body should match '{pattern}'");
        errors.push(FieldError::invalid(path, &value(), &detail));
    }
    if let Some(format) = checks.format.filter(|format| !format.accepts(text)) {
        errors.push(wrong_format(format, text, path));
    }
}

fn wrong_format(format: Format, text: &str, path: &str) -> FieldError {
    let quoted = field::quote(text);
    let detail = format!("{path} in body must be of type {}: {quoted}", format.name());
    FieldError::type_invalid(path, &text.into(), &detail)
}

fn number(checks: &Checks, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_f64() else { return };
    let mut say = |text: String| errors.push(FieldError::invalid(path, value, &text));
    if let Some(factor) = checks.multiple_of
        && (number / factor).fract() != 0.0
    {
        say(format!("{path} in body should be a multiple of {factor}"));
    }
    if let Some(Limit { value: min, exclusive }) = checks.minimum
        && (number < min || (exclusive && number <= min))
    {
        let than = if exclusive { "greater than" } else { "greater than or equal to" };
        say(format!("{path} in body should be {than} {min}"));
    }
    if let Some(Limit { value: max, exclusive }) = checks.maximum
        && (number > max || (exclusive && number >= max))
    {
        let than = if exclusive { "less than" } else { "less than or equal to" };
        say(format!("{path} in body should be {than} {max}"));
    }
}

fn list(
    node: &Node,
    items: &[Value],
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if let Some(item) = node.item() {
        let old = OldItems::of(node, old);
        for (at, new) in items.iter().enumerate() {
            if errors.len() >= ERRORS_MAX {
                return;
            }
            errors.extend(value(item, new, old.same_as(new), &field::index(path, at)));
        }
    }
    let Some(checks) = node.checks.as_deref() else { return };
    let Bounds { min, max } = checks.items;
    if let Some(min) = min.filter(|min| (items.len() as u64) < *min) {
        let detail = format!("{path} in body should have at least {min} items");
        errors.push(FieldError::invalid(path, &items.len().into(), &detail));
    }
    if let Some(max) = max.filter(|max| items.len() as u64 > *max) {
        errors.push(FieldError::too_many(path, items.len(), max));
    }
    if checks.unique_items && (1..items.len()).any(|at| items[..at].contains(&items[at])) {
        let detail = format!("{path} in body shouldn't contain duplicates");
        errors.push(FieldError::invalid(path, &Value::from(""), &detail));
    }
}

/// The items of the old list by their keys, if the list has keys.
struct OldItems<'a> {
    keys: &'a [String],
    items: BTreeMap<Vec<String>, &'a Value>,
}

impl<'a> OldItems<'a> {
    fn of(node: &'a Node, old: Option<&'a Value>) -> OldItems<'a> {
        let keys: &[String] = if let ListKind::Map(keys) = &node.list { keys } else { &[] };
        let old = old.and_then(Value::as_array).filter(|_| !keys.is_empty());
        // The first of several is the one that counts.
        let items = old.into_iter().flatten().rev().map(|item| (identity(keys, item), item));
        OldItems { keys, items: items.collect() }
    }

    fn same_as(&self, new: &Value) -> Option<&'a Value> {
        match self.items.is_empty() {
            true => None,
            false => self.items.get(&identity(self.keys, new)).copied(),
        }
    }
}

fn identity(keys: &[String], item: &Value) -> Vec<String> {
    let text = |key: &String| item.get(key).map_or_else(String::new, Value::to_string);
    keys.iter().map(text).collect()
}

fn fields(node: &Node, new: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Value::Object(map) = new else { return };
    let checks = node.checks.as_deref();
    let bounds = checks.map(|checks| checks.fields).unwrap_or_default();
    if let Some(min) = bounds.min.filter(|min| (map.len() as u64) < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        errors.push(FieldError::invalid(path, &map.len().into(), &detail));
    }
    if let Some(max) = bounds.max.filter(|max| map.len() as u64 > *max) {
        errors.push(FieldError::too_many(path, map.len(), max));
    }
    let mut names: Vec<&String> = map.keys().collect();
    names.sort();
    for name in names {
        if errors.len() >= ERRORS_MAX {
            return;
        }
        if let Some(field) = node.field(name) {
            let old = old.and_then(|old| old.get(name));
            errors.extend(value(field, &map[name], old, &field::child(path, name)));
        }
    }
    let required = checks.into_iter().flat_map(|checks| &checks.required);
    for name in required.filter(|name| !map.contains_key(*name)) {
        errors.push(FieldError::required(field::child(path, name), ""));
    }
    if node.embedded {
        for name in ["apiVersion", "kind"].into_iter().filter(|name| !map.contains_key(*name)) {
            errors.push(FieldError::required(field::child(path, name), "must not be empty"));
        }
    }
}

fn not_in_enum(checks: &Checks, value: &Value, path: &str) -> Option<FieldError> {
    let allowed = checks.enumeration.as_ref()?;
    let equal = |a: &Value| a == value || (a.as_f64().is_some() && a.as_f64() == value.as_f64());
    if allowed.iter().any(equal) {
        return None;
    }
    let texts: Vec<String> =
        allowed.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned)).collect();
    Some(FieldError::not_supported(path, value, &texts))
}

/// Duplicates in lists of type set and map.
fn unique(node: &Node, new: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    // Of its own kinds Kubernetes decides list by list; an environment may name a variable twice.
    if node.is_struct {
        return;
    }
    if old == Some(new) {
        return;
    }
    match new {
        Value::Array(items) => {
            match &node.list {
                ListKind::Atomic => {}
                ListKind::Set => duplicates(items.iter().cloned(), path, errors),
                ListKind::Map(keys) => keyed_duplicates(items, keys, path, errors),
            }
            let Some(item) = node.item() else { return };
            let old = OldItems::of(node, old);
            for (at, new) in items.iter().enumerate() {
                unique(item, new, old.same_as(new), &field::index(path, at), errors);
            }
        }
        Value::Object(map) => {
            for (name, new) in map {
                let Some(field) = node.field(name) else { continue };
                let old = old.and_then(|old| old.get(name));
                unique(field, new, old, &path_of(node, path, name), errors);
            }
        }
        _ => {}
    }
}

fn keyed_duplicates(items: &[Value], keys: &[String], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(at) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(field::index(path, at), &items[at], detail));
        return;
    }
    let key_of = |item: &Value| {
        let present = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(present.collect())
    };
    duplicates(items.iter().map(key_of), path, errors);
}

/// Reports the second appearance of each value.
fn duplicates(values: impl Iterator<Item = Value>, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeMap::<String, u32>::new();
    for (at, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 && errors.len() < ERRORS_MAX {
            errors.push(FieldError::duplicate(field::index(path, at), &value));
        }
    }
}

/// `x-kubernetes-validations`, from the outside in.
fn rules(node: &Node, new: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(checks) = node.checks.as_deref().filter(|checks| checks.has_rules) else { return };
    // Unchanged values are skipped as a whole: their rules held when they were written, or the
    // object could not have been blamed on this request. Transition rules see no transition.
    if old == Some(new) {
        return;
    }
    if errors.len() >= ERRORS_MAX {
        return;
    }
    if let Some(rules) = checks.rules.as_ref().filter(|_| !new.is_null()) {
        errors.extend(rules.check(new, old, path));
    }
    match new {
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort();
            for name in names {
                let Some(field) = node.field(name) else { continue };
                let old = old.and_then(|old| old.get(name));
                rules(field, &map[name], old, &path_of(node, path, name), errors);
            }
        }
        Value::Array(items) => {
            let Some(item) = node.item() else { return };
            let old = OldItems::of(node, old);
            for (at, new) in items.iter().enumerate() {
                rules(item, new, old.same_as(new), &field::index(path, at), errors);
            }
        }
        _ => {}
    }
}

/// Declared fields are named, keys of maps are in brackets.
fn path_of(node: &Node, path: &str, name: &str) -> String {
    match node.properties.contains_key(name) {
        true => field::child(path, name),
        false => field::key(path, name),
    }
}

/// Errors in the defaults of a schema; paths are those of the schema.
pub(super) fn defaults(node: &Node, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(default) = &node.default {
        let path = field::child(path, "default");
        let wrong = value(node, default, None, "");
        errors.extend(wrong.into_iter().map(|error| FieldError {
            field: match error.field.is_empty() {
                true => path.clone(),
                false => field::child(&path, &error.field),
            },
            ..error
        }));
    }
    let mut below = |link: &Link, path: String| {
        if let Link::Own(node) = link {
            errors.extend(defaults(node, &path));
        }
    };
    for (name, link) in &node.properties {
        below(link, field::key(&field::child(path, "properties"), name));
    }
    for (link, name) in [(&node.items, "items"), (&node.additional, "additionalProperties")] {
        if let Some(link) = link {
            below(link, field::child(path, name));
        }
    }
    errors
}
