//! Who may do what: RBAC from the stored roles and bindings (`rbac.authorization.k8s.io/v1`).
//! What no rule allows is refused; members of `system:masters` may do everything.

pub(crate) mod defaults;
mod policy;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Deserialize as _;
use serde_json::Value;

pub(crate) use policy::{Policy, Rule};

use crate::{
    registry::Resource,
    request::{Target, Verb},
    server::Inner,
    status::Status,
    store::State,
    user::{MASTERS, UserInfo},
    verbs::Call,
};

/// The tables that make up the policy.
const TABLES: [&str; 4] = [
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
];

/// One question to the policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// With its subresource: `pods/log`.
    pub resource: &'a str,
    /// Empty: the whole cluster.
    pub namespace: &'a str,
    pub name: &'a str,
    /// A path that is no resource; the other fields but `verb` do not count then.
    pub path: Option<&'a str>,
}

/// The policy, compiled anew when a role or binding has changed.
#[derive(Default)]
pub(crate) struct Authorizer {
    compiled: ArcSwap<(u64, Policy)>,
}

impl Authorizer {
    pub(crate) fn policy(&self, server: &Inner) -> Arc<(u64, Policy)> {
        let current = self.compiled.load_full();
        let state = server.store.read();
        let changed_at = changed_at(&state);
        if current.0 == changed_at {
            return current;
        }
        let compiled = Arc::new((changed_at, Policy::compile(&state)));
        self.compiled.store(compiled.clone());
        compiled
    }

    /// Whether a user may do what he asks.
    pub(crate) fn allows(&self, server: &Inner, user: &UserInfo, what: &Attributes) -> bool {
        user.in_group(MASTERS) || self.policy(server).1.allows(user, what)
    }
}

fn changed_at(state: &State) -> u64 {
    TABLES.iter().map(|table| state.changed_at(table)).max().unwrap_or(0)
}

/// Refuses a request for a resource that its user may not make.
pub(crate) fn authorize(
    server: &Inner,
    user: &UserInfo,
    verb: Verb,
    target: &Target,
) -> Result<(), Status> {
    let resource = target.rbac_resource();
    let what = Attributes {
        verb: verb.as_str(),
        group: &target.group,
        resource: &resource,
        namespace: match (target.plural.as_str(), &target.namespace) {
            // A namespace is its own content: roles in it may speak of it.
            ("namespaces", None) => target.name.as_deref().unwrap_or_default(),
            (_, namespace) => namespace.as_deref().unwrap_or_default(),
        },
        name: target.name.as_deref().unwrap_or_default(),
        path: None,
    };
    match server.authorizer.allows(server, user, &what) {
        true => Ok(()),
        false => Err(forbidden(user, &what, target)),
    }
}

fn forbidden(user: &UserInfo, what: &Attributes, target: &Target) -> Status {
    let qualified = match what.group {
        "" => target.plural.clone(),
        group => format!("{}.{group}", target.plural),
    };
    let scope = match &target.namespace {
        Some(namespace) => format!(" in the namespace {namespace:?}"),
        None => " at the cluster scope".to_owned(),
    };
    let object = match what.name {
        "" => qualified,
        name => format!("{qualified} {name:?}"),
    };
    let mut status = Status::forbidden(format!(
        "{object} is forbidden: User {:?} cannot {} resource {:?} in API group {:?}{scope}",
        user.name, what.verb, what.resource, what.group
    ));
    let details = [("name", what.name), ("group", what.group), ("kind", &target.plural)];
    for (field, value) in details.into_iter().filter(|(_, value)| !value.is_empty()) {
        status.details.insert(field.to_owned(), value.into());
    }
    status
}

/// Refuses a path that is no resource.
pub(crate) fn authorize_path(
    server: &Inner,
    user: &UserInfo,
    verb: &str,
    path: &str,
) -> Result<(), Status> {
    let what = Attributes { verb, path: Some(path), ..Attributes::default() };
    match server.authorizer.allows(server, user, &what) {
        true => Ok(()),
        false => Err(Status::forbidden(format!(
            "forbidden: User {:?} cannot {verb} path {path:?}",
            user.name
        ))),
    }
}

/// A role's rules may be written only by who has all those rights, or the verb `escalate`.
pub(crate) fn may_grant(call: &Call, rules: &Value) -> Result<(), Status> {
    let namespace = call.target.namespace.as_deref().unwrap_or_default();
    if may(call, "escalate", &call.resource, "") {
        return Ok(());
    }
    let missing = missing_rights(call, namespace, rules);
    match missing.is_empty() {
        true => Ok(()),
        false => Err(escalation(call, "grant", &missing)),
    }
}

/// A binding may be written only by who has all rights of the role, or the verb `bind` on it.
pub(crate) fn may_bind(call: &Call, binding: &Value) -> Result<(), Status> {
    let role = &binding["roleRef"];
    let name = role["name"].as_str().unwrap_or_default();
    let namespace = call.target.namespace.as_deref().unwrap_or_default();
    let (plural, role_namespace) = match role["kind"].as_str() {
        Some("ClusterRole") => ("clusterroles", ""),
        _ => ("roles", namespace),
    };
    let registry = call.server.registry();
    let Some(resource) = registry.find("rbac.authorization.k8s.io", "v1", plural) else {
        return Ok(());
    };
    if may(call, "bind", resource, name) {
        return Ok(());
    }
    let policy = call.server.authorizer.policy(call.server);
    let Some(rules) = policy.1.rules_of(role_namespace, name) else {
        return Err(Status::not_found(crate::verbs::about(resource, name)));
    };
    let missing: Vec<String> =
        rules.iter().flat_map(|rule| missing_of(call, namespace, rule)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(escalation(call, "bind", &missing)),
    }
}

fn may(call: &Call, verb: &str, resource: &Resource, name: &str) -> bool {
    let what = Attributes {
        verb,
        group: &resource.group,
        resource: &resource.plural,
        namespace: call.target.namespace.as_deref().unwrap_or_default(),
        name,
        path: None,
    };
    call.server.authorizer.allows(call.server, call.user, &what)
}

fn escalation(call: &Call, what: &str, missing: &[String]) -> Status {
    let name = call.target.name.as_deref().unwrap_or_default();
    Status::forbidden(format!(
        "{}.{} {name:?} is forbidden: user {:?} is attempting to {what} RBAC permissions not \
         currently held: {}",
        call.resource.plural,
        call.resource.group,
        call.user.name,
        missing.join(", ")
    ))
}

fn missing_rights(call: &Call, namespace: &str, rules: &Value) -> Vec<String> {
    let rules = rules.as_array().into_iter().flatten();
    let parsed = rules.filter_map(|rule| Rule::deserialize(rule).ok());
    parsed.flat_map(|rule| missing_of(call, namespace, &rule)).collect()
}

fn missing_of(call: &Call, namespace: &str, rule: &Rule) -> Vec<String> {
    rule.each(namespace)
        .into_iter()
        .filter(|what| !call.server.authorizer.allows(call.server, call.user, what))
        .map(|what| match what.path {
            Some(path) => format!("{{NonResourceURLs:[{path:?}], Verbs:[{:?}]}}", what.verb),
            None => format!(
                "{{APIGroups:[{:?}], Resources:[{:?}], Verbs:[{:?}]}}",
                what.group, what.resource, what.verb
            ),
        })
        .collect()
}
