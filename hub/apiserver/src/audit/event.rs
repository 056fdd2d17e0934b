//! One request as the audit log tells it.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, StatusCode, header::USER_AGENT, request::Parts};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{request::Target, server::Inner, status::Status, user::UserInfo};

/// Longest texts that a client may put into the log (apiserver's own limit for the agent).
const AGENT_BYTES_MAX: usize = 1024;
const URI_BYTES_MAX: usize = 4096;
const ID_BYTES_MAX: usize = 64;

const ID_HEADER: &str = "audit-id";

/// Further facts of an answer that the log should tell, in the answer's extensions.
#[derive(Clone)]
pub(crate) struct Notes(pub Vec<(&'static str, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    ResponseStarted,
    ResponseComplete,
}

/// A request under way, and what has become known of it. When it is dropped it is written.
pub(crate) struct Seen {
    server: Arc<Inner>,
    pub(crate) id: String,
    /// `None`: this request is not to be written.
    told: Option<Box<Told>>,
}

/// What the events of one request say.
#[derive(Clone)]
struct Told {
    id: String,
    uri: String,
    verb: String,
    agent: String,
    remote: Option<SocketAddr>,
    received: Timestamp,
    user: Option<UserInfo>,
    impersonated: Option<UserInfo>,
    target: Option<Target>,
    outcome: Option<Outcome>,
    notes: Vec<(&'static str, String)>,
}

#[derive(Clone)]
struct Outcome {
    code: StatusCode,
    reason: &'static str,
    message: String,
}

/// An event on its way to the log.
pub(super) struct Entry {
    told: Box<Told>,
    stage: Stage,
    at: Timestamp,
    /// Events before this one that are not in the log.
    pub(super) lost: u64,
    /// Refusals of strangers before this one that are not in the log.
    pub(super) unwritten: u64,
}

impl Seen {
    /// A request that has just come; `own`: from within the process.
    pub(crate) fn begin(
        server: &Arc<Inner>,
        parts: &Parts,
        remote: Option<SocketAddr>,
        own: bool,
    ) -> Seen {
        let id = id_of(&parts.headers);
        let wanted = server.audit.as_ref().is_some_and(|audit| !own || audit.own_clients);
        let told = wanted.then(|| {
            let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
            Box::new(Told {
                id: id.clone(),
                uri: cut(parts.uri.path_and_query().map_or("", |uri| uri.as_str()), URI_BYTES_MAX),
                verb: parts.method.as_str().to_lowercase(),
                agent: cut(header(USER_AGENT).unwrap_or_default(), AGENT_BYTES_MAX),
                remote,
                received: Timestamp::now(),
                user: None,
                impersonated: None,
                target: None,
                outcome: None,
                notes: Vec::new(),
            })
        });
        Seen { server: server.clone(), id, told }
    }

    /// Has this request left out: it asks for what anyone may know.
    pub(crate) fn leave_out(&mut self) {
        self.told = None;
    }

    /// It will be written.
    pub(crate) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    pub(crate) fn user(&mut self, user: &UserInfo) {
        if let Some(told) = &mut self.told {
            told.user = Some(user.clone());
        }
    }

    pub(crate) fn impersonated(&mut self, user: &UserInfo) {
        if let Some(told) = &mut self.told {
            told.impersonated = Some(user.clone());
        }
    }

    pub(crate) fn object(&mut self, verb: &str, target: &Target) {
        if let Some(told) = &mut self.told {
            told.verb = verb.to_owned();
            told.target = Some(target.clone());
        }
    }

    pub(crate) fn note(&mut self, key: &'static str, value: impl Into<String>) {
        if let Some(told) = &mut self.told {
            told.notes.push((key, value.into()));
        }
    }

    /// The answer is known. Of a refusal the message is kept only where it is about rights:
    /// others may quote what the client sent.
    pub(crate) fn answered(&mut self, code: StatusCode, refusal: Option<&Status>) {
        let Some(told) = &mut self.told else { return };
        let about_rights = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&code);
        let message = refusal.filter(|_| about_rights).map(|status| status.message.clone());
        told.outcome = Some(Outcome {
            code,
            reason: refusal.map_or("", |status| status.reason),
            message: cut(&message.unwrap_or_default(), AGENT_BYTES_MAX),
        });
    }

    /// The answer is a stream that begins now; its end is told when this is dropped.
    pub(crate) fn started(&self) {
        if let Some(told) = &self.told {
            self.put(told.clone(), Stage::ResponseStarted);
        }
    }

    fn put(&self, told: Box<Told>, stage: Stage) {
        if let Some(audit) = &self.server.audit {
            audit.put(Entry { told, stage, at: Timestamp::now(), lost: 0, unwritten: 0 });
        }
    }
}

impl Drop for Seen {
    /// Also when the client went away before it was answered: then there is no response status.
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            self.put(told, Stage::ResponseComplete);
        }
    }
}

impl Entry {
    /// Nobody has shown who this was.
    pub(super) fn is_of_stranger(&self) -> bool {
        self.told.user.is_none()
    }

    pub(super) fn second(&self) -> i64 {
        self.at.as_second()
    }

    pub(super) fn line(&self) -> Vec<u8> {
        let told = &self.told;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
            "auditID": told.id,
            "stage": match self.stage {
                Stage::ResponseStarted => "ResponseStarted",
                Stage::ResponseComplete => "ResponseComplete",
            },
            "requestURI": told.uri, "verb": told.verb,
            "user": told.user.as_ref().map_or_else(|| json!({}), UserInfo::to_json),
        });
        if let Some(user) = &told.impersonated {
            event["impersonatedUser"] = user.to_json();
        }
        if let Some(remote) = told.remote {
            event["sourceIPs"] = json!([remote.ip().to_string()]);
        }
        event["userAgent"] = told.agent.as_str().into();
        if let Some(target) = &told.target {
            event["objectRef"] = object_ref(target);
        }
        if let Some(Outcome { code, reason, message }) = &told.outcome {
            let mut status = json!({"metadata": {}, "code": code.as_u16()});
            if code.is_client_error() || code.is_server_error() {
                status["status"] = "Failure".into();
            }
            for (field, text) in [("reason", *reason), ("message", message.as_str())] {
                if !text.is_empty() {
                    status[field] = text.into();
                }
            }
            event["responseStatus"] = status;
        }
        event["requestReceivedTimestamp"] = micros(told.received).into();
        event["stageTimestamp"] = micros(self.at).into();
        let annotations = self.annotations();
        if !annotations.is_empty() {
            event["annotations"] = annotations.into();
        }
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    fn annotations(&self) -> Map<String, Value> {
        let notes = self.told.notes.iter();
        let mut all: Map<String, Value> =
            notes.map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
        let counts = [
            ("audit.muster.dev/events-lost-before", self.lost),
            ("audit.muster.dev/strangers-unwritten-before", self.unwritten),
        ];
        for (key, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            all.insert(key.to_owned(), count.to_string().into());
        }
        all
    }
}

fn object_ref(target: &Target) -> Value {
    let mut reference = json!({"resource": target.plural});
    let fields = [
        ("namespace", target.namespace.as_deref()),
        ("name", target.name.as_deref()),
        ("apiGroup", Some(target.group.as_str())),
        ("apiVersion", Some(target.version.as_str())),
        ("subresource", target.subresource.as_deref()),
    ];
    for (field, value) in fields {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            reference[field] = value.into();
        }
    }
    reference
}

/// The client's own id of the request, if it is one, so that it can be found in both logs.
fn id_of(headers: &HeaderMap) -> String {
    let given = headers.get(ID_HEADER).and_then(|value| value.to_str().ok());
    match given.filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
