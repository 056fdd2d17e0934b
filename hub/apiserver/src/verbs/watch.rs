//! Watch: the events of a kind from a revision on, one JSON line each.
//!
//! A watcher is a cursor into the kind's ring of events and waits to be woken: it has no queue, so
//! a slow one costs nothing, and one that falls behind the ring is told `Expired`.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    Call, form,
    read::{Filter, check_fields},
};
use crate::{
    body::{self, Body},
    registry::Resource,
    request::ListOptions,
    respond::{self, Form},
    server::Inner,
    status::Status,
    store::{Event, EventKind, Object, watch_line},
};

/// Events looked at in one step: enough to drain a burst, few enough to let others run.
const STEP_EVENTS: usize = 256;

/// A step ends when its lines have become so long: they are kept until the client takes them.
const STEP_BYTES: usize = 256 * 1024;

/// A bookmark is sent about so often (apiserver's cacher does, too).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// A watch without a timeout ends after 30 to 60 minutes, as a kube-apiserver's.
const TIMEOUT_MIN: Duration = Duration::from_secs(30 * 60);

pub(super) fn watch(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let mut options = ListOptions::parse(call.query, true)?;
    check_fields(&call.resource, &options)?;
    let timeout = options.timeout.take().unwrap_or_else(|| {
        TIMEOUT_MIN + Duration::from_secs(rand::rng().random_range(0..=TIMEOUT_MIN.as_secs()))
    });
    let watcher = Watcher::new(call, options, timeout);
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((chunk, watcher))
    });
    let mut response = Response::new(body::stream(stream));
    response.extensions_mut().insert(body::GoesOn);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

struct Watcher {
    server: Arc<Inner>,
    resource: Arc<Resource>,
    namespace: Option<String>,
    options: ListOptions,
    form: Form,
    cursor: u64,
    initial: VecDeque<Arc<Object>>,
    /// The initial state has been sent, but not that it ends here.
    end_of_initial_due: bool,
    columns_sent: bool,
    changed: Arc<Notify>,
    deadline: Instant,
    /// At the next bookmark or at the deadline. Kept, as `stopped` is, because to wait anew for
    /// either at each event costs more than the event.
    alarm: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The revision of the last bookmark.
    marked: u64,
    over: bool,
}

impl Watcher {
    fn new(call: &Call, options: ListOptions, timeout: Duration) -> Watcher {
        let store = &call.server.store;
        let kind = &call.resource.store;
        let changed = store.changed(kind);
        let send_initial =
            options.send_initial.unwrap_or(options.version.is_none_or(|version| version == 0));
        let namespace = call.target.namespace.clone();
        let state = store.read();
        let (initial, cursor) = match send_initial {
            true => {
                let objects = state.list(kind, namespace.as_deref(), None).cloned().collect();
                (objects, state.revision)
            }
            false => (VecDeque::new(), options.version.unwrap_or(state.revision)),
        };
        drop(state);
        let deadline = Instant::now() + timeout;
        Watcher {
            server: call.server.clone(),
            resource: call.resource.clone(),
            namespace,
            end_of_initial_due: send_initial && options.bookmarks,
            options,
            form: call.form,
            cursor,
            initial,
            columns_sent: false,
            changed,
            deadline,
            alarm: Box::pin(sleep_until(deadline.min(Instant::now() + BOOKMARK_EVERY))),
            stopped: Box::pin(call.server.shutdown.clone().cancelled_owned()),
            marked: 0,
            over: false,
        }
    }

