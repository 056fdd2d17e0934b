//! `muster agents`: enrol, list, remove.
//!
//! A token is made here and only its digest reaches the API, so whoever can read the hub's Secrets
//! still cannot enrol.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use aws_lc_rs::rand;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use muster_api::{
    Agent, Destination, SYSTEM_NAMESPACE, WorkPlacement, conditions, enrolment, labels,
};
use muster_core::{DestinationName, Digest};
use serde_json::json;

use crate::{
    args::{
        AgentsArgs, AgentsCommand, ApplierArg, ClientArgs, RemoveArgs, TokenArgs, TokenCommand,
    },
    client,
    commands::get,
};

/// Bytes of randomness in a token: beyond guessing for as long as it lives.
const TOKEN_BYTES: usize = 32;
/// Longest life of a token: it is for now, not for an image.
const TTL_MAX: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How often a removal looks again.
const REMOVAL_POLL: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: AgentsArgs, client: &ClientArgs) -> anyhow::Result<()> {
    if matches!(args.command, AgentsCommand::List) {
        let empty = "No agents: muster agents token create NAME prints the command that adds one.";
        return get::table(client, "agents.fleet.muster.dev", empty).await;
    }
    let api = client::connect(client).await?;
    match args.command {
        AgentsCommand::List => Ok(()),
        AgentsCommand::Token(TokenCommand::Create(args)) => create_token(api, args).await,
        AgentsCommand::Remove(args) => remove(api, args).await,
    }
}

/// Makes a token and prints the command that joins the agent, ready for a shell.
async fn create_token(api: Client, args: TokenArgs) -> anyhow::Result<()> {
    let name = DestinationName::parse(&args.name)?;
    let labels = parse_labels(&args.labels)?;
    let ttl: SignedDuration =
        args.ttl.parse().with_context(|| format!("--ttl {:?} is not a duration", args.ttl))?;
    if ttl <= SignedDuration::ZERO || ttl > TTL_MAX {
        bail!("--ttl {}: use more than nothing and at most 7 days", args.ttl);
    }
    refuse_known_agent(&api, &name).await?;
    let door = door(&api).await?;

    let mut random = [0; TOKEN_BYTES];
    rand::fill(&mut random).context("this host gives no randomness")?;
    let secret = BASE64_URL_SAFE_NO_PAD.encode(random);
    let suffix = Digest::of(secret.as_bytes()).short()[..5].to_owned();
    let token = enrolment::token(&name, &suffix, &secret);
    let expires = Timestamp::now().checked_add(ttl)?.round(Unit::Second)?;
    let object = enrolment::secret(&name, &suffix, Digest::of(token.as_bytes()), &labels, expires);
    Api::<Secret>::namespaced(api, SYSTEM_NAMESPACE)
        .create(&PostParams::default(), &object)
        .await
        .context("the hub did not take the token")?;

    eprintln!("# Run this on the host of agent {name}, before {expires}; the token works once:");
    println!("{}", join_command(&door, &args.appliers, &token));
    Ok(())
}

fn parse_labels(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("--label {text:?}: write it as KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    pairs.iter().map(pair).collect()
}

async fn refuse_known_agent(api: &Client, name: &DestinationName) -> anyhow::Result<()> {
    if let Some(agent) = Api::<Agent>::all(api.clone()).get_opt(name.as_str()).await? {
        let status = agent.status.unwrap_or_default();
        if agent.spec.revoked
            || conditions::is_true(&status.conditions, conditions::kind::CONNECTED)
        {
            bail!(
                "agent {name} is enrolled already: choose another name, or remove it first with: \
                 muster agents remove {name}"
            );
        }
        // Its certificate may have expired, or its host may have been made anew.
        eprintln!(
            "# Agent {name} exists and is not connected: who uses this token takes its place."
        );
        return Ok(());
    }
    if Api::<Destination>::all(api.clone()).get_opt(name.as_str()).await?.is_some() {
        bail!("destination {name} exists and has no agent: choose another name, or delete it");
    }
    Ok(())
}

/// What the hub publishes about the agents' door.
async fn door(api: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let door = Api::<ConfigMap>::namespaced(api.clone(), SYSTEM_NAMESPACE)
        .get_opt(enrolment::DOOR)
        .await?
        .and_then(|map| map.data);
    door.context("this API has no agents' door: is a Muster hub running on it?")
}

fn join_command(door: &BTreeMap<String, String>, appliers: &[ApplierArg], token: &str) -> String {
    let of = |key: &str| door.get(key).map_or("", String::as_str);
    let appliers: Vec<_> = appliers.iter().map(|applier| applier.name()).collect();
    format!(
        "muster-agent join --hub {} --ca-pin {} --appliers {} --token-file - <<'END'\n{token}\nEND",
        of(enrolment::DOOR_ADDRESS),
        of(enrolment::DOOR_CA_PIN),
        appliers.join(","),
    )
}

/// Removes an agent: after its placements, or giving them up.
async fn remove(api: Client, args: RemoveArgs) -> anyhow::Result<()> {
    let agents = Api::<Agent>::all(api.clone());
    let name = &args.name;
    if agents.get_opt(name).await?.is_none() {
        bail!("there is no agent {name}: muster agents list");
    }
    if args.abandon {
        for left in left_behind(&api, name).await? {
            println!("stays behind on {name}: {left}");
        }
        let abandon = json!({"metadata": {"annotations": {labels::ABANDON: "true"}}});
        agents.patch(name, &PatchParams::default(), &Patch::Merge(abandon)).await?;
    }
    agents.delete(name, &DeleteParams::default()).await?;
    let mut told = None;
    while let Some(agent) = agents.get_opt(name).await? {
        let waiting = muster_api::conditions::find(
            &agent.status.unwrap_or_default().conditions,
            muster_api::conditions::kind::REMOVED,
        )
        .map(|condition| condition.message.clone());
        if waiting.is_some() && waiting != told {
            eprintln!("waiting: {}", waiting.clone().unwrap_or_default());
            told = waiting;
        }
        tokio::time::sleep(REMOVAL_POLL).await;
    }
    println!("agent {name} removed");
    Ok(())
}

/// What the agent was last known to hold, one line for each placement.
async fn left_behind(api: &Client, name: &str) -> anyhow::Result<Vec<String>> {
    let selector = format!("{}={name}", labels::TARGET_DESTINATION);
    let placements = Api::<WorkPlacement>::all(api.clone())
        .list(&ListParams::default().labels(&selector))
        .await?;
    Ok(muster_plan::explain::left_behind(&placements.items))
}

impl ApplierArg {
    fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Terraform => "terraform",
            Self::Shell => "shell",
        }
    }
}
