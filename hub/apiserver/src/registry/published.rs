//! What is told about the served kinds: discovery and OpenAPI, made once for each set of kinds.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Registry, Resource};
use crate::{
    discovery::{KindInfo, Subresource},
    openapi::{self, Document},
};

/// Verbs of a kind whose objects are stored.
const STORED_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Discovery and OpenAPI of one [`Registry`].
pub(crate) struct Published {
    pub(crate) kinds: Vec<KindInfo>,
    pub(crate) documents: Vec<Document>,
    pub(crate) index: Value,
}

impl Published {
    pub(super) fn of(registry: &Registry) -> Published {
        let kinds: Vec<KindInfo> = registry.all().map(|resource| kind_info(resource)).collect();
        let builtin: Vec<KindInfo> =
            registry.all().filter(|r| !r.is_custom()).map(|resource| kind_info(resource)).collect();
        let mut documents = openapi::builtin_documents(&builtin);
        let mut custom: BTreeMap<(&str, &str), Vec<(KindInfo, Value)>> = BTreeMap::new();
        for resource in registry.all() {
            if let Some(definition) = &resource.defined_by {
                let schema = (*definition.published).clone();
                let group_version = (resource.group.as_str(), resource.version.as_str());
                custom.entry(group_version).or_default().push((kind_info(resource), schema));
            }
        }
        let of_group =
            |((group, version), kinds): (_, Vec<_>)| openapi::crd_document(group, version, &kinds);
        documents.extend(custom.into_iter().map(of_group));
        let index = openapi::index(&documents);
        Published { kinds, documents, index }
    }
}

fn kind_info(resource: &Resource) -> KindInfo {
    let verbs: &[&str] = if resource.is_stored() { &STORED_VERBS } else { &["create"] };
    KindInfo {
        group: resource.group.clone(),
        version: resource.version.clone(),
        kind: resource.kind.clone(),
        list_kind: resource.list_kind.clone(),
        plural: resource.plural.clone(),
        singular: resource.singular.clone(),
        short_names: resource.short_names.clone(),
        categories: resource.categories.clone(),
        namespaced: resource.namespaced,
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        subresources: subresources(resource),
    }
}

fn subresources(resource: &Resource) -> Vec<Subresource> {
    let of = |name: &str, (group, version, kind): (&str, &str, &str), verbs: &[&str]| Subresource {
        name: name.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
    };
    let own = (&*resource.group, &*resource.version, &*resource.kind);
    let mut all = Vec::new();
    if resource.has_status {
        all.push(of("status", own, &["get", "patch", "update"]));
    }
    if resource.scale.is_some() {
        all.push(of("scale", ("autoscaling", "v1", "Scale"), &["get", "patch", "update"]));
    }
    for &name in resource.extra {
        all.push(match name {
            "log" => of(name, own, &["get"]),
            "token" => of(name, ("authentication.k8s.io", "v1", "TokenRequest"), &["create"]),
            _ => of(name, own, &["update"]),
        });
    }
    all
}
