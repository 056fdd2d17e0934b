//! Messages to words and back: `from_*` checks everything, `to_*` cannot fail.

use std::collections::{BTreeMap, BTreeSet};

use muster_core::{
    Digest, Health, Phase, PlacementKey, PlacementReport, Revision,
    ports::AgentFacts,
    report::{MESSAGE_LEN_MAX, OUTPUTS_LEN_MAX, UNAPPLIED_FILES_MAX},
};

use crate::{
    limits::{APPLIERS_MAX, FACT_LEN_MAX},
    v1,
};

/// Longest `reason` and longest path that is read, in bytes.
const WORD_LEN_MAX: usize = 128;
const PATH_LEN_MAX: usize = muster_core::content::PATH_LEN_MAX;

/// A message that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}")]
pub struct Refusal {
    /// The field's name.
    pub field: &'static str,
    /// The rule that it breaks.
    pub cause: String,
}

// === digests and revisions ===

/// A digest of 32 bytes.
pub fn from_digest(field: &'static str, bytes: &[u8]) -> Result<Digest, Refusal> {
    let wrong = |_| refuse(field, format!("{} bytes are not a SHA-256 digest", bytes.len()));
    Ok(Digest::from_bytes(bytes.try_into().map_err(wrong)?))
}

/// A digest, or `None` for no bytes.
pub fn from_digest_option(field: &'static str, bytes: &[u8]) -> Result<Option<Digest>, Refusal> {
    if bytes.is_empty() { Ok(None) } else { from_digest(field, bytes).map(Some) }
}

