//! The pipelines of a Promise, read strictly: an unknown field is refused by name.

use std::{collections::BTreeSet, time::Duration};

use muster_api::{
    CONTROLLER_ACCOUNT_PREFIX, KRATIX_GROUP, Pipeline, PromiseSpec, VERSION,
    pipeline::PipelineContainer,
    promise::{WorkflowPipelines, Workflows as Written},
};
use serde_json::Value;

use super::{Action, Scope, access};
use crate::duration;

/// Longest generated id of a pipeline, as in Kratix: it names ServiceAccounts and Roles.
pub const ID_LEN_MAX: usize = 60;
/// Everything runs again at most this often.
pub const INTERVAL_MIN: Duration = Duration::from_secs(60);
/// Names that the hub's own containers have in each pod.
const RESERVED_CONTAINERS: [&str; 3] = ["reader", "work-writer", "status-writer"];

/// The pipelines of a Promise, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workflows {
    /// Run for the Promise.
    pub promise_configure: Vec<Pipeline>,
    /// The first is run when the Promise is deleted.
    pub promise_delete: Vec<Pipeline>,
    /// Run for each request.
    pub resource_configure: Vec<Pipeline>,
    /// The first is run when a request is deleted.
    pub resource_delete: Vec<Pipeline>,
    /// Where they run instead of beside their object.
    pub namespace: Option<String>,
    /// How often everything runs again; `None`: as often as the platform's options say.
    pub interval: Option<Duration>,
}

impl Workflows {
    /// The pipelines for an object of this kind and what happened to it.
    pub fn of(&self, scope: Scope, action: Action) -> &[Pipeline] {
        match (scope, action) {
            (Scope::Promise, Action::Configure) => &self.promise_configure,
            (Scope::Promise, Action::Delete) => &self.promise_delete,
            (Scope::Resource, Action::Configure) => &self.resource_configure,
            (Scope::Resource, Action::Delete) => &self.resource_delete,
        }
    }
}

/// Reads the workflows of the Promise `promise`; all that is wrong with them otherwise.
pub fn read(promise: &str, spec: &PromiseSpec) -> Result<Workflows, Vec<String>> {
    let nothing = Written::default();
    let written = spec.workflows.as_ref().unwrap_or(&nothing);
    let mut wrong = Vec::new();
    let mut workflows = Workflows::default();
    if let Some(config) = &written.config {
        workflows.namespace = config.pipeline_namespace.clone().filter(|name| !name.is_empty());
        workflows.interval = config.reconciliation_interval.as_deref().and_then(|text| {
            interval(text).map_err(|cause| wrong.push(interval_error(text, &cause))).ok()
        });
    }
    let none = WorkflowPipelines::default();
    let mut list = |scope, action| {
        let of_scope = match scope {
            Scope::Promise => written.promise.as_ref(),
            Scope::Resource => written.resource.as_ref(),
        };
        let of_scope = of_scope.unwrap_or(&none);
        let values = match action {
            Action::Configure => &of_scope.configure,
            Action::Delete => &of_scope.delete,
        };
        pipelines(promise, values, scope, action, &mut wrong)
    };
    workflows.promise_configure = list(Scope::Promise, Action::Configure);
    workflows.promise_delete = list(Scope::Promise, Action::Delete);
    workflows.resource_configure = list(Scope::Resource, Action::Configure);
    workflows.resource_delete = list(Scope::Resource, Action::Delete);
    if wrong.is_empty() { Ok(workflows) } else { Err(wrong) }
}

/// Reads a reconciliation interval, or says why it is none.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).ok_or("must be a valid duration, such as 10m or 1h30m")?;
    if interval < INTERVAL_MIN {
        return Err("must be at least 1m0s".to_owned());
    }
    Ok(interval)
}

fn interval_error(text: &str, cause: &str) -> String {
    format!("spec.workflows.config.reconciliationInterval: Invalid value: {text:?}: {cause}")
}

fn pipelines(
    promise: &str,
    values: &[Value],
    scope: Scope,
    action: Action,
    wrong: &mut Vec<String>,
) -> Vec<Pipeline> {
    let mut names = BTreeSet::new();
    let mut read = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let field = format!("spec.workflows.{}.{}[{index}]", scope.as_str(), action.as_str());
        let pipeline = match parse(value, &field) {
            Ok(pipeline) => pipeline,
            Err(cause) => {
                wrong.push(cause);
                continue;
            }
        };
        let name = pipeline.metadata.name.clone();
        if !names.insert(name.clone()) {
            wrong.push(format!(
                "duplicate pipeline name {name:?} in workflow {:?} action {:?}",
                scope.as_str(),
                action.as_str()
            ));
        }
        let id = access::id(promise, scope, action, &name);
        if id.len() > ID_LEN_MAX {
            wrong.push(format!(
                "{}.{} pipeline with name {name:?} is too long. The name is used when generating \
                 resources for the pipeline, including the ServiceAccount which follows the format \
                 of {id:?}, which cannot be longer than {ID_LEN_MAX} characters in total",
                scope.as_str(),
                action.as_str()
            ));
        }
        check(&pipeline, &field, wrong);
        read.push(pipeline);
    }
    read
}

