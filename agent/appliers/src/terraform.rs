//! Runs Terraform, or OpenTofu: init, plan, apply, destroy, with one state for each placement.
//!
//! - The root module is the placement's files and those of its Promise's dependencies on this agent. A
//!   dependency alone has no root of its own: its files are part of every request's.
//! - A `backend` in the module wins; else the state is a file in the agent's own directory, backed up
//!   before each apply. Terraform writes it after every resource, so that a run that is killed has
//!   what was created in it, and the next one makes only the rest.
//! - Provisioners and the `external` data source run only where the policy enables shell.

mod diagnostics;
mod module;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use muster_core::{
    Failure, Health, Observation, PlacementKey, assignment::option, report::OUTPUTS_LEN_MAX,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    TerraformPolicy,
    applier::{Applier, Job},
    disk, options,
    process::{self, Ran, Run, RunError},
};

/// The file that sends the state to the agent's directory; an override file, which Terraform merges
/// over the module's own settings.
const BACKEND_FILE: &str = "muster_backend_override.tf";
/// Downloading providers over a slow line.
const INIT_MAX: Duration = Duration::from_secs(600);
const PLAN_MAX: Duration = Duration::from_secs(600);
/// Databases and clusters take their time.
const APPLY_MAX: Duration = Duration::from_secs(3600);
const OUTPUT_MAX: Duration = Duration::from_secs(60);
/// What Terraform may take to end in order, with its state saved, after SIGINT.
const GRACE: Duration = Duration::from_secs(60);
/// A plan asks every provider about every resource: often enough to notice drift within minutes.
const CHECK_PERIOD: Duration = Duration::from_secs(300);
/// Exit code of `plan -detailed-exitcode` when there is something to change.
const CHANGES: i32 = 2;

/// The terraform applier.
#[derive(Debug)]
pub(crate) struct Terraform {
    dir: PathBuf,
    policy: TerraformPolicy,
    shell_allowed: bool,
    destination: String,
}

impl Applier for Terraform {
    fn apply<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        self.apply_module(job).boxed()
    }

    fn check<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        self.check_module(job).boxed()
    }

    fn remove<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<(), Failure>> {
        self.destroy(job).boxed()
    }
}

impl Terraform {
    /// An applier that keeps modules and states in `dir`.
    pub(crate) fn new(
        dir: PathBuf,
        policy: TerraformPolicy,
        shell_allowed: bool,
        destination: String,
    ) -> Self {
        Self { dir, policy, shell_allowed, destination }
    }

    async fn apply_module(&self, job: &Job) -> Result<Observation, Failure> {
        if is_dependency(&job.options) {
            return Ok(part_of_requests());
        }
        let files = root_files(job)?;
        let asks = module::read(&files);
        self.refuse_shell(&asks)?;
        let at = self.begin(job).await?;
        at.check_state()?;
        at.prepare(&files, asks.backend).map_err(|e| at.broken("cannot write the module", &e))?;
        self.init(&at).await?;
        let plan = at.dir.join("plan").display().to_string();
        let out = format!("-out={plan}");
        let planned = self
            .terraform(
                &at,
                &["plan", "-input=false", "-json", "-detailed-exitcode", &out],
                PLAN_MAX,
            )
            .await?;
        match planned.status.code() {
            Some(0) => {}
            Some(CHANGES) => {
                at.back_up().map_err(|error| at.broken("cannot back the state up", &error))?;
                let arguments = ["apply", "-input=false", "-json", "-auto-approve", &plan];
                let applied = self.terraform(&at, &arguments, APPLY_MAX).await;
                at.keep_state().map_err(|error| at.broken("cannot keep the state", &error))?;
                succeed("apply", applied?)?;
            }
            _ => return Err(failed("plan", &planned)),
        }
        self.observe(&at, None).await
    }

    async fn check_module(&self, job: &Job) -> Result<Observation, Failure> {
        if is_dependency(&job.options) {
            return Ok(part_of_requests());
        }
        let at = self.begin(job).await?;
        at.check_state()?;
        let arguments = ["plan", "-input=false", "-json", "-detailed-exitcode", "-lock=false"];
        let planned = self.terraform(&at, &arguments, PLAN_MAX).await?;
        let drift = match planned.status.code() {
            Some(0) => None,
            Some(CHANGES) => Some(
                diagnostics::summary(&planned.stdout)
                    .unwrap_or_else(|| "what is there is not what was applied".to_owned()),
            ),
            _ => return Err(failed("plan", &planned)),
        };
        self.observe(&at, drift).await
    }

