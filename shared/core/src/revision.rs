//! The fence on every order: an agent refuses a revision older than one it has seen.

use std::fmt;

use serde::{Deserialize, Serialize};

/// (epoch, n), ordered by epoch first.
///
/// A gateway takes a new epoch when it starts, and again when an agent shows a higher one, so that
/// `n` can be a counter in memory and a restored backup can never give out an old order.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision {
    /// Raised by compare-and-swap at every start of the side that gives orders.
    pub epoch: u64,
    /// Raised with every change within an epoch.
    pub n: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}
