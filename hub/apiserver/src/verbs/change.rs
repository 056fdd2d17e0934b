//! Update, and the way of every change of an object: read it, compute the new one, check, commit;
//! again from the start if another write came first.

use http::StatusCode;
use serde_json::{Map, Value};

use super::{ATTEMPTS_MAX, Call, Part, Written, commit, draft, form, meta, now, put};
use crate::{
    admission::Operation,
    field::FieldError,
    registry::{Resource, Rules},
    request::WriteOptions,
    rules, ssa,
    status::{About, Status},
    store::{Action, Change, Object},
};

/// A new value for an object, and whether its managedFields are already those of the result.
pub(super) struct Proposal {
    pub value: Value,
    pub warnings: Vec<String>,
    pub tracked: bool,
}

pub(super) async fn update(call: &Call<'_>, part: Part, body: &[u8]) -> Result<Written, Status> {
    let options = WriteOptions::parse(call.query, "UpdateOptions")?;
    let (mut value, duplicates) = call.decode(body)?;
    let warnings = call.check_fields(&mut value, duplicates, options.field_validation)?;
    check_address(call, &value)?;
    let version = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if call.resource.is_custom() && version.is_empty() {
        call.current()?;
        let detail = "must be specified for an update";
        let error = FieldError::invalid("metadata.resourceVersion", &0.into(), detail);
        let name = call.target.name.as_deref().unwrap_or_default();
        return Err(Status::invalid(call.about(name), &[error]));
    }
    let propose = |_: &Value| {
        Ok(Proposal { value: value.clone(), warnings: warnings.clone(), tracked: false })
    };
    change(call, part, &options, propose).await
}

/// Changes the object that the request names into what `propose` makes of its current value.
pub(super) async fn change(
    call: &Call<'_>,
    part: Part,
    options: &WriteOptions,
    propose: impl Fn(&Value) -> Result<Proposal, Status>,
) -> Result<Written, Status> {
    for _ in 0..ATTEMPTS_MAX {
        let current = call.current()?;
        let old = form::served(&call.resource, &current);
        let proposal = propose(&old)?;
        if let Some(written) = attempt(call, part, options, (&current, &old), proposal).await? {
            return Ok(written);
        }
    }
    let name = call.target.name.clone().unwrap_or_default();
    Err(Status::modified(call.about(&name)))
}

async fn attempt(
    call: &Call<'_>,
    part: Part,
    options: &WriteOptions,
    (current, old): (&Object, &Value),
    proposal: Proposal,
) -> Result<Option<Written>, Status> {
    let resource = &call.resource;
    let name = &current.key.name;
    let Proposal { value, mut warnings, tracked } = proposal;
    check_preconditions(call, current, &value)?;
    let now = now();
    let mut new = merge_part(resource, part, old, value);
    if part.asks() {
        resource.schema.default(&mut new);
        rules::default(call, &mut new);
        call.complete(&mut new);
    }
    if !tracked {
        let writer = ssa::Writer {
            manager: call.manager(options),
            api_version: &resource.api_version(),
            subresource: part.subresource(),
            now: &now,
        };
        ssa::track_update(&resource.schema, Some(old), &mut new, &writer);
    }
    if part == Part::Main {
        rules::generate(call, &mut new, Some(old), &now);
    }
    if part.asks() {
        meta::count_generation(resource, old, &mut new);
    }
    if meta::same(old, &new) {
        let bytes = form::served_bytes(resource, current);
        return Ok(Some(Written { code: StatusCode::OK, bytes, warnings }));
    }
    let mut errors = meta::validate(&new);
    errors.extend(meta::validate_finalizers(old, &new));
    errors.extend(resource.schema.validate(&new, Some(old)));
    errors.extend(rules::validate(call, &new, Some(old)));
    if !errors.is_empty() {
        return Err(Status::invalid(call.about_kind(name), &errors));
    }
    rules::authorize(call, &new, Some(old))?;
    warnings.extend(call.admit(Operation::Update, Some(&new), Some(old), options.dry_run).await?);
    if options.dry_run {
        let bytes = new.to_string().into();
        return Ok(Some(Written { code: StatusCode::OK, bytes, warnings }));
    }
    let gone = meta::may_go(resource, &new);
    let draft = draft(resource, new)?;
    let mut change = put(current.key.clone(), current.revision, draft);
    if gone && let Action::Put(draft) = change.action {
        change = Change { action: Action::Remove(Some(draft)), ..change };
    }
    let committed = commit(call.server, resource, change).await?;
    Ok(committed.map(|object| {
        let bytes = form::served_bytes(resource, &object);
        Written { code: StatusCode::OK, bytes, warnings }
    }))
}

/// Name and namespace of the body must be those of the address.
pub(super) fn check_address(call: &Call, value: &Value) -> Result<(), Status> {
    let name = call.target.name.as_deref().unwrap_or_default();
    let given = value["metadata"]["name"].as_str().unwrap_or_default();
    if given.is_empty() && !name.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && Some(namespace) != call.target.namespace.as_deref() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// A resource version or uid that the client gave must be the current one.
fn check_preconditions(call: &Call, current: &Object, value: &Value) -> Result<(), Status> {
    let metadata = &value["metadata"];
    let name = &current.key.name;
    let given = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
    if given("resourceVersion").is_some_and(|version| version != current.revision.to_string()) {
        return Err(Status::modified(call.about(name)));
    }
    if let Some(uid) = given("uid").filter(|&uid| uid != current.meta.uid) {
        let about = About { kind: &call.resource.plural, ..call.about_kind(name) };
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            current.meta.uid
        );
        return Err(Status::conflict(about, &why));
    }
    Ok(())
}

/// The old object with the part replaced that this write is about.
fn merge_part(resource: &Resource, part: Part, old: &Value, mut value: Value) -> Value {
    match part {
        Part::Main => {
            meta::carry(old, &mut value);
            if resource.has_status
                && let Some(fields) = value.as_object_mut()
            {
                match old.get("status") {
                    Some(status) => fields.insert("status".to_owned(), status.clone()),
                    None => fields.remove("status"),
                };
            }
            if resource.rules == Rules::Namespace
                && let Some(finalizers) = old["spec"].get("finalizers")
            {
                value["spec"]["finalizers"] = finalizers.clone();
            }
            value
        }
        part => {
            let mut new = old.clone();
            put_at(&mut new, part.path(), &value);
            take_managed_fields(&mut new, &value);
            new
        }
    }
}

/// Replaces what is at the path by what `from` has there.
pub(super) fn put_at(object: &mut Value, path: &[&str], from: &Value) {
    let [field, rest @ ..] = path else { return };
    let Some(fields) = object.as_object_mut() else { return };
    match (from.get(field), rest) {
        (None, []) => {
            fields.remove(*field);
        }
        (Some(value), []) => {
            fields.insert((*field).to_owned(), value.clone());
        }
        (from, rest) => {
            let within = fields.entry(*field).or_insert_with(|| Value::Object(Map::new()));
            put_at(within, rest, from.unwrap_or(&Value::Null));
        }
    }
}

fn take_managed_fields(new: &mut Value, from: &Value) {
    if let Some(managed) = from["metadata"].get("managedFields") {
        new["metadata"]["managedFields"] = managed.clone();
    }
}
