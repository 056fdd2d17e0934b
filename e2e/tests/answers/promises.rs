//! Promises that cannot work, and requests that do not fit theirs.

use muster_e2e::{Agent, Executor, Hub, scratch};

use crate::{install, promise, request};

const SCRIPT: &str = "printf 'apiVersion: fleet.muster.dev/v1alpha1\\nkind: Script\\n\
    metadata: {name: nothing}\\nspec: {apply: {command: [\"true\"]}}\\n' > nothing.yaml";

#[test]
fn promises_that_cannot_work_are_refused_by_name() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let good = promise("widget", "vm", SCRIPT);
    let second_pipeline = {
        let pipelines = good.split_once("      configure:\n").unwrap().1;
        format!("{good}{pipelines}")
    };
    let bad: [(String, &[&str]); 4] = [
        (
            good.replace("apiVersion: apiextensions.k8s.io/v1", "apiVersion: v1")
                .replace("kind: CustomResourceDefinition", "kind: ConfigMap"),
            &["spec.api", "CustomResourceDefinition"],
        ),
        (
            good.replace("scope: Namespaced", "scope: Cluster"),
            &["spec.api.spec.scope", "Cluster", "namespace"],
        ),
        (
            good.replace("image: docker", "imagge: docker"),
            &["imagge", "spec.workflows.resource.configure[0]"],
        ),
        (second_pipeline, &["duplicate pipeline name \"render\"", "resource", "configure"]),
    ];
    for (document, fragments) in &bad {
        let told = kubectl.refused(&["apply", "-f", "-"], document);
        for fragment in *fragments {
            assert!(told.contains(fragment), "{fragment:?} is not in: {told}");
        }
    }
    install(&kubectl, &good, "widget");

    let renamed = good.replace("kind: Widget", "kind: Gadget");
    let told = kubectl.refused(&["apply", "-f", "-"], &renamed);
    assert!(told.contains("widget") && told.contains("kind"), "{told}");
    kubectl.wait("promise/widget", "Available");
}

#[test]
fn a_request_that_does_not_fit_is_refused_and_one_that_is_early_waits() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let _agent = Agent::join(&hub, directory.path(), "vm-1", &["platform=vm"], &["shell"], None);

    let needy = promise("widget", "vm", SCRIPT).replace(
        "spec:\n  destinationSelectors",
        "spec:\n  requiredPromises: [{name: base}]\n  destinationSelectors",
    );
    kubectl.apply(&needy);
    kubectl.until(&["get", "crd", "widgets.answers.example.com"], |_| true);
    kubectl.wait("crd/widgets.answers.example.com", "Established");

    let told =
        kubectl.refused(&["apply", "-f", "-"], &request("widget", "a", "much-too-long-for-it"));
    assert!(told.contains("spec.mode") && told.contains("12"), "{told}");
    let told = kubectl
        .refused(&["apply", "-f", "-"], &request("widget", "a", "").replace("mode: ", "moed: x"));
    assert!(told.contains("moed") || told.contains("spec.mode"), "{told}");

    kubectl.apply(&request("widget", "a", "fine"));
    kubectl.says("widget/a", &["PromiseAvailable=False"]);
    kubectl.says("promise/widget", &["Requirements not fulfilled"]);
    kubectl.apply(&promise("base", "vm", SCRIPT));
    kubectl.wait("widget/a", "Reconciled");
}
