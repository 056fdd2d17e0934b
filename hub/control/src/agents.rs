//! Agents and their Destinations: who is connected, and how one is removed.
//!
//! The one writer of the status of both. An Agent that is deleted stays until its destination holds
//! nothing any more, or at once if it carries the annotation [`labels::ABANDON`]; its condition
//! `Removed` says what it waits for.

mod enrol;
mod presence;
mod removal;

use std::{fmt::Debug, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use muster_api::{
    Agent, AgentStatus, Destination, DestinationStatus,
    conditions::{self, Truth, Verdict, kind},
    labels::{self, finalizer},
};
use muster_daemon::Clock;
use muster_plan::site::NEVER_CONNECTED;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{events::Events, queue::Next};

pub(crate) use enrol::Enrolling;
pub(crate) use presence::{Heard, Sessions};

/// How many agents are looked at at once.
pub(crate) const AT_ONCE: usize = 16;

/// How often a status is written on a newer copy when others changed the object meanwhile.
const ATTEMPTS: usize = 5;

/// Keeps Agents and Destinations; clones share everything.
#[derive(Clone)]
pub(crate) struct AgentKeeper {
    pub client: Client,
    pub sessions: Arc<Sessions>,
    pub events: Events,
    pub clock: Clock,
}

/// Why an Agent or Destination could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The API refused or failed.
    #[error("{object} could not be {action}")]
    Api {
        object: String,
        action: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    /// Others change it all the time.
    #[error("{0} was changed by others at each of {ATTEMPTS} attempts to write it")]
    Contended(String),
}

impl AgentKeeper {
    /// Makes the Agent and the Destination of one name what is known of them.
    pub(crate) async fn reconcile(self, name: String) -> Result<Next, AgentError> {
        let agents: Api<Agent> = Api::all(self.client.clone());
        let destinations: Api<Destination> = Api::all(self.client.clone());
        let agent = read(&agents, &name).await?;
        let destination = read(&destinations, &name).await?;
        // What a state store feeds is kept by its writer.
        let destination = destination.filter(|found| found.spec.state_store_ref.is_none());
        let heard = self.sessions.heard(&name);
        let now = self.clock.now();
        let mut next = Next::Change;
        if let Some(agent) = &agent {
            match connected(agent, &heard, &self.sessions) {
                Ok(verdict) => self.write_agent(&agents, agent, &heard, &verdict, now).await?,
                Err(wait) => next = Next::After(wait),
            }
        } else {
            self.sessions.forget(&name);
        }
        if let (Some(destination), Next::Change) = (&destination, next) {
            let verdict = ready(agent.as_ref(), destination, &heard);
            self.write_destination(&destinations, destination, &verdict, now).await?;
            hold(&destinations, destination, finalizer::DESTINATION_CLEANUP).await?;
        }
        if let Some(agent) = &agent {
            hold(&agents, agent, finalizer::AGENT_CLEANUP).await?;
        }
        self.remove(agent.as_ref(), destination.as_ref()).await?;
        Ok(next)
    }

    async fn write_agent(
        &self,
        api: &Api<Agent>,
        agent: &Agent,
        heard: &Heard,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        let facts = match heard {
            Heard::Connected(facts) => Some(facts.clone()),
            _ => None,
        };
        update_status(api, agent, |status: &mut AgentStatus| {
            conditions::set(&mut status.conditions, verdict, None, now);
            if let Some(facts) = &facts {
                let appliers: Vec<_> = facts.appliers.iter().map(String::as_str).collect();
                status.version = Some(facts.version.clone());
                status.appliers = Some(appliers.join(","));
                status.hostname = Some(facts.hostname.clone());
            }
        })
        .await
    }

    async fn write_destination(
        &self,
        api: &Api<Destination>,
        destination: &Destination,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        update_status(api, destination, |status: &mut DestinationStatus| {
            conditions::set(&mut status.conditions, verdict, None, now);
        })
        .await?;
        let all = destination.status.as_ref().map(|status| status.conditions.as_slice());
        let said = conditions::find(all.unwrap_or_default(), kind::READY);
        if said.is_some_and(|said| said.reason == verdict.reason) {
            return Ok(());
        }
        let about = destination.object_ref(&());
        match verdict.truth {
            Truth::True => {
                self.events.normal(&about, "DestinationReady", "Destination is Ready").await;
            }
            _ => self.events.warning(&about, "DestinationNotReady", &verdict.message).await,
        }
        Ok(())
    }
}

/// A kind with a status that this module writes.
pub(crate) trait Kept:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned
{
    type Status: Default + Clone + PartialEq;
    fn status_mut(&mut self) -> &mut Option<Self::Status>;
}

impl Kept for Agent {
    type Status = AgentStatus;
    fn status_mut(&mut self) -> &mut Option<AgentStatus> {
        &mut self.status
    }
}

impl Kept for Destination {
    type Status = DestinationStatus;
    fn status_mut(&mut self) -> &mut Option<DestinationStatus> {
        &mut self.status
    }
}

/// Changes a status in place; writes only what changed.
pub(crate) async fn update_status<K: Kept>(
    api: &Api<K>,
    object: &K,
    change: impl Fn(&mut K::Status),
) -> Result<(), AgentError> {
    let name = object.meta().name.clone().unwrap_or_default();
    let mut object = object.clone();
    for _ in 0..ATTEMPTS {
        let old = object.status_mut().clone();
        let mut status = old.clone().unwrap_or_default();
        change(&mut status);
        if old.as_ref() == Some(&status) {
            return Ok(());
        }
        *object.status_mut() = Some(status);
        match api.replace_status(&name, &PostParams::default(), &object).await {
            Err(error) if is_gone(&error) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                let Some(newer) = read(api, &name).await? else { return Ok(()) };
                object = newer;
            }
            result => {
                return result.map(drop).map_err(|error| failed::<K>(&name, "written", error));
            }
        }
    }
    Err(AgentError::Contended(format!("{} {name}", K::kind(&()))))
}

