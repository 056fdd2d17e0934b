//! The pipelines of a Promise, read strictly: an unknown field is refused by name.

use std::{collections::BTreeSet, time::Duration};

use muster_api::{
    CONTROLLER_ACCOUNT_PREFIX, Pipeline, PromiseSpec,
    promise::{WorkflowPipelines, Workflows as Written},
};
use serde_json::Value;

use super::{
    Action, Scope, access,
    strict::{self, Place},
};
use crate::duration;

/// Longest generated id of a pipeline, as in Kratix: it names ServiceAccounts and Roles.
pub const ID_LEN_MAX: usize = 60;
/// Everything runs again at most this often.
pub const INTERVAL_MIN: Duration = Duration::from_secs(60);
/// Names that the hub's own containers have in each pod.
const RESERVED_CONTAINERS: [&str; 3] = ["reader", "work-writer", "status-writer"];
/// Names that the hub's own volumes have in each pod.
const RESERVED_VOLUMES: [&str; 4] =
    ["shared-input", "shared-output", "shared-metadata", "promise-scheduling"];
/// Kubernetes' limit of a ServiceAccount's name.
const ACCOUNT_NAME_LEN_MAX: usize = 253;
/// The limit of a namespace's name and of a label's value.
const LABEL_LEN_MAX: usize = 63;
/// A Job must outlive the look at its outcome; upstream's limit.
const JOB_TTL_SECONDS_MIN: i32 = 120;

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
        let field = "spec.workflows.config.pipelineNamespace";
        if let Some(name) = workflows.namespace.as_deref().filter(|name| !is_label(name)) {
            wrong.push(format!(
                "{field}: Invalid value: {name:?}: it is no name of a namespace: lower-case letters, \
                 digits and '-', at most 63"
            ));
        }
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
        pipelines(promise, values, (scope, action), &mut wrong)
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
    (scope, action): (Scope, Action),
    wrong: &mut Vec<String>,
) -> Vec<Pipeline> {
    let mut names = BTreeSet::new();
    let mut read = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let place = Place { scope, action, index };
        let pipeline = match strict::pipeline(value, &place) {
            Ok(pipeline) => pipeline,
            Err(cause) => {
                wrong.push(cause);
                continue;
            }
        };
        let name = pipeline.metadata.name.clone();
        if !name.is_empty() && !names.insert(name.clone()) {
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
        check_labels(&pipeline, &place, wrong);
        check(&pipeline, &place, wrong);
        read.push(pipeline);
    }
    read
}

fn check_labels(pipeline: &Pipeline, place: &Place, wrong: &mut Vec<String>) {
    let at = format!("in workflow {:?} action {:?}", place.scope.as_str(), place.action.as_str());
    for (key, value) in &pipeline.metadata.labels {
        if let Err(cause) = label_key(key) {
            wrong.push(format!("invalid label key {key:?} {at}: it {cause}"));
        }
        if !value.is_empty()
            && let Err(cause) = label_part(value, LABEL_LEN_MAX)
        {
            wrong.push(format!("invalid label value {value:?} for key {key:?} {at}: it {cause}"));
        }
    }
}

fn check(pipeline: &Pipeline, place: &Place, wrong: &mut Vec<String>) {
    let name = &pipeline.metadata.name;
    let mut refuse =
        |cause: String| wrong.push(format!("{place}: pipeline {name:?} is not valid: {cause}"));
    if let Err(cause) = account_name(name) {
        refuse(format!("metadata.name {cause}"));
    }
    if pipeline.spec.containers.is_empty() {
        refuse("spec.containers is empty: name at least one container to run".to_owned());
    }
    for (index, container) in pipeline.spec.containers.iter().enumerate() {
        let own = format!("spec.containers[{index}]");
        if container.name.is_empty() || container.image.is_empty() {
            refuse(format!("{own}: name and image are both required"));
        } else if RESERVED_CONTAINERS.contains(&container.name.as_str()) {
            refuse(format!(
                "{own}: the name {:?} is the hub's own: choose another",
                container.name
            ));
        }
    }
    for (index, volume) in pipeline.spec.volumes.iter().enumerate() {
        if RESERVED_VOLUMES.contains(&volume.name.as_str()) {
            refuse(format!(
                "spec.volumes[{index}]: the name {:?} is the hub's own: choose another",
                volume.name
            ));
        }
    }
    let options = pipeline.spec.job_options.as_ref();
    let ttl = options.and_then(|options| options.ttl_seconds_after_finished);
    if let Some(ttl) = ttl.filter(|ttl| *ttl < JOB_TTL_SECONDS_MIN) {
        refuse(format!(
            "spec.jobOptions.ttlSecondsAfterFinished: Invalid value: {ttl}: must be at least \
             {JOB_TTL_SECONDS_MIN}, so that the outcome is seen before the Job goes"
        ));
    }
    check_rights(pipeline, &mut refuse);
}

/// A rule that Kubernetes would refuse when the pipeline runs is refused here, where its author is.
fn check_rights(pipeline: &Pipeline, refuse: &mut impl FnMut(String)) {
    let Some(rbac) = &pipeline.spec.rbac else { return };
    if let Some(account) = &rbac.service_account {
        if account.starts_with(CONTROLLER_ACCOUNT_PREFIX) {
            refuse(format!(
                "spec.rbac.serviceAccount: names that begin with {CONTROLLER_ACCOUNT_PREFIX} are \
                 the hub's own: choose another"
            ));
        } else if let Err(cause) = account_name(account) {
            refuse(format!("spec.rbac.serviceAccount {cause}"));
        }
    }
    for (index, permission) in rbac.permissions.iter().enumerate() {
        let own = format!("spec.rbac.permissions[{index}]");
        let rule = &permission.rule;
        let named = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
        if rule.verbs.is_empty() {
            refuse(format!("{own}.verbs: Required value: name at least one, such as get"));
        }
        let urls = named(&rule.non_resource_urls);
        let (resources, groups) = (named(&rule.resources), named(&rule.api_groups));
        if urls && (resources || groups) {
            refuse(format!("{own}: a rule is for resources or for nonResourceURLs, not for both"));
        } else if urls && permission.resource_namespace.as_deref() != Some("*") {
            refuse(format!(
                "{own}.nonResourceURLs: they are in no namespace: set resourceNamespace \"*\""
            ));
        } else if !(urls || resources && groups) {
            refuse(format!(
                "{own}: apiGroups and resources are both required (\"\" is the core group)"
            ));
        }
    }
}

/// Kubernetes' rule for names of ServiceAccounts, which follow from the pipeline's.
fn account_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty: Required value".to_owned());
    }
    if name.len() > ACCOUNT_NAME_LEN_MAX || !name.split('.').all(is_label) {
        return Err(format!(
            "{name:?} must consist of lower-case letters, digits, '-' and '.', and begin and end \
             with a letter or digit: it names a ServiceAccount"
        ));
    }
    Ok(())
}

/// Kubernetes' rule for names of namespaces, and for each part of the names of most other things.
fn is_label(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.chars().all(|c| edge(c) || c == '-');
    fits && name.starts_with(edge) && name.ends_with(edge) && name.len() <= LABEL_LEN_MAX
}

/// Kubernetes' rule for label values and the names in label keys.
pub(crate) fn label_part(text: &str, len_max: usize) -> Result<(), String> {
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

pub(crate) fn label_key(key: &str) -> Result<(), String> {
    match key.split_once('/') {
        None => label_part(key, LABEL_LEN_MAX),
        Some((prefix, name)) => {
            label_part(prefix, 253).and_then(|()| label_part(name, LABEL_LEN_MAX))
        }
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
