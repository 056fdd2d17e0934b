//! One store's writer: opens it, looks whether it answers, writes all that waits, says what became
//! of it, and begins again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use muster_api::destination::{StateStoreKind, StateStoreRef};
use muster_daemon::{Backoff, Clock};
use muster_plan::{
    rollup::{StoreOutcome, StoreReport},
    store::{Fault, Lack, STORE_NOT_FOUND, Step, not_found},
};
use muster_stores::{Drift, Entry, StateStore, Trouble, Weight, Written};
use tokio::time::Instant;

use super::{
    Desk, Dirty, Shared,
    batch::{self, Batch, Sites, Subject, Unit},
    keep::Keeper,
    lock, open,
};
use crate::{shelf::ObjectKey, status::Said};

/// How often a store is asked whether it answers, and its Secret read again: with the time that an
/// answer may take, a user hears within half a minute that a credential was revoked.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// The first wait after a trouble; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest: whoever mends the cause should not have to wait longer.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long a first change waits for others that come with it.
const SETTLE: Duration = Duration::from_millis(25);
/// How many batches are written before it is said how the store and its Destinations stand: files
/// come first, but not for ever.
const BATCHES_MAX: usize = 8;
/// How many placements written together have an event each.
const TOLD_MAX: usize = 100;
/// How long what a store's own rules reject is not tried again, unless it changes.
const REJECTED_RETRY: Duration = Duration::from_secs(60);

/// Sits at one desk.
pub(super) struct Worker {
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    keeper: Keeper,
    opened: Option<Opened>,
    /// Whether the store takes files; nothing before the first look.
    standing: Option<Result<(), Fault>>,
    backoff: Backoff,
    /// Placements that were refused, and by which destination: looked at again when something goes.
    refused: BTreeMap<ObjectKey, String>,
    /// Destinations that had a fault of their own at the last look.
    faulty: BTreeSet<String>,
    /// What the store rejected, until it is tried again.
    rejected: Option<(Instant, Dirty)>,
    /// When everything was last compared with what it should be.
    compared: Instant,
}

struct Opened {
    store: Box<dyn StateStore>,
    mark: String,
    /// When it last answered.
    answered: Option<Instant>,
}

impl Worker {
    pub(super) fn new(desk: Arc<Desk>, shared: Arc<Shared>) -> Self {
        Self {
            keeper: Keeper::new(shared.clone(), desk.key.clone()),
            compared: shared.config.clock.instant(),
            desk,
            shared,
            opened: None,
            standing: None,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            refused: BTreeMap::new(),
            faulty: BTreeSet::new(),
            rejected: None,
        }
    }

    fn clock(&self) -> &Clock {
        &self.shared.config.clock
    }

    /// Works until it is dropped, or the store and all that refers to it are gone.
    pub(super) async fn run(mut self) {
        self.shared.config.world.loaded().await;
        loop {
            let wait = self.turn().await;
            let gone = matches!(
                &self.standing,
                Some(Err(fault)) if fault.lack.reason == STORE_NOT_FOUND
            );
            if gone
                && Sites::look(&self.shared, &self.desk.key).is_empty()
                && self.shared.close(&self.desk)
            {
                return;
            }
            tokio::select! {
                () = self.desk.wake.notified() => self.clock().sleep(SETTLE).await,
                () = self.clock().sleep(wait) => {}
            }
        }
    }

    /// One turn; returns how long the next may wait.
    async fn turn(&mut self) -> Duration {
        match self.try_turn().await {
            Ok(()) => {
                self.backoff.reset();
                PROBE_EVERY
            }
            Err(fault) => {
                self.report_waiting(&fault.lack).await;
                self.stand(Err(fault)).await;
                self.backoff.wait()
            }
        }
    }

    async fn try_turn(&mut self) -> Result<(), Fault> {
        let at = |step| move |lack| Fault { step, lack };
        self.open().await.map_err(at(Step::Opening))?;
        self.probe().await.map_err(at(Step::Probing))?;
        self.compare_in_time();
        self.mended();
        // A store that answers and takes nothing is not ready before it takes something: it would be
        // called so and not so at each turn.
        let takes_nothing =
            matches!(&self.standing, Some(Err(fault)) if fault.step == Step::Writing);
        if !takes_nothing {
            self.stand(Ok(())).await;
        }
        let wrote = self.write_all().await.map_err(at(Step::Writing))?;
        if wrote || takes_nothing {
            self.stand(Ok(())).await;
        }
        Ok(())
    }

    /// Looks at everything again when the platform's interval has passed: others may have changed
    /// what the store holds in a way that nobody saw.
    fn compare_in_time(&mut self) {
        let now = self.clock().instant();
        let interval = self.shared.config.options.now().store_interval;
        if interval.is_some_and(|interval| now - self.compared >= interval) {
            lock(&self.desk.dirty).all = true;
            self.compared = now;
        }
    }

