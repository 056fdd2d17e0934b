//! Tables and laws of placing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use muster_api::{
    Work, WorkPlacement, WorkPlacementStatus, WorkSpec, WorkloadGroup,
    conditions::{self, Truth, Verdict, kind},
    destination::{DestinationSelector, LabelExpression, LabelOperator},
    labels,
};
use muster_core::Waiting;
use proptest::prelude::*;

use super::{Schedule, WhyNot, placement_name, schedule, wanted::effective_selector};
use crate::site::{Link, Site, Sites};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn selector(source: &str, pairs: &[(&str, &str)]) -> DestinationSelector {
    DestinationSelector {
        match_labels: map(pairs),
        match_expressions: Vec::new(),
        source: Some(source.to_owned()),
    }
}

fn work(request: Option<&str>, selectors: Vec<DestinationSelector>) -> Work {
    let group = WorkloadGroup {
        id: "5058f1af8388633f609cadb75a75dc9d".into(),
        directory: ".".into(),
        digest: "d1".into(),
        workloads: Vec::new(),
        destination_selectors: selectors,
    };
    let mut work = Work::new(
        "web-main-abcde",
        WorkSpec {
            promise_name: "web".into(),
            resource_name: request.map(str::to_owned),
            workload_groups: vec![group],
            ..WorkSpec::default()
        },
    );
    work.metadata.namespace = Some("default".into());
    work.metadata.uid = Some("uid".into());
    work
}

fn site(name: &str, labels: &[(&str, &str)], connected: bool) -> Site {
    Site {
        name: name.into(),
        labels: map(labels),
        strict: false,
        leaving: false,
        draining: false,
        dry_run: false,
        state_store: false,
        lists: false,
        link: if connected { Link::Connected } else { Link::Offline { since: None } },
    }
}

fn sites(all: &[Site]) -> Sites {
    all.iter().map(|site| (site.name.clone(), site.clone())).collect()
}

fn plan(work: &Work, sites: &Sites, held: &[WorkPlacement]) -> Schedule {
    schedule(work, sites, &|_| 0, &held.iter().collect::<Vec<_>>())
}

fn targets(plan: &Schedule) -> Vec<&str> {
    plan.create.iter().map(|p| p.spec.target_destination_name.as_str()).collect()
}

fn deleting(mut placement: WorkPlacement) -> WorkPlacement {
    placement.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    placement
}

#[test]
fn the_promise_wins_over_its_pipelines_and_those_over_the_request() {
    let work = work(
        None,
        vec![
            selector("resource-workflow", &[("env", "request"), ("zone", "a")]),
            selector("promise-workflow", &[("env", "pipeline"), ("tier", "x")]),
            selector("promise", &[("env", "promise")]),
            selector("promise", &[("env", "later"), ("arch", "arm")]),
        ],
    );
    let merged = effective_selector(&work.spec.workload_groups[0]);
    let want = map(&[("arch", "arm"), ("env", "promise"), ("tier", "x"), ("zone", "a")]);
    assert_eq!(merged.match_labels, want);
}

#[test]
fn expressions_of_all_sources_must_hold() {
    let mut of_request = selector("resource-workflow", &[]);
    of_request.match_expressions = vec![LabelExpression {
        key: "zone".into(),
        operator: LabelOperator::In,
        values: vec!["a".into(), "b".into()],
    }];
    let work = work(None, vec![selector("promise", &[("env", "dev")]), of_request]);
    let all = sites(&[
        site("one", &[("env", "dev"), ("zone", "b")], true),
        site("two", &[("env", "dev"), ("zone", "c")], true),
    ]);
    let plan = plan(&work, &all, &[]);
    assert_eq!(targets(&plan), ["one"]);
    let why = &plan.groups[0].passed_over["two"];
    assert_eq!(*why, WhyNot::Mismatch("zone in (a,b) does not hold".into()));
}

#[test]
fn a_request_prefers_connected_then_least_loaded_then_first_by_name() {
    let work = work(Some("shop"), vec![]);
    let all = sites(&[
        site("a-offline", &[], false),
        site("b-busy", &[], true),
        site("c", &[], true),
        site("d", &[], true),
    ]);
    let load = |name: &str| if name == "b-busy" { 7 } else { 0 };
    let plan = schedule(&work, &all, &load, &[]);
    assert_eq!(targets(&plan), ["c"]);
    let why = &plan.groups[0].passed_over;
    assert_eq!(why["a-offline"], WhyNot::Offline);
    assert_eq!(why["b-busy"], WhyNot::Busier { load: 7 });
    assert_eq!(why["d"], WhyNot::LaterName);
}

