//! Delete: at once where nothing holds the object, else marked and left to whoever holds it.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::{ATTEMPTS_MAX, Call, commit, draft, form, meta, now, put};
use crate::{
    admission::Operation,
    body::{self, Body},
    field::FieldError,
    registry::{Resource, Rules, definition},
    request::{Query, WriteOptions},
    respond,
    status::{About, Status},
    store::{Action, Change, EventKind, Object},
};

/// What happens to what an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The finalizer that waits until what the object owns is gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that waits until what the object owns is disowned.
pub(crate) const ORPHAN: &str = "orphan";

/// How a pod that runs somewhere is given time to end, if it does not say itself.
const POD_GRACE_SECONDS: i64 = 30;

/// Namespaces that cannot go (apiserver `NamespaceLifecycle`).
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// `meta.k8s.io/v1` `DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub grace_seconds: Option<i64>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads them from the query and from the body, which may be empty.
    pub(super) fn parse(
        query: &Query,
        headers: &HeaderMap,
        bytes: &[u8],
    ) -> Result<DeleteOptions, Status> {
        let given = match bytes {
            [] => Value::Null,
            bytes => body::decode(headers, bytes, "DeleteOptions")?.0,
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kind = given["kind"].as_str().unwrap_or("DeleteOptions");
        if !(given.is_object() || given.is_null()) || kind != "DeleteOptions" {
            return Err(Status::bad_request(format!(
                "the body of a delete is a DeleteOptions, not {}",
                if given.is_object() { kind } else { "a plain value" }
            )));
        }
        let policy = text(&given["propagationPolicy"])
            .or_else(|| query.get("propagationPolicy").map(str::to_owned));
        if let Some(policy) = policy.as_ref().filter(|_| !given["orphanDependents"].is_null()) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            let value = policy.as_str().into();
            let error = FieldError::invalid("propagationPolicy", &value, detail);
            return Err(Status::invalid_option("DeleteOptions", error));
        }
        let propagation = match policy.as_deref() {
            None if given["orphanDependents"] == true => Some(Propagation::Orphan),
            None => None,
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                let error =
                    FieldError::not_supported("propagationPolicy", &other.into(), &supported);
                return Err(Status::invalid_option("DeleteOptions", error));
            }
        };
        let in_body = given["dryRun"].as_array().is_some_and(|all| !all.is_empty());
        Ok(DeleteOptions {
            propagation,
            uid: text(&given["preconditions"]["uid"]),
            resource_version: text(&given["preconditions"]["resourceVersion"]),
            grace_seconds: match given["gracePeriodSeconds"].as_i64() {
                None => query.number("gracePeriodSeconds")?.map(|seconds| seconds as i64),
                seconds => seconds,
            },
            dry_run: in_body || WriteOptions::parse(query, "DeleteOptions")?.dry_run,
        })
    }
}

/// What a delete came to.
pub(crate) enum Deleted {
    Gone(Arc<Object>),
    /// Marked; the finalizers say who still holds it.
    Held(Arc<Object>),
}

pub(super) async fn delete(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::parse(call.query, call.headers, body)?;
    match delete_object(call, call.current()?, &options).await? {
        Deleted::Gone(object) if !call.resource.returns_deleted => {
            let mut details = call.about(&object.key.name).details();
            details.insert("uid".to_owned(), object.meta.uid.clone().into());
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": details,
            });
            Ok(respond::json_value(StatusCode::OK, &status))
        }
        Deleted::Gone(object) | Deleted::Held(object) => {
            let bytes = form::served_bytes(&call.resource, &object);
            Ok(respond::object(&call.resource, call.form, StatusCode::OK, bytes))
        }
    }
}

