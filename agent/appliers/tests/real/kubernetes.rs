//! Objects on a real kube-apiserver. Each test has a namespace of its own.

use std::collections::BTreeSet;

use http::Request;
use kube::Client;
use muster_appliers::{KubernetesPolicy, Namespaces, Policy};
use muster_core::Health;
use serde_json::{Value, json};

use crate::{cluster::Cluster, scene::Scene};

struct World {
    scene: Scene,
    client: Client,
    namespace: &'static str,
    policy: Policy,
}

impl World {
    async fn new(namespace: &'static str) -> Option<Self> {
        Self::with(namespace, Namespaces::All).await
    }

    async fn with(namespace: &'static str, namespaces: Namespaces) -> Option<Self> {
        let cluster = Cluster::get().await?;
        let mut policy = Policy::default();
        let kubeconfig = Some(cluster.kubeconfig.clone());
        policy.appliers.kubernetes = Some(KubernetesPolicy { kubeconfig, namespaces });
        let scene = Scene::new(policy.clone()).await;
        let client = cluster.client().await;
        let world = Self { scene, client, namespace, policy };
        let body =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        world.send("POST", "/api/v1/namespaces", "application/json", &body).await.unwrap();
        Some(world)
    }

    async fn send(
        &self,
        method: &str,
        uri: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, kube::Error> {
        let body = if method == "GET" { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let request =
            Request::builder().method(method).uri(uri).header("content-type", content_type);
        self.client.request(request.body(body).unwrap()).await
    }

    fn uri(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/configmaps/{name}", self.namespace)
    }

    async fn config_map(&self, name: &str) -> Option<Value> {
        self.send("GET", &self.uri(name), "application/json", &Value::Null).await.ok()
    }

    /// Server-side apply by another manager.
    async fn other(&self, manager: &str, name: &str, data: Value) -> Result<Value, kube::Error> {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace}, "data": data});
        let uri = format!("{}?fieldManager={manager}", self.uri(name));
        self.send("PATCH", &uri, "application/apply-patch+yaml", &body).await
    }

    /// An update as `kubectl edit` makes it.
    async fn edit(&self, name: &str, data: Value) {
        let uri = format!("{}?fieldManager=kubectl-edit", self.uri(name));
        let body = json!({"data": data});
        self.send("PATCH", &uri, "application/merge-patch+json", &body).await.unwrap();
    }

    fn manifest(&self, name: &str, data: Value) -> String {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace}, "data": data})
        .to_string()
    }
}

#[tokio::test]
async fn what_is_listed_is_there_and_what_is_listed_no_more_is_gone() {
    let Some(mut world) = World::new("prune").await else { return };
    let (a, b) = (world.manifest("a", json!({"k": "1"})), world.manifest("b", json!({})));
    let seen = world.scene.apply("prune", &[("a.yaml", &a), ("b.yaml", &b)]).await.unwrap();
    assert_eq!((seen.health, seen.drift), (Health::Healthy, None));
    assert_eq!(world.config_map("a").await.unwrap()["data"]["k"], "1");
    assert!(world.config_map("b").await.is_some());

    let changed = world.manifest("a", json!({"k": "2"}));
    world.scene.apply("prune", &[("a.yaml", &changed)]).await.unwrap();
    assert_eq!(world.config_map("a").await.unwrap()["data"]["k"], "2");
    assert!(world.config_map("b").await.is_none(), "b was not pruned");

    // Another agent's disk: only the cluster's own inventory knows what to remove.
    world.scene = Scene::new(world.policy.clone()).await;
    world.scene.remove("prune").await.unwrap();
    assert!(world.config_map("a").await.is_none());
    world.scene.remove("prune").await.unwrap();
}

#[tokio::test]
async fn another_managers_field_survives_and_a_conflict_names_it() {
    let Some(world) = World::new("conflict").await else { return };
    let ours = world.manifest("a", json!({"ours": "1"}));
    world.scene.apply("conflict", &[("a.yaml", &ours)]).await.unwrap();
    world.other("flux", "a", json!({"theirs": "1"})).await.unwrap();
    let ours = world.manifest("a", json!({"ours": "2"}));
    world.scene.apply("conflict", &[("a.yaml", &ours)]).await.unwrap();
    let data = world.config_map("a").await.unwrap()["data"].clone();
    assert_eq!(data, json!({"ours": "2", "theirs": "1"}));

    let both = world.manifest("a", json!({"ours": "2", "theirs": "2"}));
    let failure = world.scene.apply("conflict", &[("a.yaml", &both)]).await.unwrap_err();
    assert_eq!(failure.reason, "Conflict");
    for named in ["ConfigMap a", "a.yaml", "\"flux\"", ".data.theirs"] {
        assert!(failure.message.contains(named), "{named}: {}", failure.message);
    }
    assert_eq!(world.config_map("a").await.unwrap()["data"]["theirs"], "1");
}

