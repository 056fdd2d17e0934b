//! What an executor is asked to run, and what it answers: one vocabulary for all of them.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

/// A pod about to run.
#[derive(Clone, Debug)]
pub struct PodLaunch {
    /// The Pod object's uid.
    pub uid: String,
    /// The name that `hostname` shows inside, at most 63 characters.
    pub hostname: String,
}

/// One container, all of its references resolved.
#[derive(Clone, Default)]
pub struct ContainerLaunch {
    /// Unique within the pod.
    pub name: String,
    /// Runs before this one, within the same pod.
    pub restart: i32,
    /// The image, as written in the pod.
    pub image: String,
    /// When to pull it.
    pub pull: Pull,
    /// Credentials for registries, in the form of docker's `config.json`.
    pub registry_auth: Option<String>,
    /// The program; empty for the image's own.
    pub command: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where it starts; the image's own if absent.
    pub working_dir: Option<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub limits: Limits,
    /// Whom it runs as.
    pub security: Security,
    /// How long it may take to end when it is told to.
    pub grace: Duration,
}

impl fmt::Debug for ContainerLaunch {
    /// Without environment and credentials, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerLaunch")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// A directory or file of this host at a path of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On this host.
    pub source: PathBuf,
    /// In the container, absolute.
    pub target: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Before each run.
    Always,
    /// If it is not there.
    #[default]
    IfAbsent,
    /// It must be there.
    Never,
}

/// `resources.limits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// What the pod's volumes may hold together, bytes.
    pub storage_bytes: Option<u64>,
}

/// The parts of `securityContext` that the runner knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `runAsUser`.
    pub user: Option<u32>,
    /// `runAsGroup`.
    pub group: Option<u32>,
    /// `runAsNonRoot`.
    pub non_root: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `capabilities.drop`.
    pub drop_capabilities: Vec<String>,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// Whether the kernel ended it because it used more memory than it may.
    pub out_of_memory: bool,
}

/// Why a pod or container could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The image cannot be had or not be run here. Trying again cannot help.
    #[error("image {image} cannot be run: {cause}; {cure}")]
    ImageNotRunnable {
        /// As written in the pod.
        image: String,
        /// Why not.
        cause: String,
        /// What to install or change.
        cure: String,
    },
    /// The container asks for something that contradicts itself or the image.
    #[error("container {container} cannot be created: {cause}")]
    Config {
        /// Which container.
        container: String,
        /// Why.
        cause: String,
    },
    /// The system or the engine failed; another try may succeed.
    #[error("{what}: {cause}")]
    Failed {
        /// What was tried.
        what: String,
        /// The answer.
        cause: String,
    },
}

impl LaunchError {
    pub(crate) fn failed(what: impl Into<String>, cause: &dyn std::error::Error) -> Self {
        let mut text = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        Self::Failed { what: what.into(), cause: text }
    }
}
