//! What an agent says of its placements: what is applied, whether that is what was ordered, and how
//! it is doing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Health, PlacementKey, Revision};

/// Longest message in a report, in bytes: a verdict and its reason, not a log.
pub const MESSAGE_LEN_MAX: usize = 1024;
/// Most bytes of outputs in one report, as JSON.
pub const OUTPUTS_LEN_MAX: usize = 16 << 10;
/// Most names of files that a report lists as not applied.
pub const UNAPPLIED_FILES_MAX: usize = 20;

/// The state of one placement on its destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlacementReport {
    /// Which placement.
    pub placement: PlacementKey,
    /// The newest revision that the agent had persisted when it said this.
    pub revision: Revision,
    /// The digest that it is working towards; the order's.
    pub desired: Digest,
    /// The digest whose application was last completed; `None` before the first.
    pub applied: Option<Digest>,
    /// Where it stands with `desired`.
    pub phase: Phase,
    /// One CamelCase word for machines: `Applied`, `ApplyFailed`, `Conflict`, `NoApplier` …
    pub reason: String,
    /// One sentence for people: the object, the field, the cause and the cure.
    pub message: String,
    /// How what is applied is doing.
    pub health: Health,
    /// Why, in one sentence.
    pub health_message: String,
    /// What the applied files put out (terraform outputs, a script's JSON); never sensitive ones.
    pub outputs: BTreeMap<String, serde_json::Value>,
    /// Files that no applier uses, at most [`UNAPPLIED_FILES_MAX`].
    pub unapplied_files: Vec<String>,
}

/// Where a placement stands with its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Known, not begun.
    Pending,
    /// Being applied.
    Applying,
    /// Applied as ordered.
    Applied,
    /// Not applied; it is tried again by itself.
    Failed,
    /// Not applied, and not tried again until the order or the agent's policy changes.
    Refused,
    /// Being removed.
    Removing,
    /// Removed: nothing of it is left on the destination.
    Removed,
}

impl Phase {
    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Applying => "Applying",
            Self::Applied => "Applied",
            Self::Failed => "Failed",
            Self::Refused => "Refused",
            Self::Removing => "Removing",
            Self::Removed => "Removed",
        }
    }
}

/// Cuts a message to [`MESSAGE_LEN_MAX`] bytes, saying that it did.
pub fn bounded_message(message: &str) -> String {
    const MARK: &str = " … (cut)";
    if message.len() <= MESSAGE_LEN_MAX {
        return message.to_owned();
    }
    let mut end = MESSAGE_LEN_MAX - MARK.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_on_a_character_and_say_so() {
        let cut = bounded_message(&"é".repeat(MESSAGE_LEN_MAX));
        assert!(cut.len() <= MESSAGE_LEN_MAX && cut.ends_with("(cut)"), "{}", cut.len());
        assert_eq!(bounded_message("short"), "short");
    }
}
