//! `workflow-control.yaml` and `status.yaml`: what a pipeline says beside its files.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::selectors::{OutputError, document, kind_of};
use crate::duration;

/// The file that asks the workflow to wait.
const CONTROL_FILE: &str = "metadata/workflow-control.yaml";
/// The file with what a pipeline says about status.
const STATUS_FILE: &str = "metadata/status.yaml";

/// What a pipeline asks of its workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// To wait for a person.
    pub suspend: bool,
    /// Why.
    pub message: String,
    /// To wait this long and try again; goes before `suspend`.
    pub retry_after: Option<Duration>,
    /// How often it is tried at most; then waits double, beginning with `retry_after`.
    pub attempts_max: Option<i64>,
}

impl Control {
    /// Whether the workflow waits.
    pub fn waits(&self) -> bool {
        self.suspend || self.retry_after.is_some()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    suspend: bool,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry_after: Option<String>,
    #[serde(default)]
    max_attempts: Option<Value>,
}

/// Reads `workflow-control.yaml`; unknown keys are let pass, as in Kratix.
pub fn read(bytes: &[u8]) -> Result<Control, OutputError> {
    let wrong = |cause: String| OutputError::Control(cause);
    let value = document(bytes).map_err(wrong)?;
    if value.is_null() {
        return Ok(Control::default());
    }
    let written: Written =
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    let retry_after = match written.retry_after.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(duration::parse(text).ok_or_else(|| {
            wrong(format!("retryAfter: {text:?} is not a duration: write it as 30s or 5m"))
        })?),
    };
    let attempts_max = match written.max_attempts {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_i64().filter(|max| *max > 0).ok_or_else(|| {
            wrong(format!("maxAttempts: {value} is not a whole number of at least 1"))
        })?),
    };
    let Written { suspend, message, .. } = written;
    Ok(Control { suspend, message, retry_after, attempts_max })
}

/// What a pipeline hands over as status, and what it asks of its workflow.
pub fn handed(files: &muster_core::FileSet) -> Result<(Map<String, Value>, Control), OutputError> {
    let control = files.get(CONTROL_FILE).map(read).transpose()?.unwrap_or_default();
    let status = match files.get(STATUS_FILE) {
        None => Map::new(),
        Some(bytes) => match document(bytes).map_err(OutputError::Status)? {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            other => {
                let cause = format!("it is {}, not a map of fields", kind_of(&other));
                return Err(OutputError::Status(cause));
            }
        },
    };
    Ok((status, control))
}
