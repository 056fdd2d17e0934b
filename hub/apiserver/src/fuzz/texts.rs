//! Parameters of requests: selectors, paths and queries, tokens of pages, columns.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::lines;
use crate::{
    request::{ListOptions, Query, Target, WriteOptions},
    selector::{Fields, Labels},
    table,
    verbs::page,
};

/// Two selectors and an object's labels, `a=b c=d`: both together select what each does.
pub(super) fn selectors(input: &[u8]) {
    let Some([one, other, given]) = lines(input) else { return };
    let labels: Value = given
        .split(' ')
        .filter_map(|label| label.split_once('='))
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect();
    let object = json!({"metadata": {"name": "n", "labels": labels}, "spec": {"a": labels}});
    let both = format!("{one},{other}");
    if let (Ok(a), Ok(b)) = (Labels::parse(one), Labels::parse(other))
        && !a.is_everything()
        && !b.is_everything()
    {
        let joined = Labels::parse(&both).expect("two selectors with a comma are a selector");
        assert_eq!(joined.matches(&object), a.matches(&object) && b.matches(&object), "{both}");
    }
    if let (Ok(a), Ok(b)) = (Fields::parse(one), Fields::parse(other)) {
        let joined = Fields::parse(&both).expect("two selectors with a comma are a selector");
        assert_eq!(joined.matches(&object), a.matches(&object) && b.matches(&object), "{both}");
        assert_eq!(joined.terms().len(), a.terms().len() + b.terms().len());
    }
}

/// A path, a query, and a text that must survive being encoded.
pub(super) fn query(input: &[u8]) {
    let Some([path, query, text]) = lines(input) else { return };
    if let Some(target) = Target::parse(path) {
        assert!(target.subresource.is_none() || target.name.is_some(), "{target:?}");
    }
    let parsed = Query::parse(query);
    for watch in [false, true] {
        // A refusal is as good an answer as any.
        let _ = ListOptions::parse(&parsed, watch);
    }
    let _ = WriteOptions::parse(&parsed, "CreateOptions");
    let encoded = text.bytes().fold("given=".to_owned(), |mut encoded, byte| {
        // Writing to a String cannot fail.
        let _ = write!(encoded, "%{byte:02X}");
        encoded
    });
    assert_eq!(Query::parse(&encoded).get("given").unwrap_or_default(), text);
}

/// A token of a client; one that is accepted is printed and read as the same place again.
pub(super) fn continue_token(input: &[u8]) {
    let Ok(token) = std::str::from_utf8(input) else { return };
    let Ok(page) = page::Page::parse(token) else { return };
    assert_eq!(page::Page::parse(&page.print()).ok(), Some(page), "{token}");
}

/// A path of a printer column, and an object.
pub(super) fn jsonpath(input: &[u8]) {
    let Some([path, object]) = lines(input) else { return };
    let Ok(object) = serde_json::from_str(object) else { return };
    let column = |kind: &str| json!({"name": "c", "type": kind, "jsonPath": path});
    let columns = json!([column("string"), column("integer"), column("date"), column("boolean")]);
    if path.trim().is_empty() {
        return;
    }
    let refused = !table::check_columns(&columns, "").is_empty();
    let columns = table::columns_from_crd(&columns);
    let cells = &table::cells(&columns, &object, Timestamp::UNIX_EPOCH)[1..];
    assert!(!refused || cells.iter().all(Value::is_null), "no path finds {cells:?}");
}
