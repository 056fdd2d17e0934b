//! A table of who may do what, and what comes of default roles.

use serde_json::{Value, json};

use super::{Attributes, Policy, aggregate, defaults};
use crate::user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, UserInfo};

/// Roles and bindings that the table speaks of.
fn objects() -> Vec<(&'static str, &'static str, Value)> {
    let role = |rules: Value| json!({"rules": rules});
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str]| json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
    let named = |names: &[&str]| {
        json!({"verbs": ["get", "watch"], "apiGroups": [""], "resources": ["configmaps"],
               "resourceNames": names})
    };
    let binding = |kind: &str, role: &str, subjects: Value| json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects});
    let user = |name: &str| json!([{"kind": "User", "name": name}]);
    let group = |name: &str| json!([{"kind": "Group", "name": name}]);
    vec![
        (
            "roles",
            "team/reader",
            role(json!([rule(&["get", "list"], &[""], &["pods", "pods/log"])])),
        ),
        ("roles", "team/one", role(json!([named(&["a", "b"])]))),
        ("roles", "team/paths", role(json!([{"verbs": ["get"], "nonResourceURLs": ["/secret"]}]))),
        ("roles", "other/reader", role(json!([rule(&["*"], &["*"], &["*"])]))),
        ("clusterroles", "scaler", role(json!([rule(&["update"], &["*"], &["*/scale"])]))),
        ("clusterroles", "batch", role(json!([rule(&["*"], &["batch"], &["*"])]))),
        (
            "clusterroles",
            "paths",
            role(json!([
            {"verbs": ["get"], "nonResourceURLs": ["/logs/*", "/metrics"]}])),
        ),
        ("clusterroles", "names", role(json!([rule(&["get", "delete"], &[""], &["namespaces"])]))),
        (
            "clusterroles",
            "all",
            role(json!([
            rule(&["*"], &["*"], &["*"]), {"verbs": ["*"], "nonResourceURLs": ["*"]}])),
        ),
        ("rolebindings", "team/readers", binding("Role", "reader", user("ann"))),
        ("rolebindings", "team/ones", binding("Role", "one", user("ann"))),
        ("rolebindings", "team/paths", binding("Role", "paths", user("ann"))),
        (
            "rolebindings",
            "team/bots",
            binding(
                "Role",
                "reader",
                json!([
            {"kind": "ServiceAccount", "name": "bot", "namespace": "bots"},
            {"kind": "ServiceAccount", "name": "own"}]),
            ),
        ),
        ("rolebindings", "team/batch", binding("ClusterRole", "batch", group("devs"))),
        ("rolebindings", "team/names", binding("ClusterRole", "names", group("devs"))),
        ("rolebindings", "team/nothing", binding("Role", "missing", group("devs"))),
        ("clusterrolebindings", "scalers", binding("ClusterRole", "scaler", group("ops"))),
        ("clusterrolebindings", "paths", binding("ClusterRole", "paths", group("ops"))),
        ("clusterrolebindings", "all", binding("ClusterRole", "all", user("root"))),
        // A cluster binding cannot speak of a namespace's role.
        ("clusterrolebindings", "wrong", binding("Role", "reader", user("eve"))),
    ]
}

/// Compiles a policy as the store would have it.
fn policy(objects: &[(&str, &str, Value)]) -> Policy {
    let of = |wanted: &str| -> Vec<Value> {
        let found = objects.iter().filter(|(plural, ..)| *plural == wanted);
        found
            .map(|(_, path, object)| {
                let (namespace, name) = path.split_once('/').unwrap_or(("", path));
                let mut object = object.clone();
                object["metadata"]["name"] = name.into();
                if !namespace.is_empty() {
                    object["metadata"]["namespace"] = namespace.into();
                }
                object
            })
            .collect()
    };
    Policy::of(&of("clusterroles"), &of("roles"), &of("rolebindings"), &of("clusterrolebindings"))
}

fn user(text: &str) -> UserInfo {
    match text.split_once('@') {
        Some((name, group)) => UserInfo::with_groups(name, &[group]),
        None => UserInfo::with_groups(text, &[]),
    }
}

