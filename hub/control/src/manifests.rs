//! What must exist before the controllers start: the system namespace, our CRDs, and what each
//! controller may do.

use muster_api::{CONTROLLER_ACCOUNT_PREFIX, SYSTEM_NAMESPACE, crds, labels};
use muster_plan::promise::RequestApi;
use serde_json::{Value, json};

/// The ServiceAccount, in the system namespace, of the controller `name`.
pub fn account_name(name: &str) -> String {
    format!("{CONTROLLER_ACCOUNT_PREFIX}{name}")
}

/// The names of the controllers; their ServiceAccounts follow from them.
pub(crate) mod identity {
    /// Promises.
    pub(crate) const PROMISE: &str = "promise";
    /// Requests.
    pub(crate) const REQUEST: &str = "request";
    /// Releases of Promises.
    pub(crate) const RELEASE: &str = "release";
    /// Results of pipelines.
    pub(crate) const RESULTS: &str = "results";
    /// Admission.
    pub(crate) const ADMISSION: &str = "admission";
    /// The platform's configuration.
    pub(crate) const CONFIGURATION: &str = "configuration";
    /// Pods of ended Jobs.
    pub(crate) const PODS: &str = "pods";
}

/// Namespace, CRDs, identities and their rights, in the order of installation.
pub fn manifests() -> Vec<Value> {
    let mut all = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM_NAMESPACE },
    })];
    all.extend(crds::all().into_iter().map(|crd| json!(crd)));
    for (name, rules) in [
        (identity::PROMISE, promise_rules()),
        (identity::REQUEST, request_rules()),
        (identity::RELEASE, release_rules()),
        (identity::RESULTS, results_rules()),
        (identity::ADMISSION, admission_rules()),
        (identity::CONFIGURATION, configuration_rules()),
        (identity::PODS, pods_rules()),
        ("schedule", schedule_rules()),
        ("content", content_rules()),
        ("assign", assign_rules()),
        ("status", status_rules()),
        ("agents", agents_rules()),
        ("stores", stores_rules()),
        ("runner", runner_rules()),
    ] {
        all.extend(controller(name, &rules));
    }
    all
}

/// A controller's ServiceAccount, ClusterRole and binding.
pub(crate) fn controller(name: &str, rules: &Value) -> [Value; 3] {
    let role = format!("muster:{name}");
    [
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": account_name(name), "namespace": SYSTEM_NAMESPACE },
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": role }, "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": role },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
            },
            "subjects": [account(name)],
        }),
    ]
}

/// The right of the controllers to work with the requests of one Promise; goes with it.
pub(crate) fn request_access(promise: &str, api: &RequestApi) -> [Value; 2] {
    let name = format!("muster:requests:{promise}");
    let metadata = json!({ "name": name, "labels": { labels::PROMISE_NAME: promise } });
    let resources = [
        api.plural.clone(),
        format!("{}/status", api.plural),
        format!("{}/finalizers", api.plural),
    ];
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": metadata,
            "rules": [rule(&[&api.group], &resources.each_ref().map(String::as_str), &ALL)],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name,
            },
            "subjects": [
                account(identity::PROMISE), account(identity::REQUEST), account(identity::RESULTS),
            ],
        }),
    ]
}

const ALL: [&str; 8] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const READ: [&str; 3] = ["get", "list", "watch"];

fn account(name: &str) -> Value {
    json!({
        "kind": "ServiceAccount", "name": account_name(name), "namespace": SYSTEM_NAMESPACE,
    })
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": groups, "resources": resources, "verbs": verbs })
}

/// What both workflow controllers need: Jobs, and the objects that serve them. They may grant what
/// a Promise's author asks for its pipelines: whoever may write Promises may do so anyway.
fn workflow_rules() -> Vec<Value> {
    let rbac = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];
    vec![
        rule(&["batch"], &["jobs"], &ALL),
        rule(&[""], &["pods"], &READ),
        rule(&[""], &["serviceaccounts", "configmaps"], &ALL),
        rule(&["rbac.authorization.k8s.io"], &rbac, &ALL),
        rule(&["rbac.authorization.k8s.io"], &["roles", "clusterroles"], &["escalate", "bind"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
        rule(&["platform.kratix.io"], &["works"], &ALL),
        rule(&["platform.kratix.io"], &["workplacements", "destinations"], &READ),
    ]
}

fn promise_rules() -> Value {
    let mut rules = workflow_rules();
    rules.push(rule(
        &["platform.kratix.io"],
        &[
            "promises",
            "promises/status",
            "promises/finalizers",
            "promiserevisions",
            "promiserevisions/status",
        ],
        &ALL,
    ));
    rules.push(rule(&["platform.kratix.io"], &["resourcebindings"], &READ));
    rules.push(rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], &ALL));
    rules.push(rule(&["fleet.muster.dev"], &["contents"], &ALL));
    json!(rules)
}

fn request_rules() -> Value {
    let mut rules = workflow_rules();
    rules.push(rule(&["platform.kratix.io"], &["promises", "promiserevisions"], &READ));
    rules.push(rule(&["platform.kratix.io"], &["healthrecords"], &READ));
    let bindings = ["resourcebindings", "resourcebindings/status"];
    rules.push(rule(&["platform.kratix.io"], &bindings, &ALL));
    json!(rules)
}

