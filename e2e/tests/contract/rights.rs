//! What pipelines may do with the API: which objects say so, that they stay the same, and that none is
//! left behind.

use muster_e2e::{Executor, Hub, Kubectl, eventually, scratch};

use super::{GOOD, Shop, good, with};

const ALL: &str = "serviceaccount,role,rolebinding,clusterrole,clusterrolebinding,configmap";

/// The objects that serve the pipelines of the Promise: `kind namespace/name uid`, sorted.
fn objects(kubectl: &Kubectl) -> Vec<String> {
    let line = r#"jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.uid}{"\n"}{end}"#;
    let args = ["get", ALL, "-A", "-l", "kratix.io/promise-name=good", "-o", line];
    let mut found: Vec<_> = kubectl.ok(&args).lines().map(str::to_owned).collect();
    found.retain(|line| !line.contains("/muster:"));
    found.sort();
    found
}

/// The same without the ends of names that tell rules apart, and without uids.
fn shown(objects: &[String]) -> Vec<String> {
    let bare = |line: &String| {
        let name = line.rsplit_once(' ').map_or("", |(name, _)| name);
        let (stem, end) = name.rsplit_once('-').unwrap_or((name, ""));
        let hashed = end.len() == 5 && end.bytes().all(|b| b.is_ascii_hexdigit());
        if hashed { format!("{stem}-#") } else { name.to_owned() }
    };
    objects.iter().map(bare).collect()
}

const PERMISSIONS: &str = "          rbac:
            permissions:
            - {apiGroups: [''], resources: [configmaps], verbs: [get, list]}
            - {resourceNamespace: vault, apiGroups: [''], resources: [secrets], verbs: [get]}
            - {resourceNamespace: '*', apiGroups: [batch], resources: [jobs], verbs: [list]}
          containers:
";

const SMITH: &str = "      - apiVersion: platform.kratix.io/v1alpha1
        kind: Pipeline
        metadata: {name: polish}
        spec:
          rbac: {serviceAccount: smith}
          containers:
          - {name: emit, image: box, command: [sh, -c, 'echo b > /kratix/output/b.txt']}
";

/// Whether the account of the first pipeline may do this.
fn may(kubectl: &Kubectl, verb: &[&str]) -> bool {
    let account = "--as=system:serviceaccount:default:good-resource-configure-run";
    let args = [&["auth", "can-i"], verb, &[account]].concat();
    kubectl.run(&args).stdout == "yes"
}

#[test]
fn rights_stay_the_same_and_go_with_their_reason() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.ok(&["create", "namespace", "vault"]);
    kubectl.ok(&["create", "serviceaccount", "smith"]);
    let smith = || kubectl.ok(&["get", "serviceaccount", "smith", "-o", "jsonpath={.metadata}"]);
    let before = smith();
    let asking = with(GOOD, "          containers:\n", PERMISSIONS) + SMITH;
    kubectl.apply(&asking);
    kubectl.wait("promise/good", "Available");
    kubectl.apply(&good("a", "default", "small"));
    kubectl.wait("good/a", "ConfigureWorkflowCompleted");

    let first = objects(&kubectl);
    let id = "good-resource-configure-run";
    assert_eq!(
        shown(&first),
        [
            format!("ClusterRole /{id}-kratix-all-namespaces-#"),
            format!("ClusterRole /{id}-vault-#"),
            format!("ClusterRoleBinding /{id}-default-#"),
            "ConfigMap default/destination-selectors-good".to_owned(),
            "Role default/good-resource-configure-polish".to_owned(),
            format!("Role default/{id}"),
            format!("Role default/{id}-#"),
            "RoleBinding default/good-resource-configure-polish".to_owned(),
            format!("RoleBinding default/{id}"),
            format!("RoleBinding default/{id}-#"),
            format!("RoleBinding vault/{id}-default-#"),
            format!("ServiceAccount default/{id}"),
        ]
    );
    assert_eq!(smith(), before, "somebody's own account stays as it is");
    for verb in [
        &["list", "configmaps"] as &[&str],
        &["get", "secrets", "-n", "vault"],
        &["list", "jobs", "-A"],
        &["patch", "goods.contract.example", "--subresource=status"],
    ] {
        assert!(may(&kubectl, verb), "{verb:?}");
    }
    for verb in [
        &["get", "secrets"] as &[&str],
        &["delete", "configmaps"],
        &["create", "works.platform.kratix.io"],
        &["list", "goods.contract.example", "-n", "vault"],
    ] {
        assert!(!may(&kubectl, verb), "{verb:?}");
    }

    // They are the same objects after a run, a change and the request's end.
    kubectl.apply(&good("a", "default", "large"));
    kubectl
        .until(&["get", "good/a", "-o", "jsonpath={.status.observedGeneration}"], |it| it == "2");
    kubectl.wait("good/a", "ConfigureWorkflowCompleted");
    assert_eq!(objects(&kubectl), first);
    kubectl.ok(&["delete", "good/a"]);
    assert_eq!(objects(&kubectl), first, "a request's end takes no rights of its Promise");

    // What no version asks for goes; here the one version is written over.
    let fewer = PERMISSIONS.lines().filter(|line| !line.contains("resourceNamespace"));
    let fewer: String = fewer.map(|line| format!("{line}\n")).collect();
    let fewer = with(GOOD, "          containers:\n", &fewer);
    kubectl.apply(&fewer);
    let left = [
        "ConfigMap default/destination-selectors-good".to_owned(),
        format!("Role default/{id}"),
        format!("Role default/{id}-#"),
        format!("RoleBinding default/{id}"),
        format!("RoleBinding default/{id}-#"),
        format!("ServiceAccount default/{id}"),
    ];
    eventually("what is no longer asked for to be gone", || {
        let now = shown(&objects(&kubectl));
        if now == left { Ok(()) } else { Err(format!("{now:#?}")) }
    });
    let kept: Vec<_> = objects(&kubectl);
    assert!(kept.iter().all(|object| first.contains(object)), "{kept:#?} of {first:#?}");

    kubectl.ok(&["delete", "promise", "good"]);
    assert_eq!(objects(&kubectl), [""; 0], "nothing stays behind");
    assert_eq!(smith(), before);
}

