//! A pod's way to the API: a listener inside its network namespace, served until the pod is over.

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{config::RunnerConfig, launch::LaunchError, sandbox::PodSession};

/// Has the API served inside the pod; the guard ends it.
pub(super) fn serve_api(
    session: &PodSession,
    config: &RunnerConfig,
) -> Result<Option<DropGuard>, LaunchError> {
    let Some(listener) = session.take_listener() else { return Ok(None) };
    listener
        .set_nonblocking(true)
        .map_err(|error| LaunchError::failed("cannot serve the API in the pod", &error))?;
    let over = CancellationToken::new();
    (config.serve_api)(listener, over.clone());
    Ok(Some(over.drop_guard()))
}
