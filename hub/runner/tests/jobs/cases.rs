//! What becomes of Jobs.

use std::{io::BufRead, process::Stdio, time::Duration};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use muster_runner::adapter_image;
use serde_json::{Value, json};

use crate::rig::{Rig, Test, run_all};

pub(crate) async fn run(filter: &[String]) -> usize {
    macro_rules! tests {
        ($($name:ident),* $(,)?) => {
            [$((stringify!($name), {
                fn run() -> std::pin::Pin<Box<dyn Future<Output = ()>>> { Box::pin($name()) }
                run as _
            })),*]
        };
    }
    let tests: [Test; 16] = tests![
        completes_with_the_status_of_kubernetes,
        runs_init_containers_in_order_and_shares_volumes,
        resolves_environment_and_volumes,
        hands_output_to_the_hub,
        gives_the_hubs_own_containers_no_more_than_the_pod_has,
        reaches_the_api_with_its_token,
        tries_again_and_gives_up_at_the_backoff_limit,
        restarts_a_container_on_failure,
        names_the_image_that_cannot_be_run,
        refuses_what_it_does_not_do,
        ends_at_its_deadline,
        ends_when_the_job_is_deleted,
        replaces_a_pod_that_was_deleted,
        waits_while_it_is_suspended,
        removes_a_finished_job_after_its_time,
        survives_the_death_of_the_hub_and_leaves_nothing,
    ];
    let mut failed = run_all(&tests, filter).await;
    if filter.iter().any(|part| part == "bench") {
        let bench: [Test; 1] = tests![bench];
        failed += run_all(&bench, filter).await;
    }
    failed
}

/// A Job of one script; `patch` is merged into it.
fn job(name: &str, script: &str, patch: Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container("main", script)]}}}});
    merge(&mut job, &patch);
    job
}

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "example.org/sh:1", "command": ["sh", "-c", script]})
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn pod_spec(patch: Value) -> Value {
    json!({"spec": {"template": {"spec": patch}}})
}

async fn ready() -> Rig {
    let rig = Rig::new().await;
    rig.service_account("default").await;
    rig
}

async fn completes_with_the_status_of_kubernetes() {
    let rig = ready().await;
    rig.create::<Job>(job("hello", "echo hello", json!({}))).await;
    assert_eq!(rig.over("hello").await.0, "Complete");
    let job = rig.job("hello", |_| true).await;
    let status = job.status.unwrap();
    assert_eq!((status.succeeded, status.active, status.failed), (Some(1), Some(0), None));
    assert!(status.start_time <= status.completion_time && status.start_time.is_some());
    let pod = &rig.pods("hello").await[0];
    let status = pod.status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert!(status.message.unwrap().contains("example.org/sh:1 was not used"));
    let container = &status.container_statuses.unwrap()[0];
    let ended = container.state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (0, Some("Completed")));
    assert_eq!(rig.log(pod, "main").await, "hello\n");
    let reasons = rig
        .until(async || {
            let events = rig.api::<Event>().list(&Default::default()).await.unwrap();
            let reasons: Vec<String> = events.into_iter().filter_map(|e| e.reason).collect();
            (reasons.len() >= 2).then_some(reasons)
        })
        .await;
    assert!(reasons.contains(&"SuccessfulCreate".to_owned()), "{reasons:?}");
    assert!(reasons.contains(&"Completed".to_owned()), "{reasons:?}");
    assert_eq!(std::fs::read_dir(rig.data_dir.join("pods")).unwrap().count(), 0);
    rig.stop().await;
}

async fn runs_init_containers_in_order_and_shares_volumes() {
    let rig = ready().await;
    let mounts = json!([{"name": "shared", "mountPath": "/kratix/output"}]);
    let step = |name: &str, script: &str| {
        let mut container = container(name, script);
        container["volumeMounts"] = mounts.clone();
        container
    };
    let patch = pod_spec(json!({"volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [step("one", "echo 1 >> /kratix/output/order"),
            step("two", "echo 2 >> /kratix/output/order")],
        "containers": [step("main", "cat /kratix/output/order")]}));
    rig.create::<Job>(job("ordered", "", patch)).await;
    assert_eq!(rig.over("ordered").await.0, "Complete");
    assert_eq!(rig.log(&rig.pods("ordered").await[0], "main").await, "1\n2\n");
    rig.stop().await;
}

