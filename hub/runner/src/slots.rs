//! How many pods run at once, and whose turn it is: those who wait share the places.
//!
//! Jobs belong to shares. Of one share the first goes first; between shares, who has the fewest
//! pods running is next, and among equals who was not served for the longest time. So a thousand
//! Jobs of one share hold up a Job of another for as long as one pod runs, not for all of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The places; clones are handles to the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Mutex<Inner>>);

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    share: String,
}

#[derive(Debug)]
struct Inner {
    free: usize,
    /// Those with something that waits or runs.
    shares: BTreeMap<String, Share>,
    served: u64,
}

#[derive(Debug, Default)]
struct Share {
    waiting: VecDeque<oneshot::Sender<Slot>>,
    running: usize,
    served: u64,
}

impl Slots {
    pub(crate) fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner { free, shares: BTreeMap::new(), served: 0 })))
    }

    /// Waits for a place. Whoever stops waiting loses nothing but its turn.
    pub(crate) async fn take(&self, share: &str) -> Slot {
        loop {
            let (turn, granted) = oneshot::channel();
            self.lock().shares.entry(share.to_owned()).or_default().waiting.push_back(turn);
            self.grant();
            if let Ok(slot) = granted.await {
                return slot;
            }
        }
    }

    /// Gives free places to those who wait.
    fn grant(&self) {
        loop {
            // Sent without the lock: what cannot be sent comes back, and is given up again.
            let Some((turn, share)) = self.lock().next() else { return };
            let _given_up = turn.send(Slot { slots: self.clone(), share });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().give_back(&self.share);
        self.slots.grant();
    }
}

impl Inner {
    fn next(&mut self) -> Option<(oneshot::Sender<Slot>, String)> {
        if self.free == 0 {
            return None;
        }
        for share in self.shares.values_mut() {
            share.waiting.retain(|turn| !turn.is_closed());
        }
        self.shares.retain(|_, share| share.running > 0 || !share.waiting.is_empty());
        let waiting = self.shares.iter_mut().filter(|(_, share)| !share.waiting.is_empty());
        let (name, share) = waiting.min_by_key(|(_, share)| (share.running, share.served))?;
        let turn = share.waiting.pop_front()?;
        self.free -= 1;
        self.served += 1;
        share.running += 1;
        share.served = self.served;
        Some((turn, name.clone()))
    }

    fn give_back(&mut self, name: &str) {
        self.free += 1;
        if let Some(share) = self.shares.get_mut(name) {
            share.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Those who wait, as futures that have asked already.
    fn asked(slots: &Slots, share: &'static str) -> impl Future<Output = Slot> + Unpin {
        let slots = slots.clone();
        let mut waiting = Box::pin(async move { slots.take(share).await });
        assert!((&mut waiting).now_or_never().is_none(), "there was a place for {share}");
        waiting
    }

    #[tokio::test]
    async fn those_who_wait_share_the_places() {
        let slots = Slots::new(2);
        let (one, two) = (slots.take("a").await, slots.take("a").await);
        let (third, other) = (asked(&slots, "a"), asked(&slots, "b"));
        drop(one);
        let other = other.now_or_never().expect("b has nothing running, and waits");
        drop((two, other));
        assert!(third.now_or_never().is_some(), "nobody else waits");
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_no_place() {
        let slots = Slots::new(1);
        let first = slots.take("a").await;
        let (gone, last) = (asked(&slots, "a"), asked(&slots, "a"));
        drop(gone);
        drop(first);
        drop(last.now_or_never().expect("the one before does not wait any more"));
        let late = asked_and_granted(&slots);
        drop(late);
        assert!(slots.take("b").now_or_never().is_some(), "a place was lost with its future");
    }

    /// A place that was granted to a future which is then dropped.
    fn asked_and_granted(slots: &Slots) -> impl Future<Output = Slot> {
        let held = slots.take("a").now_or_never().expect("it is free");
        let waiting = asked(slots, "a");
        drop(held);
        waiting
    }
}
