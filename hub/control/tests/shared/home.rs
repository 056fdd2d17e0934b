//! A hub's controllers over an embedded API of their own, and an agent played by the test.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::{
    api::core::v1::{Event, Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, PostParams},
    core::NamespaceResourceScope,
};
use muster_api::{
    Destination, SYSTEM_NAMESPACE, Work, WorkPlacement, WorkSpec, WorkloadGroup, crds,
    destination::DestinationSelector, enrolment, labels,
};
use muster_apiserver::{ApiServer, Config, UserInfo};
use muster_control::{ClientFor, fleet::Fleet};
use muster_core::{
    Assignment, DestinationName, Digest, FileSet, Health, Intent, Order, Phase, PlacementKey,
    PlacementReport,
    ports::{AgentFacts, AssignmentSource, Enrolments, Presence, ReportSink},
};
use muster_daemon::Clock;
use serde::de::DeserializeOwned;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

/// How long something may take before the test gives up: much longer than it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An API server in a directory of its own, with the fleet's controllers running.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) assignments: Arc<dyn AssignmentSource>,
    pub(crate) reports: Arc<dyn ReportSink>,
    pub(crate) enrolments: Arc<dyn Enrolments>,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) content: muster_control::content::ContentStore,
    /// The controllers' time.
    pub(crate) clock: Clock,
    _api: ApiServer,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Home {
    pub(crate) async fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        Self::open(dir, true).await
    }

    /// Stops the controllers and the API, and starts both again on the same data.
    pub(crate) async fn reopen(self) -> Home {
        let Self {
            dir,
            client,
            assignments,
            reports,
            enrolments,
            presence,
            content,
            clock: _,
            _api,
            shutdown,
            running,
        } = self;
        shutdown.cancel();
        running.await.unwrap();
        drop((assignments, reports, enrolments, presence, content, client, _api));
        Self::open(dir, false).await
    }

    async fn open(dir: tempfile::TempDir, fresh: bool) -> Home {
        let mut opened = ApiServer::open(Config::new(dir.path())).await;
        for _ in 0..PATIENCE.as_millis() / 20 {
            // The last handle of an earlier server may go a moment later than the test's.
            if opened.is_ok() || fresh {
                break;
            }
            sleep(Duration::from_millis(20)).await;
            opened = ApiServer::open(Config::new(dir.path())).await;
        }
        let api = opened.unwrap();
        let client = Client::new(api.service(UserInfo::admin()), "default");
        if fresh {
            install(&client).await;
        }
        let for_all = client.clone();
        let client_for: ClientFor = Arc::new(move |_| for_all.clone());
        let clock = Clock::default();
        let fleet = Fleet::build(&client_for, dir.path().join("stores"), &clock);
        let shutdown = CancellationToken::new();
        Home {
            dir,
            client,
            assignments: fleet.assignments(),
            reports: fleet.reports(),
            enrolments: fleet.enrolments(),
            presence: fleet.presence(),
            content: fleet.content(),
            clock,
            _api: api,
            running: tokio::spawn(fleet.run(shutdown.clone())),
            shutdown,
        }
    }

    /// A token for an agent, until `minutes` from now.
    pub(crate) async fn token(&self, agent: &str, labels: &[(&str, &str)], minutes: i64) -> String {
        let agent = name(agent);
        let suffix = format!("{:05}", rand::random::<u16>());
        let text = enrolment::token(&agent, &suffix, "randomness");
        let digest = Digest::of(text.as_bytes());
        let expires = Timestamp::now() + minutes.minutes();
        let secret = enrolment::secret(&agent, &suffix, digest, &map(labels), expires);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        secrets.create(&PostParams::default(), &secret).await.unwrap();
        text
    }

    /// An agent that is enrolled and connected.
    pub(crate) async fn agent(&self, agent: &str, labels: &[(&str, &str)]) -> PlayedAgent {
        let token = self.token(agent, labels, 60).await;
        let key = Digest::of(agent.as_bytes());
        let name = self.enrolments.redeem(&token, key, facts()).await.unwrap();
        self.presence.connected(&name, 1, facts());
        let assignments = self.assignments.subscribe(&name);
        PlayedAgent { name, assignments, held: None }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Stores files and makes or changes a request's Work of one group.
    pub(crate) async fn work(
        &self,
        name: &str,
        request: Option<&str>,
        text: &str,
        to: &[(&str, &str)],
    ) -> Work {
        let mut files = FileSet::new();
        files.insert("a.yaml", text.as_bytes().to_vec()).unwrap();
        let digest = self.content.put(&files).await.unwrap();
        let group = WorkloadGroup {
            id: "5058f1af8388633f609cadb75a75dc9d".into(),
            directory: ".".into(),
            digest: digest.to_string(),
            destination_selectors: vec![DestinationSelector {
                match_labels: map(to),
                ..Default::default()
            }],
            ..Default::default()
        };
        let spec = WorkSpec {
            promise_name: "web".into(),
            resource_name: request.map(str::to_owned),
            workload_groups: vec![group],
            ..WorkSpec::default()
        };
        let api = self.api::<Work>();
        if let Some(mut held) = api.get_opt(name).await.unwrap() {
            held.spec = spec;
            let patch = serde_json::json!({"spec": held.spec});
            let patch = kube::api::Patch::Merge(patch);
            return api.patch(name, &Default::default(), &patch).await.unwrap();
        }
        let mut work = Work::new(name, spec);
        work.labels_mut().insert(labels::PROMISE_NAME.into(), "web".into());
        api.create(&PostParams::default(), &work).await.unwrap()
    }

    /// Waits until an object is as `test` wants it.
    pub(crate) async fn until<K>(&self, api: Api<K>, name: &str, test: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let mut last = None;
        for _ in 0..PATIENCE.as_millis() / 10 {
            last = api.get_opt(name).await.unwrap();
            match last {
                Some(object) if test(&object) => return object,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("{name} did not become what was awaited: {last:#?}");
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone<K>(&self, api: Api<K>, name: &str)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let mut last = None;
        for _ in 0..PATIENCE.as_millis() / 10 {
            last = api.get_opt(name).await.unwrap();
            if last.is_none() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is still there: {last:#?}");
    }

    /// Waits until a Work has this many placements; returns them.
    pub(crate) async fn placements(&self, want: usize) -> Vec<WorkPlacement> {
        let api = self.api::<WorkPlacement>();
        let mut last = Vec::new();
        for _ in 0..PATIENCE.as_millis() / 10 {
            last = api.list(&ListParams::default()).await.unwrap().items;
            if last.len() == want {
                return last;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("not {want} placements: {last:#?}");
    }

    /// How many writes the API has taken so far.
    pub(crate) async fn revision(&self) -> u64 {
        let list = self.destinations().list(&ListParams::default()).await.unwrap();
        list.metadata.resource_version.unwrap().parse().unwrap()
    }

    /// Waits until `so` holds.
    pub(crate) async fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if so() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("waited for {what}");
    }

    pub(crate) fn destinations(&self) -> Api<Destination> {
        Api::all(self.client.clone())
    }

    /// Waits until people were told all this of an object: reasons and notes.
    pub(crate) async fn until_told(&self, of: &str, want: &[(&str, &str)]) {
        let events: Api<Event> = Api::all(self.client.clone());
        let mut told = Vec::new();
        for _ in 0..PATIENCE.as_millis() / 10 {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            told = all
                .into_iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(of))
                .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
                .collect();
            let is_told = |(reason, note): &(&str, &str)| {
                told.iter().any(|(told, said)| told == reason && said == note)
            };
            if want.iter().all(is_told) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("of {of} was told {told:#?}, not all of {want:#?}");
    }
}

/// What an agent's host does, by hand.
pub(crate) struct PlayedAgent {
    pub(crate) name: DestinationName,
    assignments: BoxStream<'static, Arc<Assignment>>,
    pub(crate) held: Option<Arc<Assignment>>,
}

impl PlayedAgent {
    /// Waits for an assignment that is as `test` wants it.
    pub(crate) async fn until(&mut self, test: impl Fn(&Assignment) -> bool) -> Arc<Assignment> {
        let wait = async {
            loop {
                let next = self.assignments.next().await.expect("the stream ended");
                let older = self.held.as_ref().is_some_and(|held| held.revision >= next.revision);
                assert!(!older, "revisions go up");
                self.held = Some(next.clone());
                if test(&next) {
                    return next;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("no such assignment")
    }

    /// Waits for the end of the stream.
    pub(crate) async fn until_ended(&mut self) {
        let wait = async { while self.assignments.next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, wait).await.expect("the stream goes on");
    }

    /// Reports that what shall go has gone.
    pub(crate) async fn report_removed(&self, home: &Home) {
        let absent = |order: &Order| order.intent == Intent::Absent;
        self.report_on(home, absent, Phase::Removed, Health::Unknown).await;
    }

    /// Reports on every order that it holds.
    pub(crate) async fn report(&self, home: &Home, phase: Phase, health: Health) {
        self.report_on(home, |_| true, phase, health).await;
    }

    async fn report_on(
        &self,
        home: &Home,
        which: impl Fn(&Order) -> bool,
        phase: Phase,
        health: Health,
    ) {
        let held = self.held.as_ref().expect("an assignment was awaited");
        let orders = held.orders.iter().filter(|(_, order)| which(order));
        let reports = orders.map(|(placement, order)| PlacementReport {
            placement: placement.clone(),
            revision: held.revision,
            desired: order.digest,
            applied: (phase == Phase::Applied).then_some(order.digest),
            phase,
            reason: phase.as_str().to_owned(),
            message: format!("{} for the test", phase.as_str()),
            health,
            health_message: "as the test says".to_owned(),
            outputs: BTreeMap::from([("port".to_owned(), serde_json::json!(8080))]),
            unapplied_files: Vec::new(),
        });
        home.reports.accept(&self.name, reports.collect()).await;
    }
}

pub(crate) fn facts() -> AgentFacts {
    AgentFacts {
        version: "1".into(),
        appliers: ["shell".to_owned()].into(),
        hostname: "host".into(),
        ..Default::default()
    }
}

pub(crate) fn name(text: &str) -> DestinationName {
    DestinationName::parse(text).unwrap()
}

pub(crate) fn key(placement: &WorkPlacement) -> PlacementKey {
    PlacementKey::new("default", &placement.name_any()).unwrap()
}

/// The status and reason of a condition.
pub(crate) fn condition<'a>(
    conditions: &'a [k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    kind: &str,
) -> (&'a str, &'a str) {
    let found = muster_api::conditions::find(conditions, kind);
    found.map_or(("", ""), |c| (c.status.as_str(), c.reason.as_str()))
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

async fn install(client: &Client) {
    let crds_api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds::all() {
        crds_api.create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(SYSTEM_NAMESPACE.into());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
}
