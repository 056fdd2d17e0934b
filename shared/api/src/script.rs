//! `Script`: a document in a Work that the shell applier runs. Not served by the API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The kind of a Script document.
pub const KIND: &str = "Script";

/// What to run to apply, remove and judge something on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptSpec {
    /// Makes it so; run again after a change, a failed health check, or an interrupted run.
    pub apply: Step,
    /// Takes it away again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Step>,
    /// Exit code 0 means healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Check>,
    /// Exit code 0 means that nothing has drifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Check>,
    /// Environment of every command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// A command, as an argument vector and never as text for a shell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Longest run, such as `30s` or `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// A command that is run again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Time between two runs, such as `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// Longest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}
