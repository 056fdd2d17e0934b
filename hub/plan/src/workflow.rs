//! Workflows: which pipelines run for a Promise or a request, as which Jobs, and which one next?
//!
//! A workflow is a list of pipelines that run one after another, each as one `batch/v1` Job.
//! [`read`] takes them from a Promise, [`job`] and [`access`] say what is created for one,
//! [`engine`] decides from the Jobs seen and the status recorded ([`record`]) what is to be done
//! next, [`rerun`] whether all of it is to be done again, and [`trouble`] says why one fails.

pub mod access;
pub mod engine;
pub mod job;
pub mod read;
pub mod record;
pub mod rerun;
mod strict;
pub mod trouble;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_api::{KRATIX_GROUP, SYSTEM_NAMESPACE, VERSION, labels};
use std::collections::BTreeMap;

pub use read::{Workflows, read};

/// For what kind of object a workflow runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// For a Promise itself.
    Promise,
    /// For a request.
    Resource,
}

/// What happened to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It was created or changed.
    Configure,
    /// It is being deleted.
    Delete,
}

impl Scope {
    /// As in labels and file fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promise => "promise",
            Self::Resource => "resource",
        }
    }
}

impl Action {
    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Delete => "delete",
        }
    }
}

/// The object that a workflow runs for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The Promise that it is, or that it is a request of.
    pub promise: String,
    /// Which of the two.
    pub scope: Scope,
    /// Its API group.
    pub group: String,
    /// Its API version, without the group.
    pub version: String,
    /// Its kind.
    pub kind: String,
    /// Its plural.
    pub plural: String,
    /// Its name.
    pub name: String,
    /// Its namespace; `None` for a Promise.
    pub namespace: Option<String>,
    /// Its UID.
    pub uid: String,
    /// Where its Jobs, and the Works of their output, live.
    pub job_namespace: String,
}

impl Subject {
    /// A Promise.
    pub fn promise(name: &str, uid: &str, pipeline_namespace: Option<&str>) -> Self {
        Self {
            promise: name.to_owned(),
            scope: Scope::Promise,
            group: KRATIX_GROUP.to_owned(),
            version: VERSION.to_owned(),
            kind: "Promise".to_owned(),
            plural: "promises".to_owned(),
            name: name.to_owned(),
            namespace: None,
            uid: uid.to_owned(),
            job_namespace: pipeline_namespace.unwrap_or(SYSTEM_NAMESPACE).to_owned(),
        }
    }

    /// Its `apiVersion`.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// The labels by which what belongs to it is found.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::from([
            (labels::PROMISE_NAME.to_owned(), self.promise.clone()),
            (labels::WORKFLOW_TYPE.to_owned(), self.scope.as_str().to_owned()),
        ]);
        if let Some(namespace) = &self.namespace {
            found.insert(labels::RESOURCE_NAME.to_owned(), self.name.clone());
            found.insert(labels::RESOURCE_NAMESPACE.to_owned(), namespace.clone());
        }
        found
    }

    /// The stem of the names of what belongs to it.
    pub fn stem(&self) -> String {
        match &self.namespace {
            None => self.promise.clone(),
            Some(namespace) if *namespace == self.job_namespace => {
                format!("{}-{}", self.promise, self.name)
            }
            Some(namespace) => format!("{}-{}-{namespace}", self.promise, self.name),
        }
    }

    /// The owner reference for what lives beside it; `None` where it cannot own (a namespaced
    /// object owns nothing in another namespace).
    pub fn owner(&self) -> Option<OwnerReference> {
        let beside = self.namespace.as_ref().is_none_or(|own| *own == self.job_namespace);
        beside.then(|| OwnerReference {
            api_version: self.api_version(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        })
    }
}
