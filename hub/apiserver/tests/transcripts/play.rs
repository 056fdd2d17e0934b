//! Plays a session: one command after the other, in a directory and against a server of its own.

use std::{fs, io, os::unix::fs::symlink, path::Path, process::Stdio};

use tokio::process::Command;

use crate::{
    cluster::{Cluster, Plane},
    folder,
    normal::normalised,
    script::{Answer, Script},
};

/// A command that takes longer hangs, and is killed with all that it started.
const STEP_MAX_SECONDS: &str = "90";

/// What each command came to.
pub(crate) async fn play(
    script: &Script,
    kubectl: &Path,
    plane: Plane,
) -> Result<Vec<Answer>, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let cluster = Cluster::start(plane, dir.path()).await?;
    prepare(dir.path(), kubectl).map_err(|error| format!("{}: {error}", dir.path().display()))?;
    let mut answers = Vec::new();
    for step in &script.steps {
        answers.push(run(&step.command, dir.path(), &cluster.kubeconfig).await?);
    }
    Ok(answers)
}

/// The working directory with the files that sessions name, and a certificate; kubectl and scripts on the path.
fn prepare(dir: &Path, kubectl: &Path) -> io::Result<()> {
    fs::create_dir(dir.join("bin"))?;
    symlink(kubectl, dir.join("bin/kubectl"))?;
    fs::create_dir(dir.join("work"))?;
    let pair =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    fs::write(dir.join("work/tls.crt"), pair.cert.pem())?;
    fs::write(dir.join("work/tls.key"), pair.signing_key.serialize_pem())?;
    for entry in fs::read_dir(folder().join("files"))? {
        let path = entry?.path();
        let folder = if path.extension().is_some() { "work" } else { "bin" };
        fs::copy(&path, dir.join(folder).join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

async fn run(command: &str, dir: &Path, kubeconfig: &Path) -> Result<Answer, String> {
    let output = Command::new("timeout")
        .args(["--signal=KILL", STEP_MAX_SECONDS, "sh", "-c", command])
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", dir.join("bin").display()))
        .env("HOME", dir)
        .env("KUBECONFIG", kubeconfig)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir(dir.join("work"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{command}: {error}"))?;
    let text = |bytes: &[u8]| normalised(&String::from_utf8_lossy(bytes));
    Ok(Answer {
        out: text(&output.stdout),
        err: text(&output.stderr),
        code: output.status.code().unwrap_or(-1),
    })
}
