//! PromiseReleases: fetches the document, installs the Promise, and takes it away with the release.

mod fetch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
};
use muster_api::{
    Promise, PromiseRelease,
    labels::{self, finalizer},
};
use muster_daemon::Clock;
use muster_plan::release::{self, Fault};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    objects::{self, Failed, follow, is_leaving},
    queue::{Next, Queue, Triggers, queue},
};

/// How many releases are looked at at once; each may fetch.
const AT_ONCE: usize = 4;
/// How long a release that could not be installed rests before the next try.
const RETRY: Duration = Duration::from_secs(60);
/// The key of the Secret that is sent along.
const AUTHORIZATION: &str = "authorizationHeader";
/// The owner of the fields of a Promise that a release installs.
const OWNER: &str = "muster-release";

/// Installs releases.
pub(crate) struct Releases {
    client: Client,
    clock: Clock,
    queue: (Triggers<String>, Queue<String>),
}

/// One look at one release.
struct Case {
    client: Client,
    releases: Api<PromiseRelease>,
    promises: Api<Promise>,
    clock: Clock,
    failed: Failures,
}

/// When releases that could not be installed were tried last. What a try writes wakes its own release
/// again, and a fault may read differently each time: neither must bring the next try forward.
#[derive(Default)]
struct Failures(Mutex<HashMap<String, (Edition, Instant)>>);

/// A release as somebody asked for it: its identity, and its generation.
type Edition = (Option<String>, Option<i64>);

impl Releases {
    pub(crate) fn new(client: Client, clock: Clock) -> Self {
        let queue = queue("release", &clock);
        Self { client, clock, queue }
    }

    /// Runs until `shutdown`; what is being reconciled then is finished first.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { client, clock, queue: (triggers, queue) } = self;
        let case = Arc::new(Case {
            releases: Api::all(client.clone()),
            promises: Api::all(client.clone()),
            client: client.clone(),
            clock,
            failed: Failures::default(),
        });
        let releases: Api<PartialObjectMeta<PromiseRelease>> = Api::all(client.clone());
        let promises: Api<PartialObjectMeta<Promise>> = Api::all(client);
        let name = |release: &PartialObjectMeta<PromiseRelease>| Some(release.name_any());
        let release_of = |promise: &PartialObjectMeta<Promise>| {
            promise.labels().get(labels::PROMISE_RELEASE_NAME).cloned()
        };
        let label = Some(labels::PROMISE_RELEASE_NAME);
        let reconcile = move |name: String| reconcile(case.clone(), name);
        tokio::join!(
            queue.run(AT_ONCE, reconcile, shutdown.clone()),
            follow(releases, None, triggers.clone(), name, shutdown.clone()),
            follow(promises, label, triggers, release_of, shutdown),
        );
    }
}

async fn reconcile(case: Arc<Case>, name: String) -> Result<Next, Failed> {
    let release = case.releases.get_opt(&name).await;
    let release = release.map_err(Failed::to(format!("read PromiseRelease {name}")))?;
    let Some(release) = release else {
        case.failed.forget(&name);
        return Ok(Next::Change);
    };
    let installed = case.installed(&name).await?;
    if is_leaving(&release.metadata) {
        case.remove(&release, installed).await?;
        return Ok(Next::Change);
    }
    if case.hold(&release).await? || release::is_installed(&release, &installed) {
        return Ok(Next::Change);
    }
    if let Some(rest) = case.failed.rest(&release, case.clock.instant()) {
        return Ok(Next::After(rest));
    }
    let outcome = case.install(&release, &installed).await?;
    match outcome {
        Ok(_) => case.failed.forget(&name),
        Err(_) => case.failed.note(&release, case.clock.instant()),
    }
    if let Some(status) = release::status(&release, outcome.as_deref(), case.clock.now()) {
        let patch = Patch::Merge(json!({ "status": status }));
        let written = case.releases.patch_status(&name, &PatchParams::default(), &patch).await;
        written.map_err(Failed::to(format!("write the status of PromiseRelease {name}")))?;
    }
    Ok(if outcome.is_ok() { Next::Change } else { Next::After(RETRY) })
}

impl Failures {
    /// How long a release still rests after a failure, unless it was changed since.
    fn rest(&self, release: &PromiseRelease, now: Instant) -> Option<Duration> {
        let (tried, at) = self.lock().get(&release.name_any()).cloned()?;
        let rest = (at + RETRY).saturating_duration_since(now);
        (tried == edition(release) && !rest.is_zero()).then_some(rest)
    }

