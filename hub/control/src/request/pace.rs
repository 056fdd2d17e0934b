//! What is over in a moment is not told in between: such news waits a little for the next, with
//! which it is one write.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::RequestKey;

/// How long: longer than a pipeline takes to end after its last output and an agent to apply it,
/// shorter than a person takes to look.
const WAIT: Duration = Duration::from_millis(500);

/// Since when news waits, of each request that has some.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<RequestKey, Instant>>);

impl Pace {
    /// How long news may still wait; `None`: it has waited enough.
    pub(super) fn wait(&self, key: &RequestKey, now: Instant) -> Option<Duration> {
        let mut waiting = self.lock();
        let since = *waiting.entry(key.clone()).or_insert(now);
        let left = WAIT.saturating_sub(now.saturating_duration_since(since));
        (!left.is_zero()).then_some(left)
    }

    /// Nothing waits any more.
    pub(super) fn told(&self, key: &RequestKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestKey, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
