//! The way of a request: who is it, on whose behalf, may they, and then the answer. One service
//! for sockets and for clients within the process, so that they cannot differ.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header::CACHE_CONTROL,
    request::Parts,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
    time::{Sleep, sleep, timeout},
};

use crate::{
    audit::{Notes, Seen},
    authn, backup,
    body::{self, Body, BoxError, CHUNK_BYTES, GoesOn, REQUEST_BYTES_MAX},
    certify, rbac,
    request::{Query, Target, Verb},
    respond::{self, Form},
    routes,
    sending::{PIECE_BYTES, Sending},
    serve::Peer,
    server::Inner,
    shares::{Share, Shares},
    status::Status,
    user::UserInfo,
    verbs::{self, Call},
};

/// Requests in flight from sockets (kube-apiserver's `--max-requests-inflight` and
/// `--max-mutating-requests-inflight`). Watches count only until they stand.
const READS_IN_FLIGHT_MAX: usize = 400;
const WRITES_IN_FLIGHT_MAX: usize = 200;

/// Bytes of bodies that are being read and worked on; in memory a parsed one is several times as
/// large.
const BODY_KIB_MAX: usize = 64 * 1024;

/// Bytes of long answers that clients have not yet taken.
const ANSWER_KIB_MAX: usize = 256 * 1024;

/// Watches and logs that are followed: each some KiB.
const STREAMS_MAX: usize = 16 * 1024;

/// Connections: each costs a task and buffers of about 50 KiB, so 200 MiB at most.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

const KIB: usize = 1024;

/// From here on a body is long: most objects are far shorter.
const LONG_BODY_BYTES: usize = 256 * KIB;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What clients on sockets share; one user may hold a part of it.
pub(crate) struct Limits {
    reads: Shares,
    writes: Shares,
    body_kib: Shares,
    answer_kib: Shares,
    streams: Shares,
    pub(crate) connections: Shares,
}

impl Default for Limits {
    fn default() -> Limits {
        // Of what is asked for in passing, half for one user; of what is held, three quarters:
        // one client with 2,000 watches is no enemy.
        let half = |max| Shares::new(max, max / 2);
        let most = |max| Shares::new(max, max / 4 * 3);
        Limits {
            reads: half(READS_IN_FLIGHT_MAX),
            writes: half(WRITES_IN_FLIGHT_MAX),
            body_kib: half(BODY_KIB_MAX),
            answer_kib: half(ANSWER_KIB_MAX),
            streams: most(STREAMS_MAX),
            connections: most(CONNECTIONS_MAX),
        }
    }
}

/// As whom a service's requests come.
#[derive(Clone)]
pub(crate) enum Caller {
    /// A client within the process: this user, always.
    Known(Arc<UserInfo>),
    /// A connection: the user of its client certificate, if it has one; else the request's token.
    Connection(Arc<Peer>),
}

/// The API as a [`tower::Service`] for one caller: for `kube::Client::new` and for hyper.
#[derive(Clone)]
pub struct ApiService {
    server: Arc<Inner>,
    caller: Caller,
}

impl ApiService {
    pub(crate) fn new(server: Arc<Inner>, caller: Caller) -> ApiService {
        ApiService { server, caller }
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ApiService { server, caller } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            Ok(answer(&server, &caller, parts, body).await)
        })
    }
}

/// What becomes known of a request on its way.
struct Course {
    seen: Seen,
    /// Whose shares it takes: the user who has shown who he is, whomever he impersonates.
    user: String,
    /// When what he has shown ends.
    until: Option<Timestamp>,
}

async fn answer<B>(server: &Arc<Inner>, caller: &Caller, parts: Parts, body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let (remote, own) = match caller {
        Caller::Known(_) => (None, true),
        Caller::Connection(peer) => (peer.remote, false),
    };
    let seen = Seen::begin(server, &parts, remote, own);
    let mut course = Course { seen, user: String::new(), until: None };
    let outcome = match caller {
        Caller::Known(_) => handle(server, caller, parts, body, &mut course).await,
        Caller::Connection(peer) => {
            let _underway = peer.begin_request();
            match limit(&parts, server.patience.request) {
                Ok(limit) => timeout(limit, handle(server, caller, parts, body, &mut course))
                    .await
                    .unwrap_or_else(|_| Err(Status::timeout())),
                Err(status) => Err(status),
            }
        }
    };
    finish(server, caller, course, outcome)
}

/// How long a request may take: as it says itself, and no longer than any may.
fn limit(parts: &Parts, most: Duration) -> Result<Duration, Status> {
    let query = parts.uri.query().filter(|query| query.contains("timeout="));
    let query = Query::parse(query.unwrap_or_default());
    let Some(asked) = query.get("timeout") else { return Ok(most) };
    let asked = asked.parse::<SignedDuration>().ok().and_then(|asked| asked.try_into().ok());
    let asked: Duration = asked.ok_or_else(|| {
        Status::bad_request("invalid timeout specified in the request URL: write it as 30s")
    })?;
    Ok(if asked.is_zero() { most } else { asked.min(most) })
}

