//! What pipelines hand over: files become a Work, status goes into status.
//!
//! A pod may hand over only for the Job that it belongs to: its token names the pod, the pod its
//! Job, the Job the object. Handing over twice is handing over once. A refusal is also recorded on
//! the pipeline, where the person who can correct it looks.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use bytes::Bytes;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::DynamicObject,
};
use muster_api::{ChildRequest, Promise, Work, labels};
use muster_core::{FileSet, content::OUTPUT_BYTES_MAX};
use muster_daemon::Clock;
use muster_plan::{
    admit::Refusal,
    children::{
        self, Files,
        emitted::{self, Ground, Identity},
    },
    promise::{Offer, RequestApi},
    request,
    work::{self, Control, Group, Output, control},
    workflow::{
        Action, Scope, Subject,
        job::ATTEMPT_LABEL,
        record::{self, Speaker},
    },
};
use serde_json::{Map, Value, json};

use crate::{
    content::ContentStore,
    fleet::Observer,
    objects::{self, Failed, is_leaving},
    options::Chosen,
    work::put,
};

/// Most bytes of a request body: the output limit, if nothing of it could be compressed, and what
/// its paths add.
pub const RESULT_BODY_MAX: usize = OUTPUT_BYTES_MAX + (1 << 20);
/// Most bytes of the unpacked body: the output, its metadata files and all paths.
const UNPACKED_MAX: usize = OUTPUT_BYTES_MAX + (12 << 20);
/// How often a status write is tried when others write the object at the same time.
const WRITE_ATTEMPTS: usize = 8;

/// One handing over.
#[derive(Debug, Clone)]
pub struct ResultCall {
    /// The pod that the caller's token is bound to.
    pub pod_name: String,
    /// Its UID.
    pub pod_uid: String,
    /// The namespace in the path.
    pub namespace: String,
    /// The Job in the path.
    pub job: String,
    /// The part in the path: `output`, `status`, or what is asked for.
    pub part: String,
    /// A file set, zstd-compressed; nothing where something is asked for.
    pub body: Bytes,
}

/// Takes what pipelines hand over.
#[derive(Clone)]
pub struct Results {
    client: Client,
    content: ContentStore,
    observer: Observer,
    options: Chosen,
    clock: Clock,
}

/// The object that a Job runs for.
struct Origin {
    promise: Promise,
    subject: Subject,
    speaker: Speaker,
}

impl Results {
    /// With the client of the results controller.
    pub(crate) fn new(
        client: Client,
        observer: Observer,
        options: Chosen,
        clock: Clock,
    ) -> Arc<Self> {
        let content = ContentStore::new(client.clone(), clock.clone());
        Arc::new(Self { client, content, observer, options, clock })
    }

    /// Takes one part of a Job's result.
    pub async fn handle(&self, call: ResultCall) -> Result<(), Refusal> {
        let origin = self.authorise(&call).await?;
        let files = unpack(&call.body)?;
        let taken = match call.part.as_str() {
            "output" => self.take_output(&origin, &files).await,
            "status" => self.take_status(&origin, &files).await,
            other => Err(Refusal::not_found(format!("there is no part {other:?} of a result"))),
        };
        if let Err(refusal) = &taken
            && refusal.code == 422
        {
            self.record_refusal(&origin, &refusal.message).await?;
        }
        taken
    }

