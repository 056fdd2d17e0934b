//! The queue's promises, on its state alone.

use super::*;

fn drained(state: &mut State<&'static str>) -> Vec<&'static str> {
    std::iter::from_fn(|| state.start()).collect()
}

#[test]
fn triggers_before_a_reconcile_melt_into_one() {
    let mut state = State::default();
    state.trigger("a");
    state.trigger("b");
    state.trigger("a");
    assert_eq!(drained(&mut state), ["a", "b"]);
}

#[test]
fn a_trigger_during_a_reconcile_runs_once_more_after_it() {
    let mut state = State::default();
    state.trigger("a");
    assert_eq!(state.start(), Some("a"));
    state.trigger("a");
    state.trigger("a");
    assert_eq!(state.start(), None, "two reconciles of one object at once");
    state.finish("a", Ok(Next::Change), Instant::now());
    assert_eq!(drained(&mut state), ["a"]);
}

#[test]
fn failures_wait_longer_each_time_until_one_succeeds() {
    let mut state = State::default();
    let now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..12 {
        state.trigger("a");
        state.start();
        state.finish("a", Err(()), now);
        waits.push(state.due["a"] - now);
    }
    assert_eq!(waits[..3], [RETRY_MIN, RETRY_MIN * 2, RETRY_MIN * 4]);
    assert_eq!(waits[11], RETRY_MAX);
    state.trigger("a");
    state.start();
    state.finish("a", Ok(Next::Change), now);
    state.trigger("a");
    state.start();
    state.finish("a", Err(()), now);
    assert_eq!(state.due["a"] - now, RETRY_MIN);
}

#[test]
fn a_timer_is_void_once_its_object_was_reconciled() {
    let mut state = State::default();
    let now = Instant::now();
    state.trigger("a");
    state.start();
    state.finish("a", Ok(Next::After(Duration::from_secs(5))), now);
    state.trigger("a");
    state.start();
    state.finish("a", Ok(Next::Change), now);
    state.wake(now + Duration::from_secs(6));
    assert_eq!(drained(&mut state), Vec::<&str>::new());
}
