//! Where containers run: podman, docker, or processes in a sandbox of our own. One door for all.

mod cgroup;
mod engine;
mod network;
mod own;
mod process;

use std::{fmt, io, path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    config::RunnerConfig,
    launch::{ContainerLaunch, Exit, LaunchError, PodLaunch},
    logs::LogWriter,
};

/// Which executor the operator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutorKind {
    /// podman, with or without root.
    Podman,
    /// docker; only with the host's network.
    Docker,
    /// Sandboxed processes; images are not used.
    Process,
}

/// Why an executor cannot work on this host.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The program is not installed, or does not answer.
    #[error("{program} cannot be used: {cause}; {cure}")]
    Engine {
        /// `podman` or `docker`.
        program: &'static str,
        /// What it or the system said.
        cause: String,
        /// What to do.
        cure: String,
    },
    /// The kernel refuses what the sandbox needs.
    #[error("processes cannot be sandboxed on this host: {cause}; {cure}")]
    Sandbox {
        /// The step that failed.
        cause: String,
        /// The capability or sysctl that is missing.
        cure: String,
    },
    /// The runner's own directories cannot be made.
    #[error("cannot prepare {path}")]
    Directory {
        /// Which.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither podman nor docker is there, and processes must be chosen, never fallen into.
    #[error(
        "no way to run pipelines: {podman}; {docker}; install podman (apt-get install podman), or \
         start the hub with --executor process to run pipelines as sandboxed processes of this host"
    )]
    None {
        /// Why not podman.
        podman: Box<ProbeError>,
        /// Why not docker.
        docker: Box<ProbeError>,
    },
}

/// Runs pods on this host. Cheap to clone.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

enum Inner {
    Engine(engine::Engine),
    Process(process::ProcessExecutor),
    /// Why there is none.
    None(String),
}

impl Executor {
    /// Makes sure that `kind` works here, by running something in it.
    pub async fn probe(kind: ExecutorKind, config: &RunnerConfig) -> Result<Self, ProbeError> {
        for dir in ["runner", "pods", "logs"] {
            private_dir(&config.data_dir.join(dir))?;
        }
        let inner = match kind {
            ExecutorKind::Podman => Inner::Engine(engine::Engine::podman(config).await?),
            ExecutorKind::Docker => Inner::Engine(engine::Engine::docker(config).await?),
            ExecutorKind::Process => Inner::Process(process::ProcessExecutor::probe(config).await?),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The default: podman, else docker, never processes.
    pub async fn detect(config: &RunnerConfig) -> Result<Self, ProbeError> {
        let podman = match Self::probe(ExecutorKind::Podman, config).await {
            Ok(executor) => return Ok(executor),
            Err(error) => Box::new(error),
        };
        match Self::probe(ExecutorKind::Docker, config).await {
            Ok(executor) => Ok(executor),
            Err(error) => Err(ProbeError::None { podman, docker: Box::new(error) }),
        }
    }

    /// For a host where nothing can run pipelines: refuses every user container with what the
    /// probe found, so that the hub is of use for all else.
    pub fn none(error: &ProbeError) -> Self {
        Self(Arc::new(Inner::None(error.to_string())))
    }

    /// Which one this is, if there is one.
    pub fn kind(&self) -> Option<ExecutorKind> {
        match &*self.0 {
            Inner::Engine(engine) => Some(engine.kind()),
            Inner::Process(_) => Some(ExecutorKind::Process),
            Inner::None(_) => None,
        }
    }

    /// What users should know about how their containers run: the limits in force, and whether
    /// their image is used. Shown in the pod's status.
    pub fn describe(&self, container: &ContainerLaunch) -> String {
        match &*self.0 {
            Inner::Engine(engine) => engine.describe(container),
            Inner::Process(process) => process.describe(container),
            Inner::None(cause) => format!("not run: {cause}"),
        }
    }

    /// Makes what the pod's containers share. Dropping it ends all of them.
    pub async fn open_pod(&self, pod: &PodLaunch) -> Result<OpenPod, LaunchError> {
        Ok(match &*self.0 {
            Inner::Engine(engine) => OpenPod::Engine(engine.open_pod(pod).await?),
            Inner::Process(process) => OpenPod::Process(process.open_pod(pod).await?),
            Inner::None(cause) => OpenPod::None(cause.clone()),
        })
    }

    /// Ends and removes what an earlier hub of this data directory left running.
    pub async fn remove_leftovers(&self) -> Result<(), LaunchError> {
        match &*self.0 {
            Inner::Engine(engine) => engine.remove_leftovers().await,
            Inner::Process(process) => {
                process.remove_leftovers();
                Ok(())
            }
            Inner::None(_) => Ok(()),
        }
    }

    /// Removes a pod's directory, whoever owns what is in it.
    pub(crate) async fn remove_dir(&self, path: &Path) -> Result<(), LaunchError> {
        let failed = |error: io::Error| {
            LaunchError::failed(format!("cannot remove {}", path.display()), &error)
        };
        match tokio::fs::remove_dir_all(path).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match &*self.0 {
                // Files of podman's subordinate users are out of reach for an ordinary user.
                Inner::Engine(engine) => engine.remove_dir(path).await,
                Inner::Process(_) | Inner::None(_) => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executor({:?})", self.kind())
    }
}

/// What the containers of one pod share: its network, and for processes its namespaces.
pub enum OpenPod {
    /// With podman or docker.
    #[doc(hidden)]
    Engine(engine::EnginePod),
    /// As sandboxed processes.
    #[doc(hidden)]
    Process(process::ProcessPod),
    /// Nowhere, and why.
    #[doc(hidden)]
    None(String),
}

impl OpenPod {
    /// Runs a container to its end; `stop` ends it early, politely first. `started` is called when
    /// its program runs.
    pub async fn run(
        &self,
        container: &ContainerLaunch,
        log: LogWriter,
        stop: &CancellationToken,
        started: impl FnOnce() + Send,
    ) -> Result<Exit, LaunchError> {
        match self {
            Self::Engine(pod) => pod.run(container, log, stop, started).await,
            Self::Process(pod) => pod.run(container, log, stop, started).await,
            Self::None(cause) => Err(LaunchError::ImageNotRunnable {
                image: container.image.clone(),
                cause: cause.clone(),
                cure: "install podman, or start the hub with --executor process".to_owned(),
            }),
        }
    }
}

pub(crate) use own::run_adapter;

fn private_dir(path: &Path) -> Result<(), ProbeError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let failed = |source| ProbeError::Directory { path: path.display().to_string(), source };
    // Pods' volumes are open to every user inside: this keeps the users of the host out.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}
