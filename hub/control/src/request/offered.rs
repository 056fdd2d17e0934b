//! Promises as they were last read, with what they offer: what has not changed since is not read and
//! worked out again for each of their requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Api, Client};
use muster_api::Promise;
use muster_plan::promise::Offer;

use crate::objects::Failed;

/// A Promise and what it offers.
pub(super) type Known = Arc<(Promise, Offer)>;

pub(super) struct Offered {
    client: Client,
    known: Mutex<HashMap<String, Known>>,
}

impl Offered {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The Promise as it is now; `None` if there is none, or its spec offers nothing.
    pub(super) async fn now(&self, name: &str) -> Result<Option<Known>, Failed> {
        let api: Api<Promise> = Api::all(self.client.clone());
        let failed = || Failed::to(format!("read Promise {name}"));
        let head = api.get_metadata_opt(name).await.map_err(failed())?;
        let Some(head) = head else {
            self.lock().remove(name);
            return Ok(None);
        };
        let known = self.lock().get(name).cloned();
        let same = |known: &Known| {
            let version = &known.0.metadata.resource_version;
            version.is_some() && *version == head.metadata.resource_version
        };
        if let Some(known) = known.filter(same) {
            return Ok(Some(known));
        }
        let Some(promise) = api.get_opt(name).await.map_err(failed())? else { return Ok(None) };
        let generation = promise.metadata.generation.unwrap_or_default();
        let Ok(offer) = Offer::read(name, generation, &promise.spec) else { return Ok(None) };
        let known = Arc::new((promise, offer));
        self.lock().insert(name.to_owned(), known.clone());
        Ok(Some(known))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
