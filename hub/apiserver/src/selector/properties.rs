//! Selectors that are written, read, and asked of objects, against a reading of the words.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::{Fields, Labels};

/// A requirement as one would say it.
#[derive(Debug, Clone)]
enum Said {
    Is(&'static str),
    IsNot(&'static str),
    OneOf(Vec<&'static str>),
    NoneOf(Vec<&'static str>),
    There,
    Gone,
    Above(i64),
    Below(i64),
}

const KEYS: [&str; 5] = ["a", "b-c", "in", "notin", "example.com/d"];
const VALUES: [&str; 6] = ["", "x", "y.z", "in", "5", "-3"];

fn said() -> impl Strategy<Value = Said> {
    let value = || prop::sample::select(VALUES[..5].to_vec());
    let values = || prop::collection::vec(value(), 1..4);
    prop_oneof![
        value().prop_map(Said::Is),
        value().prop_map(Said::IsNot),
        values().prop_map(Said::OneOf),
        values().prop_map(Said::NoneOf),
        Just(Said::There),
        Just(Said::Gone),
        (0..9_i64).prop_map(Said::Above),
        (0..9_i64).prop_map(Said::Below),
    ]
}

fn requirements() -> impl Strategy<Value = Vec<(&'static str, Said)>> {
    prop::collection::vec((prop::sample::select(KEYS.to_vec()), said()), 0..4)
}

fn labels() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    // A label's value may not begin with a hyphen, but an object from elsewhere might.
    prop::collection::btree_map(
        prop::sample::select(KEYS.to_vec()),
        prop::sample::select(VALUES.to_vec()),
        0..5,
    )
}

/// `blank` stands wherever one may.
fn write(requirements: &[(&str, Said)], blank: &str) -> String {
    let texts = requirements.iter().map(|(key, said)| {
        let list = |values: &[&str]| values.join(&format!("{blank},{blank}"));
        match said {
            Said::Is(value) => format!("{key}{blank}={blank}{value}"),
            Said::IsNot(value) => format!("{key}{blank}!={blank}{value}"),
            Said::OneOf(values) => format!("{key} in{blank}({blank}{}{blank})", list(values)),
            Said::NoneOf(values) => format!("{key} notin{blank}({blank}{}{blank})", list(values)),
            Said::There => (*key).to_owned(),
            Said::Gone => format!("!{blank}{key}"),
            Said::Above(number) => format!("{key}{blank}>{blank}{number}"),
            Said::Below(number) => format!("{key}{blank}<{blank}{number}"),
        }
    });
    texts.collect::<Vec<_>>().join(&format!("{blank},{blank}"))
}

fn holds(said: &Said, label: Option<&str>) -> bool {
    let number = || label.and_then(|value| value.parse::<i64>().ok());
    match said {
        Said::Is(value) => label == Some(*value),
        Said::IsNot(value) => label != Some(*value),
        Said::OneOf(values) => label.is_some_and(|label| values.contains(&label)),
        Said::NoneOf(values) => label.is_none_or(|label| !values.contains(&label)),
        Said::There => label.is_some(),
        Said::Gone => label.is_none(),
        Said::Above(than) => number().is_some_and(|number| number > *than),
        Said::Below(than) => number().is_some_and(|number| number < *than),
    }
}

proptest! {
    #[test]
    fn labels_are_selected_as_the_words_say(
        requirements in requirements(), labels in labels(), blank in "[ \t\n]{0,2}",
    ) {
        let text = write(&requirements, &blank);
        let selector = Labels::parse(&text).unwrap();
        // Blanks do not matter.
        prop_assert_eq!(&selector, &Labels::parse(&write(&requirements, "")).unwrap());
        let object = json!({"metadata": {"labels": labels}});
        let expected =
            requirements.iter().all(|(key, said)| holds(said, labels.get(key).copied()));
        prop_assert_eq!(selector.matches(&object), expected, "{}", text);
        prop_assert_eq!(selector.is_everything(), requirements.is_empty());
    }

    #[test]
    fn fields_are_read_as_they_are_written(
        terms in prop::collection::vec(("[a-z.]{1,6}", "[a-z=,\\\\ü!]{0,5}", any::<bool>()), 0..4),
    ) {
        let escaped = |value: &str| {
            let escape = |c: char| if "\\,=".contains(c) { format!("\\{c}") } else { c.to_string() };
            value.chars().map(escape).collect::<String>()
        };
        let texts = terms.iter().map(|(field, value, equal)| {
            format!("{field}{}{}", if *equal { "=" } else { "!=" }, escaped(value))
        });
        let selector = Fields::parse(&texts.collect::<Vec<_>>().join(",")).unwrap();
        let read: Vec<_> = selector
            .terms()
            .iter()
            .map(|term| (term.field.clone(), term.value.clone(), term.equal))
            .collect();
        prop_assert_eq!(read, terms);
    }
}
