//! May this assignment be acted on?
//!
//! Revisions only rise. An equal one is the same document again, or two hubs are giving orders.

use muster_core::{Assignment, DestinationName, Digest, Revision};

/// Why an assignment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// For somebody else.
    #[error("the assignment is for destination {found}, and this agent is {own}")]
    Destination {
        /// This agent.
        own: DestinationName,
        /// Whom it names.
        found: DestinationName,
    },
    /// Older than the one in force.
    #[error(
        "the assignment's revision {found} is older than {held}, which this agent holds: \
         the hub was restored from a backup and must raise its epoch"
    )]
    Older {
        /// In force.
        held: Revision,
        /// Offered.
        found: Revision,
    },
    /// The same revision, other orders.
    #[error(
        "the assignment's revision {0} is known with other orders: two hubs are giving orders, \
         or the hub reused a revision"
    )]
    Different(Revision),
}

/// What the fence remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    own: DestinationName,
    held: Option<(Revision, Digest)>,
}

impl Fence {
    pub(crate) fn new(own: DestinationName) -> Self {
        Self { own, held: None }
    }

    /// Why `assignment` may not be acted on; `None` when it may.
    pub(crate) fn refusal(&self, assignment: &Assignment) -> Option<Refusal> {
        let found = assignment.revision;
        if assignment.destination != self.own {
            let found = assignment.destination.clone();
            return Some(Refusal::Destination { own: self.own.clone(), found });
        }
        match self.held {
            Some((held, _)) if found < held => Some(Refusal::Older { held, found }),
            Some((held, digest)) if found == held && digest != assignment.digest() => {
                Some(Refusal::Different(held))
            }
            _ => None,
        }
    }

    /// Holds `assignment` from now on; false when it was held already.
    pub(crate) fn hold(&mut self, assignment: &Assignment) -> bool {
        let next = Some((assignment.revision, assignment.digest()));
        std::mem::replace(&mut self.held, next) != next
    }

    /// The newest revision held.
    pub(crate) fn revision(&self) -> Revision {
        self.held.map(|(revision, _)| revision).unwrap_or_default()
    }
}
