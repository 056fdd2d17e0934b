//! Process groups: which one is ours, and how it is ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

pub(super) use rustix::process::Signal;
use rustix::process::{Pid, kill_process_group};

use crate::disk;

/// The variable that carries a run's mark.
pub(super) const MARK_VARIABLE: &str = "MUSTER_RUN";
const RECORD: &str = "running";
/// Between looks whether a killed group is gone: the kernel needs microseconds, a disk sleep more.
const GONE_LOOK: Duration = Duration::from_millis(5);
/// After which a group that does not die is an error (a process in uninterruptible sleep).
const GONE_MAX: Duration = Duration::from_secs(30);

/// A random text that every process of a run has in its environment, so that a process group whose
/// number was used again is never taken for ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark(String);

impl Mark {
    pub(super) fn new() -> Self {
        // RandomState draws from the system's random source; 64 bits tell runs of one host apart.
        use std::hash::{BuildHasher as _, RandomState};
        let (one, two) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
        Self(format!("{one:016x}{two:016x}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Notes on disk that a run with this mark begins; the child appends its number to the file.
pub(super) fn begin(run_dir: &Path, mark: &Mark) -> io::Result<File> {
    let path = run_dir.join(RECORD);
    disk::remove_dir_entry(&path)?;
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", mark.0)?;
    Ok(file)
}

/// Notes that no run is in progress.
pub(super) fn end(run_dir: &Path) -> io::Result<()> {
    disk::remove_dir_entry(&run_dir.join(RECORD))
}

/// Ends what a run of an earlier life of the agent left behind. Returns whether there was anything.
pub(crate) async fn clear_leftover(run_dir: &Path) -> io::Result<bool> {
    let text = match fs::read_to_string(run_dir.join(RECORD)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text?,
    };
    let mut lines = text.lines();
    let mark = lines.next().unwrap_or_default().to_owned();
    // Without a number the program had not begun when its parent died, and so never will.
    let Some(pid) = lines.next().and_then(|line| line.parse().ok()) else {
        end(run_dir)?;
        return Ok(false);
    };
    let found = kill_marked(pid, &Mark(mark)).await?;
    end(run_dir)?;
    Ok(found)
}

/// Sends a signal to a process group.
pub(super) fn signal(group: u32, signal: Signal) -> io::Result<()> {
    let group = i32::try_from(group).ok().and_then(Pid::from_raw);
    let group = group.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process_group(group, signal)?)
}

/// Ends a run's group when the run ends, however it ends.
#[derive(Debug)]
pub(super) struct Guard<'a> {
    run_dir: &'a Path,
    group: Option<u32>,
    mark: Mark,
}

impl<'a> Guard<'a> {
    pub(super) fn new(run_dir: &'a Path, group: Option<u32>, mark: Mark) -> Self {
        Self { run_dir, group, mark }
    }

    /// Ends what is left of the group, waits until it is gone, and forgets the run.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        if let Some(group) = self.group {
            kill_marked(group, &self.mark).await?;
        }
        self.group = None;
        end(self.run_dir)
    }
}

impl Drop for Guard<'_> {
    /// The record stays: the next run of this placement waits for the group's end.
    fn drop(&mut self) {
        if let Some(group) = self.group {
            signal(group, Signal::KILL).ok();
        }
    }
}

/// Kills the processes of a group that carry the mark, until there are none.
async fn kill_marked(group: u32, mark: &Mark) -> io::Result<bool> {
    let deadline = tokio::time::Instant::now() + GONE_MAX;
    let mut found = false;
    // The cheap question first: most groups are gone with their leader.
    while signal_is_possible(group) && members(group, mark)? {
        found = true;
        signal(group, Signal::KILL).ok();
        if tokio::time::Instant::now() > deadline {
            let what = format!("process group {group} is still there {GONE_MAX:?} after SIGKILL");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        tokio::time::sleep(GONE_LOOK).await;
    }
    Ok(found)
}

fn signal_is_possible(group: u32) -> bool {
    let pid = i32::try_from(group).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process_group(pid).is_ok())
}

/// Whether the group has a living process with the mark.
fn members(group: u32, mark: &Mark) -> io::Result<bool> {
    let variable = format!("{MARK_VARIABLE}={}", mark.0);
    for entry in fs::read_dir("/proc")? {
        let dir = entry?.path();
        let is_process = dir.file_name().is_some_and(|n| n.as_encoded_bytes()[0].is_ascii_digit());
        if !is_process || !in_group(&dir, group) {
            continue;
        }
        let environment = fs::read(dir.join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a process belongs to a group and is not a zombie (proc_pid_stat(5), fields 3 and 5).
fn in_group(dir: &Path, group: u32) -> bool {
    let Ok(stat) = fs::read_to_string(dir.join("stat")) else { return false };
    // The name in parentheses may hold anything; the fields after it may not.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let mut fields = fields.split(' ');
    let state = fields.next();
    fields.next();
    let found = fields.next().and_then(|text| text.parse::<u32>().ok());
    !matches!(state, Some("Z" | "X")) && found == Some(group)
}
