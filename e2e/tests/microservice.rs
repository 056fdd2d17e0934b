//! The story of a request that is made of five others, told by the real programs and the real kubectl.

use std::{fs, path::Path};

use muster_e2e::{Agent, Executor, Hub, Kubectl, sample, scratch};

/// What the parts come to: each kind, as kubectl takes it.
const PARTS: [&str; 5] =
    ["teamnamespaces", "networkpolicysets", "postgreses", "cipipelines", "monitorings"];
/// The hub's own API, which stands for the cluster, has no network policies.
const NETWORK_POLICIES: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: networkpolicies.networking.k8s.io
  annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes/kubernetes/pull/78458"}
spec:
  group: networking.k8s.io
  scope: Namespaced
  names: {kind: NetworkPolicy, plural: networkpolicies, singular: networkpolicy}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

fn apply(kubectl: &Kubectl, file: &str) {
    let path = sample(&format!("microservice/{file}")).display().to_string();
    kubectl.ok(&["apply", "-f", &path]);
}

/// A hub whose agent applies to the hub's own API.
fn platform(dir: &Path) -> (Hub, Agent) {
    let hub = Hub::start(dir, Executor::Process);
    hub.kubectl().apply(NETWORK_POLICIES);
    let (labels, target) = (["platform=kubernetes"], hub.kubeconfig().to_owned());
    let agent = Agent::join(&hub, dir, "cluster", &labels, &["kubernetes"], Some(&target));
    (hub, agent)
}

#[test]
fn a_microservice_is_made_of_five_requests_changed_and_removed_without_a_trace() {
    let scratch = scratch();
    let (hub, _agent) = platform(scratch.path());
    let kubectl = hub.kubectl();

    // It can be asked for when all that it is made of is offered.
    apply(&kubectl, "promise.yaml");
    kubectl.wait("promise/microservice", "RequirementsFulfilled=False");
    apply(&kubectl, "parts.yaml");
    kubectl.wait("promise/microservice", "Available");

    apply(&kubectl, "request.yaml");
    let request = "microservice/shop";
    kubectl.wait(request, "Reconciled");
    for part in PARTS {
        let parent = kubectl.ok(&["get", part, "shop", "-o", OWNER]);
        assert_eq!(parent, "Microservice/shop", "of {part}");
    }
    // As the sample's README shows it.
    let readme = fs::read_to_string(sample("microservice/README.md")).unwrap();
    let is_shown = |text: &str| {
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        readme.contains(&lines.join("\n"))
    };
    kubectl.until(&["get", "microservice,postgres,monitoring"], is_shown);
    let explained = hub.muster(&["explain", "microservice", "shop"]).output().unwrap();
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(is_shown(&explained), "{explained}");
    // What one part says of itself reached another.
    let map = kubectl.ok(&["get", "configmap", "shop-monitoring", "-n", "shop", "-o", "yaml"]);
    assert!(map.contains("shop-db.shop.svc:9187"), "{map}");
    assert_eq!(kubectl.ok(&["get", request, "-o", MESSAGE]), "shop uses shop-db.shop.svc");
    kubectl.ok(&["get", "networkpolicy", "from-ingress-only", "-n", "shop"]);

    kubectl.ok(&["patch", request, "--type=merge", "-p", r#"{"spec":{"database":"large"}}"#]);
    let deployment = ["get", "deployment", "shop-db", "-n", "shop", "-o", "yaml"];
    kubectl.until(&deployment, |yaml| yaml.contains("memory: 2Gi"));
    kubectl.wait(request, "Reconciled");

    kubectl.ok(&["delete", request, "--timeout=120s"]);
    kubectl.gone(request);
    for part in PARTS {
        assert_eq!(kubectl.ok(&["get", part, "-A", "-o", "name"]), "", "left behind");
    }
    kubectl.gone("namespace/shop");
    assert_eq!(kubectl.ok(&["get", "works,workplacements", "-A", "-o", "name"]), "");
    let promises = sample("microservice").display().to_string();
    kubectl.ok(&["delete", "-f", &format!("{promises}/promise.yaml"), "--timeout=120s"]);
    kubectl.ok(&["delete", "-f", &format!("{promises}/parts.yaml"), "--timeout=120s"]);
}

#[test]
fn a_hub_that_dies_at_each_part_goes_on_and_makes_each_once() {
    let scratch = scratch();
    let (mut hub, _agent) = platform(scratch.path());
    let kubectl = hub.kubectl();
    apply(&kubectl, "parts.yaml");
    apply(&kubectl, "promise.yaml");
    kubectl.wait("promise/microservice", "Available");
    apply(&kubectl, "request.yaml");
    for part in PARTS {
        kubectl.until(&["get", part, "shop", "-o", "name"], |name| !name.is_empty());
        hub.crash_and_restart();
    }
    kubectl.wait("microservice/shop", "Reconciled");
    for part in PARTS {
        let generation = ["get", part, "shop", "-o", "jsonpath={.metadata.generation}"];
        assert_eq!(kubectl.ok(&generation), "1", "of {part}");
    }
    // Three pipelines of its own, and one of each part.
    let jobs = kubectl.ok(&["get", "jobs", "-A", "-o", "name"]);
    assert_eq!(jobs.lines().count(), 8, "{jobs}");
    kubectl.ok(&["delete", "microservice/shop", "--timeout=120s"]);
    assert_eq!(kubectl.ok(&["get", "works,workplacements,jobs", "-A", "-o", "name"]), "");
}

const OWNER: &str =
    "jsonpath={.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}";
const MESSAGE: &str = "jsonpath={.status.message}";
