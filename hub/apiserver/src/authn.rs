//! Who makes a request: a client certificate, a ServiceAccount's token, or nobody. Nobody is
//! refused: there are no anonymous requests but for health and version.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    rbac::Attributes,
    request,
    server::Inner,
    service::Caller,
    status::Status,
    user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo, account_of},
};

const IMPERSONATE_USER: &str = "impersonate-user";
const IMPERSONATE_GROUP: &str = "impersonate-group";
const IMPERSONATE_UID: &str = "impersonate-uid";
const IMPERSONATE_EXTRA: &str = "impersonate-extra-";

/// The group of the rights over parts of identities other than names and groups.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Someone who has shown who he is, and until when what he showed is good.
pub(crate) struct Identity {
    pub user: UserInfo,
    pub until: Option<Timestamp>,
}

/// The user of a client certificate that the handshake has verified, and its end.
pub(crate) struct Certified {
    pub(crate) user: Arc<UserInfo>,
    until: Timestamp,
}

/// The user of a request.
pub(crate) fn identify(
    server: &Inner,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Identity, Status> {
    let peer = match caller {
        Caller::Known(user) => return Ok(Identity { user: (**user).clone(), until: None }),
        Caller::Connection(peer) => peer,
    };
    // The handshake has checked the certificate once; the connection may outlive it.
    if let Some(Certified { user, until }) = &peer.certified
        && Timestamp::now() < *until
    {
        return Ok(Identity { user: (**user).clone(), until: Some(*until) });
    }
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) =
        header.and_then(|value| value.split_once(' ')).ok_or_else(Status::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Status::unauthorized());
    }
    let reviewed = server.tokens.review(&server.store, token.trim(), &[]);
    let reviewed = reviewed.map_err(|error| {
        tracing::debug!(%error, "a token was refused");
        Status::unauthorized()
    })?;
    Ok(Identity { user: reviewed.user, until: Some(reviewed.until) })
}

/// The user of a verified client certificate: its common name, with its organisations as groups.
pub(crate) fn of_certificate(der: &[u8]) -> Option<Certified> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject.iter_organization().filter_map(|group| group.as_str().ok());
    let groups = organizations.chain([AUTHENTICATED]).map(str::to_owned).collect();
    let until = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    Some(Certified { user: Arc::new(UserInfo { name, groups, ..UserInfo::default() }), until })
}

/// The user on whose behalf a request is made, if its headers ask for one and its user may;
/// `None`: it is made on his own.
pub(crate) fn impersonate(
    server: &Inner,
    user: &UserInfo,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let groups = headers.get_all(IMPERSONATE_GROUP).iter();
    let groups = groups.map(|value| text(IMPERSONATE_GROUP, value)).collect::<Result<_, _>>()?;
    let one = |name| headers.get(name).map(|value| text(name, value)).transpose();
    let mut wanted = UserInfo {
        name: one(IMPERSONATE_USER)?.unwrap_or_default(),
        uid: one(IMPERSONATE_UID)?.unwrap_or_default(),
        groups,
        extra: extra_of(headers)?,
    };
    if wanted.name.is_empty() {
        return match wanted == UserInfo::default() {
            true => Ok(None),
            false => Err(Status::bad_request(
                "requested the impersonation of groups, a uid or extra without the user: send the \
                 header Impersonate-User, too",
            )),
        };
    }
    may_become(server, user, &wanted)?;
    if let Some((namespace, account)) = account_of(&wanted.name)
        && wanted.groups.is_empty()
    {
        wanted.groups = UserInfo::service_account(namespace, account).groups;
    }
    let everyone = if wanted.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if ![AUTHENTICATED, UNAUTHENTICATED].iter().any(|group| wanted.in_group(group)) {
        wanted.groups.push(everyone.to_owned());
    }
    Ok(Some(wanted))
}

/// A header that cannot be read must not be taken for one that is not there: the request would
/// be made with the rights of who sent it.
fn text(name: &str, value: &HeaderValue) -> Result<String, Status> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned)
        .map_err(|_| Status::bad_request(format!("the header {name} is not UTF-8")))
}

fn extra_of(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(IMPERSONATE_EXTRA) {
            let key = request::decode(key, false);
            extra.entry(key).or_default().push(text(name.as_str(), value)?);
        }
    }
    Ok(extra)
}

/// Each part of another's identity needs the right to impersonate it.
pub(crate) fn may_become(server: &Inner, user: &UserInfo, wanted: &UserInfo) -> Result<(), Status> {
    let UserInfo { name, uid, groups, extra } = wanted;
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let what = Attributes { verb: "impersonate", group, resource, namespace, name, path: None };
        match server.authorizer.allows(server, user, &what).is_some() {
            true => Ok(()),
            false => Err(may_not_become(user, &what)),
        }
    };
    match account_of(name) {
        Some((namespace, account)) => may("", "serviceaccounts", namespace, account)?,
        None => may("", "users", "", name)?,
    }
    for group in groups {
        may("", "groups", "", group)?;
    }
    if !uid.is_empty() {
        may(AUTHENTICATION, "uids", "", uid)?;
    }
    for (key, values) in extra {
        for value in values {
            may(AUTHENTICATION, &format!("userextras/{key}"), "", value)?;
        }
    }
    Ok(())
}

fn may_not_become(user: &UserInfo, what: &Attributes) -> Status {
    let Attributes { group, resource, namespace, name, .. } = what;
    let qualified = match *group {
        "" => (*resource).to_owned(),
        group => format!("{resource}.{group}"),
    };
    let scope = match *namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    Status::forbidden(format!(
        "{qualified} {name:?} is forbidden: User {:?} cannot impersonate resource {resource:?} in \
         API group {group:?} {scope}",
        user.name
    ))
}
