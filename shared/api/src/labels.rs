//! Every label, annotation and finalizer key, with who sets it.

/// The Promise that an object belongs to. Set by the hub.
pub const PROMISE_NAME: &str = "kratix.io/promise-name";
/// The request that an object belongs to.
pub const RESOURCE_NAME: &str = "kratix.io/resource-name";
/// The request's namespace, where objects do not live beside it.
pub const RESOURCE_NAMESPACE: &str = "kratix.io/resource-namespace";
/// The pipeline that made an object.
pub const PIPELINE_NAME: &str = "kratix.io/pipeline-name";
/// The namespace in which a pipeline runs.
pub const PIPELINE_NAMESPACE: &str = "kratix.io/pipeline-namespace";
/// `promise` or `resource`.
pub const WORKFLOW_TYPE: &str = "kratix.io/workflow-type";
/// `configure` or `delete`.
pub const WORKFLOW_ACTION: &str = "kratix.io/workflow-action";
/// `promise`, `resource` or `static-dependency`.
pub const WORK_TYPE: &str = "kratix.io/work-type";
/// The hash of the inputs of a run.
pub const HASH: &str = "kratix.io/hash";
/// The Work of a WorkPlacement.
pub const WORK: &str = "kratix.io/work";
/// The workload group of a WorkPlacement.
pub const WORKLOAD_GROUP_ID: &str = "kratix.io/workload-group-id";
/// The Destination of a WorkPlacement.
pub const TARGET_DESTINATION: &str = "kratix.io/targetDestinationName";
/// Set on a WorkPlacement whose Destination no longer matches.
pub const MISPLACED: &str = "kratix.io/misplaced";
/// The Promise of the request (or the Promise itself) whose pipeline put a request out.
pub const PARENT_PROMISE_NAME: &str = "kratix.io/parent-promise-name";
/// The request whose pipeline put a request out; absent where a Promise's did.
pub const PARENT_RESOURCE_NAME: &str = "kratix.io/parent-resource-name";
/// The namespace of that request.
pub const PARENT_RESOURCE_NAMESPACE: &str = "kratix.io/parent-resource-namespace";
/// Set on the latest PromiseRevision.
pub const LATEST_REVISION: &str = "kratix.io/latest-revision";
/// The PromiseRelease that a Promise comes from.
pub const PROMISE_RELEASE_NAME: &str = "kratix.io/promise-release-name";
/// A Promise's version. Set by its author.
pub const PROMISE_VERSION: &str = "kratix.io/promise-version";
/// Run again from the first pipeline; one shot. Set by users.
pub const MANUAL_RECONCILIATION: &str = "kratix.io/manual-reconciliation";
/// Run all requests of a Promise again; one shot. Set by users.
pub const RECONCILE_RESOURCES: &str = "kratix.io/reconcile-resources";
/// Stop reconciling. Set by users.
pub const PAUSED: &str = "kratix.io/paused";
/// A pipeline asked to wait. Removed by users to go on.
pub const WORKFLOW_SUSPENDED: &str = "kratix.io/workflow-suspended";
/// Annotation: how often everything runs again. Set by users on Promises and PromiseRevisions.
pub const RECONCILIATION_INTERVAL: &str = "kratix.io/reconciliation-interval";
/// Run from the first pipeline. Internal.
pub const RUN_FROM_START: &str = "internal.workflows.kratix.io/run-from-start";
/// `Kratix`, on Jobs.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// `true` on a Destination that only dry runs go to, and on the Works of dry runs.
pub const DRY_RUN: &str = "kratix.io/dry-run";

