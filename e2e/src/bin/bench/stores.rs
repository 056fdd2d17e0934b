//! How fast do waiting placements get into a state store, in how many pushes, and at what memory?
//!
//! The store's password is wrong at first, so that placements wait; the clock starts when the store is
//! found ready, and ends when the last placement says that it is written. All servers are real, and
//! run on this machine.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
};
use muster_e2e::{
    Executor, GitServer, Hub, Kubectl, S3Server, has_part,
    manifests::{bucket_store, fed, git_store, secret},
    scratch,
};
use serde_json::json;

use crate::{
    api::{Sightings, client, holds, object, objects},
    figures::{Figures, Unit},
    machine,
};

/// How many placements wait.
const WAITING: [usize; 3] = [1, 100, 1000];
/// How many Works are made at once.
const MADE_AT_ONCE: usize = 16;
const GROUP: &str = "platform.kratix.io";
/// The MD5 of `.`, which names the group of a Work's root.
const ROOT_ID: &str = "5058f1af8388633f609cadb75a75dc9d";
/// How long the store may need to be seen as not ready.
const TURN: Duration = Duration::from_millis(20);

/// One of the two kinds of stores, with its server.
enum Server {
    Git(GitServer),
    S3(S3Server),
}

/// Measures each kind of store, with a hub of its own.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    if has_part("MUSTER_GIT_SERVER") {
        let scratch = scratch();
        let server = GitServer::start(scratch.path());
        server.repositories().create("fleet");
        of_store(figures, scratch.path(), &Server::Git(server)).await?;
    }
    if has_part("MUSTER_S3_SERVER") {
        let scratch = scratch();
        let server = S3Server::start(scratch.path());
        server.create("fleet");
        of_store(figures, scratch.path(), &Server::S3(server)).await?;
    }
    Ok(())
}

async fn of_store(figures: &mut Figures, directory: &Path, server: &Server) -> anyhow::Result<()> {
    let hub = Hub::start(directory, Executor::Process);
    let kubectl = hub.kubectl();
    kubectl.apply(&server.objects());
    server.lets_in(&kubectl, true);
    kubectl.wait("destination/dev", "Ready");
    kubectl.apply(PROMISE);
    let client = client(hub.kubeconfig()).await?;
    let digest = digest(&client).await?;
    let version = "jsonpath={.items[*].status.versionID}";
    kubectl.until(&["get", "workplacements", "-A", "-o", version], |told| !told.is_empty());
    let mut peak = machine::anonymous(hub.process().pid())?;
    for n in WAITING {
        let before = server.count();
        let took = write(&client, &kubectl, server, &digest, n).await?;
        let what = |rest: &str| format!("{n} waiting placements → {}: {rest}", server.named());
        figures.add_times(&what("all written"), Unit::Seconds, &[took], goal(n));
        let rate = n as f64 / took.as_secs_f64();
        figures.add(&what("written"), Unit::PerSecond, vec![rate], "");
        if let (Some(before), Some(after)) = (before, server.count()) {
            let pushes = (after.0 - before.0) as f64;
            let commits = (after.1 - before.1) as f64;
            figures.add(&what("pushes"), Unit::Count, vec![pushes], "10");
            figures.add(&what("commits"), Unit::Count, vec![commits], "");
        }
        peak = peak.max(machine::anonymous(hub.process().pid())?);
    }
    let what = format!("hub's own memory with 1101 placements on {}", server.named());
    figures.add(&what, Unit::Mb, vec![peak / 1e6], "");
    Ok(())
}

fn goal(n: usize) -> &'static str {
    if n == 1000 { "10 s" } else { "" }
}

