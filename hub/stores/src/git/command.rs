//! Runs `git`: nothing of the user's configuration, no hooks, no questions, bounded in time and
//! output, and with its children ended when it is.

use std::{ffi::OsString, fs, io, path::PathBuf, process::Stdio, time::Duration};

use bytes::Bytes;
use muster_daemon::durable::private_dir;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// What a command asks, which says how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The disk alone.
    Disk,
    /// A server, for a few lines: a user should hear within half a minute that it does not answer.
    Probe,
    /// A server, for files.
    Transfer,
}

impl Asked {
    fn limit(self) -> Duration {
        match self {
            Self::Disk => Duration::from_secs(120),
            Self::Probe => Duration::from_secs(15),
            Self::Transfer => Duration::from_secs(300),
        }
    }
}

/// Most bytes of output that are kept: the names of thousands of branches or changed files.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;

/// Variables of the hub's that `git` needs: where programs are, and how the network is reached.
const INHERITED: [&str; 9] = [
    "PATH",
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "TMPDIR",
];

/// A repository on disk, and how `git` is run in it.
#[derive(Debug)]
pub(super) struct Git {
    repository: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be run at all.
    Run(io::Error),
    /// It took too long.
    Slow(Asked),
    /// It said no.
    Said {
        /// What it printed.
        stdout: String,
        /// What it complained of.
        stderr: String,
    },
}

/// Ends a process group unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Already gone is as good.
            let _gone = kill_process_group(group, Signal::KILL).is_err();
        }
    }
}

impl Git {
    pub(super) fn new(repository: PathBuf, environment: Vec<(OsString, OsString)>) -> Self {
        Self { repository, environment }
    }

    /// An empty directory for the repository: what an earlier life left is not trusted.
    pub(super) fn create(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.repository) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private_dir(&self.repository).map_err(|error| error.cause)
    }

    /// Runs it with this input; returns what it printed.
    pub(super) async fn run(
        &self,
        asked: Asked,
        args: &[&str],
        input: &[Bytes],
    ) -> Result<Vec<u8>, Failure> {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.repository).args(args);
        command.env_clear().envs(self.environment.iter().map(|(key, value)| (key, value)));
        let inherited = INHERITED.iter().filter_map(|key| Some((key, std::env::var_os(key)?)));
        command.envs(inherited).current_dir(&self.repository);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(Failure::Run)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let mut group = Group(id);
        let (mut stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async move {
            if let Some(stdin) = &mut stdin {
                for chunk in input {
                    stdin.write_all(chunk).await?;
                }
            }
            drop(stdin);
            Ok::<_, io::Error>(())
        };
        let all = async { tokio::join!(feed, read(stdout), read(stderr), child.wait()) };
        let Ok((fed, stdout, stderr, status)) = timeout(asked.limit(), all).await else {
            return Err(Failure::Slow(asked));
        };
        group.0 = None;
        let status = status.map_err(Failure::Run)?;
        if !status.success() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Err(Failure::Said { stdout: text(&stdout), stderr: text(&stderr) });
        }
        fed.map_err(Failure::Run)?;
        Ok(stdout)
    }
}

/// Reads to the end, and keeps the beginning.
async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let mut kept = Vec::new();
    // What cannot be read is not there; the exit status says whether that matters.
    let _short = (&mut from).take(OUTPUT_BYTES_MAX).read_to_end(&mut kept).await.is_err();
    let _rest = tokio::io::copy(&mut from, &mut tokio::io::sink()).await.is_err();
    kept
}
