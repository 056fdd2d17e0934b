//! What is worth telling the hub of one placement.

use std::time::Duration;

use muster_core::{
    Digest, Health, Intent, Phase, PlacementKey, PlacementReport, Revision,
    report::{UNAPPLIED_FILES_MAX, bounded_message},
};

use crate::{
    Pace,
    decide::CONFLICT,
    slot::{Kind, Slot},
};

/// A phase with its reason and sentence.
type Verdict = (Phase, String, String);

/// The report of a placement now; `None` when nothing is worth telling yet: a moment's work is not
/// announced, and what a restarted agent has not looked at is not judged.
pub(crate) fn render(
    key: &PlacementKey,
    slot: &Slot,
    revision: Revision,
    now: Duration,
    pace: &Pace,
) -> Option<PlacementReport> {
    let (phase, reason, message) = match slot.intent() {
        None => unassigned(slot)?,
        Some(Intent::Absent) => absent(slot, now, pace)?,
        Some(Intent::Present) => present(slot, now, pace)?,
    };
    let gone = phase == Phase::Removed;
    let seen = slot.observed.clone().unwrap_or_default();
    let mut unapplied_files = seen.unapplied_files;
    unapplied_files.truncate(UNAPPLIED_FILES_MAX);
    Some(PlacementReport {
        placement: key.clone(),
        revision,
        desired: desired(slot)?,
        applied: slot.completed.filter(|_| !gone),
        phase,
        reason,
        message: bounded_message(&message),
        health: if gone { Health::Unknown } else { seen.health },
        health_message: bounded_message(&seen.health_message),
        outputs: seen.outputs,
        unapplied_files,
    })
}

/// Whether `new` says something that `old` did not. The revision alone is news only of what is
/// removed: an order to remove that was withdrawn and given again wants an answer of its own.
pub(crate) fn is_news(old: Option<&PlacementReport>, new: &PlacementReport) -> bool {
    old.is_none_or(|old| {
        let revision = if new.phase == Phase::Removed { old.revision } else { new.revision };
        let old = PlacementReport { revision, ..old.clone() };
        old != *new
    })
}

fn desired(slot: &Slot) -> Option<Digest> {
    slot.order.as_ref().map(|order| order.digest).or(slot.completed)
}

fn unassigned(slot: &Slot) -> Option<Verdict> {
    slot.observed.as_ref()?;
    let message = "no assignment names this placement any more: it is kept as it is";
    Some((Phase::Applied, "Unassigned".to_owned(), message.to_owned()))
}

fn absent(slot: &Slot, now: Duration, pace: &Pace) -> Option<Verdict> {
    if slot.removed {
        return Some((Phase::Removed, "Removed".to_owned(), "nothing of it is left".to_owned()));
    }
    if let Some(failure) = &slot.failure {
        return Some((Phase::Removing, failure.reason.clone(), failure.message.clone()));
    }
    waiting(slot, now, pace, Phase::Removing, "it is being removed")
}

fn present(slot: &Slot, now: Duration, pace: &Pace) -> Option<Verdict> {
    let order = slot.order.as_ref()?;
    // What stands in the way now, whatever an earlier attempt ran into.
    if let Some(note) = slot.note.as_ref().filter(|note| note.reason == CONFLICT) {
        return Some((Phase::Failed, CONFLICT.to_owned(), note.message.clone()));
    }
    if let Some(failure) = &slot.failure {
        let phase = if failure.refused { Phase::Refused } else { Phase::Failed };
        return Some((phase, failure.reason.clone(), failure.message.clone()));
    }
    if slot.held.applied == Some(order.digest) {
        slot.observed.as_ref()?;
        return Some((Phase::Applied, "Applied".to_owned(), "applied as ordered".to_owned()));
    }
    let applying = slot.doing.as_ref().is_some_and(|d| matches!(d.kind, Kind::Apply { .. }));
    let phase = if applying { Phase::Applying } else { Phase::Pending };
    let words = if applying { "the files are being applied" } else { "known, not begun" };
    waiting(slot, now, pace, phase, words)
}

/// On its way: told only when it takes long enough for somebody to ask.
fn waiting(slot: &Slot, now: Duration, pace: &Pace, phase: Phase, words: &str) -> Option<Verdict> {
    if now < slot.announce_at(pace) {
        return None;
    }
    let (reason, message) = match &slot.note {
        Some(note) => (note.reason.to_owned(), note.message.clone()),
        None => (phase.as_str().to_owned(), words.to_owned()),
    };
    Some((phase, reason, message))
}

impl Slot {
    /// When work on the present order, or the action in flight, has gone on for long enough to be
    /// told.
    pub(crate) fn announce_at(&self, pace: &Pace) -> Duration {
        let since = self.doing.as_ref().map_or(self.ordered_at, |doing| doing.since);
        since + pace.announce_after
    }
}
