//! Starts a child that dies with the agent and has written down who it is before it becomes the
//! program.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    process::Command,
    sync::{OnceLock, mpsc},
};

use rustix::process::{Pid, getpid, getppid, set_parent_process_death_signal};
use tokio::{process::Child, sync::oneshot};

use super::group::Signal;

type Job = Box<dyn FnOnce() + Send>;

/// Starts `command` in a process group of its own; `pid_file` gets the group's number first.
pub(super) async fn spawn(mut command: Command, pid_file: File) -> io::Result<Child> {
    let agent = getpid();
    command.process_group(0);
    prepare(&mut command, pid_file, agent);
    let (answer, started) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let job = move || {
        let _inside = runtime.enter();
        let mut command = tokio::process::Command::from(command);
        answer.send(command.kill_on_drop(true).spawn()).ok();
    };
    parent().send(Box::new(job)).map_err(|_| io::Error::other("the spawning thread has ended"))?;
    started.await.map_err(|_| io::Error::other("the spawning thread has ended"))?
}

/// The thread that is the parent of every child. A child gets its death signal when its parent
/// *thread* ends (prctl(2), PR_SET_PDEATHSIG), and threads of the runtime come and go.
fn parent() -> &'static mpsc::SyncSender<Job> {
    /// Starts in the queue; beyond, callers wait: there are never more than actions in flight.
    const STARTS_MAX: usize = 64;
    static PARENT: OnceLock<mpsc::SyncSender<Job>> = OnceLock::new();
    PARENT.get_or_init(|| {
        let (sender, jobs) = mpsc::sync_channel::<Job>(STARTS_MAX);
        let work = move || jobs.into_iter().for_each(|job| job());
        let thread = std::thread::Builder::new().name("spawn".to_owned()).spawn(work);
        // Without the thread the channel is closed, and every spawn says so.
        drop(thread);
        sender
    })
}

#[allow(unsafe_code, reason = "only code between fork and exec can tie a child to its parent")]
fn prepare(command: &mut Command, pid_file: File, agent: Pid) {
    let in_child = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The agent may have died before the line above.
        if getppid() != Some(agent) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        let mut digits = [0u8; 10];
        let digits = decimal(getpid().as_raw_nonzero().get().unsigned_abs(), &mut digits);
        rustix::io::write(&pid_file, digits)?;
        Ok(())
    };
    // SAFETY: the closure makes only async-signal-safe system calls and does not allocate.
    unsafe { command.pre_exec(in_child) };
}

/// Writes a number without allocating.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}
