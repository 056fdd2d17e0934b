//! Nobody hands out rights that he does not have: who writes a role, or binds one, must have what
//! it gives, or the verb that says that he need not (`escalate`, `bind`).

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

use super::{Attributes, GROUP, Rule};
use crate::{registry::Resource, status::Status, verbs::Call};

/// Single rights of one role that are looked at. More are refused to whom they would have to be
/// looked at for: a short role can stand for thousands of millions.
const RIGHTS_MAX: usize = 100_000;

/// Missing rights that are told.
const MISSING_MAX: usize = 100;

/// A role may be written only by who has all the rights that it gives, or the verb `escalate`;
/// `old` is absent on create.
pub(crate) fn may_grant(call: &Call, role: &Value, old: Option<&Value>) -> Result<(), Status> {
    let name = call.target.name.as_deref().unwrap_or_default();
    if old.is_some_and(|old| same_but_for_deletion(old, role))
        || may(call, "escalate", &call.resource, name)
    {
        return Ok(());
    }
    check(call, name_of(role), &rules_of(role))?;
    let aggregates = |role: &Value| role["aggregationRule"].is_object();
    if aggregates(role) || old.is_some_and(aggregates) {
        // It gathers whatever is labelled for it, now and later.
        let full = Rule::everything();
        if rights(call, &full).next_missing().is_some() {
            return Err(refused(
                call,
                name_of(role),
                "must have cluster-admin privileges to use an aggregationRule",
            ));
        }
    }
    Ok(())
}

/// A binding may be written only by who has all rights of the role, or the verb `bind` on it.
pub(crate) fn may_bind(call: &Call, binding: &Value, old: Option<&Value>) -> Result<(), Status> {
    if old.is_some_and(|old| same_but_for_deletion(old, binding)) {
        return Ok(());
    }
    let role = &binding["roleRef"];
    let name = role["name"].as_str().unwrap_or_default();
    let namespace = call.target.namespace.as_deref().unwrap_or_default();
    let (plural, role_namespace) = match role["kind"].as_str() {
        Some("ClusterRole") => ("clusterroles", ""),
        _ => ("roles", namespace),
    };
    let registry = call.server.registry();
    let Some(resource) = registry.find(GROUP, "v1", plural) else {
        return Err(Status::internal(format!("{plural} are not served")));
    };
    if may(call, "bind", resource, name) {
        return Ok(());
    }
    let policy = call.server.authorizer.policy(call.server);
    match policy.1.rules_of(role_namespace, name) {
        Some(rules) => check(call, name_of(binding), rules),
        None => Err(Status::not_found(crate::verbs::about(resource, name))),
    }
}

/// What the garbage collector has to change so that an object can go.
fn same_but_for_deletion(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields"] {
                metadata.shift_remove(field);
            }
        }
        object
    };
    rest(old) == rest(new)
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
    call.server.authorizer.allows(call.server, call.user, &what).is_some()
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn rules_of(role: &Value) -> Vec<Rule> {
    let rules = role["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

/// The rights of rules, as far as they are looked at.
struct Rights<'r> {
    call: &'r Call<'r>,
    each: Box<dyn Iterator<Item = Attributes<'r>> + 'r>,
    looked_at: usize,
}

fn rights<'r>(call: &'r Call<'r>, rules: &'r [Rule]) -> Rights<'r> {
    let namespace = call.target.namespace.as_deref().unwrap_or_default();
    let each = Box::new(rules.iter().flat_map(move |rule| rule.each(namespace)));
    Rights { call, each, looked_at: 0 }
}

impl<'r> Rights<'r> {
    /// The next right that the caller lacks, of those that are looked at.
    fn next_missing(&mut self) -> Option<Attributes<'r>> {
        let Rights { call, each, looked_at } = self;
        let counted = each.by_ref().inspect(|_| *looked_at += 1).take(RIGHTS_MAX + 1);
        let policy = &call.server.authorizer;
        { counted }.find(|what| policy.allows(call.server, call.user, what).is_none())
    }
}

fn check(call: &Call, name: &str, rules: &[Rule]) -> Result<(), Status> {
    let mut rights = rights(call, rules);
    let mut missing = Vec::new();
    while let Some(what) = rights.next_missing() {
        missing.push(what);
        if missing.len() == MISSING_MAX || rights.looked_at > RIGHTS_MAX {
            break;
        }
    }
    let user = call.user;
    if !missing.is_empty() {
        let why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted(user.groups.iter().map(String::as_str)),
            compact(&missing).join("\n")
        );
        return Err(refused(call, name, &why));
    }
    match rights.looked_at > RIGHTS_MAX {
        true => {
            let why = format!(
                "it stands for more than {RIGHTS_MAX} single rights: write it with \"*\", or in \
                 several"
            );
            Err(refused(call, name, &why))
        }
        false => Ok(()),
    }
}

fn refused(call: &Call, name: &str, why: &str) -> Status {
    let (plural, group) = (&call.resource.plural, &call.resource.group);
    let mut status = Status::forbidden(format!("{plural}.{group} {name:?} is forbidden: {why}"));
    for (field, value) in [("name", name), ("group", group), ("kind", plural)] {
        status.details.insert(field.to_owned(), value.into());
    }
    status
}

/// Missing rights as rules: those that differ by their verb are one.
fn compact(missing: &[Attributes]) -> Vec<String> {
    let mut resources: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    let mut rules = Vec::new();
    for what in missing {
        match what.path {
            Some(path) => {
                let (path, verb) = (quoted([path].into_iter()), quoted([what.verb].into_iter()));
                rules.push(format!("{{NonResourceURLs:{path}, Verbs:{verb}}}"));
            }
            None => {
                let key = (what.group, what.resource, what.name);
                resources.entry(key).or_default().push(what.verb);
            }
        }
    }
    rules.extend(resources.into_iter().map(|((group, resource, name), verbs)| {
        let names = match name {
            "" => String::new(),
            name => format!(", ResourceNames:{}", quoted([name].into_iter())),
        };
        format!(
            "{{APIGroups:{}, Resources:{}{names}, Verbs:{}}}",
            quoted([group].into_iter()),
            quoted([resource].into_iter()),
            quoted(verbs.into_iter())
        )
    }));
    rules.sort();
    rules
}

/// `["a" "b"]`, as Go prints a list of strings.
fn quoted<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}
