//! The hub's own containers: the hub's executable as a plain child, never for a user's image.

use std::{collections::BTreeMap, process::Stdio};

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::{
    adapter::{MOUNTS_VARIABLE, OWNER_VARIABLE},
    config::RunnerConfig,
    launch::{ContainerLaunch, Exit, LaunchError},
    logs::LogWriter,
};

/// Runs `own_exe pipeline ARGS` and waits for its end.
pub(crate) async fn run_adapter(
    config: &RunnerConfig,
    container: &ContainerLaunch,
    log: LogWriter,
    stop: &CancellationToken,
    started: impl FnOnce() + Send,
) -> Result<Exit, LaunchError> {
    let failed = |error: &dyn std::error::Error| {
        LaunchError::failed(format!("cannot run the hub's own container {}", container.name), error)
    };
    let mounts: BTreeMap<&str, String> = container
        .mounts
        .iter()
        .map(|mount| (mount.target.as_str(), mount.source.display().to_string()))
        .collect();
    let mounts = serde_json::to_string(&mounts).map_err(|error| failed(&error))?;
    let mut child = Command::new(&config.own_exe)
        .arg("pipeline")
        .args(&container.args)
        .env_clear()
        .envs(&container.env)
        // Outside the pod's network the API is where this host sees it.
        .env("KUBERNETES_SERVICE_HOST", config.api.address.ip().to_string())
        .env("KUBERNETES_SERVICE_PORT", config.api.address.port().to_string())
        .env(MOUNTS_VARIABLE, mounts)
        .env(OWNER_VARIABLE, "1")
        .current_dir("/")
        // Held open until the child is over; its end tells the child that the hub is gone.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    started();
    let _stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pumps = async {
        tokio::join!(
            async {
                if let Some(output) = stdout {
                    log.clone().pump(output).await;
                }
            },
            async {
                if let Some(output) = stderr {
                    log.clone().pump(output).await;
                }
            }
        )
    };
    let ended = async {
        pumps.await;
        child.wait().await
    };
    tokio::select! {
        status = ended => {
            let code = status.map_err(|error| failed(&error))?.code().unwrap_or(137);
            Ok(Exit { code, out_of_memory: false })
        }
        // Dropping the child kills it; it has nothing to clean up.
        () = stop.cancelled() => Ok(Exit { code: 137, out_of_memory: false }),
    }
}
