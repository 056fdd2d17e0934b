//! Keeps a session open: dial, speak, wait, dial again; and renews the certificate.

use std::{sync::Arc, time::Duration};

use muster_core::ports::AgentFacts;
use muster_daemon::Backoff;
use muster_wire::v1::Goodbye;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};
use tracing::{info, warn};

use crate::{
    Identity, LinkConfig, LinkEvent,
    dial::{self, DialError},
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
        Self { identity, facts, shared, events, instance: None }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LinkFailed> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        while !stop.is_cancelled() {
            // What the hub asked for: without it, two hosts with one key would replace each other
            // several times a second.
            let mut not_before = Duration::ZERO;
            let dialled = tokio::select! {
                () = stop.cancelled() => break,
                dialled = dial::as_agent(&self.identity) => dialled,
            };
            let event = match dialled {
                Ok(channel) => {
                    let end = self.speak(channel, &stop, &mut backoff).await;
                    self.shared.channel.send_replace(None);
                    if let End::Goodbye(goodbye) = &end {
                        not_before = Duration::from_secs(goodbye.retry_after_seconds.into());
                    }
                    match end {
                        End::Stopped => break,
                        end => self.told(end),
                    }
                }
                Err(error @ (DialError::Address(_) | DialError::Identity(_))) => {
                    return Err(LinkFailed::Dial(error));
                }
                Err(error) => LinkEvent::Down { cause: error.to_string() },
            };
            let refused = matches!(event, LinkEvent::Refused { .. });
            if self.events.send(event).await.is_err() {
                break;
            }
            let wait = if refused { RETRY_REFUSED } else { not_before + backoff.wait() };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(wait) => {}
            }
        }
        Ok(())
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

    fn told(&self, end: End) -> LinkEvent {
        match end {
            End::Stopped => LinkEvent::Down { cause: "the agent is ending".to_owned() },
            End::Failed(cause) => LinkEvent::Down { cause },
            End::Goodbye(goodbye) if is_final(&goodbye) => {
                LinkEvent::Refused { cause: goodbye.message }
            }
            End::Goodbye(Goodbye { message, .. }) => LinkEvent::Down { cause: message },
            End::Broken(status) if status.code() == Code::PermissionDenied => {
                LinkEvent::Refused { cause: status.message().to_owned() }
            }
            // In TLS 1.3 a refused client certificate is heard of only after the handshake.
            End::Broken(status) => {
                let cause = dial::explain(self.identity.hub(), &status).to_string();
                LinkEvent::Down { cause }
            }
        }
    }
}