    /// Sees to it that the store is open as its objects describe it now.
    async fn open(&mut self) -> Result<(), Lack> {
        let (kind, name) = &self.desk.key;
        let Some(object) = self.shared.config.world.store(*kind, name) else {
            self.opened = None;
            return Err(not_found(&StateStoreRef { kind: *kind, name: name.clone() }));
        };
        let described = open::describe(&self.shared.config.client, &object).await.map_err(lack);
        let described = described.inspect_err(|_| self.opened = None)?;
        if self.opened.as_ref().is_some_and(|opened| opened.mark == described.mark) {
            return Ok(());
        }
        // The old one goes first: both would be in one directory.
        self.opened = None;
        let dir = self.shared.config.dir.join(format!("{}-{name}", kind.as_str()));
        let store = muster_stores::open(described.access, &dir, self.clock()).map_err(lack)?;
        self.opened = Some(Opened { store, mark: described.mark, answered: None });
        // It may be another store now, or others may have changed what it holds.
        lock(&self.desk.dirty).all = true;
        Ok(())
    }

    /// Asks the store whether it takes files, unless it answered a moment ago.
    async fn probe(&mut self) -> Result<(), Lack> {
        let now = self.clock().instant();
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let at_most = self.shared.config.options.now().fetch_interval;
        let every = match self.desk.key.0 {
            StateStoreKind::GitStateStore => PROBE_EVERY.max(at_most),
            StateStoreKind::BucketStateStore => PROBE_EVERY,
        };
        let fresh = opened.answered.is_some_and(|answered| now - answered < every);
        if fresh && matches!(self.standing, Some(Ok(()))) {
            return Ok(());
        }
        let drift = opened.store.probe().await.map_err(lack)?;
        opened.answered = Some(self.shared.config.clock.instant());
        self.drifted(drift);
        Ok(())
    }

    /// Looks again at what others changed.
    fn drifted(&self, drift: Drift) {
        let mut changed = Dirty::default();
        match drift {
            Drift::None => return,
            Drift::Unknown => changed.all = true,
            Drift::Paths(paths) => {
                let touched = Sites::look(&self.shared, &self.desk.key).touched(&paths);
                for name in touched {
                    let held = self.shared.config.world.placements_on(&name);
                    changed.placements.extend(held.iter().map(|found| ObjectKey::of(&**found)));
                    changed.destinations.insert(name);
                }
            }
        }
        lock(&self.desk.dirty).merge(changed);
    }

    /// Looks again at Destinations whose fault is gone, such as a place that another one held.
    fn mended(&mut self) {
        let sites = Sites::look(&self.shared, &self.desk.key);
        let faulty = sites.iter().filter(|(_, site)| site.root.is_err());
        let faulty: BTreeSet<_> = faulty.map(|(name, _)| name.to_owned()).collect();
        let before = std::mem::replace(&mut self.faulty, faulty);
        let mut changed = Dirty::default();
        for name in before.difference(&self.faulty) {
            let held = self.shared.config.world.placements_on(name);
            changed.placements.extend(held.iter().map(|found| ObjectKey::of(&**found)));
            changed.destinations.insert(name.clone());
        }
        lock(&self.desk.dirty).merge(changed);
    }

    /// Writes until nothing waits; says whether there was anything.
    async fn write_all(&mut self) -> Result<bool, Lack> {
        for batches in 0..BATCHES_MAX {
            let mut dirty = std::mem::take(&mut *lock(&self.desk.dirty));
            let now = self.clock().instant();
            if self.rejected.as_ref().is_some_and(|(since, _)| now - *since > REJECTED_RETRY)
                && let Some((_, again)) = self.rejected.take()
            {
                dirty.merge(again);
            }
            if !dirty.freed.is_empty() {
                let freed = self.refused.iter().filter(|(_, name)| dirty.freed.contains(*name));
                dirty.placements.extend(freed.map(|(key, _)| key.clone()));
            }
            if dirty.is_empty() {
                return Ok(batches > 0);
            }
            let sites = Sites::look(&self.shared, &self.desk.key);
            let mut batch = batch::gather(&self.shared, &sites, dirty).await;
            lock(&self.desk.dirty).merge(std::mem::take(&mut batch.rest));
            self.settle(&mut batch).await;
            let result = self.write(std::mem::take(&mut batch.units)).await;
            self.keeper.remove(&batch.leaving).await;
            result?;
        }
        // The rest in the next turn, which comes at once.
        self.desk.wake.notify_one();
        Ok(true)
    }

    /// Says what of a batch needs no store.
    async fn settle(&mut self, batch: &mut Batch) {
        for refused in std::mem::take(&mut batch.refused) {
            if refused.for_good {
                self.refused.insert(refused.key.clone(), refused.destination.clone());
            } else {
                self.reject(Dirty { placements: [refused.key.clone()].into(), ..Dirty::default() });
            }
            let Lack { reason, message } = refused.lack;
            let outcome = StoreOutcome::Failed { reason, message, refused: refused.for_good };
            self.report(refused.key, refused.destination, outcome).await;
        }
        for (key, destination) in std::mem::take(&mut batch.free) {
            self.report(key, destination, StoreOutcome::Removed).await;
        }
    }

