//! Who is at the other end: read once from the certificate that the handshake has verified.

use muster_core::{DestinationName, Digest};
use muster_wire::identity::AGENT_URI_PREFIX;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// An agent whose certificate this hub's authority signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) agent: DestinationName,
    /// The digest of its SubjectPublicKeyInfo.
    pub(crate) key: Digest,
    /// When its certificate ends, in seconds since 1970.
    pub(crate) not_after: i64,
}

/// The certificate was signed by this authority, but is not one of an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate does not name an agent: {0}")]
pub(crate) struct NotAnAgent(String);

impl Peer {
    /// Reads a verified certificate: one common name, one URI, both the same agent, nothing else.
    pub(crate) fn from_certificate(der: &CertificateDer<'_>) -> Result<Self, NotAnAgent> {
        let refuse = |cause: &str| NotAnAgent(cause.to_owned());
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| NotAnAgent(format!("it cannot be read: {error}")))?;
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(refuse("it does not have exactly one common name"));
        };
        let name = name.as_str().map_err(|_| refuse("its common name is not text"))?;
        let alternatives = certificate
            .subject_alternative_name()
            .map_err(|_| refuse("its alternative names cannot be read"))?
            .ok_or_else(|| refuse("it has no alternative name"))?;
        let [GeneralName::URI(uri)] = alternatives.value.general_names[..] else {
            return Err(refuse("its alternative names are not exactly one URI"));
        };
        if uri.strip_prefix(AGENT_URI_PREFIX) != Some(name) {
            return Err(refuse("its common name and its URI differ"));
        }
        let agent = DestinationName::parse(name).map_err(|error| NotAnAgent(error.to_string()))?;
        Ok(Self {
            agent,
            key: Digest::of(certificate.tbs_certificate.subject_pki.raw),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}
