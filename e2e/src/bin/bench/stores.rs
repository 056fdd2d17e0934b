//! How fast do waiting placements get into a state store, in how many pushes, and at what memory and
//! disk?
//!
//! The store's password is wrong at first, so that placements wait; the clock starts when the store is
//! found ready, and ends when the last placement says that it is written. All servers are real, and
//! run on this machine.

use std::{collections::BTreeSet, path::Path, time::Duration};

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
    machine::{self, Peak},
};

/// How many placements wait.
const WAITING: [usize; 3] = [1, 100, 1000];
/// How many Works are made at once.
const MADE_AT_ONCE: usize = 16;
const GROUP: &str = "platform.kratix.io";
/// The MD5 of `.`, which names the group of a Work's root.
const ROOT_ID: &str = "5058f1af8388633f609cadb75a75dc9d";
/// How many Destinations are in one repository.
const DESTINATIONS: usize = 1000;
/// How many commits a repository has before: what it costs should not grow with them.
const HISTORIES: [usize; 2] = [10, 2000];
/// How many placements are written then.
const OF_HISTORY: usize = 100;
/// What is shorter cannot be told apart by watches.
const SHORTEST: Duration = Duration::from_millis(1);

/// One of the two kinds of stores, with its server.
enum Server {
    Git(GitServer),
    S3(S3Server),
}

/// Measures each kind of store, with a hub of its own for each question.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    if has_part("MUSTER_GIT_SERVER") {
        let scratch = scratch();
        of_store(figures, scratch.path(), &Server::git(scratch.path(), 1)).await?;
        of_destinations(figures).await?;
        for commits in HISTORIES {
            of_history(figures, commits).await?;
        }
    }
    if has_part("MUSTER_S3_SERVER") {
        let scratch = scratch();
        of_store(figures, scratch.path(), &Server::s3(scratch.path())).await?;
    }
    Ok(())
}

/// Placements that wait for one Destination.
async fn of_store(figures: &mut Figures, directory: &Path, server: &Server) -> anyhow::Result<()> {
    let hub = Hub::start(directory, Executor::Process);
    let bench = Bench::prepare(&hub, server).await?;
    let peak = Peak::of(hub.process().pid());
    for n in WAITING {
        let took = bench.write(figures, n).await?;
        let what = format!("{n} waiting placements → {}: written", server.named());
        figures.add(&what, Unit::PerSecond, vec![n as f64 / took.as_secs_f64()], "");
    }
    let what = format!("peak memory with 1101 placements on {}", server.named());
    add_memory(figures, &what, peak);
    Ok(())
}

/// A placement on each of many Destinations in one repository.
async fn of_destinations(figures: &mut Figures) -> anyhow::Result<()> {
    let scratch = scratch();
    let server = Server::git(scratch.path(), 1);
    let hub = Hub::start(scratch.path(), Executor::Process);
    let (kubectl, client) = (hub.kubectl(), client(hub.kubeconfig()).await?);
    kubectl.apply(&server.objects());
    server.lets_in(&kubectl, false);
    let destinations = objects(&client, (GROUP, "Destination", "destinations"), None);
    let made = stream::iter(1..DESTINATIONS).map(|n| {
        let api = &destinations;
        async move {
            let name = format!("d-{n}");
            let destination = object(json!({
                "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Destination",
                "metadata": {"name": name},
                "spec": {"path": name, "stateStoreRef": {"kind": "GitStateStore", "name": "hub"}},
            }))?;
            anyhow::Ok(api.create(&PostParams::default(), &destination).await?)
        }
    });
    made.buffer_unordered(MADE_AT_ONCE).try_collect::<Vec<_>>().await?;
    kubectl.apply(PROMISE);
    let bench = Bench { server: &server, kubectl, client, digest: String::new() };
    let all = |p: &DynamicObject| p.metadata.name.clone();
    let mut waiting = bench.waiting(None, DESTINATIONS, all).await?;
    let before = server.count();
    let peak = Peak::of(hub.process().pid());
    let took = bench.release(&mut waiting, DESTINATIONS, all).await?;
    let what = |rest: &str| format!("{DESTINATIONS} destinations in one repository: {rest}");
    figures.add_times(&what("a placement on each written"), Unit::Seconds, &[took], "10 s");
    add_counts(figures, what, before, server.count());
    add_memory(figures, &what("peak memory"), peak);
    Ok(())
}

/// The same placements in a repository that has so many commits before.
async fn of_history(figures: &mut Figures, commits: usize) -> anyhow::Result<()> {
    let scratch = scratch();
    let server = Server::git(scratch.path(), commits);
    let hub = Hub::start(scratch.path(), Executor::Process);
    let peak = Peak::of(hub.process().pid());
    let bench = Bench::prepare(&hub, &server).await?;
    let (from, mut waiting) = bench.make(OF_HISTORY).await?;
    bench.release(&mut waiting, OF_HISTORY, from).await?;
    let what = |rest: &str| format!("a repository of {commits} commits: {rest}");
    add_memory(figures, &what("peak memory"), peak);
    let disk = machine::disk(&hub.data_dir().join("stores"));
    figures.add(&what("hub's copy on disk"), Unit::Kb, vec![disk / 1e3], "");
    Ok(())
}

fn add_memory(figures: &mut Figures, what: &str, peak: Peak) {
    let (own, git) = peak.end();
    figures.add(&format!("{what}, hub"), Unit::Mb, vec![own / 1e6], "");
    figures.add(&format!("{what}, its git processes"), Unit::Mb, vec![git / 1e6], "");
}

