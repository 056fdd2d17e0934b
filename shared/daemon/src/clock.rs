//! What time it is, and how to wait: one source for both, so that a test can let hours pass at once.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// The time of a process. Clones share it.
///
/// It runs as the machine's does, ahead by what was skipped: nothing in a process that runs for
/// real, hours in a test.
#[derive(Debug, Clone)]
pub struct Clock {
    ahead: Arc<watch::Sender<Duration>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { ahead: Arc::new(watch::Sender::new(Duration::ZERO)) }
    }
}

impl Clock {
    /// The time of day.
    pub fn now(&self) -> Timestamp {
        Timestamp::now() + *self.ahead.borrow()
    }

    /// A moment to measure from; only to be compared with others of this clock.
    pub fn instant(&self) -> Instant {
        Instant::now() + *self.ahead.borrow()
    }

    /// Waits for as long as `wait`, or until that much was skipped.
    pub async fn sleep(&self, wait: Duration) {
        self.sleep_until(self.instant() + wait).await;
    }

    /// Waits for a moment of this clock.
    pub async fn sleep_until(&self, moment: Instant) {
        let mut ahead = self.ahead.subscribe();
        loop {
            let now = Instant::now() + *ahead.borrow_and_update();
            let left = moment.saturating_duration_since(now);
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                // It cannot close: the sender lives as long as `self`.
                _skipped = ahead.changed() => {}
            }
        }
    }

    /// Moves the time on: whoever waits for a moment that has passed by it goes on. For tests.
    pub fn skip(&self, time: Duration) {
        self.ahead.send_modify(|ahead| *ahead += time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn what_is_skipped_has_passed() {
        let clock = Clock::default();
        let (before, since) = (clock.now(), clock.instant());
        clock.clone().skip(HOUR);
        assert!(clock.now().duration_since(before).as_secs() >= 3600);
        assert!(clock.instant() - since >= HOUR);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_enough_was_skipped() {
        let clock = Clock::default();
        let waiting = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(2 * HOUR).await }
        });
        tokio::task::yield_now().await;
        clock.skip(HOUR);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        clock.skip(HOUR);
        waiting.await.unwrap();
    }
}
