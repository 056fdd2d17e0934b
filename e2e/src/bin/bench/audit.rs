//! What the audit log says that requests cost: who wrote how often, of what kind.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use serde_json::Value;

/// The ServiceAccounts of the hub's controllers begin so.
const CONTROLLERS: &str = "system:serviceaccount:kratix-platform-system:muster-";
/// The one that is no controller: it runs Jobs, and its records are Jobs' statuses and Pods.
const RUNNER: &str = "runner";

/// Requests to the API within some time, without those that were refused.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// By who asked, verb and kind.
    counts: BTreeMap<(String, String, String), usize>,
    /// Events that did not fit into the log.
    pub(crate) lost: usize,
}

impl Calls {
    /// Reads the log in `dir`: what was asked since this moment.
    pub(crate) fn read(dir: &Path, since: &str) -> anyhow::Result<Self> {
        let mut files: Vec<_> = fs::read_dir(dir)?
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let rest = name.strip_prefix("audit.log")?;
                let age: u32 = rest.strip_prefix('.').map_or(Some(0), |age| age.parse().ok())?;
                Some((age, name))
            })
            .collect();
        files.sort();
        let mut calls = Self::default();
        for (_, name) in files {
            let text = fs::read_to_string(dir.join(name)).context("the audit log")?;
            for line in text.lines() {
                // The last line may be on its way.
                let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
                if event["requestReceivedTimestamp"].as_str().is_some_and(|at| at >= since) {
                    calls.take(&event);
                }
            }
        }
        Ok(calls)
    }

    fn take(&mut self, event: &Value) {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let lost = event.pointer("/annotations/audit.muster.dev~1events-lost-before");
        let lost = lost.and_then(Value::as_str).and_then(|lost| lost.parse::<usize>().ok());
        self.lost += lost.unwrap_or(0);
        let code = event["responseStatus"]["code"].as_u64().unwrap_or(500);
        if event["stage"] != "ResponseComplete" || code >= 300 {
            return;
        }
        let who = text("/user/username");
        let who = who.strip_prefix(CONTROLLERS).unwrap_or(match who {
            who if who.starts_with("system:serviceaccount:") => "pods",
            who if who.starts_with("system:") => "the API",
            _ => "users",
        });
        let mut kind = text("/objectRef/resource").to_owned();
        if let Some(part) = event.pointer("/objectRef/subresource").and_then(Value::as_str) {
            kind = format!("{kind}/{part}");
        }
        let key = (who.to_owned(), text("/verb").to_owned(), kind);
        *self.counts.entry(key).or_default() += 1;
    }

    /// How many writes controllers made; Events and what the runner records apart.
    pub(crate) fn writes(&self) -> usize {
        self.sum(|who, kind| is_controller(who) && kind != "events")
    }

    /// How many writes the runner made: Jobs' statuses, Pods, tokens.
    pub(crate) fn records(&self) -> usize {
        self.sum(|who, kind| who == RUNNER && kind != "events")
    }

    /// How many Events were written.
    pub(crate) fn events(&self) -> usize {
        self.sum(|_, kind| kind == "events")
    }

    /// How many reads the controllers and the runner made.
    pub(crate) fn reads(&self) -> usize {
        let own = |who: &str| is_controller(who) || who == RUNNER;
        let reads = |verb: &str| matches!(verb, "get" | "list");
        let counted = self.counts.iter().filter(|((who, verb, _), _)| own(who) && reads(verb));
        counted.map(|(_, count)| count).sum()
    }

    fn sum(&self, counts: impl Fn(&str, &str) -> bool) -> usize {
        let wanted = self
            .counts
            .iter()
            .filter(|((who, verb, kind), _)| is_write(verb) && counts(who, kind))
            .map(|(_, count)| count);
        wanted.sum()
    }

    /// The calls for each of `requests`, one line for each caller, verb and kind.
    pub(crate) fn table(&self, requests: usize) -> String {
        let each = |count: usize| count as f64 / requests as f64;
        let lines = self.counts.iter().filter(|(_, count)| each(**count) >= 0.05);
        lines
            .map(|((who, verb, kind), count)| {
                format!("  {who:10} {verb:8} {kind:28} {:6.2}\n", each(*count))
            })
            .collect()
    }
}

fn is_controller(who: &str) -> bool {
    !matches!(who, RUNNER | "pods" | "the API" | "users")
}

fn is_write(verb: &str) -> bool {
    matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection")
}
