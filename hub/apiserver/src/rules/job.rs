//! Jobs: defaults (`pkg/apis/batch/v1/defaults.go`), the selector that ties pods to their Job
//! (`pkg/registry/batch/job/strategy.go`), and what of a Job may change.

use serde_json::{Value, json};

use super::{pod, template, unchanged};
use crate::field::FieldError;

pub(super) fn default(job: &mut Value) {
    let Some(spec) = job.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let missing = |spec: &Value, field: &str| spec.get(field).is_none_or(Value::is_null);
    if missing(spec, "completions") && missing(spec, "parallelism") {
        spec["completions"] = 1.into();
    }
    let defaults = [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ];
    for (field, value) in defaults {
        if missing(spec, field) {
            spec[field] = value;
        }
    }
    pod::default_spec(&mut spec["template"]["spec"]);
}

/// Labels the pods of a new Job with its uid and name, and selects them by it.
pub(super) fn tie_pods(job: &mut Value) {
    let name = job["metadata"]["name"].clone();
    let uid = job["metadata"]["uid"].clone();
    let Some(spec) = job.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if spec["manualSelector"] == true {
        return;
    }
    let labels = [
        ("batch.kubernetes.io/controller-uid", uid.clone()),
        ("batch.kubernetes.io/job-name", name.clone()),
        ("controller-uid", uid.clone()),
        ("job-name", name),
    ];
    for (label, value) in labels {
        spec["template"]["metadata"]["labels"][label] = value;
    }
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
}

pub(super) fn validate(job: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &job["spec"];
    let mut errors = Vec::new();
    if spec["template"]["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required("spec.template.spec.containers", ""));
    }
    let policy = &spec["template"]["spec"]["restartPolicy"];
    let path = "spec.template.spec.restartPolicy";
    if policy == "Always" {
        let detail = "valid values: \"OnFailure\", \"Never\"";
        errors.push(FieldError::required(path, detail));
    } else if policy.as_str().is_some_and(|it| !["", "OnFailure", "Never"].contains(&it)) {
        errors.push(FieldError::not_supported(path, policy, &["OnFailure", "Never"]));
    }
    let counts = ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds"];
    for field in counts.into_iter().chain(["ttlSecondsAfterFinished"]) {
        if spec[field].as_i64().is_some_and(|count| count < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(format!("spec.{field}"), &spec[field], detail));
        }
    }
    let Some(old) = old else {
        errors.extend(template::validate(&spec["template"]["spec"], "spec.template.spec"));
        return errors;
    };
    let fixed = [
        ("spec.completions", &spec["completions"], &old["spec"]["completions"]),
        ("spec.selector", &spec["selector"], &old["spec"]["selector"]),
        ("spec.template", &spec["template"], &old["spec"]["template"]),
    ];
    errors.extend(fixed.into_iter().filter_map(|(field, new, old)| unchanged(field, new, old)));
    errors
}
