//! Drives the appliers: which of them a placement needs, in which order, and what to remember.
//!
//! Applied: Terraform, then Kubernetes, then scripts, since each may need what the one before made.
//! Removed: the other way round.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use muster_core::{
    Contents, DestinationName, Digest, Failure, FileSet, Held, Intent, Observation, Order, Outcome,
    PlacementKey,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Policy,
    applier::{Applier, Job, join},
    inventory::{Inventory, Record},
    kubernetes::{Kubernetes, KubernetesError},
    shell::Shell,
    split::{Parts, SplitError, split},
    terraform::Terraform,
};

/// Most file sets kept taken apart; beyond it they are read again when they are needed.
const PARTS_MAX: usize = 256;

/// The bytes that the agent has on its disk.
pub trait ContentStore: Send + Sync {
    /// The files of this digest, verified; `None` if they are not there.
    fn load(&self, digest: &Digest) -> Option<FileSet>;
}

/// What the appliers need.
#[derive(Clone)]
pub struct Options {
    /// The agent's state directory; the appliers use `inventory`, `scripts` and `terraform` in it.
    pub state_dir: PathBuf,
    /// Whom this agent feeds.
    pub destination: DestinationName,
    /// What may run.
    pub policy: Policy,
    /// Where the policy was read, for messages.
    pub policy_file: PathBuf,
    /// Where content is found.
    pub content: Arc<dyn ContentStore>,
}

/// Why the appliers cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The inventory cannot be read.
    #[error("cannot open the inventory in {dir}: {source}")]
    Inventory {
        /// Its directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The policy enables kubernetes, and no client can be made.
    #[error("the kubernetes applier cannot start: {0}")]
    Kubernetes(#[from] KubernetesError),
}

/// Every applier that the policy enables, and what they have applied.
#[derive(Clone)]
pub struct Appliers(Arc<Inner>);

struct Inner {
    /// In the order in which they apply.
    enabled: Vec<(&'static str, Box<dyn Applier>)>,
    inventory: Inventory,
    content: Arc<dyn ContentStore>,
    policy_file: PathBuf,
    parts: Mutex<BTreeMap<Digest, Arc<Parts>>>,
}

impl Appliers {
    /// Opens the inventory and makes the appliers. No target is reached yet.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let Options { state_dir, destination, policy, policy_file, content } = options;
        let dir = state_dir.join("inventory");
        let inventory =
            Inventory::open(&dir).map_err(|source| OpenError::Inventory { dir, source })?;
        let destination = destination.to_string();
        let mut enabled: Vec<(&'static str, Box<dyn Applier>)> = Vec::new();
        let shell_allowed = policy.appliers.shell.is_some();
        if let Some(policy) = policy.appliers.terraform {
            let dir = state_dir.join("terraform");
            let terraform = Terraform::new(dir, policy, shell_allowed, destination.clone());
            enabled.push(("terraform", Box::new(terraform)));
        }
        if let Some(policy) = policy.appliers.kubernetes {
            enabled.push(("kubernetes", Box::new(Kubernetes::connect(policy).await?)));
        }
        if shell_allowed {
            let shell = Shell::new(state_dir.join("scripts"), destination);
            enabled.push(("shell", Box::new(shell)));
        }
        let parts = Mutex::default();
        Ok(Self(Arc::new(Inner { enabled, inventory, content, policy_file, parts })))
    }

    /// What the inventory holds, for the plan to start from.
    pub fn held(&self) -> BTreeMap<PlacementKey, Held> {
        self.0.inventory.all().into_iter().map(|(key, record)| (key, record.held)).collect()
    }

    /// What these files are; the error says which file is wrong and why.
    pub fn contents(files: &FileSet) -> Result<Contents, Failure> {
        Ok(split(files)?.contents())
    }

    /// Makes the destination hold the order's files and nothing of an older version.
    pub async fn apply(
        &self,
        key: &PlacementKey,
        order: &Order,
        base: &[Digest],
        cancel: CancellationToken,
    ) -> Outcome {
        debug_assert_eq!(order.intent, Intent::Present);
        let (parts, base_parts) = match self.0.load_all(order.digest, base) {
            Ok(found) => found,
            Err(error) => return error.into(),
        };
        let job = Job {
            key: key.clone(),
            digest: Some(order.digest),
            parts,
            previous: self.0.previous(key),
            base: base_parts,
            options: order.options.clone(),
            cancel,
        };
        outcome(self.0.apply(&job, base).await.map(Outcome::Applied))
    }

    /// Removes all that may be there of a placement.
    pub async fn remove(
        &self,
        key: &PlacementKey,
        order: &Order,
        cancel: CancellationToken,
    ) -> Outcome {
        let job = Job::without_files(key, order.options.clone(), cancel);
        outcome(self.0.remove(&job).await.map(|()| Outcome::Removed))
    }

    /// Looks whether a placement is as applied, and how it is doing.
    pub async fn check(&self, key: &PlacementKey, cancel: CancellationToken) -> Outcome {
        outcome(self.0.check(key, cancel).await.map(Outcome::Checked))
    }
}

/// Why content cannot be taken apart.
enum LoadError {
    Missing(Digest),
    Unusable(SplitError),
}

impl From<LoadError> for Outcome {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Missing(digest) => Self::Missing(digest),
            LoadError::Unusable(error) => Self::Failed(error.into()),
        }
    }
}

fn outcome(result: Result<Outcome, Failure>) -> Outcome {
    result.unwrap_or_else(Outcome::Failed)
}

impl Job {
    fn without_files(
        key: &PlacementKey,
        options: BTreeMap<String, String>,
        cancel: CancellationToken,
    ) -> Self {
        let (digest, parts, previous, base) = (None, Arc::default(), None, Vec::new());
        Self { key: key.clone(), digest, parts, previous, base, options, cancel }
    }
}

