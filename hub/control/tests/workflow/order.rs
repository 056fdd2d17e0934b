//! One pipeline after another, what a change does to them, and what stays of them.

use super::{home::*, *};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_sees_what_the_one_before_it_said_in_the_status() {
    let ledger = Ledger::default();
    let seen = ledger.clone();
    let play: Play = Arc::new(move |pipeline, object| {
        let (stage, message) = (&object["status"]["stage"], &object["status"]["message"]);
        seen.enter(format!("{pipeline} {} {}", stage, message));
        Ok(match pipeline {
            "first" => files(&[("metadata/status.yaml", "stage: one\nmessage: half way\n")]),
            "second" => files(&[("metadata/status.yaml", "stage: two\n")]),
            _ => files(&[]),
        })
    });
    let pipelines = [pipeline("first"), pipeline("second"), pipeline("third")];
    let (home, _) = offered(play, &pipelines, |_| {}).await;
    let seen = completed(&home, "1").await;
    // What the first one said stays, since no later one said anything else.
    assert_eq!(seen["status"]["message"], "half way");
    assert_eq!(seen["status"]["stage"], "two");
    assert_eq!(
        ledger.lines()[1..],
        [r#"second "one" "half way""#.to_owned(), r#"third "two" "half way""#.to_owned()]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_of_each_pipeline_in_both_layouts() {
    let released = Switch::default();
    let open = released.clone();
    let play: Play = Arc::new(move |pipeline, object| match pipeline {
        "second" if !open.is_on() => Err(HOLD.to_owned()),
        _ => Ok(rendered(pipeline, object)),
    });
    let (home, _) = offered(play, &[pipeline("first"), pipeline("second")], |_| {}).await;
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    let seen = home.until(&requests(&home), "a", |r| phases(r) == ["Succeeded", "Running"]).await;
    let status = &seen["status"];
    assert_eq!(
        (&status["workflows"], &status["workflowsSucceeded"], &status["workflowsFailed"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert_eq!(status["message"], "Pending");
    assert_eq!(condition(&seen, "Reconciled"), "Unknown/WorkflowPending: Pending");
    assert_eq!(
        condition(&seen, COMPLETED),
        "False/PipelinesInProgress: Pipelines are still in progress"
    );
    assert!(status.get("lastSuccessfulConfigureWorkflowTime").is_none());
    released.on();
    let seen = home.until(&requests(&home), "a", |r| is(r, COMPLETED, "True")).await;
    let workflows = &seen["status"]["kratix"]["workflows"];
    let hash =
        jobs(&home, "default").await[0].metadata.labels.as_ref().unwrap()["kratix.io/hash"].clone();
    for (name, at) in [("first", 0), ("second", 1)] {
        let plain = &workflows["pipelines"][at];
        assert_eq!((&plain["name"], &plain["phase"]), (&json!(name), &json!("Succeeded")));
        assert!(plain.get("hash").is_none(), "{plain}");
        let keyed = &workflows["configure"]["pipelines"][at];
        assert_eq!((&keyed["name"], &keyed["hash"]), (&json!(name), &json!(hash)));
        assert_eq!(keyed["lastTransitionTime"], plain["lastTransitionTime"]);
    }
    let conditions = seen["status"]["conditions"].as_array().unwrap();
    let completed = conditions.iter().find(|held| held["type"] == COMPLETED).unwrap();
    let last = &completed["lastTransitionTime"];
    assert_eq!(&workflows["lastSuccessfulConfigureWorkflowTime"], last);
    assert_eq!(&seen["status"]["lastSuccessfulConfigureWorkflowTime"], last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_awaits_the_job_that_runs_and_begins_at_the_first_pipeline() {
    let (released, ledger) = (Switch::default(), Ledger::default());
    let (open, seen) = (released.clone(), ledger.clone());
    let play: Play = Arc::new(move |pipeline, object| {
        let size = object["spec"]["size"].as_str().unwrap();
        if (pipeline, size) == ("second", "1") && !open.is_on() {
            return Err(HOLD.to_owned());
        }
        seen.enter(format!("{pipeline} {size}"));
        Ok(rendered(pipeline, object))
    });
    let pipelines = [pipeline("first"), pipeline("second"), pipeline("third")];
    let (home, _) = offered(play, &pipelines, |_| {}).await;
    home.apply(&request(KIND, "a", "1")).await.unwrap();
    ran(&home, 2).await;
    home.apply(&request(KIND, "a", "2")).await.unwrap();
    home.until(&requests(&home), "a", |r| phases(r) == ["Pending", "Pending", "Pending"]).await;
    settled(&home).await;
    assert_eq!(home.runs().len(), 2, "the Job that runs was not awaited");
    released.on();
    home.until(&requests(&home), "a", |r| r["status"]["observedGeneration"] == 2).await;
    let lines = ["first 1", "second 1", "first 2", "second 2", "third 2"];
    assert_eq!(ledger.lines(), lines, "the old run has gone on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_promise_runs_its_requests_again_with_the_new_pipelines() {
    let (home, mut offer) = offered(renders(), &[pipeline("main")], |_| {}).await;
    let first = completed(&home, "1").await;
    let configure = "/spec/workflows/resource/configure";
    *offer.pointer_mut(configure).unwrap() = json!([pipeline("before"), pipeline("main")]);
    home.apply(&offer).await.unwrap();
    let seen = home.until(&requests(&home), "a", |r| r["status"]["workflowsSucceeded"] == 2).await;
    assert_eq!(seen["metadata"]["generation"], first["metadata"]["generation"]);
    assert_eq!(home.runs(), ["main", "before", "main"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_are_deleted_do_not_run_again_and_restarts_run_nothing() {
    let (home, _) = offered(renders(), &[pipeline("first"), pipeline("second")], |_| {}).await;
    let before = completed(&home, "1").await;
    let api = home.kind("batch/v1", "Job", Some("default"));
    for job in jobs(&home, "default").await {
        api.delete(&job.metadata.name.unwrap(), &Default::default()).await.unwrap();
    }
    eventually(|| async { jobs(&home, "default").await.is_empty().then_some(()) }).await.unwrap();
    home.replace_controllers(home.healthy(), Options::default()).await;
    settled(&home).await;
    assert_eq!(jobs(&home, "default").await.len(), 0);
    let after = json!(requests(&home).get("a").await.unwrap());
    assert_eq!(after["status"], before["status"]);
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_jobs_are_kept_as_many_as_the_platform_says() {
    let options = Options { jobs_kept: 2, ..Options::default() };
    let play: Play = Arc::new(|pipeline, object| match object["spec"]["size"].as_str() {
        Some("4") => Err("BackoffLimitExceeded: no".to_owned()),
        _ => Ok(rendered(pipeline, object)),
    });
    let (home, _) = offered_with(play, &[pipeline("main")], |_| {}, options).await;
    for size in ["1", "2", "3"] {
        completed(&home, size).await;
    }
    home.apply(&request(KIND, "a", "4")).await.unwrap();
    home.until(&requests(&home), "a", |r| is(r, COMPLETED, "False/ConfigureWorkflowFailed")).await;
    let kept = eventually(|| async {
        let held = jobs(&home, "default").await;
        (held.len() == 2).then_some(held)
    });
    let kept = kept.await.expect("older Jobs to go, after a failure, too");
    let failed = |job: &&DynamicObject| job.data["status"]["failed"] == 1;
    assert_eq!(kept.iter().filter(failed).count(), 1, "the last one stays");
    assert_eq!(home.runs().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_stay_while_a_run_fails_and_those_of_gone_pipelines_go_after_the_next_success() {
    let play: Play = Arc::new(|pipeline, object| match object["spec"]["size"].as_str() {
        Some("bad") => Err("BackoffLimitExceeded: no".to_owned()),
        _ => Ok(rendered(pipeline, object)),
    });
    let pipelines = [pipeline("first"), pipeline("second")];
    let (home, mut offer) = offered(play, &pipelines, |_| {}).await;
    let good = completed(&home, "1").await;
    let before = works(&home, "default").await;
    home.apply(&request(KIND, "a", "bad")).await.unwrap();
    let failed = home
        .until(&requests(&home), "a", |r| is(r, COMPLETED, "False/ConfigureWorkflowFailed"))
        .await;
    assert_eq!(
        condition(&failed, COMPLETED),
        "False/ConfigureWorkflowFailed: A Configure Pipeline has failed: first: no"
    );
    let last = "lastSuccessfulConfigureWorkflowTime";
    assert_eq!(failed["status"][last], good["status"][last], "it survives a failure");
    assert_eq!((&failed["status"]["workflowsFailed"], phases(&failed)[0]), (&json!(1), "Failed"));
    *offer.pointer_mut("/spec/workflows/resource/configure").unwrap() = json!([pipeline("second")]);
    home.apply(&offer).await.unwrap();
    home.until(&requests(&home), "a", |r| r["status"]["workflows"] == 1 && phases(r) == ["Failed"])
        .await;
    assert_eq!(works(&home, "default").await, before, "a failure touches no Work");
    completed(&home, "2").await;
    let left = eventually(|| async {
        let made = works(&home, "default").await;
        (made.keys().collect::<Vec<_>>() == ["second"]).then_some(())
    });
    left.await.expect("the Work of the pipeline that is gone goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_refuses_is_told_on_the_request_and_begins_when_it_is_mended() {
    let elsewhere = |offer: &mut Value| {
        offer["spec"]["workflows"]["config"] = json!({ "pipelineNamespace": "elsewhere" });
    };
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "elsewhere" },
    });
    let home = Home::open(renders()).await;
    let mut offer = promise("cache", KIND, &[pipeline("main")]);
    elsewhere(&mut offer);
    home.apply(&namespace).await.unwrap();
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let namespaces = home.of(&namespace);
    namespaces.delete("elsewhere", &Default::default()).await.unwrap();
    home.until_gone(&namespaces, "elsewhere").await;

    home.apply(&request(KIND, "a", "1")).await.unwrap();
    let seen = home
        .until(&requests(&home), "a", |r| condition(r, COMPLETED).contains("cannot begin"))
        .await;
    let told = condition(&seen, COMPLETED);
    assert!(told.starts_with("False/PipelinesInProgress: Pipelines are still in progress: pipeline main cannot begin: failed to create"), "{told}");
    assert!(told.contains(r#"namespaces "elsewhere" not found"#), "{told}");
    assert!(seen["status"]["message"].as_str().unwrap().contains("not found"));
    assert_eq!(phases(&seen), ["Pending"]);
    let event = eventually(|| async {
        let told = events(&home, "default", "a").await;
        told.into_iter().find(|(reason, _)| reason == "PipelineRefused")
    });
    assert!(event.await.expect("an event").1.contains("not found"));

    home.apply(&namespace).await.unwrap();
    home.clock.skip(std::time::Duration::from_secs(10));
    home.until(&requests(&home), "a", |r| is(r, COMPLETED, "True")).await;
    assert_eq!(home.runs(), ["main"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_label_of_an_author_takes_the_place_of_one_of_the_hubs() {
    let mut main = pipeline("main");
    main["metadata"]["labels"] = json!({
        "team": "storage",
        "kratix.io/pipeline-name": "other",
        "kratix.io/hash": "0",
        "kratix.io/resource-name": "other",
        "kratix.io/resource-namespace": "elsewhere",
        "kratix.io/workflow-action": "delete",
        "fleet.muster.dev/run": "7",
    });
    let both = |offer: &mut Value| {
        offer["spec"]["workflows"]["promise"] = json!({ "configure": [main.clone()] });
    };
    let (home, _) = offered(renders(), std::slice::from_ref(&main), both).await;
    completed(&home, "1").await;
    for namespace in ["kratix-platform-system", "default"] {
        let job = jobs(&home, namespace).await.remove(0);
        for labels in
            [json!(job.metadata.labels), job.data["spec"]["template"]["metadata"]["labels"].clone()]
        {
            assert_eq!(labels["team"], "storage");
            assert_eq!(labels["kratix.io/pipeline-name"], "main");
            assert_eq!(labels["kratix.io/workflow-action"], "configure");
            assert_ne!(labels["kratix.io/hash"], "0");
            assert_eq!(labels["fleet.muster.dev/run"], "0");
            let of_request = namespace == "default";
            let name = if of_request { json!("a") } else { Value::Null };
            assert_eq!(labels["kratix.io/resource-name"], name, "{labels}");
        }
    }
    assert_eq!(home.runs(), ["main", "main"]);
}