/// Annotation, `true` on a WorkPlacement that shall move to another destination. Set by users.
pub const MOVE: &str = "fleet.muster.dev/move";
/// Annotation, `true` on a Destination that requests' placements shall leave. Set by users.
pub const DRAIN: &str = "fleet.muster.dev/drain";
/// Annotation on a request's WorkPlacement: why this destination was chosen, when it was.
pub const CHOSEN_BECAUSE: &str = "fleet.muster.dev/chosen-because";
/// The agent that an enrolment token or Destination is for.
pub const AGENT: &str = "fleet.muster.dev/agent";
/// Annotation on a PromiseRevision: how many were the latest before it became so. Set by the hub.
pub const REVISION_ORDER: &str = "fleet.muster.dev/order";
/// Annotation on a Promise: changes each time that all its requests were asked to run again. Set by
/// the hub.
pub const RESOURCES_ASKED: &str = "fleet.muster.dev/resources-asked";
/// Annotation, `true` on a PromiseRevision that may go although requests are bound to it.
pub const SKIP_REQUEST_CLEANUP: &str = "kratix.io/skip-resource-request-cleanup-on-delete";
/// Annotation, `true` on the CRD of requests of which some are bound to a version of their Promise
/// with another schema. Set by the hub.
pub const SCHEMA_BY_BINDING: &str = "fleet.muster.dev/schema-by-binding";
/// Annotation: which of a binding's labels are copies of the request's. Set by the hub.
pub const MIRRORED: &str = "fleet.muster.dev/mirrored-labels";
/// Annotation on a request that a pipeline put out: the hash of what it put out. Set by the hub.
pub const EMITTED: &str = "fleet.muster.dev/emitted";
/// Annotation on a pipeline: `false` lets it begin before the requests of earlier pipelines are
/// reconciled. Set by authors.
pub const WAIT_FOR_CHILDREN: &str = "fleet.muster.dev/wait-for-children";
/// Annotation, `true` on an Agent that is being deleted: do not wait for what it holds.
pub const ABANDON: &str = "fleet.muster.dev/abandon";

/// Kratix's finalizers on Promises and requests.
pub mod finalizer {
    /// Requests are deleted before their Promise.
    pub const RESOURCE_REQUEST_CLEANUP: &str = "kratix.io/resource-request-cleanup";
    /// Objects that serve a Promise's requests.
    pub const DYNAMIC_CONTROLLER_CLEANUP: &str =
        "kratix.io/dynamic-controller-dependant-resources-cleanup";
    /// The request CRD.
    pub const API_CRD_CLEANUP: &str = "kratix.io/api-crd-cleanup";
    /// A Promise's dependencies.
    pub const DEPENDENCIES_CLEANUP: &str = "kratix.io/dependencies-cleanup";
    /// Jobs.
    pub const WORKFLOWS_CLEANUP: &str = "kratix.io/workflows-cleanup";
    /// Delete pipelines.
    pub const DELETE_WORKFLOWS: &str = "kratix.io/delete-workflows";
    /// PromiseRevisions.
    pub const REVISION_CLEANUP: &str = "kratix.io/revision-cleanup";
    /// Works of a request; WorkPlacements of a Work.
    pub const WORK_CLEANUP: &str = "kratix.io/work-cleanup";
    /// The ResourceBinding of a request.
    pub const RESOURCE_BINDING_CLEANUP: &str = "kratix.io/resource-binding-cleanup";
    /// Files of a WorkPlacement: kept until its destination says that they are removed.
    pub const PLACEMENT_CLEANUP: &str = "finalizers.workplacement.kratix.io/repo-cleanup";
    /// The list of a WorkPlacement's files, where files are laid out as they are named.
    pub const PLACEMENT_LIST_CLEANUP: &str =
        "finalizers.workplacement.kratix.io/kratix-dot-files-cleanup";
    /// What a destination holds, before the Destination goes.
    pub const DESTINATION_CLEANUP: &str = "kratix.io/destination-cleanup";
    /// The Promise of a PromiseRelease.
    pub const PROMISE_CLEANUP: &str = "kratix.io/promise-cleanup";
    /// What an agent's destination holds, before the Agent goes.
    pub const AGENT_CLEANUP: &str = "fleet.muster.dev/agent-cleanup";
}
