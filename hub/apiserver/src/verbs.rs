//! The verbs, each written once for all kinds: read, create, change, delete.

mod change;
mod collection;
mod create;
mod delete;
mod form;
mod held;
mod meta;
pub(crate) mod page;
mod patch;
mod read;
mod scale;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::USER_AGENT};
use serde_json::Value;

pub(crate) use delete::{DeleteOptions, FOREGROUND, ORPHAN, Propagation, delete_object};

use crate::{
    admission::{AdmissionRequest, Operation},
    body::Body,
    field::FieldError,
    json, logs,
    registry::{DEFINITIONS, Resource, Rules},
    request::{FieldValidation, Query, Target, Verb, WriteOptions},
    respond::{self, Form},
    reviews,
    schema::Mistyped,
    server::Inner,
    status::{About, Status},
    store::{Action, Change, Draft, Key, Object, Refusal},
    user::UserInfo,
};

/// An attempt that lost the race for an object is repeated on its newest state; so many losses
/// in a row mean that something writes without end.
const ATTEMPTS_MAX: usize = 100;

/// One request for one resource, admitted and authorised.
pub(crate) struct Call<'a> {
    pub server: &'a Arc<Inner>,
    pub user: &'a UserInfo,
    pub resource: Arc<Resource>,
    pub target: &'a Target,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub form: Form,
}

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    Finalize,
    Approval,
    EphemeralContainers,
    Resize,
    Scale,
}

impl Part {
    /// The part that a subresource is; `None`: it is none, or this kind has it not.
    fn of(resource: &Resource, subresource: &str) -> Option<Part> {
        let part = match subresource {
            "" => return Some(Part::Main),
            "status" => return resource.has_status.then_some(Part::Status),
            "finalize" => Part::Finalize,
            "approval" => Part::Approval,
            "ephemeralcontainers" => Part::EphemeralContainers,
            "resize" => Part::Resize,
            _ => return None,
        };
        resource.extra.contains(&subresource).then_some(part)
    }

    fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Finalize => "finalize",
            Part::Approval => "approval",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Scale => "scale",
        }
    }

    /// Something is asked for with it, unlike with what is told of the object.
    fn asks(self) -> bool {
        self.path().first() != Some(&"status")
    }

    /// Where it is in the object; empty: all of it but the parts that have addresses of their own.
    fn path(self) -> &'static [&'static str] {
        match self {
            Part::Main => &[],
            Part::Status => &["status"],
            Part::Finalize => &["spec", "finalizers"],
            Part::Approval => &["status", "conditions"],
            Part::EphemeralContainers => &["spec", "ephemeralContainers"],
            Part::Resize => &["spec", "containers"],
            // The replicas are anywhere in the spec.
            Part::Scale => &["spec"],
        }
    }
}

/// What a write came to: the object as stored (or as it would be), and what to warn of.
pub(crate) struct Written {
    pub code: StatusCode,
    pub bytes: Bytes,
    pub warnings: Vec<String>,
}

/// Answers a request.
pub(crate) async fn answer(
    call: &Call<'_>,
    verb: Verb,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let resource = &call.resource;
    let subresource = call.target.subresource.as_deref().unwrap_or_default();
    if let Rules::Review(review) = resource.rules {
        return match verb {
            Verb::Create if subresource.is_empty() => reviews::answer(call, review, &body),
            _ => Err(unsupported(call)),
        };
    }
    let of_one = matches!(verb, Verb::Update | Verb::Patch) && call.target.name.is_none();
    // Namespaces go one by one.
    let of_all = verb == Verb::DeleteCollection && resource.rules == Rules::Namespace;
    if of_one || of_all {
        return Err(unsupported(call));
    }
    let Some(part) = Part::of(resource, subresource) else {
        return special(call, verb, subresource, body).await;
    };
    if let Some(resource) = held::resource(call, verb, &body).await? {
        return answer_part(&Call { resource, ..*call }, part, verb, &body).await;
    }
    answer_part(call, part, verb, &body).await
}

