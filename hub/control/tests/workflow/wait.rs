//! A pipeline asks to wait: for a person, or for a time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;

use super::{home::*, *};

/// The pipeline `gate` hands this over as its control file, with other output than in the end, until
/// the switch is on; the others render.
fn gated(open: &Switch, control: &str) -> Play {
    let (open, control) = (open.clone(), control.to_owned());
    Arc::new(move |pipeline, object| {
        if pipeline != "gate" || open.is_on() {
            return Ok(rendered(pipeline, object));
        }
        Ok(files(&[
            ("output/gate.yaml", "half: done\n"),
            ("metadata/workflow-control.yaml", &control),
        ]))
    })
}

fn gate() -> [Value; 3] {
    [pipeline("before"), pipeline("gate"), pipeline("after")]
}

fn entry<'a>(object: &'a Value, name: &str) -> &'a Value {
    let entries = object.pointer("/status/kratix/workflows/pipelines").unwrap();
    entries.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_workflow_waits_for_a_person_and_goes_on_at_the_same_pipeline() {
    let open = Switch::default();
    let play = gated(&open, "suspend: true\nmessage: waiting for a signature\n");
    let (home, _) = offered(play, &gate(), |_| {}).await;
    let api = requests(&home);
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    let suspended =
        |r: &Value| condition(r, "Reconciled") == "Unknown/WorkflowSuspended: Suspended";
    let seen = home.until(&api, "a", suspended).await;
    assert_eq!(phases(&seen), ["Succeeded", "Suspended", "Pending"]);
    assert_eq!(entry(&seen, "gate")["message"], "waiting for a signature");
    assert!(entry(&seen, "gate").get("attempts").is_none());
    assert_eq!(seen["status"]["message"], "waiting for a signature");
    assert_eq!(
        condition(&seen, COMPLETED),
        "False/PipelinesInProgress: Pipelines are still in progress"
    );
    assert_eq!(seen["metadata"]["labels"][SUSPENDED], "true");
    let workflows = &seen["status"]["kratix"]["workflows"];
    assert_eq!(workflows["suspendedGeneration"], 1);
    assert_eq!(workflows["configure"]["suspendedGeneration"], 1);
    assert_eq!(works(&home, "default").await.keys().collect::<Vec<_>>(), ["before"]);
    let told = eventually(|| async {
        let told = events(&home, "default", "a").await;
        let about = |reason: &str| told.iter().filter(|event| event.0 == reason).count();
        (about("PipelineSuspended") == 1 && about("WorkflowSuspended") == 1).then_some(())
    });
    told.await.expect("one event of each");

    // Its interval does not wake it.
    home.clock.skip(Duration::from_secs(11 * 3600));
    settled(&home).await;
    assert_eq!(home.runs(), ["before", "gate"]);

    // Nothing has changed for the pipeline: it asks to wait again.
    home.label(&api, "a", SUSPENDED, Value::Null).await;
    ran(&home, 3).await;
    home.until(&api, "a", |r| suspended(r) && r["metadata"]["labels"][SUSPENDED] == "true").await;
    open.on();
    home.label(&api, "a", SUSPENDED, Value::Null).await;
    let seen = home.until(&api, "a", |r| is(r, COMPLETED, "True")).await;
    assert_eq!(home.runs(), ["before", "gate", "gate", "gate", "after"]);
    assert_eq!(seen["status"]["message"], "Resource requested");
    assert!(entry(&seen, "gate").get("message").is_none());
    assert!(seen["metadata"]["labels"].get(SUSPENDED).is_none());
    let workflows = &seen["status"]["kratix"]["workflows"];
    assert!(workflows.get("suspendedGeneration").is_none());
    assert!(workflows["configure"].get("suspendedGeneration").is_none());
    assert_eq!(works(&home, "default").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_or_a_manual_reconciliation_ends_the_wait_and_begins_at_the_first_pipeline() {
    let open = Switch::default();
    let play = gated(&open, "suspend: true\n");
    let (home, _) = offered(play, &gate(), |_| {}).await;
    let api = requests(&home);
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    let suspended = |r: &Value| is(r, "Reconciled", "Unknown/WorkflowSuspended");
    let seen = home.until(&api, "a", suspended).await;
    let said = seen["status"]["message"].as_str().unwrap();
    assert!(said.contains("remove the label kratix.io/workflow-suspended"), "{said}");
    home.label(&api, "a", MANUAL, json!("true")).await;
    ran(&home, 4).await;
    home.until(&api, "a", |r| suspended(r) && r["metadata"]["labels"][SUSPENDED] == "true").await;
    open.on();
    let seen = completed(&home, "2").await;
    assert!(seen["metadata"]["labels"].get(SUSPENDED).is_none());
    assert_eq!(home.runs()[2..], ["before", "gate", "before", "gate", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_run_leaves_the_works_of_the_last_one_as_they_are() {
    let open = Switch::default();
    open.on();
    let play = gated(&open, "suspend: true\n");
    let (home, _) = offered(play, &gate(), |_| {}).await;
    completed(&home, "1").await;
    let before = works(&home, "default").await;
    open.off();
    home.apply(&request(KIND, "a", "2")).await.unwrap();
    home.until(&requests(&home), "a", |r| is(r, "Reconciled", "Unknown/WorkflowSuspended")).await;
    let during = works(&home, "default").await;
    for untouched in ["gate", "after"] {
        assert_eq!(during[untouched], before[untouched]);
    }
    assert_ne!(during["before"]["spec"], before["before"]["spec"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_waits_too_and_is_not_available_meanwhile() {
    let open = Switch::default();
    let play = gated(&open, "suspend: true\nmessage: waiting for approval\n");
    let home = Home::open(play).await;
    let mut offer = promise("cache", KIND, &[pipeline("main")]);
    offer["spec"]["workflows"]["promise"] = json!({ "configure": gate() });
    home.apply(&offer).await.unwrap();
    let promises = home.of(&offer);
    let seen = home
        .until(&promises, "cache", |p| {
            condition(p, "Available") == "False/WorkflowSuspended: Suspended"
        })
        .await;
    assert_eq!(condition(&seen, "Reconciled"), "Unknown/WorkflowSuspended: Suspended");
    assert_eq!(phases(&seen), ["Succeeded", "Suspended", "Pending"]);
    assert_eq!(seen["status"]["status"], "Unavailable");
    open.on();
    home.label(&promises, "cache", SUSPENDED, Value::Null).await;
    home.until(&promises, "cache", |p| is(p, "Available", "True")).await;
    assert_eq!(home.runs(), ["before", "gate", "gate", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_asks_for_it_is_tried_again_after_its_time_however_often() {
    let open = Switch::default();
    let play = gated(&open, "retryAfter: 5m\nsuspend: true\nmessage: no DNS yet\n");
    let (home, _) = offered(play, &gate(), |_| {}).await;
    let api = requests(&home);
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    let mut last = Timestamp::UNIX_EPOCH;
    for attempts in 1..=4 {
        let waits = |r: &Value| {
            is(r, "Reconciled", "Unknown/WorkflowSuspended")
                && entry(r, "gate")["attempts"] == attempts
        };
        let seen = home.until(&api, "a", waits).await;
        assert_eq!(seen["metadata"]["labels"][SUSPENDED], "true");
        assert_eq!(entry(&seen, "gate")["message"], "no DNS yet");
        let at: Timestamp = entry(&seen, "gate")["nextRetryAt"].as_str().unwrap().parse().unwrap();
        assert!(at > last);
        last = at;
        home.clock.skip(Duration::from_secs(240));
        settled(&home).await;
        assert_eq!(
            home.runs().len(),
            usize::try_from(attempts).unwrap() + 1,
            "not before its time"
        );
        home.clock.skip(Duration::from_secs(60));
    }
    home.until(&api, "a", |r| entry(r, "gate")["attempts"] == 5).await;
    open.on();
    home.clock.skip(Duration::from_secs(300));
    let seen = home.until(&api, "a", |r| is(r, COMPLETED, "True")).await;
    for gone in ["nextRetryAt", "attempts", "message"] {
        assert!(entry(&seen, "gate").get(gone).is_none(), "{gone}");
    }
    assert!(seen["metadata"]["labels"].get(SUSPENDED).is_none());
    assert_eq!(home.runs().len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_attempts_makes_waits_grow_and_ends_in_words() {
    let open = Switch::default();
    let play = gated(&open, "retryAfter: 10m\nmaxAttempts: 3\nmessage: no DNS yet\n");
    let (home, _) = offered(play, &gate(), |_| {}).await;
    let api = requests(&home);
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    for (attempts, minutes) in [(1, 10), (2, 20)] {
        let begun = home.clock.now();
        let waits = |r: &Value| {
            is(r, "Reconciled", "Unknown/WorkflowSuspended")
                && entry(r, "gate")["attempts"] == attempts
        };
        let seen = home.until(&api, "a", waits).await;
        let at: Timestamp = entry(&seen, "gate")["nextRetryAt"].as_str().unwrap().parse().unwrap();
        let wait = at.duration_since(begun).as_mins();
        assert!((minutes - 1..=minutes + 1).contains(&wait), "{wait} minutes");
        home.clock.skip(Duration::from_secs(60 * minutes.unsigned_abs()));
    }
    let seen = home.until(&api, "a", |r| is(r, COMPLETED, "False/ConfigureWorkflowFailed")).await;
    assert_eq!(
        condition(&seen, COMPLETED),
        "False/ConfigureWorkflowFailed: A Configure Pipeline has failed: gate: it asked to be \
         tried again, but its attempts are used up (maxAttempts: 3): no DNS yet"
    );
    assert_eq!(phases(&seen), ["Succeeded", "Failed", "Pending"]);
    assert!(seen["metadata"]["labels"].get(SUSPENDED).is_none());
    home.clock.skip(Duration::from_secs(3600));
    settled(&home).await;
    assert_eq!(home.runs(), ["before", "gate", "gate", "gate"]);
    // Asked again, it has all its attempts again.
    open.on();
    home.label(&api, "a", MANUAL, json!("true")).await;
    home.until(&api, "a", |r| is(r, COMPLETED, "True")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_control_file_fails_the_pipeline_and_names_the_key() {
    let wrong: BTreeMap<&str, &str> = [
        ("retryAfter: soon\n", "retryAfter"),
        ("retryAfter: 1m\nmaxAttempts: many\n", "maxAttempts"),
        ("retryAfter: 1m\nmaxAttempts: 0\n", "maxAttempts"),
    ]
    .into();
    let turn = Arc::new(AtomicUsize::new(0));
    let (at, written) = (Arc::clone(&turn), wrong.keys().map(|text| (*text).to_owned()));
    let written: Vec<_> = written.collect();
    let play: Play = Arc::new(move |_, _| {
        let control = &written[at.load(Ordering::SeqCst)];
        Ok(files(&[("metadata/workflow-control.yaml", control)]))
    });
    let (home, _) = offered(play, &[pipeline("gate")], |_| {}).await;
    for (index, key) in wrong.values().enumerate() {
        turn.store(index, Ordering::SeqCst);
        home.apply(&request(KIND, "a", &index.to_string())).await.unwrap();
        let words = format!("invalid workflow-control.yaml: {key}");
        home.until(&requests(&home), "a", |r| {
            let of_this_run = home.runs().len() == index + 1;
            of_this_run && condition(r, COMPLETED).contains(&words)
        })
        .await;
    }
}