/// Pushes and commits that were made, where the store has such.
fn add_counts(
    figures: &mut Figures,
    what: impl Fn(&str) -> String,
    before: Option<(u64, usize)>,
    after: Option<(u64, usize)>,
) {
    if let (Some(before), Some(after)) = (before, after) {
        figures.add(&what("pushes"), Unit::Count, vec![(after.0 - before.0) as f64], "10");
        figures.add(&what("commits"), Unit::Count, vec![(after.1 - before.1) as f64], "");
    }
}

/// A hub with the store and its Destination `dev`.
struct Bench<'a> {
    server: &'a Server,
    kubectl: Kubectl,
    client: Client,
    /// Files that Works name.
    digest: String,
}

impl<'a> Bench<'a> {
    async fn prepare(hub: &Hub, server: &'a Server) -> anyhow::Result<Self> {
        let kubectl = hub.kubectl();
        kubectl.apply(&server.objects());
        server.lets_in(&kubectl, true);
        kubectl.wait("destination/dev", "Ready");
        kubectl.apply(PROMISE);
        let client = client(hub.kubeconfig()).await?;
        let digest = digest(&client).await?;
        let version = "jsonpath={.items[*].status.versionID}";
        kubectl.until(&["get", "workplacements", "-A", "-o", version], |told| !told.is_empty());
        Ok(Self { server, kubectl, client, digest })
    }

    /// Lets `n` placements wait, then lets them go; how long until all are written.
    async fn write(&self, figures: &mut Figures, n: usize) -> anyhow::Result<Duration> {
        let (own, mut waiting) = self.make(n).await?;
        let before = self.server.count();
        let took = self.release(&mut waiting, n, own).await?;
        let named = self.server.named();
        let what = |rest: &str| format!("{n} waiting placements → {named}: {rest}");
        figures.add_times(&what("all written"), Unit::Seconds, &[took], goal(n));
        add_counts(figures, what, before, self.server.count());
        Ok(took)
    }

    /// Makes `n` placements that wait; says which those are.
    async fn make(
        &self,
        n: usize,
    ) -> anyhow::Result<(impl Fn(&DynamicObject) -> Option<String> + Copy + use<>, Waiting)> {
        self.server.lets_in(&self.kubectl, false);
        let own = move |placement: &DynamicObject| {
            let work = placement.data["spec"]["resourceName"].as_str().unwrap_or_default();
            work.starts_with(&format!("of-{n}-")).then(|| work.to_owned())
        };
        let works = objects(&self.client, (GROUP, "Work", "works"), Some("default"));
        let names: Vec<_> = (0..n).map(|i| format!("of-{n}-{i}")).collect();
        let waiting = self.waiting(Some((&works, &names)), n, own).await?;
        Ok((own, waiting))
    }

    /// Waits until the store takes nothing and `n` placements wait for it; makes Works in between.
    async fn waiting(
        &self,
        works: Option<(&Api<DynamicObject>, &[String])>,
        n: usize,
        own: impl Fn(&DynamicObject) -> Option<String>,
    ) -> anyhow::Result<Waiting> {
        let stores = objects(&self.client, (GROUP, self.server.kind(), self.server.plural()), None);
        let mut stores = Sightings::of(stores).await?;
        stores.until("the store not to be ready", is_not_ready).await?;
        let placements = objects(&self.client, (GROUP, "WorkPlacement", "workplacements"), None);
        let mut placements = Sightings::of(placements).await?;
        if let Some((works, names)) = works {
            let made = stream::iter(names).map(|name| create(works, name, &self.digest));
            made.buffer_unordered(MADE_AT_ONCE).try_collect::<Vec<_>>().await?;
        }
        let mut seen = BTreeSet::new();
        while seen.len() < n {
            let next = placements.until("a placement that waits", |p| own(p).is_some()).await?;
            seen.extend(own(&next.1));
        }
        Ok(Waiting { stores, placements })
    }

    /// Lets them go; how long from when the store is ready until all are written.
    async fn release(
        &self,
        waiting: &mut Waiting,
        n: usize,
        own: impl Fn(&DynamicObject) -> Option<String>,
    ) -> anyhow::Result<Duration> {
        self.server.lets_in(&self.kubectl, true);
        let ready = waiting.stores.until("the store to be ready", |store| holds(store, "Ready"));
        let (begun, _) = ready.await?;
        let mut written = BTreeSet::new();
        let mut ended = begun;
        while written.len() < n {
            let done =
                |p: &DynamicObject| p.data["status"]["versionID"].is_string() && own(p).is_some();
            let (at, seen) = waiting.placements.until("a placement that is written", done).await?;
            written.extend(own(&seen));
            ended = at;
        }
        Ok(ended.saturating_duration_since(begun).max(SHORTEST))
    }
}

/// What tells when those that wait are done.
struct Waiting {
    stores: Sightings,
    placements: Sightings,
}

fn goal(n: usize) -> &'static str {
    if n == 1000 { "10 s" } else { "" }
}

/// Whether it was said that the store is not ready.
fn is_not_ready(store: &DynamicObject) -> bool {
    store.data["status"]["status"] == "NotReady"
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
    /// A Git server whose repository has so many commits.
    fn git(directory: &Path, commits: usize) -> Self {
        let server = GitServer::start(directory);
        server.repositories().create("fleet");
        server.repositories().grow("fleet", commits - 1);
        Self::Git(server)
    }

    fn s3(directory: &Path) -> Self {
        let server = S3Server::start(directory);
        server.create("fleet");
        Self::S3(server)
    }

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