async fn resolves_environment_and_volumes() {
    let rig = ready().await;
    rig.config_map(json!({"metadata": {"name": "settings"},
        "data": {"colour": "green", "run.sh": "echo from a file"}}))
        .await;
    let script = "echo $COLOUR $NAMESPACE $BOTH $EXTRA_colour; cat /files/deep/colour; \
                  sh /files/run.sh; cat /labels/labels; echo $1";
    let patch = pod_spec(json!({
        "volumes": [
            {"name": "files", "configMap": {"name": "settings", "items": [
                {"key": "colour", "path": "deep/colour"}, {"key": "run.sh", "path": "run.sh"}]}},
            {"name": "labels", "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels['job-name']"}}]}}],
        "containers": [{"name": "main", "image": "i:1", "command": ["sh", "-c", script],
            "args": ["sh", "$(COLOUR)!"],
            "envFrom": [{"prefix": "EXTRA_", "configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "COLOUR", "valueFrom": {"configMapKeyRef":
                    {"name": "settings", "key": "colour"}}},
                {"name": "NAMESPACE", "valueFrom": {"fieldRef":
                    {"fieldPath": "metadata.namespace"}}},
                {"name": "BOTH", "value": "$(COLOUR)-$(NAMESPACE)"}],
            "volumeMounts": [{"name": "files", "mountPath": "/files"},
                {"name": "labels", "mountPath": "/labels"}]}]}));
    rig.create::<Job>(job("resolved", "", patch)).await;
    assert_eq!(rig.over("resolved").await.0, "Complete");
    let log = rig.log(&rig.pods("resolved").await[0], "main").await;
    let expected = "green default green-default green\ngreenfrom a file\nresolvedgreen!\n";
    assert_eq!(log, expected);
    // What is not there yet is waited for, and said.
    let missing = json!([{"name": "main", "image": "i:1", "command": ["true"],
        "envFrom": [{"configMapRef": {"name": "later"}}]}]);
    rig.create::<Job>(job("patient", "", pod_spec(json!({"containers": missing})))).await;
    rig.pod("patient", |pod| format!("{:?}", pod.status).contains("\\\"later\\\" not found")).await;
    rig.config_map(json!({"metadata": {"name": "later"}, "data": {}})).await;
    assert_eq!(rig.over("patient").await.0, "Complete");
    rig.stop().await;
}

/// A Job of Kratix's shape: reader, a user's container, work-writer, status-writer.
fn pipeline(name: &str, script: &str) -> Value {
    let env = json!([{"name": "KRATIX_OBJECT_GROUP", "value": ""},
        {"name": "KRATIX_OBJECT_VERSION", "value": "v1"},
        {"name": "KRATIX_CRD_PLURAL", "value": "configmaps"},
        {"name": "KRATIX_OBJECT_NAME", "value": "request"},
        {"name": "KRATIX_OBJECT_NAMESPACE", "value": "default"},
        {"name": "KRATIX_CLUSTER_SCOPED", "value": "false"}]);
    let mounts = |input: &str, output: &str, metadata: &str| {
        json!([{"name": "shared-input", "mountPath": input},
            {"name": "shared-output", "mountPath": output},
            {"name": "shared-metadata", "mountPath": metadata}])
    };
    let usual = mounts("/kratix/input", "/kratix/output", "/kratix/metadata");
    let own = |name: &str, args: Value, mounts: Value| {
        json!({"name": name, "image": adapter_image(), "command": ["/bin/pipeline-adapter"],
            "args": args, "env": env, "volumeMounts": mounts})
    };
    let mut user = container("render", script);
    user["volumeMounts"] = usual.clone();
    let files = mounts("/unused", "/work-creator-files/input", "/work-creator-files/metadata");
    let told = json!([{"name": "shared-metadata", "mountPath": "/work-creator-files/metadata"}]);
    let writer = json!([
        "work-creator",
        "--input-directory",
        "/work-creator-files",
        "--promise-name",
        "p",
        "--pipeline-name",
        "l",
        "--namespace",
        "default",
        "--workflow-type",
        "resource"
    ]);
    let volumes = ["shared-input", "shared-output", "shared-metadata"]
        .map(|name| json!({"name": name, "emptyDir": {}}));
    let patch = pod_spec(json!({
        "serviceAccountName": "pipeline",
        "volumes": volumes,
        "initContainers": [own("reader", json!(["reader"]), usual), user,
            own("work-writer", writer, files)],
        "containers": [own("status-writer", json!(["update-status"]), told)]}));
    job(name, "", patch)
}

