//! The container process: from a clone of the pod process to the pipeline's program.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::Command,
};

use rustix::{
    process::{
        DumpableBehavior, Gid, Pid, Resource, Rlimit, Uid, WaitOptions, getegid, geteuid,
        getrlimit, set_dumpable_behavior, setrlimit, setsid, waitpid,
    },
    thread::{CapabilitySet, CapabilitySets, UnshareFlags},
};

use super::{
    message::{Fault, RunContainer, SandboxLimits},
    os,
    pod::map_user,
    root,
};

/// Whom the host sees when root's hub runs a pipeline: `nobody`, who owns nothing.
const UNPRIVILEGED: u32 = 65534;

/// The last capability that Linux 6.18 knows is 40 (`CAP_CHECKPOINT_RESTORE`); later ones are
/// covered as far as the kernel says that it knows them.
const CAPABILITY_MAX: u32 = 63;

/// Starts a container; returns when its program runs, or with what stood in its way.
pub(super) fn start(request: RunContainer, fds: Vec<OwnedFd>) -> Result<Pid, Fault> {
    let (mut verdict, verdict_writer) = {
        let (r, w) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(Fault::at("make a pipe"))?;
        (File::from(r), File::from(w))
    };
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    let Some(pid) = os::clone_into(flags).map_err(Fault::at("make the container's namespaces"))?
    else {
        drop(verdict);
        let fault = become_program(request, fds);
        let mut writer = verdict_writer;
        let _ = writer.write_all(&serde_json::to_vec(&fault).unwrap_or_default());
        os::exit_now(1)
    };
    drop(verdict_writer);
    drop(fds);
    // The writer closes on exec: an empty verdict means that the program runs.
    let mut text = Vec::new();
    verdict.read_to_end(&mut text).map_err(Fault::at("read the container's verdict"))?;
    if text.is_empty() {
        return Ok(pid);
    }
    let _ = waitpid(Some(pid), WaitOptions::empty());
    Err(serde_json::from_slice(&text)
        .unwrap_or_else(|_| Fault { step: "start the container".to_owned(), errno: libc::EIO }))
}

/// Never returns on success.
fn become_program(request: RunContainer, fds: Vec<OwnedFd>) -> Fault {
    match confine(&request, fds) {
        Err(fault) => fault,
        Ok(()) => {
            let program = &request.argv[0];
            let error = Command::new(program)
                .args(&request.argv[1..])
                .env_clear()
                .envs(request.env.iter().map(|(name, value)| (name, value)))
                .exec();
            Fault::at(format!("run {program}"))(error)
        }
    }
}

fn confine(request: &RunContainer, fds: Vec<OwnedFd>) -> Result<(), Fault> {
    let [stdout, stderr] = <[OwnedFd; 2]>::try_from(fds)
        .map_err(|_| Fault { step: "take stdout and stderr".to_owned(), errno: libc::EBADF })?;
    os::become_standard(&stdout, 1).map_err(Fault::at("set stdout"))?;
    os::become_standard(&stderr, 2).map_err(Fault::at("set stderr"))?;
    setsid().map_err(Fault::at("leave the session"))?;
    let groups = request
        .limits
        .cgroups
        .iter()
        .map(|path| {
            File::options()
                .write(true)
                .open(path)
                .map_err(Fault::at(format!("open {}", path.display())))
        })
        .collect::<Result<Vec<File>, Fault>>()?;
    root::build(request)?;
    for mut group in groups {
        group.write_all(b"0").map_err(Fault::at("enter the control group"))?;
    }
    step_down(request)?;
    std::env::set_current_dir(&request.working_dir)
        .map_err(Fault::at(format!("enter the working directory {}", request.working_dir)))
}

/// Gives up the user, then every capability, in a user namespace where there is nothing to regain.
fn step_down(request: &RunContainer) -> Result<(), Fault> {
    if root_of_host() {
        rustix::thread::set_thread_groups(&[]).map_err(Fault::at("leave all groups"))?;
        let gid = Gid::from_raw(UNPRIVILEGED);
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .map_err(Fault::at("become the group nobody"))?;
        let uid = Uid::from_raw(UNPRIVILEGED);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .map_err(Fault::at("become the user nobody"))?;
        // Changing user made /proc/self root's; the maps below are written through it.
        set_dumpable_behavior(DumpableBehavior::Dumpable)
            .map_err(Fault::at("own /proc/self again"))?;
    }
    let outside = (geteuid().as_raw(), getegid().as_raw());
    os::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(Fault::at("make the container's user namespace"))?;
    map_user((request.uid, request.gid), outside)?;
    // No user namespaces within this one: they are the usual door to kernel bugs.
    std::fs::write("/proc/sys/user/max_user_namespaces", "0")
        .map_err(Fault::at("forbid further user namespaces"))?;
    root::seal_proc()?;
    limit(&request.limits)?;
    rustix::thread::set_no_new_privs(true).map_err(Fault::at("set no_new_privs"))?;
    drop_capabilities()
}

fn root_of_host() -> bool {
    // Without root, the pod process made a user namespace in which it is root and which maps one
    // user only; giving up that user is neither possible nor of use.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mapped: u64 =
        map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    geteuid().is_root() && mapped > 1
}

fn drop_capabilities() -> Result<(), Fault> {
    for number in 0..=CAPABILITY_MAX {
        let Some(capability) = CapabilitySet::from_bits(1 << number) else { continue };
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(Fault::at("shrink the bounding set")(error)),
        }
    }
    rustix::thread::clear_ambient_capability_set()
        .map_err(Fault::at("clear ambient capabilities"))?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
    .map_err(Fault::at("drop all capabilities"))
}

fn limit(limits: &SandboxLimits) -> Result<(), Fault> {
    let wanted = [
        (Resource::Data, limits.data_bytes),
        (Resource::Nproc, limits.processes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Nofile, limits.open_files),
        (Resource::Core, Some(0)),
    ];
    for (resource, value) in wanted {
        let Some(value) = value else { continue };
        // Never above what the hub itself may: raising a limit needs a capability.
        let value = getrlimit(resource).maximum.map_or(value, |hard| hard.min(value));
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
            .map_err(Fault::at(format!("limit {resource:?}")))?;
    }
    Ok(())
}
