//! The pod process: holds the pod's namespaces, listens for the API, clones the containers.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    mount::MountPropagationFlags,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open,
        set_parent_process_death_signal, waitpid,
    },
};

use super::{
    container, frame,
    message::{Fault, FromPod, OpenPod, RunContainer, ToPod},
    os,
};
use crate::config::POD_API_PORT;

/// A container's first process.
struct Running {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Becomes the pod process; ends with the socket's other end.
///
/// `outside` are user and group of the zygote: in a new user namespace they cannot be asked for.
pub(super) fn run(request: OpenPod, socket: OwnedFd, outside: (u32, u32)) -> ! {
    match prepare(&request, outside) {
        Err(fault) => {
            let _ = frame::send(&socket, &FromPod::Failed(fault), &[]);
            os::exit_now(1)
        }
        Ok((pid, listener)) => {
            let fds: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
            if frame::send(&socket, &FromPod::Ready { pid }, &fds).is_err() {
                os::exit_now(1);
            }
            drop(fds);
            // The hub has the listener now; a copy here would keep the port open behind its back.
            drop(listener);
            let code = i32::from(serve(&socket).is_err());
            os::exit_now(code)
        }
    }
}

fn prepare(request: &OpenPod, outside: (u32, u32)) -> Result<(i32, Option<TcpListener>), Fault> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Fault::at("follow the zygote"))?;
    // /proc still shows the host's processes: this is the pid by which the host knows us.
    let link = std::fs::read_link("/proc/self").map_err(Fault::at("read /proc/self"))?;
    let pid = link.to_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    if outside.0 != 0 {
        map_user((0, 0), outside)?;
    }
    if request.isolated {
        rustix::mount::mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .map_err(Fault::at("keep the pod's mounts to itself"))?;
        rustix::system::sethostname(request.hostname.as_bytes())
            .map_err(Fault::at("set the pod's hostname"))?;
    }
    if !request.own_network {
        return Ok((pid, None));
    }
    os::loopback_up().map_err(Fault::at("set the loopback interface up"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, POD_API_PORT))
        .map_err(Fault::at("listen on 127.0.0.1:6443 in the pod"))?;
    Ok((pid, Some(listener)))
}

/// Maps one user and one group of the parent namespace, all that an unprivileged process may.
pub(super) fn map_user(inside: (u32, u32), outside: (u32, u32)) -> Result<(), Fault> {
    let write = |file: &str, text: String| {
        std::fs::write(file, text).map_err(Fault::at(format!("write {file}")))
    };
    write("/proc/self/uid_map", format!("{} {} 1", inside.0, outside.0))?;
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/gid_map", format!("{} {} 1", inside.1, outside.1))
}

fn serve(socket: &OwnedFd) -> io::Result<()> {
    let mut running: BTreeMap<u32, Running> = BTreeMap::new();
    loop {
        let ready = {
            let mut fds = vec![socket.as_fd()];
            fds.extend(running.values().map(|container| container.pidfd.as_fd()));
            os::wait_readable(&fds)?
        };
        bury(socket, &mut running)?;
        if !ready[0] {
            continue;
        }
        match frame::receive::<ToPod>(socket)? {
            None => return Ok(()),
            Some((ToPod::Run(request), fds)) => start(socket, *request, fds, &mut running)?,
            Some((ToPod::Signal { id, signal }, _)) => {
                if let Some(container) = running.get(&id)
                    && let Some(signal) = Signal::from_named_raw(signal)
                {
                    // It may have ended this moment; then its end is reported next.
                    let _ = kill_process(container.pid, signal);
                }
            }
        }
    }
}

fn bury(socket: &OwnedFd, running: &mut BTreeMap<u32, Running>) -> io::Result<()> {
    let mut over = Vec::new();
    for (id, container) in running.iter() {
        if let Some((_, status)) = waitpid(Some(container.pid), WaitOptions::NOHANG)? {
            over.push((*id, status));
        }
    }
    for (id, status) in over {
        running.remove(&id);
        let (code, signal) = (status.exit_status(), status.terminating_signal());
        frame::send(socket, &FromPod::Exited { id, code, signal }, &[])?;
    }
    Ok(())
}

fn start(
    socket: &OwnedFd,
    request: RunContainer,
    fds: Vec<OwnedFd>,
    running: &mut BTreeMap<u32, Running>,
) -> io::Result<()> {
    let id = request.id;
    let answer = match container::start(request, fds) {
        Ok(pid) => {
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            running.insert(id, Running { pid, pidfd });
            FromPod::Started { id }
        }
        Err(fault) => FromPod::NotStarted { id, fault },
    };
    frame::send(socket, &answer, &[])
}