fn parse(value: &Value, field: &str) -> Result<Pipeline, String> {
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let refuse = |cause: String| Err(format!("{field}: pipeline {name:?} is not valid: {cause}"));
    if value["kind"] != "Pipeline" {
        return refuse(format!("kind must be Pipeline, not {}", value["kind"]));
    }
    if value["apiVersion"] != format!("{KRATIX_GROUP}/{VERSION}") {
        let cause =
            format!("apiVersion must be {KRATIX_GROUP}/{VERSION}, not {}", value["apiVersion"]);
        return refuse(cause);
    }
    let containers = value.pointer("/spec/containers").and_then(Value::as_array);
    for (index, container) in containers.into_iter().flatten().enumerate() {
        if let Err(error) = serde_json::from_value::<PipelineContainer>(container.clone()) {
            return refuse(format!("spec.containers[{index}]: {error}"));
        }
    }
    serde_json::from_value(value.clone()).or_else(|error| refuse(error.to_string()))
}

fn check(pipeline: &Pipeline, field: &str, wrong: &mut Vec<String>) {
    let name = &pipeline.metadata.name;
    let mut refuse =
        |cause: String| wrong.push(format!("{field}: pipeline {name:?} is not valid: {cause}"));
    if let Err(cause) = label_part(name, 63) {
        refuse(format!("metadata.name {cause}"));
    }
    for (key, value) in &pipeline.metadata.labels {
        if let Err(cause) = label_key(key) {
            refuse(format!("invalid label key {key:?}: it {cause}"));
        }
        if !value.is_empty()
            && let Err(cause) = label_part(value, 63)
        {
            refuse(format!("invalid label value {value:?} for key {key}: it {cause}"));
        }
    }
    let account = pipeline.spec.rbac.as_ref().and_then(|rbac| rbac.service_account.as_deref());
    if account.is_some_and(|account| account.starts_with(CONTROLLER_ACCOUNT_PREFIX)) {
        refuse(format!(
            "spec.rbac.serviceAccount: names that begin with {CONTROLLER_ACCOUNT_PREFIX} are the \
             hub's own: choose another"
        ));
    }
    if pipeline.spec.containers.is_empty() {
        refuse("spec.containers is empty: name at least one container to run".to_owned());
    }
    let mut names = BTreeSet::new();
    for (index, container) in pipeline.spec.containers.iter().enumerate() {
        let own = format!("spec.containers[{index}]");
        if container.name.is_empty() || container.image.is_empty() {
            refuse(format!("{own}: name and image are both required"));
        } else if RESERVED_CONTAINERS.contains(&container.name.as_str()) {
            refuse(format!(
                "{own}: the name {:?} is the hub's own: choose another",
                container.name
            ));
        } else if !names.insert(&container.name) {
            refuse(format!("{own}: duplicate container name {:?}", container.name));
        }
    }
    if let Some(policy) = &pipeline.spec.restart_policy
        && !matches!(policy.as_str(), "OnFailure" | "Never")
    {
        refuse(format!("spec.restartPolicy must be OnFailure or Never, not {policy:?}"));
    }
}

/// Kubernetes' rule for label values and the names in label keys.
fn label_part(text: &str, len_max: usize) -> Result<(), String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > len_max {
        return Err(format!("must be no more than {len_max} characters"));
    }
    if !edge(text.chars().next()) || !edge(text.chars().last()) || !text.chars().all(inside) {
        return Err("must consist of letters, digits, '-', '_' or '.', and begin and end with a \
                    letter or digit"
            .to_owned());
    }
    Ok(())
}

fn label_key(key: &str) -> Result<(), String> {
    match key.split_once('/') {
        None => label_part(key, 63),
        Some((prefix, name)) => label_part(prefix, 253).and_then(|()| label_part(name, 63)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(account: &str) -> PromiseSpec {
        let pipeline = json!({
            "apiVersion": "platform.kratix.io/v1alpha1",
            "kind": "Pipeline",
            "metadata": {"name": "main"},
            "spec": {
                "containers": [{"name": "main", "image": "box"}],
                "rbac": {"serviceAccount": account},
            },
        });
        serde_json::from_value(json!({"workflows": {"promise": {"configure": [pipeline]}}}))
            .unwrap()
    }

    #[test]
    fn a_pipeline_may_not_run_as_a_controller() {
        assert!(read("cache", &spec("deployer")).is_ok());
        let refused = read("cache", &spec("muster-request")).unwrap_err().join("\n");
        assert!(refused.contains("spec.rbac.serviceAccount"), "{refused}");
    }
}