async fn allow_reading(rig: &Rig) {
    use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
    rig.service_account("pipeline").await;
    rig.config_map(json!({"metadata": {"name": "request"}, "data": {"size": "small"}})).await;
    rig.create::<Role>(json!({"metadata": {"name": "pipeline"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]}))
        .await;
    rig.create::<RoleBinding>(json!({"metadata": {"name": "pipeline"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pipeline"},
        "subjects": [{"kind": "ServiceAccount", "name": "pipeline", "namespace": "default"}]}))
        .await;
}

async fn hands_output_to_the_hub() {
    let rig = ready().await;
    allow_reading(&rig).await;
    let script = "mkdir /kratix/output/sub /kratix/output/none; cp /kratix/input/object.yaml /kratix/output/sub/copy.yaml; \
                  echo 'message: done' > /kratix/metadata/status.yaml; echo x > /kratix/metadata/other";
    rig.create::<Job>(pipeline("render", script)).await;
    let over = rig.over("render").await;
    let pod = &rig.pods("render").await[0];
    assert_eq!(over.0, "Complete", "{over:?} {:?}", pod.status);
    let results = std::mem::take(&mut *rig.results.0.lock().unwrap());
    let [(output_path, by, output), (status_path, _, status)] = &results[..] else {
        panic!("{} results", results.len())
    };
    assert_eq!(output_path, "/muster/results/default/render/output");
    assert_eq!(status_path, "/muster/results/default/render/status");
    assert_eq!(by, &pod.name_any());
    let paths: Vec<&str> = output.iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["empty-directories", "metadata/status.yaml", "output/sub/copy.yaml"]);
    assert_eq!(output.get("empty-directories").unwrap(), b"none");
    let copy = std::str::from_utf8(output.get("output/sub/copy.yaml").unwrap()).unwrap();
    assert!(copy.starts_with("apiVersion: v1\ndata:\n  size: small\nkind: ConfigMap\n"), "{copy}");
    assert_eq!(status.get("metadata/status.yaml").unwrap(), b"message: done\n");
    // What cannot be delivered fails the container that collects, which names the file.
    rig.create::<Job>(pipeline("linked", "ln -s /etc/passwd /kratix/output/users")).await;
    assert_eq!(rig.over("linked").await.0, "Failed");
    let log = rig.log(&rig.pods("linked").await[0], "work-writer").await;
    assert!(log.contains("output/users") && log.contains("symbolic link"), "{log}");
    rig.stop().await;
}

async fn gives_the_hubs_own_containers_no_more_than_the_pod_has() {
    let rig = ready().await;
    let version = rig.door.list_core_api_versions().await;
    let refused = matches!(&version, Err(kube::Error::Api(status)) if status.code == 401);
    assert!(refused, "without a token: {version:?}");
    // The ServiceAccount is there; no Role lets it read the object.
    rig.service_account("pipeline").await;
    rig.create::<Job>(pipeline("unbound", "echo ran")).await;
    assert_eq!(rig.over("unbound").await.0, "Failed");
    let pod = &rig.pods("unbound").await[0];
    let states = pod.status.clone().unwrap().init_container_statuses.unwrap();
    let state = |index: usize| states[index].state.clone().unwrap();
    assert_eq!(state(0).terminated.unwrap().exit_code, 1);
    assert!(state(1).waiting.is_some(), "ran after the reader's failure");
    let log = rig.log(pod, "reader").await;
    assert!(log.starts_with("error: the hub refused GET"), "{log}");
    assert!(log.contains("serviceaccount:default:pipeline"), "{log}");
    rig.stop().await;
}

async fn reaches_the_api_with_its_token() {
    let rig = ready().await;
    allow_reading(&rig).await;
    let script = "python3 - <<'END'\nimport os, ssl, urllib.request\n\
        d = '/var/run/secrets/kubernetes.io/serviceaccount/'\n\
        host = os.environ['KUBERNETES_SERVICE_HOST'] + ':' + os.environ['KUBERNETES_SERVICE_PORT']\n\
        for what in ['configmaps/request', 'secrets']:\n  \
          r = urllib.request.Request('https://' + host + '/api/v1/namespaces/'\n    \
            + open(d + 'namespace').read() + '/' + what,\n    \
            headers={'Authorization': 'Bearer ' + open(d + 'token').read()})\n  \
          try: print(urllib.request.urlopen(r, context=ssl.create_default_context(cafile=d + 'ca.crt')).status)\n  \
          except urllib.error.HTTPError as e: print(e.code)\nEND";
    let patch = pod_spec(json!({"serviceAccountName": "pipeline"}));
    rig.create::<Job>(job("asks", script, patch)).await;
    rig.over("asks").await;
    assert_eq!(rig.log(&rig.pods("asks").await[0], "main").await, "200\n403\n");
    rig.stop().await;
}

