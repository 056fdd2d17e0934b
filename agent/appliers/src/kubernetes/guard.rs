//! May this agent touch this object?
//!
//! Two owners have a say: the host's policy (namespaces), and the hub, where the agent serves the
//! hub's own API: there an order must never reach what orders are made of.

use std::sync::Mutex;

use muster_core::Failure;
use serde_json::Value;

use super::{
    api::{Api, ApiError},
    object::ObjectRef,
};
use crate::Namespaces;

/// The group whose presence tells that an API is a hub's.
const HUB_GROUP: &str = "fleet.muster.dev";
const HUB_GROUPS: [&str; 2] = [HUB_GROUP, "platform.kratix.io"];
const HUB_NAMESPACE: &str = "kratix-platform-system";
/// The label that a Promise's request CRD carries.
const PROMISE_LABEL: &str = "/metadata/labels/kratix.io~1promise-name";

/// What may be touched.
#[derive(Debug)]
pub(super) struct Guard {
    namespaces: Namespaces,
    /// Whether the API is a hub's; asked once, since a hub is installed before its agents.
    is_hub: Mutex<Option<bool>>,
}

impl Guard {
    pub(super) fn new(namespaces: Namespaces) -> Self {
        Self { namespaces, is_hub: Mutex::new(None) }
    }

    /// Refuses an object that may not be touched.
    pub(super) async fn check(&self, api: &Api, manifest: &Value) -> Result<(), Failure> {
        let object = ObjectRef::of(manifest);
        let unreachable =
            |error: ApiError| Failure::retried(error.reason(), format!("{object}: {error}"));
        let resource = match api.resource(&object).await {
            // The kind may come with this very placement; whether it is namespaced is then open.
            Err(ApiError::UnknownKind { .. }) => None,
            resource => Some(resource.map_err(unreachable)?),
        };
        let namespaced = resource.as_ref().map_or(!object.namespace.is_empty(), |r| r.namespaced);
        self.check_namespace(&object, namespaced)?;
        if !self.is_hub(api).await.map_err(unreachable)? {
            return Ok(());
        }
        let refuse = |what: &str| {
            let message = format!(
                "{object} {what}, which no agent may touch: \
                 put it on another destination, or apply it to the hub yourself"
            );
            Err(Failure::refused("Forbidden", message))
        };
        if HUB_GROUPS.contains(&object.group.as_str()) {
            return refuse(&format!("is of the hub's own group {}", object.group));
        }
        if object.namespace == HUB_NAMESPACE
            || object.is("", "Namespace") && object.name == HUB_NAMESPACE
        {
            return refuse("is in the hub's own namespace");
        }
        let is_request_crd = |crd: &Value| crd.pointer(PROMISE_LABEL).is_some();
        if object.is_crd() {
            let live = api.read(&object).await.map_err(unreachable)?;
            if is_request_crd(manifest) || live.as_ref().is_some_and(is_request_crd) {
                return refuse("is the request CRD of a Promise");
            }
        } else if let Some(resource) = resource.filter(|_| !object.is_builtin()) {
            let crd = ObjectRef {
                group: "apiextensions.k8s.io".to_owned(),
                version: "v1".to_owned(),
                kind: "CustomResourceDefinition".to_owned(),
                namespace: String::new(),
                name: format!("{}.{}", resource.plural, object.group),
            };
            let live = api.read(&crd).await.map_err(unreachable)?;
            if live.as_ref().is_some_and(is_request_crd) {
                return refuse("is a request for a Promise");
            }
        }
        Ok(())
    }

    fn check_namespace(&self, object: &ObjectRef, namespaced: bool) -> Result<(), Failure> {
        let Namespaces::Only(allowed) = &self.namespaces else { return Ok(()) };
        let namespace = match (namespaced, object.namespace.as_str()) {
            (true, "") => "default",
            (true, namespace) => namespace,
            (false, _) if object.is("", "Namespace") => object.name.as_str(),
            (false, _) => {
                let message = format!(
                    "{object} is cluster-scoped, and this agent's policy allows only namespaces: \
                     set `namespaces: all`, or choose another destination"
                );
                return Err(Failure::refused("Forbidden", message));
            }
        };
        if allowed.contains(namespace) {
            return Ok(());
        }
        let allowed: Vec<_> = allowed.iter().map(String::as_str).collect();
        let message = format!(
            "{object}: this agent's policy does not allow namespace {namespace}, only {}: \
             add it to `namespaces`, or choose another destination",
            allowed.join(", ")
        );
        Err(Failure::refused("Forbidden", message))
    }

    async fn is_hub(&self, api: &Api) -> Result<bool, ApiError> {
        let lock = || self.is_hub.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = *lock() {
            return Ok(known);
        }
        let is_hub = api.groups().await?.iter().any(|group| group == HUB_GROUP);
        *lock() = Some(is_hub);
        Ok(is_hub)
    }
}
