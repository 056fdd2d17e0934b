//! Is a destination selector one that can match? Each fault names the field, the cause and the cure.

use muster_api::destination::{DestinationSelector, LabelExpression, LabelOperator};

use crate::workflow::read::{label_key, label_part};

/// Longest value of a label in Kubernetes.
const LABEL_VALUE_LEN_MAX: usize = 63;

/// What is wrong with a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field, from the selector on.
    pub field: String,
    /// Cause and cure.
    pub cause: String,
}

/// All that is wrong with a selector.
pub fn check(selector: &DestinationSelector) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, value) in &selector.match_labels {
        let field = format!("matchLabels[{key}]");
        faults.extend(wrong_key(&field, key));
        faults.extend(wrong_value(&field, value));
    }
    for (index, expression) in selector.match_expressions.iter().enumerate() {
        check_expression(&format!("matchExpressions[{index}]"), expression, &mut faults);
    }
    faults
}

fn check_expression(field: &str, expression: &LabelExpression, faults: &mut Vec<Fault>) {
    let LabelExpression { key, operator, values } = expression;
    faults.extend(wrong_key(&format!("{field}.key"), key));
    let field = format!("{field}.values");
    match operator {
        LabelOperator::In | LabelOperator::NotIn if values.is_empty() => {
            let cause = format!(
                "Required value: {operator:?} compares the label {key:?} with values: name at \
                 least one"
            );
            faults.push(Fault { field, cause });
        }
        LabelOperator::Exists | LabelOperator::DoesNotExist if !values.is_empty() => {
            let cause = format!(
                "Forbidden: {operator:?} only asks whether there is a label {key:?}: leave the \
                 values out, or use In or NotIn"
            );
            faults.push(Fault { field, cause });
        }
        _ => {
            for (index, value) in values.iter().enumerate() {
                faults.extend(wrong_value(&format!("{field}[{index}]"), value));
            }
        }
    }
}

fn wrong_key(field: &str, key: &str) -> Option<Fault> {
    let cause = label_key(key).err()?;
    Some(Fault {
        field: field.to_owned(),
        cause: format!("Invalid value: {key:?}: a label's key {cause}"),
    })
}

fn wrong_value(field: &str, value: &str) -> Option<Fault> {
    if value.is_empty() {
        return None;
    }
    let cause = label_part(value, LABEL_VALUE_LEN_MAX).err()?;
    Some(Fault {
        field: field.to_owned(),
        cause: format!("Invalid value: {value:?}: a label's value {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(selector: serde_json::Value) -> Vec<String> {
        let selector: DestinationSelector = serde_json::from_value(selector).unwrap();
        check(&selector).into_iter().map(|it| format!("{}: {}", it.field, it.cause)).collect()
    }

    #[test]
    fn whatever_can_match_is_taken() {
        let all = json!({
            "matchLabels": {"example.com/env": "dev", "bare": ""},
            "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]},
                {"key": "zone", "operator": "NotIn", "values": ["c"]},
                {"key": "gpu", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist", "values": []},
            ],
        });
        assert_eq!(faults(all), [""; 0]);
        assert_eq!(faults(json!({})), [""; 0], "an empty one selects everything");
    }

    #[test]
    fn what_never_can_is_refused_by_field_cause_and_cure() {
        for (selector, words) in [
            (
                json!({"matchExpressions": [{"key": "zone", "operator": "In"}]}),
                "matchExpressions[0].values: Required value: In compares the label \"zone\"",
            ),
            (
                json!({"matchExpressions": [
                    {"key": "a", "operator": "Exists"},
                    {"key": "b", "operator": "DoesNotExist", "values": ["x"]},
                ]}),
                "matchExpressions[1].values: Forbidden: DoesNotExist only asks whether",
            ),
            (
                json!({"matchExpressions": [{"key": "", "operator": "Exists"}]}),
                "matchExpressions[0].key: Invalid value: \"\": a label's key must",
            ),
            (
                json!({"matchExpressions": [
                    {"key": "a", "operator": "NotIn", "values": ["fine", "not fine"]},
                ]}),
                "matchExpressions[0].values[1]: Invalid value: \"not fine\"",
            ),
            (json!({"matchLabels": {"env": "a/b"}}), "matchLabels[env]: Invalid value: \"a/b\""),
        ] {
            let found = faults(selector);
            assert!(found.len() == 1 && found[0].starts_with(words), "{found:?}");
        }
    }
}
