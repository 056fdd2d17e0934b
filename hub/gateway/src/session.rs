//! One agent's session: assignments down, reports up, pulses between, and one clear end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream::BoxStream};
use muster_core::{
    Assignment, Digest, PlacementReport, Revision,
    ports::{AgentFacts, Presence},
};
use muster_daemon::OnError;
use muster_wire::{
    convert::{from_report, from_revision, to_facts},
    limits::FROM_HUB_MESSAGE_MAX,
    v1::{
        AssignmentDocument, Farewell, FromAgent, FromHub, Goodbye, Pulse, Reports, ReportsTaken,
        Taken, Welcome, from_agent, from_hub,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Status, Streaming};
use tracing::{debug, error, info, warn};

use crate::{
    config::{FAREWELL_TIME_MAX, PULSES_MISSED_MAX, PULSES_PER_SECOND_MAX, SEND_TIME_MAX},
    door::{Connection, Shared},
    peer::Peer,
    roster::SessionPlace,
};

/// An agent told to come back after the hub's restart waits at least this long.
const RESTART_SECONDS: u32 = 1;
/// A live agent that was replaced is one of two with the same key: it must not come back at once.
const REPLACED_SECONDS: u32 = 30;
/// How long an agent waits when the hub could not do its part.
const TROUBLE_SECONDS: u32 = 5;
/// A revoked agent may ask now and then whether it is let in again.
const REVOKED_SECONDS: u32 = 300;

/// What a session begins with.
pub(crate) struct Opening {
    pub(crate) connection: Arc<Connection>,
    pub(crate) peer: Peer,
    pub(crate) facts: AgentFacts,
    /// The digest of the assignment that the agent holds.
    pub(crate) held: Option<Digest>,
    pub(crate) protocol: u32,
}

/// A live session.
pub(crate) struct Session {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    peer: Peer,
    place: SessionPlace,
    outbox: mpsc::Sender<Result<FromHub, Status>>,
    held: Option<Digest>,
    /// The newest revision that the agent has shown.
    revision: Revision,
    pulse: Duration,
    protocol: u32,
}

/// Why a session ended.
enum End {
    /// The agent ended it, or the connection broke.
    Gone,
    ShuttingDown,
    Replaced,
    Revoked,
    Silent,
    Expired,
    /// The agent broke a rule: this one.
    Protocol(String),
    /// The hub cannot do its part now: why.
    Trouble(String),
}

/// Tells that the agent left, however the session ends.
struct Present {
    presence: Arc<dyn Presence>,
    peer: Peer,
    session: u64,
}

impl Session {
    /// Takes the agent's place from its older session and runs beside the caller.
    pub(crate) fn begin(
        shared: Arc<Shared>,
        opening: Opening,
        outbox: mpsc::Sender<Result<FromHub, Status>>,
        inbound: Streaming<FromAgent>,
    ) {
        let Opening { connection, peer, facts, held, protocol } = opening;
        let place = shared.roster.begin(&peer.agent, connection.from);
        if let Some(older) = place.instead_of {
            info!(agent = %peer.agent, from = %connection.from, %older, "Replaced a session");
        }
        let pulse = pulse(shared.pulse, shared.roster.len());
        let revision = facts.revision;
        let session = Self {
            connection,
            peer,
            place,
            outbox,
            held,
            revision,
            pulse,
            protocol,
            shared: shared.clone(),
        };
        let run = async move {
            session.run(facts, inbound).await;
            Ok(())
        };
        shared.tasks.spawn("agent-session", OnError::Log, run);
    }

    async fn run(mut self, facts: AgentFacts, mut inbound: Streaming<FromAgent>) {
        let (agent, from) = (self.peer.agent.clone(), self.connection.from);
        let presence = self.shared.ports.presence.clone();
        let session = self.place.session;
        info!(%agent, %from, session, version = %facts.version, "Session began");
        debug!(%agent, facts = ?to_facts(&facts), revision = %facts.revision, "Hello");
        presence.connected(&agent, session, facts);
        let present = Present { presence, peer: self.peer.clone(), session };
        let end = self.converse(&mut inbound).await;
        self.connection.shown.send_replace(None);
        drop(present);
        info!(%agent, session, why = end.why(), "Session ended");
        if let Some(goodbye) = end.goodbye() {
            let goodbye = self.send(from_hub::Message::Goodbye(goodbye));
            let _ = timeout(FAREWELL_TIME_MAX, goodbye).await;
        }
        // The end of the outbox ends the call; the connection follows once that is sent.
        let connection = self.connection.clone();
        drop(self);
        connection.cut.cancel();
    }

    async fn converse(&mut self, inbound: &mut Streaming<FromAgent>) -> End {
        let mut assignments = self.shared.ports.assignments.subscribe(&self.peer.agent);
        let welcome = Welcome {
            protocol: self.protocol,
            session: self.place.session,
            instance: self.shared.instance,
            pulse_seconds: u32::try_from(self.pulse.as_secs()).unwrap_or(u32::MAX).max(1),
        };
        if let Err(end) = self.send(from_hub::Message::Welcome(welcome)).await {
            return end;
        }
        match self.exchange(inbound, &mut assignments).await {
            Ok(never) => never,
            Err(end) => end,
        }
    }

    /// Takes turns until an end.
    async fn exchange(
        &mut self,
        inbound: &mut Streaming<FromAgent>,
        assignments: &mut BoxStream<'static, Arc<Assignment>>,
    ) -> Result<End, End> {
        let (shutdown, replaced) = (self.shared.shutdown.clone(), self.place.replaced.clone());
        let mut heard = Instant::now();
        loop {
            let silent = heard + self.pulse * PULSES_MISSED_MAX;
            let expired = self.expiry();
            let turn = async {
                tokio::select! {
                    next = assignments.next() => match next {
                        Some(assignment) => self.assign(assignment).await,
                        None => Err(End::Revoked),
                    },
                    message = inbound.message() => match message {
                        Ok(Some(message)) => {
                            self.hear(message).await?;
                            heard = Instant::now();
                            Ok(())
                        }
                        Ok(None) => Err(End::Gone),
                        Err(status) if status.code() == tonic::Code::OutOfRange => {
                            Err(End::Protocol(status.message().to_owned()))
                        }
                        Err(status) => {
                            debug!(%status, "The call ended");
                            Err(End::Gone)
                        }
                    },
                    () = sleep_until(silent) => Err(End::Silent),
                    () = sleep_until(expired) => Err(End::Expired),
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(End::ShuttingDown),
                () = replaced.cancelled() => return Ok(End::Replaced),
                done = turn => done?,
            }
        }
    }

    /// Shows the agent an assignment, unless it holds that already.
    async fn assign(&mut self, assignment: Arc<Assignment>) -> Result<(), End> {
        let document = assignment.encode();
        let digest = Digest::of(&document);
        if self.held == Some(digest) {
            self.connection.shown.send_replace(Some(assignment));
            return Ok(());
        }
        // The same revision with another content is as old as an older one.
        let behind = assignment.revision < self.revision
            || (assignment.revision == self.revision && self.held.is_some());
        if behind {
            warn!(
                agent = %self.peer.agent, theirs = %self.revision, ours = %assignment.revision,
                "The agent has seen newer orders than this hub gives: raising the epoch"
            );
            let raised = self.shared.ports.assignments.raise_epoch(self.revision).await;
            return raised
                .map_err(|error| End::Trouble(format!("cannot raise the epoch: {error}")));
        }
        if document.len() + 64 > FROM_HUB_MESSAGE_MAX {
            let size = document.len();
            error!(agent = %self.peer.agent, size, "The assignment is too large to be sent");
            return Err(End::Trouble(format!("the assignment of {size} bytes is too large")));
        }
        debug!(agent = %self.peer.agent, revision = %assignment.revision, "Assigned");
        (self.held, self.revision) = (Some(digest), assignment.revision);
        self.connection.shown.send_replace(Some(assignment));
        let document = AssignmentDocument { document: document.into() };
        self.send(from_hub::Message::Assignment(document)).await
    }

    async fn hear(&mut self, message: FromAgent) -> Result<(), End> {
        match message.message {
            Some(from_agent::Message::Pulse(_)) => {
                self.send(from_hub::Message::Pulse(Pulse {})).await
            }
            Some(from_agent::Message::Reports(reports)) => self.report(reports).await,
            Some(from_agent::Message::Taken(taken)) => {
                self.taken(&taken);
                Ok(())
            }
            Some(from_agent::Message::Hello(_)) => {
                Err(End::Protocol("Hello is said once".to_owned()))
            }
            // Of a newer agent: nothing that this hub needs.
            None => Ok(()),
        }
    }

    async fn report(&mut self, reports: Reports) -> Result<(), End> {
        let agent = &self.peer.agent;
        let sequence = reports.sequence;
        let read = |report| match from_report(report) {
            Ok(report) => Some(report),
            // One that cannot be read must not keep the others from the hub, for ever.
            Err(error) => {
                warn!(%agent, %error, "Left out a report");
                None
            }
        };
        let reports: Vec<PlacementReport> = reports.reports.into_iter().filter_map(read).collect();
        self.shared.ports.reports.accept(agent, reports).await;
        self.send(from_hub::Message::ReportsTaken(ReportsTaken { sequence })).await
    }

    fn taken(&mut self, taken: &Taken) {
        let (agent, revision) = (&self.peer.agent, from_revision(taken.revision));
        if taken.refusal.is_empty() {
            debug!(%agent, %revision, "The agent has taken the assignment");
        } else {
            let refusal: String = taken.refusal.chars().take(500).collect();
            warn!(%agent, %revision, refusal, "The agent refuses the assignment");
        }
    }

    async fn send(&self, message: from_hub::Message) -> Result<(), End> {
        let message = Ok(FromHub { message: Some(message) });
        match timeout(SEND_TIME_MAX, self.outbox.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Silent),
        }
    }

    /// When the agent's certificate ends.
    fn expiry(&self) -> Instant {
        let not_after = self.connection.not_after.load(Ordering::Relaxed);
        let end = Duration::from_secs(u64::try_from(not_after).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A month is longer than any session is looked at in one turn, and fits every clock.
        Instant::now() + end.saturating_sub(now).min(Duration::from_secs(30 * 24 * 3600))
    }
}

impl End {
    fn why(&self) -> &str {
        match self {
            Self::Gone => "the agent left",
            Self::ShuttingDown => "the hub ends",
            Self::Replaced => "a newer session began",
            Self::Revoked => "the agent was removed or revoked",
            Self::Silent => "nothing was heard or taken for too long",
            Self::Expired => "the certificate has expired",
            Self::Protocol(rule) => rule,
            Self::Trouble(why) => why,
        }
    }

    /// The last words; none for one who has left.
    fn goodbye(&self) -> Option<Goodbye> {
        let (why, message, retry_after_seconds) = match self {
            Self::Gone => return None,
            Self::ShuttingDown => (Farewell::ShuttingDown, "the hub ends", RESTART_SECONDS),
            Self::Replaced => (
                Farewell::Replaced,
                "another process has begun a session with this agent's key: if this host was \
                 cloned, remove the state directory on the copy and join it under its own name",
                REPLACED_SECONDS,
            ),
            Self::Revoked => (
                Farewell::Revoked,
                "this agent was removed or revoked on the hub: what it has applied stays; to come \
                 back, join again with a new token",
                REVOKED_SECONDS,
            ),
            Self::Silent => (Farewell::Silent, "nothing was heard or taken for too long", 0),
            Self::Expired => {
                (Farewell::Expired, "the certificate has expired: join again with a new token", 0)
            }
            Self::Protocol(rule) => (Farewell::Protocol, rule.as_str(), TROUBLE_SECONDS),
            Self::Trouble(why) => (Farewell::Unspecified, why.as_str(), TROUBLE_SECONDS),
        };
        Some(Goodbye { why: why.into(), message: message.to_owned(), retry_after_seconds })
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.presence.disconnected(&self.peer.agent, self.session);
    }
}

/// How often this agent is to pulse: seldom enough for a fleet of this size, and up to a tenth
/// sooner by chance, so that agents that came together do not beat together.
fn pulse(shortest: Duration, agents: usize) -> Duration {
    let fleet = Duration::from_secs((agents / PULSES_PER_SECOND_MAX) as u64);
    let period = shortest.max(fleet);
    let sooner = period.as_secs() / 10;
    Duration::from_secs(period.as_secs() - rand::random_range(0..=sooner)).max(SECOND)
}

const SECOND: Duration = Duration::from_secs(1);
