//! Runs `batch/v1` Jobs where no kubelet does: a Job becomes a Pod, a Pod's containers run with
//! podman, docker or as sandboxed processes, and `kubectl get pods` and `kubectl logs` show them.
//!
//! What it knows is Kubernetes' Job and Pod, nothing of Promises. What of a pod template it does
//! not do (`pod/support.rs`) is refused by name in the Job's status, never ignored.

pub mod adapter;
mod config;
mod executor;
mod job;
mod launch;
mod logs;
mod node;
mod pod;
mod runner;
mod sandbox;
mod slots;

pub use config::{ApiAccess, RunnerConfig, ServeApi, adapter_image};
pub use executor::{Executor, ExecutorKind, OpenPod, ProbeError};
pub use launch::{ContainerLaunch, Exit, LaunchError, Limits, Mount, PodLaunch, Pull, Security};
pub use logs::{LOG_BYTES_MAX, LogOptions, LogWriter, Logs};
pub use runner::{Runner, RunnerError};
pub use sandbox::sandbox_entry;
