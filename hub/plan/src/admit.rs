//! What may enter the API? The rules on Promises, revisions, Destinations and state stores, in
//! Kratix's words.

mod places;
mod releases;
mod revisions;
mod stores;

use k8s_openapi::api::batch::v1::Job;
use muster_api::{Promise, Work, destination::DestinationSelector, promise::RequiredPromiseStatus};
use serde_json::Value;

pub use places::{InTheWay, Place, Places};
pub use releases::release;
pub use revisions::{revision_change, revision_deletion};
pub use stores::{bucket_store, complete_destination, destination, git_store, taken};

use crate::{
    options::Options,
    promise::{self, Offer},
    request, selectors,
    workflow::{Action, Scope, Subject, engine::Run, job::Turn, read},
};

/// Why something was refused: a Kubernetes `Status` in the making.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP code.
    pub code: u16,
    /// Kubernetes' word for it, such as `Invalid`, `Forbidden`.
    pub reason: &'static str,
    /// Object, field, cause and cure.
    pub message: String,
}

impl Refusal {
    /// The asker may not do this, whatever the object says.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { code: 403, reason: "Forbidden", message: message.into() }
    }

    /// The object is wrong in itself.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: 422, reason: "Invalid", message: message.into() }
    }

    /// The request is wrong in itself.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.into() }
    }

    /// What it speaks of does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: 404, reason: "NotFound", message: message.into() }
    }

    /// It cannot be answered now; asking again may help.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 503, reason: "ServiceUnavailable", message: message.into() }
    }
}

/// Kratix's prefix, by the name of its webhook.
fn denied(webhook: &str, cause: &str) -> Refusal {
    Refusal::forbidden(format!("admission webhook {webhook:?} denied the request: {cause}"))
}

const PROMISE_WEBHOOK: &str = "vpromise.kb.io";
/// Longest name of a Promise: it becomes a label value.
const PROMISE_NAME_LEN_MAX: usize = 63;
/// How often everything of a Promise runs again, where its author does not say so in the spec.
const INTERVAL_ANNOTATION: &str = "kratix.io/reconciliation-interval";

/// Whether a Promise may be created, or become this: all that is wrong with it at once. What only
/// the API can say (does it take the CRD, the Jobs?) is asked afterwards, of [`dry_runs`].
pub fn promise(new: &Promise, old: Option<&Promise>) -> Result<Offer, Refusal> {
    let name = new.metadata.name.as_deref().unwrap_or_default();
    let fixed = old.map(|old| fixed_changes(new, old)).unwrap_or_default();
    if !fixed.is_empty() {
        return Err(denied(PROMISE_WEBHOOK, &listed(name, &fixed)));
    }
    let mut wrong = Vec::new();
    if name.len() > PROMISE_NAME_LEN_MAX {
        wrong.push(format!(
            "metadata.name: Invalid value: {name:?}: must be no more than {PROMISE_NAME_LEN_MAX} \
             characters, because it becomes a label"
        ));
    }
    let offer = Offer::read(name, 0, &new.spec);
    if let Err(causes) = &offer {
        wrong.extend(causes.iter().cloned());
    }
    wrong.extend(promise::dependencies::check(&new.spec.dependencies));
    for (index, required) in new.spec.required_promises.iter().enumerate() {
        if required.name.is_empty() {
            wrong.push(format!("spec.requiredPromises[{index}].name: Required value"));
        }
        if required.name == name {
            wrong.push(format!(
                "spec.requiredPromises[{index}].name: Invalid value: {name:?}: a promise cannot \
                 require itself"
            ));
        }
    }
    // A selector of an earlier hub does not block what leaves it as it is.
    if old.is_none_or(|old| old.spec.destination_selectors != new.spec.destination_selectors) {
        wrong.extend(wrong_selectors("spec", &new.spec.destination_selectors));
    }
    wrong.extend(annotation_error(new, old));
    match offer {
        Ok(offer) if wrong.is_empty() => Ok(offer),
        _ => Err(denied(PROMISE_WEBHOOK, &told(name, &wrong))),
    }
}

/// Whether a Work may be created, or become this: whether its selectors can match.
pub fn work(new: &Work, old: Option<&Work>) -> Result<(), Refusal> {
    let groups = &new.spec.workload_groups;
    if old.is_some_and(|old| old.spec.workload_groups == *groups) {
        return Ok(());
    }
    let mut wrong = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let field = format!("spec.workloadGroups[{index}]");
        wrong.extend(wrong_selectors(&field, &group.destination_selectors));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => {
            let name = new.metadata.name.as_deref().unwrap_or_default();
            Err(Refusal::invalid(format!("Work {name:?} is invalid: {}", wrong.join("; "))))
        }
    }
}

fn wrong_selectors(field: &str, all: &[DestinationSelector]) -> Vec<String> {
    let faults = all.iter().enumerate().flat_map(|(index, selector)| {
        let told = move |fault: selectors::Fault| {
            format!("{field}.destinationSelectors[{index}].{}: {}", fault.field, fault.cause)
        };
        selectors::check(selector).into_iter().map(told)
    });
    faults.collect()
}

/// One cause speaks for itself; several are a list, as in Kratix.
fn told(name: &str, causes: &[String]) -> String {
    match causes {
        [cause] => cause.clone(),
        causes => listed(name, causes),
    }
}

fn listed(name: &str, causes: &[String]) -> String {
    let lines: Vec<_> = causes.iter().map(|cause| format!("* {cause}")).collect();
    format!("promises.platform.kratix.io {name:?} was not valid:\n{}", lines.join("\n"))
}

