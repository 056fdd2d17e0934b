//! What an object of a kind may look like: the one model behind pruning, defaulting,
//! validation, server-side apply and strategic merge, for built-in kinds and CRDs alike.
//!
//! A schema is compiled once (patterns and rules included) and shared. Built-in kinds come from
//! the embedded OpenAPI file of Kubernetes, whose definitions may refer to each other and to
//! themselves; a CRD's schema is a tree of its own that borrows `ObjectMeta` from there.

pub(crate) mod builtin;
mod cost;
mod defaults;
mod format;
mod parse;
mod prune;
mod rules;
mod structural;
#[cfg(test)]
mod tests;
mod types;
mod validate;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use regex::Regex;
use serde_json::Value;

use crate::field::FieldError;
pub(crate) use types::Mistyped;

/// The schema of one version of one kind.
#[derive(Debug)]
pub(crate) struct Schema {
    root: Node,
}

impl Schema {
    /// Compiles `openAPIV3Schema` of a CRD found at `path`; the errors are all that Kubernetes'
    /// rules for structural schemas object to, sorted.
    pub(crate) fn from_crd(schema: &Value, path: &str) -> Result<Self, Vec<FieldError>> {
        structural::check(schema, path)?;
        let root = parse::custom_root(schema, path)?;
        match validate::defaults(&root, path) {
            errors if errors.is_empty() => Ok(Self { root }),
            errors => Err(errors),
        }
    }

    /// The schema of a built-in kind (`group` is empty for core), if it is served.
    pub(crate) fn builtin(group: &str, version: &str, kind: &str) -> Option<Arc<Self>> {
        builtin::schema(group, version, kind)
    }

    /// Removes fields that the schema does not know (and, from built-in kinds, nulls). Returns
    /// the paths of the unknown fields, sorted: `spec.zz`, `spec.list[0].zz`.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// The first value that Kubernetes' own types (built-in kinds, and metadata of all) cannot
    /// hold.
    pub(crate) fn mistyped(&self, object: &Value) -> Option<Mistyped> {
        types::mistyped(&self.root, object, "")
    }

    /// Fills in defaults; nulls of fields that are not nullable are replaced or dropped.
    pub(crate) fn default(&self, object: &mut Value) {
        defaults::fill(&self.root, object);
    }

    /// Everything wrong with `new`. With `old` this is an update: transition rules run, and
    /// what was invalid before and did not change is let pass (KEP-4008).
    pub(crate) fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate::object(&self.root, new, old)
    }

    /// The node of the whole object.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}

/// One place in a schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) shape: Shape,
    /// Whether Kubernetes decodes the value into a Go struct, where null is absence (built-in
    /// kinds and metadata); in custom resources null is a value.
    pub(crate) is_struct: bool,
    pub(crate) nullable: bool,
    pub(crate) properties: BTreeMap<String, Link>,
    /// Fields that are there, empty, wherever their object is: structs within a struct of Go.
    pub(crate) embedded_structs: BTreeSet<String>,
    /// Schema of the values of a map.
    pub(crate) additional: Option<Link>,
    /// Schema of the items of a list.
    pub(crate) items: Option<Link>,
    /// `x-kubernetes-preserve-unknown-fields`, or a built-in object without fields of its own.
    pub(crate) preserve: bool,
    /// `x-kubernetes-embedded-resource`.
    pub(crate) embedded: bool,
    pub(crate) list: ListKind,
    /// `x-kubernetes-map-type: atomic`: owned as a whole.
    pub(crate) atomic_map: bool,
    pub(crate) default: Option<Value>,
    /// `x-kubernetes-patch-strategy`, for strategic merge of built-in kinds.
    pub(crate) patch: PatchStrategy,
    /// `x-kubernetes-patch-merge-key`.
    pub(crate) merge_key: Option<String>,
    checks: Option<Box<Checks>>,
}

impl Node {
    /// The schema of the field `name`, declared or by `additionalProperties`.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(self.additional.as_ref()).map(Link::node)
    }

    /// The schema of the items of a list.
    pub(crate) fn item(&self) -> Option<&Node> {
        self.items.as_ref().map(Link::node)
    }

    /// Whether nothing is known about the value, so that any structure is fine.
    pub(crate) fn is_untyped(&self) -> bool {
        self.shape == Shape::Any || (self.preserve && self.properties.is_empty())
    }

    fn has_rules(&self) -> bool {
        self.checks.as_ref().is_some_and(|checks| checks.has_rules)
    }
}

/// A nested schema: part of this tree, or one of the shared built-in definitions.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    Own(Box<Node>),
    /// Index of a built-in definition; this is how definitions may be recursive.
    Shared(usize),
}

impl Link {
    /// The schema meant.
    pub(crate) fn node(&self) -> &Node {
        match self {
            Self::Own(node) => node,
            Self::Shared(index) => builtin::definition(*index),
        }
    }
}

/// JSON type that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// A `Quantity`: text or number.
    Quantity,
}

/// How items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// The list is one value.
    #[default]
    Atomic,
    /// Each value once.
    Set,
    /// Objects, told apart by these fields.
    Map(Vec<String>),
}

/// `x-kubernetes-patch-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PatchStrategy {
    pub(crate) merge: bool,
    pub(crate) retain_keys: bool,
}

/// Restrictions on values.
#[derive(Clone, Debug, Default)]
struct Checks {
    required: Vec<String>,
    enumeration: Option<Vec<Value>>,
    format: Option<format::Format>,
    pattern: Option<Regex>,
    length: Bounds,
    items: Bounds,
    fields: Bounds,
    unique_items: bool,
    minimum: Option<Limit>,
    maximum: Option<Limit>,
    multiple_of: Option<f64>,
    all_of: Vec<Node>,
    any_of: Vec<Node>,
    one_of: Vec<Node>,
    not: Option<Box<Node>>,
    rules: Option<Arc<rules::Rules>>,
    /// Whether this node or one below it has rules.
    has_rules: bool,
}

/// Least and most of something countable.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    min: Option<u64>,
    max: Option<u64>,
}

/// A bound of a number.
#[derive(Clone, Copy, Debug)]
struct Limit {
    value: f64,
    exclusive: bool,
}
