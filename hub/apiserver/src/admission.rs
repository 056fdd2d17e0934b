//! In-process admission: rules of the hub about objects, asked before a write is committed.
//! They take the place of Kubernetes' admission webhooks, which are not offered: of the validating
//! ones, and, as far as defaults go, of the mutating ones.

use futures::future::BoxFuture;
use serde_json::Value;

use crate::{status::Status, user::UserInfo};

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
}