    /// Follows the token's pod to its Job and on to the object.
    async fn authorise(&self, call: &ResultCall) -> Result<Origin, Refusal> {
        let denied = || {
            let ResultCall { namespace, job, .. } = call;
            Refusal::forbidden(format!(
                "only a pod of Job {namespace}/{job} may hand over its result"
            ))
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &call.namespace);
        let pod = pods.get_opt(&call.pod_name).await.map_err(unavailable)?.ok_or_else(denied)?;
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &call.namespace);
        let job = jobs.get_opt(&call.job).await.map_err(unavailable)?.ok_or_else(denied)?;
        let owned = pod.owner_references().iter().any(|owner| {
            owner.kind == "Job" && owner.name == call.job && Some(&owner.uid) == job.uid().as_ref()
        });
        if call.pod_uid.is_empty() || pod.uid().as_ref() != Some(&call.pod_uid) || !owned {
            return Err(denied());
        }
        if job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false) {
            let name = &call.job;
            let cause = format!("Job {name} was stopped: its result is of no use any more");
            return Err(Refusal::forbidden(cause));
        }
        self.origin(&job).await
    }

    async fn origin(&self, job: &Job) -> Result<Origin, Refusal> {
        let label = |key: &str| job.labels().get(key).cloned().unwrap_or_default();
        let unknown =
            || Refusal::not_found(format!("Job {} is not of a Promise's workflow", job.name_any()));
        let name = label(labels::PROMISE_NAME);
        let promises: Api<Promise> = Api::all(self.client.clone());
        let promise = promises.get_opt(&name).await.map_err(unavailable)?.ok_or_else(unknown)?;
        let offer = Offer::read(&name, 0, &promise.spec).map_err(|_| unknown())?;
        let namespace = offer.workflows.namespace.as_deref();
        let subject = if label(labels::WORKFLOW_TYPE) == Scope::Promise.as_str() {
            Subject::promise(&name, &promise.uid().unwrap_or_default(), namespace)
        } else {
            let api = offer.api.as_ref().ok_or_else(unknown)?;
            let (resource, own) = (label(labels::RESOURCE_NAME), label(labels::RESOURCE_NAMESPACE));
            request::subject(&name, api, (&own, &resource, ""), namespace)
        };
        let is_delete = label(labels::WORKFLOW_ACTION) == Action::Delete.as_str();
        let speaker = Speaker {
            pipeline: label(labels::PIPELINE_NAME),
            action: if is_delete { Action::Delete } else { Action::Configure },
            hash: label(labels::HASH),
            tries: label(ATTEMPT_LABEL).parse().unwrap_or(1),
        };
        Ok(Origin { promise, subject, speaker })
    }

    async fn take_output(&self, origin: &Origin, files: &FileSet) -> Result<(), Refusal> {
        let Origin { promise, subject, speaker } = origin;
        // It comes with the output, so that a pipeline that fails by it leaves the Work alone.
        read_status(subject.scope, files)?;
        let output = work::read(files, subject.scope, &promise.spec.destination_selectors)
            .map_err(|error| Refusal::invalid(error.to_string()))?;
        match output {
            Output::Wait => Ok(()),
            Output::Groups(groups) => {
                let output = self.take_children(origin, groups).await?;
                let hands = (&self.content, &self.observer);
                let put = put(&self.client, hands, subject, Some(&speaker.pipeline), output).await;
                let made =
                    put.map_err(|error| Refusal::unavailable(crate::queue::chain(&error)))?;
                match made {
                    Some(made) => self.take_back_if_late(origin, &made).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Deletes a Work that was made while its object was leaving: who removes the object may have seen
    /// to its Works before there was this one, and nobody would ever look for it again.
    async fn take_back_if_late(&self, origin: &Origin, made: &Work) -> Result<(), Refusal> {
        let found = self.api(origin).get_metadata_opt(&origin.subject.name).await;
        let stays = found.map_err(unavailable)?.is_some_and(|found| !is_leaving(&found.metadata));
        if stays {
            return Ok(());
        }
        let works: Api<Work> = Api::namespaced(self.client.clone(), &origin.subject.job_namespace);
        let deleted = objects::delete(&works, &made.name_any()).await;
        deleted.map_err(|error| Refusal::unavailable(crate::queue::chain(&error)))
    }

    /// Takes out of the groups what the hub makes itself.
    async fn take_children(
        &self,
        origin: &Origin,
        groups: Vec<Group>,
    ) -> Result<(Vec<Group>, Vec<ChildRequest>), Refusal> {
        let platform = &self.options.now().platform;
        if !emitted::concerns(&groups, platform) {
            return Ok((groups, Vec::new()));
        }
        let offers = self.offers().await?;
        let mut found = origin.subject.labels();
        found.insert(labels::PIPELINE_NAME.to_owned(), origin.speaker.pipeline.clone());
        let before = self.observer.world.works_with(&found);
        let held: Vec<_> = before.into_iter().flat_map(|work| work.spec.children).collect();
        let sites = &self.observer.world.sites();
        let ground = Ground { platform, sites, offers: &offers, held: &held };
        let (groups, children) = emitted::take(&origin.subject, groups, &ground)
            .map_err(|error| Refusal::invalid(error.to_string()))?;
        if !children.is_empty() {
            let line = self.line(origin, &offers).await?;
            emitted::check_line(&children, &line).map_err(Refusal::invalid)?;
        }
        Ok((groups, children))
    }

    /// What is offered: each Promise with its API.
    async fn offers(&self) -> Result<Vec<(String, RequestApi)>, Refusal> {
        let promises: Api<Promise> = Api::all(self.client.clone());
        let all = promises.list(&ListParams::default()).await.map_err(unavailable)?.items;
        let offer = |promise: Promise| {
            let api = RequestApi::read(promise.spec.api.as_ref()?).ok()?;
            Some((promise.name_any(), api))
        };
        Ok(all.into_iter().filter_map(offer).collect())
    }

    /// The object that the pipeline ran for, whose child it is, whose child that is, and so on.
    async fn line(
        &self,
        origin: &Origin,
        offers: &[(String, RequestApi)],
    ) -> Result<Vec<Identity>, Refusal> {
        let namespace = origin.subject.namespace.as_deref();
        let mut line = vec![Identity::of_subject(&origin.subject)];
        let mut object = self.object(origin).await?;
        while line.len() <= emitted::DEPTH_MAX {
            let owners = object.owner_references();
            let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
                break;
            };
            let group = owner.api_version.split('/').next().unwrap_or_default();
            let mut known = offers.iter().map(|(_, api)| api);
            let Some(api) = known.find(|api| api.group == group && api.kind == owner.kind) else {
                break;
            };
            let kind = (api.kind.as_str(), api.plural.as_str());
            let all = objects::dynamic_plural(&self.client, &owner.api_version, kind, namespace);
            let above = all.get_opt(&owner.name).await.map_err(unavailable)?;
            let uid = owner.uid.clone();
            line.push(Identity {
                group: group.to_owned(),
                kind: owner.kind.clone(),
                namespace: namespace.map(str::to_owned),
                name: owner.name.clone(),
            });
            match above.filter(|above| above.uid().as_ref() == Some(&uid)) {
                Some(above) => object = above,
                None => break,
            }
        }
        Ok(line)
    }

    /// The children of the object that a Job runs for, as they are now: each one's file below
    /// `/kratix/input`, and its text.
    pub async fn children(&self, call: ResultCall) -> Result<BTreeMap<String, String>, Refusal> {
        let origin = self.authorise(&call).await?;
        let object = self.object(&origin).await?;
        let subject = Subject { uid: object.uid().unwrap_or_default(), ..origin.subject };
        let recorded = children::recorded(&object.data["status"]);
        let offers = if recorded.is_empty() { Vec::new() } else { self.offers().await? };
        let mut files = Files::default();
        for child in recorded {
            let live = crate::children::find(&self.client, &child).await;
            let live = live.map_err(|error| Refusal::unavailable(crate::queue::chain(&error)))?;
            if let Some(live) = live {
                let added = files.add((&child, &json!(live)), &subject, &offers);
                added.map_err(Refusal::invalid)?;
            }
        }
        Ok(files.into_texts())
    }

    async fn take_status(&self, origin: &Origin, files: &FileSet) -> Result<(), Refusal> {
        let (handed, control) = read_status(origin.subject.scope, files)?;
        if handed.is_empty() && !control.waits() {
            return Ok(());
        }
        let change = |object: &DynamicObject| {
            let mut status = request::merge(&object.data["status"], &handed)?;
            if control.waits() {
                let (generation, now) = (object.metadata.generation, self.clock.now());
                record::wait(&mut status, &origin.speaker, &control, generation, now)?;
            }
            Ok(status)
        };
        if control.waits() {
            change(&self.object(origin).await?).map_err(Refusal::invalid)?;
            self.suspend(origin).await?;
        }
        self.write(origin, change).await
    }

    async fn record_refusal(&self, origin: &Origin, message: &str) -> Result<(), Refusal> {
        self.write(origin, |object| {
            let mut status = request::merge(&object.data["status"], &Map::new())?;
            record::refuse(&mut status, &origin.speaker, message, self.clock.now());
            Ok(status)
        })
        .await
    }

    /// Sets the label that a person removes to go on.
    async fn suspend(&self, origin: &Origin) -> Result<(), Refusal> {
        let label = json!({ labels::WORKFLOW_SUSPENDED: "true" });
        let patch = Patch::Merge(json!({ "metadata": { "labels": label } }));
        let name = &origin.subject.name;
        let patched = self.api(origin).patch(name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(unavailable)
    }

    /// Changes the object's status, and tries again when another write came between.
    async fn write(
        &self,
        origin: &Origin,
        change: impl Fn(&DynamicObject) -> Result<Value, String>,
    ) -> Result<(), Refusal> {
        let api = self.api(origin);
        let mut last = None;
        for _ in 0..WRITE_ATTEMPTS {
            let object = self.object(origin).await?;
            let status = change(&object).map_err(Refusal::invalid)?;
            match objects::write_status(&api, &object, &status).await {
                Ok(_) => return Ok(()),
                Err(failed) => last = Some(failed),
            }
        }
        let cause = last.as_ref().map(|failed: &Failed| crate::queue::chain(failed));
        Err(Refusal::unavailable(cause.unwrap_or_default()))
    }

    async fn object(&self, origin: &Origin) -> Result<DynamicObject, Refusal> {
        let found = self.api(origin).get_opt(&origin.subject.name).await.map_err(unavailable)?;
        found.ok_or_else(|| {
            let Subject { kind, name, .. } = &origin.subject;
            Refusal::not_found(format!("{kind} {name} is gone: its result is of no use"))
        })
    }

    fn api(&self, origin: &Origin) -> Api<DynamicObject> {
        let Subject { kind, plural, namespace, .. } = &origin.subject;
        let api_version = origin.subject.api_version();
        objects::dynamic_plural(&self.client, &api_version, (kind, plural), namespace.as_deref())
    }
}

/// What a pipeline says about status, and what it asks of its workflow. Of a Promise's status only the
/// message is its own.
fn read_status(scope: Scope, files: &FileSet) -> Result<(Map<String, Value>, Control), Refusal> {
    let (mut handed, control) =
        control::handed(files).map_err(|error| Refusal::invalid(error.to_string()))?;
    if scope == Scope::Promise {
        handed.retain(|key, _| key == "message");
    }
    request::merge(&Value::Null, &handed)
        .map_err(|cause| Refusal::invalid(format!("invalid status.yaml: {cause}")))?;
    Ok((handed, control))
}

/// Unpacks a body within its limit.
fn unpack(body: &[u8]) -> Result<FileSet, Refusal> {
    let wrong = |cause: String| Refusal::bad_request(format!("the result cannot be read: {cause}"));
    let decoder = zstd::Decoder::new(body).map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    let mut bounded = decoder.take(UNPACKED_MAX as u64 + 1);
    bounded.read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() > UNPACKED_MAX {
        return Err(Refusal::invalid(format!(
            "the output is larger than {OUTPUT_BYTES_MAX} bytes: write less, or refer to files \
             elsewhere"
        )));
    }
    FileSet::decode(&bytes).map_err(|error| Refusal::invalid(error.to_string()))
}

fn unavailable(error: kube::Error) -> Refusal {
    Refusal::unavailable(crate::queue::chain(&error))
}
