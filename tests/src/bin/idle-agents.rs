//! What quiet agents cost: memory and CPU of the gateway for each connected idle agent.
//!
//! `cargo run -p muster-tests --bin idle-agents -- 500` runs a gateway with an empty hub behind it,
//! and the agents' links in a second process, all over TLS on loopback. That process alone,
//! `idle-agents join HUB CA-PIN DIR`, is the fleet of `make bench` for a whole hub.

use std::{
    collections::BTreeMap,
    env, fs,
    io::BufRead as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryStreamExt, future::BoxFuture, future::ready, stream::BoxStream,
};
use muster_core::{
    Assignment, DestinationName, Digest, PlacementReport, Revision,
    ports::{AgentFacts, AssignmentSource, Enrolments, PortError, Presence, ReportSink},
};
use muster_gateway::{Gateway, GatewayConfig, PULSE, Ports};
use muster_link::{EnrolOptions, LinkConfig, LinkEvent, LinkHandle, enrol, link};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long the CPU of an idle fleet is watched: two pulses of each agent.
const WATCH: Duration = Duration::from_secs(60);
/// How many agents join at once.
const JOINING: usize = 16;
/// The file of the tokens, one on a line.
const TOKENS: &str = "tokens";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [count] => gateway(count.parse().context("how many agents?")?).await,
        [join, hub, pin, dir] if join == "join" => agents(hub, pin, dir.as_ref()).await,
        _ => anyhow::bail!("idle-agents COUNT | idle-agents join HUB CA-PIN DIR"),
    }
}

async fn gateway(count: usize) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = GatewayConfig {
        data_dir: dir.path().to_owned(),
        listen: "127.0.0.1:0".parse()?,
        advertise: Vec::new(),
        pulse: PULSE,
    };
    let empty = Arc::new(Empty);
    let ports = Ports {
        assignments: empty.clone(),
        reports: empty.clone(),
        enrolments: empty.clone(),
        presence: empty,
    };
    let gateway = Gateway::build(config, ports).await?;
    let (hub, pin) = (gateway.address(), gateway.ca_pin().to_string());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(gateway.run(stop.clone()));
    let before = resident()?;
    let begun = Instant::now();
    let named: Vec<_> = (0..count).map(|n| format!("agent-{n}")).collect();
    fs::write(dir.path().join(TOKENS), named.join("\n"))?;
    let mut fleet = Command::new(env::current_exe()?)
        .args(["join", &hub, &pin])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let told = fleet.stdout.take().context("no output")?;
    let line = tokio::task::spawn_blocking(move || std::io::BufReader::new(told).lines().next());
    line.await?.context("the agents ended")??;
    let joined = begun.elapsed();
    let (memory, cpu) = (resident()?, processor()?);
    tokio::time::sleep(WATCH).await;
    let busy = processor()? - cpu;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("build profile                {profile}");
    println!("agents                       {count}, joined and connected in {joined:.1?}");
    println!("gateway, before              {} kB resident", before / 1024);
    let each = memory.saturating_sub(before) / 1024 / count.max(1) as u64;
    println!("gateway, for each agent      {each} kB resident");
    println!(
        "gateway, idle fleet          {:.2} % of one core",
        100.0 * busy / WATCH.as_secs_f64()
    );
    fleet.kill()?;
    fleet.wait()?;
    stop.cancel();
    serving.await??;
    Ok(())
}

/// The fleet's process: joins an agent with each line of a file in a directory, which keeps their
/// identities; says one line when all are connected, and keeps them so until it is killed.
async fn agents(hub: &str, pin: &str, dir: &Path) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let tokens = fs::read_to_string(dir.join(TOKENS))?;
    let joining = tokens.lines().enumerate().map(|(n, token)| {
        let options = EnrolOptions {
            hub: hub.to_owned(),
            ca_pin: pin.to_owned(),
            token: token.to_owned(),
            state_dir: dir.join(n.to_string()),
            facts: AgentFacts::default(),
        };
        join(options, stop.clone())
    });
    let links: Vec<_> =
        futures::stream::iter(joining).buffer_unordered(JOINING).try_collect().await?;
    println!("connected");
    stop.cancelled().await;
    drop(links);
    Ok(())
}

async fn join(
    options: EnrolOptions,
    stop: CancellationToken,
) -> anyhow::Result<(LinkHandle, mpsc::Receiver<LinkEvent>)> {
    let identity = enrol(options).await?;
    let (handle, mut events, run) = link(LinkConfig { identity, facts: AgentFacts::default() });
    tokio::spawn(run.run(stop));
    loop {
        match events.recv().await.context("a link ended")? {
            LinkEvent::Assigned(assignment) => {
                handle.holding(&assignment);
                return Ok((handle, events));
            }
            LinkEvent::Refused { cause, .. } => anyhow::bail!(cause),
            _ => {}
        }
    }
}

/// Resident memory of this process in bytes.
fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// CPU time of this process in seconds; a tick is 10 ms on Linux.
fn processor() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> =
        stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

/// A hub that gives every token's text as a name, and nothing to do.
struct Empty;

impl AssignmentSource for Empty {
    fn subscribe(&self, agent: &DestinationName) -> BoxStream<'static, Arc<Assignment>> {
        let revision = Revision { epoch: 1, n: 1 };
        let assignment =
            Assignment { destination: agent.clone(), revision, orders: BTreeMap::new() };
        futures::stream::once(ready(Arc::new(assignment))).chain(futures::stream::pending()).boxed()
    }

    fn raise_epoch(&self, _: Revision) -> BoxFuture<'_, Result<(), PortError>> {
        ready(Ok(())).boxed()
    }

    fn content(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, PortError>> {
        ready(Err(PortError::NotFound(digest.short()))).boxed()
    }
}

impl ReportSink for Empty {
    fn accept(&self, _: &DestinationName, _: Vec<PlacementReport>) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

impl Enrolments for Empty {
    fn redeem(
        &self,
        token: &str,
        _: Digest,
        _: AgentFacts,
    ) -> BoxFuture<'_, Result<DestinationName, PortError>> {
        let name = DestinationName::parse(token);
        ready(name.map_err(|error| PortError::Refused(error.to_string()))).boxed()
    }

    fn admit(&self, _: &DestinationName, _: Digest) -> BoxFuture<'_, Result<(), PortError>> {
        ready(Ok(())).boxed()
    }

    fn issued(&self, _: &DestinationName, _: i64) -> BoxFuture<'_, Result<(), PortError>> {
        ready(Ok(())).boxed()
    }
}

impl Presence for Empty {
    fn connected(&self, _: &DestinationName, _: u64, _: AgentFacts) {}
    fn disconnected(&self, _: &DestinationName, _: u64) {}
}
