//! Talks to one Kubernetes API: paths, discovery with a cache, and the few verbs that are needed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Request;
use kube::{Client, Config, config::KubeConfigOptions, core::Status};
use serde_json::{Value, json};

use super::object::ObjectRef;
use crate::KubernetesPolicy;

/// Under which name fields are owned (server-side apply).
pub(super) const FIELD_MANAGER: &str = "muster-agent";
/// A request that takes longer is lost: an API server answers its slowest calls within 60 s, and
/// nothing here watches.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const NAMESPACE_DEFAULT: &str = "default";

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {file} cannot be used: {cause}")]
    Kubeconfig {
        /// Which file, or where one was looked for.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The API answered that it will not.
    #[error("{}", .0.message)]
    Refused(Box<Status>),
    /// The API was not reached, or what it said was not understood.
    #[error("the Kubernetes API cannot be reached: {0}")]
    Unreachable(String),
    /// No such kind is served.
    #[error(
        "the API serves no kind {kind} in {api_version}: install its CustomResourceDefinition, \
         or correct apiVersion and kind"
    )]
    UnknownKind { api_version: String, kind: String },
}

/// Where a kind is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) plural: String,
    pub(super) namespaced: bool,
    pub(super) has_status: bool,
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Applying {
    pub(super) dry_run: bool,
    pub(super) force: bool,
}

/// A client of one API.
pub(super) struct Api {
    client: Client,
    /// Kinds by apiVersion.
    kinds: Mutex<BTreeMap<String, BTreeMap<String, Resource>>>,
}