/// The bytes of a digest.
pub fn to_digest(digest: &Digest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

/// A revision; an absent one is the oldest.
pub fn from_revision(revision: Option<v1::Revision>) -> Revision {
    revision.map(|r| Revision { epoch: r.epoch, n: r.n }).unwrap_or_default()
}

/// A revision's message.
pub fn to_revision(revision: Revision) -> Option<v1::Revision> {
    Some(v1::Revision { epoch: revision.epoch, n: revision.n })
}

// === facts ===

/// What an agent says of itself, with the revision that it says beside them.
pub fn from_facts(facts: Option<v1::Facts>, revision: Revision) -> Result<AgentFacts, Refusal> {
    let facts = facts.unwrap_or_default();
    if facts.appliers.len() > APPLIERS_MAX {
        return Err(refuse("facts.appliers", format!("more than {APPLIERS_MAX}")));
    }
    let mut appliers = BTreeSet::new();
    for applier in facts.appliers {
        appliers.insert(text("facts.appliers", applier, FACT_LEN_MAX)?);
    }
    Ok(AgentFacts {
        version: text("facts.version", facts.version, FACT_LEN_MAX)?,
        appliers,
        hostname: text("facts.hostname", facts.hostname, FACT_LEN_MAX)?,
        revision,
    })
}

/// The message of what an agent says of itself.
pub fn to_facts(facts: &AgentFacts) -> v1::Facts {
    v1::Facts {
        version: facts.version.clone(),
        appliers: facts.appliers.iter().cloned().collect(),
        hostname: facts.hostname.clone(),
    }
}

// === reports ===

/// A report, every field within its limit.
pub fn from_report(report: v1::PlacementReport) -> Result<PlacementReport, Refusal> {
    let phase = from_phase(report.phase())?;
    let health = from_health(report.health());
    if report.unapplied_files.len() > UNAPPLIED_FILES_MAX {
        return Err(refuse("unapplied_files", format!("more than {UNAPPLIED_FILES_MAX}")));
    }
    let mut unapplied_files = Vec::new();
    for path in report.unapplied_files {
        unapplied_files.push(text("unapplied_files", path, PATH_LEN_MAX)?);
    }
    Ok(PlacementReport {
        placement: PlacementKey::parse(&report.placement)
            .map_err(|error| refuse("placement", error.to_string()))?,
        revision: from_revision(report.revision),
        desired: from_digest("desired", &report.desired)?,
        applied: from_digest_option("applied", &report.applied)?,
        phase,
        reason: text("reason", report.reason, WORD_LEN_MAX)?,
        message: text("message", report.message, MESSAGE_LEN_MAX)?,
        health,
        health_message: text("health_message", report.health_message, MESSAGE_LEN_MAX)?,
        outputs: from_outputs(&report.outputs)?,
        unapplied_files,
    })
}

/// The message of a report.
pub fn to_report(report: &PlacementReport) -> v1::PlacementReport {
    v1::PlacementReport {
        placement: report.placement.to_string(),
        revision: to_revision(report.revision),
        desired: to_digest(&report.desired),
        applied: report.applied.as_ref().map(to_digest).unwrap_or_default(),
        phase: to_phase(report.phase).into(),
        reason: report.reason.clone(),
        message: report.message.clone(),
        health: to_health(report.health).into(),
        health_message: report.health_message.clone(),
        outputs: to_outputs(&report.outputs),
        unapplied_files: report.unapplied_files.clone(),
    }
}

fn from_outputs(bytes: &[u8]) -> Result<BTreeMap<String, serde_json::Value>, Refusal> {
    if bytes.is_empty() {
        return Ok(BTreeMap::new());
    }
    if bytes.len() > OUTPUTS_LEN_MAX {
        return Err(refuse("outputs", format!("longer than {OUTPUTS_LEN_MAX} bytes")));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| refuse("outputs", format!("not a JSON object: {error}")))
}

fn to_outputs(outputs: &BTreeMap<String, serde_json::Value>) -> Vec<u8> {
    if outputs.is_empty() {
        return Vec::new();
    }
    // A map with text keys and JSON values always has a text.
    serde_json::to_vec(outputs).unwrap_or_default()
}

/// The phase; what it means decides whether a request is done, so an unknown one is refused.
fn from_phase(phase: v1::Phase) -> Result<Phase, Refusal> {
    Ok(match phase {
        v1::Phase::Unspecified => return Err(refuse("phase", "missing or not known".to_owned())),
        v1::Phase::Pending => Phase::Pending,
        v1::Phase::Applying => Phase::Applying,
        v1::Phase::Applied => Phase::Applied,
        v1::Phase::Failed => Phase::Failed,
        v1::Phase::Refused => Phase::Refused,
        v1::Phase::Removing => Phase::Removing,
        v1::Phase::Removed => Phase::Removed,
    })
}

fn to_phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Pending => v1::Phase::Pending,
        Phase::Applying => v1::Phase::Applying,
        Phase::Applied => v1::Phase::Applied,
        Phase::Failed => v1::Phase::Failed,
        Phase::Refused => v1::Phase::Refused,
        Phase::Removing => v1::Phase::Removing,
        Phase::Removed => v1::Phase::Removed,
    }
}

/// The verdict; one that this side does not know is unknown.
fn from_health(health: v1::Health) -> Health {
    match health {
        v1::Health::Unspecified | v1::Health::Unknown => Health::Unknown,
        v1::Health::Healthy => Health::Healthy,
        v1::Health::Progressing => Health::Progressing,
        v1::Health::Degraded => Health::Degraded,
    }
}

fn to_health(health: Health) -> v1::Health {
    match health {
        Health::Unknown => v1::Health::Unknown,
        Health::Healthy => v1::Health::Healthy,
        Health::Progressing => v1::Health::Progressing,
        Health::Degraded => v1::Health::Degraded,
    }
}

fn text(field: &'static str, text: String, max: usize) -> Result<String, Refusal> {
    if text.len() > max {
        return Err(refuse(field, format!("longer than {max} bytes")));
    }
    Ok(text)
}

fn refuse(field: &'static str, cause: String) -> Refusal {
    Refusal { field, cause }
}

#[cfg(test)]
mod tests;
