//! A new certificate before the old one ends.

use std::time::{Duration, SystemTime};

use muster_wire::v1::{RenewRequest, link_client::LinkClient};
use rand::Rng as _;
use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;

use crate::{Identity, IdentityError};

/// A renewal that failed is tried again after this long.
pub(crate) const RETRY: Duration = Duration::from_secs(600);

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("the hub did not renew the certificate: {0}")]
    Hub(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// How long until the certificate should be renewed: when a random 20 to 25 % of its life is left,
/// so that a fleet that joined in one hour does not renew in one hour.
pub(crate) fn due_in(certificate: &CertificateDer<'_>) -> Duration {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return Duration::ZERO;
    };
    let validity = parsed.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let life = (until - from).max(0) as f64;
    let due = until as f64 - life * rand::rng().random_range(0.20..0.25);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
    Duration::from_secs_f64((due - now).max(0.0))
}

/// Asks for a new certificate of the same key, and keeps it.
pub(crate) async fn renew(channel: Channel, identity: &Identity) -> Result<Identity, RenewError> {
    let request = RenewRequest { signing_request: identity.key().signing_request()? };
    let answer = LinkClient::new(channel).renew(request).await;
    let answer = answer.map_err(|status| RenewError::Hub(status.message().to_owned()))?;
    let credentials = answer.into_inner().credentials;
    let credentials = credentials.ok_or_else(|| RenewError::Hub("an empty answer".to_owned()))?;
    let authorities = credentials.hub_authorities.into_iter().map(CertificateDer::from).collect();
    Ok(identity.renewed(CertificateDer::from(credentials.certificate), authorities)?)
}
