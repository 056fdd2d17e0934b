//! What hub, zygote and pod process say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// To the zygote, with the pod's end of its control socket beside it: make a pod process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenPod {
    /// The name that `hostname` shows in the pod.
    pub(crate) hostname: String,
    /// A network namespace with the API on 127.0.0.1, or the network of the host.
    pub(crate) own_network: bool,
    /// Namespaces for containers to run in, or only the network for a container engine.
    pub(crate) isolated: bool,
}

/// To the pod process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToPod {
    /// Run a container; its stdout and stderr are beside the message.
    Run(Box<RunContainer>),
    /// Send a signal to the first process of a container.
    Signal { id: u32, signal: i32 },
}

/// One container, ready to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunContainer {
    pub(crate) id: u32,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: String,
    pub(crate) mounts: Vec<SandboxMount>,
    /// The user and group that the container sees itself as.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) limits: SandboxLimits,
    /// An empty directory on the host, where the new root is put together.
    pub(crate) stage: PathBuf,
    pub(crate) own_network: bool,
}

/// A directory or file of the host inside the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SandboxMount {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// The kernel's limits on a container: rlimits, and the control groups to enter.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SandboxLimits {
    /// `RLIMIT_DATA`, bytes.
    pub(crate) data_bytes: Option<u64>,
    /// `RLIMIT_NPROC`.
    pub(crate) processes: Option<u64>,
    /// `RLIMIT_FSIZE`, bytes.
    pub(crate) file_bytes: Option<u64>,
    /// `RLIMIT_CPU`, seconds.
    pub(crate) cpu_seconds: Option<u64>,
    /// `RLIMIT_NOFILE`.
    pub(crate) open_files: Option<u64>,
    /// Size of the private `/tmp` and `/dev/shm`, bytes.
    pub(crate) tmp_bytes: u64,
    /// The `cgroup.procs` files to enter.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// From the pod process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromPod {
    /// The namespaces stand. With a network of its own, the API's listener is beside the message.
    Ready { pid: i32 },
    /// The namespaces could not be made.
    Failed(Fault),
    /// The container's program is running.
    Started { id: u32 },
    /// The container's program could not be started.
    NotStarted { id: u32, fault: Fault },
    /// The container's first process ended, and with it every other one.
    Exited { id: u32, code: Option<i32>, signal: Option<i32> },
}

/// What could not be done, and the system's answer.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("cannot {step}: {}", std::io::Error::from_raw_os_error(*errno))]
pub(crate) struct Fault {
    pub(crate) step: String,
    pub(crate) errno: i32,
}

impl Fault {
    /// For `map_err`: names the step that failed.
    pub(crate) fn at<E: Into<std::io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |error| Self { step, errno: error.into().raw_os_error().unwrap_or(libc::EIO) }
    }
}
