//! The hub's own containers: the adapter, run within the hub, never for a user's image.
//!
//! It acts with the pod's own token, through the same authorisation as from outside; only the exec
//! and the TLS connection of a process of its own are spared.

use std::{collections::BTreeMap, path::PathBuf};

use kube::Client;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    adapter::{self, AdapterArgs, AdapterError, PodView},
    launch::{ContainerLaunch, Exit, LaunchError},
    logs::LogWriter,
};

/// Runs the adapter as `container` says, and waits for its end.
pub(crate) async fn run_adapter(
    door: Client,
    container: &ContainerLaunch,
    log: LogWriter,
    stop: &CancellationToken,
    started: impl FnOnce() + Send,
) -> Result<Exit, LaunchError> {
    let mounts = container.mounts.iter();
    let mounts: BTreeMap<PathBuf, PathBuf> =
        mounts.map(|mount| (mount.target.clone().into(), mount.source.clone())).collect();
    let pod = PodView { env: container.env.clone(), mounts, door: Some(door) };
    let args = container.args.clone();
    // The end of the container, or of this future, ends the work too.
    let stop = stop.child_token();
    let _end = stop.clone().drop_guard();
    started();
    // It reads files, up to the output's limit of 32 MiB: not on a thread that serves others.
    let handle = Handle::current();
    let working = tokio::task::spawn_blocking(move || {
        handle.block_on(stop.run_until_cancelled(adapt(&pod, args)))
    });
    let ended = working.await.map_err(|error| {
        LaunchError::failed(format!("the hub's own container {} broke", container.name), &error)
    })?;
    let code = match ended {
        Some(Ok(said)) => {
            if let Some(said) = said {
                log.line(said.as_bytes());
            }
            0
        }
        Some(Err(error)) => {
            log.line(format!("error: {}", chain(&error)).as_bytes());
            1
        }
        None => 137,
    };
    Ok(Exit { code, out_of_memory: false })
}

async fn adapt(pod: &PodView, args: Vec<String>) -> Result<Option<String>, AdapterError> {
    adapter::run_in(pod, AdapterArgs::parse(args)?).await
}

/// An error and its causes in one line, as the command line prints them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
