//! Which object: its identity, its rank in the order of applying, its place in the API.

use std::fmt;

use muster_core::Claim;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Identifies an object in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ObjectRef {
    pub(crate) group: String,
    /// The version that it was applied with; any served one finds it.
    pub(crate) version: String,
    pub(crate) kind: String,
    /// Empty for cluster-scoped objects, and for those that land in `default`.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectRef {
    /// The identity that a manifest gives.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let api_version = text("/apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text("/kind").to_owned(),
            namespace: text("/metadata/namespace").to_owned(),
            name: text("/metadata/name").to_owned(),
        }
    }

    /// What only one placement may own; versions of a kind are one thing.
    pub(crate) fn claim(&self) -> Claim {
        Claim::kubernetes(&self.group, &self.kind, &self.namespace, &self.name)
    }

    /// `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    pub(crate) fn is_crd(&self) -> bool {
        self.is("apiextensions.k8s.io", "CustomResourceDefinition")
    }

    /// Whether Kubernetes itself serves its group, rather than a CustomResourceDefinition.
    pub(crate) fn is_builtin(&self) -> bool {
        const BUILTIN: [&str; 15] = [
            "admissionregistration.k8s.io",
            "apiextensions.k8s.io",
            "apiregistration.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "certificates.k8s.io",
            "coordination.k8s.io",
            "discovery.k8s.io",
            "events.k8s.io",
            "flowcontrol.apiserver.k8s.io",
            "networking.k8s.io",
            "node.k8s.io",
            "rbac.authorization.k8s.io",
            "scheduling.k8s.io",
            "storage.k8s.io",
        ];
        !self.group.contains('.') || BUILTIN.contains(&self.group.as_str())
    }

    /// When it is applied: what others need comes first. Removal goes the other way.
    pub(crate) fn rank(&self) -> u8 {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace") => 0,
            ("apiextensions.k8s.io", _) => 1,
            ("scheduling.k8s.io" | "storage.k8s.io", _) | ("", "ResourceQuota" | "LimitRange") => 2,
            ("", "ServiceAccount" | "Secret" | "ConfigMap") => 3,
            ("rbac.authorization.k8s.io", _) => 4,
            ("", "PersistentVolume" | "PersistentVolumeClaim" | "Service") => 5,
            // A webhook that is there before what serves it refuses everything else.
            ("admissionregistration.k8s.io", _) => 9,
            _ if self.is_builtin() => 6,
            _ => 8,
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if self.namespace.is_empty() {
            Ok(())
        } else {
            write!(f, " in namespace {}", self.namespace)
        }
    }
}
