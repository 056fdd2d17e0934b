//! What a pipeline hands over, as groups.

use super::*;

fn handed(files: &[(&str, &str)]) -> FileSet {
    let mut set = FileSet::new();
    for (path, text) in files {
        set.insert(path, text.as_bytes().to_vec()).unwrap();
    }
    set
}

fn refused(selectors: &str) -> String {
    let files = handed(&[("output/a", "1"), (SELECTORS_FILE, selectors)]);
    read(&files, Scope::Resource, &[]).unwrap_err().to_string()
}

#[test]
fn named_directories_are_groups_and_the_rest_has_the_promise_selectors() {
    let files = handed(&[
        ("output/eu/b.yaml", "b"),
        ("output/a.yaml", "a"),
        ("output/x/y.yaml", "y"),
        (
            SELECTORS_FILE,
            "- directory: eu/\n  matchLabels: {region: eu}\n- matchLabels: {tier: one}\n",
        ),
    ]);
    let promise = DestinationSelector {
        match_labels: [("env".to_owned(), "dev".to_owned())].into(),
        ..DestinationSelector::default()
    };
    let Output::Groups(groups) = read(&files, Scope::Resource, &[promise]).unwrap() else {
        panic!("it does not wait")
    };
    let shown: Vec<_> = groups
        .iter()
        .map(|group| {
            let paths: Vec<_> = group.files.iter().map(|(path, _)| path.to_owned()).collect();
            let sources: Vec<_> =
                group.selectors.iter().map(|s| s.source.clone().unwrap_or_default()).collect();
            format!("{}: {} <- {}", group.directory, paths.join(" "), sources.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        ["eu: eu/b.yaml <- resource-workflow", ".: a.yaml x/y.yaml <- resource-workflow promise",]
    );
}

#[test]
fn bad_selectors_are_refused_by_entry_and_field() {
    assert!(refused("a: b").contains("error unmarshaling JSON: it is a map, not a list"));
    assert!(refused("- directory: a").contains("[0].matchLabels: Required value"));
    assert!(
        refused("- matchLabels: {a: b}\n- matchLabels: {a: c}").contains("[1].directory: more")
    );
    let within = "- matchExpressions: [{key: zone, operator: Within, values: [a]}]";
    assert!(refused(within).contains("[0].matchExpressions: unknown variant `Within`"));
    let bare = "- matchExpressions: [{key: zone, operator: NotIn}]";
    assert!(refused(bare).contains("[0].matchExpressions[0].values: Required value: NotIn"));
    let nested = "- {directory: a/b, matchLabels: {a: b}}";
    assert!(refused(nested).contains(r#"[0].directory: "a/b" is nested"#));
    assert!(refused("- {directory: ../b, matchLabels: {a: b}}").contains("leaves /kratix/output"));
    let twice = "- {directory: a, matchLabels: {a: b}}\n- {directory: a/, matchLabels: {a: b}}";
    assert!(refused(twice).contains(r#"[1].directory: duplicate entry for the directory "a""#));
    assert!(refused("- {directory: none, matchLabels: {a: b}}").contains("no directory \"none\""));
}

#[test]
fn a_directory_of_nothing_goes_nowhere() {
    let selectors = "- {directory: later, matchLabels: {a: b}}";
    let files = handed(&[
        ("output/a", "1"),
        (EMPTY_DIRECTORIES, "later\nother"),
        (SELECTORS_FILE, selectors),
    ]);
    let Output::Groups(groups) = read(&files, Scope::Resource, &[]).unwrap() else {
        panic!("it does not wait")
    };
    let directories: Vec<_> = groups.iter().map(|group| group.directory.as_str()).collect();
    assert_eq!(directories, ["."]);
}

#[test]
fn a_pipeline_that_waits_makes_no_work() {
    let files = handed(&[("output/a", "1"), (CONTROL_FILE, "retryAfter: 30s\nmaxAttempts: 3\n")]);
    assert_eq!(read(&files, Scope::Resource, &[]).unwrap(), Output::Wait);
    let files = handed(&[(CONTROL_FILE, "retryAfter: soon\n")]);
    let error = read(&files, Scope::Resource, &[]).unwrap_err().to_string();
    assert!(error.contains("retryAfter: \"soon\" is not a duration"), "{error}");
}
