//! Where one placement stands, put so that placements can be counted and the worst be named.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use muster_api::{
    WorkPlacement,
    conditions::{self, kind},
    work::{PlacementSummary, PlacementsSummary},
};
use muster_core::Health;

use super::placement::parse_health;
use crate::{
    schedule::{asks_to_move, is_misplaced},
    site::{Link, Sites},
};

/// How long a destination may be offline before `Reconciled` becomes `Unknown`: longer than a
/// restart or a reboot takes.
pub const OFFLINE_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// How many placements a status names.
pub const WORST_MAX: usize = 20;

/// One placement's standing. The order of the variants of [`State`] is from best to worst.
#[derive(Debug, Clone)]
pub(crate) struct Standing<'a> {
    pub placement: &'a WorkPlacement,
    pub state: State,
    pub health: Health,
    /// Applied at its pinned digest, as far as is known.
    pub applied: bool,
    pub misplaced: bool,
    /// Whether it shall leave its destination.
    pub moving: bool,
    /// Whether a state store holds its files, and no agent.
    pub stored: bool,
    /// Since when its agent is not connected.
    pub offline: Option<Timestamp>,
    pub reason: String,
    pub message: String,
    pub since: Timestamp,
}

/// What people read as `phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Applied,
    Applying,
    Pending,
    Removing,
    Offline,
    Failed,
    Refused,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "Applied",
            Self::Applying => "Applying",
            Self::Pending => "Pending",
            Self::Removing => "Removing",
            Self::Offline => "Offline",
            Self::Failed => "Failed",
            Self::Refused => "Refused",
        }
    }
}

impl<'a> Standing<'a> {
    pub(crate) fn of(placement: &'a WorkPlacement, sites: &Sites) -> Self {
        let status = placement.status.as_ref();
        let said = status.and_then(|s| conditions::find(&s.conditions, kind::APPLIED));
        let created = placement.metadata.creation_timestamp.as_ref();
        let created = created.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let at_digest = status.and_then(|s| s.applied_digest.as_deref())
            == Some(placement.spec.digest.as_str());
        let state = state(placement, at_digest);
        let applied = at_digest && matches!(state, State::Applied | State::Applying);
        let site = sites.get(&placement.spec.target_destination_name);
        let stored = site.is_some_and(|site| site.state_store);
        let offline = match site.map(|site| site.link) {
            // What is in a store stays there, whether the hub can write to it or not.
            _ if stored => None,
            Some(Link::Offline { since }) => Some(since.unwrap_or(created)),
            Some(Link::Connected) | None => None,
        };
        Self {
            placement,
            state: if offline.is_some() { State::Offline } else { state },
            health: parse_health(status.and_then(|s| s.health.as_deref()).unwrap_or_default()),
            applied,
            misplaced: is_misplaced(placement),
            moving: asks_to_move(placement, sites, is_misplaced(placement)),
            stored,
            offline,
            reason: said.map(|c| c.reason.clone()).unwrap_or_default(),
            message: said.map(|c| c.message.clone()).unwrap_or_default(),
            since: offline.or(said.map(|c| c.last_transition_time.0)).unwrap_or(created),
        }
    }

    pub(crate) fn destination(&self) -> &'a str {
        &self.placement.spec.target_destination_name
    }

    pub(crate) fn leaving(&self) -> bool {
        self.placement.metadata.deletion_timestamp.is_some()
    }

    /// Offline for so long that nobody should rely on what was said last.
    pub(crate) fn lost(&self, now: Timestamp) -> bool {
        self.offline.is_some_and(|since| now.duration_since(since) >= OFFLINE_AFTER)
    }

    /// What people should read first.
    fn words(&self) -> String {
        let health = self.placement.status.as_ref().and_then(|s| s.health_message.clone());
        let bad = self.applied && self.health > Health::Healthy;
        let words = if bad { health.unwrap_or_default() } else { self.message.clone() };
        if self.state == State::Applied && self.health == Health::Healthy {
            String::new()
        } else {
            words
        }
    }

    fn badness(&self) -> (State, Health) {
        (self.state, self.health)
    }
}

