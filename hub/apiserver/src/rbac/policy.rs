//! The compiled policy: for each subject, the rules that bindings give it.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Attributes, TABLES};
use crate::{selector::Labels, store::State, user::UserInfo};

/// One `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    fn allows(&self, what: &Attributes) -> bool {
        if !has(&self.verbs, what.verb) {
            return false;
        }
        match what.path {
            Some(path) => self.non_resource_urls.iter().any(|url| covers_path(url, path)),
            None => {
                has(&self.api_groups, what.group)
                    && self.resources.iter().any(|own| covers_resource(own, what.resource))
                    && (self.resource_names.is_empty()
                        || self.resource_names.iter().any(|own| own == what.name))
            }
        }
    }

    /// Every single right that the rule gives.
    pub(super) fn each<'r>(&'r self, namespace: &'r str) -> Vec<Attributes<'r>> {
        let mut all = Vec::new();
        let mut names: Vec<&str> = self.resource_names.iter().map(String::as_str).collect();
        if names.is_empty() {
            names.push("");
        }
        for verb in &self.verbs {
            for path in &self.non_resource_urls {
                all.push(Attributes { verb, path: Some(path), ..Attributes::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    for &name in &names {
                        all.push(Attributes { verb, group, resource, namespace, name, path: None });
                    }
                }
            }
        }
        all
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

fn covers_resource(own: &str, wanted: &str) -> bool {
    let subresource = || Some((own.strip_prefix("*/")?, wanted.split_once('/')?.1));
    own == "*" || own == wanted || subresource().is_some_and(|(own, wanted)| own == wanted)
}

fn covers_path(own: &str, path: &str) -> bool {
    own == path || own.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// Rules given in one namespace, or (`None`) everywhere.
#[derive(Debug, Clone)]
struct Grant {
    namespace: Option<String>,
    rules: Arc<Vec<Rule>>,
}

/// All rules, by role and by subject.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// By namespace (empty: cluster roles) and name.
    roles: HashMap<(String, String), Arc<Vec<Rule>>>,
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Policy {
    pub(super) fn compile(state: &State) -> Policy {
        let [roles, role_bindings, cluster_roles, cluster_bindings] = TABLES;
        let mut policy = Policy::default();
        let clusters: Vec<Value> =
            state.list(cluster_roles, None, None).map(|object| object.value()).collect();
        for role in &clusters {
            let rules = match role["aggregationRule"].is_object() {
                true => aggregate(role, &clusters),
                false => rules_of(role),
            };
            policy.roles.insert((String::new(), text(&role["metadata"]["name"])), Arc::new(rules));
        }
        for object in state.list(roles, None, None) {
            let key = (object.key.namespace.clone(), object.key.name.clone());
            policy.roles.insert(key, Arc::new(rules_of(&object.value())));
        }
        for object in state.list(role_bindings, None, None) {
            policy.bind(&object.value(), Some(&object.key.namespace));
        }
        for object in state.list(cluster_bindings, None, None) {
            policy.bind(&object.value(), None);
        }
        policy
    }

    fn bind(&mut self, binding: &Value, namespace: Option<&str>) {
        let of_cluster = binding["roleRef"]["kind"] == "ClusterRole";
        let home = if of_cluster { "" } else { namespace.unwrap_or_default() };
        let key = (home.to_owned(), text(&binding["roleRef"]["name"]));
        // A binding of a role that does not exist gives nothing, until it does.
        let Some(rules) = self.roles.get(&key).cloned() else { return };
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let name = text(&subject["name"]);
            let grant = Grant { namespace: namespace.map(str::to_owned), rules: rules.clone() };
            match subject["kind"].as_str() {
                Some("User") => self.users.entry(name).or_default().push(grant),
                Some("Group") => self.groups.entry(name).or_default().push(grant),
                Some("ServiceAccount") => {
                    let own = subject["namespace"].as_str().or(namespace).unwrap_or_default();
                    let name = format!("system:serviceaccount:{own}:{name}");
                    self.users.entry(name).or_default().push(grant);
                }
                _ => {}
            }
        }
    }

    fn grants<'p>(&'p self, user: &'p UserInfo) -> impl Iterator<Item = &'p Grant> {
        let of_groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(of_groups).flatten()
    }

    pub(super) fn allows(&self, user: &UserInfo, what: &Attributes) -> bool {
        self.grants(user).any(|grant| {
            let here = match &grant.namespace {
                None => true,
                Some(own) => what.path.is_none() && own == what.namespace,
            };
            here && grant.rules.iter().any(|rule| rule.allows(what))
        })
    }

    /// The rules of a user in a namespace, for SelfSubjectRulesReview.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let here = |grant: &&Grant| grant.namespace.as_deref().is_none_or(|own| own == namespace);
        self.grants(user).filter(here).flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    /// The rules of a role; the namespace of a cluster role is empty.
    pub(crate) fn rules_of(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        let rules = self.roles.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(rules)
    }
}

fn rules_of(role: &Value) -> Vec<Rule> {
    let rules = role["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

/// The rules of an aggregated role: those of all roles that one of its selectors matches.
fn aggregate(role: &Value, all: &[Value]) -> Vec<Rule> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    let parse = |selector: &Value| {
        let pairs = selector["matchLabels"].as_object()?;
        let terms: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
        Labels::parse(&terms.join(",")).ok()
    };
    let selectors: Vec<Labels> = selectors.into_iter().flatten().filter_map(parse).collect();
    let selected = |other: &&Value| {
        other["metadata"]["name"] != role["metadata"]["name"]
            && selectors.iter().any(|selector| selector.matches(other))
    };
    all.iter().filter(selected).flat_map(rules_of).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
