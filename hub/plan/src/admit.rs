//! What may enter the API? The rules on Promises, Destinations and revisions, in Kratix's words.

/// Why something was refused: a Kubernetes `Status` in the making.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP code.
    pub code: u16,
    /// Kubernetes' word for it, such as `Invalid`, `Forbidden`.
    pub reason: &'static str,
    /// Object, field, cause and cure.
    pub message: String,
}

impl Refusal {
    /// The asker may not do this, whatever the object says.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { code: 403, reason: "Forbidden", message: message.into() }
    }

    /// The object is wrong in itself.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: 422, reason: "Invalid", message: message.into() }
    }

    /// The request is wrong in itself.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.into() }
    }

    /// What it speaks of does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: 404, reason: "NotFound", message: message.into() }
    }

    /// It cannot be answered now; asking again may help.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 503, reason: "ServiceUnavailable", message: message.into() }
    }
}