#[test]
fn strict_and_leaving_destinations_are_passed_over() {
    let work = work(None, vec![]);
    let strict = Site { strict: true, ..site("strict", &[("a", "b")], true) };
    let bare = Site { strict: true, ..site("strict-bare", &[], true) };
    let leaving = Site { leaving: true, ..site("leaving", &[], true) };
    let plan = plan(&work, &sites(&[strict, bare, leaving]), &[]);
    assert_eq!(targets(&plan), ["strict-bare"]);
    let why = &plan.groups[0].passed_over;
    assert_eq!(why["strict"], WhyNot::Strict);
    assert_eq!(why["leaving"], WhyNot::Leaving);
}

#[test]
fn agents_and_state_stores_take_part_alike_and_one_that_is_not_ready_comes_last() {
    let store =
        |name: &str, ready| Site { state_store: true, lists: true, ..site(name, &[], ready) };
    let all =
        sites(&[store("a-broken", false), store("b-store", true), site("c-agent", &[], true)]);
    let everywhere = plan(&work(None, vec![]), &all, &[]);
    assert_eq!(targets(&everywhere), ["a-broken", "b-store", "c-agent"]);
    let finalizers = |index: usize| everywhere.create[index].metadata.finalizers.as_ref().unwrap();
    assert_eq!(finalizers(1).len(), 2, "the list of files has its own");
    assert_eq!(finalizers(2).len(), 1);
    let one = plan(&work(Some("shop"), vec![]), &all, &[]);
    assert_eq!(targets(&one), ["b-store"]);
    assert_eq!(one.groups[0].passed_over["a-broken"], WhyNot::NotReady);
}

#[test]
fn no_match_waits_and_names_the_selector() {
    let work = work(Some("shop"), vec![selector("promise", &[("env", "dev")])]);
    let plan = plan(&work, &sites(&[site("one", &[("env", "prod")], true)]), &[]);
    let waiting = plan.groups[0].waiting.clone().unwrap();
    assert_eq!(waiting, Waiting::NoMatchingDestination { selector: "env=dev".into() });
}

#[test]
fn a_misplaced_placement_is_marked_kept_up_to_date_and_healed() {
    let mut work = work(Some("shop"), vec![selector("promise", &[("env", "dev")])]);
    let fits = sites(&[site("one", &[("env", "dev")], true), site("two", &[("env", "dev")], true)]);
    let mut held = plan(&work, &fits, &[]).create;
    let moved = sites(&[site("one", &[("env", "x")], true), site("two", &[("env", "dev")], true)]);
    work.spec.workload_groups[0].digest = "d2".into();
    let marked = plan(&work, &moved, &held);
    assert!(marked.create.is_empty() && marked.delete.is_empty(), "never moved by itself");
    assert!(marked.update[0].misplaced && marked.update[0].spec.digest == "d2");
    held[0].spec = marked.update[0].spec.clone();
    let all = held[0].metadata.labels.as_mut().unwrap();
    all.insert(labels::MISPLACED.into(), "true".into());
    let healed = plan(&work, &fits, &held);
    assert!(!healed.update[0].misplaced);
}

#[test]
fn a_request_is_placed_anew_only_when_nothing_is_left_of_the_old() {
    let work = work(Some("shop"), vec![]);
    let all = sites(&[site("one", &[], true), site("two", &[], true)]);
    let held: Vec<_> = plan(&work, &all, &[]).create.into_iter().map(deleting).collect();
    let waits = plan(&work, &all, &held);
    assert!(waits.create.is_empty());
    let waiting = waits.groups[0].waiting.clone().unwrap();
    assert_eq!(waiting, Waiting::Removing { destination: "one".into() });
}

#[test]
fn placements_of_groups_and_destinations_that_are_gone_are_deleted() {
    let mut work = work(None, vec![]);
    let all = sites(&[site("one", &[], true), site("two", &[], true)]);
    let held = plan(&work, &all, &[]).create;
    let fewer = sites(&[site("one", &[], true)]);
    assert_eq!(plan(&work, &fewer, &held).delete, ["web-main-abcde.two-5058f"]);
    work.spec.workload_groups[0].id = "ffff".into();
    let changed = plan(&work, &all, &held);
    assert_eq!(changed.delete.len(), 2);
    assert_eq!(changed.create.len(), 2);
}

