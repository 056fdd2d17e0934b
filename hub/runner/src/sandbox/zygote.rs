//! The zygote: a small process with one thread that clones pod processes for the hub.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, ExitCode, Stdio},
};

use rustix::process::{Pid, PidfdFlags, WaitOptions, getegid, geteuid, pidfd_open, waitpid};

use super::{
    frame,
    message::{Fault, FromPod, OpenPod},
    os, pod,
};

/// Serves the hub on the control socket, which is stdin, until the hub is gone.
///
/// Then it becomes `last_will`: the command that ends what a container engine runs for the hub.
pub(super) fn run(last_will: &[String]) -> ExitCode {
    match serve() {
        Ok(()) => match last_will.split_first() {
            None => ExitCode::SUCCESS,
            Some((program, args)) => {
                let error = Command::new(program).args(args).stderr(Stdio::null()).exec();
                eprintln!("sandbox: cannot run {program}: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    // A descriptor of its own, closed on exec; stdin is for nobody from here on.
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    os::become_standard(&null.into(), 0)?;
    let user = (geteuid().as_raw(), getegid().as_raw());
    let mut pods: Vec<(Pid, OwnedFd)> = Vec::new();
    loop {
        let ready = {
            let mut fds = vec![control.as_fd()];
            fds.extend(pods.iter().map(|(_, pidfd)| pidfd.as_fd()));
            os::wait_readable(&fds)?
        };
        let mut ended = ready[1..].iter();
        pods.retain(|(pid, _)| {
            let over = ended.next() == Some(&true);
            if over {
                // Its status went to the hub over the pod's own socket; this only buries it.
                let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
            }
            !over
        });
        if !ready[0] {
            continue;
        }
        // The end of the socket is the end of the hub. Pods notice by themselves, and by the
        // death signal that they asked for.
        let Some((request, mut fds)) = frame::receive::<OpenPod>(&control)? else { return Ok(()) };
        let Some(socket) = fds.pop() else { continue };
        match os::clone_into(namespaces(&request)) {
            Ok(None) => {
                drop(control);
                drop(pods);
                pod::run(request, socket, user)
            }
            Ok(Some(pid)) => pods.push((pid, pidfd_open(pid, PidfdFlags::empty())?)),
            Err(error) => {
                let fault = Fault::at("make the pod's namespaces")(error);
                let _ = frame::send(&socket, &FromPod::Failed(fault), &[]);
            }
        }
    }
}

/// Root makes the namespaces as root, so that a pod's mounts can be made from directories that only
/// root may enter; everybody else needs a user namespace to be allowed the others.
fn namespaces(request: &OpenPod) -> i32 {
    let mut flags = 0;
    if !geteuid().is_root() {
        flags |= libc::CLONE_NEWUSER;
    }
    if request.own_network {
        flags |= libc::CLONE_NEWNET;
    }
    if request.isolated {
        flags |= libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    }
    flags
}
