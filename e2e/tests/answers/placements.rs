//! Files that a destination cannot apply.

use muster_e2e::{Agent, Executor, Hub, scratch};

use crate::{install, promise, request};

#[test]
fn scripts_that_fail_or_hang_and_files_without_an_applier_are_named() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let _agent = Agent::join(&hub, directory.path(), "vm-1", &["platform=vm"], &["shell"], None);
    let script = r#"
script() {
  printf 'apiVersion: fleet.muster.dev/v1alpha1\nkind: Script\nmetadata: {name: %s}\nspec:\n  apply:\n    timeout: 1s\n    command: %s\n' "$1" "$2"
}
case $mode in
  fine) script fine '["true"]' > a.yaml ;;
  fails) script fails '[sh, -c, "echo no disk is left >&2; exit 7"]' > a.yaml ;;
  hangs) script hangs '[sleep, "600"]' > a.yaml ;;
  typo) script typo '["true"]' | sed 's/command/comand/' > a.yaml ;;
  object) printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n' > a.yaml ;;
esac
"#;
    install(&kubectl, &promise("widget", "vm", script), "widget");
    let bad: [(&str, &[&str]); 4] = [
        ("fails", &["fails", "no disk is left", "7"]),
        ("hangs", &["hangs", "1s"]),
        ("typo", &["a.yaml", "comand"]),
        ("object", &["kubernetes", "vm-1", "policy"]),
    ];
    complete_after_correction(&kubectl, &bad);
}

#[test]
fn a_manifest_that_the_cluster_refuses_is_named() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let kubeconfig = hub.kubeconfig().to_owned();
    let _agent = Agent::join(
        &hub,
        directory.path(),
        "cluster-1",
        &["platform=kubernetes"],
        &["kubernetes"],
        Some(&kubeconfig),
    );
    let script = r#"
printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default}\n' "$name" > a.yaml
case $mode in
  number) printf 'data: {replicas: 3}\n' >> a.yaml ;;
  unknown) printf 'apiVersion: nowhere.example.com/v1\nkind: Nothing\nmetadata: {name: a}\n' > a.yaml ;;
esac
"#;
    install(&kubectl, &promise("widget", "kubernetes", script), "widget");
    let bad: [(&str, &[&str]); 2] = [
        ("number", &["ConfigMap", "data.replicas", "a.yaml"]),
        ("unknown", &["nowhere.example.com/v1", "Nothing"]),
    ];
    complete_after_correction(&kubectl, &bad);
}

#[test]
fn what_terraform_refuses_is_told_in_its_words() {
    if !muster_e2e::has_part("MUSTER_TERRAFORM") {
        return;
    }
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let _agent = Agent::join(
        &hub,
        directory.path(),
        "infra-1",
        &["platform=terraform"],
        &["terraform"],
        None,
    );
    let script = r#"
case $mode in
  fine) printf 'output "a" { value = 1 }\n' > main.tf ;;
  unset) printf 'output "a" { value = var.missing }\n' > main.tf ;;
esac
"#;
    install(&kubectl, &promise("widget", "terraform", script), "widget");
    let bad: [(&str, &[&str]); 1] = [("unset", &["main.tf", "line 1", "undeclared"])];
    complete_after_correction(&kubectl, &bad);
}

/// Requests every bad mode, waits for its answer, and corrects nothing but the mode.
fn complete_after_correction(kubectl: &muster_e2e::Kubectl, bad: &[(&str, &[&str])]) {
    for (mode, _) in bad {
        kubectl.apply(&request("widget", mode, mode));
    }
    for (mode, fragments) in bad {
        let object = format!("widget/{mode}");
        kubectl.says(&object, fragments);
        kubectl.ok(&["patch", &object, "--type=merge", "-p", r#"{"spec":{"mode":"fine"}}"#]);
    }
    for (mode, _) in bad {
        kubectl.wait(&format!("widget/{mode}"), "Reconciled");
    }
}
