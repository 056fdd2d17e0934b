//! Promises and requests against the embedded API, up to their Works.

#[path = "offers/home.rs"]
mod home;

use std::sync::Arc;

use home::{Home, Play, condition, eventually, files, pipeline, promise, request, works};
use muster_apiserver::UserInfo;
use serde_json::{Value, json};

/// Pipelines that write their name and the request's size.
fn renders() -> Play {
    Arc::new(|pipeline, object| {
        let size = object["spec"]["size"].as_str().unwrap_or_default();
        Ok(files(&[(&format!("output/{pipeline}.yaml"), &format!("size: {size}\n"))]))
    })
}

fn is(object: &Value, kind: &str, text: &str) -> bool {
    condition(object, kind).starts_with(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_runs_its_pipelines_in_order_and_becomes_works() {
    let home = Home::open(renders()).await;
    let offer = promise("cache", "Cache", &[pipeline("first"), pipeline("second")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;

    let wanted = request("Cache", "small", "1");
    home.apply(&wanted).await.unwrap();
    let seen = home
        .until(&home.of(&wanted), "small", |request| {
            is(request, "ConfigureWorkflowCompleted", "True/PipelinesExecutedSuccessfully")
        })
        .await;
    assert_eq!(home.runs(), ["first", "second"]);
    assert_eq!(seen["status"]["message"], "Resource requested");
    assert_eq!(seen["status"]["workflowsSucceeded"], 2);
    assert!(!is(&seen, "Reconciled", "True"), "reconciled without a destination: {seen:#}");
    let made = works(&home, "default").await;
    assert_eq!(made.keys().collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(
        made["first"]["spec"]["workloadGroups"][0]["workloads"][0]["filepath"],
        "first.yaml"
    );

    // A change runs everything again and changes the same Works.
    let before = made["first"]["spec"]["workloadGroups"][0]["digest"].clone();
    home.apply(&request("Cache", "small", "2")).await.unwrap();
    eventually(|| async {
        let made = works(&home, "default").await;
        let after = &made["first"]["spec"]["workloadGroups"][0]["digest"];
        (made.len() == 2 && *after != before).then_some(())
    })
    .await
    .expect("the Work follows the change");
    home.until(&home.of(&wanted), "small", |request| request["status"]["observedGeneration"] == 2)
        .await;
    assert_eq!(home.runs().len(), 4);

    let requests = home.of(&wanted);
    requests.delete("small", &kube::api::DeleteParams::default()).await.unwrap();
    home.until_gone(&requests, "small").await;
    assert!(works(&home, "default").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_installs_its_api_with_our_columns_and_its_dependencies() {
    let home = Home::open(renders()).await;
    let mut offer = promise("cache", "Cache", &[]);
    offer["spec"]["dependencies"] = json!([
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "caches" } },
    ]);
    offer["spec"]["workflows"]["promise"] = json!({ "configure": [pipeline("setup")] });
    offer["spec"]["destinationSelectors"] = json!([{ "matchLabels": { "env": "dev" } }]);
    home.apply(&offer).await.unwrap();
    let promises = home.of(&offer);
    let seen = home.until(&promises, "cache", |p| is(p, "Available", "True")).await;
    assert_eq!(seen["status"]["kind"], "Cache");
    assert_eq!(seen["status"]["apiVersion"], "ex.io/v1");
    assert_eq!(seen["status"]["version"], Value::Null, "nobody set one");
    assert_eq!(seen["status"]["kratix"]["kind"], "Cache");
    assert!(
        condition(&seen, "Reconciled").starts_with("Unknown/NoMatchingDestination"),
        "{seen:#}"
    );

    let crds = home.kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let crd = json!(crds.get("caches.ex.io").await.unwrap());
    let columns = crd.pointer("/spec/versions/0/additionalPrinterColumns").unwrap();
    let names: Vec<_> = columns.as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["message", "status", "DESTINATION", "HEALTH"]);

    let made = works(&home, "kratix-platform-system").await;
    assert_eq!(made.keys().collect::<Vec<_>>(), ["", "setup"]);
    let group = &made[""]["spec"]["workloadGroups"][0];
    assert_eq!(group["workloads"][0]["filepath"], "static/cache-dependencies.yaml");
    assert_eq!(group["destinationSelectors"][0]["matchLabels"]["env"], "dev");

    let requests = home.of(&request("Cache", "a", "1"));
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    promises.delete("cache", &kube::api::DeleteParams::default()).await.unwrap();
    home.until_gone(&promises, "cache").await;
    assert!(crds.get_opt("caches.ex.io").await.unwrap().is_none());
    assert!(works(&home, "kratix-platform-system").await.is_empty());
    let roles = home.kind("rbac.authorization.k8s.io/v1", "Role", Some("default"));
    assert!(roles.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependencies_that_are_nowhere_count() {
    let home = Home::open(renders()).await;
    let mut offer = promise("cache", "Cache", &[]);
    offer["spec"]["destinationSelectors"] = json!([{ "matchLabels": { "env": "dev" } }]);
    let bare = offer.clone();
    offer["spec"]["dependencies"] = json!([
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "caches" } },
    ]);
    home.apply(&offer).await.unwrap();
    let promises = home.of(&offer);
    let pending = |reason: &'static str| {
        move |p: &Value| {
            is(p, "Available", "True")
                && condition(p, "WorksSucceeded").starts_with(
                    "Unknown/WorksPending: Some works associated with this promise are not ready: \
                     [cache-",
                )
                && condition(p, "Reconciled").starts_with(&format!("Unknown/{reason}: "))
        }
    };
    home.until(&promises, "cache", pending("NoMatchingDestination")).await;

    // Placed is not written either.
    let destination = json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Destination",
        "metadata": { "name": "dev", "labels": { "env": "dev" } },
        "spec": { "path": "dev", "stateStoreRef": { "kind": "GitStateStore", "name": "none" } },
    });
    home.apply(&destination).await.unwrap();
    let placed = |p: &Value| p["status"]["placements"]["destination"] == "dev";
    let seen = home.until(&promises, "cache", placed).await;
    assert!(condition(&seen, "WorksSucceeded").starts_with("Unknown/WorksPending"), "{seen:#}");
    assert!(condition(&seen, "Reconciled").starts_with("Unknown/"), "{seen:#}");
    home.of(&destination).delete("dev", &kube::api::DeleteParams::default()).await.unwrap();

    // Without dependencies nothing is left to wait for.
    home.apply(&bare).await.unwrap();
    home.until(&promises, "cache", |p| {
        is(p, "WorksSucceeded", "True") && is(p, "Reconciled", "True")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_refused_is_told_on_the_request_and_corrected_by_input_alone() {
    let play: Play = Arc::new(|_, object| {
        let selectors = match object["spec"]["size"].as_str() {
            Some("bad") => "directory: east\nmatchLabels: {a: b}\n",
            _ => "- directory: east\n  matchLabels: {region: east}\n",
        };
        Ok(files(&[
            ("output/east/a.yaml", "a: 1\n"),
            ("output/b.yaml", "b: 1\n"),
            ("metadata/destination-selectors.yaml", selectors),
        ]))
    });
    let home = Home::open(play).await;
    let offer = promise("cache", "Cache", &[pipeline("main")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let requests = home.of(&request("Cache", "a", "bad"));
    home.apply(&request("Cache", "a", "bad")).await.unwrap();
    let seen = home.until(&requests, "a", |r| is(r, "Reconciled", "False")).await;
    let told = condition(&seen, "Reconciled");
    assert!(
        told.starts_with(
            "False/ConfigureWorkflowFailed: A Configure Pipeline has failed: main: invalid \
             destination-selectors.yaml: error unmarshaling JSON: it is a map, not a list"
        ),
        "{told}"
    );
    assert!(works(&home, "default").await.is_empty());
    home.apply(&request("Cache", "a", "good")).await.unwrap();
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    let made = works(&home, "default").await;
    let groups = made["main"]["spec"]["workloadGroups"].as_array().unwrap();
    let directories: Vec<_> = groups.iter().map(|group| group["directory"].clone()).collect();
    assert_eq!(directories, ["east", "."]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_run_is_named_with_what_to_install() {
    let play: Play = Arc::new(|_, object| match object["spec"]["size"].as_str() {
        Some("1") => Err("ImageNotRunnable: example.org/render:1: install podman".to_owned()),
        _ => Ok(files(&[])),
    });
    let home = Home::open(play).await;
    let offer = promise("cache", "Cache", &[pipeline("main")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let requests = home.of(&request("Cache", "a", "1"));
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let seen = home.until(&requests, "a", |r| is(r, "Reconciled", "False")).await;
    assert_eq!(
        condition(&seen, "Reconciled"),
        "False/ImageNotRunnable: pipeline main cannot run: example.org/render:1: install podman"
    );
    home.apply(&request("Cache", "a", "2")).await.unwrap();
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_an_unavailable_promise_waits_and_runs_by_itself() {
    let home = Home::open(renders()).await;
    let mut offer = promise("cache", "Cache", &[pipeline("main")]);
    offer["spec"]["requiredPromises"] = json!([{ "name": "network" }]);
    home.apply(&offer).await.unwrap();
    let seen =
        home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "False")).await;
    assert_eq!(
        condition(&seen, "RequirementsFulfilled"),
        "False/RequirementsNotInstalled: Requirements not fulfilled: network: Requirement not \
         installed"
    );
    let requests = home.of(&request("Cache", "a", "1"));
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let seen = home.until(&requests, "a", |r| is(r, "PromiseAvailable", "False")).await;
    assert!(condition(&seen, "Reconciled").contains("promise cache cannot fulfil requests yet"));
    assert!(home.runs().is_empty());
    home.apply(&promise("network", "Network", &[])).await.unwrap();
    let seen = home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    assert!(condition(&seen, "PromiseAvailable").starts_with("True/PromiseAvailable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_request_stops_and_can_be_deleted() {
    let home = Home::open(renders()).await;
    let offer = promise("cache", "Cache", &[pipeline("main")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let mut wanted = request("Cache", "a", "1");
    let requests = home.of(&wanted);
    home.apply(&wanted).await.unwrap();
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    wanted["metadata"]["labels"] = json!({ "kratix.io/paused": "true" });
    home.apply(&wanted).await.unwrap();
    home.until(&requests, "a", |r| is(r, "Reconciled", "Unknown/PausedReconciliation")).await;
    wanted["spec"]["size"] = json!("2");
    home.apply(&wanted).await.unwrap();
    wanted["metadata"].as_object_mut().unwrap().remove("labels");
    home.apply(&wanted).await.unwrap();
    home.until(&requests, "a", |r| r["status"]["observedGeneration"] == 2).await;
    assert_eq!(home.runs().len(), 2);
    wanted["metadata"]["labels"] = json!({ "kratix.io/paused": "true" });
    home.apply(&wanted).await.unwrap();
    requests.delete("a", &kube::api::DeleteParams::default()).await.unwrap();
    home.until_gone(&requests, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_reconciliation_runs_everything_once_more() {
    let home = Home::open(renders()).await;
    let mut offer = promise("cache", "Cache", &[pipeline("first"), pipeline("second")]);
    offer["spec"]["workflows"]["resource"]["delete"] = json!([pipeline("undo")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let wanted = request("Cache", "a", "1");
    let requests = home.of(&wanted);
    home.apply(&wanted).await.unwrap();
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    let label = json!({ "metadata": { "labels": { "kratix.io/manual-reconciliation": "true" } } });
    let params = kube::api::PatchParams::default();
    requests.patch("a", &params, &kube::api::Patch::Merge(label)).await.unwrap();
    home.until(&requests, "a", |r| {
        home.runs().len() == 4 && is(r, "ConfigureWorkflowCompleted", "True")
    })
    .await;
    assert_eq!(home.runs(), ["first", "second", "first", "second"]);

    // Its delete pipeline runs before it goes.
    requests.delete("a", &kube::api::DeleteParams::default()).await.unwrap();
    home.until_gone(&requests, "a").await;
    assert_eq!(home.runs().last().unwrap(), "undo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_of_a_pipeline_that_is_gone_go_after_the_next_success() {
    let home = Home::open(renders()).await;
    let offer = promise("cache", "Cache", &[pipeline("first"), pipeline("second")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let wanted = request("Cache", "a", "1");
    home.apply(&wanted).await.unwrap();
    home.until(&home.of(&wanted), "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    assert_eq!(works(&home, "default").await.len(), 2);
    home.apply(&promise("cache", "Cache", &[pipeline("second")])).await.unwrap();
    let left = eventually(|| async {
        let made = works(&home, "default").await;
        (made.len() == 1).then_some(made)
    });
    assert!(left.await.expect("the Work of the gone pipeline goes").contains_key("second"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_pipeline_goes_on_when_its_label_is_taken() {
    let asked = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let first = Arc::clone(&asked);
    let play: Play = Arc::new(move |_, _| {
        if first.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Ok(files(&[("output/a.yaml", "a: 1\n")]));
        }
        let control = "suspend: true\nmessage: waiting for approval\n";
        Ok(files(&[("output/a.yaml", "a: 0\n"), ("metadata/workflow-control.yaml", control)]))
    });
    let home = Home::open(play).await;
    let offer = promise("cache", "Cache", &[pipeline("main")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let wanted = request("Cache", "a", "1");
    let requests = home.of(&wanted);
    home.apply(&wanted).await.unwrap();
    let seen =
        home.until(&requests, "a", |r| is(r, "Reconciled", "Unknown/WorkflowSuspended")).await;
    assert_eq!(seen["status"]["message"], "waiting for approval");
    assert_eq!(seen["metadata"]["labels"]["kratix.io/workflow-suspended"], "true");
    assert!(works(&home, "default").await.is_empty());
    let label = json!({ "metadata": { "labels": { "kratix.io/workflow-suspended": null } } });
    let params = kube::api::PatchParams::default();
    requests.patch("a", &params, &kube::api::Patch::Merge(label)).await.unwrap();
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    assert_eq!(works(&home, "default").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_promises_are_refused_in_kratix_words() {
    let home = Home::open(renders()).await;
    let good = promise("cache", "Cache", &[pipeline("main")]);
    let refused = async |change: &dyn Fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        home.apply(&bad).await.unwrap_err().to_string()
    };
    let says = |text: String, words: &str| {
        let prefix = r#"admission webhook "vpromise.kb.io" denied the request: "#;
        assert!(text.contains(prefix) && text.contains(words), "{text}");
    };
    says(
        refused(&|p| p["spec"]["api"]["kind"] = json!("Pod")).await,
        "not a CustomResourceDefinition",
    );
    says(
        refused(&|p| p["spec"]["api"]["spec"]["scope"] = json!("Cluster")).await,
        "promise api needs to be namespace scoped; spec.api.spec.scope cannot be: Cluster",
    );
    let configure = "/spec/workflows/resource/configure";
    says(
        refused(&|p| {
            p.pointer_mut(configure).unwrap()[0]["spec"]["containers"][0]["imgae"] = json!("x");
        })
        .await,
        "failed unmarshalling pipeline main: json: unknown field \"imgae\": there is no \
         spec.workflows.resource.configure[0].spec.containers[0].imgae",
    );
    says(
        refused(&|p| {
            *p.pointer_mut(configure).unwrap() = json!([pipeline("main"), pipeline("main")]);
        })
        .await,
        r#"duplicate pipeline name "main" in workflow "resource" action "configure""#,
    );
    says(
        refused(&|p| {
            let schema = json!({ "type": "object", "properties": { "spec": { "type": "wrong" } } });
            p["spec"]["api"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
        })
        .await,
        "invalid CRD: ",
    );
    home.apply(&good).await.unwrap();
    home.until(&home.of(&good), "cache", |promise| is(promise, "Available", "True")).await;
    says(
        refused(&|p| p["spec"]["api"]["spec"]["names"]["singular"] = json!("other")).await,
        "spec.api.spec.names: Invalid value",
    );
    let mut without = good.clone();
    without["spec"].as_object_mut().unwrap().remove("api");
    let refusal = home.apply(&without).await.unwrap_err().to_string();
    says(refusal, "cannot remove API from existing promise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_fails_is_told_with_its_exit_and_last_words() {
    let play: Play = Arc::new(|_, object| match object["spec"]["size"].as_str() {
        Some("1") => Err("exit 3: no such region".to_owned()),
        _ => Ok(files(&[])),
    });
    let home = Home::open(play).await;
    let offer = promise("cache", "Cache", &[pipeline("main")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let requests = home.of(&request("Cache", "a", "1"));
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let failing = "pipeline main: try 2 failed: container render exited with 3: no such region";
    let seen = home
        .until(&requests, "a", |r| condition(r, "ConfigureWorkflowCompleted").contains(failing))
        .await;
    assert_eq!(condition(&seen, "Reconciled"), "Unknown/WorkflowPending: Pending");
    assert_eq!(seen["status"]["message"], format!("Pending: {failing}"));

    let jobs = home.kind("batch/v1", "Job", Some("default"));
    let job = jobs.list(&kube::api::ListParams::default()).await.unwrap().items.remove(0);
    assert_eq!(job.data["spec"]["backoffLimit"], 2);
    let conditions = ["FailureTarget", "Failed"].map(|kind| {
        json!({ "type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "" })
    });
    let status = json!({ "status": {
        "startTime": "2026-01-01T00:00:00Z", "failed": 1, "conditions": conditions,
    } });
    let params = kube::api::PatchParams::default();
    let patch = kube::api::Patch::Merge(status);
    jobs.patch_status(job.metadata.name.as_deref().unwrap(), &params, &patch).await.unwrap();
    let seen = home.until(&requests, "a", |r| is(r, "Reconciled", "False")).await;
    assert_eq!(
        condition(&seen, "Reconciled"),
        "False/ConfigureWorkflowFailed: A Configure Pipeline has failed: main: tried 2 times: \
         container render exited with 3: no such region"
    );
    home.apply(&request("Cache", "a", "2")).await.unwrap();
    let seen = home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    assert_eq!(seen["status"]["message"], "Resource requested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_may_write_of_a_status_only_what_is_its_own() {
    let home = Home::open(renders()).await;
    let offer = promise("cache", "Cache", &[pipeline("main")]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    let requests = home.of(&request("Cache", "a", "1"));
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    let account = UserInfo::service_account("default", "cache-resource-configure-main");
    let own = home.of_as(account, &request("Cache", "a", "1"));
    let params = kube::api::PatchParams::default();
    let write = async |status: Value| {
        let patch = kube::api::Patch::Merge(json!({ "status": status }));
        own.patch_status("a", &params, &patch).await.map(drop).map_err(|e| e.to_string())
    };
    let refused = write(json!({ "kratix": { "workflows": null } })).await.unwrap_err();
    assert!(refused.contains("Cache \"a\": status.kratix is the hub's"), "{refused}");
    let refused = write(json!({ "conditions": [] })).await.unwrap_err();
    assert!(refused.contains("the condition"), "{refused}");
    write(json!({ "message": "mine" })).await.unwrap();
    let seen = home.until(&requests, "a", |r| r["status"]["message"] == "mine").await;
    assert!(is(&seen, "ConfigureWorkflowCompleted", "True"), "{seen:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_taken_out_of_a_pipeline_is_taken_away() {
    let home = Home::open(renders()).await;
    let mut main = pipeline("main");
    main["spec"]["rbac"]["permissions"] = json!([
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] },
        { "resourceNamespace": "*", "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] },
    ]);
    let offer = promise("cache", "Cache", &[main]);
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let requests = home.of(&request("Cache", "a", "1"));
    home.apply(&request("Cache", "a", "1")).await.unwrap();
    home.until(&requests, "a", |r| is(r, "ConfigureWorkflowCompleted", "True")).await;
    let rights = async || {
        let mut names = Vec::new();
        for (kind, namespace) in [
            ("Role", Some("default")),
            ("RoleBinding", Some("default")),
            ("ClusterRole", None),
            ("ClusterRoleBinding", None),
        ] {
            let api = home.kind("rbac.authorization.k8s.io/v1", kind, namespace);
            let own = kube::api::ListParams::default().labels("kratix.io/pipeline-name=main");
            let listed = api.list(&own).await.unwrap().items;
            names.extend(
                listed.into_iter().map(|it| format!("{kind} {}", it.metadata.name.unwrap())),
            );
        }
        names
    };
    assert_eq!(rights().await.len(), 6);
    home.apply(&promise("cache", "Cache", &[pipeline("main")])).await.unwrap();
    let own = ["Role cache-resource-configure-main", "RoleBinding cache-resource-configure-main"];
    eventually(|| async { (rights().await == own).then_some(()) }).await.expect("rights to go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_runs_again_each_time_its_interval_has_passed() {
    let home = Home::open(renders()).await;
    let mut offer = promise("cache", "Cache", &[pipeline("main")]);
    offer["spec"]["workflows"]["config"] = json!({ "reconciliationInterval": "1h" });
    home.apply(&offer).await.unwrap();
    home.until(&home.of(&offer), "cache", |promise| is(promise, "Available", "True")).await;
    let wanted = request("Cache", "a", "1");
    home.apply(&wanted).await.unwrap();
    for runs in 1..=3 {
        eventually(|| async { (home.runs().len() == runs).then_some(()) }).await.expect("it runs");
        home.until(&home.of(&wanted), "a", |request| {
            is(request, "ConfigureWorkflowCompleted", "True")
        })
        .await;
        home.clock.skip(std::time::Duration::from_secs(3600));
    }
}
