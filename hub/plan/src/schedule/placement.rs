//! A placement as it is made: name, labels, owner, what it shall say.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_core::{ObjectMeta, Resource};
use muster_api::{
    Work, WorkPlacement, WorkPlacementSpec, WorkloadGroup,
    labels::{self, finalizer},
};
use muster_core::name::NAME_LEN_MAX;

use super::is_request;
use crate::{assign::REQUEST_KIND, site::Site};

/// Longest value of a label in Kubernetes.
const LABEL_VALUE_LEN_MAX: usize = 63;
/// How many digits of a group's id end a placement's name, as in Kratix.
const ID_LEN: usize = 5;

/// The name of the placement of a group on a destination: `<work>.<destination>-<id5>`.
pub fn placement_name(work: &Work, group: &WorkloadGroup, destination: &str) -> String {
    let start = |id: &str| id.chars().take(ID_LEN).collect::<String>();
    let groups = &work.spec.workload_groups;
    let alone = groups.iter().filter(|g| start(&g.id) == start(&group.id)).count() <= 1;
    let id = if alone { start(&group.id) } else { group.id.clone() };
    let name = format!("{}.{destination}-{id}", work.metadata.name.as_deref().unwrap_or_default());
    if name.len() <= NAME_LEN_MAX {
        return name;
    }
    let hash = muster_core::Digest::of(name.as_bytes()).short();
    let cut = name.get(..NAME_LEN_MAX - hash.len() - 1).unwrap_or_default();
    format!("{}-{hash}", cut.trim_end_matches(['.', '-']))
}

/// The placement of a group on a site; `why` says why there, where there was a choice.
pub(super) fn new(
    work: &Work,
    group: &WorkloadGroup,
    site: &Site,
    why: Option<String>,
) -> WorkPlacement {
    let destination = site.name.as_str();
    let mut finalizers = vec![finalizer::PLACEMENT_CLEANUP.to_owned()];
    if site.state_store && site.lists {
        finalizers.push(finalizer::PLACEMENT_LIST_CLEANUP.to_owned());
    }
    let mut placement = WorkPlacement::new(
        &placement_name(work, group, destination),
        spec_of(work, group, destination),
    );
    placement.metadata = ObjectMeta {
        namespace: work.metadata.namespace.clone(),
        labels: Some(labels_of(work, group, destination)),
        annotations: annotations_of(work, why),
        finalizers: Some(finalizers),
        owner_references: Some(vec![OwnerReference {
            api_version: Work::api_version(&()).into_owned(),
            kind: Work::kind(&()).into_owned(),
            name: work.metadata.name.clone().unwrap_or_default(),
            uid: work.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..placement.metadata
    };
    placement
}

fn labels_of(work: &Work, group: &WorkloadGroup, to: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let from = work.metadata.labels.as_ref();
    for key in
        [labels::PROMISE_NAME, labels::RESOURCE_NAME, labels::RESOURCE_NAMESPACE, labels::WORK_TYPE]
    {
        if let Some(value) = from.and_then(|labels| labels.get(key)) {
            all.insert(key.to_owned(), value.clone());
        }
    }
    // Dependencies have none: Kratix says so.
    let pipeline = from.and_then(|labels| labels.get(labels::PIPELINE_NAME));
    let own = [
        (labels::PIPELINE_NAME, pipeline.map_or("", String::as_str)),
        (labels::WORK, work.metadata.name.as_deref().unwrap_or_default()),
        (labels::WORKLOAD_GROUP_ID, &group.id),
        (labels::TARGET_DESTINATION, to),
    ];
    all.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    all.retain(|_, value| value.len() <= LABEL_VALUE_LEN_MAX);
    all
}

fn annotations_of(work: &Work, why: Option<String>) -> Option<BTreeMap<String, String>> {
    let kind = work.metadata.annotations.as_ref().and_then(|all| all.get(REQUEST_KIND)).cloned();
    let named = [(REQUEST_KIND, kind), (labels::CHOSEN_BECAUSE, why)];
    let all: BTreeMap<_, _> =
        named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    (!all.is_empty()).then_some(all)
}

/// What the placement of a group on a destination says.
pub(super) fn spec_of(work: &Work, group: &WorkloadGroup, destination: &str) -> WorkPlacementSpec {
    let from = work.metadata.labels.as_ref();
    let label = |key: &str| from.and_then(|labels| labels.get(key)).cloned();
    let resource_namespace =
        || label(labels::RESOURCE_NAMESPACE).or_else(|| work.metadata.namespace.clone());
    WorkPlacementSpec {
        target_destination_name: destination.to_owned(),
        digest: group.digest.clone(),
        workloads: group.workloads.clone(),
        promise_name: work.spec.promise_name.clone(),
        resource_name: work.spec.resource_name.clone(),
        resource_namespace: if is_request(work) { resource_namespace() } else { None },
        id: group.id.clone(),
        generation: work.metadata.generation.unwrap_or_default(),
    }
}

/// The generation alone is no reason to write: it says of which Work these files came first.
pub(super) fn same_files(new: &WorkPlacementSpec, old: &WorkPlacementSpec) -> bool {
    WorkPlacementSpec { generation: old.generation, ..new.clone() } == *old
}
