//! Which object is reconciled next: one reconcile of an object at a time, many objects at once.
//!
//! A trigger only says "look again at this one": triggers that arrive before or during a reconcile
//! melt into one further reconcile. A failed reconcile is tried again after a growing wait; one that
//! only met a newer copy looks again at once.

mod turns;

use std::{fmt::Debug, future::Future, hash::Hash, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use muster_daemon::Clock;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::shelf::ObjectKey;
use turns::{Ended, Turns};

/// Triggers in flight between watches and queue. They are drained at once; a full channel only
/// makes a watch wait.
const TRIGGERS_LEN: usize = 1024;

/// When to look at an object again, if nothing triggers it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// When something changes.
    Change,
    /// After this time at the latest.
    After(Duration),
    /// As `After`, if there is a time; and it keeps its place before all that came later, because
    /// it is under way and not at its end.
    Underway(Option<Duration>),
}

impl Next {
    /// The same, while it is under way.
    pub(crate) fn underway(self) -> Self {
        match self {
            Self::Change => Self::Underway(None),
            Self::After(wait) => Self::Underway(Some(wait)),
            Self::Underway(_) => self,
        }
    }

    /// At this moment at the latest, seen from `now`.
    pub(crate) fn at(moment: Option<Timestamp>, now: Timestamp) -> Self {
        let wait = |moment: Timestamp| Duration::try_from(moment.duration_since(now));
        moment.map_or(Self::Change, |moment| Self::After(wait(moment).unwrap_or_default()))
    }
}

/// What is reconciled.
pub(crate) trait Key: Clone + Eq + Hash + Debug + Send + 'static {
    /// Whose turn it takes: those who wait share the places equally, whatever each has to do.
    fn share(&self) -> &str {
        ""
    }
}

impl Key for String {}
impl Key for ObjectKey {}

/// A reconcile that runs: of what, since when, and what it comes to.
type Running<K, E> = BoxFuture<'static, (K, Instant, Result<Next, E>)>;

/// Where triggers are put.
#[derive(Debug)]
pub(crate) struct Triggers<K>(mpsc::Sender<K>);

/// The other end of [`Triggers`].
#[derive(Debug)]
pub(crate) struct Queue<K> {
    name: &'static str,
    triggers: mpsc::Receiver<K>,
    clock: Clock,
}

/// A queue of this name, and the way into it.
pub(crate) fn queue<K>(name: &'static str, clock: &Clock) -> (Triggers<K>, Queue<K>) {
    let (sender, triggers) = mpsc::channel(TRIGGERS_LEN);
    (Triggers(sender), Queue { name, triggers, clock: clock.clone() })
}

impl<K> Clone for Triggers<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Triggers<K> {
    /// Says "look again at `key`". Waits while the channel is full; does nothing once the queue
    /// has ended.
    pub(crate) async fn look_at(&self, key: K) {
        let _ended = self.0.send(key).await;
    }
}

impl<K: Key> Queue<K> {
    /// Reconciles what is triggered, at most `at_once` objects at a time, until `shutdown`;
    /// reconciles that are running then are finished first.
    pub(crate) async fn run<F, R, E>(
        mut self,
        at_once: usize,
        reconcile: F,
        shutdown: CancellationToken,
    ) where
        F: Fn(K) -> R,
        R: Future<Output = Result<Next, E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let mut state = Turns::<K>::default();
        let mut running = FuturesUnordered::<Running<K, E>>::new();
        loop {
            while running.len() < at_once && !shutdown.is_cancelled() {
                let Some(key) = state.start() else { break };
                let (work, began) = (reconcile(key.clone()), self.clock.instant());
                running.push(work.map(move |result| (key, began, result)).boxed());
            }
            if shutdown.is_cancelled() && running.is_empty() {
                return;
            }
            let wake = state.next_due();
            tokio::select! {
                () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
                Some(key) = self.triggers.recv() => state.trigger(key),
                Some((key, began, result)) = running.next(), if !running.is_empty() => {
                    let ended = self.ended(&key, result);
                    // What was decided is due as seen at the beginning; a failure rests from its end.
                    let decided = matches!(ended, Ended::Well(_));
                    let since = if decided { began } else { self.clock.instant() };
                    state.finish(key, ended, since);
                }
                () = self.clock.sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    state.wake(self.clock.instant());
                }
            }
        }
    }
}

impl<K: Key> Queue<K> {
    fn ended<E: std::error::Error + 'static>(&self, key: &K, result: Result<Next, E>) -> Ended {
        let queue = self.name;
        match result {
            Ok(next) => {
                tracing::debug!(queue, ?key, "Reconciled");
                Ended::Well(next)
            }
            Err(error) if met_newer_copy(&error) => {
                tracing::debug!(queue, ?key, "Met a newer copy; looking again");
                Ended::Overtaken
            }
            Err(error) => {
                tracing::warn!(queue, ?key, error = %chain(&error), "Reconcile failed");
                Ended::Badly
            }
        }
    }
}

/// Whether somebody else wrote first: normal among several writers, mended by looking again.
fn met_newer_copy(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => return status.is_conflict(),
            _ => next = error.source(),
        }
    }
    false
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
