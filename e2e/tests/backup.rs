//! A hub that is lost with its disk: its backup, taken while it worked, makes another one that its
//! clients and its agents take for the same.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use muster_e2e::{Agent, Hub, HubOptions, eventually, has_part, manifests::Promise, scratch};

/// A Promise whose requests become a Script that writes their text into the file that they name.
const NOTES: Promise<'_> = Promise {
    name: "note",
    group: "backup.example.com",
    platform: "platform: vm",
    fields: &[("text", "{type: string}"), ("file", "{type: string}")],
    dependencies: "",
    script: r#"
cat > note.yaml <<END
apiVersion: fleet.muster.dev/v1alpha1
kind: Script
metadata: {name: note}
spec:
  env: {TEXT: "$text", PLACE: "$file"}
  apply: {command: [sh, -c, 'echo "\$TEXT" > "\$PLACE"'], timeout: 30s}
  remove: {command: [sh, -c, 'rm -f "\$PLACE"']}
END
"#,
    once: false,
};

#[test]
fn a_lost_hub_comes_back_from_its_backup_with_its_agents() {
    if !has_part("MUSTER_KUBECTL") {
        return;
    }
    let scratch = scratch();
    let dir = scratch.path();
    let mut hub = Hub::start_with(dir, options(dir));
    let kubectl = hub.kubectl();
    let _agent = Agent::join(&hub, dir, "vm-1", &["platform=vm"], &["shell"], None);
    kubectl.apply(&NOTES.yaml());
    kubectl.wait("promise/note", "Available");
    let note = dir.join("note");
    kubectl.apply(&request("first", &note));
    until_holds(&note, "first");
    kubectl.ok(&["create", "secret", "generic", "s", "--from-literal=k=plain-text-of-s"]);

    let file = dir.join("hub.backup");
    back_up_amid_writes(&hub, &file);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!holds(&file, b"plain-text-of-s"), "what is encrypted stays so");
    let again = hub.muster(&["backup", text(&file)]).output().unwrap();
    assert!(!again.status.success() && told(&again).contains("exists"), "{}", told(&again));
    let as_other = ["get", "--raw", "/muster/v1/backup", "--as=jane"];
    let refused = kubectl.refused(&as_other, "");
    assert!(refused.contains("jane") && refused.contains("forbidden"), "{refused}");

    // Starts and changes after the backup: the agent has seen epochs that it does not hold.
    hub.crash_and_restart();
    hub.crash_and_restart();
    kubectl.apply(&request("second", &note));
    until_holds(&note, "second");
    hub.crash();
    fs::rename(hub.data_dir(), dir.join("lost")).unwrap();

    let occupied = restore(&hub, &file, &dir.join("lost"), true);
    assert!(told(&occupied).contains("not empty"), "{}", told(&occupied));
    let without = restore(&hub, &file, &hub.data_dir(), false);
    assert!(told(&without).contains("encrypted with the key"), "{}", told(&without));
    assert!(!hub.data_dir().exists(), "whole or not at all");
    let restored = restore(&hub, &file, &hub.data_dir(), true);
    assert!(restored.status.success(), "{}", told(&restored));
    println!("{}", String::from_utf8_lossy(&restored.stdout).trim());

    hub.restart();
    let data = kubectl.until(&["get", "secret", "s", "-o", "jsonpath={.data.k}"], |_| true);
    assert_eq!(data, "cGxhaW4tdGV4dC1vZi1z");
    // The agent goes back to what the restored hub wants, and on from there.
    until_holds(&note, "first");
    kubectl.apply(&request("third", &note));
    until_holds(&note, "third");
    kubectl.ok(&["delete", "note/note", "--timeout=120s"]);
    assert!(!note.exists());
    hub.stop();
    assert!(!hub.process().log().contains("panicked"), "{}", hub.process().log());
}

#[test]
fn a_damaged_backup_restores_nothing() {
    if !has_part("MUSTER_KUBECTL") {
        return;
    }
    let scratch = scratch();
    let dir = scratch.path();
    let hub = Hub::start_with(dir, options(dir));
    let file = dir.join("hub.backup");
    let made = hub.muster(&["backup", text(&file)]).output().unwrap();
    assert!(made.status.success(), "{}", told(&made));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let target = dir.join("target");
    let refused = restore(&hub, &file, &target, true);
    assert!(told(&refused).contains("damaged"), "{}", told(&refused));
    fs::write(&file, b"something else").unwrap();
    let refused = restore(&hub, &file, &target, true);
    assert!(told(&refused).contains("no backup"), "{}", told(&refused));
    assert!(!target.exists());
}

fn options(dir: &Path) -> HubOptions {
    let key = key(dir);
    fs::write(&key, [9; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let flags = vec!["--encryption-key-file".to_owned(), text(&key).to_owned()];
    HubOptions { flags, ..HubOptions::default() }
}

fn key(dir: &Path) -> PathBuf {
    dir.join("key")
}

fn request(content: &str, file: &Path) -> String {
    NOTES.request("note", &format!("text: {content}, file: \"{}\"", file.display()))
}

fn until_holds(file: &Path, content: &str) {
    eventually(&format!("{} to hold {content}", file.display()), || {
        let held = fs::read_to_string(file).unwrap_or_default();
        if held.trim() == content { Ok(()) } else { Err(held) }
    });
}

/// Takes a backup while others write.
fn back_up_amid_writes(hub: &Hub, file: &Path) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2 {
            let (kubectl, ended) = (hub.kubectl(), &ended);
            scope.spawn(move || {
                for count in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    kubectl.ok(&["create", "configmap", &format!("m-{writer}-{count}")]);
                }
            });
        }
        let output = hub.muster(&["backup", text(file)]).output().unwrap();
        ended.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{}", told(&output));
        println!("{}", String::from_utf8_lossy(&output.stdout).trim());
    });
}

fn restore(hub: &Hub, file: &Path, target: &Path, with_key: bool) -> Output {
    let mut command = hub.muster(&["restore", text(file), "--data-dir", text(target)]);
    if with_key {
        command.args(["--encryption-key-file", text(&key(file.parent().unwrap()))]);
    }
    command.output().unwrap()
}

fn holds(file: &Path, content: &[u8]) -> bool {
    fs::read(file).unwrap().windows(content.len()).any(|window| window == content)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
