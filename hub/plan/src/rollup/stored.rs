//! What was written to a state store → WorkPlacement: what its status shall say.

use jiff::Timestamp;
use muster_api::{
    WorkPlacement, WorkPlacementStatus,
    conditions::{self, Truth, Verdict, kind},
};
use muster_core::{Phase, Waiting, report::bounded_message};

use super::placement::{ready, scheduled};

/// Kratix's reason of a write that failed.
const FAILED_WRITE: &str = "WorkloadsFailedWrite";

/// What became of one placement in its destination's state store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// The destination.
    pub destination: String,
    /// What happened.
    pub outcome: StoreOutcome,
}

/// What happened to a placement's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutcome {
    /// They are there.
    Written {
        /// The digest of the file set.
        digest: String,
        /// The store's version of them.
        version: String,
        /// Whether they had to be written.
        changed: bool,
        /// Whether so many were written with them that nobody would read an event for each.
        many: bool,
    },
    /// They are not there, or not gone.
    Failed {
        /// One CamelCase word.
        reason: String,
        /// The cause and the cure.
        message: String,
        /// Whether trying again is useless until something else changes.
        refused: bool,
    },
    /// Nothing of them is left.
    Removed,
}

/// The status of a placement after its store's writer said something (`None`: nothing new was said,
/// but the placement itself may have changed).
pub fn stored(
    placement: &WorkPlacement,
    outcome: Option<&StoreOutcome>,
    now: Timestamp,
) -> WorkPlacementStatus {
    let mut status = placement.status.clone().unwrap_or_default();
    let verdicts = match outcome {
        Some(outcome) => said(placement, &mut status, outcome),
        None => unsaid(placement, &mut status),
    };
    let [applied, written] = verdicts;
    let failing = written.reason == FAILED_WRITE && !is_leaving(placement);
    let mut ready = ready(placement, &status, &applied);
    if failing && ready.reason == applied.reason {
        ready.reason = FAILED_WRITE.to_owned();
    }
    for verdict in [scheduled(placement), applied, written, ready] {
        conditions::set(&mut status.conditions, &verdict, placement.metadata.generation, now);
    }
    status
}

/// What an event of this outcome says: a reason and a note; none where nothing happened.
pub fn event(report: &StoreReport) -> Option<(bool, &'static str, String)> {
    let destination = &report.destination;
    match &report.outcome {
        StoreOutcome::Written { version, changed: true, many: false, .. } => {
            let note = format!(
                "successfully written to Destination: {destination} with versionID: {version}"
            );
            Some((true, "WorkloadsWrittenToStateStore", note))
        }
        StoreOutcome::Failed { message, .. } => {
            let note = format!("failed writing to Destination: {destination}: {message}");
            Some((false, "FailedWriteToDestination", note))
        }
        StoreOutcome::Written { .. } | StoreOutcome::Removed => None,
    }
}

fn said(
    placement: &WorkPlacement,
    status: &mut WorkPlacementStatus,
    outcome: &StoreOutcome,
) -> [Verdict; 2] {
    match outcome {
        StoreOutcome::Written { digest, version, changed, many: _ } => {
            status.applied_digest = Some(digest.clone());
            // A commit that somebody else's files made is no new version of these.
            if *changed || status.version_id.is_none() {
                status.version_id = Some(version.clone());
            }
            if is_leaving(placement) || *digest != placement.spec.digest {
                return pending(placement, status);
            }
            status.phase = Some(Phase::Applied.as_str().to_owned());
            let words = "written to the state store";
            [
                Verdict::new(kind::APPLIED, Truth::True, "WrittenToStateStore", words),
                Verdict::new(
                    kind::WRITE_SUCCEEDED,
                    Truth::True,
                    "WorkloadsWrittenToStateStore",
                    "Workloads written to State Store",
                ),
            ]
        }
        StoreOutcome::Failed { reason, message, refused } => {
            let phase = match (is_leaving(placement), refused) {
                (true, _) => Phase::Removing,
                (false, true) => Phase::Refused,
                (false, false) => Phase::Failed,
            };
            status.phase = Some(phase.as_str().to_owned());
            let message = bounded_message(message);
            [
                Verdict::new(kind::APPLIED, Truth::False, reason.as_str(), message.clone()),
                Verdict::new(kind::WRITE_SUCCEEDED, Truth::False, FAILED_WRITE, message),
            ]
        }
        StoreOutcome::Removed => pending(placement, status),
    }
}

/// Judges what was said earlier by the placement as it is now.
fn unsaid(placement: &WorkPlacement, status: &mut WorkPlacementStatus) -> [Verdict; 2] {
    let said = |kind| {
        let said = conditions::find(&status.conditions, kind)?;
        let of_now = said.observed_generation == placement.metadata.generation;
        let at_digest = status.applied_digest.as_deref() == Some(placement.spec.digest.as_str());
        let holds = of_now || (at_digest && said.status == "True");
        let truth = if said.status == "True" { Truth::True } else { Truth::False };
        holds.then(|| Verdict::new(kind, truth, said.reason.clone(), said.message.clone()))
    };
    // What was said before it was to go says nothing of its removal.
    let of_removal = status.phase.as_deref() == Some(Phase::Removing.as_str());
    match (said(kind::APPLIED), said(kind::WRITE_SUCCEEDED)) {
        (Some(applied), Some(written)) if of_removal == is_leaving(placement) => [applied, written],
        _ => pending(placement, status),
    }
}

