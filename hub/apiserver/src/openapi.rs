//! OpenAPI v3 documents: what kubectl's `apply`, `explain` and validation read.
//!
//! One document for each group and version, with the schemas of its kinds, all they refer to,
//! and the paths of each resource ([`paths`]). The index carries a hash of each, so that clients
//! cache them. Older clients get all of it as one document of version 2 ([`v2`]).

mod packed;
mod paths;
mod v2;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha512};

use crate::{discovery::KindInfo, schema::builtin};
pub(crate) use v2::{Form, Forms};

/// The version of the API that the documents describe.
const API_VERSION: &str = "v1.32.13";

const SCHEMAS: &str = "#/components/schemas/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The document of one group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// `api/v1` or `apis/GROUP/VERSION`: what follows `/openapi/v3/`.
    pub(crate) path: String,
    /// Changes with the body; upper-case hex.
    pub(crate) hash: String,
    /// JSON.
    pub(crate) body: Bytes,
}

impl Document {
    /// Where it is; clients may keep what they get there for ever.
    pub(crate) fn url(&self) -> String {
        format!("/openapi/v3/{}?hash={}", self.path, self.hash)
    }
}

/// What an entity tag is made of: upper-case hex, as Kubernetes has it.
pub(crate) fn hash(body: &[u8]) -> String {
    hex::encode_upper(Sha512::digest(body))
}

/// `/openapi/v3`: where each document is.
pub(crate) fn index(documents: &[Document]) -> Value {
    let paths: Map<String, Value> = documents
        .iter()
        .map(|document| (document.path.clone(), json!({"serverRelativeURL": document.url()})))
        .collect();
    json!({"paths": paths})
}

/// One document for each group and version of the built-in kinds that are served.
pub(crate) fn builtin_documents(served: &[KindInfo]) -> Vec<Document> {
    let versions: BTreeSet<(&str, &str)> =
        served.iter().map(|k| (k.group.as_str(), k.version.as_str())).collect();
    let documents = versions.into_iter().map(|(group, version)| {
        let kinds: Vec<&KindInfo> =
            served.iter().filter(|k| k.group == group && k.version == version).collect();
        let mut schemas = Schemas::default();
        for (name, schema) in builtin::documents() {
            let wanted = |(g, v, kind): &(String, String, String)| {
                let own = g == group && v == version;
                kinds.iter().any(|k| own && (k.kind == *kind || k.list_kind == *kind))
                    || kinds
                        .iter()
                        .flat_map(|k| &k.subresources)
                        .any(|sub| (&sub.group, &sub.version, &sub.kind) == (g, v, kind))
            };
            if builtin::kinds_of(schema).iter().any(wanted) {
                schemas.add_builtin(name);
            }
        }
        document(group, version, &kinds, schemas)
    });
    documents.collect()
}

/// The document of a group and version that CRDs define; with each kind comes its
/// `openAPIV3Schema`.
pub(crate) fn crd_document(group: &str, version: &str, kinds: &[(&KindInfo, &Value)]) -> Document {
    let mut schemas = Schemas::default();
    for (kind, schema) in kinds {
        schemas.add_builtin(OBJECT_META);
        schemas.add_builtin(LIST_META);
        if kind.subresources.iter().any(|sub| sub.kind == "Scale") {
            schemas.add_builtin(SCALE);
        }
        let name = component(kind);
        schemas.0.insert(name.clone(), custom_schema(kind, schema));
        schemas.0.insert(format!("{name}List"), list_schema(kind, &name));
    }
    let kinds: Vec<&KindInfo> = kinds.iter().map(|(kind, _)| *kind).collect();
    document(group, version, &kinds, schemas)
}

/// Schemas of one document by name.
#[derive(Default)]
struct Schemas(Map<String, Value>);

impl Schemas {
    /// Refers to the schema of a kind, if it is here.
    fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        let found = self.0.iter().find(|(_, schema)| {
            builtin::kinds_of(schema)
                .iter()
                .any(|(g, v, k)| (&**g, &**v, &**k) == (group, version, kind))
        });
        found.map(|(name, _)| format!("{SCHEMAS}{name}"))
    }

    /// Adds a built-in definition with all that it refers to.
    fn add_builtin(&mut self, name: &str) {
        if self.0.contains_key(name) {
            return;
        }
        let Some(schema) = builtin::documents().get(name) else { return };
        self.0.insert(name.to_owned(), schema.clone());
        let mut names = Vec::new();
        references(schema, &mut names);
        names.into_iter().for_each(|name| self.add_builtin(name));
    }
}

fn references<'a>(value: &'a Value, names: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" => {
                        names.extend(target.strip_prefix(SCHEMAS));
                    }
                    other => references(other, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}

