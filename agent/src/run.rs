//! `muster-agent run`: every part of the agent, built and joined.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use muster_appliers::{Appliers, Options, Policy};
use muster_core::ports::AgentFacts;
use muster_daemon::{OnError, Shutdown, Tasks, log};
use muster_link::{Identity, LinkConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    args::RunArgs,
    content::ContentDir,
    eventloop::{EventLoop, Parts},
    state_dir::{self, StateDir},
};

/// How long actions that were begun may take to end: terraform needs time to save its state.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Runs the agent that has joined with this state directory.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    begin_log()?;
    let state = StateDir::open(args.state_dir.as_deref())?;
    // Before the policy: what is missing in an empty directory is the joining.
    identity(&state)?;
    let policy_file = policy_file(&args, &state);
    let policy = read_policy(&policy_file)?;
    serve(state, policy, policy_file).await
}

pub(crate) fn begin_log() -> anyhow::Result<()> {
    log::init(log::LogFormat::Text, "warn,muster=info")?;
    Ok(())
}

/// Where the policy is.
pub(crate) fn policy_file(args: &RunArgs, state: &StateDir) -> PathBuf {
    args.policy.clone().unwrap_or_else(|| state.path().join("policy.yaml"))
}

/// Reads the policy.
pub(crate) fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the policy file {}", path.display()))?;
    Policy::parse(&text).with_context(|| format!("in {}", path.display()))
}

/// What this agent says of itself.
pub(crate) fn facts(policy: &Policy) -> AgentFacts {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    AgentFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        appliers: policy.appliers(),
        hostname,
        ..AgentFacts::default()
    }
}

/// Runs until SIGINT or SIGTERM, or until the hub says that this agent is removed.
pub(crate) async fn serve(
    state: StateDir,
    policy: Policy,
    policy_file: PathBuf,
) -> anyhow::Result<()> {
    let identity = identity(&state)?;
    let tasks = Tasks::new(CancellationToken::new());
    let _shutdown = Shutdown::on_signals(&tasks)?;
    let destination = identity.name().clone();
    let facts = facts(&policy);
    let content = ContentDir::open(state.path())?;
    let appliers = Appliers::open(Options {
        state_dir: state.path().to_owned(),
        destination: destination.clone(),
        policy,
        policy_file,
        content: Arc::new(content.clone()),
    })
    .await?;
    let assignment = state_dir::assignment(state.path())?;
    let (link, events, running) = muster_link::link(LinkConfig { identity, facts });
    let stop = tasks.shutdown();
    tasks.spawn("link", OnError::Shutdown, async move { Ok(running.run(stop).await?) });
    let parts = Parts { state, content, appliers, link, tasks: tasks.clone() };
    let eventloop = EventLoop::new(destination, assignment, parts);
    let stop = tasks.shutdown();
    tasks.spawn("eventloop", OnError::Shutdown, eventloop.run(events, stop));
    tasks.join(DRAIN_LIMIT).await?;
    Ok(())
}

/// Who this agent is; it must have joined.
fn identity(state: &StateDir) -> anyhow::Result<Identity> {
    Identity::load(state.path())?.with_context(|| {
        format!(
            "no agent has joined with the state directory {}: make a token with muster agents \
             token create NAME, and run the command that it prints",
            state.path().display()
        )
    })
}
