//! Server-side apply: who owns which field.

use serde_json::Value;

use crate::schema::Schema;

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    /// Field manager.
    pub(crate) manager: &'a str,
    /// `v1` or `group/v1`, of the object as it is written.
    pub(crate) api_version: &'a str,
    /// Empty, or such as `status`.
    pub(crate) subresource: &'a str,
    /// RFC 3339, in seconds and UTC.
    pub(crate) now: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// `conflict with "m1"`, as a cause says it.
    pub(crate) message: String,
    /// `.spec.a`.
    pub(crate) field: String,
}

/// Why an apply was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Others own fields; `force` would take them.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration does not fit the schema in a way that ownership depends on.
    #[error("{0}")]
    Invalid(String),
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    format!("Apply failed with {} conflicts", conflicts.len())
}

/// Merges `applied` into `live`.
pub(crate) fn apply(
    schema: &Schema,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let _ = (schema, live, applied, writer, force);
    Err(ApplyError::Invalid("server-side apply is not served".to_owned()))
}

/// Records in `new` what this write changed against `old`.
pub(crate) fn track_update(
    schema: &Schema,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    let _ = (schema, old, new, writer);
}
