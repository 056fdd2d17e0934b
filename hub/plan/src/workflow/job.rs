//! A pipeline as a `batch/v1` Job: the hub's containers around the author's, as in Kratix.
//!
//! `reader` is container 0 and a user's container has three mounts before its own, because
//! Kubernetes' messages quote these indices. A Job's name follows from the run that it is for, so
//! that creating it twice creates it once.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Container, EnvVar, ResourceRequirements, VolumeMount},
};
use muster_api::{ADAPTER_IMAGE, FLEET_GROUP, Pipeline, labels};
use serde_json::{Value, json};

use super::{Action, Scope, Subject, access, engine::Run};
use crate::{names, options::Options};

/// The run that a Job is for: raised when everything runs again with the same inputs.
pub const RUN_LABEL: &str = "fleet.muster.dev/run";
/// Which try of a suspended or retried pipeline a Job is.
pub const ATTEMPT_LABEL: &str = "fleet.muster.dev/attempt";

/// What a container may use if its author does not say. Memory is bounded because one pipeline must
/// not starve the others; processor time is not, because a bound on it only makes idle cores wait.
const RESOURCES: &str =
    r#"{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"256Mi"}}"#;

/// Which pipeline of a workflow a Job runs, and as which try.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// What is run and for whom.
    pub subject: &'a Subject,
    /// Configure or delete.
    pub action: Action,
    /// All pipelines of the workflow, in order.
    pub pipelines: &'a [Pipeline],
    /// The inputs' hash and the run.
    pub run: &'a Run,
    /// Which of the pipelines.
    pub index: usize,
    /// Which try, from 1.
    pub attempt: i64,
    /// What the platform's operator chose.
    pub options: &'a Options,
}

