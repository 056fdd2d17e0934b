//! Whose turn it is: pure, from what was triggered, what runs, and what is due when.
//!
//! Of one share the one that came first goes first, and keeps its place while it is under way, so
//! that the first of many is done long before the last. Between shares the places are divided: who
//! has the fewest running is next, and among equals who was not served for the longest time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Key, Next};

/// The first wait before a failed reconcile is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest wait: a person who repaired the cause should not have to wait longer.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often in a row one that met a newer copy looks again at once: more often than writers of one
/// object meet by chance.
const OVERTAKEN_MAX: u32 = 5;

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Well(Next),
    /// It met a newer copy.
    Overtaken,
    Badly,
}

/// What waits, what runs, what is due when.
#[derive(Debug)]
pub(super) struct Turns<K> {
    shares: BTreeMap<String, Share<K>>,
    /// The places of those that wait, run or are under way.
    places: HashMap<K, u64>,
    place_next: u64,
    served: u64,
    waiting: HashSet<K>,
    running: HashSet<K>,
    /// Failures in a row, and how often in a row a newer copy was met.
    failures: HashMap<K, (u32, u32)>,
    /// The one time at which each key is due; entries of `timers` that differ are stale.
    due: HashMap<K, Instant>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timer_keys: HashMap<u64, K>,
    timer_next: u64,
}

/// One share, while it has something ready or running.
#[derive(Debug)]
struct Share<K> {
    /// By place.
    ready: BTreeMap<u64, K>,
    running: usize,
    /// When it was last served.
    served: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self {
            shares: BTreeMap::new(),
            places: HashMap::new(),
            place_next: 0,
            served: 0,
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

impl<K: Key> Turns<K> {
    /// An object is to be looked at.
    pub(super) fn trigger(&mut self, key: K) {
        if self.waiting.insert(key.clone()) && !self.running.contains(&key) {
            self.make_ready(key);
        }
    }

    /// The next one, which runs from now on.
    pub(super) fn start(&mut self) -> Option<K> {
        let ready = self.shares.values_mut().filter(|share| !share.ready.is_empty());
        let share = ready.min_by_key(|share| (share.running, share.served))?;
        let (_, key) = share.ready.pop_first()?;
        self.served += 1;
        share.served = self.served;
        share.running += 1;
        self.waiting.remove(&key);
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// One that ran has ended; a wait counts from `since`.
    pub(super) fn finish(&mut self, key: K, ended: Ended, since: Instant) {
        self.running.remove(&key);
        if let Some(share) = self.shares.get_mut(key.share()) {
            share.running -= 1;
            if share.running == 0 && share.ready.is_empty() {
                self.shares.remove(key.share());
            }
        }
        let wait = match ended {
            Ended::Well(next) => {
                self.failures.remove(&key);
                match next {
                    Next::Change => None,
                    Next::After(wait) => Some(wait),
                    Next::Underway(wait) => wait,
                }
            }
            Ended::Overtaken => {
                let (_, overtaken) = self.failures.entry(key.clone()).or_default();
                *overtaken += 1;
                Some(if *overtaken <= OVERTAKEN_MAX { Duration::ZERO } else { RETRY_MIN })
            }
            Ended::Badly => {
                let (failures, _) = self.failures.entry(key.clone()).or_default();
                let wait = RETRY_MIN.saturating_mul(2_u32.saturating_pow(*failures));
                *failures += 1;
                Some(wait.min(RETRY_MAX))
            }
        };
        if self.waiting.contains(&key) {
            self.make_ready(key);
            return;
        }
        if matches!(ended, Ended::Well(Next::Change | Next::After(_))) {
            self.places.remove(&key);
        }
        match wait {
            Some(Duration::ZERO) => self.trigger(key),
            Some(wait) => self.schedule(key, since + wait),
            None => {}
        }
    }

    /// When [`Turns::wake`] has something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Triggers what is due.
    pub(super) fn wake(&mut self, now: Instant) {
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

    fn make_ready(&mut self, key: K) {
        let place = *self.places.entry(key.clone()).or_insert_with(|| {
            self.place_next += 1;
            self.place_next
        });
        let share = self.shares.entry(key.share().to_owned());
        let share = share.or_insert(Share { ready: BTreeMap::new(), running: 0, served: 0 });
        share.ready.insert(place, key);
    }

    fn schedule(&mut self, key: K, at: Instant) {
        self.due.insert(key.clone(), at);
        self.timers.push(Reverse((at, self.timer_next)));
        self.timer_keys.insert(self.timer_next, key);
        self.timer_next += 1;
    }
}

#[cfg(test)]
mod tests;
