//! Keeps a session open: dial, speak, wait, dial again; and renews the certificate.

use std::{error::Error as _, sync::Arc, time::Duration};

use muster_core::ports::AgentFacts;
use muster_daemon::Backoff;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};
use tracing::{debug, info, warn};

use crate::{
    Identity, LinkConfig, LinkEvent,
    dial::{self, DialError, Dialled},
    handle::Shared,
    renew,
    session::{End, Session, is_final},
};

/// The first wait after a lost session; a restarted hub is back within a second.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait: an operator who mends the line does not wait longer for the fleet.
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// The wait after the hub has given this agent up: someone may still change their mind.
const RETRY_REFUSED: Duration = Duration::from_secs(300);

/// The link's own work; nothing happens until it runs.
#[derive(Debug)]
pub struct LinkRun {
    identity: Identity,
    facts: AgentFacts,
    shared: Arc<Shared>,
    events: mpsc::Sender<LinkEvent>,
    /// The hub process that was last spoken with.
    instance: Option<u64>,
    /// Why there is no session, as the agent was last told.
    told: Option<Lost>,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lost {
    cause: String,
    /// Coming back soon is useless.
    refused: bool,
    /// What the hub asked for: without it, two hosts with one key would replace each other several
    /// times a second.
    not_before: Duration,
}

/// The link cannot work at all; trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailed {
    /// The identity or the hub's address is unusable.
    #[error(transparent)]
    Dial(DialError),
}

impl LinkRun {
    pub(crate) fn new(
        config: LinkConfig,
        shared: Arc<Shared>,
        events: mpsc::Sender<LinkEvent>,
    ) -> Self {
        let LinkConfig { identity, facts } = config;
        Self { identity, facts, shared, events, instance: None, told: None }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LinkFailed> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        while !stop.is_cancelled() {
            let dialled = tokio::select! {
                () = stop.cancelled() => break,
                dialled = dial::as_agent(&self.identity) => dialled,
            };
            let lost = match dialled {
                Ok(dialled) => {
                    let end = self.speak(dialled.channel.clone(), &stop, &mut backoff).await;
                    self.shared.channel.send_replace(None);
                    match Lost::from_end(end, &dialled) {
                        Some(lost) => lost,
                        None => break,
                    }
                }
                Err(error @ (DialError::Address(_) | DialError::Identity(_))) => {
                    return Err(LinkFailed::Dial(error));
                }
                Err(error) => Lost::soon(error.to_string()),
            };
            let wait = lost.not_before + backoff.wait();
            if self.tell(lost, wait).await.is_err() {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(wait) => {}
            }
        }
        Ok(())
    }

    /// Tells why there is no session, once for each cause: a hub that is away for a night is one
    /// line in the agent's log.
    async fn tell(&mut self, lost: Lost, wait: Duration) -> Result<(), Stopped> {
        debug!(?lost, ?wait, "No session");
        if self.told.as_ref() == Some(&lost) {
            return Ok(());
        }
        let Lost { cause, refused, .. } = lost.clone();
        self.told = Some(lost);
        let event = if refused {
            LinkEvent::Refused { cause, again_in: wait }
        } else {
            LinkEvent::Down { cause }
        };
        self.events.send(event).await.map_err(|_| Stopped)
    }

    /// One session on a connection, and renewals beside it.
    async fn speak(
        &mut self,
        channel: Channel,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> End {
        let (shared, events) = (self.shared.clone(), self.events.clone());
        let begun = Session::begin(channel.clone(), &self.facts, &shared, &events);
        let session = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            begun = begun => match begun {
                Ok(session) => session,
                Err(end) => return end,
            },
        };
        backoff.reset();
        let known = self.instance.replace(session.instance()) == Some(session.instance());
        shared.reports.begin(known);
        shared.channel.send_replace(Some(channel.clone()));
        self.told = None;
        if events.send(LinkEvent::Up).await.is_err() {
            return End::Stopped;
        }
        let speaking = session.run(stop);
        tokio::pin!(speaking);
        loop {
            let renewal = renew::due_in(&self.identity.certificate);
            tokio::select! {
                end = &mut speaking => return end,
                () = sleep(renewal) => {}
            }
            let renewed = tokio::select! {
                end = &mut speaking => return end,
                renewed = renew::renew(channel.clone(), &self.identity) => renewed,
            };
            match renewed {
                Ok(identity) => {
                    info!("The certificate was renewed");
                    self.identity = identity;
                }
                Err(error) => {
                    warn!(%error, retry = ?renew::RETRY, "The certificate was not renewed");
                    tokio::select! {
                        end = &mut speaking => return end,
                        () = sleep(renew::RETRY) => {}
                    }
                }
            }
        }
    }
}

/// Nobody listens to events any more.
struct Stopped;

impl Lost {
    fn soon(cause: String) -> Self {
        Self { cause, refused: false, not_before: Duration::ZERO }
    }

    fn refused(cause: String) -> Self {
        Self { cause, refused: true, not_before: RETRY_REFUSED }
    }

    /// What the end of a session means; `None` if the agent ends.
    fn from_end(end: End, dialled: &Dialled) -> Option<Self> {
        Some(match end {
            End::Stopped => return None,
            End::Failed(cause) => Self::soon(cause),
            End::Goodbye(goodbye) => {
                let asked = Duration::from_secs(goodbye.retry_after_seconds.into());
                let (refused, cause) = (is_final(&goodbye), goodbye.message);
                let not_before = if refused { asked.max(RETRY_REFUSED) } else { asked };
                Self { cause, refused, not_before }
            }
            End::Broken(status) if is_no(status.code()) => Self::refused(status.message().into()),
            // What came as an answer names no cause within the connection.
            End::Broken(status) if status.source().is_none() => {
                Self::soon(format!("the hub ended the session: {}", status.message()))
            }
            End::Broken(status) => match dialled.explain(&status) {
                error @ DialError::NotOurAgent { .. } => Self::refused(error.to_string()),
                error => Self::soon(error.to_string()),
            },
        })
    }
}

/// Whether the hub has said that this agent is none of its own.
fn is_no(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::NotFound | Code::Unauthenticated)
}
