//! Runs `Script` documents, where the host's owner allows it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use muster_core::{Failure, Health, Observation, PlacementKey, report::OUTPUTS_LEN_MAX};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    applier::{Applier, Job, join},
    disk, options,
    process::{self, Ran, Run, RunError},
    script::{Look, Script},
};

/// The shell applier; see [`crate::script`] for what it runs.
#[derive(Debug)]
pub(crate) struct Shell {
    dir: PathBuf,
    destination: String,
}

/// What was applied, kept so that it can be looked at and removed without its content.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Applied {
    scripts: Vec<Script>,
    options: BTreeMap<String, String>,
    outputs: BTreeMap<String, Value>,
}

/// One command of one script.
struct Step<'a> {
    script: &'a Script,
    /// `apply`, `remove`, `health` or `drift`.
    action: &'static str,
    command: &'a [String],
    timeout: Duration,
}

impl Applier for Shell {
    fn apply<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        self.apply_scripts(job).boxed()
    }

    fn check<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Observation, Failure>> {
        self.check_scripts(job).boxed()
    }

    fn remove<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<(), Failure>> {
        self.remove_scripts(job).boxed()
    }
}

impl Shell {
    /// An applier that keeps its records in `dir`.
    pub(crate) fn new(dir: PathBuf, destination: String) -> Self {
        Self { dir, destination }
    }

    async fn apply_scripts(&self, job: &Job) -> Result<Observation, Failure> {
        let at = self.at(&job.key);
        at.clear_leftover().await?;
        let before = at.load()?;
        let scripts: Vec<Script> = job.parts.scripts.iter().map(|s| s.value.clone()).collect();
        if let Some(before) = before {
            // Scripts that are listed no more are undone with the files that they came with.
            let gone = |script: &&Script| scripts.iter().all(|kept| kept.name != script.name);
            for script in before.scripts.iter().rev().filter(gone) {
                self.undo(&at, script, &before.options, &job.cancel).await?;
            }
        }
        let mut applied =
            Applied { scripts, options: job.options.clone(), outputs: BTreeMap::new() };
        let files = &job.parts.data;
        at.prepare(&applied, files).map_err(|error| at.broken("cannot write its files", &error))?;

        let mut outputs = BTreeMap::new();
        for document in &job.parts.scripts {
            let script = &document.value;
            let (command, timeout) = (&script.spec.apply.command, script.spec.apply.timeout);
            let step = Step { script, action: "apply", command, timeout };
            let ran = self.run(&at, &step, &applied.options, &job.cancel).await;
            let ran = ran.map_err(|cause| {
                cause.into_failure(script, "apply", &format!(" ({})", document.place))
            })?;
            outputs.extend(read_outputs(script, &ran)?);
        }
        applied.outputs = outputs;
        at.save(&applied).map_err(|error| at.broken("cannot write its record", &error))?;

        let mut seen = self.look(&at, &applied, &["health"], &job.cancel).await?;
        // What was started a moment ago may need another one; the next look decides.
        if seen.health == Health::Degraded {
            seen.health = Health::Progressing;
        }
        (seen.drift, seen.recheck) = (None, None);
        Ok(seen)
    }

    async fn check_scripts(&self, job: &Job) -> Result<Observation, Failure> {
        let at = self.at(&job.key);
        at.clear_leftover().await?;
        match at.load()? {
            Some(applied) => self.look(&at, &applied, &["health", "drift"], &job.cancel).await,
            None => Ok(Observation {
                health: Health::Degraded,
                health_message: "the agent's record of its scripts is gone".to_owned(),
                drift: Some("the agent's record of its scripts is gone".to_owned()),
                ..Observation::default()
            }),
        }
    }

    async fn remove_scripts(&self, job: &Job) -> Result<(), Failure> {
        let at = self.at(&job.key);
        at.clear_leftover().await?;
        if let Some(applied) = at.load()? {
            for script in applied.scripts.iter().rev() {
                self.undo(&at, script, &applied.options, &job.cancel).await?;
            }
        }
        disk::remove_dir(&at.dir).map_err(|error| at.broken("cannot remove its files", &error))
    }

    async fn undo(
        &self,
        at: &At,
        script: &Script,
        options: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let Some(remove) = &script.spec.remove else { return Ok(()) };
        let (command, timeout) = (&remove.command, remove.timeout);
        let step = Step { script, action: "remove", command, timeout };
        let ran = self.run(at, &step, options, cancel).await;
        ran.map(|_| ()).map_err(|cause| cause.into_failure(script, "remove", ""))
    }

