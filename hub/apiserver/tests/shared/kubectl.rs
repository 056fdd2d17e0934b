//! The real `kubectl` (1.32) against a server of the test's own.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::home::Home;

/// A served API and how to call it.
pub(crate) struct Kubectl {
    pub(crate) home: Home,
    pub(crate) address: SocketAddr,
    kubeconfig: PathBuf,
    program: String,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Kubectl {
    pub(crate) async fn new() -> Kubectl {
        Kubectl::of(Home::new().await).await
    }

    pub(crate) async fn of(home: Home) -> Kubectl {
        let (address, kubeconfig) = home.serve().await;
        // Some distributions of kubectl choose by the server's version which one to run.
        let program = std::env::var("MUSTER_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        Kubectl { home, address, kubeconfig, program }
    }

    /// Calls kubectl and expects success.
    pub(crate) async fn ok(&self, args: &str) -> String {
        self.ok_with(args, "").await
    }

    /// Calls kubectl with an input and expects success.
    pub(crate) async fn ok_with(&self, args: &str, input: &str) -> String {
        let output = self.call(args, input).await;
        assert!(output.ok, "kubectl {args}: {}{}", output.out, output.err);
        output.out
    }

    /// Calls kubectl and expects a refusal: what it says.
    pub(crate) async fn refused(&self, args: &str, input: &str) -> String {
        let output = self.call(args, input).await;
        assert!(!output.ok, "kubectl {args} should have been refused: {}", output.out);
        output.err
    }

    pub(crate) async fn call(&self, args: &str, input: &str) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("{}: {error}: install kubectl 1.32 or set MUSTER_KUBECTL", self.program)
        });
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Output { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A call to be started, with words split at blanks; `'…'` holds blanks together.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words(args))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home.dir.path())
            .current_dir(self.home.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

fn words(args: &str) -> Vec<String> {
    let parts = args.split('\'').enumerate();
    let mut all = Vec::new();
    for (index, part) in parts {
        match index % 2 {
            0 => all.extend(part.split_whitespace().map(str::to_owned)),
            _ => all.push(part.to_owned()),
        }
    }
    all
}
