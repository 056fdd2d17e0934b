//! The engine as a table: Jobs and status in, the next step out.

use super::*;

const NAMES: [&str; 2] = ["first", "second"];

fn run(hash: &str) -> Run {
    Run { hash: hash.to_owned(), number: 0 }
}

fn job(pipeline: &str, hash: &str, state: JobState) -> JobSeen {
    let name = format!("{pipeline}-{hash}");
    let (pipeline, run) = (pipeline.to_owned(), run(hash));
    JobSeen { name, pipeline, run, attempt: 1, created: None, state, trouble: None }
}

fn decide(jobs: &[JobSeen], recorded: &[PipelineStatus], suspended: bool) -> Progress {
    let run = run("h");
    let now = Timestamp::UNIX_EPOCH;
    next(&Seen { pipelines: &NAMES, run: &run, jobs, recorded, suspended, now })
}

fn phases(progress: &Progress) -> Vec<&str> {
    progress.pipelines.iter().map(|entry| entry.phase.as_str()).collect()
}

#[test]
fn pipelines_run_one_after_another() {
    let begun = decide(&[], &[], false);
    assert_eq!(begun.step, Step::Start { index: 0, attempt: 1 });
    assert_eq!(phases(&begun), ["Running", "Pending"]);
    let running = decide(&[job("first", "h", JobState::Running)], &begun.pipelines, false);
    assert_eq!(running.step, Step::Running { index: 0 });
    let second = decide(&[job("first", "h", JobState::Succeeded)], &begun.pipelines, false);
    assert_eq!(second.step, Step::Start { index: 1, attempt: 1 });
    let jobs = [job("first", "h", JobState::Succeeded), job("second", "h", JobState::Succeeded)];
    let done = decide(&jobs, &second.pipelines, false);
    assert_eq!(done.step, Step::Complete);
    assert_eq!(phases(&done), ["Succeeded", "Succeeded"]);
}

#[test]
fn jobs_that_were_deleted_do_not_run_again() {
    let jobs = [job("first", "h", JobState::Succeeded), job("second", "h", JobState::Succeeded)];
    let done = decide(&jobs, &[], false);
    assert_eq!(decide(&[], &done.pipelines, false), done);
}

#[test]
fn a_change_waits_for_the_job_that_runs_and_starts_at_the_first_pipeline() {
    let old = [job("first", "old", JobState::Succeeded), job("second", "old", JobState::Running)];
    let waiting = decide(&old, &[], false);
    let awaited = |is_refused| Step::Await { job: "second-old".to_owned(), is_refused };
    assert_eq!(waiting.step, awaited(false));
    // One whose result was refused would only try the same again.
    let refused = PipelineStatus {
        name: "second".into(),
        phase: phase::FAILED.into(),
        hash: Some("old".into()),
        tries: Some(1),
        ..PipelineStatus::default()
    };
    assert_eq!(decide(&old, &[refused], false).step, awaited(true));
    let ended = [job("first", "old", JobState::Succeeded), job("second", "old", JobState::Stopped)];
    assert_eq!(decide(&ended, &[], false).step, Step::Start { index: 0, attempt: 1 });
}

#[test]
fn a_failure_halts_until_the_inputs_change() {
    let failed = JobState::Failed { reason: "BackoffLimitExceeded".into(), message: "gone".into() };
    let halted = decide(&[job("first", "h", failed.clone())], &[], false);
    let expected = Step::Failed { index: 0, reason: String::new(), message: "gone".into() };
    assert_eq!(halted.step, expected);
    assert_eq!(
        decide(&[job("first", "h", failed.clone())], &halted.pipelines, false).step,
        expected
    );
    let corrected = decide(&[job("first", "old", failed)], &halted.pipelines[1..], false);
    assert_eq!(corrected.step, Step::Start { index: 0, attempt: 1 });
}

#[test]
fn what_went_wrong_is_told_while_tries_go_on_and_in_the_end() {
    let trouble = |tries| Some(Trouble { tries, cause: "container a exited with 3".to_owned() });
    let begun = decide(&[], &[], false);
    let trying = JobSeen { trouble: trouble(1), ..job("first", "h", JobState::Running) };
    let told = decide(&[trying], &begun.pipelines, false);
    let said = told.pipelines[0].message.as_deref();
    assert_eq!(said, Some("try 1 failed: container a exited with 3"));
    let failed = |reason: &str| JobState::Failed { reason: reason.into(), message: "why".into() };
    let given_up = |state, trouble| {
        let job = JobSeen { trouble, ..job("first", "h", state) };
        match decide(&[job], &told.pipelines, false).step {
            Step::Failed { message, .. } => message,
            other => panic!("{other:?}"),
        }
    };
    let said = given_up(failed("BackoffLimitExceeded"), trouble(2));
    assert_eq!(said, "tried 2 times: container a exited with 3");
    // A cluster deletes the pods of a Job that it gives up: what they said is not forgotten.
    let said = given_up(failed("BackoffLimitExceeded"), None);
    assert_eq!(said, "try 1 failed: container a exited with 3");
    assert_eq!(given_up(failed(IMAGE_NOT_RUNNABLE), trouble(1)), "why");
    let late = given_up(failed("DeadlineExceeded"), trouble(1));
    assert_eq!(late, "why; container a exited with 3");
    let well = decide(&[job("first", "h", JobState::Succeeded)], &told.pipelines, false);
    assert_eq!(well.pipelines[0].message, None);
}

fn suspended(tries: i64) -> PipelineStatus {
    PipelineStatus {
        name: "first".into(),
        phase: phase::SUSPENDED.into(),
        hash: Some("h".into()),
        tries: Some(tries),
        ..PipelineStatus::default()
    }
}

