//! What applying came to: the words between an agent's plan, which decides, and its appliers, which act.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Digest, Health};

/// One thing on a destination that only one placement may own, such as a Kubernetes object.
///
/// The text is `kubernetes:GROUP/KIND/NAMESPACE/NAME` or `script:NAME`; equal text, same thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Claim(String);

/// What a file set is, as far as the plan must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// What it would own.
    pub claims: BTreeSet<Claim>,
    /// Whether it has Terraform files, so that its Promise's dependencies are part of its root.
    pub terraform: bool,
}

/// What an agent's inventory says of one placement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The digest whose application was completed and not begun anew; `None` after a crash midway.
    pub applied: Option<Digest>,
    /// The dependency content that was part of it (Terraform roots only).
    #[serde(default)]
    pub base: Vec<Digest>,
    /// All that may be there, a half-finished application included.
    #[serde(default)]
    pub claims: BTreeSet<Claim>,
}

/// What was seen of a placement after applying it, or when looking again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// The verdict.
    pub health: Health,
    /// Why, in one sentence.
    pub health_message: String,
    /// What the applied files put out; never sensitive values.
    pub outputs: BTreeMap<String, serde_json::Value>,
    /// Files that no applier uses.
    pub unapplied_files: Vec<String>,
    /// What is not as applied, in words: a reason to apply again.
    pub drift: Option<String>,
    /// When to look again, if the files say so (a script's health period).
    pub recheck: Option<Duration>,
}

/// Why an action did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word: `ApplyFailed`, `Conflict`, `NoApplier` …
    pub reason: String,
    /// One sentence: the object, the field, the cause and the cure.
    pub message: String,
    /// Whether trying again is useless until the order or the agent's policy changes.
    pub refused: bool,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Applied completely.
    Applied(Observation),
    /// Looked at.
    Checked(Observation),
    /// Nothing of it is left.
    Removed,
    /// Not done, or not all of it.
    Failed(Failure),
    /// The bytes of this digest are not on the agent's disk (any more): fetch them.
    Missing(Digest),
}

impl Claim {
    /// A Kubernetes object; the namespace `default` and none are the same claim, because an object
    /// without a namespace lands in `default` and a cluster-scoped one never has any.
    pub fn kubernetes(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let namespace = if namespace == "default" { "" } else { namespace };
        Self(format!("kubernetes:{group}/{kind}/{namespace}/{name}"))
    }

    /// The claim as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parts) = self.0.strip_prefix("kubernetes:") else { return f.write_str(&self.0) };
        match parts.split('/').collect::<Vec<_>>()[..] {
            [_, kind, "", name] => write!(f, "{kind} {name}"),
            [_, kind, namespace, name] => write!(f, "{kind} {name} in namespace {namespace}"),
            _ => f.write_str(&self.0),
        }
    }
}

impl Failure {
    /// A failure that is tried again.
    pub fn retried(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), refused: false }
    }

    /// A failure that only another order or policy cures.
    pub fn refused(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), refused: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_namespace_and_default_are_one_claim() {
        let claim = |namespace| Claim::kubernetes("apps", "Deployment", namespace, "web");
        assert_eq!(claim(""), claim("default"));
        assert_ne!(claim(""), claim("shop"));
        assert_eq!(claim("shop").to_string(), "Deployment web in namespace shop");
        assert_eq!(claim("").to_string(), "Deployment web");
    }
}