#[test]
fn a_promise_s_pipelines_see_their_own_promise_alone() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let own = SMITH
        .replace("name: polish", "name: anvil")
        .replace("rbac: {serviceAccount: smith}", "volumes: []");
    kubectl.apply(&format!("{GOOD}    promise:\n      configure:\n{own}"));
    kubectl.wait("promise/good", "ConfigureWorkflowCompleted");
    let account = "--as=system:serviceaccount:kratix-platform-system:good-promise-configure-anvil";
    let may = |verb: &[&str]| {
        kubectl.run(&[&["auth", "can-i"], verb, &[account]].concat()).stdout == "yes"
    };
    assert!(may(&["get", "promises.platform.kratix.io/good"]));
    assert!(may(&["patch", "promises.platform.kratix.io/good", "--subresource=status"]));
    for verb in [
        &["get", "promises.platform.kratix.io/other"] as &[&str],
        &["list", "promises.platform.kratix.io"],
        &["create", "promises.platform.kratix.io"],
        &["create", "works.platform.kratix.io", "-n", "kratix-platform-system"],
        &["get", "secrets", "-n", "kratix-platform-system"],
    ] {
        assert!(!may(verb), "{verb:?}");
    }
    // It may write its Promise's status, but not what of it is the hub's.
    let patch = r#"{"status":{"status":"Available","version":"v9"}}"#;
    let args = ["patch", "promise", "good", "--subresource=status", "--type=merge", "-p", patch];
    let told = kubectl.refused(&[&args[..], &[account]].concat(), "");
    assert!(told.contains("is the hub's and may not be changed"), "{told}");
}

#[test]
fn requests_of_one_name_do_not_meet_in_the_namespace_of_pipelines() {
    let Some(shop) = Shop::open() else { return };
    let kubectl = shop.hub.kubectl();
    for namespace in ["workshop", "blue", "red"] {
        kubectl.ok(&["create", "namespace", namespace]);
    }
    let text = with(GOOD, "{env: dev}", "{place: dev}");
    let text = with(&text, "reconciliationInterval: 1h", "pipelineNamespace: workshop");
    let text = with(
        &text,
        "'echo a > /kratix/output/a.txt'",
        "'echo $KRATIX_OBJECT_NAMESPACE > /kratix/output/a.txt'",
    );
    kubectl.apply(&text);
    kubectl.wait("promise/good", "Available");
    kubectl.apply(&(good("a", "blue", "small") + &good("a", "red", "small")));
    for namespace in ["blue", "red"] {
        let wait =
            ["wait", "good/a", "-n", namespace, "--for=condition=Reconciled", "--timeout=120s"];
        kubectl.ok(&wait);
    }
    let tree = shop.server.repositories().tree("fleet");
    for namespace in ["blue", "red"] {
        let path = format!("dev/resources/{namespace}/good/a/run/5058f/a.txt");
        assert_eq!(tree.get(&path).map(Vec::as_slice), Some(format!("{namespace}\n").as_bytes()));
    }
    let jobs = kubectl.ok(&["get", "jobs", "-A", "--no-headers"]);
    assert!(jobs.lines().all(|job| job.starts_with("workshop ")), "{jobs}");
    assert_eq!(jobs.lines().count(), 2, "{jobs}");

    let moved = with(&text, "pipelineNamespace: workshop", "pipelineNamespace: blue");
    let told = kubectl.refused(&["apply", "-f", "-"], &moved);
    assert!(
        told.contains("spec.workflows.config.pipelineNamespace") && told.contains("immutable"),
        "{told}"
    );
    kubectl.ok(&["delete", "good/a", "-n", "blue"]);
    let tree = shop.server.repositories().tree("fleet");
    assert!(!tree.keys().any(|path| path.contains("/blue/")), "{:?}", tree.keys());
    assert!(tree.contains_key("dev/resources/red/good/a/run/5058f/a.txt"));
}