fn pending(placement: &WorkPlacement, status: &mut WorkPlacementStatus) -> [Verdict; 2] {
    let destination = placement.spec.target_destination_name.clone();
    let (phase, waiting) = match is_leaving(placement) {
        true => (Phase::Removing, Waiting::Removing { destination }),
        false => (Phase::Pending, Waiting::NotYetWritten { destination }),
    };
    status.phase = Some(phase.as_str().to_owned());
    let verdict = |kind| Verdict::new(kind, Truth::False, waiting.reason(), waiting.message());
    [verdict(kind::APPLIED), verdict(kind::WRITE_SUCCEEDED)]
}

fn is_leaving(placement: &WorkPlacement) -> bool {
    placement.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_api::WorkPlacementSpec;

    fn placement() -> WorkPlacement {
        let spec = WorkPlacementSpec { digest: "d1".into(), ..Default::default() };
        let mut placement = WorkPlacement::new("web", spec);
        placement.metadata.generation = Some(1);
        placement
    }

    fn written(digest: &str, version: &str, changed: bool) -> StoreOutcome {
        StoreOutcome::Written {
            digest: digest.into(),
            version: version.into(),
            changed,
            many: false,
        }
    }

    fn reasons(status: &WorkPlacementStatus) -> Vec<(&str, &str, &str)> {
        status
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str()))
            .collect()
    }

    #[test]
    fn what_is_written_is_ready_and_has_a_version() {
        let status = stored(&placement(), Some(&written("d1", "abc", true)), Timestamp::UNIX_EPOCH);
        assert_eq!(
            reasons(&status),
            [
                ("ScheduleSucceeded", "True", "ScheduledToDestination"),
                ("Applied", "True", "WrittenToStateStore"),
                ("WriteSucceeded", "True", "WorkloadsWrittenToStateStore"),
                ("Ready", "True", "WorkloadsWrittenToTargetDestination"),
            ]
        );
        assert_eq!(status.version_id.as_deref(), Some("abc"));
    }

    #[test]
    fn a_look_that_changed_nothing_keeps_the_version() {
        let mut placement = placement();
        let first = stored(&placement, Some(&written("d1", "abc", true)), Timestamp::UNIX_EPOCH);
        placement.status = Some(first.clone());
        let again = stored(&placement, Some(&written("d1", "def", false)), Timestamp::UNIX_EPOCH);
        assert_eq!(again, first);
    }

    #[test]
    fn older_files_in_the_store_say_nothing_of_newer_ones() {
        let mut placement = placement();
        placement.status =
            Some(stored(&placement, Some(&written("d1", "abc", true)), Timestamp::UNIX_EPOCH));
        placement.spec.digest = "d2".into();
        placement.metadata.generation = Some(2);
        for outcome in [None, Some(written("d1", "abc", false))] {
            let status = stored(&placement, outcome.as_ref(), Timestamp::UNIX_EPOCH);
            assert!(reasons(&status).contains(&("Ready", "False", "ScheduledToDestination")));
            assert!(reasons(&status).contains(&("Applied", "False", "NotYetWritten")));
        }
    }

    #[test]
    fn a_refusal_names_its_reason_and_is_failing_in_kratixs_words() {
        let outcome = StoreOutcome::Failed {
            reason: "NeedsAgent".into(),
            message: "\"s.yaml\" is a Script".into(),
            refused: true,
        };
        let status = stored(&placement(), Some(&outcome), Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase.as_deref(), Some("Refused"));
        assert!(reasons(&status).contains(&("Applied", "False", "NeedsAgent")));
        assert!(reasons(&status).contains(&("WriteSucceeded", "False", "WorkloadsFailedWrite")));
        assert!(reasons(&status).contains(&("Ready", "False", "WorkloadsFailedWrite")));
    }

    #[test]
    fn a_removal_that_fails_stays_told_when_nothing_new_is_said() {
        let mut leaving = placement();
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        leaving.status =
            Some(stored(&placement(), Some(&written("d1", "v1", true)), Timestamp::UNIX_EPOCH));
        let look = |leaving: &WorkPlacement, outcome: Option<&StoreOutcome>| {
            stored(leaving, outcome, Timestamp::UNIX_EPOCH)
        };
        let pending = look(&leaving, None);
        assert!(!reasons(&pending).contains(&("Applied", "True", "WrittenToStateStore")));
        let failed = StoreOutcome::Failed {
            reason: "StoreUnreachable".into(),
            message: "it is away".into(),
            refused: false,
        };
        leaving.status = Some(pending);
        let told = look(&leaving, Some(&failed));
        assert!(reasons(&told).contains(&("Applied", "False", "StoreUnreachable")));
        leaving.status = Some(told.clone());
        assert_eq!(look(&leaving, None), told);
    }
}
