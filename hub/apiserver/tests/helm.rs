//! The API through the real `helm`: a chart (`clients/chart`) with a custom kind, an object of it,
//! rights, a secret and a hook, from its installation to its removal.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/parts.rs"]
mod parts;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    rbac::v1::Role,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio::process::Command;

use home::{Home, until};

const NAMESPACE: &str = "lab";

/// The real helm, and a server for it.
struct Helm {
    home: Home,
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Helm {
    /// `None`: there is no helm here, which has been said.
    async fn new() -> Option<Helm> {
        let program = parts::part("MUSTER_HELM")?;
        let home = Home::new().await;
        let (_, kubeconfig) = home.serve().await;
        Some(Helm { home, program, kubeconfig })
    }

    async fn ok(&self, args: &str) -> String {
        let (ok, out, err) = self.call(args).await;
        assert!(ok, "helm {args}: {out}{err}");
        out
    }

    async fn refused(&self, args: &str) -> String {
        let (ok, out, err) = self.call(args).await;
        assert!(!ok, "helm {args} should have failed: {out}");
        err
    }

    async fn call(&self, args: &str) -> (bool, String, String) {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/chart");
        let dir = self.home.dir.path();
        let words = args.split_whitespace();
        let output = Command::new(&self.program)
            .args(words.map(|word| if word == "CHART" { chart.as_os_str() } else { word.as_ref() }))
            .args(["--namespace", NAMESPACE])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", dir)
            .envs(["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|v| (v, dir)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    async fn releases(&self) -> Value {
        serde_json::from_str(&self.ok("list --all --output json").await).unwrap()
    }

    /// Number and status of each revision, the oldest first.
    async fn history(&self) -> Vec<(i64, String)> {
        let revisions: Value =
            serde_json::from_str(&self.ok("history lab --output json").await).unwrap();
        let revision = |one: &Value| {
            (one["revision"].as_i64().unwrap(), one["status"].as_str().unwrap().to_owned())
        };
        revisions.as_array().unwrap().iter().map(revision).collect()
    }

    fn client(&self) -> Client {
        self.home.client()
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    fn beakers(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("helm.example.com", "v1", "Beaker");
        Api::namespaced_with(self.client(), NAMESPACE, &ApiResource::from_gvk(&kind))
    }

    async fn settings(&self, key: &str) -> Option<String> {
        let map = self.config_maps().get("lab-settings").await.unwrap();
        map.data.unwrap_or_default().get(key).cloned()
    }

    async fn beaker(&self) -> Value {
        self.beakers().get("lab").await.unwrap().data["spec"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_installed_upgraded_rolled_back_and_removed() {
    let Some(helm) = Helm::new().await else { return };
    let notes = helm.ok("install lab CHART --create-namespace --wait --timeout 120s").await;
    assert!(notes.contains("STATUS: deployed") && notes.contains("The lab says hello."), "{notes}");
    assert_eq!(helm.releases().await[0]["chart"], "lab-1.0.0");
    assert_eq!(helm.settings("kubernetes").await.unwrap(), "v1.32.13");
    assert_eq!(helm.settings("jobs").await.unwrap(), "true", "from discovery");
    assert_eq!(helm.settings("before").await.unwrap(), "nothing", "from lookup");
    let hello = json!({"size": 3, "liquid": "water", "tags": ["hello", "glass"]});
    assert_eq!(helm.beaker().await, hello);
    let manifest = helm.ok("get manifest lab").await;
    assert!(manifest.contains("kind: Beaker") && manifest.contains("kind: RoleBinding"));

    // What others add stays: helm merges three ways.
    let others = json!({"metadata": {"annotations": {"mine": "1"}}, "data": {"extra": "x"}});
    let params = PatchParams::default();
    helm.config_maps().patch("lab-settings", &params, &Patch::Strategic(others)).await.unwrap();
    helm.ok("upgrade lab CHART --wait --set greeting=bye,size=5,lit=false").await;
    let settings = helm.config_maps().get("lab-settings").await.unwrap();
    assert_eq!(settings.metadata.annotations.unwrap()["mine"], "1");
    let data = settings.data.unwrap();
    assert_eq!((&*data["greeting"], &*data["before"], &*data["extra"]), ("bye", "hello", "x"));
    assert!(!data.contains_key("lamp"), "{data:?}");
    let bye = json!({"size": 5, "liquid": "water", "tags": ["bye", "glass"]});
    assert_eq!(helm.beaker().await, bye);
    let hook = helm.config_maps().get("lab-hook").await.unwrap();
    assert_eq!(hook.data.unwrap()["revision"], "2", "the hook was made anew");
    let roles: Api<Role> = Api::namespaced(helm.client(), NAMESPACE);
    let role = roles.get("lab").await.unwrap();
    assert_eq!(role.rules.unwrap()[0].verbs, ["get", "list", "watch"]);

    let done = helm.ok("rollback lab 1 --wait").await;
    assert!(done.contains("Rollback was a success"), "{done}");
    assert_eq!(helm.beaker().await, hello);
    assert_eq!(helm.settings("lamp").await.unwrap(), "on");
    assert_eq!(helm.settings("extra").await.unwrap(), "x");
    let told = ["superseded", "superseded", "deployed"].map(str::to_owned);
    assert_eq!(helm.history().await, (1..).zip(told).collect::<Vec<_>>());

    let gone = helm.ok("uninstall lab --wait").await;
    assert!(gone.contains("uninstalled"), "{gone}");
    assert_eq!(helm.releases().await, json!([]));
    assert!(helm.beakers().list(&ListParams::default()).await.unwrap().items.is_empty());
    let secrets: Api<Secret> = Api::namespaced(helm.client(), NAMESPACE);
    assert!(secrets.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_refused_says_why_and_can_be_undone() {
    let Some(helm) = Helm::new().await else { return };
    // The custom kind is not there yet.
    let unknown = helm.refused("template lab CHART --validate").await;
    assert!(unknown.contains("no matches for kind \"Beaker\""), "{unknown}");
    helm.ok("install lab CHART --create-namespace --wait --timeout 120s").await;
    let valid = helm.ok("template lab CHART --validate --is-upgrade").await;
    assert!(valid.contains("kind: Beaker"), "{valid}");

    let why = "spec.size in body should be greater than or equal to 1";
    let refused = helm.refused("upgrade lab CHART --wait --set size=0").await;
    assert!(refused.contains(why), "{refused}");
    assert_eq!(helm.history().await.last().unwrap(), &(2, "failed".to_owned()));
    let undone = helm.refused("upgrade lab CHART --atomic --timeout 120s --set size=0").await;
    assert!(undone.contains(why) && undone.contains("has been rolled back"), "{undone}");
    assert_eq!(helm.history().await.last().unwrap(), &(4, "deployed".to_owned()));
    assert_eq!(helm.beaker().await["size"], 3);
    helm.ok("upgrade --install lab CHART --force --set size=7").await;
    assert_eq!(helm.beaker().await["size"], 7);
    let dry = helm.ok("upgrade lab CHART --dry-run=server --set greeting=dry").await;
    assert!(dry.contains("before: \"hello\""), "lookup works in a dry run: {dry}");
    assert_eq!(helm.settings("greeting").await.unwrap(), "hello");

    let second = helm.refused("install lab CHART").await;
    assert!(second.contains("cannot re-use a name"), "{second}");
    let client = helm.client();
    helm.ok("uninstall lab --wait --keep-history").await;
    until("only the hook is left", || async {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let maps = maps.list(&ListParams::default()).await.unwrap();
        let names = maps.items.iter().filter_map(|map| map.metadata.name.as_deref());
        names.filter(|name| name.starts_with("lab-")).eq(["lab-hook"])
    })
    .await;
}
