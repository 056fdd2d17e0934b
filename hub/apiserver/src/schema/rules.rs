//! `x-kubernetes-validations`: the CEL rules of one place in a schema, by the crate kube-cel.
//!
//! Each node with rules holds them compiled; the walk is ours, because items of a `map` list
//! must be compared with the old item of the same key.

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, compile_schema};
use serde_json::Value;

use super::{
    Shape,
    cost::{self, Cost},
};
use crate::field::{self, Cause, FieldError};

/// Compiled rules of one node.
pub(super) struct Rules {
    compiled: CompiledSchema,
    /// Of each rule and of its message, where that is computed.
    costs: Vec<Cost>,
    type_name: &'static str,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("count", &self.compiled.validations.len()).finish()
    }
}

/// A rule that does not compile.
pub(super) struct BadRule {
    index: usize,
    rule: String,
    detail: String,
}

impl BadRule {
    /// The error, with the path of the list of rules.
    pub(super) fn at(&self, path: &str) -> FieldError {
        let path = field::child(&field::index(path, self.index), "rule");
        let rule = Value::from(self.rule.as_str());
        FieldError::invalid(path, &rule, &format!("compilation failed: {}", self.detail))
    }
}

impl Rules {
    /// Compiles the rules of `schema`, not those of the schemas below it.
    pub(super) fn compile(schema: &Value, shape: Shape) -> Result<Self, Vec<BadRule>> {
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        let rules: &[Value] = rules.map_or(&[], Vec::as_slice);
        let bad = |index: usize, detail: String| {
            let rule = rules.get(index).and_then(|rule| rule["rule"].as_str());
            BadRule { index, rule: rule.unwrap_or_default().to_owned(), detail }
        };
        let intricate = |(index, rule): (usize, &Value)| {
            let texts = [&rule["rule"], &rule["messageExpression"]];
            let why = texts.into_iter().filter_map(Value::as_str).find_map(cost::too_intricate)?;
            Some(bad(index, why))
        };
        let refused: Vec<BadRule> = rules.iter().enumerate().filter_map(intricate).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let mut own = schema.clone();
        strip_below(&mut own);
        let Some(compiled) = cost::parsing(|| compile_schema(&own)) else {
            return Err(vec![bad(0, "it is nested too deeply".to_owned())]);
        };
        let mut costs = Vec::new();
        let mut refused = Vec::new();
        for (index, result) in compiled.validations.iter().enumerate() {
            match result {
                Ok(rule) => {
                    let programs = [Some(&rule.program), rule.message_program.as_ref()];
                    let own: Vec<Cost> = programs.into_iter().flatten().map(Cost::of).collect();
                    let why = own.iter().find_map(Cost::too_deep);
                    refused.extend(why.map(|why| bad(index, why)));
                    costs.extend(own);
                }
                Err(error) => refused.push(bad(index, error.to_string())),
            }
        }
        match refused.is_empty() {
            true => Ok(Self { compiled, costs, type_name: type_name(shape) }),
            false => Err(refused),
        }
    }

    /// Evaluates the rules on a value at `path`. Rules that speak of the old value are left out
    /// where there is none.
    pub(super) fn check(&self, value: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
        if self.costs.iter().any(|cost| !cost.affordable(value, old)) {
            let shown = Value::from(self.type_name);
            let detail = "validation failed due to running out of cost budget, no further \
                          validation rules will be run";
            return vec![FieldError::invalid(path, &shown, detail)];
        }
        let evaluate = || kube_cel::validate_compiled(&self.compiled, value, old);
        let Some(evaluated) = Cost::evaluating(&self.costs, evaluate) else {
            let shown = Value::from(self.type_name);
            return vec![FieldError::invalid(path, &shown, "the rules could not be evaluated")];
        };
        let Err(errors) = evaluated else { return Vec::new() };
        errors.as_slice().iter().map(|error| self.field_error(error, path)).collect()
    }

    fn field_error(&self, error: &ValidationError, path: &str) -> FieldError {
        // The rule's own `fieldPath`, such as `.spec.x`, is relative to this node.
        let field = match error.field_path.trim_start_matches('.') {
            "" => path.to_owned(),
            key if key.starts_with('[') => format!("{path}{key}"),
            name => field::child(path, name),
        };
        let detail = match error.kind {
            ErrorKind::EvaluationError => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                let cause = cause.unwrap_or_else(|| error.message.clone());
                // The Go library begins its messages in lower case.
                let (first, rest) = cause.split_at(cause.chars().next().map_or(0, char::len_utf8));
                let cause = format!("{}{rest}", first.to_lowercase());
                format!("{cause} evaluating rule: {}", self.message_of(&error.rule))
            }
            _ => error.message.clone(),
        };
        let shown = Value::from(self.type_name);
        match error.reason.as_deref() {
            Some("FieldValueRequired") => FieldError::required(field, &detail),
            Some("FieldValueForbidden") => FieldError::forbidden(field, &detail),
            Some("FieldValueDuplicate") => FieldError::duplicate(field, &shown),
            _ => {
                FieldError { cause: Cause::Invalid, ..FieldError::invalid(field, &shown, &detail) }
            }
        }
    }

    fn message_of(&self, rule: &str) -> String {
        let compiled = self.compiled.validations.iter().flatten().find(|r| r.rule.rule == rule);
        let message = compiled.and_then(|r| r.rule.message.clone());
        message.unwrap_or_else(|| format!("failed rule: {rule}"))
    }
}

/// Removes the rules of all nested schemas.
fn strip_below(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for (key, value) in map {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(strip);
            }
            ("items" | "additionalProperties" | "not", nested) => strip(nested),
            ("allOf" | "anyOf" | "oneOf", Value::Array(nested)) => {
                nested.iter_mut().for_each(strip);
            }
            _ => {}
        }
    }
}

fn strip(schema: &mut Value) {
    if let Value::Object(map) = schema {
        map.shift_remove("x-kubernetes-validations");
    }
    strip_below(schema);
}

fn type_name(shape: Shape) -> &'static str {
    match shape {
        Shape::Object => "object",
        Shape::Array => "array",
        Shape::String => "string",
        Shape::Integer => "integer",
        Shape::Number => "number",
        Shape::Boolean => "boolean",
        Shape::Any | Shape::IntOrString | Shape::Quantity => "",
    }
}
