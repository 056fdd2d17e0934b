//! Validation errors that name a field, in the words of Kubernetes.
//!
//! The texts are those of `k8s.io/apimachinery/pkg/util/validation/field`: people and tests
//! match them, so a change here is a change of the API.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// The empty path, as Go prints a nil pointer.
pub(crate) const NO_FIELD: &str = "<nil>";

/// Machine-readable kind of a [`FieldError`]: the `reason` of a cause in a `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Required,
    Duplicate,
    NotFound,
    Invalid,
    TypeInvalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
}

impl Cause {
    /// The reason as the API spells it, such as `FieldValueRequired`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// What kind of mistake it is.
    pub(crate) cause: Cause,
    /// Path of the field, such as `spec.ports[0].name`; empty for the object itself.
    pub(crate) field: String,
    /// Text without the field, such as `Required value`.
    pub(crate) message: String,
}

impl FieldError {
    /// The field is missing. `detail` may be empty.
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(Cause::Required, field, None, detail)
    }

    /// The value is not acceptable.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(Cause::Invalid, field, Some(value), detail)
    }

    /// The value has the wrong JSON type.
    pub(crate) fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(Cause::TypeInvalid, field, Some(value), detail)
    }

    /// The value occurs twice where it must be unique.
    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(Cause::Duplicate, field, Some(value), "")
    }

    /// The value names something that is not there.
    pub(crate) fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(Cause::NotFound, field, Some(value), "")
    }

    /// The value would be fine elsewhere but may not be set here.
    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(Cause::Forbidden, field, None, detail)
    }

    /// The value is none of `supported`.
    pub(crate) fn not_supported<S: AsRef<str>>(
        field: impl Into<String>,
        value: &Value,
        supported: &[S],
    ) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s.as_ref())).collect();
        let detail = match quoted.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", quoted.join(", ")),
        };
        Self::new(Cause::NotSupported, field, Some(value), &detail)
    }

    /// One of the texts is none of `supported`.
    pub(crate) fn unsupported_list(field: &str, texts: &[&str], supported: &[&str]) -> Self {
        let texts: Vec<String> = texts.iter().map(|text| quote(text)).collect();
        let shown = format!("[]string{{{}}}", texts.join(", "));
        let mut error = Self::not_supported(field, &Value::Null, supported);
        error.message = error.message.replacen(&quote("null"), &shown, 1);
        error
    }

    /// The text has more than `max` bytes.
    pub(crate) fn too_long(field: impl Into<String>, max: u64) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::new(Cause::TooLong, field, None, &detail)
    }

    /// The list or map has `actual` entries where `max` are allowed.
    pub(crate) fn too_many(field: impl Into<String>, actual: usize, max: u64) -> Self {
        let detail = format!("must have at most {max} items");
        Self::new(Cause::TooMany, field, Some(&Value::from(actual)), &detail)
    }

    fn new(cause: Cause, field: impl Into<String>, value: Option<&Value>, detail: &str) -> Self {
        let mut message = cause.words().to_owned();
        if let Some(value) = value {
            message.push_str(": ");
            message.push_str(&shown(value));
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        Self { cause, field: field.into(), message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { NO_FIELD } else { &self.field };
        write!(f, "{field}: {}", self.message)
    }
}

/// Longest path, in bytes: one is made for every value of a body, so that without a bound a field
/// with a name of a megabyte and many values below it would cost that megabyte for each of them.
const PATH_BYTES_MAX: usize = 1024;

/// What the end of a longer path is replaced by; nothing comes after it.
const CUT: &str = "…(cut)";

/// `parent.name`, or `name` at the root.
pub(crate) fn child(parent: &str, name: &str) -> String {
    let dot = if parent.is_empty() { "" } else { "." };
    extended(parent, [dot, name, ""])
}

/// `parent[key]`, for keys that are data rather than field names.
pub(crate) fn key(parent: &str, key: &str) -> String {
    extended(parent, ["[", key, "]"])
}

/// `parent[index]`.
pub(crate) fn index(parent: &str, index: usize) -> String {
    extended(parent, ["[", &index.to_string(), "]"])
}

/// `parent` with these parts after it, cut where it gets too long.
pub(crate) fn extended(parent: &str, parts: [&str; 3]) -> String {
    if parent.ends_with(CUT) {
        return parent.to_owned();
    }
    let length = parent.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut path = String::with_capacity(length.min(PATH_BYTES_MAX + CUT.len()));
    path.push_str(parent);
    for part in parts {
        let room = PATH_BYTES_MAX.saturating_sub(path.len());
        if part.len() > room {
            path.push_str(&part[..part.floor_char_boundary(room)]);
            path.push_str(CUT);
            break;
        }
        path.push_str(part);
    }
    path
}

/// The one message that lists several errors as `Status.message` does:
/// one plain, several as `[a, b]`, repetitions once.
pub(crate) fn summary(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in errors.iter().map(ToString::to_string) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// A string in double quotes as Go's `%q` writes it.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as Kubernetes shows it in an error: scalars plainly, the rest in Go syntax (`%#v`).
fn shown(value: &Value) -> String {
    match value {
        // A nil value is replaced by the text "null" before it is printed.
        Value::Null => quote("null"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quote(text),
        Value::Array(_) | Value::Object(_) => go_syntax(value),
    }
}

/// A value as Go prints it by `%#v`.
pub(crate) fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quote(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(name, value)| format!("{}:{}", quote(name), go_syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
    }
}

/// A value as Go prints it by `%v`.
pub(crate) fn go_plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut entries: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}:{}", go_plain(value))).collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_those_of_kubernetes() {
        let cases = [
            (FieldError::required("spec.x", ""), "spec.x: Required value"),
            (FieldError::required("spec.x", "must be set"), "spec.x: Required value: must be set"),
            (
                FieldError::invalid(
                    "metadata.resourceVersion",
                    &json!(0),
                    "must be specified for an update",
                ),
                "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
            ),
            (
                FieldError::not_supported("fieldValidation", &json!("Foo"), &["", "Ignore"]),
                r#"fieldValidation: Unsupported value: "Foo": supported values: "", "Ignore""#,
            ),
            (
                FieldError::duplicate("spec.list[1]", &json!({"b": 1, "a": ["x", null]})),
                r#"spec.list[1]: Duplicate value: map[string]interface {}{"a":[]interface {}{"x", interface {}(nil)}, "b":1}"#,
            ),
            (FieldError::too_long("spec.s", 5), "spec.s: Too long: may not be more than 5 bytes"),
            (
                FieldError::too_many("spec.l", 3, 2),
                "spec.l: Too many: 3: must have at most 2 items",
            ),
            (FieldError::forbidden("force", "no"), "force: Forbidden: no"),
            (FieldError::invalid("", &json!(null), "no"), r#"<nil>: Invalid value: "null": no"#),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn summary_lists_each_error_once() {
        let a = FieldError::required("a", "");
        let b = FieldError::required("b", "");
        assert_eq!(summary(std::slice::from_ref(&a)), "a: Required value");
        assert_eq!(summary(&[a.clone(), b, a]), "[a: Required value, b: Required value]");
    }

    #[test]
    fn paths_have_an_end() {
        assert_eq!(index(&key(&child("", "a"), "b"), 3), "a[b][3]");
        let long = child("spec", &"ü".repeat(PATH_BYTES_MAX));
        assert!(long.ends_with("ü…(cut)"), "{long}");
        assert!(long.len() <= PATH_BYTES_MAX + CUT.len(), "{}", long.len());
        assert_eq!(index(&child(&long, "x"), 1), long);
    }

    #[test]
    fn quotes_control_characters() {
        assert_eq!(quote("a\"\\\n\u{1}ü"), r#""a\"\\\n\x01ü""#);
    }
}
