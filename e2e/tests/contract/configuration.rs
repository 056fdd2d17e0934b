//! The platform's configuration: read at start, applied without a restart, refused where it is wrong.

use muster_e2e::{
    Executor, Hub, Kubectl, S3Server, eventually, has_part,
    manifests::{Promise, bucket_store, fed, secret},
    scratch,
};
use serde_json::Value;

const BOXES: Promise<'_> = Promise {
    name: "crate",
    group: "contract.example",
    platform: "env: nowhere",
    fields: &[("size", "{type: string}")],
    dependencies: "",
    script: "echo $size > size.txt",
    once: false,
};

/// The ConfigMap, as people write it.
fn configured(config: &str) -> String {
    let indented: String = config.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: kratix, namespace: \
         kratix-platform-system}}\ndata:\n  config: |\n{indented}"
    )
}

/// The Jobs of a request, the newest last.
fn jobs(kubectl: &Kubectl, request: &str) -> Vec<Value> {
    let selector = format!("kratix.io/resource-name={request}");
    let listed = kubectl.ok(&["get", "jobs", "-l", &selector, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut jobs = listed["items"].as_array().unwrap().clone();
    let run = |job: &Value| {
        let label = &job["metadata"]["labels"]["fleet.muster.dev/run"];
        label.as_str().unwrap_or_default().parse::<i64>().unwrap_or_default()
    };
    jobs.sort_by_key(run);
    jobs
}

/// Asks for a new run, and waits until it is over and its Job is there.
fn run_again(kubectl: &Kubectl, request: &str) -> Value {
    let before = jobs(kubectl, request);
    let last = before.last().unwrap()["metadata"]["name"].clone();
    let object = format!("crate/{request}");
    kubectl.ok(&["label", &object, "kratix.io/manual-reconciliation=true"]);
    eventually("a new Job that is complete", || {
        let now = jobs(kubectl, request);
        let newest = now.last().cloned().unwrap_or_default();
        let complete = newest["status"]["succeeded"] == 1;
        let other = newest["metadata"]["name"] != last;
        if other && complete { Ok(newest) } else { Err(newest["status"].to_string()) }
    })
}

fn is_json(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object())
}

#[test]
fn the_configuration_holds_from_the_next_look_on() {
    let directory = scratch();
    let mut hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&BOXES.yaml());
    kubectl.wait("promise/crate", "Available");
    kubectl.apply(&BOXES.request("a", "size: small"));
    kubectl.wait("crate/a", "ConfigureWorkflowCompleted");
    assert_eq!(jobs(&kubectl, "a")[0]["spec"]["backoffLimit"], 2, "the hub's own default");

    let answer = kubectl.with_input(
        &["apply", "-f", "-"],
        &configured(
            "workflows:\n  defaultContainerSecurityContext: {runAsUser: 1234, runAsNonRoot: true}\n  \
             defaultImagePullPolicy: Never\n  defaultContainerResources: {limits: {memory: 99Mi}}\n  \
             jobOptions: {defaultBackoffLimit: 4}\nnumberOfJobsToKeep: 2\nselectiveCache: true\n\
             telemetry: {endpoint: 'otel:4317'}\nnumberOfJobs: 3\nlogging: {structured: true, level: \
             debug}",
        ),
    );
    assert!(answer.ok, "{}", answer.stderr);
    for told in [
        "selectiveCache has no effect: the hub keeps no cache of Secrets",
        "telemetry has no effect",
        "numberOfJobs: nobody knows this option",
    ] {
        assert!(answer.stderr.contains(told), "{told:?} is not in {}", answer.stderr);
    }
    has_event(&kubectl, "ConfigurationApplied");
    let job = run_again(&kubectl, "a");
    assert_eq!(job["spec"]["backoffLimit"], 4);
    let pod = &job["spec"]["template"]["spec"];
    let (reader, user) = (&pod["initContainers"][0], &pod["initContainers"][1]);
    assert_eq!(user["securityContext"]["runAsUser"], 1234);
    assert_eq!(reader["securityContext"]["runAsUser"], Value::Null, "the hub's own stays as it is");
    for container in [reader, user, &pod["containers"][0]] {
        assert_eq!(container["imagePullPolicy"], "Never", "{container}");
        assert_eq!(container["resources"]["limits"]["memory"], "99Mi", "{container}");
    }
    run_again(&kubectl, "a");
    eventually("two Jobs to be kept", || {
        let kept = jobs(&kubectl, "a").len();
        if kept == 2 { Ok(()) } else { Err(format!("{kept} are")) }
    });
    eventually("lines of the log that are objects", || {
        let log = hub.process().log();
        let lines = log.lines().filter(|line| is_json(line)).count();
        if lines > 0 && log.contains("\"level\":\"DEBUG\"") { Ok(()) } else { Err(log) }
    });

    // Pods go after their time; their Jobs stay.
    kubectl.apply(&configured("workflows: {jobOptions: {podTTLSecondsAfterFinished: 0}}"));
    kubectl.until(&["get", "pods", "-o", "name"], str::is_empty);
    assert_eq!(jobs(&kubectl, "a").len(), 2);
    wrong_ones_are_refused(&kubectl);

    // What is configured is read at the start, too; without it the hub's own defaults hold again.
    kubectl.apply(&configured("workflows: {jobOptions: {defaultBackoffLimit: 7}}"));
    hub.stop();
    hub.restart();
    assert_eq!(run_again(&kubectl, "a")["spec"]["backoffLimit"], 7);
    kubectl.ok(&["delete", "configmap", "kratix", "-n", "kratix-platform-system"]);
    eventually("the hub's own default", || {
        let limit = run_again(&kubectl, "a")["spec"]["backoffLimit"].clone();
        if limit == 2 { Ok(()) } else { Err(limit.to_string()) }
    });
}

