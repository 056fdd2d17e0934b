//! A pod's status as a kubelet writes it, built step by step and published by one task.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodEnd {
    Succeeded,
    /// With the reason and message of its status; without a reason its own containers failed, and
    /// the message says which, and how.
    Failed {
        reason: Option<String>,
        message: Option<String>,
    },
}

/// A pod before any container runs.
pub(crate) fn pending(pod: &Pod, now: Timestamp) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let init = spec.init_containers.unwrap_or_default();
    let has_init = !init.is_empty();
    let waiting = |containers: &[Container], reason: &str| {
        containers.iter().map(|container| waiting_status(container, reason)).collect::<Vec<_>>()
    };
    let mut status = PodStatus {
        phase: Some("Pending".to_owned()),
        start_time: Some(Time(now)),
        host_ip: Some("127.0.0.1".to_owned()),
        host_ips: Some(vec![HostIP { ip: "127.0.0.1".to_owned() }]),
        pod_ip: Some("127.0.0.1".to_owned()),
        pod_ips: Some(vec![PodIP { ip: "127.0.0.1".to_owned() }]),
        qos_class: Some("Burstable".to_owned()),
        init_container_statuses: has_init.then(|| waiting(&init, "PodInitializing")),
        container_statuses: Some(waiting(
            &spec.containers,
            if has_init { "PodInitializing" } else { "ContainerCreating" },
        )),
        ..PodStatus::default()
    };
    for (kind, value, reason) in [
        ("Initialized", !has_init, Some("ContainersNotInitialized")),
        ("Ready", false, Some("ContainersNotReady")),
        ("ContainersReady", false, Some("ContainersNotReady")),
        ("PodScheduled", true, None),
    ] {
        set_condition(&mut status, kind, value, reason.filter(|_| !value), now);
    }
    status
}

fn waiting_status(container: &Container, reason: &str) -> ContainerStatus {
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, None)),
        started: Some(false),
        ..ContainerStatus::default()
    }
}

/// A container that does not run (yet).
pub(crate) fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

/// A container that runs.
pub(crate) fn running(now: Timestamp) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning { started_at: Some(Time(now)) }),
        ..ContainerState::default()
    }
}

/// A container that has ended.
pub(crate) fn terminated(
    code: i32,
    reason: &str,
    message: Option<String>,
    (started, finished): (Timestamp, Timestamp),
) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: code,
            reason: Some(reason.to_owned()),
            message,
            started_at: Some(Time(started)),
            finished_at: Some(Time(finished)),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// How a container failed, in a line: the last of what it printed is most often the cause.
pub(crate) fn words(container: &str, code: i32, said: Option<&str>) -> String {
    let text = format!("container {container} exited with {code}");
    match said.and_then(|said| said.lines().rfind(|line| !line.trim().is_empty())) {
        Some(line) => format!("{text}: {}", line.trim()),
        None => text,
    }
}

/// Sets a container's state, keeping its last end as `lastState` when it starts again.
pub(crate) fn set_state(status: &mut PodStatus, container: &str, state: ContainerState) {
    let all = status
        .init_container_statuses
        .iter_mut()
        .flatten()
        .chain(status.container_statuses.iter_mut().flatten());
    for entry in all.filter(|entry| entry.name == container) {
        let before = entry.state.take();
        if before.as_ref().is_some_and(|state| state.terminated.is_some()) {
            entry.last_state = before;
        }
        if state.running.is_some() && entry.last_state.is_some() {
            entry.restart_count += 1;
        }
        entry.started = Some(state.running.is_some());
        let ended_well = state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
        entry.ready = state.running.is_some() || ended_well;
        entry.state = Some(state.clone());
    }
}

/// The phase and conditions of a pod whose init containers are done.
pub(crate) fn initialized(status: &mut PodStatus, now: Timestamp) {
    set_condition(status, "Initialized", true, None, now);
    status.phase = Some("Running".to_owned());
}

/// The phase, reason and conditions of a pod that has ended.
pub(crate) fn ended(status: &mut PodStatus, end: &PodEnd, now: Timestamp) {
    let reason = match end {
        PodEnd::Succeeded => {
            status.phase = Some("Succeeded".to_owned());
            set_condition(status, "Initialized", true, Some("PodCompleted"), now);
            "PodCompleted"
        }
        PodEnd::Failed { reason, message } => {
            status.phase = Some("Failed".to_owned());
            status.reason = reason.clone();
            // What containers say stands in their own statuses.
            if reason.is_some() && message.is_some() {
                status.message = message.clone();
            }
            "PodFailed"
        }
    };
    for entry in status.container_statuses.iter_mut().flatten() {
        entry.ready = false;
    }
    set_condition(status, "Ready", false, Some(reason), now);
    set_condition(status, "ContainersReady", false, Some(reason), now);
}

/// Sets a condition; its transition time changes only with its value.
pub(crate) fn set_condition(
    status: &mut PodStatus,
    kind: &str,
    value: bool,
    reason: Option<&str>,
    now: Timestamp,
) {
    let value = if value { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let unchanged = conditions.iter().find(|c| c.type_ == kind && c.status == value);
    let since = unchanged.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(now));
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(PodCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.map(str::to_owned),
        last_transition_time: Some(since),
        ..PodCondition::default()
    });
}
