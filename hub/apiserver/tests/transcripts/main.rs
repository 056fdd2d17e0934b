//! Sessions of the real `kubectl`, as people type them, with what a real control plane of the same
//! minor answered: each is played against an embedded API of its own, by kubectl of the served
//! minor and by the newest one, and must print the same.
//!
//! A session is a text file beside this one ([`script`] says how to read it). What a real control
//! plane prints is recorded, never written by hand:
//!
//! ```text
//! eval "$(tests/real/parts.sh)"
//! MUSTER_RECORD=control-plane cargo test --workspace --test transcripts   # by tests/real/control-plane.sh
//! MUSTER_RECORD=muster cargo test --workspace --test transcripts          # what we print where we differ
//! MUSTER_SESSIONS=apply,delete cargo test --workspace --test transcripts  # only these files
//! ```

mod cluster;
#[path = "../shared/home.rs"]
mod home;
mod normal;
mod play;
mod script;

use std::{collections::BTreeMap, fs, path::PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};

use cluster::Plane;
use script::{Answer, Script, Step, Version};

/// Sessions played at the same time: a kubectl keeps one core busy for most of its life.
const AT_ONCE: usize = 3;

/// So many commands at least are to be compared.
const COMMANDS_MIN: usize = 150;

/// What this run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Plays against the embedded API and compares.
    Check,
    /// Plays against a real control plane and writes what it prints.
    Record,
    /// Plays against the embedded API and writes what it prints where it is to differ.
    RecordOurs,
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_prints_what_a_real_control_plane_makes_it_print() {
    let mode = mode();
    let Some(programs) = programs() else { return };
    let scripts = scripts();
    let played: Vec<(String, Version, Vec<Answer>)> = futures::stream::iter(
        scripts.keys().flat_map(|name| programs.iter().map(move |program| (name, program))),
    )
    .map(async |(name, (version, program))| {
        let plane = if mode == Mode::Record { Plane::Real } else { Plane::Embedded };
        let answers = play::play(&scripts[name], program, plane).await?;
        Ok::<_, String>((name.clone(), *version, answers))
    })
    .buffer_unordered(AT_ONCE)
    .try_collect()
    .await
    .unwrap_or_else(|why| panic!("{why}"));
    if mode == Mode::Check {
        compare(&scripts, &played);
    } else {
        record(scripts, &played, mode);
    }
}

#[test]
fn a_session_is_written_as_it_was_read() {
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(Script::parse(&text).unwrap().to_string(), text, "{}", path.display());
        }
    }
}

fn mode() -> Mode {
    match std::env::var("MUSTER_RECORD").as_deref() {
        Ok("control-plane") => Mode::Record,
        Ok("muster") => Mode::RecordOurs,
        Ok(other) => panic!("MUSTER_RECORD={other:?}: say control-plane or muster"),
        Err(_) => Mode::Check,
    }
}

/// The kubectls to play with; `None` if they are not there and need not be.
fn programs() -> Option<Vec<(Version, PathBuf)>> {
    let variables =
        [(Version::Served, "MUSTER_KUBECTL"), (Version::Newest, "MUSTER_KUBECTL_NEWEST")];
    let mut found = Vec::new();
    for (version, variable) in variables {
        match std::env::var_os(variable) {
            Some(path) => found.push((version, path.into())),
            None if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
                panic!("{variable} is not set: CI must not skip; see tests/real/parts.sh")
            }
            None => eprintln!("skipped: {variable} is not set: eval \"$(tests/real/parts.sh)\""),
        }
    }
    (!found.is_empty()).then_some(found)
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// The sessions by name, all unless some are named.
fn scripts() -> BTreeMap<String, Script> {
    let wanted = std::env::var("MUSTER_SESSIONS").ok();
    let mut scripts = BTreeMap::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let chosen = wanted.as_ref().is_none_or(|names| names.split(',').any(|n| n == name));
        if path.extension().is_some_and(|extension| extension == "txt") && chosen {
            let text = fs::read_to_string(&path).unwrap();
            let script = Script::parse(&text).unwrap_or_else(|why| panic!("{name}.txt: {why}"));
            scripts.insert(name, script);
        }
    }
    let commands: usize = scripts.values().map(Script::commands).sum();
    assert!(
        wanted.is_some() || commands >= COMMANDS_MIN,
        "only {commands} kubectl commands are left"
    );
    scripts
}

/// Fails with everything that differs.
fn compare(scripts: &BTreeMap<String, Script>, played: &[(String, Version, Vec<Answer>)]) {
    let (mut commands, mut deviations, mut wrong) = (0, 0, Vec::new());
    // To print what was recorded is never wrong, even where we used not to.
    let mut overtaken = Vec::new();
    for (name, version, answers) in played {
        let script = &scripts[name];
        commands += script.commands();
        for (step, answer) in script.steps.iter().zip(answers) {
            deviations += usize::from(step.ours.is_some());
            match step.expected(*version) {
                Some(expected) if expected == answer => {}
                _ if step.recorded.get(*version) == Some(answer) => {
                    overtaken.push(format!("{name}.txt: $ {}", step.command));
                }
                expected => wrong.push(format!(
                    "{name}.txt, kubectl {version}: $ {}\n--- expected\n{}--- printed\n{answer}",
                    step.command,
                    expected.map(Answer::to_string).unwrap_or_default()
                )),
            }
        }
    }
    println!(
        "{commands} kubectl commands in {} sessions; {deviations} steps differ on purpose",
        played.len()
    );
    for step in overtaken {
        println!("no longer differs; take its mark away by MUSTER_RECORD=muster: {step}");
    }
    assert!(wrong.is_empty(), "{} steps differ:\n\n{}", wrong.len(), wrong.join("\n"));
}

fn record(
    scripts: BTreeMap<String, Script>,
    played: &[(String, Version, Vec<Answer>)],
    mode: Mode,
) {
    for (name, mut script) in scripts {
        for (_, version, answers) in played.iter().filter(|(of, _, _)| *of == name) {
            for (step, answer) in script.steps.iter_mut().zip(answers) {
                match (mode, &mut step.ours) {
                    (Mode::Record, _) => step.recorded.set(*version, answer.clone()),
                    (_, Some(ours)) => ours.answers.set(*version, answer.clone()),
                    _ => {}
                }
            }
        }
        if mode == Mode::RecordOurs {
            script.steps.iter_mut().for_each(Step::drop_vain_mark);
        }
        fs::write(folder().join(format!("{name}.txt")), script.to_string()).unwrap();
    }
}
