//! The way of a request: who is it, on whose behalf, may they, and then the answer. One service
//! for sockets and for clients within the process, so that they cannot differ.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header::CACHE_CONTROL, request::Parts};
use tokio::sync::Semaphore;

use crate::{
    authn,
    body::{self, Body, BoxError},
    rbac,
    request::{Query, Target, Verb},
    respond::{self, Form},
    routes,
    server::Inner,
    status::Status,
    user::UserInfo,
    verbs::{self, Call},
};

/// Requests in flight from sockets (kube-apiserver's `--max-requests-inflight` and
/// `--max-mutating-requests-inflight`). Watches count only until they stand.
const READS_IN_FLIGHT_MAX: usize = 400;
const WRITES_IN_FLIGHT_MAX: usize = 200;

/// How many more requests may be in flight.
pub(crate) struct Limits {
    reads: Semaphore,
    writes: Semaphore,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            reads: Semaphore::new(READS_IN_FLIGHT_MAX),
            writes: Semaphore::new(WRITES_IN_FLIGHT_MAX),
        }
    }
}

/// As whom a service's requests come.
#[derive(Clone)]
pub(crate) enum Caller {
    /// A client within the process: this user, always.
    Known(Arc<UserInfo>),
    /// A connection: the user of its client certificate, if it has one; else the request's token.
    Connection(Option<Arc<UserInfo>>),
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
            let answer = handle(&server, &caller, parts, body).await;
            Ok(finish(answer))
        })
    }
}

fn finish(answer: Result<Response<Body>, Status>) -> Response<Body> {
    let mut response = answer.unwrap_or_else(|status| respond::failure(&status));
    let no_cache = HeaderValue::from_static("no-cache, private");
    response.headers_mut().entry(CACHE_CONTROL).or_insert(no_cache);
    response
}

async fn handle<B>(
    server: &Arc<Inner>,
    caller: &Caller,
    parts: Parts,
    body: B,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let path = parts.uri.path();
    if let Some(response) = routes::open_to_all(path) {
        return Ok(response);
    }
    let user = authn::identify(server, caller, &parts.headers)?;
    let user = authn::impersonate(server, user, &parts.headers)?;
    if let Some(handler) = server.mounted(path) {
        return routes::mounted(handler, user, parts, body).await;
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let Some(target) = Target::parse(path) else {
        rbac::authorize_path(server, &user, &parts.method.as_str().to_lowercase(), path)?;
        return Ok(routes::published(server, path, &parts));
    };
    let Some(verb) = Verb::of(&parts.method, &target, &query) else {
        return Err(Status::method_not_allowed("the server does not know this method"));
    };
    let _permit = admit(server, caller, verb)?;
    rbac::authorize(server, &user, verb, &target)?;
    let registry = server.registry();
    let Some(resource) = registry.find(&target.group, &target.version, &target.plural) else {
        return Ok(respond::page_not_found());
    };
    let misplaced = !resource.namespaced && target.namespace.is_some();
    if misplaced || (resource.namespaced && target.namespace.is_none() && target.name.is_some()) {
        return Ok(respond::page_not_found());
    }
    let form = Form::negotiate(&parts.headers, query.get("includeObject"))?;
    let body = if verb.reads() { Bytes::new() } else { body::read(body).await? };
    let call = Call {
        server,
        user: &user,
        resource: resource.clone(),
        target: &target,
        query: &query,
        headers: &parts.headers,
        form,
    };
    verbs::answer(&call, verb, body).await
}

/// Requests from sockets are bounded; the server's own controllers bound themselves.
fn admit<'s>(
    server: &'s Inner,
    caller: &Caller,
    verb: Verb,
) -> Result<Option<tokio::sync::SemaphorePermit<'s>>, Status> {
    if matches!(caller, Caller::Known(_)) {
        return Ok(None);
    }
    let Limits { reads, writes } = &server.limits;
    let permits = if verb.reads() { reads } else { writes };
    let full = |_| Status::too_many_requests("Too many requests, please try again later.");
    permits.try_acquire().map(Some).map_err(full)
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
