//! Selectors that are read, refused, and matched.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn object(labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({"metadata": {"labels": labels}})
}

#[test]
fn label_selectors_match_like_kubernetes() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);
    let cases: &[Case<'_>] = &[
        ("", &[], true),
        ("a=b", &[("a", "b")], true),
        ("a==b", &[("a", "c")], false),
        ("a = b , c=d", &[("a", "b"), ("c", "d")], true),
        ("a=", &[("a", "")], true),
        ("a=,b=c", &[("a", ""), ("b", "c")], true),
        ("a!=b", &[], true),
        ("a!=b", &[("a", "b")], false),
        ("a in (b, c)", &[("a", "c")], true),
        ("a in (b,c)", &[], false),
        ("a in ()", &[("a", "")], true),
        ("a in (,b)", &[("a", "")], true),
        ("a notin (b)", &[("a", "c")], true),
        ("a notin (b)", &[("a", "b")], false),
        ("a notin (b)", &[], true),
        ("a", &[("a", "x")], true),
        ("a", &[], false),
        ("!a", &[], true),
        ("!a", &[("a", "x")], false),
        ("in in (in,notin)", &[("in", "notin")], true),
        ("example.com/x=y", &[("example.com/x", "y")], true),
        ("n>5", &[("n", "6")], true),
        ("n<5", &[("n", "6")], false),
        ("n<5", &[("n", "x")], false),
    ];
    for (text, labels, expected) in cases {
        let selector = Labels::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches(&object(labels)), *expected, "{text} on {labels:?}");
    }
}

#[test]
fn bad_label_selectors_are_told_in_the_words_of_kubernetes() {
    let cases = [
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (
            "n>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(Labels::parse(text).unwrap_err().to_string(), message, "{text}");
    }
    let error = Labels::parse("a=b@c").unwrap_err().to_string();
    assert!(
        error.contains("values[0][a]: Invalid value: \"b@c\": a valid label must be"),
        "{error}"
    );
    let error = Labels::parse("-a").unwrap_err().to_string();
    assert!(error.contains("Invalid value: \"-a\": name part must consist of"), "{error}");
    assert!(Labels::parse(&"a".repeat(70_000)).is_err());
}

#[test]
fn field_selectors_match_values_of_any_type() {
    let object = json!({"metadata": {"name": "x,y"}, "spec": {"n": 3, "b": true, "e": ""}});
    let cases = [
        ("", true),
        (r"metadata.name=x\,y", true),
        ("metadata.name==z", false),
        ("metadata.name!=z,spec.n=3", true),
        ("spec.b=true", true),
        ("spec.absent=", true),
        ("spec.absent!=", false),
        ("spec.e=", true),
    ];
    for (text, expected) in cases {
        assert_eq!(Fields::parse(text).unwrap().matches(&object), expected, "{text}");
    }
}

#[test]
fn bad_field_selectors_are_refused() {
    let error = Fields::parse("a").unwrap_err().to_string();
    assert_eq!(error, "invalid selector: 'a'; can't understand 'a'");
    assert!(Fields::parse(r"a=\x").is_err());
    assert!(Fields::parse("a=b=c").is_err());
    let fields = Fields::parse("metadata.name=a,spec.size=1").unwrap();
    assert_eq!(
        fields.check(&["status.phase"], false).unwrap_err().to_string(),
        "field label not supported: spec.size"
    );
    assert_eq!(
        fields.check(&[""; 0], false).unwrap_err().to_string(),
        "\"spec.size\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    assert!(fields.check(&["spec.size"], false).is_ok());
    assert_eq!(fields.required("metadata.name"), Some("a"));
}

#[test]
fn label_keys_follow_the_rules_of_qualified_names() {
    for good in ["a", "A-b_c.9", "example.com/x"] {
        assert!(check_label_key(good).is_empty(), "{good}");
    }
    for bad in ["", "-a", "/x", "a/b/c", "UP.com/x", "example.com/", &"x".repeat(64)] {
        assert!(!check_label_key(bad).is_empty(), "{bad}");
    }
    assert!(check_label_value("").is_empty());
    assert!(!check_label_value("a/b").is_empty());
}

proptest! {
    #[test]
    fn parsers_never_panic(text in "[a-c/=!,()<> \\\\in]{0,24}|.{0,24}") {
        let _ = Labels::parse(&text);
        let _ = Fields::parse(&text);
    }
}
