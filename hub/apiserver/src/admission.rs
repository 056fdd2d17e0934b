//! In-process admission: rules of the hub about objects, asked before a write is committed.
//! They take the place of Kubernetes' admission webhooks, which are not offered: of the validating
//! ones, and, as far as defaults go, of the mutating ones.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::{BoxFuture, FutureExt as _, ready};
use serde_json::Value;

use crate::{schema::Schema, status::Status, user::UserInfo};

/// Schemas of single objects that are kept compiled. Past that they are compiled anew: each costs
/// a few milliseconds.
const COMPILED_MAX: usize = 64;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// A write that is about to be committed (`admission.k8s.io/v1` `AdmissionRequest`).
#[derive(Debug, Clone)]
pub struct AdmissionRequest {
    pub operation: Operation,
    pub user: UserInfo,
    pub group: String,
    pub version: String,
    pub kind: String,
    /// The plural.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The object as it would be; `None` on delete.
    pub object: Option<Value>,
    /// The object as it is; `None` on create.
    pub old_object: Option<Value>,
    /// Nothing will be committed.
    pub dry_run: bool,
}

/// A set of rules. No lock is held while it is asked, so it may call the API itself; between its
/// answer and the commit other writes may come.
pub trait Admit: Send + Sync {
    /// Whether these rules have anything to say about a kind; asked for every write.
    fn wants(&self, group: &str, resource: &str) -> bool;

    /// Fills in what the writer left out and no schema can say; called as often as defaults are.
    fn complete(&self, _group: &str, _resource: &str, _object: &mut Value) {}

    /// Lets a write through, with warnings for the client, or refuses it.
    fn admit<'a>(
        &'a self,
        request: &'a AdmissionRequest,
    ) -> BoxFuture<'a, Result<Vec<String>, Status>>;

    /// Whether the objects of a definition with these annotations may be held to other schemas
    /// than the definition's.
    fn governs(&self, _annotations: &BTreeMap<String, String>) -> bool {
        false
    }

    /// The schema to which one object of such a definition is held: it is pruned, defaulted and
    /// validated by it at each write. `None`: by its definition's.
    fn schema<'a>(&'a self, _object: &'a Named) -> BoxFuture<'a, Result<Option<HeldTo>, Status>> {
        ready(Ok(None)).boxed()
    }
}

/// An object of a custom kind, by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name of the kind's definition: `plural.group`.
    pub definition: String,
    /// The version in which it is written.
    pub version: String,
    pub namespace: String,
    /// Empty when the object gets its name from `generateName`.
    pub name: String,
}

/// A schema other than a definition's.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldTo {
    /// Tells this schema apart from the definition's others.
    pub key: String,
    /// The `openAPIV3Schema`.
    pub schema: Value,
}

/// Compiled schemas of single objects.
#[derive(Default)]
pub(crate) struct Compiled(Mutex<HashMap<[String; 3], Arc<Schema>>>);

impl Compiled {
    /// The schema, compiled; `None` if it is none, which a definition would not have been let have.
    pub(crate) fn get(&self, object: &Named, held: &HeldTo) -> Option<Arc<Schema>> {
        let key = [&object.definition, &object.version, &held.key].map(String::clone);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = all.get(&key) {
            return Some(schema.clone());
        }
        let schema = Arc::new(Schema::from_crd(&held.schema, "").ok()?);
        if all.len() >= COMPILED_MAX {
            all.clear();
        }
        all.insert(key, schema.clone());
        Some(schema)
    }
}
