//! `kill -9` of the hub at each step of a request's way: what was done is not done again. A container that
//! was running begins again, within its Job: nobody can know how far it had come.

use muster_e2e::{Agent, Executor, Hub, Kubectl, eventually, manifests::Promise, scratch};

/// What is waited for before the hub is killed: a step's name, what `kubectl get` is asked with a
/// request's name for `{}`, and what it then prints.
const STEPS: [(&str, &[&str], &str); 7] = [
    ("it was accepted", &["note/{}"], "{}"),
    ("its Job was made", &["jobs", "-l", "kratix.io/resource-name={}"], "{}"),
    ("its pod runs", &["pods", "-l", "kratix.io/resource-name={}"], "Init:"),
    ("its result is a Work", &["works", "-l", "kratix.io/resource-name={}"], "{}"),
    ("it was placed", &["workplacements", "-l", "kratix.io/resource-name={}"], "{}"),
    ("its pipelines are done", &["note/{}", "-o", COMPLETED], "True"),
    ("it was applied", &["note/{}", "-o", RECONCILED], "True"),
];
const COMPLETED: &str =
    r#"jsonpath={.status.conditions[?(@.type=="ConfigureWorkflowCompleted")].status}"#;
const RECONCILED: &str = r#"jsonpath={.status.conditions[?(@.type=="Reconciled")].status}"#;

const NOTE: Promise<'_> = Promise {
    name: "note",
    group: "example.org",
    platform: "tier: web",
    fields: &[("text", "{type: string}")],
    dependencies: "",
    script: r#"
sleep 1
cat > note.yaml <<END
apiVersion: fleet.muster.dev/v1alpha1
kind: Script
metadata: {name: $name}
spec:
  apply: {command: [sh, -c, "echo apply $name >> $text"]}
  remove: {command: [sh, -c, "echo remove $name >> $text"]}
END
"#,
    once: false,
};

#[test]
fn killed_at_each_step_the_hub_does_nothing_twice() {
    let scratch = scratch();
    let dir = scratch.path();
    let mut hub = Hub::start(dir, Executor::Process);
    let kubectl = hub.kubectl();
    let _agent = Agent::join(&hub, dir, "vm-1", &["tier=web"], &["shell"], None);
    kubectl.apply(&NOTE.yaml());
    kubectl.wait("promise/note", "Available");
    let file = dir.join("effects");
    let spec = format!("text: \"{}\"", file.display());
    let effects = |name: &str| {
        let all = std::fs::read_to_string(&file).unwrap_or_default();
        let own = all.lines().filter(|line| line.ends_with(&format!(" {name}")));
        own.map(str::to_owned).collect::<Vec<_>>()
    };

    for (step, (what, asked, told)) in STEPS.iter().enumerate() {
        let name = format!("at-{step}");
        kubectl.apply(&NOTE.request(&name, &spec));
        reach(&kubectl, asked, told, &name);
        hub.crash_and_restart();
        kubectl.wait(&format!("note/{name}"), "Reconciled");
        assert_eq!(count(&kubectl, "jobs", &name), 1, "Jobs of the one killed when {what}");
        assert_eq!(count(&kubectl, "works", &name), 1, "Works of the one killed when {what}");
        assert_eq!(count(&kubectl, "workplacements", &name), 1, "killed when {what}");
        assert_eq!(effects(&name), [format!("apply {name}")], "killed when {what}");
    }

    // On the way out, too: asked to go, and while what was applied is taken away.
    for (step, wait) in [(0, false), (1, true)] {
        let name = format!("at-{step}");
        kubectl.ok(&["delete", &format!("note/{name}"), "--wait=false"]);
        if wait {
            eventually("the removal to begin", || match effects(&name).len() {
                1 => Err("not yet".to_owned()),
                _ => Ok(()),
            });
        }
        hub.crash_and_restart();
        kubectl.gone(&format!("note/{name}"));
        assert_eq!(effects(&name), [format!("apply {name}"), format!("remove {name}")]);
        for kind in ["jobs", "works", "workplacements"] {
            assert_eq!(count(&kubectl, kind, &name), 0, "{kind} of {name} are left");
        }
    }
}

