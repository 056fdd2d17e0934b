//! Promises and revisions as they were last read, with what they offer: what has not changed since is
//! not read and worked out again for each of their requests.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{Api, Client, Resource};
use muster_api::{Promise, PromiseRevision};
use muster_plan::promise::{Offer, revision};
use serde::de::DeserializeOwned;

use crate::objects::Failed;

/// Most that are kept of each kind, at some ten KiB each; past that they are read anew.
const KNOWN_MAX: usize = 1024;

/// An object and what it offers.
pub(super) type Known<K> = Arc<(K, Offer)>;

pub(super) struct Offered {
    client: Client,
    promises: Mutex<HashMap<String, Known<Promise>>>,
    revisions: Mutex<HashMap<String, Known<PromiseRevision>>>,
}

impl Offered {
    pub(super) fn new(client: Client) -> Self {
        Self { client, promises: Mutex::default(), revisions: Mutex::default() }
    }

    /// The Promise as it is now; `None` if there is none, or its spec offers nothing.
    pub(super) async fn now(&self, name: &str) -> Result<Option<Known<Promise>>, Failed> {
        let offer = |promise: &Promise| {
            let generation = promise.metadata.generation.unwrap_or_default();
            Offer::read(name, generation, &promise.spec).ok()
        };
        look(&self.promises, Api::all(self.client.clone()), name, offer).await
    }

    /// The revision of a Promise's version as it is now. Its own generation counts: another version
    /// of the Promise does not concern who follows this one.
    pub(super) async fn at(
        &self,
        promise: &str,
        version: &str,
    ) -> Result<Option<Known<PromiseRevision>>, Failed> {
        let offer = |revision: &PromiseRevision| {
            let generation = revision.metadata.generation.unwrap_or_default();
            Offer::read(promise, generation, &revision.spec.promise_spec).ok()
        };
        let name = revision::name(promise, version);
        look(&self.revisions, Api::all(self.client.clone()), &name, offer).await
    }
}

async fn look<K>(
    known: &Mutex<HashMap<String, Known<K>>>,
    api: Api<K>,
    name: &str,
    offer: impl Fn(&K) -> Option<Offer>,
) -> Result<Option<Known<K>>, Failed>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = || Failed::to(format!("read {} {name}", K::kind(&())));
    let Some(head) = api.get_metadata_opt(name).await.map_err(failed())? else {
        lock().remove(name);
        return Ok(None);
    };
    let same = |known: &Known<K>| {
        let version = &known.0.meta().resource_version;
        version.is_some() && *version == head.metadata.resource_version
    };
    let held = lock().get(name).cloned();
    if let Some(held) = held.filter(same) {
        return Ok(Some(held));
    }
    let Some(object) = api.get_opt(name).await.map_err(failed())? else { return Ok(None) };
    let Some(offer) = offer(&object) else { return Ok(None) };
    let fresh = Arc::new((object, offer));
    let mut all = lock();
    if all.len() >= KNOWN_MAX {
        all.clear();
    }
    all.insert(name.to_owned(), fresh.clone());
    Ok(Some(fresh))
}
