//! Link events, ends of actions and timers go into the state machine; what it answers is carried
//! out. Nothing else in the agent waits for more than one thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::{Duration, Instant},
};

use muster_agent_plan::{Action, ActionId, AgentState, Input, Output, Pace, Start, Task};
use muster_appliers::Appliers;
use muster_core::{
    Assignment, DestinationName, Digest, Failure, FileSet, content::OUTPUT_BYTES_MAX,
};
use muster_daemon::{OnError, Tasks};
use muster_link::{LinkEvent, LinkHandle};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{content::ContentDir, state_dir::StateDir};

/// Ends of actions and fetches that wait to be taken: each placement has one action and one fetch
/// at most, and the loop takes them at once, so this only has to cover a short burst.
const ENDS_LEN: usize = 256;
/// Most canonical bytes of one content: the files, and their paths and lengths.
const CANONICAL_BYTES_MAX: usize = OUTPUT_BYTES_MAX + (16 << 20);

/// What the loop works with.
pub(crate) struct Parts {
    pub(crate) state: StateDir,
    pub(crate) content: ContentDir,
    pub(crate) appliers: Appliers,
    pub(crate) link: LinkHandle,
    pub(crate) tasks: Tasks,
}

/// The agent's one loop.
pub(crate) struct EventLoop {
    parts: Parts,
    plan: AgentState,
    started: Instant,
    running: BTreeMap<ActionId, CancellationToken>,
    ends: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
}

enum Event {
    Link(LinkEvent),
    Input(Input),
    Stop,
}

impl EventLoop {
    pub(crate) fn new(
        destination: DestinationName,
        assignment: Option<Assignment>,
        parts: Parts,
    ) -> Self {
        let held = parts.appliers.held();
        let seed = u64::from(std::process::id());
        let pace = Pace::default();
        if let Some(assignment) = &assignment {
            parts.link.holding(assignment);
        }
        let start = Start { destination, assignment, held, seed, pace };
        let plan = AgentState::new(start);
        Self {
            parts,
            plan,
            started: Instant::now(),
            running: BTreeMap::new(),
            ends: mpsc::channel(ENDS_LEN),
        }
    }

