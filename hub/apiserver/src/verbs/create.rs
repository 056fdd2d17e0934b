//! Create: an object that was not there.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{Call, Written, commit, draft, form, meta, now};
use crate::{
    admission::Operation,
    field::FieldError,
    names,
    registry::DEFINITIONS,
    request::{FieldValidation, WriteOptions},
    rules, ssa,
    status::Status,
    store::{Action, Change, Key},
};

/// A generated name that is taken is replaced by another so often (apiserver `maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS: usize = 8;

pub(super) async fn create(call: &Call<'_>, body: &[u8]) -> Result<Written, Status> {
    let options = WriteOptions::parse(call.query, "CreateOptions")?;
    let (mut value, duplicates) = call.decode(body)?;
    let warnings = call.check_fields(&mut value, duplicates, options.field_validation)?;
    let mut written = create_value(call, value, &options, true).await?;
    written.warnings.splice(..0, warnings);
    if call.resource.runs_nowhere {
        let kind = &call.resource.kind;
        written.warnings.push(format!("nothing here acts on a {kind}: it is kept as plain data"));
    }
    Ok(written)
}

/// Creates an object from its value; `track`: managedFields are to be written (an apply has
/// written them already).
pub(super) async fn create_value(
    call: &Call<'_>,
    mut value: Value,
    options: &WriteOptions,
    track: bool,
) -> Result<Written, Status> {
    let namespace = namespace_of(call, &value)?;
    let version = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    // An apply may give one, and it is not heeded.
    if track && !version.is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        // A real server calls it its own failure.
        return Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message));
    }
    let given = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let prefix = value["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
    let attempts = if given.is_empty() && !prefix.is_empty() { NAME_ATTEMPTS } else { 1 };
    let mut attempt = 1;
    loop {
        let name = match given.as_str() {
            "" if !prefix.is_empty() => names::generate(&prefix),
            name => name.to_owned(),
        };
        let kind = call.resource.store.clone();
        let key = Key { kind, namespace: namespace.clone(), name };
        let proposed = if attempt == attempts { value.take() } else { value.clone() };
        let prepared = prepare(call, proposed, &key, options, track).await?;
        let outcome = store(call, prepared, key, options).await;
        match outcome {
            Err(status) if status.reason == "AlreadyExists" && attempt < attempts => attempt += 1,
            outcome => return outcome,
        }
    }
}

struct Prepared {
    value: Value,
    warnings: Vec<String>,
}

async fn prepare(
    call: &Call<'_>,
    mut value: Value,
    key: &Key,
    options: &WriteOptions,
    track: bool,
) -> Result<Prepared, Status> {
    let resource = &call.resource;
    let now = now();
    meta::begin(resource, &mut value, key, &now);
    if resource.has_status
        && let Some(fields) = value.as_object_mut()
    {
        fields.remove("status");
    }
    resource.schema.default(&mut value);
    rules::default(call, &mut value);
    call.complete(&mut value);
    if track {
        let writer = ssa::Writer {
            manager: call.manager(options),
            api_version: &resource.api_version(),
            subresource: "",
            now: &now,
        };
        ssa::track_update(&resource.schema, None, &mut value, &writer);
    }
    rules::generate(call, &mut value, None, &now);
    let prefix = value["metadata"]["generateName"].as_str().unwrap_or_default();
    let mut errors = name_errors(call, prefix, &key.name);
    errors.extend(meta::validate(&value));
    errors.extend(resource.schema.validate(&value, None));
    errors.extend(rules::validate(call, &value, None));
    if !errors.is_empty() {
        return Err(Status::invalid(call.about_kind(&key.name), &errors));
    }
    rules::authorize(call, &value, None)?;
    let warnings = call.admit(Operation::Create, Some(&value), None, options.dry_run).await?;
    Ok(Prepared { value, warnings })
}

async fn store(
    call: &Call<'_>,
    prepared: Prepared,
    key: Key,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let Prepared { value, warnings } = prepared;
    let resource = &call.resource;
    let name = key.name.clone();
    let guards = guards(call, &key.namespace);
    if options.dry_run {
        check_dry(call, &key, &guards)?;
        return Ok(Written {
            code: StatusCode::CREATED,
            bytes: value.to_string().into(),
            warnings,
        });
    }
    let action = Action::Put(draft(resource, value)?);
    let change = Change { key, expect: None, guards, action };
    match commit(call.server, resource, change).await? {
        Some(object) => {
            let bytes: Bytes = form::served_bytes(resource, &object);
            Ok(Written { code: StatusCode::CREATED, bytes, warnings })
        }
        None => Err(Status::already_exists(call.about(&name))),
    }
}

fn guards(call: &Call, namespace: &str) -> Vec<Key> {
    let mut guards = Vec::new();
    let cluster_scoped = |kind: &str, name: &str| Key {
        kind: kind.into(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    if !namespace.is_empty() {
        guards.push(cluster_scoped("namespaces", namespace));
    }
    if let Some(definition) = &call.resource.defined_by {
        guards.push(cluster_scoped(DEFINITIONS, &definition.name));
    }
    guards
}

fn check_dry(call: &Call, key: &Key, guards: &[Key]) -> Result<(), Status> {
    let state = call.server.store.read();
    if state.get(key).is_some() {
        return Err(Status::already_exists(call.about(&key.name)));
    }
    let missing = guards.iter().find(|guard| state.get(guard).is_none_or(|g| g.meta.deleting()));
    let missing = missing.cloned();
    drop(state);
    match missing {
        Some(guard) => Err(super::guarded(call.server, key, call.about(&key.name), &guard)),
        None => Ok(()),
    }
}

/// The namespace of the address; the object may repeat it, not contradict it.
fn namespace_of(call: &Call, value: &Value) -> Result<String, Status> {
    let in_object = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let in_address = call.target.namespace.as_deref().unwrap_or_default();
    if call.resource.namespaced && in_address.is_empty() {
        return Err(Status::method_not_allowed(
            "the server does not allow this method on the requested resource",
        ));
    }
    if !in_object.is_empty() && in_object != in_address {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(in_address.to_owned())
}

fn name_errors(call: &Call, prefix: &str, name: &str) -> Vec<FieldError> {
    if name.is_empty() {
        let detail = "name or generateName is required";
        return vec![FieldError::required("metadata.name", detail)];
    }
    let rule = call.resource.names;
    let mut errors = match prefix {
        "" => Vec::new(),
        prefix => names::check_prefix(rule, "metadata.generateName", prefix),
    };
    errors.extend(names::check(rule, "metadata.name", name));
    errors
}

/// Strict unless the client says otherwise: how the server's own objects are checked.
impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions {
            dry_run: false,
            field_validation: FieldValidation::Strict,
            manager: Some("muster".to_owned()),
            force: false,
        }
    }
}
