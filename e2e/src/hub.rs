//! A hub under test.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{Kubectl, Process, free_port, program};

/// What runs pipelines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Executor {
    /// Sandboxed processes.
    #[default]
    Process,
    /// Containers, with podman.
    Podman,
}

/// How a hub is started.
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// What runs pipelines.
    pub executor: Executor,
    /// Further flags.
    pub flags: Vec<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// A running hub; ports stay the same over restarts.
#[derive(Debug)]
pub struct Hub {
    process: Process,
    directory: PathBuf,
    ports: (u16, u16),
    options: HubOptions,
    ready: Ready,
}

/// The line that `--print-json` prints.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    api: String,
    agents: String,
    kubeconfig: PathBuf,
}

impl Hub {
    /// Starts a hub with its data below `directory`.
    pub fn start(directory: &Path, executor: Executor) -> Self {
        Self::start_with(directory, HubOptions { executor, ..HubOptions::default() })
    }

    /// Starts a hub with further flags.
    pub fn start_with(directory: &Path, options: HubOptions) -> Self {
        let ports = (free_port(), free_port());
        let (process, ready) = launch(directory, ports, &options);
        Self { process, directory: directory.to_owned(), ports, options, ready }
    }

    /// Starts a hub that trusts the authorities in a file, instead of the machine's.
    pub fn start_trusting(
        directory: &Path,
        mut options: HubOptions,
        authorities: Option<&Path>,
    ) -> Self {
        let variable = |file: &Path| ("SSL_CERT_FILE".to_owned(), file.display().to_string());
        options.environment.extend(authorities.map(variable));
        Self::start_with(directory, options)
    }

    /// `kill -9`, then started again on the same data and ports.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// `kill -9`.
    pub fn crash(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and ports.
    pub fn restart(&mut self) {
        let (process, ready) = launch(&self.directory, self.ports, &self.options);
        self.process = process;
        self.ready = ready;
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) {
        self.process.end("TERM");
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The URL of its API.
    pub fn api(&self) -> &str {
        &self.ready.api
    }

    /// The address of its agents' door.
    pub fn agents(&self) -> &str {
        &self.ready.agents
    }

    /// Its admin's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.ready.kubeconfig
    }

    /// kubectl, as its admin.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.kubeconfig())
    }

    /// A `muster` command against its API.
    pub fn muster(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("muster"));
        command.env("KUBECONFIG", self.kubeconfig()).args(args);
        command
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("hub")
    }
}

fn launch(directory: &Path, ports: (u16, u16), options: &HubOptions) -> (Process, Ready) {
    let executor = match options.executor {
        Executor::Process => "process",
        Executor::Podman => "podman",
    };
    let mut command = Command::new(program("muster"));
    command
        .args(["hub", "--print-json", "--executor", executor])
        .arg("--data-dir")
        .arg(directory.join("hub"))
        .args(["--api-listen", &format!("127.0.0.1:{}", ports.0)])
        .args(["--agents-listen", &format!("127.0.0.1:{}", ports.1)])
        .args(&options.flags)
        .envs(options.environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped());
    let mut process = Process::start(&mut command, &directory.join("hub.log"));
    let line = process.first_line();
    let ready = serde_json::from_str(&line)
        .unwrap_or_else(|error| panic!("the hub printed {line:?}: {error}"));
    (process, ready)
}
