//! Patch in its four forms: JSON patch, merge patch, strategic merge patch, server-side apply.

use serde_json::{Map, Value};

use super::{
    Call, Part, Written,
    change::{self, Proposal},
    create, form, now,
};
use crate::{
    body, field::FieldError, json, patch, registry::Resource, request::WriteOptions, ssa,
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
                check_uid(call, old, &value)?;
                form::check_type(&call.resource, &mut value)?;
                change::check_address(call, &value)?;
                let duplicates = duplicates.clone();
                let validation = options.field_validation;
                let warnings = call.check_patched_fields(&mut value, duplicates, validation)?;
                Ok(Proposal { value, warnings, tracked: false })
            };
            change::change(call, part, &options, propose).await
        }
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
        Kind::Merge | Kind::Apply => patch::merge(value, patch),
    };
    outcome.map_err(|error| {
        let (code, reason) = match error {
            patch::PatchError::Malformed(_) => (http::StatusCode::BAD_REQUEST, "BadRequest"),
            patch::PatchError::Unfit(_) => (http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            // So a real server answers, too: without a reason.
            patch::PatchError::Senseless(_) => (http::StatusCode::INTERNAL_SERVER_ERROR, ""),
            patch::PatchError::TooLarge(_) => {
                (http::StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
            }
        };
        Status::new(code, reason, error.to_string())
    })
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
    form::check_applied_type(&applied)?;
    ssa::check(&call.resource.schema, &applied).map_err(|error| refused(error, &applied))?;
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
            check_uid(call, old, &applied)?;
            if let Some(version) = applied["metadata"].get("resourceVersion") {
                value["metadata"]["resourceVersion"] = version.clone();
            }
            Ok(Proposal { value, warnings: warnings.clone(), tracked: true })
        };
        return change::change(call, part, options, propose).await;
    }
}

/// A patch cannot be meant for another object: of it, the uid is a field that may not change.
fn check_uid(call: &Call, old: &Value, new: &Value) -> Result<(), Status> {
    let (old, new) = (&old["metadata"], &new["metadata"]["uid"]);
    if new.is_null() || *new == "" || *new == old["uid"] {
        return Ok(());
    }
    let error = FieldError::invalid("metadata.uid", new, "field is immutable");
    let name = old["name"].as_str().unwrap_or_default();
    Err(Status::invalid(call.about_kind(name), &[error.clone(), error]))
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
    let applying = ssa::apply(&call.resource.schema, live, applied, &writer, options.force);
    applying.map_err(|error| refused(error, applied))
}

fn refused(error: ssa::ApplyError, applied: &Value) -> Status {
    let message = error.to_string();
    match error {
        ssa::ApplyError::Invalid(_) => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &applied["metadata"];
            let (version, kind) = (text(&applied["apiVersion"]), text(&applied["kind"]));
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            let message = format!(
                "failed to create typed patch object ({namespace}/{name}; {version}, \
                 Kind={kind}): {message}"
            );
            Status::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", message)
        }
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

/// The name may be left to the address.
fn complete_address(call: &Call, applied: &mut Value) {
    let Some(metadata) = applied["metadata"].as_object_mut() else { return };
    if let Some(name) = &call.target.name {
        metadata.entry("name").or_insert_with(|| name.clone().into());
    }
}

/// Of an apply, only what its address may write is owned: status by `/status`, the rest by the
/// object itself (Kubernetes' "reset fields").
fn keep_part(resource: &Resource, part: Part, applied: &mut Value) {
    let Some(fields) = applied.as_object_mut() else { return };
    if part == Part::Main {
        if resource.has_status {
            fields.remove("status");
        }
        return;
    }
    let mut kept = Value::Object(Map::new());
    for field in ["apiVersion", "kind"] {
        kept[field] = fields.get(field).cloned().unwrap_or_default();
    }
    kept["metadata"] = Value::Object(Map::new());
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        change::put_at(&mut kept, &["metadata", field], applied);
    }
    change::put_at(&mut kept, part.path(), applied);
    *applied = kept;
}
