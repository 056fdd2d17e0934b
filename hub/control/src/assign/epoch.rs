//! The epoch of revisions: a number in the API that only grows, taken by compare-and-swap.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::PostParams};
use muster_api::SYSTEM_NAMESPACE;

/// The ConfigMap that holds it.
const NAME: &str = "muster-epoch";
/// Its key there.
const KEY: &str = "epoch";
/// How far an agent may push it at once: an honest one is ahead by the starts since a backup, and a
/// dishonest one must not be able to use all numbers up.
const JUMP_MAX: u64 = 1 << 32;
/// How often a lost race is run again: each loss means that another hub took an epoch.
const ATTEMPTS: usize = 16;

/// How far a restored hub goes on from what its backup holds: further than any hub was started
/// since, so that no agent takes the restored hub's orders for those of a start that it has seen.
const RESTORE_STEP: u64 = 1 << 16;

/// Why no epoch could be taken.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// Somebody shows an epoch that no hub gave out.
    #[error("epoch {above} is not one of this hub's, which is at {stored}: enrol the agent anew")]
    TooHigh {
        /// What was shown.
        above: u64,
        /// What the hub is at.
        stored: u64,
    },
    /// The API failed.
    #[error("ConfigMap {NAME} could not be read or written: {0}")]
    Api(#[source] Box<kube::Error>),
}

/// Takes an epoch above the stored one and above `above`.
pub(crate) async fn take(client: &Client, above: u64) -> Result<u64, EpochError> {
    let next = |stored: u64| match above > stored.saturating_add(JUMP_MAX) {
        true => Err(EpochError::TooHigh { above, stored }),
        false => Ok(stored.max(above) + 1),
    };
    advance(client, next).await
}

/// Raises the epoch of a hub that was restored from a backup, before it is started.
pub async fn raise_after_restore(client: &Client) -> Result<u64, EpochError> {
    advance(client, |stored| Ok(stored + RESTORE_STEP)).await
}

async fn advance(
    client: &Client,
    next: impl Fn(u64) -> Result<u64, EpochError>,
) -> Result<u64, EpochError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut attempt = 0;
    loop {
        attempt += 1;
        match attempt_once(&api, &next).await {
            Err(EpochError::Api(error)) if lost_race(&error) && attempt < ATTEMPTS => {}
            result => return result,
        }
    }
}

async fn attempt_once(
    api: &Api<ConfigMap>,
    next: &impl Fn(u64) -> Result<u64, EpochError>,
) -> Result<u64, EpochError> {
    let fail = |error| EpochError::Api(Box::new(error));
    let held = api.get_opt(NAME).await.map_err(fail)?;
    let exists = held.is_some();
    let mut map = held.unwrap_or_default();
    let text = map.data.as_ref().and_then(|data| data.get(KEY));
    let stored: u64 = text.and_then(|text| text.parse().ok()).unwrap_or_default();
    let epoch = next(stored)?;
    map.data.get_or_insert_with(BTreeMap::new).insert(KEY.to_owned(), epoch.to_string());
    map.metadata.name = Some(NAME.to_owned());
    if exists {
        api.replace(NAME, &PostParams::default(), &map).await.map_err(fail)?;
    } else {
        api.create(&PostParams::default(), &map).await.map_err(fail)?;
    }
    Ok(epoch)
}

fn lost_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
