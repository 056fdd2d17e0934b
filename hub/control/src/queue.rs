//! Which object is reconciled next: one reconcile of an object at a time, many objects at once.
//!
//! A trigger only says "look again at this one": triggers that arrive before or during a reconcile
//! melt into one further reconcile. A failed reconcile is tried again after a growing wait.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    fmt::Debug,
    future::Future,
    hash::Hash,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use muster_daemon::Clock;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// The first wait before a failed reconcile is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest wait: a person who repaired the cause should not have to wait longer.
const RETRY_MAX: Duration = Duration::from_secs(30);
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
}

impl Next {
    /// At this moment at the latest, seen from `now`.
    pub(crate) fn at(moment: Option<Timestamp>, now: Timestamp) -> Self {
        let wait = |moment: Timestamp| Duration::try_from(moment.duration_since(now));
        moment.map_or(Self::Change, |moment| Self::After(wait(moment).unwrap_or_default()))
    }
}

/// Where triggers are put.
#[derive(Debug)]
pub(crate) struct Triggers<K>(mpsc::Sender<K>);

/// The other end of [`Triggers`].
#[derive(Debug)]
pub(crate) struct Queue<K> {
    triggers: mpsc::Receiver<K>,
    clock: Clock,
}

/// A queue and the way into it.
pub(crate) fn queue<K>(clock: &Clock) -> (Triggers<K>, Queue<K>) {
    let (sender, triggers) = mpsc::channel(TRIGGERS_LEN);
    (Triggers(sender), Queue { triggers, clock: clock.clone() })
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

impl<K: Clone + Eq + Hash + Debug + Send + 'static> Queue<K> {
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
        let mut state = State::<K>::default();
        let mut running: FuturesUnordered<BoxFuture<'static, (K, Instant, Result<Next, E>)>> =
            FuturesUnordered::new();
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
                    let result = result.map_err(|error| {
                        if met_newer_copy(&error) {
                            tracing::debug!(?key, "Met a newer copy; looking again");
                        } else {
                            tracing::warn!(?key, error = %chain(&error), "Reconcile failed");
                        }
                    });
                    // What was decided is due as seen at the beginning; a failure rests from its end.
                    let since = if result.is_ok() { began } else { self.clock.instant() };
                    state.finish(key, result, since);
                }
                () = self.clock.sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    state.wake(self.clock.instant());
                }
            }
        }
    }
}

/// What waits, what runs, what is due when.
#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    running: HashSet<K>,
    failures: HashMap<K, u32>,
    /// The one time at which each key is due; entries of `timers` that differ are stale.
    due: HashMap<K, Instant>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timer_keys: HashMap<u64, K>,
    timer_next: u64,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashSet::new(),
            failures: HashMap::new(),
            due: HashMap::new(),
            timers: BinaryHeap::new(),
            timer_keys: HashMap::new(),
            timer_next: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn trigger(&mut self, key: K) {
        if self.waiting.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn start(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn finish(&mut self, key: K, result: Result<Next, ()>, since: Instant) {
        self.running.remove(&key);
        let wait = match result {
            Ok(next) => {
                self.failures.remove(&key);
                match next {
                    Next::Change => None,
                    Next::After(wait) => Some(wait),
                }
            }
            Err(()) => {
                let failures = self.failures.entry(key.clone()).or_default();
                let wait = RETRY_MIN.saturating_mul(2_u32.saturating_pow(*failures));
                *failures += 1;
                Some(wait.min(RETRY_MAX))
            }
        };
        if self.waiting.contains(&key) {
            self.ready.push_back(key);
        } else if let Some(wait) = wait {
            self.schedule(key, since + wait);
        }
    }

    fn schedule(&mut self, key: K, at: Instant) {
        self.due.insert(key.clone(), at);
        self.timers.push(Reverse((at, self.timer_next)));
        self.timer_keys.insert(self.timer_next, key);
        self.timer_next += 1;
    }

    fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, timer))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(key) = self.timer_keys.remove(&timer) else { continue };
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.trigger(key);
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

#[cfg(test)]
mod tests;
