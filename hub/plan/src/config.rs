//! The platform's configuration as its operator wrote it: the ConfigMap `kratix`, key `config`, in
//! Kratix's words.
//!
//! What has no meaning in this hub is accepted, because a platform brings its file unchanged, and
//! said to have no effect. What is wrong is refused by its field.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ResourceRequirements, SecurityContext};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    duration,
    options::{BindingStrategy, ContainerDefaults, Options},
    promise::Offer,
    unknown,
    workflow::read::INTERVAL_MIN,
};

/// The ConfigMap, in the system namespace.
pub const NAME: &str = "kratix";
/// Its key.
pub const KEY: &str = "config";

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
/// Kratix's key, and the name that its documentation gives it.
const STORE_INTERVAL: (&str, &str) =
    ("stateStoreReconciliationInterval", "workPlacementRewriteInterval");

/// What was configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// What decisions depend on.
    pub options: Options,
    /// What the hub logs.
    pub logging: Logging,
}

/// What the hub logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logging {
    /// Whether each line is a JSON object; as the hub was started where nothing is said.
    pub structured: Option<bool>,
    /// From which level on; as the hub was started where nothing is said.
    pub level: Option<Level>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Trace,
    /// What helps to find a fault of the hub's own.
    Debug,
    /// What happens.
    Info,
    /// What needs a look.
    Warn,
    /// What went wrong.
    Error,
}

