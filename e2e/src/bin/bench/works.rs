//! How long does a Work take, from its write until it is applied on a cluster and the hub says so?
//!
//! The files come from one run of a pipeline with many directories that no destination matches; each
//! Work then names one of them. So every write brings files that the agent has never had.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use muster_e2e::{Agent, Executor, Hub, manifests::Promise, scratch};
use serde_json::{Value, json};

use crate::{
    api::{Sightings, client, object, objects},
    figures::{Figures, Unit},
};

/// How often each is measured; the pipeline makes files for both.
const RUNS: usize = 25;
const GROUP: &str = "platform.kratix.io";
/// The MD5 of `.`, which names the group of a Work's root.
const ROOT_ID: &str = "5058f1af8388633f609cadb75a75dc9d";

/// Measures, with a hub of its own and an agent whose cluster is that hub's API.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let hub = Hub::start(scratch.path(), Executor::Process);
    let target = hub.kubeconfig().to_owned();
    against(figures, &hub, (scratch.path(), &target), "the hub's own API").await
}

async fn against(
    figures: &mut Figures,
    hub: &Hub,
    (directory, cluster): (&Path, &Path),
    named: &str,
) -> anyhow::Result<()> {
    let labels = ["bench=cluster"];
    let _agent = Agent::join(hub, directory, "cluster-1", &labels, &["kubernetes"], Some(cluster));
    let files = files(hub).await?;
    let client = client(hub.kubeconfig()).await?;
    let works = objects(&client, (GROUP, "Work", "works"), Some("default"));
    let placements = objects(&client, (GROUP, "WorkPlacement", "workplacements"), Some("default"));
    let mut sightings = Sightings::of(placements).await?;
    // The first one pays for what is started once.
    let (first, rest) = files.versions.split_first().context("no files")?;
    fresh(&works, &mut sightings, "changing", first).await?;
    let mut changes = Vec::new();
    for digest in rest {
        changes.push(change(&works, &mut sightings, "changing", digest).await?);
    }
    let mut news = Vec::new();
    for (n, digest) in files.others.iter().enumerate() {
        news.push(fresh(&works, &mut sightings, &format!("new-{n}"), digest).await?);
    }
    let what = format!("changed Work → applied on {named}, seen");
    figures.add_times(&what, Unit::Ms, &changes, "10 ms");
    let what = format!("new Work → applied on {named}, seen");
    figures.add_times(&what, Unit::Ms, &news, "10 ms");
    Ok(())
}

/// Digests of the files that the pipeline made.
struct Files {
    /// One object, each time with another value.
    versions: Vec<String>,
    /// An object each.
    others: Vec<String>,
}

async fn files(hub: &Hub) -> anyhow::Result<Files> {
    let kubectl = hub.kubectl();
    kubectl.apply(&PROMISE.yaml());
    kubectl.wait("promise/file", "Available");
    let client = client(hub.kubeconfig()).await?;
    let works = objects(&client, (GROUP, "Work", "works"), Some("default"));
    let mut sightings = Sightings::of(works).await?;
    let spec = format!("versions: {}, others: {RUNS}", RUNS + 1);
    kubectl.apply(&PROMISE.request("all", &spec));
    let (_, work) = sightings.until("the pipeline's Work", |_| true).await?;
    let groups = work.data["spec"]["workloadGroups"].as_array().context("no groups")?;
    let of = |start: &str| -> anyhow::Result<Vec<String>> {
        let chosen =
            groups.iter().filter(|g| g["directory"].as_str().is_some_and(|d| d.starts_with(start)));
        chosen.map(|g| g["digest"].as_str().map(str::to_owned).context("no digest")).collect()
    };
    let files = Files { versions: of("version-")?, others: of("other-")? };
    ensure!(
        files.versions.len() == RUNS + 1 && files.others.len() == RUNS,
        "not all files: {work:?}"
    );
    Ok(files)
}

async fn fresh(
    works: &Api<DynamicObject>,
    sightings: &mut Sightings,
    name: &str,
    digest: &str,
) -> anyhow::Result<Duration> {
    let work = object(json!({
        "apiVersion": "platform.kratix.io/v1alpha1",
        "kind": "Work",
        "metadata": {"name": name},
        "spec": {"promiseName": "file", "resourceName": name, "workloadGroups": groups(digest)},
    }))?;
    let begun = Instant::now();
    works.create(&PostParams::default(), &work).await?;
    Ok(applied(sightings, digest).await?.saturating_duration_since(begun))
}

async fn change(
    works: &Api<DynamicObject>,
    sightings: &mut Sightings,
    name: &str,
    digest: &str,
) -> anyhow::Result<Duration> {
    let patch = Patch::Merge(json!({"spec": {"workloadGroups": groups(digest)}}));
    let begun = Instant::now();
    works.patch(name, &PatchParams::default(), &patch).await?;
    Ok(applied(sightings, digest).await?.saturating_duration_since(begun))
}

fn groups(digest: &str) -> Value {
    json!([{
        "id": ROOT_ID,
        "directory": ".",
        "digest": digest,
        "workloads": [],
        "destinationSelectors": [{"matchLabels": {"bench": "cluster"}}],
    }])
}

async fn applied(sightings: &mut Sightings, digest: &str) -> anyhow::Result<Instant> {
    let what = format!("a placement with {digest} applied");
    let has = |placement: &DynamicObject| placement.data["status"]["appliedDigest"] == digest;
    Ok(sightings.until(&what, has).await?.0)
}

const PROMISE: Promise<'_> = Promise {
    name: "file",
    group: "bench.muster.dev",
    platform: "",
    fields: &[("versions", "{type: integer}"), ("others", "{type: integer}")],
    dependencies: "",
    script: r#"
directory() { # NAME OBJECT VALUE
  mkdir "$1"
  cat > "$1/config.yaml" <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: "$2", namespace: default}
data: {n: "$3"}
END
  cat >> /kratix/metadata/destination-selectors.yaml <<END
- directory: $1
  matchLabels: {bench: nowhere}
END
}
for n in $(seq "$versions"); do directory "version-$n" changing "$n"; done
for n in $(seq "$others"); do directory "other-$n" "other-$n" "$n"; done
"#,
    once: false,
};
