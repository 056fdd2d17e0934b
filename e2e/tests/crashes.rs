//! `kill -9` at any moment, of either side: nothing is lost and nothing is applied twice at once.

#[path = "crashes/ledger.rs"]
mod ledger;
#[path = "crashes/steps.rs"]
mod steps;

use std::{
    env, fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use ledger::Ledger;
use muster_e2e::{Agent, Executor, Hub, Kubectl, eventually, manifests::Promise, scratch};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// How often one side is killed.
const KILLS: usize = 50;

#[test]
fn fifty_kills_lose_no_change_and_run_no_script_twice_at_once() {
    let scratch = scratch();
    let dir = scratch.path();
    let mut random = random();
    let mut hub = Hub::start(dir, Executor::Process);
    let kubectl = hub.kubectl();
    let mut agent = Agent::join(&hub, dir, "vm-1", &["platform=vm"], &["shell"], None);
    let script = LEDGERS.script.replace("APPLY", ledger::APPLY.trim());
    kubectl.apply(&Promise { script: &script, ..LEDGERS }.yaml());
    kubectl.wait("promise/ledger", "Available");
    let file = dir.join("ledger");
    let spec = format!("turn: 0, file: \"{}\"", file.display());
    kubectl.apply(&LEDGERS.request("book", &spec));
    kubectl.wait("ledger/book", "Reconciled");

    let (mut turn, mut begun) = (0, Ledger::of(&file).begun);
    for kill in 0..KILLS {
        turn += 1;
        kubectl.ok(&[
            "patch",
            "ledger/book",
            "--type=merge",
            "-p",
            &format!(r#"{{"spec":{{"turn":{turn}}}}}"#),
        ]);
        // Some moments fall into the pipelines and the way down, others into a run of the script.
        if kill % 3 == 0 {
            eventually("the script to run", || {
                let ledger = Ledger::of(&file);
                if ledger.begun > begun { Ok(()) } else { Err(format!("{ledger:?}")) }
            });
        }
        thread::sleep(Duration::from_millis(random.random_range(0..250)));
        if random.random_bool(0.5) {
            agent.crash();
            agent.restart();
        } else {
            hub.crash_and_restart();
        }
        begun = Ledger::of(&file).begun;
    }

    let reconciled = r#"jsonpath={.metadata.generation} {.status.conditions[?(@.type=="Reconciled")].observedGeneration} {.status.conditions[?(@.type=="Reconciled")].status} {.status.outputs.turn}"#;
    let done = kubectl.until(&["get", "ledger/book", "-o", reconciled], |told| {
        let words: Vec<_> = told.split(' ').collect();
        words.len() == 4
            && words[0] == words[1]
            && words[2] == "True"
            && words[3] == turn.to_string()
    });
    let ledger = Ledger::of(&file);
    println!("{ledger:?}, the request: {done}");
    assert_eq!(ledger.last, Some(turn), "the last change was not the last one to be applied");
    assert!(ledger.killed > 0, "no run was killed: the test has tried nothing");

    kubectl.ok(&["delete", "ledger/book", "--timeout=120s"]);
    assert!(!fs::exists(&file).unwrap(), "deleted, and not removed");
}

#[test]
fn what_the_hub_has_answered_is_there_after_it_was_killed_amid_writes() {
    let scratch = scratch();
    let mut random = random();
    let mut hub = Hub::start(scratch.path(), Executor::Process);
    let kubectl = hub.kubectl();
    let (ended, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answered: Vec<Answered> = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (kubectl, ended, written) = (&kubectl, &ended, &written);
                scope.spawn(move || write(kubectl, writer, ended, written))
            })
            .collect();
        for _ in 0..6 {
            let before = written.load(Ordering::Relaxed);
            eventually("writes to be answered", || {
                let now = written.load(Ordering::Relaxed);
                if now >= before + 6 { Ok(()) } else { Err(format!("{now} after {before}")) }
            });
            thread::sleep(Duration::from_millis(random.random_range(0..300)));
            hub.crash_and_restart();
        }
        ended.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let names = kubectl.ok(&["get", "configmaps", "-o", "name"]);
    for Answered { created, counter, count } in answered {
        for name in created {
            assert!(
                names.lines().any(|line| line == format!("configmap/{name}")),
                "{name} is lost"
            );
        }
        let held = kubectl.ok(&["get", "configmap", &counter, "-o", "jsonpath={.data.count}"]);
        // A change that was made and not answered may be there too.
        let held: u32 = held.parse().unwrap();
        assert!(held == count || held == count + 1, "{counter} is {held}, answered was {count}");
    }
}

/// What one writer was told is done.
struct Answered {
    created: Vec<String>,
    counter: String,
    count: u32,
}

/// Creates objects and changes one, trying each again until it is answered.
fn write(kubectl: &Kubectl, writer: u32, ended: &AtomicBool, written: &AtomicUsize) -> Answered {
    let counter = format!("counter-{writer}");
    eventually("the counter to be made", || {
        let answer = kubectl.run(&["create", "configmap", &counter, "--from-literal=count=0"]);
        let made = answer.ok || answer.stderr.contains("AlreadyExists");
        if made { Ok(()) } else { Err(answer.stderr) }
    });
    let (mut created, mut count) = (Vec::new(), 0);
    for n in 0.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("written-{writer}-{n}");
        if kubectl.run(&["create", "configmap", &name]).ok {
            created.push(name);
            written.fetch_add(1, Ordering::Relaxed);
        }
        let next = format!(r#"{{"data":{{"count":"{}"}}}}"#, count + 1);
        if kubectl.run(&["patch", "configmap", &counter, "--type=merge", "-p", &next]).ok {
            count += 1;
            written.fetch_add(1, Ordering::Relaxed);
        }
    }
    Answered { created, counter, count }
}

/// Chance that can be repeated: `MUSTER_SEED` is the seed that a failed run has printed.
fn random() -> StdRng {
    let seed = env::var("MUSTER_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| {
        SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos().into()
    });
    println!("MUSTER_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A Promise whose requests become a Script that keeps a ledger in the file that they name.
const LEDGERS: Promise<'_> = Promise {
    name: "ledger",
    group: "crashes.example.com",
    platform: "platform: vm",
    fields: &[("turn", "{type: integer}"), ("file", "{type: string}")],
    dependencies: "",
    script: r#"
cat > apply.sh <<'END'
APPLY
END
cat > ledger.yaml <<END
apiVersion: fleet.muster.dev/v1alpha1
kind: Script
metadata: {name: ledger}
spec:
  env: {TURN: "$turn", LEDGER: "$file"}
  # The death of the agent ends its child, not the child of that.
  apply: {command: [sh, -c, "sh apply.sh & wait \$!"], timeout: 30s}
  health: {command: [sh, -c, 'echo "{\"turn\":\"\$TURN\"}"'], period: 60s}
  remove: {command: [sh, -c, 'rm -f "\$LEDGER"']}
END
"#,
    once: false,
};
