//! What can happen to an agent.

use muster_core::{Assignment, Contents, Digest, Failure, Outcome, PlacementKey};

use crate::ActionId;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An assignment arrived and is on disk. One that [`crate::AgentState::refusal`] refuses is
    /// ignored.
    Assigned(Assignment),
    /// The answer to [`crate::Output::Fetch`]: what the bytes are, once they are on disk.
    Fetched {
        /// Of which content.
        digest: Digest,
        /// What it is, or why it cannot be had (retried) or used (refused).
        result: Result<Contents, Failure>,
    },
    /// An action ended.
    Ended {
        /// The placement it was for.
        placement: PlacementKey,
        /// The action's number: the end of any other than the running one is ignored.
        action: ActionId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}
