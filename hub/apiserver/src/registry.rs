//! Which kinds are served: the built-in ones and those of CustomResourceDefinitions, alike.
//!
//! A [`Registry`] is immutable and replaced as a whole when a definition changes, so that one
//! request sees one set of kinds.

mod builtin;
pub(crate) mod definition;
mod published;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use crate::{names::NameRule, schema::Schema, store::Object, table::Column};
pub(crate) use published::Published;

/// The table of CustomResourceDefinitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// One kind in one version, as it is served.
#[derive(Clone)]
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    /// A deletion is answered with the object instead of a `Status`.
    pub returns_deleted: bool,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// The table of its objects: one for all versions of a kind.
    pub store: Arc<str>,
    /// `apiVersion` of objects as they are stored.
    pub stored_as: String,
    pub schema: Arc<Schema>,
    pub columns: Vec<Column>,
    pub has_status: bool,
    pub scale: Option<Scale>,
    /// Further subresources with a meaning of their own, such as `log`, `token`, `finalize`.
    pub extra: &'static [&'static str],
    /// Fields, besides name and namespace, that selectors may name.
    pub selectable: Vec<String>,
    pub rules: Rules,
    pub names: NameRule,
    pub generation: Generation,
    /// Warned of at each use.
    pub deprecated: Option<String>,
    /// Kept as plain data: nothing here acts on its objects, and who makes one is told.
    pub runs_nowhere: bool,
    /// The definition of this kind; `None`: built in.
    pub defined_by: Option<Definition>,
}

/// Where a custom kind comes from.
#[derive(Clone)]
pub(crate) struct Definition {
    pub name: String,
    /// Objects written before this revision may lack defaults that the schema has since got.
    pub since: u64,
    /// The schema as it was given, for publishing.
    pub published: Arc<Value>,
    /// The definition's, for the rules.
    pub annotations: Arc<BTreeMap<String, String>>,
}

/// Where a custom kind keeps what `/scale` shows.
#[derive(Clone)]
pub(crate) struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// What a kind's objects must obey beyond their schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    Generic,
    Namespace,
    ConfigMap,
    Secret,
    Pod,
    Job,
    CronJob,
    Event,
    Role,
    Binding,
    Definition,
    /// Never stored: the answer to a create is computed.
    Review(Review),
}

/// The kinds whose creation is a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Review {
    Token,
    SelfSubject,
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectAccess,
    SelfSubjectRules,
}

/// When `metadata.generation` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    Never,
    /// On a change of anything but metadata (and status, where status is a subresource).
    OnChange,
}

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Reviews are asked, not stored.
    pub(crate) fn is_stored(&self) -> bool {
        !matches!(self.rules, Rules::Review(_))
    }

    /// Namespaces go one by one, because each takes all its content along.
    pub(crate) fn deletes_many(&self) -> bool {
        self.is_stored() && self.rules != Rules::Namespace
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.defined_by.is_some()
    }

    /// The object was stored in another form than this resource's: see [`crate::verbs`].
    pub(crate) fn reads_as_stored(&self, object: &Object) -> bool {
        let current = self.defined_by.as_ref().is_none_or(|by| object.revision >= by.since);
        current && self.without_type(&object.bytes).is_some()
    }

    /// What follows kind and version in an object's JSON as this resource serves it; `None`: it
    /// does not begin with them.
    pub(crate) fn without_type<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let version = api_version(&self.group, &self.version);
        let head = match self.is_custom() {
            true => format!(r#"{{"apiVersion":"{version}","kind":"{}","#, self.kind),
            false => format!(r#"{{"kind":"{}","apiVersion":"{version}","#, self.kind),
        };
        bytes.strip_prefix(head.as_bytes())
    }
}

/// `v1`, or `group/v1`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

/// All kinds that are served.
pub(crate) struct Registry {
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
    compiled: HashMap<String, Arc<definition::Compiled>>,
    builtins: Arc<Vec<Arc<Resource>>>,
    published: OnceLock<Published>,
}

impl Registry {
    /// The built-in kinds alone.
    pub(crate) fn builtin() -> Registry {
        Registry::assemble(Arc::new(builtin::resources()), HashMap::new())
    }

    /// The built-in kinds and those of `definitions`; what has not changed is taken over.
    pub(crate) fn with_definitions(&self, definitions: &[Arc<Object>]) -> Registry {
        let mut compiled = HashMap::new();
        for object in definitions {
            let name = object.key.name.clone();
            if let Some(definition) = definition::compile(object, self.compiled.get(&name)) {
                compiled.insert(name, definition);
            }
        }
        Registry::assemble(self.builtins.clone(), compiled)
    }

    fn assemble(
        builtins: Arc<Vec<Arc<Resource>>>,
        compiled: HashMap<String, Arc<definition::Compiled>>,
    ) -> Registry {
        let custom = compiled.values().flat_map(|definition| &definition.resources);
        let path = |resource: &Arc<Resource>| {
            let Resource { group, version, plural, .. } = &**resource;
            ((group.clone(), version.clone(), plural.clone()), resource.clone())
        };
        let resources = builtins.iter().chain(custom).map(path).collect();
        Registry { resources, compiled, builtins, published: OnceLock::new() }
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// Whether kinds of that group and version are built in.
    pub(crate) fn has_builtin(&self, group: &str, version: &str) -> bool {
        self.builtins.iter().any(|kind| kind.group == group && kind.version == version)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The resource (of any version) of a table of stored objects. Of the two that show events it
    /// is the core group's, which is the form they are stored in.
    pub(crate) fn of_store(&self, store: &str) -> Option<&Arc<Resource>> {
        self.all().find(|resource| &*resource.store == store && resource.is_stored())
    }

    /// Discovery and OpenAPI documents of this set of kinds, made when first asked for.
    pub(crate) fn published(&self) -> &Published {
        self.published.get_or_init(|| Published::of(self))
    }
}