impl Turn<'_> {
    fn pipeline(&self) -> &Pipeline {
        &self.pipelines[self.index]
    }

    /// The Job's name.
    pub fn job_name(&self) -> String {
        let pipeline = &self.pipeline().metadata.name;
        let stem = format!("kratix-{}-{pipeline}", self.subject.stem());
        let (run, attempt) = (self.run.number.to_string(), self.attempt.to_string());
        let identity =
            [&self.subject.uid, self.action.as_str(), pipeline, &self.run.hash, &run, &attempt];
        names::bounded(&stem, &identity)
    }

    /// The Job.
    pub fn job(&self) -> Result<Job, serde_json::Error> {
        let pipeline = self.pipeline();
        let spec = &pipeline.spec;
        let all_labels = self.labels();
        let mut job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": self.job_name(),
                "namespace": self.subject.job_namespace,
                "labels": all_labels,
                "annotations": self.annotations(),
            },
            "spec": {
                "template": {
                    "metadata": { "labels": all_labels, "annotations": pipeline.metadata.annotations },
                    "spec": {
                        "serviceAccountName": access::account(self.subject, self.action, pipeline),
                        "restartPolicy": spec.restart_policy.as_deref().unwrap_or("OnFailure"),
                        "initContainers": self.init_containers()?,
                        "containers": [self.status_writer()],
                        "volumes": self.volumes()?,
                    },
                },
            },
        });
        let set = |at: &mut Value, key: &str, value: Value| {
            if !matches!(&value, Value::Null) {
                at[key] = value;
            }
        };
        let options = spec.job_options.as_ref();
        let backoff = options.and_then(|options| options.backoff_limit);
        job["spec"]["backoffLimit"] = json!(backoff.unwrap_or(self.options.backoff_limit));
        let ttl = options.and_then(|options| options.ttl_seconds_after_finished);
        set(&mut job["spec"], "ttlSecondsAfterFinished", json!(ttl));
        let owner = self.subject.owner().map(|owner| vec![owner]);
        set(&mut job["metadata"], "ownerReferences", serde_json::to_value(owner)?);
        let pod = &mut job["spec"]["template"]["spec"];
        if !spec.node_selector.is_empty() {
            set(pod, "nodeSelector", json!(spec.node_selector));
        }
        if !spec.tolerations.is_empty() {
            set(pod, "tolerations", serde_json::to_value(&spec.tolerations)?);
        }
        if !spec.image_pull_secrets.is_empty() {
            set(pod, "imagePullSecrets", serde_json::to_value(&spec.image_pull_secrets)?);
        }
        serde_json::from_value(job)
    }

    /// The author's labels first: none of them can replace one of ours, or take the place of one
    /// that this Job does not have.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.pipeline().metadata.labels.clone();
        all.retain(|key, _| !is_hubs_label(key));
        all.extend(self.subject.labels());
        let own = [
            (labels::WORKFLOW_ACTION, self.action.as_str().to_owned()),
            (labels::PIPELINE_NAME, self.pipeline().metadata.name.clone()),
            (labels::HASH, self.run.hash.clone()),
            (RUN_LABEL, self.run.number.to_string()),
            (ATTEMPT_LABEL, self.attempt.to_string()),
            (labels::MANAGED_BY, "Kratix".to_owned()),
        ];
        all.extend(own.map(|(key, value)| (key.to_owned(), value)));
        all
    }

    fn annotations(&self) -> Value {
        json!({
            "kratix.io/job-resource-namespace": self.subject.namespace.as_deref().unwrap_or_default(),
            "kratix.io/job-resource-name": self.subject.name,
            "kratix.io/job-resource-kind": self.subject.kind,
            "kratix.io/job-resource-api-version": self.subject.api_version(),
        })
    }

    fn environment(&self) -> Vec<EnvVar> {
        let Subject { promise, scope, group, version, kind, plural, name, namespace, .. } =
            self.subject;
        let cluster_scoped = if *scope == Scope::Promise { "true" } else { "false" };
        [
            ("KRATIX_WORKFLOW_ACTION", self.action.as_str()),
            ("KRATIX_WORKFLOW_TYPE", scope.as_str()),
            ("KRATIX_PROMISE_NAME", promise),
            ("KRATIX_PIPELINE_NAME", &self.pipeline().metadata.name),
            ("KRATIX_OBJECT_KIND", kind),
            ("KRATIX_OBJECT_GROUP", group),
            ("KRATIX_OBJECT_VERSION", version),
            ("KRATIX_OBJECT_NAME", name),
            ("KRATIX_OBJECT_NAMESPACE", namespace.as_deref().unwrap_or_default()),
            ("KRATIX_CRD_PLURAL", plural),
            ("KRATIX_CLUSTER_SCOPED", cluster_scoped),
        ]
        .map(|(name, value)| variable(name, value))
        .into()
    }

    fn init_containers(&self) -> Result<Vec<Container>, serde_json::Error> {
        let mut env = self.environment();
        env.push(self.job_variable());
        let mut containers = vec![self.hub_container(
            "reader",
            &["reader".to_owned()],
            env,
            &[("shared-input", "/kratix/input"), ("shared-output", "/kratix/output")],
        )];
        for written in &self.pipeline().spec.containers {
            let mut container = written.to_container();
            let mut env = self.environment();
            env.append(&mut container.env.unwrap_or_default());
            container.env = Some(env);
            let mut mounts = vec![
                VolumeMount { read_only: Some(true), ..mount("shared-input", "/kratix/input") },
                mount("shared-output", "/kratix/output"),
                mount("shared-metadata", "/kratix/metadata"),
            ];
            mounts.append(&mut container.volume_mounts.unwrap_or_default());
            container.volume_mounts = Some(mounts);
            let defaults = &self.options.containers;
            if container.security_context.is_none() {
                container.security_context = defaults.security.clone();
            }
            if container.image_pull_policy.is_none() {
                container.image_pull_policy = defaults.pull_policy.clone();
            }
            if container.resources.is_none() {
                container.resources = Some(self.default_resources());
            }
            containers.push(container);
        }
        if self.action == Action::Configure {
            containers.push(self.work_writer());
        }
        Ok(containers)
    }

    fn work_writer(&self) -> Container {
        let Subject { promise, scope, name, namespace, job_namespace, .. } = self.subject;
        let mut args = vec!["work-creator".to_owned()];
        let mut flag =
            |name: &str, value: &str| args.extend([format!("--{name}"), value.to_owned()]);
        flag("input-directory", "/work-creator-files");
        flag("promise-name", promise);
        flag("pipeline-name", &self.pipeline().metadata.name);
        flag("namespace", job_namespace);
        flag("workflow-type", scope.as_str());
        if let Some(namespace) = namespace {
            flag("resource-name", name);
            if namespace != job_namespace {
                flag("resource-namespace", namespace);
            }
        }
        let mounts = [
            ("shared-output", "/work-creator-files/input"),
            ("shared-metadata", "/work-creator-files/metadata"),
            ("promise-scheduling", "/work-creator-files/kratix-system"),
        ];
        self.hub_container("work-writer", &args, vec![self.job_variable()], &mounts)
    }

    fn status_writer(&self) -> Container {
        let last = self.index + 1 == self.pipelines.len();
        let mut env = self.environment();
        env.push(variable("IS_LAST_PIPELINE", if last { "true" } else { "false" }));
        env.push(self.job_variable());
        let mounts = [("shared-metadata", "/work-creator-files/metadata")];
        self.hub_container("status-writer", &["update-status".to_owned()], env, &mounts)
    }

    fn job_variable(&self) -> EnvVar {
        variable("MUSTER_JOB", &self.job_name())
    }

    fn hub_container(
        &self,
        name: &str,
        args: &[String],
        env: Vec<EnvVar>,
        mounts: &[(&str, &str)],
    ) -> Container {
        let written = json!({
            "name": name,
            "image": ADAPTER_IMAGE,
            "command": ["/bin/pipeline-adapter"],
            "args": args,
            "securityContext": {
                "privileged": false,
                "allowPrivilegeEscalation": false,
                "runAsNonRoot": true,
                "capabilities": { "drop": ["ALL"] },
                "seccompProfile": { "type": "RuntimeDefault" },
            },
        });
        let mut container: Container = serde_json::from_value(written).unwrap_or_default();
        container.image_pull_policy = self.options.containers.pull_policy.clone();
        container.resources = Some(self.default_resources());
        container.env = Some(env);
        container.volume_mounts =
            Some(mounts.iter().map(|(volume, path)| mount(volume, path)).collect());
        container
    }

    /// What the platform gives a container, or the hub if the platform says nothing.
    fn default_resources(&self) -> ResourceRequirements {
        let own = || serde_json::from_str(RESOURCES).unwrap_or_default();
        self.options.containers.resources.clone().unwrap_or_else(own)
    }

    fn volumes(&self) -> Result<Vec<Value>, serde_json::Error> {
        let empty = |name: &str| json!({ "name": name, "emptyDir": {} });
        let mut volumes =
            vec![empty("shared-input"), empty("shared-output"), empty("shared-metadata")];
        if self.action == Action::Configure {
            volumes.push(json!({
                "name": "promise-scheduling",
                "configMap": {
                    "name": access::selectors_name(&self.subject.promise),
                    "items": [{ "key": access::SELECTORS_KEY, "path": "promise-scheduling" }],
                },
            }));
        }
        for volume in &self.pipeline().spec.volumes {
            volumes.push(serde_json::to_value(volume)?);
        }
        Ok(volumes)
    }
}

/// Whether a label is one by which the hub finds what is whose.
fn is_hubs_label(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    prefix == "kratix.io" || prefix.ends_with(".kratix.io") || prefix == FLEET_GROUP
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}
