//! List plus watch equals state, at every revision that is kept, before and after a restart.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{broken::BrokenDisk, *};

/// Names and values at a revision.
type Model = BTreeMap<String, i64>;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, i64),
    Remove(u8),
    /// Old history goes.
    Trim,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0_u8..6, 0_i64..1000).prop_map(|(name, value)| Step::Put(name, value)),
        5 => (0_u8..6).prop_map(Step::Remove),
        1 => Just(Step::Trim),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..250)
}

/// The store's disk and state without its thread, so that history can be aged.
struct Bench {
    dir: tempfile::TempDir,
    platter: BrokenDisk,
    disk: Option<Disk>,
    state: State,
    /// What was at each revision.
    models: BTreeMap<u64, Model>,
}

impl Bench {
    fn new() -> Bench {
        let (dir, platter) = (tempfile::tempdir().unwrap(), BrokenDisk::default());
        let (disk, state) = platter.open(dir.path()).unwrap();
        let models = BTreeMap::from([(0, Model::new())]);
        Bench { dir, platter, disk: Some(disk), state, models }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put(name, value) => self.write(&format!("t{name}"), Some(value)),
            Step::Remove(name) => self.write(&format!("t{name}"), None),
            Step::Trim => {
                let later = Instant::now() + Duration::from_secs(3600);
                let trimmed = self.state.trim(later, Keep::Least);
                self.disk.as_mut().unwrap().commit(&[], &trimmed).unwrap();
                self.state.forget(&trimmed);
            }
            Step::Reopen => {
                self.disk = None;
                let (disk, state) = self.platter.open(self.dir.path()).unwrap();
                assert_eq!(state.revision, self.state.revision);
                assert_eq!(state.object_bytes, self.state.object_bytes);
                (self.disk, self.state) = (Some(disk), state);
            }
        }
    }

    fn write(&mut self, name: &str, value: Option<i64>) {
        let prev = self.state.get(&key(name)).cloned();
        let revision = self.state.revision + 1;
        let (kind, object) = match (value, &prev) {
            (None, None) => return,
            (None, Some(prev)) => (EventKind::Deleted, prev.at_revision(revision)),
            (Some(value), _) => {
                let kind = if prev.is_some() { EventKind::Modified } else { EventKind::Added };
                (kind, Object::new(kind, key(name), revision, draft(&thing(name, value)).unwrap()))
            }
        };
        let event = Arc::new(Event::new(kind, Arc::new(object), prev));
        let disk = self.disk.as_mut().unwrap();
        disk.commit(std::slice::from_ref(&event), &Default::default()).unwrap();
        self.state.publish(event);
        let mut model = self.models.values().next_back().unwrap().clone();
        match value {
            Some(value) => model.insert(name.to_owned(), value),
            None => model.remove(name),
        };
        self.models.insert(revision, model);
    }

    /// For every revision: what a list at it says, and what a watch from it leads to.
    fn check(&self) {
        let now: Model = values(&self.state).into_iter().collect();
        assert_eq!(&now, self.models.values().next_back().unwrap());
        let mut kept = 0;
        for (&revision, model) in &self.models {
            let Ok(before) = self.state.before("things", revision) else {
                assert!(self.state.events_after("things", revision, 1).is_err());
                continue;
            };
            kept += 1;
            let mut listed = now.clone();
            for ((_, name), object) in before {
                match object {
                    Some(object) => listed.insert(name, value_of(&object)),
                    None => listed.remove(&name),
                };
            }
            assert_eq!(&listed, model, "listed at {revision}");
            for event in self.state.events_after("things", revision, usize::MAX).unwrap() {
                let name = event.object.key.name.clone();
                let known = listed.contains_key(&name);
                assert_eq!(known, event.kind != EventKind::Added, "{:?} of {name}", event.kind);
                match event.kind {
                    EventKind::Deleted => listed.remove(&name),
                    _ => listed.insert(name, value_of(&event.object)),
                };
            }
            assert_eq!(listed, now, "watched from {revision}");
        }
        assert!(kept > 0, "the newest revision is always kept");
    }
}

fn value_of(object: &Object) -> i64 {
    object.value()["value"].as_i64().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn list_plus_watch_equals_state_at_every_kept_revision(steps in steps()) {
        let mut bench = Bench::new();
        for step in steps {
            bench.run(step);
        }
        bench.check();
        bench.run(Step::Reopen);
        bench.check();
    }
}