#[tokio::test]
async fn an_edit_of_our_field_is_drift_and_is_taken_back() {
    let Some(world) = World::new("drift").await else { return };
    let files = [("a.yaml", &*world.manifest("a", json!({"k": "1"})))];
    world.scene.apply("drift", &files).await.unwrap();
    assert_eq!(world.scene.check("drift").await.drift, None);
    world.edit("a", json!({"k": "edited", "more": "kept"})).await;
    let seen = world.scene.check("drift").await;
    assert!(seen.drift.unwrap().contains("ConfigMap a in namespace drift"));
    world.scene.apply("drift", &files).await.unwrap();
    let data = world.config_map("a").await.unwrap()["data"].clone();
    assert_eq!(data, json!({"k": "1", "more": "kept"}));
    assert_eq!(world.scene.check("drift").await.drift, None);

    world.send("DELETE", &world.uri("a"), "application/json", &json!({})).await.unwrap();
    let seen = world.scene.check("drift").await;
    assert_eq!(seen.health, Health::Degraded);
    assert!(seen.drift.unwrap().contains("is gone"));
    world.scene.apply("drift", &files).await.unwrap();
    assert!(world.config_map("a").await.is_some());
}

#[tokio::test]
async fn a_refused_manifest_changes_nothing() {
    let Some(world) = World::new("refused").await else { return };
    let good = world.manifest("a", json!({"k": "1"}));
    let bad = world.manifest("b", json!({"k": {"not": "text"}}));
    let failure =
        world.scene.apply("refused", &[("a.yaml", &good), ("x/b.yaml", &bad)]).await.unwrap_err();
    assert!(failure.message.contains("x/b.yaml, document 1"), "{}", failure.message);
    assert!(world.config_map("a").await.is_none(), "half of a refused placement was applied");
    let kind = "apiVersion: nowhere.example.com/v1\nkind: Thing\nmetadata: {name: a}\n";
    let failure = world.scene.apply("refused", &[("a.yaml", kind)]).await.unwrap_err();
    assert_eq!(failure.reason, "UnknownKind");
    let typo = json!({"apiVersion": "v1", "kind": "ConfigMap", "dta": {},
        "metadata": {"name": "a", "namespace": "refused"}});
    let failure = world.scene.apply("refused", &[("a.yaml", &typo.to_string())]).await.unwrap_err();
    assert!(failure.message.contains("dta"), "{}", failure.message);
}

#[tokio::test]
async fn what_was_there_before_is_adopted_and_stays() {
    let Some(world) = World::new("adopt").await else { return };
    world.other("somebody", "a", json!({"theirs": "1"})).await.unwrap();
    let ours = world.manifest("a", json!({"ours": "1"}));
    world.scene.apply("adopt", &[("a.yaml", &ours)]).await.unwrap();
    world.scene.remove("adopt").await.unwrap();
    let left = world.config_map("a").await.expect("an object that we did not make was deleted");
    assert_eq!(left["data"], json!({"theirs": "1"}));
}

#[tokio::test]
async fn prune_leaves_what_another_placement_lists() {
    let Some(world) = World::new("shared").await else { return };
    let shared = world.manifest("shared", json!({"k": "1"}));
    world.scene.apply("shared-one", &[("a.yaml", &shared)]).await.unwrap();
    // The plan would call this a conflict; an agent that lost its memory might not.
    world.scene.apply("shared-two", &[("a.yaml", &shared)]).await.unwrap();
    world.scene.remove("shared-one").await.unwrap();
    assert!(world.config_map("shared").await.is_some());
    world.scene.remove("shared-two").await.unwrap();
    assert!(world.config_map("shared").await.is_none());
}

fn crd(group: &str, labels: Value) -> String {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}"), "labels": labels},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
    .to_string()
}

