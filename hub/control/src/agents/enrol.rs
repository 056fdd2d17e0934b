//! Tokens → agents: who may become one, and who still is.

use std::collections::BTreeMap;

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use muster_api::{
    Agent, AgentSpec, AgentStatus, Destination, DestinationSpec, SYSTEM_NAMESPACE,
    enrolment::{TOKEN_DIGEST, TOKEN_EXPIRES, TOKEN_KEY, TOKEN_LABELS, TOKEN_TYPE, secret_name},
    labels::{self, finalizer},
};
use muster_core::{
    DestinationName, Digest,
    ports::{AgentFacts, Enrolments, PortError},
};
use muster_daemon::Clock;
use serde_json::json;

use super::{is_gone, update_status};

/// Longest name of an agent: it is the value of a label on each of its placements.
const NAME_LEN_MAX: usize = 63;

/// Lets agents in; clones share the client.
#[derive(Clone)]
pub(crate) struct Enrolling {
    pub client: Client,
    pub clock: Clock,
}

/// A token's Secret, read.
struct Token {
    secret: Secret,
    agent: DestinationName,
    labels: BTreeMap<String, String>,
    expires: Timestamp,
    /// The first key that used it.
    key: Option<Digest>,
}

impl Enrolments for Enrolling {
    fn redeem(
        &self,
        token: &str,
        public_key: Digest,
        facts: AgentFacts,
    ) -> BoxFuture<'_, Result<DestinationName, PortError>> {
        let text = token.trim().to_owned();
        async move {
            let token = self.token(&text).await?;
            let first = self.bind(&token, public_key).await?;
            self.make_agent(&token, public_key, first, &facts).await?;
            self.make_destination(&token, first).await?;
            tracing::info!(agent = %token.agent, host = facts.hostname, "agent enrolled");
            Ok(token.agent)
        }
        .boxed()
    }

    fn admit(
        &self,
        agent: &DestinationName,
        public_key: Digest,
    ) -> BoxFuture<'_, Result<(), PortError>> {
        let name = agent.clone();
        async move {
            let agents: Api<Agent> = Api::all(self.client.clone());
            let held = agents.get_opt(name.as_str()).await.map_err(unavailable)?;
            let held = held.ok_or_else(|| {
                refused(format!(
                    "agent {name} is not known: it was removed, and what it has applied stays; to \
                     come back, join again with a new token (muster agents token create {name})"
                ))
            })?;
            if held.spec.revoked {
                return Err(refused(format!(
                    "agent {name} is revoked: ask whoever runs the hub (kubectl get magent {name})"
                )));
            }
            if held.spec.public_key != public_key.to_string() {
                return Err(refused(format!(
                    "agent {name} is enrolled with another key: enrol this host anew with a token \
                     of its own (muster agents token create NAME)"
                )));
            }
            Ok(())
        }
        .boxed()
    }

    fn issued(
        &self,
        agent: &DestinationName,
        not_after: i64,
    ) -> BoxFuture<'_, Result<(), PortError>> {
        let name = agent.clone();
        async move {
            let not_after = Timestamp::from_second(not_after)
                .map_err(|error| refused(format!("end of the certificate of {name}: {error}")))?;
            let agents: Api<Agent> = Api::all(self.client.clone());
            let patch = json!({"status": {"certificateNotAfter": not_after.to_string()}});
            let patch = Patch::Merge(patch);
            let patched = agents.patch_status(name.as_str(), &PatchParams::default(), &patch).await;
            patched.map(drop).map_err(unavailable)
        }
        .boxed()
    }
}

