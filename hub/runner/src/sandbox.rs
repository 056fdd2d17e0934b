//! Containers without a container engine: how a process is shut into namespaces of its own.
//!
//! Three kinds of process, each one thread, all the hub's own executable:
//! - the **zygote** (one for each hub) does nothing but clone pod processes: a small process clones
//!   fast, and, having no other threads, it may;
//! - a **pod process** is the first process of the pod's pid, network, ipc, uts, mount (and, without
//!   root, user) namespaces; it listens on 127.0.0.1 for the API and clones the containers;
//! - a **container process** makes pid and mount namespaces of its own within the pod's, puts its
//!   root together, gives up everything, enters a last user namespace and becomes the program.
//!
//! Nothing outlives the hub: each end of a control socket is held by one process only, so the death
//! of the hub ends the zygote and every pod process, and with a pod process the kernel ends its pid
//! namespace and frees the mounts and the network.

mod container;
mod frame;
mod message;
mod os;
mod pod;
mod root;
mod session;
mod zygote;

use std::process::ExitCode;

pub(crate) use message::{Fault, OpenPod, RunContainer, SandboxLimits, SandboxMount};
pub(crate) use session::{PodSession, Zygote, ZygoteError};

/// The hidden subcommand that turns the hub's executable into the zygote.
pub(crate) const SUBCOMMAND: [&str; 2] = ["pipeline", "sandbox-init"];

/// To be called first thing in `main`, before any thread starts: if this process was started as the
/// runner's helper it does that work and returns the exit code; otherwise it returns `None` at once.
pub fn sandbox_entry() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(SUBCOMMAND[0])
        || args.next().as_deref() != Some(SUBCOMMAND[1])
    {
        return None;
    }
    Some(zygote::run(&args.collect::<Vec<_>>()))
}