    async fn destroy(&self, job: &Job) -> Result<(), Failure> {
        let at = self.begin(job).await?;
        let gone = |error| at.broken("cannot remove the module", &error);
        // Without a root nothing was ever applied; without a state of ours nothing was created.
        if !at.root().exists() || (at.has_own_state() && !at.state().exists()) {
            return disk::remove_dir(&at.dir).map_err(gone);
        }
        at.check_state()?;
        self.init(&at).await?;
        at.back_up().map_err(|error| at.broken("cannot back the state up", &error))?;
        let arguments = ["apply", "-destroy", "-input=false", "-json", "-auto-approve"];
        let destroyed = self.terraform(&at, &arguments, APPLY_MAX).await;
        at.keep_state().map_err(|error| at.broken("cannot keep the state", &error))?;
        succeed("destroy", destroyed?)?;
        let left = succeed("state", self.terraform(&at, &["state", "list"], OUTPUT_MAX).await?)?;
        if let Some(left) = String::from_utf8_lossy(&left.stdout).lines().next() {
            let message = format!("destroy ended, and {left} is still in the state");
            return Err(Failure::retried("TerraformFailed", message));
        }
        disk::remove_dir(&at.dir).map_err(gone)
    }

    async fn init(&self, at: &At) -> Result<(), Failure> {
        let arguments = ["init", "-input=false", "-no-color"];
        succeed("init", self.terraform(at, &arguments, INIT_MAX).await?)?;
        // Modules that were downloaded may run programs, too.
        let mut files = BTreeMap::new();
        read_modules(&at.data().join("modules"), "", &mut files)
            .map_err(|error| at.broken("cannot read downloaded modules", &error))?;
        self.refuse_shell(&module::read(&files))
    }

    async fn observe(&self, at: &At, drift: Option<String>) -> Result<Observation, Failure> {
        let arguments = ["output", "-json", "-no-color"];
        let ran = succeed("output", self.terraform(at, &arguments, OUTPUT_MAX).await?)?;
        Ok(Observation {
            health: if drift.is_some() { Health::Degraded } else { Health::Healthy },
            health_message: drift.clone().unwrap_or_default(),
            outputs: read_outputs(&ran.stdout)?,
            drift,
            recheck: Some(CHECK_PERIOD),
            ..Observation::default()
        })
    }

