//! What the gateway needs of the rest of the hub, so that neither knows the other.
//!
//! `muster-control` implements these over the Kubernetes API; `muster-gateway` calls them. All
//! answers are futures or streams, so that a slow API never holds a thread.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use crate::{Assignment, DestinationName, Digest, PlacementReport, Revision};

/// What an agent says of itself when it enrols or connects. Nothing here decides what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFacts {
    /// The agent's version.
    pub version: String,
    /// The appliers that its local policy enables: `kubernetes`, `terraform`, `shell`.
    pub appliers: BTreeSet<String>,
    /// The host's name, for people.
    pub hostname: String,
    /// The newest revision that it has persisted; a hub whose epoch is lower must raise its own.
    pub revision: Revision,
}

/// Why a port refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The asker may not have it, and asking again will not help. The text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// The thing does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// Try again.
    #[error("{0}")]
    Unavailable(String),
}

/// Gives each agent what its destination must hold.
pub trait AssignmentSource: Send + Sync + 'static {
    /// The current assignment at once, then each newer one; intermediate ones may be skipped.
    /// The stream ends when the agent is removed or revoked: its session must end too.
    fn subscribe(&self, agent: &DestinationName) -> BoxStream<'static, Arc<Assignment>>;

    /// Raises the epoch above one that an agent has shown.
    fn raise_epoch(&self, above: Revision) -> BoxFuture<'_, Result<(), PortError>>;

    /// The zstd-compressed canonical bytes of a file set.
    fn content(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, PortError>>;
}

/// Takes what agents report.
pub trait ReportSink: Send + Sync + 'static {
    /// Takes reports of one agent; returning means that they are in the hub's memory and that the
    /// latest of each placement will reach the API. Waits when the queue is full.
    fn accept(&self, agent: &DestinationName, reports: Vec<PlacementReport>) -> BoxFuture<'_, ()>;
}

/// Decides who is an agent.
pub trait Enrolments: Send + Sync + 'static {
    /// Trades a token for a name. The token binds to the first public key (the digest of its
    /// SubjectPublicKeyInfo) that uses it; the same key may ask again while the token lives.
    fn redeem(
        &self,
        token: &str,
        public_key: Digest,
        facts: AgentFacts,
    ) -> BoxFuture<'_, Result<DestinationName, PortError>>;

    /// Whether the holder of this key is still the agent of this name: not removed, not revoked.
    fn admit(
        &self,
        agent: &DestinationName,
        public_key: Digest,
    ) -> BoxFuture<'_, Result<(), PortError>>;

    /// A certificate was issued until `not_after` (seconds since 1970).
    fn issued(
        &self,
        agent: &DestinationName,
        not_after: i64,
    ) -> BoxFuture<'_, Result<(), PortError>>;
}

/// Hears when agents come and go. Called on every change, never for a heartbeat.
pub trait Presence: Send + Sync + 'static {
    /// A session began; `session` is unique, and a newer one of the same agent ends the older.
    fn connected(&self, agent: &DestinationName, session: u64, facts: AgentFacts);
    /// That session ended, or was silent for too long.
    fn disconnected(&self, agent: &DestinationName, session: u64);
}
