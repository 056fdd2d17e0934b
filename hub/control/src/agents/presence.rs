//! Who has a session, in memory; the API hears of it only when that is news.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muster_core::{
    DestinationName,
    ports::{AgentFacts, Presence},
};
use muster_daemon::Clock;
use tokio::{sync::Notify, time::Instant};

use crate::queue::Triggers;

/// How long an ended session is no news: a new one usually follows at once.
const SETTLE: Duration = Duration::from_secs(2);
/// How long after its start the hub waits for agents that were connected before: several of their
/// attempts to come back.
const SETTLE_AT_START: Duration = Duration::from_secs(15);

/// Sessions by agent.
#[derive(Debug)]
pub(crate) struct Sessions {
    clock: Clock,
    started: Instant,
    inner: Mutex<Inner>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<String, Session>,
    /// Agents to look at; a set, so that it is bounded by the fleet.
    news: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Session {
    id: u64,
    facts: AgentFacts,
    ended: Option<Instant>,
}

/// What is known of an agent's session.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// It has one.
    Connected(AgentFacts),
    /// It had one since the hub was started; news in `settle`.
    Gone {
        /// How long until it counts as offline.
        settle: Duration,
    },
    /// Nothing since the hub was started.
    Nothing,
}

impl Sessions {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { started: clock.instant(), clock, inner: Mutex::default(), news: Arc::default() }
    }

    pub(crate) fn heard(&self, agent: &str) -> Heard {
        match self.lock().sessions.get(agent) {
            None => Heard::Nothing,
            Some(Session { ended: None, facts, .. }) => Heard::Connected(facts.clone()),
            Some(Session { ended: Some(ended), .. }) => {
                Heard::Gone { settle: SETTLE.saturating_sub(self.clock.instant() - *ended) }
            }
        }
    }

    /// How long agents that were connected before the hub's start may still come back.
    pub(crate) fn settling(&self) -> Option<Duration> {
        SETTLE_AT_START
            .checked_sub(self.clock.instant() - self.started)
            .filter(|wait| !wait.is_zero())
    }

    /// Forgets the ended session of an agent that does not exist.
    pub(crate) fn forget(&self, agent: &str) {
        let mut inner = self.lock();
        if inner.sessions.get(agent).is_some_and(|session| session.ended.is_some()) {
            inner.sessions.remove(agent);
        }
    }

    /// Passes news on, for ever.
    pub(crate) async fn tell(&self, triggers: Triggers<String>) {
        loop {
            self.news.notified().await;
            let news = std::mem::take(&mut self.lock().news);
            for agent in news {
                triggers.look_at(agent).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence for Sessions {
    fn connected(&self, agent: &DestinationName, session: u64, facts: AgentFacts) {
        let mut inner = self.lock();
        inner.sessions.insert(agent.to_string(), Session { id: session, facts, ended: None });
        inner.news.insert(agent.to_string());
        drop(inner);
        self.news.notify_one();
    }

    fn disconnected(&self, agent: &DestinationName, session: u64) {
        let mut inner = self.lock();
        // The end of a session that a newer one has ended is no news.
        let Some(held) = inner.sessions.get_mut(agent.as_str()).filter(|s| s.id == session) else {
            return;
        };
        held.ended.get_or_insert_with(|| self.clock.instant());
        inner.news.insert(agent.to_string());
        drop(inner);
        self.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_an_older_session_is_no_news() {
        let sessions = Sessions::new(Clock::default());
        let agent = DestinationName::parse("vm-1").unwrap();
        sessions.connected(&agent, 1, AgentFacts::default());
        sessions.connected(&agent, 2, AgentFacts::default());
        sessions.disconnected(&agent, 1);
        assert!(matches!(sessions.heard("vm-1"), Heard::Connected(_)));
        sessions.disconnected(&agent, 2);
        assert!(matches!(sessions.heard("vm-1"), Heard::Gone { .. }));
        assert!(matches!(sessions.heard("vm-2"), Heard::Nothing));
    }
}
