//! Logs of pods: `GET …/pods/NAME/log`, from whoever runs the pods.

use std::io;

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    body::{self, Body},
    request::Query,
    status::Status,
    verbs::Call,
};

/// Which log is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTarget {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    pub container: String,
}

/// What of it (`PodLogOptions`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep sending until the container ends.
    pub follow: bool,
    /// The run before the last restart.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines printed at or after this time.
    pub since: Option<Timestamp>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Where logs come from: the runner supplies it.
pub trait PodLogs: Send + Sync {
    /// Opens a log. An error of kind `NotFound` means that the container has not run (yet).
    fn open(
        &self,
        target: &LogTarget,
        options: LogOptions,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>>;
}

pub(crate) async fn answer(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let object = call.current()?;
    let pod = object.value();
    let container = container(call, &pod)?;
    let options = options(call.query)?;
    let Some(logs) = call.server.pod_logs.get() else {
        // Not "unavailable": clients would ask again and again.
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned: this server runs no pods",
            object.key.name
        )));
    };
    let target = LogTarget {
        namespace: object.key.namespace.clone(),
        pod: object.key.name.clone(),
        pod_uid: object.meta.uid.clone(),
        container: container.clone(),
    };
    let lines = logs.open(&target, options).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Status::bad_request(format!(
            "container {container:?} in pod {:?} is waiting to start: no log yet",
            target.pod
        )),
        _ => Status::internal(format!("cannot read the log of {container:?}: {error}")),
    })?;
    // What was read is sent; an error on the way ends the log and is told in ours.
    let lines = futures::stream::unfold(lines, move |mut lines| {
        let pod = target.pod.clone();
        async move {
            match lines.next().await? {
                Ok(chunk) => Some((chunk, lines)),
                Err(error) => {
                    tracing::warn!(%error, pod, "a log ended early");
                    None
                }
            }
        }
    });
    let stop = call.server.shutdown.clone();
    let mut response = Response::new(body::stream(lines.take_until(stop.cancelled_owned())));
    *response.status_mut() = StatusCode::OK;
    response.extensions_mut().insert(body::GoesOn);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn container(call: &Call, pod: &Value) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| Some(container["name"].as_str()?.to_owned())).collect()
    };
    let (init, main) = (names("initContainers"), names("containers"));
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    match (call.query.get("container"), main.as_slice()) {
        (Some(asked), _) if init.iter().chain(&main).any(|own| own == asked) => {
            Ok(asked.to_owned())
        }
        (Some(asked), _) => {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
        (None, [only]) => Ok(only.clone()),
        (None, _) => {
            let or_init = match init.is_empty() {
                true => String::new(),
                false => format!(" or one of the init containers: [{}]", init.join(" ")),
            };
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]{or_init}",
                main.join(" ")
            )))
        }
    }
}

fn options(query: &Query) -> Result<LogOptions, Status> {
    let since = match (query.number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(_), Some(_)) => {
            return Err(Status::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        (Some(seconds), None) => {
            let ago = SignedDuration::from_secs(seconds.min(u32::MAX.into()) as i64);
            Timestamp::now().checked_sub(ago).ok()
        }
        (None, Some(time)) => Some(time.parse().map_err(|_| {
            Status::bad_request(format!("sinceTime: {time:?} is no RFC 3339 time"))
        })?),
        (None, None) => None,
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        since,
        limit_bytes: query.number("limitBytes")?,
    })
}
