//! Tasks with an owner: each has a name, its failure is heard, and its end is waited for.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{Instrument, debug, error, error_span, warn};

/// What the failure of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The process cannot go on without it: everything is asked to end.
    Shutdown,
    /// It is logged; everything else goes on.
    Log,
}

/// The first failure that ended everything.
#[derive(Debug, thiserror::Error)]
#[error("{task} failed: {cause:#}")]
pub struct TaskFailed {
    /// The task's name.
    pub task: &'static str,
    /// Why.
    pub cause: anyhow::Error,
}

/// Owns tasks. When the last clone of it is dropped, those that still run are dropped too.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Owner>);

struct Owner {
    tracker: TaskTracker,
    guards: TaskTracker,
    shutdown: CancellationToken,
    abort: CancellationToken,
    _abort_on_drop: DropGuard,
    failed: Arc<Mutex<Option<TaskFailed>>>,
}

impl Tasks {
    /// Tasks that are asked to end by `shutdown`, and that trigger it by [`OnError::Shutdown`].
    pub fn new(shutdown: CancellationToken) -> Self {
        let abort = CancellationToken::new();
        Self(Arc::new(Owner {
            tracker: TaskTracker::new(),
            guards: TaskTracker::new(),
            shutdown,
            _abort_on_drop: abort.clone().drop_guard(),
            abort,
            failed: Arc::default(),
        }))
    }

    /// The token that asks these tasks to end; give it to what they run.
    pub fn shutdown(&self) -> CancellationToken {
        self.0.shutdown.clone()
    }

    /// Runs `future` beside the caller. It should end soon after [`Tasks::shutdown`] is triggered.
    pub fn spawn<F>(&self, name: &'static str, on_error: OnError, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = self.watched(name, on_error, future);
        self.0.tracker.spawn(task);
    }

    /// Runs `future` until the owner is dropped; [`Tasks::join`] does not wait for it.
    pub fn spawn_guard<F>(&self, name: &'static str, on_error: OnError, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = self.watched(name, on_error, future);
        self.0.guards.spawn(task);
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.0.tracker.len()
    }

    /// Whether no task runs.
    pub fn is_empty(&self) -> bool {
        self.0.tracker.is_empty()
    }

    /// Waits until every task has ended; those that still run `limit` after the shutdown was
    /// triggered are dropped. Gives back the failure that triggered it, if one did.
    pub async fn join(&self, limit: Duration) -> Result<(), TaskFailed> {
        let owner = &self.0;
        owner.tracker.close();
        let late = async {
            owner.shutdown.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            () = owner.tracker.wait() => {}
            () = late => {
                warn!(tasks = owner.tracker.len(), ?limit, "Not ended in time: dropped");
                owner.abort.cancel();
                owner.tracker.wait().await;
            }
        }
        let failed = owner.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }

    fn watched<F>(
        &self,
        name: &'static str,
        on_error: OnError,
        future: F,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (shutdown, abort) = (self.0.shutdown.clone(), self.0.abort.clone());
        let failed = self.0.failed.clone();
        let task = async move {
            let ended = AssertUnwindSafe(future).catch_unwind();
            let result = tokio::select! {
                biased;
                () = abort.cancelled() => return,
                ended = ended => ended.unwrap_or_else(|panic| Err(panicked(&*panic))),
            };
            let Err(cause) = result else { return debug!("Ended") };
            match on_error {
                OnError::Log => warn!("Failed: {cause:#}"),
                OnError::Shutdown => {
                    error!("Failed, so everything ends: {cause:#}");
                    let mut first = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(TaskFailed { task: name, cause });
                    shutdown.cancel();
                }
            }
        };
        task.instrument(error_span!("task", name))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("running", &self.tracker.len()).finish_non_exhaustive()
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    anyhow::anyhow!("it panicked: {}", text.unwrap_or("(no message)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_needed_task_that_fails_ends_the_others_and_is_named() {
        let tasks = Tasks::new(CancellationToken::new());
        let shutdown = tasks.shutdown();
        tasks.spawn("patient", OnError::Log, async move {
            shutdown.cancelled().await;
            Ok(())
        });
        tasks.spawn("needed", OnError::Shutdown, async { anyhow::bail!("the disk is full") });
        let failed = tasks.join(Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(failed.to_string(), "needed failed: the disk is full");
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("needed", OnError::Shutdown, async { panic!("oh") });
        let failed = tasks.join(SOON).await.unwrap_err();
        assert_eq!(failed.to_string(), "needed failed: it panicked: oh");
    }

    #[tokio::test]
    async fn the_failure_of_another_task_is_only_logged() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("other", OnError::Log, async { anyhow::bail!("never mind") });
        tasks.join(SOON).await.unwrap();
        assert!(!tasks.shutdown().is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_in_time_is_dropped() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("stubborn", OnError::Log, std::future::pending());
        tasks.shutdown().cancel();
        tasks.join(SOON).await.unwrap();
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn nothing_outlives_its_owner() {
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("owned", OnError::Log, async move {
            std::future::pending::<()>().await;
            drop(alive);
            Ok(())
        });
        drop(tasks);
        assert!(ended.await.is_err());
    }
}
