//! `destination-selectors.yaml`: which directory of a pipeline's output goes where?

use std::collections::BTreeSet;

use muster_api::destination::{DestinationSelector, LabelExpression};
use muster_core::content::FileError;
use serde_json::Value;

use crate::selectors;

/// Why a pipeline's result was refused: file, field, cause and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The file is not the list that it must be.
    #[error(
        "invalid destination-selectors.yaml: {0}: write a list of entries such as \
         `- directory: east` with `matchLabels: {{region: east}}`"
    )]
    Selectors(String),
    /// One entry is wrong.
    #[error("invalid destination-selectors.yaml: [{index}].{field}: {cause}")]
    Entry {
        /// Which entry, from 0.
        index: usize,
        /// Its field.
        field: String,
        /// Cause and cure.
        cause: String,
    },
    /// There is no directory that the selectors name.
    #[error(
        "invalid destination-selectors.yaml: there is no directory {0:?} in /kratix/output: make it, \
         or leave the entry out"
    )]
    NoDirectory(String),
    /// The file that asks to wait is wrong.
    #[error("invalid workflow-control.yaml: {0}")]
    Control(String),
    /// The file with status is wrong.
    #[error("invalid status.yaml: {0}")]
    Status(String),
    /// A path or the size is.
    #[error(transparent)]
    File(#[from] FileError),
}

/// One entry: where a directory goes, or (without one) the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Directive {
    /// A top directory of the output; `None` for the rest.
    pub directory: Option<String>,
    /// Which destinations.
    pub selector: DestinationSelector,
}

/// Reads `destination-selectors.yaml`.
pub fn read(bytes: &[u8]) -> Result<Vec<Directive>, OutputError> {
    let value: Value = document(bytes).map_err(OutputError::Selectors)?;
    let entries = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(entries) => entries,
        other => {
            let cause = format!("error unmarshaling JSON: it is {}, not a list", kind_of(&other));
            return Err(OutputError::Selectors(cause));
        }
    };
    let mut seen = BTreeSet::new();
    let mut directives = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let directive = read_entry(index, entry)?;
        if !seen.insert(directive.directory.clone()) {
            let cause = match &directive.directory {
                Some(directory) => format!("duplicate entry for the directory {directory:?}"),
                None => {
                    "more than one entry is for the rest: give each other a directory".to_owned()
                }
            };
            return Err(OutputError::Entry { index, field: "directory".to_owned(), cause });
        }
        directives.push(directive);
    }
    Ok(directives)
}

/// A YAML document, of few bytes, as a JSON value.
pub(super) fn document(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// A value's type, for people.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn read_entry(index: usize, entry: Value) -> Result<Directive, OutputError> {
    let wrong = |field: &str, cause: &str| {
        Err(OutputError::Entry { index, field: field.to_owned(), cause: cause.to_owned() })
    };
    let Value::Object(mut entry) = entry else {
        return wrong("matchLabels", "the entry is not a map: write matchLabels and directory");
    };
    let directory = match entry.remove("directory") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => clean(&text).or_else(|cause| {
            wrong("directory", &format!("{text:?} {cause}")).map(|_: Directive| None)
        })?,
        Some(other) => return wrong("directory", &format!("is {}, not text", kind_of(&other))),
    };
    let labels = entry.remove("matchLabels");
    let expressions = entry.remove("matchExpressions");
    if labels.is_none() && expressions.is_none() {
        return wrong("matchLabels", "Required value: name the labels of its destinations");
    }
    if let Some(unknown) = entry.keys().next() {
        let cause =
            format!("unknown field {unknown:?}: use directory, matchLabels, matchExpressions");
        return wrong("directory", &cause);
    }
    let match_labels = match labels.map(serde_json::from_value).transpose() {
        Ok(labels) => labels.unwrap_or_default(),
        Err(error) => {
            return wrong("matchLabels", &format!("{error}: write a map of text to text"));
        }
    };
    let read = expressions.map(serde_json::from_value::<Vec<LabelExpression>>).transpose();
    let match_expressions = match read {
        Ok(expressions) => expressions.unwrap_or_default(),
        Err(error) => return wrong("matchExpressions", &error.to_string()),
    };
    let selector = DestinationSelector { match_labels, match_expressions, source: None };
    match selectors::check(&selector).first() {
        Some(fault) => wrong(&fault.field, &fault.cause),
        None => Ok(Directive { directory, selector }),
    }
}

/// The directory without `./` and a slash at the end; `None` for the whole output.
fn clean(text: &str) -> Result<Option<String>, &'static str> {
    if text.starts_with('/') {
        return Err("is absolute: name a directory of /kratix/output");
    }
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.as_slice() {
        [] => Ok(None),
        parts if parts.contains(&"..") => Err("leaves /kratix/output: name a directory inside it"),
        [directory] => Ok(Some((*directory).to_owned())),
        _ => Err("is nested: only top directories of /kratix/output can be told apart"),
    }
}
