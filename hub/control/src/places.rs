//! Which directories of state stores are taken: an index that admission asks.
//!
//! It is kept by a watch, which is late, so a place is also taken from the moment that a write of it
//! was let through until the watch shows it. Writes pass admission in this process alone: two
//! Destinations that come at once cannot both be let through.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use muster_api::Destination;
use muster_plan::admit::{InTheWay, Place, Places};

/// How long a place is kept for a write that was let through: longer than it takes until a watch
/// shows it. A write that fails after all is rare, and who wrote it tries again later than this.
const CLAIM_LIFE: Duration = Duration::from_secs(5);

/// What is known of places; one for the process.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Whether the first list has been seen.
    complete: bool,
    places: Places,
    by_destination: HashMap<String, Held>,
    /// Claims in the order in which they end.
    ends: VecDeque<(Timestamp, String)>,
}

/// The places of one Destination.
#[derive(Debug, Default)]
struct Held {
    seen: Option<Place>,
    claimed: Vec<(Place, Timestamp)>,
}

impl Claims {
    /// A watch shows a Destination as it is now, or that it is gone.
    pub(crate) fn saw(&self, name: &str, destination: Option<&Destination>) {
        let place = destination.and_then(Place::of);
        self.lock().change(name, |held| {
            held.claimed.retain(|(claimed, _)| place.as_ref() != Some(claimed));
            held.seen = place;
        });
    }

    /// A watch has shown all.
    pub(crate) fn complete(&self) {
        self.lock().complete = true;
    }

    /// Whether all are known that are older than this process.
    pub(crate) fn is_complete(&self) -> bool {
        self.lock().complete
    }

    /// Takes a place for a Destination, unless another one is in the way.
    pub(crate) fn claim(&self, name: &str, place: Place, now: Timestamp) -> Result<(), InTheWay> {
        let mut known = self.lock();
        known.forget_old(now);
        if let Some(by) = known.places.in_the_way(&place, name) {
            return Err(by);
        }
        let end = now + CLAIM_LIFE;
        known.change(name, |held| {
            held.claimed.retain(|(claimed, _)| *claimed != place);
            held.claimed.push((place, end));
        });
        known.ends.push_back((end, name.to_owned()));
        Ok(())
    }

    /// Whether another Destination is in the way, without taking anything.
    pub(crate) fn in_the_way(&self, name: &str, place: &Place, now: Timestamp) -> Option<InTheWay> {
        let mut known = self.lock();
        known.forget_old(now);
        known.places.in_the_way(place, name)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget_old(&mut self, now: Timestamp) {
        while let Some((_, name)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            self.change(&name, |held| held.claimed.retain(|(_, end)| *end > now));
        }
    }

    /// Changes what is known of one Destination, and the index with it.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Held)) {
        let held = self.by_destination.entry(name.to_owned()).or_default();
        let before = held.all();
        change(held);
        let after = held.all();
        if after.is_empty() {
            self.by_destination.remove(name);
        }
        before.difference(&after).for_each(|place| self.places.take(place, name));
        after.difference(&before).for_each(|place| self.places.put(place, name));
    }
}

impl Held {
    fn all(&self) -> BTreeSet<Place> {
        self.claimed.iter().map(|(place, _)| place).chain(&self.seen).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use muster_api::{DestinationSpec, destination::StateStoreRef};

    use super::*;

    fn at(path: &str) -> Destination {
        let spec = DestinationSpec {
            path: Some(path.into()),
            state_store_ref: Some(StateStoreRef { name: "hub".into(), ..Default::default() }),
            ..Default::default()
        };
        Destination::new("any", spec)
    }

    fn claim(claims: &Claims, name: &str, path: &str, seconds: i64) -> Result<(), String> {
        let now = Timestamp::from_second(seconds).unwrap();
        let place = Place::of(&at(path)).unwrap();
        claims.claim(name, place, now).map_err(|by| by.destination)
    }

    #[test]
    fn a_place_is_taken_before_a_watch_shows_it() {
        let claims = Claims::default();
        assert_eq!(claim(&claims, "one", "a", 0), Ok(()));
        assert_eq!(claim(&claims, "two", "a", 1), Err("one".into()));
        assert_eq!(claim(&claims, "one", "a", 1), Ok(()), "its own");
        claims.saw("one", Some(&at("a")));
        assert_eq!(claim(&claims, "two", "a/b", 1000), Err("one".into()));
        claims.saw("one", None);
        assert_eq!(claim(&claims, "two", "a/b", 1000), Ok(()));
    }

    #[test]
    fn a_write_that_never_came_gives_its_place_back() {
        let claims = Claims::default();
        claims.saw("one", Some(&at("a")));
        assert_eq!(claim(&claims, "one", "b", 0), Ok(()));
        // An older event does not free what is on its way.
        claims.saw("one", Some(&at("a")));
        for path in ["a", "b"] {
            assert_eq!(claim(&claims, "two", path, 1), Err("one".into()));
        }
        assert_eq!(claim(&claims, "two", "b", 6), Ok(()));
        assert_eq!(claim(&claims, "three", "a", 6), Err("one".into()), "it is still there");
    }
}