/// Lets `n` placements wait, then lets them go; how long until all are written.
async fn write(
    client: &Client,
    kubectl: &Kubectl,
    server: &Server,
    digest: &str,
    n: usize,
) -> anyhow::Result<Duration> {
    let stores = objects(client, (GROUP, server.kind(), server.plural()), None);
    let mut standing = Sightings::of(stores).await?;
    server.lets_in(kubectl, false);
    standing.until("the store not to be ready", |store| !holds(store, "Ready")).await?;
    let placements = objects(client, (GROUP, "WorkPlacement", "workplacements"), Some("default"));
    let mut sightings = Sightings::of(placements.clone()).await?;
    let works = objects(client, (GROUP, "Work", "works"), Some("default"));
    let names: Vec<_> = (0..n).map(|i| format!("of-{n}-{i}")).collect();
    stream::iter(&names)
        .map(|name| create(&works, name, digest))
        .buffer_unordered(MADE_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let own = |placement: &DynamicObject| {
        let work = placement.data["spec"]["resourceName"].as_str().unwrap_or_default();
        work.starts_with(&format!("of-{n}-")).then(|| work.to_owned())
    };
    let mut waiting = BTreeSet::new();
    while waiting.len() < n {
        let (_, seen) = sightings.until("a placement that waits", |p| own(p).is_some()).await?;
        waiting.extend(own(&seen));
        tokio::time::sleep(Duration::ZERO).await;
    }
    server.lets_in(kubectl, true);
    let (begun, _) = standing.until("the store to be ready", |store| holds(store, "Ready")).await?;
    let mut written = BTreeSet::new();
    let mut ended = Instant::now();
    while written.len() < n {
        let done =
            |p: &DynamicObject| p.data["status"]["versionID"].is_string() && own(p).is_some();
        let (at, seen) = sightings.until("a placement that is written", done).await?;
        written.extend(own(&seen));
        ended = at;
    }
    Ok(ended.saturating_duration_since(begun).max(TURN / 20))
}

async fn create(works: &Api<DynamicObject>, name: &str, digest: &str) -> anyhow::Result<()> {
    let work = object(json!({
        "apiVersion": "platform.kratix.io/v1alpha1",
        "kind": "Work",
        "metadata": {"name": name},
        "spec": {"promiseName": "files", "resourceName": name, "workloadGroups": [{
            "id": ROOT_ID,
            "directory": ".",
            "digest": digest,
            "workloads": [],
            "destinationSelectors": [{"matchLabels": {"place": "dev"}}],
        }]},
    }))?;
    works.create(&PostParams::default(), &work).await?;
    Ok(())
}

/// The digest of the dependencies' files.
async fn digest(client: &Client) -> anyhow::Result<String> {
    let works = objects(client, (GROUP, "Work", "works"), None);
    let mut sightings = Sightings::of(works).await?;
    let (_, work) = sightings.until("the dependencies' Work", |_| true).await?;
    let digest = work.data["spec"]["workloadGroups"][0]["digest"].as_str().map(str::to_owned);
    digest.context("a Work without digest")
}

impl Server {
    fn kind(&self) -> &'static str {
        match self {
            Self::Git(_) => "GitStateStore",
            Self::S3(_) => "BucketStateStore",
        }
    }

    fn plural(&self) -> &'static str {
        match self {
            Self::Git(_) => "gitstatestores",
            Self::S3(_) => "bucketstatestores",
        }
    }

    fn named(&self) -> &'static str {
        match self {
            Self::Git(_) => "Git over https",
            Self::S3(_) => "a bucket",
        }
    }

    /// Pushes and commits so far.
    fn count(&self) -> Option<(u64, usize)> {
        match self {
            Self::Git(server) => {
                Some((server.count("push"), server.repositories().commits("fleet")))
            }
            Self::S3(_) => None,
        }
    }

    fn objects(&self) -> String {
        let store = match self {
            Self::Git(server) => git_store("hub", &server.url("fleet"), ""),
            Self::S3(server) => bucket_store("hub", &server.endpoint(), "fleet", ""),
        };
        store + &fed("dev", self.kind(), "hub", "")
    }

    /// Makes the store's password right or wrong.
    fn lets_in(&self, kubectl: &Kubectl, right: bool) {
        let password = |good| if right { good } else { "wrong" };
        kubectl.apply(&match self {
            Self::Git(server) => secret(
                "hub",
                &[
                    ("username", "hub"),
                    ("password", password("let-me-in")),
                    ("caFile", &server.authority()),
                ],
            ),
            Self::S3(_) => secret(
                "hub",
                &[("accessKeyID", S3Server::ID), ("secretAccessKey", password(S3Server::SECRET))],
            ),
        });
    }
}

const PROMISE: &str = "
apiVersion: platform.kratix.io/v1alpha1
kind: Promise
metadata: {name: files}
spec:
  dependencies:
  - apiVersion: v1
    kind: Namespace
    metadata: {name: shelf}
";
