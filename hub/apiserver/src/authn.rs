//! Who makes a request: a client certificate, a ServiceAccount's token, or nobody. Nobody is
//! refused: there are no anonymous requests but for health and version.

use std::collections::BTreeMap;

use http::{HeaderMap, header::AUTHORIZATION};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    rbac::Attributes,
    server::Inner,
    service::Caller,
    status::Status,
    user::{AUTHENTICATED, UserInfo},
};

const IMPERSONATE_USER: &str = "impersonate-user";
const IMPERSONATE_GROUP: &str = "impersonate-group";
const IMPERSONATE_UID: &str = "impersonate-uid";
const IMPERSONATE_EXTRA: &str = "impersonate-extra-";

/// The user of a request.
pub(crate) fn identify(
    server: &Inner,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<UserInfo, Status> {
    if let Caller::Known(user) = caller {
        return Ok((**user).clone());
    }
    let Caller::Connection(certified) = caller else { return Err(Status::unauthorized()) };
    if let Some(user) = certified {
        return Ok((**user).clone());
    }
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) =
        header.and_then(|value| value.split_once(' ')).ok_or_else(Status::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Status::unauthorized());
    }
    let reviewed = server.tokens.review(&server.store, token.trim(), &[]);
    reviewed.map(|(user, _)| user).map_err(|error| {
        tracing::debug!(%error, "a token was refused");
        Status::unauthorized()
    })
}

/// The user of a verified client certificate: its common name, with its organisations as groups.
pub(crate) fn of_certificate(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject.iter_organization().filter_map(|group| group.as_str().ok());
    let groups = organizations.chain([AUTHENTICATED]).map(str::to_owned).collect();
    Some(UserInfo { name, groups, ..UserInfo::default() })
}

/// The user on whose behalf a request is made, if its headers say so and its user may.
pub(crate) fn impersonate(
    server: &Inner,
    user: UserInfo,
    headers: &HeaderMap,
) -> Result<UserInfo, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let groups: Vec<String> = headers
        .get_all(IMPERSONATE_GROUP)
        .iter()
        .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
        .collect();
    let extra = extra_of(headers);
    let uid = text(IMPERSONATE_UID).unwrap_or_default();
    let Some(name) = text(IMPERSONATE_USER).filter(|name| !name.is_empty()) else {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(user);
        }
        return Err(Status::bad_request("impersonation needs the header Impersonate-User"));
    };
    let wanted = UserInfo { name: name.to_owned(), uid: uid.to_owned(), groups, extra };
    check(server, &user, &wanted)?;
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let mut as_user = wanted;
    if let Some((namespace, account)) = account
        && as_user.groups.is_empty()
    {
        as_user.groups = UserInfo::service_account(namespace, account).groups;
    }
    if !as_user.in_group(AUTHENTICATED) {
        as_user.groups.push(AUTHENTICATED.to_owned());
    }
    Ok(as_user)
}

fn extra_of(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let key = name.as_str().strip_prefix(IMPERSONATE_EXTRA);
        if let (Some(key), Ok(value)) = (key, value.to_str()) {
            let key = key.replace("%2f", "/").replace("%2F", "/");
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    extra
}

/// Each part of the wanted identity needs the right to impersonate it.
fn check(server: &Inner, user: &UserInfo, wanted: &UserInfo) -> Result<(), Status> {
    let UserInfo { name, uid, groups, extra } = wanted;
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let what = Attributes { verb: "impersonate", group, resource, namespace, name, path: None };
        match server.authorizer.allows(server, user, &what) {
            true => Ok(()),
            false => Err(Status::forbidden(format!(
                "{resource} {name:?} is forbidden: User {:?} cannot impersonate resource \
                 {resource:?} in API group {group:?} at the cluster scope",
                user.name
            ))),
        }
    };
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => may("", "serviceaccounts", namespace, account)?,
        None => may("", "users", "", name)?,
    }
    for group in groups {
        may("", "groups", "", group)?;
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", "", uid)?;
    }
    for (key, values) in extra {
        for value in values {
            may("authentication.k8s.io", &format!("userextras/{key}"), "", value)?;
        }
    }
    Ok(())
}
