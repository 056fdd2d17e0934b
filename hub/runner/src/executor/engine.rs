//! Containers with podman or docker, by their command line.
//!
//! Each container is created, started with its output attached, looked at and removed. Nothing
//! secret is in an argument: the environment goes by a file that only the hub's user may read.

mod probe;

use std::{
    ffi::OsString,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ExecutorKind, network};
use crate::{
    config::RunnerConfig,
    launch::{ContainerLaunch, Exit, LaunchError, PodLaunch, Pull},
    logs::LogWriter,
    sandbox::{OpenPod, PodSession, Zygote},
};

/// The label that tells this hub's containers from everybody else's.
const LABEL: &str = "dev.muster.hub";
/// Processes and threads of one container, as for sandboxed processes.
const PROCESSES_MAX: u64 = super::cgroup::PROCESSES_MAX;
/// An image is asked for this often: registries have bad moments, and a Job has few tries.
const PULL_ATTEMPTS: u32 = 3;
/// The wait after the first failed pull; it doubles.
const PULL_WAIT: Duration = Duration::from_secs(2);
/// No registry is slower than this; without it a dead one would hold a pod for ever.
const PULL_TIMEOUT: Duration = Duration::from_secs(600);

/// podman or docker, as it works on this host.
pub(super) struct Engine {
    kind: ExecutorKind,
    tool: Tool,
    zygote: Zygote,
    config: RunnerConfig,
}

/// How to call the program, found out by the probe.
#[derive(Clone, Debug)]
struct Tool {
    program: &'static str,
    /// Where it runs: what watches a container notes in its working directory that memory ran out.
    dir: PathBuf,
    /// Before the subcommand: `--runtime runc`.
    global: Vec<&'static str>,
    /// For `create`: ulimits that this host allows.
    create: Vec<&'static str>,
    /// Whether memory, CPU and process limits work.
    limits: bool,
    /// Whether it runs without root.
    rootless: bool,
    /// The value of [`LABEL`] for this data directory.
    label: String,
}

impl Engine {
    pub(super) fn kind(&self) -> ExecutorKind {
        self.kind
    }

    pub(super) fn describe(&self, container: &ContainerLaunch) -> String {
        let program = self.tool.program;
        if !self.tool.limits {
            return format!("run with {program}, which cannot limit memory and CPU on this host");
        }
        let memory = container.limits.memory_bytes;
        let memory = memory.map_or("not limited".to_owned(), |b| format!("{} MiB", b >> 20));
        let cpu = container.limits.cpu_millis;
        let cpu = cpu.map_or("not limited".to_owned(), |millis| format!("{millis}m"));
        format!("run with {program}; limits: memory {memory}, cpu {cpu}, processes {PROCESSES_MAX}")
    }

    pub(super) async fn open_pod(&self, pod: &PodLaunch) -> Result<EnginePod, LaunchError> {
        let mut opened = EnginePod {
            tool: self.tool.clone(),
            uid: pod.uid.clone(),
            hostname: pod.hostname.clone(),
            network: "host".to_owned(),
            env_dir: self.config.data_dir.join("pods").join(&pod.uid),
            _session: None,
            _api: None,
        };
        if self.config.pipeline_network {
            return Ok(opened);
        }
        let request =
            OpenPod { hostname: pod.hostname.clone(), own_network: true, isolated: false };
        let session = self
            .zygote
            .open_pod(&request)
            .await
            .map_err(|error| LaunchError::failed("cannot make the pod's network", &error))?;
        opened.network = format!("ns:/proc/{}/ns/net", session.pid());
        opened._api = network::serve_api(&session, &self.config)?;
        opened._session = Some(session);
        Ok(opened)
    }

    pub(super) async fn remove_leftovers(&self) -> Result<(), LaunchError> {
        let filter = self.tool.filter();
        let list = self.tool.output(&["ps", "--all", "--quiet", "--filter", &filter]).await?;
        let ids: Vec<&str> = list.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut args = vec!["rm", "--force", "--volumes"];
        args.extend(ids);
        self.tool.output(&args).await.map(drop)
    }

