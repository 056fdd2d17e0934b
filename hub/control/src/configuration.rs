//! Follows the platform's configuration, the ConfigMap `kratix`: what it says holds from the next look
//! at each object on, without a restart.
//!
//! Admission refuses what is wrong; what gets here wrong nevertheless (written past admission, or by an
//! older hub) changes nothing, and is told by an Event.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use muster_api::SYSTEM_NAMESPACE;
use muster_daemon::log;
use muster_plan::{
    config::{self, Config, KEY, Logging, NAME},
    options::Options,
};
use tokio_util::sync::CancellationToken;

use crate::{events::Events, options::Chosen, queue::chain};

/// Follows the configuration.
pub(crate) struct Configuration {
    maps: Api<ConfigMap>,
    events: Events,
    chosen: Chosen,
}

impl Configuration {
    pub(crate) fn new(client: Client, chosen: Chosen) -> Self {
        let events = Events::new(client.clone(), "configuration");
        Self { maps: Api::namespaced(client, SYSTEM_NAMESPACE), events, chosen }
    }

    /// Takes what is configured now, before anything is decided by it.
    pub(crate) async fn load(&self) {
        match self.maps.get_opt(NAME).await {
            Ok(map) => self.take(map.as_ref()).await,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the configuration cannot be read yet");
            }
        }
    }

    /// Takes every change, until `shutdown`.
    pub(crate) async fn follow(self, shutdown: CancellationToken) {
        let one = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let events = watcher(self.maps.clone(), one).default_backoff();
        let mut events = Box::pin(events.take_until(shutdown.cancelled()));
        let mut found = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => found = false,
                Ok(watcher::Event::InitApply(map) | watcher::Event::Apply(map)) => {
                    found = true;
                    self.take(Some(&map)).await;
                }
                Ok(watcher::Event::InitDone) if found => {}
                Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => self.take(None).await,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the watch of the configuration failed");
                }
            }
        }
    }

    async fn take(&self, map: Option<&ConfigMap>) {
        let read = match map {
            Some(map) => config::read(text(map), self.chosen.base()),
            None => {
                let options = self.chosen.base().clone();
                Ok((Config { options, logging: Logging::default() }, Vec::new()))
            }
        };
        match read {
            Ok((Config { options, logging }, idle)) => {
                let mut changed = self.chosen.set(options);
                changed |= set_logging(logging);
                if let (true, Some(map)) = (changed, map) {
                    let mut told = vec!["The configuration holds from now on".to_owned()];
                    told.extend(idle);
                    let note = told.join("; ");
                    self.events.normal(&reference(map), "ConfigurationApplied", &note).await;
                }
            }
            Err(causes) => {
                let note = format!("What held before holds on: data[{KEY}]: {}", causes.join("; "));
                tracing::warn!(map = NAME, cause = %causes.join("; "), "Wrong configuration");
                if let Some(map) = map {
                    self.events.warning(&reference(map), "ConfigurationInvalid", &note).await;
                }
            }
        }
    }
}

/// The configuration in a ConfigMap.
pub(crate) fn text(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|data| data.get(KEY)).map_or("", String::as_str)
}

/// What a ConfigMap would configure, and what of it has no effect.
pub(crate) fn review(map: &ConfigMap, base: &Options) -> Result<(Options, Vec<String>), String> {
    let read = config::read(text(map), base);
    let told = |cause: &String| format!("data[{KEY}]: {cause}");
    match read {
        Ok((config, idle)) => Ok((config.options, idle.iter().map(told).collect())),
        Err(causes) => Err(causes.iter().map(told).collect::<Vec<_>>().join("; ")),
    }
}

fn set_logging(logging: Logging) -> bool {
    let format = logging.structured.map(|structured| match structured {
        true => log::LogFormat::Json,
        false => log::LogFormat::Text,
    });
    log::change(format, logging.level.map(config::Level::as_str))
}

fn reference(map: &ConfigMap) -> ObjectReference {
    map.object_ref(&())
}
