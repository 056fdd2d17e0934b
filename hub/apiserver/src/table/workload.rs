//! Columns of what runs: pods, jobs, cron jobs.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Column, age, age_column,
    builtin::{computed, labels, list, or_none, text, wide},
    path_column,
};

pub(super) fn pod() -> Vec<Column> {
    vec![
        computed("Ready", "string", |pod, _| {
            let statuses = list(&pod["status"]["containerStatuses"]);
            let ready = statuses.iter().filter(|s| s["ready"] == true).count();
            format!("{ready}/{}", list(&pod["spec"]["containers"]).len()).into()
        }),
        computed("Status", "string", |pod, _| pod_status(pod).into()),
        computed("Restarts", "string", restarts),
        age_column(),
        wide(computed("IP", "string", |pod, _| or_none(text(pod, &["status", "podIP"])))),
        wide(computed("Node", "string", |pod, _| or_none(text(pod, &["spec", "nodeName"])))),
        wide(computed("Nominated Node", "string", |pod, _| {
            or_none(text(pod, &["status", "nominatedNodeName"]))
        })),
        wide(computed("Readiness Gates", "string", |_, _| or_none(""))),
    ]
}

pub(super) fn job() -> Vec<Column> {
    let mut columns = vec![
        computed("Status", "string", |job, _| job_status(job).into()),
        computed("Completions", "string", |job, _| {
            let succeeded = job["status"]["succeeded"].as_i64().unwrap_or_default();
            match (job["spec"]["completions"].as_i64(), job["spec"]["parallelism"].as_i64()) {
                (Some(wanted), _) => format!("{succeeded}/{wanted}").into(),
                (None, Some(parallel)) if parallel > 1 => {
                    format!("{succeeded}/1 of {parallel}").into()
                }
                _ => format!("{succeeded}/1").into(),
            }
        }),
        computed("Duration", "string", |job, now| {
            let Ok(start) = text(job, &["status", "startTime"]).parse::<Timestamp>() else {
                return "".into();
            };
            let end = text(job, &["status", "completionTime"]).parse().unwrap_or(now);
            age::duration(end.as_second() - start.as_second()).into()
        }),
        age_column(),
    ];
    columns.extend(containers());
    columns.push(wide(computed("Selector", "string", |job, _| {
        labels(&job["spec"]["selector"]["matchLabels"])
    })));
    columns
}

pub(super) fn cron_job() -> Vec<Column> {
    vec![
        path_column("Schedule", "string", ".spec.schedule"),
        computed("Timezone", "string", |job, _| or_none(text(job, &["spec", "timeZone"]))),
        computed("Suspend", "boolean", |job, _| {
            let suspended = job["spec"]["suspend"] == true;
            if suspended { "True".into() } else { "False".into() }
        }),
        computed("Active", "integer", |job, _| list(&job["status"]["active"]).len().into()),
        computed("Last Schedule", "string", |job, now| {
            match text(job, &["status", "lastScheduleTime"]) {
                "" => "<none>".into(),
                time => age::since_text(time, now).into(),
            }
        }),
        age_column(),
    ]
}

/// Names and images of a Job's containers.
fn containers() -> [Column; 2] {
    fn joined(job: &Value, key: &str) -> Value {
        let containers = list(&job["spec"]["template"]["spec"]["containers"]);
        let texts: Vec<&str> = containers.iter().map(|c| text(c, &[key])).collect();
        texts.join(",").into()
    }
    [
        wide(computed("Containers", "string", |job, _| joined(job, "name"))),
        wide(computed("Images", "string", |job, _| joined(job, "image"))),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        list(&job["status"]["conditions"])
            .iter()
            .any(|c| c["type"] == kind && c["status"] == "True")
    };
    let deleting = job["metadata"].get("deletionTimestamp").is_some();
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if deleting => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn restarts(pod: &Value, now: Timestamp) -> Value {
    let statuses = list(&pod["status"]["containerStatuses"]);
    let count: i64 = statuses.iter().filter_map(|s| s["restartCount"].as_i64()).sum();
    let last = statuses
        .iter()
        .map(|s| text(s, &["lastState", "terminated", "finishedAt"]))
        .filter(|time| !time.is_empty())
        .max();
    match last {
        Some(time) if count > 0 => format!("{count} ({} ago)", age::since_text(time, now)).into(),
        _ => count.to_string().into(),
    }
}

/// The one word for how a pod is, as `kubectl get pods` shows it.
fn pod_status(pod: &Value) -> String {
    let status = &pod["status"];
    let phase = match text(status, &["reason"]) {
        "" => text(status, &["phase"]),
        reason => reason,
    };
    let mut word = init_status(pod).unwrap_or_else(|| {
        let mut word = phase.to_owned();
        let mut running = false;
        for container in list(&status["containerStatuses"]).iter().rev() {
            let state = &container["state"];
            let waiting = text(state, &["waiting", "reason"]);
            if !waiting.is_empty() {
                word = waiting.to_owned();
            } else if state["terminated"].is_object() {
                word = ended(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        // One container is done, another still works.
        if word == "Completed" && running { "Running".to_owned() } else { word }
    });
    if pod["metadata"].get("deletionTimestamp").is_some() {
        word = "Terminating".to_owned();
    }
    word
}

/// `Init:1/2`, `Init:Error` while init containers are not done.
fn init_status(pod: &Value) -> Option<String> {
    let statuses = list(&pod["status"]["initContainerStatuses"]);
    let total = list(&pod["spec"]["initContainers"]).len();
    for (at, container) in statuses.iter().enumerate() {
        let state = &container["state"];
        if state["terminated"].is_object() {
            match state["terminated"]["exitCode"].as_i64() {
                Some(0) => continue,
                _ => return Some(format!("Init:{}", ended(&state["terminated"]))),
            }
        }
        return Some(match text(state, &["waiting", "reason"]) {
            "" | "PodInitializing" => format!("Init:{at}/{total}"),
            reason => format!("Init:{reason}"),
        });
    }
    None
}

fn ended(state: &Value) -> String {
    match (text(state, &["reason"]), state["signal"].as_i64().filter(|signal| *signal != 0)) {
        ("", Some(signal)) => format!("Signal:{signal}"),
        ("", None) => format!("ExitCode:{}", state["exitCode"]),
        (reason, _) => reason.to_owned(),
    }
}
