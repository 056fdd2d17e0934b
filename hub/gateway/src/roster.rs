//! Who is here: one live session for each agent, and how many connections it has open.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use muster_core::DestinationName;
use tokio_util::sync::CancellationToken;

use crate::config::CONNECTIONS_PER_AGENT_MAX;

/// The agents that are here.
#[derive(Debug)]
pub(crate) struct Roster {
    agents: Mutex<HashMap<DestinationName, Entry>>,
    last_session: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    connections: usize,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    session: u64,
    from: SocketAddr,
    replaced: CancellationToken,
}

/// A place for one connection of an agent; given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPlace(Arc<Roster>, DestinationName);

/// An agent's one live session; no longer it when dropped.
#[derive(Debug)]
pub(crate) struct SessionPlace {
    roster: Arc<Roster>,
    agent: DestinationName,
    /// Unique, and higher than every earlier one, of earlier processes too.
    pub(crate) session: u64,
    /// Triggered when a newer session of the agent begins.
    pub(crate) replaced: CancellationToken,
    /// Where the session that this one has replaced came from.
    pub(crate) instead_of: Option<SocketAddr>,
}

impl Roster {
    pub(crate) fn new() -> Arc<Self> {
        // Milliseconds with room for a million sessions in each.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first = (since.as_millis() as u64) << 20;
        Arc::new(Self { agents: Mutex::default(), last_session: AtomicU64::new(first) })
    }

    /// A place for another connection of this agent, if it has not too many.
    pub(crate) fn connect(self: &Arc<Self>, agent: &DestinationName) -> Option<ConnectionPlace> {
        let mut agents = self.lock();
        let entry = agents.entry(agent.clone()).or_default();
        if entry.connections >= CONNECTIONS_PER_AGENT_MAX {
            return None;
        }
        entry.connections += 1;
        Some(ConnectionPlace(self.clone(), agent.clone()))
    }

    /// Begins a session, ending the agent's older one.
    pub(crate) fn begin(
        self: &Arc<Self>,
        agent: &DestinationName,
        from: SocketAddr,
    ) -> SessionPlace {
        let session = self.last_session.fetch_add(1, Ordering::Relaxed) + 1;
        let replaced = CancellationToken::new();
        let live = Live { session, from, replaced: replaced.clone() };
        let older = self.lock().entry(agent.clone()).or_default().live.replace(live);
        let instead_of = older.map(|older| {
            older.replaced.cancel();
            older.from
        });
        SessionPlace { roster: self.clone(), agent: agent.clone(), session, replaced, instead_of }
    }

    /// How many agents have an entry: those connected.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn change(&self, agent: &DestinationName, change: impl FnOnce(&mut Entry)) {
        let mut agents = self.lock();
        let Some(entry) = agents.get_mut(agent) else { return };
        change(entry);
        if entry.connections == 0 && entry.live.is_none() {
            agents.remove(agent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DestinationName, Entry>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.0.change(&self.1, |entry| entry.connections = entry.connections.saturating_sub(1));
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let session = self.session;
        self.roster.change(&self.agent, |entry| {
            entry.live.take_if(|live| live.session == session);
        });
    }
}
