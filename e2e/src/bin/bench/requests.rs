//! How long does a request take, from the API's answer until it is applied and says so, and what
//! does it cost?
//!
//! Its Promise has one pipeline of one process, which writes one Script whose commands do nothing;
//! what is measured is Muster's own way: pipeline, Work, placement, agent, and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
};
use muster_e2e::{Agent, Executor, Hub, HubOptions, manifests::Promise, scratch};
use serde_json::json;

use crate::{
    api::{Sightings, client, holds, object, objects},
    audit::Calls,
    figures::{Figures, Unit},
    machine,
};

/// How many requests are made one after the other.
const RUNS: usize = 21;
/// How many are made at once.
const AT_ONCE: usize = 100;
/// How often that is done.
const ROUNDS: usize = 3;
/// How many are made at once to see that time grows with them and not faster.
const MANY: usize = 1000;
/// How many run again after an edit of their Promise while another Promise's requests are measured.
const FLOATING: usize = 500;
/// How many of another Promise are made meanwhile, one after the other.
const BESIDE: usize = 10;
/// How many of them are on their way to the API at a time, each over a connection of its own.
const CONNECTIONS: usize = 100;
const NOTE: (&str, &str, &str) = ("bench.muster.dev", "Note", "notes");
const MEMO: (&str, &str, &str) = ("bench.muster.dev", "Memo", "memos");

/// Measures, with hubs and a shell agent of its own for each.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    latency(figures).await?;
    many(figures).await?;
    beside(figures).await?;
    cost(figures).await
}

/// A hub with an agent and the Promise of [`NOTE`].
struct Rig {
    hub: Hub,
    agent: Agent,
    client: Client,
    sightings: Sightings,
}

impl Rig {
    async fn start(directory: &Path) -> anyhow::Result<Self> {
        Self::with(directory, Hub::start(directory, Executor::Process)).await
    }

    async fn with(directory: &Path, hub: Hub) -> anyhow::Result<Self> {
        let agent = Agent::join(&hub, directory, "host-1", &["bench=shell"], &["shell"], None);
        let kubectl = hub.kubectl();
        kubectl.apply(&NOTES.yaml());
        kubectl.wait("promise/note", "Available");
        let client = client(hub.kubeconfig()).await?;
        let api = objects(&client, NOTE, Some("default"));
        let mut sightings = Sightings::of(api.clone()).await?;
        // The first one pays for what is started once.
        single(&api, &mut sightings, NOTE.1, "warm-up").await?;
        Ok(Self { hub, agent, client, sightings })
    }

    fn notes(&self) -> Api<DynamicObject> {
        objects(&self.client, NOTE, Some("default"))
    }
}

async fn latency(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let mut rig = Rig::start(scratch.path()).await?;
    let api = rig.notes();
    let mut runs = Vec::new();
    for n in 0..RUNS {
        runs.push(single(&api, &mut rig.sightings, NOTE.1, &format!("single-{n}")).await?);
    }
    figures.add_times("request accepted → applied and reported", Unit::Ms, &runs, "150 ms");

    let (mut first, mut all) = (Vec::new(), Vec::new());
    let (hub, agent) = (rig.hub.process().pid(), rig.agent.process().pid());
    let cpu = || anyhow::Ok(machine::cpu_seconds(hub)? + machine::cpu_seconds(agent)?);
    let before = cpu()?;
    for round in 0..ROUNDS {
        let prefix = format!("crowd-{round}");
        let (one, every) = crowd(&rig.client, &mut rig.sightings, &prefix, AT_ONCE).await?;
        first.push(one);
        all.push(every);
    }
    figures.add_times("100 requests at once: the first", Unit::Ms, &first, "300 ms");
    figures.add_times("100 requests at once: all Reconciled", Unit::Seconds, &all, "3 s");
    let each = (cpu()? - before) * 1000.0 / (AT_ONCE * ROUNDS) as f64;
    figures.add("CPU of hub and agent for each of them", Unit::Ms, vec![each], "");
    let held = RUNS + 1 + AT_ONCE * ROUNDS;
    let mb = |bytes: f64| vec![bytes / 1e6];
    let (hub, agent) = (machine::resident(hub)?, machine::resident(agent)?);
    figures.add(&format!("hub with {held} requests, resident"), Unit::Mb, mb(hub), "");
    figures.add(&format!("agent with {held} placements, resident"), Unit::Mb, mb(agent), "");
    Ok(())
}