fn finish(
    server: &Arc<Inner>,
    caller: &Caller,
    course: Course,
    outcome: Result<Response<Body>, Status>,
) -> Response<Body> {
    let Course { mut seen, user, until } = course;
    let own = matches!(caller, Caller::Known(_));
    let held = outcome.and_then(|response| match own {
        true => Ok((response, None)),
        false => server.limits.hold(&user, &response).map(|share| (response, share)),
    });
    let (mut response, share, refusal) = match held {
        Ok((response, share)) => (response, share, None),
        Err(status) => (respond::failure(&status), None, Some(status)),
    };
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if let Ok(id) = HeaderValue::from_str(&seen.id) {
        headers.insert(AUDIT_ID, id);
    }
    if let Some(Notes(notes)) = response.extensions_mut().remove() {
        for (key, value) in notes {
            seen.note(key, value);
        }
    }
    seen.answered(response.status(), refusal.as_ref());
    let streams = goes_on(&response);
    let peer = match caller {
        Caller::Connection(peer) if is_long(&response) => peer.clone(),
        Caller::Known(_) if streams && seen.is_told() => Peer::new(None, None),
        _ => return response,
    };
    if !streams {
        return response.map(|body| Sending::whole(body, &peer, share, seen).boxed_unsync());
    }
    seen.started();
    let counted = (!own).then(|| (server.clone(), user));
    let until = until.map(sleep_until);
    response.map(|body| Sending::stream(body, &peer, (share, counted), until, seen).boxed_unsync())
}

fn goes_on(response: &Response<Body>) -> bool {
    response.extensions().get::<GoesOn>().is_some()
}

/// It is not handed over in one piece.
fn is_long(response: &Response<Body>) -> bool {
    response.body().size_hint().exact().is_none_or(|length| length > PIECE_BYTES as u64)
}

/// What a credential was shown for ends with it.
fn sleep_until(until: Timestamp) -> Pin<Box<Sleep>> {
    let left = until.duration_since(Timestamp::now());
    Box::pin(sleep(left.try_into().unwrap_or_default()))
}

async fn handle<B>(
    server: &Arc<Inner>,
    caller: &Caller,
    parts: Parts,
    body: B,
    course: &mut Course,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let path = parts.uri.path();
    if let Some(response) = routes::open_to_all(server, &parts) {
        course.seen.leave_out();
        return Ok(response);
    }
    let user = identify(server, caller, &parts.headers, course)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let Some(target) = Target::parse(path).filter(|_| server.mounted(path).is_none()) else {
        return handle_path(server, user, parts, body, course).await;
    };
    let Some(verb) = Verb::of(&parts.method, &target, &query) else {
        return Err(Status::method_not_allowed("the server does not know this method"));
    };
    course.seen.object(verb.as_str(), &target);
    let decision = rbac::authorize(server, &user, verb, &target, &query);
    course.decided(decision)?;
    let _permit = server.limits.admit(caller, &course.user, verb)?;
    let registry = server.registry();
    let Some(resource) = registry.find(&target.group, &target.version, &target.plural) else {
        return unknown_resource(registry.has_builtin(&target.group, &target.version));
    };
    let misplaced = !resource.namespaced && target.namespace.is_some();
    if misplaced || (resource.namespaced && target.namespace.is_none() && target.name.is_some()) {
        return unknown_resource(!resource.is_custom());
    }
    let form = Form::negotiate(&parts.headers, query.get("includeObject"))?;
    let (_room, body) = match verb.reads() {
        true => (None, Bytes::new()),
        false => server.limits.read(caller, &course.user, body).await?,
    };
    let call = Call {
        server,
        user: &user,
        resource: resource.clone(),
        target: &target,
        query: &query,
        headers: &parts.headers,
        form,
    };
    aside(body.len(), verbs::answer(&call, verb, body)).await
}

/// Within a built-in group a real server tells of a missing resource as an object, else as a page.
fn unknown_resource(builtin: bool) -> Result<Response<Body>, Status> {
    match builtin {
        true => Err(Status::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        )),
        false => Ok(respond::page_not_found()),
    }
}

/// Work on a long body can take a while without a pause. It is done where it holds up nobody: the
/// thread gives its other tasks away before it begins.
async fn aside<T>(length: usize, work: impl Future<Output = T>) -> T {
    if length <= LONG_BODY_BYTES {
        return work.await;
    }
    let runtime = Handle::current();
    match runtime.runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(|| runtime.block_on(work)),
        _ => work.await,
    }
}