/// A refusal of a Promise by the API's own judgement of its CRD.
pub fn definition_refused(cause: &str) -> Refusal {
    Refusal { code: 422, reason: "Invalid", ..denied(PROMISE_WEBHOOK, cause) }
}

/// A refusal of a Promise by the API's own judgement of the Jobs that its pipelines would become;
/// each cause begins a line, as in Kratix.
pub fn jobs_refused(causes: &[String]) -> Refusal {
    denied(PROMISE_WEBHOOK, &causes.concat())
}

/// The Jobs that a Promise's pipelines will become, for an imagined object: the API says whether it
/// would take them.
pub fn dry_runs(offer: &Offer, options: &Options) -> Result<Vec<(String, Job)>, String> {
    let workflows = &offer.workflows;
    let nowhere = workflows.namespace.as_deref();
    let own = Subject::promise(&offer.promise, "00000000-0000-0000-0000-000000000000", nowhere);
    let request = Subject {
        scope: Scope::Resource,
        name: "webhook-dry-run".to_owned(),
        namespace: Some(own.job_namespace.clone()),
        ..own.clone()
    };
    let run = Run { hash: "0".repeat(32), number: 0 };
    let mut jobs = Vec::new();
    for (subject, scope) in [(&own, Scope::Promise), (&request, Scope::Resource)] {
        for action in [Action::Configure, Action::Delete] {
            let pipelines = workflows.of(scope, action);
            for (index, pipeline) in pipelines.iter().enumerate() {
                let turn =
                    Turn { subject, action, pipelines, run: &run, index, attempt: 1, options };
                let field = format!(
                    "\n{}.{} pipeline with name {} failed to generate Job definition: \n",
                    scope.as_str(),
                    action.as_str(),
                    pipeline.metadata.name
                );
                let job = turn.job().map_err(|error| format!("{field}{error}"))?;
                jobs.push((field, job));
            }
        }
    }
    Ok(jobs)
}

/// What a person should know about an accepted Promise.
pub fn promise_warnings(new: &Promise, requirements: &[RequiredPromiseStatus]) -> Vec<String> {
    let mut warnings = Vec::new();
    for state in requirements.iter().filter(|s| s.state != promise::status::REQUIREMENT_INSTALLED) {
        let missing = state.state.trim_start_matches("Requirement ");
        warnings.push(match state.version.as_str() {
            "" => format!("Required Promise {:?} {missing}", state.name),
            version => {
                format!("Required Promise {:?} at version {version:?} {missing}", state.name)
            }
        });
    }
    if !warnings.is_empty() {
        warnings
            .push("Promise will not be available until the above issue(s) is resolved".to_owned());
    }
    let workflows = new.spec.workflows.as_ref();
    if new.spec.api.is_none() && workflows.is_some_and(|written| written.resource.is_some()) {
        let why = "there are no requests to run them for, because there is no spec.api";
        warnings.push(format!("spec.workflows.resource: {why}"));
    }
    let written = [
        ("promise", workflows.and_then(|w| w.promise.as_ref())),
        ("resource", workflows.and_then(|w| w.resource.as_ref())),
    ];
    for (scope, pipelines) in written {
        if pipelines.is_some_and(|pipelines| pipelines.delete.len() > 1) {
            warnings.push(format!("spec.workflows.{scope}.delete: only the first pipeline is run"));
        }
    }
    warnings
}

/// Whether someone who is not one of the hub's controllers may change a status so.
pub fn status_change(
    scope: Scope,
    (kind, name): (&str, &str),
    (old, new): (&Value, &Value),
) -> Result<(), Refusal> {
    let Some(part) = request::touched(scope, &old["status"], &new["status"]) else {
        return Ok(());
    };
    let own = match scope {
        Scope::Promise => "only status.message",
        Scope::Resource => "keys and conditions of their own",
    };
    Err(Refusal::forbidden(format!(
        "{kind} {name:?}: {part} is the hub's and may not be changed: pipelines write {own}, in \
         /kratix/metadata/status.yaml"
    )))
}

/// A legacy bad value does not block an update that leaves it as it is.
fn annotation_error(new: &Promise, old: Option<&Promise>) -> Option<String> {
    let of = |promise: &Promise| {
        let annotations = promise.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(INTERVAL_ANNOTATION)).cloned()
    };
    let text = of(new)?;
    if old.and_then(of).as_ref() == Some(&text) {
        return None;
    }
    let cause = read::interval(&text).err()?;
    Some(format!("metadata.annotations[{INTERVAL_ANNOTATION}]: Invalid value: {text:?}: {cause}"))
}

/// What of an installed Promise may not change, and would.
fn fixed_changes(new: &Promise, old: &Promise) -> Vec<String> {
    let mut changes = match (&new.spec.api, &old.spec.api) {
        (None, Some(_)) => vec!["cannot remove API from existing promise".to_owned()],
        (Some(new), Some(old)) => promise::api::immutable_changes(new, old),
        (_, None) => Vec::new(),
    };
    let namespace = |promise: &Promise| {
        let config = promise.spec.workflows.as_ref().and_then(|written| written.config.as_ref());
        config.and_then(|config| config.pipeline_namespace.clone()).unwrap_or_default()
    };
    let (now, then) = (namespace(new), namespace(old));
    if now != then {
        changes.push(format!(
            "spec.workflows.config.pipelineNamespace: Invalid value: {now:?}: field is immutable: \
             what the pipelines made in {} would stay behind",
            if then.is_empty() {
                "the namespaces of their objects".to_owned()
            } else {
                format!("{then:?}")
            }
        ));
    }
    changes
}
