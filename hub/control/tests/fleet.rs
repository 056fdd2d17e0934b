//! From a Work to an agent's assignment and back, over the embedded API.

#[path = "shared/home.rs"]
mod home;

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