/// A bucket tells nobody that something was taken out of it; by itself the hub looks after minutes.
#[test]
fn the_operator_says_how_often_state_stores_are_compared() {
    if !has_part("MUSTER_S3_SERVER") {
        return;
    }
    let directory = scratch();
    let server = S3Server::start(directory.path());
    server.create("pail");
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let login = [("accessKeyID", S3Server::ID), ("secretAccessKey", S3Server::SECRET)];
    kubectl.apply(
        &(secret("pail", &login)
            + &bucket_store("pail", &server.endpoint(), "pail", "")
            + &fed("dev", "BucketStateStore", "pail", "")),
    );
    kubectl.apply(&Promise { platform: "place: dev", ..BOXES }.yaml());
    kubectl.wait("promise/crate", "Available");
    kubectl.apply(&BOXES.request("a", "size: small"));
    kubectl.wait("crate/a", "Reconciled");
    let file = "dev/resources/default/crate/a/render/5058f/size.txt";
    assert!(server.tree("pail").contains_key(file));
    kubectl.apply(&configured("stateStoreReconciliationInterval: 10s"));
    has_event(&kubectl, "ConfigurationApplied");
    server.delete("pail", file);
    eventually("the file to be there again", || {
        let tree = server.tree("pail");
        if tree.contains_key(file) { Ok(()) } else { Err(format!("{:?}", tree.keys())) }
    });
}

fn wrong_ones_are_refused(kubectl: &Kubectl) {
    for (config, told) in [
        ("numberOfJobsToKeep: 0", "data[config]: numberOfJobsToKeep: Invalid value: 0"),
        ("reconciliationInterval: 5s", "reconciliationInterval: Invalid value"),
        ("reconciliationInterval: often", "must be a valid duration"),
        ("logging: {level: loud}", "logging.level: Unsupported value: \"loud\""),
        ("resourceBindingVersionStrategy: x", "it is floating or pinned"),
        (
            "workflows: {defaultContainerResources: {limits: {memory: lots}}}",
            "quantities must match the regular expression",
        ),
        ("workflows: [", "ConfigMap \"kratix\" is invalid: data[config]: "),
    ] {
        let said = kubectl.refused(&["apply", "-f", "-"], &configured(config));
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
    // Another ConfigMap may say what it likes.
    kubectl.apply(&configured("numberOfJobsToKeep: 0").replace("name: kratix,", "name: other,"));
}

fn has_event(kubectl: &Kubectl, reason: &str) {
    let field = format!("reason={reason},involvedObject.name=kratix");
    let args = ["get", "events", "-n", "kratix-platform-system", "--field-selector", &field];
    kubectl.until(&args, |listed| listed.contains(reason));
}
