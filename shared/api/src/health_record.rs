//! `HealthRecord`: what somebody found out about the health of a request.
//!
//! Kratix's kind has neither spec nor status, only `data`; so neither is derived.

use std::borrow::Cow;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::{NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{KRATIX_GROUP, VERSION, promise_revision::PromiseRef, resource_binding::ResourceRef};

const KIND: &str = "HealthRecord";
const PLURAL: &str = "healthrecords";

/// What was found out, by whom.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthRecord {
    /// Name, namespace and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was found out.
    #[serde(default)]
    pub data: HealthRecordData,
}

/// What was found out about a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthRecordData {
    /// The Promise of the request.
    #[serde(default)]
    pub promise_ref: PromiseRef,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_ref: Option<ResourceRef>,
    /// How it is.
    #[serde(default)]
    pub state: HealthState,
    /// When it was looked at, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<i64>,
    /// Whatever else was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// How a request is, the worst first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// It does not work.
    Unhealthy,
    /// It works, but not as it should.
    Degraded,
    /// Nobody can say.
    #[default]
    Unknown,
    /// It works.
    Healthy,
    /// It works, and may be used.
    Ready,
}

impl HealthState {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] =
        [Self::Unhealthy, Self::Degraded, Self::Unknown, Self::Healthy, Self::Ready];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Ready => "ready",
        }
    }

    /// Whether it works as it should.
    pub fn is_fine(self) -> bool {
        self >= Self::Healthy
    }
}

impl Resource for HealthRecord {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        KRATIX_GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Its CRD.
pub fn crd() -> CustomResourceDefinition {
    let states = HealthState::ALL.map(HealthState::as_str);
    let text = json!({ "type": "string" });
    let data = json!({
        "type": "object",
        "required": ["promiseRef"],
        "properties": {
            "promiseRef": {
                "type": "object", "required": ["name"], "properties": { "name": text },
            },
            "resourceRef": {
                "type": "object",
                "required": ["name", "namespace"],
                "properties": {
                    "name": text,
                    "namespace": text,
                    "generation": { "type": "integer", "format": "int64" },
                },
            },
            "state": { "type": "string", "enum": states, "default": "unknown" },
            "lastRun": { "type": "integer", "format": "int64" },
            "details": { "x-kubernetes-preserve-unknown-fields": true },
        },
    });
    let definition = json!({
        "metadata": { "name": format!("{PLURAL}.{KRATIX_GROUP}") },
        "spec": {
            "group": KRATIX_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND, "listKind": "HealthRecordList",
                "plural": PLURAL, "singular": "healthrecord",
            },
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "additionalPrinterColumns": [
                    { "name": "Status", "type": "string", "jsonPath": ".data.state" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": "What somebody found out about the health of a request.",
                    "properties": { "data": data },
                } },
            }],
        },
    });
    serde_json::from_value(definition).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_definition_is_whole_and_its_states_are_ordered_from_worst_to_best() {
        assert_eq!(crd().spec.versions[0].additional_printer_columns.as_ref().unwrap().len(), 2);
        assert!(HealthState::ALL.is_sorted());
        assert!(HealthState::Healthy.is_fine() && !HealthState::Unknown.is_fine());
    }

    #[test]
    fn details_may_be_anything_but_the_state_may_not() {
        let record = json!({ "metadata": {}, "data": {
            "promiseRef": { "name": "a" }, "state": "degraded", "details": { "why": [1, 2] },
        } });
        let record: HealthRecord = serde_json::from_value(record).unwrap();
        assert_eq!(record.data.state, HealthState::Degraded);
        let wrong = json!({ "data": { "promiseRef": { "name": "a" }, "state": "fine" } });
        assert!(serde_json::from_value::<HealthRecord>(wrong).is_err());
    }
}
