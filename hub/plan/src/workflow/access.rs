//! What a pipeline's pod may do with the API, and the ConfigMap that it mounts.
//!
//! Kratix's rules, narrowed: no pipeline may write Works (results go through the hub), a promise
//! pipeline sees its own Promise only, and a request pipeline the requests of its own namespace.
//! These objects serve all requests of a Promise in a namespace and stay when a request goes. They
//! are removed with the Promise, or when its pipelines no longer ask for them.

use std::collections::BTreeMap;

use muster_api::{
    KRATIX_GROUP, Pipeline, destination::DestinationSelector, labels, pipeline::Permission,
};
use muster_core::yaml::to_yaml;
use serde_json::{Value, json};

use super::{Action, Scope, Subject, Workflows};
use crate::names;

/// The key, and the file, that holds the Promise's selectors in the ConfigMap.
pub(super) const SELECTORS_KEY: &str = "destinationSelectors";
/// A label value for the namespace `*`, which cannot be one.
const ALL_NAMESPACES: &str = "kratix_all_namespaces";

/// The name that a pipeline's ServiceAccount and Role have.
pub fn id(promise: &str, scope: Scope, action: Action, pipeline: &str) -> String {
    format!("{promise}-{}-{}-{pipeline}", scope.as_str(), action.as_str())
}

/// The name of the ConfigMap with a Promise's destination selectors.
pub fn selectors_name(promise: &str) -> String {
    format!("destination-selectors-{promise}")
}

/// The ServiceAccount that a pipeline runs as.
pub fn account(subject: &Subject, action: Action, pipeline: &Pipeline) -> String {
    account_of(&subject.promise, subject.scope, action, pipeline)
}

fn account_of(promise: &str, scope: Scope, action: Action, pipeline: &Pipeline) -> String {
    let own = pipeline.spec.rbac.as_ref().and_then(|rbac| rbac.service_account.clone());
    own.filter(|own| !own.is_empty())
        .unwrap_or_else(|| id(promise, scope, action, &pipeline.metadata.name))
}

/// What must exist before the pipeline's Job: each whole, with apiVersion, kind and metadata.
pub fn objects(
    subject: &Subject,
    action: Action,
    pipeline: &Pipeline,
    selectors: &[DestinationSelector],
) -> Vec<Value> {
    let maker = Maker {
        subject,
        id: id(&subject.promise, subject.scope, action, &pipeline.metadata.name),
        account: account(subject, action, pipeline),
        labels: pipeline_labels(subject, action, &pipeline.metadata.name),
    };
    let mut objects = vec![maker.service_account(), selectors_map(subject, selectors)];
    objects.extend(maker.own_object());
    for permission in pipeline.spec.rbac.iter().flat_map(|rbac| &rbac.permissions) {
        objects.extend(maker.permission(permission));
    }
    objects
}

/// Whether a Role or binding with these labels and this name was made for a pipeline, and no version
/// of the Promise asks for it any more.
pub fn is_stale(
    promise: &str,
    versions: &[Workflows],
    labels: &BTreeMap<String, String>,
    name: &str,
) -> bool {
    let Some(made) = Made::of(labels) else { return false };
    let id = id(promise, made.scope, made.action, made.pipeline);
    let asked = |pipeline: &Pipeline| {
        let mut permissions = pipeline.spec.rbac.iter().flat_map(|rbac| &rbac.permissions);
        let named = |permission: &Permission| {
            let (role, binding) = permission_names(&id, permission, made.namespace);
            name == role || name == binding
        };
        name == id || permissions.any(named)
    };
    let of_pipeline = versions.iter().flat_map(|version| version.of(made.scope, made.action));
    let mut same = of_pipeline.filter(|it| it.metadata.name == made.pipeline);
    !same.any(asked)
}