/// Deletes an object of the call's kind.
pub(crate) async fn delete_object(
    call: &Call<'_>,
    mut object: Arc<Object>,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let resource = &call.resource;
    refuse_immortal(call, &object.key.name)?;
    for _ in 0..ATTEMPTS_MAX {
        check_preconditions(call, &object, options)?;
        let old = form::served(resource, &object);
        call.admit(Operation::Delete, None, Some(&old), options.dry_run).await?;
        let mut new = old.clone();
        set_finalizers(resource, &mut new, options.propagation);
        mark(resource, &mut new, options);
        let unheld = meta::may_go(resource, &new);
        if !unheld && (options.dry_run || new == old) {
            // As it would be stored, at the revision that it has.
            let (key, revision) = (object.key.clone(), object.revision);
            let held = Object::new(EventKind::Modified, key, revision, draft(resource, new)?);
            return Ok(Deleted::Held(Arc::new(held)));
        }
        if options.dry_run {
            return Ok(Deleted::Gone(object));
        }
        let change = match unheld {
            true => Change {
                key: object.key.clone(),
                expect: Some(object.revision),
                guards: Vec::new(),
                action: Action::Remove(None),
            },
            false => put(object.key.clone(), object.revision, draft(resource, new)?),
        };
        if let Some(object) = commit(call.server, resource, change).await? {
            return Ok(if unheld { Deleted::Gone(object) } else { Deleted::Held(object) });
        }
        let newer = call.server.store.get(&object.key);
        object = newer.ok_or_else(|| Status::not_found(call.about(&object.key.name)))?;
    }
    Err(Status::modified(call.about(&object.key.name)))
}

fn refuse_immortal(call: &Call, name: &str) -> Result<(), Status> {
    if call.resource.rules != Rules::Namespace || !IMMORTAL_NAMESPACES.contains(&name) {
        return Ok(());
    }
    let why = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
    Err(Status { details: call.about(name).details(), ..Status::forbidden(why) })
}

fn check_preconditions(
    call: &Call,
    object: &Object,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let about = About { kind: &call.resource.kind, ..call.about(&object.key.name) };
    if let Some(uid) = options.uid.as_ref().filter(|&uid| *uid != object.meta.uid) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The \
             object might have been deleted and then recreated",
            object.meta.uid
        );
        return Err(Status::conflict(about, &why));
    }
    let revision = object.revision.to_string();
    if let Some(given) = options.resource_version.as_ref().filter(|&given| *given != revision) {
        let why = format!(
            "the ResourceVersion in the precondition ({given}) does not match the ResourceVersion \
             in record ({revision}). The object might have been modified"
        );
        return Err(Status::conflict(about, &why));
    }
    Ok(())
}

/// The garbage collector's finalizers follow the propagation asked for.
fn set_finalizers(resource: &Resource, object: &mut Value, propagation: Option<Propagation>) {
    let wanted = match propagation {
        None => return,
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Orphan) => Some(ORPHAN),
    };
    // A namespace owns nothing by reference; its content goes with it in any case.
    if resource.rules == Rules::Namespace {
        return;
    }
    let mut finalizers: Vec<String> = meta::texts(&object["metadata"]["finalizers"])
        .filter(|finalizer| ![FOREGROUND, ORPHAN].contains(finalizer))
        .map(str::to_owned)
        .collect();
    finalizers.extend(wanted.map(str::to_owned));
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    match finalizers.is_empty() {
        true => metadata.remove("finalizers"),
        false => metadata.insert("finalizers".to_owned(), finalizers.into()),
    };
}

fn mark(resource: &Resource, object: &mut Value, options: &DeleteOptions) {
    let grace = grace_seconds(resource, object, options);
    if object["metadata"]["deletionTimestamp"].is_null() {
        meta::mark_deleting(resource, object, &now(), grace);
    } else if object["metadata"]["deletionGracePeriodSeconds"].as_i64() > Some(grace) {
        // A second delete may shorten the time, as when the runner says that the pod has ended.
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    }
    match resource.rules {
        Rules::Namespace => object["status"]["phase"] = "Terminating".into(),
        Rules::Definition => definition::hold(object),
        _ => {}
    }
}

/// Only a pod that runs somewhere is given time: its runner deletes it again, with none.
fn grace_seconds(resource: &Resource, object: &Value, options: &DeleteOptions) -> i64 {
    let ended = ["Succeeded", "Failed"].map(Value::from).contains(&object["status"]["phase"]);
    let placed = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if resource.rules != Rules::Pod || ended || !placed {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    options.grace_seconds.or(own).unwrap_or(POD_GRACE_SECONDS).max(0)
}
