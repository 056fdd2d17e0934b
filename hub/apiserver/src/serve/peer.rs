//! One connection as its requests see it: who is at the other end, is it in use, is it read.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Patience;
use crate::{
    authn::Certified,
    shares::{Share, Shares},
    user::UserInfo,
};

/// The other end of a connection.
pub(crate) struct Peer {
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) certified: Option<Certified>,
    since: Instant,
    /// Set by the first request that shows who asks: the connection's place among its user's.
    known: OnceLock<Option<Share>>,
    shown: Notify,
    requests: AtomicUsize,
    /// When the last request ended, in milliseconds since `since`.
    last: AtomicU64,
    sending: Mutex<Sends>,
}

#[derive(Default)]
struct Sends {
    next: u64,
    /// For each answer on its way: when its last piece was handed over; 0: it waits for us.
    marks: HashMap<u64, Arc<AtomicU64>>,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Nothing is under way: let it end.
    Idle,
    /// Close it; why.
    Close(&'static str),
}

impl Peer {
    pub(crate) fn new(remote: Option<SocketAddr>, certified: Option<Certified>) -> Arc<Peer> {
        Arc::new(Peer {
            remote,
            certified,
            since: Instant::now(),
            known: OnceLock::new(),
            shown: Notify::new(),
            requests: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            sending: Mutex::default(),
        })
    }

    /// A request has shown who asks. `false`: that user has all the connections that one may.
    pub(crate) fn is_of(&self, user: &UserInfo, connections: &Shares) -> bool {
        // Callers within the process have no connection.
        let Some(_) = self.remote else { return true };
        let place = self.known.get_or_init(|| {
            self.shown.notify_one();
            connections.take(&user.name, 1)
        });
        place.is_some()
    }

    fn is_known(&self) -> bool {
        self.known.get().is_some_and(Option::is_some)
    }

    /// Waits until a request has shown who asks; for one waiter.
    pub(super) async fn shown(&self) {
        self.shown.notified().await;
    }

    /// A request is under way until the guard is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> Underway {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Underway(self.clone())
    }

    /// An answer is on its way until the guard is dropped.
    pub(crate) fn begin_sending(self: &Arc<Self>) -> Handed {
        let mark = Arc::new(AtomicU64::new(0));
        let mut sends = self.sends();
        let id = sends.next;
        sends.next += 1;
        sends.marks.insert(id, mark.clone());
        drop(sends);
        Handed { id, mark, underway: self.begin_request() }
    }

    pub(super) fn look(&self, patience: &Patience) -> Verdict {
        let age = self.since.elapsed();
        if !self.is_known() && age > patience.stranger {
            return Verdict::Close("it has not shown who it is");
        }
        let long_ago =
            |mark: u64, limit: Duration| age.as_millis() as u64 > mark + limit.as_millis() as u64;
        let stuck = |mark: &Arc<AtomicU64>| match mark.load(Ordering::Relaxed) {
            0 => false,
            mark => long_ago(mark, patience.take),
        };
        if self.sends().marks.values().any(stuck) {
            return Verdict::Close("its client does not read what it asked for");
        }
        let unused = self.requests.load(Ordering::Relaxed) == 0;
        match unused && long_ago(self.last.load(Ordering::Relaxed), patience.idle) {
            true => Verdict::Idle,
            false => Verdict::Keep,
        }
    }

    fn now(&self) -> u64 {
        // 0 means "never".
        (self.since.elapsed().as_millis() as u64).max(1)
    }

    // Entries are whole when inserted.
    fn sends(&self) -> MutexGuard<'_, Sends> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
pub(crate) struct Underway(Arc<Peer>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.last.store(self.0.now(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer on its way.
pub(crate) struct Handed {
    id: u64,
    mark: Arc<AtomicU64>,
    underway: Underway,
}

impl Handed {
    /// A piece was handed over.
    pub(crate) fn mark(&self) {
        self.mark.store(self.underway.0.now(), Ordering::Relaxed);
    }

    /// It was taken.
    pub(crate) fn taken(&self) {
        self.mark.store(0, Ordering::Relaxed);
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.underway.0.sends().marks.remove(&self.id);
    }
}

/// Connections that have not shown whose they are. When there are too many the oldest is closed,
/// not the newest refused: who has something to show shows it at once.
pub(super) struct Strangers {
    max: usize,
    inner: Mutex<(u64, BTreeMap<u64, CancellationToken>)>,
}

impl Strangers {
    pub(super) fn new(max: usize) -> Strangers {
        Strangers { max, inner: Mutex::default() }
    }

    /// Adds one; the token is cancelled when it has to go.
    pub(super) fn add(&self) -> (u64, CancellationToken) {
        let token = CancellationToken::new();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let id = inner.0;
        inner.0 += 1;
        inner.1.insert(id, token.clone());
        if inner.1.len() > self.max
            && let Some((_, oldest)) = inner.1.pop_first()
        {
            oldest.cancel();
        }
        (id, token)
    }

    /// It has ended, or shown whose it is.
    pub(super) fn remove(&self, id: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id);
    }
}