/// Whether a ServiceAccount with these labels and this name was made for a pipeline, and no pipeline
/// of any version of the Promise runs as it any more.
pub fn is_stale_account(
    promise: &str,
    versions: &[Workflows],
    labels: &BTreeMap<String, String>,
    name: &str,
) -> bool {
    let all = || SCOPES.into_iter().flat_map(|scope| ACTIONS.map(|action| (scope, action)));
    let runs_as = |version: &Workflows| {
        all().any(|(scope, action)| {
            let mut pipelines = version.of(scope, action).iter();
            pipelines.any(|pipeline| account_of(promise, scope, action, pipeline) == name)
        })
    };
    Made::of(labels).is_some() && !versions.iter().any(runs_as)
}

const SCOPES: [Scope; 2] = [Scope::Promise, Scope::Resource];
const ACTIONS: [Action; 2] = [Action::Configure, Action::Delete];

/// What an object was made for, by its labels.
struct Made<'a> {
    scope: Scope,
    action: Action,
    pipeline: &'a str,
    /// Where the pipeline runs.
    namespace: &'a str,
}

impl<'a> Made<'a> {
    fn of(labels: &'a BTreeMap<String, String>) -> Option<Self> {
        let label = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
        Some(Self {
            scope: SCOPES.into_iter().find(|it| it.as_str() == label(labels::WORKFLOW_TYPE))?,
            action: ACTIONS.into_iter().find(|it| it.as_str() == label(labels::WORKFLOW_ACTION))?,
            pipeline: label(labels::PIPELINE_NAME),
            namespace: label(labels::PIPELINE_NAMESPACE),
        })
    }
}

/// The names of the role that gives a pipeline one permission, and of its binding. Each namespace in
/// which the pipeline runs has its own: one that all of them wrote would never be at rest.
fn permission_names(id: &str, permission: &Permission, runs_in: &str) -> (String, String) {
    let rule = serde_json::to_value(&permission.rule).unwrap_or_default().to_string();
    let asked = permission.resource_namespace.as_deref().unwrap_or_default();
    // The id is cut where the name would be too long.
    let named = |stem: &str| names::bounded(stem, &[id, &rule, asked, runs_in]);
    let bound = named(&format!("{id}-{runs_in}"));
    match asked {
        "*" => (named(&format!("{id}-{}", ALL_NAMESPACES.replace('_', "-"))), bound),
        asked if !asked.is_empty() && asked != runs_in => (named(&format!("{id}-{asked}")), bound),
        _ => (named(id), named(id)),
    }
}

/// The labels of everything that is made for one pipeline.
fn pipeline_labels(subject: &Subject, action: Action, pipeline: &str) -> BTreeMap<String, String> {
    [
        (labels::PROMISE_NAME, subject.promise.as_str()),
        (labels::PIPELINE_NAME, pipeline),
        (labels::PIPELINE_NAMESPACE, &subject.job_namespace),
        (labels::WORKFLOW_TYPE, subject.scope.as_str()),
        (labels::WORKFLOW_ACTION, action.as_str()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn selectors_map(subject: &Subject, selectors: &[DestinationSelector]) -> Value {
    // Kratix writes these keys in small letters.
    let entries = selectors.iter().map(|selector| {
        let mut entry = json!({ "matchlabels": selector.match_labels, "source": "promise" });
        if !selector.match_expressions.is_empty() {
            entry["matchexpressions"] = json!(selector.match_expressions);
        }
        entry
    });
    let entries = Value::Array(entries.collect());
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": selectors_name(&subject.promise),
            "namespace": subject.job_namespace,
            "labels": { labels::PROMISE_NAME: subject.promise },
        },
        "data": { SELECTORS_KEY: to_yaml(&entries) },
    })
}

/// Makes the objects of one pipeline.
struct Maker<'a> {
    subject: &'a Subject,
    id: String,
    account: String,
    labels: BTreeMap<String, String>,
}