/// `verb group/resource[:name] namespace`, or `verb /path`.
fn allowed(policy: &Policy, who: &str, question: &str) -> bool {
    let words: Vec<&str> = question.split_whitespace().collect();
    if words[1].starts_with('/') {
        let what = Attributes { verb: words[0], path: Some(words[1]), ..Attributes::default() };
        return policy.allows(&user(who), &what).is_some();
    }
    let (group, rest) = words[1].split_once('|').unwrap_or(("", words[1]));
    let (resource, name) = rest.split_once(':').unwrap_or((rest, ""));
    let namespace = words.get(2).copied().unwrap_or_default();
    let what = Attributes { verb: words[0], group, resource, namespace, name, path: None };
    policy.allows(&user(who), &what).is_some()
}

#[test]
fn who_may_do_what() {
    let policy = policy(&objects());
    let table = [
        // A role counts in its namespace, for its verbs and resources.
        ("ann", "get pods team", true),
        ("ann", "get pods:p team", true),
        ("ann", "list pods team", true),
        ("ann", "watch pods team", false),
        ("ann", "get pods other", false),
        ("ann", "get pods", false),
        ("ann", "get secrets team", false),
        ("ann", "get apps|pods team", false),
        ("bob", "get pods team", false),
        // Subresources are resources of their own.
        ("ann", "get pods/log:p team", true),
        ("ann", "get pods/status:p team", false),
        ("ann", "get pods/exec:p team", false),
        // Names: one of them, and no list of all.
        ("ann", "get configmaps:a team", true),
        ("ann", "watch configmaps:b team", true),
        ("ann", "get configmaps:c team", false),
        ("ann", "watch configmaps team", false),
        ("ann", "delete configmaps:a team", false),
        ("ann", "get configmaps:a other", false),
        // Paths are the cluster's: a namespace's role gives none.
        ("ann", "get /secret", false),
        ("x@ops", "get /metrics", true),
        ("x@ops", "get /metrics/more", false),
        ("x@ops", "get /logs/", true),
        ("x@ops", "get /logs/a/b", true),
        ("x@ops", "get /logs", false),
        ("x@ops", "post /metrics", false),
        // ServiceAccounts; without a namespace it is the binding's own.
        ("system:serviceaccount:bots:bot", "get pods team", true),
        ("system:serviceaccount:team:bot", "get pods team", false),
        ("system:serviceaccount:team:own", "get pods team", true),
        ("bot", "get pods team", false),
        // A cluster role bound in a namespace counts there.
        ("x@devs", "create batch|jobs team", true),
        ("x@devs", "anything batch|jobs/status team", true),
        ("x@devs", "create batch|jobs other", false),
        ("x@devs", "create batch|jobs", false),
        ("x@devs", "create jobs team", false),
        // A namespace is its own content.
        ("x@devs", "get namespaces:team team", true),
        ("x@devs", "delete namespaces:team team", true),
        ("x@devs", "get namespaces:other other", false),
        ("x@devs", "list namespaces", false),
        // `*/scale` is that subresource of all, and nothing else.
        ("x@ops", "update apps|deployments/scale:d team", true),
        ("x@ops", "update lab.example.com|widgets/scale:w other", true),
        ("x@ops", "update apps|deployments:d team", false),
        ("x@ops", "update apps|deployments/status:d team", false),
        ("x@ops", "get apps|deployments/scale:d team", false),
        // Everything, by a role.
        ("root", "get secrets team", true),
        ("root", "impersonate users:ann", true),
        ("root", "frobnicate a.b|cs/d:e f", true),
        ("root", "delete /any/path", true),
        // A binding that means nothing gives nothing.
        ("eve", "get pods team", false),
        ("eve", "get pods", false),
        // A group's name is no user's, nor the other way round.
        ("devs", "create batch|jobs team", false),
        ("x@ann", "get pods team", false),
        // Whoever is in no binding.
        ("", "get pods team", false),
        ("system:anonymous", "get pods team", false),
        // Bound to a role that is not there.
        ("x@devs", "get pods team", false),
    ];
    let wrong: Vec<_> = table
        .into_iter()
        .filter(|(who, question, expected)| allowed(&policy, who, question) != *expected)
        .collect();
    assert!(wrong.is_empty(), "decided otherwise: {wrong:#?}");
}

#[test]
fn says_by_which_binding() {
    let policy = policy(&objects());
    let what =
        Attributes { verb: "get", resource: "pods", namespace: "team", ..Default::default() };
    let why = policy.allows(&user("system:serviceaccount:bots:bot"), &what).unwrap();
    assert_eq!(
        &*why,
        "RBAC: allowed by RoleBinding \"bots/team\" of Role \"reader\" to ServiceAccount \
         \"bot/bots\""
    );
}