#[test]
fn groups_whose_ids_begin_alike_have_different_placements() {
    let mut work = work(None, vec![]);
    let mut twin = work.spec.workload_groups[0].clone();
    twin.id = "5058ffffffffffffffffffffffffffff".into();
    work.spec.workload_groups.push(twin);
    let names: BTreeSet<_> =
        work.spec.workload_groups.iter().map(|g| placement_name(&work, g, "one")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let long = "a".repeat(250);
    let name = placement_name(&work, &work.spec.workload_groups[0], &long);
    assert!(name.len() <= 253, "{}", name.len());
}

/// The placement as it is when its destination holds its files.
fn holding(mut placement: WorkPlacement) -> WorkPlacement {
    let applied = Verdict::new(kind::APPLIED, Truth::True, "Applied", "");
    let mut status = WorkPlacementStatus {
        applied_digest: Some(placement.spec.digest.clone()),
        ..WorkPlacementStatus::default()
    };
    conditions::set(&mut status.conditions, &applied, None, jiff::Timestamp::UNIX_EPOCH);
    placement.status = Some(status);
    placement
}

fn annotated(mut placement: WorkPlacement, key: &str) -> WorkPlacement {
    placement.metadata.annotations.get_or_insert_default().insert(key.into(), "true".into());
    placement
}

fn why(placement: &WorkPlacement) -> &str {
    &placement.metadata.annotations.as_ref().unwrap()[labels::CHOSEN_BECAUSE]
}

#[test]
fn what_is_asked_to_move_is_cleared_when_the_new_destination_holds_it() {
    let work = work(Some("shop"), vec![selector("promise", &[("env", "dev")])]);
    let all = sites(&[
        site("one", &[("env", "x")], true),
        site("two", &[("env", "dev")], false),
        site("three", &[("env", "dev")], true),
    ]);
    let before = sites(&[site("one", &[("env", "dev")], true)]);
    let old = holding(plan(&work, &before, &[]).create.remove(0));
    let asked = annotated(old.clone(), labels::MOVE);
    let first = plan(&work, &all, std::slice::from_ref(&asked));
    assert_eq!(targets(&first), ["three"]);
    assert_eq!(why(&first.create[0]), "moved from one: the only one to match env=dev");
    assert_eq!(first.groups[0].passed_over["two"], WhyNot::Offline);
    assert!(first.delete.is_empty(), "nothing is cleared yet");
    let new = first.create[0].clone();
    let waits = plan(&work, &all, &[asked.clone(), new.clone()]);
    assert!(waits.create.is_empty() && waits.delete.is_empty());
    let done = plan(&work, &all, &[asked.clone(), holding(new.clone())]);
    assert_eq!(done.delete, [asked.metadata.name.clone().unwrap()]);
    // Of a move that is called back, what was on the way goes.
    let back = plan(&work, &all, &[old, new.clone()]);
    assert_eq!(back.delete, [new.metadata.name.clone().unwrap()]);
    // An older digest is not what it must hold.
    let mut stale = holding(new);
    stale.spec.digest = "d0".into();
    stale.status.as_mut().unwrap().applied_digest = Some("d0".into());
    assert!(plan(&work, &all, &[asked, stale]).delete.is_empty());
}

#[test]
fn what_can_move_nowhere_stays_and_says_so() {
    let work = work(Some("shop"), vec![]);
    let all = sites(&[site("one", &[], true), site("two", &[], false)]);
    let asked = annotated(holding(plan(&work, &all, &[]).create.remove(0)), labels::MOVE);
    let plan = plan(&work, &all, &[asked]);
    assert!(plan.create.is_empty() && plan.delete.is_empty());
    let waiting = plan.groups[0].waiting.clone().unwrap();
    let selector = "an empty selector".to_owned();
    assert_eq!(waiting, Waiting::NowhereToMove { destination: "one".into(), selector });
}

#[test]
fn a_drained_destination_keeps_dependencies_and_gives_requests_away() {
    let draining = Site { draining: true, ..site("one", &[], true) };
    let request = work(Some("shop"), vec![]);
    let alone = plan(&request, &sites(std::slice::from_ref(&draining)), &[]);
    let (selector, destination) = ("an empty selector".to_owned(), "one".to_owned());
    let waiting = alone.groups[0].waiting.clone();
    assert_eq!(waiting, Some(Waiting::OnlyDraining { selector, destination }));
    let held = plan(&request, &sites(&[site("one", &[], true)]), &[]).create;
    let all = sites(&[draining, site("two", &[], true)]);
    assert_eq!(targets(&plan(&request, &all, &held)), ["two"]);
    assert_eq!(targets(&plan(&request, &all, &[])), ["two"]);
    assert_eq!(targets(&plan(&work(None, vec![]), &all, &[])), ["one", "two"]);
}

#[test]
fn dependencies_move_only_from_where_they_do_not_belong() {
    let work = work(None, vec![selector("promise", &[("env", "dev")])]);
    let fits = sites(&[site("one", &[("env", "dev")], true), site("two", &[("env", "dev")], true)]);
    let held: Vec<_> = plan(&work, &fits, &[])
        .create
        .into_iter()
        .map(|p| annotated(holding(p), labels::MOVE))
        .collect();
    assert!(plan(&work, &fits, &held).delete.is_empty(), "both belong there");
    let moved = sites(&[site("one", &[("env", "x")], true), site("two", &[("env", "dev")], true)]);
    assert_eq!(plan(&work, &moved, &held).delete, ["web-main-abcde.one-5058f"]);
    let mut waits = held.clone();
    waits[1].status = None;
    assert!(plan(&work, &moved, &waits).delete.is_empty(), "the other does not hold it yet");
}

#[test]
fn a_choice_says_what_decided_it() {
    let request = work(Some("shop"), vec![selector("promise", &[("env", "dev")])]);
    let dev = |name: &str, ready| site(name, &[("env", "dev")], ready);
    let chosen = |all: &[Site], busy: &str| {
        let load = |name: &str| if busy.contains(name) { 3 } else { 1 };
        let made = schedule(&request, &sites(all), &load, &[]).create.remove(0);
        format!("{}: {}", made.spec.target_destination_name, why(&made))
    };
    let (a, b, c) = (dev("a", true), dev("b", true), dev("c", false));
    for (all, busy, want) in [
        (vec![a.clone()], "", "a: the only one to match env=dev"),
        (vec![a.clone(), c.clone()], "", "a: of 2 that match env=dev, the only one ready"),
        (
            vec![a.clone(), b.clone(), c.clone()],
            "a",
            "b: of 3 that match env=dev, the least loaded (1 placement)",
        ),
        (
            vec![a, b],
            "",
            "a: of 2 that match env=dev, the first by name of the least loaded (1 placement)",
        ),
        (vec![c], "", "c: the only one to match env=dev; it was not ready, and no other one was"),
    ] {
        assert_eq!(chosen(&all, busy), want);
    }
}

#[test]
fn dry_runs_and_others_have_destinations_of_their_own() {
    let own = [("env", "dev"), (labels::DRY_RUN, "true")];
    let all = sites(&[
        Site { dry_run: true, ..site("dry", &own, true) },
        site("dev", &[("env", "dev")], true),
    ]);
    let mut work = work(Some("shop"), vec![selector("promise", &[("env", "dev")])]);
    let real = plan(&work, &all, &[]);
    assert_eq!(targets(&real), ["dev"]);
    assert_eq!(real.groups[0].passed_over["dry"], WhyNot::DryRun);
    work.metadata.labels = Some(map(&[(labels::DRY_RUN, "true")]));
    assert_eq!(targets(&plan(&work, &all, &[])), ["dry"]);
}

prop_compose! {
    fn any_site()(index in 0..6_usize, env in 0..3_usize, connected: bool, leaving: bool) -> Site {
        let mut site = site(&format!("vm-{index}"), &[("env", ["a", "b", "c"][env])], connected);
        site.leaving = leaving && index % 2 == 0;
        site
    }
}

proptest! {
    /// Whatever happened before: one for a request, all for dependencies, and a second look at what
    /// the first one made changes nothing.
    #[test]
    fn placing_is_complete_unique_and_settles(
        before in proptest::collection::vec(any_site(), 0..6),
        after in proptest::collection::vec(any_site(), 0..6),
        request: bool,
        env in 0..3_usize,
    ) {
        let request = request.then_some("shop");
        let work = work(request, vec![selector("promise", &[("env", ["a", "b", "c"][env])])]);
        let (before, after) = (sites(&before), sites(&after));
        let mut held = plan(&work, &before, &[]).create;
        for sites in [&after, &after] {
            let next = plan(&work, sites, &held);
            let names: BTreeSet<_> = held.iter().map(|p| p.metadata.name.clone()).collect();
            for new in &next.create {
                prop_assert!(!names.contains(&new.metadata.name), "added and kept");
            }
            held.retain(|p| !next.delete.contains(p.metadata.name.as_ref().unwrap()));
            for update in &next.update {
                let own = held.iter_mut().find(|p| p.metadata.name.as_ref() == Some(&update.name));
                let own = own.unwrap();
                own.spec = update.spec.clone();
                let all = own.metadata.labels.as_mut().unwrap();
                all.remove(labels::MISPLACED);
                if update.misplaced {
                    all.insert(labels::MISPLACED.into(), "true".into());
                }
            }
            held.extend(next.create);
        }
        let settled = plan(&work, &after, &held);
        prop_assert!(settled.create.is_empty() && settled.update.is_empty());
        prop_assert!(settled.delete.is_empty());
        let on: BTreeSet<_> = held.iter().map(|p| p.spec.target_destination_name.clone()).collect();
        prop_assert_eq!(on.len(), held.len(), "twice on one destination");
        let fits: BTreeSet<_> = after
            .values()
            .filter(|s| !s.leaving && s.labels["env"] == ["a", "b", "c"][env])
            .map(|s| s.name.clone())
            .collect();
        match request {
            Some(_) => prop_assert!(on.len() <= 1 && (fits.is_empty() || on.len() == 1)),
            None => prop_assert!(fits.is_subset(&on)),
        }
    }
}