impl Api {
    /// A client by the policy's kubeconfig. Nothing is sent yet.
    pub(super) async fn connect(policy: &KubernetesPolicy) -> Result<Self, KubernetesError> {
        let refuse =
            |file: String| move |cause: String| KubernetesError::Kubeconfig { file, cause };
        let mut config = match &policy.kubeconfig {
            Some(path) => {
                let refuse = refuse(path.display().to_string());
                let read = kube::config::Kubeconfig::read_from(path);
                let kubeconfig = read.map_err(|error| refuse.clone()(error.to_string()))?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| refuse(error.to_string()))?
            }
            None => Config::infer()
                .await
                .map_err(|error| refuse("of this user or pod".to_owned())(error.to_string()))?,
        };
        config.read_timeout = Some(REQUEST_TIMEOUT);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let client = Client::try_from(config)
            .map_err(|error| refuse("of this agent".to_owned())(error.to_string()))?;
        Ok(Self::new(client))
    }

    pub(super) fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    /// Where the kind of an object is served. A kind that is not known is asked for again.
    pub(super) async fn resource(&self, object: &ObjectRef) -> Result<Resource, ApiError> {
        let api_version = object.api_version();
        let known = |kinds: &BTreeMap<String, BTreeMap<String, Resource>>| {
            kinds.get(&api_version)?.get(&object.kind).cloned()
        };
        if let Some(resource) = known(&self.lock()) {
            return Ok(resource);
        }
        let unknown = || ApiError::UnknownKind {
            api_version: api_version.clone(),
            kind: object.kind.clone(),
        };
        let list: Value = match self.get(&group_path(object)).await {
            Ok(list) => list,
            Err(error) if error.is_not_found() => return Err(unknown()),
            Err(error) => return Err(error),
        };
        let mut kinds = self.lock();
        kinds.insert(api_version.clone(), read_resources(&list));
        known(&kinds).ok_or_else(unknown)
    }

    /// Forgets what is known of kinds: a CustomResourceDefinition has come, changed or gone.
    pub(super) fn forget_kinds(&self) {
        self.lock().clear();
    }

    /// The names of the API groups that are served.
    pub(super) async fn groups(&self) -> Result<Vec<String>, ApiError> {
        let list: Value = self.get("/apis").await?;
        let groups = list.get("groups").and_then(Value::as_array).into_iter().flatten();
        let name = |group: &Value| Some(group.get("name")?.as_str()?.to_owned());
        Ok(groups.filter_map(name).collect())
    }

    /// An object, or `None` if it does not exist (its kind included).
    pub(super) async fn read(&self, object: &ObjectRef) -> Result<Option<Value>, ApiError> {
        let resource = match self.resource(object).await {
            Err(ApiError::UnknownKind { .. }) => return Ok(None),
            resource => resource?,
        };
        match self.get(&path(object, &resource)).await {
            Err(error) if error.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// Server-side apply; returns the object as it then is.
    pub(super) async fn apply(&self, manifest: &Value, how: Applying) -> Result<Value, ApiError> {
        let object = ObjectRef::of(manifest);
        let resource = self.resource(&object).await?;
        let mut manifest = manifest.clone();
        if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            if resource.namespaced {
                let namespace = metadata.entry("namespace").or_insert_with(|| json!(""));
                if namespace.as_str().is_none_or(str::is_empty) {
                    *namespace = json!(NAMESPACE_DEFAULT);
                }
            } else {
                metadata.remove("namespace");
            }
        }
        let dry_run = if how.dry_run { "&dryRun=All" } else { "" };
        let uri = format!(
            "{}?fieldManager={FIELD_MANAGER}&force={}&fieldValidation=Strict{dry_run}",
            path(&object, &resource),
            how.force
        );
        let body = serde_json::to_vec(&manifest).map_err(ApiError::unreachable)?;
        // JSON is YAML, which is what this media type names.
        let request = Request::patch(uri).header("content-type", "application/apply-patch+yaml");
        self.send(request.body(body)).await
    }

    /// Asks for an object's deletion; `uid` keeps a namesake alive. Gone already is well.
    pub(super) async fn delete(&self, object: &ObjectRef, uid: &str) -> Result<(), ApiError> {
        let resource = match self.resource(object).await {
            Err(ApiError::UnknownKind { .. }) => return Ok(()),
            resource => resource?,
        };
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": "Background", "preconditions": {"uid": uid},
        });
        let body = serde_json::to_vec(&options).map_err(ApiError::unreachable)?;
        let request = Request::delete(path(object, &resource))
            .header("content-type", "application/json")
            .body(body);
        match self.send::<Value>(request).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads a path.
    pub(super) async fn get(&self, uri: &str) -> Result<Value, ApiError> {
        self.send(Request::get(uri).body(Vec::new())).await
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        request: http::Result<Request<Vec<u8>>>,
    ) -> Result<T, ApiError> {
        let request = request.map_err(ApiError::unreachable)?;
        self.client.request(request).await.map_err(|error| match error {
            kube::Error::Api(status) => ApiError::Refused(status),
            other => ApiError::unreachable(chain(&other)),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeMap<String, Resource>>> {
        // A panic while the map was held left it whole: every change is one insertion or clearing.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiError {
    fn unreachable(error: impl ToString) -> Self {
        Self::Unreachable(error.to_string())
    }

    fn code(&self) -> Option<u16> {
        if let Self::Refused(status) = self { Some(status.code) } else { None }
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    pub(super) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// One word for what went wrong.
    pub(super) fn reason(&self) -> &'static str {
        match (self, self.code()) {
            (Self::UnknownKind { .. }, _) => "UnknownKind",
            (_, Some(409)) => "Conflict",
            (_, Some(401 | 403)) => "Forbidden",
            (_, Some(400 | 404 | 405 | 413 | 415 | 422)) => "Rejected",
            _ => "Unreachable",
        }
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn group_path(object: &ObjectRef) -> String {
    if object.group.is_empty() {
        format!("/api/{}", object.version)
    } else {
        format!("/apis/{}/{}", object.group, object.version)
    }
}

fn path(object: &ObjectRef, resource: &Resource) -> String {
    let mut path = group_path(object);
    if resource.namespaced {
        let namespace = &object.namespace;
        let namespace = if namespace.is_empty() { NAMESPACE_DEFAULT } else { namespace };
        path = format!("{path}/namespaces/{namespace}");
    }
    // RBAC names may hold a colon, which a path may hold too; nothing else needs an escape.
    format!("{path}/{}/{}", resource.plural, object.name.replace('%', "%25").replace('/', "%2F"))
}

/// An APIResourceList: `deployments` is a kind, `deployments/status` says that it has a status.
fn read_resources(list: &Value) -> BTreeMap<String, Resource> {
    let all =
        list.get("resources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
    let names: std::collections::BTreeSet<String> = all.iter().filter_map(name).collect();
    let mut kinds = BTreeMap::new();
    for entry in all {
        let (Some(plural), Some(kind)) = (name(entry), entry.get("kind").and_then(Value::as_str))
        else {
            continue;
        };
        if plural.contains('/') {
            continue;
        }
        let namespaced = entry.get("namespaced").and_then(Value::as_bool).unwrap_or_default();
        let has_status = names.contains(&format!("{plural}/status"));
        kinds.insert(kind.to_owned(), Resource { plural, namespaced, has_status });
    }
    kinds
}