/// Adds a finalizer to an object that is not being deleted.
pub(crate) async fn hold<K: Kept>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
) -> Result<(), AgentError> {
    let meta = object.meta();
    let mut all = meta.finalizers.clone().unwrap_or_default();
    if meta.deletion_timestamp.is_some() || all.iter().any(|held| held == finalizer) {
        return Ok(());
    }
    all.push(finalizer.to_owned());
    set_finalizers(api, object, &all).await
}

/// Takes a finalizer off.
pub(crate) async fn let_go<K: Kept>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
) -> Result<(), AgentError> {
    let mut all = object.meta().finalizers.clone().unwrap_or_default();
    all.retain(|held| held != finalizer);
    if Some(&all) == object.meta().finalizers.as_ref() {
        return Ok(());
    }
    set_finalizers(api, object, &all).await
}

async fn set_finalizers<K: Kept>(
    api: &Api<K>,
    object: &K,
    all: &[String],
) -> Result<(), AgentError> {
    let name = object.meta().name.clone().unwrap_or_default();
    // The uid says which one is meant; a status written meanwhile is no reason to fail.
    let patch = json!({"metadata": {"finalizers": all, "uid": object.meta().uid}});
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if !is_gone(&error) => Err(failed::<K>(&name, "changed", error)),
        _ => Ok(()),
    }
}

/// The condition `Connected`; `Err`: after this time it may be told.
fn connected(agent: &Agent, heard: &Heard, sessions: &Sessions) -> Result<Verdict, Duration> {
    let status = agent.status.as_ref();
    let said = status.and_then(|s| conditions::find(&s.conditions, kind::CONNECTED));
    let no = |reason: &str, message: &str| {
        Ok(Verdict::new(kind::CONNECTED, Truth::False, reason, message))
    };
    match heard {
        Heard::Connected(_) => {
            let message = "its session is open";
            Ok(Verdict::new(kind::CONNECTED, Truth::True, "SessionOpen", message))
        }
        Heard::Gone { settle } if !settle.is_zero() => Err(*settle),
        Heard::Gone { .. } => no("SessionEnded", "its session ended, and no other has begun"),
        Heard::Nothing => match said {
            None => no(NEVER_CONNECTED, "it has not connected yet"),
            Some(said) if said.status != "True" => no(&said.reason, &said.message),
            Some(_) => match sessions.settling() {
                Some(wait) => Err(wait),
                None => no("SessionEnded", "it has not come back since the hub was started"),
            },
        },
    }
}

/// The condition `Ready` of a Destination: whether its agent is connected.
fn ready(agent: Option<&Agent>, destination: &Destination, heard: &Heard) -> Verdict {
    let no =
        |reason: &str, message: String| Verdict::new(kind::READY, Truth::False, reason, message);
    let name = destination.metadata.name.as_deref().unwrap_or_default();
    let Some(agent) = agent else {
        let message =
            format!("there is no Agent {name}: enrol one with: muster agents token create {name}");
        return no("NoAgent", message);
    };
    if agent.spec.revoked {
        return no("AgentRevoked", format!("Agent {name} is revoked (spec.revoked)"));
    }
    let conditions = agent.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let known = conditions::find(conditions, kind::CONNECTED);
    match heard {
        Heard::Connected(_) => {
            Verdict::new(kind::READY, Truth::True, "AgentConnected", "its agent is connected")
        }
        Heard::Nothing if known.is_none_or(|known| known.reason == NEVER_CONNECTED) => {
            no(NEVER_CONNECTED, format!("Agent {name} has not connected yet"))
        }
        Heard::Nothing | Heard::Gone { .. } => {
            no("AgentOffline", format!("Agent {name} is not connected"))
        }
    }
}

/// Whether an object carries the annotation that gives it up.
pub(crate) fn is_abandoned(object: &impl Resource) -> bool {
    let annotations = object.meta().annotations.as_ref();
    annotations.and_then(|all| all.get(labels::ABANDON)).is_some_and(|value| value == "true")
}

async fn read<K: Kept>(api: &Api<K>, name: &str) -> Result<Option<K>, AgentError> {
    api.get_opt(name).await.map_err(|error| failed::<K>(name, "read", error))
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

fn failed<K: Resource<DynamicType = ()>>(
    name: &str,
    action: &'static str,
    source: kube::Error,
) -> AgentError {
    AgentError::Api { object: format!("{} {name}", K::kind(&())), action, source: Box::new(source) }
}
