//! The queue's promises, on its state alone.

use super::*;

impl Key for &'static str {
    /// What stands before the slash.
    fn share(&self) -> &str {
        self.split_once('/').map_or("", |(share, _)| share)
    }
}

fn end(turns: &mut Turns<&'static str>, key: &'static str, next: Next) {
    turns.finish(key, Ended::Well(next), Instant::now());
}

fn drained(state: &mut Turns<&'static str>) -> Vec<&'static str> {
    std::iter::from_fn(|| state.start()).collect()
}

#[test]
fn triggers_before_a_reconcile_melt_into_one() {
    let mut state = Turns::default();
    state.trigger("a");
    state.trigger("b");
    state.trigger("a");
    assert_eq!(drained(&mut state), ["a", "b"]);
}

#[test]
fn a_trigger_during_a_reconcile_runs_once_more_after_it() {
    let mut state = Turns::default();
    state.trigger("a");
    assert_eq!(state.start(), Some("a"));
    state.trigger("a");
    state.trigger("a");
    assert_eq!(state.start(), None, "two reconciles of one object at once");
    state.finish("a", Ended::Well(Next::Change), Instant::now());
    assert_eq!(drained(&mut state), ["a"]);
}

#[test]
fn failures_wait_longer_each_time_until_one_succeeds() {
    let mut state = Turns::default();
    let now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..12 {
        state.trigger("a");
        state.start();
        state.finish("a", Ended::Badly, now);
        waits.push(state.due["a"] - now);
    }
    assert_eq!(waits[..3], [RETRY_MIN, RETRY_MIN * 2, RETRY_MIN * 4]);
    assert_eq!(waits[11], RETRY_MAX);
    state.trigger("a");
    state.start();
    state.finish("a", Ended::Well(Next::Change), now);
    state.trigger("a");
    state.start();
    state.finish("a", Ended::Badly, now);
    assert_eq!(state.due["a"] - now, RETRY_MIN);
}

#[test]
fn a_timer_is_void_once_its_object_was_reconciled() {
    let mut state = Turns::default();
    let now = Instant::now();
    state.trigger("a");
    state.start();
    state.finish("a", Ended::Well(Next::After(Duration::from_secs(5))), now);
    state.trigger("a");
    state.start();
    state.finish("a", Ended::Well(Next::Change), now);
    state.wake(now + Duration::from_secs(6));
    assert_eq!(drained(&mut state), Vec::<&str>::new());
}

#[test]
fn what_is_under_way_goes_before_what_came_later() {
    let mut turns = Turns::default();
    turns.trigger("first");
    turns.trigger("second");
    assert_eq!(turns.start(), Some("first"));
    turns.trigger("third");
    end(&mut turns, "first", Next::Underway(None));
    turns.trigger("first");
    assert_eq!(turns.start(), Some("first"), "it has lost its place");
    end(&mut turns, "first", Next::Change);
    turns.trigger("first");
    assert_eq!(drained(&mut turns), ["second", "third", "first"], "it kept its place for ever");
}

#[test]
fn those_who_wait_share_the_places() {
    let mut turns = Turns::default();
    for key in ["a/1", "a/2", "a/3", "a/4", "b/1", "b/2"] {
        turns.trigger(key);
    }
    let begun: Vec<_> = (0..4).filter_map(|_| turns.start()).collect();
    assert_eq!(begun, ["a/1", "b/1", "a/2", "b/2"]);
    end(&mut turns, "b/1", Next::Change);
    end(&mut turns, "b/2", Next::Change);
    turns.trigger("b/3");
    assert_eq!(turns.start(), Some("b/3"), "its share has nothing running");
    assert_eq!(drained(&mut turns), ["a/3", "a/4"], "nobody else waits: all places are theirs");
}

#[test]
fn who_met_a_newer_copy_looks_again_at_once_but_not_for_ever() {
    let mut turns = Turns::default();
    let now = Instant::now();
    turns.trigger("a");
    for _ in 0..OVERTAKEN_MAX {
        assert_eq!(turns.start(), Some("a"));
        turns.finish("a", Ended::Overtaken, now);
    }
    assert_eq!(turns.start(), Some("a"));
    turns.finish("a", Ended::Overtaken, now);
    assert_eq!(turns.start(), None);
    assert_eq!(turns.due["a"] - now, RETRY_MIN);
}