#[test]
fn killed_in_each_pipeline_the_hub_goes_on_with_that_one() {
    let scratch = scratch();
    let mut hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    // `kubectl get jobs` of one pipeline: how many there are, and how many have succeeded.
    let jobs = |pipeline: &str| {
        let label = format!("kratix.io/pipeline-name={pipeline}");
        let told = "jsonpath={range .items[*]}{.status.succeeded}{end}|";
        kubectl.ok(&["get", "jobs", "-A", "-l", &label, "-o", told])
    };
    let at_work = |pipeline: &str| {
        let label = format!("kratix.io/pipeline-name={pipeline}");
        kubectl.until(&["get", "pods", "-A", "-l", &label], |pods| pods.contains("Init:"));
    };

    kubectl.apply(STAGED);
    at_work("of-promise");
    hub.crash_and_restart();
    kubectl.wait("promise/staged", "Available");
    assert_eq!(jobs("of-promise"), "1|");

    kubectl.apply("apiVersion: example.org/v1\nkind: Staged\nmetadata: {name: one}\n");
    for pipeline in ["first", "second"] {
        at_work(pipeline);
        hub.crash_and_restart();
    }
    kubectl.wait("staged/one", "ConfigureWorkflowCompleted");
    for pipeline in ["of-promise", "first", "second"] {
        assert_eq!(jobs(pipeline), "1|", "{pipeline}");
    }
    assert_eq!(count(&kubectl, "works", "one"), 2, "one of each pipeline");

    kubectl.ok(&["delete", "staged/one", "--wait=false"]);
    at_work("last");
    hub.crash_and_restart();
    kubectl.gone("staged/one");
    for kind in ["jobs", "works"] {
        assert_eq!(count(&kubectl, kind, "one"), 0, "{kind} are left");
    }
    assert_eq!(jobs("of-promise"), "1|", "the Promise's own has nothing to do with it");
}

/// A pipeline of the Promise itself, two of its requests, and one of their removal; each takes a second.
const STAGED: &str = r#"
apiVersion: platform.kratix.io/v1alpha1
kind: Promise
metadata: {name: staged}
spec:
  api:
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata: {name: stageds.example.org}
    spec:
      group: example.org
      scope: Namespaced
      names: {kind: Staged, plural: stageds, singular: staged}
      versions:
      - name: v1
        served: true
        storage: true
        schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
  workflows:
    promise:
      configure:
      - {apiVersion: platform.kratix.io/v1alpha1, kind: Pipeline, metadata: {name: of-promise}, spec: &stage {containers: [{name: work, image: none, command: [sh, -c, "sleep 1; cp /kratix/input/object.yaml /kratix/output/"]}]}}
    resource:
      configure:
      - {apiVersion: platform.kratix.io/v1alpha1, kind: Pipeline, metadata: {name: first}, spec: *stage}
      - {apiVersion: platform.kratix.io/v1alpha1, kind: Pipeline, metadata: {name: second}, spec: *stage}
      delete:
      - {apiVersion: platform.kratix.io/v1alpha1, kind: Pipeline, metadata: {name: last}, spec: {containers: [{name: work, image: none, command: [sleep, "1"]}]}}
"#;

/// Waits until a request has come so far.
fn reach(kubectl: &Kubectl, asked: &[&str], told: &str, name: &str) {
    let asked: Vec<_> = asked.iter().map(|word| word.replace("{}", name)).collect();
    let mut args = vec!["get"];
    args.extend(asked.iter().map(String::as_str));
    kubectl.until(&args, |answer| answer.contains(&told.replace("{}", name)));
}

fn count(kubectl: &Kubectl, kind: &str, name: &str) -> usize {
    let label = format!("kratix.io/resource-name={name}");
    kubectl.ok(&["get", kind, "-l", &label, "-o", "name"]).lines().count()
}
