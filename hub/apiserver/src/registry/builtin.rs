//! The built-in kinds, as data.

use std::sync::Arc;

use super::{Generation, Resource, Review, Rules, Scale, api_version};
use crate::{names::NameRule, schema::Schema, table};

/// One row of [`KINDS`]; what is not said is the usual.
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    returns_deleted: bool,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    has_status: bool,
    scale: bool,
    extra: &'static [&'static str],
    selectable: &'static [&'static str],
    rules: Rules,
    names: NameRule,
    generation: Generation,
    runs_nowhere: bool,
}

const fn kind(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
) -> Kind {
    Kind {
        group,
        version: "v1",
        kind,
        plural,
        returns_deleted: false,
        short_names,
        categories: &[],
        namespaced: true,
        has_status: false,
        scale: false,
        extra: &[],
        selectable: &[],
        rules: Rules::Generic,
        names: NameRule::Subdomain,
        generation: Generation::Never,
        runs_nowhere: false,
    }
}

const fn review(group: &'static str, name: &'static str, plural: &'static str, of: Review) -> Kind {
    Kind {
        namespaced: matches!(of, Review::LocalSubjectAccess),
        rules: Rules::Review(of),
        ..kind(group, name, plural, &[])
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const REGARDING_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "reason",
    "reportingController",
    "type",
];
const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

static KINDS: &[Kind] = &[
    Kind {
        namespaced: false,
        has_status: true,
        extra: &["finalize"],
        selectable: &["status.phase"],
        rules: Rules::Namespace,
        names: NameRule::Label,
        ..kind("", "Namespace", "namespaces", &["ns"])
    },
    Kind { rules: Rules::ConfigMap, ..kind("", "ConfigMap", "configmaps", &["cm"]) },
    Kind { rules: Rules::Secret, selectable: &["type"], ..kind("", "Secret", "secrets", &[]) },
    Kind {
        extra: &["token"],
        returns_deleted: true,
        ..kind("", "ServiceAccount", "serviceaccounts", &["sa"])
    },
    Kind { rules: Rules::Event, selectable: EVENT_FIELDS, ..kind("", "Event", "events", &["ev"]) },
    Kind {
        categories: &["all"],
        has_status: true,
        extra: &["log", "ephemeralcontainers", "resize"],
        selectable: POD_FIELDS,
        rules: Rules::Pod,
        returns_deleted: true,
        ..kind("", "Pod", "pods", &["po"])
    },
    Kind {
        categories: &["all"],
        has_status: true,
        returns_deleted: true,
        ..kind("", "Service", "services", &["svc"])
    },
    Kind {
        namespaced: false,
        has_status: true,
        selectable: &["spec.unschedulable"],
        ..kind("", "Node", "nodes", &["no"])
    },
    Kind {
        rules: Rules::Event,
        selectable: REGARDING_FIELDS,
        ..kind("events.k8s.io", "Event", "events", &["ev"])
    },
    kind("coordination.k8s.io", "Lease", "leases", &[]),
    Kind {
        categories: &["all"],
        has_status: true,
        scale: true,
        generation: Generation::OnChange,
        runs_nowhere: true,
        ..kind("apps", "Deployment", "deployments", &["deploy"])
    },
    Kind {
        namespaced: false,
        has_status: true,
        extra: &["approval"],
        selectable: &["spec.signerName"],
        runs_nowhere: true,
        ..kind(
            "certificates.k8s.io",
            "CertificateSigningRequest",
            "certificatesigningrequests",
            &["csr"],
        )
    },
    Kind {
        namespaced: false,
        categories: &["api-extensions"],
        has_status: true,
        runs_nowhere: true,
        ..kind("apiregistration.k8s.io", "APIService", "apiservices", &[])
    },
    Kind { rules: Rules::Role, names: NameRule::PathSegment, ..kind(RBAC, "Role", "roles", &[]) },
    Kind {
        rules: Rules::Binding,
        names: NameRule::PathSegment,
        ..kind(RBAC, "RoleBinding", "rolebindings", &[])
    },
    Kind {
        namespaced: false,
        rules: Rules::Role,
        names: NameRule::PathSegment,
        ..kind(RBAC, "ClusterRole", "clusterroles", &[])
    },
    Kind {
        namespaced: false,
        rules: Rules::Binding,
        names: NameRule::PathSegment,
        ..kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", &[])
    },
    Kind {
        categories: &["all"],
        has_status: true,
        selectable: &["status.successful"],
        rules: Rules::Job,
        generation: Generation::OnChange,
        ..kind("batch", "Job", "jobs", &[])
    },
    Kind {
        categories: &["all"],
        has_status: true,
        rules: Rules::CronJob,
        generation: Generation::OnChange,
        ..kind("batch", "CronJob", "cronjobs", &["cj"])
    },
    Kind {
        namespaced: false,
        categories: &["api-extensions"],
        has_status: true,
        rules: Rules::Definition,
        generation: Generation::OnChange,
        ..kind(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            &["crd", "crds"],
        )
    },
    review(AUTHENTICATION, "TokenReview", "tokenreviews", Review::Token),
    review(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews", Review::SelfSubject),
    review(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews", Review::SubjectAccess),
    review(
        AUTHORIZATION,
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        Review::LocalSubjectAccess,
    ),
    review(
        AUTHORIZATION,
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        Review::SelfSubjectAccess,
    ),
    review(
        AUTHORIZATION,
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        Review::SelfSubjectRules,
    ),
];

/// The built-in kinds with their schemas.
pub(super) fn resources() -> Vec<Arc<Resource>> {
    KINDS.iter().filter_map(resource).map(Arc::new).collect()
}

/// `None` cannot be: a test checks that there is a schema for every row.
fn resource(row: &Kind) -> Option<Resource> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    // Both groups of events show the same objects, stored as the core group's.
    let store = match (row.rules, row.group) {
        (Rules::Event, _) | (_, "") => row.plural.to_owned(),
        (_, group) => format!("{}.{group}", row.plural),
    };
    let stored_as = match row.rules {
        Rules::Event => "v1".to_owned(),
        _ => api_version(row.group, row.version),
    };
    Some(Resource {
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        plural: row.plural.to_owned(),
        returns_deleted: row.returns_deleted,
        singular: row.kind.to_lowercase(),
        short_names: owned(row.short_names),
        categories: owned(row.categories),
        namespaced: row.namespaced,
        store: store.into(),
        stored_as,
        schema: Schema::builtin(row.group, row.version, row.kind)?,
        columns: table::builtin_columns(row.group, row.kind),
        has_status: row.has_status,
        scale: row.scale.then(replicas),
        extra: row.extra,
        selectable: owned(row.selectable),
        rules: row.rules,
        names: row.names,
        generation: row.generation,
        deprecated: None,
        runs_nowhere: row.runs_nowhere,
        defined_by: None,
    })
}

/// Where every built-in kind that scales has its replicas.
fn replicas() -> Scale {
    Scale {
        spec_replicas: ".spec.replicas".to_owned(),
        status_replicas: ".status.replicas".to_owned(),
        label_selector: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_every_built_in_kind_with_a_schema() {
        assert_eq!(resources().len(), KINDS.len());
    }
}
