//! Scripts.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use muster_appliers::{Appliers, Policy};
use muster_core::{FileSet, Health, Intent, Outcome};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::scene::{Scene, key, order, until};

async fn scene() -> Scene {
    Scene::new(Policy::enabling(["shell"]).unwrap()).await
}

fn script(name: &str, spec: serde_json::Value) -> String {
    json!({"apiVersion": "fleet.muster.dev/v1alpha1", "kind": "Script",
           "metadata": {"name": name}, "spec": spec})
    .to_string()
}

fn sh(text: &str) -> serde_json::Value {
    json!({"command": ["sh", "-c", text]})
}

#[tokio::test]
async fn a_script_is_applied_looked_at_and_removed() {
    let scene = scene().await;
    let mark = scene.path("mark").display().to_string();
    let spec = json!({
        "apply": sh("cat greeting > $MARK; echo \"{\\\"url\\\": \\\"http://$MUSTER_RESOURCE\\\"}\""),
        "remove": sh("rm $MARK"),
        "health": sh("test -s $MARK"),
        "env": {"MARK": mark},
    });
    let files = [("s.yaml", script("web", spec)), ("greeting", "hello".to_owned())];
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
    let seen = scene.apply("web", &files).await.unwrap();
    assert_eq!(fs::read_to_string(&mark).unwrap(), "hello");
    assert_eq!((seen.health, seen.drift), (Health::Healthy, None));
    assert_eq!(seen.outputs["url"], json!("http://one"));

    fs::remove_file(&mark).unwrap();
    let seen = scene.check("web").await;
    assert_eq!(seen.health, Health::Degraded);
    assert!(seen.drift.unwrap().contains("script web: health exited with 1"));
    scene.apply("web", &files).await.unwrap();
    let seen = scene.check("web").await;
    assert_eq!((seen.health, seen.drift), (Health::Healthy, None));
    assert_eq!(seen.outputs["url"], json!("http://one"), "outputs outlive the apply");

    scene.remove("web").await.unwrap();
    assert!(!fs::exists(&mark).unwrap());
    assert!(scene.appliers.held().is_empty());
    assert_eq!(fs::read_dir(scene.path("scripts")).unwrap().count(), 0, "something is left");
}

#[tokio::test]
async fn removal_works_after_a_restart_without_the_content() {
    let mut scene = scene().await;
    let mark = scene.path("mark").display().to_string();
    let spec = json!({"apply": sh("touch $MARK"), "remove": sh("cat data > $MARK"), "env": {"MARK": mark}});
    let files = [("s.yaml", script("web", spec)), ("data", "removed by the old files".to_owned())];
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
    scene.apply("web", &files).await.unwrap();
    scene.restart().await;
    assert!(scene.appliers.held()[&key("web")].applied.is_some());
    scene.remove("web").await.unwrap();
    assert_eq!(fs::read_to_string(&mark).unwrap(), "removed by the old files");
    scene.remove("web").await.expect("removing again finds nothing to do");
}

#[tokio::test]
async fn a_script_that_is_listed_no_more_is_undone() {
    let scene = scene().await;
    let mark = scene.path("mark").display().to_string();
    let old = script(
        "old",
        json!({"apply": sh("true"), "remove": sh("touch $MARK"), "env": {"MARK": mark}}),
    );
    let new = script("new", json!({"apply": sh("test -e $MARK"), "env": {"MARK": mark}}));
    scene.apply("web", &[("s.yaml", &old)]).await.unwrap();
    scene.apply("web", &[("s.yaml", &new)]).await.unwrap();
    fs::remove_file(&mark).unwrap();
    scene.apply("web", &[("s.yaml", &old)]).await.unwrap();
    scene.apply("web", &[("notes.txt", "no script at all")]).await.unwrap();
    assert!(fs::exists(&mark).unwrap(), "the last script was not undone");
}

#[tokio::test]
async fn failures_name_script_file_and_cause() {
    let scene = scene().await;
    let bad = script("web", json!({"apply": sh("echo no disk >&2; exit 3")}));
    let failure = scene.apply("web", &[("svc/s.yaml", &bad)]).await.unwrap_err();
    assert_eq!(failure.reason, "ScriptFailed");
    assert_eq!(
        failure.message,
        "script web (svc/s.yaml, document 1): apply exited with 3: no disk"
    );
    let slow = script("web", json!({"apply": {"command": ["sleep", "60"], "timeout": "1s"}}));
    let failure = scene.apply("web", &[("s.yaml", &slow)]).await.unwrap_err();
    assert_eq!(failure.reason, "ScriptTimeout");
    assert!(failure.message.contains("1s"), "{}", failure.message);
    let none = script("web", json!({"apply": {"command": ["/no/such/program"]}}));
    let failure = scene.apply("web", &[("s.yaml", &none)]).await.unwrap_err();
    assert!(failure.message.contains("/no/such/program"), "{}", failure.message);
    let loud = script("web", json!({"apply": {"command": ["yes"]}}));
    let failure = scene.apply("web", &[("s.yaml", &loud)]).await.unwrap_err();
    assert!(failure.message.contains("wrote more than"), "{}", failure.message);
    assert_eq!(scene.appliers.held()[&key("web")].applied, None);
}