/// Longest cause in a table's column; the condition has the whole.
const CAUSE_CHARS_MAX: usize = 60;

/// Counts, and the worst [`WORST_MAX`].
pub(crate) fn summary(standings: &[Standing<'_>]) -> PlacementsSummary {
    let count = |test: &dyn Fn(&Standing<'_>) -> bool| {
        standings.iter().filter(|s| test(s)).count().try_into().unwrap_or(i64::MAX)
    };
    let mut order: Vec<_> = standings.iter().collect();
    order.sort_by(|a, b| {
        b.badness().cmp(&a.badness()).then_with(|| a.destination().cmp(b.destination()))
    });
    PlacementsSummary {
        total: count(&|_| true),
        applied: count(&|s| s.applied),
        healthy: count(&|s| s.applied && s.health == Health::Healthy),
        offline: count(&|s| s.offline.is_some()),
        destination: destination(standings),
        health: health(standings),
        worst: order.into_iter().take(WORST_MAX).map(summarise).collect(),
    }
}

/// How what is applied is doing, in a few words: the worst verdict, and why if it is a bad one.
fn health(standings: &[Standing<'_>]) -> String {
    let applied = standings.iter().filter(|standing| standing.applied);
    let Some(worst) = applied.max_by_key(|standing| standing.health) else {
        return String::new();
    };
    let status = worst.placement.status.as_ref();
    let why = status.and_then(|status| status.health_message.as_deref()).unwrap_or_default();
    // The objects that a cause concerns follow it in brackets; other causes after a semicolon.
    let cause = why.split([';', '(']).next().unwrap_or_default().trim();
    match worst.health {
        Health::Healthy | Health::Unknown => worst.health.to_string(),
        health if cause.is_empty() => health.to_string(),
        health => format!("{health}: {}", brief(cause)),
    }
}

/// A cause, cut for a column of a table.
fn brief(cause: &str) -> String {
    match cause.char_indices().nth(CAUSE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &cause[..end]),
        None => cause.to_owned(),
    }
}

/// Where, for people: a name, or how many, and which of them it should or shall not be on.
fn destination(standings: &[Standing<'_>]) -> String {
    let all: BTreeSet<_> = standings.iter().map(Standing::destination).collect();
    let of = |test: &dyn Fn(&Standing<'_>) -> bool| -> BTreeSet<_> {
        standings.iter().filter(|s| test(s)).map(Standing::destination).collect()
    };
    let misplaced = of(&|s| s.misplaced && !s.leaving());
    let left = of(&|s| s.moving || s.leaving());
    let kept: BTreeSet<_> = all.difference(&left).copied().collect();
    if let (Some(from), Some(to), 2) = (left.first(), kept.first(), all.len()) {
        return format!("{from} -> {to}");
    }
    match (all.len(), all.first(), misplaced.len()) {
        (1, Some(only), _) if standings.iter().any(|s| s.moving) => format!("{only} (to be moved)"),
        (1, Some(only), 0) => (*only).to_owned(),
        (1, Some(only), _) => format!("{only} (misplaced)"),
        (_, None, _) => "none".to_owned(),
        (n, _, 0) => format!("{n} destinations"),
        (n, _, misplaced) => format!("{n} destinations ({misplaced} misplaced)"),
    }
}

fn summarise(standing: &Standing<'_>) -> PlacementSummary {
    PlacementSummary {
        destination: standing.destination().to_owned(),
        phase: standing.state.as_str().to_owned(),
        health: standing.health.as_str().to_owned(),
        message: standing.words(),
        since: standing.since.to_string(),
    }
}

fn state(placement: &WorkPlacement, at_digest: bool) -> State {
    if placement.metadata.deletion_timestamp.is_some() {
        return State::Removing;
    }
    let phase = placement.status.as_ref().and_then(|s| s.phase.as_deref());
    match phase.unwrap_or_default() {
        // What was said of older files says nothing of these.
        "Applied" if at_digest => State::Applied,
        "Applying" => State::Applying,
        "Failed" => State::Failed,
        "Refused" => State::Refused,
        _ => State::Pending,
    }
}