impl Enrolling {
    /// Reads the Secret that a token's text points to, and refuses what may not be used.
    async fn token(&self, text: &str) -> Result<Token, PortError> {
        let new = "ask for a new one: muster agents token create NAME";
        // One answer for all that is wrong with the text: which part is, is nobody's business.
        let wrong = || refused(format!("the token is not one of this hub's: {new}"));
        let name = secret_name(text).ok_or_else(wrong)?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let secret = secrets.get_opt(&name).await.map_err(unavailable)?.ok_or_else(wrong)?;
        if secret.type_.as_deref() != Some(TOKEN_TYPE) {
            return Err(wrong());
        }
        let field = |key: &str| {
            let bytes = secret.data.as_ref()?.get(key)?;
            Some(String::from_utf8_lossy(&bytes.0).trim().to_owned())
        };
        let digest: Digest =
            field(TOKEN_DIGEST).and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        // Digests of equal length are compared: how long that takes says nothing of the text.
        if digest != Digest::of(text.as_bytes()) {
            return Err(wrong());
        }
        let broken = |field: &str| {
            refused(format!("Secret {SYSTEM_NAMESPACE}/{name}: {field} is not readable: {new}"))
        };
        let all = secret.metadata.labels.clone().unwrap_or_default();
        let agent = all.get(labels::AGENT).map(|name| DestinationName::parse(name));
        let agent = agent.and_then(Result::ok).ok_or_else(|| broken(labels::AGENT))?;
        let expires: Timestamp = field(TOKEN_EXPIRES)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| broken(TOKEN_EXPIRES))?;
        if expires <= self.clock.now() {
            return Err(refused(format!("the token for {agent} expired at {expires}: {new}")));
        }
        let labels = field(TOKEN_LABELS).map(|text| serde_json::from_str(&text));
        let labels = labels.transpose().map_err(|_| broken(TOKEN_LABELS))?.unwrap_or_default();
        let key = field(TOKEN_KEY).map(|text| text.parse()).transpose();
        let key = key.map_err(|_| broken(TOKEN_KEY))?;
        if agent.as_str().len() > NAME_LEN_MAX {
            return Err(refused(format!(
                "{agent} is longer than {NAME_LEN_MAX} characters, which an agent's name may have"
            )));
        }
        Ok(Token { secret, agent, labels, expires, key })
    }

    /// Binds a token to the first key that uses it; says whether this was the first use.
    async fn bind(&self, token: &Token, public_key: Digest) -> Result<bool, PortError> {
        let used = || {
            refused(format!(
                "the token for {} was used by another host already: ask for a new one: \
                 muster agents token create NAME (it would have expired at {})",
                token.agent, token.expires
            ))
        };
        match token.key {
            Some(key) if key == public_key => return Ok(false),
            Some(_) => return Err(used()),
            None => {}
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let mut secret = token.secret.clone();
        let text = k8s_openapi::ByteString(public_key.to_string().into_bytes());
        secret.data.get_or_insert_default().insert(TOKEN_KEY.to_owned(), text);
        let name = secret.metadata.name.clone().unwrap_or_default();
        // Compare and swap: the resource version is the one that was read.
        match secrets.replace(&name, &PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                let message = "the token is being used by another host at this moment".to_owned();
                Err(PortError::Unavailable(message))
            }
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn make_agent(
        &self,
        token: &Token,
        public_key: Digest,
        first: bool,
        facts: &AgentFacts,
    ) -> Result<(), PortError> {
        let agents: Api<Agent> = Api::all(self.client.clone());
        let name = token.agent.as_str();
        let key = public_key.to_string();
        let agent = match agents.get_opt(name).await.map_err(unavailable)? {
            None => {
                let mut agent = Agent::new(name, AgentSpec { public_key: key, revoked: false });
                agent.metadata.finalizers = Some(vec![finalizer::AGENT_CLEANUP.to_owned()]);
                agents.create(&PostParams::default(), &agent).await.map_err(unavailable)?
            }
            Some(agent) if agent.metadata.deletion_timestamp.is_some() => {
                return Err(refused(format!(
                    "agent {name} is being removed: wait until it is gone, or give it up with: \
                     muster agents remove {name} --abandon"
                )));
            }
            Some(agent) if agent.spec.revoked => {
                return Err(refused(format!(
                    "agent {name} is revoked: remove it first (muster agents remove {name})"
                )));
            }
            Some(agent) if agent.spec.public_key == key => agent,
            // A new token for a name that has an agent: its host was made anew.
            Some(mut agent) if first => {
                agent.spec.public_key = key;
                agents.replace(name, &PostParams::default(), &agent).await.map_err(unavailable)?
            }
            Some(_) => {
                return Err(refused(format!(
                    "agent {name} has been enrolled again with another key since: ask for a new \
                     token: muster agents token create {name}"
                )));
            }
        };
        let appliers: Vec<_> = facts.appliers.iter().map(String::as_str).collect();
        let written = update_status(&agents, &agent, |status: &mut AgentStatus| {
            status.version = Some(facts.version.clone());
            status.appliers = Some(appliers.join(","));
            status.hostname = Some(facts.hostname.clone());
        });
        written.await.map_err(|error| PortError::Unavailable(error.to_string()))
    }

    /// The labels are the token's, decided on the hub; an agent cannot claim any.
    async fn make_destination(&self, token: &Token, first: bool) -> Result<(), PortError> {
        let destinations: Api<Destination> = Api::all(self.client.clone());
        let name = token.agent.as_str();
        let held = destinations.get_opt(name).await.map_err(unavailable)?;
        let Some(held) = held else {
            let mut destination = Destination::new(name, DestinationSpec::default());
            let mut all = token.labels.clone();
            all.insert(labels::AGENT.to_owned(), name.to_owned());
            destination.metadata.labels = Some(all);
            destination.metadata.finalizers = Some(vec![finalizer::DESTINATION_CLEANUP.to_owned()]);
            let made = destinations.create(&PostParams::default(), &destination).await;
            return made.map(drop).map_err(unavailable);
        };
        if held.spec.state_store_ref.is_some() {
            return Err(refused(format!(
                "Destination {name} is fed by a state store (spec.stateStoreRef): give the agent \
                 another name"
            )));
        }
        if !first {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": token.labels}}));
        match destinations.patch(name, &PatchParams::default(), &patch).await {
            Err(error) if !is_gone(&error) => Err(unavailable(error)),
            _ => Ok(()),
        }
    }
}

fn refused(message: String) -> PortError {
    PortError::Refused(message)
}

/// Errors of the API are for the log; an agent is told to try again, unless the API said no.
fn unavailable(error: kube::Error) -> PortError {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            PortError::Refused(format!("the hub's API refuses: {}", status.message))
        }
        error => {
            tracing::warn!(%error, "enrolment could not be done");
            PortError::Unavailable("the hub's API does not answer: try again".to_owned())
        }
    }
}
