//! The layouts that Kratix was seen to write, in tables.

use super::*;

fn files(all: &[(&str, &str)]) -> FileSet {
    let mut set = FileSet::new();
    for (path, text) in all {
        set.insert(path, text.as_bytes().to_vec()).unwrap();
    }
    set
}

fn request<'a>() -> Placed<'a> {
    Placed {
        namespace: "default",
        name: "seed-oak-sow-abcde.nested-5058f",
        promise: "seed",
        resource: Some(("default", "oak")),
        pipeline: "sow",
        id: "5058f1af8388633f609cadb75a75dc9d",
        paths: vec!["oak.yaml", "sub/oak-more.yaml"],
    }
}

fn dependencies<'a>(pipeline: &'a str) -> Placed<'a> {
    Placed {
        namespace: "kratix-platform-system",
        resource: None,
        pipeline,
        paths: vec!["static/seed-dependencies.yaml"],
        ..request()
    }
}

#[test]
fn nested_directories_are_named_by_promise_request_pipeline_and_group() {
    let root = Root::new("farm", "nested", Mode::Nested).unwrap();
    for (placed, expected) in [
        (request(), "farm/nested/resources/default/seed/oak/sow/5058f"),
        (dependencies("plough"), "farm/nested/dependencies/seed/plough/5058f"),
        (dependencies(""), "farm/nested/dependencies/seed/5058f"),
    ] {
        assert_eq!(root.nested(&placed), expected);
    }
    let set = files(&[("oak.yaml", "a"), ("sub/oak-more.yaml", "b")]);
    let Some(Change::Directory { files, .. }) = root.change(&request(), Some(&set)) else {
        panic!("a directory")
    };
    assert_eq!(files.keys().collect::<Vec<_>>(), ["oak.yaml", "sub/oak-more.yaml"]);
    assert!(root.change(&request(), None).unwrap().removes());
}

#[test]
fn files_as_named_are_listed_relative_to_the_stores_own_path() {
    let root = Root::new("farm", "bare/field", Mode::Flat).unwrap();
    let set = files(&[("oak.yaml", "a"), ("sub/oak-more.yaml", "b")]);
    let Some(Change::Listed { list, files, relative_to, .. }) = root.change(&request(), Some(&set))
    else {
        panic!("a list")
    };
    assert_eq!(list, "farm/bare/field/.kratix/default-seed-oak-sow-abcde.nested-5058f.yaml");
    assert_eq!(files.keys().next().unwrap(), "farm/bare/field/oak.yaml");
    let text = crate::change::write_list(files.keys().map(String::as_str), &relative_to);
    assert_eq!(text, "files:\n- bare/field/oak.yaml\n- bare/field/sub/oak-more.yaml\n");
}

#[test]
fn one_file_joins_all_documents_and_goes_with_the_last() {
    let root = Root::new("", "joined", Mode::Aggregated("all.yaml".into())).unwrap();
    let (one, two) = (files(&[("a", "x: 1\n"), ("b", "x: 2\n")]), files(&[("c", "x: 3\n")]));
    let joined = root.aggregate([&one, &two]);
    let bytes = Some(Bytes::from_static(b"x: 1\n\n---\nx: 2\n\n---\nx: 3\n"));
    assert_eq!(joined, Some(Change::File { path: "joined/all.yaml".into(), bytes }));
    let empty = root.aggregate([]);
    assert_eq!(empty, Some(Change::File { path: "joined/all.yaml".into(), bytes: None }));
}

#[test]
fn test_documents_are_where_an_agent_of_the_layout_looks() {
    let nested = Root::new("", "dev-1", Mode::Nested).unwrap();
    assert_eq!(
        nested.canary_paths(),
        [
            "dev-1/dependencies/kratix-canary-namespace.yaml",
            "dev-1/resources/kratix-canary-configmap.yaml"
        ]
    );
    let flat = Root::new("/", ".", Mode::Flat).unwrap();
    assert_eq!(
        flat.canary_paths(),
        ["kratix-canary-namespace.yaml", "kratix-canary-configmap.yaml"]
    );
    let Change::File { bytes, .. } = &flat.canaries(true)[1].change else { panic!("a file") };
    assert!(bytes.as_ref().unwrap().starts_with(b"apiVersion: v1\ndata:\n  canary: this confirms"));
}

#[test]
fn a_path_that_climbs_out_names_its_field() {
    for (store, own, field) in
        [("..", "a", "state store's spec.path"), ("a", "b/../..", "spec.path")]
    {
        let error = Root::new(store, own, Mode::Nested).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains("below the store's top"), "{error}");
    }
}
