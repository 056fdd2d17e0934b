//! HealthRecords of a request beside what agents report: how is it, all in all?

use muster_api::{HealthRecord, health_record::HealthState};
use serde_json::{Value, json};

use crate::news::News;

/// Most records that a request's status shows; the worst come first.
const SHOWN_MAX: usize = 20;

/// `status.healthStatus`: what agents report, and what others recorded; the worst of all.
///
/// That the hub cannot say (what a state store feeds tells it nothing) counts only where nobody else
/// says anything.
pub fn status(reported: &Value, records: &[HealthRecord]) -> Value {
    if records.is_empty() {
        return reported.clone();
    }
    let held = |key: &str| reported[key].as_array().cloned().unwrap_or_default();
    let known = held("healthRecords").into_iter().filter(|it| it["state"] != "unknown");
    let mut all: Vec<(HealthState, Value)> = known.map(|it| (state(&it), it)).collect();
    all.extend(records.iter().map(|record| (record.data.state, shown(record))));
    all.sort_by_key(|(state, record)| (*state, source(record)));
    let worst = all.first().map_or(HealthState::Unknown, |(state, _)| *state);
    let shown: Vec<_> = all.into_iter().take(SHOWN_MAX).map(|(_, record)| record).collect();
    json!({ "state": worst.as_str(), "healthRecords": shown })
}

/// What is new for people when a request's status changes.
pub fn news(old: &Value, new: &Value) -> Option<News> {
    let state = |status: &Value| status["healthStatus"]["state"].as_str().map(str::to_owned);
    let told = state(new).filter(|told| state(old).as_ref() != Some(told))?;
    let is_fine = matches!(told.as_str(), "healthy" | "ready");
    Some(News {
        is_warning: !is_fine,
        reason: "HealthRecord".to_owned(),
        note: format!("Health state is {told}"),
    })
}

fn shown(record: &HealthRecord) -> Value {
    let mut shown = json!({
        "state": record.data.state.as_str(),
        "source": {
            "name": record.metadata.name.as_deref().unwrap_or_default(),
            "namespace": record.metadata.namespace.as_deref().unwrap_or_default(),
        },
    });
    if let Some(last_run) = record.data.last_run {
        shown["lastRun"] = json!(last_run);
    }
    if let Some(details) = &record.data.details {
        shown["details"] = details.clone();
    }
    shown
}

fn state(shown: &Value) -> HealthState {
    serde_json::from_value(shown["state"].clone()).unwrap_or_default()
}

fn source(shown: &Value) -> (String, String) {
    let text = |key: &str| shown["source"][key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, state: &str) -> HealthRecord {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "default" },
            "data": { "promiseRef": { "name": "cache" }, "state": state, "lastRun": 7 },
        }))
        .unwrap()
    }

    #[test]
    fn the_worst_of_records_and_reports_is_the_state() {
        let reported = json!({ "state": "healthy", "healthRecords": [{ "state": "healthy" }] });
        let of = |states: &[&str]| {
            let records: Vec<_> = states.iter().map(|state| record(state, state)).collect();
            status(&reported, &records)["state"].clone()
        };
        assert_eq!(of(&[]), "healthy");
        assert_eq!(of(&["ready"]), "healthy");
        assert_eq!(of(&["ready", "unknown"]), "unknown");
        assert_eq!(of(&["unknown", "degraded"]), "degraded");
        assert_eq!(of(&["degraded", "unhealthy", "ready"]), "unhealthy");
    }

    #[test]
    fn that_a_state_store_tells_nothing_does_not_hide_what_a_record_says() {
        let silent = json!({ "state": "unknown", "healthRecords": [{ "state": "unknown" }] });
        let status = status(&silent, &[record("probe", "ready")]);
        assert_eq!(status["state"], "ready");
        assert_eq!(
            status["healthRecords"],
            json!([{ "state": "ready", "lastRun": 7,
                "source": { "name": "probe", "namespace": "default" } }])
        );
    }

    #[test]
    fn a_changed_state_is_told_once() {
        let of = |state: &str| json!({ "healthStatus": { "state": state } });
        let told = news(&json!({}), &of("degraded")).unwrap();
        assert!(told.is_warning);
        assert_eq!(told.note, "Health state is degraded");
        assert_eq!(news(&of("degraded"), &of("degraded")), None);
        assert!(!news(&of("degraded"), &of("healthy")).unwrap().is_warning);
    }
}
