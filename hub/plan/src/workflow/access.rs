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
    let own = pipeline.spec.rbac.as_ref().and_then(|rbac| rbac.service_account.clone());
    own.unwrap_or_else(|| id(&subject.promise, subject.scope, action, &pipeline.metadata.name))
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
    let label = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
    let scopes = [Scope::Promise, Scope::Resource];
    let actions = [Action::Configure, Action::Delete];
    let scope = scopes.into_iter().find(|it| it.as_str() == label(labels::WORKFLOW_TYPE));
    let action = actions.into_iter().find(|it| it.as_str() == label(labels::WORKFLOW_ACTION));
    let (Some(scope), Some(action)) = (scope, action) else { return false };
    let pipeline = label(labels::PIPELINE_NAME);
    let id = id(promise, scope, action, pipeline);
    let all = versions.iter().flat_map(|version| version.of(scope, action));
    let mut same = all.filter(|it| it.metadata.name == pipeline);
    !same.any(|pipeline| {
        let mut permissions = pipeline.spec.rbac.iter().flat_map(|rbac| &rbac.permissions);
        name == id || permissions.any(|permission| permission_name(&id, permission) == name)
    })
}

/// The name of the Role that gives a pipeline one permission.
fn permission_name(id: &str, permission: &Permission) -> String {
    let rule = serde_json::to_value(&permission.rule).unwrap_or_default().to_string();
    names::bounded(id, &[&rule, permission.resource_namespace.as_deref().unwrap_or_default()])
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
    let mut entries = serde_json::to_value(selectors).unwrap_or_else(|_| json!([]));
    for entry in entries.as_array_mut().into_iter().flatten() {
        entry["source"] = json!("promise");
    }
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
                [self.role(&self.id, None, &rule, None), self.binding(&self.id, None, true)]
            }
            Some(namespace) => {
                let rule = json!({
                    "apiGroups": [group],
                    "resources": resources,
                    "verbs": ["get", "list", "update", "create", "patch"],
                });
                let at = Some(namespace.as_str());
                [self.role(&self.id, at, &rule, None), self.binding(&self.id, at, false)]
            }
        }
    }

    fn permission(&self, permission: &Permission) -> [Value; 2] {
        let rule = serde_json::to_value(&permission.rule).unwrap_or_default();
        let asked = permission.resource_namespace.as_deref();
        let name = permission_name(&self.id, permission);
        match asked {
            Some("*") => [
                self.role(&name, None, &rule, Some(ALL_NAMESPACES)),
                self.binding(&name, None, true),
            ],
            Some(namespace) if namespace != self.subject.job_namespace => [
                self.role(&name, None, &rule, Some(namespace)),
                self.binding(&name, Some(namespace), true),
            ],
            _ => {
                let at = Some(self.subject.job_namespace.as_str());
                [self.role(&name, at, &rule, None), self.binding(&name, at, false)]
            }
        }
    }

    fn role(
        &self,
        name: &str,
        namespace: Option<&str>,
        rule: &Value,
        label: Option<&str>,
    ) -> Value {
        let mut role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": if namespace.is_some() { "Role" } else { "ClusterRole" },
            "metadata": { "name": name, "labels": self.labels },
            "rules": [rule],
        });
        if let Some(namespace) = namespace {
            role["metadata"]["namespace"] = json!(namespace);
        }
        if let Some(label) = label {
            role["metadata"]["labels"][labels::RESOURCE_NAMESPACE] = json!(label);
        }
        role
    }

    /// Binds the role of this name; a binding in a namespace may bind a ClusterRole.
    fn binding(&self, name: &str, namespace: Option<&str>, to_cluster_role: bool) -> Value {
        let mut binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
            "metadata": { "name": name, "labels": self.labels },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": if to_cluster_role { "ClusterRole" } else { "Role" },
                "name": name,
            },
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
