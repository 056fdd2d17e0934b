//! State stores on real servers, in a time that the test moves on: what happens in an hour without
//! one, or after others changed what it holds.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use muster_api::{
    BucketStateStore, Destination, GitStateStore, Work, WorkPlacement,
    conditions::{self, kind},
};
use muster_e2e::{GitServer, Repositories, S3Server, Tree, has_part, scratch};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::home::Home;

/// How often a store is asked whether it takes files.
const PROBE: Duration = Duration::from_secs(10);

/// A hub, and a Git server with the repository `fleet`, which feeds the Destination `dev`.
struct Yard {
    home: Home,
    server: GitServer,
    repositories: Repositories,
    _scratch: tempfile::TempDir,
}

impl Yard {
    /// None, said aloud, where there is no server.
    async fn open() -> Option<Self> {
        if !has_part("MUSTER_GIT_SERVER") {
            return None;
        }
        let scratch = scratch();
        let server = GitServer::start(scratch.path());
        let repositories = server.repositories();
        repositories.create("fleet");
        let yard = Self { home: Home::new().await, server, repositories, _scratch: scratch };
        yard.password("hub", "let-me-in").await;
        yard.store("hub", &yard.server.url("fleet")).await;
        destination(&yard.home, "dev", "GitStateStore", "hub").await;
        yard.says("dev", "True", "TestDocumentsWritten").await;
        Some(yard)
    }

    /// Makes the Secret of a store.
    async fn password(&self, name: &str, password: &str) {
        let data = json!({
            "username": "hub", "password": password, "caFile": self.server.authority(),
        });
        secret(&self.home, name, &data).await;
    }

    async fn store(&self, name: &str, url: &str) {
        let spec = json!({"url": url, "secretRef": {"name": name, "namespace": "default"}});
        apply(self.stores(), "GitStateStore", &json!({"name": name}), spec).await;
    }

    fn stores(&self) -> Api<GitStateStore> {
        Api::all(self.home.client.clone())
    }

    /// Waits for the `Ready` of the store `hub`; its message.
    async fn store_says(&self, truth: &str, reason: &str) -> String {
        let so = |store: &GitStateStore| {
            ready(store.status.as_ref().map(|s| s.conditions.as_slice())).0 == (truth, reason)
        };
        let store = self.home.until(self.stores(), "hub", so).await;
        ready(store.status.as_ref().map(|s| s.conditions.as_slice())).1.to_owned()
    }

    /// Waits for the `Ready` of a Destination; its message.
    async fn says(&self, name: &str, truth: &str, reason: &str) -> String {
        destination_says(&self.home, name, truth, reason).await
    }

    /// A request's files for `dev`.
    async fn work(&self, name: &str, text: &str) {
        self.home.work(name, Some(name), text, &[("place", "dev")]).await;
    }

    /// What all that a user may look at is at, and how much was said of it.
    async fn standing(&self) -> BTreeMap<String, String> {
        let client = || self.home.client.clone();
        let mut versions = object_versions(Api::<WorkPlacement>::all(client())).await;
        versions.extend(object_versions(Api::<Destination>::all(client())).await);
        versions.extend(object_versions(self.stores()).await);
        versions.extend(object_versions(Api::<Event>::all(client())).await);
        versions
    }

    /// The same, once nothing more is told.
    async fn settled(&self) -> BTreeMap<String, String> {
        let mut last = self.standing().await;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = self.standing().await;
            if now == last {
                return now;
            }
            last = now;
        }
        panic!("it is told again and again: {last:#?}");
    }

    fn tree(&self) -> Tree {
        self.repositories.tree("fleet")
    }
}

async fn object_versions<K>(api: Api<K>) -> BTreeMap<String, String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let all = api.list(&ListParams::default()).await.unwrap().items;
    let version = |found: &K| found.resource_version().unwrap();
    all.iter()
        .map(|found| (format!("{}/{}", K::kind(&()), found.name_any()), version(found)))
        .collect()
}

async fn apply<K>(api: Api<K>, kind: &str, metadata: &Value, spec: Value)
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let object = json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": kind,
        "metadata": metadata, "spec": spec,
    });
    let params = PatchParams::apply("test").force();
    let name = metadata["name"].as_str().unwrap();
    api.patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

async fn secret(home: &Home, name: &str, data: &Value) {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
    });
    let params = PatchParams::apply("test").force();
    home.api::<Secret>().patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

async fn destination(home: &Home, name: &str, kind: &str, store: &str) {
    let metadata = json!({"name": name, "labels": {"place": name}});
    let spec = json!({"path": name, "stateStoreRef": {"kind": kind, "name": store}});
    apply(home.destinations(), "Destination", &metadata, spec).await;
}

