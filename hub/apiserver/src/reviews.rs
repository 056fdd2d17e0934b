//! Kinds whose creation is a question: who am I, may I, whose token is this; and `TokenRequest`.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    body::{self, Body},
    rbac::Attributes,
    registry::Review,
    respond,
    status::Status,
    tokens::{Ask, LIFE_SECONDS, Named},
    user::UserInfo,
    verbs::Call,
};

pub(crate) fn answer(
    call: &Call<'_>,
    review: Review,
    body: &[u8],
) -> Result<Response<Body>, Status> {
    let (mut value, _) = call.decode(body)?;
    let spec = value["spec"].clone();
    value["status"] = match review {
        Review::Token => review_token(call, &spec),
        Review::SelfSubject => json!({"userInfo": user_json(call.user)}),
        Review::SelfSubjectAccess => review_access(call, call.user, &spec),
        Review::SubjectAccess => review_access(call, &subject(&spec), &spec),
        Review::LocalSubjectAccess => {
            let namespace = spec["resourceAttributes"]["namespace"].as_str();
            if namespace != call.target.namespace.as_deref() {
                return Err(Status::bad_request(
                    "spec.resourceAttributes.namespace must be the namespace of the review",
                ));
            }
            review_access(call, &subject(&spec), &spec)
        }
        Review::SelfSubjectRules => review_rules(call, &spec),
    };
    Ok(respond::object(&call.resource, call.form, StatusCode::CREATED, value.to_string().into()))
}

/// `POST …/serviceaccounts/NAME/token`: a `TokenRequest`.
pub(crate) fn create_token(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Status> {
    let account = call.current()?;
    let (mut request, _) = body::decode(call.headers, body, "TokenRequest")?;
    let spec = &request["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let audiences = spec["audiences"].as_array().into_iter().flatten().map(text).collect();
    let ask = Ask {
        namespace: account.key.namespace.clone(),
        account: Named { name: account.key.name.clone(), uid: account.meta.uid.clone() },
        pod: bound_pod(call, &spec["boundObjectRef"])?,
        audiences,
        life_seconds: spec["expirationSeconds"].as_i64().unwrap_or(LIFE_SECONDS),
    };
    let (token, expires) =
        call.server.tokens.issue(ask).map_err(|error| Status::internal(error.to_string()))?;
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    request["metadata"]["name"] = account.key.name.clone().into();
    request["metadata"]["namespace"] = account.key.namespace.clone().into();
    request["metadata"]["creationTimestamp"] = crate::verbs::now().into();
    let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(respond::json_value(StatusCode::CREATED, &request))
}

fn bound_pod(call: &Call, reference: &Value) -> Result<Option<Named>, Status> {
    if reference.is_null() {
        return Ok(None);
    }
    if reference["kind"] != "Pod" {
        return Err(Status::bad_request("spec.boundObjectRef.kind: only Pod is supported"));
    }
    let name = reference["name"].as_str().unwrap_or_default();
    let key = crate::store::Key { kind: "pods".into(), ..call.key_of(name) };
    let about = crate::status::About { group: "", kind: "pods", name };
    let pod = call.server.store.get(&key).ok_or_else(|| Status::not_found(about))?;
    if reference["uid"].as_str().is_some_and(|uid| !uid.is_empty() && uid != pod.meta.uid) {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record ({})",
            reference["uid"].as_str().unwrap_or_default(),
            pod.meta.uid
        );
        return Err(Status::conflict(about, &why));
    }
    let account = pod.value()["spec"]["serviceAccountName"].clone();
    let own = call.target.name.as_deref().unwrap_or_default();
    if account.as_str().unwrap_or("default") != own {
        return Err(Status::bad_request(format!(
            "pod {name:?} does not run as ServiceAccount {own:?}"
        )));
    }
    Ok(Some(Named { name: name.to_owned(), uid: pod.meta.uid.clone() }))
}

fn review_token(call: &Call, spec: &Value) -> Value {
    let token = spec["token"].as_str().unwrap_or_default();
    let audiences: Vec<String> = strings(&spec["audiences"]);
    match call.server.tokens.review(&call.server.store, token, &audiences) {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user_json(&user), "audiences": audiences})
        }
        Err(error) => json!({"authenticated": false, "error": error.to_string()}),
    }
}

fn review_access(call: &Call, user: &UserInfo, spec: &Value) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let verb = text(if resource.is_object() { &resource["verb"] } else { &other["verb"] });
    let path = text(&other["path"]);
    let full = match text(&resource["subresource"]).as_str() {
        "" => text(&resource["resource"]),
        subresource => format!("{}/{subresource}", text(&resource["resource"])),
    };
    let what = Attributes {
        verb: &verb,
        group: &text(&resource["group"]),
        resource: &full,
        namespace: &text(&resource["namespace"]),
        name: &text(&resource["name"]),
        path: (!resource.is_object()).then_some(&path),
    };
    match call.server.authorizer.allows(call.server, user, &what) {
        true => json!({"allowed": true}),
        false => json!({"allowed": false}),
    }
}

fn review_rules(call: &Call, spec: &Value) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let mut rules = call.server.authorizer.policy(call.server).1.rules_for(call.user, namespace);
    if call.user.in_group(crate::user::MASTERS) {
        let all = || vec!["*".to_owned()];
        rules.push(crate::rbac::Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Default::default()
        });
        rules.push(crate::rbac::Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Default::default()
        });
    }
    let (paths, resources): (Vec<_>, Vec<_>) =
        rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn subject(spec: &Value) -> UserInfo {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    UserInfo {
        name: text(&spec["user"]),
        uid: text(&spec["uid"]),
        groups: strings(&spec["groups"]),
        ..UserInfo::default()
    }
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| Some(item.as_str()?.to_owned())).collect()
}

fn user_json(user: &UserInfo) -> Value {
    let mut json = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        json["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        json["extra"] = json!(user.extra);
    }
    json
}
