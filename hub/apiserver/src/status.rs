//! Every refusal of the API: what a client is told, in the words of Kubernetes' API machinery,
//! because people and programs match them.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::field::{FieldError, NO_FIELD, summary};

/// A failure as Kubernetes' `Status` object tells it
/// (apimachinery `pkg/api/errors`, `meta/v1.Status`).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: StatusCode,
    /// Kubernetes' one-word reason, e.g. `NotFound`.
    pub reason: &'static str,
    /// What happened to which object, and what to do.
    pub message: String,
    /// `name`, `group`, `kind`, `uid`, `causes`, `retryAfterSeconds`; an empty map: none.
    pub details: Map<String, Value>,
}

/// What a refusal is about: the kind as the message spells it, its group, and the name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub group: &'a str,
    /// The plural for lookups, the Kind for validation.
    pub kind: &'a str,
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self) -> String {
        match self.group {
            "" => self.kind.to_owned(),
            group => format!("{}.{group}", self.kind),
        }
    }

    pub(crate) fn details(&self) -> Map<String, Value> {
        let named = [("name", self.name), ("group", self.group), ("kind", self.kind)];
        let present = named.into_iter().filter(|(_, value)| !value.is_empty());
        present.map(|(field, value)| (field.to_owned(), value.into())).collect()
    }
}

impl Status {
    /// A failure without details.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: Map::new() }
    }

    /// The request itself is wrong: 400.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// Refused by a rule about who may do what: 403. In-process admission uses it, too.
    pub fn forbidden(message: impl Into<String>) -> Status {
        Status::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// The server failed: 500.
    pub fn internal(message: impl Into<String>) -> Status {
        let message = format!("Internal error occurred: {}", message.into());
        Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub(crate) fn unauthorized() -> Status {
        Status::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn not_found(about: About) -> Status {
        let message = format!("{} {:?} not found", about.qualified(), about.name);
        Status {
            details: about.details(),
            ..Status::new(StatusCode::NOT_FOUND, "NotFound", message)
        }
    }

    pub(crate) fn already_exists(about: About) -> Status {
        let message = format!("{} {:?} already exists", about.qualified(), about.name);
        Status {
            details: about.details(),
            ..Status::new(StatusCode::CONFLICT, "AlreadyExists", message)
        }
    }

    pub(crate) fn conflict(about: About, why: &str) -> Status {
        let message = format!(
            "Operation cannot be fulfilled on {} {:?}: {why}",
            about.qualified(),
            about.name
        );
        Status {
            details: about.details(),
            ..Status::new(StatusCode::CONFLICT, "Conflict", message)
        }
    }

    pub(crate) fn modified(about: About) -> Status {
        Status::conflict(
            about,
            "the object has been modified; please apply your changes to the latest version and try \
             again",
        )
    }

    /// Validation failed; `about.kind` is the Kind, and each error is one cause.
    pub(crate) fn invalid(about: About, errors: &[FieldError]) -> Status {
        let message =
            format!("{} {:?} is invalid: {}", about.qualified(), about.name, summary(errors));
        let mut status = Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        status.details = about.details();
        let cause = |error: &FieldError| {
            let field = if error.field.is_empty() { NO_FIELD } else { &error.field };
            json!({"reason": error.cause.reason(), "message": error.message, "field": field})
        };
        let causes: Value = errors.iter().map(cause).collect();
        status.details.insert("causes".to_owned(), causes);
        status
    }

    /// An option of the request is wrong, e.g. of `PatchOptions`.
    pub(crate) fn invalid_option(options: &str, error: FieldError) -> Status {
        Status::invalid(About { group: "meta.k8s.io", kind: options, name: "" }, &[error])
    }

    pub(crate) fn expired(message: impl Into<String>) -> Status {
        Status::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn too_many_requests(message: &str) -> Status {
        let mut status = Status::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        status.details.insert("retryAfterSeconds".to_owned(), 1.into());
        status
    }

    /// The time that a request may take is over; a write may have happened all the same.
    pub(crate) fn timeout() -> Status {
        let message = "Timeout: request did not complete within the allotted timeout";
        Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Status {
        let mut status =
            Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        status.details.insert("retryAfterSeconds".to_owned(), 1.into());
        status
    }

    pub(crate) fn method_not_allowed(message: impl Into<String>) -> Status {
        Status::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {accepted}"
        );
        Status::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// The `Status` object.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        // A real server writes details with these codes even if it has none.
        let detailed = [403, 404, 405, 422].contains(&self.code.as_u16());
        if !self.details.is_empty() || detailed {
            status["details"] = Value::Object(self.details.clone());
        }
        status["code"] = self.code.as_u16().into();
        status
    }
}