    pub(super) async fn remove_dir(&self, path: &Path) -> Result<(), LaunchError> {
        let path = path.display().to_string();
        self.tool.output(&["unshare", "rm", "-rf", "--", &path]).await.map(drop)
    }
}

impl Tool {
    fn filter(&self) -> String {
        format!("label={LABEL}={}", self.label)
    }

    fn command(&self, args: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new(self.program);
        command
            .current_dir(&self.dir)
            .args(&self.global)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the hub's terminal is for the hub, which ends pods in order.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Runs a subcommand; its standard output, or what it complained of.
    async fn output(&self, args: &[impl AsRef<std::ffi::OsStr>]) -> Result<String, LaunchError> {
        let first = args.first().map(|a| a.as_ref().to_string_lossy().into_owned());
        let what = format!("{} {}", self.program, first.unwrap_or_default());
        let output = self
            .command(args)
            .output()
            .await
            .map_err(|error| LaunchError::failed(what.clone(), &error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LaunchError::Failed { what, cause: complaint(&output.stderr) })
    }
}

/// The last line that is not a warning: what podman or docker finally failed with.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = lines().rfind(|line| !line.contains("level=warning"));
    told.or_else(|| lines().next_back()).unwrap_or("it failed without a word").to_owned()
}

/// A pod of podman's or docker's containers.
pub struct EnginePod {
    tool: Tool,
    uid: String,
    hostname: String,
    network: String,
    env_dir: PathBuf,
    _session: Option<PodSession>,
    _api: Option<DropGuard>,
}

impl EnginePod {
    pub(super) async fn run(
        &self,
        container: &ContainerLaunch,
        log: LogWriter,
        stop: &CancellationToken,
        started: impl FnOnce() + Send,
    ) -> Result<Exit, LaunchError> {
        tokio::select! {
            pulled = self.have_image(container) => pulled?,
            () = stop.cancelled() => return Ok(Exit { code: 137, out_of_memory: false }),
        }
        self.check_user(container).await?;
        let name = format!("muster-{}-{}-{}", self.uid, container.name, container.restart);
        let env_file = self.env_dir.join(format!("{}.env", container.name));
        let inherited = write_env(&env_file, container)?;
        let mut create = self.tool.command(&self.create_args(&name, container, &env_file)?);
        create.envs(inherited);
        let created = create.output().await;
        let _ = fs::remove_file(&env_file);
        let created = created.map_err(|error| {
            LaunchError::failed(format!("{} create", self.tool.program), &error)
        })?;
        if !created.status.success() {
            return Err(LaunchError::Config {
                container: container.name.clone(),
                cause: complaint(&created.stderr),
            });
        }
        // From here on it exists, and is removed however this ends.
        let _remove = Remove { tool: self.tool.clone(), name: name.clone() };
        started();
        self.attend(&name, container, log, stop).await
    }

    /// Starts it and stays until its end.
    async fn attend(
        &self,
        name: &str,
        container: &ContainerLaunch,
        log: LogWriter,
        stop: &CancellationToken,
    ) -> Result<Exit, LaunchError> {
        let what = format!("{} start", self.tool.program);
        let mut child = self
            .tool
            .command(&["start", "--attach", name])
            .spawn()
            .map_err(|error| LaunchError::failed(what.clone(), &error))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let pumps = async {
            let (out_log, err_log) = (log.clone(), log);
            tokio::join!(
                async move {
                    if let Some(output) = stdout {
                        out_log.pump(output).await;
                    }
                },
                async move {
                    if let Some(output) = stderr {
                        err_log.pump(output).await;
                    }
                }
            )
        };
        let stopping = async {
            stop.cancelled().await;
            let grace = container.grace.as_secs().to_string();
            let _ = self.tool.output(&["stop", "--time", &grace, name]).await;
            std::future::pending::<std::convert::Infallible>().await
        };
        let ended = async { tokio::join!(pumps, child.wait()).1 };
        let status = tokio::select! {
            status = ended => status.map_err(|error| LaunchError::failed(what.clone(), &error))?,
            never = stopping => match never {},
        };
        match status.code() {
            Some(0) => Ok(Exit { code: 0, out_of_memory: false }),
            _ => self.judge(name, container).await,
        }
    }

