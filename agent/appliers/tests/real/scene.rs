//! An agent's disk, content and appliers, and the few words that tests use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_appliers::{Appliers, ContentStore, Options, Policy};
use muster_core::{
    DestinationName, Digest, Failure, FileSet, Intent, Lane, Observation, Order, Outcome,
    PlacementKey, assignment::option,
};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Memory(Mutex<BTreeMap<Digest, FileSet>>);

impl ContentStore for Memory {
    fn load(&self, digest: &Digest) -> Option<FileSet> {
        self.0.lock().unwrap().get(digest).cloned()
    }
}

pub(crate) struct Scene {
    dir: PathBuf,
    /// Removed with the scene, unless the directory is somebody else's.
    _temporary: Option<tempfile::TempDir>,
    policy: Policy,
    content: Arc<Memory>,
    pub(crate) appliers: Appliers,
}

impl Scene {
    pub(crate) async fn new(policy: Policy) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut scene = Self::at(temporary.path(), policy).await;
        scene._temporary = Some(temporary);
        scene
    }

    /// A scene on a state directory that outlives it.
    pub(crate) async fn at(dir: &Path, policy: Policy) -> Self {
        let content = Arc::new(Memory::default());
        let appliers = open(dir, &policy, &content).await;
        Self { dir: dir.to_owned(), _temporary: None, policy, content, appliers }
    }

    /// As if the agent had been killed and started again.
    pub(crate) async fn restart(&mut self) {
        self.appliers = open(&self.dir, &self.policy, &self.content).await;
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    pub(crate) fn put(&self, files: &[(&str, &str)]) -> Digest {
        let mut set = FileSet::new();
        for (path, text) in files {
            set.insert(path, text.as_bytes().to_vec()).unwrap();
        }
        let digest = set.digest();
        self.content.0.lock().unwrap().insert(digest, set);
        digest
    }

    pub(crate) async fn apply(
        &self,
        name: &str,
        files: &[(&str, &str)],
    ) -> Result<Observation, Failure> {
        self.apply_on(name, files, &[]).await
    }

    pub(crate) async fn apply_on(
        &self,
        name: &str,
        files: &[(&str, &str)],
        base: &[Digest],
    ) -> Result<Observation, Failure> {
        let order = order(self.put(files), Intent::Present);
        match self.appliers.apply(&key(name), &order, base, CancellationToken::new()).await {
            Outcome::Applied(seen) => Ok(seen),
            Outcome::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn check(&self, name: &str) -> Observation {
        match self.appliers.check(&key(name), CancellationToken::new()).await {
            Outcome::Checked(seen) => seen,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), Failure> {
        let order = order(Digest::of(b"irrelevant"), Intent::Absent);
        match self.appliers.remove(&key(name), &order, CancellationToken::new()).await {
            Outcome::Removed => Ok(()),
            Outcome::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn key(name: &str) -> PlacementKey {
    PlacementKey::new("default", name).unwrap()
}

pub(crate) fn order(digest: Digest, intent: Intent) -> Order {
    let options = [(option::PROMISE, "web"), (option::RESOURCE, "one")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Order { lane: Lane::App, digest, intent, options: options.into() }
}

/// Waits for something that happens by itself, for at most 30 seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

async fn open(dir: &Path, policy: &Policy, content: &Arc<Memory>) -> Appliers {
    let options = Options {
        state_dir: dir.to_owned(),
        destination: DestinationName::parse("vm-1").unwrap(),
        policy: policy.clone(),
        policy_file: dir.join("policy.yaml"),
        content: Arc::clone(content) as Arc<dyn ContentStore>,
    };
    Appliers::open(options).await.unwrap()
}