async fn destination_says(home: &Home, name: &str, truth: &str, reason: &str) -> String {
    let so = |found: &Destination| {
        ready(found.status.as_ref().map(|s| s.conditions.as_slice())).0 == (truth, reason)
    };
    let found = home.until(home.destinations(), name, so).await;
    ready(found.status.as_ref().map(|s| s.conditions.as_slice())).1.to_owned()
}

type Conditions = [k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition];

fn ready(conditions: Option<&Conditions>) -> ((&str, &str), &str) {
    let found = conditions::find(conditions.unwrap_or_default(), kind::READY);
    found.map_or((("", ""), ""), |c| ((c.status.as_str(), c.reason.as_str()), c.message.as_str()))
}

/// The placement of a request, once it is as `so` wants it.
async fn placed(home: &Home, request: &str, so: impl Fn(&WorkPlacement) -> bool) -> WorkPlacement {
    let mut last = Vec::new();
    for _ in 0..6000 {
        let all = home.api::<WorkPlacement>().list(&ListParams::default()).await.unwrap().items;
        let of_it = |p: &&WorkPlacement| p.spec.resource_name.as_deref() == Some(request);
        if let Some(found) = all.iter().find(of_it).filter(|found| so(found)) {
            return found.clone();
        }
        last = all;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the placement of {request} did not become what was awaited: {last:#?}");
}

/// Whether what is wanted now is written.
fn is_written(placement: &WorkPlacement) -> bool {
    let status = placement.status.as_ref();
    status.is_some_and(|s| s.applied_digest.as_ref() == Some(&placement.spec.digest))
}

fn is_failing(placement: &WorkPlacement, reason: &str) -> bool {
    let status = placement.status.as_ref();
    let applied = status.and_then(|s| conditions::find(&s.conditions, kind::APPLIED));
    applied.is_some_and(|applied| applied.reason == reason)
}

fn version(placement: &WorkPlacement) -> String {
    placement.status.as_ref().and_then(|s| s.version_id.clone()).unwrap()
}

fn file(request: &str) -> String {
    format!("dev/resources/default/web/{request}/5058f/a.yaml")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_without_the_store_loses_nothing_and_is_told_once() {
    let Some(yard) = Yard::open().await else { return };
    let home = &yard.home;
    for name in ["changed", "deleted", "kept"] {
        yard.work(name, "v1").await;
    }
    for name in ["changed", "deleted", "kept"] {
        placed(home, name, is_written).await;
    }
    yard.server.down(true);
    home.clock.skip(PROBE);
    let told = yard.store_says("False", "ErrorValidatingPermissions").await;
    assert!(told.contains("does not answer: it is tried again"), "{told}");
    yard.work("changed", "v2").await;
    yard.work("new", "v1").await;
    home.api::<Work>().delete("deleted", &DeleteParams::default()).await.unwrap();
    for name in ["changed", "new", "deleted"] {
        placed(home, name, |p| is_failing(p, "StoreUnreachable")).await;
    }
    yard.says("dev", "False", "StateStoreNotReady").await;

    let before = yard.settled().await;
    for _ in 0..60 {
        let asked = yard.server.count("away");
        let minute = || {
            home.clock.skip(Duration::from_secs(60));
            yard.server.count("away") > asked
        };
        home.eventually("the store to be asked", minute).await;
    }
    assert_eq!(yard.settled().await, before, "an hour of asking changes and tells nothing");

    let pushes = yard.server.count("push");
    yard.server.down(false);
    home.clock.skip(PROBE);
    for name in ["changed", "new", "kept"] {
        placed(home, name, is_written).await;
    }
    home.placements(3).await;
    yard.store_says("True", "StateStoreReady").await;
    yard.says("dev", "True", "TestDocumentsWritten").await;
    let tree = yard.tree();
    assert_eq!(tree[&file("changed")], b"v2");
    assert_eq!(tree[&file("new")], b"v1");
    assert!(!tree.contains_key(&file("deleted")), "{:?}", tree.keys());
    assert_eq!(yard.server.count("push") - pushes, 1, "all in one push");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_credentials_are_told_of_the_store_and_its_destination_within_half_a_minute() {
    let Some(yard) = Yard::open().await else { return };
    let home = &yard.home;
    yard.server.let_in("hub another-one\n");
    // A git server that does not answer is given up after 15 s, so this is half a minute at most.
    home.clock.skip(PROBE);
    let told = yard.store_says("False", "ErrorValidatingPermissions").await;
    for words in [
        "Error validating state store permissions: Authentication failed for https://127.0.0.1",
        "put a valid username and password into Secret default/hub",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let told = yard.says("dev", "False", "StateStoreNotReady").await;
    let words = "GitStateStore/hub is not ready: Error validating state store permissions: \
                 Authentication failed for";
    assert!(told.starts_with(words), "{told}");
    yard.password("hub", "another-one").await;
    home.clock.skip(PROBE);
    yard.store_says("True", "StateStoreReady").await;
    yard.says("dev", "True", "TestDocumentsWritten").await;
    let events = Api::<Event>::all(home.client.clone());
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {}: {}", word(&event.type_), word(&event.reason), word(&event.note))
        })
        .collect();
    for words in [
        "Normal Ready: GitStateStore \"hub\" is ready",
        "Warning NotReady: GitStateStore \"hub\" is not ready: Error validating state store",
        "Normal DestinationReady: Destination is Ready",
        "Warning DestinationNotReady: GitStateStore/hub is not ready",
    ] {
        assert!(told.iter().any(|event| event.starts_with(words)), "{words}: {told:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_delays_no_other_and_its_password_is_nowhere_to_be_read() {
    let Some(yard) = Yard::open().await else { return };
    let home = &yard.home;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let asked = asked.clone();
        move || {
            // Each connection is held open, and nothing is ever answered.
            for connection in listener.incoming() {
                asked.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || connection.unwrap().read_to_end(&mut Vec::new()));
            }
        }
    });
    yard.password("slow", "let-me-in").await;
    yard.store("slow", &format!("https://{address}/x.git")).await;
    destination(home, "slow", "GitStateStore", "slow").await;
    home.eventually("the slow store to be asked", || asked.load(Ordering::Relaxed) > 0).await;
    home.work("late", Some("late"), "v1", &[("place", "slow")]).await;
    for n in 0..3 {
        let version = format!("v{n}");
        yard.work("quick", &version).await;
        let is_there =
            || yard.tree().get(&file("quick")).is_some_and(|it| it == version.as_bytes());
        home.eventually("the quick one to be written", is_there).await;
        placed(home, "quick", is_written).await;
    }
    placed(home, "late", |p| !is_written(p)).await;

    let mut found = Vec::new();
    home.eventually("git to ask the slow store again", || {
        found = processes(&address);
        !found.is_empty()
    })
    .await;
    for process in found {
        assert!(!process.contains("let-me-in"), "{process}");
    }
}

/// The arguments and environments of processes with this argument.
fn processes(argument: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let of = |file: std::path::PathBuf| fs::read(file).unwrap_or_default();
    let read =
        all.map(|entry| (of(entry.path().join("cmdline")), of(entry.path().join("environ"))));
    let text = read.map(|(arguments, environment)| {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
        (text(arguments), text(environment))
    });
    let found = text.filter(|(arguments, _)| arguments.contains(argument));
    found.map(|(arguments, environment)| format!("{arguments} {environment}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_moves_gets_everything_at_its_new_url() {
    let Some(yard) = Yard::open().await else { return };
    let home = &yard.home;
    for name in ["one", "two"] {
        yard.work(name, name).await;
        placed(home, name, is_written).await;
    }
    yard.repositories.create("other");
    yard.store("hub", &yard.server.url("other")).await;
    let head = || yard.repositories.head("other");
    for name in ["one", "two"] {
        placed(home, name, |p| is_written(p) && version(p) == head()).await;
    }
    let own = |tree: Tree| tree.into_iter().filter(|(path, _)| path.starts_with("dev/")).collect();
    let (old, new): (Tree, Tree) = (own(yard.tree()), own(yard.repositories.tree("other")));
    assert_eq!(old, new);
    assert_eq!(new[&file("one")], b"one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_servers_rules_reject_is_told_and_the_rest_is_written() {
    let Some(yard) = Yard::open().await else { return };
    let home = &yard.home;
    let hook = "while read old new name; do\n  if git grep -q FORBIDDEN \"$new\"; then\n    \
                echo 'policy 7: no FORBIDDEN' >&2; exit 1\n  fi\ndone";
    yard.repositories.hook("fleet", Some(hook));
    yard.server.down(true);
    home.clock.skip(PROBE);
    yard.store_says("False", "ErrorValidatingPermissions").await;
    for n in 0..6 {
        yard.work(&format!("fine-{n}"), "fine").await;
    }
    yard.work("culprit", "FORBIDDEN").await;
    placed(home, "culprit", |p| is_failing(p, "StoreUnreachable")).await;
    yard.server.down(false);
    home.clock.skip(PROBE);
    for n in 0..6 {
        placed(home, &format!("fine-{n}"), is_written).await;
    }
    let culprit = placed(home, "culprit", |p| is_failing(p, "PushRejected")).await;
    let status = culprit.status.unwrap();
    let told = &conditions::find(&status.conditions, kind::WRITE_SUCCEEDED).unwrap().message;
    assert!(told.contains("policy 7: no FORBIDDEN") && told.contains("change what"), "{told}");
    // The rules are the store's, and it takes other files: it is ready.
    yard.store_says("True", "StateStoreReady").await;
    yard.repositories.hook("fleet", None);
    home.clock.skip(Duration::from_secs(70));
    placed(home, "culprit", is_written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_destinations_in_one_repository_are_written_at_once() {
    const N: usize = 200;
    let Some(yard) = Yard::open().await else { return };
    let home = &yard.home;
    yard.server.down(true);
    home.clock.skip(PROBE);
    yard.store_says("False", "ErrorValidatingPermissions").await;
    for n in 0..N {
        let metadata = json!({"name": format!("d-{n}"), "labels": {"fleet": "all"}});
        let store = json!({"kind": "GitStateStore", "name": "hub"});
        let spec = json!({"path": format!("clusters/d-{n}"), "stateStoreRef": store});
        apply(home.destinations(), "Destination", &metadata, spec).await;
    }
    home.work("deps", None, "v1", &[("fleet", "all")]).await;
    home.placements(N).await;
    yard.settled().await;
    let (pushes, revision) = (yard.server.count("push"), home.revision().await);
    yard.server.down(false);
    home.clock.skip(PROBE);
    for n in 0..N {
        yard.says(&format!("d-{n}"), "True", "TestDocumentsWritten").await;
    }
    let mut written = BTreeMap::new();
    for placement in home.placements(N).await {
        let so = |found: &WorkPlacement| is_written(found);
        let found = home.until(home.api(), &placement.name_any(), so).await;
        *written.entry(version(&found)).or_insert(0) += 1;
    }
    assert_eq!(written.into_values().collect::<Vec<_>>(), [N], "one commit");
    assert_eq!(yard.server.count("push") - pushes, 1);
    let tree = yard.tree();
    let files = (0..N).map(|n| format!("clusters/d-{n}/dependencies/web/5058f/a.yaml"));
    for file in files {
        assert_eq!(tree[&file], b"v1", "{file}");
    }
    // A status and an event of each Destination, a status of each placement, and few of the Work.
    yard.settled().await;
    let writes = home.revision().await - revision;
    assert!(writes < 4 * N as u64, "{writes} writes for {N} placements");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_others_set_back_or_remove_is_written_again() {
    let Some(yard) = Yard::open().await else { return };
    let home = &yard.home;
    let before = yard.repositories.head("fleet");
    yard.work("one", "v1").await;
    placed(home, "one", is_written).await;
    for args in [
        &["update-ref", "refs/heads/main", before.as_str()][..],
        &["update-ref", "-d", "refs/heads/main"],
    ] {
        yard.repositories.git("fleet", args);
        assert!(!yard.tree().contains_key(&file("one")));
        home.clock.skip(PROBE);
        home.eventually("the files to be back", || yard.tree().contains_key(&file("one"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_in_a_bucket_is_repaired_at_the_next_write_and_in_time() {
    if !has_part("MUSTER_S3_SERVER") {
        return;
    }
    let scratch = scratch();
    let server = S3Server::start(scratch.path());
    server.create("pail");
    server.keep_versions("pail");
    let home = Home::new().await;
    let login = json!({"accessKeyID": S3Server::ID, "secretAccessKey": S3Server::SECRET});
    secret(&home, "pail", &login).await;
    let spec = json!({
        "endpoint": server.endpoint(), "bucketName": "pail", "insecure": true,
        "secretRef": {"name": "pail", "namespace": "default"},
    });
    let stores = Api::<BucketStateStore>::all(home.client.clone());
    apply(stores, "BucketStateStore", &json!({"name": "pail"}), spec).await;
    destination(&home, "dev", "BucketStateStore", "pail").await;
    destination_says(&home, "dev", "True", "TestDocumentsWritten").await;
    for name in ["edited", "deleted", "other"] {
        home.work(name, Some(name), "v1", &[("place", "dev")]).await;
        placed(&home, name, is_written).await;
    }
    let break_it = || {
        server.put("pail", &file("edited"), "by hand");
        server.delete("pail", &file("deleted"));
        server.put("pail", &file("deleted").replace("a.yaml", "b.yaml"), "by hand");
    };
    let is_whole = || {
        let (tree, keys) = (server.tree("pail"), server.keys("pail"));
        let held = |name: &str| tree.get(&file(name)).is_some_and(|bytes| bytes == b"v1");
        held("edited")
            && held("deleted")
            && keys.contains(&file("deleted"))
            && !keys.iter().any(|path| path.ends_with("b.yaml"))
    };
    assert!(is_whole());
    let first = version(&placed(&home, "edited", is_written).await);
    break_it();
    assert!(!is_whole());
    home.work("other", Some("other"), "v2", &[("place", "dev")]).await;
    home.eventually("the next write to repair it", is_whole).await;
    // The bytes are the same, the object is another.
    placed(&home, "edited", |p| version(p) != first && version(p).len() == 64).await;
    break_it();
    home.clock.skip(Duration::from_secs(310));
    home.eventually("time to repair it", is_whole).await;
}