/// The default roles with an extension for a custom kind, bound in a namespace.
fn with_defaults() -> Policy {
    let mut all: Vec<(&str, String, Value)> = defaults::objects()
        .into_iter()
        .map(|(plural, object)| {
            (plural, object["metadata"]["name"].as_str().unwrap().to_owned(), object)
        })
        .collect();
    let label = "rbac.authorization.k8s.io/aggregate-to-edit";
    all.push((
        "clusterroles",
        "widgets".to_owned(),
        json!({
            "metadata": {"labels": {label: "true"}},
            "rules": [{"verbs": ["*"], "apiGroups": ["lab.example.com"], "resources": ["widgets"]}],
        }),
    ));
    for role in ["view", "edit", "admin"] {
        all.push((
            "rolebindings",
            format!("team/{role}s"),
            json!({
                "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": role}],
            }),
        ));
    }
    let all: Vec<_> = all.iter().map(|(p, path, o)| (*p, path.as_str(), o.clone())).collect();
    policy(&all)
}

#[test]
fn default_roles_contain_each_other() {
    let policy = with_defaults();
    let table = [
        ("get pods team", [true, true, true]),
        ("get pods/log team", [true, true, true]),
        ("get secrets team", [false, true, true]),
        ("create configmaps team", [false, true, true]),
        ("create serviceaccounts/token team", [false, true, true]),
        ("impersonate serviceaccounts:bot team", [false, true, true]),
        ("create lab.example.com|widgets team", [false, true, true]),
        ("create rbac.authorization.k8s.io|rolebindings team", [false, false, true]),
        ("create authorization.k8s.io|localsubjectaccessreviews team", [false, false, true]),
        ("delete namespaces:team team", [false, false, false]),
        ("escalate rbac.authorization.k8s.io|roles team", [false, false, false]),
        ("impersonate users:ann", [false, false, false]),
        ("get pods other", [false, false, false]),
    ];
    for (question, expected) in table {
        let found = ["view", "edit", "admin"].map(|who| allowed(&policy, who, question));
        assert_eq!(found, expected, "{question}");
    }
    assert!(allowed(&policy, &format!("x@{MASTERS}"), "post /client-certificates"));
    for path in ["/healthz", "/version"] {
        assert!(allowed(&policy, &format!("x@{UNAUTHENTICATED}"), &format!("get {path}")));
    }
    assert!(!allowed(&policy, &format!("x@{UNAUTHENTICATED}"), "get /api"));
    assert!(allowed(&policy, &format!("x@{AUTHENTICATED}"), "get /openapi/v3"));
    let who_am_i = "create authentication.k8s.io|selfsubjectreviews";
    assert!(allowed(&policy, &format!("x@{AUTHENTICATED}"), who_am_i));
}

#[test]
fn aggregated_roles_may_stand_in_a_circle() {
    let gathers = |name: &str, from: &str, label: &str| {
        json!({
            "metadata": {"name": name, "labels": {"in": label}},
            "aggregationRule": {"clusterRoleSelectors": [{
                "matchExpressions": [{"key": "in", "operator": "In", "values": [from]}],
            }]},
        })
    };
    let plain = json!({
        "metadata": {"name": "plain", "labels": {"in": "a"}},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
    });
    let roles = [gathers("a", "a", "b"), gathers("b", "b", "a"), plain];
    assert_eq!(aggregate(&roles[0], &roles).len(), 1);
    assert_eq!(aggregate(&roles[1], &roles).len(), 1, "b gathers a, which gathers plain");
}

#[test]
fn a_default_role_gets_back_what_it_lost_and_keeps_what_it_got() {
    let (_, expected) = defaults::objects()
        .into_iter()
        .find(|(_, o)| o["metadata"]["name"] == "system:basic-user")
        .unwrap();
    let mut same = expected.clone();
    assert!(!defaults::complete(&mut same, &expected));
    let mut changed = expected.clone();
    let own = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    changed["rules"] = json!([own, expected["rules"][0]]);
    changed["metadata"].as_object_mut().unwrap().shift_remove("labels");
    assert!(defaults::complete(&mut changed, &expected));
    assert_eq!(changed["rules"], json!([own, expected["rules"][0], expected["rules"][1]]));
    assert_eq!(changed["metadata"]["labels"], expected["metadata"]["labels"]);
    let mut kept = expected.clone();
    kept["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    kept["rules"] = json!([]);
    assert!(!defaults::complete(&mut kept, &expected), "its owner wants it so");
}