#[test]
fn a_suspended_pipeline_waits_for_its_label_or_its_time() {
    let entry = suspended(1);
    let jobs = [job("first", "h", JobState::Succeeded)];
    let held = decide(&jobs, std::slice::from_ref(&entry), true);
    assert_eq!(held.step, Step::Suspended { index: 0, until: None });
    let released = decide(&jobs, std::slice::from_ref(&entry), false);
    assert_eq!(released.step, Step::Start { index: 0, attempt: 2 });
    assert_eq!(released.pipelines[0].tries, Some(2));
    // Its Jobs may have been removed meanwhile.
    assert_eq!(decide(&[], std::slice::from_ref(&entry), false), released);
    let due = PipelineStatus { next_retry_at: Some("1970-01-01T00:00:00Z".into()), ..entry };
    assert_eq!(decide(&jobs, &[due], true).step, Step::Start { index: 0, attempt: 2 });
}

#[test]
fn a_resumed_pipeline_runs_once_though_status_still_says_that_it_waits() {
    let second = |state| JobSeen { attempt: 2, ..job("first", "h", state) };
    let first = job("first", "h", JobState::Succeeded);
    // The hub died between the Job and the status.
    let running = decide(&[first.clone(), second(JobState::Running)], &[suspended(1)], false);
    assert_eq!(running.step, Step::Running { index: 0 });
    assert_eq!((phases(&running)[0], running.pipelines[0].tries), ("Running", Some(2)));
    let ended = decide(&[first.clone(), second(JobState::Succeeded)], &[suspended(1)], false);
    assert_eq!(ended.step, Step::Start { index: 1, attempt: 1 });
    // The Job that is spoken of was removed while it ran: the one before it says nothing.
    let lost = decide(&[first], &running.pipelines, false);
    assert_eq!(lost.step, Step::Start { index: 0, attempt: 2 });
}

#[test]
fn a_pipeline_that_is_to_go_on_and_must_wait_for_a_job_forgets_nothing() {
    let jobs = [job("first", "h", JobState::Succeeded), job("second", "old", JobState::Running)];
    let waits = decide(&jobs, &[suspended(1)], false);
    assert!(matches!(waits.step, Step::Await { .. }), "{:?}", waits.step);
    let ended = [job("first", "h", JobState::Succeeded), job("second", "old", JobState::Succeeded)];
    let next = decide(&ended, &waits.pipelines, false);
    assert_eq!(next.step, Step::Start { index: 0, attempt: 2 });
}

#[test]
fn attempts_are_kept_while_it_is_tried_again_and_gone_when_it_has_succeeded() {
    let entry = PipelineStatus {
        attempts: Some(3),
        next_retry_at: Some("1970-01-01T00:00:00Z".into()),
        ..suspended(3)
    };
    let third = JobSeen { attempt: 3, ..job("first", "h", JobState::Succeeded) };
    let again = decide(std::slice::from_ref(&third), &[entry], true);
    assert_eq!(again.step, Step::Start { index: 0, attempt: 4 });
    let told = &again.pipelines[0];
    assert_eq!((told.attempts, told.next_retry_at.as_deref()), (Some(3), None));
    let fourth = JobSeen { attempt: 4, ..third.clone() };
    let done = decide(&[third, fourth], &again.pipelines, false);
    assert_eq!((phases(&done)[0], done.pipelines[0].attempts), ("Succeeded", None));
}

#[test]
fn what_the_api_refuses_is_told_and_has_not_begun() {
    let now = Timestamp::UNIX_EPOCH;
    let begun = decide(&[], &[], false);
    let refused = begun.refused(0, "failed to create Job a: no", now);
    let cause = "failed to create Job a: no".to_owned();
    assert_eq!(refused.step, Step::Refused { index: 0, cause: cause.clone() });
    assert_eq!(refused.pipelines[0].message, Some(cause));
    assert_eq!(phases(&refused), ["Pending", "Pending"]);
    let again = decide(&[], &refused.pipelines, false);
    assert_eq!(again.step, Step::Start { index: 0, attempt: 1 });
}

#[test]
fn the_job_of_an_earlier_try_does_not_speak_for_one_that_is_refused() {
    // It ended well and asked to be tried again.
    let first = job("first", "h", JobState::Succeeded);
    let resumed = decide(std::slice::from_ref(&first), &[suspended(1)], false);
    assert_eq!(resumed.step, Step::Start { index: 0, attempt: 2 });
    let refused = resumed.refused(0, "no", Timestamp::UNIX_EPOCH);
    let again = decide(&[first], &refused.pipelines, false);
    assert_eq!(again.step, Step::Start { index: 0, attempt: 2 });
}

#[test]
fn the_newest_ended_jobs_of_each_pipeline_are_kept() {
    let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
    let jobs: Vec<_> = (0..7)
        .map(|i| JobSeen { created: at(i), ..job("first", &i.to_string(), JobState::Succeeded) })
        .collect();
    assert_eq!(surplus(&jobs, &run("6"), 5), ["first-1", "first-0"]);
    // Another pipeline's are counted apart, and what runs is not counted.
    let mut all = jobs.clone();
    all[0].pipeline = "second".to_owned();
    all[1].state = JobState::Running;
    assert!(surplus(&all, &run("6"), 5).is_empty());
    // The last one of the present run stays, though it was created in the same second as others.
    let same: Vec<_> = jobs.iter().map(|job| JobSeen { created: at(1), ..job.clone() }).collect();
    for present in ["0", "3", "6"] {
        let gone = surplus(&same, &run(present), 0);
        assert_eq!(gone.len(), 6);
        assert!(!gone.contains(&format!("first-{present}").as_str()), "{present}: {gone:?}");
    }
}
