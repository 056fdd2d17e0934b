//! One stored object: its address, its JSON bytes, and the little of its metadata that the server
//! asks for without parsing the rest.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::table::{EventKind, LINE_TAIL, watch_line};

/// Where an object lives: its kind (`plural.group`, or `plural` for the core group), namespace
/// (empty for cluster-scoped kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub kind: Arc<str>,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {:?}", self.kind, self.name),
            namespace => write!(f, "{} {:?} in namespace {namespace:?}", self.kind, self.name),
        }
    }
}

/// A stored object, immutable. Its bytes are complete JSON with its `resourceVersion` in them.
#[derive(Debug)]
pub(crate) struct Object {
    pub key: Key,
    pub revision: u64,
    pub bytes: Bytes,
    pub meta: Meta,
    /// Where the digits of the resource version stand in `bytes`.
    pub(super) version_at: Range<usize>,
    /// The line by which watchers are told of it; `bytes` lies within, so that it costs nothing.
    pub(super) line: Option<(EventKind, Bytes)>,
}

impl Object {
    /// The object as it is after a change of that kind.
    pub(crate) fn new(kind: EventKind, key: Key, revision: u64, draft: Draft) -> Object {
        let digits = revision.to_string();
        let (before, after) = draft.bytes.split_at(draft.version_at);
        let line = watch_line(kind.as_str(), &[before, digits.as_bytes(), after]);
        let end = line.len() - LINE_TAIL.len();
        let bytes = line.slice(end - digits.len() - draft.bytes.len()..end);
        let version_at = draft.version_at..draft.version_at + digits.len();
        Object { key, revision, bytes, meta: draft.meta, version_at, line: Some((kind, line)) }
    }

    /// The same content under another revision: how watchers are told that it has gone.
    pub(crate) fn at_revision(&self, revision: u64) -> Object {
        let mut bytes = self.bytes[..self.version_at.start].to_vec();
        bytes.extend_from_slice(&self.bytes[self.version_at.end..]);
        let draft = Draft { bytes, version_at: self.version_at.start, meta: self.meta.clone() };
        Object::new(EventKind::Deleted, self.key.clone(), revision, draft)
    }

    /// The line that tells watchers of it, shared by all of them where it is the usual one.
    pub(crate) fn line(&self, kind: EventKind) -> Bytes {
        match &self.line {
            Some((usual, line)) if *usual == kind => line.clone(),
            _ => watch_line(kind.as_str(), &[&self.bytes]),
        }
    }

    /// Parses the object. What was stored was serialised here, so it parses; a damaged row is
    /// found when the database is opened.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

/// What the server asks of every object without parsing it again.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    pub uid: String,
    pub labels: Labels,
    pub finalizers: Vec<String>,
    pub deletion_timestamp: Option<String>,
    pub owner_references: Vec<Owner>,
}

impl Meta {
    /// Someone asked for its deletion.
    pub(crate) fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Reads the metadata out of an object without building the rest of it.
    pub(super) fn of_bytes(bytes: &[u8]) -> Result<Meta, serde_json::Error> {
        #[derive(Deserialize)]
        struct Outer {
            metadata: Meta,
        }
        serde_json::from_slice::<Outer>(bytes).map(|outer| outer.metadata)
    }
}

/// Labels in the order of their keys. A list of just so many: a map takes half a kilobyte for two,
/// and there is one for every object and event.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "BTreeMap<Box<str>, Box<str>>")]
pub(crate) struct Labels(Box<[(Box<str>, Box<str>)]>);

impl From<BTreeMap<Box<str>, Box<str>>> for Labels {
    fn from(labels: BTreeMap<Box<str>, Box<str>>) -> Labels {
        Labels(labels.into_iter().collect())
    }
}

impl Labels {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        self.0.get(found).map(|(_, value)| &**value)
    }
}

/// One owner of an object.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Owner {
    pub uid: String,
    pub block_owner_deletion: bool,
}

/// An object ready to be stored, but for its revision, which only the writer knows.
pub(crate) struct Draft {
    pub(super) bytes: Vec<u8>,
    /// Where the digits of the revision belong.
    pub(super) version_at: usize,
    pub(super) meta: Meta,
}

impl Draft {
    /// Its bytes once it has a revision, or a few less.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Serialises an object with a hole for its resource version. `None`: it is no object with
/// metadata, or its metadata has another shape than Kubernetes' own.
pub(crate) fn draft(object: &Value) -> Option<Draft> {
    let fields = object.as_object()?;
    let metadata = fields.get("metadata")?.as_object()?;
    let meta = Meta::deserialize(fields.get("metadata")?).ok()?;
    let mut bytes = Vec::with_capacity(1024);
    let mut version_at = 0;
    bytes.push(b'{');
    for (index, (name, value)) in fields.iter().enumerate() {
        write_name(&mut bytes, index, name);
        if name == "metadata" {
            version_at = write_metadata(&mut bytes, metadata);
        } else {
            write_value(&mut bytes, value);
        }
    }
    bytes.push(b'}');
    Some(Draft { bytes, version_at, meta })
}

fn write_metadata(bytes: &mut Vec<u8>, metadata: &Map<String, Value>) -> usize {
    bytes.extend_from_slice(br#"{"resourceVersion":""#);
    let version_at = bytes.len();
    bytes.push(b'"');
    for (name, value) in metadata.iter().filter(|(name, _)| *name != "resourceVersion") {
        write_name(bytes, 1, name);
        write_value(bytes, value);
    }
    bytes.push(b'}');
    version_at
}

fn write_name(bytes: &mut Vec<u8>, index: usize, name: &str) {
    if index > 0 {
        bytes.push(b',');
    }
    // Writing JSON into memory cannot fail: no I/O, and every key is a string.
    let _ = serde_json::to_writer(&mut *bytes, name);
    bytes.push(b':');
}

fn write_value(bytes: &mut Vec<u8>, value: &Value) {
    let _ = serde_json::to_writer(bytes, value);
}