fn document(group: &str, version: &str, kinds: &[&KindInfo], mut schemas: Schemas) -> Document {
    schemas.add_builtin(DELETE_OPTIONS);
    schemas.add_builtin(STATUS);
    let path = match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    };
    let mut all = Map::new();
    for kind in kinds {
        paths::add(&mut all, &path, kind, &schemas);
    }
    all.sort_keys();
    schemas.0.sort_keys();
    let body = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": all,
        "components": {"schemas": schemas.0},
    })
    .to_string();
    Document { path, hash: hash(body.as_bytes()), body: body.into() }
}

/// `com.example.lab.v1.Widget` for kind Widget of group `lab.example.com`.
fn component(kind: &KindInfo) -> String {
    let mut parts: Vec<&str> = kind.group.split('.').rev().collect();
    parts.push(&kind.version);
    parts.push(&kind.kind);
    parts.join(".")
}

fn custom_schema(kind: &KindInfo, schema: &Value) -> Value {
    let mut schema = schema.clone();
    describe_embedded(&mut schema);
    let gvk = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
    if let Value::Object(map) = &mut schema {
        map.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
        add_object_meta(map);
    }
    schema
}

/// An object within an object has the fields that every object has.
fn describe_embedded(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(describe_embedded);
    }
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(describe_embedded);
    }
    if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        add_object_meta(map);
        let required = map.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(required) = required {
            for name in ["apiVersion", "kind"] {
                if !required.iter().any(|there| there == name) {
                    required.push(name.into());
                }
            }
        }
    }
}

fn add_object_meta(schema: &mut Map<String, Value>) {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        add_type_meta(properties);
        let meta = json!({
            "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            "allOf": [{"$ref": format!("{SCHEMAS}{OBJECT_META}")}],
        });
        properties.insert("metadata".to_owned(), meta);
    }
}

fn list_schema(kind: &KindInfo, name: &str) -> Value {
    let mut properties = Map::new();
    add_type_meta(&mut properties);
    properties.insert(
        "items".to_owned(),
        json!({
            "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", kind.plural),
            "type": "array",
            "items": {"$ref": format!("{SCHEMAS}{name}")},
        }),
    );
    properties.insert(
        "metadata".to_owned(),
        json!({
            "description": "Standard list metadata.",
            "allOf": [{"$ref": format!("{SCHEMAS}{LIST_META}")}],
        }),
    );
    json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": properties,
        "x-kubernetes-group-version-kind":
            [{"group": kind.group, "version": kind.version, "kind": kind.list_kind}],
    })
}

fn add_type_meta(properties: &mut Map<String, Value>) {
    const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    for (name, description) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let schema = json!({"type": "string", "description": description});
        properties.insert(name.to_owned(), schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widget() -> KindInfo {
        KindInfo {
            group: "lab.example.com".to_owned(),
            version: "v1".to_owned(),
            kind: "Widget".to_owned(),
            list_kind: "WidgetList".to_owned(),
            plural: "widgets".to_owned(),
            singular: "widget".to_owned(),
            namespaced: true,
            verbs: ["get", "list", "patch", "create"].map(str::to_owned).to_vec(),
            custom: true,
            ..KindInfo::default()
        }
    }

    #[test]
    fn a_crd_document_has_what_kubectl_looks_for() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
        let document = crd_document("lab.example.com", "v1", &[(&widget(), &schema)]);
        assert_eq!(document.path, "apis/lab.example.com/v1");
        let body: Value = serde_json::from_slice(&document.body).unwrap();
        let schemas = &body["components"]["schemas"];
        let schema = &schemas["com.example.lab.v1.Widget"];
        assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
        assert!(schemas.get(OBJECT_META).is_some() && schemas.get(DELETE_OPTIONS).is_some());
        let paths = &body["paths"];
        let patch =
            &paths["/apis/lab.example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Widget");
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|p| p["name"].as_str())
            .collect();
        assert!(names.contains(&"fieldValidation"));
        let patches = patch["requestBody"]["content"].as_object().unwrap();
        assert!(!patches.contains_key("application/strategic-merge-patch+json"));
        let listed = index(std::slice::from_ref(&document));
        let url = listed["paths"]["apis/lab.example.com/v1"]["serverRelativeURL"].as_str().unwrap();
        assert_eq!(url, format!("/openapi/v3/apis/lab.example.com/v1?hash={}", document.hash));
    }

    #[test]
    fn references_of_built_in_documents_resolve() {
        let pod = KindInfo {
            version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            list_kind: "PodList".to_owned(),
            plural: "pods".to_owned(),
            ..widget()
        };
        let documents = builtin_documents(&[KindInfo { group: String::new(), ..pod }]);
        let body: Value = serde_json::from_slice(&documents[0].body).unwrap();
        let schemas = body["components"]["schemas"].as_object().unwrap();
        let mut names = Vec::new();
        references(&body, &mut names);
        assert!(names.len() > 100);
        assert!(names.iter().all(|name| schemas.contains_key(*name)));
        assert!(schemas.contains_key("io.k8s.api.core.v1.PodList"));
    }
}
