//! Where two crates that do not know each other meet: one's port, implemented by the other.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use http::{Method, Request, Response, StatusCode};
use muster_apiserver::{
    AdmissionRequest, Admit, ApiServer, HeldTo, LogOptions, LogTarget, Mounted, Named, Operation,
    POD_NAME, POD_UID, PodLogs, Status, UserInfo,
};
use muster_control::{
    Admission, AdmissionView, Control, RESULT_BODY_MAX, RequestSchema, RequestView, ResultCall,
    Results,
};
use muster_daemon::{OnError, Tasks};
use muster_plan::admit::Refusal;
use muster_runner::ServeApi;
use serde::Serialize;

/// Where pipelines hand in their results: `/muster/results/{namespace}/{job}/{part}`.
const RESULTS: &str = "/muster/results/";

/// Has the hub's rules asked before writes, and pipelines' results taken.
pub(crate) fn rules(api: &ApiServer, control: &Control) {
    api.admit(Arc::new(Rules(control.admission())));
    api.mount(RESULTS, Arc::new(Handing(control.results())));
}

/// The API, served on listeners inside pods' networks.
pub(crate) fn serve_in_pods(api: ApiServer, tasks: Tasks) -> ServeApi {
    Arc::new(move |listener, until| {
        let api = api.clone();
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| tokio::net::TcpListener::from_std(listener));
        match listener {
            Ok(listener) => tasks.spawn("pod-api", OnError::Log, async move {
                api.serve(listener, until).await;
                Ok(())
            }),
            Err(error) => tracing::warn!(%error, "A pod cannot reach the API"),
        }
    })
}

/// Logs of the runner's pods, for the API.
pub(crate) struct Logs(pub(crate) muster_runner::Logs);

impl PodLogs for Logs {
    fn open(
        &self,
        target: &LogTarget,
        options: LogOptions,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let LogOptions { follow, previous, timestamps, tail_lines, since, limit_bytes } = options;
        let tail_lines = tail_lines.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
        let options = muster_runner::LogOptions {
            follow,
            previous,
            timestamps,
            tail_lines,
            since,
            limit_bytes,
        };
        Ok(self.0.open(&target.pod_uid, &target.container, options)?.boxed())
    }
}

/// The hub's admission rules, for the API.
struct Rules(Arc<Admission>);

impl Admit for Rules {
    fn wants(&self, group: &str, resource: &str) -> bool {
        Admission::wants(group, resource)
    }

    fn complete(&self, group: &str, resource: &str, object: &mut serde_json::Value) {
        Admission::complete(group, resource, object);
    }

    fn admit<'a>(
        &'a self,
        request: &'a AdmissionRequest,
    ) -> BoxFuture<'a, Result<Vec<String>, Status>> {
        Box::pin(async move {
            let view = AdmissionView {
                operation: match request.operation {
                    Operation::Create => "CREATE",
                    Operation::Update => "UPDATE",
                    Operation::Delete => "DELETE",
                },
                user: &request.user.name,
                groups: &request.user.groups,
                group: &request.group,
                kind: &request.kind,
                resource: &request.resource,
                subresource: &request.subresource,
                object: request.object.as_ref(),
                old: request.old_object.as_ref(),
                dry_run: request.dry_run,
            };
            self.0.review(view).await.map_err(|refusal| status(&refusal))
        })
    }

    fn governs(&self, annotations: &BTreeMap<String, String>) -> bool {
        Admission::governs(annotations)
    }

    fn schema<'a>(&'a self, object: &'a Named) -> BoxFuture<'a, Result<Option<HeldTo>, Status>> {
        let Named { definition, version, namespace, name } = object;
        let view = RequestView { definition, version, namespace, name };
        Box::pin(async move {
            let held = self.0.request_schema(view).await.map_err(|refusal| status(&refusal))?;
            Ok(held.map(|RequestSchema { mark, schema }| HeldTo { key: mark, schema }))
        })
    }
}

/// The results endpoint, for the API.
struct Handing(Arc<Results>);

impl Mounted for Handing {
    fn body_bytes_max(&self) -> usize {
        RESULT_BODY_MAX
    }

    fn serve(
        &self,
        user: UserInfo,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Response<Bytes>> {
        let results = self.0.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let parts: Vec<_> = path.trim_start_matches(RESULTS).split('/').collect();
            let [namespace, job, part] = parts[..] else {
                return answer::<()>(Err(Refusal::not_found(format!("there is no {path}"))));
            };
            let of = |key: &str| {
                user.extra.get(key).and_then(|all| all.first()).cloned().unwrap_or_default()
            };
            let asks = request.method() == Method::GET;
            let call = ResultCall {
                pod_name: of(POD_NAME),
                pod_uid: of(POD_UID),
                namespace: namespace.to_owned(),
                job: job.to_owned(),
                part: part.to_owned(),
                body: request.into_body(),
            };
            match (asks, part) {
                (false, _) => answer(results.handle(call).await),
                (true, "children") => answer(results.children(call).await),
                (true, _) => answer::<()>(Err(Refusal::not_found(format!("there is no {path}")))),
            }
        })
    }
}

fn answer<T: Serialize>(result: Result<T, Refusal>) -> Response<Bytes> {
    let (code, body) = match result {
        Ok(value) => (StatusCode::OK, serde_json::to_vec(&value).unwrap_or_default().into()),
        Err(refusal) => {
            let status = status(&refusal);
            let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::BAD_REQUEST);
            (code, Bytes::from(status.to_json().to_string()))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}

fn status(refusal: &Refusal) -> Status {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    Status::new(code, refusal.reason, refusal.message.clone())
}
