//! The schemas of the built-in kinds, from the embedded OpenAPI file of Kubernetes.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, LazyLock},
};

use serde_json::{Map, Value};

use super::{Node, Schema, parse};

/// Made by `data/make-openapi.py`; see `data/NOTICE`.
const PACKED: &[u8] = include_bytes!("../../data/openapi.json.gz");

/// Its fields are asked for by the rules of metadata, in words of their own.
const OWNER_REFERENCE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference";

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The definitions as they are in the file, for `/openapi/v3`.
static DOCUMENTS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(PACKED)
        .read_to_end(&mut text)
        .expect("the embedded OpenAPI file is part of the program and whole (a test reads it)");
    serde_json::from_slice(&text).expect("the embedded OpenAPI file is JSON (a test reads it)")
});

/// The same, compiled; indices are positions in the order of names.
static NODES: LazyLock<Vec<Node>> = LazyLock::new(|| {
    let names: BTreeMap<&str, usize> =
        DOCUMENTS.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let resolve = |name: &str| names.get(name).copied();
    let compiled = |(name, schema): (&String, &Value)| {
        let node = parse::definition(schema, &resolve);
        if name == OWNER_REFERENCE { Node { checks: None, ..node } } else { node }
    };
    DOCUMENTS.iter().map(compiled).collect()
});

/// Roots of kinds by (group, version, kind).
static KINDS: LazyLock<BTreeMap<(String, String, String), Arc<Schema>>> = LazyLock::new(|| {
    let mut kinds = BTreeMap::new();
    for (node, document) in NODES.iter().zip(DOCUMENTS.values()) {
        let names = kinds_of(document);
        if names.is_empty() {
            continue;
        }
        let schema = Arc::new(Schema { root: node.clone() });
        kinds.extend(names.into_iter().map(|name| (name, Arc::clone(&schema))));
    }
    kinds
});

/// Reads and compiles them all, which else happens at the first use.
pub(crate) fn read() {
    LazyLock::force(&KINDS);
}

/// The compiled schema of a kind.
pub(super) fn schema(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    let key = (group.to_owned(), version.to_owned(), kind.to_owned());
    KINDS.get(&key).cloned()
}

/// A compiled definition by its index.
pub(super) fn definition(index: usize) -> &'static Node {
    &NODES[index]
}

/// A copy of `ObjectMeta`, for the metadata of custom resources.
pub(super) fn object_meta() -> Node {
    let index = DOCUMENTS.keys().position(|name| name == OBJECT_META);
    // A node without fields would prune all metadata; a test reads its fields.
    index.map(|index| definition(index).clone()).unwrap_or_default()
}

/// The definitions of OpenAPI by name.
pub(crate) fn documents() -> &'static BTreeMap<String, Value> {
    &DOCUMENTS
}

/// The (group, version, kind)s that a definition is the root of.
pub(crate) fn kinds_of(document: &Value) -> Vec<(String, String, String)> {
    let text = |kind: &Map<String, Value>, key: &str| {
        kind.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let kinds = document.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    kinds
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .map(|kind| (text(kind, "group"), text(kind, "version"), text(kind, "kind")))
        .collect()
}
