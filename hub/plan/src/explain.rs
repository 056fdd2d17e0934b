//! `muster explain`: where does an object stand, why here, why not there, and what to do?

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_api::{
    Destination, Work, WorkPlacement,
    conditions::{self, kind},
    labels,
};
use serde_json::Value;

use crate::{
    children::{self, Child, Phase},
    schedule::{GroupSchedule, owns, schedule},
    site::{Link, Site, Sites, sites},
};

/// How many destinations are named before the rest is counted.
const NAMED_MAX: usize = 10;

/// What is asked about, and all that the answer is made of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The request, Promise, or any object with conditions.
    pub object: &'a Value,
    /// Its Works, or the one that it is.
    pub works: &'a [Work],
    /// The placements of those Works; those on a Destination, or the one that it is.
    pub placements: &'a [WorkPlacement],
    /// All destinations.
    pub destinations: &'a [Destination],
}

/// A few lines, the most important first.
pub fn explain(subject: &Subject<'_>) -> Vec<String> {
    let sites = sites(subject.destinations);
    let mut lines = vec![standing(subject.object)];
    if let Some("Destination" | "Agent" | "WorkPlacement") = subject.object["kind"].as_str() {
        lines.extend(held(subject.placements));
    }
    for work in subject.works {
        let own: Vec<_> = subject.placements.iter().filter(|p| owns(work, p)).collect();
        // Loads are not known here: of what is placed already they decide nothing.
        let plan = schedule(work, &sites, &|_| 0, &own);
        for group in &plan.groups {
            lines.extend(place(work, group, &own, &sites));
        }
    }
    lines.extend(children::recorded(&subject.object["status"]).iter().map(child));
    lines.extend(subject.works.is_empty().then(|| no_works(subject.object)).flatten());
    lines.extend(advice(subject, &sites));
    lines
}

/// What stays on a destination that is given up, one line for each placement.
pub fn left_behind(placements: &[WorkPlacement]) -> Vec<String> {
    let line = |placement: &WorkPlacement| {
        let spec = &placement.spec;
        let applied = placement.status.as_ref().and_then(|s| s.applied_digest.as_ref());
        let what = match (applied, spec.workloads.len()) {
            (None, _) => "nothing was reported as applied".to_owned(),
            (Some(_), 0) => "its files".to_owned(),
            (Some(_), 1) => spec.workloads[0].filepath.clone(),
            (Some(_), n) => format!("{} and {} more files", spec.workloads[0].filepath, n - 1),
        };
        format!("{} of promise {}: {what}", whose(placement), spec.promise_name)
    };
    placements.iter().map(line).collect()
}

/// What is on a destination, the worst first.
fn held(placements: &[WorkPlacement]) -> Vec<String> {
    let mut order: Vec<_> = placements.iter().collect();
    let phase = |p: &WorkPlacement| p.status.as_ref().and_then(|status| status.phase.clone());
    order.sort_by_key(|p| (phase(p).as_deref() == Some("Applied"), p.metadata.name.clone()));
    let mut lines: Vec<_> = order
        .iter()
        .take(NAMED_MAX)
        .map(|p| {
            let (spec, name) = (&p.spec, p.metadata.name.as_deref().unwrap_or_default());
            let (whose, target) = (whose(p), &spec.target_destination_name);
            format!("{name}, {whose} of promise {}, on {target}: {}", spec.promise_name, says(p))
        })
        .collect();
    if order.len() > NAMED_MAX {
        lines.push(format!("And {} more placements.", order.len() - NAMED_MAX));
    }
    lines
}

/// How a request stands that was made for this object.
fn child(child: &Child) -> String {
    let why = match child.phase {
        Phase::Ready => String::new(),
        _ => format!(": {}", child.message),
    };
    let stands = match child.phase {
        Phase::Ready => "ready",
        Phase::Waiting => "waits",
        Phase::Pending => "not made yet",
        Phase::Removing => "being removed",
        Phase::Failed => "failed",
        Phase::Refused => "cannot be made",
    };
    format!(
        "{}: {stands}{why} (put out by pipeline {}; more: muster explain {} {} -n {}).",
        child.title(),
        child.pipeline,
        child.kind.to_lowercase(),
        child.name,
        child.namespace
    )
}

