//! What do reports come to: for a placement, for its Work, for the request or Promise above?
//!
//! Each level is computed from the one below and from nothing else, so that any order of events ends
//! in the same conditions.

mod placement;
mod silence;
mod standing;
mod stored;
mod work;
mod works;

pub(crate) use placement::healthy_verdict;
pub use placement::placement;
pub use silence::{heard_soon, work_heard_soon};
pub use standing::{OFFLINE_AFTER, WORST_MAX};
pub use stored::{StoreOutcome, StoreReport, event as store_event, stored};
pub use work::{work, work_events};
pub use works::{Owner, Rollup, View, removal, works};

#[cfg(test)]
mod tests;
