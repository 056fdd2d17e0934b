//! What do hub and agent cost while nothing happens, and how soon are they there?

use std::time::{Duration, Instant};

use kube::api::DynamicObject;
use muster_e2e::{Agent, Executor, Hub, scratch};
use tokio::time::sleep;

use crate::{
    api::{Sightings, client, holds, objects},
    figures::{Figures, Unit},
    machine,
};

/// How often each start is measured.
const RUNS: usize = 7;
/// How long a started program is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures, with hubs and an agent of its own.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let mut fresh = Vec::new();
    for _ in 0..RUNS {
        let scratch = scratch();
        let begun = Instant::now();
        let hub = Hub::start(scratch.path(), Executor::Process);
        fresh.push(begun.elapsed());
        drop(hub);
    }
    figures.add_times("hub start, new data directory → ready", Unit::Ms, &fresh, "");

    let scratch = scratch();
    let mut hub = Hub::start(scratch.path(), Executor::Process);
    let mut again = Vec::new();
    let mut memory = Memory::default();
    for _ in 0..RUNS {
        hub.stop();
        let begun = Instant::now();
        hub.restart();
        again.push(begun.elapsed());
        sleep(SETTLE).await;
        memory.read(hub.process().pid())?;
    }
    figures.add_times("hub start, its data directory → ready", Unit::Ms, &again, "");
    memory.tell(figures, "hub, idle", "40 MB");

    let mut agent = Agent::join(&hub, scratch.path(), "host-1", &["bench=shell"], &["shell"], None);
    let (starts, memory) = agent_starts(&hub, &mut agent).await?;
    figures.add_times("agent start → connected, as the API says", Unit::Ms, &starts, "");
    memory.tell(figures, "agent, idle", "12 MB");
    Ok(())
}

async fn agent_starts(hub: &Hub, agent: &mut Agent) -> anyhow::Result<(Vec<Duration>, Memory)> {
    let client = client(hub.kubeconfig()).await?;
    let agents = objects(&client, ("fleet.muster.dev", "Agent", "agents"), None);
    let mut sightings = Sightings::of(agents).await?;
    let connected = |agent: &DynamicObject| holds(agent, "Connected");
    let mut starts = Vec::new();
    let mut memory = Memory::default();
    for _ in 0..RUNS {
        agent.crash();
        sightings.until("the agent gone", |agent| !connected(agent)).await?;
        let begun = Instant::now();
        agent.restart();
        let (seen, _) = sightings.until("the agent connected", connected).await?;
        starts.push(seen - begun);
        sleep(SETTLE).await;
        memory.read(agent.process().pid())?;
    }
    Ok((starts, memory))
}

/// Readings of a program's memory.
#[derive(Debug, Default)]
struct Memory {
    resident: Vec<f64>,
    anonymous: Vec<f64>,
}

impl Memory {
    fn read(&mut self, pid: u32) -> anyhow::Result<()> {
        self.resident.push(machine::resident(pid)? / 1e6);
        self.anonymous.push(machine::anonymous(pid)? / 1e6);
        Ok(())
    }

    fn tell(self, figures: &mut Figures, what: &str, goal: &'static str) {
        figures.add(&format!("{what}: resident"), Unit::Mb, self.resident, goal);
        figures.add(
            &format!("{what}: of that not the program's file"),
            Unit::Mb,
            self.anonymous,
            "",
        );
    }
}
