//! The agent's side of the line: events in, reports out.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use muster_core::{Assignment, Digest, PlacementReport, Revision, ports::AgentFacts};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tonic::transport::Channel;

use crate::{
    Identity,
    content::{self, FetchError},
    reports::Reports,
    run::LinkRun,
};

/// Events that wait to be taken: assignments are whole, so a newer one may wait for the older.
const EVENTS_LEN: usize = 4;
/// How long a fetch waits for a session: it begins with the session, and not when a retry is due.
const SESSION_TIME_MAX: Duration = Duration::from_secs(3600);

/// Who speaks, and what it says of itself.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Who.
    pub identity: Identity,
    /// What it says of itself; the revision in it is not used, see [`LinkHandle::holding`].
    pub facts: AgentFacts,
}

/// What the agent hears.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// A session began.
    Up,
    /// No session; another is tried by and by. Told again only when the cause has changed.
    Down {
        /// Why, in one sentence.
        cause: String,
    },
    /// What the destination must hold.
    Assigned(Assignment),
    /// The hub has removed or revoked this agent, or does not accept its certificate.
    Refused {
        /// Why, in one sentence.
        cause: String,
        /// When it is asked again.
        again_in: Duration,
    },
}

/// Speaks with the hub; cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkHandle(pub(crate) Arc<Shared>);

/// What the handle and the running link share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) reports: Reports,
    pub(crate) held: Mutex<Held>,
    pub(crate) held_changed: Notify,
    /// The connection of the current session.
    pub(crate) channel: watch::Sender<Option<Channel>>,
}

/// What the agent has persisted, and what it has to say of the last assignment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) revision: Revision,
    pub(crate) assignment: Option<Digest>,
    pub(crate) answer: Option<(Revision, String)>,
}

/// A link: the agent's handle and events, and what must be run for them.
pub fn link(config: LinkConfig) -> (LinkHandle, mpsc::Receiver<LinkEvent>, LinkRun) {
    let shared = Arc::new(Shared {
        reports: Reports::default(),
        held: Mutex::default(),
        held_changed: Notify::new(),
        channel: watch::Sender::new(None),
    });
    let (events, heard) = mpsc::channel(EVENTS_LEN);
    (LinkHandle(shared.clone()), heard, LinkRun::new(config, shared, events))
}

impl LinkHandle {
    /// The agent has this assignment on its disk. What the hub was told of placements that are not
    /// in it is forgotten.
    pub fn holding(&self, assignment: &Assignment) {
        self.change_held(|held| {
            held.revision = assignment.revision;
            held.assignment = Some(assignment.digest());
            held.answer = Some((assignment.revision, String::new()));
        });
        self.0.reports.retain(|placement| assignment.orders.contains_key(placement));
    }

    /// The agent does not act on this assignment.
    pub fn refuse(&self, assignment: &Assignment, why: String) {
        self.change_held(|held| held.answer = Some((assignment.revision, why)));
    }

    /// Has the latest report of a placement told; never waits.
    pub fn report(&self, report: PlacementReport) {
        self.0.reports.put(report);
    }

    /// The zstd-compressed canonical bytes of a content, as soon as there is a session. The caller
    /// checks the digest.
    pub async fn fetch(&self, digest: Digest) -> Result<Bytes, FetchError> {
        let mut sessions = self.0.channel.subscribe();
        let session = timeout(SESSION_TIME_MAX, sessions.wait_for(Option::is_some)).await;
        let channel = session.ok().and_then(|session| session.ok()?.clone());
        content::fetch(channel.ok_or(FetchError::NotConnected)?, digest).await
    }

    fn change_held(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.0.held());
        self.0.held_changed.notify_one();
    }
}

impl Shared {
    pub(crate) fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
