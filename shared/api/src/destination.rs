//! `Destination`: a place where files go: an agent's host or cluster, or a state store's path.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use muster_core::{Selector, selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How files get there.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "platform.kratix.io",
    version = "v1alpha1",
    kind = "Destination",
    status = "DestinationStatus",
    category = "kratix",
    shortname = "dest",
    shortname = "dests",
    printcolumn = r#"{"name":"StateStoreKind","type":"string","jsonPath":".spec.stateStoreRef.kind"}"#,
    printcolumn = r#"{"name":"StateStoreName","type":"string","jsonPath":".spec.stateStoreRef.name"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct DestinationSpec {
    /// A directory of the state store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The state store; absent when the agent of the same name pulls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_store_ref: Option<StateStoreRef>,
    /// Whether an empty selector passes over this destination if it has labels.
    #[serde(default)]
    pub strict_match_labels: bool,
    /// Layout of files in a state store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filepath: Option<Filepath>,
    /// `none` (the default) or `all`: whether files go with the Destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<String>,
    /// Whether test documents are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_workloads: Option<InitWorkloads>,
}

/// Which state store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateStoreRef {
    /// `GitStateStore` or `BucketStateStore`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Layout of files in a state store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Filepath {
    /// `nestedByMetadata`, `aggregatedYAML` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The one file of `aggregatedYAML`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
}

/// Whether test documents are written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InitWorkloads {
    /// Written unless false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Where a Destination stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationStatus {
    /// `Ready`: for an agent's destination, whether the agent is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Which destinations files go to: labels, and conditions on them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationSelector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on sets of values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
    /// Who asked: `promise`, `promise-workflow` or `resource-workflow`; set by the hub on Works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LabelExpression {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// The values of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// One of the values.
    In,
    /// Absent or none of the values.
    NotIn,
    /// There.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl From<&DestinationSelector> for Selector {
    fn from(from: &DestinationSelector) -> Self {
        let expressions = from.match_expressions.iter().map(|e| selector::Expression {
            key: e.key.clone(),
            operator: match e.operator {
                LabelOperator::In => selector::Operator::In,
                LabelOperator::NotIn => selector::Operator::NotIn,
                LabelOperator::Exists => selector::Operator::Exists,
                LabelOperator::DoesNotExist => selector::Operator::DoesNotExist,
            },
            values: e.values.clone(),
        });
        Self { match_labels: from.match_labels.clone(), match_expressions: expressions.collect() }
    }
}