    /// Writes units together; what the store's rules reject is halved until the culprit is alone.
    async fn write(&mut self, units: Vec<Unit>) -> Result<(), Lack> {
        let mut waiting = vec![units];
        while let Some(mut units) = waiting.pop() {
            if units.is_empty() {
                continue;
            }
            let entries: Vec<Entry> = units.iter().flat_map(|unit| unit.entries.clone()).collect();
            let Some(opened) = &mut self.opened else { return Ok(()) };
            match opened.store.write(&entries).await {
                Ok(written) => {
                    opened.answered = Some(self.shared.config.clock.instant());
                    self.drifted(written.drift.clone());
                    self.written(units, &written).await;
                }
                Err(trouble) if trouble.weight == Weight::Batch && units.len() > 1 => {
                    let rest = units.split_off(units.len() / 2);
                    waiting.extend([rest, units]);
                }
                Err(trouble) if trouble.weight == Weight::Batch => {
                    for subject in units.into_iter().flat_map(|unit| unit.subjects) {
                        self.reject(subject.dirty());
                        self.failed(&subject, &lack(trouble.clone())).await;
                    }
                }
                Err(trouble) => {
                    let all = units.into_iter().chain(waiting.into_iter().flatten());
                    let mut dirty = lock(&self.desk.dirty);
                    all.flat_map(|unit| unit.subjects).for_each(|s| dirty.merge(s.dirty()));
                    return Err(lack(trouble));
                }
            }
        }
        Ok(())
    }

    async fn written(&mut self, units: Vec<Unit>, written: &Written) {
        let many = units.len() > TOLD_MAX;
        let mut versions = written.versions.iter();
        for unit in units {
            let versions: Vec<_> = versions.by_ref().take(unit.entries.len()).collect();
            let version = versions.last().map_or(String::new(), |version| (*version).clone());
            for subject in unit.subjects {
                match subject {
                    Subject::Present { key, destination, digest } => {
                        self.refused.remove(&key);
                        let (version, changed) = (version.clone(), written.changed);
                        let outcome = StoreOutcome::Written { digest, version, changed, many };
                        self.report(key, destination, outcome).await;
                    }
                    Subject::Absent { key, destination } => {
                        self.refused.remove(&key);
                        self.report(key, destination, StoreOutcome::Removed).await;
                    }
                    Subject::Documents { destination } => {
                        self.keeper.documents_are_there(destination)
                    }
                    Subject::Last { destination } => self.keeper.let_go(&destination).await,
                }
            }
        }
    }

    fn reject(&mut self, dirty: Dirty) {
        let now = self.clock().instant();
        let (_, held) = self.rejected.get_or_insert_with(|| (now, Dirty::default()));
        held.merge(dirty);
    }

    /// Tells all who wait that the store is in trouble; what is written already stays as it is said.
    async fn report_waiting(&mut self, trouble: &Lack) {
        let gone = trouble.reason == STORE_NOT_FOUND;
        let sites = Sites::look(&self.shared, &self.desk.key);
        let mut seen = BTreeSet::new();
        for (name, _) in sites.iter() {
            for placement in self.shared.config.world.placements_on(name) {
                let key = ObjectKey::of(&*placement);
                let leaving = placement.metadata.deletion_timestamp.is_some();
                let status = placement.status.as_ref();
                let held = status.and_then(|status| status.applied_digest.as_ref());
                if !seen.insert(key.clone()) || (!leaving && held == Some(&placement.spec.digest)) {
                    continue;
                }
                let outcome = match leaving && (gone || self.keeper.is_given_up(&placement)) {
                    true => StoreOutcome::Removed,
                    false => failure(trouble),
                };
                self.report(key, name.to_owned(), outcome).await;
            }
        }
        self.keeper.remove_without_store(&sites, gone).await;
    }

    async fn failed(&self, subject: &Subject, trouble: &Lack) {
        if let Subject::Present { key, destination, .. } | Subject::Absent { key, destination } =
            subject
        {
            self.report(key.clone(), destination.clone(), failure(trouble)).await;
        }
    }

    async fn report(&self, key: ObjectKey, destination: String, outcome: StoreOutcome) {
        let said = Said::Store(StoreReport { destination, outcome });
        self.shared.config.reports.take(key, said).await;
    }

    /// Says how the store and its Destinations stand.
    async fn stand(&mut self, standing: Result<(), Fault>) {
        let sites = Sites::look(&self.shared, &self.desk.key);
        self.keeper.keep(&standing, &sites).await;
        self.standing = Some(standing);
    }
}

impl Subject {
    fn dirty(&self) -> Dirty {
        let mut dirty = Dirty::default();
        match self {
            Self::Present { key, .. } | Self::Absent { key, .. } => {
                dirty.placements.insert(key.clone());
            }
            Self::Documents { destination } | Self::Last { destination } => {
                dirty.destinations.insert(destination.clone());
            }
        }
        dirty
    }
}

fn failure(trouble: &Lack) -> StoreOutcome {
    let Lack { reason, message } = trouble.clone();
    StoreOutcome::Failed { reason, message, refused: false }
}

fn lack(trouble: Trouble) -> Lack {
    Lack { reason: trouble.reason.to_owned(), message: trouble.message }
}
