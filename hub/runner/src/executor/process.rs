//! Containers as sandboxed processes of this host. The image is not used; the pod says so.

use std::{
    convert::Infallible,
    fs::{self, File},
    os::fd::OwnedFd,
    path::PathBuf,
    time::Duration,
};

use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    ProbeError,
    cgroup::{Cgroups, Group, PROCESSES_MAX},
    network,
};
use crate::{
    config::RunnerConfig,
    launch::{ContainerLaunch, Exit, LaunchError, Limits, PodLaunch},
    logs::LogWriter,
    sandbox::{
        Fault, OpenPod, PodSession, RunContainer, SandboxLimits, SandboxMount, Zygote, ZygoteError,
    },
};

/// The user that a container sees itself as, unless it asks for another: "nonroot" of many images.
const DEFAULT_USER: u32 = 65532;
/// A container's own `/tmp` and `/dev/shm`, each, in memory.
const TMP_BYTES: u64 = 64 << 20;
/// Memory of a container that names no limit: Kratix's default for pipelines.
const MEMORY_BYTES: u64 = 256 << 20;
/// One file of the output, unless the container names an `ephemeral-storage` limit.
const FILE_BYTES: u64 = 256 << 20;
const OPEN_FILES: u64 = 1024;
/// What container engines set where the image sets nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) struct ProcessExecutor {
    zygote: Zygote,
    cgroups: Option<Cgroups>,
    config: RunnerConfig,
    stage: PathBuf,
}

impl ProcessExecutor {
    /// Runs a program in a sandbox, to know that it can be done.
    pub(super) async fn probe(config: &RunnerConfig) -> Result<Self, ProbeError> {
        let stage = config.data_dir.join("runner").join("stage");
        fs::create_dir_all(&stage).map_err(|source| ProbeError::Directory {
            path: stage.display().to_string(),
            source,
        })?;
        let executor = Self {
            zygote: Zygote::new(config.own_exe.clone(), Vec::new(), Vec::new()),
            cgroups: Cgroups::find(),
            config: config.clone(),
            stage,
        };
        executor.try_out().await.map_err(|error| match error {
            ZygoteError::Refused(fault) => {
                ProbeError::Sandbox { cause: fault.to_string(), cure: cure(&fault) }
            }
            other => ProbeError::Sandbox {
                cause: LaunchError::failed("the helper failed", &other).to_string(),
                cure: "start the hub again; if it persists, see its log".to_owned(),
            },
        })?;
        Ok(executor)
    }

