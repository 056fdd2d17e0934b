//! The outer process: it holds the directory, waits for the inner one, and ends what is left.
//!
//! A subreaper (Linux, `prctl(PR_SET_CHILD_SUBREAPER)`) becomes the parent of every orphan below it,
//! so no daemon, however it detached, can leave the tree that is searched here.

use std::{
    collections::BTreeMap,
    fs, process,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::QuickstartArgs;

/// How long killed processes may take to go: one in an uninterruptible call must not hold us.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// Runs the inner process in a directory of its own and cleans up behind it, however it ended.
pub(super) fn run(args: &QuickstartArgs) -> anyhow::Result<ExitCode> {
    adopt_orphans()?;
    let directory = tempfile::Builder::new()
        .prefix("muster-quickstart-")
        .tempdir()
        .context("cannot make a temporary directory")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Passed on: the inner process ends first, also where Ctrl-C reaches only this one.
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("quickstart").arg("--inside").arg(directory.path());
    command.arg("--samples").arg(&args.samples);
    command.args(args.once.then_some("--once"));
    command.args(args.executor.map(|executor| format!("--executor={}", executor.name())));
    let mut inner = command.stdin(Stdio::piped()).spawn().context("cannot start anew")?;
    let pid = Pid::from_child(&inner);
    // Closed by our end, however it comes: so the inner process learns of it.
    let _held = inner.stdin.take();
    let status = runtime.block_on(async {
        let waited = tokio::task::spawn_blocking(move || inner.wait());
        tokio::pin!(waited);
        loop {
            tokio::select! {
                status = &mut waited => return status.map_err(std::io::Error::other).flatten(),
                _ = interrupt.recv() => drop(rustix::process::kill_process(pid, Signal::INT)),
                _ = terminate.recv() => drop(rustix::process::kill_process(pid, Signal::TERM)),
            }
        }
    });
    end_descendants();
    let code = status.context("cannot wait for the inner process")?.code();
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Makes this process the parent of every orphan below it.
pub(super) fn adopt_orphans() -> anyhow::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become a subreaper (Linux 3.4)")
}

/// Kills everything below this process and waits until it is gone.
pub(super) fn end_descendants() {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        let left = descendants();
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        for pid in left.into_iter().filter_map(Pid::from_raw) {
            // It may have ended since it was seen.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        thread::sleep(LOOK);
    }
}

/// Every process below this one, from `/proc`.
fn descendants() -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent_of(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![i32::try_from(process::id()).unwrap_or_default()];
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        next.extend(below);
    }
    found
}

/// The fourth field of `/proc/PID/stat`; the second may hold anything, in parentheses.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parent_behind_any_name() {
        assert_eq!(parent_of("12 (a) b) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of("12 (a"), None);
    }
}