    /// Tells the container's own failure from the engine's.
    async fn judge(&self, name: &str, container: &ContainerLaunch) -> Result<Exit, LaunchError> {
        let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}";
        let state = self.tool.output(&["inspect", "--format", format, name]).await?;
        let mut fields = state.trim().splitn(4, ' ');
        let status = fields.next().unwrap_or_default().to_owned();
        let code = fields.next().and_then(|code| code.parse().ok()).unwrap_or(1);
        let out_of_memory = fields.next() == Some("true");
        let error = fields.next().unwrap_or_default().trim().to_owned();
        if status != "exited" {
            // Created but never run: its program is not in the image, or may not be executed.
            let program = container.command.first().map_or("its entrypoint", String::as_str);
            let cause = if error.is_empty() || error == "<no value>" {
                format!("{program} could not be started")
            } else {
                error
            };
            return Err(LaunchError::Config { container: container.name.clone(), cause });
        }
        Ok(Exit { code, out_of_memory })
    }

    async fn have_image(&self, container: &ContainerLaunch) -> Result<(), LaunchError> {
        let image = container.image.as_str();
        let present = self.tool.output(&["image", "inspect", image]).await.is_ok();
        let refuse = |cause: String| {
            Err(LaunchError::ImageNotRunnable {
                image: image.to_owned(),
                cause,
                cure: format!(
                    "check the name, log in with `{0} login`, or load it with `{0} load`",
                    self.tool.program
                ),
            })
        };
        match (container.pull, present) {
            (Pull::IfAbsent | Pull::Never, true) => return Ok(()),
            (Pull::Never, false) => {
                return refuse("it is not on this host, and imagePullPolicy is Never".to_owned());
            }
            (Pull::Always, _) | (Pull::IfAbsent, false) => {}
        }
        let mut wait = PULL_WAIT;
        let auth = self.auth_file(container)?;
        let auth_path = auth.as_ref().map(|file| file.path().display().to_string());
        let mut args = vec!["pull", "--quiet"];
        if let Some(path) = &auth_path {
            args.extend(["--authfile", path]);
        }
        args.push(image);
        for attempt in 1.. {
            let pull = self.tool.output(&args);
            let cause = match tokio::time::timeout(PULL_TIMEOUT, pull).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(LaunchError::Failed { cause, .. })) => cause,
                Ok(Err(error)) => return Err(error),
                Err(_) => format!("no answer within {} s", PULL_TIMEOUT.as_secs()),
            };
            if attempt == PULL_ATTEMPTS {
                return refuse(format!("it could not be pulled: {cause}"));
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Ok(())
    }

