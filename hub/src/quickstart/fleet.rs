//! The hub and the agents of the quickstart: started as a user would start them, ended in order.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::args::{ClientArgs, ExecutorArg};

/// How long the hub may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long programs may take to end when asked.
const END_WITHIN: Duration = Duration::from_secs(12);

/// An agent to join.
pub(super) struct AgentPlan {
    /// Its name, and its destination's.
    pub(super) name: &'static str,
    /// The value of its destination's label `platform`.
    pub(super) platform: &'static str,
    /// What it may apply.
    pub(super) applier: &'static str,
}

/// What runs, below one directory.
pub(super) struct Fleet {
    directory: PathBuf,
    kubeconfig: PathBuf,
    hub: Option<Child>,
    agents: Vec<Child>,
}

/// What of the line of `--print-json` is used.
#[derive(Deserialize)]
struct Ready {
    kubeconfig: PathBuf,
}

impl Fleet {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            kubeconfig: PathBuf::new(),
            hub: None,
            agents: Vec::new(),
        }
    }

    /// Where everything is kept.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How to reach the hub, once it is ready.
    pub(super) fn client(&self) -> ClientArgs {
        ClientArgs { kubeconfig: Some(self.kubeconfig.clone()) }
    }

    /// Starts the hub. Unless told otherwise its pipelines are sandboxed processes, which need no
    /// image; where the host allows none, containers.
    pub(super) async fn start_hub(&mut self, executor: Option<ExecutorArg>) -> anyhow::Result<()> {
        let Err(first) = self.try_hub(executor.or(Some(ExecutorArg::Process))).await else {
            return Ok(());
        };
        if executor.is_some() {
            return Err(first);
        }
        println!("pipelines cannot run as sandboxed processes here, trying containers: {first:#}");
        self.try_hub(None).await
    }

    async fn try_hub(&mut self, executor: Option<ExecutorArg>) -> anyhow::Result<()> {
        let log = self.directory.join("hub.log");
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["hub", "--print-json", "--data-dir"])
            .arg(self.directory.join("hub"))
            .args(["--api-listen", "127.0.0.1:0", "--agents-listen", "127.0.0.1:0"])
            .args(executor.map(|executor| format!("--executor={}", executor.name())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut hub = command.spawn().context("cannot start the hub")?;
        let stdout = hub.stdout.take().context("the hub has no stdout")?;
        self.hub = Some(hub);
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let read = timeout(READY_WITHIN, stdout.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(length)) if length > 0) {
            bail!("the hub did not start: {}", last_line(&log));
        }
        let ready: Ready = serde_json::from_str(&line).context("the hub printed no JSON")?;
        self.kubeconfig = ready.kubeconfig;
        Ok(())
    }

    /// Makes a token and runs the command that is printed for it.
    pub(super) async fn join_agent(&mut self, plan: &AgentPlan) -> anyhow::Result<()> {
        let program = std::env::current_exe()?;
        let output = Command::new(&program)
            .args(["agents", "token", "create", plan.name, "--applier", plan.applier])
            .args(["--label", &format!("platform={}", plan.platform)])
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .output()
            .await?;
        if !output.status.success() {
            bail!("no token for agent {}: {}", plan.name, String::from_utf8_lossy(&output.stderr));
        }
        let join = String::from_utf8(output.stdout)?;
        let (command, token) = join.split_once(" <<").context("the token is not on stdin")?;
        let mut script = format!("exec {command} --state-dir \"$1\"");
        if plan.applier == "kubernetes" {
            script.push_str(" --kubeconfig \"$2\"");
        }
        script.push_str(&format!(" <<{token}"));
        let beside = program.parent().context("this program has no directory")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let agent = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg("sh")
            .arg(self.directory.join("agents").join(plan.name))
            .arg(&self.kubeconfig)
            .env("PATH", format!("{}:{path}", beside.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.directory.join(format!("agent-{}.log", plan.name)))?)
            .spawn()
            .with_context(|| format!("cannot start agent {}", plan.name))?;
        self.agents.push(agent);
        Ok(())
    }

    /// Waits for as long as the hub serves.
    pub(super) async fn until_hub_ends(&mut self) -> anyhow::Result<()> {
        if let Some(hub) = &mut self.hub {
            let status = hub.wait().await?;
            bail!("the hub ended ({status}): {}", last_line(&self.directory.join("hub.log")));
        }
        Ok(())
    }

    /// Asks everything to end, agents first, and kills what does not.
    pub(super) async fn end(&mut self) {
        let all: Vec<_> = self.agents.drain(..).chain(self.hub.take()).collect();
        for child in &all {
            let pid = child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        for mut child in all {
            if timeout(END_WITHIN, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().rfind(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned()
}
