//! The system calls that neither std nor rustix offers. All `unsafe` of the sandbox is here.
#![allow(unsafe_code, reason = "clone, unshare, ioctl and mount_setattr have no safe binding")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::thread::UnshareFlags;

/// Clones this process into new namespaces; `None` in the child.
///
/// Only for processes with one thread: the child owns a copy of every lock.
pub(super) fn clone_into(namespaces: i32) -> io::Result<Option<rustix::process::Pid>> {
    // SAFETY: without CLONE_VM the child gets a copy of the memory, as after fork(2), and this
    // process has one thread, so no lock is held by somebody who is not there.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, namespaces | libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(rustix::process::Pid::from_raw(pid)),
    }
}

/// Leaves the namespaces of the parent; see unshare(2).
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only namespaces are unshared, never the table of open files.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Waits until one of `fds` is readable or closed; says which.
pub(super) fn wait_readable(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    loop {
        // SAFETY: the pointer and the length are those of a live vector.
        let n = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        if n >= 0 {
            return Ok(polled.iter().map(|p| p.revents != 0).collect());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sets the loopback interface of this network namespace up.
pub(super) fn loopback_up() -> io::Result<()> {
    // SAFETY: plain socket(2); the descriptor is owned from here on.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: ifreq is plain data, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives here.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adds attributes (`MOUNT_ATTR_…`) to a mount and all mounts below it (Linux 5.12).
pub(super) fn restrict_mount(target: &CStr, attributes: u64) -> io::Result<()> {
    mount_setattr(libc::AT_FDCWD, target, libc::AT_RECURSIVE, attributes)
}

/// The same for a mount, or a tree of them, that has no place yet.
pub(super) fn restrict_tree(tree: &OwnedFd, attributes: u64) -> io::Result<()> {
    mount_setattr(tree.as_raw_fd(), c"", libc::AT_RECURSIVE | libc::AT_EMPTY_PATH, attributes)
}

fn mount_setattr(dir: i32, path: &CStr, flags: i32, attributes: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a C string and the size is that of the struct behind the pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            &attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `fd` this process's stdin, stdout or stderr (0, 1, 2), open across exec.
pub(super) fn become_standard(fd: &OwnedFd, number: i32) -> io::Result<()> {
    // SAFETY: the three standard descriptors belong to this process as a whole.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ends this process at once: no destructors, no buffers of the parent flushed twice.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}