async fn answer_part(
    call: &Call<'_>,
    part: Part,
    verb: Verb,
    body: &[u8],
) -> Result<Response<Body>, Status> {
    let resource = &call.resource;
    let mut response = match verb {
        Verb::Get => read::get(call),
        Verb::List if part == Part::Main => read::list(call),
        Verb::Watch if part == Part::Main => watch::watch(call),
        Verb::Create if part == Part::Main && call.target.name.is_none() => {
            create::create(call, body).await.map(|written| finish(call, written))
        }
        Verb::Update => change::update(call, part, body).await.map(|written| finish(call, written)),
        Verb::Patch => patch::patch(call, part, body).await.map(|written| finish(call, written)),
        Verb::Delete if part == Part::Main => delete::delete(call, body).await,
        Verb::DeleteCollection if part == Part::Main && resource.deletes_many() => {
            collection::delete_collection(call, body).await
        }
        _ => Err(unsupported(call)),
    }?;
    respond::warn(&mut response, resource.deprecated.as_slice());
    Ok(response)
}

/// Subresources that are not a part of the object.
async fn special(
    call: &Call<'_>,
    verb: Verb,
    subresource: &str,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let known = call.resource.extra.contains(&subresource)
        || (subresource == "scale" && call.resource.scale.is_some());
    match (subresource, verb) {
        _ if !known => Err(unknown_subresource(call)),
        ("log", Verb::Get) => logs::answer(call).await,
        ("token", Verb::Create) => reviews::create_token(call, &body),
        ("scale", Verb::Get | Verb::Update | Verb::Patch) => scale::answer(call, verb, &body).await,
        _ => Err(unsupported(call)),
    }
}

/// Kubernetes does not look at the object for that where the kind is built in.
fn unknown_subresource(call: &Call) -> Status {
    match call.resource.is_custom() {
        true => Status::not_found(call.about(call.target.name.as_deref().unwrap_or_default())),
        false => Status::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        ),
    }
}

fn finish(call: &Call, written: Written) -> Response<Body> {
    let mut response = respond::object(&call.resource, call.form, written.code, written.bytes);
    respond::warn(&mut response, &written.warnings);
    response
}

fn unsupported(_: &Call) -> Status {
    Status::method_not_allowed("the server does not allow this method on the requested resource")
}

