//! How often: periods of checks, back-off of retries, and the jitter that spreads a fleet.

use std::time::Duration;

/// Periods and limits; [`Pace::default`] gives the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// Between looks at something that changed lately or is not healthy.
    pub check_fast: Duration,
    /// Between looks at something that stays unhealthy for long.
    pub check_unhealthy_max: Duration,
    /// Between looks at something healthy whose files do not say when.
    pub check_healthy: Duration,
    /// Before the second attempt; doubled for each further one.
    pub retry_first: Duration,
    /// The longest wait between attempts.
    pub retry_max: Duration,
    /// How long an action may take before "applying" is worth a report.
    pub announce_after: Duration,
    /// Most actions in flight in one lane.
    pub lane_actions_max: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // A person who watches a request become ready does not notice a second.
            check_fast: Duration::from_secs(1),
            // Something unready for minutes is looked at four times a minute: cheap, soon enough.
            check_unhealthy_max: Duration::from_secs(15),
            // The bound on unnoticed drift; 20,000 placements make 700 looks a second at most.
            check_healthy: Duration::from_secs(30),
            retry_first: Duration::from_secs(1),
            // A cured cause is noticed within a minute, and a dead API gets one call a minute.
            retry_max: Duration::from_secs(60),
            announce_after: Duration::from_millis(500),
            // Enough to hide waiting; scripts and terraform runs are processes on the host.
            lane_actions_max: 16,
        }
    }
}

/// A sequence of numbers from a seed given from outside (splitmix64), for spreading only.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `period` less up to a fifth of it, so that agents that start together drift apart.
    pub(crate) fn spread(&mut self, period: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        period.mul_f64(1.0 - unit / 5.0)
    }
}

/// Attempts at one thing, further and further apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Retry {
    attempts: u32,
    at: Duration,
}

impl Retry {
    /// Notes an attempt that has to be made again.
    pub(crate) fn again(&mut self, now: Duration, pace: &Pace, jitter: &mut Jitter) {
        // 2^16 first waits are over any sensible maximum; the shift stays in range.
        let wait = pace.retry_first.saturating_mul(1 << self.attempts.min(16)).min(pace.retry_max);
        self.attempts = self.attempts.saturating_add(1);
        self.at = now + jitter.spread(wait);
    }

    /// Allows the next attempt at once, without forgetting how many there were.
    pub(crate) fn hasten(&mut self) {
        self.at = Duration::ZERO;
    }

    /// When the next attempt may be made.
    pub(crate) fn at(&self) -> Duration {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_cap_and_differ_by_seed() {
        let pace = Pace::default();
        let (mut one, mut two) = (Jitter::new(1), Jitter::new(2));
        let (mut retry, mut other) = (Retry::default(), Retry::default());
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            retry.again(Duration::ZERO, &pace, &mut one);
            assert!(retry.at() > last, "{:?} after {last:?}", retry.at());
            last = retry.at();
        }
        for _ in 0..100 {
            retry.again(Duration::ZERO, &pace, &mut one);
            other.again(Duration::ZERO, &pace, &mut two);
        }
        assert!(retry.at() <= pace.retry_max && retry.at() > pace.retry_max / 2);
        assert_ne!(retry.at(), other.at());
    }
}
