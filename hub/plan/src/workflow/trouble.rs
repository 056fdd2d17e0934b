//! Why did a try of a pipeline fail? Only the pods of its Job know: a container's exit code and its
//! last words.

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus},
    jiff::Timestamp,
};

use super::engine::IMAGE_NOT_RUNNABLE;

/// How many of a container's last lines are told: what failed is said at the end, and a condition
/// is read in one glance. The log has the rest.
const LINES_MAX: usize = 5;
/// How many characters of them: an event's note, which holds them too, ends at 1024 bytes.
const CHARS_MAX: usize = 400;
/// Reasons to wait that are no trouble, or whose trouble is the end before.
const WAITS: [&str; 3] = ["PodInitializing", "ContainerCreating", "CrashLoopBackOff"];

/// What went wrong with a Job so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How many tries failed; 0 where none could begin.
    pub tries: i32,
    /// The last failure: the container, how it ended, and its last words.
    pub cause: String,
}

impl Trouble {
    /// Reads it from the pods of one Job; `None` when nothing has failed.
    pub fn of(pods: &[Pod]) -> Option<Self> {
        let statuses = || pods.iter().filter_map(|pod| pod.status.as_ref());
        let tries = statuses().flat_map(containers).map(failures).sum();
        let last = statuses().filter_map(last_failure).max_by_key(|(at, _)| *at);
        let cause = last.map(|(_, cause)| cause).or_else(|| statuses().find_map(cannot_begin))?;
        Some(Self { tries, cause })
    }

    /// What is said while tries go on.
    pub fn so_far(&self) -> String {
        match self.tries {
            0 => self.cause.clone(),
            tries => format!("try {tries} failed: {}", self.cause),
        }
    }

    /// What is said when there will be no other try.
    pub fn in_the_end(&self) -> String {
        match self.tries {
            0 | 1 => self.cause.clone(),
            tries => format!("tried {tries} times: {}", self.cause),
        }
    }
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let first = status.init_container_statuses.iter().flatten();
    first.chain(status.container_statuses.iter().flatten())
}

/// A container of a pipeline starts again only because it failed.
fn failures(container: &ContainerStatus) -> i32 {
    let now = container.state.as_ref();
    let is_down = now.is_some_and(|state| {
        let backs_off = |reason: &str| reason == "CrashLoopBackOff";
        failed(state).is_some()
            || state.waiting.as_ref().and_then(|w| w.reason.as_deref()).is_some_and(backs_off)
    });
    container.restart_count + i32::from(is_down)
}

fn failed(state: &ContainerState) -> Option<&ContainerStateTerminated> {
    state.terminated.as_ref().filter(|ended| ended.exit_code != 0)
}

fn last_failure(status: &PodStatus) -> Option<(Option<Timestamp>, String)> {
    let ends = containers(status).flat_map(|container| {
        let states = container.state.iter().chain(&container.last_state);
        states.filter_map(failed).map(|ended| (&container.name, ended))
    });
    let at = |ended: &ContainerStateTerminated| ended.finished_at.as_ref().map(|time| time.0);
    let (name, ended) = ends.max_by_key(|(_, ended)| at(ended))?;
    let own = (status.reason.as_deref(), status.message.as_deref());
    let cause = match own {
        (Some("DeadlineExceeded"), Some(why)) => format!("container {name} was ended: {why}"),
        _ => how_it_ended(name, ended),
    };
    Some((at(ended), cause))
}

fn how_it_ended(name: &str, ended: &ContainerStateTerminated) -> String {
    let mut text = match ended.reason.as_deref() {
        Some("OOMKilled") => format!("container {name} used more memory than its limit"),
        Some("StartError" | "ContainerCannotRun") => format!("container {name} could not start"),
        _ => format!("container {name} exited with {}", ended.exit_code),
    };
    let words = last_words(ended.message.as_deref().unwrap_or_default());
    if !words.is_empty() {
        text.push_str(": ");
        text.push_str(&words);
    }
    text
}

fn cannot_begin(status: &PodStatus) -> Option<String> {
    containers(status).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let (reason, message) = (waiting.reason.as_deref()?, waiting.message.as_deref()?);
        let own = reason == IMAGE_NOT_RUNNABLE || WAITS.contains(&reason);
        let name = &container.name;
        (!own).then(|| format!("container {name} cannot start: {reason}: {}", last_words(message)))
    })
}

/// The last lines, as one.
fn last_words(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES_MAX)..].join(" | ");
    match last.chars().count().checked_sub(CHARS_MAX) {
        None | Some(0) => last,
        Some(surplus) => format!("…{}", last.chars().skip(surplus).collect::<String>()),
    }
}

#[cfg(test)]
mod tests;
