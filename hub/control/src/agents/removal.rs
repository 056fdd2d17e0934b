//! How an Agent, or a Destination, goes: first what it holds, then its Destination, then itself.

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use muster_api::{
    Agent, AgentStatus, Destination, WorkPlacement,
    conditions::{self, Truth, Verdict, kind},
    labels::{self, finalizer},
};
use muster_plan::{explain, rollup, site};
use serde_json::json;

use super::{AgentError, AgentKeeper, failed, is_abandoned, is_gone, let_go, update_status};

impl AgentKeeper {
    /// Goes one step further with what is being removed.
    pub(super) async fn remove(
        &self,
        agent: Option<&Agent>,
        destination: Option<&Destination>,
    ) -> Result<(), AgentError> {
        let agents: Api<Agent> = Api::all(self.client.clone());
        let destinations: Api<Destination> = Api::all(self.client.clone());
        let leaving_agent = agent.filter(|agent| agent.metadata.deletion_timestamp.is_some());
        let Some(destination) = destination else {
            return match leaving_agent {
                Some(agent) => let_go(&agents, agent, finalizer::AGENT_CLEANUP).await,
                None => Ok(()),
            };
        };
        let leaving = destination.metadata.deletion_timestamp.is_some();
        if leaving_agent.is_none() && !leaving {
            return Ok(());
        }
        let name = destination.metadata.name.as_deref().unwrap_or_default();
        if !leaving {
            // Nothing new is placed there from now on; its own event leads back here.
            return match destinations.delete(name, &DeleteParams::default()).await {
                Err(error) if !is_gone(&error) => {
                    Err(failed::<Destination>(name, "deleted", error))
                }
                _ => Ok(()),
            };
        }
        let abandoned = is_abandoned(destination) || agent.is_some_and(is_abandoned);
        let held = self.empty(name, abandoned || agent.is_none()).await?;
        if held.is_empty() {
            return let_go(&destinations, destination, finalizer::DESTINATION_CLEANUP).await;
        }
        if let Some(agent) = leaving_agent {
            let verdict = waits_for(destination, &held, abandoned);
            update_status(&agents, agent, |status: &mut AgentStatus| {
                conditions::set(&mut status.conditions, &verdict, None, self.clock.now());
            })
            .await?;
        }
        Ok(())
    }

    /// Deletes what a destination holds; `give_up` does not wait for its agent. Returns what it held
    /// when asked: its own events lead back here.
    async fn empty(&self, name: &str, give_up: bool) -> Result<Vec<WorkPlacement>, AgentError> {
        let all: Api<WorkPlacement> = Api::all(self.client.clone());
        let own = ListParams::default().labels(&format!("{}={name}", labels::TARGET_DESTINATION));
        let held = all.list(&own).await;
        let held = held.map_err(|error| failed::<WorkPlacement>(name, "listed", error))?.items;
        for placement in &held {
            let namespace = placement.metadata.namespace.as_deref().unwrap_or_default();
            let api: Api<WorkPlacement> = Api::namespaced(self.client.clone(), namespace);
            let name = placement.metadata.name.as_deref().unwrap_or_default();
            let done = |result: Result<(), kube::Error>| match result {
                Err(error) if !is_gone(&error) => {
                    Err(failed::<WorkPlacement>(name, "removed", error))
                }
                _ => Ok(()),
            };
            if placement.metadata.deletion_timestamp.is_none() {
                done(api.delete(name, &DeleteParams::default()).await.map(drop))?;
            }
            if give_up {
                let left = explain::left_behind(std::slice::from_ref(placement)).join("; ");
                tracing::warn!(placement = name, left, "placement is given up");
                let mut kept = placement.metadata.finalizers.clone().unwrap_or_default();
                kept.retain(|held| held != finalizer::PLACEMENT_CLEANUP);
                let uid = &placement.metadata.uid;
                let patch = json!({"metadata": {"finalizers": kept, "uid": uid}});
                let patch = Patch::Merge(patch);
                done(api.patch(name, &PatchParams::default(), &patch).await.map(drop))?;
            }
        }
        Ok(held)
    }
}

/// What a removal waits for.
fn waits_for(destination: &Destination, held: &[WorkPlacement], abandoned: bool) -> Verdict {
    let no =
        |reason: &str, message: String| Verdict::new(kind::REMOVED, Truth::False, reason, message);
    if abandoned {
        let left = explain::left_behind(held).join("; ");
        return no("Abandoned", format!("given up; left behind: {left}"));
    }
    let sites = site::sites([destination]);
    match rollup::removal(held, &sites) {
        Some(waiting) => {
            let message = format!("{} placements to go: {}", held.len(), waiting.message());
            no(waiting.reason(), message)
        }
        None => no("Removing", "its destination is being removed".to_owned()),
    }
}
