//! To which schema is an object held, where its definition leaves that to the rules?

use std::sync::Arc;

use super::Call;
use crate::{admission::Named, json, registry::Resource, request::Verb, status::Status};

/// The kind of a write, with the schema to which this one object is held; `None`: its
/// definition's.
pub(super) async fn resource(
    call: &Call<'_>,
    verb: Verb,
    body: &[u8],
) -> Result<Option<Arc<Resource>>, Status> {
    let Some(definition) = &call.resource.defined_by else { return Ok(None) };
    if !matches!(verb, Verb::Create | Verb::Update | Verb::Patch) {
        return Ok(None);
    }
    let Some(rules) = call.server.rules_on_schemas(&definition.annotations) else {
        return Ok(None);
    };
    let name = match &call.target.name {
        Some(name) => name.clone(),
        None => name_of(body),
    };
    let object = Named {
        definition: definition.name.clone(),
        version: call.resource.version.clone(),
        namespace: call.target.namespace.clone().unwrap_or_default(),
        name,
    };
    let Some(held) = rules.schema(&object).await? else { return Ok(None) };
    let schema = call.server.compiled.get(&object, &held);
    Ok(schema.map(|schema| Arc::new(Resource { schema, ..Resource::clone(&call.resource) })))
}

/// The name within an object that has none in its address; empty: it gets one.
fn name_of(body: &[u8]) -> String {
    let value = json::read_yaml(body).map(|(value, _)| value).unwrap_or_default();
    value["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
