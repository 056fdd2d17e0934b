//! What a session is played against: an embedded API, or a real control plane; both fresh.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use crate::home::Home;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plane {
    Embedded,
    Real,
}

/// A running one; it ends when it is dropped.
pub(crate) struct Cluster {
    pub(crate) kubeconfig: PathBuf,
    _alive: Alive,
}

#[allow(dead_code, reason = "held for what happens when they are dropped")]
enum Alive {
    Embedded(Home),
    Real(Child),
}

impl Cluster {
    /// Starts one whose files are in `dir`.
    pub(crate) async fn start(plane: Plane, dir: &Path) -> Result<Cluster, String> {
        let kubeconfig = dir.join("kubeconfig");
        let alive = match plane {
            Plane::Embedded => Alive::Embedded(embedded(&kubeconfig).await),
            Plane::Real => Alive::Real(real(dir).await?),
        };
        Ok(Cluster { kubeconfig, _alive: alive })
    }
}

async fn embedded(kubeconfig: &Path) -> Home {
    let home = Home::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    home.api.write_admin_kubeconfig(kubeconfig, listener.local_addr().unwrap()).unwrap();
    let api = home.api.clone();
    tokio::spawn(async move { api.serve(listener, CancellationToken::new()).await });
    home
}

/// Its ports are chosen blindly; so often is another choice made.
const STARTS_MAX: usize = 3;

async fn real(dir: &Path) -> Result<Child, String> {
    let mut attempt = 1;
    loop {
        match real_once(&dir.join(format!("plane-{attempt}")), dir).await {
            Err(why) if attempt < STARTS_MAX => eprintln!("{why}; once more"),
            other => return other,
        }
        attempt += 1;
    }
}

/// The script lives as long as its standard input stays open, and its programs with it.
async fn real_once(files: &Path, dir: &Path) -> Result<Child, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/real/control-plane.sh");
    let mut child = Command::new(&script)
        .arg(files)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", script.display()))?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    match lines.next_line().await {
        Ok(Some(line)) if line == "ready" => {
            std::fs::copy(files.join("kubeconfig"), dir.join("kubeconfig"))
                .map_err(|error| format!("{}: {error}", files.display()))?;
            Ok(child)
        }
        other => Err(format!("the control plane did not start: {other:?}")),
    }
}
