//! Waits between attempts: longer each time, spread by chance, forgotten at the first success.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// An endless series of growing waits.
#[derive(Debug)]
pub struct Backoff {
    limits: ExponentialBuilder,
    series: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Waits that begin between `first` and twice that, double each time, and never pass `longest`.
    ///
    /// Half of each wait is chance, so that a fleet that lost its hub at one moment does not come
    /// back at one moment.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let limits = ExponentialBuilder::new()
            .with_jitter()
            .with_factor(2.0)
            .with_min_delay(first)
            .with_max_delay(longest / 2)
            .without_max_times();
        Self { limits, series: limits.build(), longest }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        self.series.next().unwrap_or(self.longest).min(self.longest)
    }

    /// Begins anew: the last attempt succeeded.
    pub fn reset(&mut self) {
        self.series = self.limits.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_forgets() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let waits: Vec<_> = (0..50).map(|_| backoff.wait()).collect();
        assert!((1.0..2.0).contains(&waits[0].as_secs_f32()), "{:?}", waits[0]);
        for wait in &waits[10..] {
            assert!((15.0..=30.0).contains(&wait.as_secs_f32()), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() < Duration::from_secs(2));
    }
}
