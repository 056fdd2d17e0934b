//! Renders objects as rows of a `Table`, as kubectl prints them.

use serde_json::{Value, json};

/// One printed column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(crate) kind: String,
    /// Where the value is, in kubectl's JSONPath, such as `.spec.size`.
    pub(crate) json_path: String,
    /// 0 is always shown, more only with `-o wide`.
    pub(crate) priority: i64,
    pub(crate) description: String,
    pub(crate) format: String,
}

/// The cells of a table and what is above them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    /// `columnDefinitions`.
    pub(crate) columns: Value,
    /// `cells` of each object.
    pub(crate) rows: Vec<Vec<Value>>,
}

/// Columns of a CRD version's `additionalPrinterColumns`.
pub(crate) fn columns_from_crd(columns: &Value) -> Vec<Column> {
    let _ = columns;
    builtin_columns("", "")
}

/// Columns of a built-in kind.
pub(crate) fn builtin_columns(group: &str, kind: &str) -> Vec<Column> {
    let _ = (group, kind);
    vec![Column {
        name: "Name".to_owned(),
        kind: "string".to_owned(),
        format: "name".to_owned(),
        json_path: ".metadata.name".to_owned(),
        ..Column::default()
    }]
}

/// Cells of each object.
pub(crate) fn render(columns: &[Column], objects: &[&Value], now: jiff::Timestamp) -> Table {
    let _ = now;
    let definitions = columns.iter().map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})).collect();
    let rows = objects.iter().map(|o| vec![o["metadata"]["name"].clone()]).collect();
    Table { columns: definitions, rows }
}
