//! Kinds whose creation is a question: who am I, may I, whose token is this.

mod token;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    body::Body,
    field::FieldError,
    rbac::{Attributes, Rule},
    registry::Review,
    respond,
    status::{About, Status},
    user::{MASTERS, UserInfo},
    verbs::Call,
};
pub(crate) use token::create as create_token;

pub(crate) fn answer(
    call: &Call<'_>,
    review: Review,
    body: &[u8],
) -> Result<Response<Body>, Status> {
    let (mut value, _) = call.decode(body)?;
    let spec = value["spec"].clone();
    value["status"] = match review {
        Review::Token => token::review(call, &spec)?,
        Review::SelfSubject => json!({"userInfo": call.user.to_json()}),
        Review::SelfSubjectAccess => {
            check_question(call, &spec, false)?;
            review_access(call, call.user, &spec)
        }
        Review::SubjectAccess => {
            check_question(call, &spec, true)?;
            review_access(call, &subject(&spec), &spec)
        }
        Review::LocalSubjectAccess => {
            check_question(call, &spec, true)?;
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

/// One thing is asked, about one user.
fn check_question(call: &Call, spec: &Value, of_other: bool) -> Result<(), Status> {
    let given = |field: &str| spec[field].is_object();
    let mut errors = Vec::new();
    match (given("resourceAttributes"), given("nonResourceAttributes")) {
        (true, true) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            let field = "spec.nonResourceAttributes";
            errors.push(FieldError::invalid(field, &spec["nonResourceAttributes"], detail));
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be \
                          specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", &Value::Null, detail));
        }
        _ => {}
    }
    let user = subject(spec);
    if of_other && user.name.is_empty() && user.groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &"".into(), detail));
    }
    let kind = &call.resource.kind;
    match errors.is_empty() {
        true => Ok(()),
        false => {
            let about = About { group: &call.resource.group, kind, name: "" };
            Err(Status::invalid(about, &errors))
        }
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
        Some(reason) if reason.is_empty() => json!({"allowed": true}),
        Some(reason) => json!({"allowed": true, "reason": &*reason}),
        None => json!({"allowed": false}),
    }
}

fn review_rules(call: &Call, spec: &Value) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let mut rules = call.server.authorizer.policy(call.server).1.rules_for(call.user, namespace);
    if call.user.in_group(MASTERS) {
        rules.extend(Rule::everything());
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
