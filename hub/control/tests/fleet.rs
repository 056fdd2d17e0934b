//! From a Work to an agent's assignment and back, over the embedded API.

#[path = "shared/home.rs"]
mod home;
#[path = "fleet/stores.rs"]
mod stores;

use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use muster_api::{Agent, Destination, Work, WorkPlacement, conditions::kind, labels};
use muster_core::{Digest, FileSet, Health, Intent, Phase, ports::PortError};
use serde_json::json;

use home::{Home, condition, facts, key, name};

#[tokio::test]
async fn a_token_binds_to_the_first_key_that_uses_it() {
    let home = Home::new().await;
    let token = home.token("vm-1", &[("env", "dev")], 60).await;
    let (first, second) = (Digest::of(b"first"), Digest::of(b"second"));
    let agent = home.enrolments.redeem(&token, first, facts()).await.unwrap();
    assert_eq!(agent, name("vm-1"));
    assert_eq!(home.enrolments.redeem(&token, first, facts()).await, Ok(agent.clone()));
    let error = home.enrolments.redeem(&token, second, facts()).await.unwrap_err();
    assert!(error.to_string().contains("used by another host"), "{error}");
    assert_eq!(home.enrolments.admit(&agent, first).await, Ok(()));
    assert!(home.enrolments.admit(&agent, second).await.is_err());
    let destination = home.destinations().get("vm-1").await.unwrap();
    assert_eq!(destination.labels()["env"], "dev");
    assert!(destination.spec.state_store_ref.is_none());
}

#[tokio::test]
async fn refuses_tokens_that_are_wrong_or_expired() {
    let home = Home::new().await;
    let key = Digest::of(b"key");
    let token = home.token("vm-1", &[], -1).await;
    let error = home.enrolments.redeem(&token, key, facts()).await.unwrap_err();
    assert!(matches!(&error, PortError::Refused(text) if text.contains("expired")), "{error}");
    let token = home.token("vm-1", &[], 60).await;
    for wrong in [format!("{token}x"), "muster.vm-9-abcde.x".to_owned(), "nonsense".to_owned()] {
        let error = home.enrolments.redeem(&wrong, key, facts()).await.unwrap_err();
        assert!(error.to_string().contains("not one of this hub's"), "{error}");
    }
    let agents: Api<Agent> = Api::all(home.client.clone());
    assert!(agents.get_opt("vm-1").await.unwrap().is_none());
}

#[tokio::test]
async fn a_request_goes_to_one_destination_and_its_report_comes_back() {
    let home = Home::new().await;
    let mut one = home.agent("vm-1", &[("env", "dev")]).await;
    let two = home.agent("vm-2", &[("env", "dev")]).await;
    for agent in ["vm-1", "vm-2"] {
        home.until(home.destinations(), agent, |d: &Destination| is_ready(d)).await;
    }
    home.work("web-shop", Some("shop"), "v1", &[("env", "dev")]).await;
    let placement = home.placements(1).await.remove(0);
    let target = placement.spec.target_destination_name.clone();
    let mut agent = if target == "vm-1" { &mut one } else { panic!("{target}: names decide") };
    let assignment = agent.until(|a| a.orders.contains_key(&key(&placement))).await;
    assert_eq!(assignment.orders[&key(&placement)].intent, Intent::Present);
    agent.report(&home, Phase::Applied, Health::Healthy).await;
    let work =
        home.until(home.api::<Work>(), "web-shop", |w| work_says(w, kind::READY, "True")).await;
    let summary = work.status.unwrap().placements.unwrap();
    assert_eq!((summary.total, summary.applied, summary.healthy), (1, 1, 1));
    assert_eq!(summary.destination, "vm-1");

    // A change of the Work is pinned and ordered; the old report says nothing of it.
    home.work("web-shop", Some("shop"), "v2", &[("env", "dev")]).await;
    let newer =
        agent.until(|a| a.orders[&key(&placement)] != assignment.orders[&key(&placement)]).await;
    assert!(newer.revision > assignment.revision);
    home.until(home.api::<Work>(), "web-shop", |w| work_says(w, kind::READY, "False")).await;
    agent = &mut one;
    agent.report(&home, Phase::Failed, Health::Unknown).await;
    let failed =
        |p: &WorkPlacement| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Failed"));
    home.until(home.api::<WorkPlacement>(), &placement.name_any(), failed).await;
    agent.report(&home, Phase::Applied, Health::Degraded).await;
    let work =
        home.until(home.api::<Work>(), "web-shop", |w| work_says(w, kind::READY, "True")).await;
    let conditions = work.status.unwrap().conditions;
    assert_eq!(condition(&conditions, kind::HEALTHY), ("False", "Degraded"));
    drop(two);
}

