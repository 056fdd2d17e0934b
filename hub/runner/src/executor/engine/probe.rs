//! Finds out how podman or docker works on this host, by running a program with it.

use std::{fs, os::unix::fs::symlink, path::Path};

use muster_core::Digest;
use rustix::process::geteuid;

use super::{Engine, Tool, complaint};
use crate::{
    config::RunnerConfig,
    executor::{ExecutorKind, ProbeError},
    sandbox::Zygote,
};

/// What is tried, in this order. A host without the right to raise limits needs lower ulimits than
/// podman's own, and runc, which does not insist on raising them.
const VARIANTS: [(&[&str], &[&str]); 4] = [
    (&[], &[]),
    (&["--runtime", "runc"], &[]),
    (&[], &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]),
    (&["--runtime", "runc"], &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]),
];
/// The limits of the trial; a host without a writable control group refuses them.
const LIMITS: [&str; 6] = ["--memory", "67108864", "--cpus", "0.5", "--pids-limit", "64"];
/// What a program needs of the host to run.
const PROGRAM_DIRS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

impl Engine {
    pub(in crate::executor) async fn podman(config: &RunnerConfig) -> Result<Self, ProbeError> {
        let refuse = |cause: String, cure: &str| ProbeError::Engine {
            program: "podman",
            cause,
            cure: cure.to_owned(),
        };
        let mut tool = tool("podman", config);
        tool.output(&["--version"])
            .await
            .map_err(|e| refuse(e.to_string(), "install it (apt-get install podman)"))?;
        let root = config.data_dir.join("runner").join("probe-root");
        let volumes = probe_root(&root)
            .map_err(|source| ProbeError::Directory { path: root.display().to_string(), source })?;
        let mut refused = String::new();
        let mut works = false;
        'found: for limits in [true, false] {
            for (global, create) in VARIANTS {
                tool.global = global.to_vec();
                tool.create = create.to_vec();
                tool.limits = limits;
                match try_out(&tool, &root, &volumes).await {
                    Ok(()) => {
                        works = true;
                        break 'found;
                    }
                    Err(cause) => refused = cause,
                }
            }
        }
        if !works {
            let cure = "see `podman info`; without root, its user needs lines in /etc/subuid and \
                        /etc/subgid, and the packages uidmap and fuse-overlayfs";
            return Err(refuse(format!("it cannot run a container: {refused}"), cure));
        }
        let launcher = if tool.rootless {
            vec!["podman".to_owned(), "unshare".to_owned()]
        } else {
            Vec::new()
        };
        let mut last_will: Vec<String> = vec![tool.program.to_owned()];
        last_will.extend(tool.global.iter().map(|&word| word.to_owned()));
        for word in ["rm", "--force", "--time", "0", "--filter"] {
            last_will.push(word.to_owned());
        }
        last_will.push(tool.filter());
        let zygote = Zygote::new(config.own_exe.clone(), launcher, last_will);
        Ok(Self { kind: ExecutorKind::Podman, tool, zygote, config: config.clone() })
    }

    pub(in crate::executor) async fn docker(config: &RunnerConfig) -> Result<Self, ProbeError> {
        let refuse =
            |cause: String, cure: String| ProbeError::Engine { program: "docker", cause, cure };
        let tool = tool("docker", config);
        tool.output(&["version", "--format", "{{.Server.Version}}"]).await.map_err(|error| {
            refuse(error.to_string(), "install it, and start its engine".to_owned())
        })?;
        if !config.pipeline_network {
            return Err(refuse(
                "its engine cannot join a network that the hub made, in which a pipeline would \
                 reach the API and nothing else"
                    .to_owned(),
                "install podman, or start the hub with --pipeline-network, which gives pipelines \
                 the host's network"
                    .to_owned(),
            ));
        }
        let zygote = Zygote::new(config.own_exe.clone(), Vec::new(), Vec::new());
        Ok(Self { kind: ExecutorKind::Docker, tool, zygote, config: config.clone() })
    }
}

fn tool(program: &'static str, config: &RunnerConfig) -> Tool {
    let data_dir = config.data_dir.display().to_string();
    Tool {
        program,
        dir: config.data_dir.clone(),
        global: Vec::new(),
        create: Vec::new(),
        limits: true,
        rootless: !geteuid().is_root(),
        label: Digest::of(data_dir.as_bytes()).short(),
    }
}

/// Runs `true` from the host's own programs: there may be no image yet.
async fn try_out(tool: &Tool, root: &Path, volumes: &[String]) -> Result<(), String> {
    let mut args: Vec<String> = ["run", "--rm", "--network", "none"].map(str::to_owned).into();
    args.extend(tool.create.iter().map(|&word| word.to_owned()));
    if tool.limits {
        args.extend(LIMITS.map(str::to_owned));
    }
    args.extend(volumes.iter().cloned());
    args.extend(["--rootfs".to_owned(), root.display().to_string(), "/bin/true".to_owned()]);
    let output = tool.command(&args).output().await.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if tool.limits && said.contains("not supported and ignored") {
        // Without root on version 1 control groups podman only warns.
        return Err(complaint(&output.stderr));
    }
    if output.status.success() { Ok(()) } else { Err(complaint(&output.stderr)) }
}

/// An empty root with places for the host's programs; returns the volumes to put there.
fn probe_root(root: &Path) -> std::io::Result<Vec<String>> {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root)?;
    let mut volumes = Vec::new();
    for dir in PROGRAM_DIRS {
        let place = root.join(dir.trim_start_matches('/'));
        match fs::symlink_metadata(dir) {
            Ok(meta) if meta.is_symlink() => symlink(fs::read_link(dir)?, place)?,
            Ok(meta) if meta.is_dir() => {
                fs::create_dir(place)?;
                volumes.push("--volume".to_owned());
                volumes.push(format!("{dir}:{dir}:ro"));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(volumes)
}
