//! Progress in status: both layouts, what Jobs say, and what is forgotten.

use super::*;

fn speaker(tries: i64) -> Speaker {
    let (pipeline, hash) = ("main".to_owned(), "h".to_owned());
    Speaker { pipeline, action: Action::Configure, hash, tries }
}

fn retry(seconds: u64, attempts_max: Option<i64>) -> Control {
    Control {
        message: "no DNS yet".to_owned(),
        retry_after: Some(Duration::from_secs(seconds)),
        attempts_max,
        ..Control::default()
    }
}

fn moment(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The seconds that are waited after each attempt, up to the one that is refused, and with which
/// words.
fn waits(asked: &Control, attempts: i64) -> (Vec<i64>, Option<String>) {
    let (mut status, mut waits) = (json!({}), Vec::new());
    for tries in 1..=attempts {
        if let Err(cause) = wait(&mut status, &speaker(tries), asked, Some(1), moment(0)) {
            return (waits, Some(cause));
        }
        let entry = &read(&status, Action::Configure)[0];
        assert_eq!(entry.attempts, Some(tries));
        let until: Timestamp = entry.next_retry_at.as_deref().unwrap().parse().unwrap();
        waits.push(until.as_second());
    }
    (waits, None)
}

#[test]
fn both_layouts_are_written_and_the_one_by_action_is_read() {
    let entry = |name: &str, phase: &str| PipelineStatus {
        name: name.to_owned(),
        phase: phase.to_owned(),
        hash: Some("h".to_owned()),
        tries: Some(1),
        ..PipelineStatus::default()
    };
    let (configure, delete) = ([entry("main", phase::SUCCEEDED)], [entry("undo", phase::RUNNING)]);
    let mut status = json!({});
    write(&mut status, Action::Configure, &configure);
    let plain = json!([{ "name": "main", "phase": "Succeeded" }]);
    assert_eq!(status["kratix"]["workflows"]["pipelines"], plain);
    write(&mut status, Action::Delete, &delete);
    assert_eq!(read(&status, Action::Configure), configure);
    assert_eq!(read(&status, Action::Delete), delete);
    let plain = json!([{ "name": "undo", "phase": "Running" }]);
    assert_eq!(status["kratix"]["workflows"]["pipelines"], plain);
}

#[test]
fn what_an_earlier_hub_recorded_does_not_run_again() {
    let held = json!([{ "name": "main", "phase": "Succeeded", "hash": "h" }]);
    let status = json!({ "kratix": { "workflows": { "pipelines": held } } });
    assert_eq!(read(&status, Action::Configure)[0].hash.as_deref(), Some("h"));
    assert!(read(&status, Action::Delete).is_empty());
}

#[test]
fn without_a_limit_every_wait_is_as_long_as_asked() {
    assert_eq!(waits(&retry(30, None), 5), (vec![30; 5], None));
}

#[test]
fn with_a_limit_waits_double_up_to_an_hour_and_the_last_attempt_is_the_end() {
    let (waited, ended) = waits(&retry(30, Some(3)), 3);
    assert_eq!(waited, [30, 60]);
    let words =
        "it asked to be tried again, but its attempts are used up (maxAttempts: 3): no DNS yet";
    assert_eq!(ended.as_deref(), Some(words));
    assert_eq!(waits(&retry(1200, Some(100)), 5).0, [1200, 2400, 3600, 3600, 3600]);
    // Who asks for longer waits gets them.
    assert_eq!(waits(&retry(7200, Some(100)), 3).0, [7200, 7200, 7200]);
    assert_eq!(waits(&retry(1, Some(1)), 1).0, [0; 0]);
}

#[test]
fn asking_to_wait_twice_is_asking_once() {
    let mut status = json!({});
    wait(&mut status, &speaker(1), &retry(30, None), Some(4), moment(0)).unwrap();
    let once = status.clone();
    assert_eq!(once["kratix"]["workflows"]["suspendedGeneration"], 4);
    assert_eq!(once["kratix"]["workflows"]["configure"]["suspendedGeneration"], 4);
    wait(&mut status, &speaker(1), &retry(30, None), Some(4), moment(9)).unwrap();
    assert_eq!(status, once);
}

#[test]
fn another_run_forgets_all_but_when_a_phase_last_changed() {
    let mut status = json!({});
    wait(&mut status, &speaker(2), &retry(30, None), Some(1), moment(0)).unwrap();
    crate::workflow::rerun::pause(&mut status);
    restart(&mut status, Action::Configure);
    let workflows = &status["kratix"]["workflows"];
    let entry = json!([{
        "name": "main", "phase": "Pending", "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]);
    assert_eq!(workflows["configure"], json!({ "pipelines": entry }));
    assert_eq!(workflows["pipelines"], entry);
    assert_eq!(run(&status, "h").number, 1);
    assert!(!crate::workflow::rerun::was_paused(&status));
    assert!(workflows.get("suspendedGeneration").is_none());
}