#[tokio::test]
async fn a_deleted_work_goes_when_the_agent_has_removed_it() {
    let home = Home::new().await;
    let mut agent = home.agent("vm-1", &[]).await;
    home.work("web-shop", Some("shop"), "v1", &[]).await;
    let placement = home.placements(1).await.remove(0);
    agent.until(|a| a.orders.contains_key(&key(&placement))).await;
    agent.report(&home, Phase::Applied, Health::Healthy).await;
    // A word of removal that was said before the order to have it is not about this one.
    agent.report(&home, Phase::Removed, Health::Unknown).await;
    home.api::<Work>().delete("web-shop", &DeleteParams::default()).await.unwrap();
    agent
        .until(|a| a.orders.get(&key(&placement)).is_some_and(|o| o.intent == Intent::Absent))
        .await;
    let removing = |p: &WorkPlacement| {
        p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Removing"))
    };
    home.until(home.api::<WorkPlacement>(), &placement.name_any(), removing).await;
    assert!(home.api::<Work>().get_opt("web-shop").await.unwrap().is_some());
    agent.report(&home, Phase::Removed, Health::Unknown).await;
    home.until_gone(home.api::<WorkPlacement>(), &placement.name_any()).await;
    home.until_gone(home.api::<Work>(), "web-shop").await;
    agent.until(|a| a.orders.is_empty()).await;
}

#[tokio::test]
async fn dependencies_reach_every_match_and_those_that_come_later() {
    let home = Home::new().await;
    let _one = home.agent("vm-1", &[("env", "dev")]).await;
    let _other = home.agent("vm-9", &[("env", "prod")]).await;
    home.work("web-deps", None, "crd", &[("env", "dev")]).await;
    assert_eq!(home.placements(1).await[0].spec.target_destination_name, "vm-1");
    let mut late = home.agent("vm-2", &[("env", "dev")]).await;
    home.placements(2).await;
    late.until(|a| a.orders.len() == 1).await;
    // Labels that no longer match mark the placement, and matching again heals it.
    for (value, misplaced) in [("prod", true), ("dev", false)] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"env": value}}}));
        home.destinations().patch("vm-2", &PatchParams::default(), &patch).await.unwrap();
        let placement = "web-deps.vm-2-5058f";
        let marked = |p: &WorkPlacement| p.labels().contains_key(labels::MISPLACED) == misplaced;
        home.until(home.api::<WorkPlacement>(), placement, marked).await;
        let says = |p: &WorkPlacement| {
            let all = p.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            let want = if misplaced { "False" } else { "True" };
            condition(&all, kind::SCHEDULE_SUCCEEDED).0 == want
        };
        home.until(home.api::<WorkPlacement>(), placement, says).await;
    }
}

#[tokio::test]
async fn a_work_without_a_match_says_so_and_is_placed_when_one_comes() {
    let home = Home::new().await;
    home.work("web-shop", Some("shop"), "v1", &[("env", "dev")]).await;
    let work = home
        .until(home.api::<Work>(), "web-shop", |w| work_says(w, kind::SCHEDULE_SUCCEEDED, "False"))
        .await;
    let conditions = work.status.unwrap().conditions;
    let message = &muster_api::conditions::find(&conditions, kind::APPLIED).unwrap().message;
    assert!(message.contains("no destination matches env=dev"), "{message}");
    let mut agent = home.agent("vm-1", &[("env", "dev")]).await;
    agent.until(|a| a.orders.len() == 1).await;
}

