//! The CRDs that the hub installs, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Every CRD, in the order of installation.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        crate::Promise::crd(),
        crate::PromiseRevision::crd(),
        crate::ResourceBinding::crd(),
        crate::PromiseRelease::crd(),
        crate::health_record::crd(),
        crate::Destination::crd(),
        crate::GitStateStore::crd(),
        crate::BucketStateStore::crd(),
        crate::Work::crd(),
        crate::WorkPlacement::crd(),
        crate::Agent::crd(),
        crate::Content::crd(),
    ]
}

/// The schema of any one object with apiVersion and kind.
pub(crate) fn embedded_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// The schema of a list of objects of any kind.
pub(crate) fn embedded_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// The schema of an object with any fields.
pub(crate) fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_names_and_scope() {
        let names: Vec<_> = all()
            .into_iter()
            .map(|crd| (crd.metadata.name.unwrap_or_default(), crd.spec.scope))
            .collect();
        let expected = [
            ("promises.platform.kratix.io", "Cluster"),
            ("promiserevisions.platform.kratix.io", "Cluster"),
            ("resourcebindings.platform.kratix.io", "Namespaced"),
            ("promisereleases.platform.kratix.io", "Cluster"),
            ("healthrecords.platform.kratix.io", "Namespaced"),
            ("destinations.platform.kratix.io", "Cluster"),
            ("gitstatestores.platform.kratix.io", "Cluster"),
            ("bucketstatestores.platform.kratix.io", "Cluster"),
            ("works.platform.kratix.io", "Namespaced"),
            ("workplacements.platform.kratix.io", "Namespaced"),
            ("agents.fleet.muster.dev", "Cluster"),
            ("contents.fleet.muster.dev", "Cluster"),
        ];
        let found: Vec<_> = names.iter().map(|(n, s)| (n.as_str(), s.as_str())).collect();
        assert_eq!(found, expected);
    }
}
