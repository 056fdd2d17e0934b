//! The `Script` document: how a host that has no API is told what to hold.
//!
//! ```yaml
//! apiVersion: fleet.muster.dev/v1alpha1
//! kind: Script
//! metadata: { name: web }
//! spec:
//!   apply: { command: [sh, start.sh], timeout: 1m }     # must be idempotent
//!   remove: { command: [sh, stop.sh] }
//!   health: { command: [sh, health.sh], period: 5s, timeout: 2s }
//!   drift: { command: [sh, is-as-applied.sh] }
//!   env: { PORT: "8080" }
//! ```
//!
//! Commands are argument lists, never text for a shell.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

/// The API version of scripts.
pub const API_VERSION: &str = "fleet.muster.dev/v1alpha1";
/// The kind of scripts.
pub const KIND: &str = "Script";

/// Longest time that one command may be given: an hour holds up one placement, nothing else.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Shortest time between two looks: a process each second for each script is what a host bears.
const PERIOD_MIN: Duration = Duration::from_secs(1);
const APPLY_TIMEOUT: Duration = Duration::from_secs(300);
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// One script: its name and its spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Unique within a placement.
    pub name: String,
    /// What it does.
    pub spec: Spec,
}

/// `spec` of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Makes it so; run again after a failure, so it must be idempotent.
    pub apply: Command,
    /// Undoes it; absent: there is nothing to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Command>,
    /// Exits 0 when all is well; otherwise `apply` is run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Look>,
    /// Exits 0 when all is as applied; otherwise `apply` is run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Look>,
    /// Environment of every command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// A command that changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments.
    pub command: Vec<String>,
    /// After which it is killed; 5 minutes if absent.
    #[serde(default = "apply_timeout", with = "period")]
    pub timeout: Duration,
}

/// A command that looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Between two looks; 10 seconds if absent.
    #[serde(default = "look_period", with = "period")]
    pub period: Duration,
    /// After which it is killed and counts as failed; 10 seconds if absent.
    #[serde(default = "look_timeout", with = "period")]
    pub timeout: Duration,
}

impl Script {
    /// Reads a document whose apiVersion and kind are a script's; the error names the field.
    pub fn parse(document: &Value) -> Result<Self, String> {
        let fields = document.as_object().ok_or("it is not an object")?;
        let known = ["apiVersion", "kind", "metadata", "spec"];
        if let Some(field) = fields.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("unknown field {field:?}"));
        }
        let name = document.pointer("/metadata/name").and_then(Value::as_str);
        let name = name.filter(|name| !name.is_empty()).ok_or("metadata.name is missing")?;
        let spec = fields.get("spec").ok_or("spec is missing")?;
        let spec: Spec =
            serde_json::from_value(spec.clone()).map_err(|error| format!("spec: {error}"))?;
        spec.check()?;
        Ok(Self { name: name.to_owned(), spec })
    }
}

impl Spec {
    fn check(&self) -> Result<(), String> {
        let looks = [("health", &self.health), ("drift", &self.drift)];
        let looks = looks.into_iter().filter_map(|(field, look)| Some((field, look.as_ref()?)));
        let commands = [("apply", Some(&self.apply)), ("remove", self.remove.as_ref())];
        let commands = commands.into_iter().filter_map(|(f, c)| Some((f, &c?.command, c?.timeout)));
        let all = commands.chain(looks.clone().map(|(f, look)| (f, &look.command, look.timeout)));
        for (field, command, timeout) in all {
            if command.first().is_none_or(String::is_empty) {
                return Err(format!("spec.{field}.command is empty: name a program"));
            }
            if command.iter().any(|argument| argument.contains('\0')) {
                return Err(format!("spec.{field}.command holds a NUL character"));
            }
            if timeout.is_zero() || timeout > TIMEOUT_MAX {
                return Err(format!("spec.{field}.timeout must be more than 0 and at most 1h"));
            }
        }
        for (field, look) in looks {
            if look.period < PERIOD_MIN {
                return Err(format!("spec.{field}.period must be at least 1s"));
            }
        }
        let bad = |key: &String| key.is_empty() || key.contains(['=', '\0']);
        match self.env.iter().find(|(key, value)| bad(key) || value.contains('\0')) {
            Some((key, _)) => Err(format!("spec.env[{key:?}] cannot be an environment variable")),
            None => Ok(()),
        }
    }
}

fn apply_timeout() -> Duration {
    APPLY_TIMEOUT
}

fn look_timeout() -> Duration {
    LOOK_TIMEOUT
}

fn look_period() -> Duration {
    LOOK_PERIOD
}

/// Durations as people write them: `90s`, `1m30s`, or a number of seconds.
mod period {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{}ms", value.as_millis()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let refuse = || D::Error::custom("a duration is written like 30s, 5m or 1h30m");
        match Value::deserialize(d)? {
            Value::Number(seconds) => {
                let seconds = seconds.as_f64().ok_or_else(refuse)?;
                Duration::try_from_secs_f64(seconds).map_err(|_| refuse())
            }
            Value::String(text) => {
                let span: jiff::SignedDuration = text.parse().map_err(|_| refuse())?;
                Duration::try_from(span).map_err(|_| refuse())
            }
            _ => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(spec: Value) -> Result<Script, String> {
        let kind = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "web"}});
        let mut document = kind;
        document["spec"] = spec;
        Script::parse(&document)
    }

    #[test]
    fn reads_durations_as_people_write_them() {
        let script = parse(json!({
            "apply": {"command": ["true"], "timeout": "1m30s"},
            "health": {"command": ["true"], "period": 5},
        }))
        .unwrap();
        assert_eq!(script.spec.apply.timeout, Duration::from_secs(90));
        assert_eq!(script.spec.health.as_ref().unwrap().period, Duration::from_secs(5));
        let stored = serde_json::to_value(&script).unwrap();
        assert_eq!(serde_json::from_value::<Script>(stored).unwrap(), script);
    }

    #[test]
    fn refusals_name_the_field() {
        let apply = json!({"command": ["true"]});
        let cases = [
            (json!({"apply": apply, "shell": "rm"}), "shell"),
            (json!({"apply": {"command": "rm -rf /"}}), "sequence"),
            (json!({"apply": {"command": []}}), "spec.apply.command"),
            (json!({"apply": {"command": ["true"], "timeout": "2h"}}), "spec.apply.timeout"),
            (json!({"apply": {"command": ["true"], "timeout": "soon"}}), "duration"),
            (json!({"apply": apply, "health": {"command": ["a"], "period": "1ms"}}), "period"),
            (json!({"apply": apply, "env": {"A=B": "c"}}), "A=B"),
            (json!({"remove": apply}), "apply"),
        ];
        for (spec, named) in cases {
            let error = parse(spec.clone()).unwrap_err();
            assert!(error.contains(named), "{spec}: {error}");
        }
    }
}