impl Maker<'_> {
    fn service_account(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {
                "name": self.account,
                "namespace": self.subject.job_namespace,
                "labels": self.labels,
            },
        })
    }

    /// The right to read the object that the pipeline runs for, and to write its status.
    fn own_object(&self) -> [Value; 2] {
        let Subject { group, plural, name, .. } = self.subject;
        let resources = json!([plural, format!("{plural}/status")]);
        match &self.subject.namespace {
            None => {
                let rule = json!({
                    "apiGroups": [KRATIX_GROUP],
                    "resources": resources,
                    "resourceNames": [name],
                    "verbs": ["get", "update", "patch"],
                });
                let role = self.role(&self.id, None, &rule);
                [role, self.binding(&self.id, None, ("ClusterRole", &self.id))]
            }
            Some(namespace) => {
                let rule = json!({
                    "apiGroups": [group],
                    "resources": resources,
                    "verbs": ["get", "list", "update", "create", "patch"],
                });
                let at = Some(namespace.as_str());
                [self.role(&self.id, at, &rule), self.binding(&self.id, at, ("Role", &self.id))]
            }
        }
    }

    fn permission(&self, permission: &Permission) -> [Value; 2] {
        let rule = serde_json::to_value(&permission.rule).unwrap_or_default();
        let runs_in = self.subject.job_namespace.as_str();
        let (role_name, bound) = permission_names(&self.id, permission, runs_in);
        let to_cluster = ("ClusterRole", role_name.as_str());
        match permission.resource_namespace.as_deref() {
            Some("*") => [
                labelled(self.role(&role_name, None, &rule), ALL_NAMESPACES),
                self.binding(&bound, None, to_cluster),
            ],
            Some(asked) if !asked.is_empty() && asked != runs_in => [
                labelled(self.role(&role_name, None, &rule), asked),
                labelled(self.binding(&bound, Some(asked), to_cluster), asked),
            ],
            _ => [
                self.role(&role_name, Some(runs_in), &rule),
                self.binding(&bound, Some(runs_in), ("Role", &role_name)),
            ],
        }
    }

    fn role(&self, name: &str, namespace: Option<&str>, rule: &Value) -> Value {
        let mut role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": if namespace.is_some() { "Role" } else { "ClusterRole" },
            "metadata": { "name": name, "labels": self.labels },
            "rules": [rule],
        });
        if let Some(namespace) = namespace {
            role["metadata"]["namespace"] = json!(namespace);
        }
        role
    }

    /// Binds a role; a binding in a namespace may bind a ClusterRole.
    fn binding(&self, name: &str, namespace: Option<&str>, (kind, role): (&str, &str)) -> Value {
        let mut binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
            "metadata": { "name": name, "labels": self.labels },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
            "subjects": [{
                "kind": "ServiceAccount",
                "name": self.account,
                "namespace": self.subject.job_namespace,
            }],
        });
        if let Some(namespace) = namespace {
            binding["metadata"]["namespace"] = json!(namespace);
        }
        binding
    }
}

