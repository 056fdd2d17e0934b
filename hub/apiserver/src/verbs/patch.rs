//! Patch in its four forms: JSON patch, merge patch, strategic merge patch, server-side apply.

use serde_json::{Map, Value};

use super::{
    Call, Part, Written,
    change::{self, Proposal},
    create, form, now,
};
use crate::{
    body, field::FieldError, json, patch, registry::Resource, request::WriteOptions, rules, ssa,
    status::Status,
};

/// What a patch's media type says it is.
pub(super) enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

pub(super) async fn patch(call: &Call<'_>, part: Part, body: &[u8]) -> Result<Written, Status> {
    let options = WriteOptions::parse(call.query, "PatchOptions")?;
    match kind(call)? {
        Kind::Apply => apply(call, part, &options, body).await,
        kind => {
            refuse_force(call)?;
            let (patch, duplicates) = read(body)?;
            let propose = |old: &Value| {
                let mut value = old.clone();
                apply_patch(&call.resource, &kind, &mut value, &patch)?;
                form::check_type(&call.resource, &mut value)?;
                change::check_address(call, &value)?;
                keep_uid(call, old, &value)?;
                let duplicates = duplicates.clone();
                let validation = options.field_validation;
                let warnings = call.check_patched_fields(&mut value, duplicates, validation)?;
                Ok(Proposal { value, warnings, tracked: false })
            };
            change::change(call, part, &options, propose).await
        }
    }
}

/// A patch changes the object that there is; an update with another uid would mean another object.
fn keep_uid(call: &Call, old: &Value, new: &Value) -> Result<(), Status> {
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    match rules::unchanged("metadata.uid", &uid(new), &uid(old)) {
        Some(error) if !uid(new).is_null() => {
            let name = call.target.name.as_deref().unwrap_or_default();
            Err(Status::invalid(call.about_kind(name), &[error]))
        }
        _ => Ok(()),
    }
}

/// The form of the patch; a strategic merge is for built-in kinds only, as in Kubernetes.
pub(super) fn kind(call: &Call) -> Result<Kind, Status> {
    let custom = call.resource.is_custom();
    match body::media_type(call.headers) {
        "application/json-patch+json" => Ok(Kind::Json),
        "application/merge-patch+json" => Ok(Kind::Merge),
        "application/strategic-merge-patch+json" if !custom => Ok(Kind::Strategic),
        "application/apply-patch+yaml" => Ok(Kind::Apply),
        _ if custom => Err(Status::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, \
             application/apply-patch+yaml",
        )),
        _ => Err(Status::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, \
             application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

pub(super) fn read(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    json::read_strict(body)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

pub(super) fn apply_patch(
    resource: &Resource,
    kind: &Kind,
    value: &mut Value,
    patch: &Value,
) -> Result<(), Status> {
    let outcome = match kind {
        Kind::Json => patch::json(value, patch),
        Kind::Strategic => patch::strategic(&resource.schema, value, patch),
        Kind::Merge | Kind::Apply => {
            patch::merge(value, patch);
            Ok(())
        }
    };
    let refused = |error: patch::PatchError| {
        let message = error.to_string();
        let (code, reason) = match error {
            patch::PatchError::Malformed(_) => return Status::bad_request(message),
            patch::PatchError::Unfit(_) => (http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            patch::PatchError::TooLarge(_) => {
                (http::StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
            }
        };
        Status::new(code, reason, message)
    };
    outcome.map_err(refused)
}

fn refuse_force(call: &Call) -> Result<(), Status> {
    match call.query.get("force") {
        None => Ok(()),
        Some(_) => {
            let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
            Err(Status::invalid_option("PatchOptions", error))
        }
    }
}

async fn apply(
    call: &Call<'_>,
    part: Part,
    options: &WriteOptions,
    body: &[u8],
) -> Result<Written, Status> {
    if options.manager.is_none() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid_option("PatchOptions", error));
    }
    let (mut applied, duplicates) = json::read_yaml(body)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    form::check_type(&call.resource, &mut applied)?;
    complete_address(call, &mut applied);
    change::check_address(call, &applied)?;
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let warnings = call.check_fields(&mut applied, duplicates, options.field_validation)?;
    keep_part(&call.resource, part, &mut applied);
    loop {
        let exists = call.server.store.get(&call.key()?).is_some();
        if !exists && part == Part::Main {
            let value = merge(call, part, options, None, &applied)?;
            let created = create::create_value(call, value, options, false).await;
            match created {
                // Someone else made it meanwhile: apply onto that.
                Err(status) if status.reason == "AlreadyExists" && !options.dry_run => continue,
                Ok(mut written) => {
                    written.warnings.splice(..0, warnings);
                    return Ok(written);
                }
                Err(status) => return Err(status),
            }
        }
        let propose = |old: &Value| {
            let mut value = merge(call, part, options, Some(old), &applied)?;
            if let Some(version) = applied["metadata"].get("resourceVersion") {
                value["metadata"]["resourceVersion"] = version.clone();
            }
            Ok(Proposal { value, warnings: warnings.clone(), tracked: true })
        };
        return change::change(call, part, options, propose).await;
    }
}

fn merge(
    call: &Call,
    part: Part,
    options: &WriteOptions,
    live: Option<&Value>,
    applied: &Value,
) -> Result<Value, Status> {
    let writer = ssa::Writer {
        manager: call.manager(options),
        api_version: &call.resource.api_version(),
        subresource: part.subresource(),
        now: &now(),
    };
    ssa::apply(&call.resource.schema, live, applied, &writer, options.force).map_err(refused)
}

fn refused(error: ssa::ApplyError) -> Status {
    let message = error.to_string();
    match error {
        ssa::ApplyError::Invalid(_) => Status::bad_request(message),
        ssa::ApplyError::Conflicts(conflicts) => {
            let cause = |conflict: &ssa::Conflict| {
                serde_json::json!({
                    "reason": "FieldManagerConflict", "message": conflict.message,
                    "field": conflict.field,
                })
            };
            let causes: Vec<Value> = conflicts.iter().map(cause).collect();
            let mut status = Status::new(http::StatusCode::CONFLICT, "Conflict", message);
            status.details.insert("causes".to_owned(), causes.into());
            status
        }
    }
}

/// Name and namespace may be left to the address.
fn complete_address(call: &Call, applied: &mut Value) {
    let Some(metadata) = applied["metadata"].as_object_mut() else { return };
    if let Some(name) = &call.target.name {
        metadata.entry("name").or_insert_with(|| name.clone().into());
    }
    if let Some(namespace) = &call.target.namespace {
        metadata.entry("namespace").or_insert_with(|| namespace.clone().into());
    }
}

/// Of an apply, only what its address may write is owned: status by `/status`, the rest by the
/// object itself (Kubernetes' "reset fields").
fn keep_part(resource: &Resource, part: Part, applied: &mut Value) {
    let Some(fields) = applied.as_object_mut() else { return };
    match part {
        Part::Main if resource.has_status => {
            fields.remove("status");
        }
        Part::Main => {}
        Part::Status | Part::Finalize => {
            let kept = if part == Part::Status { "status" } else { "spec" };
            let mut metadata = Map::new();
            for field in ["name", "namespace", "uid", "resourceVersion"] {
                if let Some(value) = fields.get("metadata").and_then(|all| all.get(field)) {
                    metadata.insert(field.to_owned(), value.clone());
                }
            }
            fields.retain(|name, _| ["apiVersion", "kind", kept].contains(&name.as_str()));
            fields.insert("metadata".to_owned(), metadata.into());
        }
    }
}
