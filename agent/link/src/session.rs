//! One session: Hello, then both sides speak when they have something to say.

use std::time::Duration;

use muster_core::{Assignment, ports::AgentFacts};
use muster_wire::{
    PROTOCOL,
    convert::{to_digest, to_facts, to_revision},
    limits::FROM_HUB_MESSAGE_MAX,
    v1::{
        Farewell, FromAgent, FromHub, Goodbye, Hello, Pulse, Taken, Welcome, from_agent::Message,
        from_hub::Message as HubMessage, link_client::LinkClient,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};
use tracing::warn;

use crate::{
    LinkEvent,
    handle::{Held, Shared},
};

/// Messages that wait to be sent; the next one waits for a place.
const OUTBOX_LEN: usize = 8;
/// How long the hub may take to say Welcome.
const WELCOME_TIME_MAX: Duration = Duration::from_secs(15);
/// Pulses of the hub missed before the line counts as dead: one may be late, two may be lost.
const PULSES_MISSED_MAX: u32 = 3;

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent is ending.
    Stopped,
    /// The line broke.
    Broken(tonic::Status),
    /// The hub was silent, or spoke out of turn.
    Failed(String),
    /// The hub said goodbye.
    Goodbye(Goodbye),
}

/// A session that has been welcomed.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    events: &'a mpsc::Sender<LinkEvent>,
    outbox: mpsc::Sender<FromAgent>,
    inbox: Streaming<FromHub>,
    welcome: Welcome,
    sequence: u64,
    answered: Option<(muster_core::Revision, String)>,
}

impl<'a> Session<'a> {
    /// Says Hello and hears Welcome.
    pub(crate) async fn begin(
        channel: Channel,
        facts: &AgentFacts,
        shared: &'a Shared,
        events: &'a mpsc::Sender<LinkEvent>,
    ) -> Result<Self, End> {
        let Held { revision, assignment, answer } = shared.held().clone();
        let hello = Hello {
            protocol: PROTOCOL,
            facts: Some(to_facts(facts)),
            revision: to_revision(revision),
            assignment: assignment.as_ref().map(to_digest).unwrap_or_default(),
        };
        let (outbox, queued) = mpsc::channel(OUTBOX_LEN);
        // The queue is new and empty, so there is a place.
        let _ = outbox.try_send(FromAgent { message: Some(Message::Hello(hello)) });
        let mut client = LinkClient::new(channel).max_decoding_message_size(FROM_HUB_MESSAGE_MAX);
        let silent = |_| End::Failed("the hub did not say Welcome".to_owned());
        let opening = client.session(ReceiverStream::new(queued));
        let opened = timeout(WELCOME_TIME_MAX, opening).await.map_err(silent)?;
        let mut inbox = opened.map_err(End::Broken)?.into_inner();
        let first = timeout(WELCOME_TIME_MAX, inbox.message()).await.map_err(silent)?;
        match first.map_err(End::Broken)?.and_then(|from_hub| from_hub.message) {
            Some(HubMessage::Welcome(welcome)) => {
                Ok(Self { shared, events, outbox, inbox, welcome, sequence: 0, answered: answer })
            }
            Some(HubMessage::Goodbye(goodbye)) => Err(End::Goodbye(goodbye)),
            _ => Err(End::Failed("the hub spoke before saying Welcome".to_owned())),
        }
    }

    /// Which hub process this is.
    pub(crate) fn instance(&self) -> u64 {
        self.welcome.instance
    }

    /// Speaks until the session ends.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> End {
        let period = Duration::from_secs(u64::from(self.welcome.pulse_seconds.max(1)));
        let mut pulse_at = Instant::now() + period;
        let mut heard_at = Instant::now();
        loop {
            let silent_at = heard_at + period * PULSES_MISSED_MAX;
            // Every arm is cancel-safe: a message is received whole or stays, a notification that
            // is not taken stays, a timer is made anew.
            let said = tokio::select! {
                () = stop.cancelled() => return End::Stopped,
                () = sleep_until(silent_at) => {
                    return End::Failed("nothing was heard of the hub for too long".to_owned());
                }
                message = self.inbox.message() => {
                    heard_at = Instant::now();
                    match message {
                        Ok(Some(message)) => match self.hear(message).await {
                            Ok(answer) => answer,
                            Err(end) => return end,
                        },
                        Ok(None) => return End::Failed("the hub closed the session".to_owned()),
                        Err(status) => return End::Broken(status),
                    }
                }
                () = self.shared.reports.changed() => self.reports(),
                () = self.shared.held_changed.notified() => self.taken(),
                () = sleep_until(pulse_at) => Some(Message::Pulse(Pulse {})),
            };
            let Some(message) = said else { continue };
            if self.outbox.send(FromAgent { message: Some(message) }).await.is_err() {
                return End::Failed("the hub closed the session".to_owned());
            }
            pulse_at = Instant::now() + period;
        }
    }

    /// Takes a message; gives back what is to be answered at once.
    async fn hear(&mut self, message: FromHub) -> Result<Option<Message>, End> {
        match message.message {
            Some(HubMessage::Assignment(document)) => {
                match Assignment::decode(&document.document) {
                    Ok(assignment) => {
                        let event = LinkEvent::Assigned(assignment);
                        self.events.send(event).await.map_err(|_| End::Stopped)?;
                        Ok(None)
                    }
                    // The session stays: everything else that is told in it is still true.
                    Err(error) => {
                        warn!(%error, "The hub sent an assignment that cannot be read");
                        let refusal = format!("the assignment cannot be read: {error}");
                        Ok(Some(Message::Taken(Taken { revision: None, refusal })))
                    }
                }
            }
            Some(HubMessage::ReportsTaken(taken)) => {
                self.shared.reports.taken(taken.sequence);
                Ok(None)
            }
            Some(HubMessage::Goodbye(goodbye)) => Err(End::Goodbye(goodbye)),
            Some(HubMessage::Welcome(_)) => Err(End::Failed("a second Welcome".to_owned())),
            // What this version does not know is for a newer one.
            Some(HubMessage::Pulse(_)) | None => Ok(None),
        }
    }

    fn reports(&mut self) -> Option<Message> {
        let reports = self.shared.reports.next(self.sequence + 1)?;
        self.sequence += 1;
        Some(Message::Reports(reports))
    }

    fn taken(&mut self) -> Option<Message> {
        let answer = self.shared.held().answer.clone();
        if answer == self.answered {
            return None;
        }
        self.answered = answer.clone();
        let (revision, refusal) = answer?;
        Some(Message::Taken(Taken { revision: to_revision(revision), refusal }))
    }
}

/// Whether a goodbye means that coming back soon is useless.
pub(crate) fn is_final(goodbye: &Goodbye) -> bool {
    matches!(goodbye.why(), Farewell::Revoked | Farewell::Expired)
}
