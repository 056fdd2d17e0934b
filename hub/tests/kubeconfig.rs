//! `muster kubeconfig create` against a running hub, and the hub's audit log, from outside: the
//! real binary, and the real `kubectl`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

struct Hub {
    child: Child,
    dir: tempfile::TempDir,
    admin: PathBuf,
}

impl Hub {
    fn start() -> Hub {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["hub", "--print-json", "--api-listen", "127.0.0.1:0"])
            .args(["--agents-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with('{'), "the hub did not start: {line}");
        let admin = dir.path().join("admin.kubeconfig");
        Hub { child, dir, admin }
    }

    fn create(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["--kubeconfig", kubeconfig.to_str().unwrap(), "kubeconfig", "create"])
            .args(args)
            .output()
            .unwrap()
    }

    fn kubectl(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        let program = std::env::var("MUSTER_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        Command::new(&program)
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", self.dir.path())
            .output()
            .unwrap_or_else(|error| {
                panic!("{program}: {error}: install kubectl 1.32 or set MUSTER_KUBECTL")
            })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_person_gets_a_kubeconfig_that_is_his() {
    let hub = Hub::start();
    let file = hub.dir.path().join("ann.kubeconfig");
    let path = file.to_str().unwrap();
    let made = hub.create(&hub.admin, &["ann", "--group", "devs", "--group", "ops", "-o", path]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let whoami = hub.kubectl(&file, &["auth", "whoami", "-o", "json"]);
    let whoami: Value = serde_json::from_slice(&whoami.stdout).unwrap();
    let info = &whoami["status"]["userInfo"];
    assert_eq!(info["username"], "ann");
    assert_eq!(info["groups"], serde_json::json!(["devs", "ops", "system:authenticated"]));
    let refused = hub.kubectl(&file, &["get", "secrets"]);
    assert!(text(&refused.stderr).contains("User \"ann\" cannot list"), "{refused:?}");

    // She cannot make one for anybody else, nor for herself.
    for args in [&["bob"][..], &["ann"], &["ann", "--group", "system:masters"]] {
        let refused = hub.create(&file, args);
        assert!(!refused.status.success() && refused.stdout.is_empty());
        assert!(text(&refused.stderr).contains("did not sign"), "{}", text(&refused.stderr));
    }
    let wrong = hub.create(&hub.admin, &["ann", "--expires", "2161h"]);
    assert!(text(&wrong.stderr).contains("90 days"), "{}", text(&wrong.stderr));

    // To standard output, with another address.
    let server = "https://hub.example.com:6443";
    let printed = hub.create(&hub.admin, &["bob", "--server", server, "--expires", "10m"]);
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed["clusters"][0]["cluster"]["server"], server);

    let log = hub.dir.path().join("audit.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("user \\\"ann\\\", groups [\\\"devs\\\", \\\"ops\\\"]"), "{log}");
    assert!(!log.contains("muster-system:muster-"), "its own controllers are not in it");
}
