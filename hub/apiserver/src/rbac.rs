//! Who may do what: RBAC from the stored roles and bindings (`rbac.authorization.k8s.io/v1`).
//! What no rule allows is refused; members of `system:masters` may do everything.

pub(crate) mod defaults;
mod escalation;
mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub(crate) use escalation::{may_bind, may_grant};
pub(crate) use policy::{Policy, Rule, aggregate};

use crate::{
    request::{Query, Target, Verb},
    selector::Fields,
    server::Inner,
    status::Status,
    store::State,
    user::{MASTERS, UserInfo},
};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

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

    /// Whether a user may do what he asks: by which binding (members of `system:masters` need
    /// none), or `None`.
    pub(crate) fn allows(
        &self,
        server: &Inner,
        user: &UserInfo,
        what: &Attributes,
    ) -> Option<Arc<str>> {
        match user.in_group(MASTERS) {
            true => Some("".into()),
            false => self.policy(server).1.allows(user, what),
        }
    }
}

fn changed_at(state: &State) -> u64 {
    TABLES.iter().map(|table| state.changed_at(table)).max().unwrap_or(0)
}

/// Refuses a request for a resource that its user may not make; else by which binding he may.
pub(crate) fn authorize(
    server: &Inner,
    user: &UserInfo,
    verb: Verb,
    target: &Target,
    query: &Query,
) -> Result<Arc<str>, Status> {
    let resource = target.rbac_resource();
    let selected = selected_name(verb, query);
    let what = Attributes {
        verb: verb.as_str(),
        group: &target.group,
        resource: &resource,
        namespace: match (target.plural.as_str(), &target.namespace) {
            // A namespace is its own content: roles in it may speak of it.
            ("namespaces", None) => target.name.as_deref().unwrap_or_default(),
            (_, namespace) => namespace.as_deref().unwrap_or_default(),
        },
        name: target.name.as_deref().or(selected.as_deref()).unwrap_or_default(),
        path: None,
    };
    let allowed = server.authorizer.allows(server, user, &what);
    allowed.ok_or_else(|| forbidden(user, &what, target))
}

/// Who may see one object may list and watch it: by a selector that names it.
fn selected_name(verb: Verb, query: &Query) -> Option<String> {
    let of_many = matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    let fields = query.get("fieldSelector").filter(|_| of_many)?;
    Some(Fields::parse(fields).ok()?.required("metadata.name")?.to_owned())
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

/// Refuses a path that is no resource; else by which binding he may.
pub(crate) fn authorize_path(
    server: &Inner,
    user: &UserInfo,
    verb: &str,
    path: &str,
) -> Result<Arc<str>, Status> {
    let what = Attributes { verb, path: Some(path), ..Attributes::default() };
    let allowed = server.authorizer.allows(server, user, &what);
    allowed.ok_or_else(|| {
        Status::forbidden(format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name))
    })
}
