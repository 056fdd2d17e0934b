//! Pipelines whose results cannot be used, or that cannot run at all.

use muster_e2e::{Agent, Executor, Hub, scratch};

use crate::{install, promise, request};

const SCRIPT: &str = r"
printf 'apiVersion: fleet.muster.dev/v1alpha1\nkind: Script\nmetadata: {name: nothing}\nspec: {apply: {command: [true]}}\n' |
  sed 's/\[true\]/[\x27true\x27]/' > nothing.yaml
case $mode in
  nolist) printf 'platform: vm\n' > ../metadata/destination-selectors.yaml ;;
  climb) printf -- '- directory: ../up\n  matchLabels: {platform: vm}\n' > ../metadata/destination-selectors.yaml ;;
  owned) printf 'kratix: {a: b}\n' > ../metadata/status.yaml ;;
  fail) echo 'no such region' >&2; exit 3 ;;
esac
";

#[test]
fn results_that_cannot_be_used_are_named_and_a_corrected_request_completes() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let _agent = Agent::join(&hub, directory.path(), "vm-1", &["platform=vm"], &["shell"], None);
    install(&kubectl, &promise("widget", "vm", SCRIPT), "widget");

    let bad: [(&str, &[&str]); 4] = [
        ("nolist", &["render", "destination-selectors.yaml", "list"]),
        ("climb", &["render", "destination-selectors.yaml", "../up"]),
        ("owned", &["render", "status.yaml", "kratix"]),
        ("fail", &["render", "3", "no such region"]),
    ];
    for (mode, _) in &bad {
        kubectl.apply(&request("widget", mode, mode));
    }
    for (mode, fragments) in &bad {
        let object = format!("widget/{mode}");
        kubectl.says(&object, &[fragments, &["ConfigureWorkflowCompleted=False"][..]].concat());
        let patch = r#"{"spec":{"mode":"fine"}}"#;
        kubectl.ok(&["patch", &object, "--type=merge", "-p", patch]);
    }
    for (mode, _) in &bad {
        kubectl.wait(&format!("widget/{mode}"), "Reconciled");
    }
}

#[test]
fn an_image_that_cannot_be_run_is_named_with_what_to_install() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let promise = promise("widget", "vm", "true");
    // Without a command only the image knows what to run, and processes have no images.
    let imageless = promise
        .replace("            command: [sh, -c]\n", "")
        .replace("docker.io/library/busybox:1.36", "registry.example.com/render:2");
    install(&kubectl, &imageless, "widget");
    kubectl.apply(&request("widget", "a", "fine"));
    kubectl.says("widget/a", &["ImageNotRunnable", "registry.example.com/render:2", "podman"]);
}
