//! What is over in a moment is not told in between: a new placement of whose files a destination is
//! about to speak.

use muster_api::{Work, WorkPlacement, labels};

use crate::{
    schedule::unplaced,
    site::{Link, Site, Sites},
};

/// Whether something will be said soon of a placement of which nothing was said yet: by a connected
/// agent, or by the writer of a store.
pub fn heard_soon(placement: &WorkPlacement, site: Option<&Site>) -> bool {
    let meta = &placement.metadata;
    let marked = meta.labels.as_ref().is_some_and(|all| all.contains_key(labels::MISPLACED));
    let fresh = placement.status.is_none() && meta.deletion_timestamp.is_none() && !marked;
    fresh && speaks(site)
}

/// Whether what is to be on a destination is on its way: its agent is connected, or a store feeds it.
pub(super) fn speaks(site: Option<&Site>) -> bool {
    site.is_some_and(|site| site.state_store || site.link == Link::Connected)
}

/// The same of a new Work: all of it is placed, and something will be said soon of each placement.
pub fn work_heard_soon(work: &Work, placements: &[&WorkPlacement], sites: &Sites) -> bool {
    let site = |placement: &WorkPlacement| sites.get(&placement.spec.target_destination_name);
    work.status.is_none()
        && work.metadata.deletion_timestamp.is_none()
        && !placements.is_empty()
        && unplaced(work, placements.iter().copied()).is_empty()
        && placements.iter().all(|placement| heard_soon(placement, site(placement)))
}
