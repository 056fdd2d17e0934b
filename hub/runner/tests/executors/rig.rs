//! What the tests share: a runner's settings in a directory of their own, and one way to run.

use std::{
    future::Future,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, TryStreamExt};
use muster_runner::{
    ApiAccess, ContainerLaunch, Executor, ExecutorKind, Exit, LaunchError, LogOptions, Logs, Mount,
    PodLaunch, RunnerConfig,
};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

pub(crate) type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Runs the tests whose names contain one of the filters; returns how many failed.
pub(crate) async fn run_all(tests: &[Test], filter: &[String]) -> usize {
    let mut failed = 0;
    for (name, test) in tests {
        if !filter.is_empty() && !filter.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let outcome = std::panic::AssertUnwindSafe(test()).catch_unwind().await;
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(outcome.is_err());
    }
    failed
}

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: RunnerConfig,
    pub(crate) executor: Executor,
    pub(crate) logs: Logs,
}

/// What the fake API of these tests answers to everybody who connects.
pub(crate) const GREETING: &str = "the API is here";

impl Rig {
    pub(crate) async fn new(kind: ExecutorKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let executor = Executor::probe(kind, &config).await.unwrap();
        let logs = Logs::new(&config.data_dir);
        Self { dir, config, executor, logs }
    }

    pub(crate) async fn run(
        &self,
        container: ContainerLaunch,
    ) -> Result<(Exit, String), LaunchError> {
        self.run_until(container, &CancellationToken::new()).await
    }

    pub(crate) async fn run_until(
        &self,
        container: ContainerLaunch,
        stop: &CancellationToken,
    ) -> Result<(Exit, String), LaunchError> {
        let uid = format!("{:08x}", rand::random::<u32>());
        let pod = PodLaunch { uid: uid.clone(), hostname: "the-pod".to_owned() };
        let open = self.executor.open_pod(&pod).await?;
        let log = self.logs.create(&uid, &container.name, 0).unwrap();
        let exit = open.run(&container, log, stop, || ()).await?;
        Ok((exit, self.log(&uid, &container.name).await))
    }

    pub(crate) async fn log(&self, uid: &str, container: &str) -> String {
        let stream = self.logs.open(uid, container, LogOptions::default()).unwrap();
        let chunks: Vec<_> = stream.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    /// A directory that containers may write to.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        let path = self.config.data_dir.join("pods").join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        path
    }
}

pub(crate) fn config(dir: &Path) -> RunnerConfig {
    // Nobody is there: these tests run no container of the hub's own.
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let door = kube::Client::try_from(nowhere).unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    let api = ApiAccess { address, door, ca_pem: String::new() };
    let serve = |listener: std::net::TcpListener, over: CancellationToken| {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Some(Ok((mut stream, _))) = over.run_until_cancelled(listener.accept()).await
            {
                let _ = stream.write_all(GREETING.as_bytes()).await;
            }
        });
    };
    let exe = std::env::current_exe().unwrap();
    RunnerConfig::new(dir.join("data"), exe, api, Arc::new(serve))
}

/// A shell script as a container.
pub(crate) fn script(text: &str) -> ContainerLaunch {
    ContainerLaunch {
        name: "main".to_owned(),
        image: "example.org/never-pulled:1".to_owned(),
        command: vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()],
        grace: Duration::from_millis(100),
        ..ContainerLaunch::default()
    }
}

pub(crate) fn mount(source: PathBuf, target: &str, read_only: bool) -> Mount {
    Mount { source, target: target.to_owned(), read_only }
}

/// This executable where every user can read it.
pub(crate) fn shared_copy_of_self(dir: &Path) -> PathBuf {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.join("executors");
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut file = std::fs::File::create(&copy).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}