/// Who is it, and on whose behalf.
fn identify(
    server: &Arc<Inner>,
    caller: &Caller,
    headers: &HeaderMap,
    course: &mut Course,
) -> Result<UserInfo, Status> {
    let identity = authn::identify(server, caller, headers)?;
    course.seen.user(&identity.user);
    course.user.clone_from(&identity.user.name);
    course.until = identity.until;
    if let Caller::Connection(peer) = caller
        && !peer.is_of(&identity.user, &server.limits.connections)
    {
        return Err(Status::too_many_requests("this user has too many connections"));
    }
    let Some(other) = authn::impersonate(server, &identity.user, headers)? else {
        return Ok(identity.user);
    };
    course.seen.impersonated(&other);
    Ok(other)
}

/// What is no resource.
async fn handle_path<B>(
    server: &Arc<Inner>,
    user: UserInfo,
    parts: Parts,
    body: B,
    course: &mut Course,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let path = parts.uri.path();
    if let Some(handler) = server.mounted(path) {
        return routes::mounted(handler, user, parts, body).await;
    }
    let verb = parts.method.as_str().to_lowercase();
    course.decided(rbac::authorize_path(server, &user, &verb, path))?;
    if let Some(plan) = server.backups.at(path) {
        return backup::answer(server, plan, &user, &parts.method).await;
    }
    match (path, verb.as_str()) {
        (certify::PATH, "post") => certify::answer(server, &user, body::read(body).await?),
        _ => Ok(routes::published(server, path, &parts)),
    }
}

impl Course {
    /// Notes what the policy says of the request.
    fn decided(&mut self, decision: Result<Arc<str>, Status>) -> Result<(), Status> {
        let (decided, outcome) = match decision {
            Ok(reason) => {
                self.seen.note("authorization.k8s.io/reason", &*reason);
                ("allow", Ok(()))
            }
            Err(status) => ("forbid", Err(status)),
        };
        self.seen.note("authorization.k8s.io/decision", decided);
        outcome
    }
}

impl Limits {
    /// A place among the requests in flight; the server's own controllers bound themselves.
    fn admit(&self, caller: &Caller, user: &str, verb: Verb) -> Result<Option<Share>, Status> {
        if matches!(caller, Caller::Known(_)) {
            return Ok(None);
        }
        let places = if verb.reads() { &self.reads } else { &self.writes };
        places.take(user, 1).map(Some).ok_or_else(too_many)
    }

    /// Reads a body when there is room for it; the room is kept until the request is answered.
    async fn read<B>(
        &self,
        caller: &Caller,
        user: &str,
        body: B,
    ) -> Result<(Option<Share>, Bytes), Status>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        if matches!(caller, Caller::Known(_)) {
            return Ok((None, body::read(body).await?));
        }
        let most = REQUEST_BYTES_MAX as u64;
        let length = body.size_hint().upper().unwrap_or(most).min(most) as usize;
        let room = self.body_kib.take(user, length.div_ceil(KIB)).ok_or_else(too_many)?;
        Ok((Some(room), body::read(body).await?))
    }

    /// Counts an answer that is not handed over at once.
    fn hold(&self, user: &str, response: &Response<Body>) -> Result<Option<Share>, Status> {
        if !is_long(response) {
            return Ok(None);
        }
        let share = match response.body().size_hint().exact() {
            None if goes_on(response) => self.streams.take(user, 1),
            // Made while it is sent: one piece is on its way, and one is being made.
            None => self.room_for_answer(user, 2 * CHUNK_BYTES),
            Some(length) => self.room_for_answer(user, length as usize),
        };
        share.map(Some).ok_or_else(too_many)
    }

    /// Room for so many bytes that the client has yet to take. What is longer than a user's share
    /// is answered, too, if nothing else is.
    pub(crate) fn room_for_answer(&self, user: &str, bytes: usize) -> Option<Share> {
        self.answer_kib.take(user, bytes.div_ceil(KIB).min(ANSWER_KIB_MAX / 2))
    }
}

fn too_many() -> Status {
    Status::too_many_requests("Too many requests, please try again later.")
}

/// Has the server itself make a request, as its operator: for its controllers and its start.
pub(crate) async fn internal<T>(
    server: &Arc<Inner>,
    resource: &Arc<crate::registry::Resource>,
    namespace: &str,
    name: &str,
    act: impl AsyncFnOnce(&Call<'_>) -> T,
) -> T {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let target = Target {
        group: resource.group.clone(),
        version: resource.version.clone(),
        plural: resource.plural.clone(),
        namespace: some(namespace),
        name: some(name),
        subresource: None,
    };
    let user = UserInfo::admin();
    let (query, headers) = (Query::default(), HeaderMap::new());
    let call = Call {
        server,
        user: &user,
        resource: resource.clone(),
        target: &target,
        query: &query,
        headers: &headers,
        form: Form::Json,
    };
    act(&call).await
}
