//! The hub's API as a client sees it: objects of any kind, and when a watch shows what.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::Value;
use tokio::time::timeout;

/// Longest wait for anything: what has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client with a kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// All objects of a kind, or those of a namespace.
pub(crate) fn objects(
    client: &Client,
    (group, kind, plural): (&str, &str, &str),
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(group, "v1alpha1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Changes as a watch shows them.
pub(crate) struct Sightings(BoxStream<'static, Result<DynamicObject, watcher::Error>>);

impl Sightings {
    /// Watches a kind; returns when the watch is open.
    pub(crate) async fn of(api: Api<DynamicObject>) -> anyhow::Result<Self> {
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut present = Vec::new();
        loop {
            let event = timeout(PATIENCE, events.try_next()).await.context("no list came")??;
            match event.context("the watch ended")? {
                watcher::Event::InitApply(object) => present.push(Ok(object)),
                watcher::Event::InitDone => break,
                _ => {}
            }
        }
        let later = events.applied_objects();
        Ok(Self(futures::stream::iter(present).chain(later).boxed()))
    }

    /// The next object of which `seen` holds, and when it was seen.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut seen: impl FnMut(&DynamicObject) -> bool,
    ) -> anyhow::Result<(Instant, DynamicObject)> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(next) = timeout(left, self.0.try_next()).await else {
                let last = last.map(|object| serde_json::to_string(&object)).transpose()?;
                anyhow::bail!("waited for {what}; last seen: {}", last.unwrap_or_default());
            };
            let object = next?.context("the watch ended")?;
            if seen(&object) {
                return Ok((Instant::now(), object));
            }
            last = Some(object);
        }
    }
}

/// Whether a condition is `True`.
pub(crate) fn holds(object: &DynamicObject, condition: &str) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

/// An object of JSON.
pub(crate) fn object(value: Value) -> anyhow::Result<DynamicObject> {
    Ok(serde_json::from_value(value)?)
}
