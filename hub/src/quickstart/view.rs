//! The live view: one line for each agent, Promise and request, in the API's own words.

use std::{
    fs,
    io::IsTerminal as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::{
    args::ClientArgs,
    commands::cluster::{Cluster, is_not_found},
};

/// Between two looks at the API: smooth to the eye, nothing to the hub.
const LOOK: Duration = Duration::from_millis(200);

/// Something whose fate is shown.
pub(super) struct Subject {
    api_version: String,
    kind: String,
    name: String,
    namespace: String,
}

/// The lines on the terminal; plain lines, one for each change, where there is none.
pub(super) struct View {
    cluster: Cluster,
    bars: MultiProgress,
    rows: Vec<Row>,
}

struct Row {
    subject: Subject,
    bar: ProgressBar,
    said: String,
    done: bool,
}

/// Where an object stands.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    done: bool,
    text: String,
}

impl Subject {
    pub(super) fn agent(name: &str) -> Self {
        Self {
            api_version: "fleet.muster.dev/v1alpha1".to_owned(),
            kind: "Agent".to_owned(),
            name: name.to_owned(),
            namespace: String::new(),
        }
    }

    /// The one object of a file.
    pub(super) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)?;
        let object: Value = serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is not YAML", path.display()))?;
        let of = |path: &str| {
            object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Ok(Self {
            api_version: of("/apiVersion"),
            kind: of("/kind"),
            name: of("/metadata/name"),
            namespace: of("/metadata/namespace"),
        })
    }

    fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

impl View {
    pub(super) async fn new(client: &ClientArgs) -> anyhow::Result<Self> {
        let cluster = Cluster::connect(client, None).await?;
        Ok(Self { cluster, bars: MultiProgress::new(), rows: Vec::new() })
    }

    /// Shows one more object.
    pub(super) fn add(&mut self, subject: Subject) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        // Cannot fail: the template is a constant, and its only keys are known.
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix:28} {wide_msg}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏✔"));
        }
        bar.set_prefix(subject.title());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.rows.push(Row { subject, bar, said: String::new(), done: false });
    }

    /// Shows what the API says until everything is as it was asked to be.
    pub(super) async fn watch_until_done(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while !self.look().await? {
            if Instant::now() > deadline {
                let late: Vec<_> =
                    self.rows.iter().filter(|row| !row.done).map(|r| r.subject.title()).collect();
                bail!("still waiting for {}: muster explain says why", late.join(", "));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn look(&mut self) -> anyhow::Result<bool> {
        for row in &mut self.rows {
            let standing = standing(&self.cluster, &row.subject).await?;
            if standing.text != row.said {
                row.bar.set_message(standing.text.clone());
                if !std::io::stderr().is_terminal() {
                    println!("{}: {}", row.subject.title(), standing.text);
                }
                row.said = standing.text;
            }
            if standing.done && !row.done {
                row.bar.finish();
            }
            row.done |= standing.done;
        }
        let all = self.rows.iter().all(|row| row.done);
        if !all {
            // A request's kind appears with its Promise.
            self.cluster.refresh().await?;
        }
        Ok(all)
    }
}

async fn standing(cluster: &Cluster, subject: &Subject) -> anyhow::Result<Standing> {
    let waiting = |text: &str| Standing { done: false, text: text.to_owned() };
    let Some(path) =
        cluster.path_of(&subject.api_version, &subject.kind, &subject.namespace, &subject.name)
    else {
        return Ok(waiting("its kind is not served yet"));
    };
    match cluster.get(&path).await {
        Ok(object) => Ok(read(&subject.kind, &object)),
        Err(error) if is_not_found(&error) => Ok(waiting("not there yet")),
        Err(error) => Err(error),
    }
}

/// What the object's status says, in its own words.
fn read(kind: &str, object: &Value) -> Standing {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    match kind {
        "Agent" => {
            let done = holds(object, "Connected");
            let what = format!("connected, applies with {}", text("/status/appliers"));
            Standing { done, text: if done { what } else { "joining".to_owned() } }
        }
        "Promise" => {
            let done = holds(object, "Available");
            Standing { done, text: condition_text(object, &["Available"]) }
        }
        _ => {
            let done = holds(object, "Reconciled");
            if !done {
                let order = ["Reconciled", "ConfigureWorkflowCompleted", "WorksSucceeded"];
                return Standing { done, text: condition_text(object, &order) };
            }
            let place = text("/status/placements/destination");
            let health = condition(object, "Healthy");
            let word = |field: &str| health.and_then(|c| c[field].as_str()).unwrap_or_default();
            let text = format!("applied on {place}; {}: {}", word("reason"), word("message"));
            Standing { done, text }
        }
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

/// Whether the condition holds for the present generation.
fn holds(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| {
        let seen = condition["observedGeneration"].as_i64();
        let current = object.pointer("/metadata/generation").and_then(Value::as_i64);
        condition["status"] == "True" && (seen.is_none() || seen >= current)
    })
}

fn condition_text(object: &Value, order: &[&str]) -> String {
    let found = order.iter().find_map(|kind| condition(object, kind));
    let message = found.and_then(|condition| condition["message"].as_str());
    message.filter(|message| !message.is_empty()).unwrap_or("accepted").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_done_when_it_is_applied_in_its_present_form() {
        let mut object = json!({
            "metadata": {"generation": 2},
            "status": {
                "placements": {"destination": "vm"},
                "conditions": [
                    {"type": "Reconciled", "status": "True", "observedGeneration": 1},
                    {"type": "Healthy", "status": "True", "reason": "Healthy", "message": "well"},
                ],
            },
        });
        assert!(!read("WebService", &object).done);
        object["metadata"]["generation"] = 1.into();
        let text = "applied on vm; Healthy: well".to_owned();
        assert_eq!(read("WebService", &object), Standing { done: true, text });
    }

    #[test]
    fn what_the_api_says_is_what_is_shown() {
        let object = json!({"status": {"conditions": [
            {"type": "Available", "status": "False", "message": "Cannot fulfil resource requests"}]}});
        let text = "Cannot fulfil resource requests".to_owned();
        assert_eq!(read("Promise", &object), Standing { done: false, text });
    }
}