/// Why there are no Works; `None` for what never has any.
fn no_works(object: &Value) -> Option<String> {
    let completed = condition(object, kind::CONFIGURE_WORKFLOW_COMPLETED);
    let text = match (object["kind"].as_str()?, completed) {
        ("Destination" | "Agent" | "WorkPlacement" | "Work", _) => return None,
        ("Promise", Some(it)) if it.status == "True" => {
            "It has no dependencies: only what is requested of it is placed."
        }
        (_, Some(it)) if it.status == "True" => {
            "Nothing is placed: its pipelines put no files out."
        }
        _ => "Nothing is placed: no pipeline has put files out yet.",
    };
    Some(text.to_owned())
}

pub(crate) fn whose(placement: &WorkPlacement) -> String {
    let spec = &placement.spec;
    match (&spec.resource_namespace, &spec.resource_name) {
        (Some(namespace), Some(name)) => format!("request {namespace}/{name}"),
        (None, Some(name)) => format!("request {name}"),
        (_, None) => "dependencies".to_owned(),
    }
}

/// The object and its verdict in one line.
fn standing(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let name = match text("/metadata/namespace") {
        "" => text("/metadata/name").to_owned(),
        namespace => format!("{namespace}/{}", text("/metadata/name")),
    };
    let subject = format!("{} {name}", text("/kind"));
    if !text("/metadata/deletionTimestamp").is_empty() {
        let waits = condition(object, kind::WORKS_SUCCEEDED)
            .or_else(|| condition(object, kind::RECONCILED))
            .map(|c| c.message)
            .unwrap_or_default();
        return format!("{subject} is being deleted. {waits}").trim_end().to_owned();
    }
    let Some(verdict) = condition(object, kind::RECONCILED)
        .or_else(|| condition(object, kind::AVAILABLE))
        .or_else(|| condition(object, kind::READY))
        .or_else(|| condition(object, kind::CONNECTED))
    else {
        return format!("{subject} has not been looked at yet.");
    };
    let health = condition(object, kind::HEALTHY);
    let health = health.map(|c| format!(" Health: {} ({}).", c.reason, c.message));
    let health = health.unwrap_or_default();
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let seen = object.pointer("/status/observedGeneration").and_then(Value::as_i64);
    let old = match (generation, seen) {
        (Some(generation), Some(seen)) if seen < generation => " (of an older version of it)",
        _ => "",
    };
    let running = condition(object, kind::CONFIGURE_WORKFLOW_COMPLETED)
        .filter(|completed| completed.reason == "PipelinesInProgress");
    if let (Some(running), "WorkflowPending") = (running, verdict.reason.as_str()) {
        return format!("{subject} waits{old}: {}.{health}", running.message);
    }
    let well = match (text("/kind"), verdict.type_.as_str()) {
        (_, kind::CONNECTED) => "is connected",
        ("Destination", _) => "is ready",
        _ => "is done",
    };
    match verdict.status.as_str() {
        "True" => format!("{subject} {well}{old}.{health}"),
        "False" if verdict.type_ == kind::CONNECTED => {
            format!("{subject} is not connected: {}.", verdict.message)
        }
        "False" => {
            format!("{subject} failed{old}: {} ({}).{health}", verdict.message, verdict.reason)
        }
        _ => format!("{subject} waits{old}: {} ({}).{health}", verdict.message, verdict.reason),
    }
}

/// Where one group is, why there, and why not elsewhere.
fn place(work: &Work, group: &GroupSchedule, own: &[&WorkPlacement], sites: &Sites) -> Vec<String> {
    let what = match (work.spec.workload_groups.len(), group.directory.as_str()) {
        (1, _) => work.metadata.name.clone().unwrap_or_default(),
        (_, directory) => {
            format!("{} {directory}", work.metadata.name.as_deref().unwrap_or_default())
        }
    };
    let mut lines = Vec::new();
    if let Some(waiting) = &group.waiting {
        lines.push(format!("{what}: {}.", waiting.message()));
    }
    for name in group.chosen.iter().take(NAMED_MAX) {
        let placement = own.iter().find(|p| {
            p.spec.id == group.id
                && p.spec.target_destination_name == *name
                && p.metadata.deletion_timestamp.is_none()
        });
        let stands = placement.map_or("a placement is being made".to_owned(), |p| says(p));
        let offline = sites.get(name).map(offline).unwrap_or_default();
        let said = placement.and_then(|p| p.metadata.annotations.as_ref());
        let said = said.and_then(|all| all.get(labels::CHOSEN_BECAUSE));
        let why = if group.misplaced.contains(name) {
            format!("placed earlier; {} no longer matches", group.selector)
        } else if let Some(said) = said {
            format!("matches {}; when it was placed, {said}", group.selector)
        } else {
            format!("matches {}", group.selector)
        };
        let leaves = if group.moving.contains(name) { "; it is asked to move" } else { "" };
        lines.push(format!("{what} is on {name}{offline}: {stands}. Why here: {why}{leaves}."));
    }
    if group.chosen.len() > NAMED_MAX {
        lines.push(format!("{what}: and on {} more.", group.chosen.len() - NAMED_MAX));
    }
    lines.extend(not_on(group));
    lines
}