    /// Credentials go by a file that only the hub's user may read; it is gone after the pull.
    fn auth_file(
        &self,
        container: &ContainerLaunch,
    ) -> Result<Option<tempfile::NamedTempFile>, LaunchError> {
        let Some(auth) = &container.registry_auth else { return Ok(None) };
        if self.tool.program != "podman" {
            return Err(LaunchError::Config {
                container: container.name.clone(),
                cause: "imagePullSecrets need podman; log in with `docker login`".to_owned(),
            });
        }
        let failed = |error| LaunchError::failed("cannot write registry credentials", &error);
        fs::create_dir_all(&self.env_dir).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.env_dir).map_err(failed)?;
        file.write_all(auth.as_bytes()).map_err(failed)?;
        Ok(Some(file))
    }

    /// `runAsNonRoot` is a promise that only the image's own user can break.
    async fn check_user(&self, container: &ContainerLaunch) -> Result<(), LaunchError> {
        if !container.security.non_root {
            return Ok(());
        }
        let user = match container.security.user {
            Some(user) => user.to_string(),
            None => {
                let args = ["image", "inspect", "--format", "{{.Config.User}}", &container.image];
                let user = self.tool.output(&args).await?;
                user.trim().split(':').next().unwrap_or_default().to_owned()
            }
        };
        if matches!(user.as_str(), "" | "0" | "root") {
            return Err(LaunchError::Config {
                container: container.name.clone(),
                cause: "runAsNonRoot is true and the image runs as root; set runAsUser".to_owned(),
            });
        }
        Ok(())
    }

    fn create_args(
        &self,
        name: &str,
        container: &ContainerLaunch,
        env_file: &Path,
    ) -> Result<Vec<OsString>, LaunchError> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        add(&["create", "--name", name, "--label", &format!("{LABEL}={}", self.tool.label)]);
        add(&["--network", &self.network]);
        if self.network != "host" {
            add(&["--hostname", &self.hostname]);
        }
        add(&self.tool.create);
        if self.tool.limits {
            add(&["--pids-limit", &PROCESSES_MAX.to_string()]);
            if let Some(bytes) = container.limits.memory_bytes {
                add(&["--memory", &bytes.to_string()]);
            }
            if let Some(millis) = container.limits.cpu_millis {
                add(&["--cpus", &format!("{}.{:03}", millis / 1000, millis % 1000)]);
            }
        }
        let security = &container.security;
        if let Some(user) = security.user {
            let group = security.group.map_or_else(String::new, |group| format!(":{group}"));
            add(&["--user", &format!("{user}{group}")]);
        }
        if security.no_new_privileges {
            add(&["--security-opt", "no-new-privileges"]);
        }
        if security.read_only_root {
            add(&["--read-only"]);
        }
        for capability in &security.drop_capabilities {
            add(&["--cap-drop", capability]);
        }
        if let Some(dir) = &container.working_dir {
            add(&["--workdir", dir]);
        }
        for mount in &container.mounts {
            let source = mount.source.display().to_string();
            if source.contains(':') || mount.target.contains(':') {
                return Err(LaunchError::Config {
                    container: container.name.clone(),
                    cause: format!("a colon in {source} or {} cannot be mounted", mount.target),
                });
            }
            let mode = if mount.read_only { ":ro" } else { "" };
            add(&["--volume", &format!("{source}:{}{mode}", mount.target)]);
        }
        add(&["--env-file", &env_file.display().to_string()]);
        for name in container.env.iter().filter(|(_, value)| value.contains('\n')) {
            add(&["--env", name.0]);
        }
        if let Some(program) = container.command.first() {
            add(&["--entrypoint", program]);
        }
        add(&[&container.image]);
        args.extend(container.command.iter().skip(1).chain(&container.args).map(OsString::from));
        Ok(args)
    }
}

/// What the command line client reads for itself; a pipeline's value would break it.
fn is_the_clients(name: &str) -> bool {
    const OWN: [&str; 6] = ["PATH", "HOME", "TMPDIR", "USER", "LD_PRELOAD", "LD_LIBRARY_PATH"];
    OWN.contains(&name)
        || ["XDG_", "CONTAINER", "PODMAN", "DOCKER", "STORAGE_"].iter().any(|p| name.starts_with(p))
}

/// Writes the variables of one line to a file; returns the others, which such a file cannot hold:
/// the client passes them on from its own environment.
fn write_env(
    path: &Path,
    container: &ContainerLaunch,
) -> Result<Vec<(String, String)>, LaunchError> {
    let mut inherited = Vec::new();
    let mut text = String::new();
    for (name, value) in &container.env {
        if !value.contains('\n') {
            text.push_str(&format!("{name}={value}\n"));
        } else if is_the_clients(name) {
            return Err(LaunchError::Config {
                container: container.name.clone(),
                cause: format!("the variable {name} cannot have more than one line"),
            });
        } else {
            inherited.push((name.clone(), value.clone()));
        }
    }
    let failed = |error| LaunchError::failed(format!("cannot write {}", path.display()), &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(inherited)
}

/// Removes a container when its run is over, or given up.
struct Remove {
    tool: Tool,
    name: String,
}

impl Drop for Remove {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(self.tool.program);
        command
            .current_dir(&self.tool.dir)
            .args(&self.tool.global)
            .args(["rm", "--force", "--volumes", &self.name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Nobody waits for it: it takes podman longer to remove a container than to start one.
        if let Ok(mut child) = command.spawn() {
            std::thread::spawn(move || child.wait());
        }
    }
}