#[tokio::test]
async fn kinds_come_before_their_objects_and_go_after_them() {
    let Some(world) = World::new("kinds").await else { return };
    let group = "kinds.example.com";
    let thing = json!({"apiVersion": format!("{group}/v1"), "kind": "Thing",
        "metadata": {"name": "a", "namespace": "kinds"}, "spec": {"x": 1}})
    .to_string();
    let definition = crd(group, json!({}));
    // By name the object comes first; by rank its kind does.
    let files = [("a-thing.yaml", &*thing), ("b-crd.yaml", &*definition)];
    let seen = world.scene.apply("kinds", &files).await.unwrap();
    assert_eq!(seen.health, Health::Progressing);
    assert_eq!(seen.health_message, "no controller has reported yet (Thing a in namespace kinds)");
    let uri = format!("/apis/{group}/v1/namespaces/kinds/things/a/status");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    world.send("PATCH", &uri, "application/merge-patch+json", &ready).await.unwrap();
    let seen = world.scene.check("kinds").await;
    assert_eq!((seen.health, seen.drift), (Health::Healthy, None));
    world.scene.remove("kinds").await.unwrap();
    let uri = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}");
    assert!(world.send("GET", &uri, "application/json", &Value::Null).await.is_err());
}

#[tokio::test]
async fn the_policy_says_which_namespaces() {
    let only = Namespaces::Only(BTreeSet::from(["allowed".to_owned()]));
    let Some(world) = World::with("allowed", only).await else { return };
    let files = |namespace: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": namespace}})
        .to_string()
    };
    world.scene.apply("policy", &[("a.yaml", &files("allowed"))]).await.unwrap();
    for (text, named) in [
        (files("kube-system"), "kube-system"),
        (files(""), "default"),
        (crd("policy.example.com", json!({})), "cluster-scoped"),
    ] {
        let failure = world.scene.apply("policy", &[("a.yaml", &text)]).await.unwrap_err();
        assert!(failure.refused && failure.message.contains(named), "{failure:?}");
    }
}

#[tokio::test]
async fn on_a_hubs_own_api_what_is_the_hubs_may_not_be_touched() {
    let Some(world) = World::new("hub").await else { return };
    let uri = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for (group, labels) in [
        ("fleet.muster.dev", json!({})),
        ("promised.example.com", json!({"kratix.io/promise-name": "web"})),
    ] {
        let body: Value = serde_json::from_str(&crd(group, labels)).unwrap();
        world.send("POST", uri, "application/json", &body).await.unwrap();
    }
    // The group is served a moment after its definition is there.
    for group in ["fleet.muster.dev", "promised.example.com"] {
        let uri = format!("/apis/{group}/v1");
        while world.send("GET", &uri, "application/json", &Value::Null).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let object = |api_version: &str, kind: &str, namespace: &str| {
        json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": "a", "namespace": namespace}})
        .to_string()
    };
    for text in [
        object("platform.kratix.io/v1alpha1", "Promise", "hub"),
        object("fleet.muster.dev/v1", "Thing", "hub"),
        object("promised.example.com/v1", "Thing", "hub"),
        object("v1", "Secret", "kratix-platform-system"),
        crd("promised.example.com", json!({})),
        crd("other.example.com", json!({"kratix.io/promise-name": "web"})),
    ] {
        let failure = world.scene.apply("hub", &[("a.yaml", &text)]).await.unwrap_err();
        assert!(failure.refused && failure.reason == "Forbidden", "{text}: {failure:?}");
    }
    world.scene.apply("hub", &[("a.yaml", &world.manifest("a", json!({})))]).await.unwrap();
}

#[tokio::test]
async fn an_api_that_is_away_is_said_to_be() {
    let mut policy = Policy::enabling(["kubernetes"]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
        clusters: [{name: t, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        users: [{name: t, user: {}}]\ncontexts: [{name: t, context: {cluster: t, user: t}}]\n";
    std::fs::write(&kubeconfig, text).unwrap();
    policy.appliers.kubernetes.as_mut().unwrap().kubeconfig = Some(kubeconfig);
    let scene = Scene::new(policy).await;
    let config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let failure = scene.apply("away", &[("a.yaml", config_map)]).await.unwrap_err();
    assert!(failure.reason == "Unreachable" && !failure.refused, "{failure:?}");
}