#[tokio::test]
async fn scripts_run_only_where_the_policy_enables_shell() {
    let scene = Scene::new(Policy::default()).await;
    let mark = scene.path("mark").display().to_string();
    let spec = json!({"apply": sh("touch $MARK"), "env": {"MARK": mark}});
    let failure = scene.apply("web", &[("s.yaml", &script("web", spec))]).await.unwrap_err();
    assert!(failure.refused && failure.reason == "NoApplier", "{failure:?}");
    assert!(failure.message.contains("shell") && failure.message.contains("policy.yaml"));
    assert!(!fs::exists(&mark).unwrap());
    scene.remove("web").await.expect("nothing was applied, so there is nothing to remove");
}

#[tokio::test]
async fn the_group_of_a_script_ends_with_it_and_its_sessions_live_on() {
    let scene = scene().await;
    let dir = scene.path("").display().to_string();
    let text =
        "sleep 300 & echo $! > $DIR/group; setsid sleep 300 & echo $! > $DIR/session; sleep 0.2";
    let spec = json!({"apply": sh(text), "env": {"DIR": dir}});
    scene.apply("web", &[("s.yaml", &script("web", spec))]).await.unwrap();
    let pid = |name: &str| fs::read_to_string(scene.path(name)).unwrap().trim().to_owned();
    assert!(!is_alive(&pid("group")), "a process of the group outlived its script");
    let daemon = pid("session");
    assert!(is_alive(&daemon), "a process with a session of its own did not");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon.parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[tokio::test]
async fn cancelling_kills_the_script() {
    let scene = scene().await;
    let begun = scene.path("begun");
    let spec = json!({"apply": sh("echo $$ > $MARK.new; mv $MARK.new $MARK; sleep 300"),
                      "env": {"MARK": begun.display().to_string()}});
    let digest = scene.put(&[("s.yaml", &script("web", spec))]);
    let cancel = CancellationToken::new();
    let (key, order) = (key("web"), order(digest, Intent::Present));
    let applying = scene.appliers.apply(&key, &order, &[], cancel.clone());
    let cancelling = async {
        until("the script's begin", || begun.exists()).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(applying, cancelling);
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.reason, "Cancelled");
    assert!(!is_alive(fs::read_to_string(&begun).unwrap().trim()));
}

#[tokio::test]
async fn a_dropped_action_leaves_nothing_running_beside_the_next_one() {
    let scene = scene().await;
    let ledger = scene.path("ledger");
    let text = "echo begin $$ >> $LEDGER; sleep 0.3; echo end $$ >> $LEDGER";
    let spec = json!({"apply": sh(text), "env": {"LEDGER": ledger.display().to_string()}});
    let digest = scene.put(&[("s.yaml", &script("web", spec))]);
    let (key, order) = (key("web"), order(digest, Intent::Present));
    for round in 0..5 {
        let dropped = scene.appliers.apply(&key, &order, &[], CancellationToken::new());
        tokio::time::timeout(Duration::from_millis(20 * round), dropped).await.ok();
    }
    scene.appliers.apply(&key, &order, &[], CancellationToken::new()).await;
    no_overlap(&fs::read_to_string(&ledger).unwrap());
}

const KILLED_DIR: &str = "MUSTER_TEST_KILLED_DIR";

/// The agent of the next test, in a process of its own; by itself it tests nothing.
#[tokio::test]
async fn an_agent_to_be_killed() {
    let Some(dir) = std::env::var_os(KILLED_DIR).map(PathBuf::from) else { return };
    let policy = Policy::enabling(["shell"]).unwrap();
    let scene = Scene::at(&dir, policy).await;
    // A child of the script's shell does the waiting and writes the end, so that killing only the
    // direct child of the agent would not do.
    let text = "echo begin $$ >> $LEDGER; sh -c 'sleep 0.1; echo end $1 >> $LEDGER' x $$";
    let ledger = dir.join("ledger").display().to_string();
    let spec = json!({"apply": sh(text), "env": {"LEDGER": ledger}});
    scene.apply("web", &[("s.yaml", &script("web", spec))]).await.unwrap();
}

#[test]
fn agents_that_are_killed_never_run_a_script_twice_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let agent = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "shell::an_agent_to_be_killed"]).env(KILLED_DIR, dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for round in 0..50u64 {
        let mut running = agent();
        // Anywhere from before the script begins to after it has ended.
        std::thread::sleep(Duration::from_millis(round * 37 % 180));
        running.kill().unwrap();
        running.wait().unwrap();
    }
    assert!(agent().wait().unwrap().success());
    let ledger = fs::read_to_string(dir.path().join("ledger")).unwrap();
    assert!(ledger.lines().filter(|line| line.starts_with("begin")).count() > 5, "{ledger}");
    no_overlap(&ledger);
}

/// Every `end` belongs to the `begin` just before it: nothing of another run came between.
fn no_overlap(ledger: &str) {
    let mut last = "";
    for line in ledger.lines() {
        if let Some(pid) = line.strip_prefix("end ") {
            assert_eq!(last.strip_prefix("begin "), Some(pid), "in\n{ledger}");
        }
        last = line;
    }
    assert!(last.starts_with("end "), "the last run did not end:\n{ledger}");
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_script_is_no_claim_and_no_root() {
    let mut files = FileSet::new();
    let text = script("web", json!({"apply": sh("true")}));
    files.insert("s.yaml", text.into_bytes()).unwrap();
    let contents = Appliers::contents(&files).unwrap();
    assert!(contents.claims.is_empty() && !contents.terraform);
}
