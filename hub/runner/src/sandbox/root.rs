//! The file system that a container sees: an allow-list, put together from nothing.
//!
//! What is not listed here is not there: the hub's data directory, homes, `/run`, `/var`, `/sys`,
//! other processes. Everything of the host is read-only, without set-uid programs.

use std::{
    ffi::CString,
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Component, Path},
};

use rustix::{
    fs::{CWD, Mode, OFlags, mkdirat, open, openat},
    io::Errno,
    mount::{
        MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
        mount_bind_recursive, mount_remount, move_mount, open_tree, unmount,
    },
    process::{pivot_root, umask},
};

use super::{
    message::{Fault, RunContainer, SandboxMount},
    os,
};

/// Programs and their libraries. Those that are links (`/bin` on most systems) stay links.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What programs need of `/etc` and what tells nothing about this host. Certificates only:
/// `/etc/ssl/private` holds keys.
const ETC: [&str; 12] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// Devices without state, and links into /proc, as every container engine offers them.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Parts of /proc that tell of the host or steer it; the same that container engines hide.
const PROC_HIDDEN_FILES: [&str; 6] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
];
const PROC_HIDDEN_DIRS: [&str; 3] = ["/proc/acpi", "/proc/scsi", "/proc/irq"];
const PROC_READ_ONLY: [&str; 3] = ["/proc/sys", "/proc/bus", "/proc/fs"];

/// Room for the mount points themselves; nothing is stored in the root.
const ROOT_BYTES: u64 = 4 << 20;

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | ALWAYS;
const ALWAYS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Builds the container's root on its stage and moves into it. Needs to be root in the user
/// namespace that owns this mount namespace.
pub(super) fn build(request: &RunContainer) -> Result<(), Fault> {
    // The mode that every container engine starts programs with; it holds for the program too.
    umask(Mode::from_raw_mode(0o022));
    mount_tmpfs(&request.stage, ROOT_BYTES, "0755")?;
    let stage = Stage::open(&request.stage)?;
    for path in PROGRAMS.iter().chain(&ETC) {
        stage.offer(Path::new(path))?;
    }
    if !request.own_network {
        stage.offer(Path::new("/etc/resolv.conf"))?;
    }
    identity_files(&stage, request)?;
    devices(&stage)?;
    for path in ["/dev/shm", "/tmp"] {
        let target = stage.place(Path::new(path), true)?;
        mount_tmpfs(&by_descriptor(&target), request.limits.tmp_bytes, "1777")?;
    }
    // Programs expect /var/tmp; of the host's /var there is nothing.
    stage.place(Path::new("/var"), true)?;
    stage.link(Path::new("/var/tmp"), Path::new("/tmp"))?;
    let proc = stage.place(Path::new("/proc"), true)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", by_descriptor(&proc), "proc", flags, None)
        .map_err(Fault::at("mount a /proc of its own"))?;
    for volume in &request.mounts {
        bind_volume(&stage, volume)?;
    }
    enter(&request.stage)
}

/// Hides and write-protects parts of /proc, once the container's own user namespace stands.
pub(super) fn seal_proc() -> Result<(), Fault> {
    for path in PROC_HIDDEN_FILES {
        if Path::new(path).exists() {
            mount_bind("/dev/null", path).map_err(Fault::at(format!("hide {path}")))?;
        }
    }
    for path in PROC_HIDDEN_DIRS {
        if Path::new(path).exists() {
            mount("none", path, "tmpfs", MountFlags::RDONLY, None)
                .map_err(Fault::at(format!("hide {path}")))?;
        }
    }
    for path in PROC_READ_ONLY {
        if Path::new(path).exists() {
            mount_bind_recursive(path, path).map_err(Fault::at(format!("bind {path}")))?;
            let name = CString::new(path.as_bytes())
                .map_err(|_| Fault { step: format!("name {path}"), errno: libc::EINVAL })?;
            os::restrict_mount(&name, READ_ONLY).map_err(Fault::at(format!("seal {path}")))?;
        }
    }
    Ok(())
}

/// The root that is being put together. Places in it are found step by step without following any
/// link: a volume's earlier user may have left one that leads to the host.
struct Stage(OwnedFd);

