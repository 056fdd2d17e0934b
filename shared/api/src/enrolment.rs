//! The objects by which an agent is let in: the token's Secret and the door's ConfigMap.
//!
//! A token's text is `muster.<secret's name after "enrolment-">.<randomness>`. The Secret holds its
//! digest, never the text.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use muster_core::{DestinationName, Digest};

use crate::{SYSTEM_NAMESPACE, labels};

/// The ConfigMap, in the system namespace, in which the hub publishes its agents' door.
pub const DOOR: &str = "muster-agents-door";
/// In [`DOOR`]: the HOST:PORT that agents dial.
pub const DOOR_ADDRESS: &str = "address";
/// In [`DOOR`]: the certificate authority, PEM.
pub const DOOR_CA: &str = "ca.crt";
/// In [`DOOR`]: `sha256:` and the digest of the authority's SubjectPublicKeyInfo.
pub const DOOR_CA_PIN: &str = "ca-pin";

/// The type of a token's Secret.
pub const TOKEN_TYPE: &str = "fleet.muster.dev/enrolment-token";
/// In a token's Secret: the digest of the token's text.
pub const TOKEN_DIGEST: &str = "digest";
/// In a token's Secret: the labels of the destination, as a JSON object.
pub const TOKEN_LABELS: &str = "labels";
/// In a token's Secret: until when it may be used (RFC 3339).
pub const TOKEN_EXPIRES: &str = "expires";
/// In a token's Secret: the digest of the public key that used it first; absent before.
pub const TOKEN_KEY: &str = "key";

const NAME_PREFIX: &str = "enrolment-";
const TEXT_PREFIX: &str = "muster.";

/// The text of a token for `agent`.
pub fn token(agent: &DestinationName, suffix: &str, randomness: &str) -> String {
    format!("{TEXT_PREFIX}{agent}-{suffix}.{randomness}")
}

/// The name of the Secret that a token's text points to; `None` if it is no token.
pub fn secret_name(token: &str) -> Option<String> {
    let (middle, _) = token.trim().strip_prefix(TEXT_PREFIX)?.rsplit_once('.')?;
    Some(format!("{NAME_PREFIX}{middle}"))
}

/// The Secret of a token.
pub fn secret(
    agent: &DestinationName,
    suffix: &str,
    digest: Digest,
    destination_labels: &BTreeMap<String, String>,
    expires: Timestamp,
) -> Secret {
    let labels_json = serde_json::json!(destination_labels).to_string();
    let data = [
        (TOKEN_DIGEST, digest.to_string()),
        (TOKEN_LABELS, labels_json),
        (TOKEN_EXPIRES, expires.to_string()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(format!("{NAME_PREFIX}{agent}-{suffix}")),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            labels: Some([(labels::AGENT.to_owned(), agent.to_string())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(TOKEN_TYPE.to_owned()),
        data: Some(data.map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_points_to_its_secret() {
        let agent = DestinationName::parse("eu.vm-1").unwrap();
        let text = token(&agent, "abcde", "r4nd0m");
        assert_eq!(text, "muster.eu.vm-1-abcde.r4nd0m");
        let expires = Timestamp::UNIX_EPOCH;
        let secret = secret(&agent, "abcde", Digest::of(b""), &BTreeMap::new(), expires);
        assert_eq!(secret_name(&text), secret.metadata.name);
        assert_eq!(secret_name("muster.nodot"), None);
        assert_eq!(secret_name("other.a.b"), None);
    }
}
