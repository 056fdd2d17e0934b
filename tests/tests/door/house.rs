//! A hub's inside, as the gateway sees it: tokens, assignments, content, reports, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::BoxStream,
};
use muster_core::{
    Assignment, DestinationName, Digest, FileSet, PlacementReport, Revision,
    ports::{AgentFacts, AssignmentSource, Enrolments, PortError, Presence, ReportSink},
};
use tokio::sync::watch;

/// Everything that a gateway asks for.
#[derive(Debug)]
pub(crate) struct House {
    /// What the one agent is to hold; `None` ends its subscription.
    pub(crate) assignment: watch::Sender<Option<Arc<Assignment>>>,
    /// Changed with every report and every coming and going.
    pub(crate) seen: watch::Sender<Seen>,
    /// The token of the agent, and the key that has used it.
    token: Mutex<(String, DestinationName, Option<Digest>)>,
    contents: Mutex<BTreeMap<Digest, Bytes>>,
    /// Epochs that agents have shown to be behind.
    pub(crate) raised: Mutex<Vec<Revision>>,
}

/// What the gateway has told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) reports: Vec<PlacementReport>,
    pub(crate) live: BTreeSet<u64>,
    pub(crate) sessions: usize,
    pub(crate) admitted: usize,
}

impl House {
    pub(crate) fn new(agent: &str, token: &str) -> Arc<Self> {
        let agent = DestinationName::parse(agent).unwrap();
        let mut first = Assignment::empty(agent.clone());
        first.revision = Revision { epoch: 1, n: 1 };
        Arc::new(Self {
            assignment: watch::Sender::new(Some(Arc::new(first))),
            seen: watch::Sender::default(),
            token: Mutex::new((token.to_owned(), agent, None)),
            contents: Mutex::default(),
            raised: Mutex::default(),
        })
    }

    pub(crate) fn store(&self, files: &FileSet) -> Digest {
        let compressed = zstd::encode_all(files.encode().as_slice(), 3).unwrap();
        self.contents.lock().unwrap().insert(files.digest(), compressed.into());
        files.digest()
    }

    /// Changes the assignment, giving it the next revision.
    pub(crate) fn assign(&self, change: impl FnOnce(&mut Assignment)) {
        self.assignment.send_modify(|current| {
            let mut next = Assignment::clone(current.as_ref().unwrap());
            next.revision.n += 1;
            change(&mut next);
            *current = Some(Arc::new(next));
        });
    }

    /// Waits for something that the gateway must tell.
    pub(crate) async fn wait(&self, what: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        let found = super::soon(seen.wait_for(what)).await;
        found.unwrap().clone()
    }
}

impl AssignmentSource for House {
    fn subscribe(&self, _: &DestinationName) -> BoxStream<'static, Arc<Assignment>> {
        tokio_stream::wrappers::WatchStream::new(self.assignment.subscribe())
            .take_while(|current| ready(current.is_some()))
            .filter_map(ready)
            .boxed()
    }

    fn raise_epoch(&self, above: Revision) -> BoxFuture<'_, Result<(), PortError>> {
        self.raised.lock().unwrap().push(above);
        self.assign(|next| next.revision = Revision { epoch: above.epoch + 1, n: 1 });
        ready(Ok(())).boxed()
    }

    fn content(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, PortError>> {
        let found = self.contents.lock().unwrap().get(&digest).cloned();
        ready(found.ok_or_else(|| PortError::NotFound(format!("content {}", digest.short()))))
            .boxed()
    }
}

impl ReportSink for House {
    fn accept(&self, _: &DestinationName, reports: Vec<PlacementReport>) -> BoxFuture<'_, ()> {
        self.seen.send_modify(|seen| seen.reports.extend(reports));
        ready(()).boxed()
    }
}

impl Enrolments for House {
    fn redeem(
        &self,
        token: &str,
        public_key: Digest,
        _: AgentFacts,
    ) -> BoxFuture<'_, Result<DestinationName, PortError>> {
        let mut known = self.token.lock().unwrap();
        let refuse = |why: &str| Err(PortError::Refused(why.to_owned()));
        let result = if known.0 != token {
            refuse("the token is not known")
        } else if *known.2.get_or_insert(public_key) != public_key {
            refuse("the token was used by another key")
        } else {
            Ok(known.1.clone())
        };
        ready(result).boxed()
    }

    fn admit(
        &self,
        agent: &DestinationName,
        public_key: Digest,
    ) -> BoxFuture<'_, Result<(), PortError>> {
        self.seen.send_modify(|seen| seen.admitted += 1);
        let known = self.token.lock().unwrap();
        let revoked = self.assignment.borrow().is_none();
        let theirs = known.1 == *agent && known.2 == Some(public_key) && !revoked;
        let refused = || PortError::Refused("the agent was removed or revoked".to_owned());
        ready(theirs.then_some(()).ok_or_else(refused)).boxed()
    }

    fn issued(&self, _: &DestinationName, _: i64) -> BoxFuture<'_, Result<(), PortError>> {
        ready(Ok(())).boxed()
    }
}

impl Presence for House {
    fn connected(&self, _: &DestinationName, session: u64, _: AgentFacts) {
        self.seen.send_modify(|seen| {
            seen.live.insert(session);
            seen.sessions += 1;
        });
    }

    fn disconnected(&self, _: &DestinationName, session: u64) {
        self.seen.send_modify(|seen| {
            seen.live.remove(&session);
        });
    }
}