    /// Runs until `stop`, then waits for the actions that were begun.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<LinkEvent>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        self.handle(Input::Tick);
        loop {
            match self.next(&mut events, &stop).await {
                Event::Input(input) => self.handle(input),
                Event::Link(event) => self.link(event).await?,
                Event::Stop => break,
            }
        }
        self.end().await;
        Ok(())
    }

    async fn next(
        &mut self,
        events: &mut mpsc::Receiver<LinkEvent>,
        stop: &CancellationToken,
    ) -> Event {
        let timeout = self.plan.poll_timeout().map(|at| self.started + at);
        let timer = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        // Every arm is cancel-safe: receiving from a channel loses nothing, a timer is made anew.
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            Some(input) = self.ends.1.recv() => Event::Input(input),
            event = events.recv() => event.map_or(Event::Stop, Event::Link),
            () = timer => Event::Input(Input::Tick),
        }
    }

    async fn link(&mut self, event: LinkEvent) -> anyhow::Result<()> {
        match event {
            LinkEvent::Up => info!("Connected to the hub"),
            LinkEvent::Down { cause } => warn!(%cause, "Not connected to the hub; working alone"),
            LinkEvent::Assigned(assignment) => self.assigned(assignment).await?,
            LinkEvent::Refused { cause, again_in } => warn!(
                %cause, ?again_in,
                "The hub does not let this agent in; what is applied stays and is kept"
            ),
        }
        Ok(())
    }

    /// Persists an assignment, then acts on it; a refused one changes nothing.
    async fn assigned(&mut self, assignment: Assignment) -> anyhow::Result<()> {
        if let Some(refusal) = self.plan.refusal(&assignment) {
            warn!(revision = %assignment.revision, %refusal, "An assignment was refused");
            self.parts.link.refuse(&assignment, refusal.to_string());
            return Ok(());
        }
        tokio::task::block_in_place(|| self.parts.state.keep(&assignment))?;
        self.parts.link.holding(&assignment);
        self.handle(Input::Assigned(assignment.clone()));
        let mut wanted: BTreeSet<Digest> =
            assignment.orders.values().map(|order| order.digest).collect();
        for held in self.parts.appliers.held().into_values() {
            wanted.extend(held.applied);
            wanted.extend(held.base);
        }
        if let Err(error) = self.parts.content.retain(&wanted) {
            warn!(%error, "Content that is not needed could not be removed");
        }
        Ok(())
    }

    fn handle(&mut self, input: Input) {
        if let Input::Ended { action, .. } = &input {
            self.running.remove(action);
        }
        let now = self.now();
        self.plan.handle(input, now);
        while let Some(output) = self.plan.poll_output() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Report(report) => self.parts.link.report(report),
            Output::Fetch(digest) => self.fetch(digest),
            Output::Act(action) => self.act(action),
            Output::Cancel { action, .. } => {
                if let Some(token) = self.running.get(&action) {
                    token.cancel();
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        let cancel = CancellationToken::new();
        self.running.insert(action.id, cancel.clone());
        let (appliers, ends) = (self.parts.appliers.clone(), self.ends.0.clone());
        self.parts.tasks.spawn("action", OnError::Log, async move {
            let Action { id, placement, task } = action;
            let outcome = match task {
                Task::Apply { order, base } => {
                    appliers.apply(&placement, &order, &base, cancel).await
                }
                Task::Remove { order } => appliers.remove(&placement, &order, cancel).await,
                Task::Check => appliers.check(&placement, cancel).await,
            };
            // Nobody listens when the agent is ending; the inventory has what was done.
            let _ = ends.send(Input::Ended { placement, action: id, outcome }).await;
            Ok(())
        });
    }

    fn fetch(&mut self, digest: Digest) {
        let (link, content) = (self.parts.link.clone(), self.parts.content.clone());
        let (ends, stop) = (self.ends.0.clone(), self.parts.tasks.shutdown());
        self.parts.tasks.spawn("fetch", OnError::Log, async move {
            let Some(fetched) = stop.run_until_cancelled(fetch(&link, &content, digest)).await
            else {
                return Ok(());
            };
            let result = fetched.and_then(|files| Appliers::contents(&files));
            let _ = ends.send(Input::Fetched { digest, result }).await;
            Ok(())
        });
    }

    async fn end(mut self) {
        for token in self.running.values() {
            token.cancel();
        }
        while !self.running.is_empty() {
            match self.ends.1.recv().await {
                Some(Input::Ended { action, .. }) => drop(self.running.remove(&action)),
                Some(_) => {}
                None => break,
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The files of a digest, from the disk or from the hub.
async fn fetch(
    link: &LinkHandle,
    content: &ContentDir,
    digest: Digest,
) -> Result<FileSet, Failure> {
    use muster_appliers::ContentStore as _;
    if let Some(files) = content.load(&digest) {
        return Ok(files);
    }
    let unavailable = |cause: String| Failure::retried("ContentUnavailable", cause);
    let compressed = link.fetch(digest).await.map_err(|error| unavailable(error.to_string()))?;
    let damaged = |cause: &dyn std::fmt::Display| {
        unavailable(format!("content {} came damaged from the hub: {cause}", digest.short()))
    };
    let canonical = zstd::bulk::decompress(&compressed, CANONICAL_BYTES_MAX)
        .map_err(|error| damaged(&error))?;
    if Digest::of(&canonical) != digest {
        return Err(damaged(&"its digest is another"));
    }
    let files = FileSet::decode(&canonical).map_err(|error| damaged(&error))?;
    content.keep(&digest, &canonical).map_err(|error| unavailable(error.to_string()))?;
    Ok(files)
}