    async fn try_out(&self) -> Result<(), ZygoteError> {
        let session = self.zygote.open_pod(&self.pod_request("muster-probe")).await?;
        let container = ContainerLaunch {
            name: "probe".to_owned(),
            command: vec!["sh".to_owned(), "-c".to_owned(), ":".to_owned()],
            ..ContainerLaunch::default()
        };
        let null = || File::options().write(true).open("/dev/null").map(OwnedFd::from);
        let output = [null().map_err(ZygoteError::Gone)?, null().map_err(ZygoteError::Gone)?];
        let (_, exit) = session.run(self.request(&container, &Group::default()), output).await?;
        let exit = exit.await.map_err(|_| {
            ZygoteError::Gone(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
        })?;
        if exit.code == Some(0) {
            return Ok(());
        }
        Err(ZygoteError::Refused(Fault {
            step: format!("run sh in the sandbox (it ended with {exit:?})"),
            errno: libc::ENOEXEC,
        }))
    }

    fn pod_request(&self, hostname: &str) -> OpenPod {
        OpenPod {
            hostname: hostname.to_owned(),
            own_network: !self.config.pipeline_network,
            isolated: true,
        }
    }

    pub(super) async fn open_pod(&self, pod: &PodLaunch) -> Result<ProcessPod, LaunchError> {
        let session = self
            .zygote
            .open_pod(&self.pod_request(&pod.hostname))
            .await
            .map_err(|error| LaunchError::failed("cannot open the pod's sandbox", &error))?;
        let api = network::serve_api(&session, &self.config)?;
        Ok(ProcessPod {
            uid: pod.uid.clone(),
            session,
            _api: api,
            cgroups: self.cgroups.clone(),
            template: self.template(),
        })
    }

    pub(super) fn remove_leftovers(&self) {
        // Processes ended with the earlier hub; of it, only empty control groups can be left.
        if let Some(cgroups) = &self.cgroups {
            cgroups.sweep();
        }
    }

    pub(super) fn describe(&self, container: &ContainerLaunch) -> String {
        let (memory, pids, cpu) =
            self.cgroups.as_ref().map_or((false, false, false), Cgroups::covers);
        let by = |group: bool| if group { "cgroup" } else { "rlimit" };
        let limits = effective(&container.limits);
        let cpu = match (cpu, container.limits.cpu_millis) {
            (true, Some(millis)) => format!("{millis}m (cgroup)"),
            (false, Some(_)) => "not limited (no writable cgroup)".to_owned(),
            (_, None) => "not limited".to_owned(),
        };
        format!(
            "run as a sandboxed process of the hub's host: image {} was not used; limits: memory {} \
             MiB ({}), processes {PROCESSES_MAX} ({}), cpu {cpu}, output {} MiB; no seccomp filter",
            container.image,
            limits.memory >> 20,
            by(memory),
            by(pids),
            limits.storage >> 20,
        )
    }

    fn template(&self) -> Template {
        Template {
            stage: self.stage.clone(),
            own_network: !self.config.pipeline_network,
            deadline: self.config.pod_deadline,
            memory_by_group: self.cgroups.as_ref().is_some_and(|groups| groups.covers().0),
        }
    }

    fn request(&self, container: &ContainerLaunch, group: &Group) -> RunContainer {
        self.template().request(container, group)
    }
}

struct Effective {
    memory: u64,
    storage: u64,
}

fn effective(limits: &Limits) -> Effective {
    Effective {
        memory: limits.memory_bytes.unwrap_or(MEMORY_BYTES),
        storage: limits.storage_bytes.unwrap_or(FILE_BYTES),
    }
}

/// What is the same for every container of this host.
struct Template {
    stage: PathBuf,
    own_network: bool,
    deadline: Duration,
    memory_by_group: bool,
}

impl Template {
    fn request(&self, container: &ContainerLaunch, group: &Group) -> RunContainer {
        let mut env = container.env.clone();
        env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
        env.entry("HOME".to_owned()).or_insert_with(|| "/".to_owned());
        let limits = effective(&container.limits);
        RunContainer {
            id: 0,
            argv: container.command.iter().chain(&container.args).cloned().collect(),
            env: env.into_iter().collect(),
            working_dir: container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            mounts: container
                .mounts
                .iter()
                .map(|mount| SandboxMount {
                    source: mount.source.clone(),
                    target: mount.target.clone(),
                    read_only: mount.read_only,
                })
                .collect(),
            uid: container.security.user.unwrap_or(DEFAULT_USER),
            gid: container.security.group.or(container.security.user).unwrap_or(DEFAULT_USER),
            limits: SandboxLimits {
                // With a control group, which counts what is used, not what is reserved.
                data_bytes: (!self.memory_by_group).then_some(limits.memory),
                processes: Some(PROCESSES_MAX),
                file_bytes: Some(limits.storage),
                cpu_seconds: Some(self.deadline.as_secs().max(1)),
                open_files: Some(OPEN_FILES),
                tmp_bytes: TMP_BYTES,
                cgroups: group.entrances(),
            },
            stage: self.stage.clone(),
            own_network: self.own_network,
        }
    }
}

/// A pod of sandboxed processes.
pub struct ProcessPod {
    uid: String,
    session: PodSession,
    _api: Option<DropGuard>,
    cgroups: Option<Cgroups>,
    template: Template,
}

impl ProcessPod {
    pub(super) async fn run(
        &self,
        container: &ContainerLaunch,
        log: LogWriter,
        stop: &CancellationToken,
        started: impl FnOnce() + Send,
    ) -> Result<Exit, LaunchError> {
        refuse_what_cannot_be(container)?;
        let failed = |error: &dyn std::error::Error| {
            LaunchError::failed(format!("cannot start container {}", container.name), error)
        };
        let group = match &self.cgroups {
            Some(cgroups) => {
                let name = format!("{}-{}-{}", self.uid, container.name, container.restart);
                let mut limits = container.limits;
                limits.memory_bytes = Some(effective(&limits).memory);
                cgroups.make(&name, &limits).map_err(|error| failed(&error))?
            }
            None => Group::default(),
        };
        let (stdout, stdout_in) = output_pipe().map_err(|error| failed(&error))?;
        let (stderr, stderr_in) = output_pipe().map_err(|error| failed(&error))?;
        let request = self.template.request(container, &group);
        let (id, mut exit) = self.session.run(request, [stdout_in, stderr_in]).await.map_err(
            |error| match error {
                ZygoteError::Refused(fault) => not_started(container, &fault),
                other => failed(&other),
            },
        )?;
        started();
        let pumps = async { tokio::join!(log.clone().pump(stdout), log.pump(stderr)) };
        let stopping = async {
            stop.cancelled().await;
            let _ = self.session.signal(id, Signal::TERM.as_raw()).await;
            tokio::time::sleep(container.grace).await;
            let _ = self.session.signal(id, Signal::KILL.as_raw()).await;
            std::future::pending::<Infallible>().await
        };
        let ended = async { tokio::join!(pumps, &mut exit).1 };
        let exit = tokio::select! {
            exit = ended => exit,
            never = stopping => match never {},
        };
        let exit = exit.map_err(|_| LaunchError::Failed {
            what: format!("container {} was lost", container.name),
            cause: "the pod's process ended".to_owned(),
        })?;
        let code = exit.code.or(exit.signal.map(|signal| 128 + signal)).unwrap_or(137);
        Ok(Exit { code, out_of_memory: code != 0 && group.out_of_memory() })
    }
}

/// What only an image can give.
fn refuse_what_cannot_be(container: &ContainerLaunch) -> Result<(), LaunchError> {
    if container.command.is_empty() {
        return Err(not_runnable(
            container,
            "as a sandboxed process its entrypoint is unknown, and the container sets no command",
        ));
    }
    if container.security.non_root && container.security.user == Some(0) {
        return Err(LaunchError::Config {
            container: container.name.clone(),
            cause: "runAsNonRoot is true and runAsUser is 0".to_owned(),
        });
    }
    Ok(())
}

fn not_started(container: &ContainerLaunch, fault: &Fault) -> LaunchError {
    let program = container.command.first().map_or("", String::as_str);
    if fault.errno == libc::ENOENT && fault.step == format!("run {program}") {
        let cause = format!("its program {program} is not in the sandbox, which has no image");
        return not_runnable(container, &cause);
    }
    LaunchError::Config { container: container.name.clone(), cause: fault.to_string() }
}

fn not_runnable(container: &ContainerLaunch, cause: &str) -> LaunchError {
    LaunchError::ImageNotRunnable {
        image: container.image.clone(),
        cause: cause.to_owned(),
        cure: "install podman (apt-get install podman) and start the hub with --executor podman"
            .to_owned(),
    }
}

fn output_pipe() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// What stands in the way, from the sysctls that are known to.
fn cure(fault: &Fault) -> String {
    let sysctl = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    if rustix::process::geteuid().is_root() {
        return "the hub runs as root but without the capabilities that namespaces need \
                (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID), as in most containers: \
                start that container with --privileged, or install podman and use --executor podman"
            .to_owned();
    }
    for (name, stops_at, wanted) in [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ] {
        if sysctl(name) == stops_at {
            return format!(
                "{name} is {stops_at}: set it with `sysctl -w {name}={wanted}`, or run the hub as \
                 root"
            );
        }
    }
    if fault.step.contains("/proc") {
        return "this host's /proc is partly hidden, as in a container: run the hub outside of it, \
                or start that container with --security-opt systempaths=unconfined"
            .to_owned();
    }
    "an AppArmor, SELinux or seccomp rule forbids user namespaces to the hub: allow them, or run the \
     hub as root"
        .to_owned()
}