    fn refuse_shell(&self, asks: &module::Asks) -> Result<(), Failure> {
        match &asks.shell {
            Some(what) if !self.shell_allowed => Err(Failure::refused(
                "NoApplier",
                format!(
                    "{what} runs a program, which this agent's policy does not allow: \
                     take it out, or enable the shell applier"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The placement's directory, with nothing running in it.
    async fn begin(&self, job: &Job) -> Result<At, Failure> {
        let mut env = options::environment(&job.key, &self.destination, &job.options);
        let passed = self.policy.environment.iter();
        env.extend(passed.filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))));
        let dir = self.dir.join(disk::name(&job.key));
        let at = At { dir, key: job.key.clone(), env, cancel: job.cancel.clone() };
        let cleared = process::clear_leftover(&at.run()).await;
        cleared.map_err(|error| at.broken("cannot end an earlier run", &error))?;
        Ok(at)
    }

    async fn terraform(
        &self,
        at: &At,
        arguments: &[&str],
        timeout: Duration,
    ) -> Result<Ran, Failure> {
        let program = self.program()?.display().to_string();
        let command: Vec<String> =
            std::iter::once(program).chain(arguments.iter().map(|a| (*a).to_owned())).collect();
        let mut env = at.env.clone();
        let cli_config = match &self.policy.cli_config {
            Some(path) => path.clone(),
            // A file of our own, and empty: no warning about a missing one, nothing of the user's.
            None => at.cli_config().map_err(|e| at.broken("cannot write the CLI settings", &e))?,
        };
        let own = [
            ("TF_IN_AUTOMATION", "1".to_owned()),
            ("TF_INPUT", "0".to_owned()),
            ("TF_CLI_CONFIG_FILE", cli_config.display().to_string()),
            ("TF_DATA_DIR", at.data().display().to_string()),
            // Both programs would otherwise ask their makers for newer versions.
            ("CHECKPOINT_DISABLE", "1".to_owned()),
        ];
        env.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let run = Run {
            command: &command,
            cwd: &at.root(),
            run_dir: &at.run(),
            env,
            timeout,
            grace: GRACE,
        };
        let action = arguments.first().copied().unwrap_or_default();
        process::run(run, &at.cancel).await.map_err(|error| {
            let reason = match &error {
                RunError::Cancelled => "Cancelled",
                RunError::Timeout(_) => "TerraformTimeout",
                _ => "TerraformFailed",
            };
            Failure::retried(reason, format!("terraform {action}: {error}"))
        })
    }

    fn program(&self) -> Result<PathBuf, Failure> {
        let names: Vec<PathBuf> = match &self.policy.program {
            Some(program) => vec![program.clone()],
            None => vec!["terraform".into(), "tofu".into()],
        };
        names.iter().find_map(|name| process::find(name)).ok_or_else(|| {
            let names: Vec<String> = names.iter().map(|name| name.display().to_string()).collect();
            let message = format!(
                "there is no program {} on this host: install it, \
                 or name it as `program` of the terraform applier in the policy file",
                names.join(" or ")
            );
            Failure::retried("NoProgram", message)
        })
    }
}

/// Where one placement is kept, and how its programs run.
struct At {
    dir: PathBuf,
    key: PlacementKey,
    env: BTreeMap<String, String>,
    cancel: CancellationToken,
}

impl At {
    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Terraform's own directory, outside the root so that it outlives a change of files.
    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state").join("terraform.tfstate")
    }

    fn has_own_state(&self) -> bool {
        self.root().join(BACKEND_FILE).exists()
    }

    fn prepare(&self, files: &BTreeMap<String, Vec<u8>>, own_backend: bool) -> io::Result<()> {
        disk::private_dir(&self.dir.join("state"))?;
        let mut files = files.clone();
        if !own_backend {
            let path = serde_json::to_string(&self.state().display().to_string())?;
            // JSON's escapes are HCL's, but for the marks of templates.
            let path = path.replace("${", "$${").replace("%{", "%%{");
            let text =
                format!("terraform {{\n  backend \"local\" {{\n    path = {path}\n  }}\n}}\n");
            files.insert(BACKEND_FILE.to_owned(), text.into_bytes());
        }
        disk::replace_files(&self.root(), &files)
    }

    fn cli_config(&self) -> io::Result<PathBuf> {
        let path = self.dir.join("cli.tfrc");
        if !path.exists() {
            disk::private_dir(&self.dir)?;
            disk::write(&path, b"")?;
        }
        Ok(path)
    }

    /// Refuses to go on from a state that was cut off while it was written.
    fn check_state(&self) -> Result<(), Failure> {
        let state = self.state();
        let bytes = match fs::read(&state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(|error| self.broken("cannot read the state", &error))?,
        };
        if serde_json::from_slice::<Value>(&bytes).is_ok() {
            return Ok(());
        }
        let message = format!(
            "the Terraform state {} of {} is damaged: restore it from {} and import what is newer",
            state.display(),
            self.key,
            self.backup().display()
        );
        Err(Failure::retried("StateDamaged", message))
    }

    fn backup(&self) -> PathBuf {
        self.state().with_added_extension("before-apply")
    }

    fn back_up(&self) -> io::Result<()> {
        match fs::read(self.state()) {
            Ok(bytes) => disk::write(&self.backup(), &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the state survive a crash of the host, and unreadable to others.
    fn keep_state(&self) -> io::Result<()> {
        match fs::File::open(self.state()) {
            Ok(file) => {
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
                file.sync_all()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn broken(&self, what: &str, error: &io::Error) -> Failure {
        Failure::retried("AgentDisk", format!("{what} in {}: {error}", self.dir.display()))
    }
}

fn is_dependency(options: &BTreeMap<String, String>) -> bool {
    options.contains_key(option::PROMISE) && !options.contains_key(option::RESOURCE)
}

fn part_of_requests() -> Observation {
    Observation {
        health: Health::Healthy,
        health_message: "its Terraform files are part of the root module of each request"
            .to_owned(),
        ..Observation::default()
    }
}

/// The placement's files, and those of the dependencies.
fn root_files(job: &Job) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut files = job.parts.terraform.clone();
    for (path, bytes) in job.base.iter().flat_map(|parts| &parts.terraform) {
        if files.get(path).is_some_and(|own| own != bytes) {
            let message = format!(
                "the file {path} is in a dependency and in the request, with other text: \
                 they are one root module, so rename one of them"
            );
            return Err(Failure::refused("InvalidFiles", message));
        }
        files.insert(path.clone(), bytes.clone());
    }
    if files.contains_key(BACKEND_FILE) {
        let message = format!("the name {BACKEND_FILE} is the agent's own: rename the file");
        return Err(Failure::refused("InvalidFiles", message));
    }
    Ok(files)
}

/// The `*.tf` files below a directory of downloaded modules.
fn read_modules(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_modules(&entry.path(), &format!("{path}/"), files)?;
        } else if path.ends_with(".tf") || path.ends_with(".tf.json") {
            files.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn succeed(action: &str, ran: Ran) -> Result<Ran, Failure> {
    if ran.ok() { Ok(ran) } else { Err(failed(action, &ran)) }
}

fn failed(action: &str, ran: &Ran) -> Failure {
    let told = diagnostics::errors(&ran.stdout, &ran.stderr).unwrap_or_else(|| ran.words());
    Failure::retried("TerraformFailed", format!("terraform {action}: {told}"))
}

/// The outputs, less the sensitive ones.
fn read_outputs(stdout: &[u8]) -> Result<BTreeMap<String, Value>, Failure> {
    let refuse = |message: String| Failure::retried("TerraformFailed", message);
    let all: BTreeMap<String, Value> = serde_json::from_slice(stdout)
        .map_err(|error| refuse(format!("terraform output cannot be read: {error}")))?;
    let open = all.into_iter().filter_map(|(name, mut output)| {
        let sensitive = output.get("sensitive").and_then(Value::as_bool).unwrap_or(true);
        (!sensitive).then(|| (name, output["value"].take()))
    });
    let open: BTreeMap<String, Value> = open.collect();
    let size = serde_json::to_vec(&open).map_or(0, |bytes| bytes.len());
    if size > OUTPUTS_LEN_MAX {
        let message = format!("the outputs are {size} bytes, more than {OUTPUTS_LEN_MAX}");
        return Err(Failure::retried("OutputsTooLarge", message));
    }
    Ok(open)
}
