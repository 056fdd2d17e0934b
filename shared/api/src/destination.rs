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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_match_labels: bool,
    /// Layout of files in a state store.
    #[serde(default)]
    pub filepath: Filepath,
    /// Whether files go from the state store with the Destination.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// Whether test documents are written to the state store.
    #[serde(default)]
    pub init_workloads: InitWorkloads,
}

/// Which state store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateStoreRef {
    /// Its kind.
    pub kind: StateStoreKind,
    /// Its name.
    pub name: String,
}

/// The kinds of state stores.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum StateStoreKind {
    /// A bucket of an S3 server.
    BucketStateStore,
    /// A branch of a Git repository.
    #[default]
    GitStateStore,
}

impl StateStoreKind {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BucketStateStore => "BucketStateStore",
            Self::GitStateStore => "GitStateStore",
        }
    }
}

/// Whether files go with the Destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cleanup {
    /// They stay.
    #[default]
    None,
    /// They go.
    All,
}

/// Layout of files in a state store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Filepath {
    /// Which layout; nestedByMetadata unless said. It cannot be changed.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self == oldSelf", "message": "filepath.mode is immutable"}
    ]))]
    pub mode: FilepathMode,
    /// The one file of aggregatedYAML; `aggregated.yaml` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
}

/// How files are laid out in a state store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilepathMode {
    /// A directory for each placement, named by Promise, request and pipeline.
    #[default]
    #[serde(rename = "nestedByMetadata")]
    NestedByMetadata,
    /// One file that holds the documents of all placements.
    #[serde(rename = "aggregatedYAML")]
    AggregatedYaml,
    /// The files as the pipelines named them, and a list for each placement.
    #[serde(rename = "none")]
    None,
}

/// Whether test documents are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InitWorkloads {
    /// Whether they are.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

impl Default for InitWorkloads {
    fn default() -> Self {
        Self { enabled: enabled() }
    }
}

fn enabled() -> bool {
    true
}

/// Where a Destination stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationStatus {
    /// `Ready`: whether the agent is connected, or the state store can be written to.
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
