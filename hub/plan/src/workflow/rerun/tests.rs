//! When everything runs again, as a table.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn status(truth: &str, phase: &str) -> Value {
    let since = "2026-01-01T00:00:00Z";
    let mut status = json!({ "conditions": [{
        "type": kind::CONFIGURE_WORKFLOW_COMPLETED, "status": truth, "reason": "x",
        "message": "", "lastTransitionTime": since,
    }] });
    let entry =
        json!({ "name": "main", "phase": phase, "lastTransitionTime": "2026-01-01T02:00:00Z" });
    status["kratix"]["workflows"]["configure"]["pipelines"] = json!([entry]);
    status
}

#[test]
fn the_interval_is_counted_from_the_end_well_or_not() {
    let due =
        |status: &Value, options: &Options| due_at(status, HOUR, options).map(|at| at.to_string());
    let retries = Options::default();
    let keeps = Options { reconcile_after_failure: false, ..Options::default() };
    let well = status("True", phase::SUCCEEDED);
    assert_eq!(due(&well, &retries).as_deref(), Some("2026-01-01T01:00:00Z"));
    assert_eq!(due(&well, &keeps).as_deref(), Some("2026-01-01T01:00:00Z"));
    // Its condition was False all the time: when it failed is what counts.
    let failed = status("False", phase::FAILED);
    assert_eq!(due(&failed, &retries).as_deref(), Some("2026-01-01T03:00:00Z"));
    assert_eq!(due(&failed, &keeps), None);
    for phase in [phase::RUNNING, phase::SUSPENDED, phase::PENDING] {
        assert_eq!(due(&status("False", phase), &retries), None, "{phase}");
    }
    assert_eq!(due(&json!({}), &retries), None);
}

#[test]
fn what_is_written_on_the_object_goes_before_the_promise_and_that_before_the_platform() {
    let options = Options { interval: 3 * HOUR, ..Options::default() };
    let written = Workflows { interval: Some(2 * HOUR), ..Workflows::default() };
    let silent = Workflows::default();
    assert_eq!(interval(Some("1h"), &written, &options), HOUR);
    assert_eq!(interval(None, &written, &options), 2 * HOUR);
    assert_eq!(interval(None, &silent, &options), 3 * HOUR);
    // One that is too short or no duration at all is as none.
    for wrong in ["59s", "soon", ""] {
        assert_eq!(interval(Some(wrong), &written, &options), 2 * HOUR, "{wrong}");
    }
}

#[test]
fn the_earliest_of_what_is_waited_for_decides_when_to_look_again() {
    let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
    let now = at(100).unwrap();
    assert_eq!(look_again_at(&Step::Complete, (None, None), now), None);
    assert_eq!(look_again_at(&Step::Complete, (at(300), at(200)), now), at(200));
    let until = Step::Suspended { index: 0, until: at(150) };
    assert_eq!(look_again_at(&until, (at(300), None), now), at(150));
    let refused = Step::Refused { index: 0, cause: String::new() };
    assert_eq!(look_again_at(&refused, (None, None), now), at(110));
    let awaited = |is_refused| Step::Await { job: String::new(), is_refused };
    assert_eq!(look_again_at(&awaited(true), (None, None), now), at(100));
    assert_eq!(look_again_at(&awaited(false), (None, None), now), None);
}
