//! An agent under test.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Hub, Process, program};

/// An enrolled, running agent.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    name: String,
    directory: PathBuf,
}

impl Agent {
    /// Enrols agent `name` with the command that the hub prints, and keeps it running.
    ///
    /// `kubeconfig` is the target of the kubernetes applier.
    pub fn join(
        hub: &Hub,
        directory: &Path,
        name: &str,
        labels: &[&str],
        appliers: &[&str],
        kubeconfig: Option<&Path>,
    ) -> Self {
        let mut args = vec!["agents", "token", "create", name];
        args.extend(labels.iter().flat_map(|label| ["--label", label]));
        args.extend(appliers.iter().flat_map(|applier| ["--applier", applier]));
        let output = hub.muster(&args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let join = String::from_utf8(output.stdout).unwrap();
        let state = directory.join(name);
        let mut extra = format!(" --state-dir '{}'", state.display());
        if let Some(kubeconfig) = kubeconfig {
            extra += &format!(" --kubeconfig '{}'", kubeconfig.display());
        }
        // The printed command as it stands, with this host's paths added to its first line.
        let (first, rest) = join.split_once(" <<").expect("the token comes on stdin");
        let script = format!("exec {first}{extra} <<{rest}");
        let path = directory.join(format!("{name}.join"));
        fs::File::create(&path).unwrap().write_all(script.as_bytes()).unwrap();
        let mut shell = Command::new("sh");
        shell.arg(&path).env("PATH", path_with_programs()).stdout(Stdio::null());
        let process = Process::start(&mut shell, &directory.join(format!("{name}.log")));
        let agent = Self { process, name: name.to_owned(), directory: directory.to_owned() };
        agent.wait_connected(hub);
        agent
    }

    /// Waits until the hub says that it is connected.
    pub fn wait_connected(&self, hub: &Hub) {
        let agent = format!("agent.fleet.muster.dev/{}", self.name);
        hub.kubectl().until(&["get", &agent, "-o", CONNECTED], |answer| answer == "True");
    }

    /// `kill -9`, to the agent alone: what it has started stays.
    pub fn crash(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its state.
    pub fn restart(&mut self) {
        let mut command = Command::new(program("muster-agent"));
        command.arg("run").arg("--state-dir").arg(self.state_dir()).stdout(Stdio::null());
        let log = self.directory.join(format!("{}.log", self.name));
        self.process = Process::start(&mut command, &log);
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

const CONNECTED: &str = r#"jsonpath={.status.conditions[?(@.type=="Connected")].status}"#;

fn path_with_programs() -> String {
    let programs = program("muster-agent").parent().unwrap().display().to_string();
    format!("{programs}:{}", std::env::var("PATH").unwrap_or_default())
}
