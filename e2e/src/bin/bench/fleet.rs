//! What do 500 connected agents with nothing to do cost the hub?
//!
//! The agents are their real links, all in one process (`idle-agents` of muster-tests), enrolled
//! with tokens that the `muster` command made.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use muster_e2e::{Executor, Hub, Process, program, scratch};
use tokio::time::sleep;

use crate::{
    figures::{Figures, Unit},
    machine,
};

/// How many agents.
const AGENTS: usize = 500;
/// How many tokens are made at once: each is a process.
const TOKENS_AT_ONCE: usize = 4;
/// How long the hub is left alone after the last agent has connected.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the hub's CPU is watched: one pulse of each agent.
const WATCH: Duration = Duration::from_secs(30);

/// What joins an agent.
struct Invitation {
    hub: String,
    pin: String,
    token: String,
}

/// Measures, with a hub and agents of its own.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let hub = Hub::start(scratch.path(), Executor::Process);
    let pid = hub.process().pid();
    sleep(SETTLE).await;
    let before = (machine::resident(pid)?, machine::anonymous(pid)?);

    eprintln!("making {AGENTS} tokens");
    let invitations: Vec<Invitation> = stream::iter(0..AGENTS)
        .map(|n| tokio::task::spawn_blocking(invitation(&hub, n)))
        .buffer_unordered(TOKENS_AT_ONCE)
        .map(|made| made?)
        .try_collect()
        .await?;
    let tokens: Vec<_> = invitations.iter().map(|i| i.token.as_str()).collect();
    let Invitation { hub: door, pin, .. } = invitations.first().context("no agents")?;
    fs::write(scratch.path().join("tokens"), tokens.join("\n"))?;

    eprintln!("joining {AGENTS} agents");
    let begun = Instant::now();
    let mut command = Command::new(program("idle-agents"));
    command.args(["join", door, pin]).arg(scratch.path()).stdout(Stdio::piped());
    let mut agents = Process::start(&mut command, &scratch.path().join("idle-agents.log"));
    agents.first_line();
    let joined = begun.elapsed();
    sleep(SETTLE).await;

    let each = |before: f64, now: f64| vec![(now - before) / 1e3 / AGENTS as f64];
    let memory = each(before.0, machine::resident(pid)?);
    figures.add("500 idle agents: hub's memory for each", Unit::Kb, memory, "60 kB");
    let memory = each(before.1, machine::anonymous(pid)?);
    figures.add("500 idle agents: of that not the program's file", Unit::Kb, memory, "");
    let (used, begun) = (machine::cpu_seconds(pid)?, Instant::now());
    sleep(WATCH).await;
    let used = machine::cpu_seconds(pid)? - used;
    let busy = vec![100.0 * used / begun.elapsed().as_secs_f64()];
    figures.add("500 idle agents: hub's CPU, of one core", Unit::Percent, busy, "");
    figures.add_times("500 agents: all joined and connected", Unit::Seconds, &[joined], "");
    ensure!(agents.is_running(), "the agents ended early:\n{}", agents.log());
    Ok(())
}

/// Has the `muster` command make a token, and reads what it printed for a shell.
fn invitation(hub: &Hub, n: usize) -> impl FnOnce() -> anyhow::Result<Invitation> + use<> {
    let mut command = hub.muster(&["agents", "token", "create", &format!("idle-{n}")]);
    move || {
        let output = command.output()?;
        let printed = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut words = printed.split_whitespace();
        let mut after =
            |flag: &str| words.find(|word| *word == flag).and(words.next()).map(str::to_owned);
        let (hub, pin) = (after("--hub"), after("--ca-pin"));
        let token = printed.lines().nth(1).map(str::to_owned);
        let all = hub.zip(pin).zip(token).map(|((hub, pin), token)| Invitation { hub, pin, token });
        all.with_context(|| format!("no invitation in {printed:?}"))
    }
}
