//! What the agent knows of one placement.

use std::time::Duration;

use muster_core::{
    Contents, Digest, Failure, Health, Held, Intent, Lane, Observation, Order, PlacementReport,
    assignment::option,
};

use crate::{
    ActionId,
    pace::{Jitter, Pace, Retry},
};

/// Looks at the fast period after a change before trusting a healthy verdict.
const FAST_LOOKS: u32 = 2;

/// One placement: its order, what is there, what is being done, what was seen.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// `None` when the placement is held but no assignment names it.
    pub(crate) order: Option<Order>,
    /// Since when.
    pub(crate) ordered_at: Duration,
    /// What is on the destination.
    pub(crate) held: Held,
    /// The digest last applied completely, for reports; outlives a failed newer attempt.
    pub(crate) completed: Option<Digest>,
    /// The action in flight.
    pub(crate) doing: Option<Doing>,
    /// Why the last attempt at the present order did not succeed.
    pub(crate) failure: Option<Failure>,
    /// The dependencies that were part of the refused attempt: another base is another attempt.
    pub(crate) failed_base: Vec<Digest>,
    pub(crate) retry: Retry,
    pub(crate) observed: Option<Observation>,
    /// When to look again.
    pub(crate) check_at: Duration,
    /// Looks in a row that gave the same verdict.
    pub(crate) looks: u32,
    /// Whether the present order to remove has been carried out.
    pub(crate) removed: bool,
    /// What it waits for, as the last decision put it.
    pub(crate) note: Option<Note>,
    /// The last report, so that only changes are told.
    pub(crate) told: Option<PlacementReport>,
}

/// An action in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doing {
    pub(crate) id: ActionId,
    pub(crate) kind: Kind,
    /// The lane it counts in, whatever the order says by then.
    pub(crate) lane: Lane,
    pub(crate) since: Duration,
    pub(crate) cancelled: bool,
}

/// Which action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Apply { digest: Digest, base: Vec<Digest>, contents: Contents },
    Remove,
    Check,
}

/// What a placement waits for: a reason and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Slot {
    /// A placement known from the inventory.
    pub(crate) fn held(held: Held) -> Self {
        Self { completed: held.applied, held, ..Self::default() }
    }

    /// Takes a new order; a changed one begins anew, with no memory of failures.
    pub(crate) fn assign(&mut self, order: Order, now: Duration) {
        if self.order.as_ref() == Some(&order) {
            return;
        }
        self.order = Some(order);
        self.ordered_at = now;
        self.note = None;
        self.failure = None;
        self.retry = Retry::default();
        self.removed = false;
    }

    pub(crate) fn intent(&self) -> Option<Intent> {
        self.order.as_ref().map(|order| order.intent)
    }

    pub(crate) fn promise(&self) -> Option<&str> {
        self.order.as_ref().and_then(|order| order.options.get(option::PROMISE)).map(String::as_str)
    }

    /// Whether anything may be on the destination.
    pub(crate) fn holds(&self) -> bool {
        self.held.applied.is_some() || !self.held.claims.is_empty() || self.completed.is_some()
    }

    /// Whether the action in flight serves what is no longer ordered.
    pub(crate) fn doing_is_stale(&self) -> bool {
        let (Some(doing), Some(order)) = (&self.doing, &self.order) else { return false };
        match (&doing.kind, order.intent) {
            (Kind::Apply { digest, .. }, Intent::Present) => *digest != order.digest,
            (Kind::Remove, Intent::Absent) => false,
            (Kind::Check, Intent::Present) => self.held.applied != Some(order.digest),
            _ => true,
        }
    }

    /// Notes what was seen and when to look again.
    pub(crate) fn observe(
        &mut self,
        seen: Observation,
        now: Duration,
        pace: &Pace,
        jitter: &mut Jitter,
    ) {
        let same = self.observed.as_ref().is_some_and(|last| last.health == seen.health);
        self.looks = if same { self.looks.saturating_add(1) } else { 0 };
        let settled = matches!(seen.health, Health::Healthy | Health::Unknown);
        let period = match seen.recheck {
            Some(period) => period,
            None if self.looks < FAST_LOOKS => pace.check_fast,
            None if settled => pace.check_healthy,
            // Half as long again each time: 1, 1, 1, 1.5, 2.25 … up to the maximum.
            None => {
                let grown = 1.5f64.powi((self.looks - FAST_LOOKS).min(20) as i32);
                pace.check_fast.mul_f64(grown).min(pace.check_unhealthy_max)
            }
        };
        self.check_at = now + jitter.spread(period);
        self.observed = Some(seen);
    }

    /// Whether what was applied is no longer as it was applied.
    pub(crate) fn drifted(&self) -> bool {
        self.observed.as_ref().is_some_and(|seen| seen.drift.is_some())
    }
}