impl Stage {
    fn open(path: &Path) -> Result<Self, Fault> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).map(Self).map_err(Fault::at("open the stage"))
    }

    /// Opens, or makes, a directory or an empty file.
    fn place(&self, path: &Path, is_dir: bool) -> Result<OwnedFd, Fault> {
        let at = || Fault::at::<io::Error>(format!("make the place {}", path.display()));
        let mut parts = normal_parts(path)?;
        let last = parts.pop().ok_or_else(|| at()(Errno::BUSY.into()))?;
        let mut dir = Self::directory(&self.0, ".").map_err(at())?;
        for part in parts {
            dir = Self::directory(&dir, part).map_err(at())?;
        }
        if is_dir {
            return Self::directory(&dir, last).map_err(at());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&dir, last, flags, Mode::empty())
            .or_else(|_| openat(&dir, last, create, Mode::from_raw_mode(0o644)))
            .map_err(|error| at()(error.into()))
    }

    fn directory<P: rustix::path::Arg + Copy>(dir: &OwnedFd, name: P) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
                Ok(openat(dir, name, flags, Mode::empty())?)
            }
            opened => Ok(opened?),
        }
    }

    /// Shows a path of the host, read-only, if the host has it.
    fn offer(&self, path: &Path) -> Result<(), Fault> {
        let kind = match fs::symlink_metadata(path) {
            Ok(meta) => meta.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Fault::at(format!("look at {}", path.display()))(error)),
        };
        if kind.is_symlink() && PROGRAMS.iter().any(|program| Path::new(program) == path) {
            let to = fs::read_link(path).map_err(Fault::at(format!("read {}", path.display())))?;
            return self.link(path, &to);
        }
        // Links elsewhere (/etc/localtime, /etc/resolv.conf) may lead to what is not offered: what
        // they lead to is shown in their place.
        let is_dir = match fs::metadata(path) {
            Ok(meta) => meta.is_dir(),
            Err(_) => return Ok(()),
        };
        self.bind(path, &self.place(path, is_dir)?, READ_ONLY)
    }

    fn link(&self, path: &Path, to: &Path) -> Result<(), Fault> {
        let place = Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string());
        symlink(to, place.join(path.strip_prefix("/").unwrap_or(path)))
            .map_err(Fault::at(format!("link {}", path.display())))
    }

    fn write(&self, path: &str, text: &str) -> Result<(), Fault> {
        let file = self.place(Path::new(path), false)?;
        fs::write(by_descriptor(&file), text).map_err(Fault::at(format!("write {path}")))
    }

    fn bind(&self, source: &Path, target: &OwnedFd, attributes: u64) -> Result<(), Fault> {
        let at = |step: &str| Fault::at::<Errno>(format!("{step} {}", source.display()));
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, source, flags).map_err(at("clone the mount of"))?;
        os::restrict_tree(&tree, attributes)
            .map_err(Fault::at(format!("restrict the mount of {}", source.display())))?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", target, "", flags).map_err(at("place the mount of"))
    }
}

fn identity_files(stage: &Stage, request: &RunContainer) -> Result<(), Fault> {
    let (uid, gid) = (request.uid, request.gid);
    let mut passwd = String::from("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    let mut group = String::from("root:x:0:\nnogroup:x:65534:\n");
    if uid != 0 && uid != 65534 {
        passwd.push_str(&format!("pipeline:x:{uid}:{gid}::/:/bin/sh\n"));
    }
    if gid != 0 && gid != 65534 {
        group.push_str(&format!("pipeline:x:{gid}:\n"));
    }
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    stage.write("/etc/passwd", &passwd)?;
    stage.write("/etc/group", &group)?;
    stage.write("/etc/hostname", &format!("{host}\n"))?;
    stage.write("/etc/hosts", &format!("127.0.0.1 localhost {host}\n::1 localhost\n"))
}

fn devices(stage: &Stage) -> Result<(), Fault> {
    stage.place(Path::new("/dev"), true)?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        if source.exists() {
            stage.bind(&source, &stage.place(&source, false)?, libc::MOUNT_ATTR_NOSUID)?;
        }
    }
    for (name, to) in DEVICE_LINKS {
        stage.link(&Path::new("/dev").join(name), Path::new(to))?;
    }
    Ok(())
}

fn bind_volume(stage: &Stage, volume: &SandboxMount) -> Result<(), Fault> {
    let is_dir = fs::metadata(&volume.source)
        .map_err(Fault::at(format!("look at the volume for {}", volume.target)))?
        .is_dir();
    let target = stage.place(Path::new(&volume.target), is_dir)?;
    stage.bind(&volume.source, &target, if volume.read_only { READ_ONLY } else { ALWAYS })
}

fn enter(stage: &Path) -> Result<(), Fault> {
    std::env::set_current_dir(stage).map_err(Fault::at("enter the new root"))?;
    pivot_root(".", ".").map_err(Fault::at("pivot to the new root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(Fault::at("leave the old root"))?;
    std::env::set_current_dir("/").map_err(Fault::at("enter /"))?;
    // Last, as nothing can be placed in it afterwards; the mounts below keep their own flags.
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", flags, c"").map_err(Fault::at("write-protect the root"))
}

fn mount_tmpfs(target: &Path, bytes: u64, mode: &str) -> Result<(), Fault> {
    let options = CString::new(format!("size={bytes},mode={mode}"))
        .map_err(|_| Fault { step: "name tmpfs options".to_owned(), errno: libc::EINVAL })?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str()))
        .map_err(Fault::at(format!("mount a tmpfs on {}", target.display())))
}

fn by_descriptor(fd: &OwnedFd) -> std::path::PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

fn normal_parts(path: &Path) -> Result<Vec<&std::ffi::OsStr>, Fault> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => parts.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                let step = format!("place {} in the root", path.display());
                return Err(Fault { step, errno: libc::EINVAL });
            }
        }
    }
    Ok(parts)
}
