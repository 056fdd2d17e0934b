//! From Works to agents and back, put together: the watches, the index, the controllers that live on
//! it, and the ports that the gateway calls.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use muster_api::{Agent, BucketStateStore, Destination, GitStateStore, Work, WorkPlacement};
use muster_core::ports::{AssignmentSource, Enrolments, Presence, ReportSink};
use muster_daemon::Clock;
use muster_plan::options::Options;
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    ClientFor,
    agents::{AT_ONCE as AGENTS_AT_ONCE, AgentKeeper, Enrolling, Sessions},
    assign::Assignments,
    content::{ContentStore, SWEEP_GRACE},
    events::Events,
    options::Chosen,
    owner::Wakes,
    places::Claims,
    queue::{Queue, Triggers, chain, queue},
    schedule::{self, Scheduler},
    shelf::ObjectKey,
    status::{self, Reports, StatusWriter},
    stores::{Stores, StoresConfig},
    world::{Affected, Seen, World},
};

/// How many events that are ready at once are taken together, so that an assignment that many of
/// them change is published once.
const EVENTS_AT_ONCE: usize = 512;
/// How long the epoch is not asked for again after the API failed.
const EPOCH_RETRY: Duration = Duration::from_secs(1);

/// The way from Works to agents and back.
pub struct Fleet {
    watches: Client,
    world: Arc<World>,
    content: ContentStore,
    assignments: Assignments,
    sessions: Arc<Sessions>,
    enrolling: Enrolling,
    scheduler: Scheduler,
    status: StatusWriter,
    keeper: AgentKeeper,
    stores: Stores,
    queues: Queues,
    observer: Observer,
    clock: Clock,
}

struct Queues {
    schedule: Queue<ObjectKey>,
    placements: Queue<ObjectKey>,
    works: Queue<ObjectKey>,
    agents: Queue<String>,
}

impl Fleet {
    /// Builds everything for a platform that nobody configured; nothing is read or written before
    /// [`Fleet::run`]. It wakes no Promise and no request.
    pub fn build(client_for: &ClientFor, stores_dir: PathBuf, clock: &Clock) -> Self {
        let options = Chosen::new(Options::default());
        Self::waking(client_for, stores_dir, Wakes::of_nobody(clock), (clock, &options))
    }

    /// As [`Fleet::build`], with the owners of Works to wake, and the platform's options.
    pub(crate) fn waking(
        client_for: &ClientFor,
        stores_dir: PathBuf,
        wakes: Wakes,
        (clock, options): (&Clock, &Chosen),
    ) -> Self {
        let (schedule, placements) = (queue("schedule", clock), queue("placement", clock));
        let (works, agents) = (queue("work", clock), queue("agent", clock));
        let world = Arc::new(World::new());
        let content = ContentStore::new(client_for("content"), clock.clone());
        let assignments = Assignments::new(client_for("assign"), content.clone());
        let sessions = Arc::new(Sessions::new(clock.clone()));
        let reports = Reports::new(placements.0.clone());
        let stores = Stores::new(StoresConfig {
            client: client_for("stores"),
            world: world.clone(),
            content: content.clone(),
            reports: reports.clone(),
            dir: stores_dir,
            clock: clock.clone(),
            options: options.clone(),
        });
        let heads = Heads {
            schedule: schedule.0,
            placements: placements.0,
            works: works.0.clone(),
            agents: agents.0,
            wakes,
            assignments: assignments.clone(),
            stores: stores.clone(),
            released: Arc::new(Notify::new()),
        };
        let observer = Observer { world: world.clone(), heads };
        let queues = Queues {
            schedule: schedule.1,
            placements: placements.1,
            works: works.1,
            agents: agents.1,
        };
        Self {
            watches: client_for("schedule"),
            scheduler: Scheduler {
                client: client_for("schedule"),
                world: world.clone(),
                events: Events::new(client_for("schedule"), "Scheduler"),
                works: observer.heads.works.clone(),
            },
            status: StatusWriter {
                client: client_for("status"),
                world: world.clone(),
                reports,
                assignments: assignments.clone(),
                placement_events: Events::new(client_for("status"), "WorkPlacementController"),
                work_events: Events::new(client_for("status"), "Scheduler"),
                clock: clock.clone(),
                written: Arc::new(Mutex::new(HashMap::new())),
            },
            keeper: AgentKeeper {
                client: client_for("agents"),
                sessions: sessions.clone(),
                events: Events::new(client_for("agents"), "DestinationController"),
                clock: clock.clone(),
            },
            enrolling: Enrolling { client: client_for("agents"), clock: clock.clone() },
            world,
            content,
            assignments,
            sessions,
            stores,
            queues,
            observer,
            clock: clock.clone(),
        }
    }

    /// Where a Work that was written is told of before a watch shows it.
    pub(crate) fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Which directories of state stores are taken.
    pub(crate) fn claims(&self) -> Arc<Claims> {
        self.world.claims()
    }

    /// Where the bytes of files are.
    pub fn content(&self) -> ContentStore {
        self.content.clone()
    }

    /// What agents must hold.
    pub fn assignments(&self) -> Arc<dyn AssignmentSource> {
        Arc::new(self.assignments.clone())
    }

    /// Where agents report.
    pub fn reports(&self) -> Arc<dyn ReportSink> {
        Arc::new(self.status.reports.clone())
    }

    /// Who is an agent.
    pub fn enrolments(&self) -> Arc<dyn Enrolments> {
        Arc::new(self.enrolling.clone())
    }

    /// Where sessions are told of.
    pub fn presence(&self) -> Arc<dyn Presence> {
        self.sessions.clone()
    }

