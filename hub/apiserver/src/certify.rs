//! Client certificates for people: `POST /client-certificates`.
//!
//! Whoever asks for a certificate could as well act with it, so it takes what impersonation takes:
//! the right to impersonate that user and each of those groups. Membership of `system:masters`,
//! which no role can take away again, is given by its members alone. The client makes the key and
//! sends a signing request, which proves that it has it; nothing else of the request counts. A
//! certificate cannot be called back: it lives for a day unless asked otherwise, and 90 at most.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    audit::Notes,
    authn,
    body::Body,
    pki, respond,
    server::Inner,
    status::Status,
    user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, UserInfo, account_of},
};

/// Where certificates are asked for.
pub const PATH: &str = "/client-certificates";

/// Lives of certificates, in seconds.
const LIFE_SECONDS: i64 = 24 * 3600;
const LIFE_SECONDS_MIN: i64 = 1;
const LIFE_SECONDS_MAX: i64 = 90 * 24 * 3600;

/// X.520's upper bound of a common name is 64 letters; ours only keeps certificates small.
const NAME_BYTES_MAX: usize = 253;
const GROUPS_MAX: usize = 64;

/// What is asked for.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRequest {
    /// The user's name.
    pub user: String,
    /// The groups besides `system:authenticated`.
    #[serde(default)]
    pub groups: Vec<String>,
    /// A certificate signing request in PEM, signed with the key that the certificate is for.
    pub signing_request: String,
    /// How long it is to live [default: a day].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_seconds: Option<i64>,
}

/// What is answered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedCertificate {
    /// The client certificate in PEM.
    pub certificate: String,
    /// The certificate of the authority that signs the server's own, in PEM.
    pub authority: String,
    /// When the client certificate ends (RFC 3339).
    pub expiration_timestamp: String,
}

pub(crate) fn answer(
    server: &Inner,
    asking: &UserInfo,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let request: CertificateRequest = serde_json::from_slice(&body)
        .map_err(|error| Status::bad_request(format!("the request for a certificate: {error}")))?;
    let life = checked_life(&request)?;
    check_names(&request)?;
    authorize(server, asking, &request)?;
    let key = pki::requested_key(&request.signing_request)
        .map_err(|error| Status::bad_request(format!("signingRequest: {error}")))?;
    let until = Timestamp::now() + life;
    let certificate = server
        .pki
        .certify(&request.user, &request.groups, until, &key)
        .map_err(|error| Status::internal(error.to_string()))?;
    let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let note = format!("user {:?}, groups {:?}, until {until}", request.user, request.groups);
    let issued = IssuedCertificate {
        certificate,
        authority: server.pki.ca_pem().to_owned(),
        expiration_timestamp: until,
    };
    let body = serde_json::to_vec(&issued).map_err(|error| Status::internal(error.to_string()))?;
    let mut response = respond::json_bytes(StatusCode::CREATED, body);
    response.extensions_mut().insert(Notes(vec![("audit.muster.dev/certificate-for", note)]));
    Ok(response)
}

fn checked_life(request: &CertificateRequest) -> Result<Duration, Status> {
    let seconds = request.expiration_seconds.unwrap_or(LIFE_SECONDS);
    if !(LIFE_SECONDS_MIN..=LIFE_SECONDS_MAX).contains(&seconds) {
        return Err(Status::bad_request(format!(
            "expirationSeconds: {seconds}: choose from {LIFE_SECONDS_MIN} to \
             {LIFE_SECONDS_MAX} (90 days)"
        )));
    }
    SignedDuration::from_secs(seconds)
        .try_into()
        .map_err(|_| Status::bad_request("expirationSeconds"))
}

fn check_names(request: &CertificateRequest) -> Result<(), Status> {
    let CertificateRequest { user, groups, .. } = request;
    let usable = |name: &String| {
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
    };
    if let Some(name) = [user].into_iter().chain(groups).find(|name| !usable(name)) {
        return Err(Status::bad_request(format!(
            "{name:?}: names of users and groups have 1 to {NAME_BYTES_MAX} bytes and no control \
             characters"
        )));
    }
    if groups.len() > GROUPS_MAX {
        return Err(Status::bad_request(format!("groups: at most {GROUPS_MAX}")));
    }
    if account_of(user).is_some() {
        return Err(Status::bad_request(format!(
            "{user:?} is a ServiceAccount: its token dies with it, a certificate would not; make \
             one with kubectl create token"
        )));
    }
    // Everyone with a certificate is in the one group, nobody with one in the other.
    let given = |group: &&String| [AUTHENTICATED, UNAUTHENTICATED].contains(&group.as_str());
    match groups.iter().find(given) {
        Some(group) => Err(Status::bad_request(format!("group {group:?} is not for certificates"))),
        None => Ok(()),
    }
}

fn authorize(
    server: &Inner,
    asking: &UserInfo,
    request: &CertificateRequest,
) -> Result<(), Status> {
    let CertificateRequest { user, groups, .. } = request;
    if groups.iter().any(|group| group == MASTERS) && !asking.in_group(MASTERS) {
        return Err(Status::forbidden(format!(
            "a certificate with the group {MASTERS:?} is given by members of it alone: User {:?} \
             is none",
            asking.name
        )));
    }
    let wanted = UserInfo { name: user.clone(), groups: groups.clone(), ..UserInfo::default() };
    authn::may_become(server, asking, &wanted)
}