impl Level {
    const ALL: [(&'static str, Self); 5] = [
        ("trace", Self::Trace),
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warn", Self::Warn),
        ("error", Self::Error),
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, level)| *level == self).map_or("info", |(name, _)| name)
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    workflows: WrittenWorkflows,
    number_of_jobs_to_keep: Option<i64>,
    reconciliation_interval: Option<String>,
    state_store_reconciliation_interval: Option<String>,
    work_placement_rewrite_interval: Option<String>,
    git: WrittenGit,
    controller_leader_election: Option<Value>,
    selective_cache: Option<bool>,
    resource_binding_version_strategy: Option<String>,
    telemetry: Option<Value>,
    logging: WrittenLogging,
    feature_flags: WrittenFlags,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenWorkflows {
    default_container_security_context: Option<SecurityContext>,
    default_image_pull_policy: Option<String>,
    default_container_resources: Option<ResourceRequirements>,
    job_options: WrittenJobOptions,
    reconcile_after_failure: Option<bool>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenJobOptions {
    default_backoff_limit: Option<i32>,
    #[serde(rename = "podTTLSecondsAfterFinished")]
    pod_ttl_seconds_after_finished: Option<i64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenGit {
    minimum_fetch_interval: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenLogging {
    structured: Option<bool>,
    level: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenFlags {
    dry_run: Option<bool>,
    promise_upgrade: Option<bool>,
}

/// Reads a configuration: what it says over `base`, and what of it has no effect; or all that is
/// wrong with it, each naming the field.
pub fn read(text: &str, base: &Options) -> Result<(Config, Vec<String>), Vec<String>> {
    let value = match text.trim() {
        "" => json!({}),
        text => serde_saphyr::from_str(text).map_err(|error| vec![error.to_string()])?,
    };
    let value = without_nulls(value);
    let written: Written =
        serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
    let mut wrong = Vec::new();
    let options = options(&written, base, &mut wrong);
    let level = written.logging.level.as_deref().filter(|level| !level.is_empty());
    let level = level.and_then(|name| {
        let found = Level::ALL.iter().find(|(known, _)| *known == name);
        if found.is_none() {
            wrong.push(format!(
                "logging.level: Unsupported value: {name:?}: it is trace, debug, info, warn or error"
            ));
        }
        found.map(|(_, level)| *level)
    });
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let logging = Logging { structured: written.logging.structured, level };
    let mut idle = without_effect(&written);
    let understood = serde_json::to_value(&written).unwrap_or_default();
    if let Some(path) = unknown::field(&value, &understood) {
        idle.push(format!("{}: nobody knows this option: it has no effect", &path[1..]));
    }
    Ok((Config { options, logging }, idle))
}

/// A key without a value says as little as no key.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Object(fields) => {
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        other => other,
    }
}

/// A Promise of one pipeline, by which the API says whether it would take the Jobs that a
/// configuration leads to.
pub fn sample() -> Option<Offer> {
    let spec = json!({ "workflows": { "promise": { "configure": [{
        "apiVersion": "platform.kratix.io/v1alpha1",
        "kind": "Pipeline",
        "metadata": { "name": "sample" },
        "spec": { "containers": [{ "name": "sample", "image": "sample" }] },
    }] } } });
    Offer::read(NAME, 0, &serde_json::from_value(spec).ok()?).ok()
}

fn options(written: &Written, base: &Options, wrong: &mut Vec<String>) -> Options {
    let workflows = &written.workflows;
    let job_options = &workflows.job_options;
    let mut options = base.clone();
    if let Some(kept) = written.number_of_jobs_to_keep {
        match usize::try_from(kept) {
            Ok(kept) if kept > 0 => options.jobs_kept = kept,
            _ => wrong.push(format!("numberOfJobsToKeep: Invalid value: {kept}: at least 1")),
        }
    }
    let mut time = |field: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty())?;
        let read = duration::parse(text);
        if read.is_none() {
            wrong.push(format!(
                "{field}: Invalid value: {text:?}: must be a valid duration, such as 10m or 1h30m"
            ));
        }
        read
    };
    let interval = time("reconciliationInterval", &written.reconciliation_interval);
    let store = time(STORE_INTERVAL.0, &written.state_store_reconciliation_interval)
        .or_else(|| time(STORE_INTERVAL.1, &written.work_placement_rewrite_interval));
    let fetch = time("git.minimumFetchInterval", &written.git.minimum_fetch_interval);
    if interval.is_some_and(|interval| interval < INTERVAL_MIN) {
        wrong.push("reconciliationInterval: Invalid value: must be at least 1m0s".to_owned());
    }
    options.interval = interval.unwrap_or(base.interval);
    if let Some(store) = store {
        options.store_interval = (store > Duration::ZERO).then_some(store);
    }
    options.fetch_interval = fetch.unwrap_or(base.fetch_interval);
    options.reconcile_after_failure =
        workflows.reconcile_after_failure.unwrap_or(base.reconcile_after_failure);
    options.backoff_limit = job_options.default_backoff_limit.unwrap_or(base.backoff_limit);
    if options.backoff_limit < 0 {
        let field = "workflows.jobOptions.defaultBackoffLimit";
        wrong.push(format!("{field}: Invalid value: {}: at least 0", options.backoff_limit));
    }
    if let Some(seconds) = job_options.pod_ttl_seconds_after_finished {
        match u64::try_from(seconds) {
            Ok(seconds) => options.pod_ttl = Some(Duration::from_secs(seconds)),
            Err(_) => wrong.push(format!(
                "workflows.jobOptions.podTTLSecondsAfterFinished: Invalid value: {seconds}: at \
                 least 0"
            )),
        }
    }
    options.containers = containers(workflows, &base.containers, wrong);
    match written.resource_binding_version_strategy.as_deref().unwrap_or_default() {
        "" => {}
        "floating" => options.binding = BindingStrategy::Floating,
        "pinned" => options.binding = BindingStrategy::Pinned,
        other => wrong.push(format!(
            "resourceBindingVersionStrategy: Unsupported value: {other:?}: it is floating or pinned"
        )),
    }
    options
}

fn containers(
    written: &WrittenWorkflows,
    base: &ContainerDefaults,
    wrong: &mut Vec<String>,
) -> ContainerDefaults {
    let policy = written.default_image_pull_policy.clone().filter(|policy| !policy.is_empty());
    if let Some(policy) = policy.as_ref().filter(|it| !PULL_POLICIES.contains(&it.as_str())) {
        wrong.push(format!(
            "workflows.defaultImagePullPolicy: Unsupported value: {policy:?}: it is Always, \
             IfNotPresent or Never"
        ));
    }
    ContainerDefaults {
        security: written
            .default_container_security_context
            .clone()
            .or_else(|| base.security.clone()),
        pull_policy: policy.or_else(|| base.pull_policy.clone()),
        resources: written.default_container_resources.clone().or_else(|| base.resources.clone()),
    }
}

/// What is known and has no meaning here.
fn without_effect(written: &Written) -> Vec<String> {
    let dry_run = written.feature_flags.dry_run == Some(true);
    [
        (
            "controllerLeaderElection",
            written.controller_leader_election.is_some(),
            "one hub holds its data directory, and no other can",
        ),
        ("selectiveCache", written.selective_cache.is_some(), "the hub keeps no cache of Secrets"),
        ("telemetry", written.telemetry.is_some(), "the hub sends no telemetry"),
        ("featureFlags.dryRun", dry_run, "there are no DryRuns yet"),
        (
            "featureFlags.promiseUpgrade",
            written.feature_flags.promise_upgrade.is_some(),
            "revisions and bindings are always on",
        ),
    ]
    .into_iter()
    .filter(|(_, said, _)| *said)
    .map(|(field, _, why)| format!("{field} has no effect: {why}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
workflows:
  defaultContainerSecurityContext: {runAsNonRoot: true, runAsUser: 1000}
  defaultImagePullPolicy: Always
  defaultContainerResources: {limits: {memory: 64Mi}}
  jobOptions: {defaultBackoffLimit: 4, podTTLSecondsAfterFinished: 90}
  reconcileAfterFailure: false
numberOfJobsToKeep: 3
reconciliationInterval: 2h
stateStoreReconciliationInterval: 0s
git: {minimumFetchInterval: 1m}
controllerLeaderElection: {leaseDuration: 15s}
selectiveCache: true
resourceBindingVersionStrategy: pinned
telemetry: {endpoint: "otel:4317"}
logging: {structured: true, level: debug}
featureFlags: {dryRun: true, promiseUpgrade: true}
"#;

    fn wrong(text: &str) -> String {
        read(text, &Options::default()).unwrap_err().join("\n")
    }

    #[test]
    fn every_option_of_kratix_is_read_or_said_to_have_no_effect() {
        let (config, idle) = read(WHOLE, &Options::default()).unwrap();
        let Config { options, logging } = config;
        assert_eq!(options.jobs_kept, 3);
        assert_eq!(options.interval, Duration::from_secs(7200));
        assert_eq!(options.store_interval, None);
        assert_eq!(options.fetch_interval, Duration::from_secs(60));
        assert_eq!(options.pod_ttl, Some(Duration::from_secs(90)));
        assert_eq!(options.backoff_limit, 4);
        assert!(!options.reconcile_after_failure);
        assert_eq!(options.binding, BindingStrategy::Pinned);
        assert_eq!(options.containers.pull_policy.as_deref(), Some("Always"));
        assert_eq!(options.containers.security.and_then(|it| it.run_as_user), Some(1000));
        assert!(options.containers.resources.is_some_and(|it| it.limits.is_some()));
        assert_eq!(logging, Logging { structured: Some(true), level: Some(Level::Debug) });
        assert_eq!(idle.len(), 5, "{idle:?}");
        assert!(idle.iter().all(|told| told.contains(" has no effect: ")), "{idle:?}");
    }

    #[test]
    fn nothing_said_leaves_what_holds() {
        for text in ["", "{}", "logging:\n", "workflows: {}\n"] {
            let read = read(text, &Options::default());
            assert_eq!(read, Ok((Config::default(), Vec::new())), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_field() {
        let all =
            wrong("reconciliationInterval: 5s\nnumberOfJobsToKeep: 0\nlogging: {level: loud}");
        for field in ["reconciliationInterval: ", "numberOfJobsToKeep: ", "logging.level: "] {
            assert!(all.contains(field), "{field} is not in {all}");
        }
        assert!(wrong("git: {minimumFetchInterval: soon}").contains("git.minimumFetchInterval"));
        assert!(wrong("resourceBindingVersionStrategy: sticky").contains("floating or pinned"));
        assert!(wrong("workflows: {defaultImagePullPolicy: Once}").contains("IfNotPresent"));
        assert!(wrong("numberOfJobsToKeep: many").contains("invalid type: string"));
        assert!(read("workflows: [", &Options::default()).is_err(), "it is not even YAML");
        let (_, idle) = read("numberOfJobsToKep: 3", &Options::default()).unwrap();
        assert!(idle[0].starts_with("numberOfJobsToKep: nobody knows this option"), "{idle:?}");
    }

    #[test]
    fn there_is_a_sample_to_try_a_configuration_with() {
        assert!(sample().is_some());
    }
}