/// Ten times as many: the goal is that each costs no more.
async fn many(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let mut rig = Rig::start(scratch.path()).await?;
    let (first, all) = crowd(&rig.client, &mut rig.sightings, "many", MANY).await?;
    figures.add_times("1000 requests at once: the first", Unit::Ms, &[first], "");
    figures.add_times("1000 requests at once: all Reconciled", Unit::Seconds, &[all], "30 s");
    Ok(())
}

/// How long the requests of one Promise take while all those of another run again.
async fn beside(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let mut rig = Rig::start(scratch.path()).await?;
    let kubectl = rig.hub.kubectl();
    kubectl.apply(&Promise { name: "memo", ..NOTES }.yaml());
    kubectl.wait("promise/memo", "Available");
    crowd(&rig.client, &mut rig.sightings, "floating", FLOATING).await?;

    let memos = objects(&rig.client, MEMO, Some("default"));
    let mut seen = Sightings::of(memos.clone()).await?;
    single(&memos, &mut seen, MEMO.1, "warm-up").await?;
    let edited = format!("true\n{}", NOTES.script);
    kubectl.apply(&Promise { script: &edited, ..NOTES }.yaml());
    let edited = Instant::now();
    let (client, sightings) = (&rig.client, &mut rig.sightings);
    let rerun = async {
        let mut left: BTreeSet<_> = (0..FLOATING).map(|n| format!("floating-{n}")).collect();
        let mut began = BTreeSet::new();
        while !left.is_empty() {
            let what = format!("the {} of {FLOATING} requests that run again", left.len());
            let (_, object) = sightings.until(&what, |_| true).await?;
            let name = object.metadata.name.clone().unwrap_or_default();
            if !holds(&object, "Reconciled") {
                began.insert(name);
            } else if began.contains(&name) {
                left.remove(&name);
            }
        }
        anyhow::Ok(edited.elapsed())
    };
    let memos = objects(client, MEMO, Some("default"));
    let others = async {
        let mut runs = Vec::new();
        for n in 0..BESIDE {
            runs.push(single(&memos, &mut seen, MEMO.1, &format!("beside-{n}")).await?);
        }
        anyhow::Ok((runs, edited.elapsed()))
    };
    let (rerun, (runs, until)) = tokio::try_join!(rerun, others)?;
    figures.add_times("500 run again after an edit of their Promise", Unit::Seconds, &[rerun], "");
    figures.add_times("meanwhile, a request of another Promise", Unit::Ms, &runs, "");
    if until > rerun {
        eprintln!("  (the 500 were done before the last of these {BESIDE}: {until:?})");
    }
    Ok(())
}

/// What requests cost: writes by whom, reconciles by which queue; and whether rest costs nothing.
async fn cost(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let queues = "info,muster_control::queue=debug".to_owned();
    let options = HubOptions {
        executor: Executor::Process,
        flags: vec!["--audit-own".to_owned()],
        environment: vec![("MUSTER_LOG".to_owned(), queues)],
    };
    let hub = Hub::start_with(scratch.path(), options);
    let mut rig = Rig::with(scratch.path(), hub).await?;
    let before = reconciles(&rig.hub);
    let begun = Timestamp::now().to_string();
    crowd(&rig.client, &mut rig.sightings, "cost", AT_ONCE).await?;
    let after = reconciles(&rig.hub);
    let calls = Calls::read(&rig.hub.data_dir(), &begun)?;
    let each = |count: usize| vec![count as f64 / AT_ONCE as f64];
    figures.add("API writes by controllers, each request", Unit::Each, each(calls.writes()), "12");
    figures.add("writes of the runner's records", Unit::Each, each(calls.records()), "");
    figures.add("Events written", Unit::Each, each(calls.events()), "");
    figures.add("API reads by all of them", Unit::Each, each(calls.reads()), "");
    eprint!("{}", calls.table(AT_ONCE));
    if calls.lost > 0 {
        eprintln!("  (and {} that the audit log lost)", calls.lost);
    }
    let mut all = 0;
    for (queue, count) in after {
        let count = count - before.get(&queue).copied().unwrap_or(0);
        all += count;
        eprintln!("  reconciles of queue {queue:10} {:6.2}", each(count)[0]);
    }
    figures.add("reconciles, each request", Unit::Each, each(all), "");
    Ok(())
}

