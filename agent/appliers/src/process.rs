//! One program at a time for a placement, whatever happens to the agent.
//!
//! Each run is a process group of its own, with a random mark in its environment. The group's number
//! is on disk before the program begins; a restarted agent ends what is left of that group before it
//! starts another. What wants to outlive its script starts a session of its own (`setsid`); all else
//! that a script leaves running in its group is ended with it.

mod group;
mod spawn;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _},
    os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::disk;
pub(crate) use group::clear_leftover;
use group::{Mark, Signal};

/// Most bytes that a run may write to its standard output and error; more ends it.
pub(crate) const OUTPUT_MAX: u64 = 8 << 20;
/// How often the size of the output is looked at.
const OUTPUT_LOOK: Duration = Duration::from_millis(200);

/// A program to run.
#[derive(Debug, Clone)]
pub(crate) struct Run<'a> {
    /// Program and arguments.
    pub(crate) command: &'a [String],
    /// Where it runs.
    pub(crate) cwd: &'a Path,
    /// Where the agent keeps its record and output of the run; one run at a time.
    pub(crate) run_dir: &'a Path,
    /// The whole environment, but for `PATH`, `HOME` and the mark.
    pub(crate) env: BTreeMap<String, String>,
    /// After which it is ended.
    pub(crate) timeout: Duration,
    /// How long it may take to end by itself after SIGINT; zero: it is killed at once.
    pub(crate) grace: Duration,
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// The first [`OUTPUT_MAX`] bytes that it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// As `stdout`, of standard error.
    pub(crate) stderr: Vec<u8>,
}

/// Why there is nothing to say of how a program ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// It does not exist or may not be run.
    #[error("cannot run {program:?}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// It took too long.
    #[error("it did not end within {0:?} and was killed")]
    Timeout(Duration),
    /// The agent was told to stop it.
    #[error("it was cancelled")]
    Cancelled,
    /// It wrote too much.
    #[error("it wrote more than {OUTPUT_MAX} bytes and was killed")]
    Output,
    /// The agent's own bookkeeping failed.
    #[error("{what}: {source}")]
    Record {
        /// What was attempted.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl Ran {
    /// Whether it exited with 0.
    pub(crate) fn ok(&self) -> bool {
        self.status.success()
    }

    /// How it ended, with the last line that it wrote, for a message.
    pub(crate) fn words(&self) -> String {
        let ended = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        match last_line(&self.stderr).or_else(|| last_line(&self.stdout)) {
            Some(line) => format!("{ended}: {line}"),
            None => ended,
        }
    }
}

/// Runs a program to its end, its timeout, or `cancel`; its group is gone when this returns, and is
/// killed if the returned future is dropped.
pub(crate) async fn run(run: Run<'_>, cancel: &CancellationToken) -> Result<Ran, RunError> {
    if cancel.is_cancelled() {
        return Err(RunError::Cancelled);
    }
    let record = |what| move |source| RunError::Record { what, source };
    disk::private_dir(run.run_dir).map_err(record("cannot make the run's directory"))?;
    let mark = Mark::new();
    let pid_file = group::begin(run.run_dir, &mark).map_err(record("cannot record the run"))?;
    let output = |name| open_output(&run.run_dir.join(name)).map_err(record("cannot open output"));
    let (stdout, stderr) = (output("stdout")?, output("stderr")?);

    let mut command = std::process::Command::new(run.command.first().map_or("", |word| word));
    command.args(run.command.iter().skip(1)).current_dir(run.cwd).env_clear();
    command.envs(inherited()).envs(&run.env).env(group::MARK_VARIABLE, mark.as_str());
    let clone = |file: &File| file.try_clone().map_err(record("cannot open output"));
    command.stdin(Stdio::null()).stdout(clone(&stdout)?).stderr(clone(&stderr)?);
    let child = spawn::spawn(command, pid_file).await;
    let program = || run.command.first().cloned().unwrap_or_default();
    let mut child = child.map_err(|source| {
        // Nothing began, so there is nothing to find after a restart.
        group::end(run.run_dir).ok();
        RunError::Start { program: program(), source }
    })?;

    let mut guard = group::Guard::new(run.run_dir, child.id(), mark);
    let ended = wait(&mut child, &run, cancel, [&stdout, &stderr]).await;
    guard.finish().await.map_err(record("cannot end the run's process group"))?;
    let status = ended?;
    let read = |file| read_output(file).map_err(record("cannot read output"));
    Ok(Ran { status, stdout: read(stdout)?, stderr: read(stderr)? })
}

async fn wait(
    child: &mut tokio::process::Child,
    run: &Run<'_>,
    cancel: &CancellationToken,
    outputs: [&File; 2],
) -> Result<ExitStatus, RunError> {
    let pid = child.id();
    let too_much = async {
        loop {
            tokio::time::sleep(OUTPUT_LOOK).await;
            let size = |file: &File| file.metadata().map_or(0, |meta| meta.len());
            if outputs.iter().any(|file| size(file) > OUTPUT_MAX) {
                return;
            }
        }
    };
    // Every arm only waits; whichever is dropped has changed nothing.
    let why = tokio::select! {
        status = child.wait() => {
            let what = "cannot wait for the program";
            return status.map_err(|source| RunError::Record { what, source });
        }
        () = tokio::time::sleep(run.timeout) => RunError::Timeout(run.timeout),
        () = cancel.cancelled() => RunError::Cancelled,
        () = too_much => RunError::Output,
    };
    if let (Some(pid), false) = (pid, run.grace.is_zero()) {
        group::signal(pid, Signal::INT).ok();
        tokio::time::timeout(run.grace, child.wait()).await.ok();
    }
    if let Some(pid) = child.id() {
        group::signal(pid, Signal::KILL).ok();
        child.wait().await.ok();
    }
    Err(why)
}

/// What every program needs of the agent's environment; nothing else of it is passed on.
fn inherited() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let default = std::iter::once(("PATH", PATH.into()));
    let own = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];
    default.chain(own.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
}

/// A file rather than a pipe: a daemon that kept it must not die with the agent, nor hold up its end.
fn open_output(path: &Path) -> io::Result<File> {
    disk::remove_dir_entry(path)?;
    OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)
}

fn read_output(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last line that says something, cut to a length that fits a message.
fn last_line(bytes: &[u8]) -> Option<String> {
    const LINE_MAX: usize = 400;
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(LINE_MAX).collect())
}

/// Finds a program as the system would: a path as it is, a name on `PATH`.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    let runnable = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return runnable(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| runnable(path))
}