    /// Runs the looks of these kinds of every script, and judges by them.
    async fn look(
        &self,
        at: &At,
        applied: &Applied,
        kinds: &[&'static str],
        cancel: &CancellationToken,
    ) -> Result<Observation, Failure> {
        let mut all = Vec::new();
        for script in &applied.scripts {
            let mut seen = Observation { outputs: applied.outputs.clone(), ..Default::default() };
            seen.health_message = format!("script {} has no health command", script.name);
            let looks: [(_, Option<&Look>); 2] =
                [("health", script.spec.health.as_ref()), ("drift", script.spec.drift.as_ref())];
            for (action, look) in looks {
                let Some(look) = look.filter(|_| kinds.contains(&action)) else { continue };
                seen.recheck = seen.recheck.into_iter().chain([look.period]).min();
                let step = Step { script, action, command: &look.command, timeout: look.timeout };
                let bad = match self.run(at, &step, &applied.options, cancel).await {
                    Ok(ran) => {
                        seen.outputs.extend(read_outputs(script, &ran)?);
                        None
                    }
                    Err(Cause::Run(RunError::Cancelled)) => {
                        return Err(Failure::retried("Cancelled", "the look was cancelled"));
                    }
                    Err(cause) => Some(format!("script {}: {action} {cause}", script.name)),
                };
                seen.judge(action, bad);
            }
            all.push(seen);
        }
        Ok(join(all))
    }

    async fn run(
        &self,
        at: &At,
        step: &Step<'_>,
        options: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<Ran, Cause> {
        let mut env = step.script.spec.env.clone();
        env.extend(options::environment(&at.key, &self.destination, options));
        env.insert("MUSTER_ACTION".to_owned(), step.action.to_owned());
        env.insert("MUSTER_STATE_DIR".to_owned(), at.state().display().to_string());
        let run = Run {
            command: step.command,
            cwd: &at.files(),
            run_dir: &at.run(),
            env,
            timeout: step.timeout,
            grace: Duration::ZERO,
        };
        let ran = process::run(run, cancel).await.map_err(Cause::Run)?;
        if ran.ok() { Ok(ran) } else { Err(Cause::Exit(ran.words())) }
    }

    fn at(&self, key: &PlacementKey) -> At {
        At { dir: self.dir.join(disk::name(key)), key: key.clone() }
    }
}

/// Why a command is not a success.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Exit(String),
    #[error("{0}")]
    Run(RunError),
}

impl Cause {
    fn into_failure(self, script: &Script, action: &str, place: &str) -> Failure {
        let reason = match (&self, action) {
            (Self::Run(RunError::Cancelled), _) => "Cancelled",
            (Self::Run(RunError::Timeout(_)), _) => "ScriptTimeout",
            (_, "remove") => "RemoveFailed",
            _ => "ScriptFailed",
        };
        Failure::retried(reason, format!("script {}{place}: {action} {self}", script.name))
    }
}

/// Where one placement is kept.
struct At {
    dir: PathBuf,
    key: PlacementKey,
}

impl At {
    /// The working directory: the data files of the group, replaced with every version.
    fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// A directory that is the scripts' own until they are removed.
    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn record(&self) -> PathBuf {
        self.dir.join("applied.json")
    }

    async fn clear_leftover(&self) -> Result<(), Failure> {
        let cleared = process::clear_leftover(&self.run()).await;
        cleared.map(|_| ()).map_err(|error| self.broken("cannot end an earlier run", &error))
    }

    fn load(&self) -> Result<Option<Applied>, Failure> {
        let read = |error: io::Error| self.broken("cannot read its record", &error);
        match fs::read(self.record()) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| read(e.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(read(error)),
        }
    }

    /// The record first: what is not in it is never undone.
    fn prepare(&self, applied: &Applied, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        disk::private_dir(&self.state())?;
        self.save(applied)?;
        disk::replace_files(&self.files(), files)
    }

    fn save(&self, applied: &Applied) -> io::Result<()> {
        disk::write(&self.record(), &serde_json::to_vec(applied)?)
    }

    fn broken(&self, what: &str, error: &io::Error) -> Failure {
        Failure::retried("AgentDisk", format!("{what} in {}: {error}", Path::display(&self.dir)))
    }
}

trait Judge {
    /// Takes the verdict of a look: `bad` says what is wrong, if anything.
    fn judge(&mut self, action: &str, bad: Option<String>);
}

impl Judge for Observation {
    fn judge(&mut self, action: &str, bad: Option<String>) {
        match (action, bad) {
            ("health", None) => {
                self.health = Health::Healthy;
                self.health_message.clear();
            }
            (_, None) => {}
            (action, Some(message)) => {
                if action == "health" {
                    self.health = Health::Degraded;
                    self.health_message = message.clone();
                }
                self.drift.get_or_insert(message);
            }
        }
    }
}

/// A JSON object on standard output is what the script puts out; other text is for people.
fn read_outputs(script: &Script, ran: &Ran) -> Result<BTreeMap<String, Value>, Failure> {
    let Ok(outputs) = serde_json::from_slice::<BTreeMap<String, Value>>(&ran.stdout) else {
        return Ok(BTreeMap::new());
    };
    if ran.stdout.len() > OUTPUTS_LEN_MAX {
        let (name, size) = (&script.name, ran.stdout.len());
        let message =
            format!("script {name} put out {size} bytes of JSON, more than {OUTPUTS_LEN_MAX}");
        return Err(Failure::retried("OutputsTooLarge", message));
    }
    Ok(outputs)
}