/// Where a group is not, and why.
pub(crate) fn not_on(group: &GroupSchedule) -> Vec<String> {
    let mut lines = Vec::new();
    let mut reasons: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, why) in &group.passed_over {
        reasons.entry(why.to_string()).or_default().insert(name);
    }
    for (why, names) in reasons.iter().take(NAMED_MAX) {
        let few: Vec<_> = names.iter().take(NAMED_MAX).copied().collect();
        let more = match names.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        lines.push(format!("Not on {}{more}: {why}.", few.join(", ")));
    }
    lines
}

/// What a placement's destination says.
pub(crate) fn says(placement: &WorkPlacement) -> String {
    let Some(status) = &placement.status else { return "nothing reported yet".to_owned() };
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let applied = conditions::find(&status.conditions, kind::APPLIED);
    let message = applied.map(|c| c.message.as_str()).unwrap_or_default();
    let health = status.health.as_deref().unwrap_or("Unknown");
    let why = status.health_message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default();
    match phase {
        "Applied" => format!("applied, {health}{why}"),
        _ => format!("{phase}: {message}"),
    }
}

fn offline(site: &Site) -> String {
    match site.link {
        Link::Connected => String::new(),
        Link::Offline { .. } if site.state_store => " (its state store is not ready)".to_owned(),
        Link::Offline { since: Some(since) } => format!(" (offline since {since})"),
        Link::Offline { since: None } => " (not connected yet)".to_owned(),
    }
}

/// What to do next; nothing when all is well.
fn advice(subject: &Subject<'_>, sites: &Sites) -> Vec<String> {
    let mut todo = BTreeSet::new();
    for placement in subject.placements {
        let target = placement.spec.target_destination_name.as_str();
        let site = sites.get(target).filter(|site| site.link != Link::Connected);
        if site.is_some_and(|site| site.state_store) {
            todo.insert(format!(
                "To do: make the state store of {target} ready; what it lacks: kubectl describe \
                 destination {target}"
            ));
        } else if site.is_some() {
            todo.insert(format!(
                "To do: start the agent on {target} (muster-agent run), or give it up with: \
                 muster agents remove {target} --abandon"
            ));
        }
        let phase = placement.status.as_ref().and_then(|s| s.phase.as_deref());
        if let Some("Failed" | "Refused") = phase {
            let name = placement.metadata.name.as_deref().unwrap_or_default();
            let namespace = placement.metadata.namespace.as_deref().unwrap_or_default();
            todo.insert(format!(
                "To do: correct what {target} says, in the request or on the host; details: \
                 kubectl describe workplacement {name} -n {namespace}"
            ));
        }
    }
    let failed = condition(subject.object, kind::CONFIGURE_WORKFLOW_COMPLETED)
        .is_some_and(|c| c.status == "False" && c.reason.contains("Fail"));
    if failed {
        let text = |path: &str| {
            subject.object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        todo.insert(format!(
            "To do: read the pipeline's log: muster logs {} {}",
            text("/kind").to_lowercase(),
            text("/metadata/name")
        ));
    }
    todo.into_iter().take(NAMED_MAX).collect()
}

fn condition(object: &Value, kind: &str) -> Option<Condition> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let found = all.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Condition {
        type_: kind.to_owned(),
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        observed_generation: None,
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            jiff::Timestamp::UNIX_EPOCH,
        ),
    })
}

#[cfg(test)]
mod tests;