/// Says for which namespace a permission is.
fn labelled(mut object: Value, namespace: &str) -> Value {
    object["metadata"]["labels"][labels::RESOURCE_NAMESPACE] = json!(namespace);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::read;

    fn versions(permissions: &Value) -> Vec<Workflows> {
        let spec = json!({ "workflows": { "resource": { "configure": [{
            "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Pipeline",
            "metadata": { "name": "main" },
            "spec": {
                "containers": [{ "name": "a", "image": "b" }],
                "rbac": { "permissions": permissions },
            },
        }] } } });
        vec![read("cache", &serde_json::from_value(spec).unwrap()).unwrap()]
    }

    #[test]
    fn permissions_hold_where_they_are_asked_for_and_namespaces_share_none() {
        let rule = |namespace: &str| {
            json!({
                "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"],
                "resourceNamespace": namespace,
            })
        };
        let asked = versions(&json!([rule(""), rule("vault"), rule("*")]));
        let made = |namespace: &str| {
            let mut subject = Subject::promise("cache", "1", Some(namespace));
            subject.scope = Scope::Resource;
            subject.namespace = Some(namespace.to_owned());
            let pipeline = &asked[0].resource_configure[0];
            let objects = objects(&subject, Action::Configure, pipeline, &[]).into_iter().skip(4);
            let shown = |it: &Value| {
                let text = |pointer: &str| it.pointer(pointer).and_then(Value::as_str);
                let name = text("/metadata/name").unwrap_or_default();
                let stem = name.rsplit_once('-').map_or("", |(stem, _)| stem).to_owned();
                let at = text("/metadata/namespace").unwrap_or("-").to_owned();
                let kind = text("/kind").unwrap_or_default().to_owned();
                ((kind, at, stem), name.to_owned())
            };
            objects.map(|it| shown(&it)).collect::<Vec<_>>()
        };
        let shown: Vec<_> = made("team").into_iter().map(|(shown, _)| shown).collect();
        let id = "cache-resource-configure-main";
        let expected = [
            ("Role", "team", id.to_owned()),
            ("RoleBinding", "team", id.to_owned()),
            ("ClusterRole", "-", format!("{id}-vault")),
            ("RoleBinding", "vault", format!("{id}-team")),
            ("ClusterRole", "-", format!("{id}-kratix-all-namespaces")),
            ("ClusterRoleBinding", "-", format!("{id}-team")),
        ];
        let expected = expected.map(|(kind, at, stem)| (kind.to_owned(), at.to_owned(), stem));
        assert_eq!(shown, expected);
        let names = |namespace| made(namespace).into_iter().map(|(_, name)| name);
        let shared: Vec<_> =
            names("team").filter(|name| names("other").any(|it| it == *name)).collect();
        assert_eq!(shared, [""; 0], "two namespaces would write one object in turns");
    }

    #[test]
    fn an_account_is_stale_when_nothing_runs_as_it() {
        let version = versions(&json!([]));
        let subject = Subject::promise("cache", "1", None);
        let labels = pipeline_labels(&subject, Action::Configure, "main");
        let id = "cache-resource-configure-main";
        assert!(!is_stale_account("cache", &version, &labels, id));
        assert!(is_stale_account("cache", &version, &labels, "cache-resource-configure-old"));
        assert!(!is_stale_account("cache", &[], &BTreeMap::new(), "default"), "nobody made it");
    }

    #[test]
    fn rights_are_stale_when_no_version_asks_for_them() {
        let secrets = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
        let (with, without) = (versions(&secrets), versions(&json!([])));
        let pipeline = &with[0].resource_configure[0];
        let mut subject = Subject::promise("cache", "1", None);
        subject.scope = Scope::Resource;
        subject.namespace = Some("default".to_owned());
        let made = objects(&subject, Action::Configure, pipeline, &[]);
        let roles: Vec<_> = made.iter().filter(|object| object["kind"] == "Role").collect();
        assert_eq!(roles.len(), 2);
        let stale = |role: &Value, versions: &[Workflows]| {
            let labels = serde_json::from_value(role["metadata"]["labels"].clone()).unwrap();
            is_stale("cache", versions, &labels, role["metadata"]["name"].as_str().unwrap())
        };
        assert_eq!(roles.iter().map(|role| stale(role, &with)).collect::<Vec<_>>(), [false, false]);
        let left: Vec<_> = roles.iter().map(|role| stale(role, &without)).collect();
        assert_eq!(left, [false, true], "its own object stays readable");
        let both: Vec<_> = without.iter().chain(&with).cloned().collect();
        assert!(!stale(roles[1], &both), "an older version still asks for it");
        assert!(stale(roles[0], &[Workflows::default()]), "the pipeline is gone");
        assert!(!is_stale("cache", &[], &BTreeMap::new(), "muster:requests:cache"));
    }
}
