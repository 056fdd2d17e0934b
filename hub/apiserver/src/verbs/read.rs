//! Get and list.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::{
    Call, form,
    page::{self, Page, Path},
};
use crate::{
    body::Body,
    registry::{Resource, Rules},
    request::{ListOptions, VersionMatch},
    respond::{self, Form},
    status::Status,
    store::{Object, State},
};

pub(super) fn get(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let object = call.current()?;
    let bytes = form::served_bytes(&call.resource, &object);
    Ok(respond::object(&call.resource, call.form, StatusCode::OK, bytes))
}

pub(super) fn list(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(call.query, false)?;
    let (objects, metadata) = select(call, &options)?;
    let items: Vec<Bytes> =
        objects.iter().map(|object| form::served_bytes(&call.resource, object)).collect();
    Ok(respond::list(&call.resource, call.form, metadata, items))
}

/// Objects, and the metadata of their list.
type Selected = (Vec<Arc<Object>>, Map<String, Value>);

/// The objects that a list shows, with the list's metadata.
pub(super) fn select(call: &Call<'_>, options: &ListOptions) -> Result<Selected, Status> {
    check_fields(&call.resource, options)?;
    let filter = Filter { resource: &call.resource, options };
    let page = options.continue_token.as_deref().map(Page::parse).transpose()?;
    let namespace = call.target.namespace.as_deref();
    let state = call.server.store.read();
    let revision = match (&page, options.version_match) {
        (Some(page), _) => page.revision,
        (None, VersionMatch::Exact(revision)) => revision,
        (None, VersionMatch::NotOlderThan(_) | VersionMatch::Newest) => state.revision,
    };
    if let VersionMatch::NotOlderThan(wanted) | VersionMatch::Exact(wanted) = options.version_match
        && wanted > state.revision
    {
        return Err(too_large(wanted, state.revision));
    }
    if page.as_ref().is_some_and(|page| page.revision > state.revision) {
        return Err(page::invalid("it is of a revision that is yet to come"));
    }
    let after = page
        .map(|Page { after: (within, name), .. }| (namespace.map_or(within, str::to_owned), name));
    let objects = objects_at(&state, call, namespace, after.as_ref(), revision)?;
    drop(state);
    let limit = options.limit.unwrap_or(usize::MAX);
    let plain = filter.is_everything();
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    if call.resource.is_custom() && call.form == Form::Json {
        metadata.insert("continue".to_owned(), "".into());
    }
    if plain && objects.len() <= limit {
        return Ok((objects, metadata));
    }
    let mut selected: Vec<Arc<Object>> = Vec::new();
    let mut rest = objects.into_iter();
    for object in rest.by_ref() {
        if filter.matches(&object) {
            selected.push(object);
        }
        if selected.len() == limit {
            break;
        }
    }
    let remaining = rest.len();
    if let Some(last) = selected.last().filter(|_| remaining > 0) {
        // Below the list's own path, as in a real server.
        let within = if namespace.is_some() { "" } else { &last.key.namespace };
        let next = Page { revision, after: (within.to_owned(), last.key.name.clone()) };
        metadata.insert("continue".to_owned(), next.print().into());
        if plain {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
    }
    Ok((selected, metadata))
}

fn objects_at(
    state: &State,
    call: &Call,
    namespace: Option<&str>,
    after: Option<&Path>,
    revision: u64,
) -> Result<Vec<Arc<Object>>, Status> {
    let kind = &call.resource.store;
    let newest = state.list(kind, namespace, after).cloned();
    if revision >= state.revision {
        return Ok(newest.collect());
    }
    let then = state.before(kind, revision).map_err(|_| {
        Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You \
             must start a new list without the continue parameter.",
        )
    })?;
    let path = |object: &Arc<Object>| (object.key.namespace.clone(), object.key.name.clone());
    let mut objects: BTreeMap<Path, Arc<Object>> = newest.map(|o| (path(&o), o)).collect();
    for (path, before) in then {
        let elsewhere = namespace.is_some_and(|namespace| namespace != path.0);
        if elsewhere || after.is_some_and(|after| path <= *after) {
            continue;
        }
        match before {
            Some(object) => objects.insert(path, object),
            None => objects.remove(&path),
        };
    }
    Ok(objects.into_values().collect())
}

fn too_large(wanted: u64, current: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
    let mut status = Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
    let cause = serde_json::json!([{
        "reason": "ResourceVersionTooLarge", "message": "Too large resource version",
    }]);
    status.details.insert("causes".to_owned(), cause);
    status.details.insert("retryAfterSeconds".to_owned(), 1.into());
    status
}

/// Selectors may name only the fields that the kind offers.
pub(super) fn check_fields(resource: &Resource, options: &ListOptions) -> Result<(), Status> {
    let checked = options.fields.check(&resource.selectable, resource.is_custom());
    checked.map_err(|error| Status::bad_request(error.to_string()))
}

/// The selectors of a list or watch.
pub(super) struct Filter<'a> {
    pub(super) resource: &'a Resource,
    pub(super) options: &'a ListOptions,
}

impl Filter<'_> {
    pub(super) fn is_everything(&self) -> bool {
        self.options.labels.is_everything() && self.options.fields.is_everything()
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        let labels = &object.meta.labels;
        self.options.labels.matches_with(|key| labels.get(key)) && self.fields_match(object)
    }

    /// Name and namespace are known; for other fields the object must be parsed.
    fn fields_match(&self, object: &Object) -> bool {
        let fields = &self.options.fields;
        let name = fields.required("metadata.name");
        if fields.is_everything() || name.is_some_and(|name| name != object.key.name) {
            return fields.is_everything();
        }
        if name.is_some() && fields.terms().len() == 1 {
            return true;
        }
        let mut value = form::served(self.resource, object);
        show_selectable(self.resource, &mut value);
        fields.matches(&value)
    }
}

/// Puts what a selector speaks of where it looks for it: some fields that selectors may name are
/// not what the object says, or are not said by it (`ToSelectableFields` of the kinds upstream).
fn show_selectable(resource: &Resource, value: &mut Value) {
    for flag in ["unschedulable", "hostNetwork"] {
        let offered = resource.selectable.iter().any(|field| *field == format!("spec.{flag}"));
        if offered && value["spec"][flag].is_null() {
            value["spec"][flag] = false.into();
        }
    }
    match resource.rules {
        Rules::Event if value["source"].is_object() => {
            value["source"] = value["source"]["component"].clone();
        }
        Rules::Job => {
            let succeeded = value["status"]["succeeded"].as_i64().unwrap_or(0);
            value["status"]["successful"] = succeeded.into();
        }
        _ => {}
    }
}
