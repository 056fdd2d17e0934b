//! The scale subresource of custom kinds: `autoscaling/v1` Scale over paths of the object.

use http::Response;
use serde_json::{Map, Value, json};

use super::{
    Call, Part,
    change::{self, Proposal},
    form, patch,
};
use crate::{
    body::Body,
    field::FieldError,
    registry::Scale,
    request::{Verb, WriteOptions},
    respond,
    status::Status,
};

pub(super) async fn answer(
    call: &Call<'_>,
    verb: Verb,
    body: &[u8],
) -> Result<Response<Body>, Status> {
    let Some(scale) = call.resource.scale.clone() else { return Ok(respond::page_not_found()) };
    let shown = match verb {
        Verb::Get => show(&scale, &form::served(&call.resource, &*call.current()?)),
        _ => change(call, verb, &scale, body).await?,
    };
    Ok(respond::scale(call.form, &shown))
}

async fn change(call: &Call<'_>, verb: Verb, scale: &Scale, body: &[u8]) -> Result<Value, Status> {
    let options = WriteOptions::parse(call.query, "UpdateOptions")?;
    let patched = |old: &Value| -> Result<Value, Status> {
        if verb == Verb::Update {
            return Ok(crate::body::decode(call.headers, body, "Scale")?.0);
        }
        let kind = patch::kind(call)?;
        let mut shown = show(scale, old);
        patch::apply_patch(&call.resource, &kind, &mut shown, &patch::read(body)?.0)?;
        Ok(shown)
    };
    let propose = |old: &Value| {
        let wanted = patched(old)?;
        // Left out, it is none.
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let detail = "should be a non-negative integer";
            let error = FieldError::invalid(&*scale.spec_replicas, &replicas.into(), detail);
            let name = call.target.name.as_deref().unwrap_or_default();
            return Err(Status::invalid(call.about_kind(name), &[error]));
        }
        let mut value = old.clone();
        set(&mut value, &scale.spec_replicas, replicas.into());
        value["metadata"]["resourceVersion"] = wanted["metadata"]["resourceVersion"].clone();
        Ok(Proposal { value, warnings: Vec::new(), tracked: false })
    };
    let written = change::change(call, Part::Scale, &options, propose).await?;
    Ok(show(scale, &serde_json::from_slice(&written.bytes).unwrap_or_default()))
}

fn show(scale: &Scale, object: &Value) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let number = |path: &str| get(object, path).as_i64().unwrap_or(0);
    let mut status = json!({"replicas": number(&scale.status_replicas)});
    if let Some(path) = &scale.label_selector
        && let Some(selector) = get(object, path).as_str()
    {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(&scale.spec_replicas)}, "status": status,
    })
}

/// Scale paths are plain: `.spec.replicas` (apiextensions allows no brackets).
fn get<'v>(object: &'v Value, path: &str) -> &'v Value {
    path.trim_start_matches('.').split('.').fold(object, |value, field| &value[field])
}

fn set(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for field in path.trim_start_matches('.').split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[field];
    }
    *place = value;
}
