//! What reports come to, level by level.

use jiff::{SignedDuration, Timestamp};
use muster_api::{
    Work, WorkPlacement, WorkSpec, WorkStatus, WorkloadGroup,
    conditions::{self, Truth, kind},
};
use muster_core::{Digest, Health, Phase, PlacementKey, PlacementReport, Revision};

use super::{OFFLINE_AFTER, Owner, Rollup, View, placement, works};
use crate::{
    schedule::schedule,
    site::{Link, Site, Sites},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn sites(link: Link) -> Sites {
    let site = Site {
        name: "vm-1".into(),
        labels: Default::default(),
        strict: false,
        leaving: false,
        draining: false,
        dry_run: false,
        state_store: false,
        lists: false,
        link,
    };
    Sites::from([(site.name.clone(), site)])
}

fn work() -> Work {
    let group = WorkloadGroup {
        id: "5058f".into(),
        directory: ".".into(),
        digest: Digest::of(b"v1").to_string(),
        ..Default::default()
    };
    let spec = WorkSpec {
        promise_name: "web".into(),
        resource_name: Some("shop".into()),
        workload_groups: vec![group],
        ..WorkSpec::default()
    };
    let mut work = Work::new("web-shop", spec);
    work.metadata.namespace = Some("default".into());
    work.metadata.uid = Some("uid".into());
    work
}

fn placed(work: &Work) -> WorkPlacement {
    let mut plan = schedule(work, &sites(Link::Connected), &|_| 0, &[]);
    let mut placement = plan.create.remove(0);
    placement.metadata.generation = Some(1);
    placement
}

fn report(of: &WorkPlacement, digest: &[u8], phase: Phase, health: Health) -> PlacementReport {
    PlacementReport {
        placement: PlacementKey::new("default", of.metadata.name.as_deref().unwrap()).unwrap(),
        revision: Revision::default(),
        desired: Digest::of(digest),
        applied: Some(Digest::of(digest)),
        phase,
        reason: "Said".into(),
        message: "the script failed".into(),
        health,
        health_message: "port closed".into(),
        outputs: [("port".to_owned(), serde_json::json!(80))].into(),
        unapplied_files: Vec::new(),
    }
}

fn heard(work: &Work, digest: &[u8], phase: Phase, health: Health) -> WorkPlacement {
    let mut one = placed(work);
    one.status = Some(placement(&one, Some(&report(&one, digest, phase, health)), NOW));
    one
}

fn roll(work: &Work, placements: &[WorkPlacement], sites: &Sites, now: Timestamp) -> Rollup {
    let works_of = std::slice::from_ref(work);
    works(View { owner: Owner::Request, works: works_of, placements, sites, now })
}

#[test]
fn applied_at_the_pinned_digest_is_reconciled_whatever_the_health() {
    let work = work();
    let one = heard(&work, b"v1", Phase::Applied, Health::Degraded);
    let rollup = roll(&work, &[one], &sites(Link::Connected), NOW);
    assert_eq!(rollup.reconciled.truth, Truth::True);
    assert_eq!(rollup.works_succeeded.reason, "WorksSucceeded");
    let healthy = rollup.healthy.unwrap();
    assert_eq!((healthy.truth, healthy.reason.as_str()), (Truth::False, "Degraded"));
    assert!(healthy.message.contains("port closed"), "{}", healthy.message);
    assert_eq!(rollup.placements.destination, "vm-1");
    assert_eq!(rollup.outputs["port"], 80);
    assert_eq!(rollup.health_status["state"], "degraded");
}

#[test]
fn a_report_on_older_files_says_nothing_of_these() {
    let work = work();
    for phase in [Phase::Applied, Phase::Failed] {
        let one = heard(&work, b"v0", phase, Health::Healthy);
        assert_eq!(one.status.as_ref().unwrap().phase.as_deref(), Some("Pending"));
        let rollup = roll(&work, &[one], &sites(Link::Connected), NOW);
        assert_eq!(rollup.reconciled.truth, Truth::Unknown);
        assert_eq!(rollup.reconciled.reason, "NotYetApplied");
    }
}

#[test]
fn a_failure_is_told_with_its_reason_and_place() {
    let work = work();
    let one = heard(&work, b"v1", Phase::Failed, Health::Unknown);
    let rollup = roll(&work, &[one], &sites(Link::Connected), NOW);
    assert_eq!(rollup.reconciled.truth, Truth::False);
    assert_eq!(rollup.reconciled.reason, "Said");
    assert_eq!(rollup.reconciled.message, "vm-1: the script failed");
}

#[test]
fn a_destination_offline_for_five_minutes_is_unknown_and_wakes_at_the_deadline() {
    let work = work();
    let one = heard(&work, b"v1", Phase::Applied, Health::Healthy);
    let offline = sites(Link::Offline { since: Some(NOW) });
    let early = NOW + OFFLINE_AFTER - SignedDuration::from_secs(1);
    let rollup = roll(&work, std::slice::from_ref(&one), &offline, early);
    assert_eq!(rollup.reconciled.truth, Truth::True);
    assert_eq!(rollup.wake_at, Some(NOW + OFFLINE_AFTER));
    let rollup = roll(&work, &[one], &offline, NOW + OFFLINE_AFTER);
    assert_eq!(rollup.reconciled.truth, Truth::Unknown);
    assert_eq!(rollup.reconciled.reason, "DestinationsOffline");
    assert!(rollup.reconciled.message.starts_with("1 of 1: "), "{}", rollup.reconciled.message);
    assert_eq!((rollup.wake_at, rollup.placements.offline), (None, 1));
}

#[test]
fn a_work_without_a_placement_is_never_reconciled() {
    let work = work();
    let rollup = roll(&work, &[], &Sites::new(), NOW);
    assert_eq!(rollup.reconciled.reason, "NoMatchingDestination");
    assert!(!rollup.scheduled);
    let rollup = roll(&work, &[], &sites(Link::Connected), NOW);
    assert_eq!(rollup.reconciled.reason, "NotYetPlaced");
}

#[test]
fn the_same_report_again_changes_nothing() {
    let work = work();
    let one = heard(&work, b"v1", Phase::Applied, Health::Healthy);
    let again = report(&one, b"v1", Phase::Applied, Health::Healthy);
    let later = NOW + SignedDuration::from_hours(1);
    assert_eq!(Some(placement(&one, Some(&again), later)), one.status);
    assert_eq!(Some(placement(&one, None, later)), one.status);
}

#[test]
fn outputs_without_room_are_named() {
    let work = work();
    let mut one = placed(&work);
    let said = report(&one, b"v1", Phase::Applied, Health::Healthy);
    let mut status = placement(&one, Some(&said), NOW);
    status.outputs.insert("kubeconfig".to_owned(), "x".repeat(70 << 10).into());
    one.status = Some(status);
    let sites = sites(Link::Connected);
    let (works_of, placements) = ([work], [one]);
    let view = View {
        owner: Owner::Request,
        works: &works_of,
        placements: &placements,
        sites: &sites,
        now: NOW,
    };
    let rollup = works(view);
    assert_eq!(rollup.outputs.keys().collect::<Vec<_>>(), ["port"]);
    let told = &rollup.reconciled.message;
    assert!(
        told.starts_with("Reconciled; ") && told.contains("without output kubeconfig"),
        "{told}"
    );
}

#[test]
fn a_work_that_is_removed_keeps_what_was_said_of_its_scheduling() {
    let sites = sites(Link::Connected);
    let mut work = work();
    let one = heard(&work, b"v1", Phase::Applied, Health::Healthy);
    let before = super::work(&work, &[&one], &sites, None, NOW).unwrap();
    work.status = Some(before.clone());
    work.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    let after = super::work(&work, &[], &sites, None, NOW).unwrap();
    for kind in [kind::SCHEDULE_SUCCEEDED, kind::READY] {
        let said = |status: &WorkStatus| conditions::find(&status.conditions, kind).cloned();
        assert_eq!(said(&after), said(&before), "{kind}");
    }
    assert_eq!(after.work_placements_created, 1);
    assert_eq!(super::work_events(&work, &after), []);
}