/// How often each queue has reconciled, as the hub's log tells.
fn reconciles(hub: &Hub) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in hub.process().log().lines().filter(|line| line.contains("Reconciled")) {
        let queue = line
            .split("queue=")
            .nth(1)
            .and_then(|rest| rest.split(['"', ' ']).find(|it| !it.is_empty()));
        if let Some(queue) = queue {
            *counts.entry(queue.to_owned()).or_default() += 1;
        }
    }
    counts
}

async fn single(
    api: &Api<DynamicObject>,
    sightings: &mut Sightings,
    kind: &str,
    name: &str,
) -> anyhow::Result<Duration> {
    create(api, kind, name).await?;
    let accepted = Instant::now();
    let reconciled = |seen: &DynamicObject| {
        seen.metadata.name.as_deref() == Some(name) && holds(seen, "Reconciled")
    };
    let (seen, _) = sightings.until(&format!("request {name} Reconciled"), reconciled).await?;
    Ok(seen.saturating_duration_since(accepted))
}

/// From before the first is sent until the first, and until all are Reconciled.
async fn crowd(
    client: &Client,
    sightings: &mut Sightings,
    prefix: &str,
    many: usize,
) -> anyhow::Result<(Duration, Duration)> {
    let api = objects(client, NOTE, Some("default"));
    let names: Vec<_> = (0..many).map(|n| format!("{prefix}-{n}")).collect();
    let mut left: BTreeSet<String> = names.iter().cloned().collect();
    let begun = Instant::now();
    let creating = stream::iter(&names)
        .map(|name| create(&api, NOTE.1, name))
        .buffer_unordered(CONNECTIONS)
        .try_collect::<Vec<_>>();
    let seeing = async {
        let (mut first, mut last) = (None, begun);
        while !left.is_empty() {
            let what = format!("the {} of {many} requests that are left", left.len());
            let (seen, object) = sightings.until(&what, |seen| holds(seen, "Reconciled")).await?;
            if left.remove(object.metadata.name.as_deref().unwrap_or_default()) {
                first.get_or_insert(seen);
                last = seen;
            }
        }
        anyhow::Ok((first.unwrap_or(last), last))
    };
    let (_, (first, last)) = tokio::try_join!(creating, seeing)?;
    Ok((first - begun, last - begun))
}

async fn create(api: &Api<DynamicObject>, kind: &str, name: &str) -> anyhow::Result<()> {
    let request = object(json!({
        "apiVersion": "bench.muster.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"text": format!("This is {name}")},
    }))?;
    api.create(&PostParams::default(), &request).await?;
    Ok(())
}

/// Each request's files differ, so that no digest is met again.
const NOTES: Promise<'_> = Promise {
    name: "note",
    group: NOTE.0,
    platform: "bench: shell",
    fields: &[("text", "{type: string}")],
    dependencies: "",
    script: r#"
echo "$text" > note.txt
cat > note.yaml <<END
apiVersion: fleet.muster.dev/v1alpha1
kind: Script
metadata: {name: note}
spec:
  apply: {command: ["true"]}
  remove: {command: ["true"]}
END
"#,
    once: false,
};
