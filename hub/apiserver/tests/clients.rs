//! The API through the official Python and JavaScript clients: programs of theirs
//! (`clients/smoke.*`) do what such programs do, and this test supplies what they need of a server.

#[path = "shared/home.rs"]
mod home;
#[path = "shared/parts.rs"]
mod parts;

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use muster_apiserver::{LogOptions, LogTarget, PodLogs};
use tokio::process::Command;

use home::Home;

/// How many parts each program has; one that ends early has not been seen to work.
const PYTHON_PARTS: usize = 13;
const NODE_PARTS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works() {
    let Some(python) = parts::part("MUSTER_PYTHON") else { return };
    let mut command = Command::new(python);
    command.arg(script("smoke.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    passes(command, PYTHON_PARTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_works() {
    let Some(client) = parts::part("MUSTER_NODE_CLIENT") else { return };
    let mut command = Command::new("node");
    // A module of stdin finds the packages of the working directory, wherever the script is.
    let text = std::fs::File::open(script("smoke.mjs")).unwrap();
    command.arg("--input-type=module").current_dir(client).stdin(Stdio::from(text));
    passes(command, NODE_PARTS).await;
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a program against a server of its own, and expects that all of its parts are told as done.
async fn passes(mut command: Command, parts: usize) {
    let home = Home::new().await;
    home.api.set_pod_logs(Arc::new(ThreeLines));
    let (_, kubeconfig) = home.serve().await;
    command.env("KUBECONFIG", kubeconfig).env("HOME", home.dir.path()).kill_on_drop(true);
    let output = command.output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let done = out.lines().filter(|line| line.starts_with("ok: ")).count();
    assert_eq!(done, parts, "{out}\n{err}");
}

/// Logs as a runner would supply them: those of the pod `talker`.
struct ThreeLines;

impl PodLogs for ThreeLines {
    fn open(
        &self,
        target: &LogTarget,
        options: LogOptions,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        if target.pod != "talker" {
            return Err(io::ErrorKind::NotFound.into());
        }
        let lines = ["one\n", "two\n", "three\n"];
        let tail = options.tail_lines.map_or(lines.len(), |tail| tail as usize).min(lines.len());
        let wanted =
            lines[lines.len() - tail..].iter().map(|line| Ok(Bytes::from_static(line.as_bytes())));
        Ok(futures::stream::iter(wanted.collect::<Vec<_>>()).boxed())
    }
}
