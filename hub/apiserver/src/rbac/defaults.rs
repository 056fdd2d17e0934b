//! The roles that every server has from its start
//! (after `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`, for the kinds served here).

use serde_json::{Value, json};

use crate::user::{AUTHENTICATED, MASTERS};

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const GROUP: &str = "rbac.authorization.k8s.io";

/// Default roles and bindings, made where they are missing.
pub(crate) fn objects() -> Vec<(&'static str, Value)> {
    let discovery = json!([{
        "verbs": ["get"],
        "nonResourceURLs": [
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
            "/openapi/*", "/readyz", "/version", "/version/",
        ],
    }]);
    let basic = json!([
        {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
         "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"],
         "resources": ["selfsubjectreviews"]},
    ]);
    let everything = json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]);
    vec![
        role("cluster-admin", None, everything),
        role("system:discovery", None, discovery),
        role("system:basic-user", None, basic),
        aggregated("admin", None),
        aggregated("edit", Some("admin")),
        aggregated("view", Some("edit")),
        role("system:aggregate-to-admin", Some("admin"), admin_rules()),
        role("system:aggregate-to-edit", Some("edit"), edit_rules()),
        role("system:aggregate-to-view", Some("view"), view_rules()),
        binding("cluster-admin", MASTERS),
        binding("system:discovery", AUTHENTICATED),
        binding("system:basic-user", AUTHENTICATED),
    ]
}

fn admin_rules() -> Value {
    let verbs: Vec<&str> = READ.into_iter().chain(WRITE).collect();
    json!([
        {"verbs": verbs, "apiGroups": [GROUP], "resources": ["roles", "rolebindings"]},
        {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
         "resources": ["localsubjectaccessreviews"]},
    ])
}

fn edit_rules() -> Value {
    json!([
        {"verbs": READ, "apiGroups": [""], "resources": ["secrets"]},
        {"verbs": WRITE, "apiGroups": [""],
         "resources": ["configmaps", "events", "pods", "secrets", "serviceaccounts", "services"]},
        {"verbs": ["create"], "apiGroups": [""], "resources": ["serviceaccounts/token"]},
        {"verbs": WRITE, "apiGroups": ["batch"], "resources": ["jobs", "cronjobs"]},
        {"verbs": WRITE, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]},
    ])
}

fn view_rules() -> Value {
    json!([
        {"verbs": READ, "apiGroups": [""],
         "resources": ["configmaps", "events", "namespaces", "pods", "pods/log", "pods/status",
                       "serviceaccounts", "services", "services/status"]},
        {"verbs": READ, "apiGroups": ["batch"],
         "resources": ["jobs", "jobs/status", "cronjobs", "cronjobs/status"]},
        {"verbs": READ, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]},
        {"verbs": READ, "apiGroups": ["events.k8s.io"], "resources": ["events"]},
    ])
}

/// `into`: the aggregated role that takes this one's rules, too.
fn role(name: &str, into: Option<&str>, rules: Value) -> (&'static str, Value) {
    (
        "clusterroles",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": metadata(name, into), "rules": rules,
        }),
    )
}

fn aggregated(name: &str, into: Option<&str>) -> (&'static str, Value) {
    let mut labels = json!({});
    labels[aggregation_label(name)] = "true".into();
    let mut selectors = vec![json!({"matchLabels": labels})];
    // admin has what edit has, and edit what view has.
    for below in match name {
        "admin" => &["edit", "view"][..],
        "edit" => &["view"][..],
        _ => &[],
    } {
        let mut labels = json!({});
        labels[aggregation_label(below)] = "true".into();
        selectors.push(json!({"matchLabels": labels}));
    }
    (
        "clusterroles",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": metadata(name, into),
            "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": [],
        }),
    )
}

fn binding(role: &str, group: &str) -> (&'static str, Value) {
    (
        "clusterrolebindings",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": metadata(role, None),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group}],
        }),
    )
}

fn metadata(name: &str, into: Option<&str>) -> Value {
    let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    if let Some(into) = into {
        labels[aggregation_label(into)] = "true".into();
    }
    json!({"name": name, "labels": labels})
}

fn aggregation_label(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}