fn release_rules() -> Value {
    let releases = ["promisereleases", "promisereleases/status"];
    json!([
        rule(&["platform.kratix.io"], &releases, &ALL),
        rule(&["platform.kratix.io"], &["promises"], &ALL),
        rule(&[""], &["secrets"], &["get"]),
    ])
}

fn results_rules() -> Value {
    json!([
        rule(&[""], &["pods"], &READ),
        rule(&["batch"], &["jobs"], &READ),
        rule(&["platform.kratix.io"], &["promises", "promises/status"], &["get", "list", "patch"]),
        rule(&["platform.kratix.io"], &["works"], &ALL),
        rule(&["fleet.muster.dev"], &["contents"], &ALL),
    ])
}

fn admission_rules() -> Value {
    json!([
        rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], &ALL),
        rule(&["batch"], &["jobs"], &["create"]),
        rule(&[""], &["namespaces"], &["get"]),
        rule(
            &["platform.kratix.io"],
            &[
                "promises",
                "promiserevisions",
                "destinations",
                "gitstatestores",
                "bucketstatestores",
            ],
            &READ
        ),
        rule(&["platform.kratix.io"], &["promiserevisions", "resourcebindings"], &READ),
        rule(&["fleet.muster.dev"], &["agents"], &READ),
    ])
}

fn configuration_rules() -> Value {
    let mut one = rule(&[""], &["configmaps"], &READ);
    one["resourceNames"] = json!([muster_plan::config::NAME]);
    json!([one, rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"])])
}

fn pods_rules() -> Value {
    json!([
        rule(&[""], &["pods"], &["get", "list", "watch", "delete"]),
        rule(&["batch"], &["jobs"], &["get"]),
    ])
}

fn schedule_rules() -> Value {
    json!([
        rule(
            &["platform.kratix.io"],
            &["works", "workplacements", "destinations", "gitstatestores", "bucketstatestores"],
            &READ
        ),
        rule(&["platform.kratix.io"], &["works", "works/finalizers"], &["patch", "update"]),
        rule(
            &["platform.kratix.io"],
            &["workplacements"],
            &["create", "patch", "update", "delete"]
        ),
        rule(&["fleet.muster.dev"], &["agents"], &READ),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
    ])
}

fn content_rules() -> Value {
    json!([
        rule(&["fleet.muster.dev"], &["contents"], &ALL),
        rule(&["platform.kratix.io"], &["works", "workplacements"], &READ),
    ])
}

fn assign_rules() -> Value {
    json!([
        rule(&["fleet.muster.dev"], &["agents"], &READ),
        rule(&["platform.kratix.io"], &["workplacements"], &READ),
        rule(&[""], &["configmaps"], &["get", "create", "update"]),
    ])
}

fn status_rules() -> Value {
    let written = ["works/status", "workplacements/status", "workplacements"];
    json!([
        rule(&["platform.kratix.io"], &["works", "workplacements"], &READ),
        rule(&["platform.kratix.io"], &written, &["update", "patch"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
    ])
}

fn agents_rules() -> Value {
    json!([
        rule(&["fleet.muster.dev"], &["agents", "agents/status"], &ALL),
        rule(&["platform.kratix.io"], &["destinations", "destinations/status"], &ALL),
        rule(
            &["platform.kratix.io"],
            &["workplacements"],
            &["get", "list", "watch", "patch", "delete"]
        ),
        rule(&[""], &["secrets"], &["get", "update"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
    ])
}

/// Secrets are read by name, those that stores refer to, wherever they are.
fn stores_rules() -> Value {
    let stores = ["gitstatestores", "bucketstatestores"];
    let statuses = ["gitstatestores/status", "bucketstatestores/status", "destinations/status"];
    json!([
        rule(&["platform.kratix.io"], &stores, &READ),
        rule(&["platform.kratix.io"], &statuses, &["get", "update", "patch"]),
        rule(&["platform.kratix.io"], &["destinations"], &["get", "list", "watch", "patch"]),
        rule(&["platform.kratix.io"], &["workplacements"], &["get", "list", "watch", "delete"]),
        rule(&[""], &["secrets"], &["get"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
    ])
}

/// What runs Jobs where no kubelet does: the rights of a Job controller and of a kubelet.
fn runner_rules() -> Value {
    json!([
        { "apiGroups": ["batch"], "resources": ["jobs"],
          "verbs": ["get", "list", "watch", "patch", "update", "delete"] },
        { "apiGroups": ["batch"], "resources": ["jobs/status"], "verbs": ["patch", "update"] },
        { "apiGroups": [""], "resources": ["pods"],
          "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"] },
        { "apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch", "update"] },
        { "apiGroups": [""], "resources": ["configmaps", "secrets", "serviceaccounts"],
          "verbs": ["get"] },
        { "apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"] },
        { "apiGroups": ["", "events.k8s.io"], "resources": ["events"],
          "verbs": ["create", "patch"] },
    ])
}
