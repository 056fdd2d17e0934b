//! The roles that every server has from its start
//! (after `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`, for the kinds served here).

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{GROUP, Rule};
use crate::user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED};

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

/// On a default role or binding, `"false"`: it is left as it is when the server starts.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Default roles and bindings, made where they are missing.
pub(crate) fn objects() -> Vec<(&'static str, Value)> {
    let discovery = json!([{
        "verbs": ["get"],
        "nonResourceURLs": [
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
            "/openapi/*", "/readyz", "/version", "/version/",
        ],
    }]);
    let public = json!([{
        "verbs": ["get"],
        "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"],
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
        role("system:public-info-viewer", None, public),
        aggregated("admin", None),
        aggregated("edit", Some("admin")),
        aggregated("view", Some("edit")),
        role("system:aggregate-to-admin", Some("admin"), admin_rules()),
        role("system:aggregate-to-edit", Some("edit"), edit_rules()),
        role("system:aggregate-to-view", Some("view"), view_rules()),
        binding("cluster-admin", &[MASTERS]),
        binding("system:discovery", &[AUTHENTICATED]),
        binding("system:basic-user", &[AUTHENTICATED]),
        binding("system:public-info-viewer", &[AUTHENTICATED, UNAUTHENTICATED]),
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
        // Who may make pods that run as an account may as well speak for it.
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]},
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

/// Takes the rules of all roles labelled for it; `into` is the next larger one.
fn aggregated(name: &str, into: Option<&str>) -> (&'static str, Value) {
    let mut labels = json!({});
    labels[aggregation_label(name)] = "true".into();
    (
        "clusterroles",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": metadata(name, into),
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": labels}]}, "rules": [],
        }),
    )
}

fn binding(role: &str, groups: &[&str]) -> (&'static str, Value) {
    let subject = |group: &&str| json!({"apiGroup": GROUP, "kind": "Group", "name": group});
    (
        "clusterrolebindings",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": metadata(role, None),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": groups.iter().map(subject).collect::<Vec<_>>(),
        }),
    )
}

fn metadata(name: &str, into: Option<&str>) -> Value {
    let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    if let Some(into) = into {
        labels[aggregation_label(into)] = "true".into();
    }
    json!({"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}})
}

fn aggregation_label(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

/// Adds to a default role or binding what it has lost, or what an older version did not give it;
/// what was added by others stays. `false`: nothing is missing.
pub(crate) fn complete(object: &mut Value, expected: &Value) -> bool {
    if object["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return false;
    }
    let before = object.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in expected["metadata"][field].as_object().into_iter().flatten() {
            object["metadata"][field][key] = value.clone();
        }
    }
    add_missing(&mut object["subjects"], &expected["subjects"]);
    // The rules of an aggregated role are written by who gathers them.
    if expected["aggregationRule"].is_object() {
        let selectors = &expected["aggregationRule"]["clusterRoleSelectors"];
        add_missing(&mut object["aggregationRule"]["clusterRoleSelectors"], selectors);
    } else {
        add_missing_rules(&mut object["rules"], &expected["rules"]);
    }
    // Looking into a field that is not there has made it null.
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    *object != before
}

fn add_missing(list: &mut Value, expected: &Value) {
    for item in expected.as_array().into_iter().flatten() {
        match list.as_array_mut() {
            Some(list) if list.contains(item) => {}
            Some(list) => list.push(item.clone()),
            None => *list = json!([item]),
        }
    }
}

fn add_missing_rules(rules: &mut Value, expected: &Value) {
    let given: Vec<Rule> = Vec::deserialize(&*rules).unwrap_or_default();
    for rule in expected.as_array().into_iter().flatten() {
        let Ok(wanted) = Rule::deserialize(rule) else { continue };
        let has = wanted.each("").all(|what| given.iter().any(|own| own.allows(&what)));
        if !has {
            add_missing(rules, &json!([rule]));
        }
    }
}
