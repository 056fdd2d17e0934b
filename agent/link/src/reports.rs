//! The latest report of each placement, until the hub has taken it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use muster_core::{Phase, PlacementKey, PlacementReport};
use muster_wire::{convert::to_report, limits::REPORTS_BYTES_TARGET, v1};
use prost::Message as _;
use tokio::sync::Notify;

/// Reports by placement; bounded by the number of placements that are ordered.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    latest: Mutex<BTreeMap<PlacementKey, Entry>>,
    changed: Notify,
}

#[derive(Debug)]
struct Entry {
    report: PlacementReport,
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Not in this session.
    No,
    /// In the message of this sequence.
    Sent(u64),
    /// The hub has it.
    Taken,
}

impl Reports {
    /// Replaces the report of a placement.
    pub(crate) fn put(&self, report: PlacementReport) {
        let entry = Entry { report, told: Told::No };
        self.lock().insert(entry.report.placement.clone(), entry);
        self.changed.notify_one();
    }

    /// Forgets what the hub has been told of placements that are ordered no more.
    pub(crate) fn retain(&self, ordered: impl Fn(&PlacementKey) -> bool) {
        self.lock().retain(|placement, entry| entry.told != Told::Taken || ordered(placement));
    }

    /// Waits until there may be something to tell.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A session begins: what was sent in an earlier one may be lost; a hub process that is spoken
    /// with for the first time is told everything.
    pub(crate) fn begin(&self, known_hub: bool) {
        for entry in self.lock().values_mut() {
            if !known_hub || entry.told != Told::Taken {
                entry.told = Told::No;
            }
        }
        self.changed.notify_one();
    }

    /// The next message of reports that have not been told; `None` if there is nothing to tell.
    pub(crate) fn next(&self, sequence: u64) -> Option<v1::Reports> {
        let mut latest = self.lock();
        let mut reports = Vec::new();
        let mut bytes = 0;
        for entry in latest.values_mut().filter(|entry| entry.told == Told::No) {
            let report = to_report(&entry.report);
            bytes += report.encoded_len();
            if bytes > REPORTS_BYTES_TARGET && !reports.is_empty() {
                // The rest goes into a message of its own.
                self.changed.notify_one();
                break;
            }
            entry.told = Told::Sent(sequence);
            reports.push(report);
        }
        (!reports.is_empty()).then_some(v1::Reports { sequence, reports })
    }

    /// The hub has all messages up to this sequence.
    pub(crate) fn taken(&self, up_to: u64) {
        self.lock().retain(|_, entry| {
            if matches!(entry.told, Told::Sent(sequence) if sequence <= up_to) {
                entry.told = Told::Taken;
            }
            entry.told != Told::Taken || entry.report.phase != Phase::Removed
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PlacementKey, Entry>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_core::{Digest, Health, Revision};

    use super::*;

    fn report(name: &str, phase: Phase) -> PlacementReport {
        PlacementReport {
            placement: PlacementKey::new("default", name).unwrap(),
            revision: Revision { epoch: 1, n: 1 },
            desired: Digest::of(b""),
            applied: None,
            phase,
            reason: "Reason".to_owned(),
            message: String::new(),
            health: Health::Unknown,
            health_message: String::new(),
            outputs: BTreeMap::new(),
            unapplied_files: Vec::new(),
        }
    }

    fn told(reports: &Reports, sequence: u64) -> usize {
        reports.next(sequence).map_or(0, |message| message.reports.len())
    }

    #[test]
    fn what_was_not_taken_is_told_again_in_the_next_session() {
        let reports = Reports::default();
        reports.put(report("a", Phase::Applied));
        assert_eq!((told(&reports, 1), told(&reports, 2)), (1, 0));
        reports.begin(true);
        assert_eq!(told(&reports, 1), 1);
        reports.taken(1);
        reports.begin(true);
        assert_eq!(told(&reports, 1), 0);
        reports.begin(false);
        assert_eq!(told(&reports, 1), 1);
    }

    #[test]
    fn a_newer_report_is_told_even_if_the_older_one_was_taken_meanwhile() {
        let reports = Reports::default();
        reports.put(report("a", Phase::Applying));
        assert_eq!(told(&reports, 1), 1);
        reports.put(report("a", Phase::Applied));
        reports.taken(1);
        assert_eq!(told(&reports, 2), 1);
    }

    #[test]
    fn a_removed_placement_is_forgotten_once_the_hub_knows() {
        let reports = Reports::default();
        reports.put(report("a", Phase::Removed));
        assert_eq!(told(&reports, 1), 1);
        reports.taken(1);
        reports.begin(false);
        assert_eq!(told(&reports, 1), 0);
    }

    #[test]
    fn what_the_hub_knows_of_placements_that_are_ordered_no_more_is_forgotten() {
        let reports = Reports::default();
        for name in ["ordered", "told"] {
            reports.put(report(name, Phase::Applied));
        }
        assert_eq!(told(&reports, 1), 2);
        reports.taken(1);
        reports.put(report("untold", Phase::Failed));
        reports.retain(|placement| placement.name() == "ordered");
        reports.begin(false);
        let message = reports.next(1).unwrap();
        let names: Vec<_> = message.reports.iter().map(|r| r.placement.as_str()).collect();
        assert_eq!(names, ["default/ordered", "default/untold"]);
    }

    #[test]
    fn many_reports_are_split_over_messages() {
        let reports = Reports::default();
        for i in 0..2000 {
            let mut one = report(&format!("p{i}"), Phase::Failed);
            one.message = "x".repeat(1000);
            reports.put(one);
        }
        let sizes: Vec<_> = (1..).map(|i| told(&reports, i)).take_while(|n| *n > 0).collect();
        assert!(sizes.len() > 5 && sizes.iter().sum::<usize>() == 2000, "{sizes:?}");
    }
}
