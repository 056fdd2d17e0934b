//! State stores and the Destinations that they feed: which are ready, and which touch each other?

use std::collections::BTreeMap;

use muster_api::{
    Destination,
    conditions::{self, Truth, Verdict, kind},
    destination::StateStoreRef,
};
use muster_core::directory;

/// A store's trouble, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// One CamelCase word.
    pub reason: String,
    /// The cause and the cure.
    pub message: String,
}

/// What was being done with a store when its trouble was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its object and its Secret were read.
    Opening,
    /// It was asked whether it takes files.
    Probing,
    /// It was to take files.
    Writing,
}

/// Why a store is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What was being done.
    pub step: Step,
    /// The trouble.
    pub lack: Lack,
}

/// Two Destinations whose directories touch each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The other one, which was there first.
    pub with: String,
    /// The other one's path.
    pub path: String,
}

/// Of Destinations in one repository or bucket, those that may not be served because the directory of
/// one that is served, or else an older one, holds theirs or lies in it; by name. `places` are their directories from the top of
/// the repository or bucket.
pub fn overlaps<'a>(
    places: impl IntoIterator<Item = (&'a Destination, String)>,
) -> BTreeMap<String, Overlap> {
    let mut order: Vec<_> = places.into_iter().collect();
    order.sort_by_key(|(destination, _)| {
        let meta = &destination.metadata;
        (
            !is_served(destination),
            meta.creation_timestamp.as_ref().map(|time| time.0),
            meta.name.clone(),
        )
    });
    let mut held: BTreeMap<String, String> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for (destination, place) in order {
        let name = destination.metadata.name.clone().unwrap_or_default();
        match touching(&held, &place) {
            Some((path, with)) => {
                let (path, with) = (path.clone(), with.clone());
                found.insert(name, Overlap { with, path });
            }
            None => drop(held.insert(place, name)),
        }
    }
    found
}

/// The condition `Ready` of a Destination that a state store feeds. `own` is a fault of its own.
pub fn destination_ready(
    destination: &Destination,
    store: Option<&Result<(), Fault>>,
    own: Option<&Lack>,
    documents_written: bool,
) -> Verdict {
    let not =
        |reason: &str, message: String| Verdict::new(kind::READY, Truth::False, reason, message);
    let yes = |reason: &str, message: &str| Verdict::new(kind::READY, Truth::True, reason, message);
    if let Some(lack) = own {
        return not(&lack.reason, lack.message.clone());
    }
    match store {
        Some(Err(fault)) if fault.lack.reason == STORE_NOT_FOUND => {
            not(STORE_NOT_FOUND, fault.lack.message.clone())
        }
        Some(Err(fault)) => {
            let reference = destination.spec.state_store_ref.as_ref().map(name_of);
            let store = reference.unwrap_or_default();
            not("StateStoreNotReady", format!("{store} is not ready: {}", fault.message()))
        }
        None => not("DestinationNotReady", "Destination is not ready".to_owned()),
        Some(Ok(())) if !destination.spec.init_workloads.enabled => {
            yes("DestinationReady", "Destination is ready")
        }
        Some(Ok(())) if documents_written => {
            yes("TestDocumentsWritten", "Test documents written to State Store")
        }
        Some(Ok(())) => not("DestinationNotReady", "Destination is not ready".to_owned()),
    }
}

/// The condition `Ready` of a state store.
pub fn store_ready(standing: &Result<(), Fault>) -> Verdict {
    match standing {
        Ok(()) => Verdict::new(kind::READY, Truth::True, "StateStoreReady", "State store is ready"),
        Err(fault) => Verdict::new(kind::READY, Truth::False, fault.reason(), fault.message()),
    }
}

impl Fault {
    /// Kratix's reason, of which there are few; the trouble's own is on the placements.
    fn reason(&self) -> &str {
        match (self.step, self.lack.reason.as_str()) {
            (_, reason @ (STORE_NOT_FOUND | "SecretNotFound" | "StateStoreError")) => reason,
            (Step::Opening, _) => "ErrorInitialisingWriter",
            (Step::Probing, _) => "ErrorValidatingPermissions",
            (Step::Writing, _) => "StateStoreError",
        }
    }

    fn message(&self) -> String {
        match self.step {
            Step::Opening => self.lack.message.clone(),
            Step::Probing => {
                format!("Error validating state store permissions: {}", self.lack.message)
            }
            Step::Writing => format!("Error writing to state store: {}", self.lack.message),
        }
    }
}

/// The reason of a Destination whose place another one has.
const OVERLAP: &str = "PathOverlap";
/// The reason of a Destination whose store does not exist.
pub const STORE_NOT_FOUND: &str = "StateStoreNotFound";

/// A store that does not exist.
pub fn not_found(store: &StateStoreRef) -> Lack {
    let message = format!(
        "spec.stateStoreRef: there is no {} {:?}: create it, or name another",
        store.kind.as_str(),
        store.name
    );
    Lack { reason: STORE_NOT_FOUND.to_owned(), message }
}

/// A reference as people write it.
pub fn name_of(store: &StateStoreRef) -> String {
    format!("{}/{}", store.kind.as_str(), store.name)
}