impl Call<'_> {
    /// The address of the object that the request names.
    pub(crate) fn key(&self) -> Result<Key, Status> {
        let name = self.target.name.clone().unwrap_or_default();
        Ok(self.key_of(&name))
    }

    pub(crate) fn key_of(&self, name: &str) -> Key {
        Key {
            kind: self.resource.store.clone(),
            namespace: self.target.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }

    /// The object that the request names, as it is now.
    pub(crate) fn current(&self) -> Result<Arc<Object>, Status> {
        let key = self.key()?;
        self.server.store.get(&key).ok_or_else(|| Status::not_found(self.about(&key.name)))
    }

    /// For refusals that name the plural.
    pub(crate) fn about<'n>(&'n self, name: &'n str) -> About<'n> {
        about(&self.resource, name)
    }

    /// For refusals that name the Kind.
    pub(crate) fn about_kind<'n>(&'n self, name: &'n str) -> About<'n> {
        About { kind: &self.resource.kind, ..about(&self.resource, name) }
    }

    /// The body as an object of this kind; unknown and repeated fields are told or refused later.
    pub(crate) fn decode(&self, body: &[u8]) -> Result<(Value, Vec<String>), Status> {
        let resource = &self.resource;
        let (mut value, duplicates) = crate::body::decode(self.headers, body, &resource.kind)?;
        form::check_says_kind(resource, &value, body)?;
        form::check_type(resource, &mut value)?;
        Ok((value, duplicates))
    }

    /// Who is written into managedFields.
    pub(crate) fn manager<'n>(&'n self, options: &'n WriteOptions) -> &'n str {
        if let Some(manager) = &options.manager {
            return manager;
        }
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let program = agent.and_then(|agent| agent.split('/').next());
        program.filter(|program| !program.is_empty()).unwrap_or("unknown")
    }

    /// Refuses what Kubernetes' own types cannot hold, and drops fields that the schema does not
    /// know: refused or told, as the client wants.
    pub(crate) fn check_fields(
        &self,
        value: &mut Value,
        duplicates: Vec<String>,
        validation: FieldValidation,
    ) -> Result<Vec<String>, Status> {
        self.known_fields(value, duplicates, validation).map_err(|why| {
            let (kind, version) = (&self.resource.kind, &self.resource.version);
            Status::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
            ))
        })
    }

    /// The same of an object that a patch has made.
    pub(crate) fn check_patched_fields(
        &self,
        value: &mut Value,
        duplicates: Vec<String>,
        validation: FieldValidation,
    ) -> Result<Vec<String>, Status> {
        let given = (validation == FieldValidation::Strict).then(|| value.to_string());
        self.known_fields(value, duplicates, validation).map_err(|why| {
            let error = FieldError::invalid("patch", &given.into(), &why);
            Status::invalid(About { group: "", kind: "", name: "" }, &[error])
        })
    }

    fn known_fields(
        &self,
        value: &mut Value,
        duplicates: Vec<String>,
        validation: FieldValidation,
    ) -> Result<Vec<String>, String> {
        if let Some(Mistyped { field, wanted, actual }) = self.resource.schema.mistyped(value) {
            let kind = &self.resource.kind;
            return Err(format!(
                "json: cannot unmarshal {actual} into Go struct field {kind}.{field} of type \
                 {wanted}"
            ));
        }
        let unknown = self.resource.schema.prune(value);
        let mut found = duplicates;
        found.extend(unknown.into_iter().map(|path| format!("unknown field {path:?}")));
        match validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(found),
            FieldValidation::Strict if found.is_empty() => Ok(found),
            FieldValidation::Strict => Err(format!("strict decoding error: {}", found.join(", "))),
        }
    }

    /// Has the in-process admission rules fill in their defaults.
    pub(crate) fn complete(&self, object: &mut Value) {
        let (group, plural) = (&self.resource.group, &self.resource.plural);
        for plugin in self.server.admission(group, plural) {
            plugin.complete(group, plural, object);
        }
    }

    /// Asks the in-process admission rules; the answer is their warnings.
    pub(crate) async fn admit(
        &self,
        operation: Operation,
        object: Option<&Value>,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Vec<String>, Status> {
        let plugins = self.server.admission(&self.resource.group, &self.resource.plural);
        if plugins.is_empty() {
            return Ok(Vec::new());
        }
        let name = object.or(old).and_then(|object| object["metadata"]["name"].as_str());
        let request = AdmissionRequest {
            operation,
            user: self.user.clone(),
            group: self.resource.group.clone(),
            version: self.resource.version.clone(),
            kind: self.resource.kind.clone(),
            resource: self.resource.plural.clone(),
            subresource: self.target.subresource.clone().unwrap_or_default(),
            namespace: self.target.namespace.clone().unwrap_or_default(),
            name: name.unwrap_or_default().to_owned(),
            object: object.cloned(),
            old_object: old.cloned(),
            dry_run,
        };
        let mut warnings = Vec::new();
        for plugin in plugins {
            warnings.extend(plugin.admit(&request).await?);
        }
        Ok(warnings)
    }
}

/// Creates an object for the server itself.
pub(crate) async fn make(call: &Call<'_>, object: Value) -> Result<(), Status> {
    create::create_value(call, object, &WriteOptions::default(), true).await.map(drop)
}

/// Edits the object of that uid for the server itself.
pub(crate) async fn edit(
    call: &Call<'_>,
    part: Part,
    uid: &str,
    change: impl Fn(&mut Value) + Sync,
) -> Result<(), Status> {
    let propose = |old: &Value| {
        let mut value = old.clone();
        change(&mut value);
        value["metadata"]["uid"] = uid.into();
        Ok(change::Proposal { value, warnings: Vec::new(), tracked: false })
    };
    change::change(call, part, &WriteOptions::default(), propose).await.map(drop)
}

