//! What kind of place is a Destination for the one who decides: labels, link, load?

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_api::{
    Destination,
    conditions::{self, kind},
    destination::FilepathMode,
    labels,
};

/// A Destination as decisions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether an empty selector passes over it if it has labels (`strictMatchLabels`).
    pub strict: bool,
    /// Whether it is being removed: nothing new goes there.
    pub leaving: bool,
    /// Whether requests' placements shall leave it.
    pub draining: bool,
    /// Whether only dry runs go there.
    pub dry_run: bool,
    /// Whether it is fed by a state store, not by an agent.
    pub state_store: bool,
    /// Whether its state store also holds a list of each placement's files.
    pub lists: bool,
    /// Whether its agent is connected, or its state store takes files.
    pub link: Link,
}

/// Whether a destination takes files now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It is.
    Connected,
    /// It is not.
    Offline {
        /// Since when; `None` when it has never been.
        since: Option<Timestamp>,
    },
}

/// Destinations by name.
pub type Sites = BTreeMap<String, Site>;

impl Site {
    /// What a Destination's object says.
    pub fn of(destination: &Destination) -> Self {
        Self {
            name: destination.metadata.name.clone().unwrap_or_default(),
            labels: destination.metadata.labels.clone().unwrap_or_default(),
            strict: destination.spec.strict_match_labels,
            leaving: destination.metadata.deletion_timestamp.is_some(),
            draining: is_true(destination.metadata.annotations.as_ref(), labels::DRAIN),
            dry_run: is_true(destination.metadata.labels.as_ref(), labels::DRY_RUN),
            state_store: destination.spec.state_store_ref.is_some(),
            lists: destination.spec.filepath.mode == FilepathMode::None,
            link: Link::of(destination),
        }
    }
}

impl Link {
    /// What a Destination's `Ready` condition says.
    pub fn of(destination: &Destination) -> Self {
        let conditions = destination.status.as_ref().map(|s| s.conditions.as_slice());
        match conditions::find(conditions.unwrap_or_default(), kind::READY) {
            Some(ready) if ready.status == "True" => Self::Connected,
            Some(ready) if ready.reason != NEVER_CONNECTED => {
                Self::Offline { since: Some(ready.last_transition_time.0) }
            }
            _ => Self::Offline { since: None },
        }
    }
}

/// Whether a label or annotation is `true`.
pub(crate) fn is_true(all: Option<&BTreeMap<String, String>>, key: &str) -> bool {
    all.and_then(|all| all.get(key)).is_some_and(|value| value == "true")
}

/// The reason of a Destination's `Ready` condition before its agent has connected once.
pub const NEVER_CONNECTED: &str = "NotConnectedYet";

/// Destinations by name.
pub fn sites<'a>(destinations: impl IntoIterator<Item = &'a Destination>) -> Sites {
    destinations.into_iter().map(Site::of).map(|s| (s.name.clone(), s)).collect()
}
