//! Prints the server's tables, and only them: what a row says is decided by the API.

use serde_json::Value;

/// Spaces between columns, as kubectl.
const GAP: usize = 3;

/// Which columns a table shows, and how wide they are by now.
pub(super) struct Printer {
    all_columns: bool,
    with_namespace: bool,
    with_kind: Option<String>,
    widths: Vec<usize>,
    headed: bool,
}

impl Printer {
    /// All columns for `-o wide`; the namespace first for `-A`.
    pub(super) fn new(all_columns: bool, with_namespace: bool) -> Self {
        Self { all_columns, with_namespace, with_kind: None, widths: Vec::new(), headed: false }
    }

    /// Names are written `prefix/name`, where several kinds are shown.
    pub(super) fn with_kind(mut self, prefix: String) -> Self {
        self.with_kind = Some(prefix);
        self
    }

    /// The rows of a table as text; the first time below their header.
    pub(super) fn render(&mut self, table: &Value, definitions: &Value) -> String {
        let columns = self.columns(definitions);
        let mut lines = Vec::new();
        if !self.headed {
            let header = columns.iter().map(|(_, name)| name.to_uppercase());
            let namespace = self.with_namespace.then(|| "NAMESPACE".to_owned());
            lines.push(namespace.into_iter().chain(header).collect::<Vec<_>>());
            self.headed = true;
        }
        let rows = table["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        lines.extend(rows.iter().map(|row| self.cells(row, &columns)));
        self.widths.resize(lines.first().map_or(0, Vec::len), 0);
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        lines.iter().map(|line| self.pad(line)).collect()
    }

    fn columns(&self, definitions: &Value) -> Vec<(usize, String)> {
        let all = definitions.as_array().map(Vec::as_slice).unwrap_or_default();
        let shown = |column: &Value| self.all_columns || column["priority"].as_i64() <= Some(0);
        let named = |column: &Value| column["name"].as_str().unwrap_or_default().to_owned();
        all.iter().enumerate().filter(|(_, c)| shown(c)).map(|(at, c)| (at, named(c))).collect()
    }

    fn cells(&self, row: &Value, columns: &[(usize, String)]) -> Vec<String> {
        let namespace = row.pointer("/object/metadata/namespace").and_then(Value::as_str);
        let namespace = self.with_namespace.then(|| namespace.unwrap_or_default().to_owned());
        let cells = columns.iter().map(|&(at, _)| match &row["cells"][at] {
            Value::Null => String::new(),
            Value::String(text) if at == 0 => match &self.with_kind {
                Some(prefix) => format!("{prefix}/{text}"),
                None => text.clone(),
            },
            // A line break in a cell would pass for a row.
            Value::String(text) => text.replace(['\n', '\r'], " "),
            other => other.to_string(),
        });
        namespace.into_iter().chain(cells).collect()
    }

    fn pad(&self, line: &[String]) -> String {
        let mut out = String::new();
        for (at, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < line.len() {
                let fill = self.widths[at] + GAP - cell.chars().count();
                out.extend(std::iter::repeat_n(' ', fill));
            }
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definitions() -> Value {
        json!([{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0},
               {"name": "Node", "priority": 1}])
    }

    #[test]
    fn aligns_columns_and_hides_those_of_lower_priority() {
        let row = |name: &str| {
            json!({"cells": [name, true, "n1"],
                                      "object": {"metadata": {"namespace": "default"}}})
        };
        let table = json!({"rows": [row("a"), row("longer")]});
        let mut printer = Printer::new(false, false);
        assert_eq!(
            printer.render(&table, &definitions()),
            "NAME     READY\na        true\nlonger   true\n"
        );
        assert_eq!(printer.render(&json!({"rows": [row("b")]}), &definitions()), "b        true\n");
        let mut wide = Printer::new(true, true);
        assert_eq!(
            wide.render(&json!({"rows": [row("a")]}), &definitions()),
            "NAMESPACE   NAME   READY   NODE\ndefault     a      true    n1\n"
        );
    }

    #[test]
    fn a_cell_stays_on_its_line() {
        let table = json!({"rows": [{"cells": ["a", "x\ny", null]}]});
        let text = Printer::new(true, false).render(&table, &definitions());
        assert_eq!(text, "NAME   READY   NODE\na      x y     \n");
    }
}
