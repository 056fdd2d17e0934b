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
    /// What `cluster-admin` has.
    pub(crate) fn everything() -> [Rule; 2] {
        let all = || vec!["*".to_owned()];
        [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ]
    }

    pub(super) fn allows(&self, what: &Attributes) -> bool {
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

    /// Every single right that the rule gives, one after the other: there may be very many.
    pub(super) fn each<'r>(&'r self, namespace: &'r str) -> impl Iterator<Item = Attributes<'r>> {
        let of_verb = move |verb: &'r String| {
            let paths = self.non_resource_urls.iter().map(move |path| Attributes {
                verb,
                path: Some(path),
                ..Attributes::default()
            });
            let resources = self.api_groups.iter().flat_map(move |group| {
                self.resources.iter().flat_map(move |resource| {
                    self.names().map(move |name| Attributes {
                        verb,
                        group,
                        resource,
                        namespace,
                        name,
                        path: None,
                    })
                })
            });
            paths.chain(resources)
        };
        self.verbs.iter().flat_map(of_verb)
    }

    /// The names it is about; one that is empty: all.
    fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.resource_names.is_empty().then_some("");
        all.into_iter().chain(self.resource_names.iter().map(String::as_str))
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
    /// By which binding, in the words of Kubernetes' authorizer.
    why: Arc<str>,
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
        let values = |table: &str| -> Vec<Value> {
            state.list(table, None, None).map(|object| object.value()).collect()
        };
        let [roles, role_bindings, cluster_roles, cluster_bindings] = TABLES.map(values);
        Policy::of(&cluster_roles, &roles, &role_bindings, &cluster_bindings)
    }

    pub(super) fn of(
        cluster_roles: &[Value],
        roles: &[Value],
        role_bindings: &[Value],
        cluster_bindings: &[Value],
    ) -> Policy {
        let mut policy = Policy::default();
        let metadata = |object: &Value, field: &str| text(&object["metadata"][field]);
        for role in cluster_roles {
            let key = (String::new(), metadata(role, "name"));
            policy.roles.insert(key, Arc::new(aggregate(role, cluster_roles)));
        }
        for role in roles {
            let key = (metadata(role, "namespace"), metadata(role, "name"));
            policy.roles.insert(key, Arc::new(rules_of(role)));
        }
        for binding in role_bindings {
            policy.bind(binding, Some(&metadata(binding, "namespace")));
        }
        for binding in cluster_bindings {
            policy.bind(binding, None);
        }
        policy
    }

    fn bind(&mut self, binding: &Value, namespace: Option<&str>) {
        let role = &binding["roleRef"];
        let home = if role["kind"] == "ClusterRole" { "" } else { namespace.unwrap_or_default() };
        let key = (home.to_owned(), text(&role["name"]));
        // A binding of a role that does not exist gives nothing, until it does.
        let Some(rules) = self.roles.get(&key).cloned() else { return };
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let name = text(&subject["name"]);
            let why = why(binding, namespace, subject);
            let grant =
                Grant { namespace: namespace.map(str::to_owned), rules: rules.clone(), why };
            match subject["kind"].as_str() {
                Some("User") => self.users.entry(name).or_default().push(grant),
                Some("Group") => self.groups.entry(name).or_default().push(grant),
                Some("ServiceAccount") => {
                    let own = subject["namespace"].as_str().or(namespace).unwrap_or_default();
                    let name = UserInfo::service_account(own, &name).name;
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

    /// By which binding a user may do what he asks.
    pub(super) fn allows(&self, user: &UserInfo, what: &Attributes) -> Option<Arc<str>> {
        let allowing = self.grants(user).find(|grant| {
            let here = match &grant.namespace {
                None => true,
                Some(own) => what.path.is_none() && own == what.namespace,
            };
            here && grant.rules.iter().any(|rule| rule.allows(what))
        })?;
        Some(allowing.why.clone())
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

fn why(binding: &Value, namespace: Option<&str>, subject: &Value) -> Arc<str> {
    let binding_name = text(&binding["metadata"]["name"]);
    let (kind, binding_name) = match namespace {
        Some(namespace) => ("RoleBinding", format!("{binding_name}/{namespace}")),
        None => ("ClusterRoleBinding", binding_name),
    };
    let role = &binding["roleRef"];
    let subject_name = match (subject["kind"].as_str(), subject["namespace"].as_str()) {
        (Some("ServiceAccount"), own) => {
            format!("{}/{}", text(&subject["name"]), own.or(namespace).unwrap_or_default())
        }
        _ => text(&subject["name"]),
    };
    format!(
        "RBAC: allowed by {kind} {binding_name:?} of {} {:?} to {} {subject_name:?}",
        text(&role["kind"]),
        text(&role["name"]),
        text(&subject["kind"])
    )
    .into()
}

fn rules_of(role: &Value) -> Vec<Rule> {
    let rules = role["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

/// The rules of a cluster role; those of an aggregated one are the rules of all roles that one of
/// its selectors matches, each once.
pub(crate) fn aggregate(role: &Value, all: &[Value]) -> Vec<Rule> {
    let mut rules = Vec::new();
    collect(role, all, &mut Vec::new(), &mut rules);
    rules
}

/// `within`: the aggregated roles that this one is collected for; a circle adds nothing.
fn collect<'r>(
    role: &'r Value,
    all: &'r [Value],
    within: &mut Vec<&'r Value>,
    rules: &mut Vec<Rule>,
) {
    let name = &role["metadata"]["name"];
    if !role["aggregationRule"].is_object() {
        for rule in rules_of(role) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        return;
    }
    if within.contains(&name) {
        return;
    }
    within.push(name);
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    for selector in selectors.into_iter().flatten().filter_map(selector) {
        for selected in all.iter().filter(|other| selector.matches(other)) {
            collect(selected, all, within, rules);
        }
    }
    within.pop();
}

/// A `LabelSelector`; `None`: it is none.
fn selector(selector: &Value) -> Option<Labels> {
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let mut terms: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", text(value))).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = text(&expression["key"]);
        let values: Vec<String> =
            expression["values"].as_array().into_iter().flatten().map(text).collect();
        let values = values.join(",");
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key,
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    Labels::parse(&terms.join(",")).ok()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
