//! How long does a request take, from the API's answer until it is applied and says so?
//!
//! Its Promise has one pipeline of one process, which writes one Script whose commands do nothing;
//! what is measured is Muster's own way: pipeline, Work, placement, agent, and back.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
};
use muster_e2e::{Agent, Executor, Hub, manifests::Promise, scratch};
use serde_json::json;

use crate::{
    api::{Sightings, client, holds, object, objects},
    figures::{Figures, Unit},
    machine,
};

/// How many requests are made one after the other.
const RUNS: usize = 21;
/// How many are made at once.
const AT_ONCE: usize = 100;
/// How often that is done.
const ROUNDS: usize = 3;
const NOTE: (&str, &str, &str) = ("bench.muster.dev", "Note", "notes");

/// Measures, with a hub and a shell agent of its own.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let hub = Hub::start(scratch.path(), Executor::Process);
    let mut agent = Agent::join(&hub, scratch.path(), "host-1", &["bench=shell"], &["shell"], None);
    let kubectl = hub.kubectl();
    kubectl.apply(&NOTES.yaml());
    kubectl.wait("promise/note", "Available");

    let client = client(hub.kubeconfig()).await?;
    let api = objects(&client, NOTE, Some("default"));
    let mut sightings = Sightings::of(api.clone()).await?;
    // The first one pays for what is started once.
    single(&api, &mut sightings, "warm-up").await?;
    let mut runs = Vec::new();
    for n in 0..RUNS {
        runs.push(single(&api, &mut sightings, &format!("single-{n}")).await?);
    }
    figures.add_times("request accepted → applied and reported", Unit::Ms, &runs, "150 ms");

    let (mut first, mut all) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (one, every) = crowd(&client, &mut sightings, round).await?;
        first.push(one);
        all.push(every);
    }
    figures.add_times("100 requests at once: the first", Unit::Seconds, &first, "");
    figures.add_times("100 requests at once: all Reconciled", Unit::Seconds, &all, "5 s");
    let held = RUNS + 1 + AT_ONCE * ROUNDS;
    let mb = |bytes: f64| vec![bytes / 1e6];
    let hub = machine::resident(hub.process().pid())?;
    figures.add(&format!("hub with {held} requests, resident"), Unit::Mb, mb(hub), "");
    let agent = machine::resident(agent.process().pid())?;
    figures.add(&format!("agent with {held} placements, resident"), Unit::Mb, mb(agent), "");
    Ok(())
}

async fn single(
    api: &Api<DynamicObject>,
    sightings: &mut Sightings,
    name: &str,
) -> anyhow::Result<Duration> {
    create(api, name).await?;
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
    round: usize,
) -> anyhow::Result<(Duration, Duration)> {
    let api = objects(client, NOTE, Some("default"));
    let names: Vec<_> = (0..AT_ONCE).map(|n| format!("crowd-{round}-{n}")).collect();
    let mut left: BTreeSet<String> = names.iter().cloned().collect();
    let begun = Instant::now();
    let creating = try_join_all(names.iter().map(|name| create(&api, name)));
    let seeing = async {
        let (mut first, mut last) = (None, begun);
        while !left.is_empty() {
            let what = format!("the {} of {AT_ONCE} requests that are left", left.len());
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

async fn create(api: &Api<DynamicObject>, name: &str) -> anyhow::Result<()> {
    let request = object(json!({
        "apiVersion": "bench.muster.dev/v1alpha1",
        "kind": "Note",
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