impl Inner {
    async fn apply(&self, job: &Job, base: &[Digest]) -> Result<Observation, Failure> {
        let needs = job.parts.needs();
        self.refuse_missing(&needs, &job.key)?;
        let mut record = self.inventory.get(&job.key).unwrap_or_default();
        let before = record.appliers.clone();
        let claims = job.parts.contents().claims;
        record.held.applied = None;
        record.held.claims.extend(claims.iter().cloned());
        record.appliers.extend(needs.keys().map(|name| (*name).to_owned()));
        record.begun = job.digest;
        record.options = job.options.clone();
        self.put(&job.key, &record)?;

        // What an older version had of other appliers goes before its successor comes.
        let gone = self
            .enabled
            .iter()
            .rev()
            .filter(|(name, _)| before.contains(*name) && !needs.contains_key(name));
        for (name, applier) in gone {
            applier
                .remove(&Job::without_files(&job.key, job.options.clone(), job.cancel.clone()))
                .await?;
            record.appliers.remove(*name);
        }
        let mut seen = Vec::new();
        for (_, applier) in self.enabled.iter().filter(|(name, _)| needs.contains_key(name)) {
            seen.push(applier.apply(job).await?);
        }
        record.held = Held { applied: job.digest, base: base.to_vec(), claims };
        record.completed = job.digest;
        self.put(&job.key, &record)?;
        Ok(self.joined(seen, &job.parts))
    }

    async fn check(
        &self,
        key: &PlacementKey,
        cancel: CancellationToken,
    ) -> Result<Observation, Failure> {
        let Some(record) = self.inventory.get(key) else {
            let what = "nothing of it is in the agent's inventory";
            return Ok(Observation { drift: Some(what.to_owned()), ..Observation::default() });
        };
        let parts = record.begun.and_then(|digest| self.load(&digest).ok());
        let base = record.held.base.iter().filter_map(|digest| self.load(digest).ok()).collect();
        let job = Job {
            key: key.clone(),
            digest: record.begun,
            parts: parts.unwrap_or_default(),
            previous: None,
            base,
            options: record.options,
            cancel,
        };
        let mut seen = Vec::new();
        for (_, applier) in self.enabled.iter().filter(|(n, _)| record.appliers.contains(*n)) {
            seen.push(applier.check(&job).await?);
        }
        Ok(self.joined(seen, &job.parts))
    }

    async fn remove(&self, job: &Job) -> Result<(), Failure> {
        let record = self.inventory.get(&job.key).unwrap_or_default();
        let names: BTreeSet<&str> = self.enabled.iter().map(|(name, _)| *name).collect();
        if let Some(lost) = record.appliers.iter().find(|name| !names.contains(name.as_str())) {
            return Err(Failure::refused(
                "NoApplier",
                self.missing(lost, "has applied a part of it"),
            ));
        }
        // Each is asked, recorded or not: a cluster keeps its own inventory.
        for (_, applier) in self.enabled.iter().rev() {
            applier.remove(job).await?;
        }
        self.inventory.forget(&job.key).map_err(|error| inventory_failure(&error))
    }

    fn refuse_missing(
        &self,
        needs: &BTreeMap<&'static str, String>,
        key: &PlacementKey,
    ) -> Result<(), Failure> {
        let has = |name: &str| self.enabled.iter().any(|(enabled, _)| *enabled == name);
        match needs.iter().find(|(name, _)| !has(name)) {
            Some((name, file)) => {
                let what = format!("is needed for the file {file} of placement {key}");
                Err(Failure::refused("NoApplier", self.missing(name, &what)))
            }
            None => Ok(()),
        }
    }

    fn missing(&self, applier: &str, what: &str) -> String {
        format!(
            "the {applier} applier {what}, and this agent's policy does not enable it: \
             add `{applier}: {{}}` below `appliers` in {} and restart the agent, \
             or choose another destination",
            self.policy_file.display()
        )
    }

    fn joined(&self, seen: Vec<Observation>, parts: &Parts) -> Observation {
        let mut joined = join(seen);
        joined.unapplied_files.extend(parts.unapplied());
        joined
    }

    fn load_all(
        &self,
        digest: Digest,
        base: &[Digest],
    ) -> Result<(Arc<Parts>, Vec<Arc<Parts>>), LoadError> {
        let base = base.iter().map(|digest| self.load(digest)).collect::<Result<_, _>>()?;
        Ok((self.load(&digest)?, base))
    }

    fn previous(&self, key: &PlacementKey) -> Option<Arc<Parts>> {
        self.load(&self.inventory.get(key)?.completed?).ok()
    }

    /// Takes content apart, once.
    fn load(&self, digest: &Digest) -> Result<Arc<Parts>, LoadError> {
        // A panic while the map was held left it whole: every change is one insertion or clearing.
        let lock = || self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = lock().get(digest) {
            return Ok(Arc::clone(parts));
        }
        let files = self.content.load(digest).ok_or(LoadError::Missing(*digest))?;
        let parts = Arc::new(split(&files).map_err(LoadError::Unusable)?);
        let mut all = lock();
        if all.len() >= PARTS_MAX {
            all.clear();
        }
        all.insert(*digest, Arc::clone(&parts));
        Ok(parts)
    }

    fn put(&self, key: &PlacementKey, record: &Record) -> Result<(), Failure> {
        self.inventory.put(key, record).map_err(|error| inventory_failure(&error))
    }
}

fn inventory_failure(error: &io::Error) -> Failure {
    Failure::retried("AgentDisk", format!("cannot write the agent's inventory: {error}"))
}

impl std::fmt::Debug for Appliers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.0.enabled.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Appliers").field("enabled", &names).finish_non_exhaustive()
    }
}
