//! Tokens and certificates that do not let an agent in.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use muster_e2e::{Agent, Executor, Hub, Process, eventually, program, scratch};

/// What `muster agents token create` prints: the words of the command, and the token.
fn token(hub: &Hub, name: &str, more: &[&str]) -> (Vec<String>, String) {
    let args = [&["agents", "token", "create", name, "--applier", "shell"], more].concat();
    let output = hub.muster(&args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let command = lines.next().unwrap().split(" <<").next().unwrap();
    let words = command.split(' ').skip(1).map(str::to_owned).collect();
    (words, lines.next().unwrap().to_owned())
}

/// Runs the printed command with this token until it ends by itself.
fn refused(words: &[String], token: &str, state: &Path) -> String {
    let file = state.with_extension("token");
    fs::write(&file, token).unwrap();
    let output: Output = Command::new(program("muster-agent"))
        .args(words)
        .arg("--state-dir")
        .arg(state)
        .stdin(fs::File::open(&file).unwrap())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "the token was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_token_lets_in_one_key_once_and_in_time() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let at = |name: &str| directory.path().join(name);

    let (words, good) = token(&hub, "vm-1", &[]);
    let mut wrong = good.clone();
    wrong.replace_range(wrong.len() - 3.., "AAA");
    let told = refused(&words, &wrong, &at("wrong"));
    assert!(told.contains("token") && told.contains("muster agents token create"), "{told}");

    let agent = Agent::join(&hub, directory.path(), "vm-2", &[], &["shell"], None);
    let join = fs::read_to_string(directory.path().join("vm-2.join")).unwrap();
    let used = join.lines().nth(1).unwrap();
    let told = refused(&words, used, &at("twice"));
    assert!(told.contains("used") && told.contains("muster agents token create"), "{told}");
    agent.wait_connected(&hub);

    let (words, late) = token(&hub, "vm-3", &["--ttl", "1s"]);
    let told = eventually("the token to expire", || {
        let state = scratch();
        let file = state.path().join("late.token");
        fs::write(&file, &late).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
        Ok::<_, String>(refused(&words, &late, &state.path().join("late")))
    });
    assert!(told.contains("expired") && told.contains("muster agents token create"), "{told}");
}

#[test]
fn a_host_whose_agent_was_removed_joins_again_with_a_new_token() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let mut agent = Agent::join(&hub, directory.path(), "vm-1", &[], &["shell"], None);
    let removed = hub.muster(&["agents", "remove", "vm-1"]).output().unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    eventually("the agent to say that it was removed", || {
        let log = agent.process().log();
        let told = log.contains("removed") && log.contains("join again with a new token");
        if told { Ok(()) } else { Err(log) }
    });
    agent.crash();
    // The same state directory: what the agent has applied is written down there.
    Agent::join(&hub, directory.path(), "vm-1", &[], &["shell"], None);
}

#[test]
fn a_host_that_has_joined_goes_on_when_join_finds_no_hub() {
    let directory = scratch();
    let mut hub = Hub::start(directory.path(), Executor::Process);
    let mut agent = Agent::join(&hub, directory.path(), "vm-1", &[], &["shell"], None);
    agent.crash();
    hub.crash();
    // The command that a service manager was given runs again at every start.
    let programs = program("muster-agent").parent().unwrap().display().to_string();
    let mut again = Command::new("sh");
    again.arg(directory.path().join("vm-1.join")).stdout(Stdio::null());
    again.env("PATH", format!("{programs}:{}", env::var("PATH").unwrap_or_default()));
    let again = Process::start(&mut again, &directory.path().join("again.log"));
    let says = |what: &str| {
        eventually(what, || if again.log().contains(what) { Ok(()) } else { Err(again.log()) });
    };
    says("joined already, and goes on");
    hub.restart();
    says("Connected to the hub");
}

#[test]
fn a_second_agent_on_one_state_directory_is_refused() {
    let directory = scratch();
    let hub = Hub::start(directory.path(), Executor::Process);
    let agent = Agent::join(&hub, directory.path(), "vm-1", &[], &["shell"], None);
    let mut second = Command::new(program("muster-agent"));
    let second = second.arg("run").arg("--state-dir").arg(agent.state_dir()).output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && told.contains("another process is using"), "{told}");
    assert!(told.contains(&agent.state_dir().display().to_string()), "{told}");
    agent.wait_connected(&hub);
}

#[test]
fn an_agent_of_another_hub_is_told_so() {
    let directory = scratch();
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    let mut first = Hub::start(directory.path(), Executor::Process);
    let mut agent = Agent::join(&first, directory.path(), "vm-1", &[], &["shell"], None);
    agent.crash();
    // Another hub takes the place of the first one, on the same address.
    first.stop();
    fs::remove_dir_all(first.data_dir()).unwrap();
    first.restart();
    agent.restart();
    eventually("the agent to say that the hub is another one", || {
        let log = agent.process().log();
        let told = log.contains("certificate") && log.contains("join");
        if told { Ok(()) } else { Err(log) }
    });
}