    /// Runs until `shutdown`; what is being written then is finished first.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { watches, world, content, assignments, sessions, enrolling: _, .. } = self;
        let Self { scheduler, status, keeper, stores, queues, observer, clock, .. } = self;
        let Queues { schedule, placements, works, agents } = queues;
        let (released, heard) = (observer.heads.released.clone(), observer.heads.agents.clone());
        let mut tasks = JoinSet::new();
        let until = |task: BoxFuture<'static, ()>| {
            let shutdown = shutdown.clone();
            async move {
                let _ended_early = shutdown.run_until_cancelled(task).await;
            }
        };
        tasks.spawn(until(Box::pin(observer.observe(watches))));
        tasks.spawn(until(Box::pin(open(world, assignments, clock.clone()))));
        tasks.spawn(until(Box::pin(async move { sessions.tell(heard).await })));
        tasks.spawn(until(Box::pin(sweep(content, released, clock))));
        tasks.spawn(stores.run(shutdown.clone()));
        let end = || shutdown.clone();
        let place = move |key| scheduler.clone().reconcile(key);
        tasks.spawn(schedule.run(schedule::AT_ONCE, place, end()));
        let writer = status.clone();
        let write = move |key| writer.clone().placement(key);
        tasks.spawn(placements.run(status::AT_ONCE, write, end()));
        tasks.spawn(works.run(status::AT_ONCE, move |key| status.clone().work(key), end()));
        let keep = move |name| keeper.clone().reconcile(name);
        tasks.spawn(agents.run(AGENTS_AT_ONCE, keep, end()));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller ended unexpectedly");
            }
        }
    }
}

/// Takes in what is seen, and passes on what it affects.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) world: Arc<World>,
    heads: Heads,
}

/// Who hears of events.
#[derive(Clone)]
struct Heads {
    schedule: Triggers<ObjectKey>,
    placements: Triggers<ObjectKey>,
    works: Triggers<ObjectKey>,
    agents: Triggers<String>,
    wakes: Wakes,
    assignments: Assignments,
    stores: Stores,
    released: Arc<Notify>,
}

impl Observer {
    /// A Work was just written: it is placed without waiting for the watch.
    pub(crate) async fn saw(&self, work: Work) {
        let mut affected = Affected::default();
        self.world.saw(work, &mut affected);
        self.heads.pass_on(affected).await;
    }

    /// Follows the kinds. Assignments come first: they are what an agent waits for.
    async fn observe(self, client: Client) {
        let events = stream::select_all([
            events(Api::<Work>::all(client.clone())).map(Seen::Work).boxed(),
            events(Api::<WorkPlacement>::all(client.clone())).map(Seen::Placement).boxed(),
            events(Api::<Destination>::all(client.clone())).map(Seen::Destination).boxed(),
            events(Api::<Agent>::all(client.clone())).map(Seen::Agent).boxed(),
            events(Api::<GitStateStore>::all(client.clone())).map(Seen::GitStore).boxed(),
            events(Api::<BucketStateStore>::all(client)).map(Seen::BucketStore).boxed(),
        ]);
        let mut events = events.ready_chunks(EVENTS_AT_ONCE);
        while let Some(batch) = events.next().await {
            let mut affected = Affected::default();
            for seen in batch {
                self.world.take(seen, &mut affected);
            }
            self.heads.pass_on(affected).await;
        }
    }
}

impl Heads {
    async fn pass_on(&self, affected: Affected) {
        self.assignments.take(&affected.orders);
        self.stores.look_at(&affected);
        for agent in &affected.ended {
            self.assignments.end(agent);
        }
        for key in affected.schedule {
            self.schedule.look_at(key).await;
        }
        for key in affected.placements {
            self.placements.look_at(key).await;
        }
        for key in affected.works {
            self.works.look_at(key).await;
        }
        for name in affected.agents {
            self.agents.look_at(name).await;
        }
        for owner in affected.owners {
            self.wakes.look_at(owner).await;
        }
        if affected.released {
            self.released.notify_one();
        }
    }
}

/// The events of one kind, for ever: a watch that fails begins anew, after a growing wait.
fn events<K>(api: Api<K>) -> impl Stream<Item = watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    watcher(api, watcher::Config::default()).default_backoff().filter_map(move |event| {
        let event = event
            .inspect_err(|error| tracing::warn!(kind, error = %chain(error), "watch failed"))
            .ok();
        std::future::ready(event)
    })
}

/// Takes an epoch and begins to publish, once everything has been seen.
async fn open(world: Arc<World>, assignments: Assignments, clock: Clock) {
    world.loaded().await;
    while let Err(error) = assignments.open().await {
        tracing::warn!(error = %chain(&error), "no epoch could be taken; it is tried again");
        clock.sleep(EPOCH_RETRY).await;
    }
}

/// Sweeps content when some may have lost its last name, and its grace is over.
async fn sweep(content: ContentStore, released: Arc<Notify>, clock: Clock) {
    let mut wait = SWEEP_GRACE;
    loop {
        clock.sleep(wait).await;
        let now = clock.now();
        match content.sweep(now).await {
            Ok((swept, next)) => {
                tracing::debug!(swept, "content swept");
                let next = next.map(|next| Duration::try_from(next.duration_since(now)));
                wait = match next {
                    Some(next) => next.unwrap_or(SWEEP_GRACE),
                    None => {
                        released.notified().await;
                        SWEEP_GRACE
                    }
                };
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "content could not be swept");
                wait = SWEEP_GRACE;
            }
        }
    }
}
