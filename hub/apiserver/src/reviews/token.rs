//! `TokenRequest`, which makes a token, and `TokenReview`, which asks whose one is.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::strings;
use crate::{
    body::{self, Body},
    field::FieldError,
    respond,
    status::{About, Status},
    store::{Key, Object},
    tokens::{Ask, BoundTo, ISSUER, LIFE_SECONDS, LIFE_SECONDS_MAX, LIFE_SECONDS_MIN, Named},
    verbs::{self, Call},
};

/// Kubernetes' own bound of what may be asked for; what is given is bounded further.
const ASKED_SECONDS_MAX: i64 = 1 << 32;

/// `POST …/serviceaccounts/NAME/token`: a `TokenRequest`.
pub(crate) fn create(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, Status> {
    let account = call.current()?;
    let (mut request, _) = body::decode(call.headers, body, "TokenRequest")?;
    let (name, namespace) = (account.key.name.as_str(), account.key.namespace.as_str());
    let asked = request["spec"]["expirationSeconds"].as_i64().unwrap_or(LIFE_SECONDS);
    check_life(asked)?;
    let life_seconds = asked.min(LIFE_SECONDS_MAX);
    let mut audiences = strings(&request["spec"]["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let ask = Ask {
        namespace: namespace.to_owned(),
        account: Named { name: name.to_owned(), uid: account.meta.uid.clone() },
        bound: bound(call, &request["spec"]["boundObjectRef"])?,
        audiences: audiences.clone(),
        life_seconds,
    };
    let issued = call.server.tokens.issue(ask);
    let (token, expires) = issued.map_err(|error| Status::internal(error.to_string()))?;
    let reference = request["spec"]["boundObjectRef"].take();
    request = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": name, "namespace": namespace, "creationTimestamp": verbs::now(),
        },
        "spec": {
            "audiences": audiences, "expirationSeconds": life_seconds,
            "boundObjectRef": reference,
        },
        "status": {
            "token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        },
    });
    let mut response = respond::json_value(StatusCode::CREATED, &request);
    if life_seconds < asked {
        let text =
            format!("requested expiration of {asked} seconds shortened to {life_seconds} seconds");
        respond::warn(&mut response, &[text]);
    }
    Ok(response)
}

fn check_life(seconds: i64) -> Result<(), Status> {
    let detail = match seconds {
        ..LIFE_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        ASKED_SECONDS_MAX.. => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid("spec.expirationSeconds", &seconds.into(), detail);
    let about = About { group: "authentication.k8s.io", kind: "TokenRequest", name: "" };
    Err(Status::invalid(about, &[error]))
}

/// What the token is to end with.
fn bound(call: &Call, reference: &Value) -> Result<Option<BoundTo>, Status> {
    if reference.is_null() {
        return Ok(None);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1" | "", "Pod") => {
            let pod = find(call, "pods", reference)?;
            check_account(call, &pod)?;
            Ok(Some(BoundTo::Pod(named(&pod))))
        }
        ("v1" | "", "Secret") => {
            Ok(Some(BoundTo::Secret(named(&*find(call, "secrets", reference)?))))
        }
        (version, kind) => Err(Status::bad_request(format!(
            "cannot bind token to object of type {version}, Kind={kind}: choose Pod or Secret"
        ))),
    }
}

fn find(call: &Call, kind: &str, reference: &Value) -> Result<std::sync::Arc<Object>, Status> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (name, uid) = (text("name"), text("uid"));
    let about = About { group: "", kind, name };
    let key = Key { kind: kind.into(), ..call.key_of(name) };
    let object = call.server.store.get(&key).ok_or_else(|| Status::not_found(about))?;
    if !uid.is_empty() && uid != object.meta.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        );
        return Err(Status::conflict(about, &why));
    }
    Ok(object)
}

fn named(object: &Object) -> Named {
    Named { name: object.key.name.clone(), uid: object.meta.uid.clone() }
}

/// A token of one account that speaks of another's pod would be a lie.
fn check_account(call: &Call, pod: &Object) -> Result<(), Status> {
    let own = call.target.name.as_deref().unwrap_or_default();
    let value = pod.value();
    let account = value["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    if account != own {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {own:?} to pod running with different \
             serviceaccount name."
        )));
    }
    Ok(())
}

/// The status of a `TokenReview`.
pub(super) fn review(call: &Call, spec: &Value) -> Result<Value, Status> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = strings(&spec["audiences"]);
    Ok(match call.server.tokens.review(&call.server.store, token, &audiences) {
        Ok(reviewed) => json!({
            "authenticated": true, "user": reviewed.user.to_json(),
            "audiences": reviewed.audiences,
        }),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}