async fn tries_again_and_gives_up_at_the_backoff_limit() {
    let rig = ready().await;
    let patch = json!({"spec": {"backoffLimit": 2}});
    rig.create::<Job>(job("fails", "echo no luck; exit 7", patch)).await;
    let (kind, reason, message) = rig.over("fails").await;
    assert_eq!((kind.as_str(), reason.as_str()), ("Failed", "BackoffLimitExceeded"), "{message}");
    assert_eq!(rig.job("fails", |_| true).await.status.unwrap().failed, Some(3));
    let pods = rig.pods("fails").await;
    assert_eq!(pods.len(), 3);
    let status = pods[0].status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.message.as_deref()), (7, Some("no luck")));
    rig.stop().await;
}

async fn restarts_a_container_on_failure() {
    let rig = ready().await;
    let patch = json!({"spec": {"backoffLimit": 6, "template": {"spec": {
        "restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "main", "image": "i:1",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "command": ["sh", "-c", "echo x >> /v/n; [ $(wc -l < /v/n) = 3 ]"]}]}}}});
    rig.create::<Job>(job("stubborn", "", patch)).await;
    assert_eq!(rig.over("stubborn").await.0, "Complete");
    let pods = rig.pods("stubborn").await;
    assert_eq!(pods.len(), 1);
    let container = &pods[0].status.clone().unwrap().container_statuses.unwrap()[0];
    assert_eq!(container.restart_count, 2);
    rig.stop().await;
}

async fn names_the_image_that_cannot_be_run() {
    let rig = ready().await;
    let patch = json!({"spec": {"backoffLimit": 6, "template": {"spec": {"containers": [
        {"name": "main", "image": "ghcr.io/somebody/render:v2"}]}}}});
    rig.create::<Job>(job("imaged", "", patch)).await;
    let (kind, reason, message) = rig.over("imaged").await;
    assert_eq!((kind.as_str(), reason.as_str()), ("Failed", "ImageNotRunnable"));
    assert!(message.contains("ghcr.io/somebody/render:v2") && message.contains("podman"));
    let pods = rig.pods("imaged").await;
    assert_eq!(pods.len(), 1, "trying again cannot help");
    let waiting = pods[0].status.clone().unwrap().container_statuses.unwrap()[0]
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ImageNotRunnable"));
    rig.stop().await;
}

async fn refuses_what_it_does_not_do() {
    let rig = ready().await;
    rig.create::<Job>(job("wide", "true", json!({"spec": {"parallelism": 3}}))).await;
    let (kind, reason, message) = rig.over("wide").await;
    assert_eq!((kind.as_str(), reason.as_str()), ("Failed", "Unsupported"));
    assert!(message.contains("spec.completions"), "{message}");
    assert!(rig.pods("wide").await.is_empty());
    rig.stop().await;
}

async fn ends_at_its_deadline() {
    let rig = ready().await;
    let patch = json!({"spec": {"activeDeadlineSeconds": 1, "backoffLimit": 6}});
    rig.create::<Job>(job("slow", "while :; do sleep 1; done", patch)).await;
    let (kind, reason, _) = rig.over("slow").await;
    assert_eq!((kind.as_str(), reason.as_str()), ("Failed", "DeadlineExceeded"));
    assert_eq!(rig.pods("slow").await.len(), 1);
    rig.stop().await;
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Processes of this machine that carry `mark` in their arguments.
fn processes(mark: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(mark))
        .count()
}

async fn ends_when_the_job_is_deleted() {
    let rig = ready().await;
    let mark = format!("mark-{:08x}", rand::random::<u32>());
    let script = format!(": {mark}; while :; do sleep 1; done");
    rig.create::<Job>(job("unwanted", &script, json!({}))).await;
    rig.pod("unwanted", is_running).await;
    assert!(processes(&mark) > 0);
    rig.api::<Job>().delete("unwanted", &DeleteParams::background()).await.unwrap();
    rig.until(async || (processes(&mark) == 0).then_some(())).await;
    rig.until(async || rig.pods("unwanted").await.is_empty().then_some(())).await;
    rig.until(async || {
        let logs = std::fs::read_dir(rig.data_dir.join("logs")).unwrap().count();
        let pods = std::fs::read_dir(rig.data_dir.join("pods")).unwrap().count();
        (logs + pods == 0).then_some(())
    })
    .await;
    rig.stop().await;
}

async fn replaces_a_pod_that_was_deleted() {
    let rig = ready().await;
    rig.create::<Job>(job("kept", "while :; do sleep 1; done", json!({}))).await;
    let first = rig.pod("kept", is_running).await;
    rig.api::<Pod>().delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    let second = rig.pod("kept", |pod| is_running(pod) && pod.uid() != first.uid()).await;
    assert_ne!(second.name_any(), first.name_any());
    assert_eq!(rig.job("kept", |_| true).await.status.unwrap().failed, None);
    rig.stop().await;
}

async fn waits_while_it_is_suspended() {
    let rig = ready().await;
    rig.create::<Job>(job("asleep", "true", json!({"spec": {"suspend": true}}))).await;
    rig.job("asleep", |job| format!("{:?}", job.status).contains("JobSuspended")).await;
    assert!(rig.pods("asleep").await.is_empty());
    let wake = Patch::Merge(json!({"spec": {"suspend": false}}));
    rig.api::<Job>().patch("asleep", &PatchParams::default(), &wake).await.unwrap();
    assert_eq!(rig.over("asleep").await.0, "Complete");
    rig.stop().await;
}

async fn removes_a_finished_job_after_its_time() {
    let rig = ready().await;
    rig.create::<Job>(job("brief", "true", json!({"spec": {"ttlSecondsAfterFinished": 0}}))).await;
    rig.until(async || rig.api::<Job>().get_opt("brief").await.unwrap().is_none().then_some(()))
        .await;
    rig.until(async || rig.pods("brief").await.is_empty().then_some(())).await;
    rig.stop().await;
}

/// Starts this executable as a hub on `dir` and waits until it is ready.
fn hub(dir: &std::path::Path) -> std::process::Child {
    let mut hub = std::process::Command::new(std::env::current_exe().unwrap())
        .arg("hub")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(hub.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    hub
}

async fn survives_the_death_of_the_hub_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mark = format!("mark-{:08x}", rand::random::<u32>());
    let script =
        format!(": {mark}; (setsid sh -c 'trap : TERM HUP; : {mark}; sleep 999' &); sleep 3");
    let job = job("mortal", &script, json!({"spec": {"backoffLimit": 0}}));
    std::fs::write(dir.path().join("job.json"), job.to_string()).unwrap();
    for _ in 0..3 {
        let mut hub = hub(dir.path());
        while processes(&mark) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        hub.kill().unwrap();
        hub.wait().unwrap();
        let mut waited = 0;
        while processes(&mark) > 0 {
            waited += 1;
            assert!(waited < 2000, "a pipeline outlives its hub");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let rig = Rig::open(dir.path(), muster_runner::ExecutorKind::Process).await;
    assert_eq!(rig.over("mortal").await.0, "Complete");
    let pods = rig.pods("mortal").await;
    let lost =
        |pod: &&Pod| pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("HubRestarted");
    assert_eq!((pods.len(), pods.iter().filter(lost).count()), (4, 3));
    assert_eq!(std::fs::read_dir(dir.path().join("data/pods")).unwrap().count(), 0);
    rig.stop().await;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "a mount stays behind: {mounts}");
}

/// Prints what one pod costs: `cargo test -p muster-runner --test jobs -- bench`.
async fn bench() {
    let rig = ready().await;
    allow_reading(&rig).await;
    for (what, make) in [
        (
            "a Job of one container",
            (|name: &str| job(name, "true", json!({}))) as fn(&str) -> Value,
        ),
        ("a pipeline of four containers", |name: &str| {
            pipeline(name, "cp /kratix/input/object.yaml /kratix/output/")
        }),
    ] {
        let mut times = Vec::new();
        for n in 0..30 {
            let name = format!("bench-{n}-{}", what.len());
            let started = std::time::Instant::now();
            rig.create::<Job>(make(&name)).await;
            assert_eq!(rig.over(&name).await.0, "Complete");
            times.push(started.elapsed());
        }
        times.sort_unstable();
        println!("{what}: median {:?}, slowest {:?}", times[times.len() / 2], times[29]);
    }
    rig.stop().await;
}
