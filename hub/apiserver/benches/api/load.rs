//! Load: so many connections that ask as fast as they are answered, and watchers that count.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use crate::client::{Access, Ask, Connection};

/// A watcher that has not seen a change after so long never will.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long each of some answers took, and all of them together.
pub(crate) struct Times {
    each: Vec<Duration>,
    pub(crate) all: Duration,
}

impl Times {
    pub(crate) fn new(mut each: Vec<Duration>, all: Duration) -> Times {
        each.sort();
        Times { each, all }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }

    /// The time within which `part` of them (0 to 1) were answered.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let last = self.each.len().saturating_sub(1);
        self.each.get((last as f64 * part) as usize).copied().unwrap_or_default()
    }
}

/// Asks for each of `asks` once, over so many connections.
pub(crate) async fn ask_all(access: &Access, connections: usize, asks: Vec<Ask>) -> Result<Times> {
    let asks: Rc<[Ask]> = asks.into();
    let next = Rc::new(Cell::new(0));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(access.connect().await?);
    }
    let begun = Instant::now();
    let tasks = open.into_iter().map(|mut connection: Connection| {
        let (asks, next) = (asks.clone(), next.clone());
        async move {
            let mut each = Vec::new();
            while let Some(ask) = asks.get(next.replace(next.get() + 1)) {
                let begun = Instant::now();
                connection.ask(ask).await?;
                each.push(begun.elapsed());
            }
            Ok::<_, anyhow::Error>(each)
        }
    });
    let each = futures::future::try_join_all(tasks).await?;
    Ok(Times::new(each.concat(), begun.elapsed()))
}

/// Watchers, each with a connection of its own, that count the lines they are sent.
pub(crate) struct Watchers {
    seen: Rc<Seen>,
    tasks: JoinSet<Result<()>>,
}

#[derive(Default)]
struct Seen {
    lines: Cell<usize>,
    wanted: Cell<usize>,
    reached: Notify,
}

impl Watchers {
    /// Starts so many watches; returns when all stand. For a [`tokio::task::LocalSet`].
    pub(crate) async fn start(access: &Access, count: usize, watch: &Ask) -> Result<Watchers> {
        let seen = Rc::new(Seen::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let mut connection = access.connect().await?;
            let mut body = connection.open(watch).await?;
            let seen = seen.clone();
            tasks.spawn_local(async move {
                while let Some(frame) = body.frame().await {
                    let frame = frame?;
                    let bytes = frame.data_ref().map(AsRef::as_ref).unwrap_or_default();
                    seen.count(bytes.iter().filter(|&&byte| byte == b'\n').count());
                }
                // Held until the watch is over.
                drop(connection);
                Ok(())
            });
        }
        Ok(Watchers { seen, tasks })
    }

    /// Waits until all watchers together have been sent so many lines.
    pub(crate) async fn reach(&self, lines: usize) -> Result<()> {
        self.seen.wanted.set(lines);
        let reached = async {
            while self.seen.lines.get() < lines {
                self.seen.reached.notified().await;
            }
        };
        let late = || format!("{} of {lines} lines were seen", self.seen.lines.get());
        timeout(PATIENCE, reached).await.with_context(late)
    }

    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Seen {
    fn count(&self, lines: usize) {
        self.lines.set(self.lines.get() + lines);
        if self.lines.get() >= self.wanted.get() {
            self.reached.notify_one();
        }
    }
}
