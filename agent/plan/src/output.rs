//! What an agent is to do.

use muster_core::{Digest, Order, PlacementKey, PlacementReport};

/// Tells the actions of one process apart; never reused within it.
pub type ActionId = u64;

/// Something to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Bring this content to the agent's disk, then say [`crate::Input::Fetched`].
    Fetch(Digest),
    /// Begin this action, then say [`crate::Input::Ended`].
    Act(Action),
    /// End this action early; it must still say [`crate::Input::Ended`].
    Cancel {
        /// The placement it is for.
        placement: PlacementKey,
        /// Which action.
        action: ActionId,
    },
    /// Tell the hub; a newer report of a placement replaces an older one.
    Report(PlacementReport),
}

/// One action on one placement.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Its number.
    pub id: ActionId,
    /// On which placement.
    pub placement: PlacementKey,
    /// What to do.
    pub task: Task,
}

/// What to do with a placement.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Make the destination hold the order's files.
    Apply {
        /// The order.
        order: Order,
        /// Content of the Promise's dependencies whose `*.tf` files are part of the root module.
        base: Vec<Digest>,
    },
    /// Remove all that the inventory says may be there.
    Remove {
        /// The order.
        order: Order,
    },
    /// Look whether it is as applied, and how it is doing.
    Check,
}