pub(crate) fn about<'n>(resource: &'n Resource, name: &'n str) -> About<'n> {
    About { group: &resource.group, kind: &resource.plural, name }
}

/// Makes a change durable, or says in the API's words why not. `Ok(None)`: another write came
/// first.
async fn commit(
    server: &Arc<Inner>,
    resource: &Resource,
    change: Change,
) -> Result<Option<Arc<Object>>, Status> {
    let key = change.key.clone();
    let about = about(resource, &key.name);
    match commit_and_follow(server, change).await {
        Ok(object) => Ok(Some(object)),
        Err(Refusal::Modified) => Ok(None),
        Err(Refusal::Exists) => {
            let status = Status::already_exists(about);
            let deleting = server.store.get(&key).is_some_and(|object| object.meta.deleting());
            Err(match deleting {
                true => Status {
                    message: format!("object is being deleted: {}", status.message),
                    ..status
                },
                false => status,
            })
        }
        Err(Refusal::Gone) => Err(Status::not_found(about)),
        Err(Refusal::Guard(guard)) => Err(guarded(server, &key, about, &guard)),
        Err(refusal @ Refusal::Quota { .. }) => Err(Status::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "InsufficientStorage",
            format!("the change was not made: {refusal}"),
        )),
        Err(refusal @ (Refusal::Full(_) | Refusal::Disk(_))) => {
            Err(Status::unavailable(format!("the change was not made: {refusal}")))
        }
    }
}

/// What follows the commit of a definition must happen even if whoever asked goes away meanwhile
/// or runs out of time: the request is dropped then, where it waits.
async fn commit_and_follow(server: &Arc<Inner>, change: Change) -> Result<Arc<Object>, Refusal> {
    if &*change.key.kind != DEFINITIONS {
        return server.store.commit(change).await;
    }
    let server = server.clone();
    let followed = tokio::spawn(async move {
        let object = server.store.commit(change).await?;
        server.after_commit(&object);
        Ok(object)
    });
    followed.await.unwrap_or_else(|error| Err(Refusal::Disk(error.to_string())))
}

fn guarded(server: &Inner, key: &Key, about: About, guard: &Key) -> Status {
    let exists = server.store.get(guard).is_some();
    if &*guard.kind != "namespaces" {
        return Status::method_not_allowed(
            "create not allowed while custom resource definition is terminating",
        );
    }
    if !exists {
        return Status::not_found(About { group: "", kind: "namespaces", name: &guard.name });
    }
    let namespace = &key.namespace;
    let status = Status::forbidden(format!(
        "{} {:?} is forbidden: unable to create new content in namespace {namespace} because it \
         is being terminated",
        match about.group {
            "" => about.kind.to_owned(),
            group => format!("{}.{group}", about.kind),
        },
        about.name
    ));
    let causes = serde_json::json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    let mut details = about.details();
    details.insert("causes".to_owned(), causes);
    Status { details, ..status }
}

/// The draft of an object in the form in which it is stored.
fn draft(resource: &Resource, value: Value) -> Result<Draft, Status> {
    let stored = form::stored(resource, value);
    // Defaults and managedFields nest deeper than what the client sent.
    if json::depth(&stored) > json::DEPTH_MAX {
        return Err(Status::bad_request(format!(
            "the object would be nested deeper than {} levels",
            json::DEPTH_MAX
        )));
    }
    crate::store::draft(&stored).ok_or_else(|| {
        Status::bad_request(
            "metadata is not as Kubernetes' ObjectMeta: labels, finalizers or \
             ownerReferences have the wrong type",
        )
    })
}

fn put(key: Key, expect: u64, draft: Draft) -> Change {
    Change { key, expect: Some(expect), guards: Vec::new(), action: Action::Put(draft) }
}

/// Now, as Kubernetes writes times: whole seconds, UTC.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