    /// The next lines; `None`: the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        // Looked at here, too: while there is always something to tell, nothing is waited for.
        while !self.over && Instant::now() < self.deadline {
            let changed = self.changed.clone();
            let woken = changed.notified();
            tokio::pin!(woken);
            // Registered before looking, so that no event between looking and waiting is missed.
            woken.as_mut().enable();
            let lines = self.ready();
            if !lines.is_empty() {
                return Some(lines);
            }
            // Cancel-safe: nothing is taken from any of these.
            tokio::select! {
                () = woken => {}
                () = self.alarm.as_mut() => {
                    let now = Instant::now();
                    self.over = now >= self.deadline;
                    self.alarm.as_mut().reset(self.deadline.min(now + BOOKMARK_EVERY));
                    // At its end only what a watcher does not know yet.
                    if self.options.bookmarks && !(self.over && self.marked == self.cursor) {
                        return Some(self.bookmark(false));
                    }
                }
                () = self.stopped.as_mut() => self.over = true,
            }
        }
        None
    }

    /// Lines that can be sent now; none: there is nothing to tell yet.
    fn ready(&mut self) -> Bytes {
        let mut lines = Lines::default();
        while !lines.are_enough()
            && let Some(object) = self.initial.pop_front()
        {
            if self.filter().matches(&object) {
                lines.push(self.line(EventKind::Added, &object));
            }
        }
        if !self.initial.is_empty() {
            return lines.joined();
        }
        if std::mem::take(&mut self.end_of_initial_due) {
            lines.push(self.bookmark(true));
        }
        if lines.all.is_empty() {
            self.follow(&mut lines);
        }
        lines.joined()
    }

    /// Goes on to the next events that this watcher sees, or to the end of all that there are.
    fn follow(&mut self, lines: &mut Lines) {
        while lines.all.is_empty() && !self.over {
            let (found, revision) = {
                let state = self.server.store.read();
                let found = state.events_after(&self.resource.store, self.cursor, STEP_EVENTS);
                (found, state.revision)
            };
            match found {
                Ok(events) if events.is_empty() => {
                    self.cursor = self.cursor.max(revision);
                    return;
                }
                Ok(events) => self.step(&events, lines),
                Err(expired) => {
                    self.over = true;
                    let message =
                        format!("too old resource version: {} ({})", self.cursor, expired.oldest);
                    let error =
                        json!({"type": "ERROR", "object": Status::expired(message).to_json()});
                    lines.push(format!("{error}\n").into());
                }
            }
        }
    }

    fn step(&mut self, events: &[Arc<Event>], lines: &mut Lines) {
        for event in events {
            if lines.are_enough() {
                return;
            }
            self.cursor = event.object.revision;
            if let Some(line) = self.event(event) {
                lines.push(line);
            }
        }
    }

    /// An event as this watcher sees it: what begins to match is added, what ceases is deleted.
    fn event(&mut self, event: &Event) -> Option<Bytes> {
        let object = &event.object;
        if self.namespace.as_ref().is_some_and(|namespace| *namespace != object.key.namespace) {
            return None;
        }
        if self.filter().is_everything() {
            return Some(self.line(event.kind, object));
        }
        let matched = event.prev.as_ref().is_some_and(|prev| self.filter().matches(prev));
        let matches = event.kind != EventKind::Deleted && self.filter().matches(object);
        match (matched, matches) {
            (false, false) => None,
            (false, true) => Some(self.line(EventKind::Added, object)),
            (true, true) => Some(self.line(EventKind::Modified, object)),
            (true, false) if event.kind == EventKind::Deleted => {
                Some(self.line(EventKind::Deleted, object))
            }
            (true, false) => {
                // It no longer matches: told with what the watcher last saw of it.
                let last = event.prev.as_ref()?.at_revision(object.revision);
                Some(self.line(EventKind::Deleted, &last))
            }
        }
    }

    fn line(&mut self, kind: EventKind, object: &Object) -> Bytes {
        if matches!(self.form, Form::Json | Form::Yaml) && self.resource.reads_as_stored(object) {
            return object.line(kind);
        }
        let bytes = form::served_bytes(&self.resource, object);
        match self.form {
            Form::Json | Form::Yaml => watch_line(kind.as_str(), &[&bytes]),
            Form::Metadata => watch_line(kind.as_str(), &[&respond::partial(&bytes)]),
            Form::Table(include) => {
                let columns = &self.resource.columns;
                let version = Some(object.revision.to_string().into());
                let with_columns = !std::mem::replace(&mut self.columns_sent, true);
                let table = respond::table_of(columns, &bytes, version, include, with_columns);
                watch_line(kind.as_str(), &[&table])
            }
        }
    }

    fn bookmark(&mut self, ends_initial: bool) -> Bytes {
        self.marked = self.cursor;
        let mut metadata = json!({"resourceVersion": self.cursor.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (version, kind) = (self.resource.api_version(), &self.resource.kind);
        let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        let partial = respond::partial(object.to_string().as_bytes());
        let object = match self.form {
            Form::Json | Form::Yaml => object.to_string().into_bytes(),
            Form::Metadata => partial,
            Form::Table(_) => {
                let object: Value = serde_json::from_slice(&partial).unwrap_or_default();
                let table = json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                    "columnDefinitions": null, "rows": [{"cells": [], "object": object}],
                });
                table.to_string().into_bytes()
            }
        };
        watch_line("BOOKMARK", &[&object])
    }

    fn filter(&self) -> Filter<'_> {
        Filter { resource: &self.resource, options: &self.options }
    }
}

/// Lines to be sent at once.
#[derive(Default)]
struct Lines {
    all: Vec<Bytes>,
    bytes: usize,
}

impl Lines {
    fn push(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.all.push(line);
    }

    fn are_enough(&self) -> bool {
        self.bytes >= STEP_BYTES
    }

    /// As one chunk, so that they leave together; a single one is not copied.
    fn joined(mut self) -> Bytes {
        match self.all.len() {
            1 => self.all.remove(0),
            _ => self.all.concat().into(),
        }
    }
}
