//! Which labels a destination must have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A Kubernetes label selector: every label and every expression must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on sets of values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Expression>,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// The values of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared, as in `metav1.LabelSelector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Selector {
    /// A selector of exact labels.
    pub fn labels(labels: BTreeMap<String, String>) -> Self {
        Self { match_labels: labels, match_expressions: Vec::new() }
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// The first condition that `labels` do not meet, in words; `None` when all are met.
    pub fn mismatch(&self, labels: &BTreeMap<String, String>) -> Option<String> {
        for (key, want) in &self.match_labels {
            match labels.get(key) {
                Some(found) if found == want => {}
                Some(found) => return Some(format!("{key}={found}, not {want}")),
                None => return Some(format!("no label {key}={want}")),
            }
        }
        let unmet = self.match_expressions.iter().find(|e| !e.holds(labels.get(&e.key)));
        unmet.map(|e| format!("{e} does not hold"))
    }

    /// Whether `labels` meet every condition.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.mismatch(labels).is_none()
    }
}

impl Expression {
    fn holds(&self, found: Option<&String>) -> bool {
        match self.operator {
            Operator::In => found.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => !found.is_some_and(|value| self.values.contains(value)),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
        }
    }
}

impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let expressions = self.match_expressions.iter().map(Expression::to_string);
        let all: Vec<_> = labels.chain(expressions).collect();
        if all.is_empty() { f.write_str("an empty selector") } else { f.write_str(&all.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn every_condition_must_hold() {
        let selector = Selector {
            match_labels: labels(&[("env", "dev")]),
            match_expressions: vec![
                Expression { key: "zone".into(), operator: Operator::In, values: vec!["a".into()] },
                Expression { key: "old".into(), operator: Operator::DoesNotExist, values: vec![] },
            ],
        };
        assert!(selector.matches(&labels(&[("env", "dev"), ("zone", "a"), ("x", "y")])));
        let missing = selector.mismatch(&labels(&[("zone", "a")])).unwrap();
        assert_eq!(missing, "no label env=dev");
        assert!(!selector.matches(&labels(&[("env", "dev"), ("zone", "b")])));
        assert!(!selector.matches(&labels(&[("env", "dev"), ("zone", "a"), ("old", "")])));
        assert_eq!(selector.to_string(), "env=dev,zone in (a),!old");
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(Selector::default().matches(&labels(&[("a", "b")])));
        assert_eq!(Selector::default().to_string(), "an empty selector");
    }
}