impl Overlap {
    /// The fault that it is.
    pub fn lack(&self) -> Lack {
        Lack { reason: OVERLAP.to_owned(), message: self.message() }
    }

    /// The cause and the cure.
    pub fn message(&self) -> String {
        format!(
            "spec.path: the directory of destination {:?} in the same state store is {:?}, and one \
             must not hold the other: give this one a path of its own beside it",
            self.with,
            if self.path.is_empty() { "." } else { &self.path }
        )
    }
}

/// Whether a Destination had its place before: times of creation are too coarse to tell who was first.
fn is_served(destination: &Destination) -> bool {
    let conditions = destination.status.as_ref().map(|s| s.conditions.as_slice());
    let ready = conditions::find(conditions.unwrap_or_default(), kind::READY);
    ready.is_some_and(|ready| ready.reason != OVERLAP)
}

/// What holds a directory, is it, or lies in it.
fn touching<'a>(
    held: &'a BTreeMap<String, String>,
    place: &str,
) -> Option<(&'a String, &'a String)> {
    let top = held.get_key_value("");
    let ends = place.match_indices('/').map(|(end, _)| end).chain([place.len()]);
    let above = ends.filter_map(|end| held.get_key_value(&place[..end])).next();
    let below = held.range(format!("{place}/")..).next();
    let below = below.filter(|(path, _)| directory::is_below(path, place));
    let any = held.iter().next().filter(|_| place.is_empty());
    top.or(above).or(below).or(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use muster_api::DestinationSpec;

    fn destination(name: &str, age: i64) -> Destination {
        let mut destination = Destination::new(name, DestinationSpec::default());
        let created = jiff::Timestamp::from_second(age).unwrap();
        destination.metadata.creation_timestamp = Some(Time(created));
        destination
    }

    #[test]
    fn the_older_of_two_destinations_keeps_its_directory() {
        for (older, younger, touch) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a/b", "a", true),
            ("", "a", true),
            ("a", "", true),
            ("a", "ab", false),
            ("a/b", "a/c", false),
        ] {
            let (one, two) = (destination("z-older", 1), destination("a-younger", 2));
            let found = overlaps([(&two, younger.to_owned()), (&one, older.to_owned())]);
            let expected = touch.then_some("a-younger");
            assert_eq!(found.keys().next().map(String::as_str), expected, "{older} {younger}");
        }
    }

    #[test]
    fn who_is_served_keeps_its_place_from_one_of_the_same_second() {
        let (newcomer, mut served) = (destination("again", 1), destination("dev", 1));
        let all = || [(&newcomer, "a/b".to_owned())];
        for (reason, loses) in [("StateStoreNotReady", "again"), ("PathOverlap", "dev")] {
            let verdict = Verdict::new(kind::READY, Truth::False, reason, "");
            let mut status = muster_api::DestinationStatus::default();
            conditions::set(&mut status.conditions, &verdict, None, jiff::Timestamp::UNIX_EPOCH);
            served.status = Some(status);
            let found = overlaps(all().into_iter().chain([(&served, "a".to_owned())]));
            assert_eq!(found.keys().collect::<Vec<_>>(), [loses], "{reason}");
        }
    }

    #[test]
    fn a_destination_is_ready_when_its_documents_are_there() {
        let lack = Lack { reason: "AuthenticationFailed".into(), message: "log in".into() };
        let fault = Fault { step: Step::Probing, lack };
        let mut quiet = destination("quiet", 1);
        quiet.spec.init_workloads.enabled = false;
        let normal = destination("dev", 1);
        let overlap = Overlap { with: "x".into(), path: String::new() }.lack();
        for (destination, store, overlap, written, truth, reason) in [
            (&normal, None, None, false, Truth::False, "DestinationNotReady"),
            (&normal, Some(Ok(())), None, false, Truth::False, "DestinationNotReady"),
            (&normal, Some(Ok(())), None, true, Truth::True, "TestDocumentsWritten"),
            (&quiet, Some(Ok(())), None, false, Truth::True, "DestinationReady"),
            (&normal, Some(Err(fault)), None, true, Truth::False, "StateStoreNotReady"),
            (&normal, Some(Ok(())), Some(&overlap), true, Truth::False, "PathOverlap"),
        ] {
            let verdict = destination_ready(destination, store.as_ref(), overlap, written);
            assert_eq!((verdict.truth, verdict.reason.as_str()), (truth, reason));
        }
    }

    #[test]
    fn a_stores_reasons_are_kratixs_and_the_words_say_more() {
        let ready = |step, reason: &str| {
            let lack = Lack { reason: reason.into(), message: "log in".into() };
            let verdict = store_ready(&Err(Fault { step, lack }));
            (verdict.reason, verdict.message)
        };
        for (step, own, reason, message) in [
            (Step::Opening, "SecretNotFound", "SecretNotFound", "log in"),
            (Step::Opening, "InvalidPath", "ErrorInitialisingWriter", "log in"),
            (
                Step::Probing,
                "AuthenticationFailed",
                "ErrorValidatingPermissions",
                "Error validating state store permissions: log in",
            ),
            (Step::Writing, "DiskFull", "StateStoreError", "Error writing to state store: log in"),
        ] {
            assert_eq!(ready(step, own), (reason.to_owned(), message.to_owned()));
        }
    }
}