#[tokio::test]
async fn an_agent_that_is_removed_stays_until_it_is_empty_or_given_up() {
    let home = Home::new().await;
    let mut agent = home.agent("vm-1", &[]).await;
    home.work("web-shop", Some("shop"), "v1", &[]).await;
    agent.until(|a| a.orders.len() == 1).await;
    let agents: Api<Agent> = Api::all(home.client.clone());
    agents.delete("vm-1", &DeleteParams::default()).await.unwrap();
    agent.until(|a| a.orders.values().all(|o| o.intent == Intent::Absent)).await;
    let waits = |a: &Agent| {
        let all = a.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        condition(&all, kind::REMOVED).0 == "False"
    };
    home.until(agents.clone(), "vm-1", waits).await;
    let patch = json!({"metadata": {"annotations": {labels::ABANDON: "true"}}});
    agents.patch("vm-1", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    home.until_gone(agents, "vm-1").await;
    home.until_gone(home.destinations(), "vm-1").await;
    home.placements(0).await;
    agent.until_ended().await;
    let work = home.api::<Work>().get("web-shop").await.unwrap();
    assert!(work.metadata.deletion_timestamp.is_none(), "the request itself stays");
}

#[tokio::test]
async fn a_revoked_agent_is_cut_off() {
    let home = Home::new().await;
    let mut agent = home.agent("vm-1", &[]).await;
    agent.until(|_| true).await;
    let agents: Api<Agent> = Api::all(home.client.clone());
    let patch = Patch::Merge(json!({"spec": {"revoked": true}}));
    agents.patch("vm-1", &PatchParams::default(), &patch).await.unwrap();
    agent.until_ended().await;
    let key = Digest::of(b"vm-1");
    let error = home.enrolments.admit(&agent.name, key).await.unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[tokio::test]
async fn revisions_go_up_over_a_restart_and_above_what_an_agent_shows() {
    let home = Home::new().await;
    let mut agent = home.agent("vm-1", &[]).await;
    let before = agent.until(|_| true).await.revision;
    let home = home.reopen().await;
    let mut stream = home.assignments.subscribe(&agent.name);
    let after = futures::StreamExt::next(&mut stream).await.unwrap().revision;
    assert!(after > before, "{after} > {before}");
    let shown = muster_core::Revision { epoch: after.epoch + 5, n: 9 };
    home.assignments.raise_epoch(shown).await.unwrap();
    let raised = futures::StreamExt::next(&mut stream).await.unwrap().revision;
    assert!(raised > shown, "{raised} > {shown}");
    let absurd = muster_core::Revision { epoch: u64::MAX, n: 0 };
    assert!(matches!(home.assignments.raise_epoch(absurd).await, Err(PortError::Refused(_))));
}

#[tokio::test]
async fn content_is_stored_once_split_and_read_back() {
    let home = Home::new().await;
    let mut files = FileSet::new();
    files.insert("small.yaml", b"a: 1\n".to_vec()).unwrap();
    let noise: Vec<u8> = std::iter::repeat_with(rand::random).take(2 << 20).collect();
    files.insert("noise.bin", noise).unwrap();
    let digest = home.content.put(&files).await.unwrap();
    assert_eq!(home.content.put(&files).await.unwrap(), digest);
    let contents: Api<muster_api::Content> = Api::all(home.client.clone());
    assert_eq!(contents.list(&Default::default()).await.unwrap().items.len(), 3);
    assert_eq!(home.content.get(digest).await.unwrap(), files);
    // Nobody names it: it goes when its grace is over, and not before.
    let now = jiff::Timestamp::now();
    let (swept, next) = home.content.sweep(now).await.unwrap();
    assert_eq!(swept, 0);
    assert_eq!(home.content.sweep(next.unwrap()).await.unwrap(), (3, None));
    let error = home.assignments.content(digest).await.unwrap_err();
    assert!(matches!(error, PortError::NotFound(_)), "{error}");
    // What a Work names is kept.
    home.work("web-shop", Some("shop"), "v1", &[]).await;
    let far = now + muster_control::content::SWEEP_GRACE * 2;
    assert_eq!(home.content.sweep(far).await.unwrap(), (0, None));
}

fn is_ready(destination: &Destination) -> bool {
    let all = destination.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    condition(&all, kind::READY).0 == "True"
}

fn work_says(work: &Work, kind: &str, status: &str) -> bool {
    let all = work.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let current =
        work.status.as_ref().and_then(|s| s.observed_generation) == work.metadata.generation;
    current && condition(&all, kind).0 == status
}

#[tokio::test]
async fn a_placement_moves_when_asked_and_leaves_after_it_has_arrived() {
    let home = Home::new().await;
    let mut one = home.agent("vm-1", &[("env", "dev")]).await;
    let mut two = home.agent("vm-2", &[("env", "dev")]).await;
    for agent in ["vm-1", "vm-2"] {
        home.until(home.destinations(), agent, |d: &Destination| is_ready(d)).await;
    }
    home.work("web-shop", Some("shop"), "v1", &[("env", "dev")]).await;
    let old = home.placements(1).await.remove(0);
    assert_eq!(old.spec.target_destination_name, "vm-1");
    let why = &old.annotations()[labels::CHOSEN_BECAUSE];
    assert!(why.contains("first by name of the least loaded"), "{why}");
    one.until(|a| a.orders.contains_key(&key(&old))).await;
    one.report(&home, Phase::Applied, Health::Healthy).await;
    home.until(home.api::<Work>(), "web-shop", |w| work_says(w, kind::READY, "True")).await;

    annotate(&home.api::<WorkPlacement>(), &old.name_any(), labels::MOVE).await;
    let both = home.placements(2).await;
    let new = both.iter().find(|p| p.name_any() != old.name_any()).unwrap();
    assert_eq!(new.spec.target_destination_name, "vm-2");
    let moving = |w: &Work| says_where(w) == "vm-1 -> vm-2";
    home.until(home.api::<Work>(), "web-shop", moving).await;
    two.until(|a| a.orders.contains_key(&key(new))).await;
    let kept = home.api::<WorkPlacement>().get(&old.name_any()).await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_none(), "vm-2 does not hold it yet");
    two.report(&home, Phase::Applied, Health::Healthy).await;
    one.until(|a| a.orders.get(&key(&old)).is_some_and(|o| o.intent == Intent::Absent)).await;
    one.report(&home, Phase::Removed, Health::Unknown).await;
    home.until_gone(home.api::<WorkPlacement>(), &old.name_any()).await;
    let there = |w: &Work| says_where(w) == "vm-2" && work_says(w, kind::READY, "True");
    home.until(home.api::<Work>(), "web-shop", there).await;
}

#[tokio::test]
async fn a_drained_destination_gives_requests_away_when_another_one_comes() {
    let home = Home::new().await;
    let mut one = home.agent("vm-1", &[("env", "dev")]).await;
    home.work("web-shop", Some("shop"), "v1", &[("env", "dev")]).await;
    home.work("web-deps", None, "crd", &[("env", "dev")]).await;
    home.placements(2).await;
    one.until(|a| a.orders.len() == 2).await;
    one.report(&home, Phase::Applied, Health::Healthy).await;
    annotate(&home.destinations(), "vm-1", labels::DRAIN).await;
    home.until(home.api::<Work>(), "web-shop", |w| says_where(w) == "vm-1 (to be moved)").await;
    // What comes now does not go there, and says why.
    home.work("web-late", Some("late"), "v1", &[("env", "dev")]).await;
    let waits = |w: &Work| work_says(w, kind::SCHEDULE_SUCCEEDED, "False");
    let late = home.until(home.api::<Work>(), "web-late", waits).await;
    assert_eq!(condition(&late.status.unwrap().conditions, kind::APPLIED).1, "OnlyDraining");
    let mut two = home.agent("vm-2", &[("env", "dev")]).await;
    two.until(|a| a.orders.len() == 3).await;
    two.report(&home, Phase::Applied, Health::Healthy).await;
    let absent = |a: &muster_core::Assignment| {
        a.orders.values().filter(|order| order.intent == Intent::Absent).count() == 1
    };
    one.until(|a| absent(a)).await;
    one.report_removed(&home).await;
    home.until(home.api::<Work>(), "web-shop", |w| says_where(w) == "vm-2").await;
    let deps = home.api::<WorkPlacement>().get("web-deps.vm-1-5058f").await.unwrap();
    assert!(deps.metadata.deletion_timestamp.is_none(), "dependencies stay");
}

#[tokio::test]
async fn a_work_tells_what_becomes_of_it_in_kratixs_words() {
    let home = Home::new().await;
    home.work("web-shop", Some("shop"), "v1", &[("env", "dev")]).await;
    let unscheduled = |w: &Work| work_says(w, kind::SCHEDULE_SUCCEEDED, "False");
    let work = home.until(home.api::<Work>(), "web-shop", unscheduled).await;
    let status = work.status.unwrap();
    assert_eq!((status.work_placements, status.work_placements_created), (1, 0));
    let mut agent = home.agent("vm-1", &[("env", "dev")]).await;
    agent.until(|a| a.orders.len() == 1).await;
    agent.report(&home, Phase::Applied, Health::Healthy).await;
    let work =
        home.until(home.api::<Work>(), "web-shop", |w| work_says(w, kind::READY, "True")).await;
    let status = work.status.unwrap();
    assert_eq!((status.work_placements, status.work_placements_created), (1, 1));
    label(&home, "vm-1", "prod").await;
    let work = home.until(home.api::<Work>(), "web-shop", unscheduled).await;
    let conditions = work.status.as_ref().unwrap().conditions.clone();
    assert_eq!(condition(&conditions, kind::READY), ("False", "Misplaced"));
    assert_eq!(says_where(&work), "vm-1 (misplaced)");
    label(&home, "vm-1", "dev").await;
    home.until(home.api::<Work>(), "web-shop", |w| work_says(w, kind::READY, "True")).await;
    let placement = home.placements(1).await.remove(0);
    let conditions = placement.status.unwrap().conditions;
    assert_eq!(condition(&conditions, kind::READY).0, "True", "it heals");
    assert!(!placement.metadata.labels.unwrap().contains_key(labels::MISPLACED));

    let id = "5058f1af8388633f609cadb75a75dc9d";
    home.until_told(
        "web-shop",
        &[
            ("NoMatchingDestination", &format!("waiting for a destination with labels for workloadGroup: {id}")),
            ("WaitingDestination", &format!("waiting for destination for workload group: [{id}]")),
            ("WorkplacementReconciled", "workplacement reconciled: web-shop.vm-1-5058f, operation: created"),
            ("AllWorkplacementsScheduled", "All workplacements scheduled successfully"),
            ("DestinationSelectorMismatch", &format!("Target destination no longer matches destinationSelectors for workloadGroups: [{id}]")),
        ],
    )
    .await;
    home.until_told(
        "web-shop.vm-1-5058f",
        &[(
            "DestinationSelectorMismatch",
            "labels for destination: vm-1 no longer match the expected labels, marking this workplacement as misplaced",
        )],
    )
    .await;
    home.until_told("vm-1", &[("DestinationReady", "Destination is Ready")]).await;
}

#[tokio::test]
async fn a_placement_that_cannot_be_made_is_told_and_made_when_it_can() {
    let home = Home::new().await;
    let _agent = home.agent("vm-1", &[]).await;
    home.until(home.destinations(), "vm-1", |d: &Destination| is_ready(d)).await;
    let placements = home.api::<WorkPlacement>();
    let spec = muster_api::WorkPlacementSpec {
        target_destination_name: "vm-1".into(),
        digest: Digest::of(b"another").to_string(),
        ..Default::default()
    };
    let foreign = WorkPlacement::new("web-shop.vm-1-5058f", spec);
    placements.create(&Default::default(), &foreign).await.unwrap();
    home.work("web-shop", Some("shop"), "v1", &[]).await;
    let failed = |w: &Work| work_says(w, kind::SCHEDULE_SUCCEEDED, "False");
    let work = home.until(home.api::<Work>(), "web-shop", failed).await;
    let conditions = work.status.unwrap().conditions;
    assert_eq!(condition(&conditions, kind::SCHEDULE_SUCCEEDED).1, "FailedToScheduleWorkloads");
    let applied = muster_api::conditions::find(&conditions, kind::APPLIED).unwrap();
    assert!(applied.message.contains("belongs to another Work"), "{}", applied.message);
    placements.delete(&foreign.name_any(), &DeleteParams::default()).await.unwrap();
    let scheduled = |w: &Work| work_says(w, kind::SCHEDULE_SUCCEEDED, "True");
    home.until(home.api::<Work>(), "web-shop", scheduled).await;
}

async fn annotate<K>(api: &Api<K>, name: &str, key: &str)
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let patch = json!({"metadata": {"annotations": {key: "true"}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn label(home: &Home, destination: &str, env: &str) {
    let patch = Patch::Merge(json!({"metadata": {"labels": {"env": env}}}));
    home.destinations().patch(destination, &PatchParams::default(), &patch).await.unwrap();
}

/// What people read as a Work's destination.
fn says_where(work: &Work) -> String {
    let status = work.status.clone().unwrap_or_default();
    status.placements.unwrap_or_default().destination
}
