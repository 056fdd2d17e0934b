//! Renders objects as rows of a `Table`, as kubectl prints them.

mod age;
mod builtin;
mod jsonpath;
#[cfg(test)]
mod tests;
mod wanted;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::field::{self, FieldError};
use jsonpath::Path;

pub(crate) use builtin::builtin_columns;
pub(crate) use wanted::Wanted;

/// What Kubernetes says of the column Name.
const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// What Kubernetes says of the column Age.
const AGE_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// One printed column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(crate) kind: String,
    /// 0 is always shown, more only with `-o wide`.
    pub(crate) priority: i64,
    pub(crate) description: String,
    pub(crate) format: String,
    cell: Cell,
}

/// How the value of a column is found.
#[derive(Clone, Debug)]
enum Cell {
    /// `None` if the path is not of the supported subset: the cell stays empty.
    Path(Option<Path>),
    Computed(fn(&Value, Timestamp) -> Value),
}

/// Columns of a CRD version from its `additionalPrinterColumns` (null or absent means Age).
pub(crate) fn columns_from_crd(columns: &Value) -> Vec<Column> {
    let mut out = vec![name_column()];
    match columns.as_array().map(Vec::as_slice) {
        None | Some([]) => out.push(age_column()),
        Some(columns) => out.extend(columns.iter().map(|column| {
            let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default();
            let path = text("jsonPath");
            let description = match text("description") {
                "" => format!("Custom resource definition column (in JSONPath format): {path}"),
                given => given.to_owned(),
            };
            Column {
                priority: column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
                format: text("format").to_owned(),
                description,
                ..path_column(text("name"), text("type"), path)
            }
        })),
    }
    out
}

/// What is wrong with a CRD version's `additionalPrinterColumns` at `path`.
pub(crate) fn check_columns(columns: &Value, path: &str) -> Vec<FieldError> {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    let mut errors = Vec::new();
    for (at, column) in columns.as_array().into_iter().flatten().enumerate() {
        let path = |key: &str| field::child(&field::index(path, at), key);
        let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("name").is_empty() {
            errors.push(FieldError::required(path("name"), ""));
        }
        let must = format!("must be one of {}", TYPES.join(","));
        match text("type") {
            "" => errors.push(FieldError::required(path("type"), &must)),
            kind if !TYPES.contains(&kind) => {
                errors.push(FieldError::invalid(path("type"), &kind.into(), &must));
            }
            _ => {}
        }
        match text("jsonPath") {
            "" => errors.push(FieldError::required(path("JSONPath"), "")),
            json_path if Path::parse(json_path).is_none() => {
                let detail = "must be a simple json path starting with .";
                errors.push(FieldError::invalid(path("JSONPath"), &json_path.into(), detail));
            }
            _ => {}
        }
    }
    errors
}

/// What is said of the columns (`columnDefinitions`).
pub(crate) fn definitions(columns: &[Column]) -> Value {
    let definition = |column: &Column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    columns.iter().map(definition).collect()
}

/// The cells of an object; ages are relative to `now`.
pub(crate) fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let cell = |column: &Column| match &column.cell {
        Cell::Computed(compute) => compute(object, now),
        Cell::Path(path) => {
            let found = path.as_ref().and_then(|path| path.find(object).first().copied());
            found.map_or(Value::Null, |value| converted(&column.kind, value, now))
        }
    };
    columns.iter().map(cell).collect()
}

fn name_column() -> Column {
    Column {
        format: "name".to_owned(),
        description: NAME_DESCRIPTION.to_owned(),
        ..path_column("Name", "string", ".metadata.name")
    }
}

fn age_column() -> Column {
    Column {
        description: AGE_DESCRIPTION.to_owned(),
        ..path_column("Age", "date", ".metadata.creationTimestamp")
    }
}

fn path_column(name: &str, kind: &str, path: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        priority: 0,
        description: String::new(),
        format: String::new(),
        cell: Cell::Path(Path::parse(path)),
    }
}

/// A value in the type of its column; null where it does not fit.
fn converted(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", Value::Null) => Value::Null,
        ("string", other) => other.to_string().into(),
        ("date", Value::String(text)) => age::since_text(text, now).into(),
        ("integer", Value::Number(number)) => {
            // A fraction is cut off, as Go's conversion does.
            number.as_i64().or_else(|| number.as_f64().map(|n| n as i64)).into()
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        _ => Value::Null,
    }
}