    fn note(&self, release: &PromiseRelease, now: Instant) {
        self.lock().insert(release.name_any(), (edition(release), now));
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Edition, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn edition(release: &PromiseRelease) -> Edition {
    (release.uid(), release.metadata.generation)
}

impl Case {
    /// The Promises that a release has installed: one, unless the document was renamed.
    async fn installed(&self, release: &str) -> Result<Vec<Promise>, Failed> {
        let label = [(labels::PROMISE_RELEASE_NAME.to_owned(), release.to_owned())].into();
        objects::with_labels(&self.promises, &label).await
    }

    /// Fetches the document and installs its Promise; returns its other Promises, which earlier
    /// documents named. `Err` within: why it could not be.
    async fn install(
        &self,
        release: &PromiseRelease,
        installed: &[Promise],
    ) -> Result<Result<Vec<String>, Fault>, Failed> {
        let source = &release.spec.source_ref;
        let authorization = match self.authorization(release).await? {
            Ok(authorization) => authorization,
            Err(fault) => return Ok(Err(fault)),
        };
        let fetched = fetch::document(&source.url, authorization.as_deref()).await;
        let wanted = fetched.and_then(|text| release::wanted(release, &text));
        let (mut promise, version) = match wanted {
            Ok(wanted) => wanted,
            Err(fault) => return Ok(Err(fault)),
        };
        let name = promise["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let found = self.promises.get_opt(&name).await;
        let found = found.map_err(Failed::to(format!("read Promise {name}")))?;
        let mut params = PatchParams::apply(OWNER);
        if let Some(found) = found {
            if let Err(fault) = release::may_install_over(release, &found) {
                return Ok(Err(fault));
            }
            // That one and no other of its name, whoever else wrote its fields.
            promise["metadata"]["uid"] = json!(found.metadata.uid);
            params = params.force();
        }
        let applied = self.promises.patch(&name, &params, &Patch::Apply(&promise)).await;
        match applied {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                return Ok(Err(Fault::write(&status.message)));
            }
            Err(error) => return Err(Failed::to(format!("apply Promise {name}"))(error)),
        }
        self.fill_in(release, &version).await?;
        let names = installed.iter().map(ResourceExt::name_any);
        Ok(Ok(names.filter(|other| *other != name).collect()))
    }

    async fn authorization(
        &self,
        release: &PromiseRelease,
    ) -> Result<Result<Option<String>, Fault>, Failed> {
        let Some(reference) = &release.spec.source_ref.secret_ref else { return Ok(Ok(None)) };
        let namespace = reference.namespace.as_deref().unwrap_or("default");
        let name = &reference.name;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = secrets.get_opt(name).await;
        let Some(secret) = found.map_err(Failed::to(format!("read Secret {namespace}/{name}")))?
        else {
            let cause = format!("there is no Secret {name} in namespace {namespace}");
            return Ok(Err(Fault::secret(cause)));
        };
        let value = secret.data.and_then(|mut data| data.remove(AUTHORIZATION));
        let text = value.and_then(|bytes| String::from_utf8(bytes.0).ok());
        Ok(text.map(|text| Some(text.trim().to_owned())).ok_or_else(|| {
            Fault::secret(format!("Secret {namespace}/{name} has no text under {AUTHORIZATION}"))
        }))
    }

    /// Writes down which version an empty `spec.version` has come to.
    async fn fill_in(&self, release: &PromiseRelease, version: &str) -> Result<(), Failed> {
        if !release.spec.version.is_empty() {
            return Ok(());
        }
        self.patch(release, json!({ "spec": { "version": version } })).await
    }

    /// Sees to it that a release goes only after its Promise; says whether that was written.
    async fn hold(&self, release: &PromiseRelease) -> Result<bool, Failed> {
        let mut held = release.finalizers().to_vec();
        if held.iter().any(|held| held == finalizer::PROMISE_CLEANUP) {
            return Ok(false);
        }
        held.push(finalizer::PROMISE_CLEANUP.to_owned());
        self.patch(release, json!({ "metadata": { "finalizers": held } })).await?;
        Ok(true)
    }

    /// Deletes the Promise, and lets the release go once it is gone: its own event leads back here.
    async fn remove(&self, release: &PromiseRelease, left: Vec<Promise>) -> Result<(), Failed> {
        for promise in left.iter().filter(|promise| !is_leaving(&promise.metadata)) {
            objects::delete(&self.promises, &promise.name_any()).await?;
        }
        let mut held = release.finalizers().to_vec();
        held.retain(|held| held != finalizer::PROMISE_CLEANUP);
        if !left.is_empty() || held.len() == release.finalizers().len() {
            return Ok(());
        }
        self.patch(release, json!({ "metadata": { "finalizers": held } })).await
    }

    async fn patch(&self, release: &PromiseRelease, mut change: Value) -> Result<(), Failed> {
        let name = release.name_any();
        change["metadata"]["resourceVersion"] = json!(release.metadata.resource_version);
        let (params, change) = (PatchParams::default(), Patch::Merge(change));
        let patched = self.releases.patch(&name, &params, &change).await;
        patched.map(drop).map_err(Failed::to(format!("change PromiseRelease {name}")))
    }
}
