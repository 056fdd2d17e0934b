//! What is told about the served kinds: discovery and OpenAPI, made once for each set of kinds.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde_json::Value;

use super::{Registry, Resource};
use crate::{
    discovery::{self, KindInfo, Subresource},
    openapi::{self, Document},
};

/// Verbs of a custom kind, in the order in which Kubernetes tells them.
const CUSTOM_VERBS: [&str; 8] =
    ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// Verbs of a built-in kind whose objects are stored.
const STORED_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The documents of the built-in kinds, which are always the same.
static BUILTIN: OnceLock<Vec<Document>> = OnceLock::new();

/// Discovery and OpenAPI of one [`Registry`]; what is large is made when it is first asked for.
pub(crate) struct Published {
    pub(crate) kinds: Vec<KindInfo>,
    /// Beside each kind, the schema of its definition; `None`: built in.
    schemas: Vec<Option<Arc<Value>>>,
    core: OnceLock<Tagged>,
    groups: OnceLock<Tagged>,
    documents: OnceLock<Vec<Document>>,
    index: OnceLock<Tagged>,
    swagger: openapi::Forms,
}

/// JSON, and the hash that an entity tag is made of.
pub(crate) struct Tagged {
    pub(crate) body: Bytes,
    pub(crate) hash: String,
}

impl Tagged {
    fn new(value: &Value) -> Tagged {
        let body = value.to_string();
        Tagged { hash: openapi::hash(body.as_bytes()), body: body.into() }
    }
}

impl Published {
    pub(super) fn of(registry: &Registry) -> Published {
        let schema = |resource: &Arc<Resource>| {
            resource.defined_by.as_ref().map(|definition| definition.published.clone())
        };
        Published {
            kinds: registry.all().map(|resource| kind_info(resource)).collect(),
            schemas: registry.all().map(schema).collect(),
            core: OnceLock::new(),
            groups: OnceLock::new(),
            documents: OnceLock::new(),
            index: OnceLock::new(),
            swagger: openapi::Forms::default(),
        }
    }

    /// Aggregated discovery of the core group, or of all others.
    pub(crate) fn aggregated(&self, core: bool) -> &Tagged {
        let cell = if core { &self.core } else { &self.groups };
        cell.get_or_init(|| Tagged::new(&discovery::aggregated(&self.kinds, core)))
    }

    /// OpenAPI v3.
    pub(crate) fn documents(&self) -> &[Document] {
        self.documents.get_or_init(|| {
            let kinds = || self.kinds.iter().zip(&self.schemas);
            let builtin = || {
                let kinds = kinds().filter(|(_, schema)| schema.is_none());
                openapi::builtin_documents(&kinds.map(|(kind, _)| kind.clone()).collect::<Vec<_>>())
            };
            let mut custom: BTreeMap<_, Vec<(&KindInfo, &Value)>> = BTreeMap::new();
            for (kind, schema) in kinds() {
                if let Some(schema) = schema {
                    let group_version = (kind.group.as_str(), kind.version.as_str());
                    custom.entry(group_version).or_default().push((kind, schema));
                }
            }
            let of_group = |((group, version), kinds): (_, Vec<_>)| {
                openapi::crd_document(group, version, &kinds)
            };
            let builtin = BUILTIN.get_or_init(builtin).iter().cloned();
            builtin.chain(custom.into_iter().map(of_group)).collect()
        })
    }

    /// Where the documents of OpenAPI v3 are.
    pub(crate) fn index(&self) -> &Tagged {
        self.index.get_or_init(|| Tagged::new(&openapi::index(self.documents())))
    }

    /// OpenAPI v2 in the first form that is accepted.
    pub(crate) fn swagger(&self, accept: &str) -> Option<&openapi::Form> {
        self.swagger.negotiate(accept, self.documents())
    }
}

fn kind_info(resource: &Resource) -> KindInfo {
    let verbs: &[&str] = match resource.is_stored() {
        true if resource.is_custom() => &CUSTOM_VERBS,
        true => &STORED_VERBS,
        false => &["create"],
    };
    let verbs = verbs.iter().filter(|verb| **verb != "deletecollection" || resource.deletes_many());
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
        verbs: verbs.map(|&verb| verb.to_owned()).collect(),
        custom: resource.is_custom(),
        returns_deleted: resource.returns_deleted,
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
            "finalize" => of(name, own, &["update"]),
            _ => of(name, own, &["get", "patch", "update"]),
        });
    }
    all
}
